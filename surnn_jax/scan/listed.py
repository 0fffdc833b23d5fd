"""Lists of active steps, and arrays taken at some of them: shared by what skips steps."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from surnn_jax.scan import indexing
from surnn_jax.scan.spec import ScanInputs, ScanSpec
from surnn_jax.typing import Array, Carry


def index_step(t: Array, tree: Any) -> Any:
    """Step t of every array ``[T, ...]``."""
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, t, 0, keepdims=False), tree)


def update_step(tree: Any, t: Array, now: Any) -> Any:
    """Every array ``[T, ...]`` with step t replaced."""
    return jax.tree.map(lambda a, v: lax.dynamic_update_index_in_dim(a, v, t, 0), tree, now)


def active_steps(
    spec: ScanSpec, inputs: ScanInputs, backward: bool
) -> tuple[Array, indexing.ActiveSteps]:
    """Which steps are active, as booleans ``[T]`` and as a list.

    Args:
        spec: of the scan.
        inputs: likewise.
        backward: whether nearly open neurons count.
    """
    neurons = None
    if inputs.logits is not None:
        logits = inputs.logits.astype(inputs.initial_carry.h.dtype)
        neurons = indexing.computed_mask(spec.surrogate, logits, backward)
    active = indexing.active_mask(neurons, inputs.step_mask, inputs.resets, inputs.x.shape[0])
    return active, indexing.list_active(active)


def carries_before(inputs: ScanInputs, carries: Carry, now: Array, resets: Array | None) -> Carry:
    """The carries before some steps, ``[C, B, H]`` a field.

    Args:
        inputs: of the scan.
        carries: the carries after all steps.
        now: integers ``[C]``, the steps.
        resets: booleans ``[C, B]`` of these steps, or None.
    """

    def before(s, c):
        return jnp.where((now == 0)[:, None, None], s[None], c[jnp.maximum(now - 1, 0)])

    old = jax.tree.map(before, inputs.initial_carry, carries)
    if resets is None:
        return old
    return jax.tree.map(
        lambda f, o: jnp.where(resets[..., None], f[None], o), inputs.reset_carry, old
    )
