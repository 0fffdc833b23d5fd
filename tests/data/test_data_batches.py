"""The sampler: a pure function of seed and step, that loses, doubles and shortens nothing."""

import hashlib

import numpy as np
import pytest
from data_case import run
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batches import Batches
from data.storage import Ragged

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


def columns(lengths):
    return {"x": sequences(lengths)}


def epoch(batches, number):
    steps = batches.steps_per_epoch
    return [batches.batch(step) for step in range(number * steps, (number + 1) * steps)]


def assert_once_and_whole(found, lengths, batch_size):
    """Every sequence is in one row, whole and from its start; all else is zero."""
    source = sequences(lengths)
    indices = []
    for batch in found:
        x, rows, index = batch["x"], batch["lengths"], batch["index"]
        assert (x.dtype, rows.dtype, index.dtype) == (np.uint8, np.int32, np.int32)
        assert batch.keys() == {"x", "lengths", "index"}
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
    batches = Batches(columns(lengths), batch_size, seed, bucket_growth=growth)
    assert batches.steps_per_epoch == -(-len(lengths) // batch_size)
    for number in (0, 1, 7):
        assert_once_and_whole(epoch(batches, number), lengths, batch_size)


@FEWER
@CASES
def test_evaluation_holds_each_sequence_once(lengths, batch_size, seed, growth):
    batches = Batches(columns(lengths), batch_size, seed, bucket_growth=growth)
    found = list(batches.evaluation())
    assert len(found) == batches.steps_per_epoch
    assert_once_and_whole(found, lengths, batch_size)
    # Whatever the seed, and however much was trained before.
    other = Batches(columns(lengths), batch_size, seed + 1, bucket_growth=growth)
    other.batch(3)
    np.testing.assert_equal(list(other.evaluation()), found)


@FEWER
@CASES
def test_no_shape_beyond_the_ladder(lengths, batch_size, seed, growth):
    batches = Batches(columns(lengths), batch_size, seed, bucket_growth=growth)
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
    first = Batches(columns(lengths), batch_size, seed, bucket_growth=growth)
    in_order = [first.batch(step) for step in range(12)]
    second = Batches(columns(lengths), batch_size, seed, bucket_growth=growth)
    for step in np.random.default_rng(0).permutation(12):
        np.testing.assert_equal(second.batch(int(step)), in_order[step])


def _orders(seed, epochs):
    batches = Batches(columns(range(1, 61)), 4, seed)
    return [
        tuple(np.concatenate([batch["index"] for batch in epoch(batches, number)]))
        for number in range(epochs)
    ]


def test_epochs_and_seeds_differ():
    assert len({*_orders(0, 4), *_orders(1, 4)}) == 8


def test_company_and_order_of_sequences_change():
    """Sequences of one rung meet others in the next epoch, and lengths come in no fixed order."""
    batches = Batches(columns([10] * 40 + [20] * 40), 4, 0)
    company = [{frozenset(batch["index"]) for batch in epoch(batches, n)} for n in (0, 1)]
    assert len(company[0] & company[1]) < 5
    shapes = [[batch["x"].shape[1] for batch in epoch(batches, n)] for n in (0, 1)]
    assert shapes[0] != shapes[1]
    assert shapes[0] != sorted(shapes[0])


def test_other_process_gives_the_same_batch():
    code = """
import hashlib, sys
sys.path[:0] = ["tests/support", "tests/data"]
from test_data_batches import digest
print(digest())
"""
    done = run("-c", code, PYTHONHASHSEED="123")
    assert done.stdout.strip() == digest(), done.stderr


def digest():
    batches = Batches(columns(range(1, 60)), 8, 5)
    return hashlib.sha256(
        b"".join(batches.batch(step)["x"].tobytes() for step in (3, 40))
    ).hexdigest()


def test_long_tail_wastes_little():
    """Lengths spread like MuseData's, 9 to 3457: a fifth is padding, in at most 15 shapes."""
    lengths = np.random.default_rng(0).lognormal(np.log(300), 1.0, 524).clip(9, 3457).astype(int)
    batches = Batches({"x": [np.zeros((length, 1), np.uint8) for length in lengths]}, 8)
    found = epoch(batches, 0)
    padded = sum(batch["x"].shape[0] * batch["x"].shape[1] for batch in found)
    assert 1 - lengths.sum() / padded < 0.25
    assert len({batch["x"].shape for batch in found}) <= 15


def test_empty_rows_go_with_the_shortest():
    found = list(Batches(columns([50, 3, 40, 4, 30]), 4).evaluation())
    assert [batch["lengths"].tolist() for batch in found] == [[0, 0, 0, 3], [4, 30, 40, 50]]
    assert [batch["index"].tolist() for batch in found] == [[-1, -1, -1, 1], [3, 4, 2, 0]]


def test_sequences_of_one_length_have_lengths_only_beside_empty_rows():
    columns = {"x": np.ones((5, 7, 2), np.float32), "y": np.arange(5)}
    first, second = Batches(columns, 4).evaluation()
    assert first["lengths"].tolist() == [0, 0, 0, 7]
    assert first["lengths"].dtype == np.int32
    assert "lengths" not in second
    (part, _) = Batches(columns, 4).evaluation(slice(3, 4))  # Every process says the same.
    assert part["lengths"].tolist() == [7]


def test_frames_of_more_axes():
    batch = Batches({"x": [np.ones((3, 4, 5), np.uint8)]}, 2).batch(0)
    assert batch["x"].shape == (2, 3, 4, 5)


def many(lengths, seconds):
    """Every kind of column; example i has i + 1 in all of them."""
    numbers = np.arange(len(lengths)) + 1
    ends = np.cumsum([0, *seconds])
    values = np.repeat(numbers, seconds).astype(np.int32)
    return {
        "x": [np.full(length, number, np.int16) for number, length in enumerate(lengths, 1)],
        "x2": Ragged(values, ends),
        "image": np.tile(numbers[:, None, None], (1, 3, 2)).astype(np.uint8),
        "y": numbers.astype(np.int64),
    }


@FEWER
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=20),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 2**40),
    max_length=st.none() | st.integers(1, 35),
)
def test_columns_of_all_kinds_stay_together(lengths, batch_size, seed, max_length):
    firsts, seconds = zip(*lengths, strict=True)
    batches = Batches(many(firsts, seconds), batch_size, seed, max_length=max_length)
    limit = max_length or 30
    tops = np.minimum(np.max(lengths, axis=1), limit)
    assert batches.ladder[-1] == tops.max()
    for found in (epoch(batches, 3), list(batches.evaluation())):
        seen = []
        for batch in found:
            assert batch.keys() == {"x", "x2", "image", "y", "lengths", "lengths_x2", "index"}
            dtypes = [batch[name].dtype for name in ("x", "x2", "image", "y", "lengths_x2")]
            assert dtypes == [np.int16, np.int32, np.uint8, np.int64, np.int32]
            steps = batch["x"].shape[1]
            assert batch["x"].shape == batch["x2"].shape == (batch_size, steps)
            valid = batch["index"] >= 0
            # Padded to the rung of the longest sequence in it, whichever column that is in.
            longest_row = tops[batch["index"][valid]].max()
            assert steps == min(rung for rung in batches.ladder if rung >= longest_row)
            for row, index in enumerate(batch["index"]):
                number = index + 1  # zero for an empty row
                if index >= 0:
                    seen.append(index)
                assert batch["y"][row] == number
                assert (batch["image"][row] == number).all()
                for name, of in (("x", firsts), ("x2", seconds)):
                    kept = min(of[index], limit) if valid[row] else 0
                    assert batch["lengths" if name == "x" else "lengths_x2"][row] == kept
                    wanted = np.where(np.arange(steps) < kept, number, 0)
                    np.testing.assert_array_equal(batch[name][row], wanted)
        assert sorted(seen) == list(range(len(lengths)))


