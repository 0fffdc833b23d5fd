"""What the tests of mixers share: the mixers, their sizes, their parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax.layers.attention import Attention
from surnn_jax.layers.lru import LRU
from surnn_jax.layers.mamba import Mamba
from surnn_jax.layers.mamba2 import Mamba2
from surnn_jax.layers.s4d import S4D

BATCH, STEPS, FEATURES = 3, 10, 8
# Blocks, chunks and windows that the steps are no multiple of.
MIXERS_UNDER_TEST = {
    "attention": (Attention, {"num_heads": 2, "window": 16}),
    "attention-window": (Attention, {"num_heads": 2, "window": 4, "rotary": True}),
    "s4d": (S4D, {"state": 6}),
    "lru": (LRU, {"state": 5}),
    "mamba": (Mamba, {"state": 3, "chunk": 4}),
    "mamba2": (Mamba2, {"state": 3, "head": 4, "chunk": 4}),
    "mamba2-groups": (Mamba2, {"state": 3, "head": 2, "chunk": 4, "groups": 2}),
}
# These project their input; the others add it to the output and need it as wide.
ANY_WIDTH = {"attention", "attention-window", "mamba", "mamba2", "mamba2-groups"}


# Compiled in half the time; on ten steps nobody notices that it runs slower.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def made(name, **more):
    """A mixer of the table and the width of an input for it."""
    kind, fields = MIXERS_UNDER_TEST[name]
    return kind(FEATURES, **{**fields, **more}), FEATURES - 3 * (name in ANY_WIDTH)


def drawn(mixer, inputs, dtype=jnp.float32):
    """Random parameters, none at a special value such as zero."""
    random = np.random.default_rng(1)
    like = jax.eval_shape(mixer.init, jax.random.key(0), jnp.zeros((BATCH, 2, inputs), dtype))
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * random.normal(size=leaf.shape), dtype), like)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def mid_stream(mixer, random):
    """A carry from the middle of a stream: random state, and the count of a cache half full."""

    def leaf(rest):
        if jnp.issubdtype(rest.dtype, jnp.integer):
            return jnp.asarray([2, 0, 1], rest.dtype)
        value = random.normal(size=rest.shape)
        if jnp.iscomplexobj(rest):
            value = value + 1j * random.normal(size=rest.shape)
        return jnp.asarray(value, rest.dtype)

    return jax.tree.map(leaf, mixer.initial_carry((BATCH,)))
