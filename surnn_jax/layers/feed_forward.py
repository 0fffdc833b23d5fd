"""The feed-forward layer of a block."""

from typing import Any

import flax.linen as nn

from surnn_jax.typing import Array


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
