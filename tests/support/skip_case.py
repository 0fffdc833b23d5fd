"""A problem for back ends that skip: one compilation, tables of every kind."""

import dataclasses
import functools
from typing import Any, NamedTuple

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from core_case import CELLS as CELLS

from surnn_jax import cells, switches
from surnn_jax.scan import BACKENDS, ScanInputs, ScanSpec, compact, derivatives, masked

SCANS = {name: backend.scan for name, backend in BACKENDS.items()} | {
    f"{name}, accelerated": functools.partial(derivatives.scan, kernels)
    for name, kernels in (("masked", masked.ACCELERATED), ("compact", compact.ACCELERATED))
}
"""Every back end; and two as accelerators run them."""

STEPS, BATCH, INPUTS, FEATURES = 4, 2, 2, 11  # two portions of `rows` when all are open
WINDOW = switches.triangular(0.5)

TABLES = ("neuron", "one", "blocks", "closed", "open", "near")
"""Every neuron its own, one rhythm, blocks of neurons, never, always, almost open."""


class Given(NamedTuple):
    """The fields of `ScanInputs`, the first five differentiated, and weights of a loss."""

    params: dict
    x: Any
    logits: Any
    initial_carry: Any
    reset_carry: Any
    step_mask: Any
    resets: Any
    weight: Any


@functools.cache
def _params(cell) -> Any:
    init = jax.jit(lambda: cell.init(jax.random.key(0), INPUTS, FEATURES, jnp.float64))
    return jax.tree.map(np.asarray, init())


def given(cell, seed: int, table: str, *, per_example: bool = False, steps: int = STEPS) -> Given:
    random = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(random.normal(size=shape))

    def carry():
        return cell.carry(*(normal(BATCH, FEATURES) for _ in cell.carry._fields))

    params = jax.tree.map(
        lambda p: jnp.asarray(p + 0.3 * random.normal(size=p.shape)), _params(cell)
    )
    shape = (steps, BATCH, FEATURES) if per_example else (steps, FEATURES)
    a = random.normal(size=shape) - 0.8
    if table == "one":
        a = np.broadcast_to(a[..., :1], shape)
    if table == "blocks":
        a = np.repeat(a[..., :3], 4, axis=-1)[..., :FEATURES]
    if table in ("closed", "open", "near"):
        a = {"closed": -3.0, "open": 3.0, "near": -0.2}[table] + 0.1 * np.tanh(a)
    weight = cell.carry(*(normal(steps, BATCH, FEATURES) for _ in cell.carry._fields))
    return Given(
        params,
        normal(steps, BATCH, INPUTS),
        jnp.asarray(a),
        carry(),
        carry(),
        jnp.asarray(random.random((steps, BATCH)) < 0.7),
        jnp.asarray(random.random((steps, BATCH)) < 0.15),
        weight,
    )


problems = st.tuples(st.integers(0, 2**31), st.sampled_from(TABLES))


@functools.cache
def solver(name: str, cell, surrogate=WINDOW, learned: bool = True, plain: bool = False):
    """Carries and gradients of a nonlinear loss by a back end, compiled."""

    def loss(params, x, logits, initial_carry, reset_carry, step_mask, resets, weight):
        logits = logits if learned else jax.lax.stop_gradient(logits)
        masks = (None, None) if plain else (step_mask, resets)
        inputs = ScanInputs(params, x, logits, initial_carry, reset_carry, *masks)
        carries = SCANS[name](ScanSpec(cell, surrogate, x.dtype), inputs)
        terms = [jnp.sum(jnp.sin(c) * w) for c, w in zip(carries, weight, strict=True)]
        return sum(terms), carries

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4), has_aux=True))


def assert_same(name: str, cell, problem: Given, **options) -> None:
    """The back end answers as the reference does, to the rounding of float64."""
    wanted = solver("reference", cell, **options)(*problem)
    found = solver(name, cell, **options)(*problem)

    def close(path, w, f):
        np.testing.assert_allclose(
            f, w, rtol=1e-9, atol=1e-9, err_msg=f"{name} {jax.tree_util.keystr(path)}"
        )

    jax.tree_util.tree_map_with_path(close, wanted, found)


