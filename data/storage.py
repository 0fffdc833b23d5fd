"""Columns of examples as plain ``.npy`` files, memory-mapped: what ``load`` reads.

``<folder>/<split>/<column>.npy`` holds a column of equal shapes as ``[N, ...]``, and one of
sequences end to end as ``[sum of T, ...]``, with ``<column>.offsets.npy`` int64 ``[N + 1]`` the
start of each. ``ids.txt`` has a line for each example and ``facts.json`` the other facts. NumPy
is enough to read it.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from data import arrays
from data.source import SPLITS, Column, Count, Example, Reading

FACTS = "facts.json"


class Ragged(Sequence):
    """Sequences of different lengths, stored end to end; item i is a view, nothing is copied.

    Attributes:
        values: ``[sum of T, ...]``, all of them.
        offsets: int64 ``[N + 1]``; sequence i is ``values[offsets[i]:offsets[i + 1]]``.

    Examples:
        >>> from data import Ragged
        >>> rows = Ragged(np.arange(5), offsets=np.array([0, 2, 5]))
        >>> len(rows), rows[1].tolist(), rows.lengths.tolist()
        (2, [2, 3, 4], [2, 3])
    """

    def __init__(self, values: np.ndarray, offsets: np.ndarray):
        self.values, self.offsets = values, offsets

    @property
    def lengths(self) -> np.ndarray:
        """int64 ``[N]``."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no sequence {index} among {len(self)}")
        index %= len(self)
        return self.values[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        name: the data set's name.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        ids: N names, one for each example.
        columns: by name, N values each: an array ``[N, ...]`` or a ``Ragged``; ``x`` is the
            sequence. Memory-mapped and read-only.
        facts: what else a model needs, such as ``classes`` or ``vocabulary``.
        read: what was read: ``kind`` (see :class:`data.source.Reading`) and ``path``, of own files
            also ``sha256``; None if it was prepared before that was kept.

    Examples:
        >>> import data
        >>> split = data.load("digits", "valid")
        >>> len(split), sorted(split.columns), split.facts["classes"]
        (180, ['x', 'y'], 10)
    """

    name: str
    split: str
    ids: list[str]
    columns: dict[str, np.ndarray | Ragged]
    facts: dict[str, Any]
    read: dict[str, str] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, column: str) -> np.ndarray | Ragged:
        return self.columns[column]

    def example(self, index: int) -> dict[str, Any]:
        """Example `index`: for every column its value."""
        return {name: column[index] for name, column in self.columns.items()}


def write(name: str, columns: dict[str, Column], reading: Reading, folder: Path) -> None:
    """Writes every split of `reading` into `folder`, an example at a time.

    Raises:
        ValueError: an example that is not as `columns` say, or figures that are not those expected.
        OSError: it cannot be written, as on a full disk.
    """
    for split in SPLITS:
        found = _write_split(name, columns, reading, split, folder / split)
        expected = reading.counts and reading.counts[split]
        if expected and expected.examples and not found.examples:
            raise ValueError(
                f"{reading.where}: no {split} example of {name} in it; is it the right folder?"
            )
        if expected and not expected.agrees(found):
            raise ValueError(
                f"{reading.where}: not the published data: {split} should have {expected}, "
                f"but has {found}"
            )
    form = {
        column: {"dtype": c.dtype, "shape": c.shape, "text": c.text}
        for column, c in columns.items()
    }
    read = {"kind": reading.kind, "path": reading.where}
    facts = {"name": name, "columns": form, "facts": reading.facts, "read": read}
    (folder / FACTS).write_text(json.dumps(facts, indent=1, ensure_ascii=False), "utf-8")


def read(folder: Path, split: str) -> Split:
    """One split out of a folder that ``write`` has filled; the arrays stay on the disk.

    Raises:
        ValueError: a column is not as the folder's facts say, though its sum is right.
    """
    path = folder / split / "ids.txt"
    try:
        ids = path.read_text("utf-8").splitlines()
        path = folder / FACTS
        facts = json.loads(path.read_text("utf-8"))
        name, columns, others = (facts[key] for key in ("name", "columns", "facts"))
        forms = {
            str(column): (np.dtype(form["dtype"]), list(form["shape"]))
            for column, form in columns.items()
        }
        if not all(PurePath(column).name == column for column in forms):
            raise ValueError("a column that is no name of a file")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError, SyntaxError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not as prepared here ({reason}); prepare it again") from error
    found = {
        column: _open(folder / split, column, *form, len(ids)) for column, form in forms.items()
    }
    return Split(name, split, ids, found, others, _what_was_read(facts.get("read")))


def _what_was_read(read: Any) -> dict[str, str] | None:
    """The entry of the facts if it has the right form."""
    if not (isinstance(read, dict) and all(isinstance(read.get(k), str) for k in ("kind", "path"))):
        return None
    return {"kind": read["kind"], "path": read["path"]}


def count(lengths: Iterable[int], total: int | None = None) -> Count:
    """The figures of sequences of these lengths."""
    lengths = [int(length) for length in lengths]
    return Count(
        len(lengths), min(lengths, default=0), max(lengths, default=0), sum(lengths), total
    )


def _open(
    folder: Path, name: str, dtype: np.dtype, form: list[int | None], examples: int
) -> np.ndarray | Ragged:
    path, ragged = folder / f"{name}.npy", form[:1] == [None]
    try:
        values = _mapped(path)
        shape = [len(values) if ragged else examples, *form[ragged:]]
        if values.dtype != dtype or list(values.shape) != shape:
            raise ValueError(f"it is {values.dtype} {list(values.shape)}")
        if not ragged:
            return values
        starts = arrays.from_npy((folder / f"{name}.offsets.npy").read_bytes())
        ends = [0, len(values)] if examples else [0, 0]
        if starts.dtype != np.int64 or starts.shape != (examples + 1,):
            raise ValueError(f"its offsets are {starts.dtype} {list(starts.shape)}")
        if starts[[0, -1]].tolist() != ends or (np.diff(starts) < 1).any():
            raise ValueError("its offsets are not those of its sequences")
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder.parent / FACTS}: its column {name!r} has no file {error.filename}; "
            "prepare it again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: not as {FACTS} has it ({error}); prepare it again") from error
    return Ragged(values, starts)


def _mapped(path: Path) -> np.ndarray:
    with path.open("rb") as stream:
        dtype, _, shape, start = arrays.head(stream.read(arrays.LONGEST_HEAD))
    if start + math.prod(shape) * np.dtype(dtype).itemsize != path.stat().st_size:
        raise ValueError(f"{path.stat().st_size} bytes, other than its header says")
    array = np.load(path, mmap_mode="r")
    # A plain array over the same map: slices of a memmap cost ten times as much to make.
    return array.view(np.ndarray)


def _write_split(
    name: str, columns: dict[str, Column], reading: Reading, split: str, folder: Path
) -> Count:
    folder.mkdir(parents=True)
    expected = reading.counts[split].examples if reading.counts else None
    bar = tqdm(
        reading.splits[split],
        desc=f"{name}: writing {split}",
        total=expected,
        unit="example",
        disable=None,
        leave=False,
    )
    with ExitStack() as stack:
        writers = {
            key: stack.enter_context(_Writer(folder, key, column))
            for key, column in columns.items()
        }
        ids = stack.enter_context((folder / "ids.txt").open("w", encoding="utf-8"))
        for label, example in _checked(bar, columns, f"{reading.where}: {split}"):
            ids.write(f"{label}\n")
            for key, writer in writers.items():
                writer.add(example[key])
        for writer in writers.values():
            writer.finish()
    first = next(iter(writers.values()))
    return count(first.lengths, first.total)


def _checked(examples: Iterable[Example], columns: dict[str, Column], where: str) -> Iterator:
    for label, example in examples:
        # As it is read again: there are more ends of lines than one.
        if label.splitlines() != [label]:
            raise ValueError(f"{where} {label!r}: an id is one line of text")
        if example.keys() != columns.keys():
            raise ValueError(f"{where} {label} has {sorted(example)}, not {sorted(columns)}")
        yield (
            label,
            {
                key: _as_wanted(example[key], column, f"{where} {label}: {key}")
                for key, column in columns.items()
            },
        )


def _as_wanted(value: Any, column: Column, where: str) -> np.ndarray:
    try:
        array = np.asarray(value)
        # Values that do not fit are checked below.
        with np.errstate(all="ignore"):
            kept = array.astype(column.dtype, copy=False)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{where} is no array of {column.dtype} ({error})") from error
    wanted = column.shape[1:] if column.ragged else column.shape
    shape = array.shape[1:] if column.ragged else array.shape
    if (array.ndim, shape) != (len(column.shape), wanted):
        raise ValueError(f"{where} is {array.shape}, not {column.shape}")
    if not np.can_cast(array.dtype, column.dtype) and not np.array_equal(kept, array):
        raise ValueError(f"{where} does not fit into {column.dtype}")
    if column.ragged and not len(array):
        raise ValueError(f"{where} is empty; a sequence needs a step")
    return kept


class _Writer:
    """Appends to a ``.npy`` file, whose head is written again when the length is known."""

    def __init__(self, folder: Path, name: str, column: Column):
        self._path = folder / f"{name}.npy"
        self._offsets = folder / f"{name}.offsets.npy"
        self._column = column
        self._dtype = np.dtype(column.dtype)
        self._stream: BinaryIO = self._path.open("wb")
        self._head = self._write_head(0)
        self.lengths: list[int] = []
        self.total = 0

    def add(self, array: np.ndarray) -> None:
        self._stream.write(np.ascontiguousarray(array).data)
        self.lengths.append(len(array) if array.ndim else 1)
        self.total += int(array.sum(dtype=np.int64)) if array.dtype.kind in "iu" else 0

    def finish(self) -> None:
        rows = sum(self.lengths) if self._column.ragged else len(self.lengths)
        self._stream.seek(0)
        if self._write_head(rows) != self._head:
            raise OSError(f"{self._path}: NumPy's file head has grown; cannot write it in place")
        if self._column.ragged:
            np.save(self._offsets, np.cumsum([0, *self.lengths], dtype=np.int64))

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _write_head(self, rows: int) -> int:
        # NumPy leaves room in the head for the first axis to grow.
        shape = (rows, *(self._column.shape[1:] if self._column.ragged else self._column.shape))
        head = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(self._stream, head)
        return self._stream.tell()
