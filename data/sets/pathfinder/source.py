"""Pathfinder32 and Pathfinder128 (Path-X) of the Long Range Arena (LRA): are two discs connected?

Two dashed curves of 14 dashes, and shorter ones that only distract; a disc lies on an end of one
long curve, and another on the other end of the same (label 1) or of the other (label 0). An image
is its pixels row by row, 1,024 or 16,384 steps. LRA's name for this difficulty, at which results
are published, is *hard* (``curv_contour_length_14``).

Reads the user's own copy of LRA's files, or generates the set by the recipe of the authors'
generator (Linsley et al., 2018; Tay et al., 2021) with LRA's parameters; see ``.paths``. In LRA's
files the first 80 % are for training, then 10 % for validation and 10 % for the test, in the order
of the numbered metadata files and of their lines. A generated set depends on the seed alone.
"""

import dataclasses
import hashlib
import importlib.util
import io
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data import files, generation, guarded, paths
from data.sets.pathfinder import raster
from data.sets.pathfinder.lookup import SCALE, Recipe, Tables, tables
from data.sets.pathfinder.paths import Snakes, distractors, targets
from data.source import SPLITS, Column, Count, Example, Folder, Reading, Source

PATHFINDER32 = Recipe(
    side=32,
    length=2,
    thickness=0.5,
    margins=(1,),
    dashes=14,
    apart=7,
    continuity=1.0,
    distractor_dashes=4,
    distractors=5,
    contrast=2.0,
    dash_contrast=0.75,
    disc=1.5,
)

PATHFINDER128 = Recipe(
    side=128,
    length=5,
    thickness=1.5,
    margins=(2, 3),
    dashes=14,
    apart=20,
    continuity=1.8,
    distractor_dashes=4,
    distractors=8,
    contrast=0.9,
    dash_contrast=1.0,
    disc=3.0,
)

SIZES = {"train": 160_000, "valid": 20_000, "test": 20_000}

_VERSION = 1
_HARD = "curv_contour_length_14"
_OTHERS = ("curv_contour_length_9", "curv_baseline", _HARD)
_PACKED = [f"lra_release{ending}" for ending in (*files.ARCHIVES, ".gz")]
_SHADES = " .:-=+*#%@"


def block(number: int, seed: int, images: int, recipe: dict[str, Any]) -> generation.Block:
    """Images of the recipe.

    Args:
        number: which block.
        seed: of the set.
        images: n, of the block.
        recipe: the fields of a ``Recipe``.

    Returns:
        ``x`` uint8 ``[n, side * side]`` and ``y`` uint8 ``[n]``.
    """
    chosen = Recipe(**(recipe | {"margins": tuple(recipe["margins"])}))
    random = np.random.Generator(np.random.PCG64([seed, number]))
    labels = random.integers(2, size=images).astype(np.uint8)
    margins = random.integers(len(chosen.margins), size=images)
    pixels = np.empty((images, chosen.side, chosen.side), np.uint8)
    for which, margin in enumerate(chosen.margins):
        rows = np.flatnonzero(margins == which)
        if len(rows):
            pixels[rows] = draw(tables(chosen, margin), labels[rows], random)
    return {"x": pixels.reshape(images, -1), "y": labels}


