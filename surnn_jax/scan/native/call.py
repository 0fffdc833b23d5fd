"""The native back end as a function with a custom derivative."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from surnn_jax.cells import GRU, LSTM, LSTM_PEEPHOLE, TANH, Cell
from surnn_jax.scan import adjoint, masked
from surnn_jax.scan.native import library
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params

# By their rule, which cells of several names share.
_CELLS = {TANH.rule: 0, GRU.rule: 1, LSTM.rule: 2, LSTM_PEEPHOLE.rule: 3}
_TABLES = {None: 0, 2: 1, 3: 2}
_SLOPES = {"window": 0, "sigmoid": 1, "identity": 2}


def supports(cell: Cell, gate: Surrogate | None, dtype: Any) -> bool:
    """Whether the kernel computes this itself: else :func:`scan` falls back to `masked`.

    Args:
        cell: its rule must be that of tanh, GRU (reset after) or LSTM (with or without peepholes).
        gate: must be hard.
        dtype: of operands; float32 or float64.
    """
    known = cell.rule in _CELLS and (gate is None or gate.name in _SLOPES)
    return known and jnp.dtype(dtype) in (jnp.dtype(jnp.float32), jnp.dtype(jnp.float64))


def scan(
    cell: Cell,
    gate: Surrogate | None,
    dtype: Any,
    params: Params,
    x: Array,
    a: Array | None,
    start: Carry,
    fresh: Carry,
    keep: Array | None,
    resets: Array | None,
) -> Carry:
    """All carries, by the compiled kernel; arguments and result as in :func:`.reference.scan`.

    Operands are not rounded: where `dtype` is not the dtype of the state, or the kernel lacks the
    cell or the gate (:func:`supports`), :func:`.masked.scan` answers instead; and where a size is
    a symbol of `jax.export`, since nobody else has the kernel. On a GPU or TPU, and in a program
    lowered for one, `masked` answers too. `vmap` runs one example after another. An array sharded
    over devices is gathered on each of them, unless :mod:`surnn_jax.scan.sharding` cuts the batch
    up first.
    """
    out = cell.carry_dtype(params)
    fits = supports(cell, gate, dtype) and jnp.dtype(dtype) == out
    fits = fits and not any(map(is_symbolic_dim, x.shape))
    if not fits or library.register():
        if fits:
            library.warn()
        return masked.scan(cell, gate, dtype, params, x, a, start, fresh, keep, resets)
    if (platform := _platform()) != "cpu":
        library.warn_of(platform)
    params, x, start, fresh = jax.tree.map(lambda v: v.astype(out), (params, x, start, fresh))
    a = None if a is None else a.astype(out)
    return _scan(cell, gate, params, x, a, start, fresh, keep, resets)


def _platform() -> str:
    """What JAX computes on where nothing else is said."""
    device = jax.config.jax_default_device
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def _ordered(carry: Carry) -> list[Array]:
    """The fields of a carry in the kernel's order: h, then c."""
    return [carry.h, *(leaf for name, leaf in carry._asdict().items() if name != "h")]


def _carry(cell: Cell, leaves: list[Array]) -> Carry:
    names = ["h", *(name for name in cell.carry._fields if name != "h")]
    return cell.carry(**dict(zip(names, leaves, strict=True)))


def _flat(cell: Cell, params: Params) -> list[Array]:
    return [
        *(params["input"][g] for g in cell.inputs),
        *(params["recurrent"][g] for g in cell.recurrent),
        *(params["vector"][name] for name, _ in cell.vectors),
    ]


def _or_empty(value: Array | None, dtype: Any) -> Array:
    return jnp.zeros((0,), dtype) if value is None else value


def _leading(a, keep, resets, start, fresh, dtype) -> list[Array]:
    return [
        _or_empty(a, dtype),
        _or_empty(keep, jnp.bool_),
        _or_empty(resets, jnp.bool_),
        *_ordered(start),
        *_ordered(fresh),
    ]


def _call(cell: Cell, a: Array | None) -> dict[str, int]:
    return {"cell": _CELLS[cell.rule], "table": _TABLES[None if a is None else a.ndim]}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(cell, gate, *args):
    return _run(cell, gate, *args)


