"""The scan in chunks gives the numbers of the whole one, and keeps less for the way back."""

import functools

import jax
import jax.numpy as jnp
import pytest
from core_case import (
    BACK_ENDS,
    BACKENDS,
    SWITCHES,
    answer,
    assert_close,
    cotangents,
    problem,
    run,
    solve,
    switch,
)
from tiers import full, tiered

import surnn_jax
from surnn_jax import selective, switches

STEPS = 7
pytestmark = pytest.mark.usefixtures("float64")
UNITS = {
    "shared": (selective("gru", switch(SWITCHES[0])), False),
    "per_example": (selective("lstm", switch(SWITCHES[3])), True),
    "dense": (selective("tanh", None), True),
}


# Every back end in chunks, and every kind of table.
PAIRS = [("shared", name) for name in BACK_ENDS if name != "reference"] + [
    ("per_example", "native" if "native" in BACK_ENDS else "masked"),
    ("dense", "masked"),
]


@functools.cache
def _posed(kind):
    """The unit, the task, weights of its answer, and the answer of the plain loop."""
    unit, resets = UNITS[kind]
    task = problem(unit, 3, steps=STEPS, resets=resets)
    weights = cotangents(3, jax.eval_shape(lambda: solve(unit, *task, "reference")))
    return unit, task, weights, answer(unit, task, weights, "reference")


@pytest.mark.parametrize(("kind", "backend"), tiered(PAIRS, [("shared", "compact"), PAIRS[-1]]))
def test_chunks_equal_the_whole(kind, backend):
    """3 steps do not divide 7: the last chunk is filled up with steps that hold."""
    unit, task, weights, (want, want_grad) = _posed(kind)
    got, grad = answer(unit, task, weights, backend, chunk=3)
    assert_close(got, want)
    assert_close(grad, want_grad)


@pytest.mark.parametrize("chunk", [1, full(STEPS), full(STEPS + 1)])
def test_chunks_of_any_size(chunk):
    unit, _ = UNITS["shared"]
    task = problem(unit, 5, steps=STEPS)
    weights = cotangents(5, jax.eval_shape(lambda: solve(unit, *task, "masked")))
    want, want_grad = answer(unit, task, weights, "masked")
    got, grad = answer(unit, task, weights, "masked", chunk=chunk)
    assert_close(got, want)
    assert_close(grad, want_grad)


def test_nothing_held_and_no_length_given():
    """Then only the last chunk's filling is masked, and must not move the last carry."""
    unit = selective("gru", None)
    params = unit.init(jax.random.key(0), jnp.zeros((1, 1, 2)), 4, jnp.float64)
    x = jax.random.normal(jax.random.key(1), (STEPS, 2, 2), jnp.float64)
    assert_close(run(unit, params, x, chunk=4), run(unit, params, x), rtol=1e-12)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name in ("masked", "compact")])
def test_what_is_kept_grows_with_the_number_of_chunks(backend):
    unit, steps, batch, features = selective("gru", switches.fourier(64)), 256, 32, 8
    params = unit.init(jax.random.key(0), jnp.zeros((1, 1, 1)), features, jnp.float64)
    x = jax.random.normal(jax.random.key(1), (steps, batch, 1), jnp.float64)

    def kept(chunk):
        def last(x):
            return run(unit, params, x, backend=backend, chunk=chunk).carry.cell.h

        return sum(leaf.nbytes for leaf in jax.tree.leaves(jax.vjp(last, x)[1]))

    carries = steps * batch * features * 8
    assert kept(None) > carries
    assert kept(16) < kept(None) - 0.8 * carries


def test_what_no_chunk_can_be():
    unit = selective("tanh", None)
    params = unit.init(jax.random.key(0), jnp.zeros((1, 1, 2)), 4, jnp.float64)
    with pytest.raises(ValueError, match=r"^chunk must be at least 1 step, or None, got 0$"):
        surnn_jax.run(unit, params, jnp.zeros((3, 1, 2)), chunk=0)
