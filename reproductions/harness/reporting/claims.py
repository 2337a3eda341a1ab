"""Claims of papers as tests: a contrast of nets' mean errors that is above 0 where the claim holds.

All claims of a page are tested together: intervals and p-values are corrected for their number (Bonferroni). The
smallest effect that the seeds could find stands beside the effect that they found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from reproductions import reported
from reproductions.harness.console import counted
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import HIGHER_IS_BETTER, METRICS, final_values
from reproductions.harness.reporting.intervals import Interval, WelchTest
from reproductions.harness.reporting.text import NONE, interval, markdown_table, number, p_value, signed
from reproductions.reported import Reported

SHOWN, CONTRADICTED, NOT_SHOWN, NOT_RESOLVABLE = "shown", "contradicted", "not shown", "not resolvable"
RULED_OUT, TOO_FEW, NOT_RUN = "ruled out", "too few runs", "not yet run"
WITHIN_NOISE = "no sign reported"  # the reported effect is too small to have one
READING = 0.5  # percentage points by which a number that was read off a figure may be wrong


@dataclass(frozen=True)
class Claim:
    """A paper's statement about several nets.

    key, text: its name, and the sentence. where: in which paper. nets: keys of rows. weights: of their means in the
    contrast, in percentage points, which is above 0 if the claim holds. metric: one of METRICS.
    """

    key: str
    text: str
    where: str
    nets: tuple[str, ...]
    weights: tuple[float, ...]
    metric: str = "test_error"


def trend(depths: Sequence[int]) -> tuple[float, ...]:
    """Return the weights of a contrast: the fall, from first to last depth, of a line fitted to the nets' errors."""
    centre = intervals.mean(depths)
    squares = sum((depth - centre) ** 2 for depth in depths)
    return tuple((centre - depth) * (depths[-1] - depths[0]) / squares for depth in depths)


def statement_on(counts: Sequence[int], bounds: Interval | None, power: float | None) -> str:
    """Return the statement on a claim by the interval of its effect, which is None for runs without spread.

    ``counts``: runs of each net. ``power``: the probability that they find the reported effect, None if it is unknown.
    """
    n = f"n = {', '.join(map(str, counts))}"
    if not any(counts):
        return NOT_RUN
    if min(counts) < intervals.FEWEST:
        return f"{TOO_FEW} ({n})"
    if bounds is None:
        return f"{NOT_SHOWN}: no spread"
    if 0 not in bounds:
        return SHOWN if bounds.low > 0 else CONTRADICTED
    return f"{NOT_RESOLVABLE if power is not None and power < intervals.POWER else NOT_SHOWN} with {n}"


@dataclass(frozen=True)
class Finding:
    """Test of a claim by runs, as one of ``comparisons`` that intervals are corrected for.

    ``sigma``: the standard deviation of the page's errors, over the rows with enough runs, whose labels are ``pooled``;
    None if no row has.
    """

    claim: Claim
    results: list[RowResult]
    variant: Variant
    comparisons: int
    sigma: float | None
    pooled: tuple[str, ...] = ()

    @cached_property
    def samples(self) -> list[list[float]]:
        """Final values of each net."""
        return [final_values(result.records, self.claim.metric) for result in self.results]

    @cached_property
    def test(self) -> WelchTest | None:
        """Welch's test of the claim, with the corrected interval; None where the runs are too few."""
        samples = [*map(intervals.sample_of, self.samples)]
        return intervals.contrast(samples, self.claim.weights, intervals.corrected(self.comparisons))

    @property
    def effect(self) -> float | None:
        """Contrast of the means; None if a net has no completed run."""
        if not all(self.samples):
            return None
        return sum(w * intervals.mean(sample) for w, sample in zip(self.claim.weights, self.samples))

    @property
    def p(self) -> float | None:
        """Two-sided p-value, corrected."""
        return self.test and min(1.0, self.comparisons * self.test.p)

    @property
    def reported(self) -> float | None:
        """Contrast of the paper's numbers, also where they were read off figures; None if one is missing."""
        return self._reported and sum(w * float(own.value) for w, own in zip(self.claim.weights, self._reported))

    @property
    def doubt(self) -> float:
        """Percentage points by which :attr:`reported` may be wrong, because numbers were read off a figure."""
        read = [own.kind == "approximate" for own in self._reported or []]
        return sum(abs(w) * READING for w, off_a_figure in zip(self.claim.weights, read) if off_a_figure)

    @property
    def expected(self) -> float | None:
        """The reported contrast that power is computed for; None where it could be nothing but :attr:`doubt`."""
        return None if self.reported is None or abs(self.reported) <= self.doubt else self.reported

    @cached_property
    def _reported(self) -> list[Reported] | None:
        found = [reported.in_paper(result.row.reported, METRICS[self.claim.metric]) for result in self.results]
        return [own[0] for own in found] if self.variant.profile == "paper" and all(found) else None

    def smallest(self, n: int) -> float | None:
        """Return the smallest contrast that ``n`` seeds of each net find; None if the spread is unknown."""
        return intervals.smallest_effect(self.sigma, n, self.claim.weights, self.comparisons)

    @property
    def seeds(self) -> str:
        """Number of seeds of each net that find a contrast as large as the reported one."""
        return seeds_text(self.expected, self.sigma, self.comparisons, self.claim.weights)

    @property
    def power(self) -> float | None:
        """Probability that a contrast as large as the reported one is found; see :func:`power_of`."""
        wanted = max(result.seeds for result in self.results)
        return power_of(self.expected, self.sigma, self.samples, wanted, self.comparisons, self.claim.weights)

    @property
    def statement(self) -> str:
        """Shown, contradicted, not resolvable, not shown or untested; with the profile's name unless it is paper."""
        said = statement_on([*map(len, self.samples)], self.test and self.test.interval, self.power)
        return said if self.variant.profile == "paper" else f"{said}, in the {self.variant.profile} profile"


