"""Norms and feed-forward layers by the compiled kernel.

What lies between input and output stays in the processor's cache, and the backward pass computes it
anew. So a training step takes half the time that XLA takes, and keeps the input alone.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.interpreters import ad

from surnn_jax.layers import pieces
from surnn_jax.layers.feed_forward import EPSILON, normed_feed_forward
from surnn_jax.scan import kernel_call
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
    return exact and pieces.is_long(x) and not library.register()


def norm(scale: Array, x: Array) -> Array:
    """``(x - mean x) / sqrt(var x + 1e-6) scale`` over the last axis.

    This and :func:`feed_forward` have derivatives of every mode and order: first gradients in
    reverse mode by the kernel, the rest by XLA.

    Args:
        scale: ``[M]``.
        x: ``[..., M]``.
    """
    return _run([scale], x)


def feed_forward(params: Params, x: Array) -> Array:
    """:func:`.feed_forward.normed_feed_forward`, the same numbers to rounding.

    Args:
        params: of the block, of which ``norm_ffn`` and ``ffn`` are read, of the dtype of x.
        x: ``[..., M]``.
    """
    return _run(_weights(params), x)


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


def _run(weights, x):
    return _layer.bind(x.reshape(-1, x.shape[-1]), *weights)[0].reshape(x.shape)


def _plain(x, scale, *kernels):
    if not kernels:
        layer = nn.LayerNorm(EPSILON, use_bias=False, parent=None)
        return [layer.apply({"params": {"scale": scale}}, x)]
    ffn = {name: {"kernel": v} for name, v in zip(("gate", "value", "out"), kernels, strict=True)}
    params = {"norm_ffn": {"scale": scale}, "ffn": ffn}
    return [normed_feed_forward(params, x, kernels[0].shape[1])]


def _plain_push(*given):
    half = len(given) // 2
    return jax.jvp(_plain, given[:half], given[half:])[1]


def _plain_pull(*given):
    *given, ct = given
    return list(jax.vjp(_plain, *given)[1]([ct]))


def _types(x, *others):
    """``[y]``; with a cotangent of y those of x and of the weights."""
    return [x, *others[:-1]] if len(others) in (2, 5) else [x]


def _call(x, *others):
    results = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in _types(x, *others)]
    call = jax.ffi.ffi_call(library.FEED_FORWARD, results, vmap_method="sequential")
    return call(x, *others, epsilon=EPSILON)


def _instead(*given):
    return (_plain_pull if len(given) in (3, 6) else _plain)(*given)


_kernel = kernel_call.operation("surnn_feed_forward", _call, _instead, _types)


# The three below are operations, as `lax.scan` forgets the rules of functions inside it where
# reverse mode is differentiated once more. See :mod:`surnn_jax.scan.derivatives`, of which this is
# the small sister: a value, its tangent, linear in the tangents of what is given, and the transpose
# of that.
def _operation(name, function, types):
    return kernel_call.operation(name, function, function, types)


def _on_cpu(plain):
    """The kernel on a CPU; XLA if there is none, or the program is lowered for something else."""

    def run(*given):
        if library.register():
            return plain(*given)
        return jax.lax.platform_dependent(*given, cpu=_kernel.bind, default=plain)

    return run


_layer = _operation("surnn_feed_forward_value", _on_cpu(_plain), lambda x, *weights: [x])
_push = _operation("surnn_feed_forward_tangent", _plain_push, lambda x, *others: [x])
_pull = _operation(
    "surnn_feed_forward_cotangent", _on_cpu(_plain_pull), lambda *given: list(given[:-1])
)


def _moved_by(plain, primitive):
    def jvp(primals, tangents):
        moved = tuple(map(ad.instantiate_zeros, tangents))
        return primitive.bind(*primals), jax.jvp(plain, tuple(primals), moved)[1]

    return jvp


def _layer_jvp(primals, tangents):
    moved = map(ad.instantiate_zeros, tangents)
    return _layer.bind(*primals), _push.bind(*primals, *moved)


def _push_transpose(cotangents, *arrays):
    half, (ct,) = len(arrays) // 2, cotangents
    given, tangents = arrays[:half], arrays[half:]
    if type(ct) is ad.Zero:
        found = [ad.Zero(t.aval) if ad.is_undefined_primal(t) else None for t in tangents]
    else:
        found = _pull.bind(*given, ct)
    pairs = zip(found, tangents, strict=True)
    return [*(None for _ in given), *(d if ad.is_undefined_primal(t) else None for d, t in pairs)]


ad.primitive_jvps[_layer] = _layer_jvp
ad.primitive_jvps[_push] = _moved_by(_plain_push, _push)
ad.primitive_jvps[_pull] = _moved_by(_plain_pull, _pull)
ad.primitive_transposes[_push] = _push_transpose
