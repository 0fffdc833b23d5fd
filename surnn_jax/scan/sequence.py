"""Batches of sequences in the layout of a scan: one batch axis, steps in the order they are run."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.typing import Array


def as_arrays(*values: Any) -> tuple[Any, ...]:
    """What was given as nested lists, or by NumPy, as JAX arrays; None stays."""
    return tuple(None if value is None else jnp.asarray(value) for value in values)


class BatchAxes(NamedTuple):
    """Any number of batch axes, flattened to one.

    Attributes:
        shape: the sizes of the axes, none included.
    """

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """B, all axes together."""
        return math.prod(self.shape)

    def unflatten(self, tree: Any, axis: int) -> Any:
        """Every leaf with axis number `axis`, the flattened one, as it was."""
        return jax.tree.map(
            lambda leaf: leaf.reshape(*leaf.shape[:axis], *self.shape, *leaf.shape[axis + 1 :]),
            tree,
        )


class Sequences(NamedTuple):
    """A batch of sequences, ready to be scanned.

    Attributes:
        x: ``[T, B, D]``, zeros where `step_mask` is False.
        lengths: integers ``[B]`` or None.
        valid: booleans ``[T, B]``, False beyond the lengths; None without lengths.
        step_mask: booleans ``[T, B]``, False if the state is held; None for all True.
        resets: booleans ``[T, B]``, True if the step starts anew; or None.
        order: the permutation of the steps ``[T]`` or ``[T, B]`` if reversed, its own inverse; or
            None.
    """

    x: Array
    lengths: Array | None
    valid: Array | None
    step_mask: Array | None
    resets: Array | None
    order: Array | None

    @property
    def ends(self) -> Array:
        """The number of valid steps of each example, integers ``[B]``."""
        steps, batch, _ = self.x.shape
        return (
            jnp.full((batch,), steps) if self.lengths is None else jnp.minimum(self.lengths, steps)
        )


def prepare(
    x: Array,
    lengths: Array | None,
    mask: Array | None,
    resets: Array | None,
    reverse: bool,
) -> Sequences:
    """Flattens the batch axes, orders the steps, and blanks what must not be read.

    Args:
        x: ``[T, *batch, D]``.
        lengths: integers ``[*batch]`` or None.
        mask: booleans ``[T, *batch]`` or None.
        resets: booleans ``[T, *batch]`` or None.
        reverse: whether each sequence is run from its end.
    """
    steps, size = x.shape[0], math.prod(x.shape[1:-1])
    x = x.reshape(steps, size, x.shape[-1])
    mask, resets = (None if m is None else m.reshape(steps, size) for m in (mask, resets))
    lengths = None if lengths is None else jnp.asarray(lengths, jnp.int32).reshape(size)
    valid = order = None
    if lengths is not None:
        valid = jnp.arange(steps, dtype=jnp.int32)[:, None] < lengths[None, :]
        resets = None if resets is None else resets & valid
    if reverse:
        order = _reversed(steps, lengths)
        x, mask = permute(x, order), permute(mask, order)
        if resets is not None:  # a sequence ends where the next begins
            resets = permute(jnp.concatenate([resets[1:], resets[:1] & False]), order)
    step_mask = mask
    if valid is not None:
        step_mask = valid if mask is None else mask & valid
    if step_mask is not None:  # masked inputs may be anything, NaN included
        x = jnp.where(step_mask[..., None], x, 0)
    return Sequences(x, lengths, valid, step_mask, resets, order)


def _reversed(steps: int, lengths: Array | None) -> Array:
    """The order of the steps from the end, ``[T]`` or ``[T, B]``; its own inverse."""
    back = jnp.arange(steps, dtype=jnp.int32)[::-1]
    if lengths is None:
        return back
    # Counted from the end of each sequence; padding stays behind, in any order.
    return (back[:, None] - (steps - jnp.minimum(lengths, steps))[None, :]) % max(steps, 1)


def permute(tree: Any, order: Array) -> Any:
    """Every leaf ``[T, …]`` with its steps in another order."""

    def along(leaf):
        if order.ndim == 1:
            return leaf[order]
        index = order.reshape(*order.shape, *(1,) * (leaf.ndim - 2))
        return jnp.take_along_axis(leaf, index, axis=0)

    return jax.tree.map(along, tree)


def positions(sequences: Sequences, clock: Array) -> Array:
    """Steps since the start of the sequence, ``[T]`` if the batch shares them, else ``[T, B]``.

    Args:
        sequences: the batch.
        clock: integer ``[]`` or ``[B]``, the position of the first step.
    """
    t = jnp.arange(sequences.x.shape[0], dtype=jnp.int32)
    resets = sequences.resets
    if resets is None:
        return t + clock if clock.ndim == 0 else t[:, None] + clock[None, :]
    last = jax.lax.cummax(jnp.where(resets, t[:, None], -1), axis=0)
    running = t[:, None] + (clock if clock.ndim == 0 else clock[None, :])
    return jnp.where(last >= 0, t[:, None] - last, running)


def advance(sequences: Sequences, clock: Array, position: Array) -> Array:
    """The clock after the last valid step, ``[]`` if the batch shares it, else ``[B]``."""
    steps, size, _ = sequences.x.shape
    if steps == 0:
        return clock
    if sequences.lengths is None:
        return position[-1] + 1
    whole = jnp.broadcast_to(position.reshape(steps, -1), (steps, size))
    ends = sequences.ends
    final = jnp.take_along_axis(whole, jnp.maximum(ends - 1, 0)[None], axis=0)[0]
    return jnp.where(ends > 0, final + 1, jnp.broadcast_to(clock, (size,)))


def at_the_end(sequences: Sequences, memory: Array, previous: Array) -> Array:
    """What is remembered ``[T, B, …]`` after the last valid step; `previous` if there is none."""
    if not memory.shape[0]:
        return previous
    ends = sequences.ends
    index = jnp.maximum(ends - 1, 0)[None, :, None]
    latest = jnp.take_along_axis(memory, index, axis=0)[0]
    return jnp.where((ends > 0)[:, None], latest.astype(previous.dtype), previous)


def mean_open(opened: Array, step_mask: Array | None) -> Array:
    """The share of open switches among unmasked steps, a scalar.

    Args:
        opened: the switches ``[T, H]`` or ``[T, B, H]``.
        step_mask: booleans ``[T, B]`` or None.
    """
    if step_mask is None:
        return opened.mean() if opened.size else jnp.zeros((), opened.dtype)
    weight = step_mask.astype(opened.dtype)
    total = jnp.maximum(weight.sum(), 1) * opened.shape[-1]
    if opened.ndim == 2:
        return (opened.sum(-1) * weight.sum(-1)).sum() / total
    return (opened.sum(-1) * weight).sum() / total


def open_shares(opened: Array, step_mask: Array | None) -> Array:
    """The share of unmasked steps at which each neuron was open, ``[H]``; arguments as above."""
    if step_mask is None:
        return opened.mean(range(opened.ndim - 1))
    weight = step_mask.astype(opened.dtype)
    total = jnp.maximum(weight.sum(), 1)
    if opened.ndim == 2:
        return (opened * weight.sum(-1)[:, None]).sum(0) / total
    return (opened * weight[..., None]).sum((0, 1)) / total