def test_columns_of_equal_shapes_alone():
    batches = Batches({"x": np.arange(20, dtype=np.uint8).reshape(5, 4)}, 2, 3)
    assert batches.ladder == (1,)
    found = epoch(batches, 0)
    for batch in found:
        assert batch.keys() - {"lengths"} == {"x", "index"}
        assert ("lengths" in batch) == (-1 in batch["index"])
    assert sorted(np.concatenate([batch["x"][:, 0] for batch in found])) == [0, 0, 4, 8, 12, 16]
    # Shuffled, and otherwise in the next epoch.
    orders = [[tuple(batch["index"]) for batch in epoch(batches, number)] for number in (0, 1)]
    assert orders[0] != orders[1]


def test_max_length_cuts_the_end_off():
    batches = Batches(columns([7, 3]), 2, max_length=5)
    assert batches.ladder[-1] == 5
    (batch,) = batches.evaluation()
    assert batch["lengths"].tolist() == [3, 5]
    np.testing.assert_array_equal(batch["x"][1], sequences([7, 3])[0][:5])


def test_nothing_is_written_into_the_split():
    source = many([3, 5], [2, 4])
    before = {name: [np.copy(value) for value in column] for name, column in source.items()}
    batches = Batches(source, 1)
    for batch in batches.evaluation():
        for values in batch.values():
            values += 1
    np.testing.assert_equal({name: list(column) for name, column in source.items()}, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, 2), "no examples"),
        (({"x": []}, 2), "no examples"),
        ((columns([3, 0, 2]), 2), "x of example 1 is empty"),
        ((many([3, 4, 2], [1, 0, 2]), 2), "x2 of example 1 is empty"),
        (({**columns([3, 4]), "y": np.ones(3)}, 2), r"different counts: \{'x': 2, 'y': 3\}"),
        ((columns([3]), 0), "batch_size must be at least 1, not 0"),
        ((columns([3]), 2, -1), "seed must be at least 0, not -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(*arguments)


def test_bad_max_length():
    with pytest.raises(ValueError, match="max_length must be at least 1, not 0"):
        Batches(columns([3]), 2, max_length=0)


@pytest.mark.parametrize("growth", [1.0, 0.5, float("nan")])
def test_bad_bucket_growth(growth):
    with pytest.raises(ValueError, match="bucket_growth must be greater than 1"):
        Batches(columns([3]), 2, bucket_growth=growth)


def test_negative_step():
    with pytest.raises(ValueError, match="step must be at least 0, not -1"):
        Batches(columns([3]), 2).batch(-1)
