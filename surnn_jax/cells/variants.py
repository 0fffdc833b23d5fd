"""Cells with other functions in their equations, other initial values, or without biases."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from surnn_jax.cells.cell import Cell, Initializer


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


def _taken(rule: Callable) -> dict[str, Callable]:
    """The functions that a rule takes, by name, as they are now."""
    if isinstance(rule, _Changed):
        return {**_taken(rule.rule), **dict(rule.functions)}
    known = inspect.signature(rule).parameters.values()
    return {p.name: p.default for p in known if p.name in ("gate_fn", "activation_fn")}


def variant(
    cell: Cell,
    *,
    gate_fn: Callable | None = None,
    activation_fn: Callable | None = None,
    kernel_init: Initializer | None = None,
    recurrent_kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    use_bias: bool = True,
) -> Cell:
    """A cell with other functions or initial values, as the arguments of Flax's cells have it.

    ``Recurrent(cells.variant(cells.LSTM, gate_fn=jax.nn.hard_sigmoid), 64)``; the layers take these
    options themselves, too, all but `use_bias`. Make functions once: a lambda or an initializer
    written anew at every call is compiled anew. The compiled kernel knows the usual functions only,
    so `masked`, `compact` or `rows` runs a cell with others; initial values change nothing in that.

    Args:
        cell: any for the initial values; tanh, or a GRU, LSTM or MGU for the functions.
        gate_fn: in place of the logistic function; pointwise.
        activation_fn: in place of tanh; pointwise.
        kernel_init: draws the input kernels ``[D, H]``, by ``(key, shape, dtype)``.
        recurrent_kernel_init: draws the recurrent kernels ``[H, H]``.
        bias_init: draws all biases ``[H]``, also the one of a forget gate that begins at 1.
        use_bias: False takes all biases to be 0 (peepholes stay).

    Raises:
        ValueError: the cell has no such function in its equations, no recurrent kernel, or no bias.

    Examples:
        >>> from surnn_jax import cells
        >>> identity = cells.variant(
        ...     cells.TANH,
        ...     activation_fn=jax.nn.relu,
        ...     recurrent_kernel_init=lambda key, shape, dtype: jnp.eye(*shape, dtype=dtype),
        ... )
        >>> identity.init(jax.random.key(0), inputs=3, features=2)["recurrent"]["h"].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    wanted = {"gate_fn": gate_fn, "activation_fn": activation_fn}
    wanted = {name: function for name, function in wanted.items() if function is not None}
    present = _taken(cell.rule)
    for name in wanted.keys() - present.keys():
        raise ValueError(f"{cell.name} has no {name}")
    wanted = {name: function for name, function in wanted.items() if function != present[name]}
    drawn = {"kernel_init": kernel_init, "recurrent_kernel_init": recurrent_kernel_init}
    drawn = {name: draw for name, draw in drawn.items() if draw is not None}
    if "recurrent_kernel_init" in drawn and not cell.recurrent + cell.inner_recurrent:
        raise ValueError(f"{cell.name} has no recurrent kernel")
    biases = tuple(v for v, _ in cell.vectors if v == "b" or v[:2] in ("b_", "c_"))
    if (not use_bias or bias_init is not None) and not biases:
        raise ValueError(f"{cell.name} has no bias")
    if bias_init is not None:
        drawn["vectors"] = tuple((v, bias_init if v in biases else x) for v, x in cell.vectors)
    zeros = () if use_bias else biases
    if wanted or zeros:
        drawn["rule"] = _changed(cell.rule, wanted, zeros)
        drawn["inner"] = None if cell.inner is None else _changed(cell.inner, wanted, zeros)
        kept = drawn.get("vectors", cell.vectors)
        drawn["vectors"] = tuple((v, x) for v, x in kept if v not in zeros)
    return dataclasses.replace(cell, **drawn) if drawn else cell


def is_variant(cell: Cell) -> bool:
    """Whether a cell has other functions, or no biases."""
    return isinstance(cell.rule, _Changed)


def _changed(rule: Callable, wanted: dict[str, Callable], zeros: tuple[str, ...]) -> _Changed:
    known = _taken(rule)
    functions = {name: function for name, function in wanted.items() if name in known}
    if isinstance(rule, _Changed):
        rule, functions, zeros = rule.rule, dict(rule.functions) | functions, rule.zeros + zeros
    return _Changed(rule, tuple(sorted(functions.items())), zeros)
