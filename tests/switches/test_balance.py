"""Switches that stay alive: the term that moves thresholds, and what the trainer makes of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import full, tiered

from surnn_jax import run, selective, switches, train
from surnn_jax.train import sharding, step

STEPS, BATCH, INPUTS, FEATURES = 24, 4, 3, 8
LENGTHS = np.array([24, 9, 0, 17])
# Two never open, two always, two seldom, and the others as they began.
SHIFT = np.array([0, 0, -5.2, -6, -30, -30, 30, 30])
KINDS = [("event", {}), ("fourier", {}), ("event", {"groups": 4})]


def made(kind, balance, rate=0.9, **options):
    return selective("tanh", switches.SWITCHES[kind](STEPS, rate=rate, balance=balance, **options))


def problem(unit):
    random = np.random.default_rng(3)
    x = jnp.asarray(random.normal(size=(STEPS, BATCH, INPUTS)))
    init = jax.jit(lambda x: unit.init(jax.random.key(0), x, FEATURES, jnp.float64))
    params = init(x)
    groups = len(params["switch"]["b"])
    shift = SHIFT.reshape(groups, -1).mean(-1)
    params["switch"]["b"] = params["switch"]["b"] + shift
    mask = random.random((STEPS, BATCH)) < 0.8
    # What must not be read.
    inside = mask & (np.arange(STEPS)[:, None] < LENGTHS)
    return params, jnp.where(inside[..., None], x, jnp.nan), jnp.asarray(mask), inside


def correction(unit, params, opened, inside):
    """The homeostat's gradient by b, from the definition, neuron by neuron."""
    made = unit.switch
    groups = len(params["switch"]["b"])
    opened = np.broadcast_to(opened, (*inside.shape, FEATURES))
    found = np.zeros(groups)
    for i in range(groups):
        own = opened[..., i * (FEATURES // groups)][inside]
        below = made.rate if made.balance == "target" else made.rate / 5
        found[i] = own.mean() - below
        if made.balance == "floor":
            found[i] = min(found[i], 0)
    return found


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("kind", "options", "balance"),
    tiered(
        [(*kind, balance) for kind in KINDS for balance in ("target", "floor")],
        [(*KINDS[0], "target"), (*KINDS[1], "floor")],
    ),
)
def test_the_term_is_zero_and_its_gradient_is_the_correction(kind, options, balance):
    unit = made(kind, balance, **options)
    params, x, mask, inside = problem(unit)

    @jax.jit
    def look(params, x):
        done = run(unit, params, x, lengths=jnp.asarray(LENGTHS), mask=mask)
        return done.balance, done

    (value, done), slope = jax.value_and_grad(look, has_aux=True)(params, x)
    assert value == 0
    opened = np.asarray(done.update_mask)
    opened = opened[:, None] if opened.ndim == 2 else opened
    error = correction(unit, params, opened, inside)
    logits = _raw_logits(unit.switch, params["switch"], np.nan_to_num(x), inside)
    deviation = logits.std(0) if kind == "event" else _power(params["switch"])
    np.testing.assert_allclose(slope["switch"]["b"], deviation * error, rtol=1e-9, atol=1e-12)
    assert (slope["switch"]["b"] < 0).any()
    if kind == "event" and not options:
        # Some are open now and then, so that it matters which steps count.
        assert ((error < 0) & (error > error.min())).any()
    others = {**slope, "switch": {**slope["switch"], "b": 0.0}}
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(others))


def _raw_logits(made, params, x, inside):
    """The logits of valid steps ``[N, G]``, from the equation."""
    t = np.arange(STEPS)[:, None, None]
    params = jax.tree.map(np.asarray, params)
    wave = sum(
        params["alpha"][k] * np.sin(params["theta"][k] * t / STEPS + params["phi"][k])
        for k in range(made.harmonics)
    )
    read = x @ params["v"] if "v" in params else 0
    return np.broadcast_to(read + wave + params["b"], (*inside.shape, len(params["b"])))[inside]


def _power(params):
    return np.sqrt(np.square(np.asarray(params["alpha"])).sum(0))


