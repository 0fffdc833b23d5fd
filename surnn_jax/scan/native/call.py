"""The native back end as a function with a custom derivative."""

import math

import jax
import jax.numpy as jnp

from surnn_jax.cells import Cell
from surnn_jax.scan import compiled, masked
from surnn_jax.scan.compiled import Compiled, carry_of, or_empty, ordered
from surnn_jax.scan.native import library
from surnn_jax.scan.spec import ScanInputs, ScanShape, ScanSpec, UpdateRates
from surnn_jax.typing import Array, Carry, Params

_MOST_NEURONS = 1 << 20  # as in src/ffi.cc


def unsupported(spec: ScanSpec, shape: ScanShape) -> str | None:
    """Why the kernel cannot run the scan; None if it can.

    The cell's rule must be that of tanh, GRU (reset after) or LSTM (with or without peepholes), the
    switch hard, and operands and state both float32 or both float64.
    """
    return _unknown(spec, shape) or _missing()


def _unknown(spec: ScanSpec, shape: ScanShape) -> str | None:
    """What the kernel lacks, wherever it is built."""
    if (lacking := compiled.unknown(spec)) is not None:
        return lacking
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
    if (platform := compiled.platform()) != "cpu":
        library.warn_of(platform)
    return compiled.scan(_KERNEL, spec, inputs)


def flatten(cell: Cell, params: Params) -> list[Array]:
    """Parameters in the kernel's order."""
    return [
        *(params["input"][g] for g in cell.inputs),
        *(params["recurrent"][g] for g in cell.recurrent),
        *(params["vector"][name] for name, _ in cell.vectors),
    ]


def _unflatten(cell: Cell, leaves: list[Array]) -> Params:
    """The inverse of :func:`flatten`."""
    rest = iter(leaves)
    return {
        "input": {g: next(rest) for g in cell.inputs},
        "recurrent": {g: next(rest) for g in cell.recurrent},
        "vector": {name: next(rest) for name, _ in cell.vectors},
    }


def _leading(inputs: ScanInputs) -> list[Array]:
    """The arguments that both directions begin with; arrays of size 0 for None."""
    return [
        inputs.x,
        or_empty(inputs.logits, inputs.x.dtype),
        or_empty(inputs.step_mask, jnp.bool_),
        or_empty(inputs.resets, jnp.bool_),
        *ordered(inputs.initial_carry),
        *ordered(inputs.reset_carry),
    ]


def _run(spec, inputs):
    cell = spec.cell
    fields = [compiled.field_type(inputs)] * len(cell.carry._fields)
    call = jax.ffi.ffi_call(library.FORWARD, fields, vmap_method="sequential")
    leaves = call(
        *_leading(inputs), *flatten(cell, inputs.params), **compiled.attributes(spec, inputs)
    )
    return carry_of(cell, leaves)


def _pull(spec, wanted, inputs, carries, ct_outputs):
    cell, x, logits = spec.cell, inputs.x, inputs.logits
    parameters = flatten(cell, inputs.params)
    none = jax.ShapeDtypeStruct((0,), x.dtype)
    carry_types = [*ordered(inputs.initial_carry), *ordered(inputs.reset_carry)]
    results = [
        jax.typeof(x) if wanted.x else none,
        jax.typeof(logits) if wanted.logits else none,
        *map(jax.typeof, [*carry_types, *parameters]),
    ]
    call = jax.ffi.ffi_call(library.BACKWARD, results, vmap_method="sequential")
    surrogate, batch = spec.surrogate, x.shape[1]
    dx, dlogits, *rest = call(
        *_leading(inputs),
        *ordered(carries),
        *(or_empty(d, x.dtype) for d in ordered(ct_outputs)),
        *parameters,
        **compiled.attributes(spec, inputs),
        slope=compiled.slope(spec),
        shape=1.0 if surrogate is None else surrogate.shape,
        rows=batch if surrogate is None else surrogate.gradient_rows(batch),
    )
    fields = len(cell.carry._fields)
    return ScanInputs(
        params=_unflatten(cell, rest[2 * fields :]),
        x=dx if wanted.x else None,
        logits=dlogits if wanted.logits else None,
        initial_carry=carry_of(cell, rest[:fields]),
        reset_carry=carry_of(cell, rest[fields : 2 * fields]),
    )


_KERNEL = Compiled("cpu", _run, _pull)
