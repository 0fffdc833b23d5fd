"""The native back end as a function with a custom derivative."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from surnn_jax.cells import GRU, LSTM, LSTM_PEEPHOLE, TANH, Cell
from surnn_jax.cells.variants import is_variant
from surnn_jax.scan import derivatives, masked
from surnn_jax.scan.native import library
from surnn_jax.scan.spec import ScanInputs, ScanShape, ScanSpec, UpdateRates
from surnn_jax.typing import Array, Carry, Params

# Keyed by rule, because cells of different names share one.
_CELLS = {TANH.rule: 0, GRU.rule: 1, LSTM.rule: 2, LSTM_PEEPHOLE.rule: 3}
_MASKS = {None: 0, 2: 1, 3: 2}
_MOST_NEURONS = 1 << 20  # as in src/ffi.cc
_SLOPES = {"triangular": 0, "sigmoid": 1, "straight_through": 2}


def unsupported(spec: ScanSpec, shape: ScanShape) -> str | None:
    """Why the kernel cannot run the scan; None if it can.

    The cell's rule must be that of tanh, GRU (reset after) or LSTM (with or without peepholes), the
    switch hard, and operands and state both float32 or both float64.
    """
    return _unknown(spec, shape) or _missing()


def _unknown(spec: ScanSpec, shape: ScanShape) -> str | None:
    """What the kernel lacks, wherever it is built."""
    if spec.cell.rule not in _CELLS:
        changed = " with other functions" if is_variant(spec.cell) else ""
        return f"the kernel does not know the cell {spec.cell.name}{changed}"
    if spec.surrogate is not None and spec.surrogate.name not in _SLOPES:
        return f"the kernel does not know {spec.surrogate.name} switches"
    if spec.dtype not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.float64)):
        return f"the kernel does not round operands to {spec.dtype}"
    if spec.dtype != shape.carry_dtype:
        return f"the kernel does not mix {spec.dtype} operands with a {shape.carry_dtype} state"
    if not 0 < shape.features <= _MOST_NEURONS:
        return f"the kernel does not run {shape.features} neurons"
    # An exported program may run where the kernel is not built.
    return "a size is a symbol, as in an export" if shape.symbolic else None


def _missing() -> str | None:
    return None if library.available() else f"no compiled kernel ({library.load()})"


def cost(spec: ScanSpec, shape: ScanShape, rates: UpdateRates) -> float:
    """Falls with the rate; infinite on accelerators, for which there is no kernel.

    Fits what was measured with a GRU of H = 256, B = 16, T = 1024 on two cores: 0.05 of the dense
    cost at a rate of 5 %, 0.08 at 10 %, 0.15 at 25 %, 0.5 at 100 %, frozen or learned.
    """
    del spec
    return 0.5 * rates.open**0.75 if shape.platform == "cpu" else math.inf


def scan(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """All carries, by the compiled kernel.

    :func:`.masked.scan` runs instead if the kernel cannot (:func:`unsupported`), and in a program
    that is lowered for a GPU or TPU. One warning says so if only the library is missing, or if JAX
    computes on an accelerator. `vmap` runs one example after another. An array sharded over devices
    is gathered on each of them, unless :mod:`surnn_jax.scan.sharding` cuts the batch first.
    """
    if _unknown(spec, inputs.scan_shape()) is not None:
        return masked.scan(spec, inputs)
    if library.register():
        library.warn()
        return masked.scan(spec, inputs)
    if (platform := _platform()) != "cpu":
        library.warn_of(platform)
    out = spec.cell.carry_dtype(inputs.params)
    return derivatives.scan(
        _KERNELS,
        spec,
        ScanInputs(
            *jax.tree.map(lambda v: v.astype(out), inputs[:5]), inputs.step_mask, inputs.resets
        ),
    )


def _platform() -> str:
    """The platform of JAX's default device."""
    device = jax.config.jax_default_device
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def _ordered(carry: Carry) -> list[Array]:
    """The fields of a carry in the kernel's order: h, then c."""
    return [carry.h, *(leaf for name, leaf in carry._asdict().items() if name != "h")]


