"""Texts as bytes: reviews, pairs of papers and the stand-in for these."""

import functools
import gzip
import tracemalloc

import numpy as np
import pytest
from original_case import load_real, load_splits, write

import data
from data.sets import retrieval, reviews, wikitext
from data.source import Count


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Loads real sets, each of them prepared once for this module."""
    return functools.partial(load_real, folder=tmp_path_factory.mktemp("real"))


def _bytes(tokens: np.ndarray) -> bytes:
    assert tokens.min() >= 1
    return bytes(token - 1 for token in tokens.tolist())


# Reviews

REVIEWS = reviews.reviews_source(each=5, held=2, counts=None)


def _reviews() -> dict[str, bytes]:
    """By path, ten reviews for training and ten for testing, one of them long."""
    texts = {
        f"aclImdb/{part}/{label}/{n}_{rating}.txt": f"{part} {label} {n}: très bien".encode()
        for part in ("train", "test")
        for label, rating in (("neg", 2), ("pos", 9))
        for n in range(5)
    }
    return texts | {"aclImdb/train/pos/1_9.txt": bytes(range(1, 128)) * 40}


_EXTRA = {
    "aclImdb/README": b"\xff",
    "aclImdb/imdb.vocab": b"the",
    "aclImdb/train/unsup/0_0.txt": b"?",
    "aclImdb/train/urls_pos.txt": b"http",
}


@pytest.mark.parametrize(
    ("place", "data_dir"),
    [
        ("aclImdb_v1.tar.gz", "."),
        ("aclImdb_labeled.tar.xz", "."),
        ("aclImdb.zip", "."),
        (".", "."),
        (".", "aclImdb"),
    ],
)
def test_reviews(tmp_path, place, data_dir):
    contents = _reviews()
    write(tmp_path / place, dict(reversed((contents | _EXTRA).items())))
    splits = load_splits(REVIEWS, tmp_path / data_dir)
    numbers = {"train": (0, 1, 2), "valid": (3, 4), "test": range(5)}
    for split, found in splits.items():
        part = "test" if split == "test" else "train"
        assert found.ids == [f"{part}/{y}/{n}" for y in ("neg", "pos") for n in numbers[split]]
        assert found.facts == {"tokens": 257, "classes": 2}
        assert found["x"].values.dtype == np.uint16
        for label, tokens, y in zip(found.ids, found["x"], found["y"], strict=True):
            kind = label.split("/")[1]
            content = contents[f"aclImdb/{label}_{2 if kind == 'neg' else 9}.txt"]
            assert _bytes(tokens) == content[:4096]
            assert y == (kind == "pos")
    assert len(splits["train"]["x"][4]) == 4096


def _drop(contents):
    del contents["aclImdb/test/neg/3_2.txt"]


def _add(contents):
    contents["aclImdb/train/pos/5_7.txt"] = b"one more"


def _spoil(contents):
    contents["aclImdb/test/pos/0_9.txt"] = b"caf\xe9"


def _empty(contents):
    contents["aclImdb/train/neg/2_2.txt"] = b" \n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, r"test/neg has 4 reviews instead of those numbered 0\.\.4; missing is number 3"),
        (_add, r"train/pos has 6 reviews instead of those .*; not wanted is number 5"),
        (_spoil, r"aclImdb/test/pos/0_9\.txt: byte 3 is not UTF-8"),
        (_empty, r"aclImdb/train/neg/2_2\.txt: empty"),
        (dict.clear, r"train/neg has 0 reviews"),
    ],
)
def test_bad_reviews(tmp_path, change, message):
    contents = _reviews()
    change(contents)
    write(tmp_path / "aclImdb.tar.gz", contents)
    with pytest.raises(ValueError, match=rf"aclImdb\.tar\.gz: {message}") as caught:
        data.load_from(REVIEWS, "train", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.xz", ".zip"])
def test_reviews_cut_short(tmp_path, ending):
    path = tmp_path / f"aclImdb{ending}"
    write(path, _reviews())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"aclImdb\..*: cut short or damaged .*fetch it again"):
        data.load_from(REVIEWS, "train", tmp_path)


def test_reviews_nowhere(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"imdb_bytes needs aclImdb or .*--data_dir"):
        data.load("imdb_bytes", "train", tmp_path)


def test_a_changed_review_is_prepared_anew(tmp_path):
    write(tmp_path, _reviews())
    before = REVIEWS.digest(tmp_path)
    write(tmp_path, {"aclImdb/test/pos/0_9.txt": b"otherwise"})
    assert REVIEWS.digest(tmp_path) != before
    again = REVIEWS.digest(tmp_path)
    write(tmp_path, _EXTRA)
    assert REVIEWS.digest(tmp_path) == again


@pytest.mark.full
def test_real_reviews(prepared):
    splits = prepared("imdb_bytes")
    assert [len(splits[split]) for split in data.SPLITS] == [22_500, 2_500, 25_000]
    for part, names, cut in (("train", ("train", "valid"), 24_273), ("test", ("test",), 24_332)):
        lengths = np.concatenate([splits[name]["x"].lengths for name in names])
        labels = np.concatenate([splits[name]["y"] for name in names])
        assert np.bincount(labels).tolist() == [12_500, 12_500]
        # From the description: how many have at most 1,000, 2,048 and 4,096 bytes.
        short = {"train": (12_867, 20_857), "test": (13_130, 21_077)}[part]
        assert ((lengths <= 1000).sum(), (lengths <= 2048).sum()) == short
        assert 0 <= cut - (lengths < 4096).sum() < 10
        assert lengths.max() == 4096
        assert lengths.min() == {"train": 52, "test": 32}[part]
    text = _bytes(splits["train"]["x"][splits["train"].ids.index("train/pos/0")]).decode()
    assert text.startswith("Bromwell High is a cartoon comedy.")
    shown = reviews.show(splits["test"].example(0), splits["test"].facts)
    assert "did not like it" in shown[-1]


# Pairs of papers

AAN = retrieval.aan_source({"train": Count(3), "valid": Count(1), "test": Count(1)})

LONG = "é" * 3000

ROWS = {
    "train": [
        ("1.0", "P00-1", "P00-2", 'He said "no', "it's so"),
        ("0.0", "P00-3", "P00-4", LONG, "b"),
        ("0", "P00-1", "P00-2", " blank ", LONG[:2000]),
    ],
    "eval": [("1", "a", "b", "one", "two")],
    "test": [("0.0", "a", "b", "x" * 4001, "y" * 4000)],
}


def _tsv(rows) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def _write_aan(folder, **changed) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in ROWS.items():
        (folder / f"new_aan_pairs.{split}.tsv").write_bytes(changed.get(split, _tsv(rows)))


@pytest.mark.parametrize("place", [".", "aan", "lra_release/lra_release/tsv_data"])
def test_aan(tmp_path, place):
    _write_aan(tmp_path / place)
    raw = tmp_path / place / "new_aan_pairs.eval.tsv"
    raw.with_name(f"{raw.name}.gz").write_bytes(gzip.compress(raw.read_bytes()))
    raw.unlink()
    splits = load_splits(AAN, tmp_path)
    for split, name in (("train", "train"), ("valid", "eval"), ("test", "test")):
        found = splits[split]
        assert found.facts == {"tokens": 257, "classes": 2}
        assert found["y"].tolist() == [int(float(row[0])) for row in ROWS[name]]
        for column, field in (("x", 3), ("x2", 4)):
            texts = [_bytes(tokens) for tokens in found[column]]
            assert texts == [row[field].encode()[:4000] for row in ROWS[name]]
    assert "they belong together" in retrieval.show(splits["train"].example(0), {})[-1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"1.0\ta\tb\tone text\n", "4 fields; there should be 5"),
        (b"1.0\ta\tb\tone\ttwo\tthree\n", "6 fields"),
        (b"\n", "1 fields"),
        (b"2.0\ta\tb\tone\ttwo\n", r"the label is b'2\.0'; it should be 0\.0 or 1\.0"),
        (b"1.0\ta\tb\t\ttwo\n", "an empty text"),
        (b"1.0\ta\tb\tone\t\n", "an empty text"),
        (b"1.0\ta\tb\tone\ttw\xff\n", "byte 2 is not UTF-8"),
    ],
)
def test_bad_line_of_aan(tmp_path, line, message):
    lines = _tsv(ROWS["train"]).splitlines(keepends=True)
    _write_aan(tmp_path, train=b"".join([lines[0], line, lines[2]]))
    with pytest.raises(ValueError, match=rf"new_aan_pairs\.train\.tsv: line 2: {message}"):
        data.load_from(AAN, "test", tmp_path)


def test_aan_with_a_line_less(tmp_path):
    _write_aan(tmp_path, train=_tsv(ROWS["train"][:2]))
    with pytest.raises(
        ValueError, match="not the published data: train should have 3 examples, but has 2 ex"
    ):
        data.load_from(AAN, "test", tmp_path)
    assert data.source_of("aan").digest(tmp_path) == AAN.digest(tmp_path)
    with pytest.raises(ValueError, match="train should have 147086 examples"):
        data.load("aan", "test", tmp_path)


def test_aan_without_a_file(tmp_path):
    _write_aan(tmp_path / "aan")
    (tmp_path / "aan" / "new_aan_pairs.eval.tsv").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"aan needs new_aan_pairs\.eval\.tsv or .*aan; give"
    ):
        data.load_from(AAN, "test", tmp_path)


def test_aan_is_not_held_in_memory(tmp_path):
    rows = [("1.0", "a", "b", "x" * 20_000, "y" * 20_000)] * 100
    _write_aan(tmp_path, train=_tsv(rows))
    tracemalloc.start()
    try:
        pairs = dict.__getitem__(AAN.read(tmp_path, tmp_path).splits, "train")
        assert sum(len(example["x"]) for _, example in pairs) == 100 * 4000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1e6  # of 4 MB


# The stand-in


def _article(name: str, size: int) -> str:
    """A text in which every stretch of ten bytes occurs but once."""
    words = " ".join(f"{name}{n:06}" for n in range(size // 8))
    head = f" \n = {name} {name} = \n \n = = Life = = \n \n "
    return f"{head}{words[: size // 2]}\n{words[size // 2 :]} \n"


SIZES = {"A": 9000, "B": 30_000, "C": 7000, "D": 12_000}


def _wiki(folder) -> None:
    folder.mkdir()
    text = "".join(_article(name, size) for name, size in SIZES.items())
    # Remains of a table: not between blank lines, so no titles.
    text += "\n".join([" x ", " = Goals ; A = ", " = Points = ", " ", ""])
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text(text)


def test_articles():
    lines = (
        b" \n = One = \n \n text \n = x = y \n = = Part = = \n \n = 1 / 2 = \n \n"
        b" = Two = \n \n"
        b" more \n = a = \n \n = = = Deep = = = \n \n = Last = \n".splitlines(keepends=True)
    )
    found = retrieval.articles(lines)
    # "= 1 / 2 =" stands between blank lines, as a title does.
    assert [text.split(b"\n")[1] for text in found[:1]] == [b" text "]
    assert len(found) == 4
    assert b"= = Part = =" in found[0]
    assert b" = a = \n" in found[2]
    assert b"= = = Deep = = =" in found[2]
    assert found[3] == b""


def test_wikipairs(tmp_path):
    _wiki(tmp_path / "wikitext2")
    source = retrieval.stand_in_source(None, {"train": 200, "valid": 10, "test": 11})
    splits = load_splits(source, tmp_path)
    assert [len(splits[split]) for split in data.SPLITS] == [200, 10, 11]
    assert [int(splits[split]["y"].sum()) for split in data.SPLITS] == [100, 5, 6]
    text = (tmp_path / "wikitext2" / "train.txt").read_text()
    seen = set()
    for x, x2, y in zip(*(splits["train"][name] for name in ("x", "x2", "y")), strict=True):
        pair = [_bytes(tokens).decode() for tokens in (x, x2)]
        places = [text.index(part) for part in pair]
        assert [len(part) for part in pair] == [4000, 4000]
        assert all(text.count(part) == 1 and "= A A =" not in part for part in pair)
        names = [next(letter for letter in part if letter in "ABCD") for part in pair]
        assert (names[0] == names[1]) == (y == 1)
        if y:
            assert abs(places[0] - places[1]) >= 4000
            seen.add((names[0], places[0] < places[1]))
        else:
            seen.add(tuple(names))
    # C is too short. Every article and order of two, every two articles.
    assert seen == {(n, o) for n in "ABD" for o in (True, False)} | {
        (a, b) for a in "ABD" for b in "ABD" if a != b
    }
    again = {split: list(source.read(tmp_path, tmp_path).splits[split]) for split in data.SPLITS}
    for split, found in again.items():
        assert [example["y"] for _, example in found] == splits[split]["y"].tolist()
        assert all(
            np.array_equal(a["x"], b) for (_, a), b in zip(found, splits[split]["x"], strict=True)
        )
    assert not np.array_equal(splits["valid"]["x"][0], splits["train"]["x"][0])


def test_wikipairs_needs_two_long_articles(tmp_path):
    folder = tmp_path / "wikitext2"
    folder.mkdir()
    for split in data.SPLITS:
        (folder / f"{split}.txt").write_text(_article("A", 9000) + _article("B", 7000))
    with pytest.raises(ValueError, match=r"train\.txt: 1 articles of 8000 bytes; two are needed"):
        data.load("wikipairs", "train", tmp_path)


@pytest.mark.full
def test_real_wikipairs(prepared):
    splits = prepared("wikipairs")
    texts = wikitext.find("wikitext2", "2", None)
    # 600, 60 and 60 articles are published.
    for split, expected in zip(data.SPLITS, (600, 60, 60), strict=True):
        whole = retrieval.articles(texts.lines(split))
        assert len(whole) == expected
        found = splits[split]
        assert found["y"].tolist() == [1, 0] * (len(found) // 2)
        for index in range(0, len(found), len(found) // 20 + 1):
            pair = [_bytes(found[name][index]) for name in ("x", "x2")]
            homes = [{n for n, text in enumerate(whole) if part in text} for part in pair]
            assert all(homes)
            assert bool(homes[0] & homes[1]) == bool(found["y"][index])
