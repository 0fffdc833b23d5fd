"""What the back ends in JAX share: one step forward, and the same step pulled back by hand.

A step backward needs the products of the step forward, which the caller recomputes (for as many
steps at once as suits it), and gives what is owed to them; weight gradients are the caller's too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.cells import Cell
from surnn_jax.cells.cell import product
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params


def select(rows: Array, yes: Carry, no: Carry) -> Carry:
    """One carry or the other, by example: ``rows`` is ``[B]``."""
    return jax.tree.map(lambda a, b: jnp.where(rows[:, None], a, b), yes, no)


def opening(gate: Surrogate | None, a: Array | None, keep: Array | None, like: Array):
    """The switch ``[B, H]`` of one step; None where every neuron updates."""
    g = None
    if a is not None:
        g = gate.value(a.astype(like.dtype))
        g = jnp.broadcast_to(g[None] if g.ndim == 1 else g, like.shape)
    if keep is not None:
        g = jnp.where(keep[:, None], jnp.ones_like(like) if g is None else g, 0)
    return g


def mix(gate: Surrogate | None, g: Array | None, candidate: Carry, old: Carry) -> Carry:
    """The new carry: candidate where the switch is open, old where it is closed."""
    if g is None:
        return candidate
    if gate is None or gate.hard:
        # NaN logits are neither open nor closed, and say so.
        return jax.tree.map(
            lambda f, h: jnp.where(g > 0, f, jnp.where(g <= 0, h, jnp.nan)), candidate, old
        )
    return jax.tree.map(
        lambda f, h: jnp.where(g == 1, f, jnp.where(g == 0, h, h + g * (f - h))), candidate, old
    )


def _taught(gate: Surrogate, dg: Array) -> Array:
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


def forward(
    cell: Cell,
    gate: Surrogate | None,
    dtype: Any,
    params: Params,
    fresh: Carry,
    carry: Carry,
    now: tuple[Array, Array | None, Array | None, Array | None],
) -> Carry:
    """The carry after a step, from the one before and the step's ``x, a, keep, resets``."""
    x, a, keep, reset = now
    if reset is not None:
        carry = select(reset, fresh, carry)
    candidate = cell.step(params, carry, x, dtype)
    return mix(gate, opening(gate, a, keep, carry.h), candidate, carry)


class StepCotangents(NamedTuple):
    """What one step owes to its arguments.

    Attributes:
        vectors: to the per-neuron parameters, ``[B, H]`` each.
        past: to the carry before the step.
        z: to the input products.
        u: to the products with the state, inner ones included.
    """

    vectors: dict[str, Array]
    past: Carry
    z: dict[str, Array]
    u: dict[str, Array]


def rule_vjp(
    cell: Cell,
    vectors: dict[str, Array],
    total: Carry,
    old: Carry,
    z: dict[str, Array],
    u: dict[str, Array],
    g: Array | None,
) -> tuple[Carry, StepCotangents]:
    """The pointwise part of a step backward: all but what flows through products.

    Args:
        cell: whose rule is pulled back.
        vectors: its per-neuron parameters, of the shape of the others.
        total: the cotangent of the carry after the step.
        old: the carry before it.
        z: its input products.
        u: its products with the state, inner ones included.
        g: its switches, or None.

    Returns:
        The candidate and what is :class:`Owed`.
    """
    candidate, pull = jax.vjp(cell.rule, vectors, old, z, u)
    if g is None:
        return candidate, StepCotangents(*pull(total))
    toward = jax.tree.map(lambda d: g * d, total)
    # Nothing flows back into the candidate of a closed neuron, not even 0 · NaN.
    dvec, dold, dz, du = _map_once(lambda d: jnp.where(g == 0, 0, d), pull(toward))
    past = jax.tree.map(lambda d, p: (1 - g) * d + p, total, dold)
    return candidate, StepCotangents(dvec, past, dz, du)


