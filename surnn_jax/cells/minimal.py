"""Minimal gated units (arXiv 2410.01201): no gate reads the state, so nothing is multiplied by it.

Neuron i of the new state needs neuron i of the old one and a projection of the input. All
products are known before the first step, and what is left of the recurrence is a weighted sum:

    h[t] = p[t] ∘ h[t-1] + q[t],    p and q functions of x[t]

The *selective* forms keep h where the switch is closed, and there p = 1 and q = 0.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.cells.cell import Cell
from surnn_jax.typing import Array


class MinimalCarry(NamedTuple):
    """State of a minimal unit.

    Attributes:
        h: ``[B, H]``, the output.

    Examples:
        >>> from surnn_jax import cells
        >>> carry = cells.get("min_gru").zero_carry((2, 4), jnp.float32)
        >>> carry._fields, carry.h.shape
        (('h',), (2, 4))
    """

    h: Array


def _gru(p, carry, z, u):
    del u
    move = jax.nn.sigmoid(z["z"] + p["b_z"])
    return MinimalCarry((1 - move) * carry.h + move * (z["n"] + p["b_n"]))


MIN_GRU = Cell(
    name="min_gru",
    carry=MinimalCarry,
    inputs=("z", "n"),
    recurrent=(),
    vectors=(("b_z", 0.0), ("b_n", 0.0)),
    rule=_gru,
)
"""minGRU (arXiv 2410.01201).

    z = σ(W_z x[t] + b_z)
    n = W_n x[t] + b_n
    h[t] = (1 - z) ∘ h[t-1] + z ∘ n

The candidate n is a linear map of the input, as in the paper's equations; for the form of its
log-space code see :data:`MIN_GRU_LOG`. Biases start at 0.
"""


def _positive(n):
    return jnp.where(n >= 0, n + 0.5, jax.nn.sigmoid(n))


def _log_gru(p, carry, z, u):
    del u
    move = jax.nn.sigmoid(z["z"] + p["b_z"])
    return MinimalCarry((1 - move) * carry.h + move * _positive(z["n"] + p["b_n"]))


MIN_GRU_LOG = dataclasses.replace(MIN_GRU, name="min_gru_log", rule=_log_gru)
"""minGRU with the positive candidate of its log-space code (arXiv 2410.01201, appendix B).

:data:`MIN_GRU` with ``n = g(W_n x[t] + b_n)``, where g(v) = v + 0.5 from 0 on and σ(v) below. The
state is kept in plain numbers and begins at 0, which a logarithm cannot.
"""


def _lstm(p, carry, z, u):
    del u
    f, i = (z[g] + p[f"b_{g}"] for g in "fi")
    # f' = σ(f) / (σ(f) + σ(i)), written so that both gates may vanish.
    share = jax.nn.sigmoid(jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i))
    return MinimalCarry(share * carry.h + (1 - share) * (z["n"] + p["b_n"]))


MIN_LSTM = Cell(
    name="min_lstm",
    carry=MinimalCarry,
    inputs=("f", "i", "n"),
    recurrent=(),
    vectors=(("b_f", 1.0), ("b_i", 0.0), ("b_n", 0.0)),
    rule=_lstm,
)
"""minLSTM, its gates scaled to sum to one (arXiv 2410.01201).

    f = σ(W_f x[t] + b_f)
    i = σ(W_i x[t] + b_i)
    n = W_n x[t] + b_n
    h[t] = f / (f + i) ∘ h[t-1] + i / (f + i) ∘ n

b_f starts at 1, the other biases at 0 (our choice).
"""
