"""Tiny originals for the tests of ``data/``: real ``.mat`` files, written by SciPy."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.io

from data import paths
from data.sets import music
from data.source import SPLITS, Count, Source

Rolls = dict[str, list[np.ndarray]]


def rolls(seed: int = 0, sizes: tuple[int, int, int] = (5, 2, 3)) -> Rolls:
    """Random rolls, of 2 to 12 steps, for the three splits."""
    random = np.random.default_rng(seed)
    return {
        split: [
            (random.random((random.integers(2, 13), 88)) < 0.05).astype(np.uint8)
            for _ in range(size)
        ]
        for split, size in zip(SPLITS, sizes, strict=True)
    }


def figures(sequences: Sequence[np.ndarray]) -> Count:
    """The figures of a split, counted by themselves."""
    lengths = [len(sequence) for sequence in sequences]
    total = sum(int(sequence.sum()) for sequence in sequences)
    return Count(len(lengths), min(lengths), max(lengths), sum(lengths), total)


def write_mat(path: Path, splits: Rolls) -> Path:
    """Writes rolls, or whatever else stands in their place, in the published form."""
    contents = {}
    for split, sequences in splits.items():
        cells = np.empty((1, len(sequences)), object)
        cells[0, :] = [None] * len(sequences)
        for number, sequence in enumerate(sequences):
            cells[0, number] = sequence
        contents[f"{split}data"] = cells
    scipy.io.savemat(path, contents)
    return path


def tiny_source(splits: Rolls) -> Source:
    """A data set whose original is ``tiny.mat`` and whose published figures are these rolls'."""
    counts = {split: figures(sequences) for split, sequences in splits.items()}
    files = ("tiny.mat", "tiny.pickle")
    return music.rolls_source("tiny", files, "a tiny set", "none", "a test", counts)


def run(*command: str | Path, **variables: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs Python from the root of the repository."""
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=paths.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,  # seconds of work; but a busy machine can take minutes
    )


def same_files(folder: Path, other: Path) -> set[str]:
    """The names of all files in a folder, which are byte for byte those of another."""
    names = {path.name for path in folder.iterdir()}
    for name in names:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    return names
