"""The backward pass of a block that computes nothing between its open steps.

It goes through the pieces of the list from the last to the first, and computes the products of a
piece anew: kept are states and additions alone. The cotangent of what is held is the sum over the
steps that hold it.

The gradient of a learned switch also wants the candidates of nearly open steps. Nothing flows back
into these, so they are computed after all others, a piece at once and forward only.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from surnn_jax.cells.cell import state_dtype
from surnn_jax.layers.branch import Branch, BranchInputs, BranchOutputs
from surnn_jax.layers.branch_levels import (
    Kept,
    Levels,
    add_rows,
    after_levels,
    buffers,
    list_levels,
    now_at,
    openness,
    rows_at,
    size_of,
    write,
)
from surnn_jax.scan import adjoint
from surnn_jax.scan.adjoint import StepCotangents
from surnn_jax.scan.spec import ScanSpec
from surnn_jax.typing import Array, Carry


class _Tools(NamedTuple):
    """What every piece reads.

    Attributes:
        branch: its formulas.
        inputs: of the block.
        logits: ``[T, W]``.
        g: the openness, likewise.
        sums: cotangents of what the branch adds after every step, ``[T, B, M]``.
        kept: of the forward pass.
        spec: of the cell's products.
        vectors: the cell's, ``[B, H]`` each.
    """

    branch: Branch
    inputs: BranchInputs
    logits: Array
    g: Array
    sums: Array
    kept: Kept
    spec: ScanSpec
    vectors: dict[str, Array]


class _Totals(NamedTuple):
    """What is added up, piece after piece.

    Attributes:
        rest: cotangents of all parameters but the cell's.
        kernels: of the cell's kernels.
        vectors: of its vectors, ``[B, H]`` each.
        reset: of the carry after a reset.
        x: ``[B, T, M]``.
        logits: ``[T, W]``; None if they want no gradient, as the following.
        futures: of the states after levels, from later levels alone, ``[1 + L, B, H]`` a field.
    """

    rest: Any
    kernels: Any
    vectors: Any
    reset: Carry
    x: Array
    logits: Array | None
    futures: Carry | None


def backward(
    branch: Branch, inputs: BranchInputs, kept: Kept, learned: bool, ct: BranchOutputs
) -> BranchInputs:
    """The cotangents of the inputs.

    Args:
        branch: its formulas.
        inputs: of the block.
        kept: by the forward pass.
        learned: whether the logits want theirs.
        ct: cotangents of the outputs.
    """
    cell, unit = branch.cell, inputs.params["mixer"]
    batch, steps, _ = inputs.x.shape
    if not batch * steps:
        zeros = jax.tree.map(jnp.zeros_like, inputs[:6])
        return BranchInputs(*zeros)._replace(carry=ct.carry, held=ct.held)
    size, wide = size_of(batch, steps), state_dtype(inputs.x.dtype)  # sums are long
    logits, g, listed = openness(branch, inputs)
    todo = list_levels(listed, size)
    sums, dheld = _sums(ct.outputs.astype(wide), ct.held.astype(wide), listed)
    operands = cell.carry_dtype(unit) if branch.dtype is None else branch.dtype
    tools = _Tools(
        *(branch, inputs, logits, g, sums, kept),
        spec=ScanSpec(cell, branch.surrogate, operands),
        vectors=cell.broadcast(unit, inputs.carry.h.shape),
    )

    pieces = (todo.count + size - 1) // size

    def piece(p, state):
        first = (pieces - 1 - p) * size
        index = lax.dynamic_slice_in_dim(todo.index, first, size)
        return _pull_piece(tools, index, first, *state)

    kernels = {kind: unit[kind] for kind in ("input", "recurrent")}
    kernels = jax.tree.map(lambda w: jnp.zeros_like(w, cell.carry_dtype(unit)), kernels)
    zeros = jax.tree.map(jnp.zeros_like, (_rest(inputs), tools.vectors, inputs.reset_carry, logits))
    futures = buffers(1 + steps + size, ct.carry, ct.outputs)
    totals = _Totals(
        *(zeros[0], kernels, *zeros[1:3], ct.outputs),
        *((zeros[3], futures) if learned else (None, None)),
    )
    dcarry, totals = lax.fori_loop(0, pieces, piece, (ct.carry, totals))
    dlogits = None
    if learned:
        futures = write(totals.futures, jax.tree.map(lambda c: c[None], dcarry), 0)
        dlogits = _near(tools, futures, todo, totals.logits)
        dlogits = dlogits.sum(1) if inputs.logits.ndim == 1 else dlogits
        dlogits = dlogits.astype(inputs.logits.dtype)
    dunit = {**totals.kernels, "vector": {k: d.sum(0) for k, d in totals.vectors.items()}}
    dunit = jax.tree.map(lambda d, w: d.astype(w.dtype), dunit, unit)
    dparams, dheld = {**totals.rest, "mixer": dunit}, dheld.astype(inputs.held.dtype)
    return BranchInputs(dparams, totals.x, dlogits, dcarry, dheld, totals.reset)


def _rest(inputs: BranchInputs) -> Any:
    return {name: leaves for name, leaves in inputs.params.items() if name != "mixer"}


def _sums(ct_outputs: Array, ct_held: Array, listed: Array) -> tuple[Array, Array]:
    """The cotangent of what the branch adds after every step, up to the next listed one.

    Args:
        ct_outputs: ``[B, T, M]``.
        ct_held: of what is held at the end, ``[B, M]``.
        listed: booleans ``[T, W]``.

    Returns:
        ``[T, B, M]``, and that of what was held before the first step.
    """
    steps = len(listed)

    def step(i, state):
        after, sums = state
        t = steps - 1 - i
        now = after + lax.dynamic_index_in_dim(ct_outputs, t, 1, keepdims=False)
        cut = lax.dynamic_index_in_dim(listed, t, 0, keepdims=False)
        sums = lax.dynamic_update_index_in_dim(sums, now, t, 0)
        return jnp.where(cut[:, None], 0, now), sums

    after, sums = lax.fori_loop(0, steps, step, (ct_held, buffers(steps, ct_held, ct_outputs)))
    return sums, after


def _pull_piece(
    tools: _Tools, index: Array, first: Array, ct_future: Carry, totals: _Totals
) -> tuple[Carry, _Totals]:
    """One piece, the levels from `first`.

    Args:
        tools: see there.
        index: integers ``[S, W]``, their steps.
        first: the number of the first one.
        ct_future: cotangent of the state after the piece.
        totals: of the pieces after it.

    Returns:
        The cotangent of the state before the piece, and the totals with it.
    """
    branch, inputs, _, g, sums, kept, spec, vectors = tools
    cell, unit, rest = branch.cell, inputs.params["mixer"], _rest(inputs)
    now = now_at(inputs, g, index)
    size, batch = now.g.shape
    before, after = (
        jax.tree.map(lambda leaf, n=n: lax.dynamic_slice_in_dim(leaf, first + n, size), kept)
        for n in (0, 1)
    )
    if now.reset is not None:
        before = jax.tree.map(
            lambda f, o: jnp.where(now.reset[..., None], f[None], o),
            Kept(inputs.reset_carry, jnp.zeros_like(inputs.held)),
            before,
        )
    old = before.states
    read, read_vjp = jax.vjp(branch.read, rest, now.x)
    z, u = cell.project(unit, read, spec.dtype), cell.recur(unit, old.h, spec.dtype)
    v, inner = None, {}
    if cell.inner is not None:
        v, inner = cell.recur_inner(unit, old, z, u, spec.dtype)
    ct_sum = rows_at(sums, index, 0)
    ct_added = jnp.where(now.g[..., None] == 0, 0, now.g[..., None] * ct_sum)
    at = (index, jnp.arange(batch)[None])
    _, write_vjp = jax.vjp(
        lambda *args: branch.write(*args, inputs.key, at), rest, now.x, after.states.h
    )
    drest, dx, dh = write_vjp(ct_added.astype(inputs.held.dtype))
    backward_step = adjoint.make_backward_step(spec, unit, vectors)
    learned = totals.logits is not None

    def level(state, now):
        ct_future, dvectors, dreset = state
        old, z, u, inner, g, reset, dh = now
        g = jnp.broadcast_to(g[:, None], dh.shape)
        _, found = backward_step(ct_future._replace(h=ct_future.h + dh), old, z, u, inner, g)
        ct_carry, dreset = adjoint.before_reset(reset, found.carry, dreset)
        dvectors = jax.tree.map(jnp.add, dvectors, found.vectors)
        own = {k: d for k, d in found.u.items() if d is not found.z.get(k)}
        return (ct_carry, dvectors, dreset), (found.z, own, ct_future if learned else None)

    state = (ct_future, totals.vectors, totals.reset)
    levels = (old, z, u, inner, now.g, now.reset, dh)
    state, (dz, du, futures) = lax.scan(level, state, levels, reverse=True)
    products = StepCotangents({}, state[0], dz, {**dz, **du})
    dread = adjoint.input_cotangents(spec, unit, dz).astype(read.dtype)
    drest_read, dx_read = read_vjp(dread)
    more = adjoint.kernel_gradients(spec, unit, read, old.h, v, products)
    totals = totals._replace(
        rest=jax.tree.map(lambda *parts: sum(parts), totals.rest, drest, drest_read),
        kernels=jax.tree.map(jnp.add, totals.kernels, more),
        vectors=state[1],
        reset=state[2],
        x=add_rows(totals.x, index, dx + dx_read),
    )
    if learned:
        dg = _gain(Kept(futures, ct_sum), after, before, totals.logits.dtype)
        dg = jnp.where(now.g == 0, 0, dg)  # of closed steps later, by their candidates
        totals = totals._replace(
            logits=_set_logits(tools, totals.logits, index, dg),
            futures=write(totals.futures, futures, first + 1),
        )
    return state[0], totals


def _near(tools: _Tools, futures: Carry, todo: Levels, dlogits: Array) -> Array:
    """Adds the cotangents of the logits of closed steps in the surrogate's window.

    Args:
        tools: see there.
        futures: as in :class:`_Totals`, with entry 0.
        todo: the levels.
        dlogits: those of the open steps.
    """
    branch, inputs, logits, g, sums, kept, spec, _ = tools
    cell, unit, (steps, width) = branch.cell, inputs.params["mixer"], g.shape
    batch = inputs.x.shape[0]
    near = (branch.surrogate.slope(logits) != 0) & (g == 0)
    if inputs.valid is not None:
        near = near & inputs.valid
    few = branch.surrogate.gradient_rows(batch)
    if width > 1:
        near, todo = near[:, :few], todo._replace(place=todo.place[:, :few])
    # The gradient is that of the first rows.
    x, sums, (kept, futures) = (
        inputs.x[:few],
        sums[:, :few],
        jax.tree.map(lambda leaf: leaf[:, :few], (kept, futures)),
    )
    size = size_of(few, steps)
    listed = list_levels(near, size)

    def piece(p, dlogits):
        index = lax.dynamic_slice_in_dim(listed.index, p * size, size)
        place = jnp.take_along_axis(todo.place, jnp.minimum(index, steps - 1), axis=0)
        now, ct_sum = rows_at(x, index, 1), rows_at(sums, index, 0)
        before, ct_future = after_levels((kept, futures), place)
        candidate = cell.step(unit, before.states, branch.read(inputs.params, now), spec.dtype)
        at = (index, jnp.arange(few)[None])
        added = branch.write(inputs.params, now, candidate.h, inputs.key, at)
        dg = _gain(Kept(ct_future, ct_sum), Kept(candidate, added), before, logits.dtype)
        dg = jnp.pad(dg, [(0, 0), (0, batch - few)])
        if width > 1:
            index = jnp.pad(index, [(0, 0), (0, batch - few)], constant_values=steps)
        return _set_logits(tools, dlogits, index, dg)

    return lax.fori_loop(0, (listed.count + size - 1) // size, piece, dlogits)


def _gain(ct: Any, candidate: Any, old: Any, dtype: Any) -> Array:
    """``Σ ct ∘ (candidate - old)`` over all fields and neurons, ``[S, B]``."""
    parts = jax.tree.map(
        lambda d, new, o: (d.astype(dtype) * (new - o).astype(dtype)).sum(-1), ct, candidate, old
    )
    return sum(jax.tree.leaves(parts))


def _set_logits(tools: _Tools, dlogits: Array, index: Array, dg: Array) -> Array:
    """The cotangents ``[T, W]`` of the logits with those of the steps `index` set.

    Args:
        tools: see there.
        dlogits: so far.
        index: integers ``[S, W]``.
        dg: of the openness, ``[S, B]``.
    """
    surrogate = tools.branch.surrogate
    dg = adjoint.weigh_rows(surrogate, dg[..., None])[..., 0]
    dg = dg.sum(1, keepdims=True) if index.shape[1] == 1 else dg
    row = jnp.arange(index.shape[1])[None]
    slope = surrogate.slope(tools.logits.at[index, row].get(mode="fill", fill_value=0))
    found = jnp.where((slope == 0) | (dg == 0), 0, slope * dg)
    return dlogits.at[index, row].set(found, mode="drop")
