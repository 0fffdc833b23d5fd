"""From a table of logits to what back ends that skip need to know. Pure, and static in shape.

Everything here works under `jit`, where the table of a learned switch is known at run time only:
lists have the length of the worst case, and a count says how much of them is meant.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array


class ActiveSteps(NamedTuple):
    """Places at which something is to be done, in order.

    Attributes:
        index: integers ``[N + 1]``: the first `count` are the places, the others N.
        count: integer ``[]``, how many there are.
    """

    index: Array
    count: Array


def opened(gate: Surrogate, a: Array) -> Array:
    """Where the new state differs from the old one, booleans of the shape of `a`.

    A NaN logit counts as open: it has to be seen.
    """
    return gate.value(a) != 0


def needed(gate: Surrogate, a: Array, learned: bool) -> Array:
    """Where the candidate has to be known, booleans of the shape of `a`.

    Args:
        gate: how logits open.
        a: logits ``[T, H]`` or ``[T, B, H]``.
        learned: whether a gradient is owed to the logits. Then the candidate is needed wherever
            the surrogate's slope is not zero as well: for a window near the threshold, for the
            other surrogates everywhere.
    """
    wanted = opened(gate, a)
    return wanted | (gate.slope(a) != 0) if learned else wanted


def steps_with(wanted: Array | None, keep: Array | None, resets: Array | None, steps: int) -> Array:
    """Steps at which there is anything to do for anyone, booleans ``[T]``.

    Args:
        wanted: booleans ``[T, H]`` or ``[T, B, H]``; None for everywhere.
        keep: booleans ``[T, B]``, false where the state is held; or None.
        resets: booleans ``[T, B]``, true where the state starts anew; or None. A reset changes
            the state whether or not a neuron opens.
        steps: T.
    """
    busy = jnp.ones((steps,), bool)
    if wanted is not None and wanted.ndim == 2:
        busy = wanted.any(-1)
    if wanted is not None and wanted.ndim == 3:
        rows = wanted.any(-1)
        busy = (rows if keep is None else rows & keep).any(-1)
    elif keep is not None:
        busy &= keep.any(-1)
    return busy if resets is None else busy | resets.any(-1)


def listed(wanted: Array) -> ActiveSteps:
    """The true places of booleans ``[N]``."""
    size = wanted.shape[0]
    (index,) = jnp.nonzero(wanted, size=size, fill_value=size)
    index = jnp.concatenate([index, jnp.full((1,), size, index.dtype)]).astype(jnp.int32)
    return ActiveSteps(index, wanted.sum(dtype=jnp.int32))


def latest(wanted: Array) -> Array:
    """How many true places there are up to and with each, integers ``[N]``.

    0 before the first; so it is 1 + the place in :func:`listed` of the last one.
    """
    return jnp.cumsum(wanted, dtype=jnp.int32)


def following(wanted: Array) -> Array:
    """The first true place at or after each, integers ``[N + 1]``; N if there is none."""
    size = wanted.shape[0]
    places = jnp.where(wanted, jnp.arange(size, dtype=jnp.int32), size)
    places = jnp.concatenate([places, jnp.full((1,), size, places.dtype)])
    return jax.lax.cummin(places, reverse=True)


class Chunks(NamedTuple):
    """The wanted neurons of every step, dealt out in portions of equal width, in order of time.

    Attributes:
        step: integers ``[N]``, the step of each portion.
        part: integers ``[N]``, which portion of its step it is.
        count: integer ``[]``, how many portions there are; beyond it entries mean nothing.
        parts: integers ``[T]``, how many portions a step has.
        rows: integers ``[T, P · width]``: the wanted neurons of a step in order, then H.
    """

    step: Array
    part: Array
    count: Array
    parts: Array
    rows: Array


def chunks(wanted: Array, busy: Array, width: int) -> Chunks:
    """Deals out the wanted neurons.

    Args:
        wanted: booleans ``[T, H]``.
        busy: booleans ``[T]``; steps that are not have no portion, those that are at least one.
        width: neurons of a portion, at least 1.
    """
    steps, features = wanted.shape
    most = -(-features // width)
    place = jnp.cumsum(wanted, axis=1, dtype=jnp.int32) - 1
    place = jnp.where(wanted, place, most * width)
    neurons = jnp.broadcast_to(jnp.arange(features, dtype=jnp.int32)[None], wanted.shape)
    rows = jnp.full((steps, most * width), features, jnp.int32)
    rows = rows.at[jnp.arange(steps)[:, None], place].set(neurons, mode="drop")
    counts = wanted.sum(-1, dtype=jnp.int32)
    parts = jnp.where(busy, jnp.maximum(-(-counts // width), 1), 0)
    ends = jnp.cumsum(parts, dtype=jnp.int32)
    time = jnp.arange(steps, dtype=jnp.int32)
    step = jnp.repeat(time, parts, total_repeat_length=steps * most)
    part = jnp.arange(steps * most, dtype=jnp.int32) - (ends - parts)[step]
    return Chunks(step, part, ends[-1], parts, rows)
