"""Statistics of a few seeds: means, spreads, bootstrap intervals, and verdicts on claims.

Differences are paired: the same seed gives every unit the same order of the data and the same
draws, so that the effect of a seed cancels.

An interval of three seeds is weak. There are only 27 resamples of three values, and each of the
two extreme ones, three times the same value, is 1/27 = 3.7 % of them, more than the 2.5 % that a
95 % interval leaves out at either end. So the interval is the range of the three values, and it
excludes 0 whenever their signs agree, which happens by chance once in four.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES, LEVEL = 10_000, 0.95

MARGIN = 0.05
"""Nats a step: a difference that is smaller does not count as one."""

Figures = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Data set -> unit -> seed -> figure; lower is better."""


class Estimate(NamedTuple):
    """A mean with its spread.

    Attributes:
        mean: of the values.
        deviation: their standard deviation (over n - 1); None for one value.
        low: lower end of the bootstrap interval of the mean.
        high: upper end.
        n: how many values.
    """

    mean: float
    deviation: float | None
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.n == 1:
            return f"{self.mean:.2f} [one seed]"
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """Mean, spread and 95 % percentile interval of 10,000 resamples.

    Args:
        values: one a seed of the runs.
        seed: of the resamples.

    Raises:
        ValueError: no value.
    """
    if not len(values):
        raise ValueError("no value to estimate from")
    x = np.asarray(values, np.float64)
    random = np.random.Generator(np.random.PCG64(seed))
    means = x[random.integers(len(x), size=(RESAMPLES, len(x)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    deviation = float(x.std(ddof=1)) if len(x) > 1 else None
    return Estimate(float(x.mean()), deviation, float(low), float(high), len(x))


def differences(
    units: Mapping[str, Mapping[int, float]], first: Sequence[str], second: Sequence[str]
) -> dict[int, float]:
    """Mean figure of the units `first` less that of the units `second`, by seed.

    Seeds that one of them lacks are left out: all of them if a unit was not run.
    """
    rows = [units.get(name, {}) for name in (*first, *second)]
    seeds = sorted(set.intersection(*(set(row) for row in rows)))

    def mean(names, seed):
        return sum(units[name][seed] for name in names) / len(names)

    return {seed: mean(first, seed) - mean(second, seed) for seed in seeds}


class Verdict(NamedTuple):
    """The verdict of the figures on a claim.

    Attributes:
        claim: in words.
        holds: data set -> whether it holds there.
        parts: data set -> the difference there.
        whole: the difference of the means over all data sets, by the seeds that all of them have;
            None if there is no such seed.
    """

    claim: str
    holds: dict[str, bool]
    parts: dict[str, Estimate]
    whole: Estimate | None

    def __str__(self) -> str:
        if not self.parts:
            return f"{self.claim}: not run yet."
        count, total = sum(self.holds.values()), len(self.holds)
        word = "yes" if count == total else "no" if not count else "in part"
        whole = "" if self.whole is None else f", difference {self.whole}"
        each = "; ".join(f"{name} {part}" for name, part in self.parts.items())
        fewest = min(part.n for part in self.parts.values())
        return (
            f"{self.claim}: {word}, on {count} of {total} data sets{whole}. {each}; "
            f"{fewest} seed{'s' * (fewest > 1)}."
        )


def beats(figures: Figures, better: Sequence[str], worse: str, claim: str) -> Verdict:
    """Whether the mean of some units is below that of another.

    It holds on a data set if the interval of the paired difference lies above 0.

    Args:
        figures: the measured ones.
        better: units whose mean should be lower.
        worse: the unit they are compared to; difference = worse - better.
        claim: in words.
    """
    return _verdict(figures, [worse], better, claim, lambda part: part.low > 0)


def alike(figures: Figures, first: str, second: str, claim: str) -> Verdict:
    """Whether two units give the same.

    It holds on a data set if the interval of the paired difference (first - second) contains 0,
    or the difference is less than :data:`MARGIN`. That is no proof of equality: with few seeds
    it says that no difference was shown.
    """
    return _verdict(
        figures,
        [first],
        [second],
        claim,
        lambda part: part.low <= 0 <= part.high or abs(part.mean) < MARGIN,
    )


def _verdict(figures, first, second, claim, holds) -> Verdict:
    by_seed = {
        name: found
        for name, units in figures.items()
        if (found := differences(units, first, second))
    }
    parts = {name: estimate(list(found.values())) for name, found in by_seed.items()}
    seeds = sorted(set.intersection(*map(set, by_seed.values()))) if by_seed else []
    overall = [sum(found[s] for found in by_seed.values()) / len(by_seed) for s in seeds]
    return Verdict(
        claim,
        {name: bool(holds(part)) for name, part in parts.items()},
        parts,
        estimate(overall) if overall else None,
    )


def verdicts(figures: Figures) -> list[Verdict]:
    """The two claims of Chung et al. 2014, and the same for each gated unit."""
    return [
        beats(figures, ["gru", "lstm"], "tanh", "Gated (mean of GRU and LSTM) beats tanh"),
        alike(figures, "gru", "lstm", "GRU ≈ LSTM (difference: GRU - LSTM)"),
        beats(figures, ["gru"], "tanh", "GRU beats tanh"),
        beats(figures, ["lstm"], "tanh", "LSTM beats tanh"),
        beats(figures, ["sugru"], "tanh", "suGRU beats tanh"),
        alike(figures, "sugru", "gru", "suGRU ≈ GRU (difference: suGRU - GRU)"),
    ]
