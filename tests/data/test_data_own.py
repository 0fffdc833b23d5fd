"""A user's own files: what is read, how it is split, what is kept, and what is refused."""

import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from data_case import run
from original_case import riff
from own_case import arrays, midi_folder, npz_file, samples, text_file, wav_folder

import data
from data import paths
from data.sets import own
from data.sets.own import files, text

SETTINGS = {"split_seed": 0, "frames_per_quarter": 4, "tokenizer": "words"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own; and another data set of the same name elsewhere, never to be read."""
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(path: Path, **settings) -> dict[str, data.Split]:
    source = own.source(own.kind_of(path), path, **{**SETTINGS, **settings})
    return {split: data.load_from(source, split, None) for split in data.SPLITS}


def prepared(cache: Path) -> list[str]:
    """What the cache keeps, but for locks."""
    return sorted(p.name for p in cache.glob("*/*") if p.name != "lock")


def makers() -> dict:
    return {
        "midi": lambda folder: midi_folder(folder / "midi"),
        "wav": lambda folder: wav_folder(folder / "wav"),
        "text": lambda folder: text_file(folder / "book.txt"),
        "arrays": lambda folder: npz_file(folder / "a.npz", **arrays("tag")),
    }


# What is read


def test_recordings_are_the_samples_of_the_files(tmp_path):
    splits = load(wav_folder(tmp_path / "wav"))
    assert [len(split) for split in splits.values()] == [8, 1, 1]
    for split in splits.values():
        assert split.facts["sample_rate"] == 8000
        for i, name in enumerate(split.ids):
            number = int(name.removeprefix("tone").removesuffix(".wav"))
            np.testing.assert_array_equal(split["x"][i], samples(number))


def test_recordings_of_another_rate_are_brought_to_that_of_most(tmp_path):
    """A tone of 440 Hz keeps its length and its pitch, and that it was resampled is said."""
    folder = wav_folder(tmp_path / "wav")
    time = np.arange(16000) / 16000
    tone = np.rint(9000 * np.sin(2 * np.pi * 440 * time))
    (folder / "high.wav").write_bytes(riff(tone, rate=16000))
    splits = load(folder)
    assert {split.facts["sample_rate"] for split in splits.values()} == {8000}
    assert splits["train"].facts["resampled"] == "1 of 11 files"
    (found,) = (
        split["x"][split.ids.index("high.wav")]
        for split in splits.values()
        if "high.wav" in split.ids
    )
    assert len(found) == 8000
    np.testing.assert_allclose(found[200:-200], tone[::2][200:-200], atol=40)
    assert "resampled" not in load(wav_folder(tmp_path / "all alike"))["train"].facts


@pytest.mark.parametrize("kind", ["8 bits", "float", "stereo"])
def test_recordings_of_every_form(tmp_path, kind):
    folder = wav_folder(tmp_path / "wav", 2)
    values = samples(5)
    if kind == "8 bits":
        content, expected = riff((values >> 8) + 128, dtype="u1"), values >> 8 << 8
    elif kind == "stereo":
        content, expected = riff(np.repeat(values, 2), channels=2), values
    else:
        content, expected = riff(values, dtype="<i2"), values
        raw = (values / 32768).astype("<f4").tobytes()
        fmt = struct.pack("<HHIIHH", 3, 1, 8000, 32000, 4, 32)
        body = (
            b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", len(raw)) + raw
        )
        content = b"RIFF" + struct.pack("<I", len(body)) + body
    (folder / "own.wav").write_bytes(content)
    found = {
        i: x for split in load(folder).values() for i, x in zip(split.ids, split["x"], strict=True)
    }
    np.testing.assert_array_equal(found["own.wav"], expected)


def test_pieces_are_rolls_with_so_many_frames_a_quarter(tmp_path):
    folder = midi_folder(tmp_path / "midi")
    for frames in (2, 4):
        splits = load(folder, frames_per_quarter=frames)
        for split in splits.values():
            for i, name in enumerate(split.ids):
                number = int(name.removeprefix("piece").removesuffix(".mid"))
                wanted = [60 + (number * j + number) % 20 for j in range(12)]
                found = [np.flatnonzero(row).tolist() for row in split["x"][i]]
                assert found == [[key - 21] for key in np.repeat(wanted, frames // 2)]


@pytest.mark.parametrize("tokenizer", ["characters", "bytes"])
def test_the_parts_of_a_text_are_the_text(tmp_path, tokenizer):
    path = text_file(tmp_path / "book.txt")
    splits = load(path, tokenizer=tokenizer)
    vocabulary = splits["train"].facts["vocabulary"]
    parts = [[vocabulary[token] for token in split["x"][0]] for split in splits.values()]
    whole = path.read_bytes() if tokenizer == "bytes" else path.read_text()
    if tokenizer == "bytes":
        assert b"".join(bytes.fromhex("".join(part)) for part in parts) == whole
    else:
        assert "".join("".join(part) for part in parts) == whole
        counts = np.bincount(np.concatenate([split["x"][0] for split in splits.values()]))
        assert (np.diff(counts) <= 0).all()  # Most frequent first, as adaptive softmax wants it.
    lengths = np.cumsum([len(part) for part in parts]) / len(whole)
    np.testing.assert_allclose(lengths, [0.8, 0.9, 1], atol=0.011)
    # Cut after the ends of lines.
    assert all(part[-1] in ("\n", "0a") for part in parts[:2])


def test_words_that_are_there_once_or_unknown_are_one_word(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a b a\nrare\x0c a\n" + "b a\u2028b\r\n" * 77 + "a new\n" + "b a\n", "utf-8")
    splits = load(path)
    vocabulary = splits["train"].facts["vocabulary"]
    words = [" ".join(vocabulary[t] for t in split["x"][0]) for split in splits.values()]
    eos, unknown = "<eos>", "<unk>"
    whole = " ".join(words)
    assert whole == (
        f"a b a {eos} {unknown} a {eos} " + f"b a b {eos} " * 77 + f"a {unknown} {eos} b a {eos}"
    )
    assert sorted(vocabulary) == sorted([eos, unknown, "a", "b"])
    counts = [words[0].split().count(word) for word in vocabulary]
    assert counts == sorted(counts, reverse=True)


def test_a_text_is_cut_at_a_line_else_at_a_blank_else_where_it_must():
    assert text.cut("x" * 10) == ["x" * 8, "x", "x"]
    line = "abc def\n" * 100
    assert [part[-1] for part in text.cut(line)] == ["\n"] * 3
    assert "".join(text.cut(line)) == line
    assert [part[-1:] for part in text.cut(b"ab " * 300)[:2]] == [b" ", b" "]


@pytest.mark.parametrize("task", ["classify", "tag", "estimate", "track"])
def test_arrays_are_told_apart_and_end_where_their_lengths_say(tmp_path, task):
    given = arrays(task)
    splits = load(npz_file(tmp_path / "a.npz", **given))
    assert splits["train"].facts["task"] == task
    assert [len(split) for split in splits.values()] == [24, 3, 3]
    seen = []
    for split in splits.values():
        for i, name in enumerate(split.ids):
            row, example = int(name), split.example(i)
            end = given["lengths"][row] if "lengths" in given else 12
            x, y = given["x"][row][:end], given["y"][row]
            y = y[:end] if task in ("tag", "track") else y
            np.testing.assert_array_equal(example["x"], x.astype(example["x"].dtype))
            np.testing.assert_array_equal(example["y"], np.asarray(y, example["y"].dtype))
            seen.append(row)
    assert sorted(seen) == list(range(30))
    wanted = {"classify": (2, None), "tag": (3, 7), "estimate": (2, None), "track": (1, None)}
    facts = splits["train"].facts
    assert (facts["classes"], facts.get("tokens")) == wanted[task]


def test_what_comes_after_a_sequence_may_be_anything(tmp_path):
    given = arrays("track")
    after = np.arange(12) >= given["lengths"][:, None]
    filled = {name: array.copy() for name, array in given.items()}
    filled["x"][after] = np.nan
    filled["y"][after] = np.inf
    one, two = (
        load(npz_file(tmp_path / f"{name}.npz", **which))["train"]
        for name, which in (("one", given), ("two", filled))
    )
    for name in ("x", "y"):
        np.testing.assert_array_equal(one[name].values, two[name].values)


def test_a_file_may_make_the_split_itself(tmp_path):
    parts = {"train": 9, "valid": 2, "test": 4}
    given = {
        f"{split}_{name}": array
        for split, count in parts.items()
        for name, array in arrays("tag", count).items()
    }
    splits = load(npz_file(tmp_path / "a.npz", **given))
    assert {name: len(split) for name, split in splits.items()} == parts
    np.testing.assert_array_equal(splits["test"]["x"].lengths, given["test_lengths"])


def test_pixels_are_bytes_and_stay_so(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (12, 20), np.uint8)
    split = load(npz_file(tmp_path / "a.npz", x=x, y=np.arange(12) % 2 == 0))["train"]
    assert (split["x"].dtype, split["x"].shape) == (np.uint8, (10, 20))
    assert split.facts["classes"] == 2
    assert "tokens" not in split.facts


# The split


def test_the_split_depends_on_its_seed_alone(tmp_path):
    folder = wav_folder(tmp_path / "wav", count=20, length=40)
    first, again, other = (
        {name: split.ids for name, split in load(folder, split_seed=seed).items()}
        for seed in (0, 0, 1)
    )
    assert first == again != other
    assert [len(ids) for ids in first.values()] == [16, 2, 2]
    assert len({name for ids in first.values() for name in ids}) == 20
    assert not any(set(first[a]) & set(first[b]) for a, b in (("train", "test"), ("valid", "test")))


def test_folders_of_the_user_are_the_split_and_copies_are_left_out(tmp_path):
    for i, split in enumerate(("train", "train", "valid", "test", "test")):
        (tmp_path / "wav" / split).mkdir(parents=True, exist_ok=True)
        (tmp_path / "wav" / split / f"{i}.WAV").write_bytes(riff(samples(i, 40)))
    (tmp_path / "wav/test/.hidden.wav").write_bytes(b"not a file of the user's")
    shutil.copy(tmp_path / "wav/train/0.WAV", tmp_path / "wav/train/copy.wav")
    splits = load(tmp_path / "wav")
    assert [len(split) for split in splits.values()] == [2, 1, 2]
    assert splits["train"].facts["left out"] == "1 with the content of another file"
    assert splits["train"].facts["split"] == "by its folders train, valid and test"
    shutil.rmtree(tmp_path / "wav/valid")
    with pytest.raises(ValueError, match=r"wav: has folders test and train, but no folder valid"):
        load(tmp_path / "wav")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train/a", "train/b", "val/c", "test/d"), "folders test and train, but no folder valid"),
        (("train/a", "valid/b", "valid/c", "more/d"), "train and valid, but no folder test"),
        (("train/a", "valid/b", "test/c", "d"), "but also files in none of them"),
        (("train/a", "valid/b", "test/c", "old/d"), "but also files in old; move"),
    ],
)
def test_half_a_split_by_folders_is_not_drawn_anew(tmp_path, names, words):
    """What was held back would be trained on."""
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.wav").write_bytes(bytes([i]))
    with pytest.raises(ValueError, match=words):
        files.by_file(files.in_folder(tmp_path, (".wav",)), seed=0)


def test_linked_folders_are_followed(tmp_path):
    elsewhere = wav_folder(tmp_path / "elsewhere", length=40)
    (tmp_path / "wav").mkdir()
    (tmp_path / "wav/linked").symlink_to(elsewhere)
    assert sum(len(split) for split in load(tmp_path / "wav").values()) == 10


# What is kept


@pytest.mark.parametrize("kind", makers())
def test_prepared_data_are_those_of_the_content_and_the_settings(tmp_path, cache, kind):
    path = makers()[kind](tmp_path)
    first = load(path)
    (kept,) = prepared(cache)
    read = first["train"].read
    assert read["kind"] == "own"
    assert read["path"] == str(path)
    # A new time of change is no new content, and another place is not either.
    os.utime(path if path.is_file() else next(path.iterdir()))
    load(path)
    assert prepared(cache) == [kept]
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / path.name)
    again = load(moved)
    assert prepared(cache) == [kept]
    assert again["train"].read == {**read, "path": str(moved)}
    # Content and settings are.
    changed = {"midi": "frames_per_quarter", "text": "tokenizer"}.get(kind, "split_seed")
    load(moved, **{changed: {"tokenizer": "bytes"}.get(changed, 3)})
    assert len(prepared(cache)) == 2
    file = moved if moved.is_file() else min(moved.iterdir())
    before, stamp = file.read_bytes(), file.stat()
    file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert own.find(kind, moved).sha256 != read["sha256"]


def test_a_damaged_copy_is_made_again(tmp_path, cache):
    path = wav_folder(tmp_path / "wav", length=40)
    before = load(path)["test"]["x"][0].copy()
    target = next(cache.rglob("test/x.npy"))
    target.write_bytes(target.read_bytes()[:-2] + b"\0\0")
    np.testing.assert_array_equal(load(path)["test"]["x"][0], before)


def test_nothing_else_of_the_same_name_is_read(tmp_path, monkeypatch):
    """An export or a TFDS copy beside the originals would come first for any other data set."""
    path = wav_folder(tmp_path / "waves", length=40)
    usual = tmp_path / "usual"
    (usual / "prepared" / "own_waves").mkdir(parents=True)
    (usual / "surnn_own_waves").mkdir()
    monkeypatch.setenv(paths.DATA_VARIABLE, str(usual))
    assert load(path)["train"].name == "own_waves"


def test_files_that_change_while_they_are_read_are_refused(tmp_path, cache):
    path = wav_folder(tmp_path / "wav", length=40)
    source = own.source("wav", path, **SETTINGS)
    (path / "tone3.wav").write_bytes(riff(samples(99, 40)))
    with pytest.raises(ValueError, match=r"tone3.wav: changed while it was read; run again"):
        data.load_from(source, "train", None)
    assert prepared(cache) == []


def test_names():
    assert paths.own_name("/a/My Waltzes (1).d/") == "own_My_Waltzes_1"
    assert paths.own_name("x/...") == "own_data"
    assert files.shares(3, 0).keys() == {"train", "valid", "test"}
    assert [len(part) for part in files.shares(25, 5).values()] == [21, 2, 2]


def test_describe_takes_a_path(tmp_path, cache):
    path = wav_folder(tmp_path / "wav")
    done = run("-m", "data.describe", path, "--split_seed=3", SURNN_CACHE=cache)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "own_wav: 10 WAV files of your own"
    assert ["train", "8", "1200", "1200.0", "1200", "9600"] in [line.split()[:6] for line in lines]
    sha256 = own.find("wav", path).sha256
    assert f"read: {path} (own, SHA-256 {sha256})" in lines
    assert "sample_rate: 8000, split: by file, drawn with split_seed 3" in lines
    midi_folder(path)
    done = run("-m", "data.describe", path, SURNN_CACHE=cache)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: both .mid and .wav files in it; name a folder")


def test_columns_of_a_long_text_do_not_run_together(tmp_path):
    done = run("-m", "data.describe", text_file(tmp_path / "long.txt", 40_000), "--tokenizer=bytes")
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.partition("\nsplit ")[2].splitlines()[:4]
    split = load(tmp_path / "long.txt", tokenizer="bytes")["train"]
    assert len(head.split()) == 7  # "mean value" is two words.
    assert rows[0].split()[:3] == ["train", "1", str(len(split["x"][0]))]
    assert len({len(row) for row in rows}) == 1
