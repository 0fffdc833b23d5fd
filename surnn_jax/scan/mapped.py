"""The `vmap` around an operation, which keeps account of them itself: their axes and shapes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.scan.spec import ScanInputs


class Mapped(NamedTuple):
    """One `vmap`: its size, and the mapped axis (or None) of each array that is given.

    Tangents, and what comes out, have it in front.
    """

    size: int
    axes: tuple[int | None, ...]


def without_axes(maps: tuple[Mapped, ...], kind: Any, i: int) -> list[int]:
    """The shape of array i without the axes of every `vmap`."""
    shape = list(kind.shape)
    for mapped in reversed(maps):
        if mapped.axes[i] is not None:
            del shape[mapped.axes[i]]
    return shape


def with_shape(kind: Any, shape: tuple[int, ...]) -> Any:
    """The type of an array that has another shape, and varies over the same manual axes."""
    mesh = kind.sharding.mesh
    place = None if mesh.empty else jax.NamedSharding(mesh, jax.P(*(None,) * len(shape)))
    return kind.update(shape=shape, sharding=place)


def over_schedules(form: Any, maps: tuple[Mapped, ...]) -> tuple[bool, ...]:
    """Of each `vmap`, whether it goes over the logits, the step mask or the resets.

    Args:
        form: the tree of the inputs, alone or first of several.
        maps: the `vmap`.
    """
    tree = jax.tree.unflatten(form, range(form.num_leaves))
    inputs = tree if isinstance(tree, ScanInputs) else tree[0]
    places = [i for i in (inputs.logits, inputs.step_mask, inputs.resets) if i is not None]
    return tuple(any(mapped.axes[i] is not None for i in places) for mapped in maps)


def apply_maps(
    function: Callable[..., Any],
    maps: tuple[Mapped, ...],
    one_by_one: tuple[bool, ...],
    rest: int = 0,
) -> Callable[..., Any]:
    """A function of a list of arrays, and of `rest` trees, under every `vmap` from the inside out.

    Args:
        function: the function.
        maps: the `vmap`, whose axes are those of the list.
        one_by_one: of each, whether to call the function for one entry after another instead.
        rest: number of trees, mapped over their first axis.
    """
    for mapped, single in zip(maps, one_by_one, strict=True):
        if single:
            function = _one_by_one(function, mapped.axes)
        else:
            axes = (list(mapped.axes), *(0,) * rest)
            function = jax.vmap(function, axes, axis_size=mapped.size)
    return function


def _one_by_one(function, axes):
    places = [i for i, axis in enumerate(axes) if axis is not None]

    def run(arrays, *rest):
        def one(given):
            some, rest = given
            filled = list(arrays)
            for i, array in zip(places, some, strict=True):
                filled[i] = array
            return function(filled, *rest)

        return jax.lax.map(one, ([jnp.moveaxis(arrays[i], axes[i], 0) for i in places], rest))

    return run
