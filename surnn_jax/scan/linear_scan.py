"""The linear recurrence that state spaces and parallel cells share."""

import functools

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from surnn_jax.typing import Array


def linear_scan(
    a: Array, b: Array, h0: Array, *, axis: int = 0, zero_forgets: bool = False
) -> Array:
    """``h[t] = a[t] h[t-1] + b[t]``, elementwise, for all t.

    On a CPU it is a loop, elsewhere an associative scan (fewer steps one after the other, more
    work and memory; not measured). It can be differentiated in every mode and order; the gradient
    is the same recurrence backwards, and on a CPU keeps `a` and `h` alone.

    Args:
        a: real or complex, of as many axes as `b`; an axis of length 1 is repeated, that of time
            included (a decay that is the same at every step).
        b: ``[T, ...]``, or ``[B, T, ...]`` for axis 1, of the same dtype.
        h0: the state before the first step, the shape of `b` without the axis of time.
        axis: that of time, 0 or 1.
        zero_forgets: where a is 0 the state before is not read, NaN or not, and the derivative with
            respect to a is 0: for resets.

    Returns:
        The states after every step, in the shape of `b`.

    Raises:
        ValueError: for shapes or dtypes that do not fit.
    """
    if axis not in (0, 1):
        raise ValueError(f"the axis of time must be 0 or 1, got {axis}")
    fits = a.ndim == b.ndim and all(n in (1, m) for n, m in zip(a.shape, b.shape, strict=True))
    if not fits or h0.shape != b.shape[:axis] + b.shape[axis + 1 :]:
        raise ValueError(f"a {a.shape} and h0 {h0.shape} do not fit b {b.shape}, time axis {axis}")
    if not a.dtype == b.dtype == h0.dtype:
        raise ValueError(f"a, b and h0 must share a dtype, got {a.dtype}, {b.dtype}, {h0.dtype}")
    if axis:
        a, b = jnp.moveaxis(a, 1, 0), jnp.moveaxis(b, 1, 0)
    h = _jitted(zero_forgets, a, b, h0)
    return jnp.moveaxis(h, 0, 1) if axis else h


# Two Xeon cores, B=16, T=1024, N=2048, forward with backward, ms (smallest of 4) and peak memory:
#
#                                    float32          complex64
#   this: loop, own gradient       249   0.9 GB     511   1.6 GB
#   loop, gradient of lax.scan     390   1.2 GB     781   2.1 GB
#   associative, own gradient      601   1.5 GB    1860   3.0 GB
#   associative_scan as it is      783   2.1 GB    2022   4.1 GB
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _scan(forgets, a, b, h0):
    return states(a, b, h0, forgets=forgets)


def states(
    a: Array, b: Array, h0: Array, held: Array | None = None, forgets: bool = False
) -> Array:
    """:func:`linear_scan` along axis 0, not to be differentiated.

    Args:
        a: as there, and so are `b` and `h0`.
        b: likewise.
        h0: likewise.
        held: booleans of as many axes as `b`, each of its length or 1: where True, `a` and `b` must
            be 1 and 0, and the state is that of the step before, bit for bit. None for nowhere.
        forgets: as `zero_forgets` there.
    """
    loop, associative = (functools.partial(run, forgets) for run in (_loop, _associative))
    return jax.lax.platform_dependent(a, b, h0, held, cpu=loop, default=associative)


def adjoints(a: Array, cotangent: Array) -> tuple[Array, Array]:
    """The same recurrence backwards: ``adjoint[t] = cotangent[t] + a[t+1] adjoint[t+1]``.

    Args:
        a: as for :func:`linear_scan` along axis 0.
        cotangent: of the states, ``[T, ...]``, T at least 1.

    Returns:
        ``a[0] adjoint[0]``, the cotangent of the state before, and all adjoints.
    """
    return jax.lax.platform_dependent(a, cotangent, cpu=_loop_back, default=_associative_back)


def _loop(forgets, a, b, h0, held):
    steady = a.shape[0] == 1

    def step(h, now):
        a_now, b_now, held_now = now
        new = _times(forgets, a[0] if steady else a_now, h) + b_now
        if held_now is not None:
            new = jnp.where(held_now, h, new)
        return new, new

    return jax.lax.scan(step, h0, (None if steady else a, b, held))[1]


def _times(forgets, a, h):
    """``a h``; 0 where a is 0 if that forgets.

    So is the derivative with respect to a, also where `lax.scan` around this forgets the rule
    below.
    """
    return a * jnp.where(a == 0, jnp.zeros_like(h), h) if forgets else a * h


def _combine(forgets, early, late):
    return late[0] * early[0], _times(forgets, late[0], early[1]) + late[1]


def _associative(forgets, a, b, h0, held):
    decay = jnp.broadcast_to(a, (b.shape[0], *a.shape[1:]))
    product, h = jax.lax.associative_scan(functools.partial(_combine, forgets), (decay, b))
    h = h + _times(forgets, product, h0[None])
    if held is None or not b.shape[0]:
        return h
    # Every step adds up in an order of its own, so that rounding moves a state that is held.
    t = jnp.arange(b.shape[0], dtype=jnp.int32).reshape((-1,) + (1,) * (b.ndim - 1))
    last = jax.lax.cummax(jnp.broadcast_to(jnp.where(held, -1, t), b.shape), axis=0)
    kept = jnp.take_along_axis(h, jnp.maximum(last, 0), axis=0)
    return jnp.where(last >= 0, kept, h0[None])


def _loop_back(a, cotangent):
    steady = a.shape[0] == 1

    def step(later, now):
        adjoint = now[-1] + later
        return (a[0] if steady else now[0]) * adjoint, adjoint

    start = jnp.zeros_like(cotangent[0])
    return jax.lax.scan(step, start, (cotangent,) if steady else (a, cotangent), reverse=True)


def _associative_back(a, cotangent):
    decay = jnp.broadcast_to(a, (cotangent.shape[0], *a.shape[1:]))
    # The decay of the next step; the last one is not used.
    later = jnp.concatenate([decay[1:], decay[:1]])
    combine = functools.partial(_combine, False)
    adjoint = jax.lax.associative_scan(combine, (later, cotangent), reverse=True)[1]
    return decay[0] * adjoint[0], adjoint


@functools.partial(_scan.defjvp, symbolic_zeros=True)
def _scan_jvp(forgets, primals, tangents):
    a, b, h0 = primals
    h = _scan(forgets, a, b, h0)
    da, db, dh0 = (None if isinstance(d, SymbolicZero) else d for d in tangents)
    if da is None and db is None and dh0 is None:
        return h, jnp.zeros_like(h)
    driven = jnp.zeros_like(h) if db is None else db
    if da is not None:
        before = jnp.concatenate([h0[None], h])[: h.shape[0]]
        driven = driven + (jnp.where(a == 0, 0, da * before) if forgets else da * before)
    # Linear in what is driven, with no rule of its own: so it can be transposed.
    return h, states(a, driven, jnp.zeros_like(h0) if dh0 is None else dh0, forgets=forgets)


# Outside `jit` the closures of its loops would be compiled anew at every call.
_jitted = jax.jit(_scan, static_argnums=0, inline=True)
