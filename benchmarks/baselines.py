"""What others would run: none of our back ends, and JAX's own derivatives."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax
from jax.experimental import rnn

from surnn_jax.scan import Unit
from surnn_jax.switches import SwitchInputs, for_neurons

Params = dict[str, Any]


def logits(unit: Unit, switch: Params, x: jax.Array, features: int) -> jax.Array:
    """The logits of a switch, ``[T, H]`` or ``[T, B, H]``."""
    previous = None
    if unit.switch.uses_previous_input:
        previous = jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])
    t = jnp.arange(x.shape[0], dtype=jnp.int32)
    return for_neurons(unit.switch.logits(switch, SwitchInputs(x, previous, t)), features)


def masked_scan(unit: Unit, params: Params, x: jax.Array) -> jax.Array:
    """A selective GRU as most would write it: computes everything, then selects.

    The projection of the input stays in the loop, gate by gate: the faster layout on a CPU.
    """
    cell, batch = params["cell"], x.shape[1]
    w, u = cell["input"], cell["recurrent"]
    b = {name: vector[None] for name, vector in cell["vector"].items()}
    g = _switches(unit, params, x, u["n"].shape[0])

    def step(h, now):
        x_t, g_t = now
        r = jax.nn.sigmoid(x_t @ w["r"] + h @ u["r"] + b["b_r"])
        z = jax.nn.sigmoid(x_t @ w["z"] + h @ u["z"] + b["b_z"])
        n = jnp.tanh(x_t @ w["n"] + b["b_n"] + r * (h @ u["n"] + b["c_n"]))
        candidate = (1 - z) * n + z * h
        g_t = _by_row(unit, g_t, batch)
        h = g_t * candidate + (1 - g_t) * h
        return h, h

    return lax.scan(step, jnp.zeros((batch, u["n"].shape[0]), x.dtype), (x, g))[1]


@functools.cache
def cell_scan(dtype: Any) -> Callable[[Unit, Params, jax.Array], jax.Array]:
    """`lax.scan` over the steps of any cell; the switch, if there is one, selects.

    Args:
        dtype: of the operands of products.
    """

    def scan(unit: Unit, params: Params, x: jax.Array) -> jax.Array:
        cell, batch = params["cell"], x.shape[1]
        start = unit.cell.initial_carry(cell, (batch,))
        g = _switches(unit, params, x, start.h.shape[-1]) if unit.switch else None

        def step(carry, now):
            x_t, g_t = now
            new = unit.cell.step(cell, carry, x_t, dtype)
            if g_t is not None:
                g_t = _by_row(unit, g_t, batch)
                new = jax.tree.map(lambda f, h: g_t * f + (1 - g_t) * h, new, carry)
            return new, new.h

        return lax.scan(step, start, (x, g))[1]

    return scan


def cudnn_lstm(params: Params, x: jax.Array) -> jax.Array:
    """cuDNN's LSTM, on our parameters and layout."""
    cell = params["cell"]
    size, width = x.shape[-1], cell["recurrent"]["i"].shape[0]
    rest = jnp.zeros((1, x.shape[1], width), x.dtype)
    lengths = jnp.full((x.shape[1],), x.shape[0], jnp.int32)
    rows = jnp.swapaxes(x, 0, 1)
    done = rnn.lstm(rows, rest, rest, for_cudnn(cell), lengths, size, width, 1, 0.0, False)
    return jnp.swapaxes(done[0], 0, 1)


def for_cudnn(cell: Params) -> jax.Array:
    """Our LSTM's parameters as cuDNN wants them: one vector, with a second bias of zeros."""
    w, u, b = cell["input"], cell["recurrent"], cell["vector"]
    bias = jnp.concatenate([b[f"b_{k}"] for k in "ifgo"])
    kernels = [k[g].T.ravel() for k in (w, u) for g in "ifgo"]
    return jnp.concatenate([*kernels, bias, jnp.zeros_like(bias)])


def _switches(unit: Unit, params: Params, x: jax.Array, features: int) -> jax.Array:
    found = logits(unit, params["switch"], x, features)
    return unit.switch.gate(lax.stop_gradient(found) if unit.switch.frozen else found)


def _by_row(unit: Unit, g_t: jax.Array, batch: int) -> jax.Array:
    """The switches ``[B, H]`` or ``[1, H]``, with a gradient from the rows that give one."""
    g_t = g_t[None] if g_t.ndim == 1 else g_t
    weights = unit.switch.gate.row_weights(batch, g_t.dtype)
    if weights is None:
        return g_t
    constant = lax.stop_gradient(g_t)
    return constant + weights[:, None] * (g_t - constant)


def _minimal(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How far a minimal GRU moves and where to, for all steps at once."""
    w, b = params["cell"]["input"], params["cell"]["vector"]
    return jax.nn.sigmoid(x @ w["z"] + b["b_z"][None, None]), x @ w["n"] + b["b_n"][None, None]


def associative_scan(unit: Unit, params: Params, x: jax.Array) -> jax.Array:
    """A selective minimal GRU as the linear recurrence that it is, in parallel over time."""
    z, n = _minimal(params, x)
    g = _switches(unit, params, x, z.shape[-1])
    move = (g if g.ndim == 3 else g[:, None]) * z

    def join(first, then):
        (p, q), (r, s) = first, then
        return p * r, q * r + s

    return lax.associative_scan(join, (1 - move, move * n))[1]


def where_scan(unit: Unit, params: Params, x: jax.Array) -> jax.Array:
    """The same step by step; for a frozen switch."""
    z, n = _minimal(params, x)
    g = _switches(unit, params, x, z.shape[-1])

    def step(h, now):
        z_t, n_t, g_t = now
        open_now = (g_t[None] if g_t.ndim == 1 else g_t) > 0
        h = jnp.where(open_now, (1 - z_t) * h + z_t * n_t, h)
        return h, h

    return lax.scan(step, jnp.zeros_like(z[0]), (z, n, g))[1]


def flax_rnn(params: Params, x: jax.Array) -> jax.Array:
    """``flax.linen.RNN(GRUCell)``, time-major as ours; parameters as :func:`for_flax` gives."""
    features = params["params"]["cell"]["hn"]["kernel"].shape[0]
    return linen.RNN(linen.GRUCell(features), time_major=True).apply(params, x)


def for_flax(cell: Params) -> Params:
    """Our GRU's parameters, or their gradient, by Flax's names."""
    w, u, b = cell["input"], cell["recurrent"], cell["vector"]
    layers = {f"i{k}": {"kernel": w[k], "bias": b[f"b_{k}"]} for k in "rzn"}
    layers |= {f"h{k}": {"kernel": u[k]} for k in "rz"}
    return {"params": {"cell": {**layers, "hn": {"kernel": u["n"], "bias": b["c_n"]}}}}
