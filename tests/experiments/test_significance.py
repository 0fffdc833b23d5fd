"""Intervals and verdicts, against exact enumeration, SciPy and plain arithmetic."""

import itertools

import numpy as np
import pytest

from experiments.report import significance
from experiments.report.significance import estimate

THREE = (8.5, 8.75, 9.5)


def test_mean_and_deviation():
    known = estimate(THREE)
    assert known.mean == pytest.approx(26.75 / 3)
    assert known.deviation == pytest.approx(np.std(THREE, ddof=1))
    assert known.n == 3


def test_the_interval_of_three_is_that_of_all_27_resamples_their_range():
    means = [np.mean(drawn) for drawn in itertools.product(THREE, repeat=3)]
    assert len(means) == 27
    # Each end is 1 of 27, more than 2.5 %: the quantile lies on it, whatever its convention.
    exact = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    known = estimate(THREE)
    assert (known.low, known.high) == pytest.approx(tuple(exact))
    assert tuple(exact) == (min(THREE), max(THREE))


def test_the_interval_of_many_is_scipy_s():
    import scipy.stats  # a second, of every worker that collects

    values = np.random.default_rng(3).normal(5.0, 2.0, 40)
    known = estimate(values)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(8)
    ).confidence_interval
    # Two draws of 10,000 resamples: the ends differ by some hundredths of the deviation, 0.3.
    assert known.low == pytest.approx(theirs.low, abs=0.03)
    assert known.high == pytest.approx(theirs.high, abs=0.03)
    assert known.low < values.mean() - 0.3 < values.mean() + 0.3 < known.high


def test_the_same_values_give_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(4).normal(size=12)
    assert estimate(values) == estimate(list(values))
    assert estimate(values) != estimate(values, seed=1)


def test_one_value_has_no_spread_and_none_no_mean():
    assert estimate([2.0]) == significance.Estimate(2.0, None, 2.0, 2.0, 1)
    assert str(estimate([2.0])) == "2.00 [one seed]"
    assert str(estimate([1.0, 2.0, 3.0])) == "2.00 [1.00, 3.00]"
    with pytest.raises(ValueError, match="no value"):
        estimate([])


def test_differences_are_paired_by_seed():
    units = {
        "tanh": {0: 9.0, 1: 8.0, 2: 7.0},
        "gru": {0: 8.0, 1: 7.5},
        "lstm": {0: 7.0, 1: 7.5, 3: 1.0},
    }
    found = significance.differences(units, ["tanh"], ["gru", "lstm"])
    assert found == {0: 1.5, 1: 0.5}
    assert significance.differences(units, ["tanh"], ["sugru"]) == {}


def table(**datasets):
    """Data set -> unit -> three figures."""
    return {
        name: {unit: dict(enumerate(values)) for unit, values in units.items()}
        for name, units in datasets.items()
    }


FIGURES = table(
    # Seeds differ by 1, units by less: only pairing shows it.
    jsb={"tanh": (8.0, 9.0, 10.0), "gru": (7.5, 8.5, 9.4), "lstm": (7.7, 8.5, 9.6)},
    nottingham={"tanh": (3.5, 3.25, 3.0), "gru": (2.5, 3.0, 3.25), "lstm": (3.5, 3.5, 3.5)},
)


def test_gated_beats_tanh_where_the_paired_interval_is_above_nothing():
    found = significance.beats(FIGURES, ["gru", "lstm"], "tanh", "Gated beats tanh")
    assert found.holds == {"jsb": True, "nottingham": False}
    assert found.parts["jsb"].low == pytest.approx(0.4)
    assert found.parts["jsb"].high == pytest.approx(0.5)
    # Above 0 on average alone is not enough.
    assert found.parts["nottingham"].mean == pytest.approx(0.125 / 3)
    # Seed 0: (0.4 + 0.5) / 2, seed 1: (0.5 + 0) / 2, seed 2: (0.5 - 0.375) / 2.
    assert found.whole.mean == pytest.approx((0.45 + 0.25 + 0.0625) / 3)
    assert str(found) == (
        "Gated beats tanh: in part, on 1 of 2 data sets, difference 0.25 [0.06, 0.45]. "
        "jsb 0.47 [0.40, 0.50]; nottingham 0.04 [-0.38, 0.50]; 3 seeds."
    )


def test_worse_is_no_victory():
    found = significance.beats(FIGURES, ["tanh"], "gru", "tanh beats GRU")
    assert found.holds == {"jsb": False, "nottingham": False}
    assert ": no, on 0 of 2 data sets" in str(found)


@pytest.mark.parametrize(
    ("lstm", "same"),
    [
        ((7.4, 8.6, 9.4), True),  # the interval contains 0
        ((7.46, 8.46, 9.36), True),  # it does not, but 0.04 is less than the margin
        ((7.54, 8.54, 9.44), True),  # on the other side
        ((7.4, 8.4, 9.3), False),
        ((7.6, 8.6, 9.5), False),
    ],
)
def test_two_are_alike_where_no_difference_is_shown_or_it_is_small(lstm, same):
    figures = table(jsb={"gru": (7.5, 8.5, 9.4), "lstm": lstm})
    found = significance.alike(figures, "gru", "lstm", "GRU = LSTM")
    assert found.holds == {"jsb": same}


def test_what_was_not_run_is_left_out_and_said():
    figures = {**FIGURES, "musedata": {"tanh": {0: 6.0}}}
    found = {verdict.claim: verdict for verdict in significance.verdicts(figures)}
    assert set(found["GRU beats tanh"].parts) == {"jsb", "nottingham"}
    assert str(found["suGRU beats tanh"]) == "suGRU beats tanh: not run yet."
    gated = found["Gated (mean of GRU and LSTM) beats tanh"]
    assert gated.parts["jsb"].mean == pytest.approx(1.4 / 3)
