"""Piano rolls out of .mat files: the published ones where they are there, tiny ones, bad ones."""

import os
import pickle
import zlib

import numpy as np
import pytest
import scipy.io
from data_case import figures, rolls, run, tiny_source, write_mat
from tiers import full

import data
from data import paths
from data.sets import music
from data.source import SPLITS, Source


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))


def test_roll_places_notes():
    keys = music.roll([[21, 108], [], [60, 60]])
    assert keys.shape == (3, 88)
    assert keys.dtype == np.uint8
    assert [list(np.flatnonzero(step)) for step in keys] == [[0, 87], [], [39]]
    assert music.note_names(keys) == ["A0 C8", "-", "C4"]


@pytest.mark.parametrize("note", [20, 109, -1, 0])
def test_roll_refuses_notes_off_the_piano(note):
    with pytest.raises(ValueError, match=rf"step 1 has MIDI note {note}; .*21\.\.108"):
        music.roll([[60], [note]])


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int16, np.bool_])
def test_read_mat(tmp_path, dtype):
    expected = rolls()
    written = {split: [x.astype(dtype) for x in sequences] for split, sequences in expected.items()}
    found = music.read_mat(write_mat(tmp_path / "a.mat", written))
    assert list(found) == list(SPLITS)
    for split in SPLITS:
        assert all(x.dtype == np.uint8 for x in found[split])
        np.testing.assert_equal(found[split], expected[split])


def test_one_sequence_in_a_split(tmp_path):
    expected = rolls(sizes=(1, 1, 1))
    found = music.read_mat(write_mat(tmp_path / "a.mat", expected))
    np.testing.assert_equal(found, expected)


def _bad(step: int, key: int, value: float) -> np.ndarray:
    roll = np.zeros((4, 88))
    roll[step, key] = value
    return roll


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        (np.zeros((4, 128)), r"has 128 columns; it should have 88, .* 21\.\.108"),
        (np.zeros((4, 87)), "has 87 columns"),
        (np.zeros((0, 88)), "has 0 steps"),
        (np.zeros((0, 0)), "has 0 steps"),
        (np.ones((1, 88)), "has 1 steps: too few"),
        (_bad(3, 87, 2), r"holds the value 2\.0; a key is 1"),
        (_bad(0, 0, 0.5), r"holds the value 0\.5"),
        (_bad(1, 1, -1), r"holds the value -1\.0"),
        (_bad(1, 1, np.nan), "holds the value nan"),
        (np.zeros((4, 88), complex), "no matrix of numbers"),
        ("text", "no matrix of numbers"),
        (np.zeros((4, 88, 2)), "no matrix of numbers"),
    ],
)
def test_bad_sequence(tmp_path, sequence, message):
    splits = rolls()
    splits["valid"][1] = sequence
    path = write_mat(tmp_path / "a.mat", splits)
    with pytest.raises(ValueError, match=rf"a\.mat: valid sequence 1 .*{message}") as caught:
        music.read_mat(path)
    assert "\n" not in str(caught.value)


def test_missing_variable(tmp_path):
    splits = rolls()
    del splits["test"]
    path = write_mat(tmp_path / "a.mat", splits)
    with pytest.raises(
        ValueError, match=r"a\.mat: no variable 'testdata' .*found: 'traindata', 'validdata'"
    ):
        music.read_mat(path)


def test_matrix_in_place_of_the_cell_array(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {f"{split}data": np.zeros((4, 88)) for split in SPLITS})
    with pytest.raises(ValueError, match="traindata should be a cell array"):
        music.read_mat(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"no matlab file" * 100, bytes(500), b"\x89HDF\r\n\x1a\n" + bytes(600)],
    ids=["empty", "one byte", "text", "zeros", "hdf5"],
)
def test_foreign_bytes(tmp_path, content):
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mat: (not a whole MATLAB 5 file|no variable)"):
        music.read_mat(path)


def test_truncated_anywhere(tmp_path):
    path = write_mat(tmp_path / "a.mat", rolls())
    content = path.read_bytes()
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        with pytest.raises(
            ValueError, match=r"a\.mat: (not a whole MATLAB 5 file|no variable)"
        ) as caught:
            music.read_mat(path)
        assert "\n" not in str(caught.value)


