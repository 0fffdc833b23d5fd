"""Cells that users ask for, against their equations and other people's cells, on every back end."""

import core_oracle
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import (
    BACK_ENDS,
    SWITCHES,
    ZOO,
    assert_close,
    cotangents,
    gradients,
    problem,
    random_like,
    solve,
    switch,
)
from tiers import tiered

from surnn_jax import cells, run, selective

pytestmark = pytest.mark.usefixtures("float64", "compiled_back_ends")
BATCH, INPUTS, FEATURES = 3, 2, 6
each_cell = pytest.mark.parametrize("name", ZOO)


def _setting(name, steps=4, seed=0):
    """Parameters and a state away from every initial value, and inputs."""
    random, cell = np.random.default_rng(seed), cells.get(name)
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), INPUTS, FEATURES, jnp.float64))
    params = random_like(random, shapes)
    carry = random_like(random, cell.initial_carry(params, (BATCH,)))
    return cell, params, carry, jnp.asarray(random.normal(size=(steps, BATCH, INPUTS)))


@each_cell
def test_step_is_the_equation(name):
    cell, params, carry, x = _setting(name)
    theirs, state = jax.tree.map(np.asarray, (params, tuple(carry)))
    for frame in x:
        carry = cell.step(params, carry, frame)
        state = core_oracle.step(name, theirs, state, np.asarray(frame))
        for got, want in zip(carry, state, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


def _checks(backend):
    """Every cell with a table that the batch shares and one for each example, in turn."""
    if backend == "parallel":
        return ["rg_lru"]
    return [] if backend == "pallas" else ZOO


PAIRS = [(n, b, k) for b in BACK_ENDS[1:] for n in _checks(b) for k in (None, 0, 3)]
# One that all back ends know, one whose neurons are mixed, one with a state of three fields.
KEPT = [
    ("mgu", "masked", 0),
    ("gru_layer_norm", "masked", 0),
    ("slstm", "masked", 0),
    ("ind_rnn", "rows", 0),
    ("rg_lru", "parallel", 3),
]


@pytest.mark.parametrize(("name", "backend", "kind"), tiered(PAIRS, KEPT))
def test_promise_1_back_end_equals_reference(name, backend, kind):
    """Values and all gradients, with lengths, mask, resets where the table is no one's own."""
    unit = selective(name, None if kind is None else switch(SWITCHES[kind]))
    seed = ZOO.index(name)
    task = problem(unit, seed, resets=kind != 0)
    if name == "slstm":  # what a state is divided by is positive
        task.free["cell"] = task.free["cell"]._replace(n=jnp.abs(task.free["cell"].n) + 0.5)
        reset = task.free["reset_carry"]
        task.free["reset_carry"] = reset._replace(n=jnp.abs(reset.n) + 0.5)
    weights = cotangents(seed, solve(unit, *task, "reference"))
    want = gradients(unit, task, weights, "reference")
    assert_close(gradients(unit, task, weights, backend), want, rtol=1e-8, atol=1e-10)


def test_mgu_is_flax_s():
    cell, params, carry, x = _setting("mgu")
    W, U, p = (params[kind] for kind in ("input", "recurrent", "vector"))
    theirs = {
        "if": {"kernel": W["f"], "bias": p["b_f"]},
        "in": {"kernel": W["n"], "bias": p["b_n"]},
        "hf": {"kernel": U["f"]},
        "hn": {"kernel": U["n"], "bias": p["c_n"]},
    }
    module = nn.MGUCell(FEATURES, dtype=jnp.float64, param_dtype=jnp.float64)
    h = carry.h
    for frame in x:
        carry = cell.step(params, carry, frame)
        h = module.apply({"params": theirs}, h, frame)[1]
        np.testing.assert_allclose(carry.h, h, rtol=1e-12, atol=1e-14)
    assert dict(cell.vectors)["b_f"] == 1, "as Flax's forget_bias_init"


def test_ind_rnn_begins_with_long_memories_and_takes_another_function():
    v = cells.IND_RNN.init(jax.random.key(0), 1, 4000)["vector"]["v"]
    assert v.min() >= 0
    assert v.max() <= 1
    np.testing.assert_allclose([v.mean(), v.std()], [0.5, 12**-0.5], atol=0.02)
    cell = cells.variant(cells.IND_RNN, activation_fn=jnp.tanh)
    _, params, carry, x = _setting("ind_rnn")
    want = np.tanh(
        x[0] @ params["input"]["h"]
        + params["vector"]["v"][None] * carry.h
        + params["vector"]["b"][None]
    )
    np.testing.assert_allclose(cell.step(params, carry, x[0]).h, want, rtol=1e-12)


def test_rg_lru_begins_on_the_ring_and_has_a_slope_where_it_holds_all():
    decay = cells.RG_LRU.init(jax.random.key(0), 1, 4000)["vector"]["decay"]
    whole = np.exp(-8 * np.log1p(np.exp(np.asarray(decay, np.float64))))
    assert 0.9 - 1e-4 < whole.min() < 0.901
    assert 0.998 < whole.max() < 0.999 + 1e-4
    np.testing.assert_allclose(whole.mean(), 0.9495, atol=2e-3)
    cell, params, carry, x = _setting("rg_lru")
    params["vector"]["b_r"] -= 1e4  # the gate is 0 exactly, and so is what the root is taken of

    def loss(params):
        return jnp.sum(cell.step(params, carry, x[0]).h)

    value, grad = jax.value_and_grad(loss)(params)
    np.testing.assert_allclose(value, carry.h.sum(), rtol=1e-4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grad))


