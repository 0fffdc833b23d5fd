"""The feed-forward layer of a block."""

from typing import Any

import flax.linen as nn

from surnn_jax.typing import Array, Params

EPSILON = 1e-6
"""What the norm adds to a variance: Flax's own."""


class GatedFeedForward(nn.Module):
    """``W_o (silu(W_g x) ∘ W_v x)``, no biases (SwiGLU, arXiv 2002.05202).

    Attributes:
        hidden: width of the gated layer.
        dtype: operands of products are rounded to it; None for not at all.

    Examples:
        >>> from surnn_jax.layers import GatedFeedForward
        >>> layer, x = GatedFeedForward(hidden=16), jnp.ones((2, 5, 8))
        >>> layer.init_with_output(jax.random.key(0), x)[0].shape
        (2, 5, 8)
    """

    hidden: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """``[..., M]`` to ``[..., M]``."""

        def dense(size, name):
            return nn.Dense(size, use_bias=False, dtype=self.dtype, name=name)

        gated = nn.silu(dense(self.hidden, "gate")(x)) * dense(self.hidden, "value")(x)
        return dense(x.shape[-1], "out")(gated)


def normed_feed_forward(params: Params, x: Array, hidden: int, dtype: Any = None) -> Array:
    """``ffn(norm(x))`` of a block as a pure function.

    Args:
        params: of the block, of which ``norm_ffn`` and ``ffn`` are read.
        x: ``[..., M]``.
        hidden: width of the gated layer.
        dtype: as for :class:`GatedFeedForward`.
    """
    norm = nn.LayerNorm(EPSILON, use_bias=False, parent=None)
    layer = GatedFeedForward(hidden, dtype, parent=None)
    y = norm.apply({"params": params["norm_ffn"]}, x)
    return layer.apply({"params": params["ffn"]}, y)