EVERY_BYTE = """
import sys
from pathlib import Path
from data.sets import music

path = Path(sys.argv[1])
raw, right = path.read_bytes(), music.read_mat(path)
for place in range(len(raw)):
    damaged = bytearray(raw)
    damaged[place] ^= 1 << int(sys.argv[2])
    path.write_bytes(damaged)
    print(place, flush=True)
    try:
        music.read_mat(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ") and "\\n" not in str(error), error
"""


@pytest.mark.parametrize("bit", [0, full(1), full(3), full(7)])
def test_no_flipped_bit_ends_the_process(tmp_path, bit):
    """SciPy's reader does not survive it: byte 236, the type of a matrix's numbers, is enough."""
    path = write_mat(tmp_path / "a.mat", rolls(sizes=(1, 1, 1)))
    size = path.stat().st_size
    done = run("-c", EVERY_BYTE, path, bit)
    assert done.returncode == 0, done.stdout[-10:] + done.stderr
    assert done.stdout.split()[-1] == str(size - 1)


@pytest.mark.parametrize(
    "name", ["JSB_Chorales", full("Nottingham"), full("MuseData"), "Piano_midi"]
)
def test_published_files_read_as_scipy_reads_them(name):
    path = paths.find([f"{name}.mat", f"poly_music/{name}.mat"], None)
    if path is None:
        pytest.skip(f"{name}.mat is not there")
    found = music.read_mat(path)
    wanted = scipy.io.loadmat(path)
    for split in SPLITS:
        np.testing.assert_equal(found[split], list(wanted[f"{split}data"].ravel()))


