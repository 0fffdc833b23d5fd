"""WikiText: tiny texts in its forms, bad ones, the real one."""

import functools
import gzip
import lzma
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from original_case import load_real, load_splits, write

import data
from data import files, paths
from data.sets import wikitext


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Loads real sets, each of them prepared once for this module."""
    return functools.partial(load_real, folder=tmp_path_factory.mktemp("real"))


TRAIN = " \n = Title = \n \n the cat sat on the mat ; le café fermé <unk> \n the end \n"
VALID = " the <unk> cat \n"
TEST = "mat\u2028the end"
VOCABULARY = ["<eos>", "the", "=", "Title", "cat", "sat", "on", "mat", ";", "le", "café", "fermé"]
VOCABULARY += ["<unk>", "end"]


def _source(strict=True, size=14):
    return wikitext.text_source("wikitext9", "9", "a title", size, None, strict=strict)


def _write_wiki(folder, form="wiki.{}.tokens", **changed) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in {"train": TRAIN, "valid": VALID, "test": TEST, **changed}.items():
        path = folder / form.format(split)
        raw = text if isinstance(text, bytes) else text.encode()
        packed = {".xz": lzma.compress, ".gz": gzip.compress}.get(path.suffix, bytes)(raw)
        path.write_bytes(packed)


def _zip_wiki(path, **changed) -> None:
    texts = {"train": TRAIN, "valid": VALID, "test": TEST, **changed}
    write(path, {f"wikitext-9/wiki.{s}.tokens": t.encode() for s, t in texts.items() if t})


@pytest.mark.parametrize(
    ("folder", "form"),
    [
        ("wikitext9", "{}.txt"),
        ("wikitext9", "{}.txt.xz"),
        ("wikitext-9", "wiki.{}.tokens"),
        ("wikitext-9", "wiki.{}.tokens.gz"),
        (".", "wiki.{}.tokens"),
        ("wikitext-9-v1.zip", None),
        ("wikitext9/wikitext-9-v1.zip", None),
    ],
)
def test_wikitext(tmp_path, folder, form):
    if form is None:
        (tmp_path / folder).parent.mkdir(exist_ok=True)
        _zip_wiki(tmp_path / folder)
    else:
        _write_wiki(tmp_path / folder, form)
    splits = load_splits(_source(), tmp_path)
    expected = {
        "train": "<eos> = Title = <eos> <eos> the cat sat on the mat ; le café fermé <unk> <eos> "
        "the end <eos>",
        "valid": "the <unk> cat <eos>",
        "test": "mat the end <eos>",
    }
    for split, found in splits.items():
        assert found.ids == [split]
        assert found.facts == {"vocabulary": VOCABULARY}
        assert found["x"].values.dtype == np.int32
        words = [VOCABULARY[index] for index in found["x"][0]]
        assert " ".join(words) == expected[split]
    shown = wikitext.show(splits["train"].example(0), splits["train"].facts)
    assert shown[:2] == ["<eos>", "= Title = <eos>"]


def test_vocabulary_is_by_frequency_and_then_by_appearance():
    words, ids = wikitext.vocabulary_and_ids([b"b c a a\n", b"c d"], "here")
    # Two of c, of a and of the end of a line; one of b and of d.
    assert words == ["c", "a", "<eos>", "b", "d"]
    assert ids.tolist() == [3, 0, 1, 1, 2, 0, 4, 2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"valid": "the dog"}, r"wiki\.valid\.tokens: line 1: the word 'dog' is not in the voc"),
        ({"test": "the\n\ncat hat"}, r"wiki\.test\.tokens: line 3: the word 'hat' is not"),
        ({"valid": b"the\n caf\xe9\n"}, r"wiki\.valid\.tokens: line 2: byte 4 is not UTF-8"),
        ({"train": b"\xff\xfe"}, r"wiki\.train\.tokens: line 1: byte 0 is not UTF-8"),
        ({"train": ""}, r"wiki\.train\.tokens: empty"),
        ({"test": ""}, "test: x is empty"),
        (
            {"train": TRAIN + "more"},
            r"wiki\.train\.tokens: not the published text: 23 words of 15 kinds; .* 14 kinds",
        ),
    ],
)
def test_bad_wikitext(tmp_path, changed, message):
    _write_wiki(tmp_path / "wikitext-9", **changed)
    with pytest.raises(ValueError, match=message) as caught:
        data.load_from(_source(), "train", tmp_path)
    assert "\n" not in str(caught.value)


def test_unknown_words_become_unk_where_asked(tmp_path):
    _write_wiki(tmp_path / "wikitext-9", valid="the dog sat")
    found = data.load_from(_source(strict=False), "valid", tmp_path)
    assert [VOCABULARY[index] for index in found["x"][0]] == ["the", "<unk>", "sat", "<eos>"]
    assert len(VOCABULARY) == len(found.facts["vocabulary"])


def test_no_unk_in_the_vocabulary(tmp_path):
    _write_wiki(tmp_path / "wikitext-9", train="the cat", valid="the dog", test="cat")
    with pytest.raises(ValueError, match="the word 'dog' is not in the vocabulary"):
        data.load_from(_source(strict=False, size=3), "valid", tmp_path)


def test_another_text_is_not_taken_for_wikitext(tmp_path):
    for name, number in (("wikitext2", "2"), ("wikitext103", "103")):
        _write_wiki(tmp_path / f"wikitext-{number}")
        message = rf"21 words of 14 kinds; there should be {33278 if number == '2' else 267735}"
        with pytest.raises(ValueError, match=message):
            data.load(name, "train", tmp_path)


def test_wikitext_without_a_file(tmp_path):
    _write_wiki(tmp_path / "wikitext-9")
    (tmp_path / "wikitext-9" / "wiki.valid.tokens").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"wikitext9 needs wiki\.valid\.tokens or .* not in"
    ):
        data.load_from(_source(), "train", tmp_path)


def test_bad_wikitext_archive(tmp_path):
    path = tmp_path / "wikitext-9-v1.zip"
    _zip_wiki(path, test=None)
    with pytest.raises(ValueError, match=r"v1\.zip: no wiki\.test\.tokens in it"):
        data.load_from(_source(), "train", tmp_path)
    _zip_wiki(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"wiki.train.tokens") + 30] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"v1\.zip: cut short or damaged"):
        data.load_from(_source(), "train", tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"v1\.zip: cut short or damaged"):
        data.load_from(_source(), "train", tmp_path)


def test_wikitext_takes_little_memory():
    words = np.array([f"word{n}" for n in range(1000)])
    draws = np.random.default_rng(0).integers(0, 1000, (10_000, 29))
    lines = [" ".join(row).encode() + b"\n" for row in words[draws]]
    tracemalloc.start()
    try:
        _, ids = wikitext.vocabulary_and_ids(iter(lines), "here")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(ids) == 300_000
    # An id takes 4 bytes, and there is some room to grow; a list would take 8, words take 55.
    assert peak < 10 * len(ids)


def test_real_wikitext2(prepared):
    splits = prepared("wikitext2")
    vocabulary = splits["train"].facts["vocabulary"]
    assert len(vocabulary) == len(set(vocabulary)) == 33_278
    for split, tokens, kinds, unknown in (
        ("train", 2_088_628, 33_278, 54_625),
        ("valid", 217_646, 13_777, 11_718),
        ("test", 245_569, 14_143, 15_218),
    ):
        ids = splits[split]["x"][0]
        counts = np.bincount(ids)
        assert len(ids) == tokens
        assert (counts > 0).sum() == kinds
        assert counts[vocabulary.index("<unk>")] == unknown
        if split == "train":
            assert (np.diff(counts) <= 0).all()
    try:
        path = paths.original("wikitext2", files.either("wikitext2/valid.txt"))
    except FileNotFoundError as error:
        pytest.skip(f"needs wikitext2/valid.txt: {error}")
    raw = files.text(path)
    words = [word for line in raw.split("\n")[:-1] for word in [*line.split(), "<eos>"]]
    assert [vocabulary[index] for index in splits["valid"]["x"][0]] == words
    assert Counter(words)["<eos>"] == 3_760
