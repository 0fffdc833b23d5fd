"""Phased LSTM against its equations, on steps and on time stamps."""

import core_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from neighbour_case import BATCH, FEATURES, plain, run, setting

from surnn_jax import selective, step, switches

pytestmark = pytest.mark.usefixtures("float64")


def _openness(t, tau, s, ratio=0.05, leak=1e-3):
    phi = np.mod(t - s, tau) / tau
    if phi < ratio / 2:
        return 2 * phi / ratio
    return 2 - 2 * phi / ratio if phi < ratio else leak * phi


def test_phased_lstm_is_its_equation():
    made = selective("lstm_peephole", switches.phased(40, ratio=0.4))
    params, x = setting(made, steps=12)
    theirs, state = plain(params), [np.zeros((BATCH, FEATURES))] * 2
    tau, s = theirs["switch"]["tau"], theirs["switch"]["s"]
    done = run(made, params, x)
    for t in range(12):
        k = [_openness(t, *neuron, 0.4) for neuron in zip(tau, s, strict=True)]
        np.testing.assert_allclose(done.update_mask[t], k, rtol=1e-10)
        new = core_oracle.step("lstm_peephole", theirs["cell"], state, np.asarray(x[t]))
        state = [np.multiply(k, f) + (1 - np.array(k)) * h for f, h in zip(new, state, strict=True)]
        for got, want in zip(done.carries, state, strict=True):
            np.testing.assert_allclose(got[t], want, rtol=1e-10, atol=1e-14)
    assert 0 < (np.asarray(done.update_mask) > 0.1).mean() < 1


def test_period_and_shift_have_their_true_gradient():
    made = selective("tanh", switches.phased(40, ratio=0.4))
    params, x = setting(made, steps=12)

    @jax.jit
    def loss(own):
        return jnp.sum(jnp.sin(run(made, {**params, "switch": own}, x).outputs))

    grads, eps = jax.grad(loss)(params["switch"]), 1e-6
    for name, value in params["switch"].items():
        for i in range(FEATURES):
            up, down = ({**params["switch"], name: value.at[i].add(d)} for d in (eps, -eps))
            difference = (loss(up) - loss(down)) / (2 * eps)
            np.testing.assert_allclose(grads[name][i], difference, rtol=1e-5, atol=1e-8)


def _stamped(steps=12):
    """A unit on irregular time stamps, the last feature, with a ratio of its own a neuron."""
    made = selective("lstm_peephole", switches.phased(40, time_feature=-1, learn_ratio=True))
    params, x = setting(made, steps=steps)
    assert (params["switch"]["r"] == 0.05).all()
    random = np.random.default_rng(4)
    own = {**params["switch"], "r": jnp.asarray(random.uniform(0.2, 0.9, FEATURES))}
    stamps = 100 + np.cumsum(random.exponential(2.0, (steps, BATCH)), axis=0)
    return made, {**params, "switch": own}, x.at[..., -1].set(stamps)


def test_phased_lstm_on_time_stamps_is_its_equation():
    made, params, x = _stamped()
    theirs, x_np = plain(params), np.asarray(x)
    own = theirs["switch"]
    done = run(made, params, x)
    assert done.update_mask.shape == (12, BATCH, FEATURES)
    for b in range(BATCH):
        state = [np.zeros(FEATURES)] * 2
        for t in range(12):
            k = np.array(
                [
                    _openness(x_np[t, b, -1], own["tau"][i], own["s"][i], own["r"][i])
                    for i in range(FEATURES)
                ]
            )
            np.testing.assert_allclose(done.update_mask[t, b], k, rtol=1e-9)
            new = core_oracle.step("lstm_peephole", theirs["cell"], state, x_np[t, b])
            state = [k * f + (1 - k) * h for f, h in zip(new, state, strict=True)]
            for got, want in zip(done.carries, state, strict=True):
                np.testing.assert_allclose(got[t, b], want, rtol=1e-9, atol=1e-13)
    carry = made.initial_carry(params, (BATCH,))
    one = jax.jit(lambda carry, x: step(made, params, carry, x))
    for t in range(3):
        carry, h = one(carry, x[t])
        np.testing.assert_allclose(h, done.outputs[t], rtol=1e-9, atol=1e-12)


@pytest.mark.full
def test_ratio_period_and_shift_on_time_stamps_have_their_true_gradient():
    made, params, x = _stamped(6)

    @jax.jit
    def loss(own, x):
        return jnp.sum(jnp.sin(run(made, {**params, "switch": own}, x).outputs))

    grads, eps = jax.grad(loss, argnums=(0, 1))(params["switch"], x), 1e-6
    assert grads[0]["r"].all()
    random = np.random.default_rng(5)
    leaves, form = jax.tree.flatten((params["switch"], x))
    for i, (leaf, grad) in enumerate(zip(leaves, jax.tree.leaves(grads), strict=True)):
        direction = random.normal(size=leaf.shape)
        up, down = (
            loss(
                *form.unflatten([p + d * direction if k == i else p for k, p in enumerate(leaves)])
            )
            for d in (eps, -eps)
        )
        difference = (up - down) / (2 * eps)
        np.testing.assert_allclose(np.sum(grad * direction), difference, rtol=1e-5, atol=1e-7)
    # Beyond its bounds a ratio stays where it is.
    own = {**params["switch"], "r": jnp.full(FEATURES, 1.5)}
    whole = run(made, {**params, "switch": {**own, "r": jnp.ones(FEATURES)}}, x)
    np.testing.assert_array_equal(run(made, {**params, "switch": own}, x).outputs, whole.outputs)


def test_phased_init_and_mean_openness():
    made = switches.phased(100)
    params = made.init(jax.random.key(0), None, 4000, "float64")
    tau, s = params["tau"], params["s"]
    assert np.e <= tau.min() < 3
    assert 95 < tau.max() <= 100  # exp(6) is longer than the sequences
    np.testing.assert_allclose(np.log(tau).mean(), (1 + np.log(100)) / 2, atol=0.05)
    assert ((s >= 0) & (s <= tau)).all()
    np.testing.assert_allclose((s / tau).mean(), 0.5, atol=0.02)
    fine = np.linspace(0, 10, 20_001)
    mean = np.mean([_openness(t, 10.0, 0.0) for t in fine])
    assert made.rate == pytest.approx(mean, rel=1e-3)
