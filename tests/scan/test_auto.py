"""The choice of a back end, and what is said of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from surnn_jax import cells, selective, switches
from surnn_jax.scan import auto, native

SIZES = {"features": 256, "steps": 1024, "batch": 16}


@pytest.fixture
def uncompiled(monkeypatch):
    """The machine has no compiled kernel."""
    monkeypatch.setattr(native, "unsupported", lambda spec, shape: "not built")


def choose(switch, cell="gru", **sizes):
    return auto.choose(selective(cell, switch), **{**SIZES, **sizes}, platform="cpu")


@pytest.mark.usefixtures("uncompiled")
def test_pure_choices():
    sparse = {"rate": 0.05, "frozen": True}
    assert choose(switches.fourier(1024, **sparse)).backend == "rows"
    assert choose(switches.fourier(1024, rate=0.6)).backend == "compact"
    assert choose(None).backend == "compact"
    # Every example its own table, a candidate that reads all neurons, a gate never shut, and a
    # surrogate that owes something everywhere.
    assert choose(switches.event(1024, rate=0.05)).backend == "compact"
    assert choose(switches.fourier(1024, **sparse), cell="gru_before").backend == "compact"
    for gate in (switches.soft(), switches.straight_through()):
        assert choose(switches.fourier(1024, rate=0.05, gate=gate)).backend == "compact"
    # A layer too small for rows to pay.
    assert choose(switches.fourier(1024, rate=0.17), features=32, batch=1).backend == "compact"
    assert choose(None, steps=1).backend == "masked"


def test_the_compiled_kernel_comes_first(monkeypatch):
    monkeypatch.setattr(native, "unsupported", lambda spec, shape: None)
    switch = switches.fourier(1024, rate=0.05)
    assert choose(switch).backend == choose(None).backend == "native"
    assert choose(switch, cell="tanh").backend == "native"
    assert choose(None, cell="tanh").backend == "masked"
    assert choose(None, batch=1).backend == "masked"
    assert choose(None, batch=1, features=64).backend == choose(None, batch=2).backend == "native"
    assert choose(switch, batch=1).backend == "native"
    unit = selective("gru", switch)
    assert auto.choose(unit, **SIZES, platform="gpu").backend == "masked"


@pytest.mark.usefixtures("uncompiled")
def test_costs_rise_with_the_rate():
    costs = [choose(switches.fourier(1024, rate=r)).costs["rows"] for r in (0.05, 0.1, 0.3, 0.9)]
    assert costs == sorted(costs)
    assert costs[0] < 0.5 < costs[-1]


def test_the_share_computed_is_that_of_a_drawn_table():
    """The rule of thumb for the window, against tables as they are drawn."""
    for rate in (0.05, 0.1, 0.17, 0.3):
        switch = switches.fourier(400, rate=rate)
        x = jnp.zeros((400, 1, 1))
        seen = switches.SwitchInputs(x, None, jnp.arange(400, dtype=jnp.int32))

        @jax.jit
        def table(switch=switch, seen=seen):
            return switch.logits(switch.init(jax.random.key(0), seen, 300), seen)

        a = np.asarray(table())
        rates = auto.update_rates(selective("gru", switch), 300)
        assert rates.schedules == 300
        np.testing.assert_allclose(rates.computed, (a > -switch.gate.support).mean(), atol=0.04)


@pytest.mark.usefixtures("uncompiled")
def test_explained():
    unit = selective(cells.GRU, switches.fourier(1024, rate=0.05))
    said = auto.explain(unit, **SIZES, platform="cpu")
    choice = auto.choose(unit, **SIZES, platform="cpu")
    assert said.splitlines()[-1] == f"-> {choice.backend}: {choice.reason}"
    assert f"rows: {choice.costs['rows']:.2f} of the dense cost" in said
    assert "declared rate 0.05, about 0.15 of candidates computed" in said
    assert "not measured on gpu" in auto.explain(unit, **SIZES, platform="gpu")
    assert "pallas: no kernels for gpu" in auto.explain(unit, **SIZES, platform="gpu")
    assert "pallas: runs only if asked for by name" in auto.explain(unit, **SIZES, platform="tpu")
    wide = auto.explain(unit, 2048, 64, 8, platform="tpu")
    assert "pallas: 2048 neurons do not fit into the memory of one core of a tpu" in wide
    before = auto.explain(selective("gru_before", unit.switch), 64, 64, 8, platform="tpu")
    assert "pallas: gru_before needs all neurons to update one" in before
    mgu = auto.explain(selective("mgu", unit.switch), **SIZES, platform="cpu")
    assert "parallel: mgu is not linear in its state" in mgu
    assert "no switch" in auto.explain(selective("tanh", None), **SIZES, platform="cpu")


@pytest.mark.parametrize("cell", ["mgu", "gru_layer_norm", "slstm", "gru_before"])
def test_a_cell_without_a_compiled_kernel_is_named(cell):
    said = auto.explain(selective(cell, None), **SIZES, platform="cpu")
    assert f"native: the kernel does not know the cell {cell}" in said
    assert not said.splitlines()[-1].startswith("-> native")
