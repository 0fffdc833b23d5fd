"""Recordings cut into windows, as the speech experiment reads them.

Step k of a window sees samples 10k to 10k + 19 and predicts the ten after them, so that every
sample but the first twenty is predicted once.
"""

from typing import NamedTuple

import numpy as np

import data
from experiments.runner import own
from experiments.runner.experiment import what_was_read
from experiments.tasks.datasets import refusal
from experiments.tasks.speech.config import DATASETS, Config

SEEN, NEXT = 20, 10

_CHOICE = 0
_BLOCK = 1 << 22


class Normalization(NamedTuple):
    """Mean and standard deviation of all samples of the training split, as 16-bit integers."""

    mean: float
    deviation: float


class WindowedSplit(NamedTuple):
    """A split in windows.

    Attributes:
        x: int16 ``[N, window]``.
        available: how many windows the split has, of which N were drawn.
        short: how many recordings are shorter than a window and are left out.
        recordings: how many there are.
    """

    x: np.ndarray
    available: int
    short: int
    recordings: int


class Speech(NamedTuple):
    """The data of a run.

    Attributes:
        splits: windows by split.
        normalization: of all training samples, used or not.
        rate: samples a second.
        test: the test recordings, whole.
        read: see :attr:`.Prepared.data`.
    """

    splits: dict[str, WindowedSplit]
    normalization: Normalization
    rate: int
    test: data.Split
    read: dict[str, str] | None

    def about(self) -> str:
        """One line: how many windows were drawn, and how many recordings are too short."""
        parts = []
        for name, split in self.splits.items():
            parts.append(f"{name} {len(split.x):,} of {split.available:,} windows")
            if split.short:
                parts[-1] += f" ({split.short:,} of {split.recordings:,} recordings are shorter)"
        return f"{self.test.name}, {self.rate:,} samples a second: {'; '.join(parts)}"


def check(config: Config) -> None:
    """Refuses a bad data set or window, before anything is read.

    Raises:
        ValueError: a data set without speech, or a number out of range.
    """
    if config.own:
        own.check(config)
    elif config.dataset not in DATASETS:
        raise ValueError(refusal("speech", config.dataset))
    if config.window < SEEN + NEXT or config.window % NEXT:
        raise ValueError(
            f"window must be a multiple of {NEXT}, at least {SEEN + NEXT}, got {config.window}"
        )


def read(config: Config, data_dir: str | None) -> Speech:
    """Loads the recordings and cuts them.

    Bad sound files (another rate, stereo, silence, damage) are refused, by name, when the data set
    is prepared.

    Raises:
        ValueError: no recording of a split is as long as a window, or data that are damaged.
        OSError: data that are missing; the message names the command that prepares them.
    """
    splits = own.load_splits(config, data_dir)
    cuts = {
        name: cut(split, config.window, config.windows if name == "train" else config.evaluated)
        for name, split in splits.items()
    }
    rate = splits["train"].facts["sample_rate"]
    level = normalization(splits["train"]["x"].values)
    return Speech(cuts, level, rate, splits["test"], what_was_read(splits))


def cut(split: data.Split, window: int, count: int) -> WindowedSplit:
    """Windows that follow one another in each recording; a shorter rest at its end is left out.

    Args:
        split: recordings in the column ``x``.
        window: samples.
        count: how many to draw; 0 for all. The draw depends on nothing else, so that every unit
            and seed reads the same windows.

    Raises:
        ValueError: no recording is as long as a window.
    """
    column = split["x"]
    counts = column.lengths // window
    ends = np.cumsum(counts)
    available = int(ends[-1])
    if not available:
        longest = int(np.argmax(column.lengths))
        raise ValueError(
            f"{split.name}: no {split.split} recording is as long as a window of {window} samples; "
            f"the longest, {split.ids[longest]}, has {column.lengths[longest]}"
        )
    which = np.arange(available)
    if count and count < available:
        random = np.random.Generator(np.random.PCG64(_CHOICE))
        which = np.sort(random.permutation(available)[:count])
    place = np.searchsorted(ends, which, side="right")
    starts = column.offsets[place] + window * (which - (ends - counts)[place])
    x = np.stack([column.values[start : start + window] for start in starts])
    return WindowedSplit(x, available, int((counts == 0).sum()), len(column))


def normalization(samples: np.ndarray) -> Normalization:
    """Mean and deviation of int16 ``[N]``, out of exact sums."""
    total = squares = 0
    for start in range(0, len(samples), _BLOCK):
        block = samples[start : start + _BLOCK].astype(np.int64)
        total += int(block.sum())
        squares += int(np.dot(block, block))
    mean = total / len(samples)
    return Normalization(mean, (squares / len(samples) - mean**2) ** 0.5)
