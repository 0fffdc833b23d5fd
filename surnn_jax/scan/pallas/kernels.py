"""The loops over steps as Pallas kernels: one launch for many steps, one program a batch tile.

A scan in XLA launches several kernels a step and reads its weights from device memory each time.
Here a program keeps the loop to itself: it holds the state in its output and the weights close by,
and skips closed blocks of neurons. Input products are computed outside, as one product for all
steps, and so are weight gradients.

The bodies are written once for every cell and surrogate: they trace the cell's own rule, and its
transpose backward. They run on TPUs through Mosaic, and elsewhere in
interpret mode, which is slow and made for tests.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.scan import adjoint
from surnn_jax.scan.pallas.tiling import Target, Tiling
from surnn_jax.scan.spec import ScanSpec
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params


class Steps(NamedTuple):
    """A chunk of C steps, of which the first `count` are meant.

    Attributes:
        count: integer ``[1]``.
        z: input products, ``[C, B, H]`` a gate.
        g: switches, ``[C, B, H]``, or ``[C, 1, H]`` if the batch shares them; None if every neuron
            updates.
        resets: booleans ``[C, B]`` or None.
    """

    count: Array
    z: dict[str, Array]
    g: Array | None
    resets: Array | None


def forward(
    target: Target,
    spec: ScanSpec,
    params: Params,
    steps: Steps,
    initial_carry: Carry,
    reset_carry: Carry,
) -> Carry:
    """The carry before and after every step, ``[C + 1, B, H]`` a field; undefined beyond `count`.

    Args:
        target: the device of the kernel.
        spec: of the scan.
        params: of the cell.
        steps: the chunk.
        initial_carry: the carry before it, ``[B, H]`` a field.
        reset_carry: the carry after a reset, likewise.
    """
    chunk, batch, features = next(iter(steps.z.values())).shape
    tiling = Tiling(target, spec.cell, spec.dtype, batch, features)
    out = initial_carry.h.dtype
    reset_carry = None if steps.resets is None else reset_carry
    inputs = _arguments(tiling, params, steps, initial_carry, reset_carry)
    like = jax.ShapeDtypeStruct((chunk + 1, tiling.batch, tiling.features), out)
    shapes = jax.tree.map(lambda _: like, initial_carry)
    body = functools.partial(_forward, tiling, spec.surrogate)
    carries = tiling.call(body, inputs, shapes)
    return jax.tree.map(lambda leaf: leaf[:, :batch, :features], carries)


class ChunkCotangents(NamedTuple):
    """Cotangents of the carries of a chunk.

    Attributes:
        total: of the carry after every step, ``[C, B, H]`` a field.
        initial_carry: of the carry before the first step, ``[B, H]`` a field.
        reset_carry: of the carry after a reset; None without resets.
    """

    total: Carry
    initial_carry: Carry
    reset_carry: Carry | None


def backward(
    target: Target,
    spec: ScanSpec,
    params: Params,
    steps: Steps,
    old: Carry,
    u: dict[str, Array],
    ct_output: Carry,
    ct_future: Carry,
) -> ChunkCotangents:
    """Goes through a chunk of steps from its last to its first.

    Args:
        target: the device of the kernel.
        spec: of the scan.
        params: of the cell.
        steps: those of the forward pass.
        old: the carry before every step, resets applied; ``[C, B, H]`` a field.
        u: products with it, ``[C, B, H]`` a gate.
        ct_output: what flows from outside into the carry after every step, ``[C, B, H]`` a field.
        ct_future: what flows from later steps into the carry after the last, ``[B, H]`` a field.
    """
    chunk, batch, features = next(iter(steps.z.values())).shape
    tiling = Tiling(target, spec.cell, spec.dtype, batch, features)
    out = ct_future.h.dtype
    inputs = _arguments(tiling, params, steps, ct_future, None)
    inputs |= {"old": tiling.pad(old), "u": tiling.pad(u), "ct_output": tiling.pad(ct_output)}
    every = jax.ShapeDtypeStruct((chunk, tiling.batch, tiling.features), out)
    once = jax.ShapeDtypeStruct((tiling.batch, tiling.features), out)
    carry = jax.tree.map(lambda _: once, ct_future)
    shapes = {
        "total": jax.tree.map(lambda _: every, ct_future),
        "initial_carry": carry,
        "reset_carry": None if steps.resets is None else carry,
        # Scratch space of one step, not a result.
        "du": dict.fromkeys(spec.cell.recurrent, once),
    }
    done = tiling.call(functools.partial(_backward, tiling), inputs, shapes)
    del done["du"]
    return ChunkCotangents(**jax.tree.map(lambda leaf: leaf[..., :batch, :features], done))


def _arguments(
    tiling: Tiling, params: Params, steps: Steps, carry: Carry, reset_carry: Carry | None
) -> dict[str, Any]:
    """The arrays that both directions read, padded to whole tiles.

    `carry` is the state or cotangent with which the loop begins.
    """
    more = tiling.features - carry.h.shape[-1]
    out = carry.h.dtype
    recurrent = {
        name: jnp.pad(params["recurrent"][name].astype(tiling.dtype), ((0, more), (0, more)))
        for name in tiling.cell.recurrent
    }
    vectors = {
        name: jnp.pad(v.astype(out), (0, more))[None] for name, v in params["vector"].items()
    }
    g = steps.g
    if g is not None:
        g = tiling.pad(g, batch=g.shape[1] == carry.h.shape[0] > 1)
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
        "carry": tiling.pad(carry),
        "reset_carry": None if reset_carry is None else tiling.pad(reset_carry),
    }


def _forward(tiling: Tiling, surrogate: Surrogate | None, given: dict, carries: Carry) -> None:
    """The body of the forward kernel: reads `given`, writes `carries`."""
    cell, out = tiling.cell, carries.h.dtype
    fields = cell.carry._fields

    def copy(_, at):
        for name in fields:
            getattr(carries, name)[0, :, at] = getattr(given["carry"], name)[:, at]

    tiling.each_block(copy)

    def step(j, _):
        reset = None if given["resets"] is None else given["resets"][j] != 0

        def before(name, at):
            value = getattr(carries, name)[j, :, at]
            if reset is None:
                return value
            return jnp.where(reset, getattr(given["reset_carry"], name)[:, at], value)

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
                return adjoint.mix(surrogate, g, candidate, old)

            if given["open"] is None:
                new = update()
            else:
                new = jax.lax.cond(given["open"][j, n] != 0, update, lambda: old)
            for name in fields:
                getattr(carries, name)[j + 1, :, at] = getattr(new, name)

        tiling.each_block(block)

    jax.lax.fori_loop(jnp.int32(0), given["count"][0], step, None)


def _backward(tiling: Tiling, given: dict, made: dict) -> None:
    """The body of the backward kernel: reads `given`, writes `made`."""
    cell, out = tiling.cell, made["initial_carry"].h.dtype
    fields, count = cell.carry._fields, given["count"][0]

    def begin(_, at):
        for name in fields:
            ct_future = getattr(given["carry"], name)[:, at]
            getattr(made["initial_carry"], name)[:, at] = ct_future
            if made["reset_carry"] is not None:
                getattr(made["reset_carry"], name)[:, at] = jnp.zeros_like(ct_future)

    tiling.each_block(begin)

    def step(i, _):
        j = count - 1 - i
        is_open = None if given["open"] is None else lambda n: given["open"][j, n] != 0

        def block(n, at):
            total = cell.carry(
                *(
                    getattr(made["initial_carry"], name)[:, at]
                    + getattr(given["ct_output"], name)[j, :, at]
                    for name in fields
                )
            )

            def transpose():
                old = cell.carry(*(getattr(given["old"], name)[j, :, at] for name in fields))
                z = {name: ref[j, :, at] for name, ref in given["z"].items()}
                u = {name: ref[j, :, at] for name, ref in given["u"].items()}
                g = None if given["g"] is None else given["g"][j, :, at]
                g = None if g is None else jnp.broadcast_to(g, old.h.shape)
                vectors = _vectors(given, at, old.h.shape)
                cotangents = adjoint.rule_vjp(cell, vectors, total, old, z, u, g)[1]
                return cotangents.carry, {name: cotangents.u[name] for name in cell.recurrent}

            def closed():
                zero = jnp.zeros_like(total.h)
                return total, dict.fromkeys(cell.recurrent, zero)

            if is_open is None:
                ct_carry, du = transpose()
            else:
                ct_carry, du = jax.lax.cond(is_open(n), transpose, closed)
            for name in fields:
                getattr(made["total"], name)[j, :, at] = getattr(total, name)
                getattr(made["initial_carry"], name)[:, at] = getattr(ct_carry, name)
            for name, ref in made["du"].items():
                ref[:, at] = du[name]

        tiling.each_block(block)
        reset = None if given["resets"] is None else given["resets"][j] != 0

        def through_products(_, at):
            refs = made["initial_carry"]
            ct_carry = cell.carry(*(getattr(refs, name)[:, at] for name in fields))
            more = [
                tiling.product(
                    out,
                    lambda k, name=name: made["du"][name][:, k],
                    lambda k, name=name: given["recurrent"][name][at, k].T,
                    is_open,
                )
                for name in cell.recurrent
            ]
            ct_carry = ct_carry._replace(h=ct_carry.h + sum(more)) if more else ct_carry
            for name in fields:
                value = getattr(ct_carry, name)
                if reset is not None:
                    ct_reset = getattr(made["reset_carry"], name)
                    ct_reset[:, at] += jnp.where(reset, value, 0)
                    value = jnp.where(reset, 0, value)
                getattr(refs, name)[:, at] = value

        tiling.each_block(through_products)

    jax.lax.fori_loop(jnp.int32(0), count, step, None)


def _vectors(given: dict, at: Any, shape: tuple[int, ...]) -> dict[str, Array]:
    """The per-neuron parameters of a block, broadcast."""
    return {name: jnp.broadcast_to(ref[:, at], shape) for name, ref in given["vectors"].items()}
