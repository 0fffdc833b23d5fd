"""WikiText-2 and WikiText-103: articles of Wikipedia, word by word (Merity et al., 2017).

A split is one stream of word ids. A word is what stands between blanks; each line, a blank one
too, ends in the word ``<eos>``. The vocabulary is that of the training text: ids begin at 0 with
the most frequent word, as adaptive softmax layers want them; words of one frequency stand in the
order in which they first appear. The published files have ``<unk>`` in place of rare words. A word
that the vocabulary does not know is an error in WikiText-2, and becomes ``<unk>`` in WikiText-103.
"""

import textwrap
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data import files, parquet, paths
from data.source import SPLITS, Column, Count, Download, Example, Folder, Reading, Source

EOS = "<eos>"
UNKNOWN = "<unk>"

_CHUNK = 1 << 16
_SHOWN = 150


class Texts(NamedTuple):
    """The files of the three texts.

    Attributes:
        paths: for each split its files: one; for a zip archive that, the same for all; or those of
            a split in parquet.
        members: for each split the name of the file in the archive; None without an archive.
    """

    paths: dict[str, list[Path]]
    members: dict[str, str | None]

    def lines(self, split: str) -> Iterator[bytes]:
        """See ``files.lines``."""
        for path in self.paths[split]:
            if path.suffix == ".parquet":
                yield from parquet.lines(path)
            else:
                yield from files.lines(path, self.members[split])

    def where(self, split: str) -> str:
        """The name of a text, for errors."""
        return ": ".join(filter(None, (str(self.paths[split][0]), self.members[split])))


