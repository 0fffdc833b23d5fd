"""Steps that let a gradient through: rounding, and the choice between two states.

Their derivatives are not rules of `jax.custom_jvp`, which `lax.scan` forgets where reverse mode is
differentiated once more.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from surnn_jax.typing import Array


def with_slope(value: Array, smooth: Array) -> Array:
    """`value` with the derivatives of `smooth`, which must be finite.

    Only the value of a subnormal number may change, as in any sum: to 0.
    """
    # x - 0 is x for -0, too, where x + 0 is not.
    return jax.lax.stop_gradient(value) - (jax.lax.stop_gradient(smooth) - smooth)


def rounded(a: Array) -> Array:
    """`a` rounded (a half to 0), whose derivative is taken to be 1: straight through."""
    return with_slope(jnp.round(a), jnp.where(jnp.isfinite(a), a, 0))


def mix(g: Array, candidate: Array, old: Array) -> Array:
    """``g ∘ candidate + (1 - g) ∘ old``, exactly one of the two where g is 1 or 0.

    The sum alone would turn 0 · NaN into NaN and -0 into +0, and lose subnormal numbers. All three
    arrays have one shape and dtype.
    """
    return _mix.bind(g, candidate, old)


# An operation of its own: nothing could be added to a state without touching its bits.
_mix = Primitive("mix_states")


def _mixed(g, candidate, old):
    return jnp.where(g == 1, candidate, jnp.where(g == 0, old, g * candidate + (1 - g) * old))


def _mix_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    g, candidate, old = primals
    dg, dcandidate, dold = (ad.instantiate_zeros(d) for d in tangents)
    return mix(*primals), g * dcandidate + (1 - g) * dold + dg * (candidate - old)


def _mix_batch(arrays: Any, axes: Any) -> tuple[Array, int]:
    size = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
    mapped = (batching.bdim_at_front(a, axis, size) for a, axis in zip(arrays, axes, strict=True))
    return mix(*mapped), 0


_mix.def_impl(jax.jit(_mixed))
_mix.def_abstract_eval(lambda g, candidate, old: old)
mlir.register_lowering(_mix, mlir.lower_fun(_mixed, multiple_results=False))
ad.primitive_jvps[_mix] = _mix_jvp
batching.primitive_batchers[_mix] = _mix_batch
