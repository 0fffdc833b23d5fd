"""The linear recurrent unit."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax.layers.mixer_base import (
    GatedOutput,
    complex_dtype,
    init_memory,
    mask_padding,
    masked_outputs,
)
from surnn_jax.scan.linear_scan import linear_scan
from surnn_jax.scan.sequence import as_arrays
from surnn_jax.typing import Array


class LRUCarry(NamedTuple):
    """State of a linear recurrent unit.

    Attributes:
        h: complex ``[B, N]``.
    """

    h: Array


class LRU(nn.Module):
    """Complex diagonal recurrence (Orvieto et al. 2023, arXiv 2303.06349), then GELU and GLU.

    ::

        h[t] = λ ∘ h[t-1] + γ ∘ (B x[t])        λ = exp(-exp(nu_log) + i exp(theta_log))
        y[t] = Re(C h[t]) + D ∘ x[t]            γ = exp(gamma_log)

    λ begins uniform on the ring ``r_min <= |λ| <= r_max`` and γ as ``√(1 - |λ|²)``. The authors
    train λ and γ without weight decay at a lower rate; see `ssm_lr_multiplier` in
    :class:`surnn_jax.train.OptimizerConfig`.

    Attributes:
        features: M, width of input and output.
        state: N, complex numbers of state in all.
        r_min: inner radius of the ring.
        r_max: outer radius, at most 1.
        max_phase: largest angle of λ at the beginning.
        dtype: operands of products are rounded to it, outputs returned in it; None for neither.
        param_dtype: of the parameters; the carry is complex with as many bits a part, 32 at least.

    Examples:
        >>> from surnn_jax.layers import LRU
        >>> layer, x = LRU(features=4, state=8), jnp.ones((2, 5, 4))
        >>> (carry, y), _ = layer.init_with_output(jax.random.key(0), x)
        >>> y.shape
        (2, 5, 4)
    """

    features: int
    state: int
    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        if not 0 <= self.r_min < self.r_max <= 1:
            raise ValueError(
                f"LRU: the ring needs 0 <= r_min < r_max <= 1, got {self.r_min} and {self.r_max}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        initial_carry: LRUCarry | None = None,
        seq_lengths: Array | None = None,
        resets: Array | None = None,
    ) -> tuple[LRUCarry, Array]:
        """Runs the unit.

        Args:
            x: ``[B, T, M]``.
            initial_carry: the carry that an earlier call returned; None to begin.
            seq_lengths: integers ``[B]``.
            resets: booleans ``[B, T]``: if True, a new sequence begins with this step.

        Returns:
            The carry and outputs ``[B, T, M]``.

        Raises:
            ValueError: for shapes that do not fit.
        """
        x, initial_carry, lengths, wide, compute, resets, spoilt = init_memory(
            "LRU", self, x, initial_carry, seq_lengths, resets
        )
        inputs = x.shape[-1]
        if inputs != self.features:
            raise ValueError(f"LRU: inputs must be {self.features} wide, as outputs, got {inputs}")
        x = mask_padding(x.astype(wide), lengths)

        size, dtype = (self.state,), self.param_dtype
        nu_log = self.param("nu_log", self._draw_nu, size, dtype).astype(wide)
        theta_log = self.param("theta_log", self._draw_theta, size, dtype).astype(wide)
        gamma_log = self.param("gamma_log", lambda key: _norm(nu_log).astype(dtype)).astype(wide)
        draw_in = nn.initializers.normal(1 / math.sqrt(2 * inputs))
        draw_out = nn.initializers.normal(1 / math.sqrt(self.state))
        b = [self.param(f"b_{part}", draw_in, (inputs, *size), dtype) for part in ("re", "im")]
        c = [
            self.param(f"c_{part}", draw_out, (*size, self.features), dtype)
            for part in ("re", "im")
        ]
        skip = self.param("d", nn.initializers.normal(1.0), (self.features,), dtype).astype(wide)

        def product(left, kernel):
            return jnp.matmul(
                left.astype(compute), kernel.astype(compute), preferred_element_type=wide
            )

        # Time-major: the loop reads one step after the other. One real product for both parts.
        driven = product(jnp.swapaxes(x, 0, 1), jnp.concatenate(b, axis=1))
        driven = driven * jnp.tile(jnp.exp(gamma_log), 2)[None, None]
        driven = jax.lax.complex(*jnp.split(driven, 2, axis=-1))
        decay = jnp.exp(jax.lax.complex(-jnp.exp(nu_log), jnp.exp(theta_log)))
        decay = decay[None, None]
        if resets is not None:
            decay = jnp.where(resets.T[..., None], 0, decay)
        h = linear_scan(decay, driven, initial_carry.h, zero_forgets=resets is not None)
        parts = jnp.concatenate([h.real, -h.imag], axis=-1)
        y = jnp.swapaxes(product(parts, jnp.concatenate(c)), 0, 1) + skip[None, None] * x
        y = GatedOutput(self.features, compute, dtype, name="out")(y)
        y = masked_outputs(y.astype(compute), lengths, spoilt)
        return LRUCarry(_last(h, initial_carry.h, lengths)), y

    def step(
        self, carry: LRUCarry, x: Array, resets: Array | None = None
    ) -> tuple[LRUCarry, Array]:
        """One step of a stream, ``x [B, M]``; the same numbers as the sequence call gives.

        With `resets`, booleans ``[B]``, a new sequence begins where they are true.
        """
        x, resets = as_arrays(x, resets)
        now = None if resets is None else resets[:, None]
        carry, y = self(x[:, None], initial_carry=carry, resets=now)
        return carry, y[:, 0]

    @nn.nowrap
    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> LRUCarry:
        """The carry from which a stream begins: zeros."""
        dtype = complex_dtype(self.param_dtype)
        return LRUCarry(jnp.zeros((*batch_shape, self.state), dtype))

    def _draw_nu(self, key, shape, dtype):
        # |λ|² is uniform between the squared radii; never 0 or 1, of which the logarithms end.
        square = jax.random.uniform(key, shape, dtype, self.r_min**2, self.r_max**2)
        tiny = jnp.finfo(dtype).eps
        return jnp.log(-0.5 * jnp.log(jnp.clip(square, tiny, 1 - tiny)))

    def _draw_theta(self, key, shape, dtype):
        tiny = float(jnp.finfo(dtype).tiny)
        return jnp.log(jax.random.uniform(key, shape, dtype, tiny, self.max_phase))


def _norm(nu_log):
    """log √(1 - |λ|²), where 1 - |λ|² would lose all digits near the circle."""
    return 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(nu_log)))


def _last(h, initial, lengths):
    """The state ``[B, N]`` after the last step that counts."""
    if not h.shape[0]:
        return initial
    if lengths is None:
        return h[-1]
    at = jnp.maximum(lengths - 1, 0)
    end = jnp.take_along_axis(h, at[None, :, None], axis=0)[0]
    return jnp.where((lengths > 0)[:, None], end, initial)
