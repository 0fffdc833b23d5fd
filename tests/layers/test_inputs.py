"""What layers take: batches without steps or examples, and nested lists in place of arrays."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import tiered

from surnn_jax import run, selective, step, switches
from surnn_jax.layers import (
    Backbone,
    Block,
    Classifier,
    FramePredictor,
    LanguageModel,
    MultiHeadRecurrent,
    PairClassifier,
    Recurrent,
    SequenceTagger,
    UnitCell,
    mixers,
)

WIDTH = 8
KINDS = ("attention", "s4d", "lru", "mamba", "mamba2", "gru", "sugru")
SWITCHES = (None, "fourier", "event", "threshold", "every", "phased", "zoneout")
EMPTY = [(0, 2), (4, 0), (0, 0)]


def backbone(kind="gru", **options):
    switch = switches.event(6, rate=0.5)
    return Backbone((kind,), WIDTH, options=mixers.Options(switch=switch), **options)


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "shape"),
    tiered(itertools.product(SWITCHES, EMPTY), [("event", (4, 0))]),
    ids=str,
)
def test_a_unit_begins_with_an_empty_batch(name, shape):
    unit = selective("gru", name and getattr(switches, name)(6))
    x = jnp.zeros((*shape, 3))
    params = jax.jit(lambda x: unit.init(jax.random.key(0), x, 5))(x)
    assert finite(params)

    @functools.partial(jax.jit, static_argnums=1)
    @jax.value_and_grad
    def loss(params, backend):
        done = run(unit, params, x, backend=backend)
        return done.outputs.sum() + done.rate

    for backend in ("auto", "native", "masked"):
        assert finite(loss(params, backend)), backend


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "shape"),
    tiered(itertools.product(KINDS, [(2, 0), (0, 4), (0, 0)]), [("sugru", (2, 0))]),
    ids=str,
)
def test_a_model_begins_with_an_empty_batch(kind, shape):
    x = jnp.zeros((*shape, WIDTH))
    for model in (
        SequenceTagger(backbone(kind), 2),
        SequenceTagger(backbone(kind, bidirectional=True), 2),
        Classifier(backbone(kind, max_positions=7), 2, "mean"),
    ):
        variables = model.init(jax.random.key(0), x)
        assert finite(variables)
        assert len(model.apply(variables, x).outputs) == shape[0]


@pytest.mark.full
@pytest.mark.parametrize("shape", [(2, 0), (0, 4)])
def test_other_layers_begin_with_an_empty_batch(shape):
    x = jnp.zeros((*shape, WIDTH))
    for layer in (
        MultiHeadRecurrent(Recurrent("gru", 4, switches.fourier(6, groups=1)), 2),
        Recurrent("gru", 4, switches.event(6), reverse=True, chunk=2),
    ):
        outputs = layer.apply(layer.init(jax.random.key(0), x), x)
        assert outputs.shape[:2] == shape
    cell = UnitCell("gru", 4, switches.event(6))
    carry = cell.initialize_carry(None, (0, 3))
    assert finite(cell.init(jax.random.key(0), carry, jnp.zeros((0, 3))))


X = np.random.default_rng(0).normal(size=(2, 6, WIDTH)).astype("float32")
LENGTHS, RESETS = np.array([6, 3]), np.arange(12).reshape(2, 6) % 5 == 2
TOKENS = np.arange(12).reshape(2, 6) % 9


def listed(tree):
    return jax.tree.map(lambda leaf: leaf.tolist() if isinstance(leaf, np.ndarray) else leaf, tree)


def same(call, *given):
    """Lists give what arrays give."""
    want, got = call(*given), call(*listed(given))
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.full
def test_a_unit_takes_lists():
    unit = selective("gru", switches.event(6))
    x, mask = X.swapaxes(0, 1), ~RESETS.T
    same(lambda x: unit.init(jax.random.key(0), x, 4), x)
    params = unit.init(jax.random.key(0), x, 4)

    def call(x, lengths, mask, resets):
        return run(unit, params, x, lengths=lengths, mask=mask, resets=resets)

    same(call, x, LENGTHS, mask, RESETS.T)
    same(lambda x, resets: step(unit, params, None, x, resets=resets), x[0], RESETS[:, 2])


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_takes_lists(kind):
    for model in (SequenceTagger(backbone(kind), 2), Classifier(backbone(kind), 2)):
        same(lambda x, n, model=model: model.init(jax.random.key(0), x, n), X, LENGTHS)
        variables = model.init(jax.random.key(0), X)

        def call(x, lengths, resets, model=model, variables=variables):
            return model.apply(variables, x, lengths, resets=resets).outputs

        same(call, X, LENGTHS, RESETS)
        carry = model.apply(variables, (2,), method="initial_carry")

        def one(x, resets, model=model, variables=variables, carry=carry):
            return model.apply(variables, carry, x, resets, method="step")

        same(one, X[:, 0], RESETS[:, 2])
    mixer = mixers.make(kind, WIDTH, mixers.Options(switch=switches.event(6)))
    variables = mixer.init(jax.random.key(0), X)
    same(lambda x, n: mixer.apply(variables, x, seq_lengths=n), X, LENGTHS)


@pytest.mark.full
def test_other_layers_take_lists():
    key = jax.random.key(0)
    text = LanguageModel(backbone(encoder="embed", vocabulary=9), cutoffs=(3,))
    words = text.init(key, TOKENS, TOKENS)
    same(lambda x, n: text.apply(words, x, x, n).outputs, TOKENS, LENGTHS)
    pair = PairClassifier(backbone())
    both = pair.init(key, X, None, X, None)
    same(lambda x, n: pair.apply(both, x, n, x, n).outputs, X, LENGTHS)
    for layer in (
        FramePredictor("gru", 4, 2),
        MultiHeadRecurrent(Recurrent("gru", 4, switches.fourier(6, groups=1)), 2),
        nn.Bidirectional(Recurrent("gru", 4), Recurrent("gru", 4)),
    ):
        variables = layer.init(key, X)
        same(lambda x, layer=layer, variables=variables: layer.apply(variables, x), X)
    cell = UnitCell("gru", 4)
    carry = cell.initialize_carry(None, (2, WIDTH))
    variables = cell.init(key, carry, X[:, 0])
    same(lambda x: cell.apply(variables, carry, x), X[:, 0])


def test_a_block_takes_integers_as_floating_point():
    """What is added to them would else be rounded to a whole number."""
    module, x = Block("gru", WIDTH), jnp.arange(2 * 3 * WIDTH).reshape(2, 3, WIDTH) % 5
    variables = jax.jit(module.init)(jax.random.key(0), x.astype(jnp.float32))
    y, wanted = (
        jax.jit(lambda x: module.apply(variables, x)[1])(v) for v in (x, x.astype(jnp.float32))
    )
    np.testing.assert_array_equal(y, wanted)


def test_an_unknown_word_for_what_rests_is_refused():
    with pytest.raises(ValueError, match="unknown skip 'layer'"):
        Backbone("sugru", 4, skip="layer").init(jax.random.key(0), jnp.ones((2, 3, 4)))
