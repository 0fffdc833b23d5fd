"""Cells against their equations and against other people's cells."""

import core_oracle
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import CELLS, label, random_like
from flax_case import flax_params

from surnn_jax import cells

each_cell = pytest.mark.parametrize("cell", CELLS, ids=label)
pytestmark = pytest.mark.usefixtures("float64")


def _setting(cell, steps=4, batch=3, inputs=2, features=5, seed=0):
    """Parameters and a state away from every initial value, and inputs."""
    random = np.random.default_rng(seed)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), inputs, features, jnp.float64))
    params = random_like(random, params)
    carry = random_like(random, cell.initial_carry(params, (batch,)))
    return params, carry, jnp.asarray(random.normal(size=(steps, batch, inputs)))


def _outputs(cell, params, carry, x):
    outputs = []
    for frame in x:
        carry = cell.step(params, carry, frame)
        outputs.append(carry.h)
    return np.stack(outputs)


@each_cell
def test_step_is_the_equation(cell):
    params, carry, x = _setting(cell)
    theirs, state = jax.tree.map(np.asarray, (params, tuple(carry)))
    for frame in x:
        carry = cell.step(params, carry, frame)
        state = core_oracle.step(cell.name, theirs, state, np.asarray(frame))
        assert carry._fields[-1] == "h"
        for got, want in zip(carry, state, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


STOCK = {
    "tanh": nn.SimpleCell,
    "gru": nn.GRUCell,
    "lstm": nn.LSTMCell,
    "lstm_optimised": nn.OptimizedLSTMCell,
}


@pytest.mark.parametrize("name", STOCK)
def test_equals_flax_with_copied_weights(name):
    cell = cells.get(name.removesuffix("_optimised"))
    params, carry, x = _setting(cell)
    theirs = flax_params(name, params)
    module = STOCK[name](features=5, dtype=jnp.float64, param_dtype=jnp.float64)
    # The names and shapes are those that Flax itself would make.
    state, outputs = tuple(carry) if len(carry) > 1 else carry.h, []
    made = jax.eval_shape(lambda: module.init(jax.random.key(0), state, x[0]))["params"]
    assert jax.tree.map(jnp.shape, theirs) == jax.tree.map(jnp.shape, made)
    for frame in x:
        state, out = module.apply({"params": theirs}, state, frame)
        outputs.append(out)
    np.testing.assert_allclose(_outputs(cell, params, carry, x), np.stack(outputs), 1e-12, 1e-14)


@pytest.mark.parametrize("name", ["tanh", "gru", "lstm"])
def test_equals_torch_with_copied_weights(name):
    torch = pytest.importorskip("torch", reason="compared where PyTorch happens to be installed")
    cell = cells.get(name)
    params, carry, x = _setting(cell)
    W, U, p = (jax.tree.map(np.asarray, params[k]) for k in ("input", "recurrent", "vector"))
    gates, make = {
        "tanh": ("h", torch.nn.RNNCell),
        "gru": ("rzn", torch.nn.GRUCell),
        "lstm": ("ifgo", torch.nn.LSTMCell),
    }[name]
    module = make(2, 5, dtype=torch.float64)
    first = [p["b"] if name == "tanh" else p[f"b_{g}"] for g in gates]
    second = [
        p["c_n"] if (name, g) == ("gru", "n") else 0 * p_g
        for g, p_g in zip(gates, first, strict=True)
    ]
    copied = {
        "weight_ih": np.concatenate([W[g].T for g in gates]),
        "weight_hh": np.concatenate([U[g].T for g in gates]),
        "bias_ih": np.concatenate(first),
        "bias_hh": np.concatenate(second),
    }
    module.load_state_dict({k: torch.from_numpy(v) for k, v in copied.items()})
    h = torch.tensor(np.asarray(carry.h))
    state = (h, torch.tensor(np.asarray(carry.c))) if name == "lstm" else h
    outputs = []
    with torch.no_grad():
        for frame in np.asarray(x):
            state = module(torch.tensor(frame), state)
            outputs.append((state[0] if name == "lstm" else state).numpy())
    np.testing.assert_allclose(_outputs(cell, params, carry, x), np.stack(outputs), 1e-12, 1e-14)


@each_cell
def test_rule_is_pointwise(cell):
    """Neuron 0 of a step's result knows nothing of the other neurons of its arguments."""
    params, carry, x = _setting(cell)
    z = cell.project(params, x[0])
    u = cell.recur(params, carry.h)
    arguments = (carry, z, u if cell.pointwise else {**u, "n": 0.5 * z["n"]})
    want = cell.update(params, *arguments)
    others = jax.tree.map(lambda leaf: leaf.at[:, 1:].add(1.0), arguments)
    for got, before in zip(cell.update(params, *others), want, strict=True):
        np.testing.assert_array_equal(got[:, 0], before[:, 0])
        assert (got[:, 1:] != before[:, 1:]).any()


def test_reset_before_the_product_is_the_one_that_mixes_neurons():
    assert [cell.name for cell in CELLS if not cell.pointwise] == ["gru_before"]
    # The reset gate of neuron 0 is heard by the others; with reset after the product it is not.
    for cell, heard in ((cells.GRU_BEFORE, True), (cells.GRU, False)):
        params, carry, x = _setting(cell)
        want = cell.step(params, carry, x[0]).h
        params["vector"]["b_r"] = params["vector"]["b_r"].at[0].add(1.0)
        got = cell.step(params, carry, x[0]).h
        assert (got[:, 0] != want[:, 0]).all()
        assert (got[:, 1:] != want[:, 1:]).all() == heard


@pytest.mark.parametrize(
    ("cell", "features", "parameters"),
    [("tanh", 400, 168_400), ("lstm_peephole", 195, 169_065), ("gru_before", 227, 168_888)],
)
def test_parameter_counts_of_chung(cell, features, parameters):
    """The speech models of Chung et al. 2014: 20 inputs, the recurrent layer alone."""
    assert cells.get(cell).count(20, features) == parameters


@each_cell
def test_init(cell):
    made = cell.init(jax.random.key(1), 6, 5, jnp.float64)
    assert all(made.values()), "an empty entry"
    params = cell.expanded(made)
    assert set(params["input"]) == set(cell.inputs)
    assert set(params["recurrent"]) == set(cell.recurrent + cell.inner_recurrent)
    assert {name: float(v[0]) for name, v in params["vector"].items()} == dict(cell.vectors)
    leaves = jax.tree.leaves(params)
    assert all(leaf.dtype == jnp.float64 for leaf in leaves)
    assert cell.count(6, 5) == sum(leaf.size for leaf in leaves)
    for kernel in params["recurrent"].values():
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(5), atol=1e-12)
    kernels = [*params["input"].values(), *params["recurrent"].values()]
    assert len({float(k.ravel()[0]) for k in kernels}) == len(kernels), "gates share a draw"
    again = cell.init(jax.random.key(1), 6, 5, jnp.float64)
    jax.tree.map(np.testing.assert_array_equal, made, again)


