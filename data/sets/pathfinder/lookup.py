"""Lookup tables for the growth of Pathfinder's snakes: dashes by their direction, and maps.

Linsley et al. (2018); the rules are those of the authors' generator. A dash has one of few
directions, its *way*: a snake starts at a whole number of degrees, and goes on towards one of the
pixels on a circle around its pivot. So everything that depends on a way is computed once.

A map says how far each pixel is taken, uint8, 255 being one. It has a margin around the image, the
maps of many images lie end to end, and a *place* is an index into them. ``taken`` holds footprints;
``near``, the same dilated by a disc of the margin, is 255 outside of the image. A footprint that
would reach over the image's edge ends in the map's margin, where it does no harm.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from data.sets.pathfinder import raster

DEGREES = 360
"""Ways below this are the whole degrees from -180; those above lead to the candidates."""

SCALE = 2
"""Dashes and discs are drawn so many times larger."""

_BORDER = 1
"""So many pixels along the image's edges are taken from the start."""

_ORIGIN = 64
"""Any pixel, from which shifts are measured."""


@dataclass(frozen=True)
class Recipe:
    """The parameters of a set of images; lengths in pixels.

    Attributes:
        side: of the square image.
        length: of a dash.
        thickness: of a dash.
        margins: between dashes; an image has one of them, with equal chances.
        dashes: of a target snake.
        apart: the distance of the two target snakes' starts.
        continuity: the greater, the straighter the snakes.
        distractor_dashes: of a distractor.
        distractors: their number, where there is room.
        contrast: of a snake.
        dash_contrast: of a target's dashes, on top of that.
        disc: the radius of the discs.
    """

    side: int
    length: int
    thickness: float
    margins: tuple[int, ...]
    dashes: int
    apart: int
    continuity: float
    distractor_dashes: int
    distractors: int
    contrast: float
    dash_contrast: float
    disc: float


class Marks(NamedTuple):
    """The pixels that a dash of each way marks.

    Attributes:
        at: int64 ``[ways, K]``, their places, counted from the dash's; K is the most of any way,
            and others repeat their first.
        values: uint8 ``[ways, K]``.
    """

    at: np.ndarray
    values: np.ndarray


class Tables(NamedTuple):
    """Everything that a recipe with one margin determines.

    Attributes:
        recipe: the recipe.
        margin: one of its margins.
        ring: the width of a map's margin; nothing is ever looked up beyond.
        row: the pixels of a map's row.
        lines: uint8 ``[ways, n, n]``, a dash around the pixel that it is drawn from.
        footprint: what it marks in ``taken``.
        dilated: what it marks in ``near``.
        limit: it does not fit where ``taken`` is above these values.
        step: int64 ``[ways]``, from one pivot to the next.
        candidates: int64 ``[ways, C]``, from the pivot to where the next dash's head may lie.
        weights: float64 ``[ways, C]``, the squared cosine of the turn.
        turned: int64 ``[ways, C]``, the way of the dash that has its head there.
        head: int64 ``[360, 2]``, from a start's tail, y and x.
        pivot: int64 ``[360, 2]``, the same.
        full: for each of the 360 ways int64 ``[n, 2]``, the pixels, from a start's tail, that must
            be free; a way without any is never used.
        taken: uint8 ``[row * row]``, the map at the beginning.
        near: uint8 ``[row * row]``, the same.
    """

    recipe: Recipe
    margin: int
    ring: int
    row: int
    lines: np.ndarray
    footprint: Marks
    dilated: Marks
    limit: Marks
    step: np.ndarray
    candidates: np.ndarray
    weights: np.ndarray
    turned: np.ndarray
    head: np.ndarray
    pivot: np.ndarray
    full: list[np.ndarray]
    taken: np.ndarray
    near: np.ndarray

    @property
    def size(self) -> int:
        """The pixels of a map."""
        return self.row * self.row

    def place(self, pixels: np.ndarray) -> np.ndarray:
        """The places on the first map of pixels ``[..., 2]`` of the image."""
        return (pixels + self.ring) @ np.array([self.row, 1])

    def pixel(self, places: np.ndarray) -> np.ndarray:
        """The pixels ``[..., 2]`` of places on the first map."""
        return np.stack(np.divmod(places, self.row), -1) - self.ring

    def image(self, maps: np.ndarray) -> np.ndarray:
        """Of maps ``[..., row * row]`` the image's pixels ``[..., side, side]``."""
        inside = slice(self.ring, self.ring + self.recipe.side)
        return maps.reshape(*maps.shape[:-1], self.row, self.row)[..., inside, inside]


