"""Optimizers by name, with groups: weights, switches, and the rates of state spaces.

The path of a parameter gives its group:

- below a key ``switch``: not clipped, not decayed, a learning rate of their own; thresholds that a
  homeostat moves have a rule of their own;
- the time steps and poles of S4D, LRU and Mamba (:data:`STATE_SPACE`): not decayed, a learning
  rate of their own, as their authors have it;
- kernels, that is all others of two axes or more: decayed;
- biases, scales of norms, peepholes, skip connections ``d`` and learned carries: not decayed.
"""

import dataclasses
import functools
import math
from typing import Any

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
STATE_SPACE = frozenset(
    {
        *("log_dt", "log_a_real", "a_imag"),  # S4D
        *("nu_log", "theta_log", "gamma_log"),  # LRU
        *("a_log", "dt_bias"),  # Mamba and Mamba-2
    }
)
"""The parameters of time steps and poles, by their own names."""

_NOT_DECAYED = STATE_SPACE | {"bias", "scale", "d"}
_NOTHING_BELOW_DECAYS = {"vector", "carry"}  # of a cell; with heads they have two axes
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
        weight_decay: share of every kernel taken off a step, as a factor on the learning rate
            (decoupled, as in AdamW: arXiv 1711.05101). Only kernels decay; see the top of the
            module.
        switch_scale: factor on the learning rate of the parameters below a key ``switch``; 0
            keeps them as they are.
        balance_rate: η, the rate at which a homeostat moves the parameters ``b`` below a key
            ``switch`` (:attr:`surnn_jax.switches.Rhythm.balance`, ``target``): by
            their gradient as it is, times η and the schedule relative to its peak, whatever the
            learning rate is. None for parameters like the others of the switch.
        ssm_lr_multiplier: factor on the learning rate of the time steps and poles of state
            spaces. The authors of S4D and LRU train them at 0.001 or less, so take 0.1 for a rate
            of 0.01. Mamba's authors have one rate for all: leave it at 1.
        accumulate: batches an update: it takes the mean of their gradients, for what does not fit
            into memory as one batch.

    Raises:
        ValueError: a name that does not exist, or a number out of range.

    Examples:
        >>> from surnn_jax import train
        >>> train.OptimizerConfig("adam", 0.01, schedule="cosine", total_steps=1000).warmup
        0
        >>> train.OptimizerConfig("adam", learning_rate=-1)
        Traceback (most recent call last):
        ValueError: learning_rate must be positive, got -1
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    total_steps: int | None = None
    warmup: int = 0
    clip: float | None = None
    weight_decay: float = 0.0
    switch_scale: float = 1.0
    balance_rate: float | None = None
    ssm_lr_multiplier: float = 1.0
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
        if self.balance_rate is not None and not 0 <= self.balance_rate < math.inf:
            raise ValueError(f"balance_rate must not be negative, got {self.balance_rate}")
        if not 0 <= self.ssm_lr_multiplier < math.inf:
            raise ValueError(
                f"ssm_lr_multiplier must not be negative, got {self.ssm_lr_multiplier}"
            )
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
        weight_decay: replaces the one in `config`; may be traced.

    Examples:
        >>> from surnn_jax import train
        >>> rule = train.make_optimizer(train.OptimizerConfig("adam", 0.1))
        >>> params = {"w": jnp.ones(())}
        >>> updates, state = rule.update({"w": jnp.ones(())}, rule.init(params), params)
        >>> round(float(updates["w"]), 3)
        -0.1
    """
    peak = config.learning_rate if learning_rate is None else learning_rate
    share = config.weight_decay if weight_decay is None else weight_decay
    rule, down = _RULES[config.name](), optax.scale_by_learning_rate(_schedule(config, peak))
    clip = optax.identity() if config.clip is None else optax.clip_by_global_norm(config.clip)
    groups = _groups(share, config.ssm_lr_multiplier)
    rules = {
        "weights": optax.chain(clip, rule, groups, down),
        "switch": optax.chain(rule, down, optax.scale(config.switch_scale)),
    }
    labels = _labels
    if config.balance_rate is not None:
        rules["balance"] = optax.scale_by_learning_rate(_schedule(config, config.balance_rate))
        labels = functools.partial(_labels, balanced=True)
    rule = optax.partition(rules, labels)
    if config.accumulate == 1:
        return rule
    return optax.MultiSteps(rule, config.accumulate).gradient_transformation()


def _schedule(config: OptimizerConfig, peak: Array | float) -> Any:
    """The learning rate by update, or one number, for a schedule with this peak."""
    rate = peak
    if config.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, config.total_steps - config.warmup, alpha=_FLOOR)
    if config.warmup:
        rise = optax.linear_schedule(0.0, peak, config.warmup)
        after = rate if callable(rate) else optax.constant_schedule(rate)
        rate = optax.join_schedules([rise, after], [config.warmup])
    return rate


def decays(path: tuple[Any, ...], leaf: Array) -> bool:
    """Whether weight decay applies to the parameter at a path of `jax.tree_util`."""
    keys = [getattr(part, "key", None) for part in path]
    if "switch" in keys or not _NOTHING_BELOW_DECAYS.isdisjoint(keys):
        return False
    return leaf.ndim >= 2 and keys[-1] not in _NOT_DECAYED


def _groups(share: Array | float, ssm_lr_multiplier: float) -> optax.GradientTransformation:
    """Decay of kernels, and the rate of state spaces. Its state is that of stock weight decay."""

    def one(path, update, param):
        if getattr(path[-1], "key", None) in STATE_SPACE:
            return ssm_lr_multiplier * update
        return update + share * param if decays(path, param) else update

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(one, updates, params)
    )


def _labels(params: Params, balanced: bool = False) -> Params:
    def label(path, _):
        keys = [getattr(part, "key", None) for part in path]
        if "switch" not in keys:
            return "weights"
        return "balance" if balanced and keys[-1] == "b" else "switch"

    return jax.tree_util.tree_map_with_path(label, params)
