"""Means, intervals and tests against numbers worked out by hand and against scipy's own tests."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.intervals import Interval

ERRORS = [8.71, 8.55, 8.93, 8.60, 8.81]
samples = st.lists(st.integers(500, 2_000).map(lambda n: n / 100), min_size=2, max_size=8)


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
    # n = 2: mean 9, s = sqrt(2), t(1) = 12.7062.
    one = intervals.prediction_interval([8.0, 10.0])
    assert one.high - 9 == pytest.approx(12.7062 * math.sqrt(2) * math.sqrt(1 + 1 / 2), rel=1e-5)
    five = intervals.prediction_interval([8.0, 10.0], k=5)
    assert 9 - five.low == pytest.approx(12.7062 * math.sqrt(2) * math.sqrt(1 / 5 + 1 / 2), rel=1e-5)


def test_nothing_is_made_up_from_too_few_values():
    assert intervals.mean([]) is None
    assert intervals.std([]) is None
    assert intervals.mean([8.7]) == 8.7
    assert intervals.std([8.7]) is None
    for few in ([], [8.7]):
        assert intervals.mean_interval(few) is None
        assert intervals.prediction_interval(few) is None
        assert intervals.welch_test(few, ERRORS) is None
        assert intervals.welch_test(ERRORS, few) is None


def test_equal_values():
    assert intervals.mean_interval([8.7, 8.7, 8.7]) is None  # an interval without width would exclude all else
    assert intervals.prediction_interval([8.7, 8.7]) is None
    assert intervals.welch_test([8.7, 8.7], [9.0, 9.0]) is None  # no spread, no t
    assert intervals.welch_test([8.7, 8.7], [9.0, 9.2]).df == pytest.approx(1)


def test_interval_includes_its_ends():
    assert 1.0 in Interval(1.0, 2.0)
    assert 2.0 in Interval(1.0, 2.0)
    assert 2.0000001 not in Interval(1.0, 2.0)
    assert 0.9999999 not in Interval(1.0, 2.0)


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
    assert (test.t, test.df) == pytest.approx((theirs.statistic, theirs.df), rel=1e-6, abs=1e-9)
    assert test.p == pytest.approx(theirs.pvalue, rel=1e-6)
    assert (test.interval.low, test.interval.high) == pytest.approx((bounds.low, bounds.high), rel=1e-6, abs=1e-9)


@given(samples, st.integers(1, 20))
def test_prediction_is_wider_than_the_mean_interval_and_narrows_to_it(values, k):
    mean, one, more = (
        intervals.mean_interval(values),
        intervals.prediction_interval(values, k),
        intervals.prediction_interval(values, k + 1),
    )
    if not intervals.std(values):
        assert mean is one is more is None
        return
    assert one.low <= more.low <= mean.low <= mean.high <= more.high <= one.high


@given(samples, samples)
def test_welch_changes_sign_with_the_order(a, b):
    forth, back = intervals.welch_test(a, b), intervals.welch_test(b, a)
    if forth:
        assert forth.difference == -back.difference
        assert forth.interval.low == pytest.approx(-back.interval.high)
        assert forth.p == pytest.approx(back.p)


@given(samples, samples, st.floats(0.01, 20))
def test_equivalence_is_two_of_scipys_one_sided_tests(a, b, margin):
    test = intervals.equivalence_test(a, b, margin)
    if intervals.std(a) == intervals.std(b) == 0:
        assert test is None
        return
    below = stats.ttest_ind([x + margin for x in a], b, equal_var=False, alternative="greater").pvalue
    above = stats.ttest_ind([x - margin for x in a], b, equal_var=False, alternative="less").pvalue
    assert test.p == pytest.approx(max(below, above), rel=1e-4, abs=1e-9)
    inside = -margin < test.interval.low and test.interval.high < margin
    assert test.equivalent == inside or test.p == pytest.approx(0.05, abs=1e-6)


def test_equivalence_needs_a_margin_wider_than_what_the_seeds_leave_open():
    a, b = [8.1, 8.3, 8.2, 8.4, 8.0], [8.2, 8.3, 8.3, 8.1, 8.2]
    assert intervals.equivalence_test(a, b, 0.5).equivalent
    assert not intervals.equivalence_test(a, b, 0.1).equivalent
    assert not intervals.equivalence_test(a, [x + 0.6 for x in b], 0.5).equivalent
    assert intervals.equivalence_test(a, b[:1], 0.5) is None
