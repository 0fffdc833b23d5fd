"""Trained models as programs that run without this library: `jax.export`, weights inside.

Batch and time are symbols, so that one export takes every size of at least 1::

    from jax import export

    with open("sequence.jax", "rb") as file:
        call = export.deserialize(bytearray(file.read())).call
    outputs = call(x, lengths)

Writing and loading an export needs jax and flatbuffers. The export is plain StableHLO. The
compiled CPU kernel is a custom call that needs this library, so recurrent layers with the back end
``auto`` or ``native`` are exported as ``masked``; ``compact`` and ``rows`` stay. The numbers are
those of the model, to rounding. `jax.export.export` of a jitted call of your own works likewise,
with gradients too.

Attention and state spaces need the length of a sequence beforehand, for an FFT, an associative
scan or chunks. A model with such a layer, or with an adaptive softmax, is exported as a loop over
its `step`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

from surnn_jax import cells
from surnn_jax.layers import mixers
from surnn_jax.layers.predictors import FramePredictor, WaveformPredictor
from surnn_jax.layers.recurrent import Recurrent
from surnn_jax.layers.sequence_models import (
    Classifier,
    LanguageModel,
    PairClassifier,
    SequenceTagger,
)
from surnn_jax.typing import Array

PLATFORMS = ("cpu", "cuda", "tpu")
"""The default platforms of an export. Any machine can lower for all of them."""

_KNOWN = {"cpu", "cuda", "rocm", "tpu"}
_STACKS = (Classifier, LanguageModel, PairClassifier, SequenceTagger)


def sequence(
    model: nn.Module,
    variables: Any,
    x: Array | jax.ShapeDtypeStruct,
    *,
    platforms: Sequence[str] = PLATFORMS,
) -> bytes:
    """The model on whole sequences.

    The export is called with ``(x, lengths)`` and returns the outputs of the model; of a
    `Recurrent` layer ``[B, T, H]``, of a `WaveformPredictor` the mixture: log-weights
    ``[B, T, K]``, means and deviations ``[B, T, K, N]``. Lengths are int32 ``[B]``; outputs at
    steps beyond them mean nothing. More steps than there are learned positions are refused. Two
    kinds of models are called otherwise:

    - `PairClassifier`: ``(x, lengths, x2, lengths2)``;
    - `LanguageModel`: ``(carry, x, y)``, which returns ``(carry, log-probabilities [B, T])`` of
      the targets y, to go on with the next stretch of text; :func:`begin` gives the first carry.

    Args:
        model: one of those in :mod:`surnn_jax.layers`, or a linen module of your own that is
            called with ``(x, lengths)`` and returns arrays in tuples, lists or dicts.
        variables: as its `init` returned them.
        x: a batch ``[B, T, …]`` or its shape; the dtype and what follows T are read.
        platforms: of ``cpu``, ``cuda``, ``rocm``, ``tpu``.

    Raises:
        ValueError: a model that has no export for sequences.

    Examples:
        >>> from jax.export import deserialize
        >>> from surnn_jax.layers import Recurrent, export
        >>> model, x = Recurrent("gru", 4), jnp.ones((2, 5, 3))
        >>> variables = model.init(jax.random.key(0), x)
        >>> call = deserialize(bytearray(export.sequence(model, variables, x))).call
        >>> call(jnp.ones((7, 9, 3)), jnp.full(7, 9, jnp.int32)).shape  # another batch and length
        (7, 9, 4)
    """
    loops = _loops(model)
    if loops and (model.backbone.bidirectional or isinstance(model, PairClassifier)):
        raise ValueError(
            f"no export: {loops} needs the length of a sequence beforehand unless it goes step by "
            "step, which a bidirectional model or a PairClassifier cannot"
        )
    symbols = "b, t, u" if isinstance(model, PairClassifier) else "b, t"
    batch, *times = export.symbolic_shape(symbols, constraints=_limits(model, symbols))
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    x, *x2 = (jax.ShapeDtypeStruct((batch, time, *x.shape[2:]), x.dtype) for time in times)
    given: tuple[Any, ...] = (x, lengths, *x2, *(lengths for _ in x2))
    function: Callable[..., Any] = _looped if loops else _whole
    if isinstance(model, LanguageModel):
        given = (_carry(model, variables, x), x, jax.ShapeDtypeStruct(x.shape, jnp.int32))
        function = _looped_text if loops else _whole_text
    return _serialised(function, model, variables, given, platforms)


def step(
    model: nn.Module,
    variables: Any,
    x: Array | jax.ShapeDtypeStruct,
    *,
    platforms: Sequence[str] = PLATFORMS,
) -> bytes:
    """One step of a stream: called with ``(carry, x [B, …])``, it returns ``(carry, outputs)``.

    A carry is an opaque tuple of arrays; :func:`begin` gives the first. Arguments
    as for :func:`sequence`, whose outputs at the same step these are; a `Classifier` answers for
    the sequence so far, a `LanguageModel` gives the log-probabilities ``[B, V]`` of the next
    token. A module of your own has the methods ``step`` and ``initial_carry``.

    Raises:
        ValueError: a model without steps.

    Examples:
        >>> from jax.export import deserialize
        >>> from surnn_jax.layers import Recurrent, export
        >>> model, x = Recurrent("gru", 4), jnp.ones((2, 5, 3))
        >>> variables = model.init(jax.random.key(0), x)
        >>> begin = deserialize(bytearray(export.begin(model, variables, x))).call
        >>> step = deserialize(bytearray(export.step(model, variables, x))).call
        >>> carry, h = step(begin(x[:, 0]), x[:, 0])
        >>> h.shape
        (2, 4)
    """
    frame = _frame(model, x)
    given = (_carry(model, variables, frame), frame)
    return _serialised(_one_step, model, variables, given, platforms)


def begin(
    model: nn.Module,
    variables: Any,
    x: Array | jax.ShapeDtypeStruct,
    *,
    platforms: Sequence[str] = PLATFORMS,
) -> bytes:
    """The first carry: called with any ``x [B, …]`` that a step takes; only B is read.

    Arguments as for :func:`sequence`.

    Raises:
        ValueError: a model without steps.

    Examples:
        >>> from jax.export import deserialize
        >>> from surnn_jax.layers import Recurrent, export
        >>> model, x = Recurrent("gru", 4), jnp.ones((2, 5, 3))
        >>> variables = model.init(jax.random.key(0), x)
        >>> begin = deserialize(bytearray(export.begin(model, variables, x))).call
        >>> [leaf.shape for leaf in begin(x[:, 0])]
        [(2, 4)]
    """
    return _serialised(_first, model, variables, (_frame(model, x),), platforms)


def _serialised(function, model, variables, given, platforms) -> bytes:
    def program(*given):
        return function(model, jax.tree_util.tree_map_with_path(_withheld, variables), *given)

    unknown = set(platforms) - _KNOWN
    if unknown or not platforms:
        said = ", ".join(sorted(unknown)) or "none"
        raise ValueError(f"platforms must be of {', '.join(sorted(_KNOWN))}, got {said}")
    return bytes(export.export(jax.jit(program), platforms=tuple(platforms))(*given).serialize())


def _withheld(path, leaf):
    """The weights of a switch, hidden from the compiler.

    It would work out the table of a rhythm, which depends on nothing else, with other roundings
    than a running program has, and a switch near its threshold would fall to the other side.
    """
    hidden = any(getattr(part, "key", None) == "switch" for part in path)
    return jax.lax.optimization_barrier(leaf) if hidden else leaf


def _limits(model, symbols: str) -> list[str]:
    """What the symbols of time must keep to: learned positions end somewhere."""
    positions = model.backbone.max_positions if isinstance(model, _STACKS) else None
    return [] if positions is None else [f"{t} <= {positions}" for t in symbols.split(", ")[1:]]


def _loops(model) -> str:
    """The layer that rules out an export for whole sequences at once; empty if none does."""
    if not isinstance(model, _STACKS):
        return ""
    others = [
        name
        for name in model.backbone.layers
        if not (name in cells.CELLS or mixers.is_selective(name))
    ]
    if isinstance(model, LanguageModel) and model.cutoffs:
        others.append("an adaptive softmax")
    return others[0] if others else ""


def _frame(model, x) -> jax.ShapeDtypeStruct:
    """A frame of a stream, ``[b, …]``; refuses models that cannot stream."""
    if isinstance(model, PairClassifier):
        raise ValueError("a PairClassifier compares whole sequences; it has no step")
    if isinstance(model, _STACKS) and model.backbone.bidirectional:
        raise ValueError("a bidirectional model reads whole sequences; it has no step")
    if isinstance(model, Recurrent) and model.reverse:
        raise ValueError("a reversed layer reads whole sequences; it has no step")
    if not (hasattr(model, "step") and hasattr(model, "initial_carry")):
        raise ValueError(f"{type(model).__name__} has no methods step and initial_carry")
    (batch,) = export.symbolic_shape("b")
    return jax.ShapeDtypeStruct((batch, *x.shape[2:]), x.dtype)


def _first(model, variables, x):
    carry = model.apply(variables, x.shape[:1], method="initial_carry")
    # Whoever loads the export lacks the classes of our carries.
    return tuple(jax.tree.leaves(carry))


def _carry(model, variables, x):
    """The form of a carry for inputs of symbolic size."""
    return jax.eval_shape(lambda x: _first(model, variables, x), x)


def _restored(model, variables, carry, x):
    """A carry with its classes, from the tuple of its arrays."""
    like = jax.eval_shape(lambda x: model.apply(variables, x.shape[:1], method="initial_carry"), x)
    return jax.tree.unflatten(jax.tree.structure(like), carry)


def _one_step(model, variables, carry, x):
    carry = _restored(model, variables, carry, x)
    carry, outputs = model.apply(variables, carry, x, method="step")
    return tuple(jax.tree.leaves(carry)), _read(model, outputs)


def _whole(model, variables, *given):
    if isinstance(model, Recurrent):
        x, lengths = given
        plain = {"time_major": False, "return_carry": False, "return_run": False}
        return model.apply(variables, x, seq_lengths=lengths, **plain)
    found = model.apply(variables, *given)
    if isinstance(model, _STACKS):
        return found.outputs
    return _read(
        model, found[0] if isinstance(model, (FramePredictor, WaveformPredictor)) else found
    )


def _whole_text(model, variables, carry, x, y):
    carry = _restored(model, variables, carry, x)
    found = model.apply(variables, x, y, carry=carry)
    return tuple(jax.tree.leaves(found.carry)), found.outputs


def _looped(model, variables, x, lengths):
    def one(carry, now):
        return model.apply(variables, carry, now, method="step")

    carry = model.apply(variables, x.shape[:1], method="initial_carry")
    _, outputs = jax.lax.scan(one, carry, jnp.moveaxis(x, 1, 0))
    if not isinstance(model, Classifier):
        return jnp.moveaxis(outputs, 0, 1)
    nothing = model.apply(variables, carry.total, carry.count, method="_read")
    answers = jnp.concatenate([nothing[None], outputs])
    last = jnp.clip(lengths, 0, x.shape[1])
    return jnp.take_along_axis(answers, last[None, :, None], axis=0)[0]


def _looped_text(model, variables, carry, x, y):
    def one(carry, now):
        token, target = now
        carry, table = model.apply(variables, carry, token, method="step")
        return carry, jnp.take_along_axis(table, target[:, None], axis=-1)[:, 0]

    carry = _restored(model, variables, carry, x)
    carry, found = jax.lax.scan(one, carry, (x.T, y.T))
    return tuple(jax.tree.leaves(carry)), found.T


def _read(model, outputs):
    """Outputs in a form that does not need the model."""
    if isinstance(model, WaveformPredictor):
        return tuple(model.readout.mixture(outputs))
    return outputs
