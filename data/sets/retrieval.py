"""Pairs of documents that belong together or do not: the Retrieval task of the Long Range Arena.

A document is its bytes, cut after 4,000; token b + 1 is byte b, and 0 is left for padding. The
label is 1 where the two belong together.

``aan``: LRA's own (Tay et al., 2021), papers of the ACL Anthology Network, of which one cites the
other. Its texts are taken as they stand in the published files.

``wikipairs``: a stand-in of the same form, made from WikiText-2, for whoever has no AAN; what a
model reaches on it is no LRA result. Each split of WikiText-2 is cut into its articles, and those
whose text has less than 8,000 bytes are dropped. From an article, two stretches of 4,000 bytes that
do not overlap are drawn; a pair is the two of one article, or one each of two articles, as many of
one kind as of the other. The same pairs come out every time.
"""

import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data import files, paths
from data.sets import wikitext
from data.sets.reviews import TOKENS, byte_tokens, text_of
from data.source import SPLITS, Column, Count, Example, Folder, Reading, Source

LONGEST = 4000
"""Bytes of a document that are kept."""

PAIRS = {"train": 10_000, "valid": 1_000, "test": 1_000}
"""How many ``wikipairs`` has."""

_WIKITEXT2 = next(source for source in wikitext.SOURCES if source.name == "wikitext2")
_COLUMNS = {
    "x": Column("uint16", (None,), "bytes of the first document, plus 1"),
    "x2": Column("uint16", (None,), "bytes of the second document, plus 1"),
    "y": Column("uint8", (), "1 where they belong together"),
}
_FACTS = {"tokens": TOKENS, "classes": 2}
_LABELS = {b"0.0": 0, b"1.0": 1, b"0": 0, b"1": 1}
_TITLE = re.compile(rb" = (?!= ).*(?<! =) = \n")


