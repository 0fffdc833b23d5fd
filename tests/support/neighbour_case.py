"""What the tests of the units that suRNN is compared to share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from core_case import random_like

import surnn_jax

STEPS, BATCH, INPUTS, FEATURES = 7, 3, 2, 6


@functools.partial(jax.jit, static_argnums=0, static_argnames="backend")
def run(made, params, x, backend="masked", **given):
    """One program a run, on the back end that is compiled fastest."""
    return surnn_jax.run(made, params, x, backend=backend, **given)


def setting(made, seed=0, scale=0.7, steps=STEPS, features=FEATURES, dtype="float64"):
    """Parameters and a state away from every initial value, and inputs."""
    random = np.random.default_rng(seed)
    x = jnp.asarray(random.normal(size=(steps, BATCH, INPUTS)), dtype)
    params = jax.jit(made.init, static_argnums=(2, 3))(jax.random.key(seed), x, features, dtype)
    return {**params, "cell": random_like(random, params["cell"], scale)}, x


def plain(tree):
    return jax.tree.map(np.asarray, tree)
