"""What Flax's cells and layers take: functions, biases, dtypes, integers, dropout."""

import functools
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax_case import flax_params
from layer_case import (
    BATCH,
    CLOSE,
    EXACTLY,
    FEATURES,
    INPUTS,
    STEPS,
    SWITCHES,
    close,
    data,
    drawn,
)
from tiers import full

from data.paths import ROOT
from surnn_jax import cells, scan
from surnn_jax.layers import Recurrent, UnitCell
from surnn_jax.scan import BACKENDS, native

X = data(BATCH, STEPS, INPUTS)


@pytest.mark.parametrize(
    ("name", "stock", "options"),
    [
        ("gru", nn.GRUCell, {"gate_fn": jax.nn.hard_sigmoid, "activation_fn": jax.nn.elu}),
        ("lstm", nn.LSTMCell, {"gate_fn": jax.nn.relu, "activation_fn": jax.nn.soft_sign}),
        ("tanh", nn.SimpleCell, {"activation_fn": jax.nn.relu}),
    ],
)
def test_functions_are_those_that_flax_takes(name, stock, options):
    cell = cells.variant(cells.get(name), **options)
    layer = Recurrent(cell, FEATURES, backend="masked")
    params = drawn(layer, X)
    theirs = nn.RNN(stock(FEATURES, **options))
    variables = {"params": {"cell": flax_params(name, params["cell"])}}
    got = jax.jit(layer.apply)({"params": params}, X)
    np.testing.assert_allclose(got, jax.jit(theirs.apply)(variables, X), **CLOSE)
    # A variant made twice is one cell, so that nothing is compiled twice; and it is pointwise.
    assert cell == cells.variant(cells.get(name), **options)
    assert hash(cell) == hash(cells.variant(cells.get(name), **options))
    assert cell.pointwise
    assert cells.variant(cells.get(name)) is cells.get(name)


def waves(scale):
    """An initializer that needs no key, so that two layouts of keys give the same numbers."""

    def draw(key, shape, dtype=jnp.float32):
        del key
        return scale * jnp.cos(jnp.arange(np.prod(shape), dtype=dtype)).reshape(shape)

    return draw


DRAWN = {
    "kernel_init": waves(0.5),
    "recurrent_kernel_init": waves(0.3),
    "bias_init": waves(0.2),
}


@pytest.mark.parametrize(
    ("name", "stock", "functions"),
    [
        ("gru", nn.GRUCell, {"gate_fn": jax.nn.hard_sigmoid, "activation_fn": jax.nn.elu}),
        ("lstm", nn.LSTMCell, {"gate_fn": jax.nn.hard_sigmoid}),
        ("lstm", nn.OptimizedLSTMCell, {"activation_fn": jax.nn.soft_sign}),
        ("tanh", nn.SimpleCell, {"activation_fn": jax.nn.relu}),
    ],
)
@pytest.mark.parametrize("form", [Recurrent, full(UnitCell)])
def test_options_of_layers_are_those_of_a_flax_cell(form, name, stock, functions):
    """Drawn alike and computed alike, by the same arguments."""
    ours = form(name, FEATURES, **functions, **DRAWN)
    ours = nn.RNN(ours) if form is UnitCell else ours
    theirs = nn.RNN(stock(FEATURES, **functions, **DRAWN))
    got, variables = jax.jit(ours.init_with_output)(jax.random.key(0), X)
    want, other = jax.jit(theirs.init_with_output)(jax.random.key(1), X)
    params = variables["params"]
    params = params["cell"] if form is UnitCell else params
    close(flax_params(name, params["cell"]), other["params"]["cell"], **EXACTLY)
    np.testing.assert_allclose(got, want, **CLOSE)


def softmax_of_layer(a):
    """No pointwise function: a neuron sees all others."""
    return jax.nn.softmax(a, axis=-1)


@pytest.mark.parametrize("function", [jax.nn.hard_sigmoid, full(softmax_of_layer)])
def test_every_back_end_computes_other_functions_or_says_that_it_cannot(function):
    layer = Recurrent("gru", FEATURES, SWITCHES["fourier"], gate_fn=function)
    params = {"params": drawn(layer, X)}
    want = jax.jit(layer.clone(backend="reference").apply)(params, X)
    for name in (*BACKENDS, "auto"):
        got = jax.jit(layer.clone(backend=name).apply)(params, X)
        np.testing.assert_allclose(got, want, err_msg=name, **CLOSE)
    told = scan.explain(layer.unit, FEATURES, STEPS, BATCH)
    assert "native: the kernel does not know the cell gru with other functions" in told
    assert ("rows: gru needs all neurons" in told) == (function is softmax_of_layer)


def test_the_usual_functions_by_name_and_other_first_values_leave_the_kernel_its_cell():
    usual = {"gate_fn": nn.sigmoid, "activation_fn": nn.tanh}
    assert Recurrent("lstm", FEATURES, **usual).unit == Recurrent("lstm", FEATURES).unit
    unit = Recurrent("gru", FEATURES, **DRAWN).unit
    assert "does not know the cell" not in scan.explain(unit, FEATURES, STEPS, BATCH)


