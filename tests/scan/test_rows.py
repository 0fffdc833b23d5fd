"""Skipping neurons: how many portions are taken, and the rows that are not looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skip_case import (
    FEATURES,
    solver,
    turns,
)
from skip_case import given as make

from surnn_jax import cells
from surnn_jax.scan import rows

pytestmark = pytest.mark.usefixtures("float64")
GRU = cells.GRU


def test_a_full_step_takes_more_than_one_portion():
    assert rows.width(FEATURES) < FEATURES
    assert [rows.width(h) for h in (1, 64, 128, 256, 1024)] == [1, 8, 16, 24, 104]


def test_as_many_turns_as_portions():
    problem = make(cells.TANH, 5, "neuron")._replace(step_mask=None, resets=None)
    # An empty step, a full one, and one at which all are near the threshold and none open.
    logits = problem.logits.at[0].set(-1.0).at[1].set(1.0).at[2].set(-0.2)
    portions = np.ceil(np.asarray(logits > 0).sum(-1) / rows.width(FEATURES))
    assert turns("rows", problem._replace(logits=logits)) == portions.sum() > 0
    assert portions[:3].tolist() == [0, 2, 0]


def test_rows_of_closed_neurons_are_not_looked_at():
    problem = make(GRU, 5, "neuron")
    dead = np.arange(FEATURES) % 3 == 0
    problem = problem._replace(logits=jnp.where(dead[None], -9.0, problem.logits))

    def poisoned(kernel):
        return jnp.where(dead[None], jnp.nan, kernel)

    params = {kind: jax.tree.map(poisoned, problem.params[kind]) for kind in ("input", "recurrent")}
    params["vector"] = {k: jnp.where(dead, jnp.nan, v) for k, v in problem.params["vector"].items()}
    found = solver("rows", GRU)(*problem._replace(params=params))
    wanted = solver("rows", GRU)(*problem)
    np.testing.assert_equal(jax.tree.map(np.asarray, found), jax.tree.map(np.asarray, wanted))
