"""CIFAR-10: the published arrays where they are there, tiny originals in every form, bad ones."""

import hashlib
import io
import lzma
import os
import pickle
import struct

import numpy as np
import pytest
from original_case import load_real, load_splits, write

import data
from data.sets import cifar
from data.source import SPLITS, Count

CIFAR = {"train": Count(17), "valid": Count(3), "test": Count(4)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))


def random_images(count, *shape):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, *shape), np.uint8)
    return pixels, random.integers(0, 10, count).astype(np.uint8)


def python2_pickle(rows, labels):
    """A batch as Python 2 wrote the published ones: protocol 2, byte strings, NumPy 1's names."""

    def text(word):
        return b"U" + bytes([len(word)]) + word

    def long(number):
        return b"J" + struct.pack("<i", number)

    raw = rows.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + long(0) + b"\x85"
    array += text(b"b") + b"\x87R(" + long(1) + long(len(rows)) + long(3072) + b"\x86"
    array += b"cnumpy\ndtype\n" + text(b"u1") + long(0) + long(1) + b"\x87R("
    array += long(3) + text(b"|") + b"NNN" + long(-1) + long(-1) + long(0) + b"tb"
    array += b"\x89T" + struct.pack("<I", len(raw)) + raw + b"tb"
    batch = b"\x80\x02}(" + text(b"batch_label") + text(b"a batch")
    batch += text(b"labels") + b"](" + b"".join(map(long, labels.tolist())) + b"e"
    return batch + text(b"data") + array + b"u."


def python3_pickle(rows, labels):
    return pickle.dumps({"data": rows, "labels": labels.tolist()}, 4)


def batches(pickled=python2_pickle):
    """Tiny CIFAR-10: what is in it, ``[N, 32, 32, 3]``, and its files."""
    pixels, labels = random_images(24, 32, 32, 3)
    rows = pixels.transpose(0, 3, 1, 2).reshape(-1, 3072)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    contents = {
        f"cifar-10-batches-py/{name}": pickled(rows[4 * i : 4 * i + 4], labels[4 * i : 4 * i + 4])
        for i, name in enumerate(names)
    }
    contents["cifar-10-batches-py/batches.meta"] = b"not read"
    # The archive does not hold them in their order.
    return pixels, labels, dict(reversed(contents.items()))


def cifar_source(colour=True, md5=None):
    return cifar.cifar_source("tiny", "tiny", CIFAR, colour, md5 or {})


def parts(values):
    """Training, validation and test images of 24."""
    return dict(zip(SPLITS, (values[:17], values[17:20], values[20:]), strict=True))


@pytest.mark.parametrize("pickled", [python2_pickle, python3_pickle])
@pytest.mark.parametrize(
    "place",
    ["", "cifar10", "cifar-10-python.tar.gz", "cifar-10-batches-py.zip", "cifar-10-python.tar.xz"],
)
def test_cifar_layouts(tmp_path, place, pickled):
    pixels, labels, contents = batches(pickled)
    write(tmp_path / place, contents)
    splits = load_splits(cifar_source(), tmp_path)
    for split in SPLITS:
        wanted = parts(pixels)[split].reshape(-1, 1024, 3)
        np.testing.assert_array_equal(splits[split]["x"], wanted)
        np.testing.assert_array_equal(splits[split]["y"], parts(labels)[split])
        assert splits[split]["x"].dtype == splits[split]["y"].dtype == np.uint8
        assert splits[split].facts["names"][3] == "cat"
        assert splits[split].facts["classes"] == 10
    assert splits["valid"].ids == ["train/00017", "train/00018", "train/00019"]


