"""Whole models: a recurrent layer and a head."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from surnn_jax import cells, scan
from surnn_jax.layers.gaussian_mixture import GaussianMixture
from surnn_jax.layers.recurrent import Recurrent
from surnn_jax.switches import Switch
from surnn_jax.typing import Array, Carry


class _Predictor(nn.Module):
    """One recurrent layer and a read-out of every step; a subclass has the fields."""

    def _layer(self) -> Recurrent:
        return Recurrent(
            self.cell, self.features, self.switch, backend=self.backend, dtype=self.dtype
        )

    def __call__(self, x: Array, lengths: Array | None = None) -> tuple[Array, scan.ScanOutput]:
        """Outputs ``[B, T, …]`` in float32 at least, and the run of the recurrent layer.

        Args:
            x: ``[B, T, D]``.
            lengths: integers ``[B]`` or None.
        """
        run = self.recurrent(x, seq_lengths=lengths, return_run=True)
        return _at_least_float32(self.readout(run.outputs)), run

    def step(self, carry: Carry, x: Array) -> tuple[Carry, Array]:
        """The next carry and the outputs ``[B, …]`` for one frame ``[B, D]``."""
        carry, h = self.recurrent.step(carry, x)
        return carry, _at_least_float32(self.readout(h))

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """The carry from which a stream begins."""
        return self.recurrent.initial_carry(batch_shape)


class FramePredictor(_Predictor):
    """One recurrent layer and a linear read-out of every step, as in Chung et al. 2014, music.

    Attributes:
        cell: a cell or its name.
        features: H, the number of neurons.
        outputs: width of the read-out: logits a frame.
        switch: when each neuron updates; None for always.
        backend: how to scan.
        dtype: operands of products are rounded to it; None for not at all.

    Examples:
        >>> from surnn_jax.layers import FramePredictor
        >>> model, x = FramePredictor("gru", 4, outputs=88), jnp.ones((2, 5, 3))
        >>> variables = model.init(jax.random.key(0), x)
        >>> logits, run = model.apply(variables, x)
        >>> logits.shape, run.carry.h.shape
        ((2, 5, 88), (2, 4))
    """

    cell: str | cells.Cell
    features: int
    outputs: int
    switch: str | Switch | None = None
    backend: str = "auto"
    dtype: Any = None

    def setup(self):
        self.recurrent = self._layer()
        self.readout = nn.Dense(self.outputs, dtype=self.dtype)


class WaveformPredictor(_Predictor):
    """One recurrent layer and a mixture of Gaussians at every step: Chung et al. 2014, speech.

    Attributes:
        cell: a cell or its name.
        features: H, the number of neurons.
        readout: how many Gaussians over how many numbers; it also reads the outputs of a call:
            ``model.readout.log_density(outputs, target)``.
        switch: when each neuron updates; None for always.
        backend: how to scan.
        dtype: operands of the layer's products are rounded to it; None for not at all. The
            read-out has its own.

    Examples:
        >>> from surnn_jax.layers import GaussianMixture, WaveformPredictor
        >>> model, x = WaveformPredictor("gru", 4, GaussianMixture(3, 2)), jnp.ones((2, 5, 3))
        >>> variables = model.init(jax.random.key(0), x)
        >>> outputs, _ = model.apply(variables, x)
        >>> model.readout.log_density(outputs, jnp.zeros((2, 5, 2))).shape
        (2, 5)
    """

    cell: str | cells.Cell
    features: int
    readout: GaussianMixture
    switch: str | Switch | None = None
    backend: str = "auto"
    dtype: Any = None

    def setup(self):
        self.recurrent = self._layer()


def _at_least_float32(outputs: Array) -> Array:
    return outputs if outputs.dtype == jnp.float64 else outputs.astype(jnp.float32)
