"""Flax's own tests of recurrent layers, run on ours.

``make test-peers FLAX=FOLDER``, or ``python tests/peers/flax_suite.py FOLDER``: the folder is a
checkout of Flax. Its test files are loaded as they are, after Flax's names have been replaced by
ours, and run four times: our cells in Flax's `nn.RNN`, our layer in its place, and the same with
`nnx.RNN`. Parameters are shown in Flax's layout, so that what the tests say of it is asked too.
The counts, and why a test does not apply, are printed; the exit status is the number of failures
other than those by design.
"""

import importlib.util
import sys
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
from flax import nnx

from surnn_jax import cells, scan
from surnn_jax.layers import Recurrent, UnitCell
from surnn_jax.nnx import Recurrent as NNXRecurrent
from surnn_jax.nnx import UnitCell as NNXUnitCell

LINEN = "tests/linen/linen_recurrent_test.py"
NNX = "tests/nnx/nn/recurrent_test.py"

NOT_APPLICABLE = {
    "test_rnn_with_spatial_dimensions": "a convolutional cell",
    "test_rnn_with_custom_cell": "a cell that the test writes itself",
    **dict.fromkeys(
        (
            "test_flip_sequence",
            "test_flip_sequence_more_feature_dims",
            "test_flip_sequence_time_major",
            "test_flip_sequence_time_major_more_feature_dims",
        ),
        "a function of Flax that is no layer",
    ),
}
"""Tests that would run without any of our code, and why."""

# The layer makes its own cell, so that these two tests see nothing of it.
WITHOUT_LAYER = {
    "test_numerical_equivalence_single_batch_nn_scan": "a bare cell, no layer",
    "test_numerical_equivalence_single_batch_jax_scan": "a bare cell, no layer",
}

WITHOUT_CELL = {"test_recurrent_dropout": "it reads the cell inside nnx.RNN"}

BY_DESIGN = {
    ("the layer for nn.RNN", "test_numerical_equivalence_with_mask"): (
        "expects outputs beyond the end of a sequence, where ours are 0"
    ),
}
"""Tests that fail because ours means to differ, and how."""


def to_flax(tree: Any) -> Any:
    """Our parameters of an LSTM in Flax's layout: ``{"ii": {"kernel"}, "hi": {…, "bias"}, …}``."""
    if not tree or not tree.get("params"):
        return tree
    ours = tree["params"]["cell"]
    inputs = {f"i{g}": {"kernel": kernel} for g, kernel in ours["input"].items()}
    hidden = {
        f"h{g}": {"kernel": kernel, "bias": ours["vector"][f"b_{g}"]}
        for g, kernel in ours["recurrent"].items()
    }
    return {**tree, "params": inputs | hidden}


def from_flax(tree: Any) -> Any:
    """The inverse of :func:`to_flax`."""
    if not tree or not tree.get("params"):
        return tree
    theirs = tree["params"]
    ours = {
        "input": {g: theirs[f"i{g}"]["kernel"] for g in "ifgo"},
        "recurrent": {g: theirs[f"h{g}"]["kernel"] for g in "ifgo"},
        "vector": {f"b_{g}": theirs[f"h{g}"]["bias"] for g in "ifgo"},
    }
    return {**tree, "params": {"cell": ours}}


def to_flax_layer(tree: Any) -> Any:
    """:func:`to_flax` below the name that `nn.RNN` gives to its cell."""
    return {**tree, "params": {"cell": to_flax(tree)["params"]}} if tree.get("params") else tree


def from_flax_layer(tree: Any) -> Any:
    """The inverse of :func:`to_flax_layer`."""
    return from_flax({**tree, "params": tree["params"]["cell"]}) if tree.get("params") else tree


