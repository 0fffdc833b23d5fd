"""The phase of a period at a step, without the rounding errors of a float clock.

A float32 clock stops counting at 2^24, and its product with a frequency is wrong by a good part of
a turn long before. Here clocks stay integers, read as unsigned, so streams may be 2^32 steps long.
"""

import itertools
import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax.typing import Array

# The first 256 binary digits of 2/π.
_TWO_OVER_PI = Fraction(
    0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561, 1 << 256
)
_ZEROS, _DIGITS = 5, 7  # words of 32 bits before and after the binary point, see _turns


def unsigned(t: Array) -> Array:
    """A clock as uint32, so that an int32 that has wrapped counts on to 2^32."""
    return t.astype(jnp.uint32)


def angle(theta: Array, t: Array, horizon: int) -> Array:
    """``theta · t / horizon`` modulo 2π, in [-π, π): ``[*t.shape, *theta.shape]``.

    For a float32 theta the result is right to float32's last digits at every t below 2^32. For
    float64 it is the plain product, not reduced; at 2^31 steps it is right to about 1e-6. The
    derivative with respect to theta is ``t / horizon``.

    Args:
        theta: angular frequencies in units of ``1 / horizon``.
        t: integers, steps since the start.
        horizon: a number of steps.
    """
    axes = (1,) * theta.ndim
    clock = (unsigned(t).astype(theta.dtype) / horizon).reshape(*t.shape, *axes)
    plain = clock * _led(theta, t.ndim)
    if theta.dtype == jnp.float64:
        return plain
    theta = jax.lax.stop_gradient(theta)
    high, low = (_led(word, t.ndim) for word in _turns(theta.astype(jnp.float32), horizon))
    steps = unsigned(t).reshape(*t.shape, *axes)
    part = high * steps + _multiply(low, steps)[0]  # of a turn, in units of 2^-32
    part = jnp.where(_led(theta < 0, t.ndim), -part, part)
    exact = jax.lax.bitcast_convert_type(part, jnp.int32).astype(theta.dtype)
    # theta - theta is NaN if theta is not finite; nothing else here makes one.
    finite, broken = jnp.isfinite(theta), theta - theta
    exact = exact * (2 * math.pi / 2**32)
    return _sloped(jnp.where(_led(finite, t.ndim), exact, _led(broken, t.ndim)), plain)


def _sloped(value: Array, plain: Array) -> Array:
    """`value` with the derivatives of `plain`.

    Not by `jax.custom_jvp`, whose rule `lax.scan` forgets where reverse mode is differentiated once
    more.
    """
    plain = jnp.where(jnp.isfinite(plain), plain, 0)
    return jax.lax.stop_gradient(value) + (plain - jax.lax.stop_gradient(plain))


def _turns(theta: Array, horizon: int) -> tuple[Array, Array]:
    """``|theta| / (2π horizon)`` modulo 1 in units of 2^-64, as words of 32 bits, the high first.

    theta is m · 2^e with an integer m below 2^24: the product of m and of the 96 binary digits of
    ``1 / (2π horizon)`` from the e-th on is exact in integers (Payne & Hanek 1983).
    """
    digits = math.floor(_TWO_OVER_PI / (4 * Fraction(horizon)) * 2 ** (32 * _DIGITS))
    words = [0] * _ZEROS + [digits >> (32 * i) & 0xFFFFFFFF for i in reversed(range(_DIGITS))]
    bits = jax.lax.bitcast_convert_type(theta, jnp.uint32)
    exponent = (bits >> 23) & 0xFF
    m = jnp.where(exponent > 0, bits & 0x7FFFFF | 0x800000, bits & 0x7FFFFF)
    first = jnp.maximum(exponent, 1).astype(jnp.int32) - 150 + 32 * _ZEROS
    word, shift = first // 32, (first % 32).astype(jnp.uint32)
    table = jnp.asarray(np.array(words, np.uint32))
    around = [table[jnp.minimum(word + i, len(words) - 1)] for i in range(4)]
    high, middle, low = (
        (left << shift) | jnp.where(shift > 0, right >> ((32 - shift) & 31), 0)
        for left, right in itertools.pairwise(around)
    )
    carried = _multiply(m, low)[0]
    over, below = _multiply(m, middle)
    total = below + carried
    return m * high + over + (total < below).astype(total.dtype), total


def _multiply(a: Array, b: Array) -> tuple[Array, Array]:
    """The product of two uint32 as ``(high, low)`` words."""
    a1, a0, b1, b0 = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    cross = a1 * b0 + (a0 * b0 >> 16)
    other = a0 * b1 + (cross & 0xFFFF)
    return a1 * b1 + (cross >> 16) + (other >> 16), a * b


def turn(t: Array, tau: Array, s: Array) -> Array:
    """``((t - s) mod tau) / tau``, in [0, 1]: ``[*t.shape, H]``.

    Args:
        t: integers, steps since the start.
        tau: periods ``[H]`` in steps.
        s: shifts ``[H]`` in steps.
    """
    period, shift = _led(tau, t.ndim), _led(s, t.ndim)
    steps = unsigned(t)[..., None]
    # Each half of the clock is exact in float32, and so is a remainder.
    halves = ((steps >> 16).astype(tau.dtype) * 65536, (steps & 0xFFFF).astype(tau.dtype))
    past = sum(jax.lax.rem(*jnp.broadcast_arrays(half, period)) for half in halves)
    turns = (past - shift) / period
    return _sloped(turns - jnp.floor(turns), (steps.astype(tau.dtype) - shift) / period)


def _led(leaf: Any, axes: int) -> Array:
    return leaf.reshape((1,) * axes + leaf.shape)
