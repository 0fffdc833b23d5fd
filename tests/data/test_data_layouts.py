"""Layouts of other publishers: other names, other forms, two copies side by side."""

import io
import pickle
import struct

import numpy as np
import pytest
from original_case import load_splits, riff, sphere, tone, write
from tiers import full

import data
from data import paths
from data.sets import cifar, images, listops, speech, wikitext
from data.sets.pathfinder import source as pathfinder
from data.source import SPLITS, Count


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def home(tmp_path):
    """The user's data folder."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


# MNIST


def idx(array) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


RANDOM = np.random.default_rng(0)
DIGITS = {
    part: (RANDOM.integers(0, 256, (n, 28, 28), np.uint8), RANDOM.integers(0, 10, n, np.uint8))
    for part, n in (("train", 11), ("t10k", 5))
}
MNIST = images.idx_source(
    "mini", "tiny", {"train": Count(8), "valid": Count(3), "test": Count(5)}, False
)


def mnist(form: str) -> dict[str, bytes]:
    return {
        form.format(part=part, what=what, n=array.ndim): idx(array)
        for part, arrays in DIGITS.items()
        for what, array in zip(("images", "labels"), arrays, strict=True)
    }


def keras() -> bytes:
    stream = io.BytesIO()
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(stream, **dict(zip(names, [*DIGITS["train"], *DIGITS["t10k"]], strict=True)))
    return stream.getvalue()


def assert_mnist(home):
    splits = load_splits(MNIST, home)
    (pixels, labels), (test, classes) = DIGITS["train"], DIGITS["t10k"]
    np.testing.assert_array_equal(splits["train"]["x"], pixels[:8].reshape(8, -1))
    np.testing.assert_array_equal(splits["valid"]["y"], labels[8:])
    np.testing.assert_array_equal(splits["test"]["x"], test.reshape(5, -1))
    np.testing.assert_array_equal(splits["test"]["y"], classes)


@pytest.mark.parametrize(
    "form",
    [
        "{part}-{what}.idx{n}-ubyte",
        "mnist/{part}-{what}.idx{n}-ubyte",
        "{part}-{what}-idx{n}-ubyte/{part}-{what}-idx{n}-ubyte",
        "raw/{part}-{what}-idx{n}-ubyte",
        "mnist/MNIST/raw/{part}-{what}-idx{n}-ubyte",
        "Mnist/Raw/{part}-{what}-idx{n}-ubyte",
    ],
)
def test_mnist(home, form):
    write(home, mnist(form))
    assert_mnist(home)


def test_mnist_of_kaggle_has_a_folder_beside_each_file(home):
    write(home, mnist("{part}-{what}.idx{n}-ubyte"))
    write(home, mnist("{part}-{what}-idx{n}-ubyte/{part}-{what}-idx{n}-ubyte"))
    assert_mnist(home)


@pytest.mark.parametrize("place", ["mnist.npz", "datasets/mnist.npz"])
def test_mnist_of_keras(home, place):
    write(home, {place: keras()})
    assert_mnist(home)


def test_bad_mnist_of_keras(home):
    (home / "mnist.npz").write_bytes(keras()[:-99])
    with pytest.raises(ValueError, match=r"mnist\.npz: cut short or damaged .*; fetch it again"):
        load_splits(MNIST, home)
    stream = io.BytesIO()
    np.savez(stream, x_train=np.zeros(3))
    (home / "mnist.npz").write_bytes(stream.getvalue())
    with pytest.raises(
        ValueError, match=r"mnist\.npz: no y_train.npy, x_test.npy, y_test.npy in it"
    ):
        load_splits(MNIST, home)


# CIFAR-10

ROWS, LABELS = RANDOM.integers(0, 256, (24, 3072), np.uint8), RANDOM.integers(0, 10, 24, np.uint8)
PARTS = {"train": Count(17), "valid": Count(3), "test": Count(4)}
CIFAR = cifar.cifar_source("tiny", "tiny", PARTS, True, {})


def binary_batches(folder="", ending=".bin") -> dict[str, bytes]:
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    both = np.concatenate([LABELS[:, None], ROWS], 1)
    return {f"{folder}{n}{ending}": both[4 * i : 4 * i + 4].tobytes() for i, n in enumerate(names)}


def python_batches(folder="") -> dict[str, bytes]:
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    return {
        f"{folder}{name}": pickle.dumps(
            {b"data": ROWS[4 * i : 4 * i + 4], b"labels": LABELS[4 * i : 4 * i + 4].tolist()}, 2
        ).replace(b"C\x04data", b"U\x04data")
        for i, name in enumerate(names)
    }


def assert_cifar(home, source=CIFAR):
    splits = load_splits(source, home)
    colours = ROWS.reshape(24, 3, 1024)
    for split, part in zip(SPLITS, (slice(17), slice(17, 20), slice(20, 24)), strict=True):
        np.testing.assert_array_equal(splits[split]["x"].transpose(0, 2, 1), colours[part])
        np.testing.assert_array_equal(splits[split]["y"], LABELS[part])


@pytest.mark.parametrize(
    ("place", "folder"),
    [
        ("cifar-10-binary.tar.gz", "cifar-10-batches-bin/"),
        ("cifar-10-batches-bin", ""),
        ("cifar10/cifar-10-batches-bin", ""),
        ("cifar-10-binary/cifar-10-batches-bin", ""),
        (".", ""),
    ],
)
def test_cifar_binary(home, place, folder):
    write(home / place, binary_batches(folder))
    assert_cifar(home)


def test_cifar_binary_of_other_images(home):
    write(home / "cifar-10-batches-bin", binary_batches())
    total = int(cifar.gray(ROWS.reshape(24, 3, 1024).transpose(0, 2, 1)).sum(dtype=np.int64))
    other = {split: count._replace(total=total) for split, count in PARTS.items()}
    with pytest.raises(
        ValueError, match="cifar-10-batches-bin: not the published images: the gray"
    ):
        load_splits(cifar.cifar_source("tiny", "tiny", other, True, {}), home)
    (home / "cifar-10-batches-bin" / "data_batch_2.bin").write_bytes(bytes(3074 * 4))
    with pytest.raises(ValueError, match=r"data_batch_2\.bin: 12296 bytes, not 3073 an image"):
        load_splits(CIFAR, home)


# WikiText

TRAIN = " \n = Title = \n \n the cat sat <unk> \n the end \n"
TEXTS = {"train": TRAIN, "valid": " the cat \n", "test": " the end \n \n"}
WIKI = wikitext.text_source("wikitext9", "9", "a title", 8, None, strict=True)


def wiki(form: str) -> dict[str, bytes]:
    return {form.format(split): text.encode() for split, text in TEXTS.items()}


def shards(text: str, count: int) -> list[bytes]:
    """Parquet as Hugging Face writes it: a line a row, and nothing for a blank one."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs the package pyarrow")
    from pyarrow import parquet

    rows = [line + "\n" if line.strip() else "" for line in text.split("\n")[:-1]]
    found = []
    for part in np.array_split(np.array(rows, object), count):
        stream = io.BytesIO()
        table = pyarrow.table({"text": pyarrow.array(part.tolist(), pyarrow.string())})
        parquet.write_table(table, stream, row_group_size=2)
        found.append(stream.getvalue())
    return found


