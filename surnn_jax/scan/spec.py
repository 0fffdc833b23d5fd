"""The contract of a back end: one function that scans, and two questions that `auto` asks it.

A back end is a module (or package) with the three functions of :class:`Backend`, listed in
:data:`surnn_jax.scan.backends.BACKENDS`.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from surnn_jax.cells import Cell
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params


@dataclasses.dataclass(frozen=True)
class ScanSpec:
    """The static part of a scan: hashable, so that it can key a compiled program.

    Attributes:
        cell: what a step computes.
        surrogate: how logits open the switches; None if every neuron updates at every step.
        dtype: operands of matrix products are rounded to it.

    Examples:
        >>> from surnn_jax import cells, switches
        >>> from surnn_jax.scan import ScanSpec
        >>> ScanSpec(cells.get("gru"), switches.triangular(), "float32").dtype
        dtype('float32')
    """

    cell: Cell
    surrogate: Surrogate | None
    dtype: Any

    def __post_init__(self):
        object.__setattr__(self, "dtype", jnp.dtype(self.dtype))


class ScanShape(NamedTuple):
    """The sizes of a scan, as far as they are known before it runs.

    Attributes:
        steps: T, an integer or a symbol of `jax.export`.
        batch: B, an integer or a symbol.
        features: H.
        carry_dtype: dtype of the state.
        per_example: whether each example has its own update mask; False if the batch shares one.
        platform: "cpu", "gpu" or "tpu".
    """

    steps: Any
    batch: Any
    features: int
    carry_dtype: Any
    per_example: bool
    platform: str

    @property
    def symbolic(self) -> bool:
        """Whether a size is a symbol of `jax.export`."""
        return is_symbolic_dim(self.steps) or is_symbolic_dim(self.batch)


class UpdateRates(NamedTuple):
    """How much of a scan has to be computed, as declared by its switch.

    Attributes:
        open: share of open switches; 1 without a switch.
        computed: share of candidates that a training step computes, nearly open neurons included.
        schedules: number of independent schedules in the layer, at most H.
    """

    open: float
    computed: float
    schedules: int


class ScanInputs(NamedTuple):
    """The arrays of a scan. Back ends differentiate with respect to the first five.

    Attributes:
        params: parameters of the cell.
        x: ``[T, B, D]``.
        logits: ``[T, H]`` or ``[T, B, H]``; None if every neuron updates at every step.
        initial_carry: the carry before the first step, ``[B, H]`` a field.
        reset_carry: the carry after a reset, ``[B, H]`` a field.
        step_mask: booleans ``[T, B]``, False if the whole state is held; None for all True.
        resets: booleans ``[T, B]``, True if the step starts from `reset_carry`; None for all False.

    Examples:
        >>> from surnn_jax import cells
        >>> from surnn_jax.scan import BACKENDS, ScanInputs, ScanSpec
        >>> gru = cells.get("gru")
        >>> params = gru.init(jax.random.key(0), inputs=3, features=4)
        >>> start = gru.initial_carry(params, (2,))
        >>> inputs = ScanInputs(params, jnp.ones((5, 2, 3)), None, start, start)
        >>> BACKENDS["masked"].scan(ScanSpec(gru, None, "float32"), inputs).h.shape
        (5, 2, 4)
    """

    params: Params
    x: Array
    logits: Array | None
    initial_carry: Carry
    reset_carry: Carry
    step_mask: Array | None = None
    resets: Array | None = None

    @property
    def per_step(self) -> tuple[Array, Array | None, Array | None, Array | None]:
        """The arrays with a leading time axis: ``(x, logits, step_mask, resets)``."""
        return self.x, self.logits, self.step_mask, self.resets

    def scan_shape(self) -> ScanShape:
        """The sizes, for the platform that JAX computes on."""
        h = self.initial_carry.h
        per_example = self.logits is not None and self.logits.ndim == 3
        steps, batch, _ = self.x.shape
        return ScanShape(steps, batch, h.shape[-1], h.dtype, per_example, jax.default_backend())


class Backend(Protocol):
    """What a back end's module defines. All back ends give the same numbers, to rounding.

    Examples:
        >>> from surnn_jax.scan import BACKENDS
        >>> sorted(BACKENDS)
        ['compact', 'cuda', 'masked', 'native', 'pallas', 'parallel', 'reference', 'rows']
    """

    @staticmethod
    def scan(spec: ScanSpec, inputs: ScanInputs) -> Carry:
        """The carry after every step, ``[T, B, H]`` a field.

        A back end that cannot run `spec` itself hands it to one that can.
        """

    @staticmethod
    def unsupported(spec: ScanSpec, shape: ScanShape) -> str | None:
        """Why this back end cannot run the scan itself, in one line; None if it can."""

    @staticmethod
    def cost(spec: ScanSpec, shape: ScanShape, rates: UpdateRates) -> float:
        """Expected time of a training step, 1 for `compact` with all neurons open.

        ``math.inf`` for a back end that runs only if it is asked for by name.
        """