def show(example: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """The first words of the stream, a line of text a line."""
    words = [facts["vocabulary"][token] for token in example["x"][:_SHOWN]]
    lines = " ".join(words).replace(f"{EOS} ", f"{EOS}\n").splitlines()
    return [part for line in lines for part in textwrap.wrap(line, 88)]


_FORMS = ("wiki.{}.tokens", "{}.txt")
_SHARDS = {"train": "train", "valid": "validation", "test": "test"}


def find(name: str, number: str, data_dir: Folder) -> Texts:
    """Finds the texts of a data set: files, the published archive, or Hugging Face's parquet.

    Args:
        name: of the data set, such as ``"wikitext2"``.
        number: the one in its published name, such as ``"2"``.
        data_dir: see ``paths.folders``.

    Raises:
        FileNotFoundError: there are none, or not all three, or the raw form alone.
    """
    stem = f"wikitext-{number}"
    folders = [f"{name}/", f"{stem}/", f"{stem}-v1/", f"{stem}-v1/{stem}/", f"wikitext/{stem}-v1/"]
    folders += [f"wikitext{number}/{stem}/", f"wikitext/{stem}/", ""]
    first = [
        place
        for folder in folders
        for form in _FORMS
        for place in files.either(folder + form.format("train"))
    ]
    archives = [f"{folder}{stem}-v1.zip" for folder in ("", *folders[:2], f"wikitext{number}/")]
    for folder in paths.folders(data_dir):
        if path := paths.find([*first, *archives], folder, file=True):
            return _texts(name, path)
        for place in folders:
            if shards := _shards(name, folder / place):
                return Texts(shards, dict.fromkeys(SPLITS))
    raw = [f"{folder}wiki.train.raw" for folder in (*folders, f"{stem}-raw/", f"{stem}-raw-v1/")]
    raw += [f"{folder}{stem}-raw-v1.zip" for folder in ("", *folders[:2])]
    if found := paths.find([*raw, f"{stem}-raw-v1", f"wikitext/{stem}-raw-v1"], data_dir):
        raise FileNotFoundError(
            f"{found}: the raw text, which has rare words in place of {UNKNOWN}; {name} is made "
            f"of {stem}-v1 (wiki.train.tokens)"
        )
    return _texts(name, paths.original(name, [*first, *archives], data_dir, file=True))


def _texts(name: str, train: Path) -> Texts:
    """The texts, of which one is that for training, or all are in this archive."""
    if train.suffix == ".zip":
        members = {split: _FORMS[0].format(split) for split in SPLITS}
        return Texts({split: [train] for split in SPLITS}, members)
    form = _FORMS["tokens" not in train.name.casefold()]
    found = {
        split: [paths.original(name, files.either(form.format(split)), train.parent, file=True)]
        for split in SPLITS
    }
    return Texts(found, dict.fromkeys(SPLITS))


def _shards(name: str, folder: Path) -> dict[str, list[Path]]:
    """The parquet files of each split in a folder; empty if it has none for training."""
    found = {
        split: sorted(folder.glob(f"{part}-?????-of-?????.parquet"))
        for split, part in _SHARDS.items()
    }
    if not found["train"]:
        return {}
    for split, shards in found.items():
        count = int(shards[0].stem.rpartition("-")[2]) if shards else 0
        if len(shards) != count or not shards:
            raise FileNotFoundError(
                f"{name}: {folder} has {len(shards)} of {count or 'the'} parquet files of "
                f"{_SHARDS[split]}"
            )
    return found


def vocabulary_and_ids(lines: Iterable[bytes], where: str) -> tuple[list[str], np.ndarray]:
    """Reads a training text.

    Memory: 4 bytes a token, and the vocabulary.

    Returns:
        The words by id, and the text as int32 ``[T]``.

    Raises:
        ValueError: the text is no UTF-8, or empty.
    """
    first: defaultdict[str, int] = defaultdict()
    first.default_factory = first.__len__
    ids = _ids(lines, first.__getitem__, where)
    if not len(ids):
        raise ValueError(f"{where}: empty; it should hold text")
    chunks = [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
    counts = sum(np.bincount(chunk, minlength=len(first)) for chunk in chunks)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    for chunk in chunks:
        chunk[:] = rank[chunk]
    words = list(first)
    return [words[index] for index in order], ids


def word_ids(
    lines: Iterable[bytes], vocabulary: list[str], where: str, strict: bool = True
) -> np.ndarray:
    """Reads a text with words of a known vocabulary.

    Args:
        lines: the text.
        vocabulary: the words by id.
        where: the name of the text, for errors.
        strict: whether a word that is not in the vocabulary is an error; otherwise it is read as
            ``<unk>``, if the vocabulary has that.

    Returns:
        int32 ``[T]``.

    Raises:
        ValueError: an unknown word; or the text is no UTF-8.
    """
    known = {word: index for index, word in enumerate(vocabulary)}
    if strict or UNKNOWN not in known:
        return _ids(lines, known.__getitem__, where)
    unknown = known[UNKNOWN]
    return _ids(lines, lambda word: known.get(word, unknown), where)


def _ids(lines: Iterable[bytes], look_up: Callable[[str], int], where: str) -> np.ndarray:
    # An array that grows in place: Python's own integers would take ten times as much.
    ids = array("i")
    bar = tqdm(lines, desc=f"reading {where}", unit="line", disable=None, leave=False)
    for number, line in enumerate(bar, 1):
        words = [*files.decoded(line, f"{where}: line {number}").split(), EOS]
        try:
            ids.fromlist([look_up(word) for word in words])
        except KeyError as error:
            raise ValueError(
                f"{where}: line {number}: the word {str(error)[:60]} is not in the vocabulary of "
                "the training text; is it of the same set?"
            ) from None
    return np.frombuffer(ids, np.int32)


def text_source(
    name: str,
    number: str,
    title: str,
    size: int | None,
    counts: dict[str, Count] | None,
    downloads: tuple[Download, ...] = (),
    *,
    strict: bool,
) -> Source:
    """A data set of three texts.

    Args:
        name: see ``Source``.
        number: see ``find``.
        title: see ``Source``.
        size: of the vocabulary; None if unknown.
        counts: the published figures; None if unknown.
        downloads: see ``Source``.
        strict: see ``word_ids``.
    """

    def digest(data_dir: Folder) -> str:
        texts = find(name, number, data_dir).paths.values()
        return paths.stamp(*dict.fromkeys(path for text in texts for path in text))

    def read(data_dir: Folder, unfinished: Path) -> Reading:
        del unfinished
        texts = find(name, number, data_dir)
        vocabulary, ids = vocabulary_and_ids(texts.lines("train"), texts.where("train"))
        if size is not None and len(vocabulary) != size:
            raise ValueError(
                f"{texts.where('train')}: not the published text: {len(ids)} words of "
                f"{len(vocabulary)} kinds; there should be {size} kinds, as in wikitext-{number}-v1"
            )

        def stream(split: str) -> Iterator[Example]:
            where = texts.where(split)
            yield split, {"x": word_ids(texts.lines(split), vocabulary, where, strict)}

        splits = {
            "train": [("train", {"x": ids})],
            "valid": stream("valid"),
            "test": stream("test"),
        }
        where = str(texts.paths["train"][0].parent)
        return Reading(where, splits, {"vocabulary": vocabulary}, counts)

    return Source(
        name=name,
        title=title,
        licence="CC BY-SA 3.0 and GFDL",
        origin=f"Merity et al., 2017: wiki.train.tokens and the like, in wikitext-{number}-v1.zip "
        f"or in a folder wikitext-{number}",
        columns={"x": Column("int32", (None,), "ids of words, most frequent first")},
        digest=digest,
        read=read,
        show=show,
        downloads=downloads,
    )


def _download(number: str, sha256: str) -> tuple[Download, ...]:
    file = f"wikitext-{number}-v1.zip"
    return (Download(file, f"https://wikitext.smerity.com/{file}", None, sha256),)


def _one(tokens: int, total: int | None = None) -> Count:
    return Count(1, tokens, tokens, tokens, total)


SOURCES = [
    text_source(
        "wikitext2",
        "2",
        "WikiText-2: 720 articles of Wikipedia, word by word",
        33_278,
        {
            "train": _one(2_088_628, 4_635_498_878),
            "valid": _one(217_646, 430_063_142),
            "test": _one(245_569, 474_013_437),
        },
        _download("2", "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c"),
        strict=True,
    ),
    text_source(
        "wikitext103",
        "103",
        "WikiText-103: 28,595 articles of Wikipedia, word by word",
        267_735,
        {"train": _one(103_227_021), "valid": _one(217_646), "test": _one(245_569)},
        _download("103", "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590"),
        strict=False,
    ),
]
"""With the published figures; the sums of WikiText-2's ids are ours."""
