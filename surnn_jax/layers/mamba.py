"""Mamba: a state space whose rates depend on the input."""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax.layers.mixer_base import (
    init_memory,
    latest,
    mask_padding,
    masked_outputs,
    segments,
    state_dtype,
    torch_uniform,
)
from surnn_jax.scan.sequence import as_arrays
from surnn_jax.typing import Array

_SLOWEST, _FASTEST = 0.001, 0.1  # of dt at the beginning, as published


class MambaCarry(NamedTuple):
    """State of a Mamba layer.

    Attributes:
        tail: ``[B, conv - 1, I]``, what the convolution still sees, the latest last.
        h: ``[B, N, I]``.
    """

    tail: Array
    h: Array


class Mamba(nn.Module):
    """Selective state space (Gu & Dao 2023, arXiv 2312.00752).

    ::

        [u, z] = W_in x                       u = silu(conv(u) + b_conv), depthwise, causal
        [r, B, C] = W_x u                     dt = softplus(W_dt r + b_dt)
        h[t] = exp(dt A) ∘ h[t-1] + dt B u    for each of I channels and N states; A = -exp(a_log)
        y = W_out ((C · h + D u) ∘ silu(z))

    A begins as ``-1 … -N`` in every channel, softplus(b_dt) log-uniform in [0.001, 0.1], D as 1,
    kernels uniform within ±1/√in; r is M / 16 wide, rounded up. The authors' language model also
    divides the last kernel by the root of its depth, which is not done here.

    Attributes:
        features: M, width of the output.
        expand: I / M.
        state: N, numbers of state a channel.
        conv: steps that the convolution sees.
        chunk: steps whose states are kept at a time for the gradient, the others computed anew.
        dtype: operands of products are rounded to it, outputs returned in it; None for neither.
        param_dtype: of the parameters; the carry has it too, float32 at least.

    Examples:
        >>> from surnn_jax.layers import Mamba
        >>> layer, x = Mamba(features=4, state=8), jnp.ones((2, 5, 4))
        >>> (carry, y), _ = layer.init_with_output(jax.random.key(0), x)
        >>> y.shape
        (2, 5, 4)
    """

    features: int
    expand: int = 2
    state: int = 16
    conv: int = 4
    chunk: int = 32
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        if self.chunk < 1:
            raise ValueError(f"Mamba: a chunk must be at least 1 step, got {self.chunk}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        initial_carry: MambaCarry | None = None,
        seq_lengths: Array | None = None,
        resets: Array | None = None,
    ) -> tuple[MambaCarry, Array]:
        """Runs the layer.

        Args:
            x: ``[B, T, D]``.
            initial_carry: the carry that an earlier call returned; None to begin.
            seq_lengths: integers ``[B]``.
            resets: booleans ``[B, T]``: if True, a new sequence begins with this step.

        Returns:
            The carry and outputs ``[B, T, M]``.

        Raises:
            ValueError: for shapes that do not fit.
        """
        x, initial_carry, lengths, wide, compute, resets, spoilt = init_memory(
            "Mamba", self, x, initial_carry, seq_lengths, resets
        )
        x = mask_padding(x.astype(compute), lengths)

        inner, ranks = self.expand * self.features, -(-self.features // 16)

        def dense(size, name, **kwargs):
            given = {"use_bias": False, "kernel_init": torch_uniform, **kwargs}
            return nn.Dense(size, dtype=compute, param_dtype=self.param_dtype, name=name, **given)

        u, z = jnp.split(dense(2 * inner, "in")(x).astype(wide), 2, axis=-1)
        u = jnp.concatenate([initial_carry.tail, u], axis=1)
        tail, ids = conv_tail(u, self.conv - 1, lengths, resets)
        u = nn.silu(CausalConv(self.conv, self.param_dtype, name="conv")(u, ids))

        dynamic = dense(ranks + 2 * self.state, "dynamic")(u)
        rank, b, c = jnp.split(dynamic, [ranks, ranks + self.state], axis=-1)
        spread = nn.initializers.uniform(2 / math.sqrt(ranks))
        dt = dense(
            inner,
            "dt",
            kernel_init=lambda *args: spread(*args) - 1 / math.sqrt(ranks),
        )(rank)
        bias = self.param("dt_bias", draw_dt_bias, (inner,), self.param_dtype).astype(wide)
        # A step of no duration holds the state exactly: so does padding.
        dt = mask_padding(nn.softplus(dt.astype(wide) + bias[None, None]), lengths)
        a_log = self.param("a_log", _draw_a_log, (self.state, inner), self.param_dtype)
        a = -jnp.exp(a_log.astype(wide))
        h, y = _selective_scan(
            a, u, dt, b.astype(wide), c.astype(wide), initial_carry.h, resets, self.chunk
        )
        skip = self.param("d", nn.initializers.ones, (inner,), self.param_dtype).astype(wide)
        y = (y + skip[None, None] * u) * nn.silu(z)
        return MambaCarry(tail, h), masked_outputs(dense(self.features, "out")(y), lengths, spoilt)

    def step(
        self, carry: MambaCarry, x: Array, resets: Array | None = None
    ) -> tuple[MambaCarry, Array]:
        """One step of a stream, ``x [B, D]``; the same numbers as the sequence call gives.

        With `resets`, booleans ``[B]``, a new sequence begins where they are true.
        """
        x, resets = as_arrays(x, resets)
        now = None if resets is None else resets[:, None]
        carry, y = self(x[:, None], initial_carry=carry, resets=now)
        return carry, y[:, 0]

    @nn.nowrap
    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> MambaCarry:
        """The carry from which a stream begins: zeros."""
        inner, dtype = self.expand * self.features, state_dtype(self.param_dtype)
        return MambaCarry(
            jnp.zeros((*batch_shape, self.conv - 1, inner), dtype),
            jnp.zeros((*batch_shape, self.state, inner), dtype),
        )


class CausalConv(nn.Module):
    """``y[t] = b + Σ_k w[k] x[t + k - (size - 1)]``, every channel by itself.

    Attributes:
        size: steps that an output sees.
        param_dtype: of the parameters.
    """

    size: int
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, ids: Array | None = None) -> Array:
        """``[B, size - 1 + T, I]``, the steps before included, to ``[B, T, I]``.

        With `ids` ``[B, size - 1 + T]`` a step sees those of its own sequence only.
        """
        steps, channels = x.shape[1] - self.size + 1, x.shape[2]
        bound = 1 / math.sqrt(self.size)

        def draw(key, shape, dtype):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        kernel = self.param("kernel", draw, (self.size, channels), self.param_dtype)
        bias = self.param("bias", draw, (channels,), self.param_dtype).astype(x.dtype)
        # A few shifted sums: XLA fuses them, and on a CPU convolves channels one by one slowly.
        total = bias[None, None]
        for k in range(self.size):
            seen = x[:, k : k + steps]
            if ids is not None:
                same = ids[:, k : k + steps] == ids[:, self.size - 1 :]
                seen = jnp.where(same[..., None], seen, 0)
            total = total + kernel[k].astype(x.dtype)[None, None] * seen
        return total


