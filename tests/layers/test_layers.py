"""The recurrent layer: arguments, streams, chunks, packed sequences, layouts, dtypes, errors."""

import dataclasses
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import CELLS
from layer_case import (
    BATCH,
    EXACTLY,
    FEATURES,
    INPUTS,
    STEPS,
    SWITCHES,
    close,
    data,
    drawn,
    in_cell,
)
from tiers import full, tiered

from surnn_jax.layers import Recurrent, UnitCell


def test_a_masked_step_is_not_looked_at_from_the_start():
    x = data(BATCH, STEPS, INPUTS)
    mask = jnp.arange(STEPS)[None] % jnp.array([[2], [3], [7]]) != 1
    spoilt = jnp.where(mask[..., None], x, 1e6)
    layer = Recurrent("tanh", FEATURES, SWITCHES["event-pair"], return_run=True, learn_carry=True)
    init, apply = jax.jit(layer.init), jax.jit(layer.apply)
    clean, dirty = (init(jax.random.key(1), given, mask) for given in (x, spoilt))
    close(clean, dirty, **EXACTLY)
    close(clean["params"]["carry"], {"h": jnp.zeros(FEATURES)}, **EXACTLY)
    run = apply(clean, x, mask)
    # The thresholds are quantiles of the steps looked at: 0.4 of these, to one in each neuron.
    assert np.isclose(run.rate, 0.4, atol=1 / mask.sum())
    close(run, apply(clean, spoilt, mask), **EXACTLY)


LIFTING = {"variable_axes", "variable_broadcast", "variable_carry", "split_rngs"}


def test_every_argument_of_the_stock_layer_is_known():
    def parameters(function):
        return {n: p.default for n, p in inspect.signature(function).parameters.items()}

    def fields(module):
        return {f.name: f.default for f in dataclasses.fields(module)}

    stock, ours = fields(nn.RNN), fields(Recurrent)
    missing = set(stock) - set(ours)
    assert missing <= LIFTING
    shared = {"time_major", "return_carry", "reverse", "keep_order", "unroll"}
    assert shared <= set(stock)
    assert {n: ours[n] for n in shared} == {n: stock[n] for n in shared}
    stock, ours = parameters(nn.RNN.__call__), parameters(Recurrent.__call__)
    assert set(stock) <= set(ours)
    assert {n: ours[n] for n in stock} == stock


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    "option", ["time_major", "return_carry", "return_run", "reverse", "keep_order"]
)
def test_an_argument_of_the_call_wins_over_the_constructor(option, given):
    x = data(BATCH, BATCH, INPUTS)  # fits both majors
    settings = {"reverse": True} if option == "keep_order" else {}

    def layer(value):
        return Recurrent("tanh", FEATURES, backend="reference", **{**settings, option: value})

    params = {"params": drawn(layer(given), x)}
    by_call = layer(not given).apply(params, x, **{option: given})
    by_constructor = layer(given).apply(params, x)
    close(by_call, by_constructor, **EXACTLY)
    other = layer(not given).apply(params, x)
    same = jax.tree.structure(other) == jax.tree.structure(by_call)
    assert not same or not np.array_equal(other, by_call)


def test_the_last_carry_asked_for_wins_over_the_run_of_the_constructor():
    x = data(BATCH, STEPS, INPUTS)
    layer = Recurrent("tanh", FEATURES, return_run=True, backend="reference")
    params = {"params": drawn(layer, x)}
    run = layer.apply(params, x)
    close(layer.apply(params, x, return_carry=True), (run.carry, run.outputs), **EXACTLY)


@pytest.mark.parametrize(
    ("cell", "kind", "batch"),
    [
        *tiered(
            [("lstm_peephole", kind, (BATCH,)) for kind in SWITCHES],
            [("lstm_peephole", kind, (BATCH,)) for kind in ("always", "fourier", "event-pair")],
        ),
        full("gru", "event-pair", ()),
        ("gru_before", "event", (2, 3)),
    ],
)
def test_promise_4_a_stream_equals_the_sequence(cell, kind, batch):
    layer = Recurrent(cell, FEATURES, SWITCHES[kind], learn_carry=True, return_carry=True)
    x = data(STEPS, *batch, INPUTS)
    params = {"params": drawn(layer, x)}
    begin = layer.apply(params, batch, method="initial_carry")
    state = begin if SWITCHES[kind] is None else begin.cell
    for name, learned in params["params"]["carry"].items():
        assert np.array_equal(getattr(state, name), jnp.broadcast_to(learned, (*batch, FEATURES)))

    @jax.jit
    def run(params, x):
        def step(carry, now):
            return layer.apply(params, carry, now, method="step")

        return jax.lax.scan(step, begin, x), layer.apply(params, x, time_major=True)

    close(*run(params, x))


