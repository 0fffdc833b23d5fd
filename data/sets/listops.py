"""ListOps of the Long Range Arena: nested list expressions to be worked out; ten classes.

Nangia and Bowman (2018), in the form of Tay et al. (2021). Reads the user's own copy, the files
``basic_train.tsv``, ``basic_val.tsv`` and ``basic_test.tsv``, or generates a set by this recipe:

- A node at depth d < 10 is an operator with probability 1/4, else, and always at depth 10, a digit.
  The root has depth 1.
- An operator is MIN, MAX, MED or SM and has 2 to 10 arguments, nodes of depth d + 1. These choices
  and the digits are uniform. MED is the median, of an even count the mean of the middle two, cut
  to an integer; SM is the sum modulo 10.
- A tree is kept if it has more than 500 and fewer than 2,000 tokens and no earlier one is the same.

A generated set is a function of the seed alone, on any machine and with any NumPy: it is drawn from
raw random bits. The trees are exchangeable; the first are for training, the last for the test.
"""

import hashlib
import io
import json
import textwrap
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from data import files, generation, paths
from data.source import SPLITS, Column, Count, Example, Folder, Reading, Source

VOCABULARY = ("<pad>", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
"""A token's place is its id."""

DEPTH = 10
ARGUMENTS = (2, 10)
TOKENS = (501, 1999)
"""The fewest and the most of a tree that is kept."""
SHORT_TOKENS = (100, 512)
"""The same, for ``listops_short``."""

_VERSION = 1
_LONGEST = 2_000
_DIGIT, _OPERATOR, _CLOSE = (VOCABULARY.index(token) for token in ("0", "[MIN", "]"))
_IDS = {token: number for number, token in enumerate(VOCABULARY) if number}
_FILES = {"train": "basic_train.tsv", "valid": "basic_val.tsv", "test": "basic_test.tsv"}
_PLACES = [
    *("listops-1000", "lra_release/listops-1000", "lra_release/lra_release/listops-1000"),
    "listops/basic_train.tsv",
    _FILES["train"],
    *(f"{stem}{end}" for stem in ("listops-1000", "lra_release") for end in files.ARCHIVES),
    "lra_release.gz",  # The publisher's name for a tar.gz.
]


def value(tokens: list[int]) -> int:
    """Evaluates an expression of ids.

    Raises:
        ValueError: they are no whole expression.
    """
    values: list[int] = []
    nodes: list[tuple[int, int]] = []
    for place, token in enumerate(tokens):
        if place and not nodes:
            raise ValueError(f"the expression ends before token {place}, but more follows")
        if token < _OPERATOR:
            values.append(token - _DIGIT)
        elif token < _CLOSE:
            nodes.append((token, len(values)))
        else:
            if not nodes:
                raise ValueError("the expression begins with a closing bracket")
            operator, first = nodes.pop()
            arguments = values[first:]
            if not arguments:
                raise ValueError(f"the operator closed by token {place} has no argument")
            values[first:] = [_APPLY[operator - _OPERATOR](arguments)]
    if nodes or not values:
        raise ValueError(f"{len(nodes)} operators are left open")
    return values[0]


def _median(values: list[int]) -> int:
    values.sort()
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) // 2


_APPLY = (min, max, _median, lambda values: sum(values) % 10)


def grow(bits: np.random.PCG64, roots: int, limits: tuple[int, int] = TOKENS) -> list[np.ndarray]:
    """Grows `roots` trees with an operator at the root, and keeps those within the size limits.

    A tree that is a single digit is never kept, so none is drawn here; the whole recipe would draw
    four times as many trees.

    Returns:
        For each of the ten levels int64 ``[nodes]``: how many arguments each has, 0: it is a digit.
        The nodes of a level stand in the order of their parents, those of the first in that of
        the trees.
    """
    tokens = np.zeros(roots, np.int64)
    trees = np.arange(roots)
    levels = []
    for depth in range(1, DEPTH + 1):
        operators = np.ones(roots, bool)
        if depth > 1:
            operators = (_uniform(bits, len(trees), 4) == 0) & (depth < DEPTH)
        arguments = np.zeros(len(trees), np.int64)
        fewest, most = ARGUMENTS
        arguments[operators] = fewest + _uniform(bits, operators.sum(), most - fewest + 1)
        # An operator is two tokens, itself and its closing bracket.
        tokens += np.bincount(trees, 1 + operators, roots).astype(np.int64)
        arguments[tokens[trees] > limits[1]] = 0  # Not to be kept: it need not grow.
        levels.append((trees, arguments))
        trees = np.repeat(trees, arguments)
    kept = (tokens >= limits[0]) & (tokens <= limits[1])
    return [arguments[kept[trees]] for trees, arguments in levels]


