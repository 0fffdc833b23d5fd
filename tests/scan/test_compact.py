"""Skipping steps: how many are taken, what is not looked at, and what is kept."""

import jax
import jax.numpy as jnp
import pytest
from skip_case import WINDOW, assert_empty_unseen, turns
from skip_case import given as make

from surnn_jax import cells
from surnn_jax.scan import ScanInputs, ScanSpec, compact

pytestmark = pytest.mark.usefixtures("float64")
GRU = cells.GRU


def test_as_many_turns_as_steps_with_something_to_do():
    problem = make(cells.TANH, 5, "one")._replace(step_mask=None, resets=None)
    assert turns("compact", problem) == int((problem.logits[:, 0] > 0).sum()) > 0
    assert turns("compact", problem._replace(logits=problem.logits - 9)) == 0


def test_empty_steps_are_not_looked_at():
    assert_empty_unseen("compact", GRU, make(GRU, 5, "one"))


def test_what_is_kept_for_the_way_back():
    problem = make(GRU, 7, "neuron", steps=40)

    def outputs(x):
        inputs = ScanInputs(*problem._replace(x=x)[:5])
        return compact.scan(ScanSpec(GRU, WINDOW, jnp.float64), inputs)

    carries, back = jax.vjp(outputs, problem.x)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(back))
    # The carries, which the caller holds anyway, and what was given.
    assert kept <= carries.h.nbytes + sum(leaf.nbytes for leaf in jax.tree.leaves(problem[:5])) + 64
