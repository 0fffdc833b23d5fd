"""Skips steps: runs only those at which some neuron opens, and repeats the state at the others.

Pays if whole steps are empty: one rhythm for the layer, few groups, one example. The list of
active steps is made from the logits at run time, and the loops have as many turns as it has
entries, so there is no fixed capacity, and cost is proportional to the share of active steps.

The backward pass walks the same list in chunks: the products and the weight gradients of a chunk
are computed at once, and only the cotangent of the state goes step by step. Only the carries are
stored. A step with neurons near the threshold but none open is active in the backward pass only.

Accelerators take the listed steps in blocks, see :mod:`.compact_blocks`. Under a `vmap` over the
schedules, as of layers side by side, there is a list for each: on a CPU the scans run one after
another, on accelerators the dense scan runs instead.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from surnn_jax.scan import adjoint, compact_blocks, derivatives, indexing, masked
from surnn_jax.scan.adjoint import StepCotangents, switch_values
from surnn_jax.scan.derivatives import Wanted, instantiate_zeros
from surnn_jax.scan.listed import active_steps, carries_before, index_step, update_step
from surnn_jax.scan.spec import ScanInputs, ScanShape, ScanSpec, UpdateRates
from surnn_jax.typing import Array, Carry

_ROWS = 128  # rows (steps · examples) of a chunk: enough for products to run at full speed

# Of the dense cost: what does not depend on the rate, and an active step of the backward pass at
# which neurons are near the threshold but none is open. Measured with a GRU on a CPU.
_FIXED, _NEAR = 0.02, 0.25


def unsupported(spec: ScanSpec, shape: ScanShape) -> str | None:
    """None: it runs everything."""
    del spec, shape
    return None


def active_share(rates: UpdateRates, shape: ScanShape) -> tuple[float, float]:
    """Expected shares of active steps, forward and backward, if schedules are independent."""
    schedules = rates.schedules * (shape.batch if shape.per_example else 1)
    return 1 - (1 - rates.open) ** schedules, 1 - (1 - rates.computed) ** schedules


def cost(spec: ScanSpec, shape: ScanShape, rates: UpdateRates) -> float:
    """Proportional to the share of active steps."""
    del spec
    active, near = active_share(rates, shape)
    share = _FIXED + (1 - _FIXED) * (active + _NEAR * (near - active))
    # Not measured on accelerators: there it has to promise half of the dense cost.
    return share if shape.platform == "cpu" else 2 * share


def make_sum_outputs(ct_outputs: Carry) -> Callable[[Carry, Array, Array], Carry]:
    """Makes ``sum_outputs(ct_future, first, last)``.

    It adds the output cotangents of steps ``first`` to ``last - 1``, from the last to the first,
    to the cotangent `ct_future` that flows into the state from step `last` on.
    """

    def sum_outputs(ct_future, first, last):
        def add(i, total):
            return jax.tree.map(jnp.add, total, index_step(last - 1 - i, ct_outputs))

        return lax.fori_loop(0, last - first, add, ct_future)

    return sum_outputs


def scan(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """All carries; runs the active steps only."""
    return derivatives.scan(_KERNELS, spec, inputs)


def forward(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """:func:`scan`, not to be differentiated."""
    start, steps = inputs.initial_carry, inputs.x.shape[0]
    if not steps:
        return jax.tree.map(lambda s: jnp.zeros((0, *s.shape), s.dtype), start)
    active, todo = active_steps(spec, inputs, backward=False)

    def step(j, state):
        carry, carries = state
        now = index_step(todo.index[j], inputs.per_step)
        carry = adjoint.forward(spec, inputs.params, inputs.reset_carry, carry, now)
        return carry, update_step(carries, j + 1, carry)

    carries = jax.tree.map(lambda s: lax.empty((steps + 1, *s.shape), s.dtype), start)
    carries = update_step(carries, 0, start)
    carries = lax.fori_loop(0, todo.count, step, (start, carries))[1]
    return jax.tree.map(lambda c: c[indexing.count_active(active)], carries)


class _Chunk(NamedTuple):
    """The arrays of some listed steps, C of them, ``[C, B, …]`` each.

    Attributes:
        now: the steps ``[C]``; T beyond the list.
        x: their inputs.
        old: the carries before them, resets applied.
        z: input products.
        u: products with the state.
        v: operands of the inner product, or None.
        inner: inner products, perhaps none.
        resets: booleans ``[C, B]`` or None.
    """

    now: Array
    x: Array
    old: Carry
    z: dict[str, Array]
    u: dict[str, Array]
    v: Array | None
    inner: dict[str, Array]
    resets: Array | None


def _recompute(spec: ScanSpec, inputs: ScanInputs, carries: Carry, now: Array) -> _Chunk:
    """The products of the steps `now`, at once."""
    cell, params, resets = spec.cell, inputs.params, inputs.resets
    if resets is not None:
        resets = resets.at[now].get(mode="fill", fill_value=False)
    old = carries_before(inputs, carries, now, resets)
    x = inputs.x.at[now].get(mode="fill", fill_value=0)
    z, u = cell.project(params, x, spec.dtype), cell.recur(params, old.h, spec.dtype)
    v, inner = None, {}
    if cell.inner is not None:
        v, inner = cell.recur_inner(params, old, z, u, spec.dtype)
    return _Chunk(now, x, old, z, u, v, inner, resets)


def _step_cotangents(backward_step, learned, like, ct_total, args, g) -> StepCotangents:
    """Cotangents of one step; without any work if no neuron is open.

    Args:
        backward_step: from :func:`.adjoint.make_backward_step`.
        learned: whether a listed step may have no open neuron.
        like: arrays of the shapes of the cotangents of vectors, and of those of z and u for all
            steps of the chunk.
        ct_total: the cotangent of the carry after the step.
        args: the step's carry and products.
        g: its switches.
    """
    if not learned:
        return backward_step(ct_total, *args, g)[1]
    dvectors, *products = like
    zeros = jax.tree.map(jnp.zeros_like, (dvectors, *index_step(0, products)))
    closed = StepCotangents(zeros[0], ct_total, *zeros[1:])
    return lax.cond(
        (g != 0).any(),
        lambda *args: backward_step(*args)[1],
        lambda *_: closed,
        *(ct_total, *args, g),
    )


def _walk(spec, inputs, chunk: _Chunk, ends, turns, learned, tools, state):
    """Goes through the steps of a chunk from its last to its first.

    Args:
        spec: of the scan.
        inputs: likewise.
        chunk: the steps.
        ends: integers ``[C]``, the listed step after each.
        turns: how many steps of the chunk are meant.
        learned: whether the logits need a gradient.
        tools: `backward_step`, `sum_outputs` and the vectors, broadcast.
        state: `ct_future`, `dvectors` and `dreset` after the chunk.

    Returns:
        The state before the chunk, the cotangents of z and u ``[C, B, H]``, and of the carries
        after the steps if `learned`.
    """
    backward_step, sum_outputs, vectors = tools

    def step(i, state):
        i = turns - 1 - i
        ct_future, dvectors, dreset, dz, du, totals = state
        t = chunk.now[i]
        ct_total = sum_outputs(ct_future, t, ends[i])
        logits, step_mask = index_step(t, (inputs.logits, inputs.step_mask))
        g = switch_values(spec.surrogate, logits, step_mask, inputs.initial_carry.h)
        args = index_step(i, (chunk.old, chunk.z, chunk.u, chunk.inner))
        like = (vectors, dz, du)
        cotangents = _step_cotangents(backward_step, learned, like, ct_total, args, g)
        reset = None if chunk.resets is None else chunk.resets[i]
        ct_carry, dreset = adjoint.before_reset(reset, cotangents.carry, dreset)
        dvectors = jax.tree.map(jnp.add, dvectors, cotangents.vectors)
        dz, du = update_step(dz, i, cotangents.z), update_step(du, i, cotangents.u)
        if totals is not None:
            totals = update_step(totals, i, ct_total)
        return ct_carry, dvectors, dreset, dz, du, totals

    totals = chunk.old if learned else None
    zeros = jax.tree.map(jnp.zeros_like, (chunk.z, {**chunk.u, **chunk.inner}, totals))
    return lax.fori_loop(0, turns, step, (*state, *zeros))


def backward(
    spec: ScanSpec, inputs: ScanInputs, carries: Carry, wanted: Wanted, ct_outputs: Carry
) -> ScanInputs:
    """The cotangents of the inputs, see :class:`.derivatives.Kernels`."""
    learned = wanted.logits
    params, x, logits, initial_carry, reset_carry, step_mask, _ = inputs
    steps, batch, _ = x.shape
    if not steps:
        return jax.tree.map(jnp.zeros_like, ScanInputs(*inputs[:5]))
    cell = spec.cell
    sum_outputs = make_sum_outputs(instantiate_zeros(ct_outputs, carries))
    vectors = cell.broadcast(params, initial_carry.h.shape)
    tools = adjoint.make_backward_step(spec, params, vectors), sum_outputs, vectors
    _, todo = active_steps(spec, inputs, learned)
    size = max(1, min(steps, _ROWS // max(batch, 1)))
    index = jnp.concatenate([todo.index, jnp.full((size,), steps, todo.index.dtype)])

    def backward_chunk(b, state):
        ct_future, dkernels, dvectors, dreset, dx, dlogits = state
        first = (todo.count - 1) // size * size - b * size
        now = lax.dynamic_slice_in_dim(index, first, size)
        ends = lax.dynamic_slice_in_dim(index, first + 1, size)
        turns = jnp.minimum(size, todo.count - first)
        chunk = _recompute(spec, inputs, carries, now)
        state = (ct_future, dvectors, dreset)
        ct_future, dvectors, dreset, dz, du, totals = _walk(
            spec, inputs, chunk, ends, turns, learned, tools, state
        )
        cotangents = StepCotangents({}, ct_future, dz, du)
        more = adjoint.kernel_gradients(spec, params, chunk.x, chunk.old.h, chunk.v, cotangents)
        dkernels = jax.tree.map(jnp.add, dkernels, more)
        dx_now = adjoint.input_cotangents(spec, params, dz)
        dx = dx.at[now].set(dx_now.astype(dx.dtype), mode="drop")
        if totals is not None:
            candidate = cell.update(params, chunk.old, chunk.z, {**chunk.u, **chunk.inner})
            mask = step_mask
            if mask is not None:
                mask = mask.at[now].get(mode="fill", fill_value=False)
            dlogits_now = adjoint.logit_cotangents(
                spec.surrogate,
                logits[jnp.minimum(now, steps - 1)],
                mask,
                totals,
                candidate,
                chunk.old,
            )
            dlogits = dlogits.at[now].set(dlogits_now.astype(dlogits.dtype), mode="drop")
        return ct_future, dkernels, dvectors, dreset, dx, dlogits

    zeros = jax.tree.map(jnp.zeros_like, (initial_carry, vectors, reset_carry, x, logits))
    out = cell.carry_dtype(params)
    dkernels = jax.tree.map(
        lambda w: jnp.zeros_like(w, out), {k: params[k] for k in ("input", "recurrent")}
    )
    state = (zeros[0], dkernels, *zeros[1:])
    chunks = (todo.count + size - 1) // size
    state = lax.fori_loop(0, chunks, backward_chunk, state)
    ct_future, dkernels, dvectors, dreset, dx, dlogits = state
    dinitial = sum_outputs(ct_future, jnp.zeros_like(todo.count), index[0])
    dparams = {**dkernels, "vector": {k: d.sum(0) for k, d in dvectors.items()}}
    dparams = jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)
    return ScanInputs(dparams, dx, dlogits, dinitial, dreset)


ACCELERATED = derivatives.Kernels(
    compact_blocks.forward, compact_blocks.backward, lists=True, mapped=masked.ACCELERATED
)
"""What runs on a GPU or TPU."""

_KERNELS = derivatives.Kernels(forward, backward, lists=True, accelerated=ACCELERATED)
