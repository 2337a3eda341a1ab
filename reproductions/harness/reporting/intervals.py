"""Statistics of a few seeds: means, standard deviations, intervals, tests and their power.

All functions take plain sequences of numbers and return None for too few: a mean needs one, a standard deviation two,
intervals and tests FEWEST. Intervals and tests need numbers that vary: errors are whole numbers of images, so two or
three can be equal by chance, and an interval without width would exclude everything else. Normality of the seeds'
errors is assumed throughout, and equal standard deviations where power is computed.
"""

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy  # its stats, which take seconds to load, are loaded at their first use

LEVEL = 0.95  # of every interval, unless told otherwise
FEWEST = 3  # values that an interval or a test is made from
POWER = 0.8  # the probability with which a difference should be found
MARGIN = 0.3  # percentage points: means that are less apart count as equivalent
MOST_SEEDS = 1_000  # the largest number of seeds that is tried


@dataclass(frozen=True)
class Interval:
    """Closed interval from ``low`` to ``high``."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def half_width(self) -> float:
        """Half of the distance between the ends."""
        return (self.high - self.low) / 2


class Sample(NamedTuple):
    """Mean, sample standard deviation and size of a sample, as papers report it."""

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class WelchTest:
    """Welch's two-sided t-test of equal means, or of another contrast of means that is 0.

    ``difference`` is the first mean minus the second (the contrast), ``interval`` its confidence interval and ``error``
    its standard error; ``df`` are the degrees of freedom by Welch and Satterthwaite; ``p`` is the two-sided p-value.
    """

    difference: float
    interval: Interval
    t: float
    df: float
    p: float
    error: float


def mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean, correctly rounded; None for no values."""
    return statistics.mean(values) if values else None


