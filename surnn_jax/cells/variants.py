"""Cells with other functions in their equations, or without biases."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from surnn_jax.cells.cell import Cell


@dataclasses.dataclass(frozen=True)
class _Changed:
    """A rule with other functions or without biases; two of the same are equal.

    Attributes:
        rule: of the cell that is changed, or its `inner`.
        functions: the names and the functions, sorted.
        zeros: the vectors that are no parameters.
    """

    rule: Callable
    functions: tuple[tuple[str, Callable], ...]
    zeros: tuple[str, ...]

    def __call__(self, p: Any, carry: Any, z: Any, u: Any) -> Any:
        none = dict.fromkeys(self.zeros, jnp.zeros_like(carry.h))
        return self.rule({**p, **none}, carry, z, u, **dict(self.functions))


def variant(
    cell: Cell,
    *,
    gate_fn: Callable | None = None,
    activation_fn: Callable | None = None,
    use_bias: bool = True,
) -> Cell:
    """A cell with other functions, as the arguments of Flax's cells have it.

    ``Recurrent(cells.variant(cells.LSTM, gate_fn=jax.nn.hard_sigmoid), 64)``. Pass functions that
    have a name: a lambda written anew at every call would be compiled anew. The compiled kernel
    knows the usual functions only, so `masked`, `compact` or `rows` runs a variant.

    Args:
        cell: tanh, or a GRU, LSTM or MGU.
        gate_fn: in place of the logistic function; pointwise.
        activation_fn: in place of tanh; pointwise.
        use_bias: False takes all biases to be 0 (peepholes stay).

    Raises:
        ValueError: the cell has no such function in its equations, or no bias.

    Examples:
        >>> from surnn_jax import cells
        >>> cells.variant(cells.LSTM, gate_fn=jax.nn.hard_sigmoid).name
        'lstm'
    """
    wanted = {"gate_fn": gate_fn, "activation_fn": activation_fn}
    wanted = {name: function for name, function in wanted.items() if function is not None}
    for name in wanted:
        if name not in inspect.signature(cell.rule).parameters:
            raise ValueError(f"{cell.name} has no {name}")
    vectors = tuple(name for name, _ in cell.vectors)
    zeros = () if use_bias else tuple(v for v in vectors if v == "b" or v[:2] in ("b_", "c_"))
    if not use_bias and not zeros:
        raise ValueError(f"{cell.name} has no bias")
    if not wanted and not zeros:
        return cell

    def changed(rule):
        known = inspect.signature(rule).parameters
        functions = tuple(sorted((k, f) for k, f in wanted.items() if k in known))
        return _Changed(rule, functions, zeros)

    return dataclasses.replace(
        cell,
        rule=changed(cell.rule),
        inner=None if cell.inner is None else changed(cell.inner),
        vectors=tuple(v for v in cell.vectors if v[0] not in zeros),
    )