def make_backward_step(
    cell: Cell, gate: Surrogate | None, dtype: Any, params: Params, vectors: dict[str, Array]
) -> Callable[..., tuple[Carry, StepCotangents]]:
    """Makes the step backward.

    Returns:
        ``step(total, old, z, u, inner, g)``, from the cotangent of the carry after the step, the
        carry before it, its products and its switches ``[B, H]`` (or None): the candidate and
        what is :class:`Owed`.
    """
    out = cell.carry_dtype(params)
    # Turned once: a product that reads its kernel across takes twice as long on a CPU.
    turned = jax.lax.optimization_barrier(jax.tree.map(jnp.transpose, params["recurrent"]))

    def back(gates, tree):
        """Products' cotangents times transposed kernels: what flows into their operand."""
        return sum(product(tree[k], turned[k], dtype, out) for k in gates)

    def step(total, old, z, u, inner, g):
        candidate, owed = rule_vjp(cell, vectors, total, old, z, {**u, **inner}, g)
        dvec, past, dz, du = owed
        if inner:
            dv = back(cell.inner_recurrent, du)
            more = jax.vjp(cell.inner, vectors, old, z, u)[1](dv)
            dvec, past, dz = (
                jax.tree.map(jnp.add, p, q) for p, q in zip((dvec, past, dz), more[:3], strict=True)
            )
            du = {**du, **{k: du[k] + more[3][k] for k in cell.recurrent}}
        if cell.recurrent:
            past = past._replace(h=past.h + back(cell.recurrent, du))
        return candidate, StepCotangents(dvec, past, dz, du)

    return step


def kernels(
    cell: Cell, dtype: Any, out: Any, x: Array, h: Array, inner: Array | None, owed: StepCotangents
) -> Params:
    """Gradients of all kernels: ``Σ operand ⊗ cotangent``, one product for any number of steps."""

    def weight(operand, d):
        rows = (operand.reshape(-1, operand.shape[-1]).T, d.reshape(-1, d.shape[-1]))
        return product(*rows, dtype, out)

    return {
        "input": {k: weight(x, owed.z[k]) for k in cell.inputs},
        "recurrent": {
            **{k: weight(h, owed.u[k]) for k in cell.recurrent},
            **{k: weight(inner, owed.u[k]) for k in cell.inner_recurrent},
        },
    }


def inputs(cell: Cell, dtype: Any, out: Any, params: Params, dz: dict[str, Array]) -> Array:
    """What is owed to ``x``, from what is owed to its products."""
    return sum(product(dz[k], params["input"][k].T, dtype, out) for k in cell.inputs)


def logits(
    gate: Surrogate, a: Array, keep: Array | None, total: Carry, candidate: Carry, old: Carry
) -> Array:
    """What is owed to logits ``[..., H]`` or ``[..., B, H]``, from carries ``[..., B, H]``.

    ``slope(a) · Σ_carry total ∘ (candidate - old)``, summed over the rows that share a logit.
    """
    gaps = jax.tree.map(lambda d, f, o: d * (f - o), total, candidate, old)
    dg = sum(jax.tree.leaves(gaps))
    if keep is not None:
        dg = jnp.where(keep[..., None], dg, 0)
    dg = _taught(gate, dg)
    slope = gate.slope(a.astype(dg.dtype))
    if a.ndim < dg.ndim:
        dg = dg.sum(-2)
    return jnp.where(slope == 0, 0, slope * dg)


def values(primals: Any) -> Any:
    """The arrays of what a rule with symbolic zeros is given."""
    return jax.tree.map(lambda p: p.value, primals, is_leaf=lambda p: hasattr(p, "perturbed"))


def save_residuals(scan: Callable[..., Carry]) -> Callable[..., tuple[Carry, Any]]:
    """The forward rule of a back end that is told what nobody differentiates.

    It keeps the arguments, the carries, and whether a gradient is owed to the logits: a fact of
    the trace, so it is kept in the tree's shape, ``()`` for yes and None for no.
    """

    def rule(cell, gate, dtype, *primals):
        args = values(primals)
        learned = args[2] is not None and primals[2].perturbed
        carries = scan(cell, gate, dtype, *args)
        return carries, (args, carries, () if learned else None)

    return rule
