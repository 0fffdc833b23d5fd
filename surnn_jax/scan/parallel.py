"""Parallel over time, for cells that are linear in the state: all but a weighted sum at once.

If no gate reads the state, a step is ``h[t] = p[t] ∘ h[t-1] + q[t]`` with p and q known before the
first (minGRU, minLSTM). A closed switch is p = 1 and q = 0, a reset p = 0. What is left is
:mod:`.linear_scan`: on a CPU a loop over one multiplication and one sum, elsewhere an associative
scan of log T levels. The gradient is the same recurrence backwards. The published code of minGRU
adds up logarithms; here p lies in [0, 1] and nothing overflows, so plain numbers do.
"""

import math

import jax
import jax.numpy as jnp

from surnn_jax.scan import adjoint, derivatives, linear_scan, masked
from surnn_jax.scan.derivatives import Wanted, instantiate_zeros
from surnn_jax.scan.spec import ScanInputs, ScanShape, ScanSpec, UpdateRates
from surnn_jax.typing import Array, Carry

_SMALL = 512  # numbers of a state with which all steps at once are the fastest on a CPU
_LONG = 128  # steps from which an associative scan is expected to pay


def unsupported(spec: ScanSpec, shape: ScanShape) -> str | None:
    """Why steps depend on one another; None if they do not."""
    del shape
    if spec.surrogate is not None and spec.surrogate.expected is not None:
        return "fields have switches of their own"
    return None if spec.cell.linear else f"{spec.cell.name} is not linear in its state"


def cost(spec: ScanSpec, shape: ScanShape, rates: UpdateRates) -> float:
    """The same at every rate: low for small layers on a CPU, and for long sequences elsewhere."""
    del spec, rates
    if shape.platform != "cpu":
        # Not measured. A loop has T turns of some launches each, the associative scan log T levels.
        return 0.4 if shape.steps >= _LONG else math.inf
    # minGRU, minLSTM and RG-LRU, T = 1024, forward and backward, two cores: with B · H of 256 and
    # 512 it took 0.4 to 0.95 of the time of the fastest other, with 1024 0.95 to 1.4, with 4096
    # and more mostly longer, up to 3 times, since all steps together do not fit into the caches.
    return 0.45 if shape.batch * shape.features <= _SMALL else math.inf


def scan(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """All carries; :func:`.masked.scan` runs instead for other cells."""
    if unsupported(spec, inputs.scan_shape()) is not None:
        return masked.scan(spec, inputs)
    return derivatives.scan(_KERNELS, spec, inputs)


def forward(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """:func:`scan`, not to be differentiated."""
    p, q = _coefficients(spec, inputs)
    g = _switch_values(spec, inputs)
    held = None if g is None else g == 0
    if inputs.resets is not None:
        reset = inputs.resets[..., None]
        q = jnp.where(reset, p * inputs.reset_carry.h[None] + q, q)
        p = jnp.where(reset, 0, p)
        held = None if held is None else held & ~reset
    # A state that is not finite ends at a reset, where p is 0.
    return spec.cell.carry(
        linear_scan.states(p, q, inputs.initial_carry.h, held, inputs.resets is not None)
    )


def _coefficients(spec: ScanSpec, inputs: ScanInputs) -> tuple[Array, Array]:
    """p and q of all steps, ``[T, B, H]``, without resets."""
    cell, params = spec.cell, inputs.params
    z = cell.project(params, inputs.x, spec.dtype)
    shape = (*inputs.x.shape[:2], inputs.initial_carry.h.shape[-1])
    vectors = cell.broadcast(params, shape)
    zeros = jnp.zeros(shape, inputs.initial_carry.h.dtype)
    # At h = 0 the value is q, and the derivative is p: nothing cancels.
    q, p = jax.jvp(
        lambda h: cell.rule(vectors, cell.carry(h), z, {}).h, (zeros,), (jnp.ones_like(zeros),)
    )
    g = _switch_values(spec, inputs)
    if g is None:
        return p, q
    if spec.surrogate is None or spec.surrogate.hard:
        return tuple(
            jnp.where(g > 0, now, jnp.where(g <= 0, held, g))
            for now, held in zip((p, q), (1, 0), strict=True)
        )
    return (
        jnp.where(g == 1, p, jnp.where(g == 0, 1, 1 + g * (p - 1))),
        jnp.where(g == 1, q, jnp.where(g == 0, 0, g * q)),
    )


def _switch_values(spec: ScanSpec, inputs: ScanInputs) -> Array | None:
    """The switches of all steps, ``[T, B, H]`` or with axes of length 1; None if all are open."""
    dtype, g = inputs.initial_carry.h.dtype, None
    if inputs.logits is not None:
        g = spec.surrogate.value(inputs.logits.astype(dtype))
        g = g[:, None] if g.ndim == 2 else g
    if inputs.step_mask is not None:
        valid = inputs.step_mask[..., None]
        g = jnp.where(valid, jnp.ones((1, 1, 1), dtype) if g is None else g, 0)
    return g


def backward(
    spec: ScanSpec, inputs: ScanInputs, carries: Carry, wanted: Wanted, ct_outputs: Carry
) -> ScanInputs:
    """The cotangents of the inputs, see :class:`.derivatives.Kernels`."""
    ct_outputs = instantiate_zeros(ct_outputs, carries)
    params, x, logits, _, reset_carry, step_mask, resets = inputs
    if not x.shape[0]:
        return jax.tree.map(jnp.zeros_like, ScanInputs(*inputs[:5]))
    cell = spec.cell
    p = _coefficients(spec, inputs)[0]
    through = p if resets is None else jnp.where(resets[..., None], 0, p)
    dinitial, ct_total = linear_scan.adjoints(through, ct_outputs.h)
    dreset = jnp.zeros_like(reset_carry.h)
    if resets is not None:
        dreset = jnp.where(resets[..., None], p * ct_total, 0).sum(0)

    old = masked.carries_before(inputs, carries)
    z = cell.project(params, x, spec.dtype)
    vectors = cell.broadcast(params, carries.h.shape)
    g = _switch_values(spec, inputs)
    g = None if g is None else jnp.broadcast_to(g, carries.h.shape)
    ct_total = cell.carry(ct_total)
    candidate, cotangents = adjoint.rule_vjp(cell, vectors, ct_total, old, z, {}, g)
    dlogits = None
    if wanted.logits:
        dlogits = adjoint.logit_cotangents(
            spec.surrogate, logits, step_mask, ct_total, candidate, old
        ).astype(logits.dtype)
    dparams = adjoint.kernel_gradients(spec, params, x, old.h, None, cotangents)
    dparams["vector"] = {k: d.sum((0, 1)) for k, d in cotangents.vectors.items()}
    dparams = jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)
    dx = adjoint.input_cotangents(spec, params, cotangents.z)
    carry = cell.carry
    return ScanInputs(dparams, dx.astype(x.dtype), dlogits, carry(dinitial), carry(dreset))


_KERNELS = derivatives.Kernels(forward, backward)
