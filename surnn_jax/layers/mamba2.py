"""Mamba-2: one rate a head, so that chunks of a sequence are matrix products."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax.layers.mamba import CausalConv, conv_tail, draw_dt_bias
from surnn_jax.layers.meshes import by_rows
from surnn_jax.layers.mixer_base import (
    init_memory,
    mask_padding,
    masked_outputs,
    segments,
    state_dtype,
    torch_uniform,
)
from surnn_jax.scan.linear_scan import linear_scan
from surnn_jax.scan.sequence import as_arrays
from surnn_jax.typing import Array

_WIDEST_HEAD = 64
_LEAST_RATE, _GREATEST_RATE = 1.0, 16.0  # of -A at the beginning, as published


class Mamba2Carry(NamedTuple):
    """State of a Mamba-2 layer.

    Attributes:
        tail: ``[B, conv - 1, I + 2GN]``, what the convolution still sees, the latest last.
        h: ``[B, heads, P, N]``.
    """

    tail: Array
    h: Array


class Mamba2(nn.Module):
    """State space duality (Dao & Gu 2024, arXiv 2405.21060).

    ::

        [z, u, B, C, r] = W_in x              [u, B, C] = silu(conv([u, B, C]) + b_conv)
        dt = softplus(r + b_dt)               A = -exp(a_log), a number a head
        h[t] = exp(dt A) h[t-1] + dt u B'     for each head, [P, N]
        y = W_out (rms((h C + D u) ∘ silu(z)))

    With G groups there are G pairs of B and C, each shared by as many heads in their order, and the
    root mean square is that of a group's features, as in the authors' code.

    -A begins uniform in [1, 16], softplus(b_dt) log-uniform in [0.001, 0.1], D as 1, kernels
    uniform within ±1/√in. The authors' language model also divides the last kernel by the root of
    its depth, which is not done here.

    Attributes:
        features: M, width of the output.
        expand: I / M.
        state: N.
        head: P, width of a head, a divisor of I; None for the greatest that divides 64, too.
        conv: steps that the convolution sees.
        chunk: steps that are one matrix product.
        groups: G, a divisor of the number of heads.
        dtype: operands of products are rounded to it, outputs returned in it; None for neither.
        param_dtype: of the parameters; the carry has it too, float32 at least.

    Examples:
        >>> from surnn_jax.layers import Mamba2
        >>> layer, x = Mamba2(features=4, state=8), jnp.ones((2, 5, 4))
        >>> (carry, y), _ = layer.init_with_output(jax.random.key(0), x)
        >>> y.shape
        (2, 5, 4)
    """

    features: int
    expand: int = 2
    state: int = 64
    head: int | None = None
    conv: int = 4
    chunk: int = 64
    groups: int = 1
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        inner = self.expand * self.features
        if self.head is not None and (self.head < 1 or inner % self.head):
            raise ValueError(
                f"Mamba-2: the width of a head must divide the {inner} inner features "
                f"({self.expand} times {self.features}), got {self.head}"
            )
        if self.chunk < 1:
            raise ValueError(f"Mamba-2: a chunk must be at least 1 step, got {self.chunk}")
        heads = inner // (self.head or math.gcd(inner, _WIDEST_HEAD))
        if self.groups < 1 or heads % self.groups:
            raise ValueError(f"Mamba-2: groups must divide the {heads} heads, got {self.groups}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        initial_carry: Mamba2Carry | None = None,
        seq_lengths: Array | None = None,
        resets: Array | None = None,
    ) -> tuple[Mamba2Carry, Array]:
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
            "Mamba-2", self, x, initial_carry, seq_lengths, resets
        )
        x = mask_padding(x.astype(compute), lengths)
        inner, heads, width = self._sizes()

        def dense(size, name):
            return nn.Dense(
                size,
                use_bias=False,
                kernel_init=torch_uniform,
                dtype=compute,
                param_dtype=self.param_dtype,
                name=name,
            )

        def vector(name, draw, size):
            return self.param(name, draw, (size,), self.param_dtype).astype(wide)

        shared = self.groups * self.state
        mixed = inner + 2 * shared
        z, u, dt = jnp.split(
            dense(inner + mixed + heads, "in")(x).astype(wide), [inner, inner + mixed], axis=-1
        )
        u = jnp.concatenate([initial_carry.tail, u], axis=1)
        tail, ids = conv_tail(u, self.conv - 1, lengths, resets)
        u = nn.silu(CausalConv(self.conv, self.param_dtype, name="conv")(u, ids))
        u, b, c = jnp.split(u, [inner, inner + shared], axis=-1)
        u = u.reshape(*u.shape[:2], heads, width)
        b, c = (leaf.reshape(*leaf.shape[:2], self.groups, self.state) for leaf in (b, c))

        # A step of no duration holds the state exactly: so does padding.
        dt = nn.softplus(dt + vector("dt_bias", draw_dt_bias, heads)[None, None])
        dt = mask_padding(dt, lengths)
        a = -jnp.exp(vector("a_log", _draw_a_log, heads))
        ids = None if resets is None else segments(resets)
        h, y = _chunked_scan(u, dt, a, b, c, initial_carry.h, ids, self.chunk, compute)
        y = y + vector("d", nn.initializers.ones, heads)[None, None, :, None] * u
        y = y.reshape(*y.shape[:2], inner) * nn.silu(z)
        axes = -1
        if self.groups > 1:
            y, axes = y.reshape(*y.shape[:2], self.groups, inner // self.groups), (-2, -1)
        norm = nn.RMSNorm(
            epsilon=1e-5,
            dtype=wide,
            param_dtype=self.param_dtype,
            feature_axes=axes,
            force_float32_reductions=False,  # they are in `wide`, float32 at least
            name="norm",
        )
        y = norm(y).reshape(*y.shape[:2], inner)
        return Mamba2Carry(tail, h), masked_outputs(dense(self.features, "out")(y), lengths, spoilt)

    def step(
        self, carry: Mamba2Carry, x: Array, resets: Array | None = None
    ) -> tuple[Mamba2Carry, Array]:
        """One step of a stream, ``x [B, D]``; the same numbers as the sequence call gives.

        With `resets`, booleans ``[B]``, a new sequence begins where they are true.
        """
        x, resets = as_arrays(x, resets)
        now = None if resets is None else resets[:, None]
        carry, y = self(x[:, None], initial_carry=carry, resets=now)
        return carry, y[:, 0]

    @nn.nowrap
    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Mamba2Carry:
        """The carry from which a stream begins: zeros."""
        inner, heads, width = self._sizes()
        dtype = state_dtype(self.param_dtype)
        return Mamba2Carry(
            jnp.zeros((*batch_shape, self.conv - 1, inner + 2 * self.groups * self.state), dtype),
            jnp.zeros((*batch_shape, heads, width, self.state), dtype),
        )

    @nn.nowrap
    def _sizes(self):
        inner = self.expand * self.features
        width = self.head or math.gcd(inner, _WIDEST_HEAD)
        return inner, inner // width, width


def _draw_a_log(key, shape, dtype):
    return jnp.log(jax.random.uniform(key, shape, dtype, _LEAST_RATE, _GREATEST_RATE))


@by_rows
def _chunked_scan(u, dt, a, b, c, initial, ids, chunk, compute):
    """The recurrence by chunks: ``(h [B, heads, P, N], y [B, T, heads, P])``.

    Inside a chunk every output is a weighted sum over its steps, as in attention, the weights
    being ``C[t] · B[s] exp(Σ dt A)``, the sum over the steps between; from chunk to chunk the
    state is carried by the linear recurrence.

    Args:
        u: ``[B, T, heads, P]``.
        dt: ``[B, T, heads]``.
        a: ``[heads]``.
        b: ``[B, T, G, N]``.
        c: ``[B, T, G, N]``.
        initial: ``[B, heads, P, N]``.
        ids: the number of each step's sequence, ``[B, T]``, 0 for that of `initial`; None for one.
        chunk: steps of one.
        compute: dtype of the operands of products.
    """
    wide, steps, heads = initial.dtype, u.shape[1], u.shape[2]
    grid = (b.shape[2], heads // b.shape[2])
    chunk = max(1, min(steps, chunk))
    chunks = -(-steps // chunk)

    def product(form, left, right):
        return jnp.einsum(
            form, left.astype(compute), right.astype(compute), preferred_element_type=wide
        )

    def chunked(x):  # steps of no duration at the end
        beyond = [(0, 0), (0, chunks * chunk - steps)] + [(0, 0)] * (x.ndim - 2)
        return jnp.pad(x, beyond).reshape(x.shape[0], chunks, chunk, *x.shape[2:])

    def grouped(x, axis):  # the heads on this axis as [G, heads of a group]
        return x.reshape(*x.shape[:axis], *grid, *x.shape[axis + 1 :])

    def together(x, axis):
        return x.reshape(*x.shape[:axis], heads, *x.shape[axis + 2 :])

    # Letters of the products: b batch, c chunk, t and s steps of it, g groups, h heads of a group,
    # p width, n state.
    u, dt, b, c = map(chunked, (u, dt, b, c))
    driven = dt[..., None] * u
    if ids is not None:
        # A product over a chunk also multiplies what is masked, and 0 · NaN is NaN: a broken step
        # is told by its b alone, which is masked below.
        broken = ~(jnp.isfinite(driven).all((-1, -2)) & jnp.isfinite(dt).all(-1))[..., None]
        b = jnp.where(broken[..., None], jnp.nan, b)
        dt = jnp.where(broken, 0, dt)
        driven = jnp.where(broken[..., None], 0, driven)
    passed = jnp.cumsum(dt * a[None, None, None], axis=2)
    along = jnp.moveaxis(passed, 3, 2)
    between = along[..., :, None] - along[..., None, :]
    # Masked before the exponential: beyond the diagonal it would overflow.
    order = jnp.tri(chunk, dtype=bool).reshape(1, 1, 1, chunk, chunk)
    left, entered = jnp.exp(passed[:, :, -1:] - passed), jnp.exp(passed)
    kept = entered[:, :, -1]
    if ids is not None:  # nothing passes from one sequence to the next
        ids = jnp.pad(ids, [(0, 0), (0, chunks * chunk - steps)], mode="edge")
        ids = ids.reshape(-1, chunks, chunk)
        first = jnp.pad(ids[:, :-1, -1:], [(0, 0), (1, 0), (0, 0)]) if chunks else ids[:, :, -1:]
        order = order & (ids[:, :, None, :, None] == ids[:, :, None, None, :])
        goes_on, came = ids == ids[:, :, -1:], ids == first
        left = jnp.where(goes_on[..., None], left, 0)
        entered = jnp.where(came[..., None], entered, 0)
        kept = entered[:, :, -1]
    weights = jnp.exp(jnp.where(order, between, -jnp.inf))
    scores = product("bctgn,bcsgn->bcgts", c, b)[:, :, :, None]
    weights = together(jnp.where(order[:, :, None], grouped(weights, 2) * scores, 0), 2)
    y = product("bchts,bcshp->bcthp", weights, driven)

    last = b if ids is None else jnp.where(goes_on[..., None, None], b, 0)
    left = grouped(driven * left[..., None], 3)
    gained = together(product("bcsghp,bcsgn->bcghpn", left, last), 2)
    kept = kept[..., None, None]
    after = linear_scan(kept, gained, initial, axis=1, zero_forgets=ids is not None)
    states = jnp.concatenate([initial[:, None], after], axis=1)
    before = states[:, :-1]
    if ids is not None:  # the products below are of whole chunks
        before = jnp.where(came.any(-1)[..., None, None, None], before, 0)
    carried = together(product("bctgn,bcghpn->bctghp", c, grouped(before, 2)), 3)
    if ids is not None:
        carried = jnp.where(came[..., None, None], carried, 0)
    y = y + entered[..., None] * carried
    return states[:, -1], y.reshape(y.shape[0], chunks * chunk, *y.shape[3:])[:, :steps]
