"""Columns on the disk: what was put in comes out, and what does not belong in is named."""

import gc
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import storage
from data.source import SPLITS, Column, Count, Reading
from data.storage import Ragged

DTYPES = ["bool", "uint8", "int8", "int16", "uint16", "int32", "int64", "float32", "float64"]
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=9)
FACTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
)


def written(folder, kinds, splits, facts=None, counts=None):
    storage.write("tiny", kinds, Reading("tiny.bin", splits, facts or {}, counts), folder)
    return {split: storage.read(folder, split) for split in SPLITS}


def one(value, dtype="int32", shape=(None,)):
    """A data set with one column and, in its training split, one example."""
    return {"x": Column(dtype, shape, "")}, {
        "train": [("a", {"x": value})],
        "valid": [],
        "test": [],
    }


@st.composite
def cases(draw):
    """Columns of every kind, and random bits for each example of three splits."""
    kinds = {}
    for number in range(draw(st.integers(1, 4))):
        inner = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
        shape = draw(st.sampled_from([inner, (None, *inner)]))
        kinds["x" if number == 0 else f"c{number}"] = Column(
            draw(st.sampled_from(DTYPES)), shape, draw(WORDS)
        )
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    splits = {}
    for split in SPLITS:
        ids = draw(st.lists(WORDS, max_size=5))
        splits[split] = [
            (name, {key: example(random, column) for key, column in kinds.items()}) for name in ids
        ]
    return kinds, splits


def example(random, column):
    shape = tuple(random.integers(1, 5) if size is None else size for size in column.shape)
    dtype = np.dtype(column.dtype)
    if column.dtype == "bool":
        return random.random(shape) < 0.5
    bits = random.bytes(dtype.itemsize * int(np.prod(shape)))
    return np.frombuffer(bits, dtype).reshape(shape)


@settings(max_examples=60, deadline=None)
@given(case=cases(), facts=st.dictionaries(WORDS, FACTS, max_size=4))
def test_round_trip(case, facts):
    """Every dtype, of scalars, arrays and sequences; bit for bit, not a number included."""
    kinds, splits = case
    with tempfile.TemporaryDirectory() as folder:
        generators = {split: iter(examples) for split, examples in splits.items()}
        for split, read in written(Path(folder), kinds, generators, facts).items():
            examples = splits[split]
            assert (read.name, read.split, read.facts) == ("tiny", split, facts)
            assert read.read == {"kind": "original", "path": "tiny.bin"}
            assert len(read) == len(examples)
            assert read.ids == [name for name, _ in examples]
            assert list(read.columns) == list(kinds)
            for key, column in kinds.items():
                found = read[key]
                assert isinstance(found, Ragged) == (column.shape[:1] == (None,))
                assert len(found) == len(examples)
                for number, (_, values) in enumerate(examples):
                    assert found[number].dtype == column.dtype
                    assert found[number].shape == values[key].shape
                    assert found[number].tobytes() == values[key].tobytes()
                    assert read.example(number)[key].tobytes() == values[key].tobytes()


def test_arrays_stay_on_the_disk_and_cannot_be_written(tmp_path):
    read = written(tmp_path, *one([3, 4, 5]))["train"]
    base = read["x"].values
    while not isinstance(base, np.memmap):
        base = base.base
    assert Path(base.filename) == tmp_path / "train" / "x.npy"
    with pytest.raises(ValueError, match="read-only"):
        read["x"][0][1] = 7
    assert np.shares_memory(read["x"][0], read["x"].values)


def test_ragged_is_a_sequence():
    ragged = Ragged(np.arange(6), np.array([0, 2, 3, 6]))
    assert [list(item) for item in ragged] == [[0, 1], [2], [3, 4, 5]]
    assert list(ragged[-1]) == [3, 4, 5]
    assert ragged.lengths.tolist() == [2, 1, 3]
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"no sequence {index} among 3"):
            ragged[index]


def test_plain_numpy_reads_it(tmp_path):
    """The documented layout, for who has NumPy and not this package."""
    kinds = {"x": Column("int16", (None, 2), "pairs"), "y": Column("uint8", (), "label")}
    rows = [np.arange(6).reshape(3, 2), np.array([[7, 8]])]
    splits = {s: [(f"{s}/{i}", {"x": x, "y": i}) for i, x in enumerate(rows)] for s in SPLITS}
    written(tmp_path, kinds, splits, {"classes": 2})
    for split in SPLITS:
        values = np.load(tmp_path / split / "x.npy")
        assert values.dtype == np.int16
        np.testing.assert_array_equal(values, np.concatenate(rows))
        offsets = np.load(tmp_path / split / "x.offsets.npy")
        assert (offsets.dtype, offsets.tolist()) == (np.int64, [0, 3, 4])
        assert np.load(tmp_path / split / "y.npy").tolist() == [0, 1]
        assert not (tmp_path / split / "y.offsets.npy").exists()
        assert (tmp_path / split / "ids.txt").read_text() == f"{split}/0\n{split}/1\n"
    assert json.loads((tmp_path / "facts.json").read_text()) == {
        "name": "tiny",
        "columns": {
            "x": {"dtype": "int16", "shape": [None, 2], "text": "pairs"},
            "y": {"dtype": "uint8", "shape": [], "text": "label"},
        },
        "facts": {"classes": 2},
        "read": {"kind": "original", "path": "tiny.bin"},
    }


