"""Trees of parameters without empty entries, which other tools drop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from tiers import tiered

from surnn_jax import run, selective, switches
from surnn_jax.layers import Backbone, MultiHeadRecurrent, Recurrent, SequenceTagger, mixers

X = jax.random.normal(jax.random.key(0), (2, 6, 3))
LAYERS = {
    "every": ("gru", switches.every(6)),
    "clockwork": ("clockwork", switches.clockwork(6)),
    "zoneout": ("gru", switches.zoneout(6)),
    "min_gru": ("min_gru", None),
    "min_lstm-event": ("min_lstm", switches.event(6)),
    "both": ("min_gru", switches.every(6)),
    "fourier": ("lstm", switches.fourier(6)),
}
each_layer = pytest.mark.parametrize("name", tiered(LAYERS, ["both", "zoneout"]))


def layer(name):
    cell, switch = LAYERS[name]
    return Recurrent(cell, 8, switch)


def bits(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@each_layer
def test_a_tree_survives_being_flattened(name):
    variables = layer(name).init(jax.random.key(1), X)
    flat = flatten_dict(variables)
    bits(unflatten_dict(flat), variables)
    gradient = jax.grad(lambda v: jnp.sum(layer(name).apply(v, X) ** 2))(variables)
    bits(unflatten_dict(flatten_dict(gradient)), gradient)
    assert flatten_dict(gradient).keys() == flat.keys()


@each_layer
def test_nnx_takes_every_layer(name):
    model = nnx.bridge.ToNNX(layer(name), rngs=nnx.Rngs(0)).lazy_init(X)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    np.testing.assert_array_equal(model(X), layer(name).apply({"params": params}, X))
    gradient = nnx.grad(lambda model: jnp.sum(model(X) ** 2))(model)
    assert jax.tree.structure(nnx.to_pure_dict(gradient)) == jax.tree.structure(params)


@each_layer
def test_trees_with_empty_entries_are_read_too(name):
    """So they were made before; and the functional core takes both."""
    variables = layer(name).init(jax.random.key(1), X)
    want = layer(name).apply(variables, X)
    params = variables["params"]
    cell = {"recurrent": {}, "vector": {}, **params["cell"]}
    old = {"cell": cell, "switch": params.get("switch", {})}
    np.testing.assert_array_equal(layer(name).apply({"params": old}, X), want)
    unit, x = selective(*LAYERS[name]), jnp.swapaxes(X, 0, 1)
    bits(run(unit, old, x).outputs, run(unit, params, x).outputs)


@pytest.mark.parametrize("name", tiered(LAYERS, ["both"]))
def test_lazy_init_reads_the_shape_alone(name):
    like = jax.ShapeDtypeStruct(X.shape, X.dtype)
    lazy = layer(name).lazy_init(jax.random.key(1), like)
    # An event switch is set for noise, as by a dummy of zeros.
    bits(lazy, layer(name).init(jax.random.key(1), jnp.zeros(X.shape)))


@pytest.mark.full
def test_lazy_init_of_a_model():
    options = mixers.Options(switch=switches.event(6, rate=0.3))
    model = SequenceTagger(Backbone(("sugru", "sulstm"), 8, options=options), 2)
    lazy = model.lazy_init(jax.random.key(1), jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert jax.tree.structure(lazy) == jax.tree.structure(model.init(jax.random.key(1), X))
    heads = MultiHeadRecurrent(Recurrent("gru", 4, switches.every(6)), 2)
    variables = heads.init(jax.random.key(0), X)
    bits(unflatten_dict(flatten_dict(variables)), variables)


def test_a_missing_switch_is_named():
    unit = selective("gru", switches.fourier(6))
    params = unit.init(jax.random.key(0), X, 4)
    with pytest.raises(ValueError, match="'switch'"):
        run(unit, {"cell": params["cell"]}, X)
