"""`compact` as accelerators run it: the listed steps in blocks, see :mod:`.blocks`.

A loop whose number of turns depends on the logits makes the host wait for the device at every turn,
so a turn takes a block of listed steps, and there is no such loop within. The last block is filled
up: forward with steps that are not read, backward with steps that change nothing. Cotangents of the
outputs of closed steps are summed beforehand.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from surnn_jax.scan import adjoint, blocks, indexing
from surnn_jax.scan.derivatives import Wanted
from surnn_jax.scan.listed import active_steps, carries_before, update_step
from surnn_jax.scan.spec import ScanInputs, ScanSpec
from surnn_jax.typing import Array, Carry


def _filled(todo: indexing.ActiveSteps, steps: int) -> tuple[Array, Array]:
    """The list with entries for whole blocks, T beyond it; and the number of blocks."""
    more = jnp.full((blocks.STEPS,), steps, todo.index.dtype)
    turns = (todo.count + blocks.STEPS - 1) // blocks.STEPS
    return jnp.concatenate([todo.index, more]), turns


def _at(tree: Any, now: Array, steps: int) -> Any:
    """Some steps of arrays ``[T, …]``; beyond them the last one."""
    return jax.tree.map(lambda a: a[jnp.minimum(now, steps - 1)], tree)


def forward(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """As :func:`.compact.forward`."""
    start, steps = inputs.initial_carry, inputs.x.shape[0]
    if not steps:
        return jax.tree.map(lambda s: jnp.zeros((0, *s.shape), s.dtype), start)
    active, todo = active_steps(spec, inputs, backward=False)
    index, turns = _filled(todo, steps)

    def block(b, state):
        carry, carries = state
        now = lax.dynamic_slice_in_dim(index, b * blocks.STEPS, blocks.STEPS)
        arrays = _at(inputs.per_step, now, steps)
        carry, found = blocks.forward_block(spec, inputs, carry, arrays)
        place = 1 + b * blocks.STEPS
        carries = jax.tree.map(
            lambda a, v: lax.dynamic_update_slice_in_dim(a, v, place, 0), carries, found
        )
        return carry, carries

    size = 1 + steps + blocks.STEPS
    carries = jax.tree.map(lambda s: lax.empty((size, *s.shape), s.dtype), start)
    carries = update_step(carries, 0, start)
    carries = lax.fori_loop(0, turns, block, (start, carries))[1]
    return jax.tree.map(lambda c: c[indexing.count_active(active)], carries)


def sums_to_next(ct: Array, active: Array) -> Array:
    """Of every step, the sum of ``ct [T, …]`` from it to before the next active step."""
    last = jnp.concatenate([active[1:], jnp.ones((1,), bool)])
    last = last.reshape(-1, *(1,) * (ct.ndim - 1))

    def join(later, earlier):
        (ends_later, sum_later), (ends, own) = later, earlier
        return ends_later | ends, jnp.where(ends, own, own + sum_later)

    return lax.associative_scan(join, (last, ct), reverse=True)[1]


def backward(
    spec: ScanSpec, inputs: ScanInputs, carries: Carry, wanted: Wanted, ct_outputs: Carry
) -> ScanInputs:
    """As :func:`.compact.backward`."""
    params, x, logits, initial_carry = inputs[:4]
    steps = x.shape[0]
    if not steps:
        return jax.tree.map(jnp.zeros_like, ScanInputs(*inputs[:5]))
    active, todo = active_steps(spec, inputs, wanted.logits)
    index, turns = _filled(todo, steps)
    summed = [None if ct is None else sums_to_next(ct, active) for ct in ct_outputs]
    walk = blocks.Backward(spec, inputs, wanted)

    def block(b, state):
        walked, dkernels, dx, dlogits = state
        now = lax.dynamic_slice_in_dim(index, (turns - 1 - b) * blocks.STEPS, blocks.STEPS)
        _, logits_now, mask, resets = _at(inputs.per_step, now, steps)
        # What is not listed is not looked at: 0 · NaN is NaN.
        x_now = x.at[now].get(mode="fill", fill_value=0)
        old = carries_before(inputs, carries, now, resets)
        cts = [
            jnp.zeros_like(o) if ct is None else ct.at[now].get(mode="fill", fill_value=0)
            for ct, o in zip(summed, old, strict=True)
        ]
        arrays = spec.cell.carry(*cts), old, x_now, logits_now, mask, resets
        walked, (dz, du, v, found) = walk(walked, arrays, now < steps)
        cotangents = adjoint.StepCotangents({}, walked[0], dz, {**dz, **du})
        more = adjoint.kernel_gradients(spec, params, x_now, old.h, v, cotangents)
        dkernels = jax.tree.map(jnp.add, dkernels, more)
        dx_now = adjoint.input_cotangents(spec, params, dz)
        dx = dx.at[now].set(dx_now.astype(dx.dtype), mode="drop")
        if found is not None:
            dlogits = dlogits.at[now].set(found.astype(dlogits.dtype), mode="drop")
        return walked, dkernels, dx, dlogits

    out = spec.cell.carry_dtype(params)
    dkernels = jax.tree.map(
        lambda w: jnp.zeros_like(w, out), {k: params[k] for k in ("input", "recurrent")}
    )
    zeros = jax.tree.map(jnp.zeros_like, (x, logits))
    state = (walk.start(), dkernels, *zeros)
    (ct_carry, dvectors, dreset), dkernels, dx, dlogits = lax.fori_loop(0, turns, block, state)
    # What comes before the first active step flows into the carry before all.
    fields = [
        d if ct is None else jnp.where(active[0], d, d + ct[0])
        for d, ct in zip(ct_carry, summed, strict=True)
    ]
    dinitial = type(initial_carry)(*fields)
    dparams = {**dkernels, "vector": {k: d.sum(0) for k, d in dvectors.items()}}
    dparams = jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)
    return ScanInputs(dparams, dx, dlogits, dinitial, dreset)
