"""A scan in operations that JAX differentiates as often as asked."""

import jax
import jax.numpy as jnp

from surnn_jax.scan import adjoint
from surnn_jax.scan.spec import ScanInputs, ScanSpec
from surnn_jax.typing import Array, Carry


def twin(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """The same scan in operations that JAX differentiates as often as asked.

    It has no rule of `jax.custom_jvp` of its own: `lax.scan` forgets such a rule where reverse mode
    is differentiated once more.
    """
    params, x, logits, start, reset_carry, step_mask, resets = inputs
    if step_mask is not None:
        x = jnp.where(step_mask[..., None], x, 0)  # What is not read may be NaN.
    g = _switches(spec, logits, step_mask, start.h)

    def step(carry, now):
        x, g, reset = now
        if reset is not None:
            carry = adjoint.select(reset, reset_carry, carry)
        candidate = spec.cell.step(params, carry, x, spec.dtype)
        if g is not None:
            switches = adjoint.by_field(spec.surrogate, g, carry)
            candidate = jax.tree.map(_mix, switches, candidate, carry)
        return candidate, candidate

    return jax.lax.scan(step, start, (x, g, resets))[1]


def _switches(
    spec: ScanSpec, logits: Array | None, step_mask: Array | None, like: Array
) -> Array | None:
    """The switches ``[T, B, H]`` of all steps, with the surrogate's derivatives."""
    g = None
    if logits is not None:
        g = spec.surrogate(logits.astype(like.dtype))
        g = g[:, None] if g.ndim == 2 else g
        g = jnp.broadcast_to(g, (g.shape[0], *like.shape))
        weights = spec.surrogate.row_weights(like.shape[0], like.dtype)
        if weights is not None:
            fixed = jax.lax.stop_gradient(g)
            g = fixed + weights[:, None] * (g - fixed)
    if step_mask is None:
        return g
    ones = jnp.ones((*step_mask.shape, like.shape[-1]), like.dtype)
    return jnp.where(step_mask[..., None], ones if g is None else g, 0)


def _mix(g: Array, candidate: Array, old: Array) -> Array:
    # A closed neuron's candidate may be anything.
    broken = (g == 0) & ~jnp.isfinite(candidate)
    return g * jnp.where(broken, old, candidate) + (1 - g) * old
