"""The model, the loss and the score of the music experiment, as pure functions."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.tasks import recurrent
from experiments.tasks.music.config import FEATURES, Config
from surnn_jax import switches
from surnn_jax.layers import FramePredictor
from surnn_jax.train import Task
from surnn_jax.train.task import Metrics
from surnn_jax.typing import Array, Params

KEYS = 88


def model_of(config: Config) -> FramePredictor:
    """The model that a configuration describes.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """
    cell, features, switch = recurrent.layer_of(config, FEATURES)
    return FramePredictor(cell, features, KEYS, switch)


def frames(batch: dict[str, Array]) -> tuple[Array, Array, Array, Array]:
    """Inputs ``[B, T-1, 88]``, targets one frame later, their lengths ``[B]``, and which count."""
    x = batch["x"].astype(jnp.float32)
    lengths = jnp.maximum(batch["lengths"] - 1, 0)
    counts = jnp.arange(x.shape[1] - 1)[None, :] < lengths[:, None]
    return x[:, :-1], x[:, 1:], lengths, counts


def measure(model: FramePredictor, params: Params, batch: dict[str, Array]) -> Metrics:
    """``nll`` (nats a predicted frame, summed over keys) and ``update_rate``, as totals."""
    return _measure(model, params, batch)[0]


def _measure(model, params, batch) -> tuple[Metrics, Array | float]:
    """The metrics, and the term that balances the switch."""
    x, target, lengths, counts = frames(batch)
    logits, run = model.apply({"params": params}, x, lengths)
    nats = optax.sigmoid_binary_cross_entropy(logits, target).sum(-1)
    weight = counts.sum().astype(nats.dtype)
    metrics = {
        "nll": (jnp.where(counts, nats, 0).sum(), weight),
        "update_rate": (run.rate * weight, weight),
    }
    return metrics, run.balance


class TrainingStats(NamedTuple):
    """Statistics of the training pieces.

    Attributes:
        logit: of the share of keys that sound. The bias of the read-out starts from it; from
            zeros it takes most of the training to learn how few keys sound at once.
        frames: predicted frames of a batch, on average. The loss is divided by it, not by those
            of the batch at hand: pieces of a length share a batch, and a frame of a short piece
            would count more than one of a long.
    """

    logit: float
    frames: float


def training_stats(pieces: Sequence[np.ndarray], batch_size: int) -> TrainingStats:
    """The statistics of training pieces ``[T, 88]``."""
    rolls = np.concatenate(pieces)
    share = rolls.sum(dtype=np.int64) / rolls.size
    batches = -(-len(pieces) // batch_size)
    logit = float(np.log(share / (1 - share)))
    return TrainingStats(logit, (len(rolls) - len(pieces)) / batches)


def task_of(config: Config, model: FramePredictor, pieces: TrainingStats) -> Task:
    """The three functions that the trainer wants.

    Args:
        config: penalty, noise and update rate.
        model: what to train.
        pieces: statistics of the training pieces.
    """

    def init(key, batch):
        x, _, lengths, _ = frames(batch)
        params = model.init(key, x, lengths)["params"]
        start = jnp.full_like(params["readout"]["bias"], pieces.logit)
        return {**params, "readout": {**params["readout"], "bias": start}}

    def loss(params, batch, key):
        if config.weight_noise:
            params = recurrent.noisy(params, key, config.weight_noise)
        measured, balance = _measure(model, params, batch)
        (nats, weight), (rate, _) = measured["nll"], measured["update_rate"]
        penalty = switches.rate_penalty(rate / weight, config.rate)
        return nats / pieces.frames + config.hold * penalty + balance, measured

    def evaluate(params, batch):
        return measure(model, params, batch)

    return Task(init, loss, evaluate)


class Prediction(NamedTuple):
    """A model on one piece.

    Attributes:
        probability: ``[T, 88]``; frame t was predicted from the frames before it (NaN at 0).
        table: booleans ``[T-1, H]``, which neurons were updated; None without a switch.
    """

    probability: np.ndarray
    table: np.ndarray | None


def predict(model: FramePredictor, params: Params, piece: np.ndarray) -> Prediction:
    """Predicts one piece ``[T, 88]`` frame by frame."""
    x = jnp.asarray(piece, jnp.float32)[None]
    logits, run = jax.jit(model.apply)({"params": params}, x[:, :-1])
    probability = np.full(piece.shape, np.nan, np.float32)
    probability[1:] = jax.nn.sigmoid(logits[0])
    if run.update_mask is None:
        return Prediction(probability, None)
    table = run.update_mask if run.update_mask.ndim == 2 else run.update_mask[0]
    return Prediction(probability, np.asarray(table > 0.5))


def sample(
    model: FramePredictor, params: Params, prime: np.ndarray, steps: int, seed: int
) -> np.ndarray:
    """The frames of `prime` ``[T, 88]``, then `steps` more, sampled one after another.

    Every key is drawn independently from its probability, as the model understands them.
    """
    variables = {"params": params}

    def listen(carry, frame):
        carry, logits = model.apply(variables, carry, frame[None], method="step")
        return carry, logits[0]

    def play(state, key):
        carry, logits = state
        frame = jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.float32)
        return listen(carry, frame), frame

    @jax.jit
    def both(prime, keys):
        carry = model.apply(variables, (1,), method="initial_carry")
        carry, logits = jax.lax.scan(listen, carry, prime)
        return jax.lax.scan(play, (carry, logits[-1]), keys)[1]

    keys = jax.random.split(jax.random.key(seed), steps)
    more = both(jnp.asarray(prime, jnp.float32), keys)
    return np.concatenate([prime, np.asarray(more, np.uint8)])
