"""Optimizers by name, with a part of their own for the parameters of switches."""

import dataclasses
import functools
import math

import jax
import optax

from surnn_jax.typing import Array, Params

_RULES = {
    "adam": optax.scale_by_adam,
    # The constants that the authors of arXiv 1412.3555 use in code that they released later.
    "rmsprop": lambda: optax.chain(optax.scale_by_rms(decay=0.95), optax.trace(decay=0.9)),
    # Optax begins the sum of squares at 0.1, which gradients of a softmax over many words never
    # reach; it begins at nothing, as published.
    "adagrad": functools.partial(optax.scale_by_rss, initial_accumulator_value=0.0),
}
_SCHEDULES = ("constant", "cosine")
_FLOOR = 0.05  # where the cosine ends, as a share of its peak


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated.

    Attributes:
        name: ``adam``, ``rmsprop`` (squares averaged by 0.95, and a momentum of 0.9) or
            ``adagrad`` (Duchi et al. 2011, JMLR 12; it remembers one number a weight, and suits
            words that come seldom), with Optax's other constants.
        learning_rate: the peak rate.
        schedule: ``constant``, or ``cosine`` down to 5 % of the peak at `total_steps`.
        total_steps: length of the cosine in updates, `warmup` included.
        warmup: updates in which the rate rises linearly from 0 to its peak.
        clip: largest global norm of the gradient of the weights; None for no clipping. The
            switches' gradient neither counts towards the norm nor is scaled.
        weight_decay: share of every weight taken off a step, as a factor on the learning rate
            (decoupled, as in AdamW: arXiv 1711.05101). Switches do not decay.
        switch_scale: factor on the learning rate of the parameters below a key ``switch``; 0
            keeps them as they are.
        accumulate: batches an update: it takes the mean of their gradients, for what does not fit
            into memory as one batch.

    Raises:
        ValueError: a name that does not exist, or a number out of range.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    total_steps: int | None = None
    warmup: int = 0
    clip: float | None = None
    weight_decay: float = 0.0
    switch_scale: float = 1.0
    accumulate: int = 1

    def __post_init__(self):
        if self.name not in _RULES:
            raise ValueError(f"optimiser: no {self.name!r}; there are {', '.join(_RULES)}")
        if self.schedule not in _SCHEDULES:
            raise ValueError(f"schedule: no {self.schedule!r}; there are {', '.join(_SCHEDULES)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.schedule == "cosine" and (self.total_steps is None or self.total_steps < 1):
            raise ValueError(f"schedule cosine needs total_steps >= 1, got {self.total_steps}")
        if self.warmup < 0 or (self.schedule == "cosine" and self.warmup >= self.total_steps):
            raise ValueError(
                f"warmup must be 0 or more steps, fewer than total_steps, got {self.warmup}"
            )
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ValueError(f"clip must be positive, or None for no clipping, got {self.clip}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        if not 0 <= self.switch_scale < math.inf:
            raise ValueError(f"switch_scale must not be negative, got {self.switch_scale}")
        if self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1 batch, got {self.accumulate}")


def make(
    config: OptimizerConfig,
    learning_rate: Array | None = None,
    weight_decay: Array | None = None,
) -> optax.GradientTransformation:
    """The optimizer that `config` describes.

    Args:
        config: all that is known before compiling.
        learning_rate: a scalar in place of the one in `config`; may be traced, so that one
            compiled program serves many rates.
        weight_decay: likewise.
    """
    peak = config.learning_rate if learning_rate is None else learning_rate
    share = config.weight_decay if weight_decay is None else weight_decay
    rate = peak
    if config.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, config.total_steps - config.warmup, alpha=_FLOOR)
    if config.warmup:
        rise = optax.linear_schedule(0.0, peak, config.warmup)
        after = rate if callable(rate) else optax.constant_schedule(rate)
        rate = optax.join_schedules([rise, after], [config.warmup])
    rule, down = _RULES[config.name](), optax.scale_by_learning_rate(rate)
    clip = optax.identity() if config.clip is None else optax.clip_by_global_norm(config.clip)
    decay = optax.add_decayed_weights(share)
    rules = {
        "weights": optax.chain(clip, rule, decay, down),
        "switch": optax.chain(rule, down, optax.scale(config.switch_scale)),
    }
    rule = optax.partition(rules, _labels)
    if config.accumulate == 1:
        return rule
    return optax.MultiSteps(rule, config.accumulate).gradient_transformation()


def _labels(params: Params) -> Params:
    def label(path, _):
        below = any(getattr(part, "key", None) == "switch" for part in path)
        return "switch" if below else "weights"

    return jax.tree_util.tree_map_with_path(label, params)
