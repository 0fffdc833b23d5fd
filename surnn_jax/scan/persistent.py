"""The loops over steps as Pallas kernels: launched once for many steps, one program a batch tile.

A scan in XLA launches several kernels a step and reads its weights from far away each time. Here
a program keeps the loop to itself: the state lies in what it writes, the weights near by, and
closed blocks of neurons are passed over. Input products come from outside, as one product for all
steps, and so do the sums for the gradients of the weights.

The bodies are written once, for every cell and gate: they trace the cell's own rule, and its
transpose backward. They run on GPUs through Triton, on TPUs through Mosaic, and in interpret mode
where there is neither, which is slow and made for tests.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from surnn_jax.cells import Cell
from surnn_jax.scan import adjoint
from surnn_jax.switches import Gate
from surnn_jax.typing import Array, Carry, Params


def triton() -> Any:
    """What Pallas has for Triton; None where JAX has it no longer: it is deprecated since 0.11."""
    try:
        from jax.experimental.pallas import triton
    except ImportError:
        return None
    return triton


@dataclasses.dataclass(frozen=True)
class Target:
    """What a kernel is made for.

    Attributes:
        platform: ``gpu``, ``tpu`` or ``cpu``.
        rows: examples of a batch tile; batches are filled up to a multiple.
        neurons: of a block, all of which are computed where one is open; layers are filled up.
        interpret: whether JAX itself runs the kernel operation by operation, on any platform.
    """

    platform: str
    rows: int
    neurons: int
    interpret: bool = False


# Tensor cores want 16 rows; a TPU's registers are 8 rows of 128 lanes.
TARGETS = {
    "cpu": Target("cpu", 2, 4, interpret=True),
    "gpu": Target("gpu", 16, 64),
    "tpu": Target("tpu", 8, 128),
}
"""By platform; small where only tests run, so that there are several tiles and blocks."""


# Of the 16 MiB of VMEM that a kernel gets on a TPU unasked.
_VMEM = 12 * 2**20


def room(target: Target, cell: Cell, features: int, dtype: Any) -> int | None:
    """The most steps of a chunk; 0 where not even the weights find room, None for any number.

    A TPU brings all that a program touches into VMEM, weights once, the tiles of a chunk twice. On
    a GPU they come block by block.
    """
    if target.platform != "tpu":
        return None
    width = -(-features // target.neurons) * target.neurons
    weights = len(cell.recurrent) * width**2 * jnp.dtype(dtype).itemsize
    # Products, switches, and three carries: before, toward and total.
    arrays = len(cell.inputs) + len(cell.recurrent) + 1 + 3 * len(cell.carry._fields)
    step = 2 * arrays * target.rows * width * 4
    return max(0, _VMEM - weights) // step


class Steps(NamedTuple):
    """A chunk of C steps to be walked, of which the first `count` are meant.

    Attributes:
        count: integer ``[1]``.
        z: input products, ``[C, B, H]`` a gate.
        g: switches, ``[C, B, H]`` or, where the batch shares them, ``[C, 1, H]``; None where every
            neuron updates.
        resets: booleans ``[C, B]`` or None.
    """

    count: Array
    z: dict[str, Array]
    g: Array | None
    resets: Array | None


def forward(
    target: Target,
    cell: Cell,
    gate: Gate | None,
    dtype: Any,
    params: Params,
    steps: Steps,
    start: Carry,
    fresh: Carry,
) -> Carry:
    """The carry before and after every step, ``[C + 1, B, H]`` a field; beyond `count` anything."""
    chunk, batch, features = next(iter(steps.z.values())).shape
    plan = _Plan(target, cell, dtype, batch, features)
    out = start.h.dtype
    inputs = plan.arguments(params, steps, start, None if steps.resets is None else fresh)
    like = jax.ShapeDtypeStruct((chunk + 1, plan.batch, plan.features), out)
    shapes = jax.tree.map(lambda _: like, start)
    body = functools.partial(_forward, plan, gate)
    carries = plan.call(body, inputs, shapes)
    return jax.tree.map(lambda leaf: leaf[:, :batch, :features], carries)


class Walked(NamedTuple):
    """What a chunk of steps backward comes to.

    Attributes:
        total: what flows back into the carry after every step, ``[C, B, H]`` a field.
        ahead: what flows into the carry before the first, ``[B, H]`` a field.
        fresh: what flows into the carry that resets start from; None without resets.
    """

    total: Carry
    ahead: Carry
    fresh: Carry | None


def backward(
    target: Target,
    cell: Cell,
    gate: Gate | None,
    dtype: Any,
    params: Params,
    steps: Steps,
    old: Carry,
    u: dict[str, Array],
    toward: Carry,
    ahead: Carry,
) -> Walked:
    """Walks a chunk of steps from its last to its first.

    Args:
        target: what the kernel is made for.
        cell: whose steps they are.
        gate: how its switches open.
        dtype: of the operands of products.
        params: of the cell.
        steps: those of the way forward.
        old: the carry before every step, after a reset; ``[C, B, H]`` a field.
        u: products with it, ``[C, B, H]`` a gate.
        toward: what flows from outside into the carry after every step, ``[C, B, H]`` a field.
        ahead: what flows from later steps into the carry after the last, ``[B, H]`` a field.
    """
    chunk, batch, features = next(iter(steps.z.values())).shape
    plan = _Plan(target, cell, dtype, batch, features)
    out = ahead.h.dtype
    inputs = plan.arguments(params, steps, ahead, None)
    inputs |= {"old": plan.pad(old), "u": plan.pad(u), "toward": plan.pad(toward)}
    every = jax.ShapeDtypeStruct((chunk, plan.batch, plan.features), out)
    once = jax.ShapeDtypeStruct((plan.batch, plan.features), out)
    shapes = {
        "total": jax.tree.map(lambda _: every, ahead),
        "ahead": jax.tree.map(lambda _: once, ahead),
        "fresh": None if steps.resets is None else jax.tree.map(lambda _: once, ahead),
        # Notes of one step, not a result.
        "du": dict.fromkeys(cell.recurrent, once),
    }
    done = plan.call(functools.partial(_backward, plan, gate), inputs, shapes)
    del done["du"]
    return Walked(**jax.tree.map(lambda leaf: leaf[..., :batch, :features], done))


def sums(target: Target, index: Array, count: Array, cotangents: Array) -> Array:
    """Sums over the spans between listed steps, each in the order of time.

    Args:
        target: what the kernel is made for.
        index: integers ``[C + 1]``: span i is from step ``index[i]`` to before ``index[i + 1]``.
        count: integer ``[1]``, how many spans are meant.
        cotangents: ``[T, B, H]``.

    Returns:
        ``[C, B, H]``; zero beyond `count`.
    """
    steps, batch, features = cotangents.shape
    plan = _Plan(target, None, None, batch, features)
    chunk = index.shape[0] - 1
    tile = (target.rows, target.neurons)

    def body(index_ref, count_ref, from_ref, to_ref):
        i = pl.program_id(0)

        def add(t, total):
            return total + from_ref[t]

        first = index_ref[i]
        last = jnp.where(i < count_ref[0], index_ref[i + 1], first)
        to_ref[0] = jax.lax.fori_loop(first, last, add, jnp.zeros(tile, to_ref.dtype))

    summed = pl.pallas_call(
        body,
        _varying(jax.ShapeDtypeStruct((chunk, plan.batch, plan.features), cotangents.dtype), index),
        grid=(chunk, plan.batch // tile[0], plan.features // tile[1]),
        in_specs=[
            plan.scalars(index),
            plan.scalars(count),
            pl.BlockSpec((steps, *tile), lambda i, j, k: (0, j, k)),
        ],
        out_specs=pl.BlockSpec((1, *tile), lambda i, j, k: (i, j, k)),
        compiler_params=plan.compiler(),
        interpret=target.interpret,
        name="spans",
    )(index, count, plan.pad(cotangents))
    return summed[:, :batch, :features]


class _Plan:
    """Sizes after filling up, and how arrays are cut into the tiles of programs."""

    def __init__(self, target: Target, cell: Cell | None, dtype: Any, batch: int, features: int):
        self.target, self.cell, self.dtype = target, cell, dtype
        self.batch = -(-batch // target.rows) * target.rows
        self.features = -(-features // target.neurons) * target.neurons
        self.blocks = self.features // target.neurons

    def pad(self, tree: Any, *, batch: bool = True, features: bool = True) -> Any:
        """Arrays ``[..., B, H]`` filled up with zeros, along the axes that are asked for."""

        def fill(leaf):
            rows = self.batch - leaf.shape[-2] if batch else 0
            columns = self.features - leaf.shape[-1] if features else 0
            if not (rows or columns):
                return leaf
            return jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 2) + [(0, rows), (0, columns)])

        return jax.tree.map(fill, tree)

    def arguments(self, params: Params, steps: Steps, start: Carry, fresh: Carry | None) -> dict:
        """What both directions read, filled up."""
        more = self.features - start.h.shape[-1]
        out = start.h.dtype
        recurrent = {
            name: jnp.pad(params["recurrent"][name].astype(self.dtype), ((0, more), (0, more)))
            for name in self.cell.recurrent
        }
        vectors = {
            name: jnp.pad(v.astype(out), (0, more))[None] for name, v in params["vector"].items()
        }
        g = steps.g
        if g is not None:
            g = self.pad(g, batch=g.shape[1] == start.h.shape[0] > 1)
        open_blocks = None
        if g is not None:
            cut = g.reshape(*g.shape[:2], self.blocks, self.target.neurons)
            open_blocks = (cut != 0).any((1, 3)).astype(jnp.int32)
        resets = steps.resets
        if resets is not None:
            resets = self.pad(resets[..., None].astype(jnp.int32), features=False)
        return {
            "count": steps.count,
            "open": open_blocks,
            "z": self.pad(steps.z),
            "g": g,
            "resets": resets,
            "recurrent": recurrent,
            "vectors": vectors,
            "start": self.pad(start),
            "fresh": None if fresh is None else self.pad(fresh),
        }

    def call(self, body: Callable, inputs: dict, shapes: Any) -> Any:
        """Runs a body over the batch tiles, with references to the tiles of all arrays."""
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
            [jax.tree.map(lambda leaf: _varying(leaf, like), shapes)],
            grid=(tiles,),
            in_specs=[jax.tree_util.tree_map_with_path(spec, inputs)],
            out_specs=[jax.tree.map(self._rows, shapes)],
            compiler_params=self.compiler(),
            interpret=self.target.interpret,
            name=body.func.__name__.strip("_"),
        )(inputs)
        return made

    def _rows(self, leaf: Any) -> pl.BlockSpec:
        """The rows of a tile out of ``[..., B, H]``."""
        block = (*leaf.shape[:-2], self.target.rows, leaf.shape[-1])
        leading = (0,) * (len(leaf.shape) - 2)
        return pl.BlockSpec(block, lambda i: (*leading, i, 0))

    def scalars(self, leaf: Array) -> pl.BlockSpec:
        """Numbers that decide where to go next."""
        if self.target.platform == "tpu":
            from jax.experimental.pallas import tpu

            return pl.BlockSpec(memory_space=tpu.SMEM)
        return pl.BlockSpec(leaf.shape, lambda *_: (0,) * leaf.ndim)

    def compiler(self) -> Any:
        """What the platform's compiler is told."""
        if self.target.platform == "gpu":
            # With more stages it would read ahead what the step before has yet to write.
            return triton().CompilerParams(num_warps=8, num_stages=1)
        return None

    def barrier(self) -> None:
        """Waits until all threads of a program have written what others of it will read."""
        if self.target.platform == "gpu" and not self.target.interpret:
            triton().debug_barrier()

    def each_block(self, body: Callable[[Any, Any], None]) -> None:
        """``body(block, its neurons)`` for all blocks of neurons, one after another."""
        width = self.target.neurons

        def one(n, _):
            body(n, pl.ds(pl.multiple_of(n * width, width), width))

        jax.lax.fori_loop(jnp.int32(0), jnp.int32(self.blocks), one, None)

    def product(self, out: Any, read: Callable, kernel: Callable, wanted: Callable) -> Any:
        """``Σ_n read(n) · kernel(n)`` over the blocks that are wanted, ``[rows, neurons]``."""
        zero = jnp.zeros((self.target.rows, self.target.neurons), out)
        width = self.target.neurons

        def add(n, total):
            at = pl.ds(pl.multiple_of(n * width, width), width)

            def go():
                operand = read(at).astype(self.dtype)
                return total + jnp.dot(operand, kernel(at), preferred_element_type=out)

            return jax.lax.cond(wanted(n), go, lambda: total) if wanted else go()

        return jax.lax.fori_loop(jnp.int32(0), jnp.int32(self.blocks), add, zero)


