"""Shared by the back ends written in JAX: one step forward, and its hand-written transpose.

A backward step needs the products of the forward step. The caller recomputes them, for as many
steps at once as suits it, and computes the weight gradients from the cotangents of the products.

Names of cotangents: `ct_output` comes from the use of a step's carry as an output, `ct_future` from
later steps, `ct_total` is their sum, and `ct_carry` belongs to the carry before the step.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.cells import Cell
from surnn_jax.cells.cell import product
from surnn_jax.scan.spec import ScanInputs, ScanSpec
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params


def select(rows: Array, yes: Carry, no: Carry) -> Carry:
    """One carry or the other, example by example: `rows` are booleans ``[B]``."""
    return jax.tree.map(lambda a, b: jnp.where(rows[:, None], a, b), yes, no)


def switch_values(
    surrogate: Surrogate | None, logits: Array | None, step_mask: Array | None, like: Array
) -> Array | None:
    """The switches ``[B, H]`` of one step; None if every neuron updates."""
    g = None
    if logits is not None:
        g = surrogate.value(logits.astype(like.dtype))
        g = jnp.broadcast_to(g[None] if g.ndim == 1 else g, like.shape)
    if step_mask is not None:
        g = jnp.where(step_mask[:, None], jnp.ones_like(like) if g is None else g, 0)
    return g


def by_field(surrogate: Surrogate | None, g: Array | None, like: Carry) -> Carry:
    """The switches of each field of a carry, from what :func:`switch_values` gives.

    Raises:
        ValueError: if the memory cell has its own and there is none.
    """
    if surrogate is None or surrogate.expected is None:
        return jax.tree.map(lambda _: g, like)
    if "c" not in like._fields:
        raise ValueError(f"a switch of its own for c, but {type(like).__name__} has no field c")
    return type(like)(*(surrogate.of_field(name, g) for name in like._fields))


def mix(surrogate: Surrogate | None, g: Array | None, candidate: Carry, old: Carry) -> Carry:
    """The new carry: the candidate if the switch is open, the old value if it is closed."""
    if g is None:
        return candidate
    if surrogate is None or surrogate.hard:
        # A NaN logit is neither open nor closed; the result shows it.
        return jax.tree.map(
            lambda f, h: jnp.where(g > 0, f, jnp.where(g <= 0, h, g)), candidate, old
        )
    return jax.tree.map(
        lambda g, f, h: jnp.where(g == 1, f, jnp.where(g == 0, h, h + g * (f - h))),
        by_field(surrogate, g, old),
        candidate,
        old,
    )


def weigh_rows(surrogate: Surrogate, dg: Array) -> Array:
    """Cotangents of the switches ``[..., B, H]``, scaled if only some rows give the gradient."""
    weights = surrogate.row_weights(dg.shape[-2], dg.dtype)
    if weights is None:
        return dg
    weights = weights.reshape((1,) * (dg.ndim - 2) + (-1, 1))
    return jnp.where(weights == 0, 0, weights * dg)


def _map_once(function: Callable[[Array], Array], tree: Any) -> Any:
    """`jax.tree.map` that computes leaves which are the same object only once."""
    leaves, form = jax.tree.flatten(tree)
    done = {id(leaf): function(leaf) for leaf in {id(leaf): leaf for leaf in leaves}.values()}
    return jax.tree.unflatten(form, [done[id(leaf)] for leaf in leaves])


def forward(
    spec: ScanSpec,
    params: Params,
    reset_carry: Carry,
    carry: Carry,
    now: tuple[Array, Array | None, Array | None, Array | None],
) -> Carry:
    """The carry after a step, from the one before and the step's :attr:`.ScanInputs.per_step`."""
    x, logits, step_mask, reset = now
    z = spec.cell.project(params, x, spec.dtype)
    return forward_projected(spec, params, reset_carry, carry, z, logits, step_mask, reset)


