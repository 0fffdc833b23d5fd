"""The units that suRNN is compared to, against their published equations as NumPy loops."""

import functools

import core_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import BACK_ENDS, assert_close
from layer_case import CLOSE
from neighbour_case import BATCH, FEATURES, INPUTS, STEPS, plain, run, setting
from tiers import full, tiered

import surnn_jax
from surnn_jax import cells, selective, step, switches
from surnn_jax.layers import Recurrent, UnitCell
from surnn_jax.scan import ScanSpec, adjoint, native
from surnn_jax.scan.spec import ScanShape
from surnn_jax.switches import SwitchInputs

pytestmark = pytest.mark.usefixtures("float64")


def _clocks(made, t, features=FEATURES):
    seen = SwitchInputs(
        jnp.zeros((len(t), 1, 1)), None, jnp.asarray(t, jnp.int32), features=features
    )
    a = switches.for_neurons(made.logits(made.init(None, seen, features), seen), features)
    return np.asarray(made.gate(a))


# Fixed schedules


def test_every_nth_step():
    table = _clocks(switches.Every(3), range(8))
    np.testing.assert_array_equal(table, [[t in (0, 3, 6)] * FEATURES for t in range(8)])
    table = _clocks(switches.Every(4, staggered=True), range(8))
    for t in range(8):
        np.testing.assert_array_equal(table[t], [t % 4 == i % 4 for i in range(FEATURES)])