def parquets(folder="") -> dict[str, bytes]:
    found = {}
    for split, count in (("train", 2), ("validation", 1), ("test", 1)):
        for number, content in enumerate(shards(TEXTS[split[:5]], count)):
            found[f"{folder}{split}-{number:05}-of-{count:05}.parquet"] = content
    return found


def assert_wiki(home):
    splits = load_splits(WIKI, home)
    words = splits["train"].facts["vocabulary"]
    for split, text in TEXTS.items():
        expected = " ".join(f"{line} <eos>" for line in text.split("\n")[:-1]).split()
        assert [words[token] for token in splits[split]["x"][0]] == expected


@pytest.mark.parametrize(
    "folder",
    ["wikitext-9-v1/", "wikitext-9-v1/wikitext-9/", "WikiText9/wikitext-9/", "WikiText-9/"],
)
def test_wikitext_folders(home, folder):
    write(home, wiki(folder + "wiki.{}.tokens"))
    assert_wiki(home)


@pytest.mark.parametrize("folder", [full("wikitext-9-v1/"), "wikitext/wikitext-9-v1/", full("")])
def test_wikitext_of_hugging_face(home, folder):
    write(home, parquets(folder))
    assert_wiki(home)


def test_wikitext_shard_that_is_missing_or_bad(home):
    write(home, parquets("wikitext-9-v1/"))
    shard = home / "wikitext-9-v1" / "train-00001-of-00002.parquet"
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="has 1 of 2 parquet files of train"):
        load_splits(WIKI, home)
    shard.write_bytes(content[:-20])
    with pytest.raises(ValueError, match=r"00001-of-00002\.parquet: no whole parquet file"):
        load_splits(WIKI, home)


@pytest.mark.parametrize(
    "place", ["wiki.{}.raw", "wikitext-9-raw/wiki.{}.raw", "wikitext-9-raw-v1/{}-of.parquet"]
)
def test_raw_wikitext_is_another_text(home, place):
    write(home, wiki(place))
    with pytest.raises(FileNotFoundError, match=r"raw.*: the raw text, .*; wikitext9 is made of"):
        load_splits(WIKI, home)
    write(home, wiki("wiki.{}.tokens"))
    assert_wiki(home)


# Long Range Arena


@pytest.mark.parametrize(
    "folder", ["listops", "LRA_release/listops-1000", "lra-release/listops-1000"]
)
def test_listops_folders(home, folder):
    lines = b"Source\tTarget\n( ( ( [MAX 1 ) 2 ) ] )\t2\n"
    names = ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv")
    write(home / folder, dict.fromkeys(names, lines))
    splits = load_splits(listops.listops_source(dict.fromkeys(SPLITS, 1), 1, None), home)
    assert splits["test"]["y"].tolist() == [2]
    assert splits["test"].read["path"] == str(home / folder)


