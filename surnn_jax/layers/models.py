"""Whole models: a recurrent layer and a head."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from surnn_jax import cells, scan
from surnn_jax.layers.recurrent import Recurrent
from surnn_jax.switches import Switch
from surnn_jax.typing import Array, Carry


class FramePredictor(nn.Module):
    """One recurrent layer and a linear read-out of every step, as in Chung et al. 2014.

    Attributes:
        cell: a cell or its name.
        features: H, the number of neurons.
        outputs: width of the read-out: logits a frame.
        switch: when each neuron updates; None for always.
        backend: how to scan.
        dtype: operands of products are rounded to it; None for not at all.
    """

    cell: str | cells.Cell
    features: int
    outputs: int
    switch: Switch | None = None
    backend: str = "auto"
    dtype: Any = None

    def setup(self):
        self.recurrent = Recurrent(
            self.cell, self.features, self.switch, backend=self.backend, dtype=self.dtype
        )
        self.readout = nn.Dense(self.outputs, dtype=self.dtype)

    def __call__(self, x: Array, lengths: Array | None = None) -> tuple[Array, scan.Run]:
        """Logits ``[B, T, outputs]`` in float32 at least, and the run of the recurrent layer.

        Args:
            x: ``[B, T, D]``.
            lengths: integers ``[B]`` or None.
        """
        run = self.recurrent(x, seq_lengths=lengths, return_run=True)
        return _at_least_float32(self.readout(run.outputs)), run

    def step(self, carry: Carry, x: Array) -> tuple[Carry, Array]:
        """The next carry and the logits ``[B, outputs]`` for one frame ``[B, D]``."""
        carry, h = self.recurrent.step(carry, x)
        return carry, _at_least_float32(self.readout(h))

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """The carry from which a stream begins."""
        return self.recurrent.initial_carry(batch_shape)


def _at_least_float32(logits: Array) -> Array:
    return logits if logits.dtype == jnp.float64 else logits.astype(jnp.float32)
