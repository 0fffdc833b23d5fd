"""Clocks of millions of steps: a phase is as exact at step 2^31 as at the first."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import tiered

from surnn_jax import run, scan, selective, switches
from surnn_jax.switches import SwitchInputs
from surnn_jax.switches.phase import angle, turn

TIMES = (0, 1, 783, 10**6, 17 * 10**6, 2**31 - 10, 2**31 + 5, 2**32 - 1)


def _pi() -> Fraction:
    """π to 500 binary digits, by Machin's formula."""

    def arctan(n, one=1 << 560):
        total, power, k = 0, one // n, 0
        while power:
            total += (-1) ** k * (power // (2 * k + 1))
            power //= n * n
            k += 1
        return total

    return Fraction(16 * arctan(5) - 4 * arctan(239), 1 << 560)


PI = _pi()


def _clock(times):
    return jnp.asarray(np.asarray(times, np.int64).astype(np.uint32).view(np.int32))


def _exact_angle(theta, t, horizon):
    """In (-π, π], from a float32 theta taken as it is."""
    turns = Fraction(float(theta)) * t / horizon / (2 * PI)
    return float((turns - round(turns)) * 2 * PI)


@pytest.mark.parametrize("horizon", [1, 100, 784, 16_384])
def test_angles_are_those_of_exact_arithmetic(horizon):
    drawn = np.random.default_rng(0).uniform(0, math.pi * horizon, 20)
    special = [0.0, -3.7, 1e-30, 1e-3, 6.2831855, 1e7, -1e20, math.pi * horizon]
    theta = np.array([*drawn, *special], np.float32)
    got = np.asarray(jax.jit(angle, static_argnums=2)(jnp.asarray(theta), _clock(TIMES), horizon))
    want = np.array([[_exact_angle(value, t, horizon) for value in theta] for t in TIMES])
    assert (np.abs(got) <= np.float32(math.pi)).all()
    apart = np.abs(got - want)
    assert np.minimum(apart, 2 * math.pi - apart).max() < 4e-7


def test_an_angle_has_the_derivative_of_the_product():
    theta, t = jnp.asarray([3.0, 40.0]), jnp.asarray([0, 7, 99])
    slope = jax.jit(jax.jacfwd(lambda v: jnp.sin(angle(v, t, 100))))(theta)
    plain = jax.jacfwd(lambda v: jnp.sin(t.astype(v.dtype)[:, None] / 100 * v[None]))
    want = np.asarray(jax.jit(plain)(theta))
    np.testing.assert_allclose(slope, want, rtol=1e-5, atol=1e-6)
    back = jax.jit(jax.grad(lambda v: jnp.sin(angle(v, t, 100)).sum()))(theta)
    np.testing.assert_allclose(back, want.sum((0, 1)), rtol=1e-5)
    broken = jax.jit(lambda v: angle(v, t, 100))(jnp.asarray([jnp.nan, jnp.inf]))
    assert np.isnan(broken).all()


def test_turns_are_those_of_exact_arithmetic():
    random = np.random.default_rng(1)
    tau = np.exp(random.uniform(1, 6, 30)).astype(np.float32)
    s = (tau * random.uniform(0, 1, 30)).astype(np.float32)
    got = np.asarray(jax.jit(turn)(_clock(TIMES), jnp.asarray(tau), jnp.asarray(s)))
    for row, t in zip(got, TIMES, strict=True):
        for value, period, shift in zip(row, tau, s, strict=True):
            turns = (t - Fraction(float(shift))) / Fraction(float(period))
            apart = abs(float(turns - math.floor(turns)) - value)
            assert min(apart, 1 - apart) < 4e-7


def test_a_turn_has_the_derivative_of_the_quotient():
    tau, s, t = jnp.asarray([3.3, 40.0]), jnp.asarray([1.0, 7.0]), jnp.asarray([0, 8, 99])

    def plain(tau, s):
        turns = (t.astype(tau.dtype)[:, None] - s[None]) / tau[None]
        return jnp.square(turns - jnp.floor(turns)).sum()

    got = jax.jit(jax.grad(lambda *p: jnp.square(turn(t, *p)).sum(), argnums=(0, 1)))(tau, s)
    want = jax.jit(jax.grad(plain, argnums=(0, 1)))(tau, s)
    for one, two in zip(got, want, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5)


KINDS = {
    "fourier": switches.fourier(100),
    "per_neuron": switches.fourier(100, per_neuron=True),
    "event": switches.event(100),
    "every": switches.every(100, n=3, staggered=True),
    "clockwork": switches.clockwork(100, periods=(1, 3, 7, 11)),
    "phased": switches.phased(100),
}


@pytest.mark.parametrize("name", tiered(KINDS, ["fourier", "every"]))
def test_steps_equal_the_sequence_after_millions_of_steps(name):
    """Across the step at which a signed clock would become negative, too."""
    unit = selective("tanh", KINDS[name])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(12, 2, 3)), jnp.float32)
    params = jax.jit(lambda x: unit.init(jax.random.key(0), x, 8))(x)
    step = jax.jit(lambda carry, now: scan.step(unit, params, carry, now))
    whole = jax.jit(lambda carry: run(unit, params, x, carry=carry))
    for start in (10**6, 17 * 10**6, 2**31 - 10):
        carry = unit.initial_carry(params, (2,))._replace(clock=_clock([start])[0])
        result = whole(carry)
        for now, wanted in zip(np.asarray(x), np.asarray(result.outputs), strict=True):
            carry, output = step(carry, now)
            np.testing.assert_allclose(output, wanted, atol=1e-6)
        assert carry.clock == result.carry.clock == _clock([start + 12])[0]