def test_modules_keep_their_own_time():
    table = _clocks(switches.Clockwork((1, 2, 5)), range(11))
    for t in range(11):
        np.testing.assert_array_equal(table[t], [t % (1, 2, 5)[i // 2] == 0 for i in range(6)])
    # Eight octaves by default, as many as the registered cell has modules.
    slowest = _clocks(switches.clockwork(9), range(257), features=8)[:, -1]
    assert np.flatnonzero(slowest).tolist() == [0, 128, 256]
    assert cells.clockwork(len(switches.Clockwork().periods)) == cells.CLOCKWORK


def test_a_clock_starts_anew_with_its_sequence():
    """Every example has its own time after a reset, and the rate counts it all."""
    made = selective("tanh", switches.Every(3))
    params, x = setting(made)
    resets = jnp.zeros(x.shape[:2], bool).at[2, 1].set(True)
    done = run(made, params, x, resets=resets)
    opened = np.zeros((STEPS, BATCH))
    opened[::3] = 1
    opened[:, 1] = [1, 0, 1, 0, 0, 1, 0]
    np.testing.assert_array_equal(done.update_mask, np.repeat(opened[..., None], FEATURES, -1))
    assert done.rate == pytest.approx(opened.mean())
    held = np.asarray(done.outputs)[1:][opened[1:] == 0]
    np.testing.assert_array_equal(held, np.asarray(done.outputs)[:-1][opened[1:] == 0])


@pytest.mark.parametrize(
    "made", [switches.Every(4), switches.Every(3, staggered=True), switches.Clockwork((1, 2, 4))]
)
def test_declared_rate_is_the_rate(made):
    assert made.rate == pytest.approx(_clocks(made, range(12)).mean())
    assert made.frozen
    assert made.groups == len(np.unique(_clocks(made, range(12)), axis=1).T)


# Clockwork RNN


def test_clockwork_rnn_is_its_equation():
    periods = (1, 2, 4)
    made = selective(cells.clockwork(3), switches.Clockwork(periods))
    params, x = setting(made)
    W, U, b = (plain(params["cell"][k]) for k in ("input", "recurrent", "vector"))
    h, outputs = np.zeros((BATCH, FEATURES)), []
    for t in range(STEPS):
        new = h.copy()
        for m, period in enumerate(periods):
            if t % period == 0:
                own = slice(2 * m, 2 * m + 2)
                # From its own module on, all that are as slow or slower.
                total = np.asarray(x[t]) @ W["h"][:, own] + b["b"][own]
                for n in range(m, 3):
                    other = slice(2 * n, 2 * n + 2)
                    total = total + h[:, other] @ U["h"][other, own]
                new[:, own] = np.tanh(total)
        h = new
        outputs.append(h)
    np.testing.assert_allclose(run(made, params, x).outputs, outputs, rtol=1e-12, atol=1e-14)


def _kernel_knows(cell, surrogate=None):
    """Whether the compiled kernel runs the cell, built here or not."""
    float32 = jnp.dtype("float32")
    shape = ScanShape(STEPS, BATCH, FEATURES, float32, False, "cpu")
    refused = native.unsupported(ScanSpec(cell, surrogate, float32), shape)
    return refused is None or refused.startswith("no compiled kernel")


@pytest.mark.full
def test_every_back_end_runs_clockwork():
    made = selective(cells.clockwork(3), switches.Clockwork((1, 2, 3)))
    params, x = setting(made, features=8, steps=4)  # modules of 3, 3 and 2
    assert _kernel_knows(made.cell, made.switch.gate)

    def loss(cell, x, backend):
        done = surnn_jax.run(made, {**params, "cell": cell}, x, backend=backend)
        return jnp.sum(jnp.sin(done.outputs)), done

    grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2)
    wanted = grad(params["cell"], x, "reference")
    for backend in BACK_ENDS[1:]:
        assert_close(grad(params["cell"], x, backend), wanted)
    module = np.arange(8) * 3 // 8
    read = module[:, None] >= module[None, :]
    assert (np.asarray(wanted[1][0]["recurrent"]["h"]) != 0).tolist() == read.tolist()


# Zoneout


@pytest.mark.parametrize("backend", ["masked", full("compact")])
def test_zoneout_draws_for_every_example_step_and_neuron(backend):
    made = selective("lstm", switches.zoneout(9, hold=0.4))
    params, x = setting(made)
    done = run(made, params, x, key=jax.random.key(1), backend=backend)
    table = np.asarray(done.update_mask)
    assert table.shape == (STEPS, BATCH, FEATURES)
    assert set(np.unique(table)) == {0, 1}
    assert len(np.unique(table.reshape(-1, FEATURES), axis=0)) > STEPS
    theirs, state = plain(params["cell"]), [np.zeros((BATCH, FEATURES))] * 2
    for t in range(STEPS):
        new = core_oracle.step("lstm", theirs, state, np.asarray(x[t]))
        state = [np.where(table[t] == 1, f, h) for f, h in zip(new, state, strict=True)]
        for got, want in zip(done.carries, state, strict=True):
            np.testing.assert_allclose(got[t], want, rtol=1e-10, atol=1e-14)
    held = table[1:] == 0
    for field in plain(tuple(done.carries)):
        np.testing.assert_array_equal(field[1:][held], field[:-1][held])
    assert done.rate == pytest.approx(table.mean())


def test_zoneout_expects_without_a_key():
    made = selective("gru", switches.zoneout(9, hold=0.4))
    params, x = setting(made)
    done, state = run(made, params, x), np.zeros((BATCH, FEATURES))
    for t in range(STEPS):
        (new,) = core_oracle.step("gru", plain(params["cell"]), (state,), np.asarray(x[t]))
        state = 0.4 * state + 0.6 * new
        np.testing.assert_allclose(done.outputs[t], state, rtol=1e-10)
    assert done.rate == pytest.approx(0.6)
    np.testing.assert_allclose(done.update_mask, np.full((STEPS, FEATURES), 0.6))


@pytest.mark.parametrize("backend", [full("masked"), "compact", full("reference")])
def test_zoneout_has_rates_of_its_own_for_c_and_h(backend):
    """Krueger et al. 2017, equations 4 and 5, with the masks that the run drew."""
    made = selective("lstm", switches.zoneout(9, hold=0.3, hold_c=0.6))
    params, x = setting(made, steps=20)
    done = run(made, params, x, key=jax.random.key(1), backend=backend)
    theirs, c, h = plain(params["cell"]), *np.zeros((2, BATCH, FEATURES))
    held_c = np.asarray(done.carries.c[1:] == done.carries.c[:-1])
    held_h = np.asarray(done.update_mask[1:] == 0)
    assert held_c.mean() == pytest.approx(0.6, abs=0.1)
    assert held_h.mean() == pytest.approx(0.3, abs=0.1)
    # Independent: together as often as one by one.
    assert (held_c & held_h).mean() == pytest.approx(0.18, abs=0.07)
    for t in range(20):
        new_c, new_h = core_oracle.step("lstm", theirs, (c, h), np.asarray(x[t]))
        keep = held_c[t - 1] if t else np.asarray(done.carries.c[0] == 0)
        c = np.where(keep, c, new_c)
        h = np.where(np.asarray(done.update_mask[t]) == 0, h, new_h)
        np.testing.assert_allclose(done.carries.c[t], c, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(done.carries.h[t], h, rtol=1e-10, atol=1e-14)
    assert done.rate == pytest.approx(np.mean(done.update_mask))


def test_zoneout_of_c_and_h_expects_without_a_key():
    made = selective("lstm", switches.zoneout(9, hold=0.3, hold_c=0.6))
    params, x = setting(made)
    done, (c, h) = run(made, params, x), np.zeros((2, BATCH, FEATURES))
    for t in range(STEPS):
        new_c, new_h = core_oracle.step("lstm", plain(params["cell"]), (c, h), np.asarray(x[t]))
        c, h = 0.6 * c + 0.4 * new_c, 0.3 * h + 0.7 * new_h
        np.testing.assert_allclose(done.carries.c[t], c, rtol=1e-10)
        np.testing.assert_allclose(done.outputs[t], h, rtol=1e-10)
    assert done.rate == pytest.approx(0.7)
    np.testing.assert_allclose(done.update_mask, np.full((STEPS, FEATURES), 0.7))


@pytest.mark.full
@pytest.mark.parametrize("key", [full(None), jax.random.key(2)], ids=["expected", "drawn"])
def test_back_ends_agree_on_zoneout_of_c_and_h(key):
    """Values, gradients and a second derivative, with lengths and resets; and every step alone."""
    made = selective("lstm", switches.zoneout(9, hold=0.3, hold_c=0.6))
    params, x = setting(made)
    given = {
        "lengths": jnp.asarray([STEPS, 4, 2]),
        "resets": jnp.zeros((STEPS, BATCH), bool).at[3, 0].set(True),
        "key": key,
    }

    def loss(cell, x, backend):
        done = surnn_jax.run(made, {**params, "cell": cell}, x, backend=backend, **given)
        return jnp.sum(jnp.sin(done.outputs) + done.carry.cell.c.sum()), done

    grad = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2)
    want = grad(params["cell"], x, "reference")
    for backend in ("masked", "compact", *(["native"] if native.available() else []), "auto"):
        assert_close(grad(params["cell"], x, backend), want)

    def pushed(backend):
        def value(scale):
            return loss(jax.tree.map(lambda leaf: scale * leaf, params["cell"]), x, backend)[0]

        return jax.jit(jax.jvp, static_argnums=0)(value, (1.0,), (1.0,))

    assert_close(pushed("masked"), pushed("reference"))


def test_a_rate_for_c_needs_a_cell_that_has_one():
    made = selective("gru", switches.zoneout(9, hold_c=0.6))
    params, x = setting(made)
    with pytest.raises(ValueError, match="a switch of its own for c, but GRUCarry has no field c"):
        run(made, params, x)


def test_zoneout_holds_as_often_as_it_says():
    """Of 120,000 draws: three standard errors."""
    made = switches.zoneout(9, hold=0.3)
    assert made.random
    seen = SwitchInputs(
        jnp.zeros((200, 6, 1)), None, jnp.arange(200), key=jax.random.key(3), features=100
    )
    opened = made.gate(made.logits({}, seen))
    assert opened.shape == (200, 6, 100)
    assert opened.mean() == pytest.approx(0.7, abs=3 * (0.3 * 0.7 / 120_000) ** 0.5)


@pytest.mark.parametrize("gate", [switches.given(), switches.soft()], ids=lambda g: g.name)
def test_a_soft_switch_that_is_open_takes_the_candidate_exactly(gate):
    """However far it is from the old state: their sum and difference would lose it."""
    g, candidate = jnp.asarray([1.0, 0.0]), jnp.asarray([0.5, jnp.nan])
    assert adjoint.mix(gate, g, candidate, jnp.full(2, 1e17)).tolist() == [0.5, 1e17]


def test_the_layer_gives_zoneout_its_key():
    x = jax.random.normal(jax.random.key(0), (BATCH, STEPS, INPUTS))
    layer = Recurrent("tanh", FEATURES, switches.zoneout(9, hold=0.5), return_run=True)
    params = jax.jit(layer.init)(jax.random.key(1), x)
    table = jax.jit(lambda **rngs: layer.apply(params, x, rngs=rngs).update_mask)
    np.testing.assert_array_equal(table(), np.full((STEPS, FEATURES), 0.5))
    one, two = (np.asarray(table(dropout=jax.random.key(k))) for k in (2, 3))
    assert set(np.unique(one)) == {0, 1}
    assert (one != two).any()


# The input threshold


def test_threshold_is_a_fixed_projection_of_the_input():
    made = selective("tanh", switches.threshold(9, rate=0.3))
    params, _ = setting(made)
    x = jnp.asarray(np.random.default_rng(5).normal(size=(50, BATCH, INPUTS)))
    init = jax.jit(made.init_switch, static_argnums=(2, 3))
    params["switch"] = init(jax.random.key(0), x, FEATURES, "float64")
    done = run(made, params, x)
    own = plain(params["switch"])
    np.testing.assert_array_equal(done.update_mask, np.asarray(x) @ own["v"] + own["b"] > 0)
    np.testing.assert_allclose(np.mean(done.update_mask, (0, 1)), 0.3, atol=1.001 / 150)
    assert made.switch.frozen


# All of them


UNITS = {
    "every": ("gru", switches.Every(3)),
    "staggered": ("tanh", switches.Every(3, staggered=True)),
    "clockwork": (cells.clockwork(3), switches.Clockwork((1, 2, 4))),
    "phased": ("lstm_peephole", switches.phased(20)),
    "zoneout": ("gru", switches.Zoneout(0.3)),
    "skip_gru": ("skip_gru", None),
    "sa_gru": ("sa_gru", None),
}


@pytest.mark.parametrize("name", tiered(UNITS, ["phased", "skip_gru"]))
def test_steps_are_the_sequence(name):
    made = selective(*UNITS[name])
    params, x = setting(made, seed=2)
    whole = run(made, params, x)
    carry = made.initial_carry(params, (BATCH,))
    one = jax.jit(lambda carry, x: step(made, params, carry, x))
    for t in range(STEPS):
        carry, h = one(carry, x[t])
        np.testing.assert_allclose(h, whole.outputs[t], rtol=1e-9, atol=1e-12)
    assert_close(carry, whole.carry)


@pytest.mark.parametrize("name", [full("every"), "skip_gru"])
def test_in_a_flax_layer(name):
    cell, switch = UNITS[name]
    x = jax.random.normal(jax.random.key(0), (BATCH, STEPS, INPUTS))
    layer = Recurrent(cell, FEATURES, switch, return_run=True)
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    done = jax.jit(layer.apply)(variables, x)
    made = selective(cell, switch)
    ours = run(made, variables["params"], x.swapaxes(0, 1))
    np.testing.assert_allclose(done.outputs, ours.outputs.swapaxes(0, 1), **CLOSE)
    assert "switch" not in variables["params"]  # neither has parameters
    one = UnitCell(cell, FEATURES, switch)
    carry = one.initialize_carry(None, (BATCH, INPUTS))
    inner = jax.eval_shape(one.init, jax.random.key(1), carry, x[:, 0])["params"]
    assert jax.tree.map(jnp.shape, inner) == jax.tree.map(jnp.shape, variables["params"])
    carry, h = jax.jit(one.apply)(variables, carry, x[:, 0])
    np.testing.assert_allclose(h, done.outputs[:, 0], **CLOSE)
    carry = layer.apply(variables, (BATCH,), method="initial_carry")
    h = jax.jit(functools.partial(layer.apply, method="step"))(variables, carry, x[:, 0])[1]
    np.testing.assert_allclose(h, done.outputs[:, 0], **CLOSE)


def test_a_gru_that_carries_differs_in_where_it_starts():
    params = [
        cells.get(name).init(jax.random.key(0), INPUTS, FEATURES) for name in ("gru", "gru_carry")
    ]
    assert (params[1]["vector"]["b_z"] == 3).all()
    params[1]["vector"]["b_z"] -= 3
    jax.tree.map(np.testing.assert_array_equal, *params)
    assert cells.GRU_CARRY.rule is cells.GRU.rule
    assert _kernel_knows(cells.GRU_CARRY)
    assert not _kernel_knows(cells.SKIP_GRU)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: switches.fourier(9, gate=switches.given()),
            "^fourier: its logits are no openness",
        ),
        (lambda: switches.every(9, n=0), "^every: n must be a whole number .* at least 1, got 0$"),
        (lambda: switches.every(9, n=1.5), "^every: n must be a whole number .*, got 1.5$"),
        (lambda: switches.clockwork(9, periods=()), r"^clockwork: periods must be .*, got \(\)$"),
        (lambda: switches.clockwork(9, periods=[4, 2]), r"^clockwork: .* rising .*, got \(4, 2\)$"),
        (
            lambda: switches.clockwork(9, periods=[0, 2]),
            r"^clockwork: .* at least 1, in .*\(0, 2\)",
        ),
        (lambda: switches.phased(0), "^phased: horizon must be at least 1 step, got 0$"),
        (
            lambda: switches.phased(9, shortest=5, longest=2),
            "^phased: periods must satisfy .* 5 and 2",
        ),
        (lambda: switches.phased(9, ratio=0.0), r"^phased: ratio must lie in \(0, 1\], got 0.0$"),
        (lambda: switches.phased(9, leak=-1.0), r"^phased: leak must lie in \[0, 1\], got -1.0$"),
        (lambda: switches.zoneout(9, hold=1.0), r"^zoneout: hold must lie in \[0, 1\), got 1.0$"),
        (
            lambda: switches.zoneout(9, hold_c=-1.0),
            r"^zoneout: hold_c must lie in \[0, 1\), got -1",
        ),
        (lambda: cells.clockwork(0), "^clockwork: modules must be at least 1, got 0$"),
    ],
)
def test_what_cannot_be_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()
