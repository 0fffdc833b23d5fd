"""Layers in company: stock Flax layers and cells, NNX, a whole model, several devices."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import CELLS
from flax import nnx
from layer_case import (
    BATCH,
    CLOSE_GRADIENT,
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

from surnn_jax import cells
from surnn_jax.layers import FramePredictor, Recurrent, UnitCell

OUTPUTS = 7


@pytest.mark.parametrize(
    ("cell", "kind"),
    tiered(
        [
            ("tanh", "always"),
            ("lstm", "always"),
            *itertools.product([cell.name for cell in CELLS], ["fourier", "event-pair"]),
        ],
        # In either direction; time first and second.
        [
            ("lstm", "always"),
            ("gru", "event-pair"),
            ("lstm_peephole", "fourier"),
        ],
    ),
)
def test_the_stock_layer_runs_our_cells_as_our_layer_does(cell, kind):
    place = list(cells.CELLS).index(cell) + list(SWITCHES).index(kind)  # so that all four occur
    reverse, time_major = bool(place & 1), bool(place & 2)
    options = {"reverse": reverse, "keep_order": cell == "lstm", "time_major": time_major}
    ours = Recurrent(cell, FEATURES, SWITCHES[kind], return_carry=True, **options)
    stock = nn.RNN(UnitCell(cell, FEATURES, SWITCHES[kind]), return_carry=True, **options)
    x, lengths = data(BATCH, STEPS, INPUTS), jnp.array([STEPS, 2, 4])
    x = jnp.swapaxes(x, 0, 1) if time_major else x
    params = drawn(ours, x)

    @jax.jit
    def run(params):
        return (
            ours.apply({"params": params}, x, seq_lengths=lengths),
            stock.apply({"params": in_cell(params)}, x, seq_lengths=lengths),
        )

    (carry, outputs), (stock_carry, stock_outputs) = run(params)
    inside = jnp.arange(STEPS)[None] < lengths[:, None]
    inside = inside.T if time_major else inside
    close(outputs, jnp.where(inside[..., None], stock_outputs, 0))
    close(carry, stock_carry)
    made = jax.eval_shape(stock.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, in_cell(params))


@pytest.mark.parametrize("kind", [full("always"), "event"])
def test_stock_bidirectional_takes_our_layer_and_our_cell(kind):
    ours, stock = (
        nn.Bidirectional(make(), make())
        for make in (
            lambda: Recurrent("gru", FEATURES, SWITCHES[kind]),
            lambda: nn.RNN(UnitCell("gru", FEATURES, SWITCHES[kind])),
        )
    )
    x, lengths = data(BATCH, STEPS, INPUTS), jnp.array([STEPS, 2, 4])
    params = drawn(ours, x)
    theirs = {side: in_cell(p) for side, p in params.items()}

    @jax.jit
    def run(params, theirs):
        both = {"seq_lengths": lengths, "return_carry": True, "init_key": jax.random.key(0)}
        return (
            ours.apply({"params": params}, x, **both),
            stock.apply({"params": theirs}, x, **both),
        )

    (carry, outputs), (stock_carry, stock_outputs) = run(params, theirs)
    inside = jnp.arange(STEPS)[None] < lengths[:, None]
    close(outputs, jnp.where(inside[..., None], stock_outputs, 0))
    close(carry, stock_carry)


@pytest.mark.parametrize("kind", ["always", "event"])
def test_a_first_state_is_drawn_as_flax_draws_it(kind):
    draw, key = nn.initializers.normal(), jax.random.key(7)
    for ours, stock in (("lstm", nn.LSTMCell), ("gru", nn.GRUCell)):
        cell = UnitCell(ours, FEATURES, SWITCHES[kind], carry_init=draw)
        got = cell.initialize_carry(key, (BATCH, INPUTS))
        got = tuple(got if kind == "always" else got.cell)
        want = stock(FEATURES, carry_init=draw).initialize_carry(key, (BATCH, INPUTS))
        close(got, want if ours == "lstm" else (want,))


def test_the_stock_layer_gives_the_gradients_of_our_layer():
    x, weight = data(BATCH, STEPS, INPUTS), data(BATCH, STEPS, FEATURES, seed=2)
    ours = Recurrent("tanh", FEATURES, SWITCHES["fourier"], reverse=True, time_major=True)
    stock = nn.RNN(UnitCell("tanh", FEATURES, SWITCHES["fourier"]), reverse=True, time_major=True)

    def loss(params, x, module, place):
        return jnp.sum(weight * module.apply({"params": place(params)}, x))

    @jax.jit
    def gradients(*args):
        return tuple(
            jax.grad(lambda *args, m=m: loss(*args, *m), (0, 1))(*args)
            for m in ((ours, dict), (stock, in_cell))
        )

    close(*gradients(drawn(ours, x), x))


def test_containers_pass_a_mask_beside_the_inputs():
    x = data(BATCH, STEPS, INPUTS)
    mask = jnp.arange(STEPS)[None] % jnp.array([[2], [3], [7]]) != 1
    one = Recurrent("gru", FEATURES, SWITCHES["fourier"], backend="reference")
    params = drawn(one, x)
    by_name = one.apply({"params": params}, x, mask=mask)
    assert not np.allclose(by_name, one.apply({"params": params}, x))

    first = nn.Sequential([one, jnp.sin])
    close(first.apply({"params": {"layers_0": params}}, (x, mask)), jnp.sin(by_name))
    # Sequential hands a tuple on as positional arguments.
    second = nn.Sequential([lambda x, mask: (x, mask), one])
    close(second.apply({"params": {"layers_1": params}}, x, mask), by_name)

    both = nn.Bidirectional(one, one.clone(return_run=True))
    back = one.apply({"params": params}, x, mask=mask, reverse=True, keep_order=True)
    given = {"params": {"forward_rnn": params, "backward_rnn": params}}
    close(both.apply(given, (x, mask)), jnp.concatenate([by_name, back], -1))


def simple(p):
    """Our parameters of the tanh unit as those of `nn.SimpleCell`."""
    return {
        "i": {"kernel": p["input"]["h"], "bias": p["vector"]["b"]},
        "h": {"kernel": p["recurrent"]["h"]},
    }


def gru(p):
    """Our parameters of the GRU as those of `nn.GRUCell`."""
    gates = {
        f"i{g}": {"kernel": p["input"][g], "bias": p["vector"][f"b_{g}"]} for g in ("r", "z", "n")
    }
    gates |= {f"h{g}": {"kernel": p["recurrent"][g]} for g in ("r", "z", "n")}
    gates["hn"]["bias"] = p["vector"]["c_n"]
    return gates


def lstm(p):
    """Our parameters of the LSTM as those of `nn.OptimizedLSTMCell`."""
    gates = {f"i{g}": {"kernel": p["input"][g]} for g in "ifgo"}
    return gates | {
        f"h{g}": {"kernel": p["recurrent"][g], "bias": p["vector"][f"b_{g}"]} for g in "ifgo"
    }


@pytest.mark.parametrize(
    ("cell", "stock", "copied"),
    [
        ("tanh", nn.SimpleCell, simple),
        ("gru", nn.GRUCell, gru),
        ("lstm", nn.OptimizedLSTMCell, lstm),
    ],
)
def test_values_and_gradients_of_flax_cells_with_the_same_weights(cell, stock, copied):
    ours = Recurrent(cell, FEATURES, return_carry=True)
    theirs = nn.RNN(stock(FEATURES), return_carry=True)
    x, weight = data(BATCH, STEPS, INPUTS), data(BATCH, STEPS, FEATURES, seed=2)
    start = [data(BATCH, FEATURES, seed=3 + i) for i in range(2 if cell == "lstm" else 1)]
    params = drawn(ours, x)

    def our(params, x, start):
        begin = ours.apply({"params": params}, (BATCH,), method="initial_carry")
        given = {"initial_carry": type(begin)(*start)}
        carry, outputs = ours.apply({"params": params}, x, **given)
        return jnp.sum(weight * outputs), (list(carry), outputs)

    def their(params, x, start):
        given = {"initial_carry": tuple(start) if cell == "lstm" else start[0]}
        variables = {"params": {"cell": copied(params["cell"])}}
        carry, outputs = theirs.apply(variables, x, **given)
        carry = list(carry) if cell == "lstm" else [carry]
        return jnp.sum(weight * outputs), (carry, outputs)

    @jax.jit
    def both(*args):
        return [jax.value_and_grad(f, (0, 1, 2), has_aux=True)(*args) for f in (our, their)]

    (((_, values), gradient), ((_, wanted), wanted_gradient)) = both(params, x, start)
    close(values, wanted)
    close(gradient, wanted_gradient, **CLOSE_GRADIENT)


def test_nnx_gives_the_numbers_of_linen():
    layer = Recurrent("tanh", FEATURES, SWITCHES["event"])
    x, lengths = data(BATCH, STEPS, INPUTS), jnp.array([STEPS, 0, 2])
    model = nnx.jit(lambda: nnx.bridge.ToNNX(layer, rngs=nnx.Rngs(0)).lazy_init(x))()
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))

    def loss(run):
        outputs = run(x, seq_lengths=lengths)
        return jnp.sum(jnp.square(outputs)), outputs

    @nnx.jit
    def both(model, params):
        ours = nnx.grad(loss, has_aux=True)(model)
        return ours, jax.grad(
            lambda p: loss(functools.partial(layer.apply, {"params": p})), has_aux=True
        )(params)

    (gradient, outputs), (wanted_gradient, wanted) = both(model, params)
    assert np.any(outputs)
    close(outputs, wanted, **EXACTLY)
    close(nnx.to_pure_dict(gradient), wanted_gradient, **EXACTLY)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [full("fourier", None), ("event-pair", None), ("event-pair", jnp.bfloat16)],
)
def test_the_frame_predictor_steps_as_it_runs(kind, dtype):
    model = FramePredictor("gru", FEATURES, OUTPUTS, SWITCHES[kind], dtype=dtype)
    x = data(BATCH, STEPS, INPUTS)
    params = {"params": drawn(model, x)}

    @jax.jit
    def both(params):
        def step(carry, now):
            return model.apply(params, carry, now, method="step")

        begin = model.apply(params, (BATCH,), method="initial_carry")
        carry, logits = jax.lax.scan(step, begin, jnp.swapaxes(x, 0, 1))
        return (carry, jnp.swapaxes(logits, 0, 1)), model.apply(params, x)

    (carry, logits), (wanted, run) = both(params)
    assert wanted.shape == (BATCH, STEPS, OUTPUTS)
    assert wanted.dtype == jnp.float32
    # In bfloat16 a sum next to a rounding edge may fall on either side of it: 2**-8.
    close(logits, wanted, **({} if dtype is None else {"atol": 0.02}))
    close(carry, run.carry, **({} if dtype is None else {"atol": 0.02}))
    readout = params["params"]["readout"]
    by_hand = run.outputs.astype(jnp.float32) @ readout["kernel"] + readout["bias"][None, None]
    close(wanted, by_hand, **({} if dtype is None else {"atol": 0.02}))


@pytest.mark.parametrize("kind", [full("fourier"), "event-pair"])
def test_the_frame_predictor_does_not_see_the_future(kind):
    model = FramePredictor("lstm", FEATURES, OUTPUTS, SWITCHES[kind])
    x = data(BATCH, STEPS, INPUTS)
    run = jax.jit(functools.partial(model.apply, {"params": drawn(model, x)}))
    logits, _ = run(x)
    changed = []
    for t in range(STEPS):
        other, _ = run(x.at[:, t].add(3.0))
        assert np.array_equal(other[:, :t], logits[:, :t])
        changed.append(np.any(other[:, t:] != logits[:, t:]))
    assert all(changed)


def on_devices():
    if jax.device_count() < 2:
        pytest.fail("these tests need two devices: see conftest.py")
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
    return mesh, rows, whole


def problem(cell, kind, learn_carry):
    layer = Recurrent(cell, FEATURES, SWITCHES[kind], learn_carry=learn_carry, return_run=True)
    x, weight = data(4, STEPS, INPUTS), data(4, STEPS, FEATURES, seed=2)
    lengths = jnp.array([STEPS, 2, 0, 4])

    def loss(params, x, weight, lengths):
        run = layer.apply({"params": params}, x, seq_lengths=lengths)
        return jnp.sum(weight * run.outputs)

    return loss, (drawn(layer, x), x, weight, lengths)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["event-pair"])
def test_gradient_of_a_sharded_batch_is_that_of_one_device(kind):
    _, rows, whole = on_devices()
    loss, (params, *batch) = problem("gru", kind, learn_carry=True)
    gradient = jax.jit(jax.grad(loss))
    wanted = gradient(params, *batch)
    sharded = jax.tree.map(lambda leaf: jax.device_put(leaf, rows), batch)
    assert len(sharded[0].sharding.device_set) == 2
    got = gradient(jax.device_put(params, whole), *sharded)
    close(got, wanted, **CLOSE_GRADIENT)


@pytest.mark.parametrize(
    ("cell", "kind", "learn_carry"),
    [
        ("gru", "always", False),
        ("lstm", "fourier", True),
        ("gru_before", "event-pair", False),
    ],
)
@pytest.mark.full
def test_gradient_in_shard_map_is_that_of_one_device(cell, kind, learn_carry):
    mesh, _, _ = on_devices()
    loss, (params, *batch) = problem(cell, kind, learn_carry)
    specs = (jax.P(), *(jax.P("data") for _ in batch))

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=specs, out_specs=(jax.P(), jax.P()), check_vma=True
    )
    def local(*args):
        # With the check on, differentiation itself sums over the devices.
        value, gradient = jax.value_and_grad(loss)(*args)
        return jax.lax.psum(value, "data"), gradient

    both = jax.jit(lambda *args: (local(*args), jax.value_and_grad(loss)(*args)))
    (value, gradient), (wanted, wanted_gradient) = both(params, *batch)
    close(value, wanted, **CLOSE_GRADIENT)
    if kind == "event-pair":
        # The slope of an event switch is scaled by the spread over the batch that it sees, here
        # a device's own; the step itself, and all that flows through the cell, is not.
        del gradient["switch"], wanted_gradient["switch"]
    close(gradient, wanted_gradient, **CLOSE_GRADIENT)