def power_of(
    effect: float | None,
    sigma: float | None,
    samples: Sequence[list[float]],
    wanted: int,
    comparisons: int,
    weights: tuple[float, ...] = (1,),
) -> float | None:
    """Return the probability to find an effect with the size of the smallest sample.

    With ``wanted`` seeds instead, where that size is below FEWEST. None where no effect or spread is known.
    """
    least = min(map(len, samples))
    n = least if least >= intervals.FEWEST else wanted
    if not effect or not sigma or n < intervals.FEWEST:
        return None
    return intervals.power(effect, sigma, n, weights, comparisons)


def seeds_text(effect: float | None, sigma: float | None, comparisons: int, weights: Sequence[float]) -> str:
    """Format the number of seeds that find an effect with probability POWER; a dash if the spread is unknown."""
    if not effect or not sigma:
        return NONE
    count = intervals.seeds_for(effect, sigma, weights, comparisons)
    return f"> {intervals.MOST_SEEDS:,}" if count is None else str(count)


def judge(claims: Sequence[Claim], results: Sequence[RowResult], variant: Variant) -> list[Finding]:
    """Test all claims together with the runs of the results."""
    by_key, spreads = {result.row.key: result for result in results}, {}
    for metric in {claim.metric for claim in claims}:
        samples = {result.row.label: final_values(result.records, metric) for result in results}
        pooled = tuple(label for label, own in samples.items() if len(own) >= intervals.FEWEST)
        spreads[metric] = intervals.pooled_std([*samples.values()]), pooled
    return [
        Finding(claim, [by_key[net] for net in claim.nets], variant, len(claims), *spreads[claim.metric])
        for claim in claims
    ]


def claims_section(findings: list[Finding], note: str = "") -> str:
    """Return a section with a table of the claims, their tests and power; ``note`` explains contrasts."""
    if not findings:
        return ""
    seeds, comparisons = max(result.seeds for f in findings for result in f.results), len(findings)
    columns = {
        "claim": [f.claim.text for f in findings],
        "effect": [signed(f.effect) for f in findings],
        "95 % interval, corrected": [interval(f.test and f.test.interval, signed) for f in findings],
        "p, corrected": [p_value(f.p) for f in findings],
        "shown?": [f.statement for f in findings],
        "effect, reported": [about(f.reported, f.doubt) for f in findings],
        f"smallest found by {seeds} seeds": [number(f.smallest(seeds)) for f in findings],
        "seeds for the reported effect": [f.seeds for f in findings],
    }
    sigmas = {METRICS[f.claim.metric]: f.sigma for f in findings if f.sigma}
    spread = " and ".join(f"{number(sigma)} ({name})" for name, sigma in sigmas.items())
    pooled = [f"“{label}”" for label in dict.fromkeys(label for f in findings for label in f.pooled)]
    of = f"records of {', '.join(pooled)}{', pooled' if len(pooled) > 1 else ', which other rows need not share'}"
    read = any(f.doubt for f in findings)
    means = "means" if any(f.claim.metric in HIGHER_IS_BETTER for f in findings) else "mean errors"
    return (
        f"## Claims\n\n{markdown_table(columns)}\nEach effect is a contrast of {means} in percentage "
        f"points that is above 0 if the claim holds{note}. Welch's two-sided t-test with Welch–Satterthwaite degrees "
        f"of freedom, from {intervals.FEWEST} runs of each net on; intervals and p-values are corrected for "
        f"{counted(comparisons, 'claim')} (Bonferroni). “Shown”: the interval lies above 0; “contradicted”: below.\n"
        + power_note(spread, f"{seeds} seeds", of, any(f.reported for f in findings))
        + (f"\n≈: of numbers read off a figure, each to about {READING:g} points.\n" if read else "")
    )


def about(effect: float | None, doubt: float) -> str:
    """Format a reported effect, ``≈ +6.0`` if it is uncertain."""
    return signed(effect) if not doubt or effect is None else f"≈ {signed(effect, 1)}"


def power_note(spread: str, n: str, of: str, reported: bool = True) -> str:
    """Explain the columns about power with ``n``; ``spread`` gives their standard deviations, ``of`` the samples."""
    if not spread:
        return ""
    return (
        f"\nThe smallest effect that {n} find with a probability of {100 * intervals.POWER:.0f} %"
        f"{', and the number that finds the reported effect with it, are' if reported else ' is'} computed "
        f"for normal errors with the standard deviation of the {of}: {spread}. A smaller effect is not "
        f"resolvable with {n}, which does not say that there is none.\n"
    )


def claims_numbers(findings: list[Finding]) -> dict[str, list]:
    """Return the table of :func:`claims_section` as columns for a CSV."""
    tests = [f.test for f in findings]
    return {
        "claim": [f.claim.key for f in findings],
        "text": [f.claim.text for f in findings],
        "metric": [f.claim.metric for f in findings],
        "nets": [" ".join(f.claim.nets) for f in findings],
        "weights": [" ".join(f"{weight:z.6g}" for weight in f.claim.weights) for f in findings],
        "n": [" ".join(str(len(sample)) for sample in f.samples) for f in findings],
        "effect": [f.effect for f in findings],
        "low_corrected": [test and test.interval.low for test in tests],
        "high_corrected": [test and test.interval.high for test in tests],
        "t": [test and test.t for test in tests],
        "df": [test and test.df for test in tests],
        "p_corrected": [f.p for f in findings],
        "comparisons": [f.comparisons for f in findings],
        "effect_reported": [f.reported for f in findings],
        "sigma": [f.sigma for f in findings],
        "statement": [f.statement for f in findings],
    }
