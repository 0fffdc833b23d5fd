"""The devices of the Pallas kernels, and how arrays are cut into the tiles of their programs.

Batches and layers are padded to whole tiles. A program has one tile of the batch, and goes through
the layer in blocks of neurons.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from surnn_jax.cells import Cell
from surnn_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class Target:
    """The device that a kernel is made for.

    Attributes:
        platform: ``tpu`` or ``cpu``.
        rows: examples of a batch tile; batches are padded to a multiple.
        neurons: of a block, which is computed whole if one is open; layers are padded likewise.
        interpret: whether JAX runs the kernel operation by operation, on any platform.
    """

    platform: str
    rows: int
    neurons: int
    interpret: bool = False


# Tensor cores want 16 rows; a TPU's registers are 8 rows of 128 lanes.
TARGETS = {
    "cpu": Target("cpu", 2, 4, interpret=True),
    "tpu": Target("tpu", 8, 128),
}
"""By platform. The CPU's tiles are small: only tests run there, and need several of them."""


# Of the 16 MiB of VMEM that a kernel gets on a TPU by default.
_VMEM = 12 * 2**20


def max_chunk(target: Target, cell: Cell, features: int, dtype: Any) -> int | None:
    """The most steps of a chunk; 0 if not even the weights fit, None if there is no limit.

    A TPU copies everything a program touches into VMEM, weights once, the tiles of a chunk twice.
    """
    if target.platform != "tpu":
        return None
    width = -(-features // target.neurons) * target.neurons
    weights = len(cell.recurrent) * width**2 * jnp.dtype(dtype).itemsize
    # Products, switches, and three carries: old, ct_output and total.
    arrays = len(cell.inputs) + len(cell.recurrent) + 1 + 3 * len(cell.carry._fields)
    step = 2 * arrays * target.rows * width * 4
    return max(0, _VMEM - weights) // step


class Tiling:
    """Padded sizes, and how arrays are cut into the tiles of programs."""

    def __init__(self, target: Target, cell: Cell | None, dtype: Any, batch: int, features: int):
        self.target, self.cell, self.dtype = target, cell, dtype
        self.batch = -(-batch // target.rows) * target.rows
        self.features = -(-features // target.neurons) * target.neurons
        self.blocks = self.features // target.neurons

    def pad(self, tree: Any, *, batch: bool = True, features: bool = True) -> Any:
        """Arrays ``[..., B, H]`` padded with zeros along the chosen axes."""

        def fill(leaf):
            rows = self.batch - leaf.shape[-2] if batch else 0
            columns = self.features - leaf.shape[-1] if features else 0
            if not (rows or columns):
                return leaf
            return jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 2) + [(0, rows), (0, columns)])

        return jax.tree.map(fill, tree)

    def call(self, body: Callable, inputs: dict, shapes: Any) -> Any:
        """Runs a body over the batch tiles, with references to the tiles of all arrays.

        A tile sees the whole of the inputs ``count``, ``open``, ``recurrent``, ``vectors`` and of
        a ``g`` that the batch shares; of all other inputs and of all results ``[..., B, H]`` it
        sees its own rows.
        """
        tiles = self.batch // self.target.rows

        def spec(path, leaf):
            name = path[0].key if hasattr(path[0], "key") else ""
            if name in ("count", "open"):
                return self.scalars(leaf)
            if name in ("recurrent", "vectors") or (name == "g" and leaf.shape[1] == 1):
                return pl.BlockSpec(leaf.shape, lambda i: (0,) * leaf.ndim)
            return self._rows(leaf)

        like = inputs["count"]
        (made,) = pl.pallas_call(
            lambda given, made: body(given, made),
            [jax.tree.map(lambda leaf: varying(leaf, like), shapes)],
            grid=(tiles,),
            in_specs=[jax.tree_util.tree_map_with_path(spec, inputs)],
            out_specs=[jax.tree.map(self._rows, shapes)],
            interpret=self.target.interpret,
            name=body.func.__name__.strip("_"),
        )(inputs)
        return made

    def _rows(self, leaf: Any) -> pl.BlockSpec:
        """The rows of a tile in ``[..., B, H]``."""
        block = (*leaf.shape[:-2], self.target.rows, leaf.shape[-1])
        leading = (0,) * (len(leaf.shape) - 2)
        return pl.BlockSpec(block, lambda i: (*leading, i, 0))

    def scalars(self, leaf: Array) -> pl.BlockSpec:
        """A whole array of integers that control the loops."""
        if self.target.platform == "tpu":
            from jax.experimental.pallas import tpu

            return pl.BlockSpec(memory_space=tpu.SMEM)
        return pl.BlockSpec(leaf.shape, lambda *_: (0,) * leaf.ndim)

    def each_block(self, body: Callable[[Any, Any], None]) -> None:
        """``body(block, its neurons)`` for all blocks of neurons, one after another."""
        width = self.target.neurons

        def one(n, _):
            body(n, pl.ds(pl.multiple_of(n * width, width), width))

        jax.lax.fori_loop(jnp.int32(0), jnp.int32(self.blocks), one, None)

    def product(self, out: Any, read: Callable, kernel: Callable, wanted: Callable | None) -> Any:
        """``Σ_n read(n) · kernel(n)`` over the wanted blocks (None: all), ``[rows, neurons]``."""
        zero = jnp.zeros((self.target.rows, self.target.neurons), out)
        width = self.target.neurons

        def add(n, total):
            at = pl.ds(pl.multiple_of(n * width, width), width)

            def go():
                operand = read(at).astype(self.dtype)
                return total + jnp.dot(operand, kernel(at), preferred_element_type=out)

            return jax.lax.cond(wanted(n), go, lambda: total) if wanted else go()

        return jax.lax.fori_loop(jnp.int32(0), jnp.int32(self.blocks), add, zero)


def varying(shape: jax.ShapeDtypeStruct, like: Array) -> jax.ShapeDtypeStruct:
    """`shape` as a type that also tells `jax.shard_map` over which axes the result varies."""

    def one(value):
        return jnp.broadcast_to(value.reshape(-1)[0].astype(shape.dtype), shape.shape)

    return jax.eval_shape(one, like)
