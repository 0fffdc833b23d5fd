"""Derivatives of every mode and order for a scan whose kernels JAX cannot differentiate.

A back end has two kernels, one forward and one backward. :func:`scan` uses them for values and for
first gradients in reverse mode. Everything else (`jvp`, `linearize`, `jacfwd`, the gradient of a
gradient) is that of :func:`.twin.twin`, the same scan written in JAX, which computes its own states
anew. A hard switch has the derivatives of its surrogate at every order.

The tangent of a scan is one operation, `_push`, linear in the tangents of the inputs. Run as it
is, it is the twin's; transposed, it is the backward kernel, `_pull`, whose derivative is the twin's
again.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from surnn_jax.scan.adjoint import without_dead_steps
from surnn_jax.scan.kernels import Kernels, Wanted, instantiate_zeros
from surnn_jax.scan.mapped import Mapped, apply_maps, over_schedules, with_shape, without_axes
from surnn_jax.scan.spec import ScanInputs, ScanSpec
from surnn_jax.scan.twin import twin
from surnn_jax.typing import Array, Carry


def scan(kernels: Kernels, spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """All carries, by `kernels`; see the module."""
    leaves, form = jax.tree.flatten(inputs)
    fields = _scan.bind(*leaves, call=_Call(kernels, spec, form, ()))
    return spec.cell.carry(*fields)


@dataclasses.dataclass(frozen=True)
class _Call:
    """One scan, whose arguments are the arrays of its inputs.

    Attributes:
        kernels: of the back end.
        spec: of the scan.
        form: the tree of the inputs.
        maps: the `vmap` around it, from the inside out.
    """

    kernels: Kernels
    spec: ScanSpec
    form: Any
    maps: tuple[Mapped, ...]

    def run(self, *arrays: Array, accelerator: bool) -> list[Array]:
        """The fields of the carries."""
        lists = over_schedules(self.form, self.maps)
        kernels = self.kernels.on(accelerator, any(lists))

        def function(arrays):
            inputs = jax.tree.unflatten(self.form, arrays)
            return list(kernels.forward(self.spec, inputs))

        single = tuple(one and kernels.lists for one in lists)
        return apply_maps(function, self.maps, single)(list(arrays))

    def types(self, types: Any) -> list[Any]:
        """Those of the fields, with the axes of every `vmap` in front."""
        shapes = [without_axes(self.maps, kind, i) for i, kind in enumerate(types)]
        steps = jax.tree.unflatten(self.form, shapes).x[0]
        sizes = [mapped.size for mapped in reversed(self.maps)]
        start = jax.tree.unflatten(self.form, list(zip(types, shapes, strict=True))).initial_carry
        return [with_shape(kind, (*sizes, steps, *shape)) for kind, shape in start]

    def in_front(self, tangent: Array, i: int) -> Array:
        """The tangent of array i with the axes of every `vmap` in front."""
        for place, mapped in enumerate(reversed(self.maps)):
            axis = mapped.axes[i]
            if axis is not None:
                tangent = jnp.moveaxis(tangent, place + axis, place)
                continue
            tangent = jnp.expand_dims(tangent, place)
            shape = (*tangent.shape[:place], mapped.size, *tangent.shape[place + 1 :])
            tangent = jnp.broadcast_to(tangent, shape)
        return tangent


@dataclasses.dataclass(frozen=True)
class _Linear:
    """The tangent map of one scan.

    Its arguments are lists: `given`, the arrays of the inputs and of the carries; and tangents, of
    those arrays of the first five inputs that are perturbed.

    Attributes:
        kernels: of the back end.
        spec: of the scan.
        form: the tree of ``(inputs, carries)``.
        perturbed: of each array of the first five inputs, whether it has a tangent.
        maps: the `vmap` around it, from the inside out.
    """

    kernels: Kernels
    spec: ScanSpec
    form: Any
    perturbed: tuple[bool, ...]
    maps: tuple[Mapped, ...]

    @property
    def given(self) -> int:
        """The number of arrays given."""
        return self.form.num_leaves

    def free(self, given: list[Array]) -> list[Array]:
        """The perturbed ones of the arrays given, or of anything that begins alike."""
        return [v for v, free in zip(given, self.perturbed, strict=False) if free]

    def twin(self, given: list[Array]) -> Callable[..., list[Array]]:
        """The scan as a function of what is perturbed."""

        def run(*free):
            rest = iter(free)
            first = [
                next(rest) if moved else v for v, moved in zip(given, self.perturbed, strict=False)
            ]
            whole = [*first, *given[len(first) :]]
            inputs, _ = jax.tree.unflatten(self.form, whole)
            return jax.tree.leaves(twin(self.spec, inputs))

        return run

    def push(self, given: list[Array], tangents: list[Array]) -> list[Array]:
        """The tangents of the carries."""

        def one(given, tangents):
            return jax.jvp(self.twin(given), tuple(self.free(given)), tuple(tangents))[1]

        return self._mapped(one)(given, tangents)

    def pull(
        self, given: list[Array], cotangents: list[Array | None], accelerator: bool
    ) -> list[Array]:
        """The cotangents of what is perturbed, from those of the carries, by the kernel."""
        lists = over_schedules(self.form, self.maps)
        kernels = self.kernels.on(accelerator, any(lists))
        single = tuple(one and kernels.lists for one in lists)
        one = functools.partial(self._pull_one, kernels)
        return apply_maps(one, self.maps, single, rest=1)(given, cotangents)

    def pull_by_twin(self, given: list[Array], cotangents: list[Array | None]) -> list[Array]:
        """The same, by the twin; the carries are not read."""

        def one(given, cotangents):
            transpose = jax.vjp(self.twin(given), *self.free(given))[1]
            fields = given[self.given - len(cotangents) :]
            return list(transpose(instantiate_zeros(cotangents, fields)))

        return self._mapped(one)(given, cotangents)

    def _pull_one(self, kernels, given, cotangents):
        inputs, carries = jax.tree.unflatten(self.form, given)
        marks = jax.tree.unflatten(jax.tree.structure(tuple(inputs[:5])), self.perturbed)
        wanted = Wanted(x=marks[1], logits=bool(marks[2]))
        fields = jax.tree.structure(carries)
        ct_outputs = jax.tree.unflatten(fields, cotangents)
        inputs, carries = without_dead_steps(inputs, carries, ct_outputs)
        found = kernels.backward(self.spec, inputs, carries, wanted, ct_outputs)
        # What is not wanted is not read: anything of the right form will do.
        filled = [own if d is None else d for d, own in zip(found[:5], inputs[:5], strict=True)]
        return self.free(jax.tree.leaves(tuple(filled)))

    def types(self, places: Iterable[int], types: Sequence[Any]) -> list[Any]:
        """Those of the arrays given at these places, with the axes of every `vmap` in front."""
        if not self.maps:
            return [types[i] for i in places]
        sizes = [mapped.size for mapped in reversed(self.maps)]
        shapes = {i: (*sizes, *without_axes(self.maps, types[i], i)) for i in places}
        return [with_shape(types[i], shape) for i, shape in shapes.items()]

    def _mapped(self, function):
        return apply_maps(function, self.maps, (False,) * len(self.maps), rest=1)


def _still(value: Array) -> SymbolicZero:
    return SymbolicZero(jax.typeof(value))


def _jvp_of_moved(function: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The tangent of ``function(*primals)``, where some tangents are symbolic zeros."""
    values, form = jax.tree.flatten(primals)
    tangents = jax.tree.leaves(tangents)
    moved = [not isinstance(d, SymbolicZero) for d in tangents]

    def run(*free):
        rest = iter(free)
        merged = [next(rest) if m else v for v, m in zip(values, moved, strict=True)]
        return function(*jax.tree.unflatten(form, merged))

    def pick(items):
        return tuple(v for v, m in zip(items, moved, strict=True) if m)

    if not any(moved):
        return jax.tree.map(jnp.zeros_like, jax.eval_shape(run))
    return jax.jvp(run, pick(values), pick(tangents))[1]


