"""What decays and what has a rate of its own, in models of every layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from surnn_jax import train
from surnn_jax.layers import Backbone, Classifier, MultiHeadRecurrent, Options, Recurrent
from surnn_jax.switches import event, fourier

LAYERS = ("sulstm_peephole", "attention", "s4d", "lru", "mamba", "mamba2")
DECAYED = {
    # The cell, and products of every kind.
    *("i", "f", "g", "o", "kernel", "embedding", "position"),
    *("b_re", "b_im", "c_re", "c_im"),
}
STATE_SPACE = {
    *("log_dt", "log_a_real", "a_imag", "nu_log", "theta_log", "gamma_log", "a_log", "dt_bias"),
}


@pytest.fixture(scope="module")
def params():
    options = Options(switch=fourier(8), num_heads=2, state=2)
    backbone = Backbone(LAYERS, 4, "embed", vocabulary=5, max_positions=8, options=options)
    shapes = jax.eval_shape(
        Classifier(backbone, 2).init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32)
    )
    heads = MultiHeadRecurrent(Recurrent("gru", 3, event(8), learn_carry=True), 2)
    more = jax.eval_shape(heads.init, jax.random.key(0), jnp.zeros((1, 8, 2)))
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), [shapes, more])
    return {"stack": ones[0], "heads": ones[1]}


def _updates(params, **config):
    optimiser = train.make_optimizer(train.OptimizerConfig(learning_rate=0.1, **config))
    grads = jax.tree.map(lambda leaf: 0.5 * np.ones_like(leaf), params)

    # Leaf by leaf, each shape takes programs of its own.
    @jax.jit
    def update(grads, params):
        return optimiser.update(grads, optimiser.init(params), params)[0]

    with jax.numpy_dtype_promotion("standard"):
        return update(grads, params)


def _by_name(tree):
    return [
        ([part.key for part in path], np.asarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def test_kernels_decay_and_nothing_else(params):
    plain, decayed = _by_name(_updates(params)), _by_name(_updates(params, weight_decay=0.5))
    moved = set()
    for (path, one), (_, two) in zip(plain, decayed, strict=True):
        changed = bool((one != two).any())
        if changed:
            np.testing.assert_allclose(two, one - 0.05, rtol=1e-5)
            moved.add(path[-1])
        cell = "cell" in path and ("input" in path or "recurrent" in path)
        assert changed == (cell or path[-1] in DECAYED), path
    assert moved >= {"kernel", "embedding", "position", "b_re", "c_im", "i", "n"}


def test_state_spaces_have_a_rate_of_their_own(params):
    plain = _by_name(_updates(params, clip=1.0))
    scaled = _by_name(_updates(params, clip=1.0, weight_decay=0.0, ssm_lr_multiplier=0.25))
    found = set()
    for (path, one), (_, two) in zip(plain, scaled, strict=True):
        own = path[-1] in STATE_SPACE
        np.testing.assert_array_equal(two, 0.25 * one if own else one)
        found |= {path[-1]} if own else set()
    assert found == STATE_SPACE
    with pytest.raises(ValueError, match="ssm_lr_multiplier must not be negative, got -1"):
        train.OptimizerConfig(ssm_lr_multiplier=-1.0)


def test_a_time_step_without_a_gradient_stays(params):
    """dt went from 0.0012 to 0.086 by weight decay alone."""
    optimiser = train.make_optimizer(train.OptimizerConfig(learning_rate=0.1, weight_decay=0.5))
    state, moved = jax.jit(optimiser.init)(params), params
    nothing = jax.tree.map(np.zeros_like, params)

    @jax.jit
    def step(moved, state):
        updates, state = optimiser.update(nothing, state, moved)
        return optax.apply_updates(moved, updates), state

    with jax.numpy_dtype_promotion("standard"):
        for _ in range(3):
            moved, state = step(moved, state)
    for path, leaf in _by_name(moved):
        if path[-1] in STATE_SPACE | {"bias", "scale", "d"} or "vector" in path:
            np.testing.assert_array_equal(leaf, 1)


def test_the_state_of_the_optimiser_is_that_of_stock_weight_decay(params):
    """So checkpoints from before there were groups still load."""
    groups = train.make_optimizer(train.OptimizerConfig(weight_decay=0.5))
    groups = jax.jit(groups.init)(params)
    chain = groups.inner_states["weights"].inner_state
    assert chain[2] == optax.add_decayed_weights(0.5).init(params)
