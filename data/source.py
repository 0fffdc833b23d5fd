"""The description of a data set: its publisher, how to read its original, its published figures."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

SPLITS = ("train", "valid", "test")

Folder = str | Path | None
"""A ``data_dir`` as a caller gives it; None: look in the usual places (see ``paths``)."""

Example = tuple[str, dict[str, Any]]
"""An id, and for every column of the data set a value."""


class Column(NamedTuple):
    """One column of a data set: a value that every example has.

    Attributes:
        dtype: as NumPy names it, such as ``"uint8"``.
        shape: of one example. A leading None is its length T, which differs between examples.
        text: what it holds, in a few words.
    """

    dtype: str
    shape: tuple[int | None, ...]
    text: str

    @property
    def ragged(self) -> bool:
        """Whether examples differ in length."""
        return self.shape[:1] == (None,)


class Count(NamedTuple):
    """The published figures of one split, of its first column; None for unpublished ones.

    Attributes:
        examples: their number.
        shortest: the length of the shortest.
        longest: of the longest.
        steps: of all together.
        total: the sum of all values, a checksum that can be quoted; None too if values cannot be
            added.
    """

    examples: int
    shortest: int | None = None
    longest: int | None = None
    steps: int | None = None
    total: int | None = None

    def agrees(self, found: "Count") -> bool:
        """Whether the figures of a read split match these."""
        return all(wanted in (None, got) for wanted, got in zip(self, found, strict=True))

    def __str__(self) -> str:
        words = f"{self.examples} examples"
        if self.shortest is not None:
            words += f" of {self.shortest}..{self.longest} steps"
        if self.steps is not None:
            words += f", {self.steps} steps"
        return words + ("" if self.total is None else f" and a sum of {self.total}")


class Reading(NamedTuple):
    """The result of reading an original.

    Attributes:
        where: the original, for errors.
        splits: for each of ``SPLITS`` its examples in order; may be generators.
        facts: what else a model needs, as JSON: a vocabulary, a sample rate.
        counts: the published figures; None if there are none.
        kind: ``"original"``, ``"made here"``, ``"sample"``, a part of the original, or ``"own"``.
    """

    where: str
    splits: dict[str, Iterable[Example]]
    facts: dict[str, Any]
    counts: dict[str, Count] | None
    kind: str = "original"


class Download(NamedTuple):
    """One file at its publisher's own address.

    Attributes:
        file: its name in the data folder; what the reader looks for.
        url: the address.
        size: in bytes; None if unknown.
        sha256: of the file; None if unknown.
    """

    file: str
    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Source:
    """A data set: facts for the reader, and functions over its original.

    Attributes:
        name: its name for ``load`` and the command line.
        title: one line on what it is.
        licence: as its publisher states it.
        origin: the original, and who published it.
        columns: what an example has; ``x``, the sequence, is the first.
        digest: from ``data_dir``, a hash or stamp of everything the prepared data depend on.
        read: from ``data_dir`` and a folder for unfinished work (see ``generation``), the examples.
        show: from one example and the facts, lines to print.
        downloads: the files of the original; empty if the user has to supply it or there is none.
        generated: whether the data can be generated without an original.
        own: ``path`` and ``sha256`` of a user's own files (see :mod:`data.sets.own`); nothing is
            looked for elsewhere. None for all others.
    """

    name: str
    title: str
    licence: str
    origin: str
    columns: dict[str, Column]
    digest: Callable[[Folder], str]
    read: Callable[[Folder, Path], Reading]
    show: Callable[[dict[str, Any], dict[str, Any]], list[str]]
    downloads: tuple[Download, ...] = ()
    generated: bool = False
    own: dict[str, str] | None = None
