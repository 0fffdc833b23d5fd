"""Skipping steps: only those at which a neuron opens are run, the others repeat the state.

Pays where whole steps are empty: one rhythm for the layer, few groups, one example. The list of
steps to run is made from the table at run time and the loops over it have as many turns as it has
entries, so a learned switch needs no capacity and the cost follows the rate.

The backward pass walks the same list in blocks: the products of a block of steps are recomputed
at once, and so are the sums for the weights; only what flows through the state goes step by step.
Nothing is stored but the carries. A step at which neurons are near the threshold but none is open
is a step of the backward pass alone.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from surnn_jax.cells import Cell
from surnn_jax.scan import adjoint, indexing
from surnn_jax.scan.adjoint import opening, select
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params

_ROWS = 128  # rows (steps · examples) of a block: enough for products to run at full speed


def index_step(t: Array, tree: Any) -> Any:
    """One step of every array ``[T, ...]``."""
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, t, 0, keepdims=False), tree)


def update_step(tree: Any, t: Array, now: Any) -> Any:
    """Every array ``[T, ...]`` with one step replaced."""
    return jax.tree.map(lambda a, v: lax.dynamic_update_index_in_dim(a, v, t, 0), tree, now)


def instantiate_zeros(cotangents: Any, like: Any) -> Any:
    """Cotangents as arrays, zeros written out."""

    def array(c, of):
        return jnp.zeros_like(of) if isinstance(c, SymbolicZero) else c

    return jax.tree.map(array, cotangents, like, is_leaf=lambda c: isinstance(c, SymbolicZero))


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
    """All carries; arguments and result as in :func:`.reference.scan`."""
    if not x.shape[0]:
        return jax.tree.map(lambda s: jnp.zeros((0, *s.shape), s.dtype), start)
    wanted = None if a is None else indexing.opened(gate, a.astype(start.h.dtype))
    busy = indexing.steps_with(wanted, keep, resets, x.shape[0])
    todo = indexing.listed(busy)

    def step(j, state):
        carry, carries = state
        now = index_step(todo.index[j], (x, a, keep, resets))
        carry = adjoint.forward(cell, gate, dtype, params, fresh, carry, now)
        return carry, update_step(carries, j + 1, carry)

    carries = jax.tree.map(lambda s: lax.empty((x.shape[0] + 1, *s.shape), s.dtype), start)
    carries = update_step(carries, 0, start)
    carries = lax.fori_loop(0, todo.count, step, (start, carries))[1]
    return jax.tree.map(lambda c: c[indexing.latest(busy)], carries)


def _backward(cell, gate, dtype, saved, cotangents):
    (params, x, a, start, fresh, keep, resets), carries, learned = saved
    steps, size, _ = x.shape
    if not steps:
        nothing = jax.tree.map(jnp.zeros_like, (params, x, a, start, fresh))
        return *nothing, None, None
    out = cell.carry_dtype(params)
    cotangents = instantiate_zeros(cotangents, carries)
    vectors = cell.spread(params, start.h.shape)
    pull = adjoint.make_backward_step(cell, gate, dtype, params, vectors)
    wanted = (
        None if a is None else indexing.needed(gate, a.astype(start.h.dtype), learned is not None)
    )
    todo = indexing.listed(indexing.steps_with(wanted, keep, resets, x.shape[0]))
    block = max(1, min(steps, _ROWS // max(size, 1)))

    def through(ahead, first, last):
        """What flows back into the state at the end of step `first`."""

        def add(i, total):
            return jax.tree.map(jnp.add, total, index_step(last - 1 - i, cotangents))

        return lax.fori_loop(0, last - first, add, ahead)

    def walk(b, state):
        ahead, dweights, dvectors, dfresh, dx, da = state
        first = (todo.count - 1) // block * block - b * block
        now = lax.dynamic_slice_in_dim(index, first, block)
        reset = None if resets is None else resets.at[now].get(mode="fill", fill_value=False)

        def before(s, c):
            return jnp.where((now == 0)[:, None, None], s[None], c[jnp.maximum(now - 1, 0)])

        old = jax.tree.map(before, start, carries)
        if reset is not None:
            old = jax.tree.map(lambda f, o: jnp.where(reset[..., None], f[None], o), fresh, old)
        x_b = x.at[now].get(mode="fill", fill_value=0)
        z, u = cell.project(params, x_b, dtype), cell.recur(params, old.h, dtype)
        v, inner = None, {}
        if not cell.pointwise:
            v, inner = cell.recur_inner(params, old, z, u, dtype)

        def one(i, state):
            i = jnp.minimum(block, todo.count - first) - 1 - i
            ahead, dvectors, dfresh, dz, du, totals = state
            t = now[i]
            total = through(ahead, t, index[first + i + 1])
            reset_t = None if reset is None else reset[i]
            a_t, keep_t = index_step(t, (a, keep))
            g = opening(gate, a_t, keep_t, start.h)
            args = (total, *index_step(i, (old, z, u, inner)), g)
            if learned is None:
                owed = pull(*args)[1]
            else:
                nothing = jax.tree.map(jnp.zeros_like, (vectors, *index_step(0, (dz, du))))
                closed = adjoint.StepCotangents(nothing[0], total, *nothing[1:])
                owed = lax.cond(
                    (g != 0).any(), lambda *args: pull(*args)[1], lambda *_: closed, *args
                )
            past = owed.past
            if reset_t is not None:
                nothing = jax.tree.map(jnp.zeros_like, past)
                dfresh = jax.tree.map(jnp.add, dfresh, select(reset_t, past, nothing))
                past = select(reset_t, nothing, past)
            dvectors = jax.tree.map(jnp.add, dvectors, owed.vectors)
            if totals is not None:
                totals = update_step(totals, i, total)
            return (
                past,
                dvectors,
                dfresh,
                update_step(dz, i, owed.z),
                update_step(du, i, owed.u),
                totals,
            )

        zeros = jax.tree.map(jnp.zeros_like, (z, {**u, **inner}, old if learned == () else None))
        state = (ahead, dvectors, dfresh, *zeros)
        turns = jnp.minimum(block, todo.count - first)
        ahead, dvectors, dfresh, dz, du, totals = lax.fori_loop(0, turns, one, state)

        owed = adjoint.StepCotangents({}, ahead, dz, du)
        more = adjoint.kernels(cell, dtype, out, x_b, old.h, v, owed)
        dweights = jax.tree.map(jnp.add, dweights, more)
        toward = adjoint.inputs(cell, dtype, out, params, dz)
        dx = dx.at[now].set(toward.astype(dx.dtype), mode="drop")
        if totals is not None:
            candidate = cell.update(params, old, z, {**u, **inner})
            kept = None if keep is None else keep.at[now].get(mode="fill", fill_value=False)
            rows = adjoint.logits(
                gate, a[jnp.minimum(now, steps - 1)], kept, totals, candidate, old
            )
            da = da.at[now].set(rows.astype(da.dtype), mode="drop")
        return ahead, dweights, dvectors, dfresh, dx, da

    index = jnp.concatenate([todo.index, jnp.full((block,), steps, todo.index.dtype)])
    zeros = jax.tree.map(jnp.zeros_like, (start, vectors, fresh, x, a))
    dweights = jax.tree.map(
        lambda w: jnp.zeros_like(w, out), {k: params[k] for k in ("input", "recurrent")}
    )
    state = (zeros[0], dweights, *zeros[1:])
    blocks = (todo.count + block - 1) // block
    ahead, dweights, dvectors, dfresh, dx, da = lax.fori_loop(0, blocks, walk, state)
    dstart = through(ahead, jnp.zeros_like(todo.count), index[0])
    dparams = {**dweights, "vector": {k: d.sum(0) for k, d in dvectors.items()}}
    dparams = jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)
    return dparams, dx, da, dstart, dfresh, None, None


scan.defvjp(adjoint.save_residuals(scan), _backward, symbolic_zeros=True)