@pytest.mark.parametrize("name", ["every", "clockwork"])
def test_periods_go_on_where_a_signed_clock_wraps(name):
    made, x = KINDS[name], jnp.zeros((24, 1, 1))
    times = np.arange(2**31 - 12, 2**31 + 12)
    logits = jax.jit(lambda t: made.logits({}, SwitchInputs(x, None, t, features=8)))
    table = np.asarray(logits(_clock(times))) > 0
    neuron = np.arange(8)
    if name == "every":
        want = times[:, None] % 3 == neuron % 3
    else:
        want = times[:, None] % np.array([1, 3, 7, 11])[neuron // 2] == 0
    np.testing.assert_array_equal(table, want)


@pytest.mark.parametrize("per_neuron", [False, True])
def test_the_table_of_a_rhythm_is_right_late(per_neuron):
    """Against float64 and reduced angles; a float32 clock erred in 1 to 10 of 100 entries."""
    made = switches.fourier(1000, per_neuron=per_neuron)
    steps = np.arange(500)
    seen = SwitchInputs(jnp.zeros((500, 1, 1)), None, jnp.asarray(steps))
    params = jax.jit(lambda: made.init(jax.random.key(0), seen, 32))()
    logits = jax.jit(lambda t: made.logits(params, seen._replace(t=t)))
    theta, alpha, phi = (np.asarray(params[k], np.float64) for k in ("theta", "alpha", "phi"))
    theta = np.broadcast_to(theta.reshape(4, -1), alpha.shape)
    turns = np.array([[Fraction(float(v)) / 1000 / (2 * PI) for v in row] for row in theta])
    for start in (10**6, 17 * 10**6, 2**31 - 250):
        first = np.vectorize(lambda f, t=start: float(f * t - math.floor(f * t)))(turns)
        moved = (first + turns.astype(np.float64) * steps[:, None, None]) * 2 * math.pi
        raw = (alpha * np.sin(moved + phi)).sum(1) + np.asarray(params["b"], np.float64)
        table = np.asarray(logits(_clock(start + steps))) > 0
        clear = np.abs(raw) > 1e-5
        assert clear.mean() > 0.999
        np.testing.assert_array_equal(table[clear], raw[clear] > 0)


@pytest.mark.full
@pytest.mark.parametrize("name", ["fourier", "phased"])
def test_a_phase_has_its_second_derivative_inside_a_loop_too(name):
    """Reverse over reverse mode, where `lax.scan` drops the rules of `jax.custom_jvp`."""
    made = {
        "fourier": switches.fourier(6, gate="sigmoid"),
        "phased": switches.phased(30),
    }[name]
    which = {"fourier": "theta", "phased": "tau"}[name]
    x, t = jnp.zeros((6, 1, 3)), jnp.arange(6, dtype=jnp.int32)
    seen = SwitchInputs(x, None, t, features=4)
    params = jax.jit(lambda: made.init(jax.random.key(0), seen, 4))()

    def loss(value, loops):
        def one(carry, now):
            seen = SwitchInputs(x, None, now[None])
            return carry, jnp.sum(jnp.sin(made.logits({**params, which: value}, seen)))

        if loops:
            return jax.lax.scan(one, 0.0, t)[1].sum()
        return sum(one(0.0, now)[1] for now in t)

    @jax.jit
    def both(value):
        return [jax.jacrev(jax.grad(loss))(value, loops) for loops in (True, False)]

    got, want = both(params[which])
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