def forward_projected(
    spec: ScanSpec,
    params: Params,
    reset_carry: Carry,
    carry: Carry,
    z: dict[str, Array],
    logits: Array | None,
    step_mask: Array | None,
    reset: Array | None,
) -> Carry:
    """:func:`forward` for input products that are there already."""
    if reset is not None:
        carry = select(reset, reset_carry, carry)
    candidate = spec.cell.step_projected(params, carry, z, spec.dtype)
    g = switch_values(spec.surrogate, logits, step_mask, carry.h)
    return mix(spec.surrogate, g, candidate, carry)


class StepCotangents(NamedTuple):
    """Cotangents of the arguments of one step.

    Attributes:
        vectors: of the per-neuron parameters, ``[B, H]`` each.
        carry: of the carry before the step.
        z: of the input products.
        u: of the products with the state, inner ones included.
    """

    vectors: dict[str, Array]
    carry: Carry
    z: dict[str, Array]
    u: dict[str, Array]


def rule_vjp(
    cell: Cell,
    vectors: dict[str, Array],
    ct_total: Carry,
    old: Carry,
    z: dict[str, Array],
    u: dict[str, Array],
    g: Array | Carry | None,
) -> tuple[Carry, StepCotangents]:
    """The rule's part of a backward step: everything but what flows through products.

    Args:
        cell: the cell whose rule is transposed.
        vectors: its per-neuron parameters, broadcast to the shape of the other arguments.
        ct_total: cotangent of the carry after the step.
        old: the carry before it.
        z: its input products.
        u: its products with the state, inner ones included.
        g: its switches, for all fields or one for each; or None.

    Returns:
        The candidate and the :class:`StepCotangents`.
    """
    candidate, transpose = jax.vjp(cell.rule, vectors, old, z, u)
    if g is None:
        return candidate, StepCotangents(*transpose(ct_total))
    gates = g if isinstance(g, tuple) else cell.carry(*(g for _ in old))
    shut = functools.reduce(jnp.logical_and, {id(g): g == 0 for g in gates}.values())
    # Nothing flows back into the candidate of a closed neuron, not even 0 · NaN. A rule that is
    # not pointwise reads closed neurons too; with it that holds for rows without an open neuron.
    closed = shut if cell.rule_is_pointwise else shut.all(-1, keepdims=True)
    ct_candidate = jax.tree.map(jnp.multiply, gates, ct_total)
    dvectors, dold, dz, du = _map_once(lambda d: jnp.where(closed, 0, d), transpose(ct_candidate))
    ct_carry = jax.tree.map(lambda g, d, p: (1 - g) * d + p, gates, ct_total, dold)
    return candidate, StepCotangents(dvectors, ct_carry, dz, du)


