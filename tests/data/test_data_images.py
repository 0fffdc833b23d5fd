"""MNIST and digits: the published ones where they are there, tiny ones in their form, bad ones."""

import gzip
import hashlib
import lzma
import struct
import sys

import numpy as np
import pytest
from data_case import run
from original_case import load_real, load_splits, write

import data
from data.sets import cifar, images
from data.source import SPLITS, Count

MNIST = {"train": Count(8), "valid": Count(3), "test": Count(5)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))


def random_images(count, *shape, seed=0):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, *shape), np.uint8)
    return pixels, random.integers(0, 10, count).astype(np.uint8)


def idx(array):
    """The format, written by the standard library."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def mnist_files(ending="", compress=bytes):
    """Tiny MNIST, and its contents."""
    train, test = random_images(11, 28, 28), random_images(5, 28, 28, seed=1)
    contents = {}
    for part, (pixels, labels) in (("train", train), ("t10k", test)):
        contents[f"{part}-images-idx3-ubyte{ending}"] = compress(idx(pixels))
        contents[f"{part}-labels-idx1-ubyte{ending}"] = compress(idx(labels))
    return train, test, contents


def mnist_source(permuted=False):
    return images.idx_source("permuted" if permuted else "plain", "tiny", MNIST, permuted)


@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
def test_mnist_layouts(tmp_path, folder, ending):
    compress = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[ending]
    train, test, contents = mnist_files(ending, compress)
    write(tmp_path / folder, contents)
    splits = load_splits(mnist_source(), tmp_path)
    for split, (pixels, labels), part in (
        ("train", train, slice(0, 8)),
        ("valid", train, slice(8, 11)),
        ("test", test, slice(0, 5)),
    ):
        np.testing.assert_array_equal(splits[split]["x"], pixels[part].reshape(-1, 784))
        np.testing.assert_array_equal(splits[split]["y"], labels[part])
        assert splits[split]["x"].dtype == splits[split]["y"].dtype == np.uint8
        assert splits[split].facts == {"classes": 10}
    assert splits["valid"].ids == ["train/00008", "train/00009", "train/00010"]


def test_permutation_never_changes():
    order = images.permutation()
    assert sorted(order) == list(range(784))
    assert order[:5].tolist() == [319, 576, 323, 107, 355]
    digest = hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()
    assert digest == "96240fe27409981c3ed3e92c20d995f7103a94c2282307bc776923030113be74"


def test_permuted_mnist_is_mnist_in_another_order(tmp_path):
    _, _, contents = mnist_files()
    write(tmp_path, contents)
    plain, permuted = (load_splits(mnist_source(way), tmp_path) for way in (False, True))
    for split in SPLITS:
        order = permuted[split].facts["permutation"]
        assert order == images.permutation().tolist()
        np.testing.assert_array_equal(permuted[split]["x"], plain[split]["x"][:, order])
        np.testing.assert_array_equal(permuted[split]["y"], plain[split]["y"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no idx file of bytes"),
        (b"\0\0\x08", "no idx file of bytes"),
        (b"\0\0\x08\x03\0\0", "no idx file of bytes"),
        (b"\0\0\x0d\x01\0\0\0\1\0\0\0\0", "no idx file of bytes"),
        (b"no idx file", "no idx file of bytes"),
        (idx(np.zeros((11, 28, 28)))[:-1], r"holds 8623 bytes, but says \[11, 28, 28\]"),
        (idx(np.zeros((11, 28, 28))) + b"\0", r"holds 8625 bytes, but says \[11, 28, 28\]"),
        (idx(np.zeros((11, 28, 27))), r"uint8 \[11, 28, 27\] are no images, .* \[N, 28, 28\]"),
        (idx(np.zeros((10, 28, 28))), r"\[11\] labels for 10 images"),
    ],
)
def test_bad_mnist_images(tmp_path, content, message):
    _, _, contents = mnist_files()
    write(tmp_path, contents | {"train-images-idx3-ubyte": content})
    with pytest.raises(ValueError, match=rf"train-images-idx3-ubyte: {message}") as caught:
        load_splits(mnist_source(), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([10] + [0] * 10, r"a label is none of 0\.\.9"), ([0] * 10, r"\[10\] labels for 11 images")],
)
def test_bad_mnist_labels(tmp_path, labels, message):
    _, _, contents = mnist_files()
    write(tmp_path, contents | {"train-labels-idx1-ubyte": idx(np.array(labels))})
    with pytest.raises(ValueError, match=rf"train-images-idx3-ubyte: {message}"):
        load_splits(mnist_source(), tmp_path)


def test_other_number_of_images_is_refused(tmp_path):
    _, _, contents = mnist_files()
    pixels, labels = random_images(12, 28, 28)
    contents |= {"train-images-idx3-ubyte": idx(pixels), "train-labels-idx1-ubyte": idx(labels)}
    write(tmp_path, contents)
    with pytest.raises(ValueError, match=r"not the published data: train should have 8 examples"):
        load_splits(mnist_source(), tmp_path)


def test_missing_file_of_mnist_is_named(tmp_path):
    _, _, contents = mnist_files()
    del contents["t10k-labels-idx1-ubyte"]
    write(tmp_path, contents)
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte is not beside it"):
        load_splits(mnist_source(), tmp_path)


def test_cut_gz_is_named(tmp_path):
    _, _, contents = mnist_files(".gz", gzip.compress)
    name = "t10k-images-idx3-ubyte.gz"
    write(tmp_path, contents | {name: contents[name][:-20]})
    with pytest.raises(ValueError, match=rf"{name}: cut short or damaged"):
        load_splits(mnist_source(), tmp_path)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    return load_real("smnist", tmp_path_factory.mktemp("smnist"))


@pytest.mark.full
def test_published_mnist(mnist):
    assert [len(mnist[split]) for split in SPLITS] == [55_000, 5_000, 10_000]
    train = np.concatenate([mnist["train"]["x"], mnist["valid"]["x"]])
    head = struct.pack(">4I", 2051, 60_000, 28, 28)
    # What the original's uncompressed file is known to hash to.
    md5 = hashlib.md5(head + train.tobytes()).hexdigest()
    assert md5 == "6bbc9ace898e44ae57da46a324031adb"
    labels = np.concatenate([mnist["train"]["y"], mnist["valid"]["y"]])
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(mnist["test"]["y"])[[0, 1]].tolist() == [980, 1135]
    # The usual figures of all training pixels, of 0..1.
    assert round(train.mean() / 255, 4) == 0.1307
    assert round(train.std() / 255, 4) == 0.3081


def test_digits_are_those_that_scikit_learn_loads(tmp_path):
    datasets = pytest.importorskip("sklearn.datasets", reason="needs the package scikit-learn")
    wanted = datasets.load_digits()
    splits = {split: data.load("digits", split) for split in SPLITS}
    assert [len(splits[split]) for split in SPLITS] == [1257, 180, 360]
    found = np.concatenate([splits[split]["x"] for split in SPLITS])
    np.testing.assert_array_equal(found, wanted.data)
    labels = np.concatenate([splits[split]["y"] for split in SPLITS])
    np.testing.assert_array_equal(labels, wanted.target)


def test_digits_do_not_import_scikit_learn():
    """That would take a second."""
    pytest.importorskip("sklearn", reason="needs the package scikit-learn")
    code = "import sys, data; data.load('digits', 'test'); print('sklearn' in sys.modules)"
    done = run("-c", code)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_missing_scikit_learn_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(FileNotFoundError, match=r"needs the package scikit-learn.*pip install"):
        data.load("digits", "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a line is not 64 pixels"),
        ("1,2,3\n", "a line is not 64 pixels"),
        (",".join(["17"] * 65), "a line is not 64 pixels of 0..16"),
        (",".join(["1.5"] * 65), "a line is not 64 pixels of 0..16"),
        (",".join(["1"] * 64 + ["10"]), "a label is none of 0..9"),
        ("1,2\n1\n", "not lines of equally many numbers"),
        ("a,b\n", "not lines of equally many numbers"),
        (",".join(["1"] * 65), "not the published data: train should have 1257 examples"),
        ((",".join(["0"] * 65) + "\n") * 1798, "not the published data: train should have 1257"),
    ],
)
def test_bad_digits(tmp_path, monkeypatch, text, message):
    package = tmp_path / "sklearn"
    write(
        package, {"__init__.py": b"", "datasets/data/digits.csv.gz": gzip.compress(text.encode())}
    )
    monkeypatch.setattr(
        images.importlib.util, "find_spec", lambda name: find_spec_in(package, name)
    )
    with pytest.raises(ValueError, match=rf"digits\.csv\.gz: {message}"):
        data.load("digits", "train")


def find_spec_in(package, name):
    assert name == "sklearn"
    return type("Spec", (), {"origin": str(package / "__init__.py")})


def test_pictures():
    example = {"x": np.array([0, 16, 8, 0], np.uint8), "y": np.uint8(3)}
    facts = {"levels": 17, "classes": 10}
    assert images.show(example, facts) == ["  @@", "==  ", "class 3"]
    facts["permutation"] = [1, 2, 3, 0]  # step 1, which is light, shows pixel 2
    assert images.show(example, facts)[:2] == ["    ", "@@=="]
    colour = {"x": np.full((1024, 3), 255, np.uint8), "y": np.uint8(3)}
    lines = cifar.show(colour, {"names": cifar.NAMES})
    assert lines == ["@" * 64] * 32 + ["class 3 cat"]
