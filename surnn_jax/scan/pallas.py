"""Persistent kernels over the steps that are not empty, for GPUs and TPUs.

As :mod:`.compact`, it lists the steps at which there is anything to do, and cuts that list into
chunks. What needs no order is done for a whole chunk at once by XLA: input products forward,
products with the state and sums for the weights backward. What goes step by step is one kernel a
chunk (:mod:`.persistent`), in which closed blocks of neurons are passed over. Nothing is stored but
the carries.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from surnn_jax.cells import Cell
from surnn_jax.scan import adjoint, masked, persistent, plan
from surnn_jax.scan.compact import materialise, put
from surnn_jax.switches import Gate
from surnn_jax.typing import Array, Carry, Params

_ROWS = 8192  # rows (steps · examples) of a chunk: launches are few, and its arrays small


def supports(cell: Cell) -> bool:
    """Whether kernels compute this cell: else :func:`scan` falls back to `masked`.

    Args:
        cell: its rule must be pointwise, with a product with the state.
    """
    return cell.pointwise and bool(cell.recurrent)


def scan(
    cell: Cell,
    gate: Gate | None,
    dtype: Any,
    params: Params,
    x: Array,
    a: Array | None,
    start: Carry,
    fresh: Carry,
    keep: Array | None,
    resets: Array | None,
) -> Carry:
    """All carries; arguments and result as in :func:`.reference.scan`.

    Where the cell is none that kernels compute (:func:`supports`), a size is 0 or a symbol of
    `jax.export`, :func:`.masked.scan` answers instead. On a CPU the kernels are interpreted, which
    is slow, and which `jax.shard_map` does not allow: `masked` answers there, too.
    """
    args = (params, x, a, start, fresh, keep, resets)
    platform = jax.default_backend()
    fits = supports(cell) and not any(map(is_symbolic_dim, x.shape)) and x.size
    if not fits or (platform == "cpu" and _manual()):
        return masked.scan(cell, gate, dtype, *args)
    return on(platform, cell, gate, dtype, *args)


def on(platform: str, cell: Cell, gate: Gate | None, dtype: Any, *args: Any) -> Carry:
    """:func:`scan` for one of :data:`.persistent.TARGETS`, for example to lower it elsewhere."""
    return _scan(cell, (gate, persistent.TARGETS[platform]), dtype, *args)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scan(cell, how, dtype, params, x, a, start, fresh, keep, resets):
    gate, target = how
    steps = x.shape[0]
    busy, chunk, todo = _listed(gate, a, start, keep, resets, x, False)
    index = _beyond(todo.index, steps, chunk)

    def walk(b, state):
        carry, carries = state
        now = lax.dynamic_slice_in_dim(index, b * chunk, chunk)
        turns = jnp.minimum(chunk, todo.count - b * chunk)
        given = _steps(cell, gate, dtype, params, (x, a, keep, resets), now, turns, start.h)
        more = persistent.forward(target, cell, gate, dtype, params, given, carry, fresh)
        # Its first is the carry that stands there already.
        carries = jax.tree.map(
            lambda c, m: lax.dynamic_update_slice_in_dim(c, m, b * chunk, 0), carries, more
        )
        return jax.tree.map(lambda m: m[-1], more), carries

    size = index.shape[0] + 1
    carries = jax.tree.map(lambda s: lax.empty((size, *s.shape), s.dtype), start)
    carries = put(carries, 0, start)
    carries = lax.fori_loop(0, _chunks(todo.count, chunk), walk, (start, carries))[1]
    return jax.tree.map(lambda c: c[plan.latest(busy)], carries)


def _backward(cell, how, dtype, saved, cotangents):
    gate, target = how
    (params, x, a, start, fresh, keep, resets), carries, learned = saved
    steps = x.shape[0]
    out = cell.carry_dtype(params)
    cotangents = materialise(cotangents, carries)
    _, chunk, todo = _listed(gate, a, start, keep, resets, x, learned is not None)
    index = _beyond(todo.index, steps, chunk)

    def walk(b, state):
        ahead, dparams, dfresh, dx, da = state
        first = (_chunks(todo.count, chunk) - 1 - b) * chunk
        turns = jnp.minimum(chunk, todo.count - first)
        now = lax.dynamic_slice_in_dim(index, first, chunk)
        meant = (jnp.arange(chunk, dtype=jnp.int32) < turns)[:, None, None]
        given = _steps(cell, gate, dtype, params, (x, a, keep, resets), now, turns, start.h)

        def before(s, c, f):
            value = jnp.where((now == 0)[:, None, None], s[None], c[jnp.maximum(now - 1, 0)])
            if given.resets is not None:
                value = jnp.where(given.resets[..., None], f[None], value)
            return jnp.where(meant, value, 0)

        old = jax.tree.map(before, start, carries, fresh)
        u = cell.recur(params, old.h, dtype)
        spans = lax.dynamic_slice_in_dim(index, first, chunk + 1)
        count = turns[None].astype(jnp.int32)
        toward = jax.tree.map(lambda c: persistent.sums(target, spans, count, c), cotangents)
        walked = persistent.backward(
            target, cell, gate, dtype, params, given, old, u, toward, ahead
        )
        total = jax.tree.map(lambda d: jnp.where(meant, d, 0), walked.total)

        vectors = cell.spread(params, old.h.shape)
        g = None if given.g is None else jnp.broadcast_to(given.g, old.h.shape)
        candidate, owed = adjoint.pull_rule(cell, vectors, total, old, given.z, u, g)
        x_b = x.at[now].get(mode="fill", fill_value=0)
        more = adjoint.kernels(cell, dtype, out, x_b, old.h, None, owed)
        more["vector"] = {name: d.sum((0, 1)) for name, d in owed.vectors.items()}
        dparams = jax.tree.map(jnp.add, dparams, more)
        toward_x = adjoint.inputs(cell, dtype, out, params, owed.z)
        dx = dx.at[now].set(toward_x.astype(dx.dtype), mode="drop")
        if learned is not None:
            kept = None if keep is None else keep.at[now].get(mode="fill", fill_value=False)
            logits = a[jnp.minimum(now, steps - 1)]
            rows = adjoint.logits(gate, logits, kept, total, candidate, old)
            da = da.at[now].set(rows.astype(da.dtype), mode="drop")
        if walked.fresh is not None:
            dfresh = jax.tree.map(jnp.add, dfresh, walked.fresh)
        return walked.ahead, dparams, dfresh, dx, da

    zeros = jax.tree.map(jnp.zeros_like, (start, fresh, x, a))
    dparams = jax.tree.map(lambda p: jnp.zeros_like(p, out), params)
    state = (zeros[0], dparams, *zeros[1:])
    ahead, dparams, dfresh, dx, da = lax.fori_loop(0, _chunks(todo.count, chunk), walk, state)
    spans = jnp.stack([jnp.zeros_like(index[0]), index[0]])
    early = jax.tree.map(
        lambda c: persistent.sums(target, spans, jnp.ones_like(spans[:1]), c)[0], cotangents
    )
    dstart = jax.tree.map(jnp.add, ahead, early)
    dparams = jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)
    return dparams, dx, da, dstart, dfresh, None, None


def _manual() -> bool:
    """Whether this is traced inside `jax.shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and jax.sharding.AxisType.Manual in mesh.axis_types


def _listed(gate, a, start, keep, resets, x, learned):
    """Which steps are busy, how many make a chunk, and the list of them."""
    steps, batch, _ = x.shape
    wanted = None
    if a is not None:
        logits = a.astype(start.h.dtype)
        wanted = plan.needed(gate, logits, True) if learned else plan.opened(gate, logits)
    busy = plan.steps_with(wanted, keep, resets, steps)
    return busy, max(1, min(steps, _ROWS // batch)), plan.listed(busy)


def _beyond(index: Array, steps: int, chunk: int) -> Array:
    """A list of steps made longer, so that each chunk of it can be cut out, and an entry more."""
    return jnp.concatenate([index, jnp.full((chunk,), steps, index.dtype)])


def _chunks(count: Array, chunk: int) -> Array:
    return (count + chunk - 1) // chunk


def _steps(cell, gate, dtype, params, arrays, now, turns, like) -> persistent.Steps:
    """What the kernels are told of the steps `now`, of which so many are meant."""
    x, a, keep, resets = arrays
    x = x.at[now].get(mode="fill", fill_value=0)
    g = None
    if a is not None:
        g = gate.value(a[jnp.minimum(now, a.shape[0] - 1)].astype(like.dtype))
        g = g[:, None] if g.ndim == 2 else g
    if keep is not None:
        kept = keep.at[now].get(mode="fill", fill_value=False)[..., None]
        one = jnp.ones((*x.shape[:2], like.shape[-1]), like.dtype)
        g = jnp.where(kept, one if g is None else g, 0)
    if resets is not None:
        resets = resets.at[now].get(mode="fill", fill_value=False)
    return persistent.Steps(
        turns[None].astype(jnp.int32), cell.project(params, x, dtype), g, resets
    )


_scan.defvjp(adjoint.remember(_scan), _backward, symbolic_zeros=True)
