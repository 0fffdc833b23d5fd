"""The back end for cells that are linear in the state, as a loop and as an associative scan."""

import dataclasses
import math

import core_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import assert_close, problem, random_like
from tiers import full

from surnn_jax import cells, run, selective, switches
from surnn_jax.scan import BACKENDS, ScanInputs, ScanSpec, auto, linear_scan, parallel

pytestmark = pytest.mark.usefixtures("float64")
LINEAR = ["min_gru", "min_lstm", "min_gru_log", "rg_lru"]


@pytest.fixture
def associative(monkeypatch):
    """What runs on accelerators; the names of what was called."""
    called = set()

    def instead(name, other):
        function = getattr(linear_scan, other)

        def counted(*args):
            called.add(other)
            return function(*args)

        monkeypatch.setattr(linear_scan, name, counted)

    instead("_loop", "_associative")
    instead("_loop_back", "_associative_back")
    return called


def _inputs(cell, kind, steps=13, batch=3, features=4, seed=0):
    """A scan with everything that can be given: NaN where nothing may be read."""
    random = np.random.default_rng(seed)
    task = problem(
        selective(cell, None), seed, steps=steps, batch=batch, inputs=2, features=features
    )
    free, given = task
    logits = None
    if kind is not None:
        shape = (steps, features) if kind == "shared" else (steps, batch, features)
        logits = jnp.asarray(random.normal(size=shape))
    step_mask = given["mask"] & (
        jnp.arange(steps, dtype=jnp.int32)[:, None] < given["lengths"][None]
    )
    return ScanInputs(
        cell.expanded(free["params"]["cell"]),
        jnp.where(step_mask[..., None], free["x"], 0),
        logits,
        free["cell"],
        jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (batch, features)), free["reset_carry"]),
        step_mask,
        given["resets"],
    )


def _with_gradient(scan, spec, inputs, weights):
    def loss(leaves):
        carries = scan(spec, ScanInputs(*leaves, *inputs[5:]))
        return jnp.sum(weights * carries.h), carries

    return jax.jit(jax.grad(loss, has_aux=True))(inputs[:5])


@pytest.mark.parametrize(
    ("name", "kind", "gate"),
    [
        ("min_gru", "shared", switches.triangular(1.0)),
        full("min_lstm", "per example", switches.soft(3.0)),
        full("min_gru", None, None),
        full("min_gru_log", "per example", switches.sigmoid()),
    ],
)
def test_the_associative_scan_equals_the_loop(name, kind, gate, associative):
    """Values and all gradients, with lengths, mask and resets, to 1e-10 in float64."""
    cell = cells.get(name)
    spec, inputs = ScanSpec(cell, gate, "float64"), _inputs(cell, kind)
    weights = np.random.default_rng(1).normal(size=(13, 3, 4))
    want = _with_gradient(BACKENDS["masked"].scan, spec, inputs, weights)
    got = _with_gradient(parallel.scan, spec, inputs, weights)
    assert associative == {"_associative", "_associative_back"}
    assert_close(got, want, rtol=1e-10, atol=1e-12)
    assert any(leaf.any() for leaf in jax.tree.leaves(got[0][0]))


def test_promise_2_holds_in_an_associative_scan(associative):
    """A closed neuron's state is that of the step before, bit for bit, in float32 too."""
    cell, steps = cells.MIN_GRU, 200
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), 2, 8))
    inputs = ScanInputs(
        random_like(random, shapes),
        jnp.asarray(random.normal(size=(steps, 2, 2)), jnp.float32),
        jnp.asarray(random.normal(size=(steps, 8)), jnp.float32),
        *[cells.MIN_GRU.carry(jnp.asarray(random.normal(size=(2, 8)), jnp.float32))] * 2,
    )
    spec = ScanSpec(cell, switches.triangular(), "float32")
    h = np.asarray(jax.jit(lambda inputs: parallel.scan(spec, inputs))(inputs).h)
    assert associative == {"_associative"}
    before = np.concatenate([inputs.initial_carry.h[None], h[:-1]])
    closed = np.broadcast_to(np.asarray(inputs.logits)[:, None] <= 0, h.shape)
    np.testing.assert_array_equal(h[closed].view(np.uint32), before[closed].view(np.uint32))
    want = BACKENDS["reference"].scan(spec, inputs).h
    # Gates are at most 1, so rounding adds up over the steps that are still remembered only.
    np.testing.assert_allclose(h, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["min_gru", full("min_lstm")])
