"""Attention over a sliding window of the past, or over a whole sequence."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from surnn_jax.layers.meshes import rows_like
from surnn_jax.layers.mixer_base import (
    check_carry,
    check_inputs,
    last_reset,
    latest,
    lengths_within,
    mask_padding,
    resets_within,
    segments,
    state_dtype,
)
from surnn_jax.scan import compiled
from surnn_jax.scan.sequence import as_arrays
from surnn_jax.typing import Array


class KVCache(NamedTuple):
    """What the next step can see.

    Attributes:
        key: ``[B, W, heads, d]``, of the last W steps, the latest last; zeros before the first.
        value: ``[B, W, heads, d]``.
        count: int32 ``[B]``, how many steps there were, counted up to W.
    """

    key: Array
    value: Array
    count: Array


class Attention(nn.Module):
    """Multi-head attention (arXiv 1706.03762), in a window of the last steps.

    ``softmax(q k' / √d) v`` for every head, then a product with all heads. Queries, keys and
    values have no bias. Positions are not added here; `rotary` turns queries and keys.

    Attributes:
        features: M, width of the output.
        num_heads: a divisor of M; each is d = M / heads wide.
        window: W, how many steps a step sees, itself included.
        causal: False to see the whole sequence, the future included; `window` is then ignored.
        rotary: turn each pair of numbers of queries and keys, ``(2i, 2i + 1)``, by
            ``p · 10000^(-2i/d)`` at step p (Su et al., arXiv 2104.09864). Scores depend on
            differences of p alone, so p is counted from nearby: no stream is too long for float32.
        dtype: operands of products are rounded to it, outputs returned in it; None for neither.
        param_dtype: of the parameters; the carry has it too, float32 at least.

    Examples:
        >>> from surnn_jax.layers import Attention
        >>> layer, x = Attention(features=4, num_heads=2, window=3), jnp.ones((2, 5, 4))
        >>> (cache, y), _ = layer.init_with_output(jax.random.key(0), x)
        >>> y.shape, cache.key.shape
        ((2, 5, 4), (2, 3, 2, 2))
    """

    features: int
    num_heads: int
    window: int
    causal: bool = True
    rotary: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        if self.num_heads < 1 or self.features % self.num_heads:
            raise ValueError(
                f"num_heads must divide the {self.features} features of attention, "
                f"got {self.num_heads}"
            )
        if self.rotary and self.features // self.num_heads % 2:
            raise ValueError(
                "rotary positions need heads of even width, "
                f"got {self.features} features / {self.num_heads} heads"
            )
        if self.causal and self.window < 1:
            raise ValueError(f"the window must be at least 1 step, got {self.window}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        initial_carry: KVCache | None = None,
        seq_lengths: Array | None = None,
        resets: Array | None = None,
    ) -> tuple[KVCache | None, Array]:
        """Attends.

        Args:
            x: ``[B, T, D]``.
            initial_carry: the carry that an earlier call returned; None to begin.
            seq_lengths: integers ``[B]``.
            resets: booleans ``[B, T]``: if True, a new sequence begins with this step.

        Returns:
            The carry (None if attention is not causal) and outputs ``[B, T, M]``.

        Raises:
            ValueError: for shapes that do not fit, or a carry if attention is not causal.
        """
        x, seq_lengths, resets = as_arrays(x, seq_lengths, resets)
        check_inputs("attention", x, seq_lengths, resets)
        wide = state_dtype(self.param_dtype)
        compute = self.dtype or wide
        if initial_carry is not None:
            check_carry("attention", initial_carry, self.initial_carry(x.shape[:1]))
        lengths = lengths_within(x, seq_lengths)
        resets = resets_within(resets, lengths)
        same = None  # a query sees keys of its own sequence
        if resets is not None:
            ids = segments(resets)
            same = (ids[:, :, None] == ids[:, None, :])[:, None]
        x = mask_padding(x.astype(compute), lengths)
        broken = spoilt = None  # with resets: steps that are not finite, and those that see one
        if resets is not None:
            (x,), broken = _without_broken((x,))

        steps, width = x.shape[1], self.features // self.num_heads
        project = nn.DenseGeneral(
            (3, self.num_heads, width),
            use_bias=False,
            dtype=compute,
            param_dtype=self.param_dtype,
            name="qkv",
        )
        query, key, value = (part[:, :, 0] for part in jnp.split(project(x), 3, axis=2))
        if resets is not None:
            (key, value), broken = _without_broken((key, value), broken)
        if not self.causal:
            carry = None
            query, key = self._turned(query, 0), self._turned(key, 0)
            seen = _attend(query, key, value, mask=same, lengths=lengths)
            if broken is not None:
                spoilt = _sees(same, broken)
        else:
            past = initial_carry
            if past is None:
                past = rows_like(x, self.initial_carry(x.shape[:1]))
            if broken is not None:
                (old_key, old_value), before = _without_broken((past.key, past.value))
                past = KVCache(old_key, old_value, past.count)
                broken = jnp.concatenate([before, broken], axis=1)
            keys, values = (
                jnp.concatenate([old, new.astype(wide)], axis=1)
                for old, new in ((past.key, key), (past.value, value))
            )
            length = jnp.full(x.shape[:1], steps, jnp.int32) if lengths is None else lengths
            count = past.count + length
            if resets is not None:
                last = last_reset(resets)
                count = jnp.where(last >= 0, length - last, count)
            count = jnp.minimum(count, self.window)
            kept = [latest(joined, self.window, lengths) for joined in (keys, values)]
            if broken is not None:
                slot = jnp.arange(self.window, dtype=jnp.int32)[None]
                lost = latest(broken, self.window, lengths)[..., None, None]
                seen = (slot >= self.window - count[:, None])[..., None, None]
                kept = [jnp.where(seen, jnp.where(lost, jnp.nan, leaf), 0) for leaf in kept]
            carry = KVCache(*kept, count)
            if initial_carry is None and steps <= self.window:
                query, key = self._turned(query, 0), self._turned(key, 0)
                seen = _attend(query, key, value, mask=same, is_causal=True)
                if broken is not None:
                    order = jnp.tri(steps, dtype=bool)[None, None]
                    spoilt = _sees(same & order, broken[:, self.window :])
            else:
                seen, spoilt = self._within_window(query, keys, values, past.count, resets, broken)
        out = nn.DenseGeneral(
            self.features,
            axis=(-2, -1),
            dtype=compute,
            param_dtype=self.param_dtype,
            name="out",
        )
        y = out(seen)
        if spoilt is not None:
            y = jnp.where(spoilt[..., None], jnp.nan, y)
        return carry, mask_padding(y, lengths)

    def _within_window(self, query, keys, values, count, resets, broken):
        """Blocks of queries, each with the keys that one of it can see: T·(W + block) scores.

        Returns what is seen, and with `broken` ``[B, W + T]`` which steps see one of these.
        """
        batch, steps = query.shape[:2]
        block = max(1, min(steps, self.window))
        blocks = max(1, -(-steps // block))
        beyond = [(0, 0), (0, blocks * block - steps), (0, 0), (0, 0)]
        query = jnp.pad(query, beyond).reshape(batch * blocks, block, *query.shape[2:])
        begin, slot = (jnp.arange(n, dtype=jnp.int32) for n in (blocks, self.window + block))
        slots = begin[:, None] * block + slot[None, :]

        def near(joined):
            joined = jnp.pad(joined, beyond)
            if blocks > 1:  # then a block is as long as the window: it sees the one before, too
                pairs = joined.reshape(batch, blocks + 1, block, *joined.shape[2:])
                joined = jnp.concatenate([pairs[:, :-1], pairs[:, 1:]], axis=2)
            return joined.reshape(batch * blocks, self.window + block, *joined.shape[-2:])

        # Slot s of a block holds step s - W, counted from the first query of the block.
        at, now = (slot - self.window)[None, :], slot[:block, None]
        band = (at <= now) & (at > now - self.window)
        there = slots[None] >= self.window - count[:, None, None]
        mask = band[None, None] & there[:, :, None]
        mask = mask.reshape(batch * blocks, 1, *band.shape)
        if resets is not None:
            ids = near(segments(resets, self.window)[..., None, None])[..., 0, 0]
            mask = mask & (ids[:, None, -block:, None] == ids[:, None, None, :])
        keys, values = keys.astype(query.dtype), values.astype(query.dtype)
        seen = _attend(
            self._turned(query, 0),
            self._turned(near(keys), -self.window),
            near(values),
            mask=mask,
        )
        spoilt = None
        if broken is not None:
            spoilt = _sees(mask, near(broken[..., None, None])[..., 0, 0])
            spoilt = spoilt.reshape(batch, blocks * block)[:, :steps]
        return seen.reshape(batch, blocks * block, *seen.shape[2:])[:, :steps], spoilt

    def _turned(self, x, first):
        """Rotary positions on ``[B, T, heads, d]``, of which the first step is step `first`."""
        if not self.rotary:
            return x
        width = x.shape[-1]
        wide = state_dtype(self.param_dtype)
        place = jnp.arange(first, first + x.shape[1], dtype=wide)
        speed = 10000.0 ** (-jnp.arange(0, width, 2, dtype=wide) / width)
        angle = (place[:, None] * speed[None, :])[None, :, None, :]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        even, odd = x[..., 0::2].astype(wide), x[..., 1::2].astype(wide)
        turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
        return turned.reshape(x.shape).astype(x.dtype)

    def step(self, carry: KVCache, x: Array, resets: Array | None = None) -> tuple[KVCache, Array]:
        """One step of a stream, ``x [B, D]``; the same numbers as the sequence call gives.

        With `resets`, booleans ``[B]``, a new sequence begins where they are true.
        """
        x, resets = as_arrays(x, resets)
        now = None if resets is None else resets[:, None]
        carry, y = self(x[:, None], initial_carry=carry, resets=now)
        return carry, y[:, 0]

    @nn.nowrap
    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> KVCache:
        """The carry from which a stream begins: nothing seen."""
        if not self.causal:
            raise ValueError(_NO_STREAM)
        shape = (*batch_shape, self.window, self.num_heads, self.features // self.num_heads)
        nothing = jnp.zeros(shape, state_dtype(self.param_dtype))
        return KVCache(nothing, nothing, jnp.zeros(batch_shape, jnp.int32))


_SCORES = 2**28
"""Scores of a layer that are held at once on an accelerator: 1 GB in float32."""

_CPU_SCORES = 2**22
"""The same on a CPU: as many as its cache holds. A causal layer of 4 heads, 64 wide, over 32
sequences of 1,024 steps takes 1.75 s forward and backward on two idle cores, 1.83 with 2^24 and
3.43 with 2^28."""

_NO_STREAM = "attention that is not causal sees the whole sequence: it has no carry and no steps"


def _without_broken(
    leaves: tuple[Array, ...], broken: Array | None = None
) -> tuple[list[Array], Array]:
    """Steps of ``[B, T, …]`` that are not finite in one of the leaves as zeros, and which they are.

    A mask does not hide them: in values and gradients, 0 · NaN is NaN.
    """
    for leaf in leaves:
        found = ~jnp.isfinite(leaf).all(tuple(range(2, leaf.ndim)))
        broken = found if broken is None else broken | found
    return [
        jnp.where(broken.reshape(*broken.shape, *(1,) * (leaf.ndim - 2)), 0, leaf)
        for leaf in leaves
    ], broken


def _sees(mask: Array, broken: Array) -> Array:
    """Which queries see a broken key: a mask ``[B, 1, T, S]`` and ``[B, S]`` to ``[B, T]``."""
    return (mask[:, 0] & broken[:, None]).any(-1)


def _attend(query, key, value, *, mask=None, is_causal=False, lengths=None):
    """Attention; where there are many scores, a block of queries at a time.

    The gradient computes the scores of a block anew, so that few are held at once.

    Args:
        query: ``[B, T, heads, d]``.
        key: ``[B, S, heads, d]``, and so is `value`.
        value: what is mixed.
        mask: booleans ``[B, 1, T, S]``, what a query sees; None for everything.
        is_causal: query t sees keys up to t alone.
        lengths: integers ``[B]``, how many keys there are to be seen; None for all.
    """
    # JAX promotes bfloat16 to float32 inside, which a caller may have forbidden.
    with jax.numpy_dtype_promotion("standard"):
        batch, steps, heads, _ = query.shape
        seen = key.shape[1]
        if lengths is not None:
            there = (jnp.arange(seen, dtype=jnp.int32)[None] < lengths[:, None])[:, None, None]
            mask = there if mask is None else mask & there
        size = None
        if not any(map(is_symbolic_dim, (batch, steps, seen))):
            most = _CPU_SCORES if compiled.platform() == "cpu" else _SCORES
            size = max(1, most // max(batch * heads * seen, 1))
        if size is None or size >= steps:
            return jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=is_causal)

        def some(first):
            visible = None
            if is_causal:
                place = first + jnp.arange(size, dtype=jnp.int32)
                visible = (place[:, None] >= jnp.arange(seen, dtype=jnp.int32)[None])[None, None]
            if mask is not None:
                own = mask
                if mask.shape[2] > 1:
                    own = jax.lax.dynamic_slice_in_dim(rows, first, size, 2)
                visible = own if visible is None else visible & own
            part = jax.lax.dynamic_slice_in_dim(queries, first, size, 1)
            return jax.nn.dot_product_attention(part, key, value, mask=visible)

        blocks = -(-steps // size)
        beyond = blocks * size - steps
        queries = jnp.pad(query, [(0, 0), (0, beyond), (0, 0), (0, 0)])
        rows = None
        if mask is not None and mask.shape[2] > 1:
            wide = [(0, 0), (0, 0), (0, beyond), (0, 0)]
            rows = jnp.pad(mask, wide, constant_values=True)
        found = jax.lax.map(jax.checkpoint(some), size * jnp.arange(blocks, dtype=jnp.int32))
        found = jnp.moveaxis(found, 0, 1)
        return found.reshape(batch, blocks * size, *found.shape[3:])[:, :steps]
