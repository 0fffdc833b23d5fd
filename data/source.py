"""What every data set says of itself: who made it, how its original is read, what must come out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "valid", "test")

Splits = dict[str, Iterable[tuple[str, np.ndarray]]]
"""For each of ``SPLITS`` its examples in order: an id, and the sequence ``[T, ...]``."""


class Count(NamedTuple):
    """The figures of one split that a right original must give."""

    sequences: int
    shortest: int
    longest: int
    steps: int
    ones: int


@dataclass(frozen=True)
class Source:
    """A data set: facts for the reader, and two functions over its original.

    Attributes:
        name: what ``load`` and the command line call it.
        title: one line on what it is.
        licence: as its publisher states it.
        origin: the original, and who published it.
        digest: from ``data_dir``, a hash of all that the prepared data depend on.
        read: from ``data_dir``, the checked examples of every split.
        counts: what ``read`` was checked against.
    """

    name: str
    title: str
    licence: str
    origin: str
    digest: Callable[[str | Path | None], str]
    read: Callable[[str | Path | None], Splits]
    counts: dict[str, Count]


def count(sequences: list[np.ndarray]) -> Count:
    """Counts the binary sequences ``[T, D]`` of one split."""
    lengths = [len(sequence) for sequence in sequences]
    return Count(
        sequences=len(lengths),
        shortest=min(lengths, default=0),
        longest=max(lengths, default=0),
        steps=sum(lengths),
        ones=sum(int(sequence.sum(dtype=np.int64)) for sequence in sequences),
    )


def check_counts(where: str, splits: Splits, expected: dict[str, Count]) -> None:
    """Compares every split with its published figures.

    Raises:
        ValueError: some split differs; the message names ``where``, the expected and the found.
    """
    for split in SPLITS:
        found = count([sequence for _, sequence in splits[split]])
        if found != expected[split]:
            raise ValueError(
                f"{where}: not the published data: {split} should have "
                f"{_in_words(expected[split])}, but has {_in_words(found)}"
            )


def _in_words(figures: Count) -> str:
    return (
        f"{figures.sequences} sequences of {figures.shortest}..{figures.longest} steps, "
        f"{figures.steps} steps and {figures.ones} notes in all"
    )
