"""Draws Pathfinder's dashes, their footprints and discs, as small uint8 pictures.

As the authors' generator (Linsley et al., 2018) does: larger than needed, without grey, and then
scaled down by Lanczos resampling to uint8. Lines and resampled pictures equal those of the imaging
library Pillow to the pixel, without needing it.

Coordinates are y, x; angles are in radians, and angle t leads to (sin t, cos t).
"""

from functools import cache

import numpy as np


def shifted(pixel: int, angles: np.ndarray, distance: float) -> np.ndarray:
    """The whole pixels next above of the points so far from (pixel, pixel), int64 ``[..., 2]``."""
    points = pixel + distance * np.stack([np.sin(angles), np.cos(angles)], -1)
    return np.ceil(points).astype(np.int64)


def circle(radius: float) -> np.ndarray:
    """The pixels met by walking around pixel (0, 0) in steps of one pixel, int64 ``[n, 2]``."""
    angles = np.arange(0, 360, 360 / (2 * np.pi * radius)) * np.pi / 180
    points = 64 + radius * np.stack([np.sin(angles), np.cos(angles)], -1)
    return np.unique(np.floor(points).astype(np.int64) - 64, axis=0)


def dash(
    length: int, thickness: float, margin: int, scale: int, angle: float
) -> tuple[np.ndarray, np.ndarray]:
    """A dash and its footprint, which keeps others a margin away.

    Args:
        length: in pixels.
        thickness: in pixels; ``thickness * scale`` is 1 or 3.
        margin: in pixels.
        scale: how many times larger it is drawn.
        angle: where it leads to, from the middle.

    Returns:
        Two uint8 ``[n, n]``, n = 2 (length + ceil(thickness) + margin) + 1.
    """
    half = length + int(np.ceil(thickness)) + margin
    middle = half * scale
    drawn = np.zeros((2 * middle + 1,) * 2, bool)
    end = shifted(middle, np.array(angle), length * scale)
    _draw_line(drawn, np.array([middle] * 2), end, round(thickness * scale))
    return tuple(
        shrunk(np.where(shape, np.uint8(255), np.uint8(0)), 2 * half + 1)
        for shape in (drawn, dilated(drawn, margin * scale))
    )


def disc(pixel: np.ndarray, radius: float, side: int, scale: int) -> np.ndarray:
    """An image, uint8 ``[side, side]``, of nothing but a disc around a pixel."""
    rows, columns = np.arange(side * scale) - scale * np.asarray(pixel)[:, None]
    inside = rows[:, None] ** 2 + columns**2 <= (radius * scale) ** 2
    return shrunk(np.where(inside, np.uint8(255), np.uint8(0)), side)


def dilated(pixels: np.ndarray, radius: int) -> np.ndarray:
    """The maximum over the disc around each pixel, ``[..., height, width]``."""
    height, width = pixels.shape[-2:]
    spread = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + [(radius, radius)] * 2)
    result = np.zeros_like(pixels)
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if y * y + x * x <= radius * radius:
                moved = spread[..., radius + y :, radius + x :][..., :height, :width]
                np.maximum(result, moved, out=result)
    return result


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """Lanczos resampling, a = 3, of a square picture to a smaller one; uint8, rows first."""
    weights = _lanczos(len(pixels), side)
    for _ in range(2):
        summed = weights @ pixels.astype(np.float64).T
        pixels = np.clip(np.floor(summed + 0.5), 0, 255).astype(np.uint8)
    return pixels


@cache
def _lanczos(size: int, side: int) -> np.ndarray:
    ratio = size / side
    centres = (np.arange(side)[:, None] + 0.5) * ratio
    apart = (np.arange(size) + 0.5 - centres) / ratio
    weights = np.where(abs(apart) < 3, np.sinc(apart) * np.sinc(apart / 3), 0)
    return weights / weights.sum(1, keepdims=True)


def _draw_line(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, width: int) -> None:
    along = end - start
    if width == 1:
        count = abs(along).max()
        steps = np.arange(count + 1)[:, None]
        # Half a pixel is rounded away from the start.
        pixels = start + np.sign(along) * ((2 * abs(along) * steps + count) // (2 * count))
        canvas[tuple(pixels.T)] = True
        return
    if width != 3:
        raise ValueError(f"a line of {width} pixels; only 1 and 3 are known")
    # A polygon with whole corners, one pixel to each side; filled row by row, from the pixels
    # nearest to its edges.
    y, x = along / np.hypot(*along)
    aside = np.array([_rounded(x), -_rounded(y)])
    corners = np.array([start + aside, end + aside, end - aside, start - aside])
    for row in range(corners[:, 0].min(), corners[:, 0].max() + 1):
        met = []
        for (y0, x0), (y1, x1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if y0 == y1 == row:
                met += [x0, x1]
            elif y0 != y1 and min(y0, y1) <= row <= max(y0, y1):
                met.append(x0 + (x1 - x0) * (row - y0) / (y1 - y0))
        first, last = np.floor(min(met) + 0.5), np.ceil(max(met) - 0.5)
        canvas[row, int(first) : int(last) + 1] = True


def _rounded(number: float) -> int:
    return int(np.sign(number) * np.floor(abs(number) + 0.5))
