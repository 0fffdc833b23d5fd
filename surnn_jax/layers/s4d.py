"""The diagonal state space."""

import functools
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
from surnn_jax.scan.sequence import as_arrays
from surnn_jax.typing import Array

_SLOWEST, _FASTEST = 0.001, 0.1  # of dt, as published


class S4DCarry(NamedTuple):
    """State of a diagonal state space.

    Attributes:
        h: complex ``[B, M, N/2]``, one of each pair of conjugates.
    """

    h: Array


class S4D(nn.Module):
    """S4D-Lin (Gu et al. 2022, arXiv 2206.11893), then GELU and GLU.

    Every channel m has its own state, discretised with zero-order hold. The indices n run over one
    of each pair of conjugates, so twice the real part is read out. B is 1::

        h[t] = exp(dt A) h[t-1] + (exp(dt A) - 1) / A · x[t]      A[n] = -exp(log_a_real) + i a_imag
        y[t] = 2 Re Σ_n C[n] h[t, n] + D x[t]                     dt = exp(log_dt)

    With resets it is the recurrence at every step, which takes longer.

    A begins as ``-1/2 + iπn`` and dt log-uniform in [0.001, 0.1], C and D normal, kernel and bias
    of the output uniform within ±1/√M, as published. A sequence is a convolution, by FFT; a single
    step is the recurrence.

    The authors train A and dt without weight decay at a rate of at most 0.001; see
    `ssm_lr_multiplier` in :class:`surnn_jax.train.OptimizerConfig`. Their dropout after GELU is
    left to the block.

    Attributes:
        features: M, width of input and output.
        state: N, even: the real size of the state of a channel.
        dtype: operands of products are rounded to it, outputs returned in it; None for neither.
            The convolution is always computed in the dtype of the carry.
        param_dtype: of the parameters; the carry is complex with as many bits a part, 32 at least.

    Examples:
        >>> from surnn_jax.layers import S4D
        >>> layer, x = S4D(features=4, state=8), jnp.ones((2, 5, 4))
        >>> (carry, y), _ = layer.init_with_output(jax.random.key(0), x)
        >>> y.shape
        (2, 5, 4)
    """

    features: int
    state: int = 64
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        if self.state < 2 or self.state % 2:
            raise ValueError(f"S4D: the state must be even, at least 2, got {self.state}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        initial_carry: S4DCarry | None = None,
        seq_lengths: Array | None = None,
        resets: Array | None = None,
    ) -> tuple[S4DCarry, Array]:
        """Runs the state space.

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
        continued = initial_carry is not None
        x, initial_carry, lengths, wide, compute, resets, spoilt = init_memory(
            "S4D", self, x, initial_carry, seq_lengths, resets
        )
        steps, inputs = x.shape[1:]
        if inputs != self.features:
            raise ValueError(f"S4D: inputs must be {self.features} wide, as outputs, got {inputs}")
        x = mask_padding(x.astype(wide), lengths)

        modes = (self.features, self.state // 2)
        draws = {
            "log_dt": (_draw_log_dt, modes[:1]),
            "log_a_real": (nn.initializers.constant(math.log(0.5)), modes),
            "a_imag": (_draw_a_imag, modes),
            # Complex numbers of unit variance.
            "c_re": (nn.initializers.normal(math.sqrt(0.5)), modes),
            "c_im": (nn.initializers.normal(math.sqrt(0.5)), modes),
            "d": (nn.initializers.normal(1.0), modes[:1]),
        }
        p = {
            name: self.param(name, draw, shape, self.param_dtype).astype(wide)
            for name, (draw, shape) in draws.items()
        }
        a = jax.lax.complex(-jnp.exp(p["log_a_real"]), p["a_imag"])
        rate = a * jnp.exp(p["log_dt"]).astype(a.dtype)[:, None]
        hold = jnp.expm1(rate) / a  # exp(…) - 1 would lose the digits of a short dt
        read = jax.lax.complex(p["c_re"], p["c_im"])

        u = jnp.swapaxes(x, 1, 2)  # [B, M, T]
        if steps == 1:
            before = initial_carry.h
            if resets is not None:
                before = jnp.where(resets[..., None], 0, before)
            h = jnp.exp(rate)[None] * before + hold[None] * u.astype(a.dtype)
            y = 2 * jnp.sum((read[None] * h).real, axis=-1)[..., None]
            if lengths is not None:
                h = jnp.where((lengths > 0)[:, None, None], h, initial_carry.h)
        elif resets is not None:
            h, y = _recur(u, rate, hold, read, initial_carry.h, resets, lengths)
        else:
            powers = _powers(rate, steps)
            y = _convolve(u, _read_out(read * hold, powers)[..., :steps])
            if continued:
                began = (read * jnp.exp(rate))[None] * initial_carry.h
                y = y + _read_out(began, powers)[..., :steps]
            h = _state(u, rate, hold, powers, initial_carry.h, lengths)
        y = jnp.swapaxes(y, 1, 2) + p["d"][None, None] * x
        y = GatedOutput(self.features, compute, self.param_dtype, uniform=True, name="out")(y)
        return S4DCarry(h), masked_outputs(y.astype(compute), lengths, spoilt)

    def step(
        self, carry: S4DCarry, x: Array, resets: Array | None = None
    ) -> tuple[S4DCarry, Array]:
        """One step of a stream, ``x [B, M]``; the same numbers as the sequence call gives.

        With `resets`, booleans ``[B]``, a new sequence begins where they are true.
        """
        x, resets = as_arrays(x, resets)
        now = None if resets is None else resets[:, None]
        carry, y = self(x[:, None], initial_carry=carry, resets=now)
        return carry, y[:, 0]

    @nn.nowrap
    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> S4DCarry:
        """The carry from which a stream begins: zeros."""
        dtype = complex_dtype(self.param_dtype)
        return S4DCarry(jnp.zeros((*batch_shape, self.features, self.state // 2), dtype))


def _draw_log_dt(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype, math.log(_SLOWEST), math.log(_FASTEST))


def _draw_a_imag(key, shape, dtype):
    del key
    return jnp.broadcast_to(math.pi * jnp.arange(shape[-1], dtype=dtype)[None], shape)


@functools.partial(jax.jit, inline=True)  # once, also outside `jit`
def _recur(u, rate, hold, read, initial, resets, lengths):
    """The recurrence with resets: ``(h [B, M, N], y [B, M, T])``.

    States are kept once in √T steps for the gradient.
    """
    steps = u.shape[-1]
    chunk = math.isqrt(max(steps - 1, 0)) + 1
    chunks = -(-steps // chunk)
    valid = jnp.ones(resets.shape, bool)
    if lengths is not None:
        valid = jnp.arange(steps, dtype=jnp.int32)[None] < lengths[:, None]

    def chunked(x):  # time-major; steps that are not valid at the end
        x = jnp.moveaxis(x, -1, 0)
        x = jnp.pad(x, [(0, chunks * chunk - steps)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(chunks, chunk, *x.shape[1:])

    decay = jnp.exp(rate)[None]

    def step(h, now):
        u, reset, valid = now
        past = jnp.where(reset[:, None, None], 0, h)
        after = decay * past + hold[None] * u.astype(h.dtype)[..., None]
        h = jnp.where(valid[:, None, None], after, h)
        return h, 2 * jnp.sum((read[None] * h).real, axis=-1)

    @jax.checkpoint
    def run(h, some):
        return jax.lax.scan(step, h, some)

    h, y = jax.lax.scan(run, initial, tuple(map(chunked, (u, resets, valid))))
    return h, jnp.moveaxis(y.reshape(chunks * chunk, *y.shape[2:])[:steps], 0, -1)


def _powers(rate, steps):
    """``exp(rate t)`` for all t < steps in two factors, ``[M, N, I]`` and ``[M, N, J]``, IJ >= T.

    Step ``t = iJ + j`` is the product of i and j: sums over n of all powers are matrix products,
    and nothing of size M·N·T is made.
    """
    inner = math.isqrt(max(steps - 1, 0)) + 1
    outer = -(-steps // inner)
    each, block = (jnp.arange(n).astype(rate.dtype)[None, None] for n in (inner, outer))
    return jnp.exp(rate[..., None] * (inner * block)), jnp.exp(rate[..., None] * each)


def _read_out(weights, powers):
    """``2 Re Σ_n weights[..., M, N] exp(rate t)``: ``[..., M, IJ]``."""
    blocks, each = powers
    left = weights[..., None] * blocks.reshape((1,) * (weights.ndim - 2) + blocks.shape)
    total = jnp.einsum("...mni,mnj->...mij", left.real, each.real)
    total = total - jnp.einsum("...mni,mnj->...mij", left.imag, each.imag)
    return 2 * total.reshape(*total.shape[:-2], -1)


def _convolve(u, kernel):
    """``Σ_k kernel[m, k] u[b, m, t-k]``; zeros up to a power of two keep the ends apart."""
    steps = u.shape[-1]
    size = 1 << (2 * steps - 1).bit_length() if steps else 1
    spectrum = jnp.fft.rfft(u, size) * jnp.fft.rfft(kernel, size)[None]
    return jnp.fft.irfft(spectrum, size)[..., :steps]


def _state(u, rate, hold, powers, initial, lengths):
    """``exp(rate L) initial + hold Σ_k exp(rate k) u[L-1-k]`` after L steps, ``[B, M, N]``."""
    batch, features, steps = u.shape
    blocks, each = powers
    if lengths is None:
        lengths = jnp.full((batch,), steps, jnp.int32)
    back = lengths[:, None] - 1 - jnp.arange(steps, dtype=jnp.int32)[None]
    past = jnp.take_along_axis(u, jnp.maximum(back, 0)[:, None], axis=2)
    past = jnp.where((back >= 0)[:, None], past, 0)
    shape = (batch, features, blocks.shape[-1], each.shape[-1])
    past = jnp.pad(past, [(0, 0), (0, 0), (0, shape[2] * shape[3] - steps)]).reshape(shape)
    within = jax.lax.complex(
        jnp.einsum("bmij,mnj->bmni", past, each.real),
        jnp.einsum("bmij,mnj->bmni", past, each.imag),
    )
    driven = jnp.sum(within * blocks[None], axis=-1) * hold[None]
    gone = lengths.astype(rate.dtype)[:, None, None]
    return jnp.exp(rate[None] * gone) * initial + driven
