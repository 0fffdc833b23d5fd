"""sLSTM, the scalar memory of xLSTM: exponential gates, normalised and stabilised."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.cells.cell import Cell
from surnn_jax.typing import Array


class SLSTMCarry(NamedTuple):
    """State of an sLSTM.

    Attributes:
        c: ``[B, H]``, the memory cell.
        n: ``[B, H]``, what it is divided by; 0 before the first step.
        m: ``[B, H]``, the logarithm by which both are scaled down.
        h: ``[B, H]``, the output.

    Examples:
        >>> from surnn_jax import cells
        >>> carry = cells.get("slstm").zero_carry((2, 4), jnp.float32)
        >>> carry._fields, carry.h.shape
        (('c', 'n', 'm', 'h'), (2, 4))
    """

    c: Array
    n: Array
    m: Array
    h: Array


def _rule(p, carry, z, u):
    i, f, g, o = (z[k] + u[k] + p[f"b_{k}"] for k in "ifgo")
    kept = jax.nn.log_sigmoid(f) + carry.m
    # The first step has nothing to keep: its input is the scale.
    m = jnp.where(carry.n == 0, i, jnp.maximum(kept, i))
    add, keep = jnp.exp(i - m), jnp.exp(jnp.where(carry.n == 0, 0, kept - m))
    c = keep * carry.c + add * jnp.tanh(g)
    n = keep * carry.n + add
    return SLSTMCarry(c, n, m, jax.nn.sigmoid(o) * c / n)


SLSTM = Cell(
    name="slstm",
    carry=SLSTMCarry,
    inputs=("i", "f", "g", "o"),
    recurrent=("i", "f", "g", "o"),
    vectors=(("b_i", 0.0), ("b_f", 1.0), ("b_g", 0.0), ("b_o", 0.0)),
    rule=_rule,
)
"""sLSTM (Beck et al. 2024, "xLSTM", arXiv 2405.04517, equations 8 to 17), f with the sigmoid.

    i, f, g, o = W x[t] + U h[t-1] + b, for each
    m[t] = max(log σ(f) + m[t-1], i)
    c[t] = exp(log σ(f) + m[t-1] - m[t]) ∘ c[t-1] + exp(i - m[t]) ∘ tanh(g)
    n[t] = exp(log σ(f) + m[t-1] - m[t]) ∘ n[t-1] + exp(i - m[t])
    h[t] = σ(o) ∘ c[t] / n[t]

At the first step, where n[t-1] = 0, m[t] = i, as in the authors' code. b_f starts at 1 (our
choice). The authors' U is block-diagonal: :class:`surnn_jax.layers.MultiHeadRecurrent` makes it so.
"""
