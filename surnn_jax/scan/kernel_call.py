"""A call of a compiled kernel as an operation of its own.

So a program with one can be exported: where that program runs the kernel may be missing, so there
what stands in for it is written into it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir


def operation(name: str, kernel: Callable, instead: Callable, types: Callable) -> Primitive:
    """The operation of a kernel; `vmap` runs one example after another.

    Args:
        name: as it stands in printed programs.
        kernel: ``(*arrays, **options) -> arrays``, which calls it.
        instead: the same, computed by JAX alone.
        types: the same, from types of arrays to those of the results.
    """
    made = Primitive(name)
    made.multiple_results = True

    def lower(context, *leaves, **options):
        exported = context.module_context.lowering_parameters.for_export
        call = instead if exported else kernel
        return mlir.lower_fun(call, multiple_results=True)(context, *leaves, **options)

    @functools.cache
    def compiled(options: tuple) -> Callable:
        return jax.jit(functools.partial(kernel, **dict(options)))

    made.def_impl(lambda *leaves, **options: compiled(tuple(options.items()))(*leaves))
    made.def_abstract_eval(types)
    mlir.register_lowering(made, lower)
    batching.primitive_batchers[made] = functools.partial(_one_by_one, made)
    return made


def _one_by_one(made: Primitive, leaves: Any, axes: Any, **options: Any) -> tuple[list, list]:
    mapped = [i for i, axis in enumerate(axes) if axis is not None]

    def one(some):
        given = list(leaves)
        for i, leaf in zip(mapped, some, strict=True):
            given[i] = leaf
        return made.bind(*given, **options)

    outputs = jax.lax.map(one, [jnp.moveaxis(leaves[i], axes[i], 0) for i in mapped])
    return outputs, [0] * len(outputs)
