"""Weights that come from other libraries give their outputs, and go back as they came."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.paths import ROOT
from surnn_jax.layers import Recurrent, weights

STEPS, BATCH, INPUTS, FEATURES = 5, 2, 3, 4
X = np.random.default_rng(0).normal(size=(BATCH, STEPS, INPUTS)).astype(np.float32)
CELLS = {
    "tanh": nn.SimpleCell(FEATURES),
    "gru": nn.GRUCell(FEATURES),
    "lstm": nn.OptimizedLSTMCell(FEATURES),
}


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def outputs(params, cell):
    layer = Recurrent(cell, FEATURES, backend="reference")
    return jax.jit(layer.apply)({"params": jax.tree.map(jnp.asarray, params)}, X)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def loop(step, first):
    """Outputs ``[B, T, H]`` of a step of another library, in float64."""
    state, found = first, []
    for t in range(STEPS):
        state = step(X[:, t].astype(np.float64), *state)
        found.append(state[0])
    return np.stack(found, axis=1)


ZERO = np.zeros((BATCH, FEATURES))


@pytest.mark.parametrize("cell", CELLS)
def test_flax(cell):
    theirs = nn.RNN(CELLS[cell])
    variables = theirs.init(jax.random.key(0), X)
    drawn = jax.tree.map(lambda leaf: random(*leaf.shape), variables["params"]["cell"])
    ours = weights.from_flax(drawn, cell)
    want = theirs.apply({"params": {"cell": drawn}}, X)
    np.testing.assert_allclose(outputs(ours, cell), want, atol=1e-5)
    back = weights.to_flax(ours, cell)
    assert jax.tree.structure(back) == jax.tree.structure(drawn)
    for one, other in zip(*map(jax.tree.leaves, (back, drawn)), strict=True):
        np.testing.assert_array_equal(one, other)


def torch_state(cell, end=""):
    rows = {"tanh": 1, "gru": 3, "lstm": 4}[cell] * FEATURES
    shapes = {"weight_ih": (rows, INPUTS), "weight_hh": (rows, FEATURES)}
    shapes |= {"bias_ih": (rows,), "bias_hh": (rows + 0,)}
    return {f"{name}_l0{end}": i + random(*shape) for i, (name, shape) in enumerate(shapes.items())}


def torch_loop(state, cell, end=""):
    """The equations of PyTorch's documentation."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_x, w_h, b_x, b_h = (state[f"{name}_l0{end}"].astype(np.float64) for name in names)

    def step(x, h, c=None):
        a, b = x @ w_x.T + b_x, h @ w_h.T + b_h
        if cell == "tanh":
            return (np.tanh(a + b),)
        if cell == "gru":
            (r_x, z_x, n_x), (r_h, z_h, n_h) = (np.split(v, 3, -1) for v in (a, b))
            z = sigmoid(z_x + z_h)
            return ((1 - z) * np.tanh(n_x + sigmoid(r_x + r_h) * n_h) + z * h,)
        i, f, g, o = np.split(a + b, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    return loop(step, (ZERO, ZERO) if cell == "lstm" else (ZERO,))


@pytest.mark.parametrize("end", ["", "_reverse"])
@pytest.mark.parametrize("cell", CELLS)
def test_torch(cell, end):
    state = torch_state(cell, end)
    ours = weights.from_torch(state, cell, reverse=bool(end))
    np.testing.assert_allclose(outputs(ours, cell), torch_loop(state, cell, end), atol=1e-5)
    again = weights.to_torch(ours, cell, reverse=bool(end))
    np.testing.assert_allclose(
        torch_loop(again, cell, end), torch_loop(state, cell, end), atol=1e-6
    )
    assert again.keys() == state.keys()


def keras_arrays(cell):
    columns = {"tanh": 1, "lstm": 4}.get(cell, 3) * FEATURES
    bias = random(2, columns) if cell == "gru" else random(columns)
    return [random(INPUTS, columns), random(FEATURES, columns), bias]


def keras_loop(arrays, cell):
    """The equations of Keras."""
    kernel, recurrent, bias = (array.astype(np.float64) for array in arrays)

    def step(x, h, c=None):
        if cell == "tanh":
            return (np.tanh(x @ kernel + h @ recurrent + bias),)
        if cell == "lstm":
            i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4, -1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            return sigmoid(o) * np.tanh(c), c
        after = cell == "gru"
        z_x, r_x, h_x = np.split(x @ kernel + (bias[0] if after else bias), 3, -1)
        u_z, u_r, u_h = np.split(recurrent, 3, -1)
        b = np.split(bias[1] if after else np.zeros(3 * FEATURES), 3)
        z, r = sigmoid(z_x + h @ u_z + b[0]), sigmoid(r_x + h @ u_r + b[1])
        candidate = np.tanh(h_x + (r * (h @ u_h + b[2]) if after else (r * h) @ u_h))
        return (z * h + (1 - z) * candidate,)

    return loop(step, (ZERO, ZERO) if cell == "lstm" else (ZERO,))


@pytest.mark.parametrize("cell", [*CELLS, "gru_before"])
def test_keras(cell):
    arrays = keras_arrays(cell)
    ours = weights.from_keras(arrays, cell)
    np.testing.assert_allclose(outputs(ours, cell), keras_loop(arrays, cell), atol=1e-5)
    again = weights.to_keras(ours, cell)
    assert [array.shape for array in again] == [array.shape for array in arrays]
    np.testing.assert_allclose(keras_loop(again, cell), keras_loop(arrays, cell), atol=1e-6)


STORED = dict(np.load(ROOT / "tests" / "fixtures" / "other_libraries.npz"))
"""What PyTorch and Keras computed; the script beside it made it."""
CASES = sorted({name.rpartition("/")[0] for name in STORED} - {""})


def case(name):
    """The weights of a stored layer, and the outputs and last states of the other library."""
    own = {n.rpartition("/")[2]: leaf for n, leaf in STORED.items() if n.startswith(f"{name}/")}
    answers = {n: own.pop(n) for n in ("y", "h", "c") if n in own}
    return own, answers


def both_ways(layers, cell):
    """Outputs ``[B, T, 2 H]`` and last states ``[2, B, H]`` of a pair of layers for each depth."""

    @jax.jit
    def run(layers):
        x, last = STORED["x"], []
        for pair in layers:
            ways = [
                Recurrent(
                    cell, FEATURES, backend="masked", return_carry=True,
                    reverse=back, keep_order=back,
                ).apply({"params": params}, x)
                for back, params in enumerate(pair)
            ]  # fmt: skip
            last += [carry for carry, _ in ways]
            x = jnp.concatenate([y for _, y in ways], axis=-1)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *last)

    return run(layers)


