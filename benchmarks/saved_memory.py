"""Counts the memory that a forward pass saves for its backward pass."""

import functools
import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import timing
from benchmarks.problem import Forward, Problem, loss


class Residuals(NamedTuple):
    """The result of :func:`measure`.

    Attributes:
        kept: bytes saved between forward and backward pass.
        temporary: bytes that a compiled training step needs besides arguments and results.
        answer: loss and gradients of a training step.
    """

    kept: int
    temporary: int
    answer: Any


def measure(forward: Forward, problem: Problem, reads: str) -> Residuals:
    """Runs a forward pass and counts the bytes saved for the backward pass.

    Args:
        forward: parameters and inputs to outputs.
        problem: its arguments.
        reads: ``"outputs"`` or ``"last"``, the outputs that the loss reads.
    """

    target = problem.target if reads == "outputs" else problem.target[-1]
    arguments = (problem.params, problem.x, target)
    leaves, form = jax.tree.flatten(jax.tree.map(jax.typeof, arguments))
    ahead, step = _compiled(forward, reads, form, tuple(leaves))
    kept = counted(jax.tree.leaves(ahead(*arguments)), jax.tree.leaves(arguments))
    return Residuals(kept, step.memory_analysis().temp_size_in_bytes, step(*arguments))


@functools.cache
def _compiled(forward: Forward, reads: str, form: Any, leaves: tuple) -> tuple[Any, Any]:
    """A forward pass that returns its residuals, and a training step, both compiled."""

    def read(params, x):
        outputs = forward(params, x)
        return outputs if reads == "outputs" else outputs[-1]

    given = jax.tree.unflatten(form, leaves)
    ahead = jax.jit(lambda params, x, _: jax.vjp(read, params, x)[1])
    step = jax.jit(jax.value_and_grad(loss(read), argnums=(0, 1)))
    return ahead.lower(*given).compile(), step.lower(*given).compile()


def counted(leaves: list[Any], free: list[Any]) -> int:
    """Bytes of the arrays, without those equal to a free or an earlier one."""
    seen = {_content(leaf) for leaf in free}
    total = 0
    for leaf in leaves:
        content = _content(leaf)
        if content not in seen:
            seen.add(content)
            total += leaf.nbytes
    return total


def _content(leaf: Any) -> tuple[str, bytes]:
    # Without the shape: a reshaped array is no copy.
    array = np.asarray(leaf)
    return array.dtype.str, hashlib.blake2b(array.tobytes()).digest()


def agree(name: str, found: Residuals, wanted: Residuals) -> None:
    """Raises if two variants compute different things, see :func:`.timing.agree`."""
    timing.agree(name, found.answer, wanted.answer)
