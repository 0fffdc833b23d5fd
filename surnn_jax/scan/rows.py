"""Skipping neurons: of a step only the rows of those that open are read and computed.

The open neurons of a step are dealt out in portions of a fixed width, and the loop runs over the
portions of all steps. So nothing overflows: a full step has many portions, an empty step none, a
learned switch needs no capacity, and the width is a matter of speed alone.

For tables that the batch shares, hard switches and pointwise cells; `compact` does the rest. The
portions of the backward pass hold the neurons near the threshold as well: the switch's gradient
needs their candidate, though nothing flows back into it.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from surnn_jax.cells import Cell
from surnn_jax.cells.cell import product
from surnn_jax.scan import adjoint, compact, indexing
from surnn_jax.scan.adjoint import mix, select
from surnn_jax.scan.compact import index_step, instantiate_zeros, update_step
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params


def width(features: int) -> int:
    """Neurons of a portion: about a tenth of the layer, for rates of 5 to 10 %."""
    return min(features, 8 * max(1, round(features / 80)))


def serves(cell: Cell, gate: Surrogate | None, shared: bool) -> bool:
    """Whether rows can be taken alone; else the back end `compact` does the work.

    Args:
        cell: must be pointwise.
        gate: must be hard; None if there is no switch.
        shared: whether the examples of a batch share one table.
    """
    return cell.pointwise and gate is not None and gate.hard and shared


def _turned(params: Params, kind: str, cell: Cell) -> dict[str, Array]:
    """Kernels with a row for every neuron they feed, ``[H, D]`` or ``[H, H]``."""
    names = cell.inputs if kind == "input" else cell.recurrent
    return lax.optimization_barrier({k: params[kind][k].T for k in names})


def _pick(tree: Any, rows: Array) -> Any:
    """The entries of some neurons, along the last axis."""
    return jax.tree.map(lambda leaf: leaf.at[..., rows].get(mode="clip"), tree)


def _take(kernels: dict[str, Array], rows: Array) -> dict[str, Array]:
    return {k: kernel.at[rows].get(mode="clip") for k, kernel in kernels.items()}


def _stack(params: Params, features: int, dtype: Any) -> Array:
    """Per-neuron vectors as one array ``[N, H]``: one look-up a portion instead of N."""
    none = jnp.zeros((0, features), dtype)
    return jnp.concatenate([none, *(v.astype(dtype)[None] for v in params["vector"].values())])


def _spread(vectors: Params, stack: Array, rows: Array, like: Array) -> dict[str, Array]:
    picked = _pick(stack, rows)
    return {k: jnp.broadcast_to(v[None], like.shape) for k, v in zip(vectors, picked, strict=True)}


def _opening(gate: Surrogate, a_t: Array, keep_t: Array | None, rows: Array, like: Array) -> Array:
    """The switches ``[B, C]`` of a portion; 0 in its unused places."""
    g = gate.value(_pick(a_t.astype(like.dtype), rows))
    g = jnp.where(rows < a_t.shape[0], g, 0)
    g = jnp.broadcast_to(g[None], like.shape)
    return g if keep_t is None else jnp.where(keep_t[:, None], g, 0)


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
    if not serves(cell, gate, a is not None and a.ndim == 2) or not x.shape[0]:
        return compact.scan(cell, gate, dtype, params, x, a, start, fresh, keep, resets)
    out, size = cell.carry_dtype(params), width(a.shape[1])
    wanted = indexing.opened(gate, a.astype(start.h.dtype))
    busy = indexing.steps_with(wanted, keep, resets, x.shape[0])
    todo = indexing.chunks(wanted, busy, size)
    slots = indexing.latest(busy)
    kernels, feeds = _turned(params, "recurrent", cell), _turned(params, "input", cell)
    stack = _stack(params, a.shape[1], out)

    def one(n, state):
        carry, carries = state
        t, part = todo.step[n], todo.part[n]
        x_t, a_t, keep_t, reset_t, rows, slot = index_step(
            t, (x, a, keep, resets, todo.rows, slots)
        )
        rows = lax.dynamic_slice_in_dim(rows, part * size, size)
        # All portions of a step read the state before it.
        before = index_step(slot - 1, carries.h)
        if reset_t is not None:
            before = jnp.where(reset_t[:, None], fresh.h, before)
            carry = select(reset_t & (part == 0), fresh, carry)
        u = {k: product(before, r.T, dtype, out) for k, r in _take(kernels, rows).items()}
        z = {k: product(x_t, r.T, dtype, out) for k, r in _take(feeds, rows).items()}
        old = _pick(carry, rows)
        candidate = cell.rule(_spread(params["vector"], stack, rows, old.h), old, z, u)
        new = mix(gate, _opening(gate, a_t, keep_t, rows, old.h), candidate, old)
        carry = jax.tree.map(lambda c, v: c.at[:, rows].set(v, mode="drop"), carry, new)
        return carry, update_step(carries, slot, carry)

    carries = jax.tree.map(lambda s: lax.empty((x.shape[0] + 1, *s.shape), s.dtype), start)
    carries = lax.fori_loop(0, todo.count, one, (start, update_step(carries, 0, start)))[1]
    return jax.tree.map(lambda c: c[slots], carries)


def _backward(cell, gate, dtype, saved, cotangents):
    args, carries, learned = saved
    params, x, a, start, fresh, keep, resets = args
    everywhere = learned is not None and math.isinf(gate.support)
    if not serves(cell, gate, a is not None and a.ndim == 2) or not x.shape[0] or everywhere:
        return compact._backward(cell, gate, dtype, saved, cotangents)
    cotangents = instantiate_zeros(cotangents, carries)
    out, size = cell.carry_dtype(params), width(a.shape[1])
    wanted = indexing.needed(gate, a.astype(start.h.dtype), learned is not None)
    busy = indexing.steps_with(wanted, keep, resets, x.shape[0])
    todo = indexing.chunks(wanted, busy, size)
    following = indexing.following(busy)
    kernels, feeds = _turned(params, "recurrent", cell), _turned(params, "input", cell)
    stack = _stack(params, a.shape[1], out)

    def through(ahead, first, last):
        def add(i, total):
            return jax.tree.map(jnp.add, total, index_step(last - 1 - i, cotangents))

        return lax.fori_loop(0, last - first, add, ahead)

    def one(n, state):
        n = todo.count - 1 - n
        total, past, dkernels, dfeeds, dvectors, dfresh, dx, da = state
        t, part = todo.step[n], todo.part[n]
        x_t, a_t, keep_t, reset_t, rows, parts = index_step(
            t, (x, a, keep, resets, todo.rows, todo.parts)
        )
        rows = lax.dynamic_slice_in_dim(rows, part * size, size)

        last = part == parts - 1
        past = through(past, t, jnp.where(last, following[t + 1], t))
        total = jax.tree.map(lambda p, q: jnp.where(last, p, q), past, total)

        passed = index_step(jnp.maximum(t - 1, 0), carries)
        before = jax.tree.map(lambda s, c: jnp.where(t == 0, s, c), start, passed)
        if reset_t is not None:
            before = select(reset_t, fresh, before)
        old, owed = _pick(before, rows), _pick(total, rows)
        taken, fed = _take(kernels, rows), _take(feeds, rows)
        u = {k: product(before.h, r.T, dtype, out) for k, r in taken.items()}
        z = {k: product(x_t, r.T, dtype, out) for k, r in fed.items()}
        g = _opening(gate, a_t, keep_t, rows, old.h)
        vectors = _spread(params["vector"], stack, rows, old.h)
        candidate, pull = jax.vjp(cell.rule, vectors, old, z, u)
        # Nothing flows back into the candidate of a closed neuron, not even 0 · NaN.
        dvec, dold, dz, du = jax.tree.map(
            lambda d: jnp.where(g == 0, 0, d), pull(jax.tree.map(lambda d: g * d, owed))
        )
        past = jax.tree.map(
            lambda p, d, o: p.at[:, rows].add(d - g * o, mode="drop"), past, dold, owed
        )
        if cell.recurrent:
            more = sum(product(du[k], taken[k], dtype, out) for k in taken)
            past = past._replace(h=past.h + more)

        def gather(sums, d, operand):
            return {
                k: s.at[rows].add(product(d[k].T, operand, dtype, out), mode="drop")
                for k, s in sums.items()
            }

        dkernels, dfeeds = gather(dkernels, du, before.h), gather(dfeeds, dz, x_t)
        if dvec:
            dvec = jnp.stack([dvec[k].sum(0) for k in params["vector"]])
            dvectors = dvectors.at[:, rows].add(dvec, mode="drop")
        dx_t = sum(product(dz[k], fed[k], dtype, out) for k in fed)
        dx = update_step(dx, t, index_step(t, dx) + dx_t)
        if da is not None:
            near = _pick(a_t, rows)
            owing = adjoint.logits(gate, near, keep_t, owed, candidate, old)
            da = da.at[t, rows].set(owing, mode="drop")
        if reset_t is not None:
            nothing = jax.tree.map(jnp.zeros_like, past)
            dfresh = jax.tree.map(jnp.add, dfresh, select(reset_t, past, nothing))
            past = select(reset_t, nothing, past)
        return total, past, dkernels, dfeeds, dvectors, dfresh, dx, da

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf, out),
        (start, start, kernels, feeds, stack, fresh, x, a if learned == () else None),
    )
    state = lax.fori_loop(0, todo.count, one, zeros)
    _, past, dkernels, dfeeds, dvectors, dfresh, dx, da = state
    dstart = through(past, jnp.zeros_like(following[0]), following[0])
    dparams = {
        "input": {k: d.T for k, d in dfeeds.items()},
        "recurrent": {k: d.T for k, d in dkernels.items()},
        "vector": dict(zip(params["vector"], dvectors, strict=True)),
    }
    dparams = jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)
    da = jnp.zeros_like(a) if da is None else da.astype(a.dtype)
    return dparams, dx.astype(x.dtype), da, dstart, dfresh, None, None


scan.defvjp(adjoint.save_residuals(scan), _backward, symbolic_zeros=True)