@pytest.mark.parametrize("kind", [full("always"), full("fourier"), "event-pair"])
def test_chunks_equal_the_sequence(kind):
    layer = Recurrent("lstm", FEATURES, SWITCHES[kind], learn_carry=True, return_run=True)
    x, lengths, cut = data(BATCH, STEPS, INPUTS), jnp.array([STEPS, 2, 4]), 3
    params = {"params": drawn(layer, x)}

    @jax.jit
    def run(params, x):
        whole = layer.apply(params, x, seq_lengths=lengths)
        first = layer.apply(params, x[:, :cut], seq_lengths=jnp.minimum(lengths, cut))
        left = {"seq_lengths": jnp.maximum(lengths - cut, 0), "initial_carry": first.carry}
        second = layer.apply(params, x[:, cut:], **left)
        return whole, first, second, layer.apply(params, x[:, :0], initial_carry=whole.carry)

    whole, first, second, nothing = run(params, x)
    close(jnp.concatenate([first.outputs, second.outputs], 1), whole.outputs)
    close(second.carry, whole.carry)
    close(nothing.carry, whole.carry, **EXACTLY)
    assert nothing.outputs.shape == (BATCH, 0, FEATURES)


@pytest.mark.parametrize("kind", [full("always"), "fourier"])
def test_a_learned_carry_gets_the_gradient_of_a_given_one(kind):
    x, weight = data(BATCH, STEPS, INPUTS), data(BATCH, STEPS, FEATURES, seed=2)
    learning = Recurrent("lstm", FEATURES, SWITCHES[kind], learn_carry=True)
    given = learning.clone(learn_carry=False)
    params = drawn(learning, x)
    begin = learning.apply({"params": params}, (BATCH,), method="initial_carry")

    def by_hand(state, params):
        carry = state if SWITCHES[kind] is None else begin._replace(cell=state)
        rest = {name: p for name, p in params.items() if name != "carry"}
        return jnp.sum(weight * given.apply({"params": rest}, x, initial_carry=carry))

    def by_layer(params):
        return jnp.sum(weight * learning.apply({"params": params}, x))

    state = begin if SWITCHES[kind] is None else begin.cell
    wanted, got = jax.jit(lambda p: (jax.grad(by_hand)(state, p), jax.grad(by_layer)(p)))(params)
    close(got["carry"], jax.tree.map(lambda d: d.sum(0), wanted)._asdict())
    assert all(np.abs(d).max() > 0.01 for d in got["carry"].values())


@pytest.mark.parametrize("kind", [full("always"), full("fourier"), "event-pair"])
def test_packed_sequences_start_from_the_learned_carry(kind):
    layer = Recurrent("lstm", FEATURES, SWITCHES[kind], learn_carry=True, return_run=True)
    x, starts = data(BATCH, STEPS, INPUTS), jnp.array([2, 3, 5])
    params = {"params": drawn(layer, x)}
    step = jnp.arange(STEPS)[None]
    shifted = jnp.take_along_axis(x, ((step + starts[:, None]) % STEPS)[..., None], 1)

    @jax.jit
    def run(params):
        return (
            layer.apply(params, x, resets=step == starts[:, None]),
            layer.apply(params, x, seq_lengths=starts),
            layer.apply(params, shifted, seq_lengths=STEPS - starts),
        )

    packed, first, second = run(params)
    for row, start in enumerate(starts):
        alone = [first.outputs[row, :start], second.outputs[row, : STEPS - start]]
        close(packed.outputs[row], jnp.concatenate(alone))
    close(packed.carry, second.carry)


