"""Functions of single vectors, applied to a long batch of them piece by piece on a CPU.

This is for layers that the compiled kernel does not compute (:mod:`.fused`).

XLA computes a feed-forward layer operation by operation, each over the whole batch, and keeps every
intermediate array for the gradient. These arrays do not fit into a cache, and memory takes most of
the time. In pieces they do, and the backward pass computes them anew.
"""

import math
from collections.abc import Callable

import jax
from jax import lax
from jax.export import is_symbolic_dim

from surnn_jax.scan import compiled, sharding
from surnn_jax.typing import Array, Params

ROWS = 4096
"""The most vectors of a piece. A training step of two blocks of 64 (32,768 vectors, two idle cores,
without the kernel of :mod:`.fused`) takes 445 ms as a whole (GRU; 368 with a rhythm of 10 %), in
pieces of 256 vectors 373 (289), of 2,048 291 (209), of 4,096 291 (201), of 8,192 276 (192). XLA
gives a small product to one core."""

_LEAST = 4096  # vectors below which there is nothing to gain


def pays(x: Array) -> bool:
    """Whether :func:`by_pieces` cuts ``x [..., M]``: on a CPU, if it is long and not sharded."""
    return is_long(x) and _pieces(math.prod(x.shape[:-1])) > 0


def is_long(x: Array) -> bool:
    """Whether ``x [..., M]`` has many vectors, on a CPU and not sharded as far as is known."""
    sizes = x.shape[:-1]
    return not any(map(is_symbolic_dim, sizes)) and math.prod(sizes) >= _LEAST and _alone(x)


def by_pieces(function: Callable[[Params, Array], Array], params: Params, x: Array) -> Array:
    """``function(params, x)``, the same numbers to rounding, with derivatives of every order.

    Args:
        function: treats all vectors of x alike: ``[..., M]`` to ``[..., N]``.
        params: its parameters.
        x: ``[..., M]``.
    """
    *shape, width = x.shape
    if not pays(x):
        return function(params, x)
    body = jax.checkpoint(function, prevent_cse=False)

    def piece(none, x):
        return none, body(params, x)

    _, found = lax.scan(piece, None, x.reshape(_pieces(math.prod(shape)), -1, width))
    return found.reshape(*shape, found.shape[-1])


def _pieces(vectors: int) -> int:
    """Into how many equal pieces that many vectors are cut; 0 for none."""
    sizes = (size for size in range(ROWS, ROWS // 4, -1) if vectors % size == 0)
    return vectors // next(sizes, vectors + 1)


def _alone(x: Array) -> bool:
    """Whether x is on a CPU, as far as is known in one part."""
    on_mesh = not jax.sharding.get_abstract_mesh().empty or sharding.explicit_mesh(x) is not None
    return compiled.platform() == "cpu" and not on_mesh
