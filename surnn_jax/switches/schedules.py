"""Schedules that suRNN is compared to: fixed ones, Phased LSTM's, and chance."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.switches import surrogates
from surnn_jax.switches.phase import turn, unsigned
from surnn_jax.switches.switch import Switch, SwitchInputs
from surnn_jax.typing import Array, Params

_GIVEN = surrogates.given()


class _Fixed(Switch):
    """Base of schedules that learn nothing and have no parameters."""

    frozen = True

    @property
    def has_parameters(self) -> bool:
        return False

    def init(
        self, key: Array, seen: SwitchInputs, features: int, dtype: Any = jnp.float32
    ) -> Params:
        return {}


def _dtype(seen: SwitchInputs) -> Any:
    wide = jnp.dtype(jnp.float64)
    return wide if seen.x.dtype == wide else jnp.dtype(jnp.float32)


def _whole(number: Any) -> bool:
    return isinstance(number, int) and number >= 1


def _at(seen: SwitchInputs, period: Array, phase: Array) -> Array:
    """Logits ``[*t.shape, H]``: 1 where ``t mod period = phase``, neuron by neuron, else -1."""
    period, phase = (unsigned(v).reshape(*(1,) * seen.t.ndim, -1) for v in (period, phase))
    return jnp.where(unsigned(seen.t)[..., None] % period == phase, 1, -1).astype(_dtype(seen))


@dataclasses.dataclass(frozen=True)
class Every(_Fixed):
    """Opens at every n-th step, t = 0, n, 2n, … ("every third step" in arXiv 2603.02226).

    Attributes:
        n: steps from one update to the next.
        staggered: neuron i opens if ``t mod n = i mod n``, so that some neurons open at every step.
            False opens all at once and leaves n - 1 of n steps empty.

    Examples:
        >>> from surnn_jax import run, selective, switches
        >>> unit = selective("gru", switches.Every(n=4))
        >>> x = jax.random.normal(jax.random.key(0), (12, 2, 3))
        >>> run(unit, unit.init(jax.random.key(1), x, 4), x).update_mask[:, 0].astype(int).tolist()
        [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    """

    n: int = 3
    staggered: bool = False

    def __post_init__(self):
        if not _whole(self.n):
            raise ValueError(f"every: n must be a whole number of steps, at least 1, got {self.n}")

    @property
    def rate(self) -> float:
        return 1 / self.n

    @property
    def groups(self) -> int:
        return self.n if self.staggered else 1

    def logits(self, params: Params, seen: SwitchInputs) -> Array:
        phase = jnp.arange(seen.features if self.staggered else 1) % self.n
        return _at(seen, jnp.full((1,), self.n), phase if self.staggered else 0 * phase)


@dataclasses.dataclass(frozen=True)
class Clockwork(_Fixed):
    """Modules that each keep their own time (Koutník et al. 2014, section 3).

    Neuron i belongs to module ⌊i M / H⌋, and module m opens if ``t mod periods[m] = 0``. Use it
    with the cell :func:`surnn_jax.cells.clockwork` of as many modules, in which fast modules read
    slow ones but not the reverse.

    Attributes:
        periods: one a module, in steps, in rising order.

    Examples:
        >>> from surnn_jax import switches
        >>> switches.Clockwork(periods=(1, 2, 4)).rate
        0.5833333333333334
    """

    periods: Sequence[int] = tuple(2**m for m in range(8))

    def __post_init__(self):
        object.__setattr__(self, "periods", tuple(self.periods))
        rising = list(self.periods) == sorted(self.periods)
        if not (self.periods and rising and all(map(_whole, self.periods))):
            raise ValueError(
                "clockwork: periods must be whole numbers of steps, at least 1, in rising order, "
                f"got {self.periods}"
            )

    @property
    def rate(self) -> float:
        return sum(1 / period for period in self.periods) / len(self.periods)

    @property
    def groups(self) -> int:
        return len(self.periods)

    def logits(self, params: Params, seen: SwitchInputs) -> Array:
        modules = jnp.arange(seen.features) * self.groups // seen.features
        return _at(seen, jnp.asarray(self.periods)[modules], jnp.zeros((1,), int))


_LEAST_RATIO = 1e-3  # of a learned one


@dataclasses.dataclass(frozen=True)
class Phased(Switch):
    """The time gate of Phased LSTM (Neil et al. 2016, equations 6 and 7).

        phi = ((t - s) mod tau) / tau
        k = 2 phi / r           where phi < r / 2
            2 - 2 phi / r       where r / 2 <= phi < r
            leak · phi          else

    A neuron is k open: soft, never quite closed, and exactly differentiable in tau and s, which
    are learned, and in r if that is. The leak stays at evaluation (the authors' code has it in
    training alone).

    t counts steps, or is a time stamp: ``Phased(horizon, time_feature=-1)`` reads it from the last
    input feature, which the cell sees, too. Each example then has its own table, and all periods
    are in the unit of the stamps. They should stay below 10^5 periods: their phase is computed in
    the dtype of the parameters.

    Attributes:
        horizon: length in steps of the sequences it is made for; no period drawn is longer.
        shortest: the shortest period drawn, in steps; they are drawn log-uniformly.
        longest: the longest.
        ratio: r, the share of its period for which a neuron is open.
        leak: how far it opens for the rest.
        frozen: no gradient reaches the parameters.
        time_feature: which input feature is the time stamp; None for counting steps.
        learn_ratio: r is a parameter of each neuron, kept within [0.001, 1], and begins at `ratio`.
        frozen: no gradient reaches tau and s.

    Examples:
        >>> from surnn_jax import switches
        >>> round(switches.Phased(horizon=100, ratio=0.1).rate, 4)
        0.0505
    """

    horizon: int
    shortest: float = math.e
    longest: float = math.exp(6)
    ratio: float = 0.05
    leak: float = 1e-3
    frozen: bool = False
    time_feature: int | None = None
    learn_ratio: bool = False

    gate = _GIVEN

    def __post_init__(self):
        if self.horizon < 1:
            raise ValueError(f"phased: horizon must be at least 1 step, got {self.horizon}")
        if not 0 < self.shortest <= self.longest < math.inf:
            raise ValueError(
                "phased: periods must satisfy 0 < shortest <= longest < inf, "
                f"got {self.shortest} and {self.longest}"
            )
        if not 0 < self.ratio <= 1:
            raise ValueError(f"phased: ratio must lie in (0, 1], got {self.ratio}")
        if not 0 <= self.leak <= 1:
            raise ValueError(f"phased: leak must lie in [0, 1], got {self.leak}")

    @property
    def rate(self) -> float:
        """The mean opening over a period, with r as it begins."""
        return self.ratio / 2 + self.leak * (1 - self.ratio**2) / 2

    @property
    def per_example(self) -> bool:
        return self.time_feature is not None

    def init(
        self, key: Array, seen: SwitchInputs, features: int, dtype: Any = jnp.float32
    ) -> Params:
        length, place = jax.random.split(key)
        low, high = (math.log(min(p, self.horizon)) for p in (self.shortest, self.longest))
        tau = jnp.exp(low + (high - low) * jax.random.uniform(length, (features,), dtype))
        params = {"tau": tau, "s": tau * jax.random.uniform(place, (features,), dtype)}
        if self.learn_ratio:
            params["r"] = jnp.full((features,), self.ratio, dtype)
        return params

    def logits(self, params: Params, seen: SwitchInputs) -> Array:
        tau, s = params["tau"], params["s"]
        if self.time_feature is None:
            phi = turn(seen.t, tau, s)
        else:
            stamps = seen.x[..., self.time_feature, None].astype(tau.dtype)
            turns = (stamps - s[None, None]) / tau[None, None]
            phi = turns - jnp.floor(turns)
        ratio = jnp.full_like(tau, self.ratio)
        if self.learn_ratio:
            ratio = jnp.clip(params["r"], _LEAST_RATIO, 1)
        ratio = ratio.reshape((1,) * (phi.ndim - 1) + ratio.shape)
        rise = 2 / ratio * phi
        return jnp.where(phi < ratio / 2, rise, jnp.where(phi < ratio, 2 - rise, self.leak * phi))


@dataclasses.dataclass(frozen=True)
class Zoneout(_Fixed):
    """Every neuron holds its state by chance (Krueger et al. 2017), the random schedule.

    With a random key (in training, see `key` of :func:`surnn_jax.scan.run`) every example, step
    and neuron draws for itself. Without one (in evaluation, and in streaming) there is the
    expectation: every neuron takes ``1 - hold`` of the candidate and keeps `hold` of its state.
    All fields of a carry hold together, unless c, the memory cell of an LSTM, has a probability of
    its own and draws for itself, as in the paper (0.5 for c and 0.05 for h). The output's is then
    the rate that a run reports.

    Attributes:
        hold: the probability that a neuron keeps its state, in [0, 1).
        hold_c: that it keeps c, in [0, 1); None for together with the rest.

    Examples:
        >>> from surnn_jax import switches
        >>> switches.Zoneout(hold=0.25).rate
        0.75
    """

    hold: float = 0.1
    hold_c: float | None = None

    @property
    def gate(self) -> surrogates.Surrogate:
        if self.hold_c is None:
            return _GIVEN
        return surrogates.two_fields(1 - self.hold_c, 1 - self.hold)

    def __post_init__(self):
        for name, hold in (("hold", self.hold), ("hold_c", self.hold_c)):
            if hold is not None and not 0 <= hold < 1:
                raise ValueError(f"zoneout: {name} must lie in [0, 1), got {hold}")

    @property
    def rate(self) -> float:
        return 1 - self.hold

    @property
    def per_example(self) -> bool:
        return True

    @property
    def random(self) -> bool:
        return True

    def logits(self, params: Params, seen: SwitchInputs) -> Array:
        dtype, shape = _dtype(seen), (*seen.x.shape[:2], seen.features)
        if seen.key is None:
            expected = self.rate if self.hold_c is None else -1
            return jnp.full((seen.t.shape[0], 1), expected, dtype)
        if self.hold_c is None:
            return jax.random.bernoulli(seen.key, self.rate, shape).astype(dtype)
        memory, others = jax.random.split(seen.key)
        memory = jax.random.bernoulli(memory, 1 - self.hold_c, shape).astype(dtype)
        return memory + 2 * jax.random.bernoulli(others, self.rate, shape).astype(dtype)


def every(horizon: int, *, n: int = 3, staggered: bool = False) -> Every:
    """An :class:`Every` switch; `horizon` is not looked at, options as its fields.

    Examples:
        >>> from surnn_jax import run, selective, switches
        >>> unit = selective("gru", switches.every(100, n=3))
        >>> x = jax.random.normal(jax.random.key(0), (12, 2, 3))
        >>> run(unit, unit.init(jax.random.key(1), x, 4), x).update_mask[:, 0].astype(int).tolist()
        [1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0]
    """
    del horizon
    return Every(n, staggered)


def clockwork(horizon: int, *, periods: Sequence[int] = Clockwork.periods) -> Clockwork:
    """A :class:`Clockwork` switch; `horizon` is not looked at, options as its fields.

    Examples:
        >>> from surnn_jax import run, selective, switches
        >>> unit = selective("gru", switches.clockwork(100, periods=(2, 4)))
        >>> x = jax.random.normal(jax.random.key(0), (12, 2, 3))
        >>> run(unit, unit.init(jax.random.key(1), x, 4), x).update_mask[:, 0].astype(int).tolist()
        [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]
    """
    del horizon
    return Clockwork(periods)


def phased(
    horizon: int,
    *,
    shortest: float = Phased.shortest,
    longest: float = Phased.longest,
    ratio: float = 0.05,
    leak: float = 1e-3,
    frozen: bool = False,
    time_feature: int | None = None,
    learn_ratio: bool = False,
) -> Phased:
    """A :class:`Phased` switch for sequences of about `horizon` steps; options as its fields.

    Examples:
        >>> from surnn_jax import run, selective, switches
        >>> unit, x = selective("lstm", switches.phased(100)), jnp.ones((12, 2, 3))
        >>> openness = run(unit, unit.init(jax.random.key(0), x, 4), x).update_mask
        >>> openness.shape, bool((openness >= 0).all() and (openness <= 1).all())
        ((12, 4), True)
    """
    return Phased(
        horizon,
        shortest=shortest,
        longest=longest,
        ratio=ratio,
        leak=leak,
        frozen=frozen,
        time_feature=time_feature,
        learn_ratio=learn_ratio,
    )


def zoneout(horizon: int, *, hold: float = 0.1, hold_c: float | None = None) -> Zoneout:
    """A :class:`Zoneout` switch; `horizon` is not looked at, options as its fields.

    Examples:
        >>> from surnn_jax import switches
        >>> switches.zoneout(784, hold=0.2).rate
        0.8
    """
    del horizon
    return Zoneout(hold, hold_c)
