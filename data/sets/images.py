"""Small images, pixel by pixel, row by row from the top left; the label is due at the end.

``cifar10_gray`` is LRA Image: CIFAR-10 in gray, 1,024 steps. The last tenth of the 50,000 training
images, in the order of the original, is ``valid``, as in Long Range Arena. ``scifar10`` is the same
in colour, 1,024 steps of red, green and blue.

``smnist`` is MNIST, 784 steps; the last 5,000 of the 60,000 training images are ``valid``. In
``psmnist`` one fixed permutation, ``permutation()``, reorders the pixels of every image.

``digits`` are the 8 x 8 digits that scikit-learn carries: 64 steps, to try things out without a
file. The split is ours: 70 / 10 / 20 % in their order. Neighbours may be of one writer, so
shuffling first would put one writer into several splits.
"""

import hashlib
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from data import arrays, files, paths, tree
from data.sets import cifar
from data.sets.pixels import CLASSES, check_labelled, columns, examples, in_splits, show
from data.source import SPLITS, Count, Download, Folder, Reading, Source


def permutation(size: int = 784) -> np.ndarray:
    """The order of the pixels of ``psmnist``: int64 ``[784]``; step t shows pixel ``[t]``.

    The first permutation of the seed 92916 by NumPy's old generator, whose numbers never change;
    earlier work uses the same.
    """
    return np.random.RandomState(92916).permutation(size)


_MNIST = [
    f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")
]
_MNIST_FOLDERS = ("", "mnist/", "MNIST/raw/", "raw/", "mnist/MNIST/raw/")
# As Keras keeps it.
_KERAS = [f"{folder}mnist.npz" for folder in ("", "mnist/", "datasets/")]


