"""Skips neurons: reads and computes only the weight rows of the neurons that open at a step.

The open neurons of a step are cut into portions of a fixed width, and the loop runs over the
portions of all steps. A full step has many portions and an empty step none, so there is no fixed
capacity that could overflow; the width only affects speed.

It takes update masks that the batch shares, hard switches and pointwise cells; `compact` runs the
rest. Portions of the backward pass also hold neurons near the threshold: the switch's gradient
needs their candidate, though nothing flows back into it.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from surnn_jax.cells import Cell
from surnn_jax.cells.cell import product
from surnn_jax.scan import adjoint, compact, derivatives, indexing
from surnn_jax.scan.adjoint import mix, select
from surnn_jax.scan.derivatives import instantiate_zeros
from surnn_jax.scan.listed import index_step, update_step
from surnn_jax.scan.spec import ScanInputs, ScanShape, ScanSpec, UpdateRates
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params

# Cost of one portion, 1 for a step of `compact` with all neurons open, by the size of a step's
# recurrent product, B · H². Measured with a GRU on a CPU, forward and backward.
_PORTION = ((2**16, 0.78), (2**18, 0.5), (2**20, 0.27), (2**22, 0.19))


def width(features: int) -> int:
    """Neurons of a portion: about a tenth of the layer, for rates of 5 to 10 %."""
    return min(features, 8 * max(1, round(features / 80)))


def unsupported(spec: ScanSpec, shape: ScanShape) -> str | None:
    """Why neurons cannot be taken alone; None if they can."""
    if spec.surrogate is None:
        return "without a switch there is nothing to skip"
    if not spec.cell.pointwise:
        return f"{spec.cell.name} needs all neurons to update one"
    if not spec.surrogate.hard:
        return f"a {spec.surrogate.name} switch is never closed"
    if shape.per_example:
        return "each example has its own update mask"
    return None


def cost(spec: ScanSpec, shape: ScanShape, rates: UpdateRates) -> float:
    """Proportional to the number of portions."""
    del spec
    if shape.platform != "cpu":
        return math.inf
    # Two thirds of the work are the backward pass, which computes nearly open neurons too.
    neurons = shape.features * (rates.open + 2 * rates.computed) / 3
    portions = max(neurons / width(shape.features) + 0.5, 1.0)
    work = max(shape.batch * shape.features**2, 1)
    portion = min(_PORTION, key=lambda entry: abs(math.log2(entry[0] / work)))[1]
    return compact.active_share(rates, shape)[0] * portions * portion


class _Weights(NamedTuple):
    """Parameters as a portion reads them.

    Attributes:
        recurrent: kernels with a row for each neuron that they feed, ``[H, H]``.
        input: likewise, ``[H, D]``.
        vectors: per-neuron parameters as one array ``[N, H]``: one look-up instead of N.
    """

    recurrent: dict[str, Array]
    input: dict[str, Array]
    vectors: Array


def _weights(cell: Cell, params: Params, features: int) -> _Weights:
    out = cell.carry_dtype(params)

    def transposed(kind, names):
        return lax.optimization_barrier({k: params[kind][k].T for k in names})

    none = jnp.zeros((0, features), out)
    vectors = [none, *(v.astype(out)[None] for v in params["vector"].values())]
    return _Weights(
        transposed("recurrent", cell.recurrent),
        transposed("input", cell.inputs),
        jnp.concatenate(vectors),
    )


def _pick(tree: Any, rows: Array) -> Any:
    """The entries of some neurons, along the last axis."""
    return jax.tree.map(lambda leaf: leaf.at[..., rows].get(mode="clip"), tree)


def _take(kernels: dict[str, Array], rows: Array) -> dict[str, Array]:
    """The rows of some neurons."""
    return {k: kernel.at[rows].get(mode="clip") for k, kernel in kernels.items()}


def _spread(names: Params, vectors: Array, rows: Array, like: Array) -> dict[str, Array]:
    """The per-neuron parameters of a portion, repeated over the batch."""
    picked = _pick(vectors, rows)
    return {k: jnp.broadcast_to(v[None], like.shape) for k, v in zip(names, picked, strict=True)}


def _switch_values(
    surrogate: Surrogate, logits: Array, step_mask: Array | None, rows: Array, like: Array
) -> Array:
    """The switches ``[B, C]`` of a portion; 0 in its unused places."""
    g = surrogate.value(_pick(logits.astype(like.dtype), rows))
    g = jnp.where(rows < logits.shape[0], g, 0)
    g = jnp.broadcast_to(g[None], like.shape)
    return g if step_mask is None else jnp.where(step_mask[:, None], g, 0)


def _portions(
    spec: ScanSpec, inputs: ScanInputs, backward: bool
) -> tuple[Array, indexing.Portions]:
    """The active steps ``[T]``, and the portions of their neurons; nearly open ones if backward."""
    logits = inputs.logits.astype(inputs.initial_carry.h.dtype)
    neurons = indexing.computed_mask(spec.surrogate, logits, backward)
    active = indexing.active_mask(neurons, inputs.step_mask, inputs.resets, inputs.x.shape[0])
    return active, indexing.list_portions(neurons, active, width(logits.shape[1]))


def _runs_itself(spec: ScanSpec, inputs: ScanInputs) -> bool:
    if inputs.logits is None or not inputs.x.shape[0]:
        return False
    return unsupported(spec, inputs.scan_shape()) is None


def scan(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """All carries; computes the open neurons only."""
    return derivatives.scan(_KERNELS, spec, inputs)


def _forward(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    if not _runs_itself(spec, inputs):
        return compact.forward(spec, inputs)
    cell, params, start = spec.cell, inputs.params, inputs.initial_carry
    out, size = cell.carry_dtype(params), width(inputs.logits.shape[1])
    active, todo = _portions(spec, inputs, backward=False)
    slots = indexing.count_active(active)
    weights = _weights(cell, params, inputs.logits.shape[1])

    def portion(n, state):
        carry, carries = state
        t, part = todo.step[n], todo.part[n]
        (x, logits, step_mask, reset), rows, slot = index_step(
            t, (inputs.per_step, todo.rows, slots)
        )
        rows = lax.dynamic_slice_in_dim(rows, part * size, size)
        # All portions of a step read the state before it.
        h = index_step(slot - 1, carries.h)
        if reset is not None:
            h = jnp.where(reset[:, None], inputs.reset_carry.h, h)
            carry = select(reset & (part == 0), inputs.reset_carry, carry)
        recurrent, feeds = _take(weights.recurrent, rows), _take(weights.input, rows)
        u = {k: product(h, r.T, spec.dtype, out) for k, r in recurrent.items()}
        z = {k: product(x, r.T, spec.dtype, out) for k, r in feeds.items()}
        old = _pick(carry, rows)
        vectors = _spread(params["vector"], weights.vectors, rows, old.h)
        candidate = cell.rule(vectors, old, z, u)
        g = _switch_values(spec.surrogate, logits, step_mask, rows, old.h)
        new = mix(spec.surrogate, g, candidate, old)
        carry = jax.tree.map(lambda c, v: c.at[:, rows].set(v, mode="drop"), carry, new)
        return carry, update_step(carries, slot, carry)

    carries = jax.tree.map(lambda s: lax.empty((inputs.x.shape[0] + 1, *s.shape), s.dtype), start)
    carries = lax.fori_loop(0, todo.count, portion, (start, update_step(carries, 0, start)))[1]
    return jax.tree.map(lambda c: c[slots], carries)


class _Gradients(NamedTuple):
    """What the backward pass sums up; `weights` and `logits` in the layout of a portion."""

    weights: _Weights
    reset_carry: Carry
    x: Array
    logits: Array | None


def _backward(spec, inputs, carries, wanted, ct_outputs):
    learned = wanted.logits
    everywhere = learned and math.isinf(spec.surrogate.support)
    if not _runs_itself(spec, inputs) or everywhere:
        return compact.backward(spec, inputs, carries, wanted, ct_outputs)
    params, logits, start = inputs.params, inputs.logits, inputs.initial_carry
    out = spec.cell.carry_dtype(params)
    active, todo = _portions(spec, inputs, backward=learned)
    upcoming = indexing.next_active(active)
    weights = _weights(spec.cell, params, logits.shape[1])
    sum_outputs = compact.make_sum_outputs(instantiate_zeros(ct_outputs, carries))

    def portion(n, state):
        n = todo.count - 1 - n
        ct_total, ct_carry, gradients = state
        t, part = todo.step[n], todo.part[n]
        rows, parts = index_step(t, (todo.rows, todo.parts))
        rows = lax.dynamic_slice_in_dim(rows, part * size, size)
        # The last portion of a step comes first: it begins with what flows in from later steps.
        last = part == parts - 1
        ct_carry = sum_outputs(ct_carry, t, jnp.where(last, upcoming[t + 1], t))
        ct_total = jax.tree.map(lambda p, q: jnp.where(last, p, q), ct_carry, ct_total)
        ct_carry, gradients = _portion_backward(
            spec, inputs, carries, weights, (t, rows), ct_total, ct_carry, gradients
        )
        return ct_total, ct_carry, gradients

    size = width(logits.shape[1])
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf, out),
        _Gradients(weights, inputs.reset_carry, inputs.x, logits if learned else None),
    )
    zero_carry = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, out), start)
    _, ct_carry, gradients = lax.fori_loop(0, todo.count, portion, (zero_carry, zero_carry, zeros))
    dinitial = sum_outputs(ct_carry, jnp.zeros_like(upcoming[0]), upcoming[0])
    dparams = {
        "input": {k: d.T for k, d in gradients.weights.input.items()},
        "recurrent": {k: d.T for k, d in gradients.weights.recurrent.items()},
        "vector": dict(zip(params["vector"], gradients.weights.vectors, strict=True)),
    }
    dparams = jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)
    dlogits = gradients.logits
    dlogits = None if dlogits is None else dlogits.astype(logits.dtype)
    dx = gradients.x.astype(inputs.x.dtype)
    return ScanInputs(dparams, dx, dlogits, dinitial, gradients.reset_carry)


def _portion_backward(
    spec: ScanSpec,
    inputs: ScanInputs,
    carries: Carry,
    weights: _Weights,
    where: tuple[Array, Array],
    ct_total: Carry,
    ct_carry: Carry,
    gradients: _Gradients,
) -> tuple[Carry, _Gradients]:
    """One portion backward.

    Args:
        spec: of the scan.
        inputs: likewise.
        carries: the carries after all steps.
        weights: parameters in the layout of portions.
        where: the step, and the neurons of the portion ``[C]``.
        ct_total: cotangent of the carry after the step.
        ct_carry: cotangent of the carry before it, without this portion and those to come.
        gradients: of the portions so far.

    Returns:
        `ct_carry` and `gradients` with this portion.
    """
    cell, params, (t, rows) = spec.cell, inputs.params, where
    out = cell.carry_dtype(params)
    x, logits, step_mask, reset = index_step(t, inputs.per_step)
    passed = index_step(jnp.maximum(t - 1, 0), carries)
    before = jax.tree.map(lambda s, c: jnp.where(t == 0, s, c), inputs.initial_carry, passed)
    if reset is not None:
        before = select(reset, inputs.reset_carry, before)
    old, ct_rows = _pick(before, rows), _pick(ct_total, rows)
    recurrent, feeds = _take(weights.recurrent, rows), _take(weights.input, rows)
    u = {k: product(before.h, r.T, spec.dtype, out) for k, r in recurrent.items()}
    z = {k: product(x, r.T, spec.dtype, out) for k, r in feeds.items()}
    g = _switch_values(spec.surrogate, logits, step_mask, rows, old.h)
    vectors = _spread(params["vector"], weights.vectors, rows, old.h)
    candidate, transpose = jax.vjp(cell.rule, vectors, old, z, u)
    # Nothing flows back into the candidate of a closed neuron, not even 0 · NaN.
    dvectors, dold, dz, du = jax.tree.map(
        lambda d: jnp.where(g == 0, 0, d), transpose(jax.tree.map(lambda d: g * d, ct_rows))
    )
    ct_carry = jax.tree.map(
        lambda p, d, o: p.at[:, rows].add(d - g * o, mode="drop"), ct_carry, dold, ct_rows
    )
    if cell.recurrent:
        more = sum(product(du[k], recurrent[k], spec.dtype, out) for k in recurrent)
        ct_carry = ct_carry._replace(h=ct_carry.h + more)

    def add(sums, d, operand):
        return {
            k: s.at[rows].add(product(d[k].T, operand, spec.dtype, out), mode="drop")
            for k, s in sums.items()
        }

    dweights, dreset, dx, dlogits = gradients
    dvector_rows = dweights.vectors
    if dvectors:
        stacked = jnp.stack([dvectors[k].sum(0) for k in params["vector"]])
        dvector_rows = dvector_rows.at[:, rows].add(stacked, mode="drop")
    dweights = _Weights(
        add(dweights.recurrent, du, before.h), add(dweights.input, dz, x), dvector_rows
    )
    dx_now = sum(product(dz[k], feeds[k], spec.dtype, out) for k in feeds)
    dx = update_step(dx, t, index_step(t, dx) + dx_now)
    if dlogits is not None:
        dlogits_now = adjoint.logit_cotangents(
            spec.surrogate, _pick(logits, rows), step_mask, ct_rows, candidate, old
        )
        dlogits = dlogits.at[t, rows].set(dlogits_now, mode="drop")
    ct_carry, dreset = adjoint.before_reset(reset, ct_carry, dreset)
    return ct_carry, _Gradients(dweights, dreset, dx, dlogits)


_KERNELS = derivatives.Kernels(_forward, _backward, lists=True)