@pytest.mark.parametrize(
    ("kind", "batch"),
    [
        ("always", (3,)),
        full("fourier", ()),
        ("fourier", (2, 3)),
        ("event", ()),
        full("event", (3,)),
        full("event", (2, 3)),
    ],
)
def test_a_run_has_the_layout_of_its_inputs(kind, batch):
    layer = Recurrent("lstm", FEATURES, SWITCHES[kind], return_run=True)
    x = data(*batch, STEPS, INPUTS)
    lengths = jnp.asarray(np.random.default_rng(3).integers(1, STEPS, batch), jnp.int32)
    params = {"params": drawn(layer, x)}
    first = jnp.moveaxis(x, -2, 0)

    @jax.jit
    def both(params):
        return (
            layer.apply(params, x, seq_lengths=lengths),
            layer.apply(params, first, seq_lengths=lengths, time_major=True),
        )

    run, turned = both(params)
    whole = (*batch, STEPS, FEATURES)
    assert {leaf.shape for leaf in jax.tree.leaves((run.outputs, run.carries))} == {whole}
    assert {leaf.shape for leaf in jax.tree.leaves(turned.carries)} == {(STEPS, *batch, FEATURES)}
    inside = np.arange(STEPS) < np.asarray(lengths)[..., None]
    assert np.array_equal(run.outputs, np.where(inside[..., None], run.carries.h, 0))
    last = np.asarray(lengths)[..., None, None] - 1
    state = run.carry if SWITCHES[kind] is None else run.carry.cell
    for end, every in zip(state, run.carries, strict=True):
        assert np.array_equal(end, np.take_along_axis(np.asarray(every), last, -2)[..., 0, :])

    close(jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -2), turned.carries), run.carries)
    close(jnp.moveaxis(turned.outputs, 0, -2), run.outputs)
    close((turned.carry, turned.rate), (run.carry, run.rate))
    if SWITCHES[kind] is None:
        assert run.update_mask is None
        assert run.rate == 1
        return
    shared = kind == "fourier"
    assert run.update_mask.shape == ((STEPS, FEATURES) if shared else whole)
    assert np.array_equal(
        turned.update_mask if shared else jnp.moveaxis(turned.update_mask, 0, -2), run.update_mask
    )
    valid = np.broadcast_to(run.update_mask, whole)[inside]
    assert 0 < valid.mean() < 1
    # A mean of at most 180 zeros and ones, rounded twice.
    np.testing.assert_allclose(run.rate, valid.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    "cell", tiered([cell.name for cell in CELLS], ("gru_before", "lstm_peephole"))
)
def test_bfloat16_products_with_a_float32_carry(cell):
    exact = Recurrent(cell, FEATURES, SWITCHES["fourier"], return_run=True)
    layer = exact.clone(dtype=jnp.bfloat16)
    stock = nn.RNN(UnitCell(cell, FEATURES, SWITCHES["fourier"], dtype=jnp.bfloat16))
    x = data(BATCH, STEPS, INPUTS)

    @jax.jit
    def runs(params):
        given = {"params": params}
        theirs = stock.apply({"params": in_cell(params)}, x, return_carry=True)
        begin = layer.apply(given, (BATCH,), method="initial_carry")
        first = layer.apply(given, begin, x[:, 0], method="step")
        return exact.apply(given, x), layer.apply(given, x), theirs, first

    wanted, run, (carry, outputs), first = runs(drawn(exact, x))
    assert run.outputs.dtype == outputs.dtype == jnp.bfloat16
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((run.carry.cell, run.carries, carry.cell))}
    assert dtypes == {jnp.dtype(jnp.float32)}
    # Operands of products are rounded to 8 bits, 2**-9 each, and gates squash the sums.
    np.testing.assert_allclose(run.carries.h, wanted.carries.h, atol=0.03)
    assert not np.allclose(run.carries.h, wanted.carries.h, atol=1e-4)
    assert np.array_equal(run.outputs, run.carries.h.astype(jnp.bfloat16))
    # The state itself is not rounded.
    assert not np.array_equal(run.outputs.astype(jnp.float32), run.carries.h)
    np.testing.assert_allclose(carry.cell.h, run.carry.cell.h, atol=0.01)
    # From zeros nothing of the state can be rounded to either side.
    close(first[0].cell, jax.tree.map(lambda c: c[:, 0], run.carries))
    assert first[1].dtype == jnp.bfloat16


def test_float64_parameters_compute_in_float64():
    with jax.enable_x64(True):
        switch = SWITCHES["event-pair"]
        options = {"param_dtype": jnp.float64, "return_carry": True}
        layer = Recurrent("gru", FEATURES, switch, **options)
        stock = nn.RNN(
            UnitCell("gru", FEATURES, switch, param_dtype=jnp.float64), return_carry=True
        )
        x = jax.random.normal(jax.random.key(0), (BATCH, STEPS, INPUTS), jnp.float64)
        lengths = jnp.array([STEPS, 2, 4], jnp.int32)
        params = drawn(layer, x)

        @jax.jit
        def runs(params):
            return (
                layer.apply({"params": params}, x, seq_lengths=lengths),
                stock.apply({"params": in_cell(params)}, x, seq_lengths=lengths),
            )

        (carry, outputs), (stock_carry, stock_outputs) = runs(params)
        leaves = jax.tree.leaves((params, carry, outputs))
        floats = {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}
        assert floats == {jnp.dtype(jnp.float64)}
        # As CLOSE, for float64.
        close(carry, stock_carry, rtol=1e-13, atol=1e-14)
        close(outputs[0], stock_outputs[0], rtol=1e-13, atol=1e-14)


