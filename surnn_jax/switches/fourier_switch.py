"""The switch of the suRNN paper, a learned rhythm for every neuron, and what `event` has of it."""

import dataclasses
import functools
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.names import unknown
from surnn_jax.switches import surrogates
from surnn_jax.switches.phase import angle
from surnn_jax.switches.switch import Switch, SwitchInputs
from surnn_jax.typing import Array, Params

BALANCES = ("none", "target", "floor")
"""Rules that keep the neurons of a switch open, see :attr:`Rhythm.balance`."""

FLOOR = 0.2
"""Below this share of `rate` the balance ``floor`` lifts a neuron."""

_MOST_STEPS = 4096
TRIANGULAR = surrogates.triangular()
"""The surrogate that learned switches have by default."""


@dataclasses.dataclass(frozen=True)
class Rhythm(Switch):
    """A switch with a sum of sines in time: base of `Fourier` and `Event`.

    Attributes:
        horizon: the length in steps of the sequences it is made for. Periods are drawn up to it
            and angular frequencies are learned in units of 1 / horizon, so that their gradient
            does not grow with time.
        harmonics: K, sines a neuron.
        rate: share of open switches at the start of training, strictly between 0 and 1.
        shortest: the shortest period drawn, in steps.
        longest: the longest period drawn, in steps; None for `horizon`.
        per_neuron: whether every neuron has its own K frequencies; False for K shared ones, as
            in the paper.
        groups: G, how many schedules the layer has: neurons are cut into G blocks of equal size
            that open and close together. None for one a neuron, as in the paper; 1 is one rhythm
            for the layer. With few groups, whole steps are empty, and those cost nothing on any
            back end.
        gate: how a logit opens, or the name of that surrogate, see
            :mod:`surnn_jax.switches.surrogates`.
        frozen: the switch gets no gradient and keeps its random start: the control for claims
            about learned rhythms.
        balance: how thresholds are kept where neurons open. A neuron whose logits lie outside the
            window of the surrogate gets no gradient: once shut it stays shut. ``none``: b is
            learned like everything else. ``target``: b is not learned; a homeostat moves it so
            that every neuron opens at `rate`, ``b_i ← b_i - η s_i (r_i - rate)``, with the open
            share r_i of neuron i among the valid steps of the batch and the standard deviation s_i
            of its logit. ``floor``: b is learned, and neurons that open at less than a fifth of
            `rate` are lifted by the same rule.

            The correction comes as a gradient: :func:`surnn_jax.scan.run` returns a term
            (`ScanOutput.balance`) whose value is 0 and whose gradient by b is ``s_i (r_i - …)``.
            Add it to the loss. For ``target`` the optimizer must take b's gradient as it is, times
            η (`OptimizerConfig.balance_rate`). A :class:`surnn_jax.layers.UnitCell` returns no such
            term: its b is learned under ``floor`` and stays as it is under ``target``.

    Examples:
        >>> from surnn_jax import switches
        >>> rhythm = switches.Rhythm(horizon=100, harmonics=2)
        >>> params = rhythm.init_rhythm(jax.random.key(0), 4, jnp.float32)
        >>> rhythm.rhythm(params, jnp.arange(6)).shape
        (6, 4)
    """

    horizon: int
    harmonics: int = 4
    rate: float = 0.17
    shortest: float = 2.0
    longest: float | None = None
    per_neuron: bool = False
    groups: int | None = None
    gate: surrogates.Surrogate = TRIANGULAR
    frozen: bool = False
    balance: str = "none"

    def __post_init__(self):
        name = type(self).__name__.lower()
        if not isinstance(self.horizon, numbers.Real):
            raise ValueError(f"{name}: horizon is a number of steps, got {self.horizon!r}")
        if self.balance not in BALANCES:
            raise unknown("balance", self.balance, BALANCES)
        if self.horizon < 1:
            raise ValueError(f"{name}: horizon must be at least 1 step, got {self.horizon}")
        if self.harmonics < 0:
            raise ValueError(f"{name}: harmonics must not be negative, got {self.harmonics}")
        if self.groups is not None and self.groups < 1:
            raise ValueError(f"{name}: groups must be at least 1, got {self.groups}")
        object.__setattr__(self, "gate", surrogates.get(self.gate))
        if not 0 < self.rate < 1:
            raise ValueError(
                f"{name}: rate must lie strictly between 0 and 1, got {self.rate}; "
                "for a unit that always updates, use no switch"
            )
        if self.gate.name == "given":
            raise ValueError(f"{name}: its logits are no openness, so the gate cannot be 'given'")
        if not 0 < self.shortest <= self.top < math.inf:
            raise ValueError(
                f"{name}: periods must satisfy 0 < shortest <= longest < inf, "
                f"got {self.shortest} and {self.top}"
            )

    @property
    def top(self) -> float:
        """The longest period drawn."""
        return max(float(self.horizon), self.shortest) if self.longest is None else self.longest

    def schedules(self, features: int) -> int:
        """G, or H without groups."""
        groups = self.groups or features
        if features % groups:
            name = type(self).__name__.lower()
            raise ValueError(f"{name}: {features} neurons cannot be cut into {groups} equal groups")
        return groups

    def init_rhythm(self, key: Array, features: int, dtype: Any) -> Params:
        """Random frequencies, amplitudes and phases; see :meth:`rhythm`."""
        k = self.harmonics
        draw, amplitude, phase = jax.random.split(key, 3)
        low, high = math.log(self.shortest), math.log(self.top)
        if self.per_neuron:
            place = jax.random.uniform(draw, (k, features), dtype)
        else:  # log-spaced, so that K shared periods cover the range whatever the draw
            place = jnp.linspace(0, 1, k, dtype=dtype) if k != 1 else jnp.full((1,), 0.5, dtype)
        period = jnp.exp(low + (high - low) * place)
        return {
            "theta": (2 * math.pi * self.horizon / period).astype(dtype),
            "alpha": jax.random.normal(amplitude, (k, features), dtype),
            "phi": jax.random.uniform(phase, (k, features), dtype, 0, 2 * math.pi),
        }

    def learned_bias(self, params: Params) -> Array:
        """b as the logits read it: without a gradient if a homeostat moves it."""
        return jax.lax.stop_gradient(params["b"]) if self.balance == "target" else params["b"]

    def balance_term(self, params: Params, seen: SwitchInputs, share: Array) -> Array:
        if self.balance == "none":
            return jnp.zeros((), share.dtype)
        error = share - self.rate
        if self.balance == "floor":
            error = jnp.minimum(share - FLOOR * self.rate, 0)
        b = params["b"]
        pull = jax.lax.stop_gradient(self.deviation(params, seen) * error)
        return jnp.sum((b - jax.lax.stop_gradient(b)) * pull)

    def deviation(self, params: Params, seen: SwitchInputs) -> Array:
        """The scale by which the logits of each schedule are divided, ``[G]``."""
        raise NotImplementedError

    def waves(self, params: Params, t: Array) -> tuple[Array, Array]:
        """The rhythm of neurons that share their frequencies, as the factors of a product.

        ``sin(u + phi) = sin u cos phi + cos u sin phi``, so that 2 T K sines do instead of T K H.

        Returns:
            Waves ``[*t.shape, 2K]`` and weights ``[2K, H]``.
        """
        theta, alpha, phi = params["theta"], params["alpha"], params["phi"]
        turned = angle(theta, t, self.horizon)
        waves = jnp.concatenate([jnp.sin(turned), jnp.cos(turned)], axis=-1)
        return waves, jnp.concatenate([alpha * jnp.cos(phi), alpha * jnp.sin(phi)])

    def rhythm(self, params: Params, t: Array) -> Array:
        """``Σ_k alpha[k] sin(theta[k] t / horizon + phi[k])``, ``[*t.shape, H]``."""
        theta, alpha, phi = params["theta"], params["alpha"], params["phi"]
        if not self.per_neuron:
            return weigh(*self.waves(params, t))
        lead = (1,) * t.ndim
        total = jnp.zeros((*t.shape, alpha.shape[-1]), theta.dtype)
        # One harmonic at a time keeps memory at one table, whatever K is.
        for k in range(self.harmonics):
            turned = angle(theta[k], t, self.horizon) + phi[k].reshape(*lead, -1)
            total = total + alpha[k].reshape(*lead, -1) * jnp.sin(turned)
        return total


