"""Steps that let a gradient through: rounding, and the choice between two states."""

import jax
import jax.numpy as jnp

from surnn_jax.typing import Array


@jax.custom_jvp
def rounded(a: Array) -> Array:
    """`a` rounded (a half to 0), whose derivative is taken to be 1: straight through."""
    return jnp.round(a)


@rounded.defjvp
def _rounded_jvp(primals, tangents):
    return rounded(*primals), tangents[0]


@jax.custom_jvp
def mix(g: Array, candidate: Array, old: Array) -> Array:
    """``g ∘ candidate + (1 - g) ∘ old``, exactly one of the two where g is 1 or 0.

    The sum alone would turn 0 · NaN into NaN and -0 into +0.
    """
    return jnp.where(g == 1, candidate, jnp.where(g == 0, old, g * candidate + (1 - g) * old))


@mix.defjvp
def _mix_jvp(primals, tangents):
    g, candidate, old = primals
    dg, dcandidate, dold = tangents
    return mix(g, candidate, old), g * dcandidate + (1 - g) * dold + dg * (candidate - old)
