"""Names at the public border: what a name stands for, and what a wrong one is told."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import surnn_jax
from surnn_jax import names, scan, switches
from surnn_jax.layers import Backbone, Classifier, LanguageModel, Recurrent, UnitCell

KEY = jax.random.key(0)
X = jnp.ones((2, 5, 3))


@pytest.mark.parametrize("package", ["surnn_jax", "experiments", "benchmarks"])
def test_no_module_shares_its_name_with_something_else(package):
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        if module.name.endswith("._kernel"):
            continue
        parent, _, name = module.name.rpartition(".")
        found = getattr(importlib.import_module(parent), name, None)
        assert found is None or found is sys.modules.get(module.name), module.name


@pytest.mark.parametrize("name", switches.SWITCHES)
def test_makers_of_switches_show_the_fields_and_their_defaults(name):
    made = switches.get(name)
    fields = {field.name: field for field in dataclasses.fields(made)}
    given = list(inspect.signature(switches.SWITCHES[name]).parameters.values())[1:]
    assert all(p.kind is p.KEYWORD_ONLY and p.name in fields for p in given)
    if name == "threshold":
        assert not {"harmonics", "frozen"} & {p.name for p in given}
        return
    assert {p.name for p in given} == fields.keys() - {"horizon"}
    assert made == type(made)(**({"horizon": switches.HORIZON} if "horizon" in fields else {}))


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (("sugru", None), ("gru", switches.fourier(switches.HORIZON))),
        (("gru", "event"), ("gru", switches.event(switches.HORIZON))),
        (("sulstm", "event"), ("lstm", switches.event(switches.HORIZON))),
        (("sutanh", switches.every(9)), ("tanh", switches.every(9))),
        (("gru", None), ("gru", None)),
    ],
)
def test_a_name_stands_for_a_cell_and_a_switch(given, plain):
    assert scan.selective(*given) == scan.selective(*plain)
    for layer in (Recurrent, UnitCell):
        cell, switch = given
        assert layer(cell, 4, switch) == layer(plain[0], 4, plain[1])
    assert Recurrent("sugru", 4).init(KEY, X).keys() == {"params"}


def test_one_layer_needs_no_tuple():
    assert Backbone("gru", 8) == Backbone(("gru",), 8)
    assert switches.fourier(9, gate="sigmoid") == switches.fourier(9, gate=switches.sigmoid())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Recurrent("grru", 4), ValueError, "^unknown cell 'grru'; did you mean 'gru'?"),
        (lambda: Recurrent("sugruu", 4), ValueError, "did you mean 'sugru'"),
        (lambda: Recurrent(4, "gru"), ValueError, "^no cell: an object of type int; one of: ta"),
        (lambda: Recurrent(nn.GRUCell(4), 4), ValueError, "^no cell: an object of type GRUCell;"),
        (lambda: Recurrent("gru", 4, "furier"), ValueError, "did you mean 'fourier'"),
        (lambda: Recurrent("gru", 4, switches.event), ValueError, r"event\(horizon\), or its name"),
        (lambda: UnitCell("gru", 4, switches.sigmoid()), ValueError, "of type Surrogate"),
        (lambda: switches.fourier("9"), ValueError, "horizon is a number of steps, got '9'"),
        (lambda: switches.fourier(9, rat=0.1), TypeError, "unexpected keyword argument 'rat'"),
        (lambda: switches.fourier(9, gate="sigmoud"), ValueError, "did you mean 'sigmoid'"),
        (lambda: switches.event(9, event_features="pairs"), ValueError, "did you mean 'pair'"),
        (lambda: Backbone("sugruu", 8).init(KEY, X), ValueError, "did you mean 'sugru'"),
        (lambda: nn.RNN(Recurrent("gru", 4)).init(KEY, X), TypeError, "in place of nn.RNN"),
        (
            lambda: LanguageModel(Backbone("gru", 8)).init(KEY, X[..., 0], X[..., 0]),
            ValueError,
            r"Backbone\(layers, features, 'embed', vocabulary=…\)",
        ),
        (lambda: Recurrent("gru", 4).step(None, X[:, 0]), ValueError, "call layer.apply"),
        (lambda: Recurrent("gru", 4).initial_carry((2,)), ValueError, "call layer.apply"),
        (
            lambda: Recurrent("gru", 4, backend="nativ").init(KEY, X),
            ValueError,
            "^unknown back end 'nativ'; did you mean 'native'",
        ),
        (
            lambda: Classifier(Backbone("gru", 8), 3, pooling="men").init(KEY, X),
            ValueError,
            "^unknown pooling 'men'; did you mean 'mean'",
        ),
    ],
)
def test_a_wrong_name_or_type_is_told_what_would_be_right(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_example_of_names_runs():
    """Those of public names are run by `test_examples`."""
    assert doctest.testmod(names).attempted
    assert not doctest.testmod(names).failed


def test_the_package_exports_what_scan_has():
    assert surnn_jax.selective is scan.selective