@each_cell
def test_initial_carry_is_zero_and_never_narrower_than_float32(cell):
    for dtype, wanted in (("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")):
        params = {"input": {cell.inputs[0]: jnp.zeros((2, 5), dtype)}}
        for leaf in cell.initial_carry(params, (3, 2)):
            assert leaf.shape == (3, 2, 5)
            assert leaf.dtype == wanted
            assert not leaf.any()


def test_lstm_forgets_nothing_at_first():
    assert dict(cells.LSTM.vectors)["b_f"] == dict(cells.LSTM_PEEPHOLE.vectors)["b_f"] == 1


def test_products_round_their_operands_only():
    """In bfloat16 products the sum is kept in float32: 256 + 1 is not 256."""
    x = jnp.asarray([[256.0, 1.0]], jnp.float32)
    params = {"input": {"h": jnp.ones((2, 1), jnp.float32)}}
    z = cells.TANH.project(params, x, jnp.bfloat16)["h"]
    assert z.dtype == jnp.float32
    assert z[0, 0] == 257
    third = cells.TANH.project(params, x / 3, jnp.bfloat16)["h"][0, 0]
    assert third == float(jnp.bfloat16(256 / 3)) + float(jnp.bfloat16(1 / 3)) != np.float32(257 / 3)


def test_get():
    assert cells.get("gru") is cells.GRU is cells.get(cells.GRU)
    with pytest.raises(
        ValueError, match=r"unknown cell 'gnu'; did you mean 'gru'\? One of: tanh, gru, gru_before"
    ):
        cells.get("gnu")


@pytest.mark.parametrize(("inputs", "features"), [(0, 3), (3, 0), (-1, 3)])
def test_sizes_must_be_positive(inputs, features):
    with pytest.raises(ValueError, match=r"tanh: (inputs|features) must be at least 1, got (0|-1)"):
        cells.TANH.init(jax.random.key(0), inputs, features)


def test_the_candidate_of_the_log_space_form_is_positive():
    """g of arXiv 2410.01201, appendix B: v + 0.5 from 0 on, σ(v) below."""
    cell = cells.get("min_gru_log")
    params, carry, x = _setting(cell)
    got = cell.step(params, carry, x[0]).h
    kernels, vectors = params["input"], params["vector"]
    z = jax.nn.sigmoid(x[0] @ kernels["z"] + vectors["b_z"][None])
    v = x[0] @ kernels["n"] + vectors["b_n"][None]
    assert (v > 0).any()
    assert (v < 0).any()
    n = np.where(v >= 0, v + 0.5, 1 / (1 + np.exp(-v)))
    np.testing.assert_allclose(got, (1 - z) * carry.h + z * n, rtol=1e-12)
