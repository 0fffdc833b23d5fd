"""IndRNN: every neuron reads its own state alone."""

from typing import NamedTuple

import jax

from surnn_jax.cells.cell import Cell
from surnn_jax.typing import Array


class IndCarry(NamedTuple):
    """State of an IndRNN.

    Attributes:
        h: ``[B, H]``, the output.

    Examples:
        >>> from surnn_jax import cells
        >>> carry = cells.get("ind_rnn").zero_carry((2, 4), jnp.float32)
        >>> carry._fields, carry.h.shape
        (('h',), (2, 4))
    """

    h: Array


def _rule(p, carry, z, u, activation_fn=jax.nn.relu):
    del u
    return IndCarry(activation_fn(z["h"] + p["v"] * carry.h + p["b"]))


def _draw(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype)


IND_RNN = Cell(
    name="ind_rnn",
    carry=IndCarry,
    inputs=("h",),
    recurrent=(),
    vectors=(("v", _draw), ("b", 0.0)),
    rule=_rule,
)
"""Independently recurrent network (Li et al. 2018, arXiv 1803.04831).

    h[t] = relu(W x[t] + v ∘ h[t-1] + b)

v begins uniform in [0, 1], where the paper's longest memories lie. The paper also keeps |v| below
``2^(1/T)``, for sequences of T steps, which is left to the user.
"""