def _names(file: str) -> list[str]:
    """The names of one of the four files: also with a dot, and in a folder of its own name."""
    dotted = file.replace("-idx", ".idx")
    return [name for one in (file, dotted, f"{file}/{file}") for name in files.either(one)]


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in a file of the format idx, plain or compressed.

    Raises:
        ValueError: it is no such file, cut short or damaged.
        OSError: it cannot be read.
    """
    raw = files.content(path)
    # Two zeros, 8 for uint8, the number of axes; then the axes, in big-endian numbers.
    head = 4 * (1 + raw[3]) if len(raw) > 3 else 4
    if raw[:3] != b"\0\0\x08" or not 8 <= head <= 20 or len(raw) < head:
        raise ValueError(f"{path}: no idx file of bytes; {files.cure(raw)}")
    shape = np.frombuffer(raw[4:head], ">u4").tolist()
    values = np.frombuffer(raw, np.uint8, offset=head)
    if len(values) != math.prod(shape):
        raise ValueError(f"{path}: holds {len(values)} bytes, but says {shape}; fetch it again")
    return values.reshape(shape)


def idx_source(
    name: str,
    title: str,
    counts: dict[str, Count],
    permuted: bool,
    downloads: tuple[Download, ...] = (),
) -> Source:
    """A data set that is MNIST's four files, or Keras's ``mnist.npz``, in the data folder.

    The files may lie in its ``mnist/`` or in torchvision's ``MNIST/raw/``, with ``-idx3`` or
    ``.idx3`` in their names.

    Args:
        counts: of the published files; the validation split is as large as said here.
        permuted: whether pixels come in the order of ``permutation()``.
    """

    def find(data_dir: Folder) -> list[Path]:
        first = _names(_MNIST[0])
        places = [folder + file for folder in _MNIST_FOLDERS for file in first]
        found = paths.original(name, [*places, *_KERAS], data_dir, file=True)
        if found.suffix == ".npz":
            return [found]
        own_folder = found.parent.name.casefold() == found.name.casefold()
        inside = tree.Places(found.parent.parent if own_folder else found.parent)
        return [_fellow(inside, file, found) for file in _MNIST]

    def digest(data_dir: Folder) -> str:
        return paths.stamp(*find(data_dir))

    def read(data_dir: Folder, unfinished: Path) -> Reading:
        del unfinished
        originals = find(data_dir)
        facts: dict[str, Any] = {"classes": CLASSES}
        order = slice(None)
        if permuted:
            order = permutation()
            facts["permutation"] = order.tolist()
        parts = []
        if len(originals) == 1:
            loaded = _read_keras(originals[0])
        else:
            loaded = [read_idx(path) for path in originals]
        for part, (images, labels) in enumerate((loaded[:2], loaded[2:])):
            source = originals[0] if len(originals) == 1 else originals[2 * part]
            pixels, classes = check_labelled(images, labels, (28, 28), str(source))
            parts.append((pixels.reshape(-1, 784)[:, order], classes))
        where = str(originals[0] if len(originals) == 1 else originals[0].parent)
        return Reading(where, in_splits(*parts, counts["valid"].examples), facts, counts)

    return Source(
        name=name,
        title=title,
        licence="commonly given as CC BY-SA 3.0",
        origin="LeCun, Cortes and Burges, MNIST: train-images-idx3-ubyte.gz and its three fellows",
        columns=columns(784, text="a pixel a step, 0..255"),
        digest=digest,
        read=read,
        show=show,
        downloads=downloads,
    )


def _fellow(inside: tree.Places, file: str, first: Path) -> Path:
    for name in _names(file):
        if found := inside.find(name, file=True):
            return found
    raise FileNotFoundError(f"{first}: {file} is not beside it, compressed or not")


def _read_keras(path: Path) -> list[np.ndarray]:
    wanted = ["x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy"]
    found = dict(files.members(path, lambda inside: inside in wanted))
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(f"{path}: no {', '.join(missing)} in it, as Keras's mnist.npz has")
    try:
        return [arrays.from_npy(found[name]) for name in wanted]
    except ValueError as error:
        raise ValueError(f"{path}: not whole .npy files ({error}); fetch it again") from error


def _digits_file() -> Path:
    package = importlib.util.find_spec("sklearn")
    if package is None:
        raise FileNotFoundError(
            "digits needs the package scikit-learn, which is not installed; "
            "pip install scikit-learn"
        )
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not path.exists():
        raise FileNotFoundError(
            f"digits: no {path}; this scikit-learn came without its data; "
            "pip install --force-reinstall scikit-learn"
        )
    return path


def _digits_digest(data_dir: Folder = None) -> str:
    del data_dir
    return hashlib.sha256(_digits_file().read_bytes()).hexdigest()


def _digits_read(data_dir: Folder = None, unfinished: Path | None = None) -> Reading:
    del data_dir, unfinished
    path = _digits_file()
    try:
        table = np.array([line.split(",") for line in files.text(path).splitlines()], float)
    except ValueError as error:
        raise ValueError(f"{path}: not lines of equally many numbers ({error})") from error
    if table.ndim != 2 or table.shape[1] != 65 or not np.isin(table, range(17)).all():
        raise ValueError(f"{path}: a line is not 64 pixels of 0..16 and a label")
    table = table.astype(np.uint8)
    images, labels = check_labelled(table[:, :64], table[:, 64], (64,), str(path))
    splits, first = {}, 0
    for split in SPLITS:
        last = len(labels) if split == "test" else first + _DIGITS_COUNTS[split].examples
        splits[split] = examples("digits", images, labels, range(len(labels))[first:last])
        first = last
    return Reading(str(path), splits, {"classes": CLASSES, "levels": 17}, _DIGITS_COUNTS)


_DIGITS_COUNTS = {
    "train": Count(1257, 64, 64, 80_448, 393_663),
    "valid": Count(180, 64, 64, 11_520, 55_709),
    "test": Count(360, 64, 64, 23_040, 112_346),
}


_MNIST_COUNTS = {
    "train": Count(55_000, 784, 784, 43_120_000, 1_437_309_103),
    "valid": Count(5_000, 784, 784, 3_920_000, 129_989_442),
    "test": Count(10_000, 784, 784, 7_840_000, 264_923_200),
}
_CVDF = "https://storage.googleapis.com/cvdf-datasets/mnist"
_MNIST_FILES = tuple(
    Download(f"mnist/{file}.gz", f"{_CVDF}/{file}.gz", size, sha256)
    for file, size, sha256 in (
        (
            "train-images-idx3-ubyte",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        (
            "train-labels-idx1-ubyte",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        (
            "t10k-images-idx3-ubyte",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        (
            "t10k-labels-idx1-ubyte",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    )
)
SOURCES = [
    *cifar.SOURCES,
    idx_source(
        "smnist", "MNIST, a pixel a step", _MNIST_COUNTS, permuted=False, downloads=_MNIST_FILES
    ),
    idx_source(
        "psmnist",
        "MNIST, a pixel a step, in one fixed random order",
        _MNIST_COUNTS,
        permuted=True,
        downloads=_MNIST_FILES,
    ),
    Source(
        name="digits",
        title="1,797 digits of 8 x 8 pixels, a pixel a step, split by us",
        licence="CC BY 4.0; scikit-learn itself: BSD",
        origin="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, the test part "
        "as the Python package scikit-learn carries it; no file needed",
        columns=columns(64, text="a pixel a step, 0..16"),
        digest=_digits_digest,
        read=_digits_read,
        show=show,
    ),
]
