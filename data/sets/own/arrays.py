"""A NumPy archive ``.npz`` of sequences and what to predict of them.

======================  ==========================================================================
``x``                   sequences: floats ``[N, T]`` or ``[N, T, D]``, as they are; bytes (uint8) of
                        the same shapes, scaled to 0 to 1; other integers ``[N, T]``, tokens
``y``                   integers ``[N]``: a class; ``[N, T]``: a class at every step. Floats
                        ``[N, M]``: M numbers; ``[N, T, M]``: M numbers at every step
``lengths``             integers ``[N]``, if sequences have different lengths: what comes after them
                        in ``x`` and ``y`` is not read
======================  ==========================================================================

Examples are drawn into three splits; or the file makes them, with ``train_x``, ``valid_x``,
``test_x``, and so on for each of the three arrays.
"""

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import arrays
from data.files import allowed
from data.sets.own import files
from data.source import SPLITS, Column, Example, Source

_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)
_BROKEN = (*_BROKEN, UnicodeDecodeError, MemoryError, ValueError)
_PARTS = ("x", "y", "lengths")
_NAMES = {"": _PARTS} | {split: tuple(f"{split}_{part}" for part in _PARTS) for split in SPLITS}
_MOST_TOKENS, _MOST_CLASSES = 1 << 24, 1 << 20

TASKS = {
    "classify": "a class of each sequence",
    "tag": "a class at every step",
    "estimate": "numbers of each sequence",
    "track": "numbers at every step",
}
"""Kind of the task -> in words."""


class Part(NamedTuple):
    """The arrays of a split, or of the whole file; `lengths` int64 ``[N]``, or None."""

    x: np.ndarray
    y: np.ndarray
    lengths: np.ndarray | None


class Form(NamedTuple):
    """What the arrays are, which all parts of a file share.

    Attributes:
        task: one of ``TASKS``.
        tokens: whether ``x`` holds tokens.
        columns: see :class:`data.source.Source`.
    """

    task: str
    tokens: bool
    columns: dict[str, Column]


def read_npz(content: bytes, where: str) -> dict[str, Part]:
    """The arrays of a file: by split, or of the name ``""`` for all.

    Raises:
        ValueError: it is no ``.npz`` of numbers, arrays are missing, or do not fit each other.
    """
    found = _members(content, where)
    heads = ["", *SPLITS]
    given = {head for head in heads for name in _NAMES[head] if name in found}
    if given not in ({""}, set(SPLITS)):
        raise ValueError(
            f"{where}: holds {', '.join(sorted(found)) or 'nothing'}; it should hold x and y, or "
            "train_x, train_y, valid_x, valid_y, test_x, test_y; and lengths if they differ"
        )
    parts = {}
    for head in sorted(given, key=heads.index):
        x, y, lengths = (found.get(name) for name in _NAMES[head])
        for name, array in zip(_NAMES[head], (x, y), strict=False):
            if array is None:
                raise ValueError(f"{where}: {name} is missing; save it too: np.savez(…, {name}=…)")
        names = dict(zip(_PARTS, (f"{where}: {name}" for name in _NAMES[head]), strict=True))
        parts[head] = _checked(Part(x, y, lengths), names)
    return parts


def form_of(parts: dict[str, Part], where: str) -> Form:
    """The task that arrays pose, by their dtypes and shapes.

    Raises:
        ValueError: they fit none, or those of the splits differ.
    """
    forms = {head: _form(part, f"{where}: {_NAMES[head][1]}") for head, part in parts.items()}
    first, *others = forms.values()
    for head, form in zip(list(forms)[1:], others, strict=True):
        if form != first:
            raise ValueError(
                f"{where}: {_NAMES[head][0]} and {_NAMES[head][1]} have other dtypes or shapes "
                "than those of train"
            )
    return first


def find(path: Path) -> files.Files:
    """The archive.

    Raises:
        OSError: no such file.
    """
    return files.single(path, "an .npz file of arrays")


def form(path: Path) -> Form:
    """What the arrays of a file are.

    Raises:
        OSError: no such file.
        ValueError: it holds something else, see above.
    """
    found = find(path)
    return form_of(read_npz(found.content(""), found.where("")), found.where(""))