# As one function of JAX's, it is traced once for all calls that are alike. Which of the two runs is
# known when a program is lowered, for one platform or for several.
@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _run(cell, gate, *args):
    compiled = functools.partial(_run_compiled, cell)
    dense = functools.partial(masked.scan, cell, gate, args[1].dtype)
    return jax.lax.platform_dependent(*args, cpu=compiled, default=dense)


def _run_compiled(cell, params, x, a, start, fresh, keep, resets):
    # As a type, not as a bare shape: inside shard_map it says over which axes it varies.
    one = jax.eval_shape(lambda h: jnp.broadcast_to(h[None], (x.shape[0], *h.shape)), start.h)
    call = jax.ffi.ffi_call(
        library.FORWARD, [one] * len(cell.carry._fields), vmap_method="sequential"
    )
    leading = _leading(a, keep, resets, start, fresh, x.dtype)
    return _carry(cell, call(x, *leading, *_flat(cell, params), **_call(cell, a)))


def _forward(cell, gate, *primals):
    values = adjoint.values(primals)
    _, x, a, *_ = primals
    # Known while tracing, and carried to the backward pass by what is None.
    wants = tuple(() if p is not None and p.perturbed else None for p in (x, a))
    carries = _scan(cell, gate, *values)
    return carries, (values, carries, wants)


def _backward(cell, gate, saved, cotangents):
    args, carries, wants = saved
    unread = jax.custom_derivatives.SymbolicZero
    read = [None if isinstance(d, unread) else d for d in _ordered(cotangents)]
    return (*_pull(cell, gate, args, carries, wants, read), None, None)


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _pull(cell, gate, args, carries, wants, read):
    """What is owed to params, x, a, start and fresh; `read`: to the carries, where it is not 0."""

    def dense(args, carries, read):
        whole = [
            jnp.zeros_like(carry) if d is None else d
            for carry, d in zip(_ordered(carries), read, strict=True)
        ]
        owed = masked.pull(cell, gate, args[1].dtype, (args, carries), _carry(cell, whole))
        dparams, dx, da, dstart, dfresh, *_ = owed
        dx, da = (
            jax.tree.map(jnp.zeros_like, d) if want is None else d
            for d, want in zip((dx, da), wants, strict=True)
        )
        return dparams, dx, da, dstart, dfresh

    compiled = functools.partial(_pull_compiled, cell, gate, wants)
    return jax.lax.platform_dependent(args, carries, read, cpu=compiled, default=dense)


def _pull_compiled(cell, gate, wants, args, carries, read):
    params, x, a, start, fresh, keep, resets = args
    wants_x, wants_a = wants
    batch = x.shape[1]
    dtype, none = x.dtype, jax.ShapeDtypeStruct((0,), x.dtype)
    flat = _flat(cell, params)
    results = [
        none if wants_x is None else jax.typeof(x),
        none if wants_a is None else jax.typeof(a),
        *map(jax.typeof, [*_ordered(start), *_ordered(fresh), *flat]),
    ]
    call = jax.ffi.ffi_call(library.BACKWARD, results, vmap_method="sequential")
    leading = _leading(a, keep, resets, start, fresh, dtype)
    dx, da, *rest = call(
        x,
        *leading,
        *_ordered(carries),
        *(_or_empty(d, dtype) for d in read),
        *flat,
        **_call(cell, a),
        slope=_SLOPES["window" if gate is None else gate.name],
        shape=1.0 if gate is None else gate.shape,
        rows=_rows(gate, batch),
    )
    fields = len(cell.carry._fields)
    dstart, dfresh = _carry(cell, rest[:fields]), _carry(cell, rest[fields : 2 * fields])
    leaves = iter(rest[2 * fields :])
    dparams = {
        "input": {g: next(leaves) for g in cell.inputs},
        "recurrent": {g: next(leaves) for g in cell.recurrent},
        "vector": {name: next(leaves) for name, _ in cell.vectors},
    }
    if a is not None and wants_a is None:
        da = jnp.zeros_like(a)
    return (
        dparams,
        jnp.zeros_like(x) if wants_x is None else dx,
        None if a is None else da,
        dstart,
        dfresh,
    )


def _rows(gate: Surrogate | None, batch: int) -> int:
    """How many rows of the batch teach the switch."""
    return batch if gate is None else gate.teachers(batch)


_scan.defvjp(_forward, _backward, symbolic_zeros=True)
