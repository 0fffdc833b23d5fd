"""Causal averages of the input, against which an event switch reads a change."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from surnn_jax.switches.phase import unsigned
from surnn_jax.typing import Array


def running_averages(
    time_constants: Sequence[float], x: Array, first: Array, position: Array
) -> Array:
    """Averages of the inputs up to each step, as a switch that reads ``"trace"`` keeps them.

        m[t] = m[t-1] + (x[t] - m[t-1]) / min(n + 1, τ)

    for each time constant τ, n steps after the start of the sequence. So m is the mean of all
    inputs until there are τ of them; from then on an input's weight falls by 1 - 1/τ a step. What
    came before the start has no weight: a reset, at which n is 0, begins anew. τ = 1 is the last
    input.

    `step`, chunks and the whole sequence give the same bits: steps are taken one after the other on
    every platform, and no product is rounded together with a sum.

    Args:
        time_constants: K steps, each at least 1. If there are none, the input itself is kept.
        x: ``[T, B, D]``, zeros where it must not be read.
        first: ``[B, K D]``, the averages before the first step; its dtype is that of the result.
        position: integers ``[T]`` or ``[T, B]``: n.

    Returns:
        ``[T, B, K D]``, averages of one time constant side by side; or `x`.

    Examples:
        >>> from surnn_jax.switches import running_averages
        >>> x = jnp.array([4.0, 0.0, 0.0, 0.0])[:, None, None]
        >>> running_averages((1, 2), x, jnp.zeros((1, 2)), jnp.arange(4))[:, 0].tolist()
        [[4.0, 4.0], [0.0, 2.0], [0.0, 1.0], [0.0, 0.5]]
    """
    return _averages(tuple(time_constants), x, first, position) if time_constants else x


# Outside `jit` the closure of the loop would be compiled anew at every call.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _averages(time_constants, x, first, position):
    dtype = first.dtype
    steps, batch, width = x.shape
    longest = jnp.asarray(time_constants, dtype).reshape(1, 1, -1, 1)
    count = unsigned(position).astype(dtype) + 1
    count = count.reshape(*count.shape, *(1,) * (4 - count.ndim))
    inputs = jnp.minimum(count, longest)  # [T, 1 or B, K, 1], so many are averaged

    def step(average, now):
        x, inputs = now
        x = x[:, None].astype(dtype)
        # Where it is 1 the old average, NaN or not, is not read.
        average = jnp.where(inputs == 1, x, average + (x - average) / inputs)
        return average, average

    # Inside `jax.shard_map` a carry must vary over the mesh axes over which its successors do.
    never = jnp.zeros_like(x, bool, shape=()) | jnp.zeros_like(position, bool, shape=())
    first = jnp.where(never, first, first).reshape(batch, len(time_constants), width)
    averages = jax.lax.scan(step, first, (x, inputs))[1]
    return averages.reshape(steps, batch, len(time_constants) * width)