@dataclasses.dataclass(frozen=True)
class Fourier(Rhythm):
    """A truncated Fourier series in time, thresholded (arXiv 2603.02226, gate equation).

        a[t,i] = b[i] + Σ_k alpha[k,i] sin(omega[k] t + phi[k,i]),   g[t,i] = 1[a[t,i] > 0]

    It depends on time alone, so the whole batch shares one update mask ``[T, H]``. The logits
    returned are a / √Σ_k alpha², the scale for which the width of the surrogate is meant. The
    parameter theta is omega · horizon.

    The paper does not give K, initialisation, surrogate or the treatment of omega. The defaults
    are ours: K = 4 log-spaced periods from 2 to the horizon, alpha ~ N(0, 1), phi uniform,
    b by quantile.

    Examples:
        >>> from surnn_jax import switches
        >>> switch = switches.Fourier(horizon=100, rate=0.2, groups=2)
        >>> switch.per_example, switch.schedules(features=8)
        (False, 2)
    """

    def __post_init__(self):
        super().__post_init__()
        if self.harmonics < 1:
            raise ValueError("fourier: harmonics must be at least 1, or nothing ever changes")

    def init(
        self, key: Array, seen: SwitchInputs, features: int, dtype: Any = jnp.float32
    ) -> Params:
        pick, draw = jax.random.split(key)
        params = self.init_rhythm(draw, self.schedules(features), dtype)
        t = jnp.arange(min(self.horizon, _MOST_STEPS))
        if self.horizon > _MOST_STEPS:  # random places: a stride would beat with the periods
            t = jax.random.randint(pick, (_MOST_STEPS,), 0, self.horizon)
        return {**params, "b": quantile_bias(self.rhythm(params, t), rate=self.rate)}

    def logits(self, params: Params, seen: SwitchInputs) -> Array:
        raw = self.rhythm(params, seen.t)
        lead = (1,) * (raw.ndim - 1)
        power = self.deviation(params, seen)
        return (raw + self.learned_bias(params).reshape(*lead, -1)) / power.reshape(*lead, -1)

    def deviation(self, params: Params, seen: SwitchInputs) -> Array:
        del seen
        return jnp.sqrt(jnp.sum(jnp.square(params["alpha"]), axis=0))


