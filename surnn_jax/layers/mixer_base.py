"""What mixers share: checks of arguments, the tail of a stream, the gated output."""

import functools
import math
import operator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax.layers.meshes import rows_like
from surnn_jax.scan.sequence import as_arrays
from surnn_jax.typing import Array, Carry


def state_dtype(param_dtype: Any) -> Any:
    """Dtype of the state: that of the parameters, float32 at least."""
    wide = jnp.dtype(jnp.float64)
    return wide if param_dtype == wide else jnp.dtype(jnp.float32)


def complex_dtype(param_dtype: Any) -> Any:
    """Dtype of a complex state, whose parts have the dtype of a real one."""
    double = state_dtype(param_dtype) == jnp.float64
    return jnp.dtype(jnp.complex128 if double else jnp.complex64)


def check_inputs(
    name: str, x: Array, seq_lengths: Array | None, resets: Array | None = None
) -> None:
    """Checks inputs, lengths and resets.

    Raises:
        ValueError: unless x is floating ``[B, T, D]``, the lengths, if any, integers ``[B]``, and
            the resets, if any, booleans ``[B, T]``.
    """
    if x.ndim != 3 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"{name}: inputs must be floating point [B, T, D], got {x.dtype} of shape {x.shape}"
        )
    check_sequences(name, x.shape[:2], seq_lengths, resets)


def check_sequences(
    name: str, shape: tuple[int, ...], seq_lengths: Array | None, resets: Array | None
) -> None:
    """Checks lengths and resets of sequences of `shape` ``[B, T]``, as :func:`check_inputs`."""
    if resets is not None and (resets.shape != shape or resets.dtype != jnp.bool_):
        raise ValueError(
            f"{name}: resets must be booleans of shape {shape}, "
            f"got {resets.dtype} of {resets.shape}"
        )
    if seq_lengths is None:
        return
    own, dtype = jnp.shape(seq_lengths), jnp.result_type(seq_lengths)
    if own != shape[:1] or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"{name}: seq_lengths must be integers of shape {shape[:1]}, got {dtype} of {own}"
        )


def check_carry(name: str, carry: Carry, zero_carry: Carry) -> None:
    """Checks that a carry has the structure, shapes and dtypes of the initial one."""

    def described(tree):
        return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)

    same = jax.tree.structure(carry) == jax.tree.structure(zero_carry)
    if not same or described(carry) != described(zero_carry):
        wanted, got = (jax.eval_shape(lambda tree=tree: tree) for tree in (zero_carry, carry))
        raise ValueError(
            f"{name}: the carry must be as initial_carry makes it, {wanted}, got {got}"
        )


class CheckedInputs(NamedTuple):
    """Checked arguments of a mixer.

    Attributes:
        x: the inputs, an array.
        initial_carry: the carry to begin with.
        lengths: ``[B]``, at most T; None for all of the input.
        wide: dtype of the state.
        compute: dtype of the operands of products.
        resets: booleans ``[B, T]``, False beyond the lengths; None for no reset.
        spoilt: booleans ``[B, T]``, the steps whose outputs are to be made NaN; None for no step.
            See :func:`_without_spoilt`.
    """

    x: Array
    initial_carry: Carry
    lengths: Array | None
    wide: Any
    compute: Any
    resets: Array | None
    spoilt: Array | None


def init_memory(
    name: str,
    mixer: Any,
    x: Array,
    initial_carry: Carry | None,
    seq_lengths: Array | None,
    resets: Array | None,
) -> CheckedInputs:
    """Checks the arguments of a causal mixer's call.

    Raises:
        ValueError: as :func:`check_inputs` and :func:`check_carry`.
    """
    x, seq_lengths, resets = as_arrays(x, seq_lengths, resets)
    check_inputs(name, x, seq_lengths, resets)
    zero_carry = mixer.initial_carry(x.shape[:1])
    if initial_carry is None:
        initial_carry = rows_like(x, zero_carry)
    check_carry(name, initial_carry, zero_carry)
    wide = state_dtype(mixer.param_dtype)
    lengths = lengths_within(x, seq_lengths)
    resets, spoilt = resets_within(resets, lengths), None
    if resets is not None and x.shape[1]:
        x, initial_carry, spoilt = _without_spoilt(x, initial_carry, lengths, resets)
    compute = mixer.dtype or wide
    return CheckedInputs(x, initial_carry, lengths, wide, compute, resets, spoilt)


