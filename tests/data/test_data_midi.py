"""MIDI files: against music21, which writes them, and event by event."""

import struct
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from own_case import midi

from data import midi as reader
from data.sets.own import music


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body)) + body


def file_of(*tracks: bytes, form: int = 1, division: int = 96, count: int | None = None) -> bytes:
    head = struct.pack(">HHH", form, len(tracks) if count is None else count, division)
    return chunk(b"MThd", head) + b"".join(chunk(b"MTrk", track) for track in tracks)


def notes_of(content: bytes) -> list[tuple[int, int, int]]:
    return [(n.start, n.end, n.key) for n in reader.parse(content).notes]


def test_reads_what_music21_writes(tmp_path):
    note, stream = (pytest.importorskip(f"music21.{name}") for name in ("note", "stream"))
    random = np.random.default_rng(0)
    score, written = stream.Score(), set()
    for _ in range(2):
        part, place = stream.Part(), 0.0
        for _ in range(40):
            place += float(random.integers(0, 3)) / 4
            key, length = int(random.integers(21, 109)), float(random.integers(1, 5)) / 4
            part.insert(place, note.Note(key, quarterLength=length))
            written.add((place, place + length, key))
            place += length
        score.insert(0, part)
    score.write("midi", fp=str(tmp_path / "a.mid"))
    content = (tmp_path / "a.mid").read_bytes()
    found = reader.parse(content)
    per = found.ticks_per_quarter
    # music21 shifts nothing, and writes whole ticks.
    assert {(n.start / per, n.end / per, n.key) for n in found.notes} == written
    wanted = np.zeros((int(4 * max(end for _, end, _ in written)), 88))
    for start, end, key in written:
        wanted[int(4 * start) : int(4 * end), key - 21] = 1
    keys, drums, beyond = music.roll(content, "a.mid", 4)
    np.testing.assert_array_equal(keys, wanted)
    assert (drums, beyond) == (0, 0)


def test_finds_the_notes_that_music21_finds_in_files_of_others():
    """Those that it is tested with itself, written by many programs."""
    m21 = pytest.importorskip("music21.midi")
    paths = sorted((Path(m21.__file__).parent / "testPrimitive").glob("*.mid"))
    for path in paths:
        file, wanted = m21.MidiFile(), []
        file.open(str(path))
        file.read()
        file.close()
        for track in file.tracks:
            now, sounding = 0, defaultdict(list)
            for event in track.events:
                key = (event.pitch, (event.channel or 0) - 1)
                if event.isDeltaTime():
                    now += event.time
                elif event.isNoteOn():
                    sounding[key].append(now)
                elif event.isNoteOff() and sounding[key]:
                    wanted.append((sounding[key].pop(0), now, *key))
            wanted += [(start, now, *key) for key, starts in sounding.items() for start in starts]
        assert [tuple(note) for note in reader.parse(path.read_bytes()).notes] == sorted(wanted)
    assert paths


def test_events_of_all_kinds():
    track = b"".join(
        [
            b"\x00\xff\x51\x03\x07\xa1\x20",  # Tempo.
            b"\x00\xf0\x03\x01\x02\xf7",  # A message of a maker.
            b"\x00\xc0\x05",  # An instrument, with one value.
            b"\x10\x90\x3c\x40",  # On at 16,
            b"\x08\x40\x40",  # and another at 24, of the same kind.
            b"\x04\xb0\x40\x7f",  # A pedal.
            b"\x04\x90\x3c\x00",  # Off at 32: loudness 0.
            b"\x81\x00\x80\x40\x00",  # Off at 160; a time of two bytes.
            b"\x00\xe0\x00\x40\x00\xd0\x01\x00\xa0\x3c\x01",
            b"\x00\xff\x2f\x00",
            b"\x00\x90\x3c\x40",  # After the end.
        ]
    )
    other = chunk(b"XYZW", b"what others put between")
    whole = file_of(track)
    content = whole[:14] + other + whole[14:]
    assert notes_of(content) == [(16, 32, 60), (24, 160, 64)]


def test_a_key_struck_twice_ends_first_in_first_out_and_the_last_with_its_track():
    on, off = b"\x10\x90\x3c\x40", b"\x10\x80\x3c\x40"
    assert notes_of(file_of(on + on + off + off)) == [(16, 48, 60), (32, 64, 60)]
    assert notes_of(file_of(on + off + off)) == [(16, 32, 60)]
    assert notes_of(file_of(on + b"\x20\xff\x2f\x00")) == [(16, 48, 60)]
    # Tracks sound together, in the order of their notes.
    assert notes_of(file_of(on + off, off + b"\x00\x90\x3d\x01")) == [(16, 16, 61), (16, 32, 60)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not begin as one"),
        (b"RIFF" + midi([(0, 60, 9)]), "does not begin as one"),
        (midi([(0, 60, 9)], form=2), "format 2; 0 and 1 are read"),
        (midi([(0, 60, 9)], division=0xE728), "not in quarter notes"),
        (midi([(0, 60, 9)], division=0), "not in quarter notes"),
        (midi([(0, 60, 9)])[:-1], "cut short: a track should have"),
        (file_of(b"\x00\x90\x3c"), "ends within an event"),
        (file_of(b"\x00\xff\x51\x7f\x00"), "ends within an event"),
        (file_of(b"\x00\x3c\x40"), "the event 0x0"),
        (file_of(b"\x00\xf4\x40"), "the event 0xf4"),
        (file_of(b"\x00\x90\x3c\x90"), "has the value 144"),
        (file_of(b"\xff\xff\xff\xff\x00"), "more than four bytes"),
        (file_of(b"\xff\xff\xff\x7f\xff\x01\x00" * 9), "longer than any music"),
        (file_of(b"", count=3), "holds 1 of its 3 tracks"),
        (chunk(b"MThd", b"\0\0"), "header is cut short"),
        (b"MThd" + bytes(1 << 24), "more than a MIDI file has"),
    ],
)
def test_what_is_no_whole_file_is_refused(content, words):
    with pytest.raises(ValueError, match=words):
        reader.parse(content)
    with pytest.raises(ValueError, match=r"^here: not a whole MIDI file \(.*\); save it again"):
        music.roll(content, "here", 4)


def test_rolls_are_rounded_and_what_is_no_note_of_a_piano_is_counted():
    # In frames of 120 ticks: 0.4 to 0.6, 1.6 to 3.4, and 0.5 to 0.52, which lasts a frame.
    notes = [(48, 60, 24), (192, 61, 216), (60, 62, 2), (0, 20, 480), (0, 109, 480)]
    keys, drums, beyond = music.roll(midi(notes), "a.mid", 4)
    assert [np.flatnonzero(keys[:, key - 21]).tolist() for key in (60, 61, 62)] == [[0], [2], [1]]
    assert len(keys) == 3
    assert (drums, beyond) == (0, 2)
    with pytest.raises(ValueError, match=r"no notes of a piano among its 1 .*take it away"):
        music.roll(midi([(0, 60, 480)], channel=reader.DRUMS), "a.mid", 4)
    with pytest.raises(ValueError, match="1 frames of 1/1 quarter note; it should have 2 to"):
        music.roll(midi([(0, 60, 480)]), "a.mid", 1)
    # A time from a damaged file takes no memory.
    with pytest.raises(ValueError, match="frames of 1/1000"):
        music.roll(midi([(0, 60, 16000)], division=1), "a.mid", 1000)
