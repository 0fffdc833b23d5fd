"""Long short-term memory, plain and with the diagonal peepholes of Chung et al. 2014."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.cells.cell import Cell
from surnn_jax.typing import Array


class LSTMCarry(NamedTuple):
    """State of an LSTM.

    Attributes:
        c: ``[B, H]``, the memory cell.
        h: ``[B, H]``, the output.

    Examples:
        >>> from surnn_jax import cells
        >>> carry = cells.get("lstm").zero_carry((2, 4), jnp.float32)
        >>> carry._fields, carry.h.shape
        (('c', 'h'), (2, 4))
    """

    c: Array
    h: Array


def _plain(p, carry, z, u, gate_fn=jax.nn.sigmoid, activation_fn=jnp.tanh):
    i, f, o = (gate_fn(z[g] + u[g] + p[f"b_{g}"]) for g in "ifo")
    c = f * carry.c + i * activation_fn(z["g"] + u["g"] + p["b_g"])
    return LSTMCarry(c, o * activation_fn(c))


def _peephole(p, carry, z, u, gate_fn=jax.nn.sigmoid, activation_fn=jnp.tanh):
    i, f = (gate_fn(z[g] + u[g] + p[f"v_{g}"] * carry.c + p[f"b_{g}"]) for g in "if")
    c = f * carry.c + i * activation_fn(z["g"] + u["g"] + p["b_g"])
    o = gate_fn(z["o"] + u["o"] + p["v_o"] * c + p["b_o"])
    return LSTMCarry(c, o * activation_fn(c))


# A forget gate that starts open keeps gradients alive over the first steps of training.
_BIASES = (("b_i", 0.0), ("b_f", 1.0), ("b_g", 0.0), ("b_o", 0.0))
_GATES = ("i", "f", "g", "o")

LSTM = Cell("lstm", LSTMCarry, _GATES, _GATES, _BIASES, _plain)
"""Long short-term memory without peepholes: the form of cuDNN, PyTorch and Flax.

    i = σ(W_i x[t] + U_i h[t-1] + b_i)
    f = σ(W_f x[t] + U_f h[t-1] + b_f)
    o = σ(W_o x[t] + U_o h[t-1] + b_o)
    c[t] = f ∘ c[t-1] + i ∘ tanh(W_g x[t] + U_g h[t-1] + b_g)
    h[t] = o ∘ tanh(c[t])

b_f starts at 1, the other biases at 0.
"""

LSTM_PEEPHOLE = Cell(
    "lstm_peephole",
    LSTMCarry,
    _GATES,
    _GATES,
    (*_BIASES, ("v_i", 0.0), ("v_f", 0.0), ("v_o", 0.0)),
    _peephole,
)
"""Long short-term memory with diagonal peepholes (Chung et al. 2014, section 3.1).

    i = σ(W_i x[t] + U_i h[t-1] + v_i ∘ c[t-1] + b_i)
    f = σ(W_f x[t] + U_f h[t-1] + v_f ∘ c[t-1] + b_f)
    c[t] = f ∘ c[t-1] + i ∘ tanh(W_g x[t] + U_g h[t-1] + b_g)
    o = σ(W_o x[t] + U_o h[t-1] + v_o ∘ c[t] + b_o)
    h[t] = o ∘ tanh(c[t])

The output gate sees the new memory cell. Peepholes start at 0.
"""
