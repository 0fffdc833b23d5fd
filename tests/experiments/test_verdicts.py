"""The rules by which records decide a claim, against all resamples counted one by one."""

import itertools

import numpy as np
import pytest

from experiments.report.significance import Estimate, estimate
from experiments.report.verdicts import Compared, Kind, Verdict, decide, joint, overall

HOLDS, FAILS, OPEN = Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN


def between(low, high):
    return Estimate((low + high) / 2, None, low, high, 3)


@pytest.mark.parametrize(
    ("low", "high", "beats", "at_least", "alike"),
    [  # The margin is 1.
        (2.0, 3.0, HOLDS, HOLDS, FAILS),
        (0.1, 0.3, HOLDS, HOLDS, HOLDS),  # Ahead, by less than matters.
        (-0.5, 0.5, FAILS, HOLDS, HOLDS),  # No more than nothing.
        (-0.5, 1.5, OPEN, HOLDS, OPEN),
        (-1.5, 0.5, FAILS, OPEN, OPEN),
        (-1.5, 1.5, OPEN, OPEN, OPEN),
        (-1.9, -0.3, FAILS, OPEN, FAILS),
        (-3.0, -2.0, FAILS, FAILS, FAILS),
        (0.2, 1.4, HOLDS, HOLDS, OPEN),  # Apart, but its mean is within the margin.
    ],
)
def test_the_word_for_an_interval(low, high, beats, at_least, alike):
    words = [decide(kind, between(low, high), 1.0) for kind in Kind]
    assert words == [beats, at_least, alike]


def task(*gains, margin=0.5):
    return Compared("task", "points", margin, dict(enumerate(gains)))


def test_a_task_with_two_seeds_decides_nothing():
    assert task(5.0, 5.0).verdict(Kind.BEATS) is OPEN
    assert task(5.0, 5.0, 5.0).verdict(Kind.BEATS) is HOLDS
    assert overall(Kind.BEATS, [task(5.0, 5.0)] * 9).tasks == 0


def test_the_interval_of_three_seeds_is_that_of_all_27_resamples():
    gains = (0.5, 1.0, 2.5)
    means = [np.mean(drawn) for drawn in itertools.product(gains, repeat=3)]
    found = task(*gains).estimate
    assert (found.low, found.high) == (min(means), max(means))
    assert found.mean == pytest.approx(np.mean(means), abs=1e-12)
    assert found == estimate(list(gains))


@pytest.mark.parametrize("kind", Kind)
def test_the_share_of_tasks_is_that_of_all_resamples_of_tasks_and_seeds(kind):
    tasks = [task(1.0, 2.0, 3.0), task(0.1, 0.2, 0.3), task(-1.0, 0.4, 0.5)]
    agrees = {
        Kind.BEATS: lambda mean: mean > 0,
        Kind.AT_LEAST: lambda mean: mean > -0.5,
        Kind.ALIKE: lambda mean: abs(mean) < 0.5,
    }[kind]
    # The chance that a task agrees, over its 27 resamples; then all 27 draws of three tasks.
    chances = [
        np.mean([agrees(np.mean(drawn)) for drawn in itertools.product(t.gains.values(), repeat=3)])
        for t in tasks
    ]
    shares = np.zeros(4)
    for drawn in itertools.product(chances, repeat=3):
        for outcome in itertools.product((0, 1), repeat=3):
            weight = np.prod([p if yes else 1 - p for p, yes in zip(drawn, outcome, strict=True)])
            shares[sum(outcome)] += weight / 27
    below = np.cumsum(shares)
    expected = [np.searchsorted(below, level) / 3 for level in (0.025, 0.975)]
    found = overall(kind, tasks)
    assert [found.low, found.high] == pytest.approx(expected)
    assert found.share == pytest.approx(np.mean([agrees(np.mean(list(t.gains.values())))
                                                 for t in tasks]))  # fmt: skip


def test_over_all_it_needs_three_tasks_that_agree():
    good, bad = task(1.0, 2.0, 3.0), task(-1.0, -2.0, -3.0)
    assert overall(Kind.BEATS, [good] * 2).verdict is OPEN
    assert overall(Kind.BEATS, [good] * 3).verdict is HOLDS
    assert overall(Kind.BEATS, [bad] * 3).verdict is FAILS
    assert overall(Kind.BEATS, [good, good, bad]).verdict is OPEN
    assert overall(Kind.BEATS, [good] * 19 + [bad]).verdict is HOLDS
    assert overall(Kind.BEATS, []).verdict is OPEN
    # One with too few seeds neither helps nor hurts.
    assert overall(Kind.BEATS, [*[good] * 3, task(-9.0)]) == overall(Kind.BEATS, [good] * 3)


def test_a_claim_holds_if_all_its_parts_do():
    assert joint([HOLDS, HOLDS]) is HOLDS
    assert joint([HOLDS, OPEN]) is OPEN
    assert joint([OPEN, FAILS, HOLDS]) is FAILS
    assert joint([]) is OPEN
