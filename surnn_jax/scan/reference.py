"""The oracle: a plain Python loop over time, differentiated as it stands."""

from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.cells import Cell
from surnn_jax.cells.straight_through import mix
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params


@jax.custom_jvp
def weighed(g: Array, weight: Array) -> Array:
    """`g`, whose derivative counts `weight` times."""
    del weight
    return g


@weighed.defjvp
def _weighed_jvp(primals, tangents):
    g, weight = primals
    # Where it counts 0 times it may be anything, NaN included.
    return weighed(g, weight), jnp.where(weight == 0, 0, weight * tangents[0])


def scan(
    cell: Cell,
    gate: Surrogate | None,
    dtype: Any,
    params: Params,
    x: Array,
    a: Array | None,
    start: Carry,
    fresh: Carry,
    keep: Array | None,
    resets: Array | None,
) -> Carry:
    """All carries, step by step; the contract every back end fulfils.

    Args:
        cell: what a step computes.
        gate: how logits open; None if `a` is None.
        dtype: the dtype to which operands of products are rounded.
        params: parameters of the cell.
        x: ``[T, B, D]``.
        a: logits ``[T, H]`` or ``[T, B, H]``; None if every neuron updates at every step.
        start: carry before the first step, ``[B, H]``.
        fresh: carry after a reset, ``[B, H]``.
        keep: booleans ``[T, B]``: false where the whole state is held; None for everywhere true.
        resets: booleans ``[T, B]``: true where the state starts anew before the step; or None.

    Returns:
        The carry after every step, ``[T, B, H]`` a field.
    """
    carry, carries = start, []
    for t in range(x.shape[0]):
        if resets is not None:
            carry = jax.tree.map(
                lambda new, old, r=resets[t][:, None]: jnp.where(r, new, old), fresh, carry
            )
        candidate = cell.step(params, carry, x[t], dtype)
        g = jnp.ones_like(carry.h)
        if a is not None:
            opened = gate(a[t].astype(carry.h.dtype))
            g = jnp.broadcast_to(opened[None] if opened.ndim == 1 else opened, g.shape)
            lesson = gate.lesson(g.shape[0], g.dtype)
            if lesson is not None:
                g = weighed(g, jnp.broadcast_to(lesson[:, None], g.shape))
        if keep is not None:
            g = jnp.where(keep[t][:, None], g, 0)
        carry = jax.tree.map(lambda new, old, g=g: mix(g, new, old), candidate, carry)
        carries.append(carry)
    if not carries:
        return jax.tree.map(lambda c: jnp.zeros((0, *c.shape), c.dtype), start)
    return jax.tree.map(lambda *steps: jnp.stack(steps), *carries)
