"""Optimizers: what is clipped, what is scaled, and how the rate goes down."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from surnn_jax import train

PARAMS = {
    "cell": {"w": jnp.ones((2, 3)), "switch": {"b": jnp.ones(3), "deep": {"phase": jnp.ones(2)}}},
    "out": {"w": jnp.ones(3)},
}
GRADS = jax.tree.map(lambda leaf: 7.0 * leaf, PARAMS)


def updates(config, grads=GRADS, steps=1):
    optimizer = train.make_optimizer(train.OptimizerConfig(**config))
    state, found = optimizer.init(PARAMS), []
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(steps):
            change, state = optimizer.update(grads, state, PARAMS)
            found.append(change)
    return found


def test_clipping_sees_and_changes_the_weights_only():
    optimizer = train.make_optimizer(train.OptimizerConfig(clip=2.0))
    with jax.numpy_dtype_promotion("standard"):
        _, state = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)
    # Adam's first moment after one step is 0.1 of the gradient that reached it.
    given = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) / 0.1
        for _, moments in optax.tree.get_all_with_path(state, "mu")
        for path, leaf in jax.tree_util.tree_leaves_with_path(moments)
    }
    norm = np.sqrt((given["cell/w"] ** 2).sum() + (given["out/w"] ** 2).sum())
    np.testing.assert_allclose(norm, 2.0, rtol=1e-6)
    np.testing.assert_allclose(given["cell/w"] / given["out/w"][0], 1.0, rtol=1e-6)
    np.testing.assert_allclose(given["cell/switch/b"], 7.0, rtol=1e-6)
    np.testing.assert_allclose(given["cell/switch/deep/phase"], 7.0, rtol=1e-6)


def test_a_gradient_below_the_clip_is_left_alone():
    [small], [free] = updates({"clip": 100.0}), updates({})
    jax.tree.map(np.testing.assert_array_equal, small, free)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "adagrad"])
@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_switch_scale_scales_the_updates_of_switches_exactly(name, scale):
    for plain, scaled in zip(
        updates({"name": name}, steps=3),
        updates({"name": name, "switch_scale": scale}, steps=3),
        strict=True,
    ):
        jax.tree.map(
            np.testing.assert_array_equal,
            scaled["cell"]["switch"],
            jax.tree.map(lambda leaf: scale * leaf, plain["cell"]["switch"]),
        )
        np.testing.assert_array_equal(scaled["cell"]["w"], plain["cell"]["w"])
        np.testing.assert_array_equal(scaled["out"]["w"], plain["out"]["w"])


@pytest.mark.parametrize(
    ("name", "stock"),
    [
        ("adam", optax.adam),
        ("rmsprop", functools.partial(optax.rmsprop, decay=0.95, momentum=0.9)),
        ("adagrad", functools.partial(optax.adagrad, initial_accumulator_value=0.0)),
    ],
)
def test_without_clip_or_scale_it_is_the_stock_optimizer(name, stock):
    """To the rounding of the rate, by which Optax multiplies before the momentum and we after."""
    optimizer = stock(0.01)
    state = optimizer.init(PARAMS)
    for ours in updates({"name": name, "learning_rate": 0.01}, steps=3):
        with jax.numpy_dtype_promotion("standard"):
            expected, state = optimizer.update(GRADS, state, PARAMS)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), ours, expected)


def test_weights_decay_as_in_adamw_and_switches_do_not():
    with jax.numpy_dtype_promotion("standard"):
        stock = optax.adamw(0.01, weight_decay=0.1)
        expected, _ = stock.update(GRADS, stock.init(PARAMS), PARAMS)
    [ours] = updates({"learning_rate": 0.01, "weight_decay": 0.1})
    [plain] = updates({"learning_rate": 0.01})
    np.testing.assert_array_equal(ours["cell"]["w"], expected["cell"]["w"])
    np.testing.assert_array_equal(ours["out"]["w"], plain["out"]["w"])  # of one axis: a bias
    assert (ours["cell"]["w"] != plain["cell"]["w"]).all()
    jax.tree.map(np.testing.assert_array_equal, ours["cell"]["switch"], plain["cell"]["switch"])


def test_cosine_goes_from_the_peak_to_five_percent():
    config = {"learning_rate": 0.2, "schedule": "cosine", "total_steps": 10}
    # Adam's update under an unchanging gradient is the rate itself.
    rates = [-float(change["out"]["w"][0]) for change in updates(config, steps=12)]
    t = np.minimum(np.arange(12) / 10, 1)
    expected = 0.2 * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * t)))
    np.testing.assert_allclose(rates, expected, rtol=1e-4)
    switch = [-float(change["cell"]["switch"]["b"][0]) for change in updates(config, steps=12)]
    np.testing.assert_allclose(switch, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "sgdd"}, "optimiser: no 'sgdd'; there are adam, rmsprop, adagrad"),
        ({"schedule": "linear"}, "schedule: no 'linear'; there are constant, cosine"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"learning_rate": -1e-3}, "learning_rate must be positive, got -0.001"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        ({"schedule": "cosine"}, "schedule cosine needs total_steps >= 1, got None"),
        ({"clip": 0.0}, "clip must be positive, or None for no clipping, got 0.0"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative, got -0.1"),
        ({"switch_scale": -1.0}, "switch_scale must not be negative, got -1.0"),
    ],
)
def test_bad_values_are_named(config, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        train.OptimizerConfig(**config)
    assert str(caught.value) == message


def test_warm_up_rises_to_the_peak_and_the_cosine_begins_there():
    plan = {"name": "rmsprop", "learning_rate": 0.1, "warmup": 4}
    constant = updates({**plan}, steps=8)
    rule = updates({"name": "rmsprop", "learning_rate": 1.0}, steps=8)
    shares = [
        float(a["out"]["w"][0] / b["out"]["w"][0]) for a, b in zip(constant, rule, strict=True)
    ]
    np.testing.assert_allclose(shares, [0, 0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1], rtol=1e-5)
    cosine = updates({**plan, "schedule": "cosine", "total_steps": 7}, steps=8)
    shares = [float(a["out"]["w"][0] / b["out"]["w"][0]) for a, b in zip(cosine, rule, strict=True)]
    # After the rise, 3 steps from 1 to 0.05 of the peak: 0.05 + 0.95 (1 + cos(pi k / 3)) / 2.
    np.testing.assert_allclose(shares[4:], [0.1, 0.07625, 0.02875, 0.005], rtol=1e-5)


def test_a_warm_up_that_never_ends_is_refused():
    with pytest.raises(ValueError, match="fewer than total_steps, got 7"):
        train.OptimizerConfig(schedule="cosine", total_steps=7, warmup=7)
