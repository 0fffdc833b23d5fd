"""The dense scan as accelerators run it: blocks of steps, each a straight line of code.

What a step costs there is the launching of its kernels, so a block makes few of them: one product
with the inputs for all its steps, one product with the state a step, one write of its results. The
backward step has one product for all gates. On a CPU the plain loop of :mod:`.masked` is faster.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from surnn_jax.scan import adjoint
from surnn_jax.scan.adjoint import switch_values
from surnn_jax.scan.derivatives import Wanted, instantiate_zeros
from surnn_jax.scan.spec import ScanInputs, ScanSpec
from surnn_jax.typing import Array, Carry

STEPS = 8
"""Steps of a block. More would save little and take longer to compile."""


def in_blocks(
    block: Callable[[Any, Any], tuple[Any, Any]], state: Any, arrays: Any, reverse: bool = False
) -> tuple[Any, Any]:
    """Like `lax.scan`, with a function of up to :data:`STEPS` steps at a time.

    Args:
        block: ``(state, arrays [N, …]) -> (state, results [N, …])``.
        state: before the first block.
        arrays: ``[T, …]`` each, or None.
        reverse: whether to go from the end to the beginning.
    """
    steps = jax.tree.leaves(arrays)[0].shape[0]
    whole = steps // STEPS
    cut = whole * STEPS
    first = jax.tree.map(lambda a: a[:cut].reshape(whole, STEPS, *a.shape[1:]), arrays)
    rest = jax.tree.map(lambda a: a[cut:], arrays)
    ends = None
    if reverse and cut < steps:
        state, ends = block(state, rest)
    state, found = jax.lax.scan(block, state, first, reverse=reverse)
    found = jax.tree.map(lambda a: a.reshape(cut, *a.shape[2:]), found)
    if not reverse and cut < steps:
        state, ends = block(state, rest)
    if ends is not None:
        found = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), found, ends)
    return state, found


def stack(items: list[Any]) -> Any:
    """Trees of arrays as one tree of arrays with an axis in front."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *items)


def forward_block(
    spec: ScanSpec, inputs: ScanInputs, carry: Carry, now: Any
) -> tuple[Carry, Carry]:
    """Some steps forward.

    Args:
        spec: of the scan.
        inputs: its parameters and the carry of a reset are read.
        carry: before the steps.
        now: their :attr:`.ScanInputs.per_step`.

    Returns:
        The carry after the steps, and after each.
    """
    x, *more = now
    z = spec.cell.project(inputs.params, x, spec.dtype)
    found = []
    for i in range(x.shape[0]):
        z_t, (logits, step_mask, reset) = jax.tree.map(lambda a, i=i: a[i], (z, tuple(more)))
        carry = adjoint.forward_projected(
            spec, inputs.params, inputs.reset_carry, carry, z_t, logits, step_mask, reset
        )
        found.append(carry)
    return carry, stack(found)


def forward(spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """As :func:`.masked.forward`."""

    def block(carry, now):
        return forward_block(spec, inputs, carry, now)

    return in_blocks(block, inputs.initial_carry, inputs.per_step)[1]


def works(inputs: ScanInputs) -> bool:
    """Whether there are steps to cut into blocks: an export may leave their number open."""
    steps = inputs.x.shape[0]
    return not is_symbolic_dim(steps) and steps > 0


class Backward:
    """The backward pass of blocks of steps.

    Args:
        spec: of the scan.
        inputs: likewise.
        wanted: whether the logits' cotangents are.
    """

    def __init__(self, spec: ScanSpec, inputs: ScanInputs, wanted: Wanted):
        self.spec, self.inputs, self.wanted = spec, inputs, wanted
        self.vectors = spec.cell.broadcast(inputs.params, inputs.initial_carry.h.shape)
        self.step = adjoint.make_backward_step(spec, inputs.params, self.vectors, merged=True)

    def start(self) -> tuple[Carry, dict[str, Array], Carry]:
        """Zeros: the cotangents of the carry, of the vectors and of the carry after a reset."""
        like = self.inputs.initial_carry, self.vectors, self.inputs.reset_carry
        return jax.tree.map(jnp.zeros_like, like)

    def __call__(
        self, state: Any, now: Any, live: Array | None = None
    ) -> tuple[Any, tuple[dict[str, Array], dict[str, Array], Array | None, Array | None]]:
        """Some steps, from the last to the first.

        Args:
            state: see :meth:`start`.
            now: cotangents of the outputs, carries before the steps with resets applied, inputs,
                logits, step mask, resets; ``[N, …]`` each.
            live: booleans ``[N]``, False for a step that does not count.

        Returns:
            The state before the steps; cotangents of input products and of the products with the
            state if they are others, operands of the inner product, cotangents of the logits.
        """
        spec, params = self.spec, self.inputs.params
        ct_outputs, old, x, logits, step_mask, resets = now
        z, u = spec.cell.project(params, x, spec.dtype), spec.cell.recur(params, old.h, spec.dtype)
        v, inner = None, {}
        if spec.cell.inner is not None:
            v, inner = spec.cell.recur_inner(params, old, z, u, spec.dtype)
        each = []
        for i in reversed(range(x.shape[0])):
            at = jax.tree.map(
                lambda a, i=i: a[i], (ct_outputs, old, z, u, inner, logits, step_mask, resets)
            )
            state, found = self._one(state, at, None if live is None else live[i])
            each.append(found)
        dz, du, gaps = stack(each[::-1])
        dlogits = None
        if self.wanted.logits:
            dlogits = adjoint.of_gaps(spec.surrogate, logits, step_mask, gaps)
        return state, (dz, du, v, dlogits)

    def _one(self, state, at, live):
        ct_future, dvectors, dreset = state
        ct_output, old, z, u, inner, logits, step_mask, reset = at
        ct_total = jax.tree.map(jnp.add, ct_future, ct_output)
        g = switch_values(self.spec.surrogate, logits, step_mask, old.h)
        candidate, cotangents = self.step(ct_total, old, z, u, inner, g)
        gaps = adjoint.gaps(ct_total, candidate, old) if self.wanted.logits else None
        own = {k: d for k, d in cotangents.u.items() if d is not cotangents.z.get(k)}
        found = (cotangents.z, own, gaps)
        ct_carry, more = cotangents.carry, cotangents.vectors
        if live is not None:
            ct_carry = jax.tree.map(lambda a, b: jnp.where(live, a, b), ct_carry, ct_future)
            found, more = jax.tree.map(lambda a: jnp.where(live, a, 0), (found, more))
        ct_carry, dreset = adjoint.before_reset(reset, ct_carry, dreset)
        return (ct_carry, jax.tree.map(jnp.add, dvectors, more), dreset), found


def backward(
    spec: ScanSpec,
    inputs: ScanInputs,
    carries: Carry,
    old: Carry,
    wanted: Wanted,
    ct_outputs: Carry,
) -> ScanInputs:
    """As :func:`.masked.backward`; `old` are the carries before the steps."""
    ct_outputs = instantiate_zeros(ct_outputs, carries)
    _, x, logits, _, _, step_mask, resets = inputs
    walk = Backward(spec, inputs, wanted)
    (dinitial, dvectors, dreset), (dz, du, v, dlogits) = in_blocks(
        walk, walk.start(), (ct_outputs, old, x, logits, step_mask, resets), reverse=True
    )
    cotangents = adjoint.StepCotangents(dvectors, dinitial, dz, {**dz, **du})
    return adjoint.of_inputs(spec, inputs, old.h, v, cotangents, dlogits, dreset)
