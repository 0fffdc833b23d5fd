"""Units that decide from their state whether to update: Skip RNN and SA-RNN, both with a GRU.

Their updates are not known before the scan, so nothing can be skipped: they are baselines, on any
back end. The field `open` of their carries says which neurons updated last. Its mean is the rate
that :func:`surnn_jax.scan.run` reports, and a loss may penalise it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.cells.cell import Cell
from surnn_jax.cells.gru import GRU, GRUCarry
from surnn_jax.cells.straight_through import mix, rounded
from surnn_jax.typing import Array


class SkipCarry(NamedTuple):
    """State of a Skip RNN.

    Attributes:
        wait: ``[B, H]``, 1 - ũ of the last step, the same in every neuron.
        open: ``[B, H]``, whether the last step updated, 0 or 1, the same in every neuron.
        h: ``[B, H]``, the output.

    Examples:
        >>> from surnn_jax import cells
        >>> carry = cells.get("skip_gru").zero_carry((2, 4), jnp.float32)
        >>> carry._fields, carry.h.shape
        (('wait', 'open', 'h'), (2, 4))
    """

    wait: Array
    open: Array
    h: Array


def _skip(p, carry, z, u):
    more = jax.nn.sigmoid(u["p"] + p["b_p"])
    held = 1 - carry.wait + jnp.minimum(more, carry.wait)
    urge = carry.open * more + (1 - carry.open) * held
    opened = rounded(urge)
    candidate = GRU.rule(p, GRUCarry(carry.h), z, u).h
    return SkipCarry(1 - urge, opened, mix(opened, candidate, carry.h))


SKIP_GRU = Cell(
    name="skip_gru",
    carry=SkipCarry,
    inputs=GRU.inputs,
    recurrent=(*GRU.recurrent, "p"),
    vectors=(*GRU.vectors, ("b_p", 1.0)),
    shared=("p", "b_p"),
    rule=_skip,
)
"""Skip RNN (Campos et al. 2018, equations 2 to 5) around :data:`.GRU`.

    u[t] = round(ũ[t])
    h[t] = u[t] GRU(h[t-1], x[t]) + (1 - u[t]) h[t-1]
    Δũ[t] = σ(w_p · h[t] + b_p)
    ũ[t+1] = u[t] Δũ[t] + (1 - u[t]) (ũ[t] + min(Δũ[t], 1 - ũ[t]))

One switch for the whole state: ũ is a number. The derivative of `round` is taken to be 1, and the
first step of a sequence updates. b_p starts at 1, as published, so that at first all steps do. The
published budget is λ times the steps updated: λ T times the rate that a run reports.

Every neuron keeps ũ and computes it for itself, from one w_p and one b_p, so that rule and carry
are those of any other cell. The GRU is reset after the product, where the authors' is before it.
At a skipped step Δũ is computed again from the state that was held, where the authors' code keeps
the number. The value is the same, but the gradient through `round` differs: here an update changes
Δũ only through the state.
"""


class SACarry(NamedTuple):
    """State of an SA-RNN.

    Attributes:
        open: ``[B, H]``, which neurons updated at the last step, 0 or 1.
        h: ``[B, H]``, the output.

    Examples:
        >>> from surnn_jax import cells
        >>> carry = cells.get("sa_gru").zero_carry((2, 4), jnp.float32)
        >>> carry._fields, carry.h.shape
        (('open', 'h'), (2, 4))
    """

    open: Array
    h: Array


def _adaptive(p, carry, z, u):
    lean = z["s"] + p["v_s"] * carry.h + p["b_s"]
    opened = rounded(jnp.clip((lean + 1) / 2, 0, 1))
    candidate = GRU.rule(p, GRUCarry(carry.h), z, u).h
    return SACarry(opened, mix(opened, candidate, carry.h))


SA_GRU = Cell(
    name="sa_gru",
    carry=SACarry,
    inputs=(*GRU.inputs, "s"),
    recurrent=GRU.recurrent,
    vectors=(*GRU.vectors, ("v_s", 0.0), ("b_s", 0.0)),
    rule=_adaptive,
)
"""SA-RNN (Hartvigsen et al. 2020) around :data:`.GRU`: every neuron has a switch that reads the
input and the neuron's own state.

    ũ[t] = clip((a (W_s x[t] + v_s ∘ h[t-1] + b_s) + 1) / 2, 0, 1)
    u[t] = round(ũ[t])
    h[t] = u[t] ∘ GRU(h[t-1], x[t]) + (1 - u[t]) ∘ h[t-1]

The GRU is reset after the product, where the authors' is before it. The derivative of `round` is
taken to be 1. The slope a is 1 throughout: the authors let it grow
with the epoch, min(5, 1 + 0.04 epoch), which changes the gradient alone, and is left out. v_s and
b_s start at 0 (our choice), where half of the neurons are open. The published penalty is λ times
the number of updates: λ T H times the rate that a run reports.
"""
