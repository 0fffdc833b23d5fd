"""Index lists for back ends that skip, made from logits. Pure, with static shapes.

Everything here works under `jit`, where the update mask of a learned switch is known only at run
time: lists have the length of the worst case, and a count says how many entries are used.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array


class ActiveSteps(NamedTuple):
    """The active steps, in order.

    Attributes:
        index: integers ``[T + 1]``: the first `count` are active steps, the others T.
        count: integer ``[]``.
    """

    index: Array
    count: Array


def open_mask(surrogate: Surrogate, logits: Array) -> Array:
    """True where the new state may differ from the old one; the shape of `logits`.

    A NaN logit counts as open, so that it shows in the result.
    """
    return surrogate.value(logits) != 0


def computed_mask(surrogate: Surrogate, logits: Array, learned: bool) -> Array:
    """True where the candidate is needed; the shape of `logits`.

    Args:
        surrogate: how logits open.
        logits: ``[T, H]`` or ``[T, B, H]``.
        learned: whether the logits need a gradient. If so, the candidate is needed wherever the
            surrogate's slope is not zero too: near the threshold for `triangular`, everywhere for
            the others.
    """
    mask = open_mask(surrogate, logits)
    return mask | (surrogate.slope(logits) != 0) if learned else mask


def active_mask(
    neurons: Array | None, step_mask: Array | None, resets: Array | None, steps: int
) -> Array:
    """True for steps at which something has to be done for some example; ``[T]``.

    Args:
        neurons: booleans ``[T, H]`` or ``[T, B, H]``, True if a neuron is computed; or None.
        step_mask: booleans ``[T, B]``, False if the state is held; or None.
        resets: booleans ``[T, B]`` or None. A reset changes the state even if no neuron opens.
        steps: T.
    """
    active = jnp.ones((steps,), bool)
    if neurons is not None and neurons.ndim == 2:
        active = neurons.any(-1)
    if neurons is not None and neurons.ndim == 3:
        rows = neurons.any(-1)
        active = (rows if step_mask is None else rows & step_mask).any(-1)
    elif step_mask is not None:
        active &= step_mask.any(-1)
    return active if resets is None else active | resets.any(-1)


def list_active(active: Array) -> ActiveSteps:
    """The positions of True in booleans ``[T]``."""
    size = active.shape[0]
    (index,) = jnp.nonzero(active, size=size, fill_value=size)
    index = jnp.concatenate([index, jnp.full((1,), size, index.dtype)]).astype(jnp.int32)
    return ActiveSteps(index, active.sum(dtype=jnp.int32))


def count_active(active: Array) -> Array:
    """The number of active steps up to and including each step; integers ``[T]``.

    So it is 1 + the position in :func:`list_active` of the last active step, 0 before the first.
    """
    return jnp.cumsum(active, dtype=jnp.int32)


def next_active(active: Array) -> Array:
    """The first active step at or after each step, T if there is none; integers ``[T + 1]``."""
    size = active.shape[0]
    steps = jnp.where(active, jnp.arange(size, dtype=jnp.int32), size)
    steps = jnp.concatenate([steps, jnp.full((1,), size, steps.dtype)])
    return jax.lax.cummin(steps, reverse=True)


class Portions(NamedTuple):
    """The computed neurons of every step in portions of equal width, in order of time.

    Attributes:
        step: integers ``[N]``, the step of each portion.
        part: integers ``[N]``, the number of the portion within its step.
        count: integer ``[]``, the number of portions; entries beyond it mean nothing.
        parts: integers ``[T]``, the number of portions of each step.
        rows: integers ``[T, P · width]``: the computed neurons of a step in order, then H.
    """

    step: Array
    part: Array
    count: Array
    parts: Array
    rows: Array


def list_portions(neurons: Array, active: Array, width: int) -> Portions:
    """Cuts the computed neurons of every step into portions.

    Args:
        neurons: booleans ``[T, H]``, True where a neuron is computed.
        active: booleans ``[T]``: an active step has at least one portion, the others have none.
        width: neurons of a portion, at least 1.
    """
    steps, features = neurons.shape
    most = -(-features // width)
    place = jnp.cumsum(neurons, axis=1, dtype=jnp.int32) - 1
    place = jnp.where(neurons, place, most * width)
    numbers = jnp.broadcast_to(jnp.arange(features, dtype=jnp.int32)[None], neurons.shape)
    rows = jnp.full((steps, most * width), features, jnp.int32)
    rows = rows.at[jnp.arange(steps)[:, None], place].set(numbers, mode="drop")
    counts = neurons.sum(-1, dtype=jnp.int32)
    parts = jnp.where(active, jnp.maximum(-(-counts // width), 1), 0)
    ends = jnp.cumsum(parts, dtype=jnp.int32)
    time = jnp.arange(steps, dtype=jnp.int32)
    step = jnp.repeat(time, parts, total_repeat_length=steps * most)
    part = jnp.arange(steps * most, dtype=jnp.int32) - (ends - parts)[step]
    return Portions(step, part, ends[-1], parts, rows)
