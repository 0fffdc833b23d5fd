"""CIFAR-10 out of the published batches, or out of arrays in gray."""

import hashlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data import arrays, files, paths, pickles
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
_GRAY_FOLDERS = ("", "cifar10_gray/")
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

    The batches are those for Python, or if there are none the binary ones.

    Args:
        counts: of the published files; the validation split is as large as said here. The sums are
            those of the gray arrays, whose order is another one.
        colour: if not, arrays in gray will do too, in the data folder or in its ``cifar10_gray/``.
        md5: of the published batches.
    """
    stems = ["cifar-10-batches-py", "cifar-10-python.tar.gz"]
    stems += [*files.archived("cifar-10-batches-py"), *files.archived("cifar-10-python")]
    stems += [*files.archived("cifar-10-batches-bin"), *files.archived("cifar-10-binary")]
    stems += ["data_batch_1", "data_batch_1.bin"]  # The folder of the batches itself.
    gray_files = [
        prefix + file for prefix in ("", "cifar10_gray/") for file in files.either(_GRAY[0])
    ]

    def find(data_dir: Folder) -> tuple[Path, list[Path]]:
        """The folder or archive of batches; or a folder and in it the files of arrays."""
        if colour or not (first := paths.find(gray_files, data_dir)):
            prefixes = ("", "cifar10/", "cifar-10/", "datasets/")
            places = [prefix + stem for prefix in prefixes for stem in stems]
            named = places if colour else [gray_files[0], *places]
            path = paths.original(name, named, data_dir)
            return path.parent if path.name.startswith("data_batch_1") else path, []
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
            train, test = _batches(path, md5, counts, (lambda images: images) if colour else gray)
            expected = {split: count._replace(total=None) for split, count in counts.items()}
        facts = {"classes": CLASSES, "names": NAMES}
        return Reading(str(path), in_splits(train, test, counts["valid"].examples), facts, expected)

    return Source(
        name=name,
        title=title,
        licence="none stated; asks to cite Krizhevsky, 'Learning Multiple Layers of Features from "
        "Tiny Images', 2009",
        origin="Krizhevsky, CIFAR-10: cifar-10-python.tar.gz, or its folder cifar-10-batches-py; "
        "or the binary version",
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
        return arrays.from_npy(content)
    except ValueError as error:
        cure = files.cure(content)
        raise ValueError(f"{path}: not a whole .npy file ({error}); {cure}") from error


def _batches(
    path: Path,
    md5: dict[str, str],
    counts: dict[str, Count],
    convert: Callable[[np.ndarray], np.ndarray],
) -> tuple[Labelled, Labelled]:
    """Training and test images ``[N, 1024, 3]``, after `convert`."""
    wanted = [*_TRAIN, "test_batch"]
    forms: dict[str, dict[str, Labelled]] = {"": {}, ".bin": {}}
    shades = {"train": 0, "test": 0}
    for name, content in files.members(
        path, lambda inside: PurePosixPath(inside).name.removesuffix(".bin") in wanted
    ):
        file = PurePosixPath(name).name
        where = f"{path}: {file}"
        stem = file.removesuffix(".bin")
        if stem == file:
            digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if digest != md5.get(file, digest):
                cure = files.cure(content)
                raise ValueError(f"{where} is not the published file (MD5 {digest}); {cure}")
            images, labels = read_batch(content, where)
        else:
            images, labels = read_binary(content, where)
            part = "test" if stem == "test_batch" else "train"
            shades[part] += int(gray(images).sum(dtype=np.int64))
        forms[file.removeprefix(stem)][stem] = convert(images), labels
    binary = len(forms[".bin"]) > len(forms[""])
    found = forms[".bin" if binary else ""]
    if missing := [file for file in wanted if file not in found]:
        raise ValueError(f"{path}: no {', '.join(missing)} in it; fetch it again")
    if binary:
        _check_shades(shades, counts, path)
    images, labels = (np.concatenate([found[file][i] for file in _TRAIN]) for i in (0, 1))
    return (images, labels), found["test_batch"]


def _check_shades(found: dict[str, int], counts: dict[str, Count], path: Path) -> None:
    """Compares sums of gray values: of binary batches no hash is known to us."""
    for part, splits in (("train", ("train", "valid")), ("test", ("test",))):
        totals = [counts[split].total for split in splits]
        # Their conversion to gray may have rounded a few pixels otherwise.
        if None not in totals and abs(found[part] - sum(totals)) > 1e-5 * sum(totals):
            raise ValueError(
                f"{path}: not the published images: the gray values of the {part} batches sum to "
                f"{found[part]}, not {sum(totals)}"
            )


def read_binary(content: bytes, where: str) -> Labelled:
    """The images ``[N, 1024, 3]`` and labels in a binary batch: a label, 3,072 bytes, and so on.

    Raises:
        ValueError: it is no such file.
    """
    size = 1 + 3072
    if not content or len(content) % size:
        raise ValueError(
            f"{where}: {len(content)} bytes, not {size} an image; {files.cure(content[:1000])}"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, size)
    images, labels = check_labelled(rows[:, 1:], rows[:, 0], (3072,), where)
    return images.reshape(-1, 3, 1024).transpose(0, 2, 1), labels


def read_batch(content: bytes, where: str) -> Labelled:
    """The images ``[N, 1024, 3]`` and labels in a pickle of CIFAR-10.

    Only numbers, texts, containers and arrays are read; a pickle that calls anything else is
    refused.

    Raises:
        ValueError: it is cut short, of another kind, or not to trust.
    """
    try:
        batch = pickles.load(content, with_arrays=True)
        if not isinstance(batch, dict):
            raise ValueError(f"it holds a {type(batch).__name__}")
        rows, labels = (_numbers(batch.get(name)) for name in ("data", "labels"))
    except ValueError as error:
        raise ValueError(f"{where}: not a whole pickle of images ({error})") from error
    rows, labels = check_labelled(rows, labels, (3072,), where)
    # A row holds all of red, then all of green, then all of blue.
    return rows.reshape(-1, 3, 1024).transpose(0, 2, 1), labels


def _numbers(value: Any) -> np.ndarray:
    if isinstance(value, pickles.Array):
        return value.value()
    if not isinstance(value, list) or not all(type(n) in (int, float) for n in value):
        raise ValueError("no data and labels as arrays or lists of numbers")
    # Some that are no labels, and too large for NumPy, become another that is none.
    return np.array([n if abs(n) < 1 << 15 else -1 for n in value])


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