@pytest.mark.parametrize("compressed", [False, True])
def test_sizes_in_a_mat_file_are_not_believed(tmp_path, compressed):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"traindata": np.zeros((4, 88))}, do_compression=compressed)
    raw = path.read_bytes()
    if compressed:  # A bomb: 64 MB of zeros in 64 KB.
        packed = zlib.compress(bytes(1 << 26))
        raw = raw[:128] + np.array([15, len(packed)], "<u4").tobytes() + packed
    else:
        raw = raw.replace(np.array([4, 88], "<i4").tobytes(), np.array([1 << 30] * 2, "<i4"))
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.mat: not a whole MATLAB 5 file .*(shape|more than)"):
        music.read_mat(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        music.read_mat(tmp_path / "a.mat")


def _drop_sequence(splits):
    splits["test"].pop()


def _drop_step(splits):
    splits["test"][0] = splits["test"][0][:-1]


def _flip_key(splits):
    splits["test"][2][0, 0] ^= 1


@pytest.mark.parametrize("change", [_drop_sequence, _drop_step, _flip_key])
def test_other_counts_are_refused(tmp_path, change):
    splits = rolls()
    source, expected = tiny_source(splits), figures(splits["test"])
    change(splits)
    write_mat(tmp_path / "tiny.mat", splits)
    with pytest.raises(ValueError, match=r"tiny\.mat: not the published data: test") as caught:
        data.load_from(source, "train", tmp_path)
    found = figures(splits["test"])
    for words, count in (("should have", expected), ("but has", found)):
        assert f"{words} {count.examples} examples of {count.shortest}.." in str(caught.value)
        assert f"{count.steps} steps and a sum of {count.total}" in str(caught.value)


def write_pickle(path, splits, protocol=2):
    """The publishers' own form: lists of pieces of steps, which are tuples of MIDI notes."""
    path.write_bytes(
        pickle.dumps(
            {
                split: [
                    [tuple(int(key) + 21 for key in np.flatnonzero(step)) for step in roll]
                    for roll in rolls
                ]
                for split, rolls in splits.items()
            },
            protocol,
        )
    )
    return path


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_read_pickle(tmp_path, protocol):
    expected = rolls()
    found = music.read_pickle(write_pickle(tmp_path / "a.pickle", expected, protocol))
    assert list(found) == list(SPLITS)
    for split in SPLITS:
        assert all(x.dtype == np.uint8 for x in found[split])
        np.testing.assert_equal(found[split], expected[split])


def test_pickle_is_taken_where_there_is_no_mat(tmp_path):
    expected = rolls()
    write_pickle(tmp_path / "tiny.pickle", expected)
    loaded = data.load_from(tiny_source(expected), "valid", tmp_path)
    np.testing.assert_equal(list(loaded["x"]), expected["valid"])
    write_mat(tmp_path / "tiny.mat", rolls(seed=1))
    with pytest.raises(ValueError, match=r"tiny\.mat: not the published data"):
        data.load_from(tiny_source(expected), "valid", tmp_path)


class _Malicious:
    """Unpickling it calls a function of the system."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("place", ["whole", "note"])
def test_pickle_that_wants_to_call_is_refused(tmp_path, place):
    struck, path = tmp_path / "struck", tmp_path / "a.pickle"
    bad = _Malicious(struck)
    content = bad if place == "whole" else {split: [[(60,), (bad,)]] for split in SPLITS}
    path.write_bytes(pickle.dumps(content, 2))
    with pytest.raises(ValueError, match=r"a\.pickle: .*wants to call posix.mkdir; not to trust"):
        music.read_pickle(path)
    assert not struck.exists()
    pickle.loads(path.read_bytes())  # It does strike where it is let.
    assert struck.exists()


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        ([(60,), (20,)], r"step 1 has MIDI note 20; the piano's notes are 21\.\.108"),
        ([(60,), (60.5,)], "step 1 has MIDI note 60.5"),
        ([(60,), ("C4",)], "step 1 has MIDI note C4"),
        ([(60,), 60], "no list of steps of MIDI notes"),
        ([(60,)], "has 1 steps: too few"),
        ([], "has 0 steps: too few"),
        (7, "no list of steps of MIDI notes"),
    ],
)
def test_bad_piece_in_a_pickle(tmp_path, piece, message):
    splits = {split: [[(60,), ()]] * 2 for split in SPLITS}
    splits["valid"][1] = piece
    path = tmp_path / "a.pickle"
    path.write_bytes(pickle.dumps(splits, 2))
    with pytest.raises(ValueError, match=rf"a\.pickle: valid sequence 1.*({message})") as caught:
        music.read_pickle(path)
    assert "\n" not in str(caught.value)


def test_pickle_truncated_anywhere(tmp_path):
    path = write_pickle(tmp_path / "a.pickle", rolls())
    content = path.read_bytes()
    for end in range(0, len(content), 31):
        path.write_bytes(content[:end])
        with pytest.raises(
            ValueError, match=r"a\.pickle: not a whole pickle \(.+\); .*fetch it again"
        ):
            music.read_pickle(path)


@pytest.mark.parametrize("content", [[1, 2], {"train": [], "valid": []}, "text", None])
def test_pickle_of_something_else(tmp_path, content):
    path = tmp_path / "a.pickle"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"a\.pickle: .* named train, valid, test"):
        music.read_pickle(path)


def _source(name: str) -> Source:
    source = data.source_of(name)
    try:
        source.digest(None)
    except FileNotFoundError as error:
        pytest.skip(f"needs the published data: {error}")
    return source


@pytest.mark.parametrize(
    ("name", "sequences", "steps", "notes_a_step"),
    [
        ("jsb", (229, 76, 77), (13_807, 4_602, 4_725), (3.898, 3.870, 3.887)),
        full("nottingham", (694, 173, 170), (176_561, 45_513, 44_463), (3.961, 3.959, 3.990)),
        full("musedata", (524, 135, 124), (245_202, 82_755, 64_339), (3.493, 3.479, 3.293)),
        ("piano_midi", (87, 12, 25), (75_911, 8_540, 19_036), (3.044, 3.235, 2.945)),
    ],
)
def test_published_sets(name, sequences, steps, notes_a_step):
    source = _source(name)
    for split, n, t, notes in zip(SPLITS, sequences, steps, notes_a_step, strict=True):
        loaded = data.load_from(source, split, None)
        x = loaded["x"]
        assert len(x) == len(loaded) == len(set(loaded.ids)) == n
        assert sum(map(len, x)) == t
        assert round(sum(map(np.sum, x)) / t, 3) == notes
        assert all(roll.dtype == np.uint8 and roll.shape[1:] == (88,) for roll in x)


def test_loaded_jsb_is_what_scipy_reads():
    source = _source("jsb")
    path = paths.original("jsb", ["JSB_Chorales.mat", "poly_music/JSB_Chorales.mat"])
    contents = scipy.io.loadmat(path)
    for split in SPLITS:
        loaded = data.load_from(source, split, None)
        np.testing.assert_equal(list(loaded["x"]), list(contents[f"{split}data"][0]))
