"""Dense back end: `lax.scan` over all steps computes every candidate, and masks the update.

The backward pass is written by hand. It stores only the carries and recomputes the products of all
steps at once; each weight gradient is one product after the loop instead of a sum inside it.
Accelerators run the same in blocks of steps, see :mod:`.blocks`.
"""

import jax
import jax.numpy as jnp

from surnn_jax.scan import adjoint, blocks, derivatives
from surnn_jax.scan.adjoint import switch_values
from surnn_jax.scan.derivatives import Wanted, instantiate_zeros
from surnn_jax.scan.spec import ScanInputs, ScanShape, ScanSpec, UpdateRates
from surnn_jax.typing import Carry


def unsupported(spec: ScanSpec, shape: ScanShape) -> str | None:
    """None: the dense scan runs everything."""
    del spec, shape
    return None


def cost(spec: ScanSpec, shape: ScanShape, rates: UpdateRates) -> float:
    """About 1, whatever the rate."""
    del rates
    if shape.platform != "cpu":
        return 1.0
    # Measured forward and backward without a switch. tanh, H of 32 to 1024, B of 1 to 32, one core
    # and two: `native` had 0.46 to 1.03 of the speed of `masked`, and `compact` 0.53 to 1.02. GRU
    # and LSTM, one sequence, H of 256 and 512, one core: `native` had 0.75 to 0.93; forward alone
    # 0.93 to 1.08. So here it costs less than `native` is expected to.
    wide = shape.batch == 1 and shape.features >= 256
    if spec.surrogate is None and (spec.cell.name == "tanh" or wide):
        return 0.45
    return 1.05


def scan(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """All carries, by `lax.scan`."""
    return derivatives.scan(_KERNELS, spec, inputs)


def forward(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """:func:`scan`, not to be differentiated."""

    def step(carry, now):
        carry = adjoint.forward(spec, inputs.params, inputs.reset_carry, carry, now)
        return carry, carry

    return jax.lax.scan(step, inputs.initial_carry, inputs.per_step)[1]


def carries_before(inputs: ScanInputs, carries: Carry) -> Carry:
    """The carry before every step, ``[T, B, H]`` a field, resets applied."""
    if inputs.x.shape[0] == 0:
        old = carries
    else:
        old = jax.tree.map(
            lambda s, c: jnp.concatenate([s[None], c[:-1]]), inputs.initial_carry, carries
        )
    if inputs.resets is None:
        return old
    return jax.tree.map(
        lambda f, o: jnp.where(inputs.resets[..., None], f[None], o), inputs.reset_carry, old
    )


def backward(
    spec: ScanSpec, inputs: ScanInputs, carries: Carry, wanted: Wanted, ct_outputs: Carry
) -> ScanInputs:
    """The cotangents of the inputs, see :class:`.derivatives.Kernels`.

    `carries` may come from whichever back end ran the forward pass.
    """
    ct_outputs = instantiate_zeros(ct_outputs, carries)
    params, x, logits, initial_carry, reset_carry, step_mask, resets = inputs
    cell, surrogate = spec.cell, spec.surrogate
    old = carries_before(inputs, carries)
    z, u = cell.project(params, x, spec.dtype), cell.recur(params, old.h, spec.dtype)
    v, inner = None, {}
    if cell.inner is not None:
        v, inner = cell.recur_inner(params, old, z, u, spec.dtype)
    vectors = cell.broadcast(params, initial_carry.h.shape)
    backward_step = adjoint.make_backward_step(spec, params, vectors)

    def step(state, now):
        ct_future, dvectors, dreset = state
        ct_output, old, z, u, inner, logits_t, mask_t, reset_t = now
        ct_total = jax.tree.map(jnp.add, ct_future, ct_output)
        g = switch_values(surrogate, logits_t, mask_t, old.h)
        candidate, cotangents = backward_step(ct_total, old, z, u, inner, g)
        dlogits, ct_carry = None, cotangents.carry
        if wanted.logits:
            dlogits = adjoint.logit_cotangents(
                surrogate, logits_t, mask_t, ct_total, candidate, old
            )
        ct_carry, dreset = adjoint.before_reset(reset_t, ct_carry, dreset)
        dvectors = jax.tree.map(jnp.add, dvectors, cotangents.vectors)
        # z and u often enter a rule as a sum and share one cotangent: write it once.
        own = {k: d for k, d in cotangents.u.items() if d is not cotangents.z.get(k)}
        return (ct_carry, dvectors, dreset), (cotangents.z, own, dlogits)

    zeros = jax.tree.map(jnp.zeros_like, (initial_carry, vectors, reset_carry))
    (dinitial, dvectors, dreset), (dz, du, dlogits) = jax.lax.scan(
        step, zeros, (ct_outputs, old, z, u, inner, logits, step_mask, resets), reverse=True
    )
    cotangents = adjoint.StepCotangents(dvectors, dinitial, dz, {**dz, **du})
    return adjoint.of_inputs(spec, inputs, old.h, v, cotangents, dlogits, dreset)


def forward_accelerated(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """:func:`forward` for accelerators."""
    if not blocks.works(inputs):
        return forward(spec, inputs)
    return blocks.forward(spec, inputs)


def backward_accelerated(
    spec: ScanSpec, inputs: ScanInputs, carries: Carry, wanted: Wanted, ct_outputs: Carry
) -> ScanInputs:
    """:func:`backward` for accelerators."""
    if not blocks.works(inputs):
        return backward(spec, inputs, carries, wanted, ct_outputs)
    old = carries_before(inputs, carries)
    return blocks.backward(spec, inputs, carries, old, wanted, ct_outputs)


ACCELERATED = derivatives.Kernels(forward_accelerated, backward_accelerated)
"""What runs on a GPU or TPU."""

_KERNELS = derivatives.Kernels(forward, backward, accelerated=ACCELERATED)
