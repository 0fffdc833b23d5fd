"""GRU and LSTM with layer normalisation, whose rules read all neurons: none can be taken alone."""

import jax
import jax.numpy as jnp

from surnn_jax.cells.cell import Cell
from surnn_jax.cells.gru import GRUCarry
from surnn_jax.cells.lstm import LSTMCarry

_EPSILON = 1e-5


def _normal(a):
    """Mean 0 and variance 1 over the neurons."""
    a = a - a.mean(-1, keepdims=True)
    return a * jax.lax.rsqrt(jnp.square(a).mean(-1, keepdims=True) + _EPSILON)


def _gru(p, carry, z, u):
    z = {k: p[f"w_{k}"] * _normal(v) for k, v in z.items()}
    u = {k: p[f"u_{k}"] * _normal(v) for k, v in u.items()}
    r = jax.nn.sigmoid(z["r"] + u["r"] + p["b_r"])
    keep = jax.nn.sigmoid(z["z"] + u["z"] + p["b_z"])
    n = jnp.tanh(z["n"] + p["b_n"] + r * (u["n"] + p["c_n"]))
    return GRUCarry((1 - keep) * n + keep * carry.h)


def _gains(gates):
    return tuple((f"{side}_{gate}", 1.0) for side in "wu" for gate in gates)


GRU_LAYER_NORM = Cell(
    name="gru_layer_norm",
    carry=GRUCarry,
    inputs=("r", "z", "n"),
    recurrent=("r", "z", "n"),
    vectors=(*_gains("rzn"), ("b_r", 0.0), ("b_z", 0.0), ("b_n", 0.0), ("c_n", 0.0)),
    rule=_gru,
)
""":data:`.GRU` with layer normalisation (Ba et al. 2016, arXiv 1607.06450, supplement).

    r = σ(w_r ∘ N(W_r x[t]) + u_r ∘ N(U_r h[t-1]) + b_r)
    z = σ(w_z ∘ N(W_z x[t]) + u_z ∘ N(U_z h[t-1]) + b_z)
    n = tanh(w_n ∘ N(W_n x[t]) + b_n + r ∘ (u_n ∘ N(U_n h[t-1]) + c_n))
    h[t] = (1 - z) ∘ n + z ∘ h[t-1]

N gives mean 0 and variance 1 over the neurons, for each gate alone (the paper joins the gates).
Gains start at 1, biases at 0. Runs on `masked` or `compact`.
"""


def _lstm(p, carry, z, u):
    i, f, g, o = (
        p[f"w_{k}"] * _normal(z[k]) + p[f"u_{k}"] * _normal(u[k]) + p[f"b_{k}"] for k in "ifgo"
    )
    c = jax.nn.sigmoid(f) * carry.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    out = jnp.tanh(p["w_c"] * _normal(c) + p["b_c"])
    return LSTMCarry(c, jax.nn.sigmoid(o) * out)


LSTM_LAYER_NORM = Cell(
    name="lstm_layer_norm",
    carry=LSTMCarry,
    inputs=("i", "f", "g", "o"),
    recurrent=("i", "f", "g", "o"),
    vectors=(
        *_gains("ifgo"),
        *(("b_i", 0.0), ("b_f", 1.0), ("b_g", 0.0), ("b_o", 0.0)),
        *(("w_c", 1.0), ("b_c", 0.0)),
    ),
    rule=_lstm,
)
""":data:`.LSTM` with layer normalisation (Ba et al. 2016, arXiv 1607.06450, supplement).

    i, f, g, o = w ∘ N(W x[t]) + u ∘ N(U h[t-1]) + b, for each
    c[t] = σ(f) ∘ c[t-1] + σ(i) ∘ tanh(g)
    h[t] = σ(o) ∘ tanh(w_c ∘ N(c[t]) + b_c)

N as in :data:`GRU_LAYER_NORM`. Gains start at 1, b_f at 1, the other biases at 0. Runs on `masked`
or `compact`.
"""