def test_gray_out_of_the_batches(tmp_path):
    pixels, labels, contents = batches()
    write(tmp_path, contents)
    splits = load_splits(cifar_source(colour=False), tmp_path)
    exact = (pixels / 255 @ [0.2989, 0.5870, 0.1140] * 255.5).reshape(-1, 1024)
    for split in SPLITS:
        wanted, found = parts(exact)[split], splits[split]["x"]
        # float32 rounds otherwise than float64 where the exact value is nearly a whole number.
        near = np.abs(wanted - np.round(wanted)) < 1e-4
        assert near.mean() < 0.001
        assert (found == np.floor(wanted))[~near].all()
        np.testing.assert_array_equal(splits[split]["y"], parts(labels)[split])


def test_gray_of_known_colours():
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    assert cifar.gray(colours.astype(np.uint8)).tolist() == [0, 255, 76, 149, 29]


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return lzma.compress(stream.getvalue())


def gray_arrays():
    """Tiny arrays in gray, as ``../shared/data/cifar10_gray`` has them."""
    pixels, labels = random_images(24, 32, 32)
    contents = {f"train_{i + 1}.images.npy.xz": npy(pixels[4 * i : 4 * i + 4]) for i in range(5)}
    contents["test.images.npy.xz"] = npy(pixels[20:])
    contents["train.labels.npy.xz"], contents["test.labels.npy.xz"] = map(
        npy, (labels[:20], labels[20:])
    )
    return pixels, labels, contents


@pytest.mark.parametrize("folder", ["", "cifar10_gray"])
def test_gray_arrays(tmp_path, folder):
    pixels, labels, contents = gray_arrays()
    write(tmp_path / folder, contents)
    splits = load_splits(cifar_source(colour=False), tmp_path)
    for split in SPLITS:
        np.testing.assert_array_equal(splits[split]["x"], parts(pixels)[split].reshape(-1, 1024))
        np.testing.assert_array_equal(splits[split]["y"], parts(labels)[split])
    with pytest.raises(FileNotFoundError, match=r"needs cifar-10-batches-py or cifar-10-python\."):
        load_splits(cifar_source(colour=True), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train_3.images.npy.xz", npy(np.zeros((4, 32, 31), np.uint8)), r"uint8 \[4, 32, 31\] are"),
        ("train_3.images.npy.xz", npy(np.zeros((4, 32, 32))), r"float64 \[4, 32, 32\] are no im"),
        ("test.images.npy.xz", lzma.compress(b"no array"), "not a whole .npy file"),
        ("test.images.npy.xz", npy(np.array([None])), "not a whole .npy file .*other than numbers"),
        ("test.images.npy.xz", b"no xz", "cut short or damaged"),
        ("train.labels.npy.xz", npy(np.zeros(19, np.uint8)), r".*\[19\] labels for 20 images"),
        ("train.labels.npy.xz", npy(np.full(20, 10)), r".*a label is none of 0\.\.9"),
        ("train.labels.npy.xz", npy(np.full(20, 0.5)), r".*a label is none of 0\.\.9"),
    ],
)
def test_bad_gray_arrays(tmp_path, name, content, message):
    _, _, contents = gray_arrays()
    write(tmp_path, contents | {name: content})
    place = str(tmp_path) if "labels" in name else str(tmp_path / name)
    with pytest.raises(ValueError, match=message) as caught:
        load_splits(cifar_source(colour=False), tmp_path)
    assert str(caught.value).startswith(f"{place}: ")
    assert "\n" not in str(caught.value)


def test_missing_array_is_named(tmp_path):
    _, _, contents = gray_arrays()
    del contents["train_4.images.npy.xz"]
    write(tmp_path, contents)
    with pytest.raises(FileNotFoundError, match=r"train_4\.images\.npy: not there"):
        load_splits(cifar_source(colour=False), tmp_path)


class _Malicious:
    def __init__(self, call, *arguments):
        self._reduced = call, arguments

    def __reduce__(self):
        return self._reduced


