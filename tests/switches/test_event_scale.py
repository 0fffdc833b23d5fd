"""Gradients of an event switch when a batch is cut into microbatches, examples or chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from surnn_jax import run, selective, switches

STEPS, BATCH = 8, 6


def gradients(scale):
    unit = selective("gru", switches.event(STEPS, rate=0.4, gate="sigmoid", scale=scale))
    x = jax.random.normal(jax.random.key(0), (STEPS, BATCH, 3))
    x = x * jnp.exp(jax.random.normal(jax.random.key(1), (BATCH, 1)))[None]
    params = jax.jit(unit.init, static_argnums=2)(jax.random.key(2), x, 5)

    def loss(params, x):
        return jnp.sum(run(unit, params, x, backend="masked").outputs ** 2)

    def chunks(params, x):
        first = run(unit, params, x[:3], backend="masked")
        rest = run(unit, params, x[3:], carry=first.carry, backend="masked")
        return jnp.sum(first.outputs**2) + jnp.sum(rest.outputs**2)

    @jax.jit
    def all_of_them(params, x):
        one = jax.vmap(jax.grad(loss), (None, 1))(params, x[:, :, None])
        halves = jnp.stack([x[:, :3], x[:, 3:]])
        parts = jax.vmap(jax.grad(loss), (None, 0))(params, halves)
        return (
            jax.grad(loss)(params, x),
            jax.tree.map(lambda leaf: leaf.sum(0), one),
            jax.tree.map(lambda leaf: leaf.sum(0), parts),
            jax.grad(chunks)(params, x),
        )

    return all_of_them(params, x)


@pytest.mark.full
def test_scaled_by_weights_they_agree():
    whole, *cut = gradients("weights")
    assert np.abs(whole["switch"]["v"]).max() > 0.1
    for other in cut:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), other, whole
        )


def test_scaled_by_the_batch_only_the_switch_differs():
    whole, *cut = gradients("batch")
    for other in cut:
        # At the same outputs all that flows through the cell is the same.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4),
            other["cell"],
            whole["cell"],
        )
        assert np.abs(other["switch"]["v"] - whole["switch"]["v"]).max() > 0.01


def test_the_scale_is_about_that_of_a_batch_of_unit_variance():
    x = jax.random.normal(jax.random.key(0), (200, 50, 4))
    made = switches.event(200, scale="weights")
    seen = switches.SwitchInputs(x, None, jnp.arange(200, dtype=jnp.int32))

    @jax.jit
    def logits(seen):
        return made.logits(made.init(jax.random.key(1), seen, 16), seen)

    deviation = np.std(logits(seen), axis=(0, 1))
    np.testing.assert_allclose(deviation, 1, atol=0.15)
    with pytest.raises(ValueError, match="unknown scale 'rows'; one of: batch, weights"):
        switches.event(9, scale="rows")
