"""Weights packed once for the compiled kernel, and scans of NumPy arrays with them, without XLA."""

import ctypes
import functools
import math
import weakref
from collections.abc import Sequence

import numpy as np

from surnn_jax.cells import Cell
from surnn_jax.scan import compiled
from surnn_jax.scan.native import call, library
from surnn_jax.typing import Params

_MEMORY = "surnn native: out of memory"


class HeldWeights:
    """The parameters of a cell, packed for the kernels in use.

    Attributes:
        cell: the cell, one that the kernel knows.
        dtype: float32 or float64.
        inputs: D.
        features: H.
    """

    def __init__(self, cell: Cell, params: Params, dtype: np.dtype):
        """Packs the parameters of a cell, in the form of :meth:`.Cell.expanded`.

        Raises:
            MemoryError: if there is not enough.
        """
        self.cell, self.dtype = cell, dtype
        leaves = [np.ascontiguousarray(leaf, dtype) for leaf in call.flatten(cell, params)]
        self.inputs, self.features = leaves[0].shape
        kernel = library.load()
        pointers = (ctypes.c_void_p * len(leaves))(*map(address, leaves))
        self._weights = kernel.surnn_pack(
            compiled.CELLS[cell.rule], dtype.itemsize == 8, self.inputs, self.features, pointers
        )
        if not self._weights:
            raise MemoryError("no memory for the packed weights")
        self._scan = kernel.surnn_scan
        weakref.finalize(self, kernel.surnn_free, self._weights)

    def scan(
        self,
        steps: int,
        batch: int,
        kind: int,
        x: np.ndarray,
        logits: int,
        start: Sequence[np.ndarray],
        out: Sequence[np.ndarray],
    ) -> None:
        """Writes the state after every step; on this thread, without the GIL.

        Args:
            steps: T.
            batch: B.
            kind: of the logits, of `Table` in src/kernel.h.
            x: ``[T, B, D]``, like all arrays here dense and of the dtype of the weights.
            logits: address of ``[T, H]`` or ``[T, B, H]``; 0 for none.
            start: the fields of the carry before, h first, ``[B, H]`` each.
            out: arrays ``[T, B, H]`` to write to, one a field.

        Raises:
            MemoryError: if there is not enough.
        """
        arguments = steps, batch, kind, address(x), logits, *_two(start), *_two(out)
        if not self._scan(self._weights, *arguments):
            raise MemoryError(_MEMORY)


class StepBuffers:
    """Where a step of one batch shape has its input and its state: to find the address of an array
    takes four times as long as to copy a small one."""

    def __init__(self, weights: HeldWeights, batch: tuple[int, ...]):
        """Buffers for ``[*batch, …]``."""
        self._weights = weights  # must live as long
        self._scan = functools.partial(weights._scan, weights._weights, 1, math.prod(batch))
        self._x = np.empty((*batch, weights.inputs), weights.dtype)
        shape, fields = (*batch, weights.features), len(weights.cell.carry._fields)
        self._state = [np.empty(shape, weights.dtype) for _ in range(fields)]
        state = _two(self._state)
        self._at, self._places = address(self._x), (*state, *state)  # in place

    def step(
        self, kind: int, x: np.ndarray, logits: int, state: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """The state after a step, in new arrays; arguments as of :meth:`HeldWeights.scan`."""
        self._x[...] = x
        for buffer, leaf in zip(self._state, state, strict=True):
            buffer[...] = leaf
        if not self._scan(kind, self._at, logits, *self._places):
            raise MemoryError(_MEMORY)
        return [buffer.copy() for buffer in self._state]


def _two(arrays: Sequence[np.ndarray]) -> tuple[int, int]:
    """Their addresses; 0 for the field that a cell does not have."""
    return address(arrays[0]), address(arrays[1]) if len(arrays) == 2 else 0


def address(array: np.ndarray) -> int:
    """Where the elements of an array begin."""
    return array.__array_interface__["data"][0]