def test_the_stored_layers_are_all_there():
    assert set(CASES) == {
        *(f"torch/{cell}{end}" for cell in CELLS for end in ("", "-once")),
        *(f"keras/{cell}" for cell in (*CELLS, "gru_before")), "keras/gru-once",
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("torch")])
def test_what_pytorch_computed(name):
    cell, _, once = name.removeprefix("torch/").partition("-")
    state, answers = case(name)
    layers = [
        [weights.from_torch(state, cell, layer=n, reverse=back) for back in (False, True)]
        for n in range(2)
    ]
    y, last = both_ways(layers, cell)
    np.testing.assert_allclose(y, answers.pop("y"), atol=2e-6)
    for field, leaf in answers.items():
        np.testing.assert_allclose(getattr(last, field), leaf, atol=2e-6)
    back = {}
    for n, pair in enumerate(layers):
        for reverse, params in enumerate(pair):
            back |= weights.to_torch(params, cell, layer=n, reverse=bool(reverse))
    assert {n: leaf.shape for n, leaf in back.items()} == {n: v.shape for n, v in state.items()}
    if once:  # What PyTorch computed with is what we would give it.
        for n, leaf in state.items():
            np.testing.assert_array_equal(back[n], leaf, err_msg=n)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("keras")])
def test_what_keras_computed(name):
    cell, _, once = name.removeprefix("keras/").partition("-")
    state, answers = case(name)
    arrays = [state[str(i)] for i in range(len(state))]
    halves = arrays[: len(arrays) // 2], arrays[len(arrays) // 2 :]
    pair = [weights.from_keras(half, cell) for half in halves]
    y, last = both_ways([pair], cell)
    np.testing.assert_allclose(y, answers.pop("y"), atol=2e-6)
    for field, leaf in answers.items():
        np.testing.assert_allclose(getattr(last, field), leaf, atol=2e-6)
    back = [array for params in pair for array in weights.to_keras(params, cell)]
    assert [array.shape for array in back] == [array.shape for array in arrays]
    if once or cell != "gru":
        for one, other in zip(back, arrays, strict=True):
            np.testing.assert_array_equal(one, other)


def test_without_biases_they_are_0():
    state = {k: v for k, v in torch_state("lstm").items() if k.startswith("weight")}
    assert not any(
        leaf.any() for leaf in weights.from_torch(state, "lstm")["cell"]["vector"].values()
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: weights.from_torch({}, "gruu"), "did you mean 'gru'"),
        (lambda: weights.from_torch(torch_state("gru"), layer=1), "no weight_ih_l1 in it; it has"),
        (lambda: weights.to_flax({}, "gru_before"), "one of: tanh, gru, lstm"),
    ],
)
def test_what_there_is_not(call, words):
    with pytest.raises(ValueError, match=words):
        call()
