"""Film reviews as bytes: the Text task of the Long Range Arena (LRA; Tay et al., 2021).

A review of the Large Movie Review Dataset (Maas et al., 2011) is its bytes, cut after 4,096; token
b + 1 is byte b, and 0 is left for padding. The label is 1 if the reviewer liked the film.

LRA has no validation set: it trains on all 25,000 training reviews and reports, and picks its best
step, on the test set. Here ``valid`` is a tenth of the training reviews, 1,250 of each label, so
that nothing is picked on ``test``; ``train`` and ``valid`` together are LRA's training set. Those
with the highest numbers are held back: reviews of one film have neighbouring numbers, so that
hardly any film lies in both, just as the training and the test set share none.
"""

import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data import files, paths
from data.source import SPLITS, Column, Count, Download, Example, Folder, Reading, Source

LONGEST = 4096
"""Bytes of a review that are kept."""

TOKENS = 257
"""Padding and 256 bytes."""

_NAME = re.compile(r"(?:^|/)(train|test)/(neg|pos)/(\d+)_\d+\.txt$")
_LABELS = ("neg", "pos")


def byte_tokens(text: bytes, longest: int) -> np.ndarray:
    """The first bytes of a text as tokens: uint16 ``[T]``, T <= `longest`, byte + 1."""
    return np.frombuffer(text[:longest], np.uint8).astype(np.uint16) + np.uint16(1)


def text_of(tokens: np.ndarray, longest: int = 600) -> list[str]:
    """The beginning of a text out of ``byte_tokens``, in lines of a terminal's width."""
    text = (tokens[:longest] - 1).astype(np.uint8).tobytes().decode("utf-8", "replace")
    return textwrap.wrap(text + (" …" if len(tokens) > longest else ""), 88)


def show(example: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """A review's beginning and its label."""
    del facts
    verdict = ("did not like it", "liked it")[int(example["y"])]
    return [*text_of(example["x"]), f"label {example['y']}: the reviewer {verdict}"]


def reviews_source(each: int, held: int, counts: dict[str, Count] | None) -> Source:
    """``imdb_bytes``, or a smaller set of the same form.

    Args:
        each: the reviews of each label, in the training part and in the test part; they are
            numbered from 0.
        held: the number of training reviews of each label that become ``valid``.
        counts: the published figures.
    """

    def digest(data_dir: Folder) -> str:
        path = _find(data_dir)
        # Not all of the folder: it may hold 50,000 reviews without a label, too.
        parts = [path / part / label for part in ("train", "test") for label in _LABELS]
        return paths.stamp(*(parts if path.is_dir() else [path]))

    def read(data_dir: Folder, unfinished: Path) -> Reading:
        del unfinished
        path = _find(data_dir)
        splits = {split: _examples(found) for split, found in _read(path, each, held).items()}
        return Reading(str(path), splits, {"tokens": TOKENS, "classes": 2}, counts)

    return Source(
        name="imdb_bytes",
        title="LRA Text: 50,000 film reviews as bytes, liked or not",
        licence="none stated by the publisher, who asks to cite Maas et al., ACL 2011; treat as "
        "research use",
        origin="ai.stanford.edu/~amaas/data/sentiment: the folder aclImdb, or an archive of it",
        columns={
            "x": Column("uint16", (None,), "bytes of the text, plus 1"),
            "y": Column("uint8", (), "1 where the reviewer liked the film"),
        },
        digest=digest,
        read=read,
        show=show,
        downloads=(
            Download(
                "aclImdb_v1.tar.gz",
                "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
                84_125_825,
                "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
            ),
        ),
    )


_Found = tuple[str, str, int, bytes]
"""``"train"`` or ``"test"``, ``"neg"`` or ``"pos"``, the number, the text."""


def _find(data_dir: Folder) -> Path:
    stems = ("aclImdb", "aclImdb_v1", "aclImdb_labeled")
    places = [
        place
        for folder in ("", "imdb/")
        for stem in stems
        for place in files.archived(f"{folder}{stem}")
    ]
    path = paths.original("imdb_bytes", [*places, "train/pos"], data_dir)
    # That was the folder of the reviews itself.
    return path.parent.parent if path.name == "pos" else path


def _read(path: Path, each: int, held: int) -> dict[str, list[_Found]]:
    numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
    splits: dict[str, list[_Found]] = {split: [] for split in SPLITS}
    for inside, content in files.members(path, lambda inside: bool(_NAME.search(inside))):
        part, label, digits = _NAME.search(inside).groups()
        number = int(digits)
        if not files.decoded(content, f"{path}: {inside}").strip():
            raise ValueError(f"{path}: {inside}: empty; it should hold a review")
        if number in numbers[part, label]:
            raise ValueError(f"{path}: {inside}: number {number} is there twice; remove one")
        numbers[part, label].add(number)
        split = "valid" if part == "train" and number >= each - held else part
        if number < each:  # Others are an error in the end, and need not wait in memory.
            splits[split].append((part, label, number, content[:LONGEST]))
    for part in ("train", "test"):
        for label in _LABELS:
            _check_numbers(numbers[part, label], each, f"{path}: {part}/{label}")
    return splits


def _check_numbers(found: set[int], each: int, where: str) -> None:
    wanted = set(range(each))
    if found != wanted:
        first = min(found ^ wanted)
        raise ValueError(
            f"{where} has {len(found)} reviews instead of those numbered 0..{each - 1}; "
            f"{'missing' if first in wanted else 'not wanted'} is number {first}; fetch it again"
        )


def _examples(found: Iterable[_Found]) -> Iterator[Example]:
    for part, label, number, content in sorted(found):
        example = {"x": byte_tokens(content, LONGEST), "y": _LABELS.index(label)}
        yield f"{part}/{label}/{number}", example


SOURCES = [
    reviews_source(
        12_500,
        1_250,
        {
            "train": Count(22_500, 52, LONGEST, 29_166_094, 2_683_647_736),
            "valid": Count(2_500, 64, LONGEST, 3_300_095, 303_769_711),
            "test": Count(25_000, 32, LONGEST, 31_755_440, 2_921_315_308),
        },
    )
]
