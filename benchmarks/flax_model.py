"""The base of :mod:`.models` in Flax alone: what one would write without this library."""

import flax.linen as nn
import jax.numpy as jnp

from surnn_jax.typing import Array


class FlaxModel(nn.Module):
    """Encoder, blocks of `nn.RNN` around a `nn.GRUCell`, mean over time, linear map.

    Attributes:
        features: M, width of the model and of its units.
        blocks: number of blocks: norm, unit, residual; norm, gated layer of width 2 M, residual.
        classes: number of logits.
    """

    features: int
    blocks: int
    classes: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """``[B, T, D]`` to logits ``[B, classes]``."""
        width = self.features
        y = nn.Dense(width)(x)
        for _ in range(self.blocks):
            y = y + nn.RNN(nn.GRUCell(width))(nn.LayerNorm(use_bias=False)(y))
            z = nn.LayerNorm(use_bias=False)(y)
            gate = nn.silu(nn.Dense(2 * width, use_bias=False)(z))
            value = nn.Dense(2 * width, use_bias=False)(z)
            y = y + nn.Dense(width, use_bias=False)(gate * value)
        y = nn.LayerNorm(use_bias=False)(y)
        return nn.Dense(self.classes)(jnp.mean(y, axis=1))
