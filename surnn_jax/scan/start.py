"""Where a run starts: the carry that was given, checked and with its batch axes flattened."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax.scan.sequence import BatchAxes
from surnn_jax.scan.unit import SelectiveCarry, Unit
from surnn_jax.typing import Array, Carry, Params


class Start(NamedTuple):
    """Where a run starts, batch axes flattened.

    Attributes:
        carry: the carry of the cell, ``[B, H]`` a field.
        reset_carry: the one from which a sequence begins.
        clock: integer ``[]`` or ``[B]``.
        previous: as in :class:`.SelectiveCarry`.
        shared: whether the caller's clock is a scalar, so that the next one should be.
    """

    carry: Carry
    reset_carry: Carry
    clock: Array
    previous: Array | None
    shared: bool = False

    @property
    def features(self) -> int:
        """H."""
        return self.carry.h.shape[-1]


def start_of(
    unit: Unit,
    params: Params,
    carry: Carry | None,
    reset_carry: Carry | None,
    axes: BatchAxes,
) -> Start:
    """Where a run starts; the arguments are those of :func:`.run.run`.

    Raises:
        ValueError: for a carry of another form or shape.
    """
    zero = unit.initial_carry(params, (axes.size,))
    first = zero if unit.switch is None else zero.cell
    if reset_carry is not None:
        first = jax.tree.map(
            lambda f, z: jnp.broadcast_to(
                f.astype(z.dtype).reshape((1, -1) if f.ndim == 1 else z.shape), z.shape
            ),
            reset_carry,
            first,
        )
    begin = jnp.zeros((), jnp.int32)  # one clock for all: the batch shares a table of time
    state = None if carry is None else _as_flax(unit, carry)
    if state is not None:
        first_state = zero if unit.switch is None else zero.cell
        start = _flatten_state(state, first_state, axes.shape)
        return Start(start, first, begin, None if unit.switch is None else zero.previous)
    if unit.switch is None:
        start = first if carry is None else _flatten_carry(unit, carry, zero, axes.shape)
        return Start(start, first, begin, None)
    if carry is None:
        return Start(first, first, begin, zero.previous)
    start, clock, previous = _flatten_carry(unit, carry, zero, axes.shape)
    if axes.size == 1:  # a batch of one shares everything
        clock = clock.reshape(())
    return Start(start, first, clock, previous, shared=jnp.ndim(carry.clock) == 0)


def _as_flax(unit: Unit, carry: Any) -> Carry | None:
    """The state of the cell if the carry is written as Flax does, without our classes."""
    fields = len(unit.cell.carry._fields)
    if type(carry) is tuple and len(carry) == fields:
        return unit.cell.carry(*carry)
    if isinstance(carry, (jax.Array, np.ndarray)) and fields == 1:
        return unit.cell.carry(carry)
    return None


def _flatten_carry(unit: Unit, carry: Carry, zero: Carry, batch: tuple[int, ...]) -> Carry:
    """A given carry with its batch axes flattened, checked against a carry of zeros."""
    if type(zero) is not type(carry):
        raise ValueError(f"carry must be a {type(zero).__name__}, got {type(carry).__name__}")

    if unit.switch is None:
        return _flatten_state(carry, zero, batch)
    clock = _clock(carry.clock)
    if clock.shape not in ((), batch):
        raise ValueError(f"carry.clock must have shape () or {batch}, got {clock.shape}")
    cell, previous = (
        _flatten_state(given, like, batch, path)
        for given, like, path in (
            (carry.cell, zero.cell, ".cell"),
            (carry.previous, zero.previous, ".previous"),
        )
    )
    return SelectiveCarry(cell, clock if clock.ndim == 0 else clock.reshape(-1), previous)


def _flatten_state(tree: Any, zero: Any, batch: tuple[int, ...], where: str = "") -> Any:
    """A tree of arrays ``[*batch, …]`` as ``[B, …]``, checked against one of zeros."""

    def fit(path, leaf, like):
        shape = (*batch, *like.shape[1:])
        if leaf.shape != shape:
            raise ValueError(
                f"carry{where}{jax.tree_util.keystr(path)} must have shape {shape}, "
                f"got {leaf.shape}"
            )
        return leaf.reshape(like.shape).astype(like.dtype)

    return jax.tree_util.tree_map_with_path(fit, tree, zero)


def _clock(clock: Any) -> Array:
    """A clock as an array; one from outside JAX must fit into int32, as a jitted step has it."""
    if isinstance(clock, (int, np.ndarray, np.integer)):
        limits = np.iinfo(np.int32)
        if np.any(np.less(clock, limits.min)) or np.any(np.greater(clock, limits.max)):
            raise ValueError(f"carry.clock must fit into int32, got {clock}")
        return jnp.asarray(clock, jnp.int32)
    return jnp.asarray(clock)