def test_a_variant_of_a_variant_has_the_options_of_both():
    bare = cells.variant(cells.GRU, gate_fn=jax.nn.hard_sigmoid, use_bias=False)
    both = cells.variant(bare, activation_fn=jax.nn.elu, kernel_init=DRAWN["kernel_init"])
    assert both == cells.variant(
        cells.GRU,
        gate_fn=jax.nn.hard_sigmoid,
        activation_fn=jax.nn.elu,
        use_bias=False,
        kernel_init=DRAWN["kernel_init"],
    )
    # Back again: what a cell has without being asked.
    assert cells.variant(bare, gate_fn=jax.nn.sigmoid).rule != bare.rule


@pytest.mark.parametrize("name", ["tanh", "gru", "gru_before", "lstm_peephole"])
def test_without_biases_is_with_biases_of_0(name):
    whole = cells.get(name)
    cell = cells.variant(whole, use_bias=False)
    layer = Recurrent(cell, FEATURES)
    params = drawn(layer, X)
    peepholes = {"v_i", "v_f", "v_o"} if name == "lstm_peephole" else set()
    vectors = params["cell"].get("vector", {})
    assert set(vectors) == peepholes
    zeros = {k: jnp.zeros(FEATURES) for k, _ in whole.vectors if k not in peepholes}
    full = {"cell": {**params["cell"], "vector": vectors | zeros}}
    want = jax.jit(Recurrent(whole, FEATURES).apply)({"params": full}, X)
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": params}, X), want, **CLOSE)


def test_a_variant_that_cannot_be_is_named():
    with pytest.raises(ValueError, match=r"^tanh has no gate_fn$"):
        cells.variant(cells.TANH, gate_fn=jax.nn.relu)
    with pytest.raises(ValueError, match=r"^min_gru has no activation_fn$"):
        cells.variant(cells.MIN_GRU, activation_fn=jax.nn.relu)
    bare = cells.variant(cells.TANH, use_bias=False)
    with pytest.raises(ValueError, match=r"^tanh has no bias$"):
        cells.variant(bare, use_bias=False)
    with pytest.raises(ValueError, match=r"^tanh has no bias$"):
        cells.variant(bare, bias_init=nn.initializers.ones)
    # A layer says so when it is made.
    with pytest.raises(ValueError, match=r"^rg_lru has no recurrent kernel$"):
        Recurrent("rg_lru", FEATURES, recurrent_kernel_init=nn.initializers.ones)
    with pytest.raises(ValueError, match=r"^tanh has no gate_fn$"):
        UnitCell("sutanh", FEATURES, gate_fn=jax.nn.relu)


@pytest.mark.parametrize("dtype", [jnp.int32, full(jnp.uint8), full(jnp.bool_)])
def test_integer_inputs_are_promoted_as_flax_does(dtype):
    whole = (X > 0.5).astype(dtype)
    layer = Recurrent("gru", FEATURES, SWITCHES["event"], backend="masked")
    params = {"params": drawn(layer, X)}
    apply = jax.jit(layer.apply)
    want = apply(params, whole.astype(jnp.float32))
    got = apply(params, whole)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, want)
    carry = layer.apply(params, (BATCH,), method="initial_carry")
    step = jax.jit(functools.partial(layer.apply, method="step"))
    np.testing.assert_allclose(step(params, carry, whole[:, 0])[1], want[:, 0], **CLOSE)
    cell = UnitCell("gru", FEATURES, SWITCHES["event"])
    one = jax.jit(cell.apply)(params, carry, whole[:, 0])[1]
    np.testing.assert_allclose(one, want[:, 0], **CLOSE)
    plain = flax_params("gru", params["params"]["cell"])
    with jax.numpy_dtype_promotion("standard"):
        theirs = nn.GRUCell(FEATURES).apply({"params": plain}, want[:, 0] * 0, whole[:, 0])[1]
    assert theirs.dtype == one.dtype
    np.testing.assert_allclose(
        theirs,
        jax.jit(UnitCell("gru", FEATURES).apply)(
            {"params": {"cell": params["params"]["cell"]}}, want[:, 0] * 0, whole[:, 0]
        )[1],
        **CLOSE,
    )


