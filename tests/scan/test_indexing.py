"""What back ends that skip are told of a table."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from surnn_jax import switches
from surnn_jax.scan import indexing

NAN = float("nan")
LOGITS = jnp.asarray([[-2.0, -0.5, -0.49, -0.0, 0.0, 1e-6, 0.5, 7.0, NAN]])
OPEN = [0, 0, 0, 0, 0, 1, 1, 1, 1]


# Compiled whole: operation by operation, a list takes dozens of programs.
_active = jax.jit(indexing.active_mask, static_argnums=3)
_list_portions = jax.jit(indexing.list_portions, static_argnums=2)
_lists = jax.jit(
    lambda wanted: (
        indexing.list_active(wanted),
        indexing.next_active(wanted),
        indexing.count_active(wanted),
    )
)


def tables(*shape):
    """Booleans of a shape, some all false or all true."""
    size = int(np.prod(shape))
    drawn = st.lists(st.booleans(), min_size=size, max_size=size)
    return (drawn | st.sampled_from([[False] * size, [True] * size])).map(
        lambda values: np.asarray(values, bool).reshape(shape)
    )


def test_what_is_open():
    opened = indexing.open_mask(switches.triangular(0.5), LOGITS)
    np.testing.assert_array_equal(opened[0], np.asarray(OPEN, bool))


@pytest.mark.parametrize(
    ("gate", "learned", "wanted"),
    [
        (switches.triangular(0.5), False, OPEN),
        # A window owes something strictly inside it.
        (switches.triangular(0.5), True, [0, 0, 1, 1, 1, 1, 1, 1, 1]),
        (switches.straight_through(), False, OPEN),
        (switches.straight_through(), True, [1] * 9),
        (switches.sigmoid(), True, [1] * 9),
        (switches.soft(), False, [1] * 9),
    ],
)
def test_what_is_needed(gate, learned, wanted):
    needed = indexing.computed_mask(gate, LOGITS, learned)
    np.testing.assert_array_equal(needed[0], np.asarray(wanted, bool))


@given(tables(4, 3), tables(4, 2), tables(4, 2), st.booleans(), st.booleans())
def test_steps_with_something_to_do(wanted, step_mask, resets, has_mask, has_resets):
    busy = [
        (wanted[t].any() and (step_mask[t].any() or not has_mask))
        or (has_resets and resets[t].any())
        for t in range(4)
    ]
    found = _active(wanted, step_mask if has_mask else None, resets if has_resets else None, 4)
    np.testing.assert_array_equal(found, busy)


@given(tables(4, 2, 3), tables(4, 2))
def test_a_held_example_has_nothing_to_do_with_its_own_table(wanted, step_mask):
    busy = [any(wanted[t, b].any() and step_mask[t, b] for b in range(2)) for t in range(4)]
    found = _active(wanted, step_mask, None, 4)
    np.testing.assert_array_equal(found, busy)


def test_without_a_table_every_step_has_something_to_do():
    assert indexing.active_mask(None, None, None, 3).all()
    step_mask = jnp.asarray([[False, False], [True, False], [False, False]])
    np.testing.assert_array_equal(
        indexing.active_mask(None, step_mask, None, 3), [False, True, False]
    )


@given(tables(7))
def test_lists_of_places(wanted):
    places = [int(i) for i in np.flatnonzero(wanted)]
    found, following, counts = _lists(wanted)
    assert found.count == len(places)
    assert found.index.tolist() == places + [7] * (8 - len(places))
    after = [min([p for p in places if p >= t], default=7) for t in range(8)]
    assert following.tolist() == after
    before = [sum(p <= t for p in places) for t in range(7)]
    assert counts.tolist() == before


@given(tables(5, 7), tables(5), st.sampled_from([1, 3, 7]))
def test_neurons_are_dealt_out(wanted, more, width):
    busy = wanted.any(-1) | more
    dealt = jax.tree.map(np.asarray, _list_portions(wanted, busy, width))
    expected = []
    for t in np.flatnonzero(busy):
        neurons = [int(i) for i in np.flatnonzero(wanted[t])]
        portions = [neurons[i : i + width] for i in range(0, len(neurons), width)] or [[]]
        assert dealt.parts[t] == len(portions)
        expected += [(int(t), part, portion) for part, portion in enumerate(portions)]
    assert dealt.count == len(expected)
    assert dealt.parts[~busy].sum() == 0
    for n, (t, part, portion) in enumerate(expected):
        assert (dealt.step[n], dealt.part[n]) == (t, part)
        rows = dealt.rows[t, part * width : (part + 1) * width].tolist()
        assert rows == portion + [7] * (width - len(portion))
