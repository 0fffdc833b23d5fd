"""Very long sequences: scans in chunks, and the backward pass runs each chunk once more."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.scan.spec import ScanInputs, ScanSpec
from surnn_jax.typing import Array, Carry

Scan = Callable[[ScanSpec, ScanInputs], Carry]


def chunked(scan: Scan, steps: int) -> Scan:
    """A scan that stores one carry a chunk for its backward pass instead of one a step.

    The gradient runs each chunk forward again from the carry before it. This pays if the carries
    ``[T, B, H]`` do not fit into memory, and only if the caller does not keep all outputs either:
    for a loss of the last state, or of each output in turn.

    Args:
        scan: that of a back end.
        steps: of a chunk, at least 1; about √T needs the least memory.
    """

    def run(spec: ScanSpec, inputs: ScanInputs) -> Carry:
        length = inputs.x.shape[0]
        if length <= steps:
            return scan(spec, inputs)
        chunks = math.ceil(length / steps)
        padding = chunks * steps - length
        x, logits, step_mask, resets = inputs.per_step
        if padding and step_mask is None:
            step_mask = jnp.ones(x.shape[:2], bool)

        def cut(leaf: Array) -> Array:
            wide = jnp.pad(leaf, [(0, padding), *[(0, 0)] * (leaf.ndim - 1)])
            return wide.reshape(chunks, steps, *leaf.shape[1:])

        @jax.checkpoint
        def chunk(params, reset_carry, carry, now):
            x, logits, step_mask, resets = now
            carries = scan(
                spec, ScanInputs(params, x, logits, carry, reset_carry, step_mask, resets)
            )
            return jax.tree.map(lambda leaf: leaf[-1], carries), carries

        def step(carry, now):
            return chunk(inputs.params, inputs.reset_carry, carry, now)

        pieces: Any = jax.tree.map(cut, (x, logits, step_mask, resets))
        carries = jax.lax.scan(step, inputs.initial_carry, pieces)[1]
        return jax.tree.map(
            lambda leaf: leaf.reshape(chunks * steps, *leaf.shape[2:])[:length], carries
        )

    return run
