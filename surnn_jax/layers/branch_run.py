"""Runs a block that rests as a whole: what its switch says, then :func:`.skip` or :func:`.twin`."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from surnn_jax.layers.branch import Branch, BranchInputs, twin
from surnn_jax.layers.branch_skip import skip
from surnn_jax.scan import api, sequence, sharding, switching
from surnn_jax.scan.sequence import BatchAxes
from surnn_jax.scan.start import start_of
from surnn_jax.scan.unit import SelectiveCarry, Unit
from surnn_jax.switches import Switch
from surnn_jax.typing import Array, Params

MASKED = ("masked", "reference")
"""Back ends with which every step is computed: :func:`.twin`, derivatives of any mode and order."""


class BlockCarry(NamedTuple):
    """What a block that rests carries from step to step.

    Attributes:
        mixer: of its recurrent unit.
        held: what the branch added when it was last open, ``[*batch, M]``.
    """

    mixer: SelectiveCarry
    held: Array


class BlockOutput(NamedTuple):
    """What :func:`run` returns.

    Attributes:
        carry: for the next call.
        outputs: ``[B, T, M]``.
        rate: see :class:`surnn_jax.ScanOutput`.
        update_mask: ``[T, 1]`` or ``[B, T, 1]``.
        balance: see :class:`surnn_jax.ScanOutput`.
    """

    carry: BlockCarry
    outputs: Array
    rate: Array
    update_mask: Array
    balance: Array


def one_schedule(switch: Switch) -> Switch:
    """The switch with a single schedule.

    Raises:
        ValueError: if it has several.
    """
    if switch.groups is None and any(f.name == "groups" for f in dataclasses.fields(switch)):
        switch = dataclasses.replace(switch, groups=1)
    if switch.groups != 1:
        name = type(switch).__name__.lower()
        raise ValueError(
            f"skip='block' wants a switch with one schedule: fourier, event or threshold with "
            f"groups=1, or every; got {name}"
        )
    return switch


def run(
    branch: Branch,
    unit: Unit,
    backend: str,
    params: Params,
    x: Array,
    carry: BlockCarry | None,
    lengths: Array | None,
    resets: Array | None,
    key: Array | None,
) -> BlockOutput:
    """Runs the block on ``[B, T, M]``; arguments as :meth:`.Block.__call__`.

    Args:
        branch: its formulas.
        unit: its mixer.
        backend: one of :data:`MASKED`, or another name: skip.
        params: ``norm``, ``mixer``, and so on, as the modules name them.
        x: the input.
        carry: from an earlier call; None to begin.
        lengths: integers ``[B]`` or None.
        resets: booleans ``[B, T]`` or None.
        key: of the dropout; None for none.

    Raises:
        ValueError: for a carry of another form or shape.
    """
    _check_carry(branch, x, carry)
    arrays = (params, x, carry, lengths, resets, key)
    run_here = functools.partial(_run, branch, unit, backend)
    mesh = sharding.explicit_mesh(arrays)
    if mesh is None:
        return run_here(*arrays)
    rows, whole = jax.P(jax.typeof(x).sharding.spec[0]), jax.P()

    def specs(found: BlockOutput) -> BlockOutput:
        return BlockOutput(
            carry=jax.tree.map(lambda leaf: rows if leaf.ndim else whole, found.carry),
            outputs=rows,
            rate=whole,
            update_mask=rows if found.update_mask.ndim == 3 else whole,
            balance=whole,
        )

    return sharding.with_auto_axes(mesh, run_here, arrays, specs)


def _check_carry(branch: Branch, x: Array, carry: BlockCarry | None) -> None:
    """Checks what :func:`.start_of` does not."""
    if carry is None:
        return
    if not isinstance(carry, BlockCarry):
        raise ValueError(f"carry must be a BlockCarry, got {type(carry).__name__}")
    wanted = (x.shape[0], branch.features)
    if jnp.shape(carry.held) != wanted:
        raise ValueError(f"carry.held must have shape {wanted}, got {jnp.shape(carry.held)}")


def _run(branch, unit, backend, params, x, carry, lengths, resets, key) -> BlockOutput:
    """:func:`run` without axes of a mesh that are Explicit."""
    batch, steps, _ = x.shape
    mixer, axes = params["mixer"], BatchAxes((batch,))
    if lengths is not None:  # padding may be anything, NaN included
        inside = jnp.arange(steps, dtype=jnp.int32)[None] < lengths[:, None]
        x = jnp.where(inside[..., None], x, 0)
    turned = jnp.swapaxes(branch.read(params, x), 0, 1)
    began = None if resets is None else resets.T
    sequences = sequence.prepare(turned, lengths, None, began, reverse=False)
    start = start_of(unit, mixer, None if carry is None else carry.mixer, None, axes)
    position = sequence.positions(sequences, start.clock)
    memory = switching.memory(unit, sequences, start.previous, position)
    seen = switching.switch_inputs(unit, sequences, memory, start.previous, position, None, 1)
    logits = switching.logits(unit, mixer, seen)
    held = jnp.zeros((batch, branch.features), x.dtype) if carry is None else carry.held
    inputs = BranchInputs(
        params={**params, "mixer": unit.cell.expanded(mixer["cell"])},
        x=x,
        logits=logits[..., 0],
        carry=start.carry,
        held=held.astype(x.dtype),
        reset_carry=start.reset_carry,
        valid=sequences.valid,
        resets=sequences.resets,
        key=key,
    )
    # A key is in no loop's carry.
    inputs = sharding.vary_alike(inputs._replace(key=None))._replace(key=key)
    symbols = is_symbolic_dim(steps) or is_symbolic_dim(batch)
    dense = backend in MASKED or symbols or not branch.surrogate.hard
    found = (twin if dense else skip)(branch, inputs)
    end = api.end_carry(unit, sequences, memory, start, position, found.carry, axes)
    rate, update_mask = switching.rate_and_mask(unit, sequences, logits, found.carry)
    balance = switching.balance(unit, mixer, sequences, seen, update_mask)
    if update_mask.ndim == 3:
        update_mask = jnp.swapaxes(update_mask, 0, 1)
    held = found.held.astype(start.carry.h.dtype)
    return BlockOutput(BlockCarry(end, held), found.outputs, rate, update_mask, balance)
