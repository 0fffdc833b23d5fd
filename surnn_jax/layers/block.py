"""Blocks of sequence models: a mixer over time and a gated feed-forward layer, both residual."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from surnn_jax.layers import mixers
from surnn_jax.layers.mixer_base import resets_within
from surnn_jax.layers.recurrent import Recurrent
from surnn_jax.typing import Array, Carry


class Trace(NamedTuple):
    """How often and when the switches of a selective layer opened.

    Attributes:
        rate: scalar, share of open switches among valid steps; differentiable, see
            :class:`surnn_jax.ScanOutput`.
        update_mask: ``[T, H]`` or ``[B, T, H]``; None for units that open by their own state.
        balance: scalar of value 0 to add to the loss, see :class:`surnn_jax.ScanOutput`.
    """

    rate: Array
    update_mask: Array | None
    balance: Array | float = 0.0


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


class Block(nn.Module):
    """One mixer with norm, residual and feed-forward layer.

    ``x + drop(out(mixer(norm(x))))``, then ``x + drop(ffn(norm(x)))`` (pre-norm); or, with
    `no_residual`,
    ``drop(mixer(x))`` and nothing else.

    Attributes:
        kind: name of the mixer, see :func:`.mixers.names`.
        features: M, width of the block.
        options: of the mixer.
        no_residual: the mixer alone: no norm, no residual, no feed-forward layer.
        expand: width of the feed-forward layer, in units of M; 0 for none.
        dropout: share of the outputs of mixer and feed-forward layer that is dropped.
        bidirectional: a second mixer reads from the end; attention sees both sides at once.

    Examples:
        >>> from surnn_jax.layers import Block
        >>> block, x = Block("gru", features=8), jnp.ones((2, 5, 8))
        >>> (carry, y, trace), _ = block.init_with_output(jax.random.key(0), x)
        >>> y.shape, trace
        ((2, 5, 8), None)
    """

    kind: str
    features: int
    options: mixers.Options = mixers.Options()
    no_residual: bool = False
    expand: float = 2.0
    dropout: float = 0.0
    bidirectional: bool = False

    def setup(self):
        # Attention sees both sides in one pass.
        self._two = self.bidirectional and self.kind != "attention"
        self.mixer = mixers.make(
            self.kind, self.features, self.options, causal=not self.bidirectional
        )
        if self._two:
            self.backward = mixers.make(self.kind, self.features, self.options)
        self.drop = nn.Dropout(self.dropout)
        width = (self.options.hidden or self.features) if self._recurrent else self.features
        # Without residuals a layer of one direction has nothing to fit into.
        self._fits = (self.no_residual or width == self.features) and not self._two
        if not self._fits:
            self.out = nn.Dense(self.features, dtype=self.options.dtype)
        if not self.no_residual:
            self.norm = nn.LayerNorm(use_bias=False)
            if self.expand:
                self.norm_ffn = nn.LayerNorm(use_bias=False)
                hidden = max(1, round(self.expand * self.features))
                self.ffn = GatedFeedForward(hidden, self.options.dtype)

    @property
    def _recurrent(self) -> bool:
        return isinstance(self.mixer, Recurrent)

    def __call__(
        self,
        x: Array,
        lengths: Array | None = None,
        carry: Carry | None = None,
        train: bool = False,
        resets: Array | None = None,
    ) -> tuple[Carry, Array, Trace | None]:
        """Runs the block.

        Args:
            x: ``[B, T, M]`` (without residuals: ``[B, T, D]``).
            lengths: integers ``[B]`` or None.
            carry: from an earlier call; None to begin.
            train: whether to drop.
            resets: booleans ``[B, T]``: if True, a new sequence begins with this step.

        Returns:
            The carry, ``[B, T, M]``, and what the switch did (None where there is none).

        Raises:
            ValueError: if a bidirectional block is given a carry.
        """
        if carry is not None and self.bidirectional:
            raise ValueError("a bidirectional model reads whole sequences; it takes no carry")
        inputs = x if self.no_residual else self.norm(x)
        carry, y, trace = _mix(self.mixer, inputs, lengths, carry, resets)
        if self._two:
            turned = _turn(inputs, lengths)
            begun = None if resets is None else _turn_resets(resets, lengths)
            _, back, other = _mix(self.backward, turned, lengths, None, begun)
            y = jnp.concatenate([y, _turn(back, lengths)], axis=-1)
            if other is not None:
                rate, balance = (trace.rate + other.rate) / 2, trace.balance + other.balance
                trace = Trace(rate, trace.update_mask, balance)
        traced = mixers.is_traced(self.kind)
        return carry, self._after(x, y, train), trace if traced else None

    def step(self, carry: Carry, x: Array, resets: Array | None = None) -> tuple[Carry, Array]:
        """One step ``[B, M]``, without dropout; a new sequence begins where `resets` are true."""
        if self.bidirectional:
            raise ValueError("a bidirectional model reads whole sequences; it has no step")
        carry, y = self.mixer.step(carry, x if self.no_residual else self.norm(x), resets)
        return carry, self._after(x, y, False)

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """The carry from which a stream begins."""
        return self.mixer.initial_carry(batch_shape)

    def _after(self, x, y, train):
        if not self._fits:
            y = self.out(y)
        y = self.drop(y, deterministic=not train)
        if self.no_residual:
            return y
        y = x + y.astype(x.dtype)
        if self.expand:
            more = self.ffn(self.norm_ffn(y)).astype(y.dtype)
            y = y + self.drop(more, deterministic=not train)
        return y


def _mix(mixer, x, lengths, carry, resets):
    given = {"initial_carry": carry, "seq_lengths": lengths, "resets": resets}
    if not isinstance(mixer, Recurrent):
        return *mixer(x, **given), None
    run = mixer(x, **given, return_run=True)
    return run.carry, run.outputs, Trace(run.rate, run.update_mask, run.balance)


def _turn_resets(resets: Array, lengths: Array | None) -> Array:
    """The resets ``[B, T]`` from the end: a sequence begins where the next one began."""
    resets = resets_within(resets, lengths)
    later = jnp.concatenate([resets[:, 1:], resets[:, :1] & False], axis=1)
    return _turn(later[..., None], lengths)[..., 0]


def _turn(x: Array, lengths: Array | None) -> Array:
    """``[B, T, …]`` with every sequence from its end to its beginning; padding stays behind."""
    if lengths is None:
        return x[:, ::-1]
    steps = x.shape[1]
    back = jnp.arange(steps - 1, -1, -1, dtype=jnp.int32)[None]
    order = (back - (steps - jnp.minimum(lengths, steps))[:, None]) % steps
    return jnp.take_along_axis(x, order[..., None], axis=1)
