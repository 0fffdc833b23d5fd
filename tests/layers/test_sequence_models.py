"""Backbones and heads: streaming, padding, causality, pooling, and what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import tiered

from surnn_jax.layers import (
    Backbone,
    Classifier,
    LanguageModel,
    Options,
    PairClassifier,
    SequenceTagger,
)
from surnn_jax.switches import fourier

B, T, M, V = 3, 8, 8, 11
HALF = T // 2
OPTIONS = Options(switch=fourier(16, rate=0.5), num_heads=2, window=16, state=4)
MIXED = ("sugru", "attention", "s4d")
LENGTHS = jnp.asarray([T, 4, 0])


def backbone(layers=MIXED, **more):
    return Backbone(
        layers, **{"features": M, "encoder": "embed", "vocabulary": V, "options": OPTIONS, **more}
    )


MODELS = {
    "tagger": SequenceTagger(backbone(max_positions=T), 3),
    "last": Classifier(backbone(), 4, "last"),
    "mean": Classifier(backbone(("sulstm", "mamba")), 4, "mean"),
    "tied": LanguageModel(backbone()),
    "adaptive": LanguageModel(backbone(("gru",)), (3,)),
    "own": LanguageModel(backbone(("gru",)), tied=False),
}


def tokens(seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(1, V, (B, T)), jnp.int32)


@functools.cache
def made(name):
    """A model, its parameters, its sequence call and its step.

    Lengths, carry and targets are always given: so there is a program for the whole sequences,
    one for their halves, and no more.
    """
    model = MODELS[name]
    targets = isinstance(model, LanguageModel)
    inputs = (tokens(), tokens(1)) if targets else (tokens(),)
    params = jax.jit(model.init)(jax.random.key(0), *inputs)
    step = jax.jit(lambda carry, now: model.apply(params, carry, now, method="step"))

    @jax.jit
    def run(x, y, lengths, carry):
        more = (y,) if targets else ()
        return model.apply(params, x, *more, lengths, carry=carry)

    def call(x, lengths=None, carry=None, y=None):
        lengths = jnp.full((B,), x.shape[1]) if lengths is None else lengths
        carry = model.apply(params, (B,), method="initial_carry") if carry is None else carry
        return run(x, x if y is None else y, lengths, carry)

    return model, params, call, step


def streamed(name, x):
    """What `step` says at every step, ``[B, T, …]``."""
    model, params, _, step = made(name)
    carry = model.apply(params, (B,), method="initial_carry")
    found = []
    for t in range(T):
        carry, y = step(carry, x[:, t])
        found.append(y)
    return np.stack(found, axis=1), carry


@pytest.mark.parametrize("name", tiered(MODELS, ["tagger"]))
def test_steps_say_what_the_sequence_call_says(name):
    _, _, call, _ = made(name)
    x, y = tokens(), tokens(1)
    whole = call(x, y=y)
    steps, carry = streamed(name, x)
    if name in ("tied", "adaptive", "own"):
        np.testing.assert_allclose(np.exp(steps).sum(-1), 1, rtol=1e-5)
        steps = np.take_along_axis(steps, np.asarray(y)[..., None], axis=-1)[..., 0]
    if name in ("last", "mean"):
        steps = steps[:, -1]
    # Products in another order: rounding of float32 through three layers.
    np.testing.assert_allclose(steps, whole.outputs, rtol=2e-4, atol=2e-5)
    for one, other in zip(jax.tree.leaves(carry), jax.tree.leaves(whole.carry), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", tiered(MODELS, ("tagger",)))
def test_two_halves_are_the_whole(name):
    _, _, call, _ = made(name)
    x, y = tokens(), tokens(1)
    whole, first = call(x, y=y), call(x[:, :HALF], y=y[:, :HALF])
    second = call(x[:, HALF:], carry=first.carry, y=y[:, HALF:])
    outputs = second.outputs
    if name not in ("last", "mean"):
        outputs = np.concatenate([first.outputs, outputs], axis=1)
    np.testing.assert_allclose(outputs, whole.outputs, rtol=2e-4, atol=2e-5)


# A classifier has one answer, at the end.
@pytest.mark.parametrize(
    "name", tiered([name for name in MODELS if name not in ("last", "mean")], ("tagger",))
)
def test_nothing_is_seen_ahead_of_its_time(name):
    _, _, call, _ = made(name)
    x = tokens()
    other = x.at[:, 4:].set(tokens(5)[:, 4:])
    one, two = (np.asarray(call(given, y=tokens(1)).outputs) for given in (x, other))
    # A Fourier transform mixes all steps and takes the future out again, to rounding.
    np.testing.assert_allclose(one[:, :4], two[:, :4], rtol=1e-5, atol=1e-6)
    assert np.abs(one[:, 4:] - two[:, 4:]).max() > 1e-3


@pytest.mark.parametrize("name", tiered(["last", "mean"], ["mean"]))
def test_padding_changes_no_answer(name):
    _, _, call, _ = made(name)
    x = tokens()
    inside = jnp.arange(T)[None] < LENGTHS[:, None]
    padded = call(jnp.where(inside, x, 0), LENGTHS)
    np.testing.assert_array_equal(call(x, LENGTHS).outputs, padded.outputs)
    short = call(x[:, :HALF])
    np.testing.assert_allclose(padded.outputs[1], short.outputs[1], rtol=1e-4, atol=1e-5)
    assert np.isfinite(padded.outputs).all()


def test_mean_pooling_is_the_mean_of_what_was_seen():
    """The head is linear: its answer to the mean is the mean of its answers."""
    model, params, call, _ = made("mean")
    tagger = SequenceTagger(model.backbone, model.outputs)
    each = np.asarray(jax.jit(tagger.apply)(params, tokens()).outputs)
    np.testing.assert_allclose(call(tokens()).outputs, each.mean(1), rtol=1e-4, atol=1e-5)
    cut = call(tokens(), LENGTHS).outputs
    np.testing.assert_allclose(cut[1], each[1, :4].mean(0), rtol=1e-4, atol=1e-5)


def test_both_directions_are_read_and_mirror_one_another():
    """A backward layer on a sequence is a forward one on the sequence turned around."""
    model = SequenceTagger(backbone(("sugru", "attention"), bidirectional=True), 3)
    x = tokens()
    params = jax.jit(model.init)(jax.random.key(0), x)
    call = jax.jit(model.apply)
    lengths = jnp.full((B,), T)
    changed = call(params, x.at[:, -1].set(1 + x[:, -1] % (V - 1)), lengths).outputs
    assert np.abs(np.asarray(changed - call(params, x, lengths).outputs))[:, 0].max() > 1e-5

    block = params["params"]["backbone"]["blocks_0"]
    kernel = block["out"]["kernel"]
    turned = {
        **block,
        "mixer": block["backward"],
        "backward": block["mixer"],
        "out": {**block["out"], "kernel": jnp.concatenate([kernel[M:], kernel[:M]])},
    }
    swapped = jax.tree.map(lambda leaf: leaf, params)
    swapped["params"]["backbone"]["blocks_0"] = turned
    lengths = jnp.asarray([T, 4, 1])
    order = [np.r_[np.arange(n)[::-1], np.arange(n, T)] for n in lengths.tolist()]
    mirrored = jnp.stack([row[i] for row, i in zip(x, order, strict=True)])
    one, two = call(params, x, lengths).outputs, call(swapped, mirrored, lengths).outputs
    for row, (n, i) in enumerate(zip(lengths.tolist(), order, strict=True)):
        np.testing.assert_allclose(one[row, :n], two[row][i][:n], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="has no step"):
        model.apply(params, None, x[:, 0], method=lambda m, c, x: m.backbone.blocks[0].step(c, x))


def test_a_matcher_reads_both_sequences_with_one_backbone():
    model = PairClassifier(backbone(("gru",)), 2, "mean")
    x, x2 = tokens(), tokens(1)[:, :5]
    lengths2 = jnp.asarray([5, 2, 1])
    params = jax.jit(model.init)(jax.random.key(0), x, LENGTHS, x2, lengths2)
    assert sorted(params["params"]) == ["backbone", "head", "hidden", "tower"]
    call = jax.jit(lambda *inputs: model.apply(params, *inputs).outputs)
    one = call(x, LENGTHS, x2, lengths2)
    assert one.shape == (B, 2)
    # It is told which comes first.
    assert np.abs(np.asarray(one - call(x2, lengths2, x, LENGTHS))).max() > 1e-4


@pytest.mark.full
def test_rates_come_from_the_selective_layers_alone_and_teach_the_switch():
    model = SequenceTagger(backbone(("gru", "sugru", "s4d", "skip_gru")), 3)
    params = jax.jit(model.init)(jax.random.key(0), tokens())

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def slope(params):
        rates = [trace.rate for trace in model.apply(params, tokens()).traces]
        return sum(rates), rates

    slopes, rates = slope(params)
    assert len(rates) == 2
    assert np.abs(slopes["params"]["backbone"]["blocks_1"]["mixer"]["switch"]["b"]).max() > 0


def test_dropout_needs_a_key_and_training():
    model = SequenceTagger(backbone(("gru",), dropout=0.5), 3)
    params = jax.jit(model.init)(jax.random.key(0), tokens())

    @functools.partial(jax.jit, static_argnames="train")
    def call(key, train):
        return model.apply(params, tokens(), train=train, rngs={"dropout": key}).outputs

    keys = jax.random.split(jax.random.key(1))
    np.testing.assert_array_equal(call(keys[0], train=False), call(keys[1], train=False))
    one, two = (call(key, train=True) for key in keys)
    assert np.abs(np.asarray(one - two)).max() > 1e-3


def test_past_the_learned_positions_a_stream_says_nothing():
    _, _, _, step = made("tagger")
    _, carry = streamed("tagger", tokens())
    _, y = step(carry, tokens()[:, 0])
    assert np.isnan(y).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": ("grru",)}, "unknown layer 'grru'; did you mean 'gru'\\? One of: tanh, gru"),
        ({"layers": ()}, "layers: name one at least"),
        ({"options": Options(switch="furier")}, "unknown switch 'furier'; did you mean 'fourier'"),
        ({"options": Options(num_heads=3)}, "heads must divide the width of the model: 8 by 3"),
        ({"encoder": "bytes"}, "unknown encoder 'bytes'; one of: raw"),
        ({"vocabulary": None}, "encoder 'embed' needs a vocabulary, got None"),
        ({"max_positions": 4}, "8 steps is longer than the model's 4 positions"),
        ({"encoder": "raw"}, "encoder 'raw' is for models without residuals"),
        ({"encoder": "raw", "no_residual": True}, r"takes frames \[B, T, D\], got int32"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"expand": -1.0}, "expand must not be negative"),
        ({"features": 0}, "features must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_built_is_named(change, words):
    fields = {"layers": ("sugru", "attention"), **change}
    if "heads" in words:
        fields["layers"] = ("attention", "sugru")
        fields["options"] = Options(switch=fourier(16), num_heads=3)
    model = SequenceTagger(backbone(**fields), 3)
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(model.init, jax.random.key(0), tokens())


def test_tokens_and_targets_outside_the_vocabulary_are_not_counted_from_its_end():
    """-100 marks what is left out elsewhere; here lengths do."""
    model = LanguageModel(backbone(layers=("gru",)), tied=False)
    x = tokens()
    params = jax.tree.map(
        lambda leaf: jnp.ones(leaf.shape), jax.eval_shape(model.init, jax.random.key(0), x, x)
    )
    found = jax.jit(lambda x, y: model.apply(params, x, y).outputs)
    vocabulary = model.backbone.vocabulary
    for wrong in (-1, -vocabulary, vocabulary):
        y = found(x, x.at[1, 2].set(wrong))
        assert np.argwhere(np.isnan(y)).tolist() == [[1, 2]]
        assert np.isnan(found(x.at[1, 2].set(wrong), x)[1, 2])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"y": jnp.zeros((1, 8), int)}, r"targets must be integers \(.*, 8\), got int32 \(1, 8\)"),
        ({"y": jnp.zeros((3, 8))}, r"targets must be integers .* got float32"),
        ({"lengths": jnp.ones(3)}, r"seq_lengths must be integers of shape \(3,\), got float32"),
        (
            {"resets": jnp.zeros((3, 8), int)},
            r"resets must be booleans of shape \(3, 8\), got int32",
        ),
    ],
)
def test_arguments_of_a_language_model_that_do_not_fit_are_refused(given, words):
    model, x = LanguageModel(backbone(layers=("gru",))), jnp.zeros((3, 8), int)
    given = {"x": x, "y": x, **given}
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda: model.init(jax.random.key(0), **given))
