"""JSB Chorales at a sixteenth note a step, four times as long as ``jsb``.

Other transcriptions of the same 382 chorales, with the same split; published figures for JSB are
on quarter notes, and are not to be compared with these.
"""

import json
from pathlib import Path

import numpy as np

from data import files, paths
from data.sets.music import COLUMNS, rolls_of, show
from data.source import SPLITS, Count, Download, Folder, Reading, Source

FILE = "jsb-chorales-16th.json"
COUNTS = {
    "train": Count(229, 100, 516, 55_228, 216_088),
    "valid": Count(76, 128, 576, 18_408, 71_543),
    "test": Count(77, 128, 640, 18_900, 73_836),
}
_COMMIT = "9a7f733ddb4ed91f48da64ac7f0f621c34aadd4d"


def read_rolls(path: Path) -> dict[str, list[np.ndarray]]:
    """Reads the rolls of the three splits.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, of another kind, or does not hold piano rolls.
    """
    text = files.text(path)
    try:
        lists = json.loads(text)
    except (ValueError, RecursionError) as error:
        cure = files.cure(text.encode())
        raise ValueError(f"{path}: not whole JSON ({error}); {cure}") from error
    return rolls_of(lists, str(path))


def chorales_source(counts: dict[str, Count]) -> Source:
    """The data set, whose original must have these figures."""

    def find(data_dir: Folder) -> Path:
        folders = ("", "jsb_chorales_midi/")
        places = [folder + file for folder in folders for file in files.either(FILE)]
        return paths.original("jsb_16th", places, data_dir)

    def digest(data_dir: Folder) -> str:
        return paths.stamp(find(data_dir))

    def read(data_dir: Folder, unfinished: Path) -> Reading:
        del unfinished
        path = find(data_dir)
        splits = {
            split: [(f"{split}/{number:04d}", {"x": keys}) for number, keys in enumerate(rolls)]
            for split, rolls in read_rolls(path).items()
        }
        return Reading(str(path), {split: splits[split] for split in SPLITS}, {}, counts)

    url = f"https://raw.githubusercontent.com/czhuang/JSB-Chorales-dataset/{_COMMIT}/{FILE}"
    return Source(
        name="jsb_16th",
        title="382 chorales by Bach, a sixteenth note a step",
        licence="none stated by the publisher; treat as research use",
        origin=f"github.com/czhuang/JSB-Chorales-dataset, {FILE}; the split is that of "
        "Boulanger-Lewandowski et al., 2012",
        columns=COLUMNS,
        digest=digest,
        read=read,
        show=show,
        downloads=(
            Download(
                FILE,
                url,
                1_741_172,
                "8730aca7b64e7d29493733d1cf19fad4a5b351d8f1845e57dac27728104fd39f",
            ),
        ),
    )


SOURCES = [chorales_source(COUNTS)]
