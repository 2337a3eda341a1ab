"""What a few seeds say: means, spreads, intervals and tests.

All take plain sequences of numbers and give None where the numbers are too few to say anything: a mean needs one, a
standard deviation and everything built on it two. Intervals and tests need numbers that vary: errors are whole numbers
of images, so two or three can be equal by chance, and an interval without width would exclude everything else.
Normality of the seeds' errors is assumed throughout.
"""

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import scipy  # whose stats take seconds to be loaded: that is left to their first use

LEVEL = 0.95  # of every interval, unless told otherwise


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``, both included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class WelchTest:
    """Welch's two-sided t-test of equal means.

    ``difference`` is the first mean minus the second and ``interval`` its confidence interval; ``df`` are the
    degrees of freedom by Welch and Satterthwaite; ``p`` is the two-sided p-value.
    """

    difference: float
    interval: Interval
    t: float
    df: float
    p: float


@dataclass(frozen=True)
class EquivalenceTest:
    """Two one-sided tests (Schuirmann 1987) of whether two means differ by less than ``margin``.

    ``difference`` is the first mean minus the second, ``interval`` its confidence interval of level 1 - 2 alpha,
    ``p`` the larger p-value of the two tests. The means are shown equivalent if p < alpha, which is to say if the
    interval lies within the margin.
    """

    difference: float
    interval: Interval
    margin: float
    p: float
    equivalent: bool


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean, correctly rounded; None of nothing."""
    return statistics.mean(values) if values else None


def std(values: Sequence[float]) -> float | None:
    """Sample standard deviation (divided by n - 1); None of fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Two-sided t-interval of the mean; None of fewer than two values, or if they don't vary."""
    return _around(values, math.sqrt(1 / len(values)), level) if std(values) else None


def prediction_interval(values: Sequence[float], k: int = 1, level: float = LEVEL) -> Interval | None:
    """Where the mean of ``k`` further runs like these falls with probability ``level``.

    mean ± t(n - 1) · s · sqrt(1/k + 1/n); None of fewer than two values, or if they don't vary.
    """
    return _around(values, math.sqrt(1 / k + 1 / len(values)), level) if std(values) else None


def _around(values: Sequence[float], factor: float, level: float) -> Interval:
    low, high = scipy.stats.t.interval(level, len(values) - 1, loc=mean(values), scale=std(values) * factor)
    return Interval(float(low), float(high))


def welch_test(a: Sequence[float], b: Sequence[float], level: float = LEVEL) -> WelchTest | None:
    """Whether two samples of unequal variance have the same mean.

    None if a sample has fewer than two values, or if neither varies: then there is no t.
    """
    if len(a) < 2 or len(b) < 2 or std(a) == std(b) == 0:
        return None
    test = _welch(a, b)
    bounds = test.confidence_interval(level)
    interval = Interval(float(bounds.low), float(bounds.high))
    return WelchTest(mean(a) - mean(b), interval, float(test.statistic), float(test.df), float(test.pvalue))


def equivalence_test(
    a: Sequence[float], b: Sequence[float], margin: float, alpha: float = 1 - LEVEL
) -> EquivalenceTest | None:
    """Whether two samples of unequal variance have means less than ``margin`` apart, by Welch's t.

    None where Welch's test says nothing: too few values, or none that vary.
    """
    welch = welch_test(a, b, 1 - 2 * alpha)
    if welch is None:
        return None
    sides = {"greater": margin, "less": -margin}
    p = max(float(_welch([x + shift for x in a], b, side).pvalue) for side, shift in sides.items())
    return EquivalenceTest(welch.difference, welch.interval, margin, p, p < alpha)


def paired_p(differences: Sequence[float]) -> float | None:
    """Two-sided p-value of Student's paired t-test that the mean of the differences is 0.

    None of fewer than two, or if they don't vary: then there is no t.
    """
    return float(scipy.stats.ttest_1samp(differences, 0).pvalue) if std(differences) else None


def _welch(a: Sequence[float], b: Sequence[float], alternative: str = "two-sided"):
    """SciPy's Welch test, without its warning of a sample whose values are all equal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        return scipy.stats.ttest_ind(a, b, equal_var=False, alternative=alternative)