def fourier(
    horizon: int,
    *,
    rate: float = 0.17,
    harmonics: int = 4,
    shortest: float = 2.0,
    longest: float | None = None,
    per_neuron: bool = False,
    groups: int | None = None,
    gate: surrogates.Surrogate | str = TRIANGULAR,
    frozen: bool = False,
    balance: str = "none",
) -> Fourier:
    """A :class:`Fourier` switch for sequences of about `horizon` steps; options as its fields.

    Examples:
        >>> from surnn_jax import run, selective, switches
        >>> unit = selective("gru", switches.fourier(horizon=100, rate=0.2))
        >>> x = jax.random.normal(jax.random.key(0), (100, 2, 3))
        >>> result = run(unit, unit.init(jax.random.key(1), x, 4), x)
        >>> result.update_mask.shape, round(float(result.rate), 2)
        ((100, 4), 0.2)
    """
    return Fourier(
        horizon,
        rate=rate,
        harmonics=harmonics,
        shortest=shortest,
        longest=longest,
        per_neuron=per_neuron,
        groups=groups,
        gate=gate,
        frozen=frozen,
        balance=balance,
    )


def weigh(features: Array, weights: Array) -> Array:
    """``[..., E] × [E, H]``, in full precision since a sign will be read off it."""
    exact = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    if features.ndim > 2 and _on_many_devices():
        # Steps and rows as one axis would gather a sharded batch on every device.
        return exact(features, weights)
    # As two matrices: with more axes XLA turns the whole table around for the gradient.
    product = exact(features.reshape(-1, features.shape[-1]), weights)
    return product.reshape(*features.shape[:-1], weights.shape[-1])


def _on_many_devices() -> bool:
    """Whether arrays may be cut over the devices of ``jax.set_mesh``."""
    mesh = jax.sharding.get_abstract_mesh()
    manual = jax.sharding.AxisType.Manual
    return any(
        size > 1 and kind != manual
        for size, kind in zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    )


@functools.partial(jax.jit, static_argnames="rate")
def quantile_bias(
    raw: Array, rate: float, valid: Array | None = None, default: Array | None = None
) -> Array:
    """The bias ``[H]`` with which a share `rate` of ``raw [..., H]`` lies above zero.

    The threshold lies midway between two values that rounding cannot confuse. Where many values
    are equal (discrete data) it lies between the two that come nearest to the rate. It is never
    below or above all of them.

    Args:
        raw: logits without a bias.
        rate: the wanted share.
        valid: booleans ``[...]``: which of them count; None for all. Numbers that are not finite
            do not.
        default: ``[H]``, for neurons whose values are all equal; None for `raw`'s own, which
            leaves such neurons open at every step.
    """
    rows = raw.reshape(-1, raw.shape[-1])
    counts = jnp.isfinite(rows)
    if valid is not None:
        counts = counts & valid.reshape(-1, 1)
    scale = jnp.max(jnp.where(counts, jnp.abs(rows), 0), axis=0, initial=0)
    # What does not count comes last, with no gap before it.
    top = jnp.max(jnp.where(counts, rows, -scale), axis=0, initial=-jnp.inf)
    ordered = jnp.sort(jnp.where(counts, rows, top), axis=0)
    if default is None:
        default = 1 + scale
    if len(ordered) < 2:
        return default
    low, high = ordered[:-1], ordered[1:]
    number = counts.sum(0).astype(rows.dtype)[None]
    above = number - jnp.arange(1, len(ordered), dtype=rows.dtype)[:, None]
    miss = jnp.abs(above / jnp.maximum(number, 1) - rate)

    def nearest(gap: float) -> tuple[Array, Array]:
        missed = jnp.where(high - low > gap * scale[None], miss, jnp.inf)
        best = jnp.argmin(missed, axis=0)[None]
        there = [jnp.take_along_axis(a, best, axis=0)[0] for a in (low, high, missed)]
        return -(there[0] / 2 + there[1] / 2), there[2]

    # Among millions of values wide gaps are rare, and one of them may be far from the rate.
    (wide, wide_miss), (narrow, narrow_miss) = nearest(1e-5), nearest(5e-7)
    accepted = jnp.maximum(1 / jnp.maximum(number[0], 1), 0.02 * min(rate, 1 - rate))
    close = wide_miss <= accepted
    return jnp.where(close, wide, jnp.where(jnp.isfinite(narrow_miss), narrow, default))