def conv_tail(
    joined: Array, size: int, lengths: Array | None, resets: Array | None
) -> tuple[Array, Array | None]:
    """What the convolution of the next call sees, and the numbers of the steps' sequences.

    Args:
        joined: ``[B, size + T, I]``.
        size: steps before the call.
        lengths: integers ``[B]`` or None.
        resets: booleans ``[B, T]`` or None.

    Returns:
        ``[B, size, I]``, zeros before the last reset; and ``[B, size + T]``, None without resets.
    """
    if resets is None:
        return latest(joined, size, lengths), None
    ids = segments(resets, size)
    last = jnp.max(ids, axis=1, keepdims=True, initial=0)
    return latest(jnp.where((ids == last)[..., None], joined, 0), size, lengths), ids


def draw_dt_bias(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """The bias before softplus for which dt is log-uniform in [0.001, 0.1]."""
    span = jax.random.uniform(key, shape, dtype, math.log(_SLOWEST), math.log(_FASTEST))
    dt = jnp.exp(span)
    return dt + jnp.log(-jnp.expm1(-dt))


def _draw_a_log(key, shape, dtype):
    del key
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[0] + 1, dtype=dtype))[:, None], shape)


@functools.partial(jax.jit, static_argnames="chunk", inline=True)  # once, also outside `jit`
def _selective_scan(a, u, dt, b, c, initial, resets, chunk):
    """The recurrence: ``(h [B, N, I], y [B, T, I])``.

    The rates of a step are formed inside its turn of the loop, and the states of a chunk anew for
    the gradient: nothing of size B·T·N·I is made. Two Xeon cores, B=16, T=1024, I=256, N=16,
    forward with backward: 0.55 s and 0.46 GB by chunks of 32; for the loop as it is 1.33 s and
    1.27 GB.
    """
    steps = u.shape[1]
    chunk = max(1, min(steps, chunk))
    chunks = -(-steps // chunk)

    def chunked(x):  # time-major; steps of no duration at the end
        x = jnp.pad(jnp.swapaxes(x, 0, 1), [(0, chunks * chunk - steps), (0, 0), (0, 0)])
        return x.reshape(chunks, chunk, *x.shape[1:])

    def step(h, now):
        u, dt, b, c, *reset = now
        if reset:
            h = jnp.where(reset[0][..., None], 0, h)
        h = jnp.exp(dt[:, None] * a[None]) * h + (dt * u)[:, None] * b[..., None]
        return h, jnp.sum(h * c[..., None], axis=1)

    @jax.checkpoint
    def run(h, some):
        return jax.lax.scan(step, h, some)

    given = (u, dt, b, c) if resets is None else (u, dt, b, c, resets[..., None])
    h, y = jax.lax.scan(run, initial, tuple(map(chunked, given)))
    return h, jnp.swapaxes(y.reshape(chunks * chunk, *y.shape[2:])[:steps], 0, 1)
