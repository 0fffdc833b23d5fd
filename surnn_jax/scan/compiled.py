"""A back end whose two directions are kernels compiled ahead of time for one platform.

:func:`scan` runs them. In a program that is lowered for another platform, and in one that is
exported, the dense scan takes their place. `vmap` runs one example after another.

The rest is what such kernels share: in which order they take carries and parameters, and how they
number cells, tables and slopes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.cells import GRU, LSTM, LSTM_PEEPHOLE, TANH, Cell
from surnn_jax.cells.variants import is_variant
from surnn_jax.scan import derivatives, kernel_call, masked
from surnn_jax.scan.derivatives import Wanted
from surnn_jax.scan.spec import ScanInputs, ScanSpec
from surnn_jax.typing import Array, Carry

# Keyed by rule, because cells of different names share one.
CELLS = {TANH.rule: 0, GRU.rule: 1, LSTM.rule: 2, LSTM_PEEPHOLE.rule: 3}
_TABLES = {None: 0, 2: 1, 3: 2}
_SLOPES = {"triangular": 0, "sigmoid": 1, "straight_through": 2}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The two directions of a compiled kernel.

    Attributes:
        platform: the one it is compiled for, as `jax.lax.platform_dependent` spells it.
        run: ``(spec, inputs) -> carries``.
        pull: ``(spec, wanted, inputs, carries, ct_outputs) -> cotangents``, as
            :attr:`.derivatives.Kernels.backward`, but None for what is not wanted.
    """

    platform: str
    run: Callable[[ScanSpec, ScanInputs], Carry]
    pull: Callable[[ScanSpec, Wanted, ScanInputs, Carry, Carry], ScanInputs]


def scan(compiled: Compiled, spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """All carries, by a compiled kernel, whose arrays are all of the state's dtype."""
    out = spec.cell.carry_dtype(inputs.params)
    given = jax.tree.map(lambda v: v.astype(out), inputs[:5])
    return derivatives.scan(
        _kernels(compiled), spec, ScanInputs(*given, inputs.step_mask, inputs.resets)
    )


def platform() -> str:
    """The platform of JAX's default device."""
    device = jax.config.jax_default_device
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


@functools.cache
def _kernels(compiled: Compiled) -> derivatives.Kernels:
    """The same object for the same kernel, since it keys compiled programs."""

    def backward(spec, inputs, carries, wanted, ct_outputs):
        return _pull(compiled, spec, wanted, inputs, carries, ct_outputs)

    own = derivatives.Kernels(functools.partial(_run, compiled), backward)
    # The choice below is made again for each platform. It is made here already, since a program for
    # a CPU and a GPU at once would have one lowering of it for both under JAX 0.12.
    if compiled.platform == "cpu":
        return dataclasses.replace(own, accelerated=masked.ACCELERATED)
    return derivatives.Kernels(masked.forward, masked.backward, accelerated=own)


def unknown(spec: ScanSpec) -> str | None:
    """What every such kernel lacks of a scan, in one line; None if nothing."""
    if spec.cell.rule not in CELLS:
        changed = " with other functions" if is_variant(spec.cell) else ""
        return f"the kernel does not know the cell {spec.cell.name}{changed}"
    if spec.surrogate is not None and spec.surrogate.name not in _SLOPES:
        return f"the kernel does not know {spec.surrogate.name} switches"
    return None


def attributes(spec: ScanSpec, inputs: ScanInputs) -> dict[str, int]:
    """The numbers of the cell and of the kind of table."""
    axes = None if inputs.logits is None else inputs.logits.ndim
    return {"cell": CELLS[spec.cell.rule], "table": _TABLES[axes]}


def slope(spec: ScanSpec) -> int:
    """The number of the surrogate's slope; any without a switch."""
    return 0 if spec.surrogate is None else _SLOPES[spec.surrogate.name]


def ordered(carry: Carry) -> list[Array]:
    """The fields of a carry in the kernels' order: h, then c."""
    return [carry.h, *(leaf for name, leaf in carry._asdict().items() if name != "h")]


def carry_of(cell: Cell, leaves: list[Array]) -> Carry:
    """The inverse of :func:`ordered`."""
    names = ["h", *(name for name in cell.carry._fields if name != "h")]
    return cell.carry(**dict(zip(names, leaves, strict=True)))


def or_empty(value: Array | None, dtype: Any) -> Array:
    """An array of size 0 for None."""
    return jnp.zeros((0,), dtype) if value is None else value


def field_type(inputs: ScanInputs) -> Any:
    """The type of a field of the carries ``[T, B, H]``.

    Not a bare shape: inside `shard_map` a type says over which axes it varies.
    """
    h, steps = inputs.initial_carry.h, inputs.x.shape[0]
    return jax.eval_shape(lambda h: jnp.broadcast_to(h[None], (steps, *h.shape)), h)


# Under `jit`, JAX traces it once for all similar calls. The branch is chosen when the program is
# lowered, for one platform or for several.
@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _run(compiled, spec, inputs):
    def call(inputs):
        leaves, form = jax.tree.flatten((inputs,))
        fields = _kernel.bind(*leaves, compiled=compiled, spec=spec, wanted=None, form=form)
        return spec.cell.carry(*fields)

    dense = functools.partial(masked.forward_accelerated, spec)
    return jax.lax.platform_dependent(inputs, **{compiled.platform: call}, default=dense)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _pull(compiled, spec, wanted, inputs, carries, ct_outputs):
    def call(*arguments):
        leaves, form = jax.tree.flatten(arguments)
        found = _kernel.bind(*leaves, compiled=compiled, spec=spec, wanted=wanted, form=form)
        return jax.tree.unflatten(jax.tree.structure(_like(wanted, arguments[0])), found)

    dense = functools.partial(_pull_dense, spec, wanted, backward=masked.backward_accelerated)
    arguments = inputs, carries, ct_outputs
    return jax.lax.platform_dependent(*arguments, **{compiled.platform: call}, default=dense)


def _like(wanted, inputs):
    """What a backward kernel returns, as the inputs whose cotangents these are."""
    return ScanInputs(
        inputs.params,
        inputs.x if wanted.x else None,
        inputs.logits if wanted.logits else None,
        inputs.initial_carry,
        inputs.reset_carry,
    )


def _pull_dense(spec, wanted, inputs, carries, ct_outputs, backward=masked.backward):
    return _like(wanted, backward(spec, inputs, carries, wanted, ct_outputs))


def _call_compiled(*leaves, compiled, spec, wanted, form):
    arguments = jax.tree.unflatten(form, leaves)
    if wanted is None:
        return jax.tree.leaves(compiled.run(spec, *arguments))
    return jax.tree.leaves(compiled.pull(spec, wanted, *arguments))


def _call_dense(*leaves, compiled, spec, wanted, form):
    del compiled
    arguments = jax.tree.unflatten(form, leaves)
    if wanted is None:
        return jax.tree.leaves(masked.forward(spec, *arguments))
    return jax.tree.leaves(_pull_dense(spec, wanted, *arguments))


def _types(*types, compiled, spec, wanted, form):
    del compiled
    inputs = jax.tree.unflatten(form, types)[0]
    if wanted is not None:
        return jax.tree.leaves(_like(wanted, inputs))
    h, steps = inputs.initial_carry.h, inputs.x.shape[0]
    return [derivatives.with_shape(h, (steps, *h.shape)) for _ in spec.cell.carry._fields]


_kernel = kernel_call.operation("surnn_kernel", _call_compiled, _call_dense, _types)
