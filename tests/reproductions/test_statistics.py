"""Means, intervals and tests against numbers worked out by hand and against scipy's own tests."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.intervals import Interval

ERRORS = [8.71, 8.55, 8.93, 8.60, 8.81]
samples = st.lists(st.integers(500, 2_000).map(lambda n: n / 100), min_size=3, max_size=8)


def test_mean_and_std_by_hand():
    assert intervals.mean([8.0, 9.0, 10.0]) == 9.0
    assert intervals.std([8.0, 9.0, 10.0]) == 1.0  # divided by n - 1, not by n
    assert intervals.mean(ERRORS) == pytest.approx(8.72)
    assert intervals.std(ERRORS) == pytest.approx(math.sqrt(0.0956 / 4))


def test_t_interval_by_hand():
    # n = 4, mean 9, s = 1, t(3) = 3.182446 from a printed table: 9 ± 3.182446 / 2.
    interval = intervals.mean_interval([8.0, 8.5, 9.5, 10.0])
    half = 3.182446 * math.sqrt(2.5 / 3) / 2
    assert (interval.low, interval.high) == pytest.approx((9 - half, 9 + half), abs=1e-6)


def test_prediction_interval_by_hand():
    # n = 3: mean 9, s = 1, t(2) = 4.302653.
    one = intervals.prediction_interval([8.0, 9.0, 10.0])
    assert one.high - 9 == one.half_width == pytest.approx(4.302653 * math.sqrt(1 + 1 / 3), rel=1e-6)
    five = intervals.prediction_interval([8.0, 9.0, 10.0], k=5)
    assert 9 - five.low == pytest.approx(4.302653 * math.sqrt(1 / 5 + 1 / 3), rel=1e-6)


def test_nothing_is_made_up_from_too_few_values():
    assert intervals.mean([]) is intervals.std([]) is intervals.std([8.7]) is None and intervals.mean([8.7]) == 8.7
    for few in ([], [8.7], [8.6, 8.7]):
        assert intervals.mean_interval(few) is None
        assert intervals.prediction_interval(few) is None
        assert intervals.welch_test(few, ERRORS) is None
        assert intervals.welch_test(ERRORS, few) is None


def test_equal_values():
    assert intervals.mean_interval([8.7, 8.7, 8.7]) is None  # an interval without width would exclude all else
    assert intervals.prediction_interval([8.7] * 3) is None
    assert intervals.welch_test([8.7] * 3, [9.0] * 3) is None  # no spread, no t
    assert intervals.welch_test([8.7] * 3, [9.0, 9.1, 9.2]).df == pytest.approx(2)


@pytest.mark.parametrize(("value", "inside"), [(1.0, True), (2.0, True), (2.0000001, False), (0.9999999, False)])
def test_interval_includes_its_ends(value, inside):
    assert (value in Interval(1.0, 2.0)) == inside


@given(samples)
def test_t_interval_is_scipys(values):
    interval, n = intervals.mean_interval(values), len(values)
    if intervals.std(values) == 0:
        assert interval is None
    else:
        low, high = stats.t.interval(0.95, n - 1, loc=intervals.mean(values), scale=stats.sem(values))
        assert (interval.low, interval.high) == pytest.approx((low, high))


@pytest.mark.filterwarnings("ignore:Precision loss")  # of scipy's own sums, where all values are equal
@given(samples, samples)
def test_welch_is_scipys(a, b):
    test = intervals.welch_test(a, b)
    if intervals.std(a) == intervals.std(b) == 0:
        assert test is None
        return
    theirs = stats.ttest_ind(a, b, equal_var=False)
    bounds = theirs.confidence_interval()
    assert test.difference == pytest.approx(np.mean(a) - np.mean(b))
    assert (test.t, test.df) == pytest.approx((theirs.statistic, theirs.df), rel=1e-6, abs=1e-9)
    assert test.p == pytest.approx(theirs.pvalue, rel=1e-6)
    assert (test.interval.low, test.interval.high) == pytest.approx((bounds.low, bounds.high), rel=1e-6, abs=1e-9)


@given(samples, st.integers(1, 20))
def test_prediction_is_wider_than_the_mean_interval_and_narrows_to_it(values, k):
    mean = intervals.mean_interval(values)
    one, more = (intervals.prediction_interval(values, count) for count in (k, k + 1))
    if not intervals.std(values):
        assert mean is one is more is None
        return
    assert one.low <= more.low <= mean.low <= mean.high <= more.high <= one.high


@pytest.mark.filterwarnings("ignore:Precision loss")
@given(samples, samples, st.floats(0.01, 20))
def test_equivalence_is_two_of_scipys_one_sided_tests(a, b, margin):
    if (test := intervals.welch_test(a, b, 0.9)) is None:
        return
    below = stats.ttest_ind([x + margin for x in a], b, equal_var=False, alternative="greater").pvalue
    above = stats.ttest_ind([x - margin for x in a], b, equal_var=False, alternative="less").pvalue
    p = intervals.equivalence_p(test, margin)
    assert p == pytest.approx(max(below, above), rel=1e-4, abs=1e-9)
    inside = -margin < test.interval.low and test.interval.high < margin
    assert (p < 0.05) == inside or p == pytest.approx(0.05, abs=1e-6)


def test_intervals_of_percentages_end_where_percentages_do():
    assert intervals.percent(Interval(-0.2, 0.4)) == Interval(0.0, 0.4)
    assert intervals.percent(Interval(99.0, 101.0)) == Interval(99.0, 100.0)
    assert intervals.percent(None) is None


def test_a_contrast_of_four_by_hand():
    samples = [intervals.Sample(mean, std, 4) for mean, std in ((12.9, 0.4), (9.7, 0.2), (7.0, 0.1), (8.7, 0.3))]
    found = intervals.contrast(samples, (1, -1, -1, 1))
    assert found.difference == pytest.approx(4.9) and found.error == pytest.approx(math.sqrt(0.30 / 4))
    assert found.df == pytest.approx(3 * 0.30**2 / (0.16**2 + 0.04**2 + 0.01**2 + 0.09**2))
    assert intervals.contrast([*samples[:3], intervals.Sample(8.7, 0.3, 2)], (1, -1, -1, 1)) is None


@pytest.mark.parametrize(
    ("sigma", "n", "chance"), [(0.18, 5, 0.56), (0.3, 5, 0.07), (0.18, 10, 0.95), (0.3, 10, 0.39), (0.3, 20, 0.86)]
)
def test_the_power_of_the_equivalence_test(sigma, n, chance):
    assert intervals.equivalence_power(sigma, n) == pytest.approx(chance, abs=0.006)


def test_the_power_of_a_difference():
    assert intervals.power(0.5, 0.3, 5) == pytest.approx(0.64, abs=0.005)
    assert intervals.power(0.5, 0.3, 10) == pytest.approx(0.94, abs=0.005)
    assert intervals.power(0.0, 0.3, 10) == pytest.approx(0.05) and intervals.power(100.0, 0.3, 3) == pytest.approx(1)
    least = intervals.smallest_effect(0.3, 5)
    assert intervals.power(least, 0.3, 5) == pytest.approx(0.8) and intervals.smallest_effect(0.3, 2) is None
    count = intervals.seeds_for(0.2, 0.3)
    assert intervals.power(0.2, 0.3, count) >= 0.8 > intervals.power(0.2, 0.3, count - 1)
    assert intervals.seeds_for(5.0, 0.3) == 3 and intervals.seeds_for(0.001, 0.3) is None


def test_the_power_of_paired_differences_by_simulation():
    rng = np.random.default_rng(1)
    drawn = rng.normal(0.4, 0.3, (20_000, 5))
    found = np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.01)
    assert intervals.power(0.4, 0.3, 5, (1,), 5) == pytest.approx(found, abs=0.012)


def test_the_spread_of_nets_by_brown_and_forsythe():
    narrow, wide = [8.7, 8.71, 8.69, 8.72, 8.7], [7.0, 8.0, 9.0, 6.5, 9.5]
    expected = stats.levene(narrow, wide, center="median").pvalue
    assert intervals.spread_p([narrow, wide]) == pytest.approx(expected)
    assert intervals.spread_p([narrow]) is intervals.spread_p([narrow, wide[:2]]) is None
    theirs = (0.120, 0.318, 0.475, 0.523)
    low, high = (intervals.spread_power(theirs, n) for n in (5, 20))
    assert low < 0.1 < 0.99 < high and intervals.spread_power([0.3] * 4, 20) < 0.06


def test_the_pooled_spread_and_the_expected_best():
    assert intervals.pooled_std([[8.0, 9.0, 10.0], [1.0, 1.0, 1.0], [5.0, 50.0]]) == pytest.approx(math.sqrt(0.5))
    assert intervals.pooled_std([[5.0, 50.0]]) is intervals.pooled_std([[5.0] * 3]) is None
    assert intervals.expected_best(5) == pytest.approx(1.16296, abs=1e-5)  # of printed tables
    assert intervals.expected_best(2) == pytest.approx(1 / math.sqrt(math.pi))
