"""Lists of the open steps of a block that rests, cut into pieces, and access to their rows.

A step of the list is called a level: level j of example b is the j-th step at which something
happens to its state, an opening or a reset.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from surnn_jax.layers.branch import Branch, BranchInputs
from surnn_jax.typing import Array, Carry

ROWS = 256
"""Rows (levels · examples) of a piece. Measured on a CPU, widths of 64, B = 32, 10 % open: of 256,
512 and 1,024 rows the training step took 86, 96 and 98 ms."""


class Levels(NamedTuple):
    """Steps, listed for every example (W = B) or for all together (W = 1).

    Attributes:
        index: integers ``[L, W]``: the steps, then T; L is T and a piece more.
        count: integer ``[]``: the levels of the example that has most.
        place: integers ``[T, W]``: how many listed steps there are up to and including each step.
    """

    index: Array
    count: Array
    place: Array


class Kept(NamedTuple):
    """The states of the cell, and what the branch added, after levels; ``[B, …]`` each, or more.

    The forward pass keeps them for all levels, ``[1 + L, B, …]``; entry 0 is before the first.
    """

    states: Carry
    held: Array


class Now(NamedTuple):
    """The inputs of some levels.

    Attributes:
        x: ``[S, B, M]``.
        g: the openness, ``[S, B]``.
        reset: booleans ``[S, B]``, or None.
    """

    x: Array
    g: Array
    reset: Array | None


def size_of(rows: int, steps: int) -> int:
    """The levels of a piece, of so many examples."""
    return max(1, min(steps, ROWS // max(rows, 1)))


def openness(branch: Branch, inputs: BranchInputs) -> tuple[Array, Array, Array]:
    """The logits, the openness and which steps are listed, ``[T, W]`` all.

    W is 1 if all examples open at the same steps, else B.
    """
    logits = inputs.logits.astype(inputs.carry.h.dtype)
    batch = inputs.x.shape[0]
    shared = logits.ndim == 1 and inputs.valid is None and inputs.resets is None
    logits = logits[:, None] if logits.ndim == 1 else logits
    if not shared:
        logits = jnp.broadcast_to(logits, (logits.shape[0], batch))
    g = branch.surrogate.value(logits)
    if inputs.valid is not None:
        g = jnp.where(inputs.valid, g, 0)
    listed = g != 0
    return logits, g, listed if inputs.resets is None else listed | inputs.resets


def list_levels(listed: Array, size: int) -> Levels:
    """The steps of booleans ``[T, W]``, for pieces of `size` levels."""
    steps, width = listed.shape
    place = jnp.cumsum(listed, axis=0, dtype=jnp.int32)
    t = jnp.broadcast_to(jnp.arange(steps, dtype=jnp.int32)[:, None], listed.shape)
    row = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32)[None], listed.shape)
    index = jnp.full((steps + size, width), steps, jnp.int32)
    index = index.at[jnp.where(listed, place - 1, steps + size), row].set(t, mode="drop")
    return Levels(index, place[-1].max(), place)


def rows_at(leaf: Array, index: Array, axis: int) -> Array:
    """Steps of ``[B, T, …]`` (axis 1) or ``[T, B, …]`` (axis 0): ``[S, B, …]``; zeros for step T.

    Args:
        leaf: the array.
        index: integers ``[S, W]``.
        axis: that of the steps.
    """
    if index.shape[1] == 1:
        found = jnp.take(leaf, index[:, 0], axis=axis, mode="fill", fill_value=0)
        return jnp.swapaxes(found, 0, 1) if axis else found
    b = jnp.arange(index.shape[1])[None]
    return leaf.at[(b, index) if axis else (index, b)].get(mode="fill", fill_value=0)


def add_rows(leaf: Array, index: Array, rows: Array) -> Array:
    """``[B, T, …]`` with ``[S, B, …]`` added at the steps ``[S, W]``; nothing for step T."""
    rows = jnp.swapaxes(rows, 0, 1).astype(leaf.dtype)
    if index.shape[1] == 1:
        return leaf.at[:, index[:, 0]].add(rows, mode="drop")
    return leaf.at[jnp.arange(index.shape[1])[:, None], index.T].add(rows, mode="drop")


def after_levels(kept: Any, place: Array) -> Any:
    """What was kept after so many levels, integers ``[S, W]``: ``[S, B, …]``."""
    if place.shape[1] == 1:
        return jax.tree.map(lambda leaf: jnp.take(leaf, place[:, 0], axis=0), kept)
    b = jnp.arange(place.shape[1])[None]
    return jax.tree.map(lambda leaf: leaf[place, b], kept)


def now_at(inputs: BranchInputs, g: Array, index: Array) -> Now:
    """The inputs of the levels `index`, integers ``[S, W]``; g is that of :func:`openness`."""
    x = rows_at(inputs.x, index, 1)
    reset = None if inputs.resets is None else rows_at(inputs.resets, index, 0)
    return Now(x, jnp.broadcast_to(rows_at(g, index, 0), x.shape[:2]), reset)


def buffers(size: int, like: Any, x: Array) -> Any:
    """Arrays ``[size, …]``, of which anything may be read before it is written.

    XLA takes constants of one shape for one array, which every loop that fills one then copies. So
    these begin with a number of `x`, and each with its own.
    """
    first = lax.squeeze(lax.slice(x, (0,) * x.ndim, (1,) * x.ndim), range(x.ndim))
    leaves, form = jax.tree.flatten(like)
    filled = [
        jnp.broadcast_to((first + k).astype(leaf.dtype), (size, *leaf.shape))
        for k, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(form, filled)


def write(arrays: Any, values: Any, first: Array | int) -> Any:
    """Arrays ``[N, …]`` with ``[S, …]`` from entry `first`."""
    return jax.tree.map(
        lambda a, v: lax.dynamic_update_slice_in_dim(a, v, first, 0), arrays, values
    )
