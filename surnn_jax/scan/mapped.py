"""The `vmap` around an operation, which keeps account of them itself: their axes and shapes."""

from typing import Any, NamedTuple

import jax


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
