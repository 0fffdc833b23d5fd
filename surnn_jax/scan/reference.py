"""The oracle: a plain Python loop over time, differentiated by JAX."""

import math

import jax
import jax.numpy as jnp

from surnn_jax.cells.straight_through import mix, with_slope
from surnn_jax.scan import adjoint
from surnn_jax.scan.spec import ScanInputs, ScanShape, ScanSpec, UpdateRates
from surnn_jax.typing import Array, Carry


def unsupported(spec: ScanSpec, shape: ScanShape) -> str | None:
    """None: the loop runs everything."""
    del spec, shape
    return None


def cost(spec: ScanSpec, shape: ScanShape, rates: UpdateRates) -> float:
    """Infinite: it is slow, and traces every step."""
    del spec, shape, rates
    return math.inf


def scan(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """All carries, step by step."""
    carry, carries = inputs.initial_carry, []
    for t in range(inputs.x.shape[0]):
        if inputs.resets is not None:
            reset = inputs.resets[t][:, None]
            carry = jax.tree.map(
                lambda new, old, r=reset: jnp.where(r, new, old), inputs.reset_carry, carry
            )
        candidate = spec.cell.step(inputs.params, carry, inputs.x[t], spec.dtype)
        g = _switches(spec, inputs, t, carry.h)
        carry = jax.tree.map(mix, adjoint.by_field(spec.surrogate, g, carry), candidate, carry)
        carries.append(carry)
    if not carries:
        return jax.tree.map(lambda c: jnp.zeros((0, *c.shape), c.dtype), inputs.initial_carry)
    return jax.tree.map(lambda *steps: jnp.stack(steps), *carries)


def _switches(spec: ScanSpec, inputs: ScanInputs, t: int, like: Array) -> Array:
    """The switches ``[B, H]`` of step t."""
    g = jnp.ones_like(like)
    if inputs.logits is not None:
        opened = spec.surrogate(inputs.logits[t].astype(like.dtype))
        g = jnp.broadcast_to(opened[None] if opened.ndim == 1 else opened, g.shape)
        weights = spec.surrogate.row_weights(g.shape[0], g.dtype)
        if weights is not None:
            weights = jnp.broadcast_to(weights[:, None], g.shape)
            # With weight 0 the derivative may be anything, NaN included.
            weighed = jnp.where((weights == 0) | ~jnp.isfinite(g), 0, weights * g)
            g = with_slope(g, weighed)
    if inputs.step_mask is not None:
        g = jnp.where(inputs.step_mask[t][:, None], g, 0)
    return g