def make_backward_step(
    spec: ScanSpec, params: Params, vectors: dict[str, Array], merged: bool = False
) -> Callable[..., tuple[Carry, StepCotangents]]:
    """Makes the backward step.

    Args:
        spec: of the scan.
        params: of the cell.
        vectors: its per-neuron parameters, broadcast to ``[B, H]``.
        merged: whether the gates' products with their kernels are one: fewer launches, where those
            cost something.

    Returns:
        ``step(ct_total, old, z, u, inner, g)``: takes the cotangent of the carry after the step,
        the carry before it, its products and its switches ``[B, H]`` (or None); returns the
        candidate and the :class:`StepCotangents`.
    """
    cell, out = spec.cell, spec.cell.carry_dtype(params)
    # Transposed once: a product that reads its kernel by columns takes twice as long on a CPU.
    transposed = jax.lax.optimization_barrier(jax.tree.map(jnp.transpose, params["recurrent"]))

    stacked = {}
    if merged:
        for gates in (cell.recurrent, cell.inner_recurrent):
            if gates:
                stacked[gates] = jnp.concatenate([params["recurrent"][k].T for k in gates])

    def back(gates, tree):
        """The cotangent of the operand that the products of `gates` share."""
        if merged and len(gates) > 1:
            rows = jnp.concatenate([tree[k] for k in gates], -1)
            return product(rows, stacked[gates], spec.dtype, out)
        return sum(product(tree[k], transposed[k], spec.dtype, out) for k in gates)

    def step(ct_total, old, z, u, inner, g):
        if spec.surrogate is not None and spec.surrogate.expected is not None and g is not None:
            g = by_field(spec.surrogate, g, old)
        candidate, cotangents = rule_vjp(cell, vectors, ct_total, old, z, {**u, **inner}, g)
        dvectors, ct_carry, dz, du = cotangents
        if inner:
            dv = back(cell.inner_recurrent, du)
            more = jax.vjp(cell.inner, vectors, old, z, u)[1](dv)
            dvectors, ct_carry, dz = (
                jax.tree.map(jnp.add, p, q)
                for p, q in zip((dvectors, ct_carry, dz), more[:3], strict=True)
            )
            du = {**du, **{k: du[k] + more[3][k] for k in cell.recurrent}}
        if cell.recurrent:
            ct_carry = ct_carry._replace(h=ct_carry.h + back(cell.recurrent, du))
        return candidate, StepCotangents(dvectors, ct_carry, dz, du)

    return step


def kernel_gradients(
    spec: ScanSpec,
    params: Params,
    x: Array,
    h: Array,
    inner: Array | None,
    cotangents: StepCotangents,
) -> Params:
    """Gradients of all kernels, ``Σ operand ⊗ cotangent``: one product for any number of steps.

    Args:
        spec: of the scan.
        params: of the cell; only their dtype is used.
        x: inputs ``[..., D]``.
        h: states before the steps, ``[..., H]``.
        inner: operands of the second product ``[..., H]``, or None.
        cotangents: of the products, ``[..., H]``.
    """
    cell, out = spec.cell, spec.cell.carry_dtype(params)

    def weight(operand, d):
        rows = (operand.reshape(-1, operand.shape[-1]).T, d.reshape(-1, d.shape[-1]))
        return product(*rows, spec.dtype, out)

    return {
        "input": {k: weight(x, cotangents.z[k]) for k in cell.inputs},
        "recurrent": {
            **{k: weight(h, cotangents.u[k]) for k in cell.recurrent},
            **{k: weight(inner, cotangents.u[k]) for k in cell.inner_recurrent},
        },
    }


def before_reset(reset: Array | None, ct_carry: Carry, dreset: Carry) -> tuple[Carry, Carry]:
    """The cotangent of a carry before the resets of its step.

    Args:
        reset: booleans ``[B]``, or None for no reset.
        ct_carry: the cotangent after the resets.
        dreset: that of the carry which a reset puts in place, so far.

    Returns:
        The cotangent before the resets, zero where there is one, and the new `dreset`.
    """
    if reset is None:
        return ct_carry, dreset
    zeros = jax.tree.map(jnp.zeros_like, ct_carry)
    dreset = jax.tree.map(jnp.add, dreset, select(reset, ct_carry, zeros))
    return select(reset, zeros, ct_carry), dreset


