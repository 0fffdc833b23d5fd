"""Made images for a training run where no data set is: ten digits of seven segments.

    python -m benchmarks.gpu.images made.npz 20000

28 × 28 bytes in rows, as sequential MNIST: a digit of random size, place, slant and thickness among
noise. The same file for the same arguments.
"""

import sys

import numpy as np

SIDE = 28

_SEGMENTS = (
    "abcdef",
    "bc",
    "abged",
    "abgcd",
    "fgbc",
    "afgcd",
    "afgedc",
    "abc",
    "abcdefg",
    "abcdfg",
)
_ENDS = {
    "a": ((0, 0), (1, 0)), "b": ((1, 0), (1, 1)), "c": ((1, 1), (1, 2)), "d": ((0, 2), (1, 2)),
    "e": ((0, 1), (0, 2)), "f": ((0, 0), (0, 1)), "g": ((0, 1), (1, 1)),
}  # fmt: skip


def draw(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[count, 784]`` and labels int32 ``[count]``."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, count).astype(np.int32)
    width, height = random.uniform(7, 11, count), random.uniform(6, 9, count)
    left, top = random.uniform(4, 11, count), random.uniform(3, 7, count)
    slant, thick = random.uniform(-0.25, 0.25, count), random.uniform(0.8, 1.6, count)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    ink = np.zeros((count, SIDE, SIDE), np.float32)
    for name, ((x0, y0), (x1, y1)) in _ENDS.items():
        has = np.array([name in s for s in _SEGMENTS])[labels]
        ax, ay, bx, by = (v[:, None, None] for v in (
            left + width * x0 - slant * height * y0, top + height * y0,
            left + width * x1 - slant * height * y1, top + height * y1,
        ))  # fmt: skip
        dx, dy = bx - ax, by - ay
        along = np.clip(((columns - ax) * dx + (rows - ay) * dy) / (dx**2 + dy**2), 0, 1)
        apart = np.hypot(columns - ax - along * dx, rows - ay - along * dy)
        near = np.clip(1.5 - apart / thick[:, None, None], 0, 1)
        ink = np.maximum(ink, np.where(has[:, None, None], near, 0))
    noise = random.uniform(0, 0.15, ink.shape)
    images = (255 * np.clip(ink * 0.85 + noise, 0, 1)).astype(np.uint8)
    return images.reshape(count, -1), labels


if __name__ == "__main__":
    x, y = draw(int(sys.argv[2]))
    np.savez(sys.argv[1], x=x, y=y)
