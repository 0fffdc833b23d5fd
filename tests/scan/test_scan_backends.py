"""Every back end gives the reference's values and gradients, and the reference the equations'.

A new back end joins by its entry in `BACKENDS`.
"""

import functools
import itertools

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
    STEPS,
    SWITCHES,
    TRACE,
    answer,
    assert_close,
    cotangents,
    gradients,
    label,
    problem,
    solve,
    switch,
)
from kernel_case import KNOWN
from tiers import full, tiered

from surnn_jax import SelectiveCarry, selective
from surnn_jax.cells import GRU_BEFORE, LSTM_PEEPHOLE

OTHERS = tuple(name for name in BACK_ENDS if name != "reference")
UNITS = [(cell, None, None, False) for cell in CELLS] + [
    (cell, kind, gate, frozen)
    for cell in CELLS
    for kind in SWITCHES
    for gate, frozen in (*((gate, False) for gate in GATES), (GATES[0], True))
]
TRACED = [len(UNITS), len(UNITS) + 1]  # one way, and the other
UNITS += [(GRU_BEFORE, TRACE, GATES[1], False), (CELLS[0], TRACE, GATES[3], False)]
SWITCHED = list(itertools.product(SWITCHES, GATES))


def _turn(number):
    """The cell whose turn it is with the kind and gate of a number."""
    return CELLS[number % len(CELLS)]


# The dense cells. Then every kind of switch with every gate, and the cells take turns, so that
# each meets a table that the batch shares and ones that it does not.
DENSE = [number for number, (_, kind, _, _) in enumerate(UNITS) if kind is None]
PAIRED = [UNITS.index((_turn(n), *pair, False)) for n, pair in enumerate(SWITCHED)]
# Every kind with two of the gates and every gate with two kinds at least.
HALF = [
    PAIRED[n]
    for n, (kind, gate) in enumerate(SWITCHED)
    if (SWITCHES.index(kind) + GATES.index(gate)) % 2 == 0
]
# Every kind once and every gate at least once.
ONCE = [
    PAIRED[n]
    for n, (kind, gate) in enumerate(SWITCHED)
    if SWITCHES.index(kind) % len(GATES) == GATES.index(gate)
]
# Every cell with every kind of switch; the gates take turns, so that each cell meets each.
ORACLE = DENSE + [
    UNITS.index((cell, kind, GATES[(i + j) % len(GATES)], False))
    for i, cell in enumerate(CELLS)
    for j, kind in enumerate(SWITCHES)
]
REFERENCE = sorted({*ORACLE, *PAIRED, *TRACED})
# A frozen switch takes turns with the cells as well.
FROZEN = [
    UNITS.index((cell, SWITCHES[i % len(SWITCHES)], GATES[0], True)) for i, cell in enumerate(CELLS)
]
# The back ends that skip have tests of their own. Here they meet every cell with a table that the
# batch shares or one that it does not, in turn; they know no more of switches.
IN_TURN = [
    UNITS.index((cell, SWITCHES[kind], GATES[(i + kind) % len(GATES)], False))
    for i, cell in enumerate(CELLS)
    for kind in ((0, 3)[i % 2],)
]


def _checks(backend):
    """The units that a back end is tried on by `make test`, and those by `make test-full`.

    `rows` and `compact` share the cells: both are tried again in `test_skipping.py`, as `native`
    is in `test_native.py` with all that its kernel knows.
    """
    if backend == "masked":
        return [DENSE[0], DENSE[2], *ONCE, FROZEN[0]], range(len(UNITS))
    if backend == "pallas":  # kernels that are interpreted compile slowly
        return DENSE[:1], DENSE
    if backend == "parallel":  # the others run on `masked`
        every = [n for n in range(len(UNITS)) if UNITS[n][0].linear]
        return [n for n in every if n in (*DENSE[:-1], *HALF)], every
    if backend == "native":
        return [DENSE[0], *(n for n in IN_TURN if UNITS[n][0] in KNOWN)], ORACLE
    return IN_TURN[:4:2] if backend == "rows" else IN_TURN[1:4:2], ORACLE


CHECKS = tiered(
    [(n, name) for n in range(len(UNITS)) for name in OTHERS if n in _checks(name)[1]],
    [(n, name) for name in OTHERS for n in _checks(name)[0]],
)
pytestmark = pytest.mark.usefixtures("float64", "compiled_back_ends")


def _unit(cell, kind, gate, frozen):
    return selective(cell, None if kind is None else switch(kind, gate=gate, frozen=frozen))


def _by_the_book(unit, free, given, reverse, opening=None, scale=None):
    return core_oracle.run(
        unit.cell.name,
        unit.switch,
        free["params"],
        free["x"],
        tuple(free["cell"]),
        tuple(free["reset_carry"]),
        reverse=reverse,
        previous=free.get("previous"),
        opening=opening,
        scale=scale,
        **given,
    )


@functools.lru_cache(maxsize=1)
def _solved(number):
    """A unit, a problem for it and the reference's answer."""
    cell, kind, gate, frozen = UNITS[number]
    unit = _unit(cell, kind, gate, frozen)
    flags = {"reverse": number % 2 == 1, "keep_order": number % 4 == 3}
    for seed in range(number, number + 10_000, 1000):
        # Without resets and with one clock the rhythm's table is shared by the batch.
        task = problem(unit, seed, resets=frozen or kind is None or unit.switch.per_example)
        answer = gradients(unit, task, seed, "reference", **flags)
        if _tells(unit, *answer):
            return unit, task, seed, flags, answer
    raise AssertionError("no seed gives a problem in which the switch matters")