def _varying(shape: jax.ShapeDtypeStruct, like: Array) -> jax.ShapeDtypeStruct:
    """Inside `jax.shard_map`, over which axes a result varies is said by its type."""

    def one(value):
        return jnp.broadcast_to(value.reshape(-1)[0].astype(shape.dtype), shape.shape)

    return jax.eval_shape(one, like)


def _forward(plan: _Plan, gate: Gate | None, given: dict, carries: Carry) -> None:
    cell, out = plan.cell, carries.h.dtype
    fields = cell.carry._fields

    def copy(_, at):
        for name in fields:
            getattr(carries, name)[0, :, at] = getattr(given["start"], name)[:, at]

    plan.each_block(copy)
    plan.barrier()

    def step(j, _):
        reset = None if given["resets"] is None else given["resets"][j] != 0

        def before(name, at):
            value = getattr(carries, name)[j, :, at]
            if reset is None:
                return value
            return jnp.where(reset, getattr(given["fresh"], name)[:, at], value)

        def block(n, at):
            old = cell.carry(*(before(name, at) for name in fields))

            def update():
                u = {
                    name: plan.product(
                        out,
                        lambda k: before("h", k),
                        lambda k, name=name: given["recurrent"][name][k, at],
                        None,
                    )
                    for name in cell.recurrent
                }
                z = {name: ref[j, :, at] for name, ref in given["z"].items()}
                g = None if given["g"] is None else given["g"][j, :, at]
                g = None if g is None else jnp.broadcast_to(g, old.h.shape)
                candidate = cell.rule(_vectors(given, at, old.h.shape), old, z, u)
                return adjoint.mix(gate, g, candidate, old)

            if given["open"] is None:
                new = update()
            else:
                new = jax.lax.cond(given["open"][j, n] != 0, update, lambda: old)
            for name in fields:
                getattr(carries, name)[j + 1, :, at] = getattr(new, name)

        plan.each_block(block)
        plan.barrier()

    jax.lax.fori_loop(jnp.int32(0), given["count"][0], step, None)


