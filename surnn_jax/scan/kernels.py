"""What a back end hands to :mod:`.derivatives`: its two directions, and what replaces them."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.scan.spec import ScanInputs, ScanSpec
from surnn_jax.typing import Carry


class Wanted(NamedTuple):
    """Which of the cotangents that cost something are wanted; known while tracing."""

    x: bool
    logits: bool


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The two directions of a back end.

    Attributes:
        forward: ``(spec, inputs) -> carries``.
        backward: ``(spec, inputs, carries, wanted, ct_outputs) -> cotangents``. The fields of
            `ct_outputs` are None if nothing depends on them. The result has cotangents of the
            first five fields of the inputs; those not `wanted` may be None.
        lists: whether the number of turns of their loops depends on logits, masks and resets.
            Under a `vmap` over those, JAX would run every turn for all and copy whole carries;
            so the scans run one after another, or by `mapped`.
        mapped: what runs under such a `vmap`; None for one scan after another.
        accelerated: what runs on a GPU or TPU; None for the same.
    """

    forward: Callable[[ScanSpec, ScanInputs], Carry]
    backward: Callable[[ScanSpec, ScanInputs, Carry, Wanted, Carry], ScanInputs]
    lists: bool = False
    mapped: "Kernels | None" = None
    accelerated: "Kernels | None" = None

    def on(self, accelerator: bool, listed: bool) -> "Kernels":
        """Those for a platform; `listed` if a `vmap` goes over what makes the lists."""
        kernels = self.accelerated if accelerator and self.accelerated is not None else self
        if listed and kernels.lists and kernels.mapped is not None:
            return kernels.mapped
        return kernels


def instantiate_zeros(cotangents: Any, like: Any) -> Any:
    """None as arrays of zeros."""
    return jax.tree.map(
        lambda c, of: jnp.zeros_like(of) if c is None else c,
        cotangents,
        like,
        is_leaf=lambda c: c is None,
    )