def _carry(cell: Cell, leaves: list[Array]) -> Carry:
    """The inverse of :func:`_ordered`."""
    names = ["h", *(name for name in cell.carry._fields if name != "h")]
    return cell.carry(**dict(zip(names, leaves, strict=True)))


def _flatten(cell: Cell, params: Params) -> list[Array]:
    """Parameters in the kernel's order."""
    return [
        *(params["input"][g] for g in cell.inputs),
        *(params["recurrent"][g] for g in cell.recurrent),
        *(params["vector"][name] for name, _ in cell.vectors),
    ]


def _unflatten(cell: Cell, leaves: list[Array]) -> Params:
    """The inverse of :func:`_flatten`."""
    rest = iter(leaves)
    return {
        "input": {g: next(rest) for g in cell.inputs},
        "recurrent": {g: next(rest) for g in cell.recurrent},
        "vector": {name: next(rest) for name, _ in cell.vectors},
    }


def _or_empty(value: Array | None, dtype: Any) -> Array:
    return jnp.zeros((0,), dtype) if value is None else value


def _leading(inputs: ScanInputs) -> list[Array]:
    """The arguments that both directions begin with; arrays of size 0 for None."""
    return [
        inputs.x,
        _or_empty(inputs.logits, inputs.x.dtype),
        _or_empty(inputs.step_mask, jnp.bool_),
        _or_empty(inputs.resets, jnp.bool_),
        *_ordered(inputs.initial_carry),
        *_ordered(inputs.reset_carry),
    ]


def _attributes(spec: ScanSpec, inputs: ScanInputs) -> dict[str, int]:
    axes = None if inputs.logits is None else inputs.logits.ndim
    return {"cell": _CELLS[spec.cell.rule], "table": _MASKS[axes]}


# Under `jit`, JAX traces it once for all similar calls. The branch is chosen when the program is
# lowered, for one platform or for several.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _run(spec, inputs):
    def compiled(inputs):
        leaves, form = jax.tree.flatten((inputs,))
        fields = _kernel.bind(*leaves, spec=spec, wanted=None, form=form)
        return spec.cell.carry(*fields)

    dense = functools.partial(masked.forward_accelerated, spec)
    return jax.lax.platform_dependent(inputs, cpu=compiled, default=dense)


def _run_compiled(spec, inputs):
    cell, h, steps = spec.cell, inputs.initial_carry.h, inputs.x.shape[0]
    # As a type, not as a bare shape: inside shard_map it says over which axes it varies.
    field = jax.eval_shape(lambda h: jnp.broadcast_to(h[None], (steps, *h.shape)), h)
    call = jax.ffi.ffi_call(
        library.FORWARD, [field] * len(cell.carry._fields), vmap_method="sequential"
    )
    leaves = call(*_leading(inputs), *_flatten(cell, inputs.params), **_attributes(spec, inputs))
    return _carry(cell, leaves)


def _backward(spec, inputs, carries, wanted, ct_outputs):
    return _pull(spec, wanted, inputs, carries, _ordered(ct_outputs))


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _pull(spec, wanted, inputs, carries, used):
    def compiled(*arguments):
        leaves, form = jax.tree.flatten(arguments)
        found = _kernel.bind(*leaves, spec=spec, wanted=wanted, form=form)
        return jax.tree.unflatten(jax.tree.structure(_like(wanted, arguments[0])), found)

    dense = functools.partial(_pull_dense, spec, wanted, backward=masked.backward_accelerated)
    return jax.lax.platform_dependent(inputs, carries, used, cpu=compiled, default=dense)


def _like(wanted, inputs):
    """What a backward kernel returns, as the inputs whose cotangents these are."""
    return ScanInputs(
        inputs.params,
        inputs.x if wanted.x else None,
        inputs.logits if wanted.logits else None,
        inputs.initial_carry,
        inputs.reset_carry,
    )