@pytest.mark.parametrize("function", ["mkdir", "getattr", "frombuffer"])
def test_pickle_that_wants_to_call_is_refused(tmp_path, function):
    struck = tmp_path / "struck"
    call, says = {
        "mkdir": (_Malicious(os.mkdir, str(struck)), "posix.mkdir"),
        "getattr": (_Malicious(getattr, np.ndarray, "tofile"), "builtins.getattr"),
        "frombuffer": (_Malicious(np.frombuffer, b"abcd"), r"numpy\S*.frombuffer"),
    }[function]
    rows, labels = random_images(4, 3072)
    raw = pickle.dumps({"data": rows, "labels": labels.tolist(), "filenames": call}, 4)
    _, _, contents = batches()
    write(tmp_path / "cifar-10-python.tar.gz", contents | {"cifar-10-batches-py/data_batch_2": raw})
    words = rf"data_batch_2: not a whole pickle .*wants to call {says}; not to trust"
    with pytest.raises(ValueError, match=words):
        load_splits(cifar_source(), tmp_path)
    assert not struck.exists()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not a whole pickle of images"),
        (python2_pickle(*random_images(4, 3072))[:-500], "not a whole pickle of images"),
        (pickle.dumps([1, 2]), "not a whole pickle of images"),
        (pickle.dumps({"data": b"abc"}), "not a whole pickle of images"),
        (python3_pickle(*random_images(4, 3071)), r"uint8 \[4, 3071\] are no images"),
        (python3_pickle(np.zeros((4, 3072)), np.zeros(4)), r"float64 \[4, 3072\] are no images"),
        (python3_pickle(np.zeros((4, 3072), np.uint8), np.zeros(3)), r"\[3\] labels for 4 images"),
        (python3_pickle(np.zeros((1, 3072), np.uint8), np.array([-1])), "a label is none of 0..9"),
    ],
)
def test_bad_batch(tmp_path, raw, message):
    _, _, contents = batches()
    write(tmp_path, contents | {"cifar-10-batches-py/test_batch": raw})
    with pytest.raises(ValueError, match=rf"cifar-10-batches-py: test_batch: {message}") as caught:
        load_splits(cifar_source(), tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_batch_is_named(tmp_path):
    _, _, contents = batches()
    for name in ("data_batch_2", "test_batch"):
        del contents[f"cifar-10-batches-py/{name}"]
    write(tmp_path, contents)
    with pytest.raises(ValueError, match=r"batches-py: no data_batch_2, test_batch in it; fetch"):
        load_splits(cifar_source(), tmp_path)


def test_flipped_bit_in_a_batch_is_seen(tmp_path):
    """The published hashes are known, so a folder is checked like an archive."""
    _, _, contents = batches()
    published = {name.split("/")[1]: hashlib.md5(raw).hexdigest() for name, raw in contents.items()}
    write(tmp_path, contents)
    load_splits(cifar_source(md5=published), tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_4"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"data_batch_4 is not the published file \(MD5 "):
        load_splits(cifar_source(md5=published), tmp_path)


def test_what_is_no_cifar_10_is_refused(tmp_path):
    """Under the real name, the real hashes are asked for."""
    _, _, contents = batches()
    write(tmp_path, contents)
    for name in ("cifar10_gray", "scifar10"):
        with pytest.raises(ValueError, match=r"_batch\S* is not the published file \(MD5 "):
            data.load(name, "train", tmp_path)


@pytest.mark.full
def test_published_gray_images(tmp_path_factory):
    splits = load_real("cifar10_gray", tmp_path_factory.mktemp("cifar10_gray"))
    train = np.concatenate([splits["train"]["x"], splits["valid"]["x"]])
    labels = np.concatenate([splits["train"]["y"], splits["valid"]["y"]])
    test = splits["test"]
    assert splits["train"]["x"].shape == (45_000, 1024)
    assert np.bincount(labels).tolist() == [5_000] * 10
    assert np.bincount(test["y"]).tolist() == [1_000] * 10
    figures = [round(float(f), 2) for x in (train, test["x"]) for f in (x.mean(), x.std())]
    assert figures == [122.36, 61.11, 123.14, 60.99]
