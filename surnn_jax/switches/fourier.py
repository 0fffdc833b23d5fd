"""The switch of the suRNN paper: a learned rhythm for every neuron."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.switches.rhythm import Rhythm, quantile_bias
from surnn_jax.switches.switch import SwitchInputs, configure
from surnn_jax.typing import Array, Params

_MOST_STEPS = 4096


@dataclasses.dataclass(frozen=True)
class Fourier(Rhythm):
    """A truncated Fourier series in time, thresholded (arXiv 2603.02226, gate equation).

        a[t,i] = b[i] + Σ_k alpha[k,i] sin(omega[k] t + phi[k,i]),   g[t,i] = 1[a[t,i] > 0]

    A function of time alone, so one table ``[T, H]`` serves the whole batch. The logits returned
    are a / √Σ_k alpha², the scale on which the width of the surrogate is meant. omega is kept as
    theta = omega · horizon.

    The paper leaves K, initialisation, surrogate and the treatment of omega unsaid; the defaults
    here are ours: K = 4 log-spaced periods from 2 to the horizon, alpha ~ N(0, 1), phi uniform,
    b by quantile.
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
        power = jnp.sqrt(jnp.sum(jnp.square(params["alpha"]), axis=0))
        return (raw + params["b"].reshape(*lead, -1)) / power.reshape(*lead, -1)


def fourier(horizon: int, **options: Any) -> Fourier:
    """A :class:`Fourier` switch for sequences of about `horizon` steps; options as its fields."""
    return configure(Fourier, horizon, **options)