def draw_tokens(levels: list[np.ndarray], bits: np.random.PCG64) -> list[np.ndarray]:
    """Draws operators and digits for trees out of ``grow``; of each the ids, uint8 ``[T]``."""
    spans, before = [], []
    below = np.zeros(0, np.int64)
    for arguments in reversed(levels):
        summed = np.concatenate([[0], np.cumsum(below)])
        ends = np.cumsum(arguments)
        nodes = arguments > 0
        below = 1 + nodes + summed[ends] - summed[ends - arguments]
        spans.insert(0, below)
        # Where each child begins, counted from its parent.
        before.insert(0, summed[:-1] - np.repeat(summed[ends - arguments], arguments) + 1)
    ends = np.cumsum(spans[0])
    places = ends - spans[0]
    tokens = np.empty(ends[-1] if len(ends) else 0, np.uint8)
    for arguments, span, start in zip(levels, spans, before, strict=True):
        nodes = arguments > 0
        tokens[places[~nodes]] = _DIGIT + _uniform(bits, (~nodes).sum(), 10)
        tokens[places[nodes]] = _OPERATOR + _uniform(bits, nodes.sum(), len(_APPLY))
        tokens[(places + span - 1)[nodes]] = _CLOSE
        places = np.repeat(places, arguments) + start
    return np.split(tokens, ends[:-1])


def block(number: int, seed: int, trees: int, tokens: tuple[int, int] = TOKENS) -> generation.Block:
    """Trees of the recipe: their ids end to end, the length of each, the class of each."""
    bits = np.random.PCG64([seed, number])
    found: list[np.ndarray] = []
    while len(found) < trees:
        found += draw_tokens(grow(bits, 2 * trees, tokens), bits)
    found = found[:trees]
    return {
        "tokens": np.concatenate(found),
        "lengths": np.array([len(tree) for tree in found]),
        "classes": np.array([value(tree.tolist()) for tree in found], np.uint8),
    }


def _uniform(bits: np.random.PCG64, count: int, choices: int) -> np.ndarray:
    return ((bits.random_raw(int(count)) >> 11) * 2.0**-53 * choices).astype(np.int64)


_COLUMNS = {
    "x": Column("uint8", (None,), "tokens of the expression"),
    "y": Column("uint8", (), "its value, 0 to 9"),
}


