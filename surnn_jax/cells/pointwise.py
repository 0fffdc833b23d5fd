"""What a cell's rule is, read off its operations: pointwise, linear in the state.

A pointwise rule reads neuron i only for neuron i of its result.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

# Not square, so that a transposed array cannot pass for one of the full shape.
_SHAPE = (2, 3)

_ELEMENTWISE = frozenset((
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2",
    "atanh", "cbrt", "ceil", "clamp", "copy", "copy_p", "cos", "cosh",
    "convert_element_type", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2",
    "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log",
    "log1p", "logistic", "lt", "max", "min", "mix_states", "mul", "mul_add", "ne", "neg",
    "nextafter", "not", "one_minus_square", "or", "pow", "real", "reduce_precision", "rem", "round",
    "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub",
    "tan", "tanh", "xor",
))  # fmt: skip

_CALLS = frozenset((
    "checkpoint", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call",
    "custom_vjp_call_jaxpr", "jit", "pjit", "remat", "remat2",
))  # fmt: skip


_LINEAR = frozenset((
    "add", "add_any", "broadcast_in_dim", "convert_element_type", "copy", "copy_p", "neg", "sub",
))  # fmt: skip
_PLAIN_CALLS = frozenset(("jit", "pjit"))


@functools.lru_cache(maxsize=256)
def rule_is_pointwise(
    rule: Callable,
    carry: type,
    inputs: tuple[str, ...],
    products: tuple[str, ...],
    vectors: tuple[str, ...],
) -> bool:
    """Whether a rule, and its derivative, consist of elementwise operations on whole arrays.

    It traces the rule once and reads the operations; nothing is compiled. The answer is safe: a
    rule that mixes neurons is never called pointwise, but one that does not mix them may be called
    not pointwise, if it reshapes, stacks or reduces.

    Args:
        rule: of a cell, as are the others.
        carry: the class of its carry.
        inputs: the gates with an input product.
        products: the gates with a product with the state, inner ones included.
        vectors: the names of per-neuron parameters.
    """
    arguments = _arguments(carry, inputs, products, vectors)

    def both(arguments, cotangent):
        candidate, transpose = jax.vjp(rule, *arguments)
        return candidate, transpose(cotangent)

    jaxpr = _traced(both, arguments, arguments[1])
    return jaxpr is not None and _walk(jaxpr, [True] * len(jaxpr.invars)) is not None


@functools.lru_cache(maxsize=256)
def rule_is_linear(
    rule: Callable, carry: type, inputs: tuple[str, ...], vectors: tuple[str, ...]
) -> bool:
    """Whether a rule without products with the state is ``p ∘ h + q``, p and q without h.

    Arguments and safety as :func:`rule_is_pointwise`. The carry has the field ``h`` alone.
    """
    if carry._fields != ("h",):
        return False
    vectors, state, z, u = _arguments(carry, inputs, (), vectors)
    jaxpr = _traced(lambda h, vectors, z: rule(vectors, carry(h), z, u).h, state.h, vectors, z)
    if jaxpr is None:
        return False
    return _linear(jaxpr, [True] + [False] * (len(jaxpr.invars) - 1)) is not None


def _arguments(
    carry: type, inputs: tuple[str, ...], products: tuple[str, ...], vectors: tuple[str, ...]
) -> tuple:
    """The arguments of a rule, as shapes."""
    array = jax.ShapeDtypeStruct(_SHAPE, jnp.float32)
    return (
        dict.fromkeys(vectors, array),
        carry(*(array for _ in carry._fields)),
        dict.fromkeys(inputs, array),
        dict.fromkeys(products, array),
    )


def _traced(function: Callable, *arguments: Any) -> Any:
    """The operations of a function; None if it cannot be traced."""
    try:
        # In a thread of its own: a mesh or a trace around this call would add operations, and the
        # answer is kept for all later calls.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(jax.make_jaxpr(function), *arguments).result().jaxpr
    except Exception:
        # It needs another number of neurons, for example; a true error is raised when it runs.
        return None


def _walk(jaxpr: Any, inputs: list[bool]) -> list[bool] | None:
    """Follows which values depend on the inputs, all of which are whole arrays.

    Args:
        jaxpr: the operations.
        inputs: whether each of its inputs is such a value, or a constant.

    Returns:
        The same for its outputs; None if some operation on a value is not elementwise.
    """
    depends = dict(zip(jaxpr.invars, inputs, strict=True))

    def is_value(atom):
        return not isinstance(atom, core.Literal) and depends.get(atom, False)

    for equation in jaxpr.eqns:
        operands = [is_value(atom) for atom in equation.invars]
        results = [False] * len(equation.outvars)
        if any(operands):
            results = _results(equation, operands)
            if results is None:
                return None
        depends |= dict(zip(equation.outvars, results, strict=True))
    return [is_value(atom) for atom in jaxpr.outvars]


def _results(equation: Any, operands: list[bool]) -> list[bool] | None:
    """:func:`_walk` for one operation on values."""
    name, parameters = equation.primitive.name, equation.params
    if name in _CALLS:
        inner = parameters.get("jaxpr") or parameters.get("call_jaxpr")
        inner = getattr(inner, "jaxpr", inner)
        if inner is None or len(inner.invars) != len(operands):
            return None
        return _walk(inner, operands)
    same = all(
        atom.aval.shape == _SHAPE
        for atom, value in zip(equation.invars, operands, strict=True)
        if value
    )
    same = same and all(atom.aval.shape == _SHAPE for atom in equation.outvars)
    kept = name == "broadcast_in_dim" and parameters["broadcast_dimensions"] == (0, 1)
    return [True] * len(equation.outvars) if same and (name in _ELEMENTWISE or kept) else None


def _linear(jaxpr: Any, inputs: list[bool]) -> list[bool] | None:
    """Follows which values depend on the state, and that they do so linearly.

    Args:
        jaxpr: the operations.
        inputs: whether each of its inputs depends on the state.

    Returns:
        The same for its outputs; None if some operation may not be linear in the state.
    """
    depends = dict(zip(jaxpr.invars, inputs, strict=True))
    for equation in jaxpr.eqns:
        operands = [
            not isinstance(atom, core.Literal) and depends.get(atom, False)
            for atom in equation.invars
        ]
        results = [any(operands)] * len(equation.outvars)
        name = equation.primitive.name
        if name in _PLAIN_CALLS and any(operands):
            results = _linear(equation.params["jaxpr"].jaxpr, operands)
            if results is None:
                return None
        elif any(operands) and name not in _LINEAR:
            # A product or quotient of a value with what does not depend on the state is linear.
            product = name == "mul" and sum(operands) == 1
            chosen = name in ("div", "select_n") and not operands[name == "div"]
            if not (product or chosen):
                return None
        depends |= dict(zip(equation.outvars, results, strict=True))
    return [
        not isinstance(atom, core.Literal) and depends.get(atom, False) for atom in jaxpr.outvars
    ]
