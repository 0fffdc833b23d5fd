"""Whether the seeds show a claim: a paired difference, its interval, and one of three words.

A comparison has a margin, below which a difference does not matter. It comes out as

- *holds*, *does not hold* or *undecided* on a task, by the bootstrap interval over seeds;
- the same over all tasks, by the share of tasks on which the first model is ahead: a bootstrap that
  draws tasks, and within each task seeds.

Fewer than three seeds decide nothing on a task, and fewer than three such tasks nothing over all.
Why three seeds are still weak is said in :mod:`.significance`.
"""

import enum
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.report.significance import LEVEL, RESAMPLES, Estimate, estimate

LEAST = 3
"""Seeds that decide on a task, and tasks that decide over all."""


class Verdict(enum.Enum):
    """What the records say of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "undecided"


class Kind(enum.Enum):
    """What is claimed of the first model."""

    BEATS = ">"
    AT_LEAST = "≥"
    ALIKE = "≈"


class Compared(NamedTuple):
    """One task of a comparison.

    Attributes:
        task: its title.
        unit: of the gains.
        margin: a smaller gain does not matter.
        gains: seed -> by how much the first model is better there; seeds that both have.
        first: mean figure of the first model, as the tables show it; None if there is none.
        second: that of the second model.
        note: what else there is to say of this task.
        n: how many measurements there are, if the gains do not stand for one each.
        link: where the figures are.
        decides: whether it can decide anything: runs that were not tuned alike are shown alone.
        updates: the budget: of rows of one task the one with most decides.
    """

    task: str
    unit: str
    margin: float
    gains: dict[int, float]
    first: float | None = None
    second: float | None = None
    note: str = ""
    n: int | None = None
    link: str = ""
    decides: bool = True
    updates: int = 0

    @property
    def estimate(self) -> Estimate | None:
        """Mean and interval of the gains; None without a seed."""
        return estimate(list(self.gains.values())) if self.gains else None

    @property
    def able(self) -> bool:
        """Whether it decides, and has enough seeds to."""
        return self.decides and len(self.gains) >= LEAST

    def verdict(self, kind: Kind) -> Verdict:
        """What the gains say."""
        if not self.able:
            return Verdict.OPEN
        return decide(kind, self.estimate, self.margin)


def decide(kind: Kind, gain: Estimate, margin: float) -> Verdict:
    """The word for an interval of the gain of the first model over the second.

    ======  ==========================  =====================================================
    kind    holds                       does not hold
    ======  ==========================  =====================================================
    ``>``   it lies above 0             it lies below 0, or 0 is in it and it is below margin
    ``≥``   it lies above -margin       it lies below -margin
    ``≈``   it lies within the margins  it leaves out 0, and the mean is beyond a margin
    ======  ==========================  =====================================================
    """
    if kind is Kind.BEATS:
        if gain.low > 0:
            return Verdict.HOLDS
        return Verdict.FAILS if gain.high < margin else Verdict.OPEN
    if kind is Kind.AT_LEAST:
        if gain.low > -margin:
            return Verdict.HOLDS
        return Verdict.FAILS if gain.high < -margin else Verdict.OPEN
    if -margin < gain.low and gain.high < margin:
        return Verdict.HOLDS
    apart = gain.low > 0 or gain.high < 0
    return Verdict.FAILS if apart and abs(gain.mean) >= margin else Verdict.OPEN


def _agrees(kind: Kind, means: np.ndarray, margin: float) -> np.ndarray:
    """Whether resampled means of a task are on the side of the claim."""
    if kind is Kind.BEATS:
        return means > 0
    return means > -margin if kind is Kind.AT_LEAST else np.abs(means) < margin


class Overall(NamedTuple):
    """A comparison over all tasks that have enough seeds.

    Attributes:
        verdict: by the interval of the share.
        share: of tasks whose mean is on the side of the claim.
        low: lower end of its bootstrap interval.
        high: upper end.
        tasks: how many.
    """

    verdict: Verdict
    share: float
    low: float
    high: float
    tasks: int


def overall(kind: Kind, compared: Sequence[Compared], seed: int = 0) -> Overall:
    """Draws tasks, and seeds within each; it holds if more than half of the tasks agree each time.

    Args:
        kind: what is claimed.
        compared: the tasks; those with too few seeds, or not tuned alike, are left out.
        seed: of the resamples.
    """
    able = [task for task in compared if task.able]
    if not able:
        return Overall(Verdict.OPEN, float("nan"), float("nan"), float("nan"), 0)
    random = np.random.Generator(np.random.PCG64(seed))
    gains = [np.asarray([t.gains[name] for name in sorted(t.gains)], np.float64) for t in able]
    agree = np.empty((RESAMPLES, len(able)), bool)
    for place in range(len(able)):
        drawn = random.integers(len(able), size=RESAMPLES)
        for number, (task, own) in enumerate(zip(able, gains, strict=True)):
            rows = np.flatnonzero(drawn == number)
            means = own[random.integers(len(own), size=(len(rows), len(own)))].mean(axis=1)
            agree[rows, place] = _agrees(kind, means, task.margin)
    shares = agree.mean(axis=1)
    low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    verdict = Verdict.OPEN
    if len(able) >= LEAST and (low > 0.5 or high < 0.5):
        verdict = Verdict.HOLDS if low > 0.5 else Verdict.FAILS
    sides = [_agrees(kind, own.mean(), task.margin) for task, own in zip(able, gains, strict=True)]
    return Overall(verdict, sum(map(bool, sides)) / len(able), float(low), float(high), len(able))


def joint(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim of several parts: it holds if all do, and not if one does not."""
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    return Verdict.HOLDS if set(verdicts) == {Verdict.HOLDS} else Verdict.OPEN