def without_dead_steps(
    inputs: ScanInputs, carries: Carry, ct_outputs: Carry
) -> tuple[ScanInputs, Carry]:
    """Inputs and carries with zeros in place of what is not finite and nothing depends on.

    No cotangent reaches a step if those of it and of all later steps of its sequence are zero.
    Kernels multiply it by those zeros all the same, and 0 · NaN is NaN: what is broken before a
    reset would reach the gradient of what comes after. Without resets nothing is changed.

    Args:
        inputs: of the scan.
        carries: its result.
        ct_outputs: their cotangents; None for zeros.
    """
    if inputs.resets is None or not inputs.x.shape[0]:
        return inputs, carries
    used = [(ct != 0).any(-1) for ct in ct_outputs if ct is not None]
    used = functools.reduce(jnp.logical_or, used, jnp.zeros_like(inputs.resets))
    steps = used.shape[0]
    t = jnp.arange(steps, dtype=jnp.int32)[:, None]
    next_use, next_reset = (
        jax.lax.cummin(jnp.where(there, t, steps), axis=0, reverse=True)
        for there in (used, inputs.resets)
    )
    end = jnp.concatenate([next_reset[1:], jnp.full_like(next_reset[:1], steps)])
    dead = next_use >= end

    def healed(leaf, dead=dead):
        return jnp.where(dead[..., None] & ~jnp.isfinite(leaf), 0, leaf)

    logits = inputs.logits
    if logits is not None and logits.ndim == 3:
        logits = healed(logits)
    initial = jax.tree.map(lambda leaf: healed(leaf, dead[0]), inputs.initial_carry)
    inputs = inputs._replace(x=healed(inputs.x), logits=logits, initial_carry=initial)
    return inputs, jax.tree.map(healed, carries)


def input_cotangents(spec: ScanSpec, params: Params, dz: dict[str, Array]) -> Array:
    """The cotangent of ``x``, from those of its products."""
    out = spec.cell.carry_dtype(params)
    return sum(product(dz[k], params["input"][k].T, spec.dtype, out) for k in spec.cell.inputs)


def of_inputs(
    spec: ScanSpec,
    inputs: ScanInputs,
    h: Array,
    inner: Array | None,
    cotangents: StepCotangents,
    dlogits: Array | None,
    dreset: Carry,
) -> ScanInputs:
    """The cotangents of the inputs of a scan, from those of all its steps.

    Args:
        spec: of the scan.
        inputs: likewise.
        h: states before the steps, ``[T, B, H]``.
        inner: operands of the second product ``[T, B, H]``, or None.
        cotangents: of the products ``[T, B, H]``; of the vectors ``[B, H]``, summed over the steps;
            of the initial carry.
        dlogits: of the logits, or None.
        dreset: of the carry after a reset.
    """
    params, x = inputs.params, inputs.x
    dparams = kernel_gradients(spec, params, x, h, inner, cotangents)
    dparams["vector"] = {k: d.sum(0) for k, d in cotangents.vectors.items()}
    dparams = jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)
    dx = input_cotangents(spec, params, cotangents.z).astype(x.dtype)
    if dlogits is not None:
        dlogits = dlogits.astype(inputs.logits.dtype)
    return ScanInputs(dparams, dx, dlogits, cotangents.carry, dreset)


def logit_cotangents(
    surrogate: Surrogate,
    logits: Array,
    step_mask: Array | None,
    ct_total: Carry,
    candidate: Carry,
    old: Carry,
) -> Array:
    """The cotangent of logits ``[..., H]`` or ``[..., B, H]``, from carries ``[..., B, H]``.

    ``slope(logits) · gaps``, summed over the rows that share a logit.
    """
    return of_gaps(surrogate, logits, step_mask, gaps(ct_total, candidate, old))


def gaps(ct_total: Carry, candidate: Carry, old: Carry) -> Array:
    """``Σ_carry ct_total ∘ (candidate - old)``: the cotangent of a switch, ``[..., B, H]``."""
    found = jax.tree.map(lambda d, f, o: d * (f - o), ct_total, candidate, old)
    return sum(jax.tree.leaves(found))


def of_gaps(surrogate: Surrogate, logits: Array, step_mask: Array | None, dg: Array) -> Array:
    """:func:`logit_cotangents`, from the :func:`gaps`."""
    if step_mask is not None:
        dg = jnp.where(step_mask[..., None], dg, 0)
    dg = weigh_rows(surrogate, dg)
    slope = surrogate.slope(logits.astype(dg.dtype))
    if logits.ndim < dg.ndim:
        dg = dg.sum(-2)
    return jnp.where(slope == 0, 0, slope * dg)
