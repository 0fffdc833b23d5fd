"""A unit with its weights packed once: small calls on a CPU, past `jit`."""

import functools
import math
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax.scan import native, sequence, switching
from surnn_jax.scan.native.held import HeldWeights, StepBuffers, address
from surnn_jax.scan.spec import ScanShape, ScanSpec
from surnn_jax.scan.unit import SelectiveCarry, Unit
from surnn_jax.switches import SwitchInputs
from surnn_jax.typing import Array, Carry, Params

_ZERO = np.zeros((), np.int32)
_ALWAYS, _SHARED, _PER_EXAMPLE = range(3)  # as in src/kernel.h
_AHEAD = 1024  # steps of a rhythm's table that a stream makes at once
_KEPT_TABLES, _MOST_KEPT = 8, 1 << 22  # how many tables are kept, of how many numbers at most


def prepare(unit: Unit, params: Params) -> "Prepared":
    """A unit with its weights packed once, for small calls on a CPU.

    Args:
        unit: what to run, see :func:`surnn_jax.selective`.
        params: its parameters.

    Raises:
        ValueError: if the compiled kernel is missing, or does not know the cell, the switch's gate
            or the dtype.

    Examples:
        >>> from surnn_jax import scan, selective
        >>> unit, x = selective("gru"), np.ones((5, 1, 3), np.float32)
        >>> ready = scan.prepare(unit, unit.init(jax.random.key(0), x, features=4))
        >>> ready.run(x)[1].shape
        (5, 1, 4)
    """
    return Prepared(unit, params)