def std(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (divided by n - 1); None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def corrected(comparisons: int) -> float:
    """Return the level for each of several intervals so that all together have LEVEL (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(1, comparisons)


def percent(interval: Interval | None) -> Interval | None:
    """Clip an interval of errors or accuracies to the possible values, 0 to 100."""
    return interval and Interval(max(0.0, interval.low), min(100.0, interval.high))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Return the two-sided t-interval of the mean; None for fewer than FEWEST values, or if they don't vary."""
    return _around(values, 1 / len(values), level) if _says(values) else None


def wilson(counted: int, images: int) -> Interval:
    """Return Wilson's 95 % interval (1927), in percent, of the share ``counted`` / ``images``."""
    bounds = scipy.stats.binomtest(counted, images).proportion_ci(LEVEL, method="wilson")
    return Interval(100 * float(bounds.low), 100 * float(bounds.high))


def prediction_interval(values: Sequence[float], k: int = 1) -> Interval | None:
    """Return the interval in which the mean of ``k`` further values falls with probability LEVEL.

    mean ± t(n - 1) · s · sqrt(1/k + 1/n); None for fewer than FEWEST values, or if they don't vary.
    """
    return _around(values, 1 / k + 1 / len(values), LEVEL) if _says(values) else None


def _says(values: Sequence[float]) -> bool:
    return len(values) >= FEWEST and std(values) > 0


def _around(values: Sequence[float], variance: float, level: float) -> Interval:
    """Return the t-interval around the mean of an estimate with this multiple of the values' variance."""
    scale = std(values) * math.sqrt(variance)
    low, high = scipy.stats.t.interval(level, len(values) - 1, loc=mean(values), scale=scale)
    return Interval(float(low), float(high))


def welch_test(a: Sequence[float], b: Sequence[float], level: float = LEVEL) -> WelchTest | None:
    """Test whether two samples of unequal variance have the same mean, by Welch's t-test.

    None if a sample has fewer than FEWEST values, or if neither varies: then there is no t.
    """
    return contrast([sample_of(a), sample_of(b)], (1, -1), level)


def contrast(samples: Sequence[Sample], weights: Sequence[float], level: float = LEVEL) -> WelchTest | None:
    """Test whether the weighted sum of the samples' means is 0, by Welch's test for any number of samples.

    None if a sample has fewer than FEWEST values, or if none varies.
    """
    parts = [(w * own.std) ** 2 / own.n for w, own in zip(weights, samples, strict=True) if own.n >= FEWEST]
    if len(parts) < len(samples) or not (squared := sum(parts)):
        return None
    error, difference = math.sqrt(squared), sum(w * own.mean for w, own in zip(weights, samples))
    df = squared**2 / sum(part**2 / (own.n - 1) for part, own in zip(parts, samples))
    low, high = scipy.stats.t.interval(level, df, loc=difference, scale=error)
    t = difference / error
    p = 2 * float(scipy.stats.t.sf(abs(t), df))
    return WelchTest(difference, Interval(float(low), float(high)), t, df, p, error)


def sample_of(values: Sequence[float]) -> Sample:
    """Summarise values as a :class:`Sample`; without values the mean is NaN."""
    return Sample(math.nan if not values else mean(values), std(values) or 0.0, len(values))


def equivalence_p(test: WelchTest, margin: float = MARGIN) -> float:
    """Return the p-value of two one-sided tests (Schuirmann 1987) of whether two means differ by less than ``margin``.

    It is the larger one of both tests. It is below alpha if the interval of level 1 - 2 alpha lies within the margin.
    """
    sides = (test.difference + margin, margin - test.difference)
    return max(float(scipy.stats.t.sf(side / test.error, test.df)) for side in sides)


def paired_p(differences: Sequence[float]) -> float | None:
    """Return the two-sided p-value of Student's paired t-test for a mean difference of 0.

    None for fewer than FEWEST, or if they don't vary: then there is no t.
    """
    return float(scipy.stats.ttest_1samp(differences, 0).pvalue) if _says(differences) else None


def spread_p(samples: Sequence[Sequence[float]]) -> float | None:
    """Return Brown and Forsythe's p-value for equal variances; None for fewer than two samples or too few values."""
    if len(samples) < 2 or min(map(len, samples)) < FEWEST:
        return None
    return float(scipy.stats.levene(*samples, center="median").pvalue)


def spread_power(stds: Sequence[float], n: int) -> float:
    """Return the power of Brown and Forsythe's test, with ``n`` values each, for these standard deviations.

    It is simulated with normal values and a fixed seed, at the 5 % level.
    """
    rng = np.random.default_rng(0)
    drawn = [s * rng.standard_normal((4_000, n)) for s in stds]
    away = [np.abs(values - np.median(values, axis=1, keepdims=True)) for values in drawn]
    return float(np.mean(scipy.stats.f_oneway(*away, axis=1).pvalue < 1 - LEVEL))


def best_prediction(values: Sequence[float], k: int, draws: int = 100_000) -> Interval | None:
    """Return the interval in which the lowest of ``k`` further values falls with probability LEVEL.

    It is simulated with normal values and a fixed seed. None for fewer than FEWEST values, or if they don't vary.
    """
    if not _says(values):
        return None
    rng, n = np.random.default_rng(0), len(values)
    lowest = rng.standard_normal((draws, k)).min(axis=1) - rng.standard_normal(draws) / math.sqrt(n)
    scaled = lowest / np.sqrt(rng.chisquare(n - 1, draws) / (n - 1))
    low, high = np.quantile(scaled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean(values) + std(values) * float(low), mean(values) + std(values) * float(high))


def expected_best(n: int) -> float:
    """Return the expected distance, in standard deviations, of the best of ``n`` normal values from the mean."""
    normal = scipy.stats.norm
    return float(scipy.integrate.quad(lambda x: x * n * normal.pdf(x) * normal.cdf(x) ** (n - 1), -10, 10)[0])


# -------------------------------------------------------------------------------------------------------------- power


def pooled_std(samples: Sequence[Sequence[float]]) -> float | None:
    """Pool the standard deviations of all samples of FEWEST values or more; None without such a sample or spread."""
    used = [values for values in samples if len(values) >= FEWEST]
    squares, df = sum(std(v) ** 2 * (len(v) - 1) for v in used), sum(len(v) - 1 for v in used)
    return math.sqrt(squares / df) if squares else None


def power(effect: float, sigma: float, n: int, weights: Sequence[float] = (1, -1), comparisons: int = 1) -> float:
    """Return the probability that a t-test, one of ``comparisons``, finds a contrast of size ``effect``.

    There are ``n`` values in each sample, all with the standard deviation ``sigma``. By default, ``weights`` are a
    difference of two means; they are (1,) for the mean of paired differences.
    """
    df, away = len(weights) * (n - 1), abs(effect) / (sigma * math.sqrt(sum(w * w for w in weights) / n))
    bound = scipy.stats.t.isf((1 - corrected(comparisons)) / 2, df)
    other_side = scipy.stats.nct.cdf(-bound, df, away) if away < 5 else 0.0  # less than 1e-6, and then not a number
    return float(min(1.0, scipy.stats.nct.sf(bound, df, min(away, 37.0)) + other_side))


def smallest_effect(
    sigma: float | None, n: int, weights: Sequence[float] = (1, -1), comparisons: int = 1
) -> float | None:
    """Return the smallest contrast that ``n`` values in each sample find with probability POWER.

    None below FEWEST, and if ``sigma`` is unknown.
    """
    if n < FEWEST or sigma is None:
        return None
    most = 37 * sigma * math.sqrt(sum(w * w for w in weights) / n)
    return float(scipy.optimize.brentq(lambda effect: power(effect, sigma, n, weights, comparisons) - POWER, 0, most))


def seeds_for(effect: float, sigma: float, weights: Sequence[float] = (1, -1), comparisons: int = 1) -> int | None:
    """Return the number of values per sample that finds this contrast with probability POWER; None above MOST_SEEDS."""
    counts = range(FEWEST, MOST_SEEDS + 1)
    place = bisect_left(counts, POWER, key=lambda n: power(effect, sigma, n, weights, comparisons))
    return counts[place] if place < len(counts) else None


def equivalence_power(sigma: float, n: int) -> float:
    """Return the probability that ``n`` values each show two equal means to be less than MARGIN apart."""
    df, error = 2 * (n - 1), sigma * math.sqrt(2 / n)
    bound, normal = scipy.stats.t.ppf(LEVEL, df), scipy.stats.norm

    def shown(u: float) -> float:  # u: the squared ratio of estimated and true standard deviation, times df
        room = MARGIN / error - bound * math.sqrt(u / df)
        return max(0.0, 2 * normal.cdf(room) - 1) * scipy.stats.chi2.pdf(u, df)

    return float(scipy.integrate.quad(shown, 0, df * (MARGIN / error / bound) ** 2, limit=200)[0])
