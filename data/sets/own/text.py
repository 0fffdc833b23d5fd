"""A text as one stream of words, characters or bytes."""

import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from data.sets import wikitext
from data.sets.own import files
from data.source import SPLITS, Column, Source

TOKENIZERS = ("words", "characters", "bytes")

LARGEST = 1 << 31
"""Bytes of the largest text, which is read into the memory."""

_SHOWN = 600


def cut(text: str | bytes) -> list[str | bytes]:
    """The first eight tenths of a text, the ninth and the tenth.

    It is cut after the end of a line if there is one near, within the next hundredth of the text or
    fifty letters, else after a blank, else right there.
    """
    line, blank = (b"\n", b" ") if isinstance(text, bytes) else ("\n", " ")
    ends, near = [0], max(len(text) // 100, 50)
    for tenths in (8, 9):
        place = max(len(text) * tenths // 10, ends[-1])
        found = [text.find(mark, place, place + near) for mark in (line, blank)]
        ends.append(next((at + 1 for at in found if at >= 0), place))
    return [text[a:b] for a, b in zip(ends, [*ends[1:], len(text)], strict=True)]


def words(parts: list[str], where: str) -> tuple[list[str], list[np.ndarray]]:
    """The vocabulary, most frequent first, and the ids of three texts.

    Words stand between blanks, and each line ends in ``<eos>``. The vocabulary is that of the first
    text; a word that is there only once, or not at all, is ``<unk>``.

    Raises:
        ValueError: no word is there twice.
    """
    eos, unknown = wikitext.EOS, wikitext.UNKNOWN
    # Other ends of lines than this are blanks, as in WikiText.
    lines = [
        [[*line.split(), eos] for line in part.removesuffix("\n").split("\n")] for part in parts
    ]
    counts = Counter(word for line in lines[0] for word in line)
    known = {word: n for word, n in counts.items() if n > 1 and word not in (eos, unknown)}
    if not known:
        raise ValueError(
            f"{where}: no word is there twice; take a longer text, or --tokenizer=characters"
        )
    rare = sum(n for word, n in counts.items() if word not in known and word != eos)
    ranked = Counter({**known, eos: counts[eos], unknown: rare}).most_common()
    vocabulary = [word for word, _ in ranked]
    ids = {word: index for index, word in enumerate(vocabulary)}
    streams = [
        np.fromiter((ids.get(word, ids[unknown]) for line in part for word in line), np.int32)
        for part in lines
    ]
    return vocabulary, streams


def characters(parts: list[str]) -> tuple[list[str], list[np.ndarray]]:
    """The vocabulary, most frequent first, and the ids of three texts.

    The vocabulary is that of all three: a character of the others alone is one that was never seen
    in training, not an unknown one.
    """
    codes = [np.frombuffer(part.encode("utf-32-le"), np.uint32) for part in parts]
    known, counts = np.unique(np.concatenate(codes), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    streams = [rank[np.searchsorted(known, part)] for part in codes]
    return [chr(code) for code in known[order]], streams


def find(path: Path) -> files.Files:
    """The text.

    Raises:
        OSError: no such file.
        ValueError: it is too large.
    """
    found = files.single(path, "a file of text in UTF-8")
    if (size := found.path.stat().st_size) > LARGEST:
        raise ValueError(f"{path}: {size} bytes; at most {LARGEST} are read: take a part of it")
    return found


def check_tokenizer(name: str) -> None:
    """Refuses a tokenizer that does not exist.

    Raises:
        ValueError: listing the known ones.
    """
    if name not in TOKENIZERS:
        raise ValueError(f"unknown tokenizer {name!r}; one of: {', '.join(TOKENIZERS)}")


def streams_of(raw: bytes, where: str, tokenizer: str) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The ids of the three parts of a text, and the facts.

    Raises:
        ValueError: it is not UTF-8, or too small.
    """
    if tokenizer == "bytes":
        parts = cut(raw)
        vocabulary = [f"{byte:02x}" for byte in range(256)]
        streams = [np.frombuffer(part, np.uint8).astype(np.int32) for part in parts]
    else:
        parts = cut(_decoded(raw, where))
        if not all(parts):
            raise ValueError(_too_small(raw, where))
        vocabulary, streams = words(parts, where) if tokenizer == "words" else characters(parts)
    if not all(map(len, streams)):
        raise ValueError(_too_small(raw, where))
    facts = {
        "tokenizer": tokenizer,
        "split": "by place: the first eight tenths, the ninth, the tenth",
        "vocabulary": vocabulary,
    }
    return streams, facts


def _too_small(raw: bytes, where: str) -> str:
    return f"{where}: {len(raw)} bytes are too small a text to train, to validate and to test"


def source(path: Path, *, tokenizer: str) -> Source:
    """A text; its first eight tenths train, the ninth validates, the last tests.

    Raises:
        OSError: no such file.
        ValueError: no such tokenizer, or the file is too large.
    """
    check_tokenizer(tokenizer)
    found = find(path)

    def read() -> tuple[dict[str, Any], dict[str, Any]]:
        streams, facts = streams_of(found.content(""), found.where(""), tokenizer)
        splits = {
            split: [(split, {"x": stream})] for split, stream in zip(SPLITS, streams, strict=True)
        }
        return splits, facts

    column = Column("int32", (None,), f"ids of {tokenizer}")
    return files.make(
        found, f"a text of your own, by {tokenizer}", {"x": column}, read, show, (tokenizer,)
    )


def show(example: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """The beginning of the stream."""
    if facts["tokenizer"] == "words":
        return wikitext.show(example, facts)
    if facts["tokenizer"] == "bytes":
        text = example["x"][:_SHOWN].astype(np.uint8).tobytes().decode("utf-8", "replace")
    else:
        text = "".join(facts["vocabulary"][token] for token in example["x"][:_SHOWN])
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, 88)]
    return ["".join(c if c.isprintable() else "·" for c in line) for line in lines]


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: byte {error.start} is not UTF-8 ({raw[error.start]:#04x}); save it as "
            "UTF-8, as iconv does, or take --tokenizer=bytes"
        ) from error