# An operation of its own, as `lax.scan` forgets the rule of a `jax.custom_jvp` inside it where
# reverse mode is differentiated once more.
_scan = Primitive("scan_of_units")
_scan.multiple_results = True


def _scan_arrays(*arrays, call, accelerator=False):
    return call.run(*arrays, accelerator=accelerator)


def _register(primitive: Primitive, function: Callable[..., Any]) -> None:
    """Has a primitive lowered by a function, which is told whether for an accelerator."""
    for platform in (None, "gpu", "tpu"):
        lowered = functools.partial(function, accelerator=platform is not None)
        mlir.register_lowering(
            primitive, mlir.lower_fun(lowered, multiple_results=True), platform=platform
        )


def _impl(primitive: Primitive, names: tuple[str, ...]) -> None:
    """Has a primitive outside `jit` compiled as inside it."""

    def run(*arrays, **options):
        return primitive.bind(*arrays, **options)

    primitive.def_impl(jax.jit(run, static_argnames=names))


_impl(_scan, ("call",))
_scan.def_abstract_eval(lambda *types, call: call.types(types))
_register(_scan, _scan_arrays)


def _scan_jvp(primals, tangents, *, call):
    outputs = _scan.bind(*primals, call=call)
    free = jax.tree.structure(tuple(jax.tree.unflatten(call.form, primals)[:5])).num_leaves
    perturbed = tuple(type(d) is not ad.Zero for d in tangents[:free])
    if not any(perturbed):
        return outputs, list(map(jnp.zeros_like, outputs))
    inputs = jax.tree.unflatten(call.form, primals)
    form = jax.tree.structure((inputs, call.spec.cell.carry(*outputs)))
    maps = tuple(
        mapped._replace(axes=(*mapped.axes, *(0 for _ in outputs))) for mapped in call.maps
    )
    linear = _Linear(call.kernels, call.spec, form, perturbed, maps)
    moved = [call.in_front(tangents[i], i) for i, one in enumerate(perturbed) if one]
    return outputs, _push.bind(*primals, *outputs, *moved, linear=linear)