def source(path: Path, *, split_seed: int) -> Source:
    """Arrays; a sequence an example.

    Raises:
        OSError: no such file.
        ValueError: it holds something else, see above.
    """
    found = find(path)
    where = found.where("")
    parts = read_npz(found.content(""), where)
    own = form_of(parts, where)
    rows = _rows(parts, split_seed, where)
    facts = _facts(own, parts, where)
    whole = list(parts) == [""]
    facts["split"] = f"drawn with split_seed {split_seed}" if whole else "by the file's names"

    def examples(split: str) -> Any:
        part = parts["" if whole else split]
        for row in rows[split].tolist():
            yield str(row), _example(own, part, row)

    return files.make(
        found,
        f"arrays of your own: {TASKS[own.task]}",
        own.columns,
        lambda: ({split: examples(split) for split in SPLITS}, facts),
        show,
        (split_seed,),
    )


def show(example: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """The first steps, and what is to be predicted."""
    x, y = np.asarray(example["x"]), np.asarray(example["y"])
    kind = "tokens" if "tokens" in facts else "steps"
    lines = [f"x, {len(x)} {kind}: {_short(x)}"]
    return [*lines, f"y, {TASKS[facts['task']]}: {_short(y)}"]


def _short(values: np.ndarray) -> str:
    text = np.array2string(values[:4] if values.ndim else values, precision=4, threshold=12)
    return " ".join(text.split())


def _members(content: bytes, where: str) -> dict[str, np.ndarray]:
    wanted = {name for names in _NAMES.values() for name in names}
    found: dict[str, np.ndarray] = {}
    left = allowed(6 * len(content))  # Vectors with a single one in them shrink to a thousandth.
    name = ""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                if name not in wanted:
                    found[name[:40] if name.isprintable() else "?"] = np.zeros(0)
                    continue
                with archive.open(member) as stream:
                    raw = stream.read(left + 1)
                if len(raw) > left:
                    raise ValueError("more than a file of its size may hold; not to trust")
                left -= len(raw)
                found[name] = _array(raw)
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        inside = f"{name}: " if name in wanted else ""
        raise ValueError(
            f"{where}: {inside}not whole arrays of numbers ({reason}); save it again: "
            "np.savez(file, x=x, y=y)"
        ) from error
    return found


def _array(raw: bytes) -> np.ndarray:
    kind = raw[: arrays.LONGEST_HEAD].partition(b"'descr': '")[2][:3]
    if kind[1:2] == b"O":
        raise ValueError(
            "it holds Python objects, which are never loaded; pad the sequences into one array "
            "and give their lengths"
        )
    if kind[1:2] in (b"U", b"S"):
        raise ValueError("it holds text; give numbers, of classes 0, 1, …")
    array = arrays.from_npy(raw)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"it holds {array.dtype}; give integers or floats")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _checked(part: Part, names: dict[str, str]) -> Part:
    x, y, lengths = part
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise ValueError(f"{names['x']} is {list(x.shape)}; it should be [N, T] or [N, T, D]")
    for array, name in ((y, names["y"]), (lengths, names["lengths"])):
        if array is not None and array.shape[:1] != x.shape[:1]:
            raise ValueError(f"{name} is {list(array.shape)}, but x has {len(x)} sequences")
    if lengths is not None:
        x, y, lengths = _blanked(part, names["lengths"])
    for array, name in ((x, names["x"]), (y, names["y"])):
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                bad = ~np.isfinite(array.astype(np.float32))
            if bad.any():
                place = np.argwhere(bad)[0].tolist()
                raise ValueError(
                    f"{name} has {array[tuple(place)]} at {place}; it should be finite: drop or "
                    "fill such values"
                )
    return Part(x, y, lengths)


def _blanked(part: Part, where: str) -> Part:
    """The part with zeros after the ends of its sequences; `where` are its lengths, for errors."""
    x, y, lengths = part
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1:
        raise ValueError(
            f"{where} is {lengths.dtype} {list(lengths.shape)}; it should be integers [N]"
        )
    outside = (lengths < 1) | (lengths > x.shape[1])
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(f"{where} has {lengths[row]} at [{row}]; it should lie in 1..{x.shape[1]}")
    after = np.arange(x.shape[1]) >= lengths[:, None]
    x = x.copy()
    x[after] = 0
    if y.ndim == 2 + (y.dtype.kind == "f") and y.shape[:2] == after.shape:  # One a step.
        y = y.copy()
        y[after] = 0
    return Part(x, y, lengths.astype(np.int64))


