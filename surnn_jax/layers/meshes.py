"""Sharded batches on a mesh with Explicit axes, where sharding is part of the type of an array.

Most operations of a layer work there as they are. These helpers are for the others: a carry of
zeros, which says nothing of devices, and gathers, slices and loops along the batch, whose results'
sharding JAX does not work out.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from surnn_jax.scan import sharding
from surnn_jax.typing import Array

_Function = TypeVar("_Function", bound=Callable[..., Any])


def rows_like(x: Array, tree: Any) -> Any:
    """A tree of arrays ``[B, …]``, sharded along the batch as `x` is."""
    mesh = sharding.explicit_mesh(x)
    if mesh is None:
        return tree
    place = jax.NamedSharding(mesh, jax.P(_rows(x)))
    return jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, place), tree)


def by_rows(function: _Function) -> _Function:
    """A function whose results begin with the batch axis of its first argument, or are numbers.

    On a mesh with Explicit axes it computes on Auto ones. It must not read variables of a module.
    """

    @functools.wraps(function)
    def wrapped(x: Array, *args: Any) -> Any:
        mesh = sharding.explicit_mesh(x, args)
        if mesh is None:
            return function(x, *args)
        rows = _rows(x)

        def specs(found: Any) -> Any:
            return jax.tree.map(lambda leaf: jax.P(rows) if leaf.ndim else jax.P(), found)

        return sharding.with_auto_axes(mesh, function, (x, *args), specs)

    return wrapped


def row_by_row(function: Callable[..., Array], x: Array, *whole: Array) -> Array:
    """``function(x, *whole)`` of ``[B, …]`` to the like, each device with rows of its own.

    For what XLA would gather a sharded batch, inside `jax.set_mesh` with an axis `data`.
    """
    mesh, rows = jax.sharding.get_abstract_mesh(), jax.P(sharding.DATA)
    cut = sharding.shards(x.shape[0]) > 1
    if not cut or (mesh.explicit_axes and _rows(x) != sharding.DATA):
        return function(x, *whole)
    specs = (rows, *(jax.P() for _ in whole))
    return jax.shard_map(function, in_specs=specs, out_specs=rows)(x, *whole)


def _rows(x: Array) -> Any:
    """The mesh axes over which the first axis of `x` is sharded, or None."""
    return (*jax.typeof(x).sharding.spec, None)[0]