@pytest.mark.parametrize("shift", [0.0, 300.0, -300.0])
def test_slstm_is_the_equation_without_its_scale(shift):
    """Exponential gates as the paper has them before it stabilises them; in float32 they would
    overflow at 89, here they may be e^300 from the first step on."""
    unit = selective("slstm", None)
    _, params, _, x = _setting("slstm", steps=9)
    params["vector"]["b_i"] = params["vector"]["b_i"] + shift
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    W, U, p = (jax.tree.map(np.asarray, params[k]) for k in ("input", "recurrent", "vector"))
    c = n = h = np.zeros((BATCH, FEATURES))
    want = []
    for frame in np.asarray(x):
        i, f, g, o = (frame @ W[k] + h @ U[k] + p[f"b_{k}"] for k in "ifgo")
        c = core_oracle.sigmoid(f) * c + np.exp(i) * np.tanh(g)
        n = core_oracle.sigmoid(f) * n + np.exp(i)
        h = core_oracle.sigmoid(o) * c / n
        want.append(h)
    got = run(unit, {"cell": params}, x, backend="masked").outputs
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    half = run(unit, {"cell": narrow}, x.astype(jnp.float32), backend="masked").outputs
    np.testing.assert_allclose(half, want, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["gru_layer_norm", "lstm_layer_norm"])
def test_normalised_cells_do_not_feel_the_scale_of_their_weights(name):
    """What layer normalisation is for: kernels ten times as large change next to nothing."""
    cell, params, carry, x = _setting(name)
    large = {
        **params,
        **{k: jax.tree.map(lambda w: 10 * w, params[k]) for k in ("input", "recurrent")},
    }
    one, two = (cell.step(p, carry, x[0]) for p in (params, large))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    assert not cell.pointwise


@each_cell
def test_it_can_be_made_and_begun(name):
    cell = cells.get(name)
    params = cell.init(jax.random.key(1), INPUTS, FEATURES, jnp.float32)
    assert set(params["vector"]) == {vector for vector, _ in cell.vectors}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert cell.carry._fields[-1] == "h"
    carry = cell.initial_carry(params, (BATCH,))
    x = jnp.ones((BATCH, INPUTS), jnp.float32)
    for leaf in cell.step(params, carry, x):
        assert np.isfinite(leaf).all()