def _form(part: Part, where: str) -> Form:
    """The form of one part; `where` is its ``y``, for errors."""
    x, y, lengths = part
    of_x = where[: -len("y")] + "x"
    tokens = x.dtype.kind in "biu" and x.dtype != np.uint8
    if tokens and x.ndim != 2:
        raise ValueError(
            f"{of_x} is {x.dtype} {list(x.shape)}; integers are tokens [N, T], frames [N, T, D] "
            "are floats or uint8"
        )
    whole, steps = y.dtype.kind in "biu", x.shape[1]
    task = {(True, 1): "classify", (True, 2): "tag", (False, 2): "estimate", (False, 3): "track"}
    kind = task.get((whole, y.ndim))
    if kind is None:
        if y.ndim == 1 and np.array_equal(y, np.round(y)):
            raise ValueError(
                f"{where} is {y.dtype} [N] of whole numbers: labels are integers: "
                "y.astype(np.int32); numbers to be estimated are [N, 1]: y[:, None]"
            )
        raise ValueError(
            f"{where} is {y.dtype} {list(y.shape)}; it should be integers [N] or [N, T], or floats "
            "[N, M] or [N, T, M]"
        )
    if (kind in ("tag", "track") and y.shape[1] != steps) or 0 in y.shape:
        raise ValueError(
            f"{where} is {list(y.shape)}, but x has {steps} steps"
            + ("; numbers of a whole sequence are floats" if kind == "tag" else "")
        )
    for array, name in ((x, of_x), (y, where)):
        if array.dtype.kind == "i" and array.min() < 0:
            raise ValueError(f"{name} has {array.min()}; tokens and classes begin at 0")
    first = (None,) if lengths is not None else (steps,)
    of_y = {"classify": (), "estimate": y.shape[1:], "tag": first, "track": (*first, *y.shape[2:])}
    dtype = "int32" if tokens else "uint8" if x.dtype == np.uint8 else "float32"
    text = {"int32": "tokens", "uint8": "bytes, scaled to 0 to 1", "float32": "numbers as they are"}
    columns = {
        "x": Column(dtype, (*first, *x.shape[2:]), text[dtype]),
        "y": Column("int32" if whole else "float32", of_y[kind], TASKS[kind]),
    }
    return Form(kind, tokens, columns)


def _facts(form: Form, parts: dict[str, Part], where: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"task": form.task}
    if form.tokens:
        facts["tokens"] = 1 + max(int(part.x.max()) for part in parts.values())
        if facts["tokens"] > _MOST_TOKENS:
            raise ValueError(f"{where}: x has the token {facts['tokens'] - 1}; number them from 0")
    if form.task in ("classify", "tag"):
        facts["classes"] = 1 + max(int(part.y.max()) for part in parts.values())
        if not 2 <= facts["classes"] <= _MOST_CLASSES:
            raise ValueError(
                f"{where}: y has {facts['classes']} classes by its largest label; there should be "
                "2 at least, numbered from 0"
            )
    else:
        facts["classes"] = next(iter(parts.values())).y.shape[-1]
    return facts


def _rows(parts: dict[str, Part], seed: int, where: str) -> dict[str, np.ndarray]:
    if "" not in parts:
        return {split: np.arange(len(part.x)) for split, part in parts.items()}
    count = len(parts[""].x)
    if count < 3:
        raise ValueError(f"{where}: {count} sequences; it needs 3 at least")
    return files.shares(count, seed)


def _example(form: Form, part: Part, row: int) -> Example:
    end = part.x.shape[1] if part.lengths is None else int(part.lengths[row])
    x, y = part.x[row][:end], part.y[row]
    if form.task in ("tag", "track"):
        y = y[:end]
    return {"x": x.astype(form.columns["x"].dtype), "y": y.astype(form.columns["y"].dtype)}
