"""Back ends that skip: each gives the answer of the plain loop, whatever is open."""

import pytest
from hypothesis import given, settings
from skip_case import (
    CELLS,
    TABLES,
    assert_broken_same,
    assert_no_step,
    assert_same,
    assert_transforms,
    problems,
)
from skip_case import given as make
from tiers import tiered

from surnn_jax import cells, switches

# Each with the tables in which it skips, and in which it cannot.
SKIPPING = {
    "compact": ("blocks", "neuron"),
    "rows": ("neuron", "open"),
    "pallas": ("blocks", "neuron"),
}
GRU = cells.GRU
OWING = (switches.sigmoid(), switches.soft(3.0))

pytestmark = pytest.mark.usefixtures("float64", "small_chunks")
each_back_end = pytest.mark.parametrize("backend", SKIPPING)
# Kernels that are interpreted compile slowly.
each_compiled = pytest.mark.parametrize("backend", tiered(SKIPPING, ("compact", "rows")))


@each_back_end
@settings(max_examples=30)
@given(problems)
def test_promise_1_equals_the_loop(backend, drawn):
    seed, table = drawn
    assert_same(backend, GRU, make(GRU, seed, table))


# With one field, with two and the new one read by a gate, and where all neurons are needed for one.
@pytest.mark.parametrize(
    ("cell", "backend"),
    tiered(
        [(cell, name) for cell in CELLS for name in SKIPPING],
        [
            (cells.TANH, "compact"),
            (cells.TANH, "rows"),
            (cells.TANH, "pallas"),
            (cells.GRU_BEFORE, "compact"),
        ],
    ),
    ids=lambda value: getattr(value, "name", value),
)
def test_every_cell(cell, backend):
    for table in SKIPPING[backend]:
        assert_same(backend, cell, make(cell, 1, table))


@pytest.mark.parametrize(
    ("gate", "backend"),
    tiered(
        [(gate, name) for gate in OWING for name in SKIPPING],
        zip(OWING, ("compact", "rows"), strict=True),
    ),
    ids=lambda value: getattr(value, "name", value),
)
def test_gates_that_owe_something_everywhere(gate, backend):
    assert_same(backend, cells.TANH, make(cells.TANH, 2, "neuron"), surrogate=gate)


@each_compiled
def test_broken_numbers_stay_where_they_are(backend):
    assert_broken_same(backend, GRU, make(GRU, 9, "neuron"))


@each_compiled
def test_a_table_per_example(backend):
    for table in ("neuron", "one"):
        assert_same(backend, GRU, make(GRU, 3, table, per_example=True))


@each_compiled
def test_a_frozen_table_and_nothing_held(backend):
    for table in TABLES:
        problem = make(cells.TANH, 4, table)
        assert_same(backend, cells.TANH, problem, learned=False, plain=True)


@each_compiled
def test_no_step(backend):
    assert_no_step(backend, GRU, make(GRU, 6, "neuron", steps=0))


@pytest.mark.full
@pytest.mark.parametrize("backend", tiered(SKIPPING, ("rows",)))
def test_transformed(backend):
    assert_transforms(backend, GRU, make(GRU, 8, SKIPPING[backend][0]))
