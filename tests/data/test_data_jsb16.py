"""JSB Chorales at sixteenth notes: the published file where it is there, tiny ones, bad ones."""

import json
import lzma
from collections import Counter

import numpy as np
import pytest
from data_case import figures, rolls
from original_case import load_real, load_splits

from data import paths
from data.sets import jsb_16th
from data.source import SPLITS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))


def lists(splits):
    """Rolls as the file has them: lists of steps of MIDI notes, the splits in another order."""
    return {
        split: [[(np.flatnonzero(step) + 21).tolist() for step in x] for x in splits[split]]
        for split in ("test", "train", "valid")
    }


def tiny(splits):
    return jsb_16th.chorales_source({split: figures(x) for split, x in splits.items()})


@pytest.mark.parametrize("name", ["jsb-chorales-16th.json", "jsb-chorales-16th.json.xz"])
@pytest.mark.parametrize("folder", ["", "jsb_chorales_midi"])
def test_layouts(tmp_path, folder, name):
    expected = rolls()
    raw = json.dumps(lists(expected)).encode()
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / name).write_bytes(lzma.compress(raw) if name.endswith(".xz") else raw)
    for split, found in load_splits(tiny(expected), tmp_path).items():
        np.testing.assert_equal(list(found["x"]), expected[split])
        assert found.ids == [f"{split}/{number:04d}" for number in range(len(expected[split]))]


def with_piece(piece):
    changed = lists(rolls())
    changed["valid"][1] = piece
    return json.dumps(changed).encode()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (json.dumps(lists(rolls())).encode()[:-3], "not whole JSON"),
        (b"", "not whole JSON"),
        (b"[" * 100_000, "not whole JSON"),
        (b'{"train": "\xff"}', r"byte 11 is not UTF-8 \(0xff\)"),
        (b"[1, 2]", "lists of pieces named train, valid, test"),
        (b'{"train": [], "valid": []}', "lists of pieces named train, valid, test"),
        (with_piece([[60], [109]]), r"valid sequence 1: step 1 has MIDI note 109; .*21\.\.108"),
        (with_piece([[60], [60.5]]), r"valid sequence 1: step 1 has MIDI note 60\.5"),
        (with_piece([[60], ["C4"]]), "valid sequence 1: step 1 has MIDI note C4"),
        (with_piece([[60], 60]), "valid sequence 1 is no list of steps"),
        (with_piece(None), "valid sequence 1 is no list of steps"),
        (with_piece([[60]]), "valid sequence 1 has 1 steps: too few"),
        (with_piece([[60], [61]]), "not the published data: valid should have 2 examples"),
    ],
)
def test_bad_file(tmp_path, raw, message):
    path = tmp_path / jsb_16th.FILE
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=message) as caught:
        load_splits(tiny(rolls()), tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"jsb_16th needs jsb-chorales-16th\.json or "):
        load_splits(tiny(rolls()), tmp_path)


def test_published_file_holds_the_same_chorales_as_the_array_of_voices(tmp_path_factory):
    """The publisher's other form: a matrix [T, 4] of float16 a chorale, NaN for a silent voice."""
    splits = load_real("jsb_16th", tmp_path_factory.mktemp("jsb_16th"))
    name = "Jsb16thSeparated.npz"
    voices = paths.original("jsb_16th", [name, f"jsb_chorales_midi/{name}"])
    with np.load(voices, allow_pickle=True, encoding="latin1") as arrays:
        for split, count in zip(SPLITS, (229, 76, 77), strict=True):
            wanted = Counter()
            for matrix in arrays[split]:
                keys = np.zeros((len(matrix), 88), np.uint8)
                steps, parts = np.nonzero(~np.isnan(matrix))
                keys[steps, matrix[steps, parts].astype(int) - 21] = 1
                wanted[keys.tobytes()] += 1
            # Their orders differ.
            assert Counter(keys.tobytes() for keys in splits[split]["x"]) == wanted
            assert wanted.total() == len(splits[split]) == count
