"""Switches and gates: when they open, how often at first, and what gradient they give."""

import functools

import core_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import GATES, SWITCHES, label, random_like, switch
from tiers import full

from surnn_jax import run, selective, switches
from surnn_jax.switches import SwitchInputs

each_switch = pytest.mark.parametrize("kind", SWITCHES, ids=label)
EVENTS = [kind for kind in SWITCHES if kind[0] == "event"]
# The one of pairs has all there is.
each_event = pytest.mark.parametrize("kind", [EVENTS[1], *map(full, EVENTS[::2])], ids=label)
pytestmark = pytest.mark.usefixtures("float64")


def _seen(x, valid=None, start=0):
    """What a switch is shown of ``x [T, B, D]`` when nothing came before it."""
    previous = jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])
    return SwitchInputs(x, previous, start + jnp.arange(len(x)), valid)


# Compiled whole: operation by operation, each shape takes many small programs.
@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _init(made, x, features=8, dtype="float64"):
    return made.init(jax.random.key(0), _seen(x), features, dtype)


@functools.partial(jax.jit, static_argnums=0)
def _logits(made, params, x, valid=None, start=0):
    return made.logits(params, _seen(x, valid, start))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _unit_init(unit, x, features):
    return unit.init(jax.random.key(0), x, features, jnp.float64)


@functools.partial(jax.jit, static_argnums=0)
def _run(unit, params, x):
    return run(unit, params, x)


def _table(made, params, x, valid=None):
    return made.gate(_logits(made, params, x, valid))


def _inputs(steps=40, batch=4, inputs=2, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(steps, batch, inputs)))


# Logits


@each_switch
@pytest.mark.parametrize("gate", [GATES[0], GATES[-1]], ids=label)
def test_logits_are_the_equation(kind, gate):
    made = switch(kind, gate=gate)
    x = _inputs(6, 2)
    shapes = jax.eval_shape(lambda: made.init(jax.random.key(0), _seen(x), 8, jnp.float64))
    params = random_like(np.random.default_rng(1), shapes)
    logits = _logits(made, params, x, start=3)
    assert made.per_example == (logits.ndim == 3) == (kind[0] == "event")
    want = core_oracle.logits(made, jax.tree.map(np.asarray, params), np.asarray(x), clock=3)
    logits = np.broadcast_to(logits if logits.ndim == 3 else logits[:, None], want.shape)
    np.testing.assert_allclose(logits, want, rtol=1e-10, atol=1e-12)


@each_event
def test_event_opens_the_same_alone_and_in_a_batch(kind):
    """The deviation by which logits are divided is the batch's; no sign depends on it."""
    made = switch(kind)
    x = _inputs().at[:, 3].multiply(1e3)
    params = _init(made, x)
    table = _table(made, params, x)
    assert 0.05 < table.mean() < 0.95
    for b in range(4):
        np.testing.assert_array_equal(table[:, b], _table(made, params, x[:, b : b + 1])[:, 0])


@pytest.mark.parametrize("bad", [3e25, np.inf, np.nan])
def test_event_is_not_closed_by_a_neighbour_out_of_range(bad):
    """In float32 the deviation of such inputs overflows; the other rows know nothing of it."""
    made = switch(EVENTS[0])
    x = _inputs(batch=2).astype(jnp.float32)
    params = _init(made, x, 8, "float32")
    good = _table(made, params, x[:, :1])
    assert 0 < good.mean() < 1
    x = x.at[3, 1].set(bad)
    table = _table(made, params, x)
    np.testing.assert_array_equal(table[:, :1], good)
    if np.isnan(bad):
        assert jnp.isnan(table[3, 1]).all()
    elif np.isfinite(bad):
        np.testing.assert_array_equal(table[:, 1:], _table(made, params, x[:, 1:]))
        assert set(np.unique(table[3, 1])) == {0, 1}


def test_scale_of_the_surrogate_is_the_spread_of_the_logits():
    """Doubling amplitudes and threshold changes neither switch nor the scale of its slope."""
    for kind in SWITCHES:
        made, x = switch(kind), _inputs()
        params = _init(made, x)
        double = {k: v * 2 if k in ("alpha", "v", "b") else v for k, v in params.items()}
        logits = _logits(made, params, x)
        np.testing.assert_allclose(logits, _logits(made, double, x), rtol=1e-12)
        if made.per_example:
            np.testing.assert_allclose(np.std(logits, (0, 1)), 1, rtol=1e-12)


