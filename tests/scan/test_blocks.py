"""Scans as accelerators run them, on a CPU: blocks of steps give the reference's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skip_case import (
    SCANS,
    WINDOW,
    assert_empty_unseen,
    assert_no_step,
    assert_same,
    assert_transforms,
)
from skip_case import given as make
from tiers import tiered

from surnn_jax import cells, switches
from surnn_jax.scan import ScanInputs, ScanSpec, blocks, compact_blocks

pytestmark = pytest.mark.usefixtures("float64", "short_blocks")
NAMES = ("masked, accelerated", "compact, accelerated")
CELLS = (cells.GRU, cells.LSTM_PEEPHOLE, cells.GRU_BEFORE, cells.TANH)


@pytest.fixture
def short_blocks(monkeypatch):
    """Blocks of three steps: with five there is a whole one and a part of one."""
    monkeypatch.setattr(blocks, "STEPS", 3)


CASES = [(n, c, t, e) for n in NAMES for c in CELLS for t in ("neuron", "one", "near", "closed")
         for e in (False, True)]  # fmt: skip
KEPT = [
    (NAMES[0], cells.GRU, "neuron", False),
    (NAMES[1], cells.GRU, "one", False),
]


@pytest.mark.parametrize(
    ("name", "cell", "table", "per_example"),
    tiered(CASES, KEPT),
    ids=lambda value: value.name if hasattr(value, "name") else str(value),
)
def test_blocks_equal_the_reference(name, cell, table, per_example):
    """Values and gradients, with masks and resets; one rhythm is closed at first."""
    problem = make(cell, 3, table, per_example=per_example, steps=5)
    if table == "one":
        logits, resets = problem.logits.at[0].set(-3.0), problem.resets.at[0].set(False)
        problem = problem._replace(logits=logits, resets=resets)
    assert_same(name, cell, problem)


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_blocks_at_the_ends(name, steps):
    """Less than a block, one, two; and no part of one."""
    assert_same(name, cells.GRU, make(cells.GRU, 4, "blocks", steps=steps))


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_blocks_without_steps_or_a_table_and_with_other_gates(name):
    problem = make(cells.GRU, 5, "neuron", steps=5)
    assert_no_step(name, cells.GRU, make(cells.GRU, 6, "one", steps=0))
    assert_same(name, cells.GRU, problem, surrogate=switches.triangular(0.5, 0.5))
    assert_same(name, cells.GRU, problem, surrogate=switches.soft(3.0))
    assert_same(name, cells.GRU, problem, learned=False, plain=True)


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_transformed(name):
    assert_transforms(name, cells.GRU, make(cells.GRU, 7, "one", steps=5))


def test_what_is_not_listed_is_not_looked_at():
    """The last step is closed, and it is with it that the last block is filled up."""
    problem = make(cells.GRU, 5, "one")
    closed = problem.logits.at[-1].set(-3.0)
    assert (problem.logits[:, 0] > 0).sum() % 3
    assert_empty_unseen("compact, accelerated", cells.GRU, problem._replace(logits=closed))


def test_sums_to_the_next_active_step():
    ct = np.random.default_rng(0).normal(size=(9, 2, 3))
    active = np.array([0, 1, 0, 0, 1, 1, 0, 0, 0], bool)
    found = compact_blocks.sums_to_next(jnp.asarray(ct), jnp.asarray(active))
    for t in range(9):
        end = next((s for s in range(t + 1, 9) if active[s]), 9)
        np.testing.assert_allclose(found[t], ct[t:end].sum(0), rtol=1e-12)


def _lowered(name: str, platform: str, tables: int = 0) -> str:
    """The program of a gradient for a platform, which need not be there."""
    problem = make(cells.GRU, 8, "one", steps=9)
    params, x, logits, *rest = problem[:7]
    spec = ScanSpec(cells.GRU, WINDOW, jnp.float64)

    def loss(params, x, logits):
        return jnp.sum(SCANS[name](spec, ScanInputs(params, x, logits, *rest)).h)

    run = jax.grad(loss, argnums=(0, 1, 2))
    if tables:
        run, logits = jax.vmap(run, (None, None, 0)), jnp.stack([logits] * tables)
    return jax.jit(run).trace(params, x, logits).lower(lowering_platforms=(platform,)).as_text()


def test_the_platform_decides():
    """A CPU keeps the plain loops; others get the blocks, and `masked` for `compact` in `vmap`."""
    products = {p: _lowered("masked", p).count("dot_general") for p in ("cpu", "cuda", "tpu")}
    assert products["cpu"] < products["cuda"] == products["tpu"]
    # The list of steps is made with a running sum, and only where there is one.
    assert "cumsum" in _lowered("compact", "cuda")
    assert "cumsum" not in _lowered("compact", "cuda", tables=2)
    assert "cumsum" in _lowered("compact", "cpu", tables=2)
