"""The CUDA back end as a function with a custom derivative.

The kernels go step by step and do what needs the order of time: forward the products with the
state at open neurons and the rule, backward the rule and the cotangent of the state. Products of
many steps at once are XLA's: those with the input, backward those with the state, and the gradients
of all weights. Long sequences are run in pieces, since the results of such products take several
times the memory of the states.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.cells import Cell
from surnn_jax.scan import adjoint, compiled, masked
from surnn_jax.scan.adjoint import StepCotangents
from surnn_jax.scan.compiled import Compiled, carry_of, or_empty, ordered
from surnn_jax.scan.cuda import check, library
from surnn_jax.scan.cuda.check import Kind
from surnn_jax.scan.cuda.measured import MEASURED
from surnn_jax.scan.derivatives import instantiate_zeros
from surnn_jax.scan.spec import ScanInputs, ScanShape, ScanSpec, UpdateRates
from surnn_jax.typing import Array, Carry, Params

MOST_BYTES = 96 << 10
"""Of shared memory that a block may take, which every GPU since 2020 has."""

_PROCESSORS = 104  # of an A100, and a few to spare
_PIECE = (128, 512)  # steps: fewer make small products, more take more memory
_WIDTHS = {("float32", "float32"), ("bfloat16", "float32"), ("float64", "float64")}


def unsupported(spec: ScanSpec, shape: ScanShape) -> str | None:
    """Why the kernel cannot run the scan; None if it can.

    The cell's rule must be that of tanh, GRU (reset after) or LSTM (with or without peepholes), the
    switch hard, operands and state float32 or float64, or bfloat16 operands with a float32 state.
    """
    return _unknown(spec, shape) or _missing(shape.platform)


def _unknown(spec: ScanSpec, shape: ScanShape) -> str | None:
    """What the kernel lacks, wherever it is built."""
    if (lacking := compiled.unknown(spec)) is not None:
        return lacking
    if (spec.dtype.name, jnp.dtype(shape.carry_dtype).name) not in _WIDTHS:
        return f"the kernel does not mix {spec.dtype} operands with a {shape.carry_dtype} state"
    # An exported program may run where the kernel is not built.
    if shape.symbolic:
        return "a size is a symbol, as in an export"
    if memory(spec.cell, shape.features, jnp.dtype(shape.carry_dtype).itemsize, 1) > MOST_BYTES:
        return f"{shape.features} neurons do not fit into the shared memory of a GPU"
    return None


def _missing(platform: str) -> str | None:
    if platform != "gpu":
        return f"the kernel does not run on a {platform}"
    return None if library.available() else f"no CUDA kernel ({library.load()})"


def memory(cell: Cell, features: int, itemsize: int, rows: int) -> int:
    """Bytes of shared memory a block takes at most, `rows` of the batch a block: backward."""
    carries, gates = len(cell.carry._fields), len(cell.recurrent)
    values = {1: 1, 3: 5, 4: 6}[gates]
    row = itemsize * rows * (features + 4)
    groups = max(1, min(8, 256 // -(-features // 4)))  # as in src/kernel.cu
    return (3 * carries + values + gates + groups) * row + 14 * features + 512


def rows_of(cell: Cell, shape: ScanShape) -> int:
    """How many rows of the batch one block takes: 1, 2 or 4.

    Rows of a block share what it reads of the weights, but wait for one another, and a processor
    runs one block at a time: so the fewest with which all blocks run at once on an A100. Examples
    with tables of their own have nothing to share, and float64 is for checks.
    """
    itemsize = jnp.dtype(shape.carry_dtype).itemsize
    if shape.per_example or itemsize == 8:
        return 1
    wanted = 1
    while wanted < 4 and shape.batch > wanted * _PROCESSORS:
        wanted *= 2
    while wanted > 1 and memory(cell, shape.features, itemsize, wanted) > MOST_BYTES:
        wanted //= 2
    return wanted


def cost(spec: ScanSpec, shape: ScanShape, rates: UpdateRates) -> float:
    """Infinite, unless JAX computes on a GPU of a kind in :data:`.measured.MEASURED`."""
    del spec
    if shape.platform != "gpu" or jax.default_backend() != "gpu":
        return math.inf
    found = MEASURED.get(jax.devices()[0].device_kind)
    return math.inf if found is None else found[0] + found[1] * rates.open


def scan(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """All carries, by the CUDA kernel.

    :func:`.masked.scan` runs instead if the kernel cannot (:func:`unsupported`), in a program that
    is lowered for another platform, and if the kernel does not give what `masked` gives on a small
    problem (:mod:`.check`). One warning says so if the kernel is missing or wrong, or if JAX does
    not compute on a GPU. `vmap` runs one example after another.
    """
    shape = inputs.scan_shape()
    if _unknown(spec, shape) is not None:
        return masked.scan(spec, inputs)
    if (platform := compiled.platform()) not in ("gpu", "cuda"):
        library.warn_of(platform)
        # The program may yet be lowered for a GPU that is not there.
        return masked.scan(spec, inputs) if library.register() else scan_on("cuda", spec, inputs)
    reason = library.register()
    if reason:
        reason = f"no CUDA kernel ({reason})"
    else:
        axes = 0 if inputs.logits is None else inputs.logits.ndim
        kind = Kind(spec.cell, spec.dtype, axes, shape.features, rows_of(spec.cell, shape))
        reason = check.refusal(_on_gpu(kind.rows), kind)
    if reason:
        library.warn(reason)
        return masked.scan(spec, inputs)
    return scan_on("cuda", spec, inputs)


@functools.cache
def _on_gpu(rows: int) -> Callable[[ScanSpec, ScanInputs], Carry]:
    return functools.partial(scan_on, "cuda", rows=rows)


def scan_on(
    platform: str,
    spec: ScanSpec,
    inputs: ScanInputs,
    rows: int | None = None,
    piece: int | None = None,
) -> Carry:
    """:func:`scan` by kernels that are registered for a platform, whatever JAX computes on.

    Args:
        platform: "cuda", or "cpu" for the emulation of the tests.
        spec: of the scan.
        inputs: likewise.
        rows: of the batch a block; None for :func:`rows_of`.
        piece: steps of a piece, which must divide T; None for :func:`piece_of`.
    """
    piece = piece_of(inputs.x.shape[0]) if piece is None else piece
    return compiled.scan(_kernel(platform, rows, piece), spec, inputs)


@functools.cache
def _kernel(platform: str, rows: int | None, piece: int) -> Compiled:
    run, pull = (functools.partial(way, rows, piece) for way in (_run, _pull))
    return Compiled(platform, run, pull)


def piece_of(steps: int) -> int:
    """How many steps are run at once: all, or a part of the sequence that divides it.

    Examples:
        >>> [piece_of(steps) for steps in (0, 500, 784, 4096, 4099)]
        [0, 500, 392, 512, 4099]
    """
    least, most = _PIECE
    if steps <= most:
        return steps
    return next((n for n in range(most, least - 1, -1) if steps % n == 0), steps)


def _packed(spec: ScanSpec, params: Params) -> Array:
    """The recurrent weights by neuron, ``[H, G, K]`` with K a multiple of 4, as operands."""
    kernels = [params["recurrent"][g].T for g in spec.cell.recurrent]
    rows = jnp.stack(kernels, axis=1).astype(spec.dtype)
    return jnp.pad(rows, ((0, 0), (0, 0), (0, -rows.shape[-1] % 4)))


def _vectors(cell: Cell, params: Params) -> list[Array]:
    return [params["vector"][name] for name, _ in cell.vectors]


def _masks(inputs: ScanInputs) -> list[Array]:
    return [
        or_empty(inputs.logits, inputs.x.dtype),
        or_empty(inputs.step_mask, jnp.bool_),
        or_empty(inputs.resets, jnp.bool_),
    ]


def _attributes(rows: int | None, spec: ScanSpec, inputs: ScanInputs) -> dict[str, Any]:
    chosen = rows_of(spec.cell, inputs.scan_shape()) if rows is None else rows
    return {**compiled.attributes(spec, inputs), "rows": chosen}


def _run(rows, size, spec, inputs):
    steps = inputs.x.shape[0]
    if size == steps:
        return _run_piece(rows, spec, inputs)

    def turn(carry, i):
        given, _ = _cut(inputs, i, size, carry)
        found = _run_piece(rows, spec, given)
        return jax.tree.map(lambda c: c[-1], found), found

    _, found = jax.lax.scan(turn, inputs.initial_carry, jnp.arange(steps // size))
    return _joined(found)


def _cut(inputs: ScanInputs, i: Array, size: int, start: Carry, *more: Any) -> tuple:
    """The inputs of piece i, which starts from a carry, and its part of more arrays ``[T, …]``."""
    x, logits, step_mask, resets, *rest = jax.tree.map(
        lambda a: jax.lax.dynamic_slice_in_dim(a, i * size, size), (*inputs.per_step, *more)
    )
    given = ScanInputs(inputs.params, x, logits, start, inputs.reset_carry, step_mask, resets)
    return given, rest


def _joined(pieces: Any) -> Any:
    """``[N, size, …]`` as ``[T, …]``."""
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), pieces)


def _run_piece(rows, spec, inputs):
    cell, params = spec.cell, inputs.params
    z = cell.project(params, inputs.x, spec.dtype)
    fields = [compiled.field_type(inputs)] * len(cell.carry._fields)
    leaves = jax.ffi.ffi_call(library.FORWARD, fields, vmap_method="sequential")(
        *(z[g] for g in cell.inputs),
        *_masks(inputs),
        *ordered(inputs.initial_carry),
        *ordered(inputs.reset_carry),
        _packed(spec, params),
        *_vectors(cell, params),
        **_attributes(rows, spec, inputs),
    )
    return carry_of(cell, leaves)


def _pull(rows, size, spec, wanted, inputs, carries, ct_outputs):
    steps = inputs.x.shape[0]
    if size == steps:
        return _pull_piece(rows, spec, wanted, inputs, carries, ct_outputs)
    ct_outputs = instantiate_zeros(ct_outputs, carries)

    def pull(i, ct_carry):
        start = jax.tree.map(
            lambda s, c: jnp.where(i == 0, s, c[jnp.maximum(i * size - 1, 0)]),
            inputs.initial_carry,
            carries,
        )
        given, (own, ct) = _cut(inputs, i, size, start, carries, ct_outputs)
        if ct_carry is not None:
            ct = jax.tree.map(lambda d, more: d.at[-1].add(more), ct, ct_carry)
        return _pull_piece(rows, spec, wanted, given, own, ct)

    def turn(state, i):
        ct_carry, sums = state
        found = pull(i, ct_carry)
        sums = jax.tree.map(jnp.add, sums, (found.params, found.reset_carry))
        return (found.initial_carry, sums), (found.x, found.logits)

    # The last piece on its own: its results say of which types the sums are.
    last = pull(jnp.asarray(steps // size - 1), None)
    state = last.initial_carry, (last.params, last.reset_carry)
    before = jnp.arange(steps // size - 1)
    (ct_carry, (params, reset_carry)), parts = jax.lax.scan(turn, state, before, reverse=True)
    x, logits = jax.tree.map(
        lambda a, b: jnp.concatenate([a, b]), _joined(parts), (last.x, last.logits)
    )
    return ScanInputs(params, x, logits, ct_carry, reset_carry)


def _pull_piece(rows, spec, wanted, inputs, carries, ct_outputs):
    cell, params, surrogate = spec.cell, inputs.params, spec.surrogate
    old = masked.carries_before(inputs, carries)
    z = cell.project(params, inputs.x, spec.dtype)
    u = cell.recur(params, old.h, spec.dtype)
    every, one = jax.typeof(old.h), jax.typeof(inputs.initial_carry.h)
    fields, sums = len(cell.carry._fields), _sums(cell)
    none = jax.ShapeDtypeStruct((0,), old.h.dtype)
    teach, low = 0, -math.inf
    if wanted.logits:
        teach = surrogate.gradient_rows(inputs.x.shape[1])
        low = -surrogate.support
    results = [every] * len(sums) + [every if wanted.logits else none] + [one] * 2 * fields
    found = jax.ffi.ffi_call(library.BACKWARD, results, vmap_method="sequential")(
        *(z[g] for g in cell.inputs),
        *_masks(inputs),
        *(u[g] for g in cell.recurrent),
        *ordered(old),
        *(or_empty(d, old.h.dtype) for d in ordered(ct_outputs)),
        _packed(spec, params),
        *_vectors(cell, params),
        **_attributes(rows, spec, inputs),
        low=low,
        teach=teach,
    )
    d_sum = dict(zip(sums, found, strict=False))
    gap, *ends = found[len(sums) :]
    dlogits = None
    if wanted.logits:
        dlogits = adjoint.of_gaps(surrogate, inputs.logits, None, gap)
    return ScanInputs(
        params=_weights(spec, inputs, old, carries, d_sum),
        x=adjoint.input_cotangents(spec, params, d_sum) if wanted.x else None,
        logits=dlogits,
        initial_carry=carry_of(cell, ends[:fields]),
        reset_carry=carry_of(cell, ends[fields:]),
    )


def _sums(cell: Cell) -> list[str]:
    """The sums of a cell's rule, by gate; apart the one that a GRU multiplies by r."""
    return [*cell.inputs, *(["u"] if "c_n" in dict(cell.vectors) else [])]


def _weights(spec, inputs, old, carries, d_sum) -> Params:
    """The gradients of the parameters, from the cotangents of the rule's sums."""
    cell = spec.cell
    own = {g: d_sum["u" if g == "n" and "u" in d_sum else g] for g in cell.recurrent}
    cotangents = StepCotangents({}, old, d_sum, own)
    found = adjoint.kernel_gradients(spec, inputs.params, inputs.x, old.h, None, cotangents)
    biases = {f"b_{g}": d for g, d in d_sum.items()} | {"c_n": d_sum.get("u")}
    if cell.inputs == ("h",):
        biases = {"b": d_sum["h"]}
    vectors = {}
    for name, _ in cell.vectors:
        if name in biases:
            vectors[name] = biases[name].sum((0, 1))
        else:  # a peephole: v_o reads the new memory cell
            read = carries.c if name == "v_o" else old.c
            d = d_sum[name[2:]]
            vectors[name] = jnp.where(d == 0, 0, d * read).sum((0, 1))
    return {**found, "vector": vectors}