@pytest.mark.parametrize("other", ["curv_baseline", "curv_contour_length_9"])
@pytest.mark.parametrize("given", [True, False])
def test_easier_pathfinder_is_not_taken_for_the_hard_one(home, monkeypatch, other, given):
    (home / "lra_release" / "pathfinder32" / other / "metadata").mkdir(parents=True)
    monkeypatch.setenv("SURNN_DATA", str(home))
    source = pathfinder.pathfinder_source("pathfinder32", pathfinder.PATHFINDER32, {"train": 1}, 1)
    match = (
        f"pathfinder32: pathfinder32 is LRA's hard images, curv_contour_length_14, .*{other} has"
    )
    with pytest.raises(FileNotFoundError, match=match):
        source.digest(home if given else None)


def test_packed_pathfinder_is_to_be_unpacked(home):
    (home / "lra_release.gz").write_bytes(b"")
    source = pathfinder.pathfinder_source("pathfinder32", pathfinder.PATHFINDER32, {"train": 1}, 1)
    with pytest.raises(
        FileNotFoundError, match=r"lra_release\.gz: unpack it; pathfinder32 is read"
    ):
        source.digest(home)


# Speech


def timit(form: str, make) -> dict[str, bytes]:
    """Eight sentences of one speaker of each split."""
    speakers = ("TRAIN/DR1/FABC0", "TEST/DR1/FAKS0", "TEST/DR1/MDAB0")
    names = [f"{speaker}/SX{n}" for speaker in speakers for n in range(8)]
    return {form.format(name): make(tone(n)) for n, name in enumerate(names)}


def assert_timit(home):
    reading = data.source_of("timit").read(home, home)
    found = {split: list(reading.splits[split]) for split in SPLITS}
    assert [len(found[split]) for split in SPLITS] == [8, 8, 8]
    label, example = found["valid"][3]
    assert label == "TEST/DR1/FAKS0/SX3"
    np.testing.assert_array_equal(example["x"], tone(11))
    assert (reading.kind, reading.facts["version"]) == ("original", "LDC93S1")


KAGGLE = "darpa-timit-acousticphonetic-continuous-speech/data/"


@pytest.mark.parametrize(
    "form",
    [
        "TIMIT/{}.WAV",
        "TIMIT/{}.wav",
        "Timit/TIMIT/{}.WAV",
        "{}.WAV",
        "data/{}.WAV",
        KAGGLE + "{}.WAV",
        "DARPA-TIMIT-Acousticphonetic-Continuous-Speech/data/{}.WAV",
    ],
)
def test_timit_folders(home, form):
    write(home, timit(form, sphere))
    assert_timit(home)
    assert not paths.find(["nothing"], home)


def test_timit_of_kaggle_has_a_copy_beside_each_file(home):
    write(home, timit(KAGGLE + "{}.WAV", sphere))
    write(home, timit(KAGGLE + "{}.WAV.wav", lambda sound: riff(sound, 16000)))
    assert_timit(home)


def test_timit_of_kaggle_without_the_originals(home):
    write(home, timit(KAGGLE + "{}.WAV.wav", lambda sound: riff(sound, 16000)))
    assert_timit(home)


def test_timit_with_two_different_recordings(home):
    write(home, timit("TIMIT/{}.WAV", sphere))
    write(home, timit("TIMIT/{}.wav", lambda sound: riff(sound // 2, 16000)))
    with pytest.raises(ValueError, match="TIMIT: two recordings of TEST/DR1/FAKS0/SX0 that differ"):
        assert_timit(home)


def test_whole_timit_comes_before_the_sample(home):
    write(home, timit(KAGGLE + "{}.WAV", sphere))
    write(home / "timit", {"dr1-fvmh0/si1.wav": sphere()})
    assert_timit(home)


def test_folders_of_recordings_themselves(home):
    write(home / "a", {f"{n}_jackson_{n}.wav": riff(tone(n)) for n in (0, 7)})
    reading = data.source_of("fsdd").read(home / "a", home)
    assert [name for name, _ in reading.splits["train"]] == []
    names = ("LJ001-0001", "LJ002-0001", "LJ003-0001", "LJ004-0001")
    write(home / "b", {f"wavs/{name}.wav": riff(tone(3), 22050) for name in names})
    reading = data.source_of("ljspeech").read(home / "b", home)
    assert {s: [n for n, _ in reading.splits[s]] for s in SPLITS} == {
        "train": ["LJ004-0001"],
        "valid": ["LJ003-0001"],
        "test": ["LJ001-0001", "LJ002-0001"],
    }
    assert reading.kind == "original"


def test_a_sample_is_called_one(home):
    write(home / "ljspeech_sample.tar", {"wavs/LJ001-0001.wav": riff(tone(3), 22050)})
    assert data.source_of("ljspeech").read(home, home).kind == "sample"
    assert speech.COUNTS["ljspeech sample"]["train"].examples == 24