def _tells(unit, result, gradient):
    """Whether some switches are open, some closed, and some near enough to learn."""
    if unit.switch is None:
        return True
    learns = unit.switch.frozen or gradient["params"]["switch"]["b"].any()
    return 0 < result.rate < 1 and learns


def _id(number):
    if isinstance(number, str):
        return number
    return "-".join("frozen" if part is True else label(part) for part in UNITS[number] if part)


@pytest.mark.parametrize(("number", "backend"), CHECKS, ids=_id)
def test_promise_1_back_end_equals_reference(number, backend):
    """Values, and gradients of all parameters, inputs and carries, to 1e-9."""
    unit, task, seed, flags, (want, want_grad) = _solved(number)
    got, grad = gradients(unit, task, seed, backend, **flags)
    assert_close(got, want)
    assert_close(grad, want_grad)
    # What nobody may look at is NaN here, and is owed nothing.
    assert not grad["x"][np.isnan(task.free["x"])].any()
    if unit.switch is not None:
        own = grad["params"]["switch"]
        if unit.switch.frozen:
            assert not any(leaf.any() for leaf in own.values())
        else:
            assert own["b"].any()
        assert 0 < want.rate < 1


SIZES = (
    (STEPS, BATCH, INPUTS, FEATURES),
    (0, BATCH, INPUTS, FEATURES),
    (1, 1, 1, 1),
    (7, 2, 1, 3),
)
"""Steps, batch, inputs and features; few, for each is compiled."""


def _check_masked(cell, switched, sizes, given, flags, threshold, seed):
    steps, batch, inputs, features = sizes
    unit = _unit(cell, *switched)
    task = problem(
        unit,
        seed,
        resets="resets" in given,
        steps=steps,
        batch=batch,
        inputs=inputs,
        features=features,
    )
    task = task._replace(given={k: v for k, v in task.given.items() if k in {*given, "clock"}})
    if not {"lengths", "mask"} <= given:
        task.free["x"] = np.nan_to_num(task.free["x"], nan=0.5)
    if unit.switch is not None:
        own = task.free["params"]["switch"]
        task.free["params"]["switch"] = {**own, "b": own["b"] + threshold}
    weights = cotangents(seed, jax.eval_shape(lambda: solve(unit, *task, "masked", **flags)))
    want = answer(unit, task, weights, "reference", **flags)
    assert_close(answer(unit, task, weights, "masked", **flags), want)


EVERYTHING = {"lengths", "mask", "resets"}
BACKWARDS = {"reverse": True, "keep_order": True}


# Each cell meets its reference above; here the one with an inner product.
@pytest.mark.parametrize(
    ("switched", "sizes", "given", "flags", "threshold"),
    [
        ((None, None, False), SIZES[1], EVERYTHING, BACKWARDS, 0.0),
        full((SWITCHES[3], GATES[1], False), SIZES[1], set(), {}, 0.0),
        full((SWITCHES[0], GATES[0], False), SIZES[2], {"lengths"}, {"reverse": True}, 0.0),
        ((SWITCHES[4], GATES[0], False), SIZES[3], {"resets"}, BACKWARDS, 30.0),
        full((SWITCHES[1], GATES[0], False), SIZES[3], {"mask"}, {}, -30.0),
    ],
    ids=["no-step-dense", "no-step", "one-of-all", "open", "closed"],
)
def test_masked_equals_reference_at_the_ends(switched, sizes, given, flags, threshold):
    """No step and one; nothing given or all of it; rates of 0 and 100 %."""
    _check_masked(GRU_BEFORE, switched, sizes, given, flags, threshold, 0)


@pytest.mark.full
@pytest.mark.parametrize("cell", [GRU_BEFORE, LSTM_PEEPHOLE], ids=label)
@hypothesis.settings(max_examples=8)
@hypothesis.given(
    switched=st.sampled_from([unit[1:] for unit in UNITS if unit[0] is CELLS[0]]),
    sizes=st.sampled_from(SIZES),
    given=st.sets(st.sampled_from(["lengths", "mask", "resets"])),
    flags=st.fixed_dictionaries({"reverse": st.booleans(), "keep_order": st.booleans()}),
    threshold=st.sampled_from([0.0, 0.0, 30.0, -30.0]),
    seed=st.integers(0, 999),
)
def test_masked_equals_reference_in_any_shape(cell, switched, sizes, given, flags, threshold, seed):
    """Any length, none included; nothing given or all of it; rates of 0 and 100 % as well."""
    _check_masked(cell, switched, sizes, given, flags, threshold, seed)


def _weigh(result, weights):
    outputs, end, previous, carries, rate = weights
    total = np.sum(outputs * result.outputs) + rate * result.rate
    total += sum(np.sum(w * v) for w, v in zip(end, result.end, strict=True))
    total += sum(np.sum(w * v) for w, v in zip(carries, result.carries, strict=True))
    return total if previous is None else total + np.sum(previous * result.previous)


@pytest.mark.parametrize("number", tiered(REFERENCE, [*DENSE, *HALF, TRACED[0]]), ids=_id)
def test_promise_1_reference_equals_the_equations(number):
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
    got, grad = gradients(unit, task, number, "reference", **flags)

    close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-13)
    end = got.carry
    if isinstance(end, SelectiveCarry):
        np.testing.assert_array_equal(end.clock, book.clock)
        if end.previous is not None:
            exactly = close if unit.switch.averages else np.testing.assert_array_equal
            exactly(end.previous, book.previous)
        end = end.cell
        table = core_oracle.value(gate, book.a)
        close(np.asarray(got.update_mask)[book.kept], table[book.kept])
    close(got.outputs, book.outputs)
    for one, two in zip((*got.carries, *end), (*book.carries, *book.end), strict=True):
        close(one, two)
    close(got.rate, book.rate)

    weights = cotangents(number, got)
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
