"""Tasks that are generated as needed, never stored; a batch is a pure function of its step.

``OnTheFly`` gives the batches of a task with the interface of ``data.batches.Batches``. A task is
one of:

- ``SelectiveCopy`` of Gu and Dao (Mamba, 2023): tokens scattered through noise, to be given back.
- ``Copy`` of Arjovsky et al. (2016), after Hochreiter and Schmidhuber (1997): tokens to be given
  back after a delay.
- ``Adding`` of Hochreiter and Schmidhuber (1997), in the form of Arjovsky et al. (2016): the sum of
  two marked numbers.
- ``MackeyGlass`` in the form of Voelker et al. (LMU, 2019): a chaotic series, 15 steps ahead.

``y`` belongs to the last K steps of ``x``: target k is due at step T - K + k.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data.batches import ALL, Batch
from data.source import SPLITS


class Task(Protocol):
    """A source of examples."""

    def draw(self, random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """B examples: ``x`` ``[B, T]`` or ``[B, T, D]``, ``y`` ``[B, K]`` or ``[B, K, 1]``."""


@dataclass(frozen=True)
class SelectiveCopy:
    """Selective Copying: the data tokens are to be given back in order, without the noise.

    As published: sequences of 4,096 steps, 16 data tokens, a vocabulary of 16 that the noise is one
    of. As in the authors' code, the data tokens lie at random steps, and as many read-out marks end
    the sequence, during which they are due. Whether the 4,096 count the marks is not said; here
    they do.

    ``x`` uint8 ``[B, T]``: 0 noise, 1 to V - 2 data, V - 1 a mark. ``y`` uint8 ``[B, data]``.

    Attributes:
        steps: T.
        data: how many tokens are to be given back.
        tokens: V.
    """

    steps: int = 4096
    data: int = 16
    tokens: int = 16

    def __post_init__(self) -> None:
        if self.data < 1 or self.steps < 2 * self.data:
            raise ValueError(
                f"steps must hold data twice: {self.steps} steps, {self.data} data tokens"
            )
        if not 3 <= self.tokens <= 256:
            raise ValueError(f"tokens must be 3 to 256, not {self.tokens}")

    def draw(self, random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See ``Task``."""
        y = random.integers(1, self.tokens - 1, (count, self.data), np.uint8)
        order = random.random((count, self.steps - self.data))
        places = np.sort(np.argpartition(order, self.data - 1, axis=1)[:, : self.data], axis=1)
        x = np.zeros((count, self.steps), np.uint8)
        np.put_along_axis(x, places, y, axis=1)
        x[:, -self.data :] = self.tokens - 1
        return x, y


