"""The loops over steps as Pallas kernels: launched once for many steps, one program a batch tile.

A scan in XLA launches several kernels a step and reads its weights from far away each time. Here
a program keeps the loop to itself: the state lies in what it writes, the weights near by, and
closed blocks of neurons are passed over. Input products come from outside, as one product for all
steps, and so do the sums for the gradients of the weights.

The bodies are written once, for every cell and gate: they trace the cell's own rule, and its
transpose backward. They run on GPUs through Triton, on TPUs through Mosaic, and in interpret mode
where there is neither, which is slow and made for tests.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from surnn_jax.cells import Cell
from surnn_jax.scan import adjoint
from surnn_jax.scan.pallas.tiling import Target, Tiling, varying
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params


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
    gate: Surrogate | None,
    dtype: Any,
    params: Params,
    steps: Steps,
    start: Carry,
    fresh: Carry,
) -> Carry:
    """The carry before and after every step, ``[C + 1, B, H]`` a field; beyond `count` anything."""
    chunk, batch, features = next(iter(steps.z.values())).shape
    tiling = Tiling(target, cell, dtype, batch, features)
    out = start.h.dtype
    inputs = _arguments(tiling, params, steps, start, None if steps.resets is None else fresh)
    like = jax.ShapeDtypeStruct((chunk + 1, tiling.batch, tiling.features), out)
    shapes = jax.tree.map(lambda _: like, start)
    body = functools.partial(_forward, tiling, gate)
    carries = tiling.call(body, inputs, shapes)
    return jax.tree.map(lambda leaf: leaf[:, :batch, :features], carries)


class ChunkCotangents(NamedTuple):
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
    gate: Surrogate | None,
    dtype: Any,
    params: Params,
    steps: Steps,
    old: Carry,
    u: dict[str, Array],
    toward: Carry,
    ahead: Carry,
) -> ChunkCotangents:
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
    tiling = Tiling(target, cell, dtype, batch, features)
    out = ahead.h.dtype
    inputs = _arguments(tiling, params, steps, ahead, None)
    inputs |= {"old": tiling.pad(old), "u": tiling.pad(u), "toward": tiling.pad(toward)}
    every = jax.ShapeDtypeStruct((chunk, tiling.batch, tiling.features), out)
    once = jax.ShapeDtypeStruct((tiling.batch, tiling.features), out)
    shapes = {
        "total": jax.tree.map(lambda _: every, ahead),
        "ahead": jax.tree.map(lambda _: once, ahead),
        "fresh": None if steps.resets is None else jax.tree.map(lambda _: once, ahead),
        # Notes of one step, not a result.
        "du": dict.fromkeys(cell.recurrent, once),
    }
    done = tiling.call(functools.partial(_backward, tiling, gate), inputs, shapes)
    del done["du"]
    return ChunkCotangents(**jax.tree.map(lambda leaf: leaf[..., :batch, :features], done))


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
    tiling = Tiling(target, None, None, batch, features)
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
        varying(
            jax.ShapeDtypeStruct((chunk, tiling.batch, tiling.features), cotangents.dtype), index
        ),
        grid=(chunk, tiling.batch // tile[0], tiling.features // tile[1]),
        in_specs=[
            tiling.scalars(index),
            tiling.scalars(count),
            pl.BlockSpec((steps, *tile), lambda i, j, k: (0, j, k)),
        ],
        out_specs=pl.BlockSpec((1, *tile), lambda i, j, k: (i, j, k)),
        compiler_params=tiling.compiler(),
        interpret=target.interpret,
        name="spans",
    )(index, count, tiling.pad(cotangents))
    return summed[:, :batch, :features]


def _arguments(
    tiling: Tiling, params: Params, steps: Steps, start: Carry, fresh: Carry | None
) -> dict[str, Any]:
    """What both directions read, filled up."""
    more = tiling.features - start.h.shape[-1]
    out = start.h.dtype
    recurrent = {
        name: jnp.pad(params["recurrent"][name].astype(tiling.dtype), ((0, more), (0, more)))
        for name in tiling.cell.recurrent
    }
    vectors = {
        name: jnp.pad(v.astype(out), (0, more))[None] for name, v in params["vector"].items()
    }
    g = steps.g
    if g is not None:
        g = tiling.pad(g, batch=g.shape[1] == start.h.shape[0] > 1)
    open_blocks = None
    if g is not None:
        cut = g.reshape(*g.shape[:2], tiling.blocks, tiling.target.neurons)
        open_blocks = (cut != 0).any((1, 3)).astype(jnp.int32)
    resets = steps.resets
    if resets is not None:
        resets = tiling.pad(resets[..., None].astype(jnp.int32), features=False)
    return {
        "count": steps.count,
        "open": open_blocks,
        "z": tiling.pad(steps.z),
        "g": g,
        "resets": resets,
        "recurrent": recurrent,
        "vectors": vectors,
        "start": tiling.pad(start),
        "fresh": None if fresh is None else tiling.pad(fresh),
    }


def _forward(tiling: Tiling, gate: Surrogate | None, given: dict, carries: Carry) -> None:
    cell, out = tiling.cell, carries.h.dtype
    fields = cell.carry._fields

    def copy(_, at):
        for name in fields:
            getattr(carries, name)[0, :, at] = getattr(given["start"], name)[:, at]

    tiling.each_block(copy)
    tiling.barrier()

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
                    name: tiling.product(
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

        tiling.each_block(block)
        tiling.barrier()

    jax.lax.fori_loop(jnp.int32(0), given["count"][0], step, None)


def _backward(tiling: Tiling, gate: Surrogate | None, given: dict, made: dict) -> None:
    cell, out = tiling.cell, made["ahead"].h.dtype
    fields, count = cell.carry._fields, given["count"][0]

    def begin(_, at):
        for name in fields:
            start = getattr(given["start"], name)[:, at]
            getattr(made["ahead"], name)[:, at] = start
            if made["fresh"] is not None:
                getattr(made["fresh"], name)[:, at] = jnp.zeros_like(start)

    tiling.each_block(begin)
    tiling.barrier()

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
                owed = adjoint.rule_vjp(cell, vectors, total, old, z, u, g)[1]
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

        tiling.each_block(pull)
        tiling.barrier()
        reset = None if given["resets"] is None else given["resets"][j] != 0

        def through(_, at):
            past = cell.carry(*(getattr(made["ahead"], name)[:, at] for name in fields))
            more = [
                tiling.product(
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

        tiling.each_block(through)
        tiling.barrier()

    jax.lax.fori_loop(jnp.int32(0), count, step, None)


def _vectors(given: dict, at: Any, shape: tuple[int, ...]) -> dict[str, Array]:
    return {name: jnp.broadcast_to(ref[:, at], shape) for name, ref in given["vectors"].items()}
