"""A block that computes nothing between its open steps.

The open steps of every example are listed, and the list is cut into pieces of one static size; a
loop has as many turns as there are pieces, so nothing can overflow and cost is proportional to the
open steps, those of the example that has most. Derivatives are first gradients in reverse mode
(:mod:`.branch_backward`); others are refused.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from surnn_jax.layers import branch_backward
from surnn_jax.layers.branch import Branch, BranchInputs, BranchOutputs
from surnn_jax.layers.branch_levels import (
    Kept,
    after_levels,
    buffers,
    list_levels,
    now_at,
    openness,
    size_of,
    write,
)
from surnn_jax.scan import sharding
from surnn_jax.scan.adjoint import select
from surnn_jax.typing import Array


def skip(branch: Branch, inputs: BranchInputs) -> BranchOutputs:
    """What :func:`.twin` returns, by computing the open steps only."""

    @jax.custom_vjp
    def run(inputs):
        return forward(branch, inputs)[0]

    def run_and_keep(inputs):
        learned = () if inputs.logits.perturbed else None  # a tree holds no booleans
        inputs = jax.tree.map(lambda leaf: leaf.value, inputs, is_leaf=_is(CustomVJPPrimal))
        inputs = _last(inputs)
        outputs, kept = forward(branch, inputs)
        return outputs, (inputs, kept, learned)

    def pull(saved, ct):
        inputs, kept, learned = saved
        ct = jax.tree.map(_instantiate, ct, is_leaf=_is(SymbolicZero))
        ct = _last(sharding.vary_alike((inputs.x, ct))[1])
        return (branch_backward.backward(branch, inputs, kept, learned is not None, ct),)

    run.defvjp(run_and_keep, pull, symbolic_zeros=True)
    return run(inputs)


# JAX would differentiate the loops of both directions as they stand, by the derivative of a step
# function, 0, in place of a surrogate's. An operation refuses that inside `lax.scan` as well.
_last_derivative = Primitive("last_derivative")
_last_derivative.def_impl(lambda x: x)
_last_derivative.def_abstract_eval(lambda x: x)
mlir.register_lowering(_last_derivative, lambda _, x: [x])
batching.defvectorized(_last_derivative)


def _refuse(*_: Any) -> None:
    raise ValueError(
        "skip='block' has first derivatives in reverse mode alone; for others take "
        "Options(backend='masked'), which computes every step"
    )


ad.primitive_jvps[_last_derivative] = _refuse


def _last(tree: Any) -> Any:
    """The tree, whose numbers cannot be differentiated any more."""

    def leaf(x):
        return _last_derivative.bind(x) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(leaf, tree)


def _is(kind: type) -> Any:
    return lambda leaf: isinstance(leaf, kind)


def _instantiate(ct: Any) -> Array:
    return jnp.zeros(ct.shape, ct.dtype) if isinstance(ct, SymbolicZero) else ct


def forward(branch: Branch, inputs: BranchInputs) -> tuple[BranchOutputs, Kept]:
    """The result, and what the backward pass wants; not to be differentiated."""
    batch, steps, _ = inputs.x.shape
    start = Kept(inputs.carry, inputs.held)
    if not batch * steps:
        return BranchOutputs(inputs.x, *start), jax.tree.map(lambda leaf: leaf[None], start)
    params, cell, size = inputs.params, branch.cell, size_of(batch, steps)
    unit = params["mixer"]
    _, g, listed = openness(branch, inputs)
    todo = list_levels(listed, size)

    def level(carry, now):
        z, g, reset = now
        if reset is not None:
            carry = select(reset, inputs.reset_carry, carry)
        u = cell.recur(unit, carry.h, branch.dtype)
        if cell.inner is not None:
            u = {**u, **cell.recur_inner(unit, carry, z, u, branch.dtype)[1]}
        candidate = cell.update(unit, carry, z, u)
        carry = jax.tree.map(lambda new, old: _mixed(g, new, old), candidate, carry)
        return carry, carry

    def piece(p, state):
        carry, kept = state
        first = p * size
        index = lax.dynamic_slice_in_dim(todo.index, first, size)
        now = now_at(inputs, g, index)
        z = cell.project(unit, branch.read(params, now.x), branch.dtype)
        carry, states = lax.scan(level, carry, (z, now.g, now.reset))
        at = (index, jnp.arange(batch)[None])
        added = branch.write(params, now.x, states.h, inputs.key, at)
        # A listed step that is closed is a reset.
        held = _mixed(now.g, added, jnp.zeros_like(added))
        return carry, write(kept, Kept(states, held), first + 1)

    kept = buffers(1 + steps + size, start, inputs.x)
    kept = write(kept, jax.tree.map(lambda leaf: leaf[None], start), 0)
    pieces = (todo.count + size - 1) // size
    carry, kept = lax.fori_loop(0, pieces, piece, (inputs.carry, kept))
    held = jnp.swapaxes(after_levels(kept.held, todo.place), 0, 1)
    last = after_levels(kept.held, todo.place[-1:])[0]
    return BranchOutputs(inputs.x + held, carry, last), kept


def _mixed(g: Array, candidate: Array, old: Array) -> Array:
    """The candidate where the switch ``[...]`` is open, the old value where it is closed."""
    g = g[..., None].astype(old.dtype)
    return jnp.where(g > 0, candidate, jnp.where(g <= 0, old, g))
