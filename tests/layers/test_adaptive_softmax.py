"""The adaptive softmax against its equations in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from surnn_jax.layers.adaptive_softmax import AdaptiveSoftmax

VOCABULARY, CUTOFFS, WIDTH, SHRINK = 17, (5, 9), 12, 3


def layer(**changes):
    return AdaptiveSoftmax(VOCABULARY, CUTOFFS, **{"shrink": SHRINK, **changes})


def drawn(seed=0):
    random = np.random.default_rng(seed)
    shapes = {
        "head": (12, 5 + 2), "down_1": (12, 4), "up_1": (4, 4), "down_2": (12, 1), "up_2": (1, 8),
    }  # fmt: skip
    params = {k: random.normal(size=v).astype(np.float32) for k, v in shapes.items()}
    # More than two blocks of 128, the last not full.
    x = random.normal(size=(3, 100, WIDTH)).astype(np.float32)
    return params, x, random.integers(0, VOCABULARY, (3, 100))


def log_softmax(scores):
    scores = scores - scores.max(-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def oracle(params, x):
    """log p of every word, in float64."""
    p, x = {k: np.float64(v) for k, v in params.items()}, np.float64(x)
    head = log_softmax(x @ p["head"])
    parts = [head[..., :5]]
    for i in (1, 2):
        own = log_softmax(x @ p[f"down_{i}"] @ p[f"up_{i}"])
        parts.append(head[..., 4 + i, None] + own)
    return np.concatenate(parts, axis=-1)


def wanted_of(params, x, words):
    return np.take_along_axis(oracle(params, x), words[..., None], -1)[..., 0]


@jax.jit
def learn(params, x, targets, weight):
    """Gradients of the weighed sum of what is finite, and all log-probabilities."""

    def total(params, x):
        found = layer().apply({"params": params}, x, targets)
        return jnp.where(jnp.isnan(found), 0, found * weight).sum(), found

    return jax.grad(total, argnums=(0, 1), has_aux=True)(params, x)


def test_all_words_and_targets_alone_are_as_in_numpy():
    params, x, words = drawn()
    found = layer().apply({"params": params}, x, method="log_probs")
    assert found.shape == (3, 100, VOCABULARY)
    # float32: products of 12 terms of size one, logarithms down to -20
    np.testing.assert_allclose(found, oracle(params, x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.exp(np.float64(found)).sum(-1), 1, rtol=1e-5)
    _, chosen = learn(params, x, words, np.ones(words.shape, np.float32))
    assert chosen.shape == (3, 100)
    np.testing.assert_allclose(chosen, wanted_of(params, x, words), rtol=1e-5, atol=1e-5)


def test_the_gradient_is_that_of_all_words():
    params, x, words = drawn()
    weight = np.random.default_rng(1).normal(size=words.shape).astype(np.float32)
    targets = jnp.asarray(words)

    def whole(params, x):
        found = layer().apply({"params": params}, x, method="log_probs")
        return (jnp.take_along_axis(found, targets[..., None], -1)[..., 0] * weight).sum()

    found, wanted = learn(params, x, words, weight)[0], jax.jit(jax.grad(whole, (0, 1)))(params, x)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.abs(other).max() > 0.1
        # Sums of 300 terms in another order, in float32.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_tail_without_targets_is_not_computed():
    params, x, words = drawn()
    words, ones = words % 9, np.ones(words.shape, np.float32)  # none in the second tail
    broken = {**params, "up_2": np.full_like(params["up_2"], np.nan)}
    (_, slope), _ = learn(broken, x, words, ones)
    # A value that is computed and not chosen would leave 0 · NaN in the gradient.
    np.testing.assert_array_equal(slope, learn(params, x, words, ones)[0][1])
    assert np.isnan(learn(broken, x, words + 8, ones)[0][1]).any()


def test_what_is_no_word_has_no_probability_and_harms_no_other():
    params, x, words = drawn()
    words[0, 3], words[2, 50], words[1, ::9] = -1, VOCABULARY, VOCABULARY + 1000
    (_, slope), found = learn(params, x, words, np.ones(words.shape, np.float32))
    valid = (words >= 0) & (words < VOCABULARY)
    np.testing.assert_array_equal(np.isnan(found), ~valid)
    wanted = wanted_of(params, x, np.clip(words, 0, VOCABULARY - 1))
    np.testing.assert_allclose(found[valid], wanted[valid], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.any(slope, axis=-1), valid)


def test_parameters_and_dtypes():
    params, x, words = drawn()
    half = layer(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(half.init, jax.random.key(0), x, words)["params"]
    assert {k: v.shape for k, v in shapes.items()} == {k: v.shape for k, v in params.items()}
    assert {v.dtype for v in shapes.values()} == {jnp.dtype(jnp.float32)}
    low = jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)
    assert jax.eval_shape(half.apply, {"params": params}, low, words).dtype == jnp.float32
    # Numbers that bfloat16 holds exactly: in the head, sums and logarithms are float32's.
    params, x = {k: np.round(v) for k, v in params.items()}, np.round(x)
    found, exact = (
        one.apply({"params": params}, x, method="log_probs")[..., :5] for one in (half, layer())
    )
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    assert not np.array_equal(found, found.astype(jnp.bfloat16).astype(np.float32))


@pytest.mark.parametrize(
    ("fields", "words", "message"),
    [
        ({"cutoffs": ()}, None, r"cutoffs must rise.*at least one; got \(\)"),
        ({"cutoffs": (9, 5)}, None, r"cutoffs must rise.*got \(9, 5\)"),
        ({"cutoffs": (0, 5)}, None, "above 0"),
        ({"cutoffs": (5, 17)}, None, "below the vocabulary of 17 words"),
        ({"shrink": 0}, None, "shrink must be at least 1, got 0"),
        ({"shrink": 4}, (2, 3), r"width 12 cannot be narrowed 2 times by 4"),
        ({}, (3, 2), r"targets must be integers \(2, 3\), got int32 \(3, 2\)"),
    ],
)
def test_refusals(fields, words, message):
    fields = {"cutoffs": CUTOFFS, "shrink": SHRINK, **fields}

    def call():
        made = AdaptiveSoftmax(VOCABULARY, **fields)
        made.init(jax.random.key(0), jnp.zeros((2, 3, WIDTH)), jnp.zeros(words, jnp.int32))

    with pytest.raises(ValueError, match=message):
        call()


def test_tied_to_an_embedding_it_is_the_softmax_with_those_weights():
    own, x, words = drawn()
    random = np.random.default_rng(3)
    embedding = random.normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
    shapes = {"clusters": (WIDTH, 2), "lift_1": (WIDTH, 4), "lift_2": (WIDTH, 1)}
    tied = {k: random.normal(size=v).astype(np.float32) for k, v in shapes.items()}
    tied |= {k: own[k] for k in ("down_1", "down_2")}
    equal = own | {
        "head": np.concatenate([embedding[:5].T, tied["clusters"]], axis=1),
        "up_1": (embedding[5:9] @ tied["lift_1"]).T,
        "up_2": (embedding[9:] @ tied["lift_2"]).T,
    }

    @jax.jit
    def both(params, embedding):
        variables = {"params": params}
        whole = layer().apply(variables, x, embedding, method="log_probs")
        return layer().apply(variables, x, words, embedding), whole

    found, whole = both(tied, embedding)
    np.testing.assert_allclose(whole, oracle(equal, x), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found, wanted_of(equal, x, words), rtol=1e-4, atol=1e-4)
    like = jax.eval_shape(layer().init, jax.random.key(0), x, words, embedding)["params"]
    assert {name: leaf.shape for name, leaf in like.items()} == {
        k: v.shape for k, v in tied.items()
    }
    with pytest.raises(ValueError, match=r"the embedding must be \[17, 12\], got \[16, 12\]"):
        layer().apply({"params": tied}, x, words, embedding[1:])