def _scan_batch(arrays, axes, *, call):
    size = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
    call = dataclasses.replace(call, maps=(*call.maps, Mapped(size, tuple(axes))))
    outputs = _scan.bind(*arrays, call=call)
    return outputs, [0] * len(outputs)


ad.primitive_jvps[_scan] = _scan_jvp
batching.primitive_batchers[_scan] = _scan_batch


_push = Primitive("scan_tangent")
_push.multiple_results = True


def _push_arrays(*arrays, linear):
    return linear.push(list(arrays[: linear.given]), list(arrays[linear.given :]))


_push.def_impl(jax.jit(_push_arrays, static_argnames="linear"))
mlir.register_lowering(_push, mlir.lower_fun(_push_arrays, multiple_results=True))


@_push.def_abstract_eval
def _push_types(*types, linear):
    """Those of the carries."""
    first = linear.given - len(linear.spec.cell.carry._fields)
    return linear.types(range(first, linear.given), types)


def _push_jvp(primals, tangents, *, linear):
    given = linear.given
    outputs = _push.bind(*primals, linear=linear)
    moved = [type(d) is not ad.Zero for d in tangents]
    if not any(moved[:given]):
        rest = map(ad.instantiate_zeros, tangents[given:])
        return outputs, _push.bind(*primals[:given], *rest, linear=linear)
    # The carries do not count, as above: the twin does not read them.
    tangents = [d if m else _still(p) for p, d, m in zip(primals, tangents, moved, strict=True)]
    by_twin = functools.partial(_push_arrays, linear=linear)
    return outputs, _jvp_of_moved(by_twin, tuple(primals), tuple(tangents))


def _push_transpose(cotangents, *arrays, linear):
    given, tangents = list(arrays[: linear.given]), arrays[linear.given :]
    nothing = [None] * linear.given
    used = [None if type(c) is ad.Zero else c for c in cotangents]
    if all(c is None for c in used):
        return [
            *nothing,
            *(ad.Zero(t.aval) if ad.is_undefined_primal(t) else None for t in tangents),
        ]
    found = _pull.bind(
        *given,
        *(c for c in used if c is not None),
        linear=linear,
        used=tuple(c is not None for c in used),
    )
    return [
        *nothing,
        *(d if ad.is_undefined_primal(t) else None for d, t in zip(found, tangents, strict=True)),
    ]


def _linear_batch(primitive, arrays, axes, *, linear, **options):
    """The rule of `vmap` for both: what follows the arrays given has the new axis in front."""
    size = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
    rest = [
        batching.bdim_at_front(d, axis, size)
        for d, axis in zip(arrays[linear.given :], axes[linear.given :], strict=True)
    ]
    mapped = Mapped(size, tuple(axes[: linear.given]))
    linear = dataclasses.replace(linear, maps=(*linear.maps, mapped))
    outputs = primitive.bind(*arrays[: linear.given], *rest, linear=linear, **options)
    return outputs, [0] * len(outputs)


ad.primitive_jvps[_push] = _push_jvp
ad.primitive_transposes[_push] = _push_transpose
batching.primitive_batchers[_push] = functools.partial(_linear_batch, _push)


# The backward kernel. An operation of its own for the same reason as `_scan`.
_pull = Primitive("scan_cotangent")
_pull.multiple_results = True


def _pull_arrays(*arrays, linear, used, accelerator=False):
    return linear.pull(*_divided(arrays, linear, used), accelerator)


def _divided(arrays, linear, used):
    """The arrays given, and the cotangents of the carries, of which some are None."""
    cotangents = iter(arrays[linear.given :])
    return list(arrays[: linear.given]), [next(cotangents) if one else None for one in used]


_impl(_pull, ("linear", "used"))
_register(_pull, _pull_arrays)


@_pull.def_abstract_eval
def _pull_types(*types, linear, used):
    """Those of what is perturbed."""
    del used
    return linear.types([i for i, moved in enumerate(linear.perturbed) if moved], types)


def _pull_jvp(primals, tangents, *, linear, used):
    outputs = _pull.bind(*primals, linear=linear, used=used)
    carries = range(linear.given - len(used), linear.given)
    # The carries count as functions of the inputs, which the twin computes anew.
    tangents = [
        _still(p) if type(d) is ad.Zero or i in carries else d
        for i, (p, d) in enumerate(zip(primals, tangents, strict=True))
    ]

    def by_twin(*arrays):
        return linear.pull_by_twin(*_divided(arrays, linear, used))

    return outputs, _jvp_of_moved(by_twin, tuple(primals), tuple(tangents))


ad.primitive_jvps[_pull] = _pull_jvp
batching.primitive_batchers[_pull] = functools.partial(_linear_batch, _pull)