def turns(name: str, problem: Given) -> int:
    """How often the back end applies the rule of a cell on the way forward."""
    calls = []

    def rule(*args):
        jax.debug.callback(lambda: calls.append(1))
        return cells.TANH.rule(*args)

    cell = dataclasses.replace(cells.TANH, rule=rule)
    spec, inputs = ScanSpec(cell, WINDOW, problem.x.dtype), ScanInputs(*problem[:7])
    jax.block_until_ready(jax.jit(SCANS[name], static_argnums=0)(spec, inputs))
    jax.effects_barrier()
    return len(calls)


def assert_broken_same(name: str, cell, problem: Given) -> None:
    """Values alike for a NaN logit, input and state, and an infinite one, place for place.

    Gradients are not compared: where 0 meets NaN on the way back, the loop spreads NaN further.
    """
    nowhere, far = jnp.nan, jnp.inf
    x, h = problem.x, problem.initial_carry.h
    for broken in (
        problem._replace(logits=problem.logits.at[2, 3].set(nowhere)),
        problem._replace(x=x.at[1, 0, 1].set(nowhere).at[3, 1, 0].set(far)),
        problem._replace(initial_carry=problem.initial_carry._replace(h=h.at[0, 4].set(nowhere))),
        problem._replace(initial_carry=problem.initial_carry._replace(h=h.at[1, 2].set(far))),
    ):
        wanted = solver("reference", cell, plain=True)(*broken)[0][1]
        found = solver(name, cell, plain=True)(*broken)[0][1]
        assert not all(jnp.isfinite(leaf).all() for leaf in wanted)
        for w, f in zip(wanted, found, strict=True):
            np.testing.assert_allclose(f, w, rtol=1e-9, atol=1e-9)


def assert_no_step(name: str, cell, problem: Given) -> None:
    """Of a sequence without a step nothing comes, and nothing is owed to anything."""
    (_, carries), gradients = solver(name, cell)(*problem)
    assert carries.h.shape == (0, *problem.initial_carry.h.shape)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients))


def assert_empty_unseen(name: str, cell, problem: Given) -> None:
    """NaN inputs at steps at which one rhythm is far from open change no bit."""
    busy = np.asarray(problem.logits[:, 0] > -WINDOW.support)
    assert 0 < busy.sum() < len(busy)
    poisoned = problem._replace(x=jnp.where(busy[:, None, None], problem.x, jnp.nan))
    found, clean = (solver(name, cell, plain=True)(*p) for p in (poisoned, problem))
    np.testing.assert_equal(*(jax.tree.map(np.asarray, tree) for tree in (found, clean)))


def _gradient(name: str, cell, rest: tuple, dtype: Any = jnp.float64):
    """The gradient of a loss by the parameters and the logits."""

    def loss(*free):
        carries = SCANS[name](ScanSpec(cell, WINDOW, dtype), ScanInputs(*free, *rest))
        return jnp.sum(jnp.sin(carries.h))

    return jax.grad(jax.checkpoint(loss), argnums=(0, 2))


def assert_transforms(name: str, cell, problem: Given) -> None:
    """The same answer under vmap and remat, and in bfloat16 what the dense scan gives."""
    (params, x, logits, *carries), rest = problem[:5], problem[5:7]

    def close(found, wanted, tolerance=1e-9):
        chex.assert_trees_all_close(found, wanted, rtol=tolerance, atol=tolerance)

    # Two update masks at once: the number of steps to run differs within the batch.
    tables = jnp.stack([logits, logits - 0.5])
    axes = (None, None, 0, None, None)
    many = jax.jit(jax.vmap(_gradient(name, cell, rest), axes))
    found = many(params, x, tables, *carries)
    plain = jax.jit(_gradient("reference", cell, rest))
    for n, table in enumerate(tables):
        wanted = plain(params, x, table, *carries)
        close(jax.tree.map(lambda leaf, n=n: leaf[n], found), wanted)

    def rounded(name):
        return jax.jit(_gradient(name, cell, rest, jnp.bfloat16))(*problem[:5])

    # bfloat16 has 8 bits, and recomputed products may round the other way.
    close(rounded(name), rounded("masked"), 0.03)
