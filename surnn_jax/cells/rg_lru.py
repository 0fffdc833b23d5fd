"""RG-LRU, the recurrence of Griffin: linear in the state, with gates that read the input."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.cells.cell import Cell
from surnn_jax.typing import Array

_POWER = 8.0  # c of the paper
_SLOWEST, _FASTEST = 0.999, 0.9  # a^c at the beginning
_LEAST = 1e-12  # of 1 - a², whose root has no slope at 0


class RGLRUCarry(NamedTuple):
    """State of an RG-LRU.

    Attributes:
        h: ``[B, H]``, the output.

    Examples:
        >>> from surnn_jax import cells
        >>> carry = cells.get("rg_lru").zero_carry((2, 4), jnp.float32)
        >>> carry._fields, carry.h.shape
        (('h',), (2, 4))
    """

    h: Array


def _rule(p, carry, z, u):
    del u
    r = jax.nn.sigmoid(z["r"] + p["b_r"])
    i = jax.nn.sigmoid(z["i"] + p["b_i"])
    log_a = -_POWER * jax.nn.softplus(p["decay"]) * r
    # √(1 - a²) with all digits when a is near 1.
    gain = jnp.sqrt(jnp.maximum(-jnp.expm1(2 * log_a), _LEAST))
    return RGLRUCarry(jnp.exp(log_a) * carry.h + gain * (i * z["x"]))


def _draw(key, shape, dtype):
    log_a = jnp.log(jax.random.uniform(key, shape, dtype, _FASTEST, _SLOWEST)) / _POWER
    return jnp.log(jnp.expm1(-log_a))


RG_LRU = Cell(
    name="rg_lru",
    carry=RGLRUCarry,
    inputs=("r", "i", "x"),
    recurrent=(),
    vectors=(("b_r", 0.0), ("b_i", 0.0), ("decay", _draw)),
    rule=_rule,
)
"""Real-gated linear recurrent unit (De et al. 2024, "Griffin", arXiv 2402.19427, equations 1 to 4).

    r = σ(W_r x[t] + b_r)
    i = σ(W_i x[t] + b_i)
    a = exp(-8 softplus(decay) r)
    h[t] = a ∘ h[t-1] + √(1 - a²) ∘ (i ∘ W_x x[t])

The paper's value is x[t] itself: there a product stands before the unit, and W_x is part of it
here. a starts so that its value at r = 1 is uniform in [0.9, 0.999]. Griffin's convolution,
block-diagonal gates and output gate are not part of the unit.
"""
