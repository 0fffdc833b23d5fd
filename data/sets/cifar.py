"""CIFAR-10 out of the published batches, or out of arrays in gray."""

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data import files, paths
from data.sets.pixels import (
    CLASSES,
    Labelled,
    check_images,
    check_labelled,
    columns,
    find_file,
    in_splits,
    show,
)
from data.source import Count, Download, Folder, Reading, Source

NAMES = ["airplane", "automobile", "bird", "cat", "deer"]
NAMES += ["dog", "frog", "horse", "ship", "truck"]


def gray(colour: np.ndarray) -> np.ndarray:
    """Colour uint8 ``[..., 3]`` as gray uint8 ``[...]``.

    In the float32 arithmetic of TensorFlow's ``rgb_to_grayscale``, which Long Range Arena used.
    """
    red, green, blue = np.moveaxis(colour.astype(np.float32) / np.float32(255), -1, 0)
    light = np.float32(0.2989) * red + np.float32(0.5870) * green + np.float32(0.1140) * blue
    return (light * np.float32(255.5)).astype(np.uint8)


_TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_GRAY = [f"train_{number}.images.npy" for number in range(1, 6)]
_GRAY = [*_GRAY, "train.labels.npy", "test.images.npy", "test.labels.npy"]


def cifar_source(
    name: str,
    title: str,
    counts: dict[str, Count],
    colour: bool,
    md5: dict[str, str] = _MD5,
    downloads: tuple[Download, ...] = (),
) -> Source:
    """A data set that is CIFAR-10's batches, as a folder or an archive, in the data folder.

    Args:
        counts: of the published files; the validation split is as large as said here. The sums are
            those of the gray arrays, whose order is another one.
        colour: if not, arrays in gray will do too, in the data folder or in its ``cifar10_gray/``.
        md5: of the published batches.
    """
    stems = ["cifar-10-batches-py", "cifar-10-python.tar.gz"]
    stems += [*files.archived("cifar-10-batches-py"), *files.archived("cifar-10-python")[1:]]
    arrays = [prefix + file for prefix in ("", "cifar10_gray/") for file in files.either(_GRAY[0])]

    def find(data_dir: Folder) -> tuple[Path, list[Path]]:
        """The folder or archive of batches; or a folder and in it the files of arrays."""
        if colour or not (first := paths.find(arrays, data_dir)):
            places = [prefix + stem for prefix in ("", "cifar10/") for stem in stems]
            named = places if colour else [arrays[0], *places]
            return paths.original(name, named, data_dir), []
        return first.parent, [find_file(first.parent, file) for file in _GRAY]

    def digest(data_dir: Folder) -> str:
        path, parts = find(data_dir)
        return paths.stamp(*(parts or [path]))

    def read(data_dir: Folder, unfinished: Path) -> Reading:
        del unfinished
        path, parts = find(data_dir)
        expected = counts
        if parts:
            train, test = _arrays(parts)
        else:
            train, test = _batches(path, md5, (lambda images: images) if colour else gray)
            expected = {split: count._replace(total=None) for split, count in counts.items()}
        facts = {"classes": CLASSES, "names": NAMES}
        return Reading(str(path), in_splits(train, test, counts["valid"].examples), facts, expected)

    return Source(
        name=name,
        title=title,
        licence="none stated; asks to cite Krizhevsky, 'Learning Multiple Layers of Features from "
        "Tiny Images', 2009",
        origin="Krizhevsky, CIFAR-10: cifar-10-python.tar.gz, or its folder cifar-10-batches-py",
        columns=columns(1024, 3, text="red, green and blue, 0..255, a pixel a step")
        if colour
        else columns(1024, text="a gray pixel a step, 0..255"),
        digest=digest,
        read=read,
        show=show,
        downloads=downloads,
    )


def _arrays(originals: list[Path]) -> tuple[Labelled, Labelled]:
    *train, train_labels, test, test_labels = originals
    where = str(train[0].parent)
    parts = []
    for images, labels in ((train, train_labels), ([test], test_labels)):
        loaded = [_load(path) for path in images]
        for array, path in zip(loaded, images, strict=True):
            check_images(array, (32, 32), str(path))
        pixels = np.concatenate(loaded).reshape(-1, 1024)
        parts.append(check_labelled(pixels, _load(labels), (1024,), where))
    return parts[0], parts[1]


def _load(path: Path) -> np.ndarray:
    content = files.content(path)
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a whole .npy file ({error}); fetch it again") from error


def _batches(
    path: Path, md5: dict[str, str], convert: Callable[[np.ndarray], np.ndarray]
) -> tuple[Labelled, Labelled]:
    """Training and test images ``[N, 1024, 3]``, after `convert`."""
    found = {}
    wanted = [*_TRAIN, "test_batch"]
    for name, content in files.members(path, lambda inside: PurePosixPath(inside).name in wanted):
        file = PurePosixPath(name).name
        where = f"{path}: {file}"
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if digest != md5.get(file, digest):
            raise ValueError(f"{where} is not the published file (MD5 {digest}); fetch it again")
        images, labels = read_batch(content, where)
        found[file] = convert(images), labels
    if missing := [file for file in wanted if file not in found]:
        raise ValueError(f"{path}: no {', '.join(missing)} in it; fetch it again")
    images, labels = (np.concatenate([found[file][i] for file in _TRAIN]) for i in (0, 1))
    return (images, labels), found["test_batch"]


def read_batch(content: bytes, where: str) -> Labelled:
    """The images ``[N, 1024, 3]`` and labels in a pickle of CIFAR-10.

    Only numbers, texts, containers and arrays are read; a pickle that calls anything else is
    refused.

    Raises:
        ValueError: it is cut short, of another kind, or not to trust.
    """
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        rows, labels = np.asarray(batch["data"]), np.asarray(batch["labels"])
    except Exception as error:  # Pickle raises almost anything on foreign bytes.
        reason = " ".join(str(error).split())
        raise ValueError(f"{where}: not a whole pickle of images ({reason})") from error
    rows, labels = check_labelled(rows, labels, (3072,), where)
    # A row holds all of red, then all of green, then all of blue.
    return rows.reshape(-1, 3, 1024).transpose(0, 2, 1), labels


class _ArrayUnpickler(pickle.Unpickler):
    """Allows only the calls that NumPy 1 and 2 write for an array of numbers."""

    def find_class(self, module: str, name: str) -> Any:
        arrays = ("numpy.core.multiarray", "numpy._core.multiarray")
        if name == "_reconstruct" and module in arrays:
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise ValueError(f"it wants to call {module}.{name}; not to trust")


_COUNTS = {
    "train": Count(45_000, 1024, 1024, 46_080_000, 5_638_998_466),
    "valid": Count(5_000, 1024, 1024, 5_120_000, 626_038_493),
    "test": Count(10_000, 1024, 1024, 10_240_000, 1_260_926_010),
}
_FILES = (
    Download(
        "cifar-10-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        170_498_071,
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
)

SOURCES = [
    cifar_source(
        "cifar10_gray",
        "LRA Image: CIFAR-10 in gray, a pixel a step",
        _COUNTS,
        colour=False,
        downloads=_FILES,
    ),
    cifar_source(
        "scifar10",
        "CIFAR-10 in colour, a pixel a step",
        _COUNTS,
        colour=True,
        downloads=_FILES,
    ),
]
