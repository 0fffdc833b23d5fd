"""What the switch of a unit reads and says in a run: logits, update mask, rate, balance."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.scan import sequence
from surnn_jax.scan.sequence import Sequences
from surnn_jax.scan.unit import Unit, previous_inputs
from surnn_jax.switches import SwitchInputs, for_neurons, running_averages
from surnn_jax.typing import Array, Carry, Params


def memory(unit: Unit, sequences: Sequences, first: Array | None, position: Array) -> Array | None:
    """What the switch keeps of the inputs after every step, ``[T, B, …]``; None for nothing.

    Args:
        unit: its switch.
        sequences: the batch.
        first: as `carry.previous`.
        position: integers ``[T]`` or ``[T, B]``, the clock.
    """
    if unit.switch is None or not unit.switch.uses_previous_input:
        return None
    return running_averages(unit.switch.averages, sequences.x, first, position)


def switch_inputs(
    unit: Unit,
    sequences: Sequences,
    memory: Array | None,
    first: Array | None,
    position: Array,
    key: Array | None,
    features: int,
) -> SwitchInputs | None:
    """What the switch reads; None without one.

    Args:
        unit: its switch.
        sequences: the batch.
        memory: from :func:`memory`.
        first: ``[B, …]``, the same before the first step.
        position: integers ``[T]`` or ``[T, B]``, the clock.
        key: for a random switch.
        features: H.
    """
    switch = unit.switch
    if switch is None:
        return None
    previous = None
    if memory is not None:
        previous = previous_inputs(memory, first)
        if sequences.resets is not None:
            previous = jnp.where(sequences.resets[..., None], 0, previous)
    key = key if switch.random else None
    return SwitchInputs(sequences.x, previous, position, sequences.step_mask, key, features)


def logits(unit: Unit, params: Params, seen: SwitchInputs | None) -> Array | None:
    """The switch's logits ``[T, H]`` or ``[T, B, H]``; None without a switch."""
    switch = unit.switch
    if switch is None:
        return None
    # Compiled once, also outside `jit`: a rhythm's exact phase takes a hundred operations.
    table = _table if is_hashable(switch) else _table.__wrapped__
    found = table(switch, seen.features, params.get("switch", {}), seen._replace(features=None))
    return jax.lax.stop_gradient(found) if switch.frozen else found


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _table(switch: Any, features: int, params: Params, seen: SwitchInputs) -> Array:
    return for_neurons(switch.logits(params, seen._replace(features=features)), features)


def is_hashable(switch: Any) -> bool:
    """Whether a switch, or a unit, can be a static argument of a compiled function."""
    try:
        hash(switch)
    except TypeError:
        return False
    return True


def rate_and_mask(
    unit: Unit, sequences: Sequences, logits: Array | None, carries: Carry
) -> tuple[Array, Array | None]:
    """The update rate, and the update mask in the order in which the steps are run."""
    if unit.switch is not None:
        opened = unit.switch.gate.openness(logits)
        rate = sequence.mean_open(opened, sequences.step_mask)
        return rate, jax.lax.stop_gradient(opened)
    if "open" in carries._fields:
        return sequence.mean_open(carries.open, sequences.step_mask), None
    return jnp.ones((), carries.h.dtype), None


def mask_in_order(update_mask: Array | None, sequences: Sequences) -> Array | None:
    """The update mask of a reversed run in the order of its inputs."""
    if update_mask is None:
        return None
    order = sequences.order
    if update_mask.ndim == 2 and order.ndim == 2:
        steps, features = update_mask.shape
        update_mask = jnp.broadcast_to(update_mask[:, None], (steps, order.shape[1], features))
    return sequence.permute(update_mask, order)


def balance(
    unit: Unit,
    params: Params,
    sequences: Sequences,
    seen: SwitchInputs | None,
    update_mask: Array | None,
) -> Array:
    """The term that corrects the switch's thresholds, see `ScanOutput.balance`."""
    switch = unit.switch
    if switch is None or switch.balance == "none" or switch.frozen:
        return jnp.zeros((), sequences.x.dtype)
    share = sequence.open_shares(update_mask, sequences.step_mask)
    share = share.reshape(switch.groups or seen.features, -1).mean(-1)
    term = switch.balance_term(params["switch"], seen, share)
    if sequences.step_mask is None:
        return term
    # A batch without a valid step says nothing.
    return jnp.where(sequences.step_mask.any(), term, 0)
