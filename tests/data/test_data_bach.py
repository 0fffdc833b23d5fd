"""Bach's chorales out of music21, checked by another reader of the same scores and by their music.

Parsing takes seconds, so these tests use the user's cache, as any run of an experiment does.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from fractions import Fraction

import numpy as np
import pytest

import data
from data.sets import bach_chorales
from data.source import SPLITS

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


@pytest.fixture(scope="module")
def chorales():
    pytest.importorskip("music21", reason="needs the package music21")
    return {split: data.load("bach_chorales", split) for split in SPLITS}


@pytest.fixture(scope="module")
def by_name(chorales):
    return {
        name: x
        for split in chorales.values()
        for name, x in zip(split.ids, split["x"], strict=True)
    }


def test_figures(chorales, by_name):
    assert [len(chorales[split]["x"]) for split in SPLITS] == [267, 48, 47]
    assert len(by_name) == 362
    for split in chorales.values():
        x = np.concatenate(list(split["x"]))
        assert x.dtype == np.uint8
        assert x.shape[1] == 88
        # Four voices, which now and then meet on one note or rest.
        assert 3.8 < x.sum() / len(x) < 3.95
        assert x.sum(1).max() == 4
        # From a bass's C2 to a soprano's A5.
        sung = np.flatnonzero(x.any(0)) + 21
        assert sung.min() >= 36
        assert sung.max() <= 81


def test_split_is_by_work(chorales):
    works = [
        {re.match(r"bwv\d+", name).group() for name in chorales[split].ids} for split in SPLITS
    ]
    assert sum(map(len, works)) == len(set.union(*works))
    # Written down once; they must never change.
    known = {"bwv10.7": "train", "bwv18.5-lz": "train", "bwv11.6": "valid", "bwv153.9": "valid"}
    known |= {"bwv140.7": "test", "bwv245.11": "test", "bwv245.28": "test"}
    for split in SPLITS:
        assert {name for name in known if name in chorales[split].ids} == {
            name for name in known if known[name] == split
        }
        assert {bach_chorales.split_of(name) for name in chorales[split].ids} == {split}


def test_no_chorale_twice_in_another_key(by_name):
    seen = set()
    for x in by_name.values():
        seen.add(np.roll(x, -np.flatnonzero(x.any(0))[0], axis=1).tobytes())
    assert len(seen) == len(by_name)


def _frames_by_plain_xml(path):
    """The sounding notes at each quarter, straight from the MusicXML, note by note."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if not name.startswith("META-INF"))
        score = ElementTree.fromstring(archive.read(name))
    sounding, last = [], Fraction(0)
    for part in score.findall("part"):
        now, divisions, notes = Fraction(0), 1, []
        for element in part.iterfind("measure/*"):
            if element.tag == "attributes" and element.find("divisions") is not None:
                divisions = int(element.findtext("divisions"))
            assert element.tag != "backup"
            if element.tag not in ("note", "forward") or element.find("grace") is not None:
                continue
            assert element.find("chord") is None
            length = Fraction(element.findtext("duration")) / divisions
            if (pitch := element.find("pitch")) is not None:
                octave, alter = int(pitch.findtext("octave")), int(pitch.findtext("alter") or 0)
                midi = 12 * (octave + 1) + STEPS[pitch.findtext("step")] + alter
                notes.append((now, now + length, midi))
            now += length
            if element.tag == "note":
                last = max(last, now)
        sounding.append(notes)
    return [
        {midi for notes in sounding for start, end, midi in notes if start <= step < end}
        for step in range(int(last))
    ]


def test_rolls_equal_a_plain_reading_of_the_scores(by_name):
    paths = {path.stem: path for path in bach_chorales.scores() if path.suffix == ".mxl"}
    names = sorted(name for name in by_name if name in paths)[::12]
    assert len(names) >= 30
    for name in names:
        expected = _frames_by_plain_xml(paths[name])
        found = [set(np.flatnonzero(step) + 21) for step in by_name[name]]
        assert found == expected, name


def _start(x):
    """The first 12 steps, in any key."""
    return np.roll(x[:12], -np.flatnonzero(x[:12].any(0))[0], axis=1).tobytes()


def test_most_begin_like_a_chorale_of_jsb(by_name, tmp_path, monkeypatch):
    try:
        data.source_of("jsb").digest(None)
    except FileNotFoundError as error:
        pytest.skip(f"needs the published data: {error}")
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path))
    jsb = {_start(x) for split in SPLITS for x in data.load("jsb", split)["x"]}
    alike = sum(_start(x) in jsb for x in by_name.values())
    # 246 of 362, when this was written: the same scores, in the same frames.
    assert alike > 0.6 * len(by_name)


def test_second_load_parses_nothing(chorales, monkeypatch):
    def fail(paths):
        raise AssertionError("parsed again")

    monkeypatch.setattr(bach_chorales, "_parse", fail)
    again = data.load("bach_chorales", "test")
    np.testing.assert_equal(list(again["x"]), list(chorales["test"]["x"]))


def test_missing_music21_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "music21", None)
    with pytest.raises(FileNotFoundError, match=r"needs the package music21.*pip install music21"):
        data.load("bach_chorales", "train")


def test_damaged_score_is_an_error(tmp_path):
    pytest.importorskip("music21", reason="needs the package music21")
    score = tmp_path / "bwv1.mxl"
    score.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(OSError, match=r"a parser ended with exit code 1 \(.+\)") as caught:
        bach_chorales._parse([score])
    assert "\n" not in str(caught.value)
