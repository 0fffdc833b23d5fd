"""An encoder and a stack of blocks, shared by all sequence models."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax.layers import fused, mixers
from surnn_jax.layers.block import SKIPS, Block, Trace, check_skip
from surnn_jax.layers.meshes import by_rows, rows_like
from surnn_jax.layers.mixer_base import check_sequences, last_reset, resets_within
from surnn_jax.names import unknown
from surnn_jax.scan.sequence import as_arrays
from surnn_jax.typing import Array, Carry

ENCODERS = ("raw", "onehot", "embed", "dense")


class BackboneCarry(NamedTuple):
    """The state of a backbone between steps.

    Attributes:
        position: int32 ``[B]``, the valid steps so far, counted up to the last
            learned position if there are any.
        layers: the carry of every block.
    """

    position: Array
    layers: tuple[Carry, ...]


class Encoded(NamedTuple):
    """The result of a backbone.

    Attributes:
        outputs: ``[B, T, M]``.
        carry: for the next call; None from a bidirectional model.
        traces: of every selective layer, from the input up.
    """

    outputs: Array
    carry: BackboneCarry | None
    traces: tuple[Trace, ...]


class Backbone(nn.Module):
    """Encoder, blocks and a final norm.

    Attributes:
        layers: names of the mixers, from the input up, see :func:`.mixers.names`; one name is a
            stack of one.
        features: M, width of the model.
        encoder: ``raw`` takes frames ``[B, T, D]`` as they are; ``dense`` maps them to M; for
            tokens ``[B, T]`` (integers, 0 to `vocabulary` - 1) ``onehot`` and ``embed``. Of others
            ``embed`` makes NaN, and ``onehot`` zeros.
        vocabulary: number of tokens, for ``onehot`` and ``embed``.
        max_positions: number of learned positions that are added to the encoded input, which limits
            the length of sequences; None for no positions.
        options: of the mixers.
        no_residual: blocks without norm, residual and feed-forward layer, and no final norm.
        expand: width of the feed-forward layers, in units of M; 0 for none.
        dropout: rate of dropout of the encoded input and in the blocks.
        bidirectional: see :class:`.Block`.
        skip: what rests while a switch is closed, ``mixer`` or ``block``, see :class:`.Block`;
            blocks without a switch have nothing to skip.

    Examples:
        >>> from surnn_jax.layers import Backbone, Options
        >>> from surnn_jax.switches import fourier
        >>> model = Backbone(("sugru", "attention"), 8, options=Options(fourier(50), window=4))
        >>> encoded, _ = model.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))
        >>> encoded.outputs.shape, len(encoded.traces)
        ((2, 5, 8), 1)
    """

    layers: str | tuple[str, ...]
    features: int
    encoder: str = "dense"
    vocabulary: int | None = None
    max_positions: int | None = None
    options: mixers.Options = mixers.Options()
    no_residual: bool = False
    expand: float = 2.0
    dropout: float = 0.0
    bidirectional: bool = False
    skip: str = "mixer"

    def __post_init__(self):
        if isinstance(self.layers, str):
            self.layers = (self.layers,)
        super().__post_init__()

    def setup(self):
        check(self)
        dtype = self.options.dtype
        if self.encoder == "embed":
            self.embedding = nn.Embed(
                self.vocabulary,
                self.features,
                embedding_init=nn.initializers.normal(self.features**-0.5),
                dtype=dtype,
            )
        if self.encoder == "dense":
            self.dense = nn.Dense(self.features, dtype=dtype)
        if self.max_positions is not None:
            self.position = self.param(
                "position", nn.initializers.normal(0.02), (self.max_positions, self.features)
            )
        self.drop = nn.Dropout(self.dropout)
        self.blocks = [
            Block(
                kind,
                self.features,
                self.options,
                no_residual=self.no_residual,
                expand=self.expand,
                dropout=self.dropout,
                bidirectional=self.bidirectional,
                skip=self.skip if mixers.is_selective(kind) else "mixer",
            )
            for kind in self.layers
        ]
        if not self.no_residual:
            self.norm = fused.LayerNorm()

    def __call__(
        self,
        x: Array,
        lengths: Array | None = None,
        carry: BackboneCarry | None = None,
        train: bool = False,
        resets: Array | None = None,
    ) -> Encoded:
        """Encodes a batch.

        Args:
            x: ``[B, T]`` tokens or ``[B, T, D]`` frames, by `encoder`.
            lengths: integers ``[B]``, the valid steps of each example; None for all.
            carry: the carry that an earlier call returned; None to begin.
            train: whether to apply dropout, which needs a key ``dropout``.
            resets: booleans ``[B, T]``: if True, a new sequence begins with this step, so that
                several sequences packed into one row give what each gives alone. Positions begin
                anew too.

        Raises:
            ValueError: for an input of the wrong kind, or longer than `max_positions`; for lengths
                or resets that do not fit.
        """
        x, lengths, resets = as_arrays(x, lengths, resets)
        tokens = self.encoder in ("onehot", "embed")
        if x.ndim != (2 if tokens else 3) or tokens != jnp.issubdtype(x.dtype, jnp.integer):
            wanted = "integer tokens [B, T]" if tokens else "frames [B, T, D]"
            others = "frames take raw or dense" if tokens else "tokens take embed or onehot"
            raise ValueError(
                f"encoder {self.encoder!r} takes {wanted}, got {x.dtype} {x.shape}; for {others}"
            )
        check_sequences("Backbone", x.shape[:2], lengths, resets)
        steps = x.shape[1]
        if self.max_positions is not None and steps > self.max_positions:
            raise ValueError(
                f"a sequence of {steps} steps is longer than the model's {self.max_positions} "
                "positions; raise max_positions, or cut the sequences"
            )
        inside = None
        if lengths is not None:  # before any product: NaN · 0 is NaN, and so would gradients be
            lengths = lengths.astype(jnp.int32)
            inside = jnp.arange(steps, dtype=jnp.int32)[None] < lengths[:, None]
            x = jnp.where(inside.reshape(*inside.shape, *(1,) * (x.ndim - 2)), x, 0)
        if self.is_initializing() and any(map(mixers.is_selective, self.layers)) and x.size:
            self._init_switches(x, lengths)
        y = self._encode(x)
        if self.max_positions is not None:
            y = y + self._rows(steps, carry, inside, resets).astype(y.dtype)
        y, carries, traces = self._run_blocks(y, lengths, carry, train, resets)
        last = None if self.bidirectional else self._advance(x, lengths, carry, carries, resets)
        return Encoded(y if self.no_residual else self.norm(y), last, traces)

    def _run_blocks(self, y, lengths, carry, train, resets=None):
        y = self.drop(y, deterministic=not train)
        carries, traces = [], []
        for i, block in enumerate(self.blocks):
            before = None if carry is None else carry.layers[i]
            after, y, trace = block(y, lengths, before, train, resets)
            carries.append(after)
            if trace is not None:
                traces.append(trace)
        return y, tuple(carries), tuple(traces)

    def _init_switches(self, x, lengths):
        """Draws the parameters with noise if the input does not vary.

        Event switches set their thresholds by the first inputs that they see. They recognise a
        constant input, but not what the layers below make of one.
        """
        same = by_rows(_is_constant)(x)
        if not isinstance(same, jax.core.Tracer) and not same:
            return
        if self.encoder in ("onehot", "embed"):
            noise = jax.random.randint(jax.random.key(0), x.shape, 0, self.vocabulary, x.dtype)
        else:
            noise = jax.random.normal(jax.random.key(0), x.shape, x.dtype)
        y = self._encode(jnp.where(same, rows_like(x, noise), x))
        if self.max_positions is not None:
            y = y + self._rows(x.shape[1], None, None).astype(y.dtype)
        self._run_blocks(y, lengths, None, False)

    def _advance(self, x, lengths, carry, layers, resets):
        steps = jnp.full(x.shape[:1], x.shape[1], jnp.int32)
        if lengths is not None:
            steps = jnp.minimum(lengths, steps)
        place = steps if carry is None else carry.position + steps
        if resets is not None:
            last = last_reset(resets_within(resets, lengths))
            place = jnp.where(last >= 0, steps - last, place)
        return BackboneCarry(self._counted(place), layers)

    def _counted(self, place):
        """Stops counting at `max_positions`, so that no overflow leads back to the first."""
        return place if self.max_positions is None else jnp.minimum(place, self.max_positions)

    def _rows(self, steps, carry, inside, resets=None):
        """The vectors of the positions, ``[1, T, M]`` or ``[B, T, M]``; NaN past the last one."""
        place = jnp.arange(steps, dtype=jnp.int32)[None]
        if carry is not None:
            place = place + carry.position.reshape(-1, 1)
        if resets is not None:
            t = jnp.arange(steps, dtype=jnp.int32)[None]
            last = jax.lax.cummax(jnp.where(resets, t, -1), axis=1)
            place = jnp.where(last >= 0, t - last, place)
        rows = by_rows(_vectors_at)(place, self.position)
        return rows if inside is None else jnp.where(inside[..., None], rows, 0)

    def step(
        self, carry: BackboneCarry, x: Array, resets: Array | None = None
    ) -> tuple[BackboneCarry, Array]:
        """One step of a stream: ``[B]`` tokens or ``[B, D]`` frames to ``[B, M]``.

        With `resets`, booleans ``[B]``, a new sequence begins where they are true. Past the last
        learned position the outputs are NaN.
        """
        x, resets = as_arrays(x, resets)
        position = carry.position
        if resets is not None:
            position = jnp.where(resets, 0, position)
        y = self._encode(x)
        if self.max_positions is not None:
            place = jnp.broadcast_to(position, x.shape[:1])
            rows = by_rows(_vectors_at)(place, self.position)
            y = y + rows.astype(y.dtype)
        carries = []
        for block, before in zip(self.blocks, carry.layers, strict=True):
            after, y = block.step(before, y, resets)
            carries.append(after)
        carry = BackboneCarry(self._counted(position + 1), tuple(carries))
        return carry, y if self.no_residual else self.norm(y)

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> BackboneCarry:
        """The carry from which a stream begins."""
        layers = tuple(block.initial_carry(batch_shape) for block in self.blocks)
        return BackboneCarry(jnp.zeros(batch_shape, jnp.int32), layers)

    def attend(self, y: Array) -> Array:
        """Logits ``[..., V]`` by the embedding's own vectors (tied weights)."""
        return self.embedding.attend(y)

    def vectors(self) -> Array:
        """The embedding, ``[V, M]``."""
        return self.embedding.embedding

    def _embed(self, x, table):
        # As nn.Embed, whose table is a variable, but nothing is counted from the end.
        x = x.astype(jnp.int32)
        x = jnp.where(x < 0, len(table), x)
        return jnp.take(table.astype(self.options.dtype or table.dtype), x, axis=0)

    def _encode(self, x):
        if self.encoder == "embed":
            # Embeddings begin with unit length, and the blocks expect unit variance.
            y = by_rows(self._embed)(x, self.embedding.embedding) * self.features**0.5
        elif self.encoder == "onehot":
            y = jax.nn.one_hot(x, self.vocabulary, dtype=self.options.dtype or jnp.float32)
        else:
            y = self.dense(x) if self.encoder == "dense" else x
        return y


