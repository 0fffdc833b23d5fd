"""Every back end gives the reference's values and gradients, and the reference the equations'.

A new back end joins by its entry in `BACKENDS`.
"""

import functools

import core_oracle
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from core_case import (
    BACK_ENDS,
    BATCH,
    CELLS,
    FEATURES,
    GATES,
    INPUTS,
    SWITCHES,
    assert_close,
    cotangents,
    gradients,
    label,
    problem,
    solve,
    switch,
)

from surnn_jax import SelectiveCarry, selective

OTHERS = tuple(name for name in BACK_ENDS if name != "reference")
UNITS = [(cell, None, None, False) for cell in CELLS] + [
    (cell, kind, gate, frozen)
    for cell in CELLS
    for kind in SWITCHES
    for gate, frozen in (*((gate, False) for gate in GATES), (GATES[0], True))
]
def _by_the_book(unit, free, given, reverse, opening=None, scale=None):
    return core_oracle.run(
        unit.cell.name,
        unit.switch,
        free["params"],
        free["x"],
        tuple(free["cell"]),
        tuple(free["fresh"]),
        reverse=reverse,
        previous=free.get("previous"),
        opening=opening,
        scale=scale,
        **given,
    )


def _weigh(result, weights):
    outputs, end, previous, carries, rate = weights
    total = np.sum(outputs * result.outputs) + rate * result.rate
    total += sum(np.sum(w * v) for w, v in zip(end, result.end, strict=True))
    total += sum(np.sum(w * v) for w, v in zip(carries, result.carries, strict=True))
    return total if previous is None else total + np.sum(previous * result.previous)


@pytest.mark.parametrize("number", DENSE + TURNS, ids=_id)
def test_reference_equals_the_equations(number):
    """Values against plain loops in NumPy; gradients against finite differences of them.

    A hard switch has no derivative. What stands for it is the derivative of the same unit with
    each switch replaced by its tangent, value + slope · (a - a0), and this does have differences.
    """
    cell, kind, gate, _ = UNITS[number]
    unit = _unit(cell, kind, gate, False)
    task = problem(unit, number)
    flags = {"reverse": number % 2 == 0}
    free, given = jax.tree.map(np.asarray, tuple(task))
    book = _by_the_book(unit, free, given, **flags)
    got = solve(unit, *task, "reference", **flags)

    close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-13)
    end = got.carry
    if isinstance(end, SelectiveCarry):
        np.testing.assert_array_equal(end.clock, book.clock)
        if end.previous is not None:
            np.testing.assert_array_equal(end.previous, book.previous)
        end = end.cell
        table = core_oracle.value(gate, book.a)
        close(np.asarray(got.table)[book.kept], table[book.kept])
    close(got.outputs, book.outputs)
    for one, two in zip((*got.carries, *end), (*book.carries, *book.end), strict=True):
        close(one, two)
    close(got.rate, book.rate)

    weights = cotangents(number, got)
    grad = gradients(unit, task, weights, "reference", **flags)[1]
    opening = None
    if kind is not None and gate.hard:
        slope, value = core_oracle.slope(gate, book.a), core_oracle.value(gate, book.a)

        def opening(a):
            return value + slope * (a - book.a)

    random, eps = np.random.default_rng(number), 1e-6
    leaves, form = jax.tree.flatten(free)
    for i, (leaf, owed) in enumerate(zip(leaves, jax.tree.leaves(grad), strict=True)):
        direction = np.where(np.isnan(leaf), 0, random.normal(size=leaf.shape))

        def along(way, i=i, direction=direction):
            moved = [p + way * direction if k == i else p for k, p in enumerate(leaves)]
            moved = jax.tree.unflatten(form, moved)
            return _weigh(
                _by_the_book(unit, moved, given, **flags, opening=opening, scale=book.scale),
                weights,
            )

        difference = (along(eps) - along(-eps)) / (2 * eps)
        np.testing.assert_allclose(np.sum(owed * direction), difference, 1e-6, 1e-7)