@dataclass(frozen=True)
class Copy:
    """The copying memory task: symbols are to be given back after a delay.

    Symbols, then ``delay`` steps of which the last is a mark and the others are blank, then as many
    blanks as symbols, during which these are due. Without memory, the mean cross-entropy over all
    steps is at best ``data * log(symbols) / (delay + 2 * data)``.

    ``x`` uint8 ``[B, delay + 2 * data]``: 0 blank, 1 to S symbols, S + 1 the mark. ``y`` is as
    long: blank, and the symbols at the end.

    Attributes:
        delay: in steps; published: 100 to 2,000.
        data: how many symbols are to be given back.
        symbols: S.
    """

    delay: int
    data: int = 10
    symbols: int = 8

    def __post_init__(self) -> None:
        if self.delay < 1 or self.data < 1:
            raise ValueError(f"delay and data must be at least 1: {self.delay}, {self.data}")
        if not 1 <= self.symbols <= 254:
            raise ValueError(f"symbols must be 1 to 254, not {self.symbols}")

    def draw(self, random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See ``Task``."""
        x = np.zeros((count, self.delay + 2 * self.data), np.uint8)
        y = np.zeros_like(x)
        data = random.integers(1, self.symbols + 1, (count, self.data), np.uint8)
        x[:, : self.data] = y[:, -self.data :] = data
        x[:, self.data + self.delay - 1] = self.symbols + 1
        return x, y


@dataclass(frozen=True)
class Adding:
    """The adding problem: the sum of two marked numbers.

    The numbers are uniform in [0, 1); one of the first half of the steps is marked, and one of the
    others. To answer 1 always gives a mean squared error of 1/6.

    ``x`` float32 ``[B, T, 2]``: the numbers, and 1 at the marked steps, else 0. ``y`` float32
    ``[B, 1, 1]``, due at the last step.

    Attributes:
        steps: T; published: 100 to 750.
    """

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"steps must be at least 2, not {self.steps}")

    def draw(self, random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See ``Task``."""
        x = np.zeros((count, self.steps, 2), np.float32)
        x[..., 0] = random.random((count, self.steps), np.float32)
        half, rows = self.steps // 2, np.arange(count)
        marks = (
            random.integers(half, size=count),
            random.integers(half, self.steps, size=count),
        )
        for mark in marks:
            x[rows, mark, 1] = 1
        first, second = (x[rows, mark, 0] for mark in marks)
        return x, (first + second)[:, None, None]


@dataclass(frozen=True)
class MackeyGlass:
    """The Mackey-Glass series: its value some steps ahead, at every step.

    dx/dt = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x(t)

    A step is one unit of time. As published for the LMU: tau = 17, 5,000 steps, 15 ahead; before
    time 0 white noise, uniform in 1.1 to 1.3; the first 100 steps are dropped; the values are
    tanh(x - 1) less their mean. That is done here by the classical Runge-Kutta method, ten to a
    step, where the authors' code has Euler's.

    ``x`` and ``y`` float32 ``[B, T, 1]``. Results are published as the root mean squared error
    over the deviation of the targets.

    Attributes:
        steps: T.
        ahead: how many steps ahead the target lies; 1: the next value.
        tau: the delay.
    """

    steps: int = 5000
    ahead: int = 15
    tau: int = 17

    def __post_init__(self) -> None:
        if min(self.steps, self.ahead, self.tau) < 1:
            raise ValueError(
                f"steps, ahead and tau must be at least 1: {self.steps}, {self.ahead}, {self.tau}"
            )

    def draw(self, random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See ``Task``."""
        history = 1.1 + 0.2 * random.random((count, self.tau * SUBSTEPS + 1))
        series = mackey_glass(history, _DROPPED + self.steps + self.ahead)[:, _DROPPED:]
        values = (np.tanh(series - 1) - _CENTRE).astype(np.float32)[..., None]
        return values[:, : self.steps].copy(), values[:, self.ahead :].copy()


SUBSTEPS = 10
"""Steps of integration to a unit of time."""

_DROPPED = 100
_CENTRE = -0.0657
"""The mean of 512 series; the authors give about -0.066."""


def mackey_glass(history: np.ndarray, steps: int) -> np.ndarray:
    """Integrates the Mackey-Glass equation from time 0 on, by the classical Runge-Kutta method.

    Over one delay, the delayed value is known, and the equation linear in x: all steps of the
    method in a delay are one product with a matrix. Between its own steps the delayed value is
    taken by cubic interpolation, which knows the slope, too; in ``history`` by linear.

    Args:
        history: float64 ``[B, n + 1]``, x at the times -tau, ..., 0, in steps of 1 / ``SUBSTEPS``.
        steps: T.

    Returns:
        float64 ``[B, T]``, x at the times 1, ..., T.
    """
    step, decay, gain = 1 / SUBSTEPS, 0.1, 0.2
    z = decay * step
    # The method's weights for x' = f(t) - decay * x: of x itself; of f before, between and after.
    kept = 1 - z + z**2 / 2 - z**3 / 6 + z**4 / 24
    before, between = 1 - z + z**2 / 2 - z**3 / 4, 4 - 2 * z + z**2 / 2
    size = history.shape[1] - 1
    ages = np.arange(size)[:, None] - np.arange(size)
    summing = np.where(ages >= 0, kept ** np.maximum(ages, 0), 0).T
    fading = kept ** np.arange(1, size + 1)

    values, middles = history, (history[:, :-1] + history[:, 1:]) / 2
    found: list[np.ndarray] = []
    while len(found) * size < steps * SUBSTEPS:
        f, f_between = (gain * x / (1 + x**10) for x in (values, middles))
        pushed = step / 6 * (before * f[:, :-1] + between * f_between + f[:, 1:])
        new = values[:, -1:] * fading + pushed @ summing
        values = np.concatenate([values[:, -1:], new], axis=1)
        slopes = f - decay * values
        middles = (values[:, :-1] + values[:, 1:]) / 2 + step / 8 * -np.diff(slopes)
        found.append(new)
    return np.concatenate(found, axis=1)[:, SUBSTEPS - 1 :: SUBSTEPS][:, :steps]


_TRAINING, _EVALUATION = 0, 1
"""The first number of every seed: what is trained on and what is evaluated on are two streams."""

_GROUP = 32


@dataclass(frozen=True)
class OnTheFly:
    """Batches of a task: fresh ones for training, and for each split a fixed set to evaluate on.

    Attributes:
        task: the source of the examples.
        batch_size: B, at least 1.
        seed: of the training batches, at least 0.
        split: one of ``SPLITS``, whose set ``evaluation`` gives.
        examples: N, of that set and of an epoch.
    """

    task: Task
    batch_size: int
    seed: int = 0
    split: str = "train"
    examples: int = 1024

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, not {self.seed}")
        if self.split not in SPLITS:
            raise ValueError(f"unknown split {self.split!r}; one of: {', '.join(SPLITS)}")
        if self.examples < 1:
            raise ValueError(f"examples must be at least 1, not {self.examples}")

    @property
    def steps_per_epoch(self) -> int:
        """ceil(N / B)."""
        return -(-self.examples // self.batch_size)

    def batch(self, step: int, rows: slice = ALL) -> Batch:
        """The batch of training step ``step``, counted from 0 through all epochs.

        Of ``x``, ``y``, ``lengths`` and ``index``; all rows are filled.

        Args:
            step: at least 0.
            rows: which of its B rows to return; all are made.

        Raises:
            ValueError: ``step`` is negative.
        """
        if step < 0:
            raise ValueError(f"step must be at least 0, not {step}")
        random = np.random.Generator(np.random.PCG64([_TRAINING, self.seed, step]))
        first = step % self.steps_per_epoch * self.batch_size
        whole = self._batch(*self.task.draw(random, self.batch_size), first, self.batch_size)
        return {name: column[rows] for name, column in whole.items()}

    def evaluation(self, rows: slice = ALL) -> Iterator[Batch]:
        """N examples of the split, the same whatever the seed and the batch size.

        The last batch is filled up with empty rows: length 0, index -1.
        """
        size = self.batch_size
        groups = self._evaluated()
        x, y = next(groups)
        for first in range(0, self.examples, size):
            while len(x) < size:
                more = next(groups)
                x, y = np.concatenate([x, more[0]]), np.concatenate([y, more[1]])
            whole = self._batch(x[:size], y[:size], first, self.examples - first)
            yield {name: column[rows] for name, column in whole.items()}
            x, y = x[size:], y[size:]

    def _evaluated(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The examples of the split without end, in groups that know nothing of batches."""
        for number in itertools.count():
            seeds = [_EVALUATION, SPLITS.index(self.split), number]
            yield self.task.draw(np.random.Generator(np.random.PCG64(seeds)), _GROUP)

    def _batch(self, x: np.ndarray, y: np.ndarray, first: int, kept: int) -> Batch:
        valid = np.arange(self.batch_size) < kept
        for array in (x, y):
            array[~valid] = 0
        return {
            "x": x,
            "y": y,
            "lengths": np.where(valid, x.shape[1], 0).astype(np.int32),
            "index": np.where(valid, first + np.arange(self.batch_size), -1).astype(np.int32),
        }
