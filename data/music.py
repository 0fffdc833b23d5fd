"""Polyphonic music as piano rolls: the four benchmark sets of Boulanger-Lewandowski et al. (2012).

A roll is uint8 ``[T, 88]``: row t is one time step, column j is MIDI note 21 + j (A0 to C8), and
the value says whether the note sounds.
"""

import hashlib
import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data import locate
from data.source import SPLITS, Count, Source, Splits, check_counts

KEYS = 88
LOWEST = 21
HIGHEST = LOWEST + KEYS - 1

_PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def roll(frames: Sequence[Iterable[int]]) -> np.ndarray:
    """Turns the MIDI notes of each step into a roll.

    Args:
        frames: T steps, each the MIDI notes that sound in it.

    Returns:
        uint8 ``[T, 88]``.

    Raises:
        ValueError: a note lies outside 21..108.
    """
    keys = np.zeros((len(frames), KEYS), np.uint8)
    for step, notes in enumerate(frames):
        for note in notes:
            if not LOWEST <= note <= HIGHEST:
                raise ValueError(
                    f"step {step} has MIDI note {note}; the piano's notes are {LOWEST}..{HIGHEST}"
                )
            keys[step, note - LOWEST] = 1
    return keys


def in_words(keys: np.ndarray) -> list[str]:
    """Writes each step of a roll ``[T, 88]`` as note names, C4 being MIDI note 60."""
    return [
        " ".join(f"{_PITCHES[note % 12]}{note // 12 - 1}" for note in np.flatnonzero(step) + LOWEST)
        or "-"
        for step in keys
    ]


def read_mat(path: Path) -> dict[str, list[np.ndarray]]:
    """Reads the rolls of the three splits out of a MATLAB 5 file.

    The file holds ``traindata``, ``validdata`` and ``testdata``, each a cell array of 0/1 matrices
    ``[T, 88]``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is cut short, of another kind, or does not hold piano rolls.
    """
    # Here and not above: --help must not wait for scipy.
    import scipy.io

    content = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            variables = scipy.io.loadmat(io.BytesIO(content))
    except Exception as error:  # What scipy raises on foreign bytes is not to be listed.
        raise ValueError(
            f"{path}: not a whole MATLAB 5 file ({len(content)} bytes; {error}); fetch it again"
        ) from error
    splits = {}
    for split in SPLITS:
        key = f"{split}data"
        if key not in variables:
            found = ", ".join(name for name in variables if not name.startswith("__")) or "nothing"
            raise ValueError(f"{path}: no variable {key!r} in it (found: {found}); fetch it again")
        cells = variables[key]
        if cells.dtype != object:
            raise ValueError(
                f"{path}: {key} should be a cell array of matrices, but is {cells.dtype} "
                f"{cells.shape}"
            )
        splits[split] = [
            _checked(cell, f"{path}: {split} sequence {number}")
            for number, cell in enumerate(cells.ravel())
        ]
    return splits


def mat_source(
    name: str, file: str, title: str, licence: str, origin: str, counts: dict[str, Count]
) -> Source:
    """A data set that is one ``.mat`` file in the data folder or in its ``poly_music/``."""

    def find(data_dir: str | Path | None) -> Path:
        return locate.original(name, file, ("poly_music",), data_dir)

    def digest(data_dir: str | Path | None) -> str:
        return hashlib.sha256(find(data_dir).read_bytes()).hexdigest()

    def read(data_dir: str | Path | None) -> Splits:
        path = find(data_dir)
        splits = {
            split: [(f"{split}/{number:04d}", keys) for number, keys in enumerate(rolls)]
            for split, rolls in read_mat(path).items()
        }
        check_counts(str(path), splits, counts)
        return splits

    return Source(name, title, licence, origin, digest, read, counts)


def _checked(matrix: object, where: str) -> np.ndarray:
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "buif":
        raise ValueError(f"{where} is no matrix of numbers; it should be [T, {KEYS}] of 0 and 1")
    if len(matrix) < 2:
        raise ValueError(
            f"{where} has {len(matrix)} steps: too few to predict one from another; it needs 2"
        )
    if matrix.shape[1] != KEYS:
        raise ValueError(
            f"{where} has {matrix.shape[1]} columns; it should have {KEYS}, one for each MIDI "
            f"note {LOWEST}..{HIGHEST}"
        )
    if not np.isin(matrix, (0, 1)).all():
        wrong = matrix[~np.isin(matrix, (0, 1))][0]
        raise ValueError(f"{where} holds the value {wrong}; a key is 1 (on) or 0 (off)")
    return matrix.astype(np.uint8)


_LICENCE = "none stated by the publisher; treat as research use"
_ORIGIN = "Boulanger-Lewandowski, Bengio and Vincent, ICML 2012: {}"

SOURCES = [
    mat_source(
        "jsb",
        "JSB_Chorales.mat",
        "382 chorales by Bach, a quarter note a step",
        _LICENCE,
        _ORIGIN.format("JSB_Chorales.mat"),
        {
            "train": Count(229, 25, 129, 13_807, 53_824),
            "valid": Count(76, 32, 144, 4_602, 17_811),
            "test": Count(77, 32, 160, 4_725, 18_367),
        },
    ),
    mat_source(
        "nottingham",
        "Nottingham.mat",
        "1,037 British and American folk tunes with chords",
        _LICENCE,
        _ORIGIN.format("Nottingham.mat"),
        {
            "train": Count(694, 40, 1788, 176_561, 699_403),
            "valid": Count(173, 96, 1473, 45_513, 180_192),
            "test": Count(170, 63, 1793, 44_463, 177_421),
        },
    ),
    mat_source(
        "musedata",
        "MuseData.mat",
        "783 pieces of orchestral and piano music from MuseData",
        _LICENCE,
        _ORIGIN.format("MuseData.mat"),
        {
            "train": Count(524, 9, 3457, 245_202, 856_543),
            "valid": Count(135, 63, 3723, 82_755, 287_893),
            "test": Count(124, 45, 4273, 64_339, 211_857),
        },
    ),
    mat_source(
        "piano_midi",
        "Piano_midi.mat",
        "124 classical piano pieces from Piano-midi.de",
        _LICENCE,
        _ORIGIN.format("Piano_midi.mat"),
        {
            "train": Count(87, 111, 3857, 75_911, 231_089),
            "valid": Count(12, 209, 1637, 8_540, 27_623),
            "test": Count(25, 65, 2645, 19_036, 56_067),
        },
    ),
]
"""The published sets, with the figures of the published files."""
