"""Recurrent layers side by side."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax import scan
from surnn_jax.layers.calibration import COLLECTION
from surnn_jax.layers.recurrent import Recurrent, check_backend
from surnn_jax.typing import Array, Carry


class MultiHeadRecurrent(nn.Module):
    """N recurrent layers that read one input and do not see each other's state.

    Together they are one layer of N · H neurons whose recurrent matrices are block-diagonal: an
    N-th of the parameters and of the work of a step. Each has a schedule of its own, so each scans
    its own open steps only: ``Heads(Recurrent("gru", 64, switches.fourier(784, groups=1)), 4)``
    has four rhythms, and no step is taken for a head that is closed.

    Parameters are those of the layer with an axis N in front. On a GPU heads are run at once, on a
    CPU by the compiled kernel one after another.

    Attributes:
        layer: what a head is; its options are those of all.
        heads: N.
    """

    layer: Recurrent
    heads: int

    def __post_init__(self):
        super().__post_init__()
        if self.heads < 1:
            raise ValueError(f"heads must be at least 1, got {self.heads}")

    @nn.compact
    def __call__(
        self,
        inputs: Array,
        mask: Array | None = None,
        *,
        initial_carry: Carry | None = None,
        return_carry: bool | None = None,
        return_run: bool | None = None,
        **options: Any,
    ) -> Array | tuple[Carry, Array] | scan.ScanOutput:
        """Runs all heads.

        Args:
            inputs: as of the layer.
            mask: likewise.
            initial_carry: to go on from, ``[N, *batch, H]`` a field, as an earlier call gave it.
            return_carry: as of the layer.
            return_run: likewise.
            **options: what else the layer is called with: seq_lengths, resets and so on.

        Returns:
            As the layer; outputs, carries and update mask are those of N · H neurons, in order of
            heads; the carry is stacked, ``[N, …]``; the rate is that of all.
        """

        def one(layer, carry):
            return layer(inputs, mask, initial_carry=carry, return_run=True, **options)

        run = self._lifted(one, 0 if initial_carry is not None else None)(self.layer, initial_carry)
        run = run._replace(
            outputs=_concat_heads(run.outputs),
            carries=jax.tree.map(_concat_heads, run.carries),
            rate=run.rate.mean(),
            update_mask=None if run.update_mask is None else _concat_heads(run.update_mask),
        )
        if check_backend(return_run, self.layer.return_run and return_carry is None):
            return run
        if check_backend(return_carry, self.layer.return_carry):
            return run.carry, run.outputs
        return run.outputs

    @nn.compact
    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """The carry from which a stream begins, ``[N, *batch, H]`` a field."""
        return self._lifted(lambda layer: layer.initial_carry(batch_shape))(self.layer)

    @nn.compact
    def step(self, carry: Carry, inputs: Array) -> tuple[Carry, Array]:
        """One step of a stream, see :meth:`Recurrent.step`; outputs ``[*batch, N · H]``."""

        def one(layer, carry):
            return layer.step(carry, inputs)

        carry, outputs = self._lifted(one, 0)(self.layer, carry)
        return carry, _concat_heads(outputs)

    def _lifted(self, call: Any, *axes: int | None) -> Any:
        return nn.vmap(
            call,
            in_axes=axes,
            variable_axes={"params": 0, COLLECTION: 0},
            split_rngs={"params": True, "dropout": True},
            axis_size=self.heads,
        )


def _concat_heads(leaf: Array) -> Array:
    """``[N, …, H]`` as ``[…, N · H]``."""
    leaf = jnp.moveaxis(leaf, 0, -2)
    return leaf.reshape(*leaf.shape[:-2], -1)