class Prepared:
    """A unit with fixed parameters for many small calls on a CPU: one sequence, or one step.

    A call goes to the compiled kernel on the caller's thread, past `jit`, whose dispatch takes
    longer than a step. Weights are packed once, and a switch that goes by time alone makes its
    table once; one that reads the input is computed by JAX, call by call. Inputs and carries may be
    NumPy's or JAX's, outputs are NumPy's. Do not write to a carry or to the output of a step: if
    nothing opens, the next one is the same array.

    The numbers of one sequence are bit for bit those of ``run(…, backend="native")``, in one call
    or in pieces. Those of a batch are the same to rounding, because `run` cuts it by threads. There
    are no gradients, and no calls inside `jit`. Several threads may use one object at once.

    Examples:
        >>> from surnn_jax import run, scan, selective, switches
        >>> unit, x = selective("gru", switches.every(5)), np.ones((6, 3), np.float32)
        >>> params = unit.init(jax.random.key(0), x, features=4)
        >>> ready = scan.prepare(unit, params)
        >>> carry, outputs = ready.run(x)
        >>> bool((outputs == run(unit, params, x, backend="native").outputs).all())
        True
        >>> carry, h = ready.step(carry, x[0])
        >>> h.shape, int(carry.clock)
        ((4,), 7)
    """

    def __init__(self, unit: Unit, params: Params):
        """See :func:`prepare`."""
        cell, switch = unit.cell, unit.switch
        unit.check_params(params)
        self._dtype = np.dtype(cell.carry_dtype(params["cell"]))
        self._width, self._features = next(iter(params["cell"]["input"].values())).shape
        spec = ScanSpec(cell, None if switch is None else switch.gate, self._dtype)
        per_example = switch is not None and switch.per_example
        shape = ScanShape(1, 1, self._features, self._dtype, per_example, "cpu")
        if (refused := native.unsupported(spec, shape)) is not None:
            raise ValueError(f"the unit cannot be prepared: {refused}")
        # Copies, as packed weights are: what is written to an array of the caller's, or donated,
        # would else change the switch alone.
        params = jax.tree.map(jnp.array, params)
        self.unit, self.params = unit, params
        self._weights = HeldWeights(cell, cell.expanded(params["cell"]), self._dtype)
        self._memory = self._width * max(1, len(getattr(switch, "averages", ())))
        self._by_time = switch is not None and not switch.per_example
        self._local = threading.local()
        fields = cell.carry._fields
        self._order = [fields.index("h"), *(i for i, name in enumerate(fields) if name != "h")]
        make = functools.partial(_table_of_time, unit, params, self._features, self._dtype)
        self._make_table = make
        self._table = functools.lru_cache(_KEPT_TABLES)(make)

    def __reduce__(self):
        # Packed weights are memory of this process, for its processor.
        return Prepared, (self.unit, self.params)

    def run(self, x: Array, carry: Carry | None = None) -> tuple[Carry, np.ndarray]:
        """Runs a batch of sequences.

        Args:
            x: ``[T, *batch, D]``.
            carry: the carry to start from, of an earlier call or of :func:`.run`; None to begin.

        Returns:
            The carry after the last step and the outputs ``[T, *batch, H]``.

        Raises:
            ValueError: for shapes or dtypes that do not fit.
        """
        x = self._checked(x, 2)
        return self._call(x, carry, x.shape[0], x.shape[1:-1], x.shape[:1])

    def step(self, carry: Carry | None, x: Array) -> tuple[Carry, np.ndarray]:
        """One step of a stream: the same numbers as :meth:`run` gives.

        Args:
            carry: from the step before, :meth:`run` or ``unit.initial_carry``; None to begin.
            x: ``[*batch, D]``.

        Returns:
            The next carry and the output ``[*batch, H]``.

        Raises:
            ValueError: for shapes or dtypes that do not fit.
        """
        x = self._checked(x, 1)
        return self._call(x, carry, 1, x.shape[:-1], ())

    def _checked(self, x: Any, least: int) -> np.ndarray:
        try:
            x = np.asarray(x)
        except jax.errors.TracerArrayConversionError:
            raise ValueError(
                "a prepared unit runs past JAX, not inside jit, vmap or grad; call scan.run there"
            ) from None
        if x.ndim < least or x.shape[-1] != self._width:
            lead = "[T, *batch, " if least == 2 else "[*batch, "
            raise ValueError(f"inputs must have shape {lead}{self._width}], got {x.shape}")
        if x.dtype is not self._dtype and not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"inputs must be floating point, got {x.dtype}")
        return x

    def _call(
        self, x: np.ndarray, carry: Carry | None, steps: int, batch: tuple[int, ...], lead: tuple
    ) -> tuple[Carry, np.ndarray]:
        """`steps` steps; outputs are ``[*lead, *batch, H]``."""
        state, clock, previous = self._start(carry, batch)
        logits = self._logits(x, clock, previous, steps, batch)
        if not lead and not logits.opens:
            end = state
            outputs = state[0]
        elif not lead:
            end = self._buffers(batch).step(logits.kind, x, logits.address, state)
            outputs = end[0]
        else:
            shape, size = (*lead, *batch, self._features), math.prod(batch)
            out = [np.empty(shape, self._dtype) for _ in state]
            if steps and size:
                x = np.ascontiguousarray(x, self._dtype)
                self._weights.scan(steps, size, logits.kind, x, logits.address, state, out)
            end = [leaf[-1].copy() for leaf in out] if steps else state
            outputs = out[0]
        end = self.unit.cell.carry(*(end if len(end) == 1 else [end[i] for i in self._order]))
        if self.unit.switch is None:
            return end, outputs
        clock = np.add(clock, steps, dtype=np.int32)  # beyond 2^31 it wraps, as in `run`
        return SelectiveCarry(end, clock, logits.previous), outputs

    def _buffers(self, batch: tuple[int, ...]) -> StepBuffers:
        """This thread's."""
        known = getattr(self._local, "buffers", None)
        if known is None or known[0] != batch:
            known = self._local.buffers = batch, StepBuffers(self._weights, batch)
        return known[1]

    def _start(
        self, carry: Carry | None, batch: tuple[int, ...]
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray | None]:
        """State (h first), clock and previous input of a carry, checked."""
        unit, shape = self.unit, (*batch, self._features)
        selective = unit.switch is not None
        reads = selective and unit.switch.uses_previous_input
        if carry is None:
            state = [np.zeros(shape, self._dtype) for _ in self._order]
            previous = np.zeros((*batch, self._memory), self._dtype) if reads else None
            return state, np.zeros(batch, np.int32), previous
        wanted = SelectiveCarry if selective else unit.cell.carry
        if type(carry) is not wanted:
            raise ValueError(f"carry must be a {wanted.__name__}, got {type(carry).__name__}")
        inner = carry.cell if selective else carry
        state = [self._fit(inner[i], shape, self._dtype) for i in self._order]
        if not selective:
            return state, _ZERO, None
        clock = carry.clock
        clock = self._fit(clock, np.shape(clock) and batch, np.dtype(np.int32))
        previous = None
        if reads:
            previous = self._fit(carry.previous, (*batch, self._memory), self._dtype)
        return state, clock, previous

    def _fit(self, leaf: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A leaf of a carry as a dense array of this shape and dtype."""
        if not (type(leaf) is np.ndarray and leaf.dtype is dtype and leaf.flags.c_contiguous):
            leaf = np.asarray(leaf, dtype, order="C")
        if leaf.shape != shape:
            raise ValueError(f"a field of the carry must have shape {shape}, got {leaf.shape}")
        return leaf

    def _logits(
        self,
        x: np.ndarray,
        clock: np.ndarray,
        previous: np.ndarray | None,
        steps: int,
        batch: tuple[int, ...],
    ) -> "_Logits":
        """What the switch says at `steps` steps from `clock` on."""
        if self.unit.switch is None:
            return _NO_LOGITS
        size = math.prod(batch)
        if self._by_time and (clock.size == 1 or (size and (clock == clock.flat[0]).all())):
            return self._shared_logits(int(clock.flat[0]), steps)
        x = x.reshape(steps, size, self._width)
        clock = clock.reshape(() if size == 1 else clock.shape and (size,))
        if previous is not None:
            previous = previous.reshape(size, self._memory)
        read = _read if switching.is_hashable(self.unit) else _read.__wrapped__
        found, after = read(self.unit, self._features, self.params, x, clock, previous)
        array = np.asarray(found, self._dtype, order="C")
        if after is not None:
            after = np.asarray(after, self._dtype).reshape(*batch, self._memory)
        kind = _SHARED if array.ndim == 2 else _PER_EXAMPLE
        return _Logits(kind, address(array), True, array, after)

    def _shared_logits(self, clock: int, steps: int) -> "_Logits":
        if steps * self._features > _MOST_KEPT:
            table = self._make_table(clock, steps)
            return _Logits(_SHARED, table.address, True, table)
        if steps != 1:
            table = self._table(clock, steps)
            return _Logits(_SHARED, table.address, True, table)
        table = self._table(clock - clock % _AHEAD, _AHEAD)
        row = clock % _AHEAD
        return _Logits(_SHARED, table.address + row * table.stride, table.opens[row], table)


class _Logits(NamedTuple):
    """Logits for the kernel.

    Attributes:
        kind: of the kernel's tables.
        address: where they are.
        opens: False if no neuron opens.
        owner: what must live as long as the address is used.
        previous: what the switch keeps of the inputs, for the next carry.
    """

    kind: int
    address: int
    opens: bool
    owner: Any
    previous: np.ndarray | None = None


_NO_LOGITS = _Logits(_ALWAYS, 0, True, None)


class _Table(NamedTuple):
    """Logits ``[T, H]``: their address, bytes from step to step, and where some neuron opens."""

    address: int
    stride: int
    opens: list[bool]
    array: np.ndarray


def _table_of_time(
    unit: Unit, params: Params, features: int, dtype: np.dtype, clock: int, steps: int
) -> _Table:
    """The table of a switch that reads the clock alone, from `clock` on."""
    t = np.arange(steps, dtype=np.int32) + np.int32(clock)
    x = jnp.zeros((steps, 1, 1), dtype)
    seen = SwitchInputs(x, None, jnp.asarray(t), None, None, features)
    found = switching.logits(unit, params, seen)
    array = np.asarray(found, dtype, order="C")
    opens = (~(array <= 0)).any(-1).tolist()  # NaN opens, as in the kernel
    return _Table(address(array), array.strides[0], opens, array)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _read(
    unit: Unit, features: int, params: Params, x: Array, clock: Array, first: Array | None
) -> tuple[Array, Array | None]:
    """The logits of a switch that reads ``x [T, B, D]``, and what it keeps after the last step."""
    sequences = sequence.prepare(x, None, None, None, reverse=False)
    position = sequence.positions(sequences, clock)
    memory = switching.memory(unit, sequences, first, position)
    seen = switching.switch_inputs(unit, sequences, memory, first, position, None, features)
    after = first if memory is None or not x.shape[0] else memory[-1]
    return switching.logits(unit, params, seen), after
