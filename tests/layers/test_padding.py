"""Padding inside whole models: it moves no position, and what stands in it is never looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import full

from surnn_jax.layers import Backbone, Classifier, LanguageModel, Options, SequenceTagger
from surnn_jax.switches import event

B, T, D, M = 3, 6, 2, 4
LENGTHS = jnp.asarray([T, 2, 0])
INSIDE = np.arange(T)[None] < np.asarray(LENGTHS)[:, None]
OPTIONS = Options(switch=event(T, rate=0.5, event_features="pair"), num_heads=2, window=T, state=2)
EVERY_MIXER = ("sugru", "attention", "s4d", "lru", "mamba", "mamba2")


def _data(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("kind", "layers"), [full(Classifier, EVERY_MIXER), (SequenceTagger, ("gru",))]
)
def test_nan_in_padding_reaches_no_gradient(kind, layers):
    model = kind(Backbone(layers, M, options=OPTIONS), 3)
    clean = _data(B, T, D)
    spoilt = jnp.where(INSIDE[..., None], clean, jnp.nan)
    params = jax.jit(model.init)(jax.random.key(0), clean, LENGTHS)

    @jax.jit
    @jax.value_and_grad
    def loss(params, x):
        outputs = model.apply(params, x, LENGTHS).outputs
        if kind is SequenceTagger:
            outputs = jnp.where(INSIDE[..., None], outputs, 0)
        return jnp.sum(jnp.square(outputs))

    value, grads = loss(params, spoilt)
    for got, want in zip(*map(jax.tree.leaves, ((value, grads), loss(params, clean))), strict=True):
        np.testing.assert_array_equal(got, want)
        assert np.isfinite(got).all()


def test_no_token_in_padding_is_looked_at():
    model = LanguageModel(Backbone(("gru",), M, "embed", vocabulary=5, options=OPTIONS))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 5, (B, T)), jnp.int32)
    spoilt = jnp.where(INSIDE, x, 10**6)
    params = jax.jit(model.init)(jax.random.key(0), x, x)

    @jax.jit
    @jax.value_and_grad
    def loss(params, x):
        return -jnp.sum(jnp.where(INSIDE, model.apply(params, x, x, LENGTHS).outputs, 0))

    for got, want in zip(
        *map(jax.tree.leaves, (loss(params, spoilt), loss(params, x))), strict=True
    ):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", [full("learned"), "rotary"])
def test_positions_count_the_valid_steps_of_every_example(kind):
    """Padded pieces one after another, and single steps, say what each example alone says."""
    options = Options(num_heads=2, window=16, rotary=kind == "rotary")
    backbone = Backbone(
        ("attention", "gru"), M, max_positions=10 if kind == "learned" else None, options=options
    )
    model = SequenceTagger(backbone, 3)
    x = _data(B, 10, D)
    params = jax.jit(model.init)(jax.random.key(0), x)
    call = jax.jit(lambda x, lengths, carry: model.apply(params, x, lengths, carry=carry))
    step = jax.jit(lambda carry, now: model.apply(params, carry, now, method="step"))
    whole = np.asarray(call(x, jnp.full((B,), 10), None).outputs)
    done, carry = np.zeros(B, int), model.apply(params, (B,), method="initial_carry")
    for lengths in ([4, 2, 0], [1, 4, 3], [0, 0, 4]):
        piece = np.full((B, 4, D), np.nan, np.float32)
        for row, n in enumerate(lengths):
            piece[row, :n] = x[row, done[row] : done[row] + n]
        result = call(piece, jnp.asarray(lengths), carry)
        carry = result.carry
        assert np.isfinite(result.outputs).all()
        for row, n in enumerate(lengths):
            want = whole[row, done[row] : done[row] + n]
            np.testing.assert_allclose(
                np.asarray(result.outputs)[row, :n], want, rtol=1e-4, atol=1e-5
            )
        done += lengths
    assert carry.position.tolist() == done.tolist() == [5, 6, 7]
    now = jnp.stack([x[row, n] for row, n in enumerate(done)])
    _, outputs = step(carry, now)
    want = np.stack([whole[row, n] for row, n in enumerate(done)])
    np.testing.assert_allclose(outputs, want, rtol=1e-4, atol=1e-5)


def test_an_endless_stream_never_comes_back_to_the_first_position():
    model = Backbone(("gru",), M, max_positions=3)
    params = jax.jit(model.init)(jax.random.key(0), _data(B, 3, D))
    carry = model.apply(params, (B,), method="initial_carry")
    carry = carry._replace(position=carry.position.at[1:].set(3))
    step = jax.jit(lambda carry, now: model.apply(params, carry, now, method="step"))
    carry, y = step(carry, _data(B, D))
    assert carry.position.tolist() == [1, 3, 3]
    assert np.isnan(y).all(-1).tolist() == [False, True, True]
