"""What the tests of layers and models share: sizes, switches, random parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax import switches

BATCH, STEPS, INPUTS, FEATURES = 3, 6, 4, 5
SWITCHES = {
    "always": None,
    "fourier": switches.fourier(STEPS, rate=0.4),
    "event": switches.event(STEPS, rate=0.4),
    "event-pair": switches.event(STEPS, rate=0.4, event_features="pair"),
    "event-soft": switches.event(STEPS, rate=0.4, event_features="counts", gate=switches.soft()),
}
# Two programs for the same float32 sums: they differ by the order in which XLA adds a handful of
# terms of size one, a few units in the last place (1.2e-7) a step.
CLOSE = {"rtol": 1e-5, "atol": 2e-6}
# Gradients of weights add one such term for every step and example.
CLOSE_GRADIENT = {"rtol": 1e-5, "atol": 1e-5}
EXACTLY = {"rtol": 0, "atol": 0}


def data(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def close(ours, theirs, **tolerance):
    """Trees of the same structure, shapes and dtypes, and the same numbers."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, **{**CLOSE, **tolerance})


def drawn(module, *args):
    """Random parameters: none is left at a special value such as zero, nor is a learned carry."""
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(1), *args)["params"]
    draw = {"theta": lambda shape: random.uniform(2, 3 * STEPS, shape)}

    def leaf(path, like):
        normal = draw.get(path[-1].key, lambda shape: 0.5 * random.normal(size=shape))
        return jnp.asarray(normal(like.shape), like.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def in_cell(params):
    """A layer's parameters where `nn.RNN` looks for those of its cell."""
    return {"cell": params}