def show(example: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """The beginnings of both documents and the label."""
    del facts
    kinds = ("they do not belong together", "they belong together")
    return [
        *text_of(example["x"], 300),
        "--",
        *text_of(example["x2"], 300),
        f"label {example['y']}: {kinds[int(example['y'])]}",
    ]


# AAN


def aan_source(counts: dict[str, Count] | None) -> Source:
    """``aan``, or a smaller set of the same form, which must have these figures."""

    def digest(data_dir: Folder) -> str:
        return paths.stamp(*_find(data_dir).values())

    def read(data_dir: Folder, unfinished: Path) -> Reading:
        del unfinished
        texts = _find(data_dir)
        splits = {split: _pairs(path, split) for split, path in texts.items()}
        return Reading(str(texts["train"].parent), splits, dict(_FACTS), counts)

    return Source(
        name="aan",
        title="LRA Retrieval: pairs of papers, of which one cites the other or not, as bytes",
        licence="none stated; the papers are their authors'; treat as research use",
        origin="the Long Range Arena's lra_release: new_aan_pairs.train.tsv, .eval.tsv, .test.tsv",
        columns=_COLUMNS,
        digest=digest,
        read=read,
        show=show,
    )


def _find(data_dir: Folder) -> dict[str, Path]:
    folders = (
        "",
        "aan/",
        "tsv_data/",
        "lra_release/tsv_data/",
        "lra_release/lra_release/tsv_data/",
    )
    names = {"train": "train", "valid": "eval", "test": "test"}
    forms = {split: files.either(f"new_aan_pairs.{name}.tsv") for split, name in names.items()}
    places = [folder + file for folder in folders for file in forms["train"]]
    folder = paths.original("aan", places, data_dir).parent
    return {split: paths.original("aan", forms[split], folder) for split in SPLITS}


def _pairs(path: Path, split: str) -> Iterator[Example]:
    for number, line in enumerate(files.lines(path), 1):
        where = f"{path}: line {number}"
        fields = line.rstrip(b"\r\n").split(b"\t")
        if len(fields) != 5:
            raise ValueError(
                f"{where}: {len(fields)} fields; there should be 5, with tabs between: label, two "
                "ids, two texts; fetch it again"
            )
        label, _, _, *texts = fields
        if label not in _LABELS:
            raise ValueError(f"{where}: the label is {label[:20]!r}; it should be 0.0 or 1.0")
        for text in texts:
            if not files.decoded(text, where):
                raise ValueError(f"{where}: an empty text; it should hold a paper")
        x, x2 = (byte_tokens(text, LONGEST) for text in texts)
        yield f"{split}/{number}", {"x": x, "x2": x2, "y": _LABELS[label]}


# The stand-in


def articles(lines: Iterable[bytes]) -> list[bytes]:
    """Cuts a text of WikiText into its articles, without their titles.

    A title is a line `` = Title = `` between two blank ones; lines of that form within a paragraph
    are remains of tables.
    """
    found: list[list[bytes]] = []
    lines = list(lines)
    blank = [not line.strip() for line in lines]
    for number, line in enumerate(lines):
        alone = (number == 0 or blank[number - 1]) and all(blank[number + 1 : number + 2])
        if alone and _TITLE.fullmatch(line):
            found.append([])
        elif found:
            found[-1].append(line)
    return [b"".join(article) for article in found]


def stand_in_pairs(texts: list[bytes], count: int, seed: str) -> Iterator[tuple[bytes, bytes, int]]:
    """Pairs of stretches of articles, of 4,000 bytes each, and their labels.

    Args:
        texts: at least two articles of at least 8,000 bytes each.
        count: how many pairs; of one article, the next of two, and so on.
        seed: decides the draws.
    """
    # Of Python's generators, this one is promised to give the same numbers for ever.
    draw = random.Random(seed).random

    def below(end: int) -> int:
        return int(draw() * end)

    def stretches(text: bytes) -> list[bytes]:
        starts = sorted(below(len(text) - 2 * LONGEST + 1) for _ in range(2))
        starts[1] += LONGEST
        first = below(2)
        return [text[start : start + LONGEST] for start in (starts[first], starts[1 - first])]

    for number in range(count):
        one = below(len(texts))
        other = (one + 1 + below(len(texts) - 1)) % len(texts)
        together = number % 2 == 0
        first, second = stretches(texts[one])
        yield first, second if together else stretches(texts[other])[0], int(together)


def stand_in_source(counts: dict[str, Count] | None, pairs: dict[str, int]) -> Source:
    """``wikipairs``, or a smaller set of the same form: so many pairs a split."""

    def digest(data_dir: Folder) -> str:
        return f"1 {sorted(pairs.items())} {_WIKITEXT2.digest(data_dir)}"

    def read(data_dir: Folder, unfinished: Path) -> Reading:
        del unfinished
        texts = wikitext.find("wikitext2", "2", data_dir)

        def examples(split: str) -> Iterator[Example]:
            whole = articles(texts.lines(split))
            long = [text for text in whole if len(text) >= 2 * LONGEST]
            if len(long) < 2:
                raise ValueError(
                    f"{texts.where(split)}: {len(long)} articles of {2 * LONGEST} bytes; "
                    "two are needed to make pairs"
                )
            made = stand_in_pairs(long, pairs[split], f"wikipairs {split}")
            for number, (first, second, label) in enumerate(made):
                x, x2 = byte_tokens(first, LONGEST), byte_tokens(second, LONGEST)
                yield f"{split}/{number}", {"x": x, "x2": x2, "y": label}

        splits = {split: examples(split) for split in SPLITS}
        where = str(texts.paths["train"][0].parent)
        return Reading(where, splits, dict(_FACTS), counts)

    return Source(
        name="wikipairs",
        title="a stand-in for LRA Retrieval: pairs of stretches of Wikipedia's articles, as bytes",
        licence=_WIKITEXT2.licence,
        origin=f"made from {_WIKITEXT2.origin}",
        columns=_COLUMNS,
        digest=digest,
        read=read,
        show=show,
        downloads=_WIKITEXT2.downloads,
    )


SOURCES = [
    aan_source({"train": Count(147_086), "valid": Count(18_090), "test": Count(17_437)}),
    stand_in_source(
        {
            "train": Count(10_000, LONGEST, LONGEST, 40_000_000, 3_581_318_657),
            "valid": Count(1_000, LONGEST, LONGEST, 4_000_000, 355_793_753),
            "test": Count(1_000, LONGEST, LONGEST, 4_000_000, 354_942_725),
        },
        PAIRS,
    ),
]
"""LRA's numbers of pairs; the sums of the stand-in are what the rule above gives."""
