"""Very long sequences: the scan is cut into chunks, and the backward pass runs each once more."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.typing import Array, Carry


def chunked(scan: Callable[..., Carry], steps: int) -> Callable[..., Carry]:
    """A back end that keeps one carry a chunk for its backward pass instead of one a step.

    For the gradient every chunk is run forward again from the carry before it. It pays where the
    carries ``[T, B, H]`` do not fit, and only if the caller does not keep all outputs either: for
    a loss of the last state, or of each output in turn.

    Args:
        scan: a back end, see :func:`.reference.scan`.
        steps: of a chunk, at least 1; about √T needs the least memory.
    """

    def run(cell, gate, dtype, params, x, a, start, fresh, keep, resets):
        length = x.shape[0]
        if length <= steps:
            return scan(cell, gate, dtype, params, x, a, start, fresh, keep, resets)
        chunks = math.ceil(length / steps)
        padding = chunks * steps - length
        if padding and keep is None:
            keep = jnp.ones(x.shape[:2], bool)

        def cut(leaf: Array) -> Array:
            wide = jnp.pad(leaf, [(0, padding), *[(0, 0)] * (leaf.ndim - 1)])
            return wide.reshape(chunks, steps, *leaf.shape[1:])

        @jax.checkpoint
        def one(params, fresh, carry, now):
            x, a, keep, resets = now
            carries = scan(cell, gate, dtype, params, x, a, carry, fresh, keep, resets)
            return jax.tree.map(lambda leaf: leaf[-1], carries), carries

        def step(carry, now):
            return one(params, fresh, carry, now)

        pieces: Any = jax.tree.map(cut, (x, a, keep, resets))
        carries = jax.lax.scan(step, start, pieces)[1]
        return jax.tree.map(
            lambda leaf: leaf.reshape(chunks * steps, *leaf.shape[2:])[:length], carries
        )

    return run
