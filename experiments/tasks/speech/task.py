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


def frames(samples: Array, scale: Normalization) -> tuple[Array, Array]:
    """Normalised inputs ``[*batch, T, 20]`` and targets ``[*batch, T, 10]``, T = W / 10 - 2.

    Args:
        samples: 16-bit integers ``[*batch, W]``; W is a multiple of 10, 30 at least.
        scale: mean and deviation of the training samples.
    """
    x = (samples.astype(jnp.float32) - scale.mean) / scale.deviation
    tens = x.reshape(*x.shape[:-1], -1, NEXT)
    return jnp.concatenate([tens[..., :-2, :], tens[..., 1:-1, :]], -1), tens[..., 2:, :]


def measure(
    model: WaveformPredictor, scale: Normalization, params: Params, batch: dict[str, Array]
) -> Metrics:
    """``nll`` (nats a step, of ten normalised samples) and ``update_rate``, as totals."""
    return _measure(model, scale, params, batch)[0]


def _measure(model, scale, params, batch) -> tuple[Metrics, Array | float]:
    """The metrics, and the term that balances the switch."""
    x, target = frames(batch["x"], scale)
    valid, steps = batch["index"] >= 0, x.shape[1]
    outputs, run = model.apply({"params": params}, x, jnp.where(valid, steps, 0))
    nats = -model.readout.log_density(outputs, target)
    weight = valid.sum().astype(nats.dtype) * steps
    metrics = {
        "nll": (jnp.where(valid[:, None], nats, 0).sum(), weight),
        "update_rate": (run.rate * weight, weight),
    }
    return metrics, run.balance


def task_of(config: Config, model: WaveformPredictor, scale: Normalization) -> Task:
    """The three functions that the trainer wants."""

    def init(key, batch):
        return model.init(key, frames(batch["x"], scale)[0])["params"]

    def loss(params, batch, key):
        if config.weight_noise:
            params = recurrent.noisy(params, key, config.weight_noise)
        measured, balance = _measure(model, scale, params, batch)
        (nats, weight), (rate, _) = measured["nll"], measured["update_rate"]
        penalty = switches.rate_penalty(rate / weight, config.rate)
        return nats / weight + config.hold * penalty + balance, measured

    def evaluate(params, batch):
        return measure(model, scale, params, batch)

    return Task(init, loss, evaluate)


class Prediction(NamedTuple):
    """A model on one window.

    Attributes:
        mean: ``[T, 10]``, the expected samples, as 16-bit numbers.
        deviation: ``[T, 10]``, their standard deviations, as 16-bit numbers.
        nats: ``[T]``, negative log-density of the samples that came.
        table: booleans ``[T, H]``, which neurons were updated; None without a switch.
    """

    mean: np.ndarray
    deviation: np.ndarray
    nats: np.ndarray
    table: np.ndarray | None


def predict(
    model: WaveformPredictor, scale: Normalization, params: Params, window: np.ndarray
) -> Prediction:
    """Runs the model over one window, int16 ``[W]``."""

    @jax.jit
    def all_of_it(params, window):
        x, target = frames(window[None], scale)
        outputs, run = model.apply({"params": params}, x)
        table = run.update_mask
        if table is not None:
            table = (table[0] if table.ndim == 3 else table) > 0.5
        nats = -model.readout.log_density(outputs, target)
        mean, deviation = model.readout.moments(outputs)
        return mean[0], deviation[0], nats[0], table

    mean, deviation, nats, table = jax.device_get(all_of_it(params, window))
    width = scale.deviation
    return Prediction(mean * width + scale.mean, deviation * width, nats, table)


def sample(
    model: WaveformPredictor,
    scale: Normalization,
    params: Params,
    prime: np.ndarray,
    steps: int,
    seed: int,
) -> np.ndarray:
    """The model's own continuation, int16 ``[W + 10 steps]``, the prime included.

    Every sample is rounded and clipped to 16 bits before the model reads it, as in a file.

    Args:
        model: the model.
        scale: the one it was trained with.
        params: its parameters.
        prime: int16 ``[W]``, the samples it reads first; W is a multiple of 10, 20 at least.
        steps: how often it draws ten samples.
        seed: of the draws.
    """
    variables = {"params": params}

    def normalized(samples):
        return (samples.astype(jnp.float32) - scale.mean) / scale.deviation

    def listen(carry, frame):
        return model.apply(variables, carry, normalized(frame)[None], method="step")

    def play(state, key):
        carry, last = state
        carry, outputs = listen(carry, last)
        drawn = model.readout.sample(key, outputs)[0] * scale.deviation + scale.mean
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
