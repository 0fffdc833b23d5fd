"""Shared by the image data sets: columns, splits, checks, and pictures in letters."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data import files, tree
from data.source import Column, Example

CLASSES = 10
"""Of every set of images here."""

Labelled = tuple[np.ndarray, np.ndarray]
"""Images uint8 ``[N, ...]`` and labels uint8 ``[N]``."""

_SHADES = np.array(list(" .:-=+*#%@"))


def show(example: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """The image, two characters a pixel, as the eye sees it; and its class."""
    x = np.asarray(example["x"]).astype(float)
    x = x.mean(axis=1) if x.ndim == 2 else x
    if "permutation" in facts:
        x[facts["permutation"]] = x.copy()
    shades = _SHADES[(x * len(_SHADES) / facts.get("levels", 256)).astype(int)]
    rows = np.repeat(shades, 2).reshape(math.isqrt(len(x)), -1)
    name = facts["names"][int(example["y"])] if "names" in facts else ""
    return ["".join(row) for row in rows] + [f"class {example['y']} {name}".rstrip()]


def columns(*shape: int, text: str) -> dict[str, Column]:
    """``x`` uint8 of this shape and text, and the label ``y``."""
    return {"x": Column("uint8", shape, text), "y": Column("uint8", (), "the class, 0..9")}


def in_splits(train: Labelled, test: Labelled, valid: int) -> dict[str, Iterator[Example]]:
    """The examples of three splits; the last `valid` training images are the second."""
    first = len(train[1]) - valid
    return {
        "train": examples("train", *train, range(first)),
        "valid": examples("train", *train, range(first, len(train[1]))),
        "test": examples("test", *test, range(len(test[1]))),
    }


def examples(
    part: str, images: np.ndarray, labels: np.ndarray, numbers: range
) -> Iterator[Example]:
    """The images with these numbers, called ``<part>/<number>``."""
    for number in numbers:
        yield f"{part}/{number:05d}", {"x": images[number], "y": labels[number]}


def check_labelled(
    images: np.ndarray, labels: np.ndarray, shape: tuple[int, ...], where: str
) -> Labelled:
    """Checks images and their labels; returns both, the labels as uint8.

    Raises:
        ValueError: images of another shape or dtype, another number of labels, or labels that are
            not 0..9.
    """
    check_images(images, shape, where)
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{where}: {list(labels.shape)} labels for {len(images)} images")
    if labels.dtype.kind not in "iu" or not np.isin(labels, range(CLASSES)).all():
        raise ValueError(f"{where}: a label is none of 0..{CLASSES - 1}")
    return images, labels.astype(np.uint8)


def check_images(images: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    """Checks dtype and shape.

    Raises:
        ValueError: these are no images of this shape.
    """
    if images.ndim != 1 + len(shape) or images.shape[1:] != shape or images.dtype != np.uint8:
        sizes = ", ".join(map(str, shape))
        raise ValueError(
            f"{where}: {images.dtype} {list(images.shape)} are no images, uint8 [N, {sizes}]"
        )


def find_file(folder: Path, file: str) -> Path:
    """The path of a file, as it is or compressed.

    Raises:
        FileNotFoundError: there is none.
    """
    inside = tree.Places(folder)
    for name in files.either(file):
        if found := inside.find(name, file=True):
            return found
    raise FileNotFoundError(f"{folder / file}: not there, compressed or not, beside its fellows")