@cache
def tables(recipe: Recipe, margin: int) -> Tables:
    """Computes the tables, in a fraction of a second."""
    length, reach = recipe.length, recipe.length + margin
    around = raster.circle(reach)
    towards = np.arctan2(around[:, 0], around[:, 1])
    degrees = (np.arange(DEGREES) - DEGREES // 2) * np.pi / 180
    angles = np.concatenate([degrees, towards])
    # A start is drawn from its tail; any other dash from its head, and so backwards.
    drawn = np.concatenate([degrees, np.where(towards < 0, towards + np.pi, towards - np.pi)])
    lines, footprints = map(
        np.array,
        zip(
            *(raster.dash(length, recipe.thickness, margin, SCALE, t) for t in drawn),
            strict=True,
        ),
    )
    ring = 3 * length + 4 * margin + 2
    row = recipe.side + 2 * ring

    turns = abs(towards - angles[:, None])
    turns = np.minimum(turns, 2 * np.pi - turns) * recipe.continuity
    weights = np.cos(np.minimum(turns, np.pi / 2)) ** 2
    # The cosine of a right angle is not quite zero in floating point.
    heaviest = np.argsort(-weights, axis=1)[:, : (weights > 1e-30).sum(1).max()]

    border = np.full((recipe.side,) * 2, 255, np.uint8)
    border[(slice(_BORDER, -_BORDER),) * 2] = 0
    spread = raster.dilated(np.pad(footprints, [(0, 0), *[(margin, margin)] * 2]), margin)
    head = raster.shifted(_ORIGIN, degrees, length)
    pivot = head + raster.shifted(_ORIGIN, degrees + np.pi, reach) - _ORIGIN
    return Tables(
        recipe=recipe,
        margin=margin,
        ring=ring,
        row=row,
        lines=lines,
        footprint=_marks(footprints > 0, footprints, row),
        dilated=_marks(spread > 0, spread, row),
        # Map and footprint together must stay below 1.8, which is 459 / 255.
        limit=_marks(footprints > 203, np.uint8(203) + (np.uint8(255) - footprints), row),
        step=(raster.shifted(_ORIGIN, angles, length + 2 * margin) - _ORIGIN) @ [row, 1],
        candidates=(around @ [row, 1])[heaviest],
        weights=np.take_along_axis(weights, heaviest, 1),
        turned=DEGREES + heaviest,
        head=head - _ORIGIN,
        pivot=pivot - _ORIGIN,
        full=[_full(footprint, reach) for footprint in footprints[:DEGREES]],
        taken=np.pad(border, ring).ravel(),
        near=np.pad(raster.dilated(border, margin), ring, constant_values=255).ravel(),
    )


def _marks(where: np.ndarray, values: np.ndarray, row: int) -> Marks:
    half = where.shape[1] // 2
    most = where.sum((1, 2)).max()
    at, kept = [], []
    for pixels, value in zip(where, values, strict=True):
        chosen = np.nonzero(pixels)
        places = (np.transpose(chosen) - half) @ [row, 1]
        order = np.arange(most)
        order[len(places) :] = 0
        at.append(places[order])
        kept.append(value[chosen][order])
    return Marks(np.array(at), np.array(kept))


def _full(footprint: np.ndarray, reach: int) -> np.ndarray:
    """Which pixels around its tail must be free for a start, y and x; none: it is never used.

    Two quirks of the authors' generator shape the images, and are kept. It looks at the pixels that
    the footprint covers fully, but one pixel below and to the right of them. And it finds no room
    anywhere, once there is a pixel of the image from which all of these lie outside; in 32 x 32
    that leaves a twelfth of the ways, all of which lead up and to the left.
    """
    pixels = np.argwhere(footprint == 255) - len(footprint) // 2 + 1
    pixels = pixels[(abs(pixels) <= reach).all(1)]
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    inside = (pixels * corners[:, None] >= 0).all(-1).any(1).all()
    return pixels if inside else pixels[:0]
