"""The NNX modules: the parameters and the numbers of the linen layer, by NNX's own means."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from layer_case import BATCH, CLOSE, EXACTLY, FEATURES, INPUTS, SWITCHES, close, data
from tiers import full

from surnn_jax import layers, switches
from surnn_jax.nnx import Recurrent, UnitCell, calibrate

STEPS = 40
X = 3 + 2 * data(BATCH, STEPS, INPUTS)
EVENT = switches.event(STEPS, rate=0.2)


def made(switch=EVENT, **options):
    return Recurrent(INPUTS, FEATURES, "gru", switch, rngs=nnx.Rngs(0), **options)


def pure(layer):
    return nnx.to_pure_dict(nnx.state(layer, nnx.Param))


@pytest.fixture(scope="module")
def linen():
    """The linen layer, and what its `init` makes of a batch with the same key."""
    layer = layers.Recurrent("gru", FEATURES, EVENT)
    return layer, jax.jit(layer.init)(nnx.Rngs(0).params(), X)


def test_it_begins_with_the_values_of_the_linen_layer_once_it_has_seen_the_batch(linen):
    """Tree, shapes, dtypes and numbers; before, only the thresholds differ."""
    layer = made()
    want = linen[1]["params"]
    close(pure(layer)["params"]["cell"], want["cell"], **EXACTLY)
    threshold = want["switch"]["b"]
    assert not np.allclose(layer.params["switch"]["b"][...], threshold, atol=0.1)
    calibrate(layer, X)
    close(pure(layer), {"params": want})
    assert layer(X, return_run=True).rate == pytest.approx(0.2, abs=0.02)


def test_outputs_and_gradients_are_those_of_the_linen_layer(linen):
    layer, (theirs, variables) = made(), linen
    nnx.update(layer, variables)
    lengths = jnp.array([STEPS, 7, 1])
    want_run = jax.jit(functools.partial(theirs.apply, return_run=True))(
        variables, X, seq_lengths=lengths
    )
    run = nnx.jit(lambda layer: layer(X, seq_lengths=lengths, return_run=True))(layer)
    close(run, want_run)

    @nnx.jit
    def gradient(layer):
        return nnx.grad(lambda layer: jnp.sum(jnp.sin(layer(X))))(layer)

    def loss(variables):
        return jnp.sum(jnp.sin(theirs.apply(variables, X)))

    close(nnx.to_pure_dict(gradient(layer)), jax.jit(jax.grad(loss))(variables), rtol=1e-4)


def test_it_is_split_stored_and_merged(tmp_path):
    """Into a layer of other values, by the checkpoints that NNX uses."""
    layer = made(learn_carry=True)
    graph, state = nnx.split(layer)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        like = jax.tree.map(jnp.zeros_like, state)
        restored = checkpointer.restore(tmp_path / "state", like)
    again = nnx.merge(graph, restored)
    close(pure(again), pure(layer), **EXACTLY)
    np.testing.assert_array_equal(again(X), layer(X))
    assert set(pure(layer)["params"]) == {"cell", "switch", "carry"}


def test_a_stream_gives_the_outputs_of_the_sequence():
    layer = made(learn_carry=True)
    layer.params["carry"]["h"][...] = jnp.linspace(-1, 1, FEATURES)
    want_carry, want = layer(X, return_carry=True)
    step = nnx.jit(lambda layer, carry, x: layer.step(carry, x))
    carry, outputs = layer.initial_carry((BATCH,)), []
    for t in range(STEPS):
        carry, h = step(layer, carry, X[:, t])
        outputs.append(h)
    np.testing.assert_allclose(jnp.stack(outputs, 1), want, **CLOSE)
    close(carry, want_carry)


def test_both_directions_in_the_layer_of_flax():
    ahead, back = made(SWITCHES["fourier"]), made(SWITCHES["fourier"])
    lengths = jnp.array([STEPS, 7, 1])
    got = nnx.Bidirectional(ahead, back)(X, seq_lengths=lengths)
    want = back(X, seq_lengths=lengths, reverse=True, keep_order=True)
    np.testing.assert_array_equal(got, jnp.concatenate([ahead(X, seq_lengths=lengths), want], -1))


def test_a_table_counts_its_parameters():
    layer = made(None)
    count = sum(leaf.size for leaf in jax.tree.leaves(pure(layer)))
    assert count == 3 * FEATURES * (INPUTS + FEATURES) + 4 * FEATURES
    table = nnx.tabulate(layer, X)
    assert f"Total Parameters: {count:,}" in table
    assert "variables" not in table


class Model(nnx.Module):
    """Two layers, of which one runs compiled, and one without thresholds."""

    def __init__(self, rngs):
        self.first = Recurrent(INPUTS, 6, "gru", switches.event(STEPS, rate=0.3), rngs=rngs)
        self.second = Recurrent(6, 5, "tanh", EVENT, rngs=rngs)
        self.third = Recurrent(5, 4, "sugru", rngs=rngs)

    def __call__(self, x):
        first = self.first(x, return_run=True)
        second = nnx.jit(lambda layer, x: layer(x, return_run=True))(self.second, first.outputs)
        return first.rate, second.rate, self.third(second.outputs)


def test_every_layer_of_a_model_is_calibrated_by_what_it_sees():
    model = Model(nnx.Rngs(0))
    assert not np.allclose(model(X)[:2], [0.3, 0.2], atol=0.02)
    before = pure(model.third)
    calibrate(model, X)
    rates = model(X)[:2]
    np.testing.assert_allclose(rates, [0.3, 0.2], atol=0.02)
    close(pure(model.third), before, **EXACTLY)
    # It is over: other data change nothing.
    thresholds = pure(model)
    model(-X)
    close(pure(model), thresholds, **EXACTLY)


@pytest.mark.parametrize("switch", [None, SWITCHES["fourier"]])
def test_what_has_no_thresholds_is_said(switch):
    with pytest.raises(ValueError, match="found no event or threshold switch in a Recurrent"):
        calibrate(made(switch), X)


def test_random_switches_draw_in_training_only():
    layer = Recurrent(
        INPUTS, FEATURES, "gru", switches.zoneout(9, hold=0.5), rngs=nnx.Rngs(0, dropout=1)
    )
    one, two = layer(X), layer(X)
    assert (one != two).any()
    layer.eval()
    still = Recurrent(INPUTS, FEATURES, "gru", switches.zoneout(9, hold=0.5), rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer(X), still(X))
    layer.train()
    assert (layer(X) != still(X)).any()


def test_options_are_those_of_the_linen_layer():
    options = {"gate_fn": jax.nn.hard_sigmoid, "bias_init": nnx.initializers.ones}
    layer = made(None, **options)
    assert layer.layer == layers.Recurrent("gru", FEATURES, **options)
    assert (layer.params["cell"]["vector"]["b_r"][...] == 1).all()
    cell = UnitCell(INPUTS, FEATURES, "gru", rngs=nnx.Rngs(0), **options)
    close(pure(cell), pure(layer), **EXACTLY)


@pytest.mark.parametrize("form", [Recurrent, UnitCell])
def test_the_order_of_its_arguments_is_said(form):
    with pytest.raises(TypeError, match=r"^in_features must be a whole number, got 'gru'; the ord"):
        form("gru", INPUTS, FEATURES, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"^gru: inputs must be at least 1, got 0"):
        form(0, FEATURES, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", [full("fourier"), "event-pair"])
def test_an_nnx_cell_gives_the_numbers_of_the_layer(name):
    cell = UnitCell(INPUTS, FEATURES, "lstm", SWITCHES[name], rngs=nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(cell, nnx.Param))["params"]
    layer = layers.Recurrent("lstm", FEATURES, SWITCHES[name], backend="masked", return_carry=True)
    want_carry, want = jax.jit(layer.apply)({"params": params}, X)
    carry, got = nnx.jit(lambda cell, x: nnx.RNN(cell, return_carry=True)(x))(cell, X)
    np.testing.assert_allclose(got, want, **CLOSE)
    close(carry, want_carry)

    @nnx.jit
    def gradient(cell):
        return nnx.grad(lambda cell: jnp.sum(jnp.sin(nnx.RNN(cell)(X))))(cell)

    def loss(params):
        return jnp.sum(jnp.sin(layer.apply({"params": params}, X)[1]))

    ours = nnx.to_pure_dict(gradient(cell))["params"]["cell"]
    close(ours, jax.jit(jax.grad(loss))(params)["cell"], rtol=1e-4, atol=1e-5)


def test_an_nnx_cell_draws_if_it_has_a_stream():
    made = functools.partial(UnitCell, INPUTS, FEATURES, "gru", switches.zoneout(9, hold=0.5))
    fixed, drawing = made(rngs=nnx.Rngs(0)), made(rngs=nnx.Rngs(0, dropout=1))
    one, two = (np.asarray(nnx.RNN(fixed)(X)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    one, two = (np.asarray(nnx.RNN(drawing)(X)) for _ in range(2))
    assert (one != two).any()
    assert (one[:, 1:] == one[:, :-1]).any(), "something is held"


def test_carries_of_an_nnx_cell_are_drawn_on_request():
    cell = UnitCell(INPUTS, FEATURES, "lstm", rngs=nnx.Rngs(0))
    carry = cell.initialize_carry((BATCH, INPUTS), nnx.Rngs(0), nnx.initializers.ones)
    assert all((leaf == 1).all() for leaf in carry)
    with pytest.raises(ValueError, match="carry_init needs rngs"):
        cell.initialize_carry((BATCH, INPUTS), carry_init=nnx.initializers.ones)