# Initial rate


@pytest.mark.parametrize(
    ("horizon", "rate", "per_neuron", "dtype"),
    [(50, 0.17, False, "float32"), (333, 0.5, True, "float64"), full(1000, 0.02, False, "float64")],
)
def test_fourier_opens_at_its_rate_over_the_horizon(horizon, rate, per_neuron, dtype):
    """Every neuron does, up to one step of the horizon."""
    made = switches.fourier(horizon, rate=rate, per_neuron=per_neuron)
    params = _init(made, _inputs(), 8, dtype)
    assert all(leaf.dtype == dtype for leaf in params.values())
    table = _table(made, params, jnp.zeros((horizon, 1, 1)))
    assert table.shape == (horizon, 8)
    np.testing.assert_allclose(np.mean(table, 0), rate, atol=1.001 / horizon)


def test_fourier_opens_at_its_rate_over_a_long_horizon():
    """Beyond 4,096 steps the quantile is taken of a sample: three of its standard errors."""
    made = switches.fourier(20_000, rate=0.17)
    table = _table(made, _init(made, _inputs()), jnp.zeros((20_000, 1, 1)))
    np.testing.assert_allclose(np.mean(table, 0), 0.17, atol=3 * (0.17 * 0.83 / 4096) ** 0.5)


@each_event
def test_event_opens_at_its_rate_over_the_batch(kind):
    """Every neuron does, up to one of the frames that count; padding does not."""
    unit = selective("tanh", switch(kind, rate=0.3))
    lengths = np.array([40, 13, 0, 27])
    valid = np.arange(40)[:, None] < lengths
    x = _inputs()
    padded = jnp.where(valid[..., None], x, jnp.nan)

    @jax.jit
    def init(padded):
        return unit.init_switch(jax.random.key(0), padded, 8, jnp.float64, lengths)

    params = init(padded)
    opened = _table(unit.switch, params, x, jnp.asarray(valid))[valid]
    np.testing.assert_allclose(np.mean(opened, 0), 0.3, atol=1.001 / valid.sum())
    assert (_init(unit.switch, x)["b"] != params["b"]).all()


@pytest.mark.parametrize("kind", [*map(full, SWITCHES[:4]), SWITCHES[4]], ids=label)
def test_init_draws_what_the_docstring_says(kind):
    made = switches.SWITCHES[kind[0]](200, **{**kind[1], "harmonics": 3})
    params = _init(made, _inputs(), 1000)
    periods = 2 * np.pi * 200 / params["theta"]
    assert periods.shape == ((3, 1000) if made.per_neuron else (3,))
    assert periods.min() >= 2 * (1 - 1e-12)
    assert periods.max() <= 200 * (1 + 1e-12)
    if made.per_neuron:  # log-uniform
        np.testing.assert_allclose(np.log(periods).mean(), np.log(20), atol=0.05)
    else:
        np.testing.assert_allclose(periods, [2, 20, 200], rtol=1e-12)
    assert params["alpha"].shape == params["phi"].shape == (3, 1000)
    np.testing.assert_allclose(params["alpha"].std(), 1, atol=0.05)
    np.testing.assert_allclose(params["phi"].mean(), np.pi, atol=0.1)
    assert params["phi"].min() >= 0
    assert params["phi"].max() <= 2 * np.pi


@pytest.mark.full
def test_unit_init_takes_any_number_of_batch_axes():
    """Thresholds are set by the frames, however they are laid out."""
    unit, x = selective("tanh", switch(EVENTS[1])), _inputs()
    init = jax.jit(lambda y: unit.init_switch(jax.random.key(0), y, 8, jnp.float64))
    for one, two in ((x.reshape(40, 2, 2, 2), x), (x[:, 0], x[:, :1])):
        params = [init(y) for y in (one, two)]
        jax.tree.map(np.testing.assert_array_equal, *params)


# Gradients of the switch


