"""The model, the loss and the score of the speech experiment, as pure functions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.tasks import recurrent
from experiments.tasks.speech.config import FEATURES, Config
from experiments.tasks.speech.data import NEXT, Normalization
from surnn_jax import switches
from surnn_jax.layers import GaussianMixture, WaveformPredictor
from surnn_jax.train import Task
from surnn_jax.train.task import Metrics
from surnn_jax.typing import Array, Params

COMPONENTS = 20
_LEAST, _MOST = -(2**15), 2**15 - 1


def model_of(config: Config) -> WaveformPredictor:
    """The model that a configuration describes.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """
    cell, features, switch = recurrent.layer_of(config, FEATURES)
    readout = GaussianMixture(COMPONENTS, NEXT, config.floor)
    return WaveformPredictor(cell, features, readout, switch)


def frames(samples: Array, level: Normalization) -> tuple[Array, Array]:
    """Normalised inputs ``[*batch, T, 20]`` and targets ``[*batch, T, 10]``, T = W / 10 - 2.

    Args:
        samples: 16-bit integers ``[*batch, W]``; W is a multiple of 10, 30 at least.
        level: what is subtracted, then divided by.
    """
    x = (samples.astype(jnp.float32) - level.mean) / level.deviation
    tens = x.reshape(*x.shape[:-1], -1, NEXT)
    return jnp.concatenate([tens[..., :-2, :], tens[..., 1:-1, :]], -1), tens[..., 2:, :]


def measure(
    model: WaveformPredictor, level: Normalization, params: Params, batch: dict[str, Array]
) -> Metrics:
    """``nll`` (nats a step, of ten normalised samples) and ``update_rate``, as totals."""
    x, target = frames(batch["x"], level)
    there, steps = batch["index"] >= 0, x.shape[1]
    outputs, run = model.apply({"params": params}, x, jnp.where(there, steps, 0))
    nats = -model.readout.log_density(outputs, target)
    weight = there.sum().astype(nats.dtype) * steps
    return {
        "nll": (jnp.where(there[:, None], nats, 0).sum(), weight),
        "update_rate": (run.rate * weight, weight),
    }


def task_of(config: Config, level: Normalization) -> Task:
    """The three functions that the trainer wants."""
    model = model_of(config)

    def init(key, batch):
        return model.init(key, frames(batch["x"], level)[0])["params"]

    def loss(params, batch, key):
        if config.weight_noise:
            params = recurrent.noisy(params, key, config.weight_noise)
        measured = measure(model, level, params, batch)
        (nats, weight), (rate, _) = measured["nll"], measured["update_rate"]
        penalty = switches.rate_penalty(rate / weight, config.rate)
        return nats / weight + config.hold * penalty, measured

    def evaluate(params, batch):
        return measure(model, level, params, batch)

    return Task(init, loss, evaluate)


class Prediction(NamedTuple):
    """What a model makes of one window.

    Attributes:
        mean: ``[T, 10]``, of what was expected, as 16-bit numbers.
        deviation: ``[T, 10]``, likewise.
        nats: ``[T]``, negative log-density of what came.
        table: booleans ``[T, H]``, which neurons were updated; None without a switch.
    """

    mean: np.ndarray
    deviation: np.ndarray
    nats: np.ndarray
    table: np.ndarray | None


def predict(
    model: WaveformPredictor, level: Normalization, params: Params, window: np.ndarray
) -> Prediction:
    """Runs the model over one window, int16 ``[W]``."""

    @jax.jit
    def all_of_it(params, window):
        x, target = frames(window[None], level)
        outputs, run = model.apply({"params": params}, x)
        table = run.update_mask
        if table is not None:
            table = (table[0] if table.ndim == 3 else table) > 0.5
        nats = -model.readout.log_density(outputs, target)
        mean, deviation = model.readout.moments(outputs)
        return mean[0], deviation[0], nats[0], table

    mean, deviation, nats, table = jax.device_get(all_of_it(params, window))
    scale = level.deviation
    return Prediction(mean * scale + level.mean, deviation * scale, nats, table)


def sample(
    model: WaveformPredictor,
    level: Normalization,
    params: Params,
    prime: np.ndarray,
    steps: int,
    seed: int,
) -> np.ndarray:
    """The model's own continuation, int16 ``[W + 10 steps]``, the prime included.

    Every sample is rounded and held within 16 bits before the model hears it, as a file would.

    Args:
        model: what goes on.
        level: as it was trained with.
        params: its parameters.
        prime: int16 ``[W]``, what it hears first; W is a multiple of 10, 20 at least.
        steps: how often it draws ten samples.
        seed: of the draws.
    """
    variables = {"params": params}

    def heard(samples):
        return (samples.astype(jnp.float32) - level.mean) / level.deviation

    def listen(carry, frame):
        return model.apply(variables, carry, heard(frame)[None], method="step")

    def play(state, key):
        carry, last = state
        carry, outputs = listen(carry, last)
        drawn = model.readout.sample(key, outputs)[0] * level.deviation + level.mean
        new = jnp.clip(jnp.round(drawn), _LEAST, _MOST).astype(jnp.int16)
        return (carry, jnp.concatenate([last[NEXT:], new])), new

    @jax.jit
    def both(prime, keys):
        tens = prime.reshape(-1, NEXT)
        pairs = jnp.concatenate([tens[:-1], tens[1:]], axis=1)
        carry = model.apply(variables, (1,), method="initial_carry")
        carry, _ = jax.lax.scan(listen, carry, pairs[:-1])
        return jax.lax.scan(play, (carry, pairs[-1]), keys)[1]

    keys = jax.random.split(jax.random.key(seed), steps)
    more = both(jnp.asarray(prime), keys)
    return np.concatenate([prime, np.asarray(more).reshape(-1)])
