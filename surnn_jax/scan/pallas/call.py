"""Persistent kernels over the steps that are not empty, for GPUs and TPUs.

As :mod:`.compact`, it lists the steps at which there is anything to do, and cuts that list into
chunks. What needs no order is done for a whole chunk at once by XLA: input products forward,
products with the state and sums for the weights backward. What goes step by step is one kernel a
chunk (:mod:`.persistent`), in which closed blocks of neurons are passed over. Nothing is stored but
the carries.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from surnn_jax.cells import Cell
from surnn_jax.scan import adjoint, indexing, masked
from surnn_jax.scan.compact import instantiate_zeros, update_step
from surnn_jax.scan.pallas import kernels as persistent
from surnn_jax.scan.pallas import tiling
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params

_ROWS = 8192  # rows (steps · examples) of a chunk: launches are few, and its arrays small

_AMPERE = 8.0  # compute capability from which Triton is at home

_FEW = 8  # steps of a chunk below which launching it costs more than it saves


def refusal(cell: Cell, features: int, dtype: Any, platform: str) -> str:
    """Why there is no kernel, in words; empty where there is one.

    Args:
        cell: its rule must be pointwise, with a product with the state.
        features: H.
        dtype: of the operands of products.
        platform: as JAX calls it.
    """
    if not cell.pointwise:
        return f"{cell.name} needs all neurons to update one"
    if not cell.recurrent:
        return f"{cell.name} has no product with the state"
    target = tiling.TARGETS.get(platform)
    if target is None:
        return f"no kernels for {platform}"
    if platform == "tpu" and jnp.dtype(dtype) not in (jnp.dtype("float32"), jnp.dtype("bfloat16")):
        return f"a tpu has no products of {jnp.dtype(dtype)}"
    if platform == "gpu" and tiling.triton() is None:
        return f"Pallas of jax {jax.__version__} has no Triton"
    if platform == jax.default_backend() == "gpu":
        capability = getattr(jax.devices()[0], "compute_capability", "8.0")
        # Of other makers it is a name.
        if capability.replace(".", "").isdecimal() and float(capability) < _AMPERE:
            return f"a GPU of compute capability {capability} is older than {_AMPERE}"
    most = tiling.max_chunk(target, cell, features, dtype)
    if most is not None and most < _FEW:
        return f"{features} neurons do not fit into the memory of one core of a {platform}"
    return ""


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
    """All carries; arguments and result as in :func:`.reference.scan`.

    Where there is no kernel (:func:`refusal`), a size is 0 or a symbol of `jax.export`,
    :func:`.masked.scan` answers instead. On a CPU the kernels are interpreted, which
    is slow, and which `jax.shard_map` does not allow: `masked` answers there, too.
    """
    args = (params, x, a, start, fresh, keep, resets)
    platform = jax.default_backend()
    known = not any(map(is_symbolic_dim, x.shape)) and x.size > 0
    refused = not known or refusal(cell, start.h.shape[-1], dtype, platform)
    if refused or (platform == "cpu" and _manual()):
        return masked.scan(cell, gate, dtype, *args)
    return scan_for_target(tiling.TARGETS[platform], cell, gate, dtype, *args)


def scan_for_target(
    target: tiling.Target, cell: Cell, gate: Surrogate | None, dtype: Any, *args: Any
) -> Carry:
    """:func:`scan` for a target that need not be here, for example to lower it."""
    return _scan(cell, (gate, target), dtype, *args)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scan(cell, how, dtype, params, x, a, start, fresh, keep, resets):
    gate, target = how
    steps = x.shape[0]
    busy, chunk, todo = _listed(cell, how, dtype, (x, a, keep, resets), start, False)
    index = _beyond(todo.index, steps, chunk)

    def walk(b, state):
        carry, carries = state
        now = lax.dynamic_slice_in_dim(index, b * chunk, chunk)
        turns = jnp.minimum(chunk, todo.count - b * chunk)
        _, given = _steps(cell, gate, dtype, params, (x, a, keep, resets), now, turns, start.h)
        more = persistent.forward(target, cell, gate, dtype, params, given, carry, fresh)
        # Its first is the carry that stands there already.
        carries = jax.tree.map(
            lambda c, m: lax.dynamic_update_slice_in_dim(c, m, b * chunk, 0), carries, more
        )
        return jax.tree.map(lambda m: m[-1], more), carries

    size = index.shape[0] + 1
    carries = jax.tree.map(lambda s: lax.empty((size, *s.shape), s.dtype), start)
    carries = update_step(carries, 0, start)
    carries = lax.fori_loop(0, _chunks(todo.count, chunk), walk, (start, carries))[1]
    return jax.tree.map(lambda c: c[indexing.latest(busy)], carries)


def _backward(cell, how, dtype, saved, cotangents):
    gate, target = how
    (params, x, a, start, fresh, keep, resets), carries, learned = saved
    steps = x.shape[0]
    out = cell.carry_dtype(params)
    arrays = (x, a, keep, resets)
    busy, chunk, todo = _listed(cell, how, dtype, arrays, start, learned is not None)
    index = _beyond(todo.index, steps, chunk)
    early, summed = _spans(target, busy, index, chunk, instantiate_zeros(cotangents, carries))

    def walk(b, state):
        ahead, dparams, dfresh, dx, da = state
        first = (_chunks(todo.count, chunk) - 1 - b) * chunk
        turns = jnp.minimum(chunk, todo.count - first)
        now = lax.dynamic_slice_in_dim(index, first, chunk)
        meant = (jnp.arange(chunk, dtype=jnp.int32) < turns)[:, None, None]
        x_b, given = _steps(cell, gate, dtype, params, arrays, now, turns, start.h)

        def before(s, c, f):
            value = jnp.where((now == 0)[:, None, None], s[None], c[jnp.maximum(now - 1, 0)])
            if given.resets is not None:
                value = jnp.where(given.resets[..., None], f[None], value)
            return jnp.where(meant, value, 0)

        old = jax.tree.map(before, start, carries, fresh)
        u = cell.recur(params, old.h, dtype)
        toward = summed(first, turns)
        walked = persistent.backward(
            target, cell, gate, dtype, params, given, old, u, toward, ahead
        )
        total = jax.tree.map(lambda d: jnp.where(meant, d, 0), walked.total)

        vectors = cell.spread(params, old.h.shape)
        g = None if given.g is None else jnp.broadcast_to(given.g, old.h.shape)
        candidate, owed = adjoint.rule_vjp(cell, vectors, total, old, given.z, u, g)
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
    dstart = jax.tree.map(jnp.add, ahead, early)
    dparams = jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)
    return dparams, dx, da, dstart, dfresh, None, None


def _spans(
    target: tiling.Target, busy: Array, index: Array, chunk: int, cotangents: Carry
) -> tuple[Carry, Callable[[Array, Array], Carry]]:
    """What flows from outside into the state that stands from one listed step to the next.

    Returns:
        What flows into the initial carry, ``[B, H]`` a field; and a function from the place in the
        list at which a chunk begins, and how many of its steps are meant, to what flows into the
        carries after them, ``[C, B, H]`` a field.
    """
    if target.platform == "tpu":
        # Where the sum over segments is always taken in one order, and VMEM is too small for T.
        size = len(busy) + 1 + chunk
        summed = jax.tree.map(
            lambda c: jax.ops.segment_sum(c, indexing.latest(busy), size, indices_are_sorted=True),
            cotangents,
        )

        def cut(first, _):
            return jax.tree.map(lambda s: lax.dynamic_slice_in_dim(s, first + 1, chunk), summed)

        return jax.tree.map(lambda s: s[0], summed), cut

    def spans(ends, count):
        return jax.tree.map(lambda c: persistent.sums(target, ends, count, c), cotangents)

    def of_chunk(first, turns):
        return spans(lax.dynamic_slice_in_dim(index, first, chunk + 1), turns[None])

    ends = jnp.stack([jnp.zeros_like(index[0]), index[0]])
    return jax.tree.map(lambda s: s[0], spans(ends, jnp.ones_like(ends[:1]))), of_chunk


def _manual() -> bool:
    """Whether this is traced inside `jax.shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and jax.sharding.AxisType.Manual in mesh.axis_types


def _listed(cell, how, dtype, arrays, start, learned):
    """Which steps are busy, how many make a chunk, and the list of them."""
    gate, target = how
    x, a, keep, resets = arrays
    steps, batch, _ = x.shape
    most = tiling.max_chunk(target, cell, start.h.shape[-1], dtype)
    wanted = None
    if a is not None:
        logits = a.astype(start.h.dtype)
        wanted = indexing.needed(gate, logits, True) if learned else indexing.opened(gate, logits)
    busy = indexing.steps_with(wanted, keep, resets, steps)
    chunk = max(1, min(steps, _ROWS // batch, steps if most is None else most))
    return busy, chunk, indexing.listed(busy)


def _beyond(index: Array, steps: int, chunk: int) -> Array:
    """A list of steps made longer, so that each chunk of it can be cut out, and an entry more."""
    return jnp.concatenate([index, jnp.full((chunk,), steps, index.dtype)])


def _chunks(count: Array, chunk: int) -> Array:
    return (count + chunk - 1) // chunk


def _steps(cell, gate, dtype, params, arrays, now, turns, like) -> tuple[Array, persistent.Steps]:
    """The inputs of the steps `now`, of which so many are meant, and what kernels are told."""
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
    z = cell.project(params, x, dtype)
    return x, persistent.Steps(turns[None].astype(jnp.int32), z, g, resets)


_scan.defvjp(adjoint.save_residuals(_scan), _backward, symbolic_zeros=True)
