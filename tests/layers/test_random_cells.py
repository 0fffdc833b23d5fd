"""Chance inside a cell that stock `nn.RNN` runs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from surnn_jax.layers import UnitCell
from surnn_jax.switches import zoneout

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 30, 3)), jnp.float32)
HOLD = 0.6


def _rnn(**options):
    layer = nn.RNN(UnitCell("tanh", 50, zoneout(1, hold=HOLD)), **options)
    return layer, layer.init(jax.random.key(0), X)


def test_a_cell_draws_at_every_step_by_the_key_it_is_given():
    layer, params = _rnn(split_rngs={"params": False, "dropout": True})
    call = jax.jit(lambda key: layer.apply(params, X, rngs={"dropout": key}))
    one, again, other = (call(jax.random.key(n)) for n in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1
    held = np.asarray(one[:, 1:] == one[:, :-1])
    assert held.mean() == pytest.approx(HOLD, abs=0.03)
    # Neither every step nor every neuron draws alike.
    assert 0 < held[:, 0].mean() < 1
    assert (held[:, 1:] != held[:, :-1]).any()
    assert (held[0] != held[1]).any()


def test_a_key_that_would_not_arrive_is_refused():
    layer, params = _rnn()
    with pytest.raises(ValueError, match=r"^zoneout draws at every step, but nn"):
        layer.apply(params, X, rngs={"dropout": jax.random.key(1)})
    expected = layer.apply(params, X)  # without a key: the expectation, in evaluation
    split, _ = _rnn(split_rngs={"params": False, "dropout": True})
    np.testing.assert_array_equal(split.apply(params, X), expected)
    plain = nn.RNN(UnitCell("tanh", 50))  # a cell that draws nothing takes any key
    params = plain.init(jax.random.key(0), X)
    plain.apply(params, X, rngs={"dropout": jax.random.key(1)})
