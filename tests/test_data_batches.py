"""The sampler: a pure function of seed and step, that loses, doubles and shortens nothing."""

import hashlib

import numpy as np
import pytest
from data_case import run
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batches import Batches

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)
CASES = given(
    lengths=LENGTHS,
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 2**40),
    growth=st.floats(1.05, 3),
)
FEWER = settings(max_examples=60, deadline=None)


def sequences(lengths):
    """Sequence i has its number, and each step's, in every one of its entries."""
    return [
        np.stack([np.full(length, number + 1), np.arange(length) + 1], axis=1).astype(np.uint8)
        for number, length in enumerate(lengths)
    ]


def epoch(batches, number):
    steps = batches.steps_per_epoch
    return [batches.batch(step) for step in range(number * steps, (number + 1) * steps)]


def assert_once_and_whole(found, lengths, batch_size):
    """Every sequence is in one row, whole and from its start; all else is zero."""
    source = sequences(lengths)
    indices = []
    for batch in found:
        x, rows, index = batch["x"], batch["lengths"], batch["index"]
        assert (x.dtype, rows.dtype, index.dtype) == (np.float32, np.int32, np.int32)
        assert x.shape[::2] == (batch_size, 2)
        assert rows.shape == index.shape == (batch_size,)
        for row in range(batch_size):
            if index[row] < 0:
                assert (index[row], rows[row]) == (-1, 0)
            else:
                indices.append(index[row])
                assert rows[row] == lengths[index[row]]
                np.testing.assert_array_equal(x[row, : rows[row]], source[index[row]])
            assert not x[row, rows[row] :].any()
    assert sorted(indices) == list(range(len(lengths)))


@FEWER
@CASES
def test_every_epoch_holds_each_sequence_once(lengths, batch_size, seed, growth):
    batches = Batches(sequences(lengths), batch_size, seed, growth=growth)
    assert batches.steps_per_epoch == -(-len(lengths) // batch_size)
    for number in (0, 1, 7):
        assert_once_and_whole(epoch(batches, number), lengths, batch_size)


@FEWER
@CASES
def test_evaluation_holds_each_sequence_once(lengths, batch_size, seed, growth):
    batches = Batches(sequences(lengths), batch_size, seed, growth=growth)
    found = list(batches.evaluation())
    assert len(found) == batches.steps_per_epoch
    assert_once_and_whole(found, lengths, batch_size)
    # Whatever the seed, and however much was trained before.
    other = Batches(sequences(lengths), batch_size, seed + 1, growth=growth)
    other.batch(3)
    np.testing.assert_equal(list(other.evaluation()), found)


@FEWER
@CASES
def test_no_shape_beyond_the_ladder(lengths, batch_size, seed, growth):
    batches = Batches(sequences(lengths), batch_size, seed, growth=growth)
    assert list(batches.ladder) == sorted(set(batches.ladder))
    assert batches.ladder[-1] == max(lengths)
    for lower, upper in zip(batches.ladder, batches.ladder[1:], strict=False):
        assert upper <= lower * growth or upper == lower + 1
    for batch in [*epoch(batches, 0), *batches.evaluation()]:
        steps = batch["x"].shape[1]
        # The lowest rung that holds the longest row, and no other.
        assert steps == min(rung for rung in batches.ladder if rung >= batch["lengths"].max())


@FEWER
@CASES
def test_batch_is_a_function_of_seed_and_step(lengths, batch_size, seed, growth):
    first = Batches(sequences(lengths), batch_size, seed, growth=growth)
    in_order = [first.batch(step) for step in range(12)]
    second = Batches(sequences(lengths), batch_size, seed, growth=growth)
    for step in np.random.default_rng(0).permutation(12):
        np.testing.assert_equal(second.batch(int(step)), in_order[step])


def _orders(seed, epochs):
    batches = Batches(sequences(range(1, 61)), 4, seed)
    return [
        tuple(np.concatenate([batch["index"] for batch in epoch(batches, number)]))
        for number in range(epochs)
    ]


def test_epochs_and_seeds_differ():
    assert len({*_orders(0, 4), *_orders(1, 4)}) == 8


def test_company_and_order_of_sequences_change():
    """Sequences of one rung meet others in the next epoch, and lengths come in no fixed order."""
    batches = Batches(sequences([10] * 40 + [20] * 40), 4, 0)
    company = [{frozenset(batch["index"]) for batch in epoch(batches, n)} for n in (0, 1)]
    assert len(company[0] & company[1]) < 5
    shapes = [[batch["x"].shape[1] for batch in epoch(batches, n)] for n in (0, 1)]
    assert shapes[0] != shapes[1]
    assert shapes[0] != sorted(shapes[0])


def test_other_process_gives_the_same_batch():
    code = """
import hashlib, sys
sys.path.insert(0, "tests")
from test_data_batches import digest
print(digest())
"""
    done = run("-c", code, PYTHONHASHSEED="123")
    assert done.stdout.strip() == digest(), done.stderr


def digest():
    batches = Batches(sequences(range(1, 60)), 8, 5)
    return hashlib.sha256(
        b"".join(batches.batch(step)["x"].tobytes() for step in (3, 40))
    ).hexdigest()


def test_long_tail_wastes_little():
    """Lengths spread like MuseData's, 9 to 3457: a fifth is padding, in at most 15 shapes."""
    lengths = np.random.default_rng(0).lognormal(np.log(300), 1.0, 524).clip(9, 3457).astype(int)
    batches = Batches([np.zeros((length, 1), np.uint8) for length in lengths], 8)
    found = epoch(batches, 0)
    padded = sum(batch["x"].shape[0] * batch["x"].shape[1] for batch in found)
    assert 1 - lengths.sum() / padded < 0.25
    assert len({batch["x"].shape for batch in found}) <= 15


def test_empty_rows_go_with_the_shortest():
    found = list(Batches(sequences([50, 3, 40, 4, 30]), 4).evaluation())
    assert [batch["lengths"].tolist() for batch in found] == [[0, 0, 0, 3], [4, 30, 40, 50]]
    assert [batch["index"].tolist() for batch in found] == [[-1, -1, -1, 1], [3, 4, 2, 0]]


def test_frames_of_more_axes():
    batch = Batches([np.ones((3, 4, 5), np.uint8)], 2).batch(0)
    assert batch["x"].shape == (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 2), "no sequences"),
        ((sequences([3, 0, 2]), 2), "sequence 1 is empty"),
        ((sequences([3]), 0), "batch_size must be at least 1, not 0"),
        ((sequences([3]), 2, -1), "seed must be at least 0, not -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(*arguments)


@pytest.mark.parametrize("growth", [1.0, 0.5, float("nan")])
def test_bad_growth(growth):
    with pytest.raises(ValueError, match="growth must be greater than 1"):
        Batches(sequences([3]), 2, growth=growth)


def test_negative_step():
    with pytest.raises(ValueError, match="step must be at least 0, not -1"):
        Batches(sequences([3]), 2).batch(-1)