@pytest.mark.parametrize("kind", [SWITCHES[3], *map(full, SWITCHES[:3] + SWITCHES[4:])], ids=label)
def test_penalty_moves_the_rate_towards_its_target(kind):
    made, x = switch(kind, rate=0.5), _inputs()
    params = _init(made, x)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def penalty(params, target):
        rate = _table(made, params, x).mean()
        return switches.rate_penalty(rate, target), rate

    for target in (0.1, 0.9):
        (value, rate), grads = penalty(params, target)
        assert float(value) == pytest.approx(float((rate - target) ** 2))
        moved = jax.tree.map(lambda p, g: p - g, params, grads)
        assert abs(_table(made, moved, x).mean() - target) < abs(rate - target) - 0.01


def test_gradient_of_theta_does_not_grow_with_time():
    """∂a/∂theta is at most 1 at the last step of the horizon, however long that is."""
    for horizon in (10, 10_000):
        made = switches.fourier(horizon, per_neuron=True)
        params = _init(made, _inputs())
        last = _seen(jnp.zeros((1, 1, 1)), start=horizon)

        @jax.jit
        @jax.grad
        def slope(theta, made=made, params=params, last=last):
            return made.logits({**params, "theta": theta}, last).sum()

        assert 0.5 < jnp.abs(slope(params["theta"])).max() <= 1


# Groups


