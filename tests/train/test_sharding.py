"""Several devices: the same numbers as one, whole or cut, saved on some and read on others."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import full, tiered
from train_case import OPTIMIZER, TASK, batch, fit

from surnn_jax import run, selective, switches, train
from surnn_jax.scan.sharding import shards
from surnn_jax.train import sharding, step

NEVER = 1e9
# A sum over the batch is rounded otherwise where it is made of sums over parts of it.
CLOSE = {"rtol": 2e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run on one device."""
    return fit(tmp_path_factory.mktemp("one"), save_seconds=NEVER)


def curve(done):
    return [(line["train/mse"], line["valid/mse"]) for line in done.history]


def close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), got, want)


@pytest.mark.parametrize("text", ["data:2", full("model:2"), full(" data:1 , model:2")])
def test_promise_11_a_run_on_two_devices_is_that_on_one(text, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "_LARGE", 1)  # so that the small net of the tests is cut
    done = fit(tmp_path, mesh=sharding.make_mesh(text), save_seconds=NEVER)
    np.testing.assert_allclose(curve(done), curve(whole), rtol=1e-5)
    close(done.last_params, whole.last_params)
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(done.params)} == {1}


@pytest.mark.full
def test_a_run_goes_on_with_other_devices(whole, tmp_path):
    def stops(step):
        if step == 15:
            raise RuntimeError("pulled the plug")
        return batch(step)

    mesh = sharding.make_mesh("data:2")
    for run_on, asked in ((mesh, stops), (None, stops)):
        with pytest.raises(RuntimeError, match="plug"):
            fit(tmp_path, mesh=run_on, batches=asked)
    done = fit(tmp_path, mesh=mesh)
    np.testing.assert_allclose(curve(done), curve(whole), rtol=1e-5)


def test_the_batch_and_large_parameters_are_cut_and_stay_so(monkeypatch):
    monkeypatch.setattr(sharding, "_LARGE", 1)
    mesh = sharding.make_mesh("model:2")
    plan = sharding.ShardingPlan(mesh, batch(0))
    given = plan.shard_batch(batch(0))
    with plan.context():
        state = plan.compiled.init_state(TASK, OPTIMIZER, jax.random.key(0), given)
        before = state
        for number in range(2):
            state, _ = plan.compiled.train_step(
                TASK, OPTIMIZER, jax.random.key(1), state, plan.shard_batch(batch(number))
            )
    places = jax.tree.map(lambda leaf: leaf.sharding.spec, state)
    assert places == jax.tree.map(lambda leaf: leaf.sharding.spec, before)
    assert state.params["cell"]["u"].sharding.spec == jax.P(None, "model")
    assert state.params["out"]["w"].sharding.spec == jax.P()
    assert jax.P(None, "model") in jax.tree.leaves(places.opt_state)
    cut = sharding.ShardingPlan(sharding.make_mesh("data:2"), batch(0)).shard_batch(batch(0))
    assert {leaf.sharding.spec for leaf in jax.tree.leaves(cut)} == {jax.P("data")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:3", "mesh data:3 takes 3 devices, and there are 2"),
        ("data:2,model:2", "takes 4 devices, and there are 2"),
        ("rows:2", "'rows:2' is not data:N or model:N"),
        ("data", "'data' is not data:N"),
        ("data:0", "'data:0' is not data:N or model:N, N at least 1"),
        ("", "'' is not data:N"),
    ],
)
def test_bad_meshes_are_named(text, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        sharding.make_mesh(text)
    assert message in str(caught.value)


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_made(tmp_path):
    def odd(step):
        return jax.tree.map(lambda leaf: leaf[:3], batch(step))

    with pytest.raises(ValueError, match="a batch of 3 rows does not divide over data:2"):
        fit(tmp_path, mesh=sharding.make_mesh("data:2"), batches=odd)
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("backend", "kind"),
    tiered(
        itertools.product(["masked", "compact", "rows", "native"], ["fourier", "event", None]),
        [
            ("native", "event"),
        ],
    ),
)
def test_promise_11_a_scan_under_a_mesh_keeps_to_its_rows(kind, backend):
    """Same gradient, and nothing of a sequence's length travels between the devices."""
    unit = selective("gru", kind and getattr(switches, kind)(horizon=6, rate=0.5))
    x = jax.random.normal(jax.random.key(0), (6, 4, 3))
    params = jax.jit(lambda x: unit.init(jax.random.key(1), x, 5))(x)

    def loss(params, x):
        result = run(unit, params, x, backend=backend)
        return jnp.sum(result.outputs**2) + result.rate

    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    want = gradient(params, x)
    mesh = sharding.make_mesh("data:2")
    rows, copies = jax.NamedSharding(mesh, jax.P(None, "data")), jax.NamedSharding(mesh, jax.P())
    args = jax.device_put(params, copies), jax.device_put(x, rows)
    with jax.set_mesh(mesh):
        assert jax.eval_shape(lambda: jnp.zeros(shards(4))).shape == (2,)
        assert shards(3) == 1
        program = gradient.lower(*args).compile()
        got = program(*args)
    close(got, want)
    # An event switch is scaled by the spread over the whole batch, and asks for it.
    assert ("all-gather" in program.as_text()) <= (kind == "event")


def test_accumulated_gradients_are_those_of_one_batch():
    def whole(number):
        return jax.tree.map(lambda *rows: np.concatenate(rows), *(batch(i) for i in (number, 9)))

    def parts(number):
        big = whole(number // 2)
        half = slice(None, 4) if number % 2 == 0 else slice(4, None)
        return jax.tree.map(lambda leaf: leaf[half], big) | {"weight": np.ones(4, np.float32)}

    def ones(number):
        return whole(number) | {"weight": np.ones(8, np.float32)}

    # The noise of the loss is a function of the step, which counts batches here.
    task = TASK._replace(loss=lambda params, b, key: TASK.loss(params, b, jax.random.key(0)))
    ends = []
    for batches, accumulate, steps in ((ones, 1, 3), (parts, 2, 6)):
        optimizer = train.make_optimizer(
            train.OptimizerConfig(clip=0.1, accumulate=accumulate, warmup=2)
        )
        state = step.init_state(task, optimizer, jax.random.key(0), batches(0))
        for number in range(steps):
            state, _ = step.train_step(task, optimizer, jax.random.key(1), state, batches(number))
        ends.append(state.params)
    close(*ends)


@pytest.mark.full
@pytest.mark.parametrize("text", ["data:4", "data:2,model:2"])
def test_promise_11_four_devices_learn_as_one_does(text, whole, tmp_path):
    """In a process of its own, for this one has two."""
    code = "from train_case import fit; from surnn_jax.train import sharding\n"
    code += f"sharding._LARGE = 1; fit({str(tmp_path)!r}, mesh=sharding.make_mesh({text!r}))"
    root = Path(__file__).parents[2]
    env = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": "4",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests" / "support")]),
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = train.files.read_lines(tmp_path / "metrics.jsonl")
    found = [(line["train/mse"], line["valid/mse"]) for line in lines]
    np.testing.assert_allclose(found, curve(whole), rtol=1e-5)
