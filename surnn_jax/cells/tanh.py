"""The plain recurrent unit."""

from typing import NamedTuple

import jax.numpy as jnp

from surnn_jax.cells.cell import Cell
from surnn_jax.typing import Array


class TanhCarry(NamedTuple):
    """State of a tanh unit.

    Attributes:
        h: ``[B, H]``, the output.

    Examples:
        >>> from surnn_jax import cells
        >>> carry = cells.get("tanh").zero_carry((2, 4), jnp.float32)
        >>> carry._fields, carry.h.shape
        (('h',), (2, 4))
    """

    h: Array


def _rule(p, carry, z, u, activation_fn=jnp.tanh):
    del carry
    return TanhCarry(activation_fn(z["h"] + u["h"] + p["b"]))


TANH = Cell(
    name="tanh",
    carry=TanhCarry,
    inputs=("h",),
    recurrent=("h",),
    vectors=(("b", 0.0),),
    rule=_rule,
)
"""Plain recurrent unit (Chung et al. 2014, equation 2, with g = tanh).

    h[t] = tanh(W x[t] + U h[t-1] + b)
"""
