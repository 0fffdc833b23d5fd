"""Skipping steps: the answer of the plain loop, and the steps that are not looked at."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from skip_case import (
    CELLS,
    TABLES,
    WINDOW,
    assert_broken_same,
    assert_empty_unseen,
    assert_no_step,
    assert_same,
    assert_transforms,
    problems,
    turns,
)
from skip_case import given as make

from surnn_jax import cells, switches
from surnn_jax.scan import compact

pytestmark = pytest.mark.usefixtures("float64")
GRU = cells.GRU


@settings(max_examples=30)
@given(problems)
def test_promise_1_equals_the_loop(drawn):
    seed, table = drawn
    assert_same("compact", GRU, make(GRU, seed, table))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_every_cell(cell):
    for table in ("neuron", "blocks"):
        assert_same("compact", cell, make(cell, 1, table))


@pytest.mark.parametrize("gate", [switches.sigmoid(), switches.soft(3.0)], ids=lambda g: g.name)
def test_gates_that_owe_something_everywhere(gate):
    assert_same("compact", cells.TANH, make(cells.TANH, 2, "neuron"), gate=gate)


def test_broken_numbers_stay_where_they_are():
    assert_broken_same("compact", GRU, make(GRU, 9, "neuron"))


def test_a_table_per_example():
    for table in ("neuron", "one"):
        assert_same("compact", GRU, make(GRU, 3, table, per_example=True))


def test_a_frozen_table_and_nothing_held():
    for table in TABLES:
        problem = make(cells.TANH, 4, table)
        assert_same("compact", cells.TANH, problem, learned=False, plain=True)


def test_no_step():
    assert_no_step("compact", GRU, make(GRU, 6, "neuron", steps=0))


def test_as_many_turns_as_steps_with_something_to_do():
    problem = make(cells.TANH, 5, "one")._replace(keep=None, resets=None)
    assert turns("compact", problem) == int((problem.a[:, 0] > 0).sum()) > 0
    assert turns("compact", problem._replace(a=problem.a - 9)) == 0


def test_empty_steps_are_not_looked_at():
    assert_empty_unseen("compact", GRU, make(GRU, 5, "one"))


def test_what_is_kept_for_the_way_back():
    problem = make(GRU, 7, "neuron", steps=40)

    def outputs(x):
        args = (problem.params, x, problem.a, problem.start, problem.fresh, None, None)
        return compact.scan(GRU, WINDOW, jnp.float64, *args)

    carries, back = jax.vjp(outputs, problem.x)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(back))
    inputs = (problem.params, problem.x, problem.a, problem.start, problem.fresh)
    # The carries, which the caller holds anyway, and what was given.
    assert kept <= carries.h.nbytes + sum(leaf.nbytes for leaf in jax.tree.leaves(inputs)) + 64


def test_transformed():
    assert_transforms("compact", GRU, make(GRU, 8, "blocks"))