def draw(t: Tables, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws an image uint8 ``[side, side]`` for each of the labels ``[n]``."""
    rows = np.arange(len(labels))
    maps, pairs = targets(t, len(labels), random)
    canvas = np.zeros((len(labels), t.size), np.float32)
    _draw_dashes(t, canvas, pairs, t.recipe.contrast * t.recipe.dash_contrast)
    for others in distractors(t, maps, random):
        _draw_dashes(t, canvas, others, t.recipe.contrast)
    one = random.integers(2, size=len(labels))
    other = np.where(labels == 1, one, 1 - one)
    pixels = t.image(canvas)
    for places in (pairs.places[rows, one, 0], pairs.places[rows, other, -1]):
        for image, pixel in zip(pixels, t.pixel(places), strict=True):
            disc = raster.disc(pixel, t.recipe.disc, t.recipe.side, SCALE)
            np.maximum(image, disc / np.float32(255), out=image)
    low, high = (limit((1, 2), keepdims=True) for limit in (pixels.min, pixels.max))
    return ((pixels - low) / (high - low) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _draw_dashes(t: Tables, canvas: np.ndarray, grown: Snakes, contrast: float) -> None:
    lines = t.lines * np.float32(contrast / 255)
    around = np.arange(lines.shape[1]) - lines.shape[1] // 2
    around = around[:, None] * t.row + around
    rows = grown.map[:, None, None]
    _, count, length = grown.ways.shape
    for snake in range(count):
        for dash in range(length):
            places = grown.places[:, snake, dash, None, None] + around
            drawn = np.maximum(canvas[rows, places], lines[grown.ways[:, snake, dash]])
            canvas[rows, places] = drawn


def pathfinder_source(
    name: str, recipe: Recipe, sizes: dict[str, int], images: int, seed: int = 0
) -> Source:
    """``pathfinder32``, ``pathfinder128``, or a smaller set of the same form.

    Args:
        name: of the data set; LRA's name of the folder, too.
        recipe: of the images.
        sizes: the examples of each split.
        images: of a block; a generated set depends on it.
        seed: of a generated set.
    """
    pixels = recipe.side**2
    arguments = {"seed": seed, "images": images, "recipe": dataclasses.asdict(recipe)}
    counts = {split: Count(size, pixels, pixels, size * pixels) for split, size in sizes.items()}

    def digest(data_dir: Folder) -> str:
        if folder := _original(name, data_dir):
            # The metadata stand for the images, which are too many to look at each time.
            return paths.stamp(folder / "metadata", version=_VERSION)
        return hashlib.sha256(json.dumps([_VERSION, arguments, sizes]).encode()).hexdigest()

    def read(data_dir: Folder, unfinished: Path) -> Reading:
        facts = {"classes": 2, "side": recipe.side}
        if folder := _original(name, data_dir):
            listed = iter(_listed(folder, sum(sizes.values())))
            splits = {
                split: _read(folder, islice(listed, size), recipe.side)
                for split, size in sizes.items()
            }
            return Reading(str(folder), splits, facts | {"made": "by others"}, counts)
        stream = _generate(name, arguments, -(-sum(sizes.values()) // images), unfinished)
        # The splits take from one stream: they are read in this order.
        splits = {split: islice(stream, sizes[split]) for split in SPLITS}
        facts["made"] = f"here, seed {seed}"
        return Reading(f"{name} made here", splits, facts, counts, "made here")

    return Source(
        name=name,
        title=f"LRA Pathfinder, hard: {sum(sizes.values()):,} images of {recipe.side} x "
        f"{recipe.side}; do two discs lie on one dashed curve?",
        licence="none needed where made here; the authors' generator: MIT; LRA's files: Apache 2.0",
        origin=f"made here; or the folder {name} of LRA's lra_release, unpacked",
        columns={
            "x": Column("uint8", (pixels,), "pixels, row by row"),
            "y": Column("uint8", (), "1 where the discs lie on one curve"),
        },
        digest=digest,
        read=read,
        show=_show,
        generated=True,
    )


def _generate(
    name: str, arguments: dict[str, Any], count: int, unfinished: Path
) -> Iterator[Example]:
    number = 0
    function = f"{__name__}:block"
    for images in generation.generate(
        function, arguments, count, unfinished, f"{name}: making", "block"
    ):
        for x, y in zip(images["x"], images["y"], strict=True):
            yield f"{number:06d}", {"x": x, "y": y}
            number += 1


def _original(name: str, data_dir: Folder) -> Path | None:
    """The folder of the hard images in the user's copy.

    Raises:
        FileNotFoundError: the copy has not these images, or is still packed.
    """
    folders = (name, f"lra_release/{name}", f"lra_release/lra_release/{name}", f"pathfinder/{name}")
    places = [f"{folder}/{_HARD}/metadata" for folder in folders]
    found = paths.find([*places, f"{_HARD}/metadata"], data_dir)
    if found is None:
        # Its owner must not take other images for these.
        for folder in (*folders, "."):
            if easier := paths.find([f"{folder}/{other}" for other in _OTHERS], data_dir):
                raise FileNotFoundError(
                    f"{easier.parent}: {name} is LRA's hard images, {_HARD}, which are not in it; "
                    f"{easier.name} has other ones"
                )
        if packed := paths.find(_PACKED, data_dir):
            raise FileNotFoundError(
                f"{packed}: unpack it; {name} is read from its folder {name}/{_HARD}"
            )
    return found.parent if found else paths.find_or_make(name, places, data_dir)


def _listed(folder: Path, count: int) -> list[tuple[str, int]]:
    """All images of a copy in order: the path within, and the label."""
    listed = []
    metadata = (folder / "metadata").glob("*.npy")
    for path in sorted(metadata, key=lambda path: (len(path.stem), path.stem)):
        for number, line in enumerate(files.text(path).splitlines(), 1):
            where = f"{path}, line {number}"
            fields = line.split()
            if len(fields) < 4 or fields[3] not in ("0", "1"):
                raise ValueError(
                    f"{where}: {line[:80]!r}; it should be folder, file, number, label (0 or 1) ..."
                )
            image = PurePosixPath(*fields[:2])
            if image.is_absolute() or ".." in image.parts:
                raise ValueError(f"{where}: {image} would lie outside; not to trust")
            listed.append((str(image), int(fields[3])))
    if len(listed) != count:
        raise ValueError(
            f"{folder / 'metadata'}: lists {len(listed)} images; the published has {count}"
        )
    return listed


def _read(folder: Path, listed: Iterable[tuple[str, int]], side: int) -> Iterator[Example]:
    if importlib.util.find_spec("PIL") is None:
        raise FileNotFoundError(
            f"{folder}: reading PNG needs the package pillow; pip install pillow"
        )
    with guarded.Reader(f"{__name__}:pixels") as reader:
        for name, label in listed:
            path = str(folder / name)
            _, (record,) = reader(path, path, side)
            yield name, {"x": record["x"].ravel(), "y": np.uint8(label)}


def pixels(file: str, side: int) -> guarded.Answer:
    """Reads one PNG file; runs in a child, as Pillow decodes in native code.

    Returns:
        ``x`` uint8 ``[side, side]``.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged or another image.
    """
    from PIL import Image

    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, but the metadata list it; fetch it again")
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            mode, shape = image.mode, image.size[::-1]
            if whole := (mode == "L" and shape == (side, side)):
                image.verify()  # Its checksums; it cannot be read after that.
        if whole:
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                return None, [{"x": np.asarray(image)}]
    except Exception as error:  # Pillow raises almost anything on foreign bytes.
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: no whole image ({reason}; {len(content)} bytes); fetch it again"
        ) from error
    # Nothing was decoded: the header alone may ask for any amount of memory.
    raise ValueError(
        f"{path}: {shape} pixels of mode {mode}; it should be {(side, side)} of mode L"
    )


def _show(example: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    side = facts["side"]
    rows = min(side, 32)
    step = side // rows
    tiles = example["x"].reshape(rows, step, rows, step).max((1, 3))
    shades = tiles.astype(int) * len(_SHADES) // 256
    picture = ["".join(2 * _SHADES[shade] for shade in row).rstrip() for row in shades]
    return [*picture, f"label {int(example['y'])}: {('two curves', 'one curve')[example['y']]}"]


SOURCES = [
    pathfinder_source("pathfinder32", PATHFINDER32, SIZES, images=500),
    pathfinder_source("pathfinder128", PATHFINDER128, SIZES, images=100),
]
