"""Heads: layers side by side are one layer whose recurrent matrices are block-diagonal."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import full

from surnn_jax import layers, switches

HEADS, WIDTH, STEPS, BATCH, INPUTS = 3, 4, 7, 2, 5
SWITCH = switches.fourier(horizon=STEPS, rate=0.5, groups=1)
LENGTHS = np.array([7, 4], np.int32)


@pytest.fixture(scope="module")
def made():
    """A layer of heads, its variables, and inputs."""
    model = layers.MultiHeadRecurrent(
        layers.Recurrent("lstm", WIDTH, SWITCH, return_run=True), HEADS
    )
    x = jax.random.normal(jax.random.key(0), (BATCH, STEPS, INPUTS))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    # A bias at first puts one of so few steps on the threshold itself.
    bias = variables["params"]["layer"]["switch"]["b"]
    variables["params"]["layer"]["switch"]["b"] = bias + 0.02
    return model, variables, x


def test_they_are_one_layer_with_blocks(made):
    model, variables, x = made
    run = jax.jit(model.apply)(variables, x, seq_lengths=LENGTHS)
    params = variables["params"]["layer"]
    assert params["cell"]["recurrent"]["i"].shape == (HEADS, WIDTH, WIDTH)
    # Drawn each for itself.
    assert len({leaf.tobytes() for leaf in np.asarray(params["cell"]["recurrent"]["i"])}) == HEADS
    cell = {
        "input": {g: jnp.concatenate([*w], axis=-1) for g, w in params["cell"]["input"].items()},
        "recurrent": {
            g: jax.scipy.linalg.block_diag(*u) for g, u in params["cell"]["recurrent"].items()
        },
        "vector": {n: v.reshape(-1) for n, v in params["cell"]["vector"].items()},
    }
    # One rhythm a head, so as many groups as heads.
    whole = layers.Recurrent(
        "lstm", HEADS * WIDTH, switches.fourier(STEPS, rate=0.5, groups=HEADS), return_run=True
    )
    switch = {name: jnp.concatenate([*leaf], axis=-1) for name, leaf in params["switch"].items()}
    # Groups of one switch share their frequencies, which all heads begin with.
    assert (params["switch"]["theta"] == params["switch"]["theta"][:1]).all()
    switch["theta"] = params["switch"]["theta"][0]
    shapes = jax.eval_shape(whole.init, jax.random.key(0), x)["params"]
    chex.assert_trees_all_equal_shapes({"cell": cell, "switch": switch}, shapes)
    own = {"params": {"cell": cell, "switch": switch}}
    wanted = jax.jit(whole.apply)(own, x, seq_lengths=LENGTHS)
    np.testing.assert_array_equal(run.update_mask, wanted.update_mask)
    assert len(np.unique(run.update_mask.reshape(STEPS, HEADS, WIDTH), axis=1)[0]) > 1
    for name in ("outputs", "carries", "rate"):
        chex.assert_trees_all_close(getattr(run, name), getattr(wanted, name), atol=1e-6)


@pytest.mark.full
def test_a_stream_of_heads_equals_the_sequence(made):
    model, variables, x = made
    run = jax.jit(model.apply)(variables, x)
    step = jax.jit(functools.partial(model.apply, method="step"))
    carry = model.apply(variables, (BATCH,), method="initial_carry")
    for t in range(STEPS):
        carry, output = step(variables, carry, x[:, t])
        np.testing.assert_allclose(output, run.outputs[:, t], atol=1e-6)
    chex.assert_trees_all_close(carry, run.carry, atol=1e-6)
    begin = jax.jit(functools.partial(model.apply, return_carry=True))
    carry, first = begin(variables, x[:, :3])
    end = jax.jit(functools.partial(model.apply, return_run=False))
    second = end(variables, x[:, 3:], initial_carry=carry)
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), run.outputs, atol=1e-6)


@pytest.mark.parametrize("backend", ["native", full("pallas")])
def test_heads_learn_on_every_back_end(made, backend):
    model, variables, x = made
    other = model.clone(layer=model.layer.clone(backend=backend))

    def loss(model, variables):
        run = model.apply(variables, x)
        return jnp.sum(jnp.sin(run.outputs)) + run.rate

    dense = model.clone(layer=model.layer.clone(backend="masked"))
    wanted, found = (jax.jit(jax.grad(lambda v, m=m: loss(m, v))) for m in (dense, other))
    chex.assert_trees_all_close(found(variables), wanted(variables), atol=1e-5)


def test_no_head_is_refused():
    with pytest.raises(ValueError, match="heads must be at least 1, got 0"):
        layers.MultiHeadRecurrent(layers.Recurrent("gru", 4), 0)
