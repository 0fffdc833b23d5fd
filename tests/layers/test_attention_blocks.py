"""Attention with many scores goes block by block, and gives the same numbers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from surnn_jax.layers import Attention, attention

pytestmark = pytest.mark.usefixtures("float64")
STEPS = 7


@pytest.mark.parametrize(
    ("window", "resets", "causal"),
    [(STEPS, False, True), (3, True, True), (STEPS, False, False), (STEPS, True, False)],
)
def test_blocks_of_queries_change_nothing(monkeypatch, window, resets, causal):
    """Seven queries in blocks of two, and a window's in blocks of one."""
    model = Attention(4, 2, window=window, rotary=True, causal=causal, param_dtype=jnp.float64)
    random = np.random.default_rng(0)
    x, weight = (jnp.asarray(random.normal(size=(2, STEPS, 4))) for _ in range(2))
    given = {"resets": jnp.asarray(random.random((2, STEPS)) < 0.3)} if resets else {}
    if not causal:
        given["seq_lengths"] = jnp.asarray([STEPS - 2, STEPS])

    def answer():
        def loss(params, x):
            outputs = model.apply(params, x, **given)[1]
            return jnp.sum(jnp.sin(outputs) * weight), outputs

        grad = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        text = str(jax.make_jaxpr(grad)(params, x))
        return text.count("scan["), jax.jit(grad)(params, x)

    params = jax.jit(model.init)(jax.random.key(0), x)
    plain, wanted = answer()
    monkeypatch.setattr(attention, "_CPU_SCORES", 2 * 2 * 2 * STEPS)
    blocked, found = answer()
    assert plain == 0 < blocked
    chex.assert_trees_all_close(found, wanted, rtol=1e-9, atol=1e-9)