def _backward(plan: _Plan, gate: Gate | None, given: dict, made: dict) -> None:
    cell, out = plan.cell, made["ahead"].h.dtype
    fields, count = cell.carry._fields, given["count"][0]

    def begin(_, at):
        for name in fields:
            start = getattr(given["start"], name)[:, at]
            getattr(made["ahead"], name)[:, at] = start
            if made["fresh"] is not None:
                getattr(made["fresh"], name)[:, at] = jnp.zeros_like(start)

    plan.each_block(begin)
    plan.barrier()

    def step(i, _):
        j = count - 1 - i
        is_open = None if given["open"] is None else lambda n: given["open"][j, n] != 0

        def pull(n, at):
            total = cell.carry(
                *(
                    getattr(made["ahead"], name)[:, at] + getattr(given["toward"], name)[j, :, at]
                    for name in fields
                )
            )

            def owed():
                old = cell.carry(*(getattr(given["old"], name)[j, :, at] for name in fields))
                z = {name: ref[j, :, at] for name, ref in given["z"].items()}
                u = {name: ref[j, :, at] for name, ref in given["u"].items()}
                g = None if given["g"] is None else given["g"][j, :, at]
                g = None if g is None else jnp.broadcast_to(g, old.h.shape)
                vectors = _vectors(given, at, old.h.shape)
                owed = adjoint.pull_rule(cell, vectors, total, old, z, u, g)[1]
                return owed.past, {name: owed.u[name] for name in cell.recurrent}

            def nothing():
                zero = jnp.zeros_like(total.h)
                return total, dict.fromkeys(cell.recurrent, zero)

            past, du = owed() if is_open is None else jax.lax.cond(is_open(n), owed, nothing)
            for name in fields:
                getattr(made["total"], name)[j, :, at] = getattr(total, name)
                getattr(made["ahead"], name)[:, at] = getattr(past, name)
            for name, ref in made["du"].items():
                ref[:, at] = du[name]

        plan.each_block(pull)
        plan.barrier()
        reset = None if given["resets"] is None else given["resets"][j] != 0

        def through(_, at):
            past = cell.carry(*(getattr(made["ahead"], name)[:, at] for name in fields))
            more = [
                plan.product(
                    out,
                    lambda k, name=name: made["du"][name][:, k],
                    lambda k, name=name: given["recurrent"][name][at, k].T,
                    is_open,
                )
                for name in cell.recurrent
            ]
            past = past._replace(h=past.h + sum(more)) if more else past
            for name in fields:
                value = getattr(past, name)
                if reset is not None:
                    fresh = getattr(made["fresh"], name)
                    fresh[:, at] += jnp.where(reset, value, 0)
                    value = jnp.where(reset, 0, value)
                getattr(made["ahead"], name)[:, at] = value

        plan.each_block(through)
        plan.barrier()

    jax.lax.fori_loop(jnp.int32(0), count, step, None)


def _vectors(given: dict, at: Any, shape: tuple[int, ...]) -> dict[str, Array]:
    return {name: jnp.broadcast_to(ref[:, at], shape) for name, ref in given["vectors"].items()}