def _without_spoilt(
    x: Array, initial_carry: Carry, lengths: Array | None, resets: Array
) -> tuple[Array, Carry, Array]:
    """What is not finite in a carry or an input and ends at a reset, as zeros.

    From there to the reset every output is NaN, as each reads the whole state. It is made so at the
    end: else, backwards, 0 · NaN would reach the gradient of all that comes after the reset.

    Returns:
        Inputs, the carry, and the steps that are spoilt, ``[B, T]``.
    """
    finite = [
        jnp.isfinite(leaf).all(tuple(range(1, leaf.ndim)))
        for leaf in jax.tree.leaves(initial_carry)
    ]
    carry_broken = ~functools.reduce(operator.and_, finite)
    t = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    ends = last_reset(resets)[:, None] > t  # a reset comes later
    broken = ~jnp.isfinite(x).all(-1) & ends
    if lengths is not None:
        broken = broken & (t < lengths[:, None])
    began = jax.lax.cummax(jnp.where(resets, t, -1), axis=1)
    latest_broken = jax.lax.cummax(jnp.where(broken, t, -1), axis=1)
    spoilt = (latest_broken >= 0) & (latest_broken >= began) | (
        carry_broken[:, None] & (began < 0) & ends
    )
    carry_broken = carry_broken & resets.any(1)
    carry = jax.tree.map(
        lambda leaf: jnp.where(carry_broken.reshape(-1, *(1,) * (leaf.ndim - 1)), 0, leaf),
        initial_carry,
    )
    return jnp.where(broken[..., None], 0, x), carry, spoilt


def masked_outputs(y: Array, lengths: Array | None, spoilt: Array | None) -> Array:
    """Outputs ``[B, T, M]``: NaN at the spoilt steps, zeros beyond the lengths."""
    if spoilt is not None:
        y = jnp.where(spoilt[..., None], jnp.nan, y)
    return mask_padding(y, lengths)


def lengths_within(x: Array, seq_lengths: Array | None) -> Array | None:
    """The lengths as int32, at most T."""
    if seq_lengths is None:
        return None
    return jnp.minimum(jnp.asarray(seq_lengths), x.shape[1]).astype(jnp.int32)


def resets_within(resets: Array | None, lengths: Array | None) -> Array | None:
    """The resets ``[B, T]`` of the valid steps."""
    if resets is None or lengths is None:
        return resets
    return resets & (jnp.arange(resets.shape[1], dtype=jnp.int32)[None] < lengths[:, None])


def last_reset(resets: Array) -> Array:
    """The last step at which a sequence begins, ``[B]``; -1 if there is none."""
    t = jnp.arange(resets.shape[1], dtype=jnp.int32)[None]
    return jnp.max(jnp.where(resets, t, -1), axis=1, initial=-1)


def segments(resets: Array, before: int = 0) -> Array:
    """The number of each step's sequence, ``[B, before + T]``.

    It is 0 for the sequence that goes on from the carry, of which the first `before` steps are.
    """
    ids = jnp.cumsum(resets.astype(jnp.int32), axis=1)
    return jnp.pad(ids, [(0, 0), (before, 0)])


def mask_padding(x: Array, lengths: Array | None) -> Array:
    """``[B, T, D]`` with zeros beyond the lengths, also in place of NaN."""
    if lengths is None:
        return x
    inside = jnp.arange(x.shape[1], dtype=jnp.int32)[None, :] < lengths[:, None]
    return jnp.where(inside[..., None], x, 0)


def latest(joined: Array, size: int, lengths: Array | None) -> Array:
    """The last `size` steps of a stream.

    Args:
        joined: ``[B, size + T, ...]``: the last steps before a call, then those of the call.
        size: how many to keep.
        lengths: ``[B]``, how many of the T steps are valid; None for all.
    """
    if lengths is None:
        return joined[:, joined.shape[1] - size :]
    return jax.vmap(lambda row, n: jax.lax.dynamic_slice_in_dim(row, n, size))(joined, lengths)


def torch_uniform(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """A kernel ``[in, out]``, uniform within ±1/√in: PyTorch's default, and so S4D's and Mamba's.

    Flax's default has √3 times that standard deviation.
    """
    bound = 1 / math.sqrt(shape[0])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class GatedOutput(nn.Module):
    """``v ∘ σ(g)`` with ``[v, g] = W gelu(y) + b``: GELU, then GLU, as in S4D and LRU.

    Attributes:
        features: M, width of the output.
        uniform: draw kernel and bias uniformly within ±1/√M, PyTorch's default (S4D); False for
            Flax's defaults (LRU).
        dtype: operands of the product are rounded to it.
        param_dtype: of the parameters.
    """

    features: int
    dtype: Any
    param_dtype: Any = jnp.float32
    uniform: bool = False

    @nn.compact
    def __call__(self, y: Array) -> Array:
        """``[..., M]`` to ``[..., M]``, in the dtype of y."""
        draws = {}
        if self.uniform:
            bound = 1 / math.sqrt(y.shape[-1])
            draws = {
                "kernel_init": torch_uniform,
                "bias_init": lambda key, shape, dtype: jax.random.uniform(
                    key, shape, dtype, -bound, bound
                ),
            }
        dense = nn.Dense(
            2 * self.features,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="dense",
            **draws,
        )
        both = dense(jax.nn.gelu(y, approximate=False)).astype(y.dtype)
        value, gate = jnp.split(both, 2, axis=-1)
        return value * jax.nn.sigmoid(gate)
