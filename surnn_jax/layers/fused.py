"""Norms and feed-forward layers by the compiled kernel.

What lies between input and output stays in the processor's cache, and the backward pass computes it
anew. So a training step takes half the time that XLA takes, and keeps the input alone.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax.layers import pieces
from surnn_jax.layers.feed_forward import EPSILON, normed_feed_forward
from surnn_jax.scan import compiled, kernel_call
from surnn_jax.scan.native import library
from surnn_jax.typing import Array, Params

_MOST_WEIGHTS = 1 << 17
"""The most weights of a matrix: beyond them XLA's products are as fast."""


class LayerNorm(nn.LayerNorm):
    """Flax's norm with a scale and without a bias, by the kernel where that pays."""

    use_bias: bool = False

    def __call__(self, x: Array) -> Array:
        """``[..., M]`` to ``[..., M]``."""
        if self.is_initializing():
            return super().__call__(x)
        scale = self.variables["params"]["scale"]
        return norm(scale, x) if _runs([scale], x) else super().__call__(x)


def supports(params: Params, x: Array, dtype: Any = None) -> bool:
    """Whether the kernel computes :func:`feed_forward`, and it is worth the call.

    On one CPU, all in float32 or all in float64, from 4,096 vectors on, if the weights fit into a
    processor's cache.

    Args:
        params: as for :func:`feed_forward`.
        x: ``[..., M]``.
        dtype: what operands of products are rounded to; None for not at all.
    """
    weights = _weights(params)
    return dtype in (None, x.dtype) and weights[1].size <= _MOST_WEIGHTS and _runs(weights, x)


def _runs(weights, x):
    exact = x.dtype in (jnp.float32, jnp.float64) and all(v.dtype == x.dtype for v in weights)
    on_cpu = pieces.is_long(x) and compiled.platform() == "cpu"
    return exact and on_cpu and not library.register()


def norm(scale: Array, x: Array) -> Array:
    """``(x - mean x) / sqrt(var x + 1e-6) scale`` over the last axis.

    This and :func:`feed_forward` have derivatives in reverse mode, of every order.

    Args:
        scale: ``[M]``.
        x: ``[..., M]``.
    """
    return _layer([scale], x.reshape(-1, x.shape[-1])).reshape(x.shape)


def feed_forward(params: Params, x: Array) -> Array:
    """:func:`.feed_forward.normed_feed_forward`, the same numbers to rounding.

    Args:
        params: of the block, of which ``norm_ffn`` and ``ffn`` are read, of the dtype of x.
        x: ``[..., M]``.
    """
    return _layer(_weights(params), x.reshape(-1, x.shape[-1])).reshape(x.shape)


def feed_forward_of_many(params: Params, x: Array, hidden: int, dtype: Any = None) -> Array:
    """The same for a batch that is long: by the kernel if it can, else in pieces.

    Args:
        params: as for :func:`feed_forward`.
        x: ``[..., M]``.
        hidden: width of the gated layer.
        dtype: what operands of products are rounded to; None for not at all.
    """
    if supports(params, x, dtype):
        return feed_forward(params, x)
    layer = functools.partial(normed_feed_forward, hidden=hidden, dtype=dtype)
    return pieces.by_pieces(layer, params, x)


def _weights(params):
    kernels = (params["ffn"][name]["kernel"] for name in ("gate", "value", "out"))
    return [params["norm_ffn"]["scale"], *kernels]


def _plain(weights, x):
    scale, *kernels = weights
    if not kernels:
        layer = nn.LayerNorm(EPSILON, use_bias=False, parent=None)
        return layer.apply({"params": {"scale": scale}}, x)
    ffn = {name: {"kernel": v} for name, v in zip(("gate", "value", "out"), kernels, strict=True)}
    params = {"norm_ffn": {"scale": scale}, "ffn": ffn}
    return normed_feed_forward(params, x, kernels[0].shape[1])


def _plain_pull(weights, x, ct):
    return jax.vjp(_plain, weights, x)[1](ct)


# Both directions: the kernel on a CPU, XLA where the program is lowered for something else.
@jax.custom_vjp
def _layer(weights, x):
    def call(weights, x):
        return _kernel.bind(x, *weights)[0]

    return jax.lax.platform_dependent(weights, x, cpu=call, default=_plain)


@jax.custom_vjp
def _pull(weights, x, ct):
    def call(weights, x, ct):
        dx, *rest = _kernel.bind(x, *weights, ct)
        return rest, dx

    return jax.lax.platform_dependent(weights, x, ct, cpu=call, default=_plain_pull)


_layer.defvjp(
    lambda weights, x: (_layer(weights, x), (weights, x)), lambda saved, ct: _pull(*saved, ct)
)
_pull.defvjp(
    lambda *given: (_pull(*given), given), lambda given, cts: jax.vjp(_plain_pull, *given)[1](cts)
)


def _types(x, *others):
    """``[y]``; with a cotangent of y those of x and of the weights."""
    return [x, *others[:-1]] if len(others) in (2, 5) else [x]


def _call(x, *others):
    results = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in _types(x, *others)]
    call = jax.ffi.ffi_call(library.FEED_FORWARD, results, vmap_method="sequential")
    return call(x, *others, epsilon=EPSILON)


def _instead(x, *others):
    if len(others) not in (2, 5):
        return [_plain(list(others), x)]
    weights, dx = _plain_pull(list(others[:-1]), x, others[-1])
    return [dx, *weights]


_kernel = kernel_call.operation("surnn_feed_forward", _call, _instead, _types)
