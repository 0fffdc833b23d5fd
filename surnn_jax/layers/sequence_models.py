"""Models for whole sequences: a backbone and a head.

All return :class:`Result`, stream by ``step``, and begin a stream by ``initial_carry``.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from surnn_jax.layers.adaptive_softmax import AdaptiveSoftmax
from surnn_jax.layers.backbone import Backbone, BackboneCarry
from surnn_jax.layers.block import Trace
from surnn_jax.layers.mixer_base import check_sequences, last_reset, resets_within
from surnn_jax.names import unknown
from surnn_jax.scan.sequence import as_arrays
from surnn_jax.typing import Array, Carry

POOLINGS = ("last", "mean")


class Result(NamedTuple):
    """The result of a model.

    Attributes:
        outputs: float32 or wider; see each model.
        carry: for the next call; None if the model has none.
        traces: of every selective layer, see :class:`.Trace`.
    """

    outputs: Array
    carry: Carry | None
    traces: tuple[Trace, ...]


class ClassifierCarry(NamedTuple):
    """The state of a classifier between steps.

    Attributes:
        backbone: of the backbone.
        total: ``[B, M]``, sum of the outputs so far, or the last output.
        count: int32 ``[B]``, steps so far.
    """

    backbone: BackboneCarry
    total: Array
    count: Array


class Classifier(nn.Module):
    """One answer for a whole sequence: pooled outputs and a linear map.

    Attributes:
        backbone: reads the sequence.
        outputs: number of classes, or of values to predict.
        pooling: ``last``, the output at the last valid step, or ``mean`` over all valid steps.

    Examples:
        >>> from surnn_jax.layers import Backbone, Classifier
        >>> model = Classifier(Backbone(("gru",), 8), outputs=10)
        >>> x, lengths = jnp.ones((2, 5, 3)), jnp.array([5, 4])
        >>> found, _ = model.init_with_output(jax.random.key(0), x, lengths)
        >>> found.outputs.shape
        (2, 10)
    """

    backbone: Backbone
    outputs: int
    pooling: str = "last"

    def setup(self):
        if self.pooling not in POOLINGS:
            raise unknown("pooling", self.pooling, POOLINGS)
        self.head = nn.Dense(self.outputs)

    def __call__(
        self,
        x: Array,
        lengths: Array | None = None,
        *,
        carry: ClassifierCarry | None = None,
        train: bool = False,
        resets: Array | None = None,
    ) -> Result:
        """Logits ``[B, outputs]``; arguments as :meth:`.Backbone.__call__`.

        With resets the answer is that for the last sequence of each row.
        """
        lengths, resets = as_arrays(lengths, resets)
        before = None if carry is None else carry.backbone
        encoded = self.backbone(x, lengths, before, train, resets)
        y = _wide(encoded.outputs)
        size, steps = y.shape[:2]
        count = jnp.full((size,), steps, jnp.int32) if lengths is None else jnp.asarray(lengths)
        count = jnp.minimum(count.astype(jnp.int32), steps)
        last = jnp.full((size,), -1, jnp.int32)
        if resets is not None:
            last = last_reset(resets_within(resets, count))
        if self.pooling == "mean":
            t = jnp.arange(steps, dtype=jnp.int32)[None]
            inside = (t < count[:, None]) & (t >= last[:, None])
            total = jnp.where(inside[..., None], y, 0).sum(1)
            if carry is not None:
                total = total + jnp.where((last >= 0)[:, None], 0, carry.total)
        else:
            total = jnp.take_along_axis(y, jnp.maximum(count - 1, 0)[:, None, None], axis=1)[:, 0]
            before = jnp.zeros_like(total) if carry is None else carry.total
            total = jnp.where((count > 0)[:, None], total, before)
        count = count - jnp.maximum(last, 0)
        if carry is not None:
            count = count + jnp.where(last >= 0, 0, carry.count)
        after = None
        if encoded.carry is not None:
            after = ClassifierCarry(encoded.carry, total, count)
        return Result(self._read(total, count), after, encoded.traces)

    def step(
        self, carry: ClassifierCarry, x: Array, resets: Array | None = None
    ) -> tuple[ClassifierCarry, Array]:
        """The answer ``[B, outputs]`` for the sequence so far."""
        x, resets = as_arrays(x, resets)
        backbone, y = self.backbone.step(carry.backbone, x, resets)
        y = _wide(y)
        if resets is not None:
            carry = carry._replace(
                total=jnp.where(resets[:, None], 0, carry.total),
                count=jnp.where(resets, 0, carry.count),
            )
        total = carry.total + y if self.pooling == "mean" else y
        carry = ClassifierCarry(backbone, total, carry.count + 1)
        return carry, self._read(total, carry.count)

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> ClassifierCarry:
        """The carry from which a stream begins."""
        backbone = self.backbone
        width = backbone.features
        if backbone.no_residual and backbone.options.hidden:
            width = backbone.options.hidden
        return ClassifierCarry(
            backbone.initial_carry(batch_shape),
            jnp.zeros((*batch_shape, width)),
            jnp.zeros(batch_shape, jnp.int32),
        )

    def _read(self, total, count):
        if self.pooling == "mean":
            total = total / jnp.maximum(count, 1).astype(total.dtype)[:, None]
        return self.head(total)


class PairClassifier(nn.Module):
    """Whether two sequences match; one backbone reads both (two towers).

    The pooled outputs u and v are compared by a hidden layer on ``[u, v, u ∘ v, u - v]``.

    Attributes:
        backbone: reads each sequence.
        outputs: number of classes.
        pooling: as for :class:`Classifier`.

    Examples:
        >>> from surnn_jax.layers import Backbone, PairClassifier
        >>> model = PairClassifier(Backbone(("gru",), 8, "embed", vocabulary=20))
        >>> one, two = jnp.zeros((2, 5), int), jnp.ones((2, 7), int)
        >>> model.init_with_output(jax.random.key(0), one, None, two, None)[0].outputs.shape
        (2, 2)
    """

    backbone: Backbone
    outputs: int = 2
    pooling: str = "mean"

    def setup(self):
        self.tower = Classifier(self.backbone, self.backbone.features, self.pooling)
        self.hidden = nn.Dense(self.backbone.features)
        self.head = nn.Dense(self.outputs)

    def __call__(
        self,
        x: Array,
        lengths: Array | None,
        x2: Array,
        lengths2: Array | None,
        *,
        train: bool = False,
        resets: Array | None = None,
        resets2: Array | None = None,
    ) -> Result:
        """Logits ``[B, outputs]`` for pairs of sequences ``[B, T]`` and ``[B, T']``.

        With resets, booleans ``[B, T]`` and ``[B, T']``, the answer is that for the last sequences
        of each pair of rows.
        """
        u = self.tower(x, lengths, train=train, resets=resets)
        v = self.tower(x2, lengths2, train=train, resets=resets2)
        a, b = u.outputs, v.outputs
        y = nn.gelu(self.hidden(jnp.concatenate([a, b, a * b, a - b], axis=-1)))
        traces = tuple(
            Trace((one.rate + two.rate) / 2, one.update_mask, (one.balance + two.balance) / 2)
            for one, two in zip(u.traces, v.traces, strict=True)
        )
        return Result(self.head(y), None, traces)


class SequenceTagger(nn.Module):
    """An answer at every step.

    Attributes:
        backbone: reads the sequence.
        outputs: number of classes, or of values to predict.

    Examples:
        >>> from surnn_jax.layers import Backbone, SequenceTagger
        >>> model = SequenceTagger(Backbone(("gru",), 8), outputs=10)
        >>> model.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0].outputs.shape
        (2, 5, 10)
    """

    backbone: Backbone
    outputs: int

    def setup(self):
        self.head = nn.Dense(self.outputs)

    def __call__(
        self,
        x: Array,
        lengths: Array | None = None,
        *,
        carry: BackboneCarry | None = None,
        train: bool = False,
        last: int | None = None,
        resets: Array | None = None,
    ) -> Result:
        """Logits ``[B, T, outputs]``, or ``[B, last, outputs]`` of the last steps only."""
        encoded = self.backbone(x, lengths, carry, train, resets)
        y = encoded.outputs if last is None else encoded.outputs[:, -last:]
        return Result(self.head(_wide(y)), encoded.carry, encoded.traces)

    def step(
        self, carry: BackboneCarry, x: Array, resets: Array | None = None
    ) -> tuple[BackboneCarry, Array]:
        """The answer ``[B, outputs]`` at the present step."""
        carry, y = self.backbone.step(carry, x, resets)
        return carry, self.head(_wide(y))

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> BackboneCarry:
        """The carry from which a stream begins."""
        return self.backbone.initial_carry(batch_shape)


class LanguageModel(nn.Module):
    """The next token, from those before it.

    Attributes:
        backbone: with encoder ``embed``, over the vocabulary.
        cutoffs: the first tokens of the tails of an adaptive softmax (:class:`.AdaptiveSoftmax`;
            tokens must be numbered by frequency); empty for a full softmax.
        tied: whether softmax and embedding share their weights. A square matrix then comes before
            the softmax: the residual path carries the present word, which would otherwise score
            itself highest.
        dropout: rate of dropout of the last outputs.

    Examples:
        >>> from surnn_jax.layers import Backbone, LanguageModel
        >>> model = LanguageModel(Backbone(("gru",), 8, "embed", vocabulary=20))
        >>> words = jnp.ones((2, 6), int)
        >>> found, _ = model.init_with_output(jax.random.key(0), words[:, :-1], words[:, 1:])
        >>> found.outputs.shape  # log-probabilities
        (2, 5)
    """

    backbone: Backbone
    cutoffs: tuple[int, ...] = ()
    tied: bool = True
    dropout: float = 0.0

    def setup(self):
        if self.backbone.encoder != "embed":
            raise ValueError(
                "a language model reads tokens: LanguageModel(Backbone(layers, features, 'embed', "
                f"vocabulary=…)), got the encoder {self.backbone.encoder!r}"
            )
        self.drop = nn.Dropout(self.dropout)
        if self.tied:
            self.square = nn.Dense(self.backbone.features, use_bias=False)
        if self.cutoffs:
            self.softmax = AdaptiveSoftmax(self.backbone.vocabulary, self.cutoffs)
        elif not self.tied:
            self.head = nn.Dense(self.backbone.vocabulary)
        else:
            self.bias = self.param(
                "bias", nn.initializers.zeros, (self.backbone.vocabulary,), jnp.float32
            )

    def __call__(
        self,
        x: Array,
        y: Array,
        lengths: Array | None = None,
        *,
        carry: BackboneCarry | None = None,
        train: bool = False,
        resets: Array | None = None,
    ) -> Result:
        """Log-probabilities ``[B, T]`` of the targets `y`, nats; NaN outside the vocabulary.

        Args:
            x: tokens ``[B, T]``.
            y: the next token at every step.
            lengths: integers ``[B]`` or None.
            carry: from an earlier call; None to begin.
            train: whether to apply dropout.
            resets: booleans ``[B, T]``: if True, a new text begins with this token.

        Raises:
            ValueError: for targets, lengths or resets that do not fit.
        """
        x, y, lengths, resets = as_arrays(x, y, lengths, resets)
        if y.shape != x.shape or not jnp.issubdtype(y.dtype, jnp.integer):
            raise ValueError(f"targets must be integers {x.shape}, got {y.dtype} {y.shape}")
        check_sequences("LanguageModel", x.shape[:2], lengths, resets)
        if lengths is not None:  # targets in padding may be anything
            lengths = lengths.astype(jnp.int32)
            inside = jnp.arange(y.shape[1], dtype=jnp.int32)[None] < lengths[:, None]
            y = jnp.where(inside, y, 0)
        encoded = self.backbone(x, lengths, carry, train, resets)
        h = self._read(self.drop(encoded.outputs, deterministic=not train))
        if self.cutoffs:
            found = self.softmax(h, y, self._vectors())
        else:
            table, y = nn.log_softmax(self._logits(h)), y.astype(jnp.int32)
            y = jnp.where(y < 0, table.shape[-1], y)  # else counted from the end
            found = jnp.take_along_axis(table, y[..., None], axis=-1)[..., 0]
        return Result(found, encoded.carry, encoded.traces)

    def step(
        self, carry: BackboneCarry, x: Array, resets: Array | None = None
    ) -> tuple[BackboneCarry, Array]:
        """Log-probabilities ``[B, V]`` of the token after ``x [B]``."""
        carry, h = self.backbone.step(carry, x, resets)
        h = self._read(h)
        if self.cutoffs:
            return carry, self.softmax.log_probs(h, self._vectors())
        return carry, nn.log_softmax(self._logits(h))

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> BackboneCarry:
        """The carry from which a stream begins."""
        return self.backbone.initial_carry(batch_shape)

    def _read(self, h):
        return self.square(_wide(h)) if self.tied else _wide(h)

    def _vectors(self):
        return self.backbone.vectors() if self.tied else None

    def _logits(self, h):
        if not self.tied:
            return self.head(h)
        logits = _wide(self.backbone.attend(h))
        return logits + self.bias.reshape((1,) * (logits.ndim - 1) + (-1,))


def _wide(x: Any) -> Array:
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)
