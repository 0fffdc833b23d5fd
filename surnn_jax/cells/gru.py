"""Gated recurrent units: reset after the product (cuDNN) or before it (Chung et al.), and MGU."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.cells.cell import Cell
from surnn_jax.typing import Array


class GRUCarry(NamedTuple):
    """State of a gated recurrent unit.

    Attributes:
        h: ``[B, H]``, the output.

    Examples:
        >>> from surnn_jax import cells
        >>> carry = cells.get("gru").zero_carry((2, 4), jnp.float32)
        >>> carry._fields, carry.h.shape
        (('h',), (2, 4))
    """

    h: Array


def _after(p, carry, z, u, gate_fn=jax.nn.sigmoid, activation_fn=jnp.tanh):
    r = gate_fn(z["r"] + u["r"] + p["b_r"])
    keep = gate_fn(z["z"] + u["z"] + p["b_z"])
    n = activation_fn(z["n"] + p["b_n"] + r * (u["n"] + p["c_n"]))
    return GRUCarry((1 - keep) * n + keep * carry.h)


GRU = Cell(
    name="gru",
    carry=GRUCarry,
    inputs=("r", "z", "n"),
    recurrent=("r", "z", "n"),
    vectors=(("b_r", 0.0), ("b_z", 0.0), ("b_n", 0.0), ("c_n", 0.0)),
    rule=_after,
)
"""Gated recurrent unit, reset after the product: the form of cuDNN, PyTorch and Flax.

    r = σ(W_r x[t] + U_r h[t-1] + b_r)
    z = σ(W_z x[t] + U_z h[t-1] + b_z)
    n = tanh(W_n x[t] + b_n + r ∘ (U_n h[t-1] + c_n))
    h[t] = (1 - z) ∘ n + z ∘ h[t-1]
"""

GRU_CARRY = dataclasses.replace(
    GRU, name="gru_carry", vectors=(("b_r", 0.0), ("b_z", 3.0), ("b_n", 0.0), ("c_n", 0.0))
)
""":data:`GRU` whose z starts near 1: b_z = 3 has it carry 95 % of its state from step to step.

What a bias does for memory without any switch: the obvious objection to one.
"""


def _minimal(p, carry, z, u, gate_fn=jax.nn.sigmoid, activation_fn=jnp.tanh):
    f = gate_fn(z["f"] + u["f"] + p["b_f"])
    n = activation_fn(z["n"] + p["b_n"] + f * (u["n"] + p["c_n"]))
    return GRUCarry((1 - f) * n + f * carry.h)


MGU = Cell(
    name="mgu",
    carry=GRUCarry,
    inputs=("f", "n"),
    recurrent=("f", "n"),
    vectors=(("b_f", 1.0), ("b_n", 0.0), ("c_n", 0.0)),
    rule=_minimal,
)
"""Minimal gated unit (Zhou et al. 2016, arXiv 1603.09420): a GRU with one gate, in Flax's form.

    f = σ(W_f x[t] + U_f h[t-1] + b_f)
    n = tanh(W_n x[t] + b_n + f ∘ (U_n h[t-1] + c_n))
    h[t] = (1 - f) ∘ n + f ∘ h[t-1]

The paper's update has f and 1 - f the other way round, and its gate before the product. b_f starts
at 1, the other biases at 0.
"""


def _reset_state(p, carry, z, u, gate_fn=jax.nn.sigmoid):
    return gate_fn(z["r"] + u["r"] + p["b_r"]) * carry.h


def _before(p, carry, z, u, gate_fn=jax.nn.sigmoid, activation_fn=jnp.tanh):
    move = gate_fn(z["z"] + u["z"] + p["b_z"])
    n = activation_fn(z["n"] + u["n"] + p["b_n"])
    return GRUCarry((1 - move) * carry.h + move * n)


GRU_BEFORE = Cell(
    name="gru_before",
    carry=GRUCarry,
    inputs=("r", "z", "n"),
    recurrent=("r", "z"),
    vectors=(("b_r", 0.0), ("b_z", 0.0), ("b_n", 0.0)),
    rule=_before,
    inner=_reset_state,
    inner_recurrent=("n",),
)
"""Gated recurrent unit, reset before the product (Chung et al. 2014, section 3.2).

    r = σ(W_r x[t] + U_r h[t-1] + b_r)
    z = σ(W_z x[t] + U_z h[t-1] + b_z)
    n = tanh(W_n x[t] + U_n (r ∘ h[t-1]) + b_n)
    h[t] = (1 - z) ∘ h[t-1] + z ∘ n

Note that z and 1 - z stand the other way round than in :data:`GRU`, as in the paper. Not
pointwise: the new state of one neuron reads the reset gate of all, so dense back ends only.
"""