def in_flax_layout(module: nn.Module, make: Any, layouts: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls the module that `make` makes inside `module`.

    It sees our parameters in the scope of `module`, whose caller sees Flax's.
    """

    def call(module):
        inner = make(module)
        nn.share_scope(module, inner)
        return inner(*args, **kwargs)

    # `nn.scan` runs its body twice to initialise it; the second time there are parameters.
    made = module.is_initializing() and not module.variables.get("params")
    return nn.map_variables(call, "params", *layouts, init=made, mutable=made)(module)


class LSTMCell(nn.RNNCellBase):
    """:class:`UnitCell` with the fields and the parameters of Flax's LSTM."""

    features: int
    gate_fn: Any = None
    activation_fn: Any = None
    dtype: Any = None
    param_dtype: Any = jax.numpy.float32

    def _unit_cell(self, parent: nn.Module | None = None) -> UnitCell:
        cell = cells.variant(cells.LSTM, gate_fn=self.gate_fn, activation_fn=self.activation_fn)
        options = {"dtype": self.dtype, "param_dtype": self.param_dtype, "parent": parent}
        return UnitCell(cell, self.features, **options)

    @nn.compact
    def __call__(self, carry, inputs):
        return in_flax_layout(self, self._unit_cell, (from_flax, to_flax), carry, inputs)

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return self._unit_cell().initialize_carry(rng, input_shape)

    @property
    def num_feature_axes(self):
        return self._unit_cell().num_feature_axes


class Layer(nn.Module):
    """:class:`Recurrent` with the parameters of Flax's `nn.RNN` of an LSTM."""

    features: int
    options: Any

    @nn.compact
    def __call__(self, *args, **kwargs):
        def make(parent):
            return Recurrent("lstm", self.features, **self.options, parent=parent)

        return in_flax_layout(self, make, (from_flax_layer, to_flax_layer), *args, **kwargs)

    @property
    def cell(self):
        return LSTMCell(self.features, parent=None)

    @property
    def num_feature_axes(self):
        return 1


def rnn(cell: LSTMCell, **options: Any) -> Layer:
    """`nn.RNN`, for the cells of this module."""
    return Layer(cell.features, options)


class Dense:
    """One of the linear layers that a Flax cell would have."""

    def __init__(self, kernel, bias=None):
        self.kernel, self.bias, self.use_bias = kernel, bias, bias is not None


def nnx_cell(name: str) -> type:
    """A class with the arguments and the linear layers of Flax's NNX cell."""

    class Cell(NNXUnitCell):
        def __init__(
            self, in_features, hidden_features, *, gate_fn=None, activation_fn=None, **options
        ):
            cell = cells.variant(cells.get(name), gate_fn=gate_fn, activation_fn=activation_fn)
            super().__init__(in_features, hidden_features, cell, **options)

        def __getattr__(self, dense):
            kind, gate = {"i": "input", "h": "recurrent"}.get(dense[:1]), dense[1:].strip("_")
            if kind is None or gate not in tuple("ifgo"):
                raise AttributeError(dense)
            params = self.params["cell"]
            bias = params["vector"][f"b_{gate}"] if kind == "recurrent" else None
            return Dense(params[kind][gate], bias)

    return Cell


def nnx_rnn(cell: NNXUnitCell, **options: Any) -> NNXRecurrent:
    """`nnx.RNN`, for the cells of this module; it shares their parameters."""
    for name in ("unroll", "broadcast_rngs"):  # How Flax loops and lifts.
        options.pop(name, None)
    dtypes = {"dtype": cell.layer.dtype, "param_dtype": cell.layer.param_dtype}
    unit = cell.layer.unit.cell
    layer = NNXRecurrent(
        cell.in_features, cell.features, unit, **dtypes, **options, rngs=nnx.Rngs(0)
    )
    layer.params = cell.params
    return layer


class Names:
    """A module of Flax with some names replaced."""

    def __init__(self, module: Any, ours: dict[str, Any]):
        self._module = module
        self.__dict__.update(ours)

    def __getattr__(self, name):
        return getattr(self._module, name)


NNX_CELLS = {
    "LSTMCell": nnx_cell("lstm"),
    "OptimizedLSTMCell": nnx_cell("lstm"),
    "GRUCell": nnx_cell("gru"),
}

ROUTES = {
    "cells in nn.RNN": (LINEN, nn, {"LSTMCell": LSTMCell}, {}),
    "the layer for nn.RNN": (LINEN, nn, {"LSTMCell": LSTMCell, "RNN": rnn}, WITHOUT_LAYER),
    "cells in nnx.RNN": (NNX, nnx, NNX_CELLS, {}),
    "the layer for nnx.RNN": (NNX, nnx, {**NNX_CELLS, "RNN": nnx_rnn}, WITHOUT_CELL),
}
"""What is replaced: file of tests, module, names, and tests that do not apply."""


class _Result(unittest.TestResult):
    """Keeps what passed, too, and whether our code was called."""

    def __init__(self):
        super().__init__()
        self.outcomes: dict[str, str] = {}
        self.runs = 0

    def startTest(self, test):
        super().startTest(test)
        self.runs = 0

    def addSuccess(self, test):
        ran = self.runs > 0
        self.outcomes[test._testMethodName] = "passes" if ran else "FAILS: runs none of our code"

    def addError(self, test, err):
        self.outcomes[test._testMethodName] = f"FAILS: {err[1]!r}"[:300]

    addFailure = addError


def run_route(folder: Path, route: str) -> dict[str, str]:
    """The outcome of each test: "passes", "FAILS: …" or "does not apply: …"."""
    path, module, names, others = ROUTES[route]
    name_in_tests = "nnx" if module is nnx else "nn"
    skipped = NOT_APPLICABLE | others
    spec = importlib.util.spec_from_file_location(Path(path).stem, folder / path)
    loaded, result = importlib.util.module_from_spec(spec), _Result()

    def counted(method):
        def call(*args, **kwargs):
            result.runs += 1
            return method(*args, **kwargs)

        return call

    spec.loader.exec_module(loaded)
    setattr(loaded, name_in_tests, Names(module, names))
    with (
        mock.patch.object(scan, "run", counted(scan.run)),
        mock.patch.object(scan.Unit, "zero_carry", counted(scan.Unit.zero_carry)),
    ):
        for suite in unittest.defaultTestLoader.loadTestsFromModule(loaded):
            for test in suite:
                name = test._testMethodName
                if name in skipped:
                    result.outcomes[name] = f"does not apply: {skipped[name]}"
                else:
                    test.run(result)
    for (where, name), reason in BY_DESIGN.items():
        if where == route and result.outcomes.get(name, "").startswith("FAILS"):
            result.outcomes[name] = f"differs by design: {reason}"
    return result.outcomes


def main(folder: str) -> int:
    """Runs all routes and prints the counts; returns the number of failures."""
    failures = 0
    for route, (path, *_) in ROUTES.items():
        if not (Path(folder) / path).is_file():
            raise SystemExit(f"{folder}: no file {path}; name a checkout of Flax")
        outcomes = run_route(Path(folder), route)
        passes = sum(outcome == "passes" for outcome in outcomes.values())
        failed = {name: o for name, o in outcomes.items() if o.startswith("FAILS")}
        differ = sum(outcome.startswith("differs") for outcome in outcomes.values())
        failures += len(failed)
        print(f"{path}, {route}: {len(outcomes)} tests,", end=" ")
        print(f"{passes + differ + len(failed)} apply, {passes} pass,", end=" ")
        print(f"{differ} differ by design, {len(failed)} fail")
        for name, outcome in outcomes.items():
            if outcome != "passes":
                print(f"    {name}: {outcome}")
    return failures


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("name a checkout of Flax: make test-peers FLAX=FOLDER")
    sys.exit(main(sys.argv[1]))
