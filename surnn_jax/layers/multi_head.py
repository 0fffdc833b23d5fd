"""Recurrent layers side by side."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax import scan
from surnn_jax.layers.calibration import COLLECTION
from surnn_jax.layers.recurrent import Recurrent, value_or_default
from surnn_jax.typing import Array, Carry


class MultiHeadRecurrent(nn.Module):
    """N recurrent layers that read one input and do not see each other's state.

    Together they are one layer of N · H neurons whose recurrent matrices are block-diagonal, with
    an N-th of the parameters and of the work of a step. Each head has its own schedule and scans
    its own open steps only. This layer has four rhythms, and takes no step for a closed head::

        MultiHeadRecurrent(Recurrent("gru", 64, switches.fourier(784, groups=1)), 4)

    Parameters are those of the layer with a leading axis N. A GPU runs the heads at once; on a CPU
    the compiled kernel runs them one after another.

    Attributes:
        layer: one head; all heads have its options.
        num_heads: N.

    Examples:
        >>> from surnn_jax.layers import MultiHeadRecurrent, Recurrent
        >>> layer = MultiHeadRecurrent(Recurrent("gru", 4), num_heads=2)
        >>> layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0].shape
        (2, 5, 8)
    """

    layer: Recurrent
    num_heads: int

    def __post_init__(self):
        super().__post_init__()
        if self.num_heads < 1:
            raise ValueError(f"num_heads must be at least 1, got {self.num_heads}")

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
            inputs: as for the layer.
            mask: as for the layer.
            initial_carry: the carry that an earlier call returned, ``[N, *batch, H]`` a field.
            return_carry: as for the layer.
            return_run: as for the layer.
            **options: other arguments of the layer: seq_lengths, resets and so on.

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
            balance=jnp.sum(run.balance),
            update_mask=None if run.update_mask is None else _concat_heads(run.update_mask),
        )
        if value_or_default(return_run, self.layer.return_run and return_carry is None):
            return run
        if value_or_default(return_carry, self.layer.return_carry):
            return run.carry, run.outputs
        return run.outputs

    @nn.compact
    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """The carry from which a stream begins, ``[N, *batch, H]`` a field."""
        return self._lifted(lambda layer: layer.initial_carry(batch_shape))(self.layer)

    @nn.compact
    def step(self, carry: Carry, inputs: Array, resets: Array | None = None) -> tuple[Carry, Array]:
        """One step of a stream, see :meth:`Recurrent.step`; outputs ``[*batch, N · H]``."""

        def one(layer, carry):
            return layer.step(carry, inputs, resets)

        carry, outputs = self._lifted(one, 0)(self.layer, carry)
        return carry, _concat_heads(outputs)

    def _lifted(self, call: Any, *axes: int | None) -> Any:
        return nn.vmap(
            call,
            in_axes=axes,
            variable_axes={"params": 0, COLLECTION: 0},
            split_rngs={"params": True, "dropout": True},
            axis_size=self.num_heads,
        )


def _concat_heads(leaf: Array) -> Array:
    """``[N, …, H]`` as ``[…, N · H]``."""
    leaf = jnp.moveaxis(leaf, 0, -2)
    return leaf.reshape(*leaf.shape[:-2], leaf.shape[-2] * leaf.shape[-1])
