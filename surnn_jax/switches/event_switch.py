"""The event switch: it reads input and clock, not the state, so it is known before the scan."""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax.names import unknown
from surnn_jax.switches.averages import running_averages
from surnn_jax.switches.fourier_switch import TRIANGULAR, Rhythm, quantile_bias, weigh
from surnn_jax.switches.surrogates import Surrogate
from surnn_jax.switches.switch import SwitchInputs
from surnn_jax.typing import Array, Params


def _present(seen: SwitchInputs) -> Array:
    return seen.x


def _pair(seen: SwitchInputs) -> Array:
    return jnp.concatenate([seen.x, seen.previous], axis=-1)


def _counts(seen: SwitchInputs) -> Array:
    change = seen.x - seen.previous
    parts = (seen.x, jnp.maximum(change, 0), jnp.maximum(-change, 0))
    return jnp.stack([part.sum(-1) for part in parts], axis=-1)


def _trace(seen: SwitchInputs) -> Array:
    x = seen.x.astype(seen.previous.dtype)
    averages = jnp.split(seen.previous, seen.previous.shape[-1] // x.shape[-1], axis=-1)
    return jnp.concatenate([x, *(x - average for average in averages)], axis=-1)


_NOISE = 2048
_TIME_CONSTANTS = (2.0, 8.0, 32.0)

EVENT_FEATURES = {"input": _present, "pair": _pair, "counts": _counts, "trace": _trace}
"""What an event switch reads: the input; input and previous input; three sums a frame (level,
rises, falls: for a piano roll, keys held, onsets and releases); or the input and its change against
averages of the inputs before it, see :func:`.running_averages`."""


@dataclasses.dataclass(frozen=True)
class Event(Rhythm):
    """A learned threshold on the input and a rhythm.

        a[t,b,i] = b[i] + Σ_e v[e,i] e[t,b,e] + Σ_k alpha[k,i] sin(omega[k] t + phi[k,i])
        g[t,b,i] = 1[a[t,b,i] > 0]

    with features e of the present (and previous) input. It opens when something happens. It does
    not read the state, so its update mask ``[T, B, H]`` is known before the scan. Logits are
    divided by their standard deviation over batch and time, without a gradient through it. That
    sets the scale of the surrogate and changes no sign, hence no output. Inside `jax.shard_map` it
    is the batch of one device; under `jit` with sharded arrays, the whole batch.

    So the switch's gradient depends on how a batch is cut: that of microbatches, of examples one by
    one (`jax.vmap` of `jax.grad`) and of chunks of a stream is scaled by the spread of each, and in
    a step of a single row there is none and the scale is 1. With ``scale="weights"`` logits are
    divided by the deviation that they have for independent inputs of variance 1, which the
    parameters alone tell: all of these gradients then agree, and inputs should have about unit
    variance.

    `init` sets b by its batch, so that every neuron opens at `rate` in it. If that batch does not
    vary (zeros, ones, every example the same), b is set for independent inputs of mean 0 and
    variance 1. Real inputs that are far from those, such as counts or one-hot vectors, then open
    it at another rate: let `init` see a real batch, or call :func:`surnn_jax.layers.calibrate`.

    Keep the features few: they cost E + 2K products a neuron and step, and ``"trace"`` with three
    time constants has four times as many as ``"input"``. Three times the learning rate of the
    weights suits it. Trained by its gradient alone it shuts many neurons for good where
    one step says little, as on images: take ``balance="target"``, which also holds the rate, or
    ``balance="floor"`` beside a :func:`surnn_jax.switches.rate_penalty`. Let the whole batch teach
    it: with a `gradient_fraction` below 1 few rows, each with an update mask of its own, give the
    switch a gradient that is scaled up to stand for all, and it learns worse.

    Attributes:
        event_features: ``"input"``, ``"pair"``, ``"counts"`` or ``"trace"``, see
            :data:`EVENT_FEATURES`.
        time_constants: of the averages that ``"trace"`` reads, in steps, each at least 1; None for
            2, 8 and 32. At a start they are 0; a masked step counts as an input of zeros.
        init_std: standard deviation of the initial v.
        scale: what logits are divided by: ``"batch"``, their deviation in the batch, or
            ``"weights"``.

    Examples:
        >>> from surnn_jax import switches
        >>> switch = switches.Event(horizon=100, rate=0.1, event_features="pair")
        >>> switch.per_example, switch.uses_previous_input
        (True, True)
    """

    event_features: str = "input"
    init_std: float = 1.0
    rate: float = 0.1
    scale: str = "batch"
    time_constants: Sequence[float] | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.scale not in ("batch", "weights"):
            raise unknown("scale", self.scale, ("batch", "weights"))
        if self.event_features not in EVENT_FEATURES:
            raise unknown("event_features", self.event_features, EVENT_FEATURES)
        if not (math.isfinite(self.init_std) and self.init_std > 0):
            raise ValueError(f"event: init_std must be a positive number, got {self.init_std}")
        if self.time_constants is not None:
            object.__setattr__(self, "time_constants", self._checked(self.time_constants))

    def _checked(self, time_constants: Sequence[float]) -> tuple[float, ...]:
        if self.event_features != "trace":
            raise ValueError(
                'event: time_constants are for event_features="trace", '
                f'got event_features="{self.event_features}"'
            )
        found = time_constants if isinstance(time_constants, (tuple, list)) else ()
        usable = (isinstance(n, numbers.Real) and math.isfinite(n) and n >= 1 for n in found)
        if not found or not all(usable):
            raise ValueError(
                "event: time_constants must be a tuple of steps, each at least 1, "
                f"got {time_constants}"
            )
        return tuple(float(n) for n in found)

    @property
    def uses_previous_input(self) -> bool:
        return self.event_features != "input"

    @property
    def averages(self) -> tuple[float, ...]:
        if self.event_features != "trace":
            return ()
        return _TIME_CONSTANTS if self.time_constants is None else self.time_constants

    @property
    def per_example(self) -> bool:
        return True

    def init(
        self, key: Array, seen: SwitchInputs, features: int, dtype: Any = jnp.float32
    ) -> Params:
        draw, wave = jax.random.split(key)
        features = self.schedules(features)
        # Not arrays of size 0, which a checkpoint cannot hold.
        params = self.init_rhythm(wave, features, dtype) if self.harmonics else {}
        width = EVENT_FEATURES[self.event_features](seen).shape[-1]
        params["v"] = self.init_std * jax.random.normal(draw, (width, features), dtype)
        params["b"] = self._bias_for_noise(params, seen.x, dtype)
        return self.calibrated(params, seen)

    def calibrated(self, params: Params, seen: SwitchInputs) -> Params:
        """`params` with b such that every neuron opens at `rate` in the batch that is `seen`.

        A batch without variation (zeros or ones, every example the same, fewer valid steps than
        one update takes) says nothing about the data: b stays as it is.
        """
        usual = params["b"]
        raw = self._raw(params, seen, jnp.zeros_like(usual))
        found = quantile_bias(raw, rate=self.rate, valid=seen.valid, default=usual)
        return {**params, "b": jnp.where(self._tells(seen), found, usual)}

    def _tells(self, seen: SwitchInputs) -> Array:
        """Whether the rate of a switch in real data can be read off this batch."""
        x = seen.x
        steps, batch = x.shape[:2]
        valid = jnp.ones((steps, batch), bool) if seen.valid is None else seen.valid
        counts = valid[..., None] & jnp.isfinite(x)
        # Examples that are all the same vary with time alone, by a rhythm of the layers below.
        along = 1 if batch > 1 else 0
        top = jnp.max(x, along, where=counts, initial=-jnp.inf)
        bottom = jnp.min(x, along, where=counts, initial=jnp.inf)
        size = jnp.max(jnp.abs(x), where=counts, initial=0)
        varies = jnp.any(top - bottom > 1e-6 * size)
        return varies & (valid.sum() >= math.ceil(1 / min(self.rate, 1 - self.rate) - 1e-9))

    def _bias_for_noise(self, params: Params, x: Array, dtype: Any) -> Array:
        """b for inputs that are independent, of mean 0 and variance 1."""
        at, noise = jax.random.split(jax.random.key(0))
        t = jax.random.randint(at, (_NOISE,), 0, self.horizon)
        x = jax.random.normal(noise, (2, _NOISE, 1, x.shape[-1]), dtype)
        nothing = jnp.zeros((1, x.shape[-1] * max(1, len(self.averages))), dtype)
        steps = jnp.arange(_NOISE, dtype=jnp.int32)
        before = running_averages(self.averages, x[1], nothing, steps)
        raw = self._raw(params, SwitchInputs(x[0], before, t), jnp.zeros_like(params["v"][0]))
        return quantile_bias(raw, rate=self.rate)

    def logits(self, params: Params, seen: SwitchInputs) -> Array:
        raw = self._raw(params, seen, self.learned_bias(params))
        if not self.gate.hard:  # a soft value must not depend on the rest of the batch
            return raw
        return raw / self._scale(params, raw, seen.valid).reshape(1, 1, -1)

    def deviation(self, params: Params, seen: SwitchInputs) -> Array:
        # The same expression as in `logits`: XLA computes it once.
        raw = self._raw(params, seen, self.learned_bias(params))
        return self._scale(params, raw, seen.valid)

    def _scale(self, params: Params, raw: Array, valid: Array | None) -> Array:
        """What logits are divided by, ``[G]``, without a gradient through it."""
        if self.scale == "weights":
            scale = jax.lax.stop_gradient(self._usual_deviation(params))
        else:
            weight = None if valid is None else valid[..., None]
            scale = jnp.std(jax.lax.stop_gradient(raw), axis=(0, 1), where=weight)
        # A constant logit has no spread, nor has one step (as in streaming); that of huge or
        # broken inputs overflows. The sign is all that counts then.
        usable = (scale > 0) & jnp.isfinite(scale)
        return jnp.where(usable, scale, 1)

    def _usual_deviation(self, params: Params) -> Array:
        """The standard deviation of a for independent inputs of variance 1, ``[H]``."""
        power = jnp.sum(jnp.square(params["v"]), axis=0)
        if self.averages:  # which are not independent
            v = params["v"].reshape(1 + len(self.averages), -1, power.shape[0])
            now, spans = jnp.square(v.sum(0)).sum(0), np.asarray(self.averages)
            covariance = jnp.asarray(1 / (spans[:, None] + spans - 1), v.dtype)
            power = now + jnp.einsum("jdh,kdh,jk->h", v[1:], v[1:], covariance)
        if self.harmonics:  # a sine has a mean square of one half
            power = power + jnp.sum(jnp.square(params["alpha"]), axis=0) / 2
        return jnp.sqrt(power)

    def _raw(self, params: Params, seen: SwitchInputs, bias: Array) -> Array:
        # One product for all there is: its gradient is two products, where sums over
        # [T, B, H] take several times as long.
        e = EVENT_FEATURES[self.event_features](seen).astype(params["v"].dtype)
        features, weights = [e, jnp.ones_like(e[..., :1])], [params["v"], bias[None]]
        if self.harmonics and not self.per_neuron:
            waves, parts = self.waves(params, seen.t)
            waves = waves if waves.ndim == 3 else waves[:, None]
            features.append(jnp.broadcast_to(waves, (*e.shape[:2], waves.shape[-1])))
            weights.append(parts)
        raw = weigh(jnp.concatenate(features, axis=-1), jnp.concatenate(weights))
        if self.harmonics and self.per_neuron:
            wave = self.rhythm(params, seen.t)
            raw = raw + (wave if wave.ndim == 3 else wave[:, None])
        return raw


def event(
    horizon: int,
    *,
    rate: float = 0.1,
    event_features: str = "input",
    init_std: float = 1.0,
    harmonics: int = 4,
    shortest: float = 2.0,
    longest: float | None = None,
    per_neuron: bool = False,
    groups: int | None = None,
    gate: Surrogate | str = TRIANGULAR,
    frozen: bool = False,
    balance: str = "none",
    scale: str = "batch",
    time_constants: Sequence[float] | None = None,
) -> Event:
    """An :class:`Event` switch for sequences of about `horizon` steps; options as its fields.

    Examples:
        >>> from surnn_jax import run, selective, switches
        >>> unit = selective("gru", switches.event(horizon=50, rate=0.1))
        >>> x = jax.random.normal(jax.random.key(0), (50, 2, 3))
        >>> result = run(unit, unit.init(jax.random.key(1), x, 4), x)
        >>> result.update_mask.shape, round(float(result.rate), 2)
        ((50, 2, 4), 0.1)
    """
    return Event(
        horizon,
        rate=rate,
        event_features=event_features,
        init_std=init_std,
        harmonics=harmonics,
        shortest=shortest,
        longest=longest,
        per_neuron=per_neuron,
        groups=groups,
        gate=gate,
        frozen=frozen,
        balance=balance,
        scale=scale,
        time_constants=time_constants,
    )


def threshold(
    horizon: int,
    *,
    rate: float = 0.1,
    event_features: str = "input",
    init_std: float = 1.0,
    groups: int | None = None,
    time_constants: Sequence[float] | None = None,
) -> Event:
    """A fixed threshold on the input: a frozen event switch without a rhythm.

        g[t,b,i] = 1[b[i] + Σ_e v[e,i] e[t,b,e] > 0]

    with v drawn once, and b set by the first batch so that every neuron opens at `rate`. It is
    our reading of the "input threshold" in the ablation of arXiv 2603.02226, which says no more
    than that.

    Args:
        horizon: not looked at; every maker of a switch takes it.
        rate: as the field of :class:`Event`, and so are the others.
        event_features: what it reads.
        init_std: standard deviation of v.
        groups: G, how many schedules the layer has.
        time_constants: of what ``"trace"`` reads.

    Examples:
        >>> from surnn_jax import switches
        >>> switch = switches.threshold(100, rate=0.2)
        >>> switch.frozen, switch.harmonics
        (True, 0)
    """
    return Event(
        horizon,
        rate=rate,
        event_features=event_features,
        init_std=init_std,
        groups=groups,
        time_constants=time_constants,
        harmonics=0,
        frozen=True,
    )