@pytest.mark.parametrize("kind", [EVENTS[0], *map(full, SWITCHES[:2] + SWITCHES[3:])], ids=label)
def test_neurons_of_a_group_open_together(kind):
    made, x = switch(kind, groups=3), _inputs()
    params = _init(made, x, 12)
    assert params["b"].shape == (3,)
    a = _logits(made, params, x)
    for_all, a = np.asarray(switches.for_neurons(a, 12)), np.asarray(a)
    for neuron in range(12):
        np.testing.assert_array_equal(for_all[..., neuron], a[..., neuron * 3 // 12])
    unit = selective("tanh", made)
    params = _unit_init(unit, x, 12)
    done = _run(unit, params, x)
    mask = np.asarray(done.update_mask)
    np.testing.assert_array_equal(mask, np.repeat(mask[..., ::4], 4, -1))
    assert mask.any(axis=tuple(range(mask.ndim - 1))).all()
    assert done.rate == pytest.approx(mask.mean())


def test_the_gradient_of_a_group_is_the_sum_over_its_neurons():
    one, each, x = switch(SWITCHES[0], groups=2), switch(SWITCHES[0]), _inputs(6)
    together = selective("gru", one)
    params = _unit_init(together, x, 6)
    shared = params["switch"]
    spread = {k: v if k == "theta" else jnp.repeat(v, 3, -1) for k, v in shared.items()}

    def loss(own, unit):
        return jnp.sum(jnp.sin(_run(unit, {**params, "switch": own}, x).outputs))

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    got, want = gradient(shared, together), gradient(spread, selective("gru", each))
    for name, grad in got.items():
        wanted = want[name]
        if name != "theta":
            wanted = wanted.reshape(*wanted.shape[:-1], 2, 3).sum(-1)
        np.testing.assert_allclose(grad, wanted, 1e-9, 1e-12)
        assert grad.any()


def test_one_group_leaves_whole_steps_empty():
    made = switches.fourier(64, rate=0.1, groups=1)
    unit, x = selective("tanh", made), _inputs(64, 1)
    params = _unit_init(unit, x, 32)
    table = _run(unit, params, x).update_mask
    assert set(np.asarray(table.sum(-1))) == {0.0, 32.0}
    assert table.any(-1).mean() == pytest.approx(0.1, abs=0.05)


# Rows that teach


def test_rows_that_teach_the_switch_stand_for_all():
    """Whichever rows teach, their mean over all choices is the gradient from all rows."""
    x = _inputs(6, 4)
    full = selective("gru", switch(SWITCHES[0], gate=switches.triangular(1.0)))
    some = selective(
        "gru", switch(SWITCHES[0], gate=switches.triangular(1.0, gradient_fraction=0.25))
    )
    params = _unit_init(full, x, 6)

    @functools.partial(jax.jit, static_argnums=0)
    def grad(unit, x):
        return jax.grad(lambda p: jnp.sum(jnp.sin(_run(unit, p, x).outputs)))(params)

    want = grad(full, x)
    found = [grad(some, jnp.roll(x, turn, axis=1)) for turn in range(4)]
    for one in found:  # the cell's own gradient is not a matter of the switch's teachers
        for got, wanted in zip(*map(jax.tree.leaves, (one["cell"], want["cell"])), strict=True):
            np.testing.assert_allclose(got, wanted, 1e-9, 1e-12)
    mean = jax.tree.map(lambda *parts: sum(parts) / 4, *(one["switch"] for one in found))
    for name, wanted in want["switch"].items():
        assert not np.allclose(found[0]["switch"][name], wanted)
        np.testing.assert_allclose(mean[name], wanted, 1e-9, 1e-12)


def test_how_many_rows_teach():
    assert [
        switches.triangular(gradient_fraction=s).gradient_rows(100)
        for s in (1.0, 0.07, 0.071, 1e-6)
    ] == [
        100,
        7,
        8,
        1,
    ]
    assert switches.triangular(gradient_fraction=0.5).gradient_rows(1) == 1


# Errors


@pytest.mark.parametrize("make", [switches.fourier, switches.event])
@pytest.mark.parametrize(
    ("horizon", "options", "message"),
    [
        (0, {}, "horizon must be at least 1 step, got 0"),
        (9, {"harmonics": -1}, "harmonics must not be negative, got -1"),
        (9, {"groups": 0}, "groups must be at least 1, got 0"),
        (9, {"rate": 0.0}, r"rate must lie strictly between 0 and 1, got 0\.0; for a unit that al"),
        (9, {"rate": 1.0}, "for a unit that always updates, use no switch"),
        (9, {"rate": float("nan")}, "rate must lie strictly between 0 and 1, got nan"),
        (9, {"shortest": 0.0}, r"0 < shortest <= longest < inf, got 0\.0 and 9\.0"),
        (9, {"longest": 1.0}, r"0 < shortest <= longest < inf, got 2\.0 and 1\.0"),
        (9, {"longest": float("inf")}, r"0 < shortest <= longest < inf, got 2\.0 and inf"),
        (float("nan"), {}, "0 < shortest <= longest < inf, got .* nan"),
    ],
)
def test_switch_that_cannot_be(make, horizon, options, message):
    name = make(9).__class__.__name__.lower()
    with pytest.raises(ValueError, match=f"^{name}: .*{message}"):
        make(horizon, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: switches.fourier(9, harmonics=0), "^fourier: harmonics must be at least 1"),
        (
            lambda: switches.event(9, event_features="all"),
            "^unknown event_features 'all'; one of: input, pair, counts, trace$",
        ),
        (
            lambda: switches.event(9, init_std=0.0),
            r"^event: init_std must be a positive number, got 0\.0$",
        ),
        (
            lambda: switches.triangular(0.0),
            r"^triangular: width must be a positive number, got 0\.0$",
        ),
        (
            lambda: switches.triangular(float("inf")),
            "^triangular: width must be a positive number, got in",
        ),
        (
            lambda: switches.triangular(gradient_fraction=0.0),
            r"^triangular: gradient_fraction must lie above 0 and not above 1, got 0\.0$",
        ),
        (
            lambda: switches.straight_through(gradient_fraction=1.5),
            r"^straight_through: gradient_fraction must .* above 1, got 1\.5$",
        ),
        (
            lambda: switches.sigmoid(gradient_fraction=float("nan")),
            "^sigmoid: gradient_fraction must .* got nan$",
        ),
        (
            lambda: _init.__wrapped__(switches.fourier(9, groups=3), _inputs()),
            "^fourier: 8 neurons cannot be cut into 3 equal groups$",
        ),
        (
            lambda: _init.__wrapped__(switches.event(9, groups=3), _inputs()),
            "^event: 8 neurons cannot be cut into 3 equal groups$",
        ),
        (lambda: switches.sigmoid(-1.0), r"^sigmoid: steepness must be a positive .* got -1\.0$"),
        (lambda: switches.soft(float("nan")), "^soft: steepness must be a positive .* got nan$"),
        (
            lambda: switches.get_surrogate("step"),
            "^unknown surrogate 'step'; one of: triangular, sigmoid, straight_through, soft$",
        ),
    ],
)
def test_what_cannot_be_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_short_horizon_still_has_a_period():
    assert switches.fourier(1).top == 2.0
    assert switches.fourier(1, shortest=5.0).top == 5.0
    assert switches.fourier(100).top == 100.0
    assert switches.fourier(100, longest=7).top == 7
