"""Bach's four-part chorales out of the corpus that the package ``music21`` carries.

This is the default data set: it needs no file and no network. It is not JSB Chorales, whose
selection, keys and split are others; its numbers are not to be compared with published ones.

What is taken: every score of the corpus's ``bach`` folder that has exactly the parts Soprano, Alto,
Tenor and Bass. That is 365 of 410 MusicXML scores; the other 45 have instruments besides the voices
or two sopranos, and one is a prelude for piano. The 23 files in other formats are left out too:
they are the same chorales again, or analyses of them. Three chorales equal another one but for the
key (BWV 18.5 in its second version, 62.6 and 398) and would leak between splits; 362 are left.

A frame is a quarter note and holds the notes that sound at its start, as in JSB Chorales. Repeats
are not unfolded: each bar stands once. Grace notes have no length and so no frame.

The split depends on the work's number in Bach's catalogue alone: the first eight bytes of
SHA-256("bwv" + number), as a fraction of 2^64, are below 0.70 for train, below 0.85 for valid. So
movements and versions of one work lie in one split. Different harmonisations of one tune may not,
as in JSB Chorales.
"""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.paths import ROOT
from data.sets.music import COLUMNS, roll, show
from data.source import SPLITS, Count, Example, Folder, Reading, Source

VOICES = ["Soprano", "Alto", "Tenor", "Bass"]

COUNTS = {
    "train": Count(267, 24, 193, 14_587, 56_493),
    "valid": Count(48, 32, 128, 2_522, 9_738),
    "test": Count(47, 32, 112, 2_614, 10_151),
}
"""Counted with music21 9.3 and 10.5, which agree."""


def scores() -> list[Path]:
    """The MusicXML scores by Bach in music21's corpus, sorted by name.

    Raises:
        FileNotFoundError: music21 or its corpus is not installed.
    """
    package = importlib.util.find_spec("music21")
    if package is None:
        raise FileNotFoundError(
            "bach_chorales needs the package music21, which is not installed; pip install music21"
        )
    folder = Path(package.origin).parent / "corpus" / "bach"
    paths = sorted(path for path in folder.glob("*") if path.suffix in (".mxl", ".xml"))
    if not paths:
        raise FileNotFoundError(
            f"bach_chorales: no scores in {folder}; this music21 came without its corpus; "
            "pip install --force-reinstall music21"
        )
    return paths


def split_of(score: str) -> str:
    """The split of a chorale, from its file name, such as ``"bwv18.5-lz"``."""
    work = re.match(r"bwv\d+", score).group()
    fraction = int.from_bytes(hashlib.sha256(work.encode()).digest()[:8], "big") / 2**64
    if fraction < 0.70:
        return "train"
    return "valid" if fraction < 0.85 else "test"


def digest(data_dir: Folder = None) -> str:
    """A hash of music21's version and of every score; ``data_dir`` is not used."""
    del data_dir
    hashed = hashlib.sha256(version("music21").encode())
    for path in scores():
        hashed.update(path.name.encode())
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


def read(data_dir: Folder = None, unfinished: Path | None = None) -> Reading:
    """Parses the corpus, on all processors; the arguments are not used.

    Raises:
        FileNotFoundError: music21 or its corpus is not installed.
    """
    del data_dir, unfinished
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    seen = set()
    for score, frames in sorted(_parse(scores()).items()):
        keys = roll(frames)
        lowest = int(np.flatnonzero(keys.any(0))[0])
        in_any_key = np.roll(keys, -lowest, axis=1).tobytes()
        if in_any_key not in seen:
            seen.add(in_any_key)
            splits[split_of(score)].append((score, {"x": keys}))
    return Reading(f"bach_chorales from music21 {version('music21')}", splits, {}, COUNTS)


def _parse(paths: list[Path]) -> dict[str, list[list[int]]]:
    """The frames of every four-part score, by the score's name.

    Runs this module as a program, once for each processor. A process pool would import the caller's
    main module again in each worker, JAX and all, and its workers outlive a killed parent; these
    stop at the first line that nobody reads. music21's scratch folder and its remarks on the scores
    go where nobody sees them.
    """
    workers = min(os.cpu_count() or 1, len(paths))
    frames = {}
    with (
        tempfile.TemporaryDirectory() as scratch,
        tqdm(total=len(paths), desc="bach_chorales: parsing", unit="score", disable=None) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):

        def run(share: list[Path]) -> None:
            command = [sys.executable, "-m", __name__, *map(str, share)]
            environment = os.environ | {"TMPDIR": scratch}
            with (
                tempfile.TemporaryFile("w+", dir=scratch) as remarks,
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=remarks,
                    text=True,
                ) as child,
            ):
                for line in child.stdout:
                    score, steps = json.loads(line)
                    if steps is not None:
                        frames[score] = steps
                    bar.update()
                if child.wait():
                    remarks.seek(0)
                    last = remarks.read().strip().rpartition("\n")[2]
                    raise OSError(
                        f"bach_chorales: a parser ended with exit code {child.returncode} "
                        f"({last}); is music21 whole? pip install --force-reinstall music21"
                    )

        list(pool.map(run, (paths[start::workers] for start in range(workers))))
    return frames


def _frames(path: Path) -> list[list[int]] | None:
    """The MIDI notes at each quarter note of a score; ``None`` for other than four parts."""
    from music21 import converter

    packed = path.suffix == ".mxl"
    text = converter.ArchiveManager(path).getData() if packed else path.read_text("utf-8")
    # A fifth of the time would go into the few scores with trumpets and drums.
    if text.count("<score-part ") != len(VOICES):
        return None
    score = converter.parseData(text, format="musicxml")
    if [part.partName for part in score.parts] != VOICES:
        return None
    frames: list[list[int]] = [[] for _ in range(int(score.highestTime))]
    for part in score.parts:
        for note in part.flatten().notes:
            first, end = _ceil(note.offset), _ceil(note.offset + note.quarterLength)
            for frame in frames[first:end]:
                frame.extend(pitch.midi for pitch in note.pitches)
    return frames


def _ceil(quarters: float) -> int:
    return -int(-quarters // 1)


SOURCE = Source(
    name="bach_chorales",
    title="362 four-part chorales by Bach, a quarter note a step, split by us",
    licence="the music: public domain; the encodings: by their encoders' leave, as music21's "
    "corpus/license.txt says, some not for commercial use; music21 itself: BSD",
    origin="the corpus of the Python package music21; no file needed",
    columns=COLUMNS,
    digest=digest,
    read=read,
    show=show,
)

SOURCES = [SOURCE]

if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps([Path(name).stem, _frames(Path(name))]), flush=True)