def test_a_long_sequence_is_the_equation(name):
    """A thousand steps against a NumPy loop, reversed, with a carry, and step by step."""
    unit = selective(name, switches.every(9, n=3))
    random = np.random.default_rng(3)
    x = random.normal(size=(1000, 2, 3))
    params = random_like(
        random, jax.eval_shape(lambda: unit.init(jax.random.key(0), x, 4, jnp.float64))
    )
    start = unit.cell.carry(jnp.asarray(random.normal(size=(2, 4))))
    call = jax.jit(lambda x, carry: run(unit, params, x, carry=carry, backend="parallel"))
    done = call(x, tuple(start))
    state, theirs = tuple(map(np.asarray, start)), jax.tree.map(np.asarray, params["cell"])
    for t in range(1000):
        if t % 3 == 0:
            state = core_oracle.step(name, theirs, state, x[t])
        np.testing.assert_allclose(done.outputs[t], state[0], rtol=1e-10, atol=1e-12)
    half = call(x[:500], tuple(start))
    assert_close(call(x[500:], half.carry).outputs, done.outputs[500:])


def test_which_cells_are_linear_in_their_state():
    assert [cell.name for cell in cells.CELLS.values() if cell.linear] == LINEAR

    def changed(rule):
        return dataclasses.replace(
            cells.MIN_GRU, rule=lambda p, c, z, u: cells.MIN_GRU.carry(rule(c.h, z["n"]))
        )

    for rule in (
        lambda h, n: 2 * h - n,
        lambda h, n: h / (1 + n**2),
        lambda h, n: jnp.where(n > 0, h, n),
        lambda h, n: jax.jit(lambda a: 3 * a)(h),
        lambda h, n: n,
    ):
        assert changed(rule).linear
    for rule in (
        lambda h, n: h * h,
        lambda h, n: n / h,
        lambda h, n: jnp.maximum(h, n),
        lambda h, n: jnp.where(h > 0, h, n),
        lambda h, n: jnp.round(h),
        lambda h, n: jax.nn.relu(h) + n,
        lambda h, n: jax.jit(lambda a: a * a)(h),
        lambda h, n: h + h[..., ::-1],
    ):
        assert not changed(rule).linear


def test_other_cells_are_passed_on():
    spec, inputs = ScanSpec(cells.GRU, None, "float64"), _inputs(cells.GRU, None, steps=3)
    assert_close(parallel.scan(spec, inputs), BACKENDS["masked"].scan(spec, inputs))
    assert parallel.unsupported(spec, None) == "gru is not linear in its state"


@pytest.mark.parametrize(
    ("cell", "sizes", "platform", "chosen"),
    [
        ("min_gru", (64, 1024, 4), "cpu", True),
        ("min_gru", (256, 1024, 16), "cpu", False),
        ("min_lstm", (256, 1024, 16), "gpu", True),
        ("min_lstm", (256, 16, 16), "gpu", False),
        ("gru", (64, 1024, 4), "cpu", False),
    ],
)
def test_auto_takes_it_for_small_layers_and_on_accelerators(cell, sizes, platform, chosen):
    choice = auto.choose(selective(cell, None), *sizes, platform=platform)
    assert (choice.backend == "parallel") == chosen
    assert choice.costs.get("parallel", math.inf) < math.inf or not chosen
