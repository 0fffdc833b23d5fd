"""Every mixer against its published equations, written as plain loops in NumPy float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixer_case import (
    BATCH,
    FEATURES,
    MIXERS_UNDER_TEST,
    STEPS,
    compiled,
    drawn,
    made,
    mid_stream,
    normal,
)
from tiers import full

from surnn_jax.layers.lru import LRU
from surnn_jax.layers.mamba import Mamba
from surnn_jax.layers.mamba2 import Mamba2
from surnn_jax.layers.s4d import S4D
from surnn_jax.scan import linear_scan as linear

# Sums of a few dozen terms of size one to ten, in float64 (2.2e-16), with its own exp and FFT.
CLOSE = {"rtol": 1e-11, "atol": 1e-11}
# JAX rounds the weights of attention to float32 (6e-8) whatever the dtype of its operands.
CLOSE_ATTENTION = {"rtol": 1e-6, "atol": 1e-6}

pytestmark = pytest.mark.usefixtures("float64")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softplus(x):
    return np.log1p(np.exp(x))


def gated(p, y):
    """GELU, a product, GLU."""
    y = 0.5 * y * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    y = y @ p["dense"]["kernel"] + p["dense"]["bias"]
    return y[:FEATURES] * sigmoid(y[FEATURES:])


def convolved(p, window):
    """The last output of a depthwise convolution that sees `window` ``[size, I]``."""
    total = np.array(p["bias"])
    for k in range(len(window)):
        total += p["kernel"][k] * window[k]
    return total


def rotated(x, place):
    """``R_place x`` of the rotary embedding (arXiv 2104.09864, equation 15), block by block."""
    out = np.zeros_like(x)
    for i in range(len(x) // 2):
        angle = place * 10000.0 ** (-2 * i / len(x))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        out[2 * i : 2 * i + 2] = turn @ x[2 * i : 2 * i + 2]
    return out


def attention(mixer, p, x, carry):
    heads, window = mixer.num_heads, mixer.window
    seen = [(carry.key[s], carry.value[s]) for s in range(window - carry.count, window)]
    outputs = []
    for t in range(len(x)):
        query, key, value = np.einsum("d,dkhe->khe", x[t], p["qkv"]["kernel"])
        seen.append((key, value))
        now = len(seen) - 1
        last = range(max(0, now - window + 1), now + 1)
        joined = np.zeros((heads, query.shape[1]))
        for h in range(heads):
            scores = []
            for s in last:
                q, k = query[h], seen[s][0][h]
                if mixer.rotary:
                    q, k = rotated(q, now), rotated(k, s)
                scores.append(q @ k / math.sqrt(len(q)))
            weights = np.exp(scores) / np.sum(np.exp(scores))
            joined[h] = sum(w * seen[s][1][h] for w, s in zip(weights, last, strict=True))
        outputs.append(np.einsum("he,hem->m", joined, p["out"]["kernel"]) + p["out"]["bias"])
    return outputs, {}


def s4d(mixer, p, x, carry):
    h, outputs = np.array(carry.h), []
    for t in range(len(x)):
        y = np.zeros(FEATURES)
        for m in range(FEATURES):
            dt = np.exp(p["log_dt"][m])
            for n in range(mixer.state // 2):
                a = -np.exp(p["log_a_real"][m, n]) + 1j * p["a_imag"][m, n]
                h[m, n] = np.exp(dt * a) * h[m, n] + (np.exp(dt * a) - 1) / a * x[t, m]
                y[m] += 2 * ((p["c_re"][m, n] + 1j * p["c_im"][m, n]) * h[m, n]).real
            y[m] += p["d"][m] * x[t, m]
        outputs.append(gated(p["out"], y))
    return outputs, {"h": h}


def lru(mixer, p, x, carry):
    h, outputs = np.array(carry.h), []
    decay = np.exp(-np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"]))
    b, c = p["b_re"] + 1j * p["b_im"], p["c_re"] + 1j * p["c_im"]
    for t in range(len(x)):
        h = decay * h + np.exp(p["gamma_log"]) * (x[t] @ b)
        outputs.append(gated(p["out"], (h @ c).real + p["d"] * x[t]))
    return outputs, {"h": h}


def mamba(mixer, p, x, carry):
    h, tail, outputs = np.array(carry.h), list(carry.tail), []
    inner = mixer.expand * FEATURES
    for t in range(len(x)):
        mixed = x[t] @ p["in"]["kernel"]
        u, z = mixed[:inner], mixed[inner:]
        tail.append(u)
        u = silu(convolved(p["conv"], tail[-mixer.conv :]))
        dynamic = u @ p["dynamic"]["kernel"]
        rank, b, c = np.split(dynamic, [len(dynamic) - 2 * mixer.state, len(dynamic) - mixer.state])
        dt = softplus(rank @ p["dt"]["kernel"] + p["dt_bias"])
        y = np.zeros(inner)
        for i in range(inner):
            for n in range(mixer.state):
                a = -np.exp(p["a_log"][n, i])
                h[n, i] = np.exp(dt[i] * a) * h[n, i] + dt[i] * b[n] * u[i]
                y[i] += c[n] * h[n, i]
            y[i] += p["d"][i] * u[i]
        outputs.append((y * silu(z)) @ p["out"]["kernel"])
    return outputs, {"h": h, "tail": np.stack(tail[-mixer.conv + 1 :])}


def mamba2(mixer, p, x, carry):
    h, tail, outputs = np.array(carry.h), list(carry.tail), []
    inner, n, groups = mixer.expand * FEATURES, mixer.state, mixer.groups
    heads = inner // mixer.head
    for t in range(len(x)):
        z, mixed, rate = np.split(x[t] @ p["in"]["kernel"], [inner, 2 * (inner + groups * n)])
        tail.append(mixed)
        mixed = silu(convolved(p["conv"], tail[-mixer.conv :]))
        u, rest = mixed[:inner], mixed[inner:]
        dt = softplus(rate + p["dt_bias"])
        y = []
        for head in range(heads):
            group = head * groups // heads
            b = rest[group * n : (group + 1) * n]
            c = rest[(groups + group) * n : (groups + group + 1) * n]
            part = u[head * mixer.head : (head + 1) * mixer.head]
            decay = np.exp(-dt[head] * np.exp(p["a_log"][head]))
            h[head] = decay * h[head] + dt[head] * np.outer(part, b)
            y.append(h[head] @ c + p["d"][head] * part)
        y = np.concatenate(y) * silu(z)
        y = y.reshape(groups, -1)
        y = y / np.sqrt(np.mean(y**2, axis=1, keepdims=True) + 1e-5)
        outputs.append(p["norm"]["scale"].ravel() * y.ravel() @ p["out"]["kernel"])
    return outputs, {"h": h, "tail": np.stack(tail[-mixer.conv + 1 :])}


ORACLES = {
    "attention": attention,
    "attention-window": attention,
    "s4d": s4d,
    "lru": lru,
    "mamba": mamba,
    "mamba2": mamba2,
    "mamba2-groups": mamba2,
}


@pytest.mark.parametrize("name", MIXERS_UNDER_TEST)
def test_a_mixer_computes_its_published_equations(name):
    mixer, width = made(name, param_dtype=jnp.float64)
    params = drawn(mixer, width, jnp.float64)
    start = mid_stream(mixer, np.random.default_rng(2))
    x = normal(BATCH, STEPS, width)
    lengths = jnp.array([STEPS, 6, STEPS - 1], jnp.int32)

    @compiled
    def run(params, x, start):
        return mixer.apply(params, x, initial_carry=start, seq_lengths=lengths)

    carry, y = run(params, x, start)
    assert y.dtype == jnp.float64
    leaves = jax.tree.map(np.asarray, params["params"])
    for row, length in enumerate(lengths.tolist()):
        begun = jax.tree.map(lambda leaf, row=row: np.asarray(leaf[row]), start)
        outputs, state = ORACLES[name](mixer, leaves, x[row, :length], begun)
        close = CLOSE_ATTENTION if ORACLES[name] is attention else CLOSE
        np.testing.assert_allclose(y[row, :length], outputs, **close)
        for field, value in state.items():
            np.testing.assert_allclose(getattr(carry, field)[row], value, **CLOSE)


def initialised(mixer):
    x = jnp.zeros((1, 2, mixer.features))
    params = compiled(mixer.init)(jax.random.key(3, impl="rbg"), x)["params"]
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def spread_over(values, low, high):
    """All within, and the outer tenths not empty."""
    margin = 0.1 * (high - low)
    inside = (values >= low - 1e-5).all() and (values <= high + 1e-5).all()
    return inside and (values < low + margin).any() and (values > high - margin).any()


def test_s4d_begins_as_s4d_lin():
    p = initialised(S4D(64, state=6))
    np.testing.assert_allclose(-np.exp(p["log_a_real"]), -0.5, rtol=1e-6)
    np.testing.assert_allclose(p["a_imag"], np.tile(np.pi * np.arange(3), (64, 1)), rtol=1e-6)
    assert spread_over(p["log_dt"], np.log(0.001), np.log(0.1))
    assert spread_over(p["out"]["dense"]["kernel"], -1 / 8, 1 / 8)
    assert spread_over(p["out"]["dense"]["bias"], -1 / 8, 1 / 8)


def test_the_lru_begins_on_its_ring():
    p = initialised(LRU(4, 512, r_min=0.5, r_max=0.9, max_phase=1.0))
    decay = np.exp(-np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"]))
    # Uniform in area: squares are uniform, radii are not.
    assert spread_over(np.abs(decay) ** 2, 0.25, 0.81)
    assert abs(np.mean(np.abs(decay) ** 2) - 0.53) < 4 * 0.56 / math.sqrt(12 * 512)
    assert spread_over(np.angle(decay), 0.0, 1.0)
    np.testing.assert_allclose(np.exp(p["gamma_log"]) ** 2, 1 - np.abs(decay) ** 2, rtol=1e-5)


def test_mamba_begins_as_s4d_real():
    p = initialised(Mamba(64, state=5))
    np.testing.assert_allclose(np.exp(p["a_log"][:, 7]), np.arange(1, 6), rtol=1e-6)
    assert (p["a_log"] == p["a_log"][:, :1]).all()
    assert spread_over(np.log(softplus(p["dt_bias"])), np.log(0.001), np.log(0.1))
    assert p["dt"]["kernel"].shape == (4, 128)
    assert spread_over(p["dt"]["kernel"], -0.5, 0.5)
    for name, width in (("in", 64), ("dynamic", 128), ("out", 128)):
        assert spread_over(p[name]["kernel"], -(width**-0.5), width**-0.5)
    assert (p["d"] == 1).all()


def test_mamba2_begins_as_published():
    p = initialised(Mamba2(64, state=2, head=1))
    assert spread_over(p["in"]["kernel"], -1 / 8, 1 / 8)
    assert spread_over(p["out"]["kernel"], -(128**-0.5), 128**-0.5)
    assert spread_over(np.exp(p["a_log"]), 1, 16)
    assert spread_over(np.log(softplus(p["dt_bias"])), np.log(0.001), np.log(0.1))
    assert (p["d"] == 1).all()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", ["real", "complex", "steady"])
def test_the_linear_recurrence_and_its_gradient(kind, axis, monkeypatch):
    steps, shape = 5, (2, 3)
    random = np.random.default_rng(0)

    def draw(*size):
        value = random.normal(size=size)
        return value if kind == "real" else value + 1j * random.normal(size=size)

    decay = draw(1, 1, 3) if kind == "steady" else draw(steps, *shape)
    a, b, h0, weights = decay, draw(steps, *shape), draw(*shape), draw(steps, *shape)

    def plainly(a, b, h0):
        h, states = h0, []
        for t in range(steps):
            h = a[min(t, len(a) - 1)] * h + b[t]
            states.append(h)
        return jnp.stack(states)

    def ours(a, b, h0):
        a, b = jnp.moveaxis(a, 0, axis), jnp.moveaxis(b, 0, axis)
        return jnp.moveaxis(linear.linear_scan(a, b, h0, axis=axis), axis, 0)

    def with_gradient(scan):
        def loss(*args):
            h = scan(*args)
            return jnp.sum((h * weights).real + jnp.abs(h) ** 2), h

        return compiled(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(a, b, h0)

    with jax.numpy_rank_promotion("allow"):
        expected = with_gradient(plainly)
    # The loop is what a CPU runs; the associative scan is what it does not.
    for _ in range(2):
        got = with_gradient(ours)
        for one, other in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
            np.testing.assert_allclose(one, other, **CLOSE)
        monkeypatch.setattr(linear, "_loop", linear._associative)
        monkeypatch.setattr(linear, "_jitted", linear._scan)  # what is compiled has the loop


@pytest.mark.parametrize(
    ("a", "h0", "axis", "message"),
    [
        ((4, 2, 3), (2, 3), 0, "do not fit b"),
        ((5, 2, 3), (5, 3), 0, "do not fit b"),
        ((2, 3), (2, 3), 0, "do not fit b"),
        ((5, 2, 3), (2, 3), 2, "axis of time must be 0 or 1"),
    ],
)
def test_a_recurrence_that_does_not_fit_is_refused(a, h0, axis, message):
    with pytest.raises(ValueError, match=message):
        linear.linear_scan(jnp.ones(a), jnp.ones((5, 2, 3)), jnp.ones(h0), axis=axis)
    with pytest.raises(ValueError, match="must share a dtype"):
        linear.linear_scan(jnp.ones((5, 2, 3)), jnp.ones((5, 2, 3), complex), jnp.ones((2, 3)))


@pytest.mark.parametrize("name", ["_loop", full("_associative")])
def test_every_derivative_of_the_linear_recurrence(name, monkeypatch):
    """Forward mode and second order, which a plain loop over steps has too."""
    monkeypatch.setattr(linear, "_loop", getattr(linear, name))
    monkeypatch.setattr(linear, "_jitted", linear._scan)
    random = np.random.default_rng(0)
    args = tuple(random.normal(size=size) for size in ((4, 2), (4, 2), (2,)))
    moves = tuple(random.normal(size=arg.shape) for arg in args)

    def plainly(a, b, h0):
        h, states = h0, []
        for t in range(4):
            h = a[t] * h + b[t]
            states.append(h)
        return jnp.stack(states)

    def derivatives(scan):
        def loss(*args):
            return jnp.sum(jnp.sin(scan(*args)))

        @compiled
        def every(args):
            jvp = jax.jvp(scan, args, moves)
            of_one = jax.jvp(lambda b: scan(args[0], b, args[2]), (args[1],), (moves[1],))
            return jvp, of_one, jax.hessian(loss, (0, 2))(*args), jax.jacfwd(loss)(*args)

        return every(args)

    for one, other in zip(
        *map(jax.tree.leaves, (derivatives(linear.linear_scan), derivatives(plainly))),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, **CLOSE)