@pytest.mark.full
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_parameters_of_half_the_width(dtype):
    """The numbers of the same parameters in float32; gradients come in the parameters' dtype."""
    layer = functools.partial(Recurrent, "gru", FEATURES, SWITCHES["fourier"], return_run=True)
    dtype = jnp.dtype(dtype)
    half = layer(param_dtype=dtype)
    variables = jax.jit(half.init)(jax.random.key(0), X)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables["params"]["cell"])} == {dtype}
    switch = jax.tree.leaves(variables["params"]["switch"])
    assert {leaf.dtype for leaf in switch} == {jnp.dtype(jnp.float32)}
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), variables)
    names = ["masked", "compact", "rows", *(["native"] if native.available() else [])]
    assert set(names) <= set(BACKENDS)
    want = None
    for name in names:

        @functools.partial(jax.jit, static_argnums=1)
        def loss(variables, dtype, name=name):
            made = layer(param_dtype=dtype, backend=name)
            run = made.apply(variables, X)
            return jnp.sum(jnp.sin(run.outputs)), run

        grad = jax.grad(loss, has_aux=True)
        ours, run = grad(variables, dtype)
        if want is None:
            want, wide_run = grad(wide, jnp.float32)
            close(run.outputs, wide_run.outputs)
        assert {leaf.dtype for leaf in run.carry.cell} == {jnp.dtype(jnp.float32)}
        pair = (ours["params"]["cell"], want["params"]["cell"])
        for one, two in zip(*map(jax.tree.leaves, pair), strict=True):
            assert one.dtype == dtype
            # Rounded once: 8 or 11 bits.
            np.testing.assert_allclose(one.astype(jnp.float32), two, rtol=1e-2, atol=1e-3)


def test_unroll_changes_nothing():
    layer = Recurrent("gru", FEATURES)
    params = {"params": drawn(layer, X)}
    got = Recurrent("gru", FEATURES, unroll=3).apply(params, X)
    np.testing.assert_array_equal(got, layer.apply(params, X))
    assert layer.num_feature_axes == UnitCell("gru", FEATURES).num_feature_axes == 1


def test_recurrent_dropout_is_that_of_the_weights():
    """One mask a call for all steps and rows; what is kept is divided by its share; none without
    a key, and none in a step."""
    rate = 0.4
    layer = Recurrent("gru", FEATURES, recurrent_dropout=rate, backend="masked")
    params = {"params": drawn(layer, X)}
    apply = jax.jit(layer.apply)
    plain = jax.jit(Recurrent("gru", FEATURES, backend="masked").apply)
    np.testing.assert_array_equal(apply(params, X), plain(params, X))
    one, two, again = (apply(params, X, rngs={"dropout": jax.random.key(k)}) for k in (1, 2, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, two)
    # The masks, found from the kernels that the layer itself makes.
    seen = {}
    made = layer.bind(params, rngs={"dropout": jax.random.key(1)})
    for name, kernel in made._dropped(params["params"]["cell"])["recurrent"].items():
        old = params["params"]["cell"]["recurrent"][name]
        kept = np.asarray(kernel) != 0
        np.testing.assert_allclose(kernel, np.where(kept, old / (1 - rate), 0), rtol=1e-6)
        seen[name] = kernel
    masked = {"cell": {**params["params"]["cell"], "recurrent": seen}}
    np.testing.assert_allclose(one, plain({"params": masked}, X), **CLOSE)
    with pytest.raises(ValueError, match=r"^recurrent_dropout must lie in \[0, 1\), got 1.0$"):
        Recurrent("gru", FEATURES, recurrent_dropout=1.0)
    with pytest.raises(ValueError, match=r"^recurrent_dropout: min_gru has no recurrent weights"):
        jax.eval_shape(Recurrent("min_gru", 5, recurrent_dropout=rate).init, jax.random.key(0), X)
    many = Recurrent("tanh", 200, recurrent_dropout=rate)
    made = many.bind({}, rngs={"dropout": jax.random.key(0)})
    kernel = made._dropped({"recurrent": {"h": jnp.ones((200, 200))}})["recurrent"]["h"]
    # Of 40,000 draws: four standard errors.
    assert np.mean(np.asarray(kernel) == 0) == pytest.approx(rate, abs=4 * (0.24 / 40_000) ** 0.5)


SUITE = """
import unittest
import jax, jax.numpy as jnp
from flax import linen as nn

class Test(unittest.TestCase):
    def test_layout(self):
        rnn = nn.RNN(nn.LSTMCell(3), return_carry=True)
        params = rnn.init(jax.random.key(0), jnp.ones((2, 4, 5)))["params"]["cell"]
        self.assertEqual(params["ii"]["kernel"].shape, (5, 3))
        self.assertEqual(params["hf"]["bias"].shape, (3,))

    def test_wrong(self):
        self.assertEqual(nn.LSTMCell(3).initialize_carry(None, (2, 5))[0].shape, (2, 4))

    def test_nothing(self):
        self.assertEqual(nn.Dense(3).features, 3)

    def test_flip_sequence(self):
        raise AssertionError
"""


@pytest.mark.full
def test_the_adapter_tells_what_passes_fails_and_does_not_apply(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tests" / "peers"), *sys.path])
    import flax_suite

    path = tmp_path / flax_suite.LINEN
    path.parent.mkdir(parents=True)
    path.write_text(SUITE)
    for route in ("cells in nn.RNN", "the layer for nn.RNN"):
        outcomes = flax_suite.run_route(tmp_path, route)
        assert outcomes["test_layout"] == "passes"
        assert outcomes["test_wrong"].startswith("FAILS: AssertionError")
        assert outcomes["test_nothing"] == "FAILS: runs none of our code"
        assert outcomes["test_flip_sequence"].startswith("does not apply")