@pytest.mark.parametrize(
    ("value", "dtype", "shape", "message"),
    [
        ([], "int32", (None,), "x is empty; a sequence needs a step"),
        (np.zeros((0, 3)), "int32", (None, 3), "x is empty"),
        ([[1, 2]], "int32", (None,), r"x is \(1, 2\), not \(None,\)"),
        (5, "int32", (None,), r"x is \(\), not \(None,\)"),
        ([1], "int32", (), r"x is \(1,\), not \(\)"),
        ([[1, 2]], "int32", (None, 3), r"x is \(1, 2\), not \(None, 3\)"),
        ([1, 2], "int32", (3,), r"x is \(2,\), not \(3,\)"),
        ([256], "uint8", (None,), "x does not fit into uint8"),
        ([-1], "uint8", (None,), "x does not fit into uint8"),
        ([2**31], "int32", (None,), "x does not fit into int32"),
        ([2**70], "int32", (None,), "x is no array of int32"),
        ([0.5], "int32", (None,), "x does not fit into int32"),
        ([np.nan], "int32", (None,), "x does not fit into int32"),
        ([np.inf], "uint8", (None,), "x does not fit into uint8"),
        ([2], "bool", (None,), "x does not fit into bool"),
        ([1e300], "float32", (None,), "x does not fit into float32"),
        ([16_777_217], "float32", (None,), "x does not fit into float32"),
        (["3"], "int32", (None,), "x does not fit into int32"),
        (["three"], "int32", (None,), "x is no array of int32"),
        ([[1], [1, 2]], "int32", (None,), "x is no array of int32"),
        (None, "int32", (), "x is no array of int32"),
    ],
)
def test_bad_value_is_named(tmp_path, value, dtype, shape, message):
    with pytest.raises(ValueError, match=rf"tiny\.bin: train a: {message}") as caught:
        written(tmp_path, *one(value, dtype, shape))
    assert "\n" not in str(caught.value)
    gc.collect(1)  # An unclosed file would be a warning, and so an error.


@pytest.mark.parametrize(
    ("value", "dtype", "wanted"),
    [
        (np.array([1, 255]), "uint8", [1, 255]),
        (np.array([1.0, 2.0]), "uint8", [1, 2]),
        (np.array([True, False]), "int32", [1, 0]),
        (np.array([1, 2], ">i2"), "int16", [1, 2]),
        (np.arange(6)[::2], "int64", [0, 2, 4]),
        ([0, 1], "bool", [False, True]),
    ],
)
def test_what_fits_is_taken_in_another_dtype(tmp_path, value, dtype, wanted):
    found = written(tmp_path, *one(value, dtype))["train"]["x"][0]
    assert found.dtype == dtype
    assert found.tolist() == wanted


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (("a", {"y": 1}), r"a has \['y'\], not \['x'\]"),
        (("a", {"x": [1], "y": 1}), r"a has \['x', 'y'\], not \['x'\]"),
        (("a\nb", {"x": [1]}), r"'a\\nb': an id is one line"),
        (("a\u2028b", {"x": [1]}), r"'a\\u2028b': an id is one line"),
        (("a\rb", {"x": [1]}), r"'a\\rb': an id is one line"),
        (("", {"x": [1]}), "'': an id is one line"),
    ],
)
def test_bad_example_is_named(tmp_path, example, message):
    kinds, splits = one([1])
    splits["valid"] = [example]
    with pytest.raises(ValueError, match=rf"tiny\.bin: valid {message}"):
        written(tmp_path, kinds, splits)
    gc.collect(1)


def test_figures_are_counted_of_the_first_column(tmp_path):
    kinds = {"x": Column("int8", (None, 2), ""), "y": Column("uint8", (), "")}
    values = [np.array([[1, -2], [3, 4], [5, 6]]), np.array([[-7, 8]])]
    splits = {s: [(str(i), {"x": x, "y": 9}) for i, x in enumerate(values)] for s in SPLITS}
    right = Count(2, 1, 3, 4, 18)
    for number, wrong in enumerate((3, 2, 4, 5, 19)):
        counts = dict.fromkeys(SPLITS, right)
        written(tmp_path / f"right{number}", kinds, splits, counts=counts)
        # None: nobody knows it.
        counts["train"] = Count(*(None if i == number else f for i, f in enumerate(right)))
        written(tmp_path / f"unknown{number}", kinds, splits, counts=counts)
        counts["train"] = Count(*(wrong if i == number else f for i, f in enumerate(right)))
        words = rf"tiny\.bin: not the published data: train should have {counts['train']}, but has"
        with pytest.raises(ValueError, match=words):
            written(tmp_path / f"wrong{number}", kinds, splits, counts=counts)


def test_fixed_shapes_count_their_first_axis(tmp_path):
    kinds, splits = one(np.full((4, 3), 200, np.uint8), "uint8", (4, 3))
    # The sum is exact, though bytes hold less.
    counts = {"train": Count(1, 4, 4, 4, 2400), "valid": Count(0), "test": Count(0)}
    written(tmp_path, kinds, splits, counts=counts)
