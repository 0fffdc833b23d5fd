"""MIDI files, read back event by event with the library that wrote them."""

import math

import jax
import numpy as np
import pytest
from original_case import load_real
from tiers import full

import data
from data.sets.music import frames_per_quarter
from experiments.tasks.music import figures as sound
from surnn_jax.layers import FramePredictor


def read(path):
    """Every note as (start, end, MIDI note) in ticks, the ticks of a quarter, and the tempo."""
    from music21 import midi  # half a second, of every worker that collects

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


@pytest.mark.parametrize(
    ("name", "facts", "frames"),
    [
        full("nottingham", {}, 2),
        full("jsb_16th", {}, 4),
        ("my own", {"frames_per_quarter": 6}, 6),
    ],
)
def test_a_run_plays_pieces_at_their_own_speed(tmp_path, name, facts, frames):
    """What a finished run leaves: the original lasts as many quarters as the piece has."""
    piece = np.zeros((24, 88), np.uint8)
    piece[:12, 39] = piece[12:, 41] = 1
    rolls = data.Ragged(piece, np.array([0, 24]))
    test = data.Split(name, "test", ["a piece"], {"x": rolls}, facts)
    model = FramePredictor("tanh", 2, 88)
    params = model.init(jax.random.key(0), np.zeros((1, 2, 88)))["params"]
    sound.draw(model, params, test, tmp_path, title="a model", seed=0)
    notes, quarter, _ = read(tmp_path / "original.mid")
    half = 12 * quarter // frames
    assert notes == [(0, half, 60), (half, 2 * half, 62)]
    _, again, tempo = read(tmp_path / "continuation.mid")
    assert (again, tempo) == (quarter, [600_000])


def test_frames_of_the_published_sets():
    frames = {
        name: frames_per_quarter(data.Split(name, "test", [], {}, {}))
        for name in ("jsb", "bach_chorales", "nottingham", "musedata", "piano_midi")
    }
    chorales, others = {"jsb": 1, "bach_chorales": 1}, ("nottingham", "musedata", "piano_midi")
    assert frames == chorales | dict.fromkeys(others, 2)


def test_frames_of_nottingham_are_eighths(tmp_path):
    """Most tunes have 32 bars: of eight eighths in reels, of six in jigs."""
    splits = load_real("nottingham", tmp_path)
    lengths = np.concatenate([split["x"].lengths for split in splits.values()])
    values, counts = np.unique(lengths // 2 * 2, return_counts=True)
    assert set(values[np.argsort(counts)[-2:]]) == {32 * 8, 32 * 6}
    assert frames_per_quarter(splits["test"]) == 2


@pytest.mark.full  # Parsing the score takes ten seconds.
def test_frames_of_musedata_are_eighths(tmp_path):
    """A quartet of Mozart that music21 carries as a score, and MuseData as a roll."""
    splits = load_real("musedata", tmp_path)
    from music21 import corpus

    score = corpus.parse("mozart/k155/movement1")
    piece = splits["valid"]["x"][117]
    eighths = np.zeros((64, 12), bool)
    for note in score.flatten().notes:
        first, last = (math.ceil(2 * t) for t in (note.offset, note.offset + note.quarterLength))
        for pitch in note.pitches:
            eighths[first:last, (pitch.midi - 2) % 12] = True
    # The rolls are in C; the score is in D.
    tones = (np.arange(88) + 21) % 12
    heard = np.stack([piece[:64, tones == tone].any(1) for tone in range(12)], 1)
    end = max(note.offset + note.quarterLength for note in score.flatten().notes)
    assert abs(len(piece) - 2 * end) <= 1
    assert (heard & eighths).sum() > 0.5 * (heard | eighths).sum()
