"""Dense back end: `lax.scan` over all steps, everything computed, closed neurons kept.

Its backward pass is written by hand. The weight gradients are one product each after the loop
instead of a sum inside it, and only the carries are stored: the products are recomputed for all
steps at once.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.cells import Cell
from surnn_jax.cells.cell import product
from surnn_jax.switches import Gate
from surnn_jax.typing import Array, Carry, Params


def select(rows: Array, yes: Carry, no: Carry) -> Carry:
    """One carry or the other, by example: ``rows`` is ``[B]``."""
    return jax.tree.map(lambda a, b: jnp.where(rows[:, None], a, b), yes, no)


def opening(gate: Gate | None, a: Array | None, keep: Array | None, like: Array):
    """The switch ``[B, H]`` of one step; None where every neuron updates."""
    g = None
    if a is not None:
        g = gate.value(a.astype(like.dtype))
        g = jnp.broadcast_to(g[None] if g.ndim == 1 else g, like.shape)
    if keep is not None:
        g = jnp.where(keep[:, None], jnp.ones_like(like) if g is None else g, 0)
    return g


def mix(gate: Gate | None, g: Array | None, candidate: Carry, old: Carry) -> Carry:
    """The new carry: candidate where the switch is open, old where it is closed."""
    if g is None:
        return candidate
    if gate is None or gate.hard:
        # NaN logits are neither open nor closed, and say so.
        return jax.tree.map(
            lambda f, h: jnp.where(g > 0, f, jnp.where(g <= 0, h, jnp.nan)), candidate, old
        )
    return jax.tree.map(lambda f, h: jnp.where(g == 0, h, h + g * (f - h)), candidate, old)


def taught(gate: Gate, dg: Array) -> Array:
    """What is owed to the switches ``[..., B, H]``, where few rows teach: theirs, scaled."""
    lesson = gate.lesson(dg.shape[-2], dg.dtype)
    if lesson is None:
        return dg
    lesson = lesson.reshape((1,) * (dg.ndim - 2) + (-1, 1))
    return jnp.where(lesson == 0, 0, lesson * dg)


def _map_once(function: Callable[[Array], Array], tree: Any) -> Any:
    """`jax.tree.map` that gives leaves which are one object one result."""
    leaves, form = jax.tree.flatten(tree)
    done = {id(leaf): function(leaf) for leaf in {id(leaf): leaf for leaf in leaves}.values()}
    return jax.tree.unflatten(form, [done[id(leaf)] for leaf in leaves])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
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
    """All carries, by `lax.scan`; arguments and result as in :func:`.reference.scan`."""

    def step(carry, now):
        x_t, a_t, keep_t, reset_t = now
        if reset_t is not None:
            carry = select(reset_t, fresh, carry)
        candidate = cell.step(params, carry, x_t, dtype)
        carry = mix(gate, opening(gate, a_t, keep_t, carry.h), candidate, carry)
        return carry, carry

    return jax.lax.scan(step, start, (x, a, keep, resets))[1]


def _forward(cell, gate, dtype, params, x, a, start, fresh, keep, resets):
    carries = scan(cell, gate, dtype, params, x, a, start, fresh, keep, resets)
    return carries, (params, x, a, start, fresh, keep, resets, carries)


def _backward(cell, gate, dtype, saved, cotangents):
    params, x, a, start, fresh, keep, resets, carries = saved
    out = cell.carry_dtype(params)
    # Turned once: a product that reads its kernel across takes twice as long on a CPU.
    turned = jax.lax.optimization_barrier(jax.tree.map(jnp.transpose, params["recurrent"]))

    old = jax.tree.map(lambda s, c: jnp.concatenate([s[None], c[:-1]]), start, carries)
    if x.shape[0] == 0:
        old = carries
    if resets is not None:
        old = jax.tree.map(lambda f, o: jnp.where(resets[..., None], f[None], o), fresh, old)
    z = cell.project(params, x, dtype)
    u = cell.recur(params, old.h, dtype)
    v, inner = None, {}
    if not cell.pointwise:
        v, inner = cell.recur_inner(params, old, z, u, dtype)
    vectors = cell.spread(params, start.h.shape)

    def back(g, tree):
        """Products' cotangents times transposed kernels: what flows into their operand."""
        return sum(product(tree[k], turned[k], dtype, out) for k in g)

    def step(state, now):
        ahead, dvectors, dfresh = state
        cotangent, old, z, u, inner, a_t, keep_t, reset_t = now
        total = jax.tree.map(jnp.add, ahead, cotangent)
        g = opening(gate, a_t, keep_t, old.h)

        candidate, pull = jax.vjp(cell.rule, vectors, old, z, {**u, **inner})
        if g is None:
            dvec, past, dz, du = pull(total)
        else:
            toward = jax.tree.map(lambda d: g * d, total)
            # Nothing flows back into the candidate of a closed neuron, not even 0 · NaN.
            dvec, dold, dz, du = _map_once(lambda d: jnp.where(g == 0, 0, d), pull(toward))
            past = jax.tree.map(lambda d, p: (1 - g) * d + p, total, dold)

        if inner:
            dv = back(cell.inner_recurrent, du)
            _, pull = jax.vjp(cell.inner, vectors, old, z, u)
            more = pull(dv)
            dvec, past, dz = (
                jax.tree.map(jnp.add, p, q) for p, q in zip((dvec, past, dz), more[:3], strict=True)
            )
            du = {**du, **{k: du[k] + more[3][k] for k in cell.recurrent}}
        if cell.recurrent:
            past = past._replace(h=past.h + back(cell.recurrent, du))

        da = None
        if a_t is not None:
            gap = jax.tree.map(lambda d, f, o: d * (f - o), total, candidate, old)
            dg = sum(jax.tree.leaves(gap))
            if keep_t is not None:
                dg = jnp.where(keep_t[:, None], dg, 0)
            dg = taught(gate, dg)
            slope = gate.slope(a_t.astype(out))
            if a_t.ndim == 1:
                dg = dg.sum(0)
            da = jnp.where(slope == 0, 0, slope * dg)
        if reset_t is not None:
            nothing = jax.tree.map(jnp.zeros_like, past)
            dfresh = jax.tree.map(jnp.add, dfresh, select(reset_t, past, nothing))
            past = select(reset_t, nothing, past)
        dvectors = jax.tree.map(jnp.add, dvectors, dvec)
        # Two products that meet only as a sum have one cotangent: it is written once.
        own = {k: d for k, d in du.items() if d is not dz.get(k)}
        return (past, dvectors, dfresh), (dz, own, da)

    zeros = jax.tree.map(jnp.zeros_like, (start, vectors, fresh))
    (dstart, dvectors, dfresh), (dz, du, da) = jax.lax.scan(
        step, zeros, (cotangents, old, z, u, inner, a, keep, resets), reverse=True
    )

    du = {**dz, **du}

    def weight(operand, d):
        """``Σ_{t,b} operand ⊗ d``: one product for the whole sequence."""
        rows = (operand.reshape(-1, operand.shape[-1]).T, d.reshape(-1, d.shape[-1]))
        return product(*rows, dtype, out)

    operands = dict.fromkeys(cell.recurrent, old.h) | dict.fromkeys(cell.inner_recurrent, v)
    dparams = {
        "input": {k: weight(x, dz[k]) for k in cell.inputs},
        "recurrent": {k: weight(operands[k], du[k]) for k in operands},
        "vector": {k: d.sum(0) for k, d in dvectors.items()},
    }
    dx = sum(product(dz[k], params["input"][k].T, dtype, out) for k in cell.inputs)
    like = jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)
    if da is not None:
        da = da.astype(a.dtype)
    return like, dx.astype(x.dtype), da, dstart, dfresh, None, None


scan.defvjp(_forward, _backward)