def _pull_dense(spec, wanted, inputs, carries, used, backward=masked.backward):
    found = backward(spec, inputs, carries, wanted, _carry(spec.cell, used))
    return _like(wanted, found)


def _pull_compiled(spec, wanted, inputs, carries, used):
    cell, x, logits = spec.cell, inputs.x, inputs.logits
    parameters = _flatten(cell, inputs.params)
    none = jax.ShapeDtypeStruct((0,), x.dtype)
    carry_types = [*_ordered(inputs.initial_carry), *_ordered(inputs.reset_carry)]
    results = [
        jax.typeof(x) if wanted.x else none,
        jax.typeof(logits) if wanted.logits else none,
        *map(jax.typeof, [*carry_types, *parameters]),
    ]
    call = jax.ffi.ffi_call(library.BACKWARD, results, vmap_method="sequential")
    surrogate, batch = spec.surrogate, x.shape[1]
    dx, dlogits, *rest = call(
        *_leading(inputs),
        *_ordered(carries),
        *(_or_empty(d, x.dtype) for d in used),
        *parameters,
        **_attributes(spec, inputs),
        slope=_SLOPES["triangular" if surrogate is None else surrogate.name],
        shape=1.0 if surrogate is None else surrogate.shape,
        rows=batch if surrogate is None else surrogate.gradient_rows(batch),
    )
    fields = len(cell.carry._fields)
    return ScanInputs(
        params=_unflatten(cell, rest[2 * fields :]),
        x=dx if wanted.x else None,
        logits=dlogits if wanted.logits else None,
        initial_carry=_carry(cell, rest[:fields]),
        reset_carry=_carry(cell, rest[fields : 2 * fields]),
    )


# A call of the kernel is an operation of its own, so that the program can be exported: where it
# runs the kernel may be missing, so there the dense scan is written into it.
_kernel = Primitive("surnn_native")
_kernel.multiple_results = True


def _call_compiled(*leaves, spec, wanted, form):
    arguments = jax.tree.unflatten(form, leaves)
    compiled = (
        _run_compiled(spec, *arguments)
        if wanted is None
        else _pull_compiled(spec, wanted, *arguments)
    )
    return jax.tree.leaves(compiled)


def _call_dense(*leaves, spec, wanted, form):
    arguments = jax.tree.unflatten(form, leaves)
    dense = (
        masked.forward(spec, *arguments)
        if wanted is None
        else _pull_dense(spec, wanted, *arguments)
    )
    return jax.tree.leaves(dense)


_kernel.def_impl(jax.jit(_call_compiled, static_argnames=("spec", "wanted", "form")))


@_kernel.def_abstract_eval
def _types(*types, spec, wanted, form):
    inputs = jax.tree.unflatten(form, types)[0]
    if wanted is not None:
        return jax.tree.leaves(_like(wanted, inputs))
    h, steps = inputs.initial_carry.h, inputs.x.shape[0]
    return [derivatives.with_shape(h, (steps, *h.shape)) for _ in spec.cell.carry._fields]


def _lower(context, *leaves, **options):
    exported = context.module_context.lowering_parameters.for_export
    call = _call_dense if exported else _call_compiled
    return mlir.lower_fun(call, multiple_results=True)(context, *leaves, **options)


def _batch(leaves, axes, **options):
    """One example after another."""
    mapped = [i for i, axis in enumerate(axes) if axis is not None]

    def one(some):
        given = list(leaves)
        for i, leaf in zip(mapped, some, strict=True):
            given[i] = leaf
        return _kernel.bind(*given, **options)

    outputs = jax.lax.map(one, [jnp.moveaxis(leaves[i], axes[i], 0) for i in mapped])
    return outputs, [0] * len(outputs)


mlir.register_lowering(_kernel, _lower)
batching.primitive_batchers[_kernel] = _batch

_KERNELS = derivatives.Kernels(_run, _backward)
