"""Persistent kernels, interpreted: tiles, blocks that are passed over; and that they lower."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skip_case import WINDOW, assert_empty_unseen, assert_same, solver, turns
from skip_case import given as make
from tiers import tiered

from surnn_jax import cells, run, selective, switches
from surnn_jax.scan import ScanInputs, ScanSpec, masked, pallas
from surnn_jax.scan.pallas import tiling
from surnn_jax.scan.spec import ScanShape

pytestmark = pytest.mark.usefixtures("float64", "small_chunks")
GRU = cells.GRU


@pytest.mark.full
def test_the_tiles_of_a_tpu(monkeypatch):
    target = dataclasses.replace(tiling.TARGETS["tpu"], interpret=True)
    monkeypatch.setitem(tiling.TARGETS, "cpu", target)
    solver.cache_clear()
    assert_same("pallas", GRU, make(GRU, 1, "neuron"))
    solver.cache_clear()


def test_closed_blocks_of_neurons_are_passed_over():
    """One program a batch of two, so a rule is applied once for a step's open block of four."""
    problem = make(cells.TANH, 5, "neuron")._replace(step_mask=None, resets=None)
    blocks = np.pad(np.asarray(problem.logits > 0), ((0, 0), (0, 1))).reshape(-1, 3, 4).any(-1)
    assert 0 < blocks.sum() < blocks.size
    assert turns("pallas", problem) == blocks.sum()
    assert turns("pallas", problem._replace(logits=problem.logits - 9)) == 0


@pytest.mark.full
def test_empty_steps_are_not_looked_at():
    assert_empty_unseen("pallas", GRU, make(GRU, 5, "one"))


@pytest.mark.parametrize(
    "cell",
    tiered([cells.TANH, GRU, cells.LSTM_PEEPHOLE], [cells.TANH]),
    ids=lambda cell: cell.name,
)
def test_kernels_lower_for_a_tpu_that_is_not_there(cell):
    """Forward and backward become kernels, in float32 and with bfloat16 operands."""
    target = tiling.TARGETS["tpu"]
    steps, batch, inputs, features = 40, 20, 8, 96

    def loss(dtype, params, x, logits, start, resets):
        inputs = ScanInputs(params, x, logits, start, start, None, resets)
        carries = pallas.scan_for_target(target, ScanSpec(cell, WINDOW, dtype), inputs)
        return jnp.sum(carries.h)

    with jax.enable_x64(False):
        params = cell.init(jax.random.key(0), inputs, features)
        start = cell.carry(*(jnp.zeros((batch, features)) for _ in cell.carry._fields))
        for dtype, shape in ((jnp.float32, ()), (jnp.bfloat16, (batch,))):
            args = (
                params,
                jnp.zeros((steps, batch, inputs)),
                jnp.zeros((steps, *shape, features)),
                start,
                jnp.zeros((steps, batch), bool) if shape else None,
            )
            gradient = jax.jit(jax.grad(functools.partial(loss, dtype), argnums=(0, 1, 2, 3)))
            text = gradient.trace(*args).lower(lowering_platforms=("tpu",)).as_text()
            assert text.count("tpu_custom_call") >= 2


def test_what_has_no_kernel_is_said_and_runs_dense(monkeypatch):
    def refusal(cell, features, dtype, platform):
        shape = ScanShape(8, 2, features, jnp.dtype("float32"), False, platform)
        return pallas.unsupported(ScanSpec(cell, WINDOW, dtype), shape)

    assert refusal(GRU, 64, "float32", "tpu") is None
    assert refusal(GRU, 64, "float64", "tpu") == "a tpu has no products of float64"
    assert refusal(cells.get("min_gru"), 64, "float32", "tpu").startswith("min_gru has no product")
    assert refusal(GRU, 64, "float32", "gpu") == "no kernels for gpu"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    args = ScanSpec(GRU, WINDOW, jnp.float64), ScanInputs(*make(GRU, 1, "neuron")[:7])
    chex.assert_trees_all_equal(pallas.scan(*args), masked.scan(*args))


@pytest.mark.full
@pytest.mark.parametrize(("batch", "features"), [(1, 1), (1, 5), (3, 4)])
def test_sizes_that_do_not_fill_a_tile(batch, features):
    """One example and one neuron are no axis to be repeated along."""
    unit = selective("gru", switches.fourier(horizon=6, rate=0.5))
    x = jax.random.normal(jax.random.key(0), (5, batch, 2), jnp.float64)
    params = jax.jit(lambda x: unit.init(jax.random.key(1), x, features, jnp.float64))(x)
    mask = jnp.arange(5)[:, None] != jnp.arange(batch)[None]
    resets = jnp.broadcast_to(jnp.arange(5)[:, None] == 3, mask.shape)

    def loss(params, x, backend):
        done = run(unit, params, x, mask=mask, resets=resets, backend=backend)
        return jnp.sum(jnp.sin(done.outputs)) + done.rate

    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=2)
    chex.assert_trees_all_close(
        gradient(params, x, "pallas"), gradient(params, x, "reference"), rtol=1e-9, atol=1e-9
    )
