"""Persistent kernels over the active steps, for TPUs.

Like :mod:`.compact`, it lists the active steps and cuts that list into chunks. XLA computes what
needs no order for a whole chunk at once: input products forward, products with the state and
weight gradients backward. One kernel a chunk goes step by step (:mod:`.kernels`) and skips closed
blocks of neurons. Only the carries are stored.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from surnn_jax.scan import adjoint, derivatives, indexing, masked
from surnn_jax.scan.compact import carries_before, update_step
from surnn_jax.scan.derivatives import instantiate_zeros
from surnn_jax.scan.pallas import kernels, tiling
from surnn_jax.scan.spec import ScanInputs, ScanShape, ScanSpec, UpdateRates
from surnn_jax.typing import Array, Carry

_ROWS = 8192  # rows (steps · examples) of a chunk: few launches, small arrays

_FEW = 8  # steps of a chunk below which launching it costs more than it saves


def unsupported(spec: ScanSpec, shape: ScanShape) -> str | None:
    """Why there is no kernel; None if there is one.

    The cell's rule must be pointwise, and the cell must have a product with the state. Cells that
    decide for themselves have kernels on a CPU alone.
    """
    cell, platform = spec.cell, shape.platform
    if spec.surrogate is not None and spec.surrogate.expected is not None:
        return "fields have switches of their own"
    if not cell.pointwise:
        return f"{cell.name} needs all neurons to update one"
    if "open" in cell.carry._fields and platform != "cpu":
        return f"{cell.name} has an operation that no kernel knows"
    if not cell.recurrent:
        return f"{cell.name} has no product with the state"
    if shape.symbolic:
        return "a size is a symbol, as in an export"
    target = tiling.TARGETS.get(platform)
    if target is None:
        return f"no kernels for {platform}"
    if platform == "tpu" and spec.dtype not in (jnp.dtype("float32"), jnp.dtype("bfloat16")):
        return f"a tpu has no products of {spec.dtype}"
    most = tiling.max_chunk(target, cell, shape.features, spec.dtype)
    if most is not None and most < _FEW:
        return f"{shape.features} neurons do not fit into the memory of one core of a {platform}"
    return None


def cost(spec: ScanSpec, shape: ScanShape, rates: UpdateRates) -> float:
    """Infinite until it has run on an accelerator: so far it must be asked for by name."""
    del spec, shape, rates
    return math.inf


def scan(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """All carries, by Pallas kernels.

    :func:`.masked.scan` runs instead if there is no kernel (:func:`unsupported`) or nothing to
    compute. On a CPU the kernels are interpreted, which is slow and not allowed inside
    `jax.shard_map`: there `masked` runs too.
    """
    shape = inputs.scan_shape()
    refused = unsupported(spec, shape) is not None or not inputs.x.size
    if refused or (shape.platform == "cpu" and _inside_shard_map()):
        return masked.scan(spec, inputs)
    return scan_for_target(tiling.TARGETS[shape.platform], spec, inputs)


def scan_for_target(target: tiling.Target, spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """:func:`scan` for a target that need not be present, for example to lower it."""
    return derivatives.scan(_kernels(target), spec, inputs)


@functools.cache
def _kernels(target: tiling.Target) -> derivatives.Kernels:
    """The same object for the same target, since it keys compiled programs."""
    return derivatives.Kernels(
        functools.partial(_forward, target), functools.partial(_backward, target)
    )


def _inside_shard_map() -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and jax.sharding.AxisType.Manual in mesh.axis_types


class _ActiveChunks(NamedTuple):
    """The active steps, cut into chunks.

    Attributes:
        active: booleans ``[T]``.
        size: C, steps of a chunk, an integer.
        count: the number of active steps.
        index: the active steps ``[T + 1 + C]``, then T: every chunk and the entry after it exist.
    """

    active: Array
    size: int
    count: Array
    index: Array

    @property
    def chunks(self) -> Array:
        """The number of chunks."""
        return (self.count + self.size - 1) // self.size


def _active_chunks(
    spec: ScanSpec, target: tiling.Target, inputs: ScanInputs, backward: bool
) -> _ActiveChunks:
    """Lists the active steps; with those of nearly open neurons if `backward`."""
    steps, batch, _ = inputs.x.shape
    h = inputs.initial_carry.h
    most = tiling.max_chunk(target, spec.cell, h.shape[-1], spec.dtype)
    neurons = None
    if inputs.logits is not None:
        logits = inputs.logits.astype(h.dtype)
        neurons = indexing.computed_mask(spec.surrogate, logits, backward)
    active = indexing.active_mask(neurons, inputs.step_mask, inputs.resets, steps)
    size = max(1, min(steps, _ROWS // batch, steps if most is None else most))
    todo = indexing.list_active(active)
    beyond = jnp.full((size,), steps, todo.index.dtype)
    return _ActiveChunks(active, size, todo.count, jnp.concatenate([todo.index, beyond]))


def _chunk_inputs(
    spec: ScanSpec, inputs: ScanInputs, now: Array, turns: Array
) -> tuple[Array, kernels.Steps]:
    """The inputs ``[C, B, D]`` of the steps `now`, and what the kernels read of them.

    Args:
        spec: of the scan.
        inputs: likewise.
        now: integers ``[C]``, the steps.
        turns: how many of them are meant.
    """
    x, logits, step_mask, resets = inputs.per_step
    like = inputs.initial_carry.h
    x = x.at[now].get(mode="fill", fill_value=0)
    g = None
    if logits is not None:
        logits = logits[jnp.minimum(now, logits.shape[0] - 1)]
        g = spec.surrogate.value(logits.astype(like.dtype))
        g = g[:, None] if g.ndim == 2 else g
    if step_mask is not None:
        mask = step_mask.at[now].get(mode="fill", fill_value=False)[..., None]
        ones = jnp.ones((*x.shape[:2], like.shape[-1]), like.dtype)
        g = jnp.where(mask, ones if g is None else g, 0)
    if resets is not None:
        resets = resets.at[now].get(mode="fill", fill_value=False)
    z = spec.cell.project(inputs.params, x, spec.dtype)
    return x, kernels.Steps(turns[None].astype(jnp.int32), z, g, resets)


def _forward(target, spec, inputs):
    start, params = inputs.initial_carry, inputs.params
    todo = _active_chunks(spec, target, inputs, backward=False)

    def chunk(b, state):
        carry, carries = state
        first = b * todo.size
        now = lax.dynamic_slice_in_dim(todo.index, first, todo.size)
        turns = jnp.minimum(todo.size, todo.count - first)
        _, steps = _chunk_inputs(spec, inputs, now, turns)
        more = kernels.forward(target, spec, params, steps, carry, inputs.reset_carry)
        # The first one is the carry before the chunk, which is there already.
        carries = jax.tree.map(
            lambda c, m: lax.dynamic_update_slice_in_dim(c, m, first, 0), carries, more
        )
        return jax.tree.map(lambda m: m[-1], more), carries

    size = todo.index.shape[0] + 1
    carries = jax.tree.map(lambda s: lax.empty((size, *s.shape), s.dtype), start)
    carries = update_step(carries, 0, start)
    carries = lax.fori_loop(0, todo.chunks, chunk, (start, carries))[1]
    return jax.tree.map(lambda c: c[indexing.count_active(todo.active)], carries)


class _Gradients(NamedTuple):
    """What the backward pass sums up."""

    params: Any
    reset_carry: Carry
    x: Array
    logits: Array | None


def _backward(target, spec, inputs, carries, wanted, ct_outputs):
    learned = wanted.logits
    params, x, logits, initial_carry, reset_carry, *_ = inputs
    todo = _active_chunks(spec, target, inputs, backward=learned)
    ct_outputs = instantiate_zeros(ct_outputs, carries)
    ct_first, output_sums = _sum_outputs(todo, ct_outputs)

    def chunk(b, state):
        ct_future, gradients = state
        first = (todo.chunks - 1 - b) * todo.size
        turns = jnp.minimum(todo.size, todo.count - first)
        now = lax.dynamic_slice_in_dim(todo.index, first, todo.size)
        ct_output = output_sums(first)
        return _backward_chunk(
            spec, target, inputs, carries, learned, (now, turns), ct_output, ct_future, gradients
        )

    ct_future, dreset, dx, dlogits = jax.tree.map(
        jnp.zeros_like, (initial_carry, reset_carry, x, logits)
    )
    out = spec.cell.carry_dtype(params)
    dparams = jax.tree.map(lambda p: jnp.zeros_like(p, out), params)
    state = (ct_future, _Gradients(dparams, dreset, dx, dlogits))
    ct_future, gradients = lax.fori_loop(0, todo.chunks, chunk, state)
    dinitial = jax.tree.map(jnp.add, ct_future, ct_first)
    dparams = jax.tree.map(lambda d, p: d.astype(p.dtype), gradients.params, params)
    dreset = gradients.reset_carry
    return ScanInputs(dparams, gradients.x, gradients.logits, dinitial, dreset)


def _backward_chunk(
    spec, target, inputs, carries, learned, where, ct_output, ct_future, gradients
) -> tuple[Carry, _Gradients]:
    """A chunk of steps backward.

    Args:
        spec: of the scan.
        target: of the kernels.
        inputs: of the scan.
        carries: the carries after all steps.
        learned: whether the logits need a gradient.
        where: the steps ``[C]``, and how many of them are meant.
        ct_output: what flows into the carries after these steps, and into repetitions of them.
        ct_future: what flows into the carry after the last from later steps.
        gradients: of later chunks.

    Returns:
        `ct_future` and `gradients` with this chunk.
    """
    cell, params, (now, turns) = spec.cell, inputs.params, where
    meant = (jnp.arange(now.shape[0], dtype=jnp.int32) < turns)[:, None, None]
    x, steps = _chunk_inputs(spec, inputs, now, turns)
    old = carries_before(inputs, carries, now, steps.resets)
    old = jax.tree.map(lambda o: jnp.where(meant, o, 0), old)
    u = cell.recur(params, old.h, spec.dtype)
    walked = kernels.backward(target, spec, params, steps, old, u, ct_output, ct_future)
    ct_total = jax.tree.map(lambda d: jnp.where(meant, d, 0), walked.total)

    vectors = cell.broadcast(params, old.h.shape)
    g = None if steps.g is None else jnp.broadcast_to(steps.g, old.h.shape)
    candidate, cotangents = adjoint.rule_vjp(cell, vectors, ct_total, old, steps.z, u, g)
    more = adjoint.kernel_gradients(spec, params, x, old.h, None, cotangents)
    more["vector"] = {name: d.sum((0, 1)) for name, d in cotangents.vectors.items()}
    dparams, dreset, dx, dlogits = gradients
    dparams = jax.tree.map(jnp.add, dparams, more)
    dx_now = adjoint.input_cotangents(spec, params, cotangents.z)
    dx = dx.at[now].set(dx_now.astype(dx.dtype), mode="drop")
    if learned:
        logits, mask = inputs.logits, inputs.step_mask
        if mask is not None:
            mask = mask.at[now].get(mode="fill", fill_value=False)
        logits = logits[jnp.minimum(now, logits.shape[0] - 1)]
        dlogits_now = adjoint.logit_cotangents(
            spec.surrogate, logits, mask, ct_total, candidate, old
        )
        dlogits = dlogits.at[now].set(dlogits_now.astype(dlogits.dtype), mode="drop")
    if walked.reset_carry is not None:
        dreset = jax.tree.map(jnp.add, dreset, walked.reset_carry)
    return walked.initial_carry, _Gradients(dparams, dreset, dx, dlogits)


def _sum_outputs(todo: _ActiveChunks, ct_outputs: Carry) -> tuple[Carry, Callable[[Array], Carry]]:
    """Sums the output cotangents from each active step to before the next: one state, repeated.

    Returns:
        The sum before the first active step, ``[B, H]`` a field; and a function from the position
        in the list at which a chunk begins to the sums of its steps, ``[C, B, H]`` a field.
    """
    # A TPU and a CPU sum over segments always in one order.
    size = len(todo.active) + 1 + todo.size
    steps = indexing.count_active(todo.active)
    summed = jax.tree.map(
        lambda c: jax.ops.segment_sum(c, steps, size, indices_are_sorted=True), ct_outputs
    )

    def of_chunk(first):
        return jax.tree.map(lambda s: lax.dynamic_slice_in_dim(s, first + 1, todo.size), summed)

    return jax.tree.map(lambda s: s[0], summed), of_chunk
