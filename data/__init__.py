"""The data sets of the experiments: ``load(name, split)`` gives NumPy arrays.

The first call reads the original, checks it and writes a prepared copy into the cache; later calls
read that copy. See README.md for what there is and where it comes from.
"""

import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import bach_chorales, locate, music, prepared
from data.source import SPLITS, Source

__all__ = ["NAMES", "SOURCES", "SPLITS", "Sequences", "load", "prepare", "source_of"]

SOURCES: dict[str, Source] = {
    source.name: source for source in (bach_chorales.SOURCE, *music.SOURCES)
}
"""Every data set by its name."""

NAMES = tuple(SOURCES)
"""What ``load`` takes; the first needs no file."""


class Sequences(NamedTuple):
    """One split of a data set.

    Attributes:
        name: the data set's name.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        ids: N names, one for each sequence.
        x: N sequences in the publisher's order; music: uint8 ``[T, 88]`` of 0 and 1, T >= 2.
    """

    name: str
    split: str
    ids: list[str]
    x: list[np.ndarray]


def load(name: str, split: str, data_dir: str | Path | None = None) -> Sequences:
    """Loads one split, preparing the data set first where that has not been done.

    Args:
        name: one of ``NAMES``.
        split: one of ``SPLITS``.
        data_dir: the folder of the originals; else ``SURNN_DATA``, else ``../shared/data``.

    Raises:
        ValueError: unknown name or split; an original that is damaged or not the published one;
            prepared data that were changed (``prepared.DamagedData``).
        OSError: a folder or file is missing or cannot be read or written.
    """
    source = source_of(name)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; one of: {', '.join(SPLITS)}")
    return load_from(source, split, data_dir)


def prepare(name: str, data_dir: str | Path | None = None) -> tuple[Path, bool]:
    """Prepares a data set, or mends a damaged one; does nothing where it is whole.

    Returns:
        The prepared folder, and whether anything had to be written.

    Raises:
        ValueError: as ``load``, save for damaged prepared data.
        OSError: as ``load``.
    """
    return prepare_from(source_of(name), data_dir)


def source_of(name: str) -> Source:
    """The facts of a data set.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}; one of: {', '.join(NAMES)}")
    return SOURCES[name]


def load_from(source: Source, split: str, data_dir: str | Path | None) -> Sequences:
    """``load`` for a source that need not be in ``SOURCES``."""
    # TFDS is slow to import, and --help must not wait for it.
    from data import builders

    folder = _folder(source, data_dir)
    if folder.exists():
        prepared.verify(folder, _command(source, data_dir))
    else:
        prepare_from(source, data_dir)
    ids, rolls = builders.read(folder, split)
    return Sequences(source.name, split, ids, rolls)


def prepare_from(source: Source, data_dir: str | Path | None) -> tuple[Path, bool]:
    """``prepare`` for a source that need not be in ``SOURCES``."""
    folder = _folder(source, data_dir)

    def fill(empty: Path) -> None:
        from data import builders

        builders.write(source, source.read(data_dir), empty)

    return folder, prepared.write(folder, fill)


def _folder(source: Source, data_dir: str | Path | None) -> Path:
    if data_dir is not None:
        # Also for a set that needs no file: a mistyped folder must not go unseen.
        locate.data_folder(data_dir)
    return prepared.folder(source.name, source.digest(data_dir))


def _command(source: Source, data_dir: str | Path | None) -> str:
    words = ["python", "-m", "data.prepare", source.name]
    return shlex.join(words if data_dir is None else [*words, f"--data_dir={data_dir}"])