def _is_constant(x: Array) -> Array:
    """Whether all examples are the same; all steps, if there is one example only."""
    return jnp.all(x == x[:1]) if len(x) > 1 else jnp.all(x == x[:, :1])


def _vectors_at(place: Array, table: Array) -> Array:
    """Rows of a table ``[N, M]``; NaN past its end."""
    return table.at[place].get(mode="fill", fill_value=jnp.nan)


def check(model: Backbone) -> None:
    """Checks the fields of a backbone.

    Raises:
        ValueError: naming the field that is wrong and the cure.
    """
    if not model.layers:
        raise ValueError("layers: name one at least")
    for kind in model.layers:
        mixers.check(kind, model.options)
    if model.encoder not in ENCODERS:
        raise unknown("encoder", model.encoder, ENCODERS)
    if model.encoder in ("onehot", "embed") and (model.vocabulary or 0) < 1:
        raise ValueError(f"encoder {model.encoder!r} needs a vocabulary, got {model.vocabulary}")
    for name in ("features", "max_positions"):
        value = getattr(model, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= model.dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {model.dropout}")
    if not model.expand >= 0:
        raise ValueError(f"expand must not be negative, got {model.expand}")
    if not model.no_residual and model.encoder in ("raw", "onehot"):
        raise ValueError(
            f"encoder {model.encoder!r} is for models without residuals; take dense or embed"
        )
    if model.skip not in SKIPS:
        raise unknown("skip", model.skip, SKIPS)
    if model.skip == "block":
        check_skip(model)
    positions = model.max_positions is not None
    if model.no_residual and positions and model.encoder in ("raw", "onehot"):
        raise ValueError(f"encoder {model.encoder!r} takes no positions; take dense or embed")
    if "attention" in model.layers and model.features % model.options.num_heads:
        raise ValueError(
            "num_heads must divide the width of the model: "
            f"{model.features} by {model.options.num_heads}"
        )
