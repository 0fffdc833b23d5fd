"""Shared by all kinds of own files: which they are, their hash, and their split."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.paths import own_name
from data.source import SPLITS, Column, Example, Reading, Source

_VERSION = "1"
"""Part of every key; raise it when the same files are read in another way."""

_MESSAGE = "fetch it again"
_CURE = "save it again, or take it away"


class Files(NamedTuple):
    """The files of a data set.

    Attributes:
        path: as the user named it, absolute.
        digests: name -> SHA-256 of the content; sorted. Names are relative to a folder, with
            slashes; that of a single file is ``""``.
    """

    path: Path
    digests: dict[str, str]

    @property
    def sha256(self) -> str:
        """Of all names and contents together; of a single file, that of its content."""
        if list(self.digests) == [""]:
            return self.digests[""]
        lines = "".join(f"{digest}  {name}\n" for name, digest in self.digests.items())
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()

    def content(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no longer the one that was hashed.
        """
        path = self.path / name if name else self.path
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != self.digests[name]:
            raise ValueError(f"{path}: changed while it was read; run again")
        return raw

    def where(self, name: str) -> str:
        """The path of a file, for errors."""
        return str(self.path / name) if name else str(self.path)


def in_folder(path: Path, endings: tuple[str, ...], least: int = 3) -> Files:
    """The files of a folder and of its subfolders whose names end so, in whatever case.

    Raises:
        OSError: there is no such folder, or a file cannot be read.
        ValueError: fewer files than `least`.
    """
    path, ending = Path(os.path.abspath(path)), " or ".join(endings)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder; name the folder of your {ending} files")
    if not path.is_dir():
        raise NotADirectoryError(f"{path}: a file; name the folder of your {ending} files")
    found = names(path, endings)
    if len(found) < least:
        raise ValueError(
            f"{path}: {len(found) or 'no'} {ending} files in it; it needs {least} at least, one "
            "each to train, to validate and to test"
        )
    return Files(path, {name: _sha256(path / name) for name in found})


def single(path: Path, what: str) -> Files:
    """One file.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    path = Path(os.path.abspath(path))
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name {what}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder; name {what}")
    return Files(path, {"": _sha256(path)})


def names(path: Path, endings: tuple[str, ...]) -> list[str]:
    """The names of such files in a folder, sorted; hidden ones are left out, links followed."""
    found = []
    for folder, folders, inside in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(folder).relative_to(path)
        found += [
            (relative / name).as_posix()
            for name in inside
            if name.lower().endswith(endings) and not name.startswith(".")
        ]
    return sorted(found)


def shares(count: int, seed: int) -> dict[str, np.ndarray]:
    """The numbers of `count` examples by split: a tenth each, drawn, to validate and to test.

    Args:
        count: at least 3.
        seed: of the draw.
    """
    order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    tenth = max(1, round(count / 10))
    parts = order[2 * tenth :], order[:tenth], order[tenth : 2 * tenth]
    return {split: np.sort(part) for split, part in zip(SPLITS, parts, strict=True)}


def by_file(found: Files, seed: int) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The split of a folder: its names, and how it was made, in words.

    If every file lies in one of the folders ``train``, ``valid`` and ``test``, these are the
    splits. If none does, or all in one of them, files are drawn. A file with the same bytes as one
    before is left out, so that none lies in two splits.

    Raises:
        ValueError: there is half a split by folders, or too few files differ.
    """
    first: dict[str, str] = {}
    for name, digest in found.digests.items():
        first.setdefault(digest, name)
    kept = sorted(first.values())
    facts = {}
    if copies := len(found.digests) - len(kept):
        facts["left out"] = f"{copies} with the content of another file"
    tops = {name.partition("/")[0] if "/" in name else "" for name in kept}
    if len(tops & set(SPLITS)) > 1:  # What was held back must not be drawn to train on.
        if missing := [part for part in SPLITS if part not in tops]:
            raise ValueError(
                f"{found.path}: has folders {' and '.join(sorted(tops & set(SPLITS)))}, but no "
                f"folder {missing[0]}; make one"
            )
        if others := sorted(tops - set(SPLITS)):
            raise ValueError(
                f"{found.path}: has folders train, valid and test, but also files in "
                f"{others[0] or 'none of them'}; move or take them away"
            )
        split = {part: [n for n in kept if n.startswith(f"{part}/")] for part in SPLITS}
        return split, {"split": "by its folders train, valid and test", **facts}
    if len(kept) < 3:
        raise ValueError(f"{found.path}: {len(kept)} of its files differ; it needs 3 at least")
    split = {part: [kept[i] for i in own] for part, own in shares(len(kept), seed).items()}
    return split, {"split": f"by file, drawn with split_seed {seed}", **facts}


def examples(
    found: Files, chosen: Iterable[str], read: Callable[[bytes, str], dict[str, Any]]
) -> Iterator[Example]:
    """The files of a split, each as an example.

    Raises:
        ValueError: raised by `read`, whose advice is turned to that for own files.
    """
    for name in chosen:
        try:
            example = read(found.content(name), found.where(name))
        except ValueError as error:
            raise ValueError(str(error).replace(_MESSAGE, _CURE)) from error
        yield name, example


def make(
    found: Files,
    title: str,
    columns: dict[str, Column],
    read: Callable[[], tuple[dict[str, Iterable[Example]], dict[str, Any]]],
    show: Callable[[dict[str, Any], dict[str, Any]], list[str]],
    settings: Sequence[object],
) -> Source:
    """A source of own files.

    Args:
        found: the files.
        title: one line on what they are.
        columns: see :class:`data.source.Source`.
        read: gives the splits and the facts; the facts may be completed while splits are read.
        show: see :class:`data.source.Source`.
        settings: everything besides the files that decides what is read.
    """
    key = repr((_VERSION, title, found.sha256, *settings))

    def reading(data_dir: object, unfinished: Path) -> Reading:
        del data_dir, unfinished
        splits, facts = read()
        return Reading(str(found.path), splits, facts, None, "own")

    return Source(
        name=own_name(found.path),
        title=title,
        licence="your own",
        origin=str(found.path),
        columns=columns,
        digest=lambda data_dir: hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest(),
        read=reading,
        show=show,
        own={"path": str(found.path), "sha256": found.sha256},
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
