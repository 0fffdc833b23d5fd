"""A folder of MIDI files as piano rolls."""

from pathlib import Path
from typing import Any

import numpy as np

from data import midi
from data.sets import music
from data.sets.own import files
from data.source import SPLITS, Source

ENDINGS = (".mid", ".midi")

_MOST_FRAMES = 1 << 18


def roll(content: bytes, where: str, frames_per_quarter: int) -> tuple[np.ndarray, int, int]:
    """A MIDI file as a roll.

    A note sounds from the frame nearest to its start to the one nearest to its end, and in one
    frame at least. Drums and notes beyond the piano are left out.

    Args:
        content: of the file.
        where: its name, for errors.
        frames_per_quarter: frames of a quarter note.

    Returns:
        uint8 ``[T, 88]``, and how many drums and notes beyond the piano were left out.

    Raises:
        ValueError: it is no whole MIDI file, or has no notes for a piano.
    """
    try:
        score = midi.parse(content)
    except ValueError as error:
        raise ValueError(
            f"{where}: not a whole MIDI file ({error}); save it again, or take it away"
        ) from error
    tuned = [note for note in score.notes if note.channel != midi.DRUMS]
    notes = [note for note in tuned if music.LOWEST <= note.key <= music.HIGHEST]
    if not notes:
        raise ValueError(
            f"{where}: no notes of a piano among its {len(score.notes)} (drums do not count); "
            "take it away"
        )

    def frame(ticks: int) -> int:
        return (2 * ticks * frames_per_quarter + score.ticks_per_quarter) // (
            2 * score.ticks_per_quarter
        )

    places = [(frame(note.start), frame(note.end), note.key - music.LOWEST) for note in notes]
    steps = max(max(end, start + 1) for start, end, _ in places)
    if not 2 <= steps <= _MOST_FRAMES:
        raise ValueError(
            f"{where}: {steps} frames of 1/{frames_per_quarter} quarter note; it should have 2 to "
            f"{_MOST_FRAMES}; take it away, or choose another frames_per_quarter"
        )
    keys = np.zeros((steps, music.KEYS), np.uint8)
    for start, end, key in places:
        keys[start : max(end, start + 1), key] = 1
    return keys, len(score.notes) - len(tuned), len(tuned) - len(notes)


def find(path: Path) -> files.Files:
    """The MIDI files of a folder."""
    return files.in_folder(path, ENDINGS)


def source(path: Path, *, split_seed: int, frames_per_quarter: int) -> Source:
    """A folder of MIDI files; a piece an example.

    Raises:
        OSError: no such folder.
        ValueError: too few files in it, or a number out of range.
    """
    if frames_per_quarter < 1:
        raise ValueError(f"frames_per_quarter must be at least 1, got {frames_per_quarter}")
    found = find(path)

    def read() -> tuple[dict[str, Any], dict[str, Any]]:
        split, facts = files.by_file(found, split_seed)
        facts = {"frames_per_quarter": frames_per_quarter, **facts}
        counts = np.zeros(2, int)

        def piece(content: bytes, where: str) -> dict[str, np.ndarray]:
            keys, *left = roll(content, where, frames_per_quarter)
            counts[:] += left
            for count, what in zip(counts.tolist(), ("drums", "notes beyond"), strict=True):
                if count:
                    facts[what] = f"{count} left out"
            return {"x": keys}

        return {part: files.examples(found, split[part], piece) for part in SPLITS}, facts

    return files.make(
        found,
        f"{len(found.digests)} MIDI files of your own, {frames_per_quarter} frames a quarter note",
        music.COLUMNS,
        read,
        music.show,
        (split_seed, frames_per_quarter),
    )
