"""Several sequences packed into one row give what each gives alone, in every layer and model."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import full, tiered

from surnn_jax import switches
from surnn_jax.layers import (
    Backbone,
    Classifier,
    LanguageModel,
    PairClassifier,
    Recurrent,
    SequenceTagger,
    mixers,
)

STEPS, WIDTH = 13, 4
# The second sequence is longer than a window of attention, a chunk of Mamba and the convolution.
# Sequences have three lengths only (3, 7 and 1), for each is compiled.
STARTS = np.zeros((2, STEPS), bool)
STARTS[0, [3, 10]] = STARTS[1, [0, 7, 8]] = True
LENGTHS = jnp.array([STEPS, 11])
OPTIONS = mixers.Options(switch=switches.event(8, rate=0.5), num_heads=2, window=4, rotary=True)
MIXERS = ("attention", "s4d", "lru", "mamba", "mamba2", "sugru", "lstm")


def mixer(name, backend="auto"):
    made = mixers.make(name, WIDTH, dataclasses.replace(OPTIONS, backend=backend))
    return made.clone(chunk=4) if name.startswith("mamba") else made


def close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5, rtol=1e-4), got, want)


def pieces(row, steps=STEPS):
    """Where the sequences of a row begin and end; the first may go on from a carry."""
    cuts = [0, *np.flatnonzero(STARTS[row, :steps]), steps]
    return [(a, b) for a, b in itertools.pairwise(cuts) if b > a]


def one_by_one(call, x, row, begun, zero):
    """`call` of each sequence of a row alone, the first from the carry `begun`."""
    outputs = []
    for first, last in pieces(row, int(LENGTHS[row])):
        carry = zero
        if first == 0 and not STARTS[row, 0]:
            carry = jax.tree.map(lambda leaf: leaf[row : row + 1], begun)
        carry, y = call(x[row : row + 1, first:last], carry)
        outputs.append(y)
    return jnp.concatenate(outputs, axis=1), carry


@pytest.mark.parametrize("name", tiered(MIXERS, ["mamba2"]))
def test_packed_sequences_of_a_mixer(name):
    layer = mixer(name)
    options = {"return_carry": True} if isinstance(layer, Recurrent) else {}
    x = jax.random.normal(jax.random.key(0), (2, STEPS, WIDTH))
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    resets, whole = jnp.asarray(STARTS), jnp.array([STEPS, STEPS])

    def run(x, carry, seq_lengths=None, resets=None):
        given = {"seq_lengths": seq_lengths, "resets": resets}
        return layer.apply(variables, x, initial_carry=carry, **given, **options)

    call, zero = jax.jit(run), layer.apply(variables, (1,), method="initial_carry")
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), zero)
    begun, _ = call(x[:, ::-1], twice, whole, jnp.zeros_like(resets))
    spoilt = jnp.where(jnp.arange(STEPS)[None] < LENGTHS[:, None], 0, jnp.nan)[..., None] + x
    late = resets.at[1, 11].set(True)  # beyond the end, where nothing counts
    carry, outputs = call(spoilt, begun, LENGTHS, late)
    for row in (0, 1):
        want, last = one_by_one(call, x, row, begun, zero)
        close(outputs[row : row + 1, : LENGTHS[row]], want)
        mine = jax.tree.map(lambda leaf, r=row: leaf[r : r + 1], carry)
        close(call(x[:1, :7], mine)[1], call(x[:1, :7], last)[1])

    # The stream gives the same.
    carry, step = begun, jax.jit(lambda c, x, r: layer.apply(variables, c, x, r, method="step"))
    _, all_steps = call(x, begun, whole, resets)
    for t in range(STEPS):
        carry, y = step(carry, x[:, t], resets[:, t])
        close(y, all_steps[:, t])

    # No gradient crosses from one sequence into the one before.
    @jax.jit
    @jax.grad
    def across(x):
        return jnp.sum(run(x, None, resets=resets)[1][0, 3:10] ** 2)

    slope = np.asarray(across(x))
    assert not slope[0, :3].any()
    assert not slope[0, 10:].any()
    assert not slope[1].any()
    assert slope[0, 3:10].any()


def test_what_resets_must_be():
    layer = mixer("lru")
    x = jnp.zeros((2, STEPS, WIDTH))
    with pytest.raises(ValueError, match=r"^LRU: resets must be booleans of shape \(2, 13\)"):
        layer.init(jax.random.key(0), x, resets=jnp.zeros((2, 3), bool))


@pytest.mark.parametrize(
    ("bidirectional", "name"),
    tiered(itertools.product([False, True], MIXERS), [(True, "attention")]),
)
def test_packed_sequences_of_a_backbone(name, bidirectional):
    """Learned positions begin anew; backwards, a sequence begins where the next one began."""
    model = Backbone(
        (name,), WIDTH, max_positions=STEPS, options=OPTIONS, bidirectional=bidirectional
    )
    x = jax.random.normal(jax.random.key(0), (2, STEPS, 3))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    apply = jax.jit(model.apply)
    packed = apply(variables, x, LENGTHS, resets=jnp.asarray(STARTS))
    for row in (0, 1):
        for first, last in pieces(row, int(LENGTHS[row])):
            alone = apply(variables, x[row : row + 1, first:last])
            close(packed.outputs[row : row + 1, first:last], alone.outputs)
        if not bidirectional:
            assert packed.carry.position[row] == last - first
    if bidirectional:
        return
    carry = model.apply(variables, (2,), method="initial_carry")
    step = jax.jit(lambda c, x, r: model.apply(variables, c, x, r, method="step"))
    whole = apply(variables, x, jnp.array([STEPS, STEPS]), resets=jnp.asarray(STARTS))
    for t in range(STEPS):
        carry, y = step(carry, x[:, t], jnp.asarray(STARTS[:, t]))
        close(y, whole.outputs[:, t])
    assert carry.position.tolist() == whole.carry.position.tolist() == [3, 5]


@pytest.mark.parametrize("pooling", tiered(["last", "mean"], ["last"]))
def test_a_classifier_answers_for_the_last_sequence(pooling):
    model = Classifier(Backbone(("gru",), WIDTH), 5, pooling)
    x = jax.random.normal(jax.random.key(0), (2, STEPS, 3))
    variables, resets = jax.jit(model.init)(jax.random.key(1), x), jnp.asarray(STARTS)
    apply, step = jax.jit(model.apply), jax.jit(functools.partial(model.apply, method="step"))
    packed = apply(variables, x, LENGTHS, resets=resets)
    for row, first in ((0, 10), (1, 8)):
        alone = apply(variables, x[row : row + 1, first : LENGTHS[row]])
        close(packed.outputs[row : row + 1], alone.outputs)
    more = apply(variables, x, carry=packed.carry)
    longer = jnp.concatenate([x[:1, 10:], x[:1]], axis=1)
    close(more.outputs[:1], apply(variables, longer).outputs)
    carry = model.apply(variables, (2,), method="initial_carry")
    for t in range(STEPS):
        carry, y = step(variables, carry, x[:, t], resets[:, t])
    close(y, apply(variables, x, jnp.array([STEPS, STEPS]), resets=resets).outputs)


@pytest.mark.full
def test_taggers_and_language_models_pass_resets_on():
    resets = jnp.asarray(STARTS)
    tagger = SequenceTagger(Backbone(("lru",), WIDTH), 5)
    x = jax.random.normal(jax.random.key(0), (2, STEPS, 3))
    variables, apply = jax.jit(tagger.init)(jax.random.key(1), x), jax.jit(tagger.apply)
    packed = apply(variables, x, resets=resets)
    close(packed.outputs[:1, 3:10], apply(variables, x[:1, 3:10]).outputs)
    model = LanguageModel(Backbone(("lru",), WIDTH, "embed", vocabulary=5))
    x = jax.random.randint(jax.random.key(0), (2, STEPS), 0, 5)
    variables, apply = jax.jit(model.init)(jax.random.key(1), x, x), jax.jit(model.apply)
    packed = apply(variables, x, x, resets=resets)
    close(packed.outputs[:1, 3:10], apply(variables, x[:1, 3:10], x[:1, 3:10]).outputs)


@pytest.mark.full
@pytest.mark.parametrize("name", tiered(MIXERS, ["lru"]))
def test_nothing_broken_passes_a_reset(name):
    """Neither a carry of NaN nor, in a row that goes on from one, the steps before a reset."""
    layer = mixer(name)
    options = {"return_carry": True} if isinstance(layer, Recurrent) else {}
    x = jax.random.normal(jax.random.key(0), (2, STEPS, WIDTH))
    variables = layer.init(jax.random.key(1), x)
    begin = layer.apply(variables, (2,), method="initial_carry")

    def broken(leaf):
        return leaf if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf * jnp.nan

    resets = jnp.zeros((2, STEPS), bool).at[:, 0].set(True)

    def loss(variables, x, carry):
        _, y = layer.apply(variables, x, initial_carry=carry, resets=resets, **options)
        return jnp.sum(y**2), y

    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    close(gradient(variables, x, jax.tree.map(broken, begin)), gradient(variables, x, begin))
    later = jnp.zeros((2, STEPS), bool).at[:, 6].set(True)
    _, got = layer.apply(variables, x.at[:, 2].set(jnp.nan), resets=later, **options)
    _, want = layer.apply(variables, x, resets=later, **options)
    assert not jnp.isfinite(got[:, 2]).any()
    close(got[:, :2], want[:, :2])
    close(got[:, 6:], want[:, 6:])


PAST = [(name, "auto") for name in (*MIXERS, "gru_before")]
PAST += [("lstm", "masked"), ("lstm", "compact"), ("sugru", "rows"), ("min_gru", "parallel")]
KEPT = [("lru", "auto"), ("min_gru", "parallel")]


@pytest.mark.parametrize("what", ["carry", full("inputs")])
@pytest.mark.parametrize(("name", "backend"), tiered(PAST, KEPT))
def test_nothing_broken_reaches_the_gradient_past_a_reset(name, backend, what):
    """A loss of what comes after a reset in the middle, as if the steps before were whole."""
    layer = mixer(name, backend)
    if what == "inputs" and name.startswith("su"):
        pytest.skip("the spread of all logits scales the surrogate of an event switch")
    options = {"return_carry": True} if isinstance(layer, Recurrent) else {}
    x = jax.random.normal(jax.random.key(0), (2, STEPS, WIDTH))
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    carry = layer.apply(variables, (2,), method="initial_carry")
    carry = jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), carry)
    resets = jnp.zeros((2, STEPS), bool).at[0, 6].set(True)

    def loss(variables, x, carry):
        end, y = layer.apply(variables, x, initial_carry=carry, resets=resets, **options)
        return jnp.sum(y[0, 6:] ** 2) + jnp.sum(y[1] ** 2), (y, end)

    def broken(leaf):
        return leaf if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf.at[0].set(jnp.nan)

    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    want, (whole, end) = gradient(variables, x, carry)
    first = 0 if what == "carry" else 2
    if what == "carry":
        carry = jax.tree.map(broken, carry)
    else:
        x = x.at[0, first].set(jnp.nan)
    got, (y, last) = gradient(variables, x, carry)
    close(got, want)
    close(last, end)
    assert not jnp.isfinite(y[0, first]).all()
    close(y[0, :first], whole[0, :first])
    close(y[0, 6:], whole[0, 6:])
    close(y[1], whole[1])


@pytest.mark.full
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_packed_pairs(pooling):
    model = PairClassifier(Backbone(("gru",), WIDTH), 2, pooling)
    x, x2 = jax.random.normal(jax.random.key(0), (2, 2, STEPS, WIDTH))
    variables = model.init(jax.random.key(1), x, None, x2, None)
    begun, other = (jnp.zeros((2, STEPS), bool).at[:, at].set(True) for at in (4, 7))
    got = model.apply(variables, x, None, x2, None, resets=begun, resets2=other).outputs
    close(got, model.apply(variables, x[:, 4:], None, x2[:, 7:], None).outputs)