@pytest.mark.full
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("balance", ["target", "floor"])
def test_other_gradients_are_those_of_a_switch_without_balance(balance):
    """Under `target` b gets the correction alone; under `floor` both."""
    plain, own = made("event", "none"), made("event", balance)
    params, x, mask, _ = problem(plain)

    def loss(unit, params):
        done = run(unit, params, x, lengths=jnp.asarray(LENGTHS), mask=mask)
        return jnp.sum(jnp.sin(done.outputs)) + 3 * done.rate, done.balance

    def slope(unit, part):
        return jax.jit(jax.grad(lambda params: loss(unit, params)[part]))(params)

    want, got, more = slope(plain, 0), slope(own, 0), slope(own, 1)
    b = want["switch"].pop("b")
    found = got["switch"].pop("b")
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert np.any(b)
    np.testing.assert_array_equal(found, np.zeros_like(b) if balance == "target" else b)
    assert np.any(more["switch"]["b"])


@pytest.mark.parametrize("balance", ["target", full("floor")])
def test_a_batch_without_a_valid_step_moves_nothing(balance):
    unit = made("event", balance)
    x = jnp.ones((STEPS, BATCH, INPUTS))
    params = jax.jit(unit.init, static_argnums=2)(jax.random.key(0), x, FEATURES)
    none = jnp.zeros(BATCH, jnp.int32)

    def balance_of(params):
        return run(unit, params, x, lengths=none).balance

    slope = jax.jit(jax.grad(balance_of))(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope))


@pytest.mark.usefixtures("float64")
def test_a_frozen_switch_is_not_balanced():
    unit = made("event", "target", frozen=True)
    params, x, _, inside = problem(unit)

    def balance_of(params):
        return jnp.sum(run(unit, params, x, mask=inside).balance)

    slope = jax.jit(jax.grad(balance_of))(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope))


def test_unknown_balances_are_named():
    with pytest.raises(ValueError, match="unknown balance 'mean'; one of: none, target"):
        switches.event(9, balance="mean")


# What a trainer makes of it


def task(balance, kind="event"):
    """Mean squared error of the mean of the outputs; the switch's balance is in the loss."""
    unit = made(kind, balance, 0.25)

    def init(key, batch):
        return unit.init(key, jnp.moveaxis(batch["x"], 0, 1), FEATURES)

    def loss(params, batch, key):
        del key
        done = run(unit, params, jnp.moveaxis(batch["x"], 0, 1))
        value = jnp.mean(jnp.square(done.outputs.mean((0, 2)) - batch["y"]))
        one = jnp.ones(())
        return value + done.balance, {"mse": (value, one), "update_rate": (done.rate, one)}

    def evaluate(params, batch):
        return {"mse": loss(params, batch, None)[1]["mse"]}

    return train.Task(init, loss, evaluate)


def batch(number):
    random = np.random.default_rng((5, number))
    x = random.normal(size=(BATCH, STEPS, INPUTS)).astype(np.float32)
    return {"x": x, "y": np.tanh(x.mean((1, 2)))}


def config(balance, **changes):
    rate = 1.0 if balance == "target" else None
    return train.OptimizerConfig(learning_rate=0.03, switch_scale=3.0, balance_rate=rate, **changes)


def shares(kind, params, number=99):
    x = jnp.moveaxis(batch(number)["x"], 0, 1)
    mask = np.asarray(run(made(kind, "none", 0.25), params, x).update_mask)
    return mask.reshape(-1, FEATURES).mean(0)


@pytest.mark.parametrize(
    ("kind", "balance"),
    [full("event", "none"), ("event", "target"), full("event", "floor"), full("fourier", "target")],
)
def test_dead_neurons_are_revived(kind, balance):
    own, optimizer = task(balance, kind), train.make_optimizer(config(balance))
    state = step.init_state(own, optimizer, jax.random.key(0), batch(0))
    shut = state.params["switch"]["b"] - jnp.asarray(np.where(SHIFT < -20, 4.0, 0.0), jnp.float32)
    state = state._replace(params={**state.params, "switch": {**state.params["switch"], "b": shut}})
    assert (shares(kind, state.params)[4:6] == 0).all()
    for number in range(80):
        state, _ = step.train_step(own, optimizer, jax.random.key(1), state, batch(number))
    found = shares(kind, state.params)
    if balance == "none":
        assert (found[4:6] == 0).all()
    else:
        assert (found >= 0.02).all(), found
    if balance == "target":
        np.testing.assert_allclose(found, 0.25, atol=0.1)


