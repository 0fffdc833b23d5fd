"""Where thresholds lie: between values that rounding cannot confuse, at the asked rate."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import full, tiered

from surnn_jax import run, scan, selective, switches
from surnn_jax.switches import SwitchInputs
from surnn_jax.switches.fourier_switch import quantile_bias

X = jnp.asarray(np.random.default_rng(0).normal(size=(60, 4, 3)), jnp.float32)


def _seen(x, valid=None):
    previous = jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])
    return SwitchInputs(x, previous, jnp.arange(len(x)), valid)


def _rates(made, params, x):
    """The share of open steps, neuron by neuron."""
    return np.mean(made.gate(_logits(made, params, x)), (0, 1))


# Compiled whole: operation by operation, each shape takes many small programs.
@functools.partial(jax.jit, static_argnums=(0, 2))
def _init(made, x, features=32, seed=0):
    return made.init(jax.random.key(seed), _seen(x), features)


@functools.partial(jax.jit, static_argnums=0)
def _logits(made, params, x):
    return made.logits(params, _seen(x))


_calibrated = jax.jit(lambda made, params, x: made.calibrated(params, _seen(x)), static_argnums=0)


@pytest.mark.parametrize(
    ("horizon", "rate"),
    [full(101, 0.1), full(1001, 0.1), (51, 0.5), full(101, 0.17), full(201, 0.17)],
)
def test_no_step_lies_on_the_threshold_of_a_rhythm(horizon, rate):
    """(1 - rate)(horizon - 1) is whole: the quantile is the logit of one step, to the last bit."""
    made = switches.fourier(horizon, rate=rate)
    unit = selective("tanh", made)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(horizon, 1, 2)), jnp.float32)
    params = jax.jit(lambda x: unit.init(jax.random.key(0), x, 32))(x)
    a = np.asarray(_logits(made, params["switch"], x))
    assert np.abs(a).min() > 1e-6
    np.testing.assert_allclose(np.mean(a > 0, 0), rate, atol=1.001 / horizon)
    # One step at a time, compiled, as a sequence and as it stands: one answer.
    whole = run(unit, params, x)  # operation by operation
    compiled = jax.jit(lambda x: run(unit, params, x).outputs)(x)
    np.testing.assert_allclose(compiled, whole.outputs, atol=1e-6)
    step = jax.jit(lambda carry, now: scan.step(unit, params, carry, now))
    carry, outputs = unit.initial_carry(params, (1,)), []
    for now in np.asarray(x):
        carry, output = step(carry, now)
        outputs.append(np.asarray(output))
    np.testing.assert_allclose(np.stack(outputs), whole.outputs, atol=1e-6)


@pytest.mark.parametrize("make", [switches.event, switches.threshold])
def test_no_frame_lies_on_the_threshold_of_an_event(make):
    x = X[:51, :1]  # (1 - 0.1) · 50 is whole
    made = make(51, rate=0.1)
    a = np.asarray(_logits(made, _init(made, x), x))
    assert np.abs(a).min() > 1e-6
    np.testing.assert_allclose(np.mean(a > 0, (0, 1)), 0.1, atol=1.001 / 51)


def test_bias_between_discrete_values():
    raw = jnp.repeat(jnp.asarray([0.0, 1.0, 3.0]), jnp.asarray([70, 20, 10]))[:, None]
    raw = jnp.concatenate([raw, raw[::-1] * -1, 0 * raw + 2], 1)
    for rate, wanted in ((0.1, -2.0), (0.19, -2.0), (0.29, -0.5), (0.9, -0.5)):
        assert quantile_bias(raw, rate=rate)[0] == wanted
    default = jnp.asarray([7.0, 8.0, 9.0])
    assert quantile_bias(raw, rate=0.1, default=default).tolist() == [-2.0, 0.5, 9.0]
    assert (quantile_bias(raw, rate=0.1)[2] + raw[:, 2] > 0).all()  # open, rather than dead
    few = jnp.arange(100) < 80
    assert quantile_bias(raw, rate=0.1, valid=few)[0] == -0.5
    broken = raw.at[85:].set(jnp.nan)
    assert quantile_bias(broken, rate=0.1)[0] == -0.5
    assert (
        quantile_bias(raw, rate=0.1, valid=few & False, default=default).tolist()
        == default.tolist()
    )


def test_bias_among_millions_of_values():
    """Gaps are narrow everywhere but in the tails."""
    raw = jnp.asarray(np.random.default_rng(0).normal(size=(2**21, 1)), jnp.float32)
    bias = quantile_bias(raw, rate=0.1)
    assert np.mean(raw + bias[None] > 0) == pytest.approx(0.1, abs=0.002)


DUMMIES = {
    "ones": jnp.ones((60, 1, 3)),
    "zeros": jnp.zeros((60, 4, 3)),
    "one step": jnp.ones((1, 1, 3)),
    "the same example": jnp.repeat(X[:, :1], 4, 1),
    "no steps": jnp.zeros((0, 1, 3)),
    "no examples": jnp.zeros((6, 0, 3)),
}


FEATURES = ("input", "pair", "counts")


@pytest.mark.parametrize(
    ("event_features", "dummy"),
    tiered(
        itertools.product(FEATURES, DUMMIES),
        [("pair", "zeros")],
    ),
)
def test_an_event_switch_that_saw_no_data_is_made_for_noise(dummy, event_features):
    made = switches.event(60, rate=0.1, event_features=event_features)
    params = _init(made, DUMMIES[dummy], seed=1)
    noise = jnp.asarray(np.random.default_rng(1).normal(size=(600, 8, 3)), jnp.float32)

    @jax.jit
    def logits(params):
        return made.logits(params, _seen(noise)._replace(t=jnp.arange(600) % 60))

    rates = np.mean(np.asarray(logits(params)) > 0, (0, 1))
    np.testing.assert_allclose(rates, 0.1, atol=0.03)


@pytest.mark.full
@pytest.mark.parametrize("make", [switches.event, full(switches.threshold)])
def test_discrete_data_leave_no_neuron_dead(make):
    """Where no threshold gives the rate, the nearest does."""
    random = np.random.default_rng(0)
    binary = jnp.asarray(random.integers(0, 2, (60, 8, 1)), jnp.float32)
    made = make(60, rate=0.1)
    rates = _rates(made, _init(made, binary), binary)
    if make is switches.threshold:  # one bit: open at the ones or at the zeros
        ones = float(binary.mean())
        np.testing.assert_allclose(np.minimum(rates, 1 - rates), min(ones, 1 - ones), atol=1e-6)
    else:
        np.testing.assert_allclose(rates, 0.1, atol=0.01)
    tokens = jnp.asarray(np.eye(20, dtype=np.float32)[random.integers(0, 20, (60, 8))])
    rates = _rates(made, _init(made, tokens), tokens)
    assert rates.min() > 0.05
    assert rates.max() < 0.2


def test_calibrated_sets_the_rate_of_a_batch():
    made = switches.event(60, rate=0.2)
    params = _init(made, X)
    far = 3 + 10 * X
    assert np.abs(_rates(made, params, far) - 0.2).max() > 0.2
    moved = _calibrated(made, params, far)
    np.testing.assert_allclose(_rates(made, moved, far), 0.2, atol=0.01)
    same = {k: v for k, v in params.items() if k != "b"}
    assert all((moved[k] == v).all() for k, v in same.items())
    np.testing.assert_array_equal(_calibrated(made, params, 0 * X)["b"], params["b"])
    rhythm = switches.fourier(60)
    params = _init(rhythm, X)
    assert rhythm.calibrated(params, _seen(X)) is params
