"""Piano rolls as MIDI files, to listen to."""

import os

import numpy as np

from data.sets.music import KEYS, LOWEST


def write_midi(
    roll: np.ndarray,
    path: str | os.PathLike,
    quarter_bpm: float = 90,
    frames_per_quarter: int = 1,
) -> None:
    """Writes a roll as one piano part.

    A roll does not say whether a key was struck again or held: a key that sounds in frames next
    to one another becomes one long note.

    Args:
        roll: ``[T, 88]`` of 0 and 1; column j is MIDI note 21 + j.
        path: the file, such as ``continuation.mid``.
        quarter_bpm: quarter notes a minute.
        frames_per_quarter: frames in a quarter note.

    Raises:
        ValueError: another shape, another value, or a speed that is not positive.
    """
    roll = np.asarray(roll)
    if roll.ndim != 2 or roll.shape[1] != KEYS:
        raise ValueError(f"a roll should be [T, {KEYS}], but is {list(roll.shape)}")
    if not np.isin(roll, (0, 1)).all():
        wrong = roll[~np.isin(roll, (0, 1))][0]
        raise ValueError(f"a roll holds 0 and 1, but this one holds {wrong}")
    if not quarter_bpm > 0:
        raise ValueError(f"quarter_bpm must be positive, not {quarter_bpm}")
    if frames_per_quarter < 1:
        raise ValueError(f"frames_per_quarter must be at least 1, not {frames_per_quarter}")
    # music21 takes a second to import.
    from music21 import instrument, note, stream, tempo

    part = stream.Part([instrument.Piano(), tempo.MetronomeMark(number=quarter_bpm)])
    silence = np.zeros((1, KEYS), np.int8)
    edges = np.diff(roll.astype(np.int8), axis=0, prepend=silence, append=silence)
    for key in range(KEYS):
        for start, end in zip(*(np.flatnonzero(edges[:, key] == e) for e in (1, -1)), strict=True):
            length = (end - start) / frames_per_quarter
            part.insert(start / frames_per_quarter, note.Note(LOWEST + key, quarterLength=length))
    part.write("midi", fp=os.fspath(path))
