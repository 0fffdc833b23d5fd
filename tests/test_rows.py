"""Skipping neurons: the answer of the plain loop, and the rows that are not looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from skip_case import (
    CELLS,
    FEATURES,
    TABLES,
    assert_broken_same,
    assert_no_step,
    assert_same,
    assert_transforms,
    problems,
    solver,
    turns,
)
from skip_case import given as make

from surnn_jax import cells, switches
from surnn_jax.scan import rows

pytestmark = pytest.mark.usefixtures("float64")
GRU = cells.GRU


def test_a_full_step_takes_more_than_one_portion():
    assert rows.width(FEATURES) < FEATURES
    assert [rows.width(h) for h in (1, 64, 128, 256, 1024)] == [1, 8, 16, 24, 104]


@settings(max_examples=30)
@given(problems)
def test_promise_1_equals_the_loop(drawn):
    seed, table = drawn
    assert_same("rows", GRU, make(GRU, seed, table))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_every_cell(cell):
    for table in ("neuron", "open"):
        assert_same("rows", cell, make(cell, 1, table))


@pytest.mark.parametrize("gate", [switches.sigmoid(), switches.soft(3.0)], ids=lambda g: g.name)
def test_gates_that_owe_something_everywhere(gate):
    assert_same("rows", cells.TANH, make(cells.TANH, 2, "neuron"), gate=gate)


def test_broken_numbers_stay_where_they_are():
    assert_broken_same("rows", GRU, make(GRU, 9, "neuron"))


def test_a_table_per_example():
    assert_same("rows", cells.TANH, make(cells.TANH, 3, "neuron", per_example=True))


def test_a_frozen_table_and_nothing_held():
    for table in TABLES:
        problem = make(cells.TANH, 4, table)
        assert_same("rows", cells.TANH, problem, learned=False, plain=True)


def test_no_step():
    assert_no_step("rows", GRU, make(GRU, 6, "neuron", steps=0))


def test_as_many_turns_as_portions():
    problem = make(cells.TANH, 5, "neuron")._replace(keep=None, resets=None)
    # An empty step, a full one, and one at which all are near the threshold and none open.
    a = problem.a.at[0].set(-1.0).at[1].set(1.0).at[2].set(-0.2)
    portions = np.ceil(np.asarray(a > 0).sum(-1) / rows.width(FEATURES))
    assert turns("rows", problem._replace(a=a)) == portions.sum() > 0
    assert portions[:3].tolist() == [0, 2, 0]


def test_rows_of_closed_neurons_are_not_looked_at():
    problem = make(GRU, 5, "neuron")
    dead = np.arange(FEATURES) % 3 == 0
    problem = problem._replace(a=jnp.where(dead[None], -9.0, problem.a))

    def poisoned(kernel):
        return jnp.where(dead[None], jnp.nan, kernel)

    params = {kind: jax.tree.map(poisoned, problem.params[kind]) for kind in ("input", "recurrent")}
    params["vector"] = {k: jnp.where(dead, jnp.nan, v) for k, v in problem.params["vector"].items()}
    found = solver("rows", GRU)(*problem._replace(params=params))
    wanted = solver("rows", GRU)(*problem)
    np.testing.assert_equal(jax.tree.map(np.asarray, found), jax.tree.map(np.asarray, wanted))


def test_transformed():
    assert_transforms("rows", GRU, make(GRU, 8, "neuron"))