X = np.zeros((BATCH, STEPS, INPUTS), np.float32)
YES = np.ones((BATCH, STEPS), bool)


@pytest.mark.parametrize(
    ("message", "inputs", "options"),
    [
        (r"inputs must have shape \[\*batch, T, D\], got \(4,\)", X[0, 0], {}),
        ("inputs must be floating point, got complex64", X.astype(np.complex64), {}),
        ("mask is given twice", (X, YES), {"mask": YES}),
        (r"inputs must be an array or \(inputs, mask\), got 3", (X, YES, YES), {}),
        (r"mask must .*shape \(3, 6\), got .*\(6, 3\)", X, {"mask": YES.T}),
        (r"mask must .*shape \(3, 6\), got .*\(3,\)", X, {"mask": YES[:, 0]}),
        (r"mask must .*shape \(3, 6\), got .*\(\)", X, {"mask": YES[0, 0]}),
        (r"mask must be booleans .*got float32", X, {"mask": YES.astype(np.float32)}),
        (r"resets must .*shape \(3, 6\), got .*\(3, 5\)", X, {"resets": YES[:, 1:]}),
        (r"lengths must .*shape \(3,\), got .*\(2,\)", X, {"seq_lengths": np.array([6, 6])}),
        (r"lengths must be integers .*got float32", X, {"seq_lengths": np.float32([6, 6, 6])}),
        ("carry must be a SelectiveCarry, got tuple", X, {"initial_carry": ()}),
    ],
)
@pytest.mark.parametrize("initialised", [False, True])
def test_arguments_that_do_not_fit_are_named(message, inputs, options, initialised):
    layer = Recurrent("gru", FEATURES, SWITCHES["fourier"])
    variables = {"params": drawn(layer, X)} if initialised else {}

    def call(x):
        given = (x, *inputs[1:]) if isinstance(inputs, tuple) else x
        return layer.apply(
            variables, given, mutable=not initialised, rngs=jax.random.key(0), **options
        )

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call, inputs[0] if isinstance(inputs, tuple) else inputs)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (r"unknown cell 'grue'; did you mean 'gru'\? One of: tanh, gru, ", {"cell": "grue"}),
        ("unknown back end 'fast'; one of: .*reference, masked", {"backend": "fast"}),
        ("features must be at least 1, got 0", {"features": 0}),
        ("dtype must be floating point, got int32", {"dtype": jnp.int32}),
        (
            "gru: parameters must be floating point, got .*int32",
            {"param_dtype": jnp.int32},
        ),
    ],
)
def test_options_that_do_not_exist_are_named(message, arguments):
    def init():
        layer = Recurrent(**{"cell": "gru", "features": FEATURES, **arguments})
        jax.eval_shape(layer.init, jax.random.key(0), X)

    with pytest.raises(ValueError, match=message):
        init()


def test_a_stream_needs_parameters_and_a_carry_that_fits():
    layer = Recurrent("gru", FEATURES)
    with pytest.raises(ValueError, match="no parameters yet: call init with a sequence first"):
        layer.init(jax.random.key(0), (BATCH,), method="initial_carry")
    with pytest.raises(ValueError, match="no parameters yet: call init with a sequence first"):
        layer.apply({}, None, X[:, 0], method="step")
    variables = {"params": drawn(layer, X)}
    carry = layer.apply(variables, (BATCH - 1,), method="initial_carry")
    with pytest.raises(ValueError, match=r"carry\.h must have shape \(3, 5\), got \(2, 5\)"):
        layer.apply(variables, carry, X[:, 0], method="step")
    with pytest.raises(Exception, match=r"shape \(3, 5\).*shape \(4, 5\)"):
        layer.apply(variables, X[..., 1:])
    with pytest.raises(ValueError, match="a step needs a carry; initial_carry gives the first"):
        layer.apply(variables, None, X[:, 0], method="step")
