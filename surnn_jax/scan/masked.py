"""Dense back end: `lax.scan` over all steps, everything computed, closed neurons kept.

Its backward pass is written by hand. The weight gradients are one product each after the loop
instead of a sum inside it, and only the carries are stored: the products are recomputed for all
steps at once.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.cells import Cell
from surnn_jax.scan import adjoint
from surnn_jax.scan.adjoint import opening, select
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
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
    """All carries, by `lax.scan`; arguments and result as in :func:`.reference.scan`."""

    def step(carry, now):
        carry = adjoint.forward(cell, gate, dtype, params, fresh, carry, now)
        return carry, carry

    return jax.lax.scan(step, start, (x, a, keep, resets))[1]


def _forward(cell, gate, dtype, *args):
    carries = scan(cell, gate, dtype, *args)
    return carries, (args, carries)


def pull(cell, gate, dtype, saved, cotangents):
    """What is owed to the arguments of :func:`scan`, whoever ran the forward pass.

    `saved` are those arguments, from `params` on, and the carries.
    """
    (params, x, a, start, fresh, keep, resets), carries = saved
    out = cell.carry_dtype(params)
    old = jax.tree.map(lambda s, c: jnp.concatenate([s[None], c[:-1]]), start, carries)
    if x.shape[0] == 0:
        old = carries
    if resets is not None:
        old = jax.tree.map(lambda f, o: jnp.where(resets[..., None], f[None], o), fresh, old)
    z, u = cell.project(params, x, dtype), cell.recur(params, old.h, dtype)
    v, inner = None, {}
    if not cell.pointwise:
        v, inner = cell.recur_inner(params, old, z, u, dtype)
    pull = adjoint.make_backward_step(cell, gate, dtype, params, cell.spread(params, start.h.shape))

    def step(state, now):
        ahead, dvectors, dfresh = state
        cotangent, old, z, u, inner, a_t, keep_t, reset_t = now
        total = jax.tree.map(jnp.add, ahead, cotangent)
        candidate, owed = pull(total, old, z, u, inner, opening(gate, a_t, keep_t, old.h))
        da, past = None, owed.past
        if a_t is not None:
            da = adjoint.logits(gate, a_t, keep_t, total, candidate, old)
        if reset_t is not None:
            nothing = jax.tree.map(jnp.zeros_like, past)
            dfresh = jax.tree.map(jnp.add, dfresh, select(reset_t, past, nothing))
            past = select(reset_t, nothing, past)
        dvectors = jax.tree.map(jnp.add, dvectors, owed.vectors)
        # Two products that meet only as a sum have one cotangent: it is written once.
        own = {k: d for k, d in owed.u.items() if d is not owed.z.get(k)}
        return (past, dvectors, dfresh), (owed.z, own, da)

    zeros = jax.tree.map(jnp.zeros_like, (start, cell.spread(params, start.h.shape), fresh))
    (dstart, dvectors, dfresh), (dz, du, da) = jax.lax.scan(
        step, zeros, (cotangents, old, z, u, inner, a, keep, resets), reverse=True
    )
    owed = adjoint.StepCotangents(dvectors, dstart, dz, {**dz, **du})
    dparams = adjoint.kernels(cell, dtype, out, x, old.h, v, owed)
    dparams["vector"] = {k: d.sum(0) for k, d in dvectors.items()}
    dx = adjoint.inputs(cell, dtype, out, params, dz)
    like = jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)
    if da is not None:
        da = da.astype(a.dtype)
    return like, dx.astype(x.dtype), da, dstart, dfresh, None, None


scan.defvjp(_forward, pull)