def listops_source(
    sizes: dict[str, int], trees: int, counts: dict[str, Count] | None, seed: int = 0
) -> Source:
    """``listops``, or a smaller set of the same form.

    Args:
        sizes: the examples of each split.
        trees: of a block; a generated set depends on it.
        counts: figures that a generated set must have.
        seed: of a generated set.
    """
    recipe = {"seed": seed, "trees": trees}

    def digest(data_dir: Folder) -> str:
        if path := _original(data_dir):
            parts = [path / name for name in _FILES.values()] if path.is_dir() else [path]
            return paths.stamp(*parts, version=_VERSION)
        return hashlib.sha256(json.dumps([_VERSION, recipe, sizes]).encode()).hexdigest()

    def read(data_dir: Folder, unfinished: Path) -> Reading:
        facts = {"tokens": len(VOCABULARY), "classes": 10, "vocabulary": list(VOCABULARY)}
        if path := _original(data_dir):
            lines = {split: _lines(path, split) for split in SPLITS}
            published = {split: Count(size) for split, size in sizes.items()}
            return Reading(str(path), lines, facts | {"made": "by others"}, published)
        # The splits take from one stream: they are read in this order.
        stream = _generate(recipe, -(-sum(sizes.values()) // trees) + 1, unfinished)
        splits = {split: islice(stream, sizes[split]) for split in SPLITS}
        facts["made"] = f"here, seed {seed}"
        return Reading("listops made here", splits, facts, counts, "made here")

    return Source(
        name="listops",
        title="100,000 nested list expressions of LRA ListOps, of 501 to 1,999 tokens; ten values",
        licence="none needed where made here; LRA's own files: Apache 2.0",
        origin="made here; or LRA's basic_train.tsv, basic_val.tsv and basic_test.tsv",
        columns=_COLUMNS,
        digest=digest,
        read=read,
        show=_show,
        generated=True,
    )


def _generate(
    recipe: dict[str, Any], count: int, unfinished: Path, name: str = "listops"
) -> Iterator[Example]:
    """The distinct trees of `count` blocks."""
    seen = set()
    function = f"{__name__}:block"
    for trees in generation.generate(
        function, recipe, count, unfinished, f"{name}: making", "block"
    ):
        ends = np.cumsum(trees["lengths"])
        for tokens, label in zip(
            np.split(trees["tokens"], ends[:-1]), trees["classes"], strict=True
        ):
            digest = hashlib.blake2b(tokens, digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                yield f"{len(seen) - 1:06d}", {"x": tokens, "y": label}


def _original(data_dir: Folder) -> Path | None:
    path = paths.find_or_make("listops", _PLACES, data_dir)
    return path.parent if path and path.suffix == ".tsv" else path


def _lines(path: Path, split: str) -> Iterator[Example]:
    """The examples of one file of the user's copy."""
    name = _FILES[split]
    deep = not path.is_dir()  # In an archive it may lie in folders.
    found = list(files.members(path, lambda inside: name in (inside, deep and Path(inside).name)))
    if not found:
        raise FileNotFoundError(
            f"{path}: no {name} in it; it has three: {', '.join(_FILES.values())}"
        )
    # A release may hold smaller sets of the same form beside it.
    found = [one for one in found if Path(one[0]).parent.name == "listops-1000"] or found
    inside, content = found[0]
    if any(other != content for _, other in found):
        names = " and ".join(inside for inside, _ in found)
        raise ValueError(f"{path}: {names} differ; unpack it and name the folder of one")
    for number, raw in enumerate(io.BytesIO(content)):
        where = f"{path}: {inside}, line {number + 1}"
        fields = files.decoded(raw, where).rstrip("\r\n").split("\t")
        if number:
            yield f"{split}/{number - 1:06d}", _example(fields, where)
        elif fields != ["Source", "Target"]:
            raise ValueError(f"{where}: the head is {fields}; it should be Source and Target")


def _example(fields: list[str], where: str) -> dict[str, Any]:
    if len(fields) != 2:
        raise ValueError(f"{where}: {len(fields)} fields; it should be an expression and its value")
    source, target = fields
    words = source.replace("(", " ").replace(")", " ").split()
    if not words:
        raise ValueError(f"{where}: the expression is empty")
    if len(words) > _LONGEST:
        raise ValueError(f"{where}: {len(words)} tokens; ListOps has at most {_LONGEST}")
    if unknown := set(words) - _IDS.keys():
        raise ValueError(f"{where}: unknown token {min(unknown)!r}; known: {' '.join(_IDS)}")
    if target not in tuple("0123456789"):
        raise ValueError(f"{where}: the value is {target!r}; it should be one of 0 to 9")
    tokens = [_IDS[word] for word in words]
    try:
        right = value(tokens)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; fetch the file again") from error
    if right != int(target):
        raise ValueError(f"{where}: the value is said to be {target}, but is {right}")
    return {"x": np.array(tokens, np.uint8), "y": np.uint8(target)}


def _show(example: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    text = " ".join(facts["vocabulary"][token] for token in example["x"])
    return [*textwrap.wrap(text, 100), f"= {int(example['y'])}"]


def short_source(sizes: dict[str, int], trees: int, counts: dict[str, Count] | None) -> Source:
    """``listops_short``: the same recipe, but trees of 100 to 512 tokens; always made here.

    Of the trees of ``listops`` hardly any is short enough for a small machine.
    """
    recipe = {"seed": 1, "trees": trees, "tokens": list(SHORT_TOKENS)}
    recipe_text = json.dumps([_VERSION, recipe, sizes])

    def read(data_dir: Folder, unfinished: Path) -> Reading:
        del data_dir
        facts = {"tokens": len(VOCABULARY), "classes": 10, "vocabulary": list(VOCABULARY)}
        stream = _generate(
            recipe, -(-sum(sizes.values()) // trees) + 1, unfinished, "listops_short"
        )
        made = {split: islice(stream, sizes[split]) for split in SPLITS}
        facts["made"] = "here, seed 1"
        return Reading("listops_short made here", made, facts, counts, "made here")

    return Source(
        name="listops_short",
        title="44,000 nested list expressions by the recipe of ListOps, of 100 to 512 tokens",
        licence="none needed: made here",
        origin="made here",
        columns=_COLUMNS,
        digest=lambda data_dir: hashlib.sha256(recipe_text.encode()).hexdigest(),
        read=read,
        show=_show,
        generated=True,
    )


SOURCES = [
    listops_source(
        {"train": 96_000, "valid": 2_000, "test": 2_000},
        trees=1_000,
        counts={
            "train": Count(96_000, 501, 1999, 99_458_780, 780_472_909),
            "valid": Count(2_000, 501, 1996, 2_072_534, 16_257_806),
            "test": Count(2_000, 501, 1998, 2_067_658, 16_232_157),
        },
    ),
    short_source(
        {"train": 40_000, "valid": 2_000, "test": 2_000},
        trees=1_000,
        counts={
            "train": Count(40_000, 100, 512, 12_186_986, 96_119_230),
            "valid": Count(2_000, 100, 512, 608_541, 4_796_319),
            "test": Count(2_000, 100, 512, 600_943, 4_737_689),
        },
    ),
]
