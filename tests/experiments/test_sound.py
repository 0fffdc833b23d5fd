"""MIDI files, read back event by event with the library that wrote them."""

import numpy as np
import pytest
from music21 import midi

from experiments.tasks.music import figures as sound


def read(path):
    """Every note as (start, end, MIDI note) in ticks, the ticks of a quarter, and the tempo."""
    file = midi.MidiFile()
    file.open(str(path))
    file.read()
    file.close()
    notes, tempo = [], []
    for track in file.tracks:
        now, sounding = 0, {}
        for event in track.events:
            if event.isDeltaTime():
                now += event.time
            elif event.isNoteOn():
                assert event.pitch not in sounding, "struck while it sounds"
                sounding[event.pitch] = now
            elif event.isNoteOff():
                notes.append((sounding.pop(event.pitch), now, event.pitch))
            elif event.type == midi.MetaEvents.SET_TEMPO:
                tempo.append(int.from_bytes(event.data, "big"))
        assert not sounding, "never released"
    return sorted(notes), file.ticksPerQuarterNote, tempo


@pytest.mark.parametrize("frames_per_quarter", [1, 3, 4])
def test_every_frame_comes_back(tmp_path, frames_per_quarter):
    roll = np.random.default_rng(frames_per_quarter).random((40, 88)) < 0.1
    roll[-1, 50] = True
    sound.write_midi(roll.astype(np.uint8), tmp_path / "a.mid", 90, frames_per_quarter)
    notes, quarter, tempo = read(tmp_path / "a.mid")
    assert quarter % frames_per_quarter == 0
    frame = quarter // frames_per_quarter
    again = np.zeros_like(roll)
    for start, end, note in notes:
        assert start % frame == end % frame == 0
        assert not again[start // frame : end // frame, note - 21].any()
        again[start // frame : end // frame, note - 21] = True
    np.testing.assert_array_equal(again, roll)
    # Microseconds a quarter.
    assert tempo == [round(60e6 / 90)]


def test_held_keys_are_one_note(tmp_path):
    roll = np.zeros((30, 88))
    roll[2:27, 39] = 1  # C4, over six bars
    roll[4, 0] = roll[6, 0] = 1  # A0, struck twice
    roll[0:2, 87] = 1  # C8
    sound.write_midi(roll, tmp_path / "a.mid", quarter_bpm=120)
    notes, q, tempo = read(tmp_path / "a.mid")
    assert notes == [(0, 2 * q, 108), (2 * q, 27 * q, 60), (4 * q, 5 * q, 21), (6 * q, 7 * q, 21)]
    assert tempo == [500_000]


def test_silence_is_a_file_too(tmp_path):
    sound.write_midi(np.zeros((4, 88)), tmp_path / "a.mid")
    notes, _, _ = read(tmp_path / "a.mid")
    assert notes == []


@pytest.mark.parametrize(
    ("roll", "options", "message"),
    [
        (np.zeros((4, 87)), {}, r"a roll should be \[T, 88\], but is \[4, 87\]"),
        (np.full((4, 88), 0.5), {}, "holds 0 and 1, but this one holds 0.5"),
        (np.zeros((4, 88)), {"quarter_bpm": 0}, "quarter_bpm must be positive, not 0"),
        (np.zeros((4, 88)), {"frames_per_quarter": 0}, "must be at least 1, not 0"),
    ],
)
def test_refuses(tmp_path, roll, options, message):
    with pytest.raises(ValueError, match=message):
        sound.write_midi(roll, tmp_path / "a.mid", **options)
    assert not list(tmp_path.iterdir())
