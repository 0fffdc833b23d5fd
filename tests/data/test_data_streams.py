"""Windows of a stream: nothing lost, doubled or mixed up."""

import hashlib

import numpy as np
import pytest
from data_case import run
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data.streams import Streams

CASES = given(
    count=st.integers(2, 200),
    batch_size=st.integers(1, 5),
    steps=st.integers(1, 9),
    seed=st.integers(0, 2**40),
)
FEWER = settings(max_examples=80, deadline=None)


def stream(count):
    """Token i is i + 1, so that a value tells its place and 0 is none of them."""
    return np.arange(1, count + 1, dtype=np.int32)


def streams(count, batch_size, steps, seed=0):
    assume(count >= (batch_size + 1) * steps)
    return Streams(stream(count), batch_size, steps, seed)


def assert_form(batch, rows, steps):
    assert batch.keys() == {"x", "y", "fresh", "lengths"}
    assert batch["x"].shape == batch["y"].shape == (rows, steps)
    assert batch["fresh"].shape == batch["lengths"].shape == (rows,)
    dtypes = [batch[name].dtype for name in ("x", "y", "fresh", "lengths")]
    assert dtypes == [np.int32, np.int32, bool, np.int32]


@FEWER
@CASES
def test_rows_go_on_from_window_to_window(count, batch_size, steps, seed):
    source = streams(count, batch_size, steps, seed)
    windows = source.steps_per_epoch
    for epoch in (0, 1, 5):
        batches = [source.batch(epoch * windows + place) for place in range(windows)]
        for place, batch in enumerate(batches):
            assert_form(batch, batch_size, steps)
            assert (batch["fresh"] == (place == 0)).all()
            assert (batch["lengths"] == steps).all()
            np.testing.assert_array_equal(batch["y"], batch["x"] + 1)  # each the next
        rows = np.concatenate([batch["x"] for batch in batches], axis=1)
        # The rows lie end to end in the stream, each in one piece.
        used = rows.ravel()
        np.testing.assert_array_equal(used, np.arange(used[0], used[0] + used.size))
        assert used[0] >= 1
        assert used[-1] < count


@FEWER
@CASES
def test_as_many_windows_as_go_in(count, batch_size, steps, seed):
    source = streams(count, batch_size, steps, seed)
    spare = count - 1 - source.steps_per_epoch * batch_size * steps
    # Enough to move the start through all places of a window, not enough for one more of each row.
    assert steps - 1 <= spare < steps - 1 + batch_size * steps


def test_every_start_comes_and_seeds_and_epochs_differ():
    source = Streams(stream(12), 2, 3, seed=0)
    assert source.steps_per_epoch == 1  # 11 to predict: 5 of them spare
    starts = [int(source.batch(epoch)["x"][0, 0]) for epoch in range(200)]
    assert set(starts) == set(range(1, 7))
    other = Streams(stream(12), 2, 3, seed=1)
    assert starts != [int(other.batch(epoch)["x"][0, 0]) for epoch in range(200)]
    # Every token but the first comes to be predicted.
    assert {*np.ravel([source.batch(epoch)["y"] for epoch in range(200)])} == set(range(2, 13))


@FEWER
@CASES
def test_batch_is_a_function_of_seed_and_step(count, batch_size, steps, seed):
    first = streams(count, batch_size, steps, seed)
    in_order = [first.batch(step) for step in range(12)]
    second = streams(count, batch_size, steps, seed)
    list(second.evaluation())
    for step in np.random.default_rng(0).permutation(12):
        np.testing.assert_equal(second.batch(int(step)), in_order[step])


def digest():
    source = Streams(stream(1000), 4, 7, 5)
    return hashlib.sha256(b"".join(source.batch(s)["x"].tobytes() for s in (3, 400))).hexdigest()


def test_other_process_gives_the_same_batch():
    code = "import sys; sys.path[:0] = ['tests/support', 'tests/data']\n"
    code += "from test_data_streams import digest\nprint(digest())"
    done = run("-c", code, PYTHONHASHSEED="123")
    assert done.stdout.strip() == digest(), done.stderr


@FEWER
@CASES
def test_evaluation_predicts_every_token_once(count, batch_size, steps, seed):
    source = streams(count, batch_size, steps, seed)
    batches = list(source.evaluation())
    predicted, rows = [], [[] for _ in range(batch_size)]
    for number, batch in enumerate(batches):
        assert_form(batch, batch_size, steps)
        assert (batch["fresh"] == (number == 0)).all()
        for row, length in enumerate(batch["lengths"]):
            x, y = batch["x"][row], batch["y"][row]
            np.testing.assert_array_equal(y[:length], x[:length] + 1)
            assert not x[length:].any()
            assert not y[length:].any()
            predicted += [*y[:length]]
            rows[row] += [*x[:length]]
    assert sorted(predicted) == list(range(2, count + 1))
    assert [x for row in rows for x in row] == list(range(1, count))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    # No batch without a step, and a row that has ended does not begin again.
    assert all(batch["lengths"].any() for batch in batches)
    np.testing.assert_equal(list(streams(count, batch_size, steps, seed + 1).evaluation()), batches)


def test_stream_stays_on_the_disk(tmp_path):
    np.save(tmp_path / "x.npy", stream(1000).astype(np.uint16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    batch = Streams(mapped, 4, 7).batch(3)
    assert type(batch["x"]) is np.ndarray
    assert_form(batch, 4, 7)
    np.testing.assert_equal(batch, Streams(stream(1000), 4, 7).batch(3))
    batch["x"] += 1  # a copy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((stream(9), 0, 2), "batch_size must be at least 1, not 0"),
        ((stream(9), 1, 0), "steps must be at least 1, not 0"),
        ((stream(9), 1, 2, -1), "seed must be at least 0, not -1"),
        ((stream(8), 2, 3), "8 tokens are too few for 2 rows of 3 steps, which take 9"),
        ((stream(9).reshape(3, 3), 1, 1), r"integers \[N\], not int32 \[3, 3\]"),
        ((stream(9) * 0.5, 1, 1), r"integers \[N\], not float64 \[9\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Streams(*arguments)


def test_negative_step():
    with pytest.raises(ValueError, match="step must be at least 0, not -1"):
        Streams(stream(9), 1, 2).batch(-1)