@pytest.mark.full
def test_the_homeostat_takes_one_step_of_the_scheduled_size():
    """b_i ← b_i − η(t) s_i (r_i − r), whatever the learning rate; Adam has the rest."""
    ends = []
    for learning_rate in (0.5, 1e-4):
        plan = train.OptimizerConfig(
            learning_rate=learning_rate, balance_rate=0.5, warmup=2,
            schedule="cosine", total_steps=7,
        )  # fmt: skip
        optimizer = train.make_optimizer(plan)
        params = {"cell": {"w": jnp.ones(2), "switch": {"b": jnp.ones(3), "v": jnp.ones(3)}}}
        grads = jax.tree.map(lambda leaf: 8.0 * leaf, params)
        state, moved = optimizer.init(params), []
        with jax.numpy_dtype_promotion("standard"):
            for _ in range(5):
                change, state = optimizer.update(grads, state, params)
                moved.append(change["cell"]["switch"])
        ends.append(moved)
        # 0, half, whole; then 5 steps from 1 to 0.05: 0.05 + 0.95 (1 + cos(pi k / 5)) / 2.
        k = np.arange(3)
        shape = np.array([0, 0.5, *(0.05 + 0.475 * (1 + np.cos(np.pi * k / 5)))])
        want = -8 * 0.5 * shape
        np.testing.assert_allclose([float(m["b"][0]) for m in moved], want, rtol=1e-5)
    assert float(ends[0][2]["v"][0]) == pytest.approx(5e3 * float(ends[1][2]["v"][0]), rel=1e-4)


def test_bad_rates_are_named():
    with pytest.raises(ValueError, match=r"balance_rate must not be negative, got -1\.0"):
        train.OptimizerConfig(balance_rate=-1.0)


@pytest.mark.full
def test_two_devices_move_thresholds_as_one_does():
    """The share is that of the whole batch, not of a device's rows."""
    own, optimizer = task("target"), train.make_optimizer(config("target"))
    ends = []
    for mesh in (None, sharding.make_mesh("data:2")):
        plan = sharding.ShardingPlan(mesh, batch(0))
        with plan.context():
            state = plan.compiled.init_state(
                own, optimizer, jax.random.key(0), plan.shard_batch(batch(0))
            )
            for number in range(3):
                state, _ = plan.compiled.train_step(
                    own, optimizer, jax.random.key(1), state, plan.shard_batch(batch(number))
                )
        ends.append(state.params["switch"])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), *ends)


SETTINGS = {"max_epochs": 2, "monitor": "mse"}


def arguments(balance, workdir, asked=batch):
    return {
        "batches": asked,
        "steps_per_epoch": 4,
        "evaluation": lambda: [batch(1000)],
        "settings": train.Settings(**SETTINGS, save_seconds=0.0),
        "workdir": workdir,
        "config": {"balance": balance},
    }


def schedule(balance):
    return config(balance, schedule="cosine", total_steps=8, warmup=1)


def fit(balance, workdir, asked=batch):
    optimizer = train.make_optimizer(schedule(balance))
    return train.fit(task(balance), optimizer, **arguments(balance, workdir, asked))


@pytest.mark.full
@pytest.mark.parametrize("balance", ["target", full("floor")])
def test_a_resumed_run_ends_with_the_same_bits(balance, tmp_path):
    def stops(number):
        if number == 6:
            raise RuntimeError("pulled the plug")
        return batch(number)

    whole = fit(balance, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="plug"):
        fit(balance, tmp_path / "cut", stops)
    cut = fit(balance, tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, cut.last_params, whole.last_params)


@pytest.mark.full
def test_members_of_a_population_are_balanced_as_alone(tmp_path):
    whole = fit("target", tmp_path / "alone")
    members = [train.HyperParameters(rate, 0.0, 0) for rate in (0.03, 0.001)]
    crowd = train.fit_population(
        task("target"), schedule("target"), members, **arguments("target", tmp_path / "crowd")
    )
    jax.tree.map(
        lambda one, all_: np.testing.assert_allclose(all_[0], one, rtol=1e-4, atol=1e-6),
        whole.params,
        crowd.params,
    )
