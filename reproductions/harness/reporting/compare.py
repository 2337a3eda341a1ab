"""Steps of a ladder of rows: paired differences by seed, compared with the paper's."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from reproductions import reported
from reproductions.harness.console import counted
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.claims import power_note, seeds_text
from reproductions.harness.reporting.frame import (
    ACCURACIES,
    METRICS,
    by_seed,
    comparable,
    paired_differences,
    pairs_note,
    share_runs,
)
from reproductions.harness.reporting.intervals import Interval, WelchTest
from reproductions.harness.reporting.text import (
    NONE,
    interval,
    markdown_table,
    no_interval,
    number,
    pairs,
    signed,
)
from reproductions.reported import Reported, Source


@dataclass(frozen=True)
class Step:
    """Effect of one row of a ladder, compared with the row that it comes after, seed by seed."""

    row: RowResult
    before: RowResult
    metric: str = "top1_accuracy"

    @cached_property
    def differences(self) -> list[float]:
        """Row minus the row before, in percentage points, for every seed whose two runs can be compared."""
        new, old = (by_seed(records, self.metric) for records in (self._comparable[0], self.before.records))
        return paired_differences(new, old)

    @property
    def left_out(self) -> Counter[str]:
        """Number of pairs of completed runs that are not compared, by the reason."""
        return self._comparable[1]

    @cached_property
    def _comparable(self) -> tuple[list[dict], Counter[str]]:
        return comparable(self.row.records, self.before.records)

    @property
    def mean(self) -> float | None:
        """Mean of the differences; None without any."""
        return intervals.mean(self.differences)

    def interval(self, comparisons: int = 1) -> Interval | None:
        """Return the 95 % t-interval of the mean difference, corrected for all ``comparisons`` (Bonferroni).

        None if the pairs are too few, or all differences are equal.
        """
        return intervals.mean_interval(self.differences, intervals.corrected(comparisons))

    @cached_property
    def reported(self) -> dict[Source, float]:
        """Reported difference by paper with a number for both rows; differences of means with a std come first."""
        new, old = (
            {n.source: n for n in reported.in_paper(r.row.reported, METRICS[self.metric])}
            for r in (self.row, self.before)
        )
        sources = sorted(new.keys() & old.keys(), key=lambda source: (new[source].std is None, source.key))
        return {source: float(new[source].value - old[source].value) for source in sources}

    @property
    def expected(self) -> float | None:
        """The first reported difference; None if there is none."""
        return next(iter(self.reported.values()), None)

    @property
    def noise(self) -> float:
        """Standard deviation of a difference of two single runs: √2 times the largest that a paper reports; else 0."""
        numbers = [n for n in reported.load() if n.source.origin == "paper" and n.metric == METRICS[self.metric]]
        return 2**0.5 * max((float(n.std) for n in numbers if n.std), default=0.0)

    @property
    def changes_nothing(self) -> bool:
        """True if both rows are the same runs."""
        return share_runs(self.row.records, self.before.records)


def find_steps(results: list[RowResult], metric: str = "top1_accuracy") -> list[Step]:
    """Return the steps of a table, one for each row that comes after another."""
    by_key = {result.row.key: result for result in results}
    return [Step(result, by_key[result.row.after], metric) for result in results if result.row.after]


def sigmas_of(steps: list[Step]) -> dict[str, float | None]:
    """Return the pooled standard deviation of the steps' paired differences, by metric.

    Where no step has enough pairs, it is estimated as for differences of unpaired runs, from the spread within the
    rows; None where no row has enough runs either.
    """
    found = {}
    for metric in dict.fromkeys(step.metric for step in steps):
        own = [step for step in steps if step.metric == metric]
        found[metric] = intervals.pooled_std([step.differences for step in own])
        if found[metric] is None:
            rows = {result.row.key: result.records for step in own for result in (step.before, step.row)}
            spread = intervals.pooled_std([[*by_seed(records, metric).values()] for records in rows.values()])
            found[metric] = spread and spread * 2**0.5
    return found


def statement(
    step: Step, variant: Variant, agreement: str, comparisons: int = 1, sigma: float | None = None
) -> str | None:
    """Compare the paired differences with the paper's (the first, where several sources report one) in a few words.

    With the 95 % interval corrected for all ``comparisons``, return ``agreement`` if it excludes 0 on the paper's side,
    "reversed" if it excludes 0 on the other side, and "not shown" if it includes 0; or, in that case, "not resolvable"
    if this number of pairs, with the standard deviation ``sigma``, would seldom find the reported difference. A
    reported difference that is not larger than the noise has no direction to be confirmed. None where the paper has no
    number.
    """
    if step.expected is None:
        return None
    if variant.profile != "paper":
        return "not comparable"
    if step.changes_nothing:
        return "none: the same runs"
    if (bounds := step.interval(comparisons)) is None:
        return no_interval(step.differences)
    expected, n = step.expected, len(step.differences)
    if 0 in bounds:
        least = intervals.smallest_effect(sigma, n, (1,), comparisons)
        return "not shown" if least is None or abs(expected) >= least else f"not resolvable with n = {n}"
    if abs(expected) <= step.noise:
        return "none: reported is within the noise"
    return agreement if (step.mean > 0) == (expected > 0) else "reversed"


def count_steps(steps: list[Step]) -> int:
    """Count the comparisons: all steps but the ones between identical rows."""
    return max(1, sum(not step.changes_nothing for step in steps))


def steps_section(
    steps: list[Step],
    variant: Variant,
    agreement: str,
    heading: str = "What each step does",
    comparisons: int | None = None,
) -> str:
    """Return a section with the table of steps: each effect here beside its reported effect; empty without steps.

    ``agreement``: the words for a step with the reported effect; see :func:`statement`. ``comparisons``: the number to
    correct for where the page has other steps, too; None for these alone.
    """
    if not steps:
        return ""
    comparisons, power = comparisons or count_steps(steps), ""
    sigmas, sources = sigmas_of(steps), _sources(steps)
    columns = {
        "step": [step.row.row.label for step in steps],
        "compared with": [step.before.row.label for step in steps],
    }
    if len({step.metric for step in steps}) > 1:
        columns["accuracy"] = [METRICS[step.metric].removesuffix(" accuracy") for step in steps]
    columns["pairs"] = [pairs(len(step.differences), step.row.seeds, step.left_out) for step in steps]
    what = "accuracy" if steps[0].metric in ACCURACIES else METRICS[steps[0].metric]
    columns[f"difference in {what}"] = [signed(step.mean) for step in steps]
    columns["95 % interval, corrected"] = [interval(step.interval(comparisons), signed) for step in steps]
    with_it = what.capitalize() if what.islower() else what
    for source in sources:
        columns[f"reported, {source.name}"] = [signed(step.reported.get(source)) for step in steps]
    note = (
        f"{with_it} with the step minus {what} without, in percentage points: mean over the pairs of "
        "completed runs with the same seed, and from three pairs on the 95 % t-interval of that mean, corrected for "
        f"{counted(comparisons, 'step')} (Bonferroni): if none of them did anything, the chance that any interval "
        "excluded 0 would be at most 5 %."
    ) + pairs_note(sum((step.left_out for step in steps), Counter()))
    if taught := [f"“{step.row.row.label}”" for step in steps if step.row.row.teacher]:
        note += (
            f" All seeds of {' and of '.join(dict.fromkeys(taught))} learn from one teacher each: what another teacher "
            "would change is in no interval."
        )
    if sources:
        compared = " or ".join(dict.fromkeys(next(iter(step.reported)).name for step in steps if step.reported))
        if noise := {METRICS[step.metric]: step.noise for step in steps if step.noise}:
            up_to = " and ".join(f"{number(value)} ({metric})" for metric, value in noise.items())
            note += f" Reported differences of up to {up_to}, √2 times the largest std that a paper gives, have no "
            note += "direction: so much may lie between two runs of one row."
        said = [statement(step, variant, agreement, comparisons, sigmas[step.metric]) or NONE for step in steps]
        columns["does it do that here?"] = said
        note += (
            f" “{agreement.capitalize()}”: the interval excludes 0, on the side of {compared}; “reversed”: it "
            "excludes 0 on the other side; “not shown”: it includes 0, so nothing is shown either way; “not "
            "resolvable”: so few pairs would seldom show a difference as large as the reported one."
        )
        if variant.profile == "paper" and any(sigmas.values()):
            seeds, own = max(step.row.seeds for step in steps), [sigmas[step.metric] for step in steps]
            least = [intervals.smallest_effect(sigma, seeds, (1,), comparisons) for sigma in own]
            columns[f"smallest found by {seeds} pairs"] = [*map(number, least)]
            columns["pairs for the reported one"] = [
                seeds_text(step.expected, sigma, comparisons, (1,)) for step, sigma in zip(steps, own)
            ]
            spread = " and ".join(f"{number(sigma)} ({METRICS[metric]})" for metric, sigma in sigmas.items() if sigma)
            power = power_note(spread, f"{seeds} pairs", "differences of pairs, pooled over the steps")
    return f"## {heading}\n\n{markdown_table(columns)}\n{note}\n{power}"


def steps_numbers(steps: list[Step], variant: Variant, agreement: str) -> dict[str, list]:
    """Return the table of :func:`steps_section` as columns for a CSV."""
    comparisons, sigmas = count_steps(steps), sigmas_of(steps)
    found = [step.interval(comparisons) for step in steps]
    columns = {
        "step": [step.row.row.key for step in steps],
        "after": [step.before.row.key for step in steps],
        "metric": [step.metric for step in steps],
        "pairs": [len(step.differences) for step in steps],
        "seeds": [step.row.seeds for step in steps],
        "pairs_left_out": [step.left_out.total() for step in steps],
        "difference": [step.mean for step in steps],
        "std": [intervals.std(step.differences) for step in steps],
        "low_corrected": [bounds and bounds.low for bounds in found],
        "high_corrected": [bounds and bounds.high for bounds in found],
        "comparisons": [comparisons] * len(steps),
    }
    for source in _sources(steps):
        columns[f"{source.key}_difference"] = [step.reported.get(source) for step in steps]
    columns["statement"] = [statement(s, variant, agreement, comparisons, sigmas[s.metric]) for s in steps]
    return columns


def _sources(steps: list[Step]) -> list[Source]:
    """Return the papers that report any of the steps, in the order of the file."""
    used = {source for step in steps for source in step.reported}
    return [source for source in dict.fromkeys(n.source for n in reported.load()) if source in used]


@dataclass(frozen=True)
class Verdict:
    """Comparison of a reported number with the runs: contradicted or not, at the 5 % level.

    It is contradicted if it lies outside ``interval``, the 95 % prediction interval of the mean of ``k`` further runs.
    Where the paper gives mean ± std of n runs, Welch's ``test`` of both samples decides instead. Each of the number's
    readings is compared, and is contradicted if every number that it stands for is.
    """

    reported: Reported
    interval: Interval | None = None
    test: WelchTest | None = None

    @property
    def k(self) -> int:
        """Number of runs of the reported number: 1 if it is not stated, which makes the widest interval."""
        return self.reported.n or 1

    @property
    def interval_text(self) -> str:
        """The prediction interval with the number of runs that it is for, unless that is 1."""
        return interval(self.interval) + (f" of the mean of {self.k} more" if self.interval and self.k > 1 else "")

    @cached_property
    def sides(self) -> dict[str, str]:
        """Result by reading of the number: ``not contradicted``, or contradicted with the number's side."""
        value = float(self.reported.value)
        return {how: self._side(value + low, value + high) for how, (low, high) in self.reported.readings.items()}

    def _side(self, low: float, high: float) -> str:
        if self.test is not None:
            above, below = self.test.interval.high < 0, self.test.interval.low > 0
        else:
            above, below = low > self.interval.high, high < self.interval.low
        return "contradicted, above" if above else "contradicted, below" if below else "not contradicted"

    def __str__(self) -> str:
        first, *others = dict.fromkeys(self.sides.values())
        where = "; ".join(f"{how} {side}" for how, side in self.sides.items()) if others else first
        return f"{where} (± {number((self.test or self).interval.half_width)})"


def verdict(sample: list[float], target: Reported | None, variant: Variant) -> Verdict | None:
    """Compare a reported number with the runs: as the mean of one or n further runs, or as mean ± std of n.

    None outside the paper profile, without a number to compare with, and with too few completed runs.
    """
    if target is None or variant.profile != "paper":
        return None
    if target.std is not None and target.n:
        paper = intervals.Sample(float(target.value), float(target.std), target.n)
        test = intervals.contrast([intervals.sample_of(sample), paper], (1, -1))
        return test and Verdict(target, test=test)
    expected = intervals.percent(intervals.prediction_interval(sample, target.n or 1))
    return expected and Verdict(target, expected)


def from_reported(difference: float | None, target: Reported | None) -> str:
    """Format a difference from the printed number, ``+0.26 to +1.26`` from one that stands for several."""
    below, above = target.reach if target else (0.0, 0.0)
    if difference is None or not below + above:
        return signed(difference)
    return f"{signed(difference - above)} to {signed(difference + below)}"


def no_verdict(sample: list[float], variant: Variant) -> str:
    """Return the words in place of a missing verdict."""
    return no_interval(sample) if variant.profile == "paper" else "not comparable"
