"""What each step of a ladder of rows does: paired differences by seed, and what they say of the paper's."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from reproductions import reported
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import (
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
    p_value,
    pairs,
    signed,
)
from reproductions.reported import Reported, Source


@dataclass(frozen=True)
class Step:
    """What a row of a ladder adds to the row that it comes after, seed by seed."""

    row: RowResult
    before: RowResult
    metric: str = "top1_accuracy"

    @cached_property
    def differences(self) -> list[float]:
        """With the step minus without, in percentage points, for every seed whose two runs can be compared."""
        new, old = (by_seed(records, self.metric) for records in (self._comparable[0], self.before.records))
        return paired_differences(new, old)

    @property
    def left_out(self) -> Counter[str]:
        """How many pairs of completed runs are not compared, by the reason."""
        return self._comparable[1]

    @cached_property
    def _comparable(self) -> tuple[list[dict], Counter[str]]:
        return comparable(self.row.records, self.before.records)

    @property
    def mean(self) -> float | None:
        return intervals.mean(self.differences)

    @property
    def interval(self) -> Interval | None:
        """The 95 % t-interval of the mean of the paired differences; None of fewer than two pairs, or equal ones."""
        return intervals.mean_interval(self.differences)

    @cached_property
    def reported(self) -> dict[Source, Decimal]:
        """The same difference in each paper that has a number for both rows; those of means with a std come first."""
        new, old = (
            {n.source: n for n in reported.in_paper(r.row.reported, METRICS[self.metric])}
            for r in (self.row, self.before)
        )
        sources = sorted(new.keys() & old.keys(), key=lambda source: (new[source].std is None, source.key))
        return {source: new[source].value - old[source].value for source in sources}

    @property
    def noise(self) -> Decimal:
        """The largest standard deviation over runs that a paper gives of the metric, which all tables share; else 0."""
        numbers = [n for n in reported.load() if n.source.origin == "paper" and n.metric == METRICS[self.metric]]
        return max((n.std for n in numbers if n.std), default=Decimal(0))

    @property
    def changes_nothing(self) -> bool:
        """Whether both rows are the same runs."""
        return share_runs(self.row.records, self.before.records)


def find_steps(results: list[RowResult], metric: str = "top1_accuracy") -> list[Step]:
    """The steps of a table: one for each row that comes after another."""
    by_key = {result.row.key: result for result in results}
    return [Step(result, by_key[result.row.after], metric) for result in results if result.row.after]


def statement(step: Step, variant: Variant, agreement: str) -> str | None:
    """What the paired differences say of the paper's (the first, where several sources have one), in a few words.

    A reported difference that is not larger than the noise has no direction to be confirmed.

    ``agreement`` if their 95 % interval excludes 0 on the paper's side, "reversed" if it does on the other, "not shown"
    if it includes 0. None where the paper has no number.
    """
    if not step.reported:
        return None
    if variant.profile != "paper":
        return "not comparable"
    if step.changes_nothing:
        return "none: the same runs"
    if step.interval is None:
        return no_interval(step.differences)
    if 0 in step.interval:
        return "not shown"
    expected = next(iter(step.reported.values()))
    if abs(expected) <= step.noise:
        return "none: reported is within a std of 0"
    return agreement if (step.mean > 0) == (expected > 0) else "reversed"


def steps_section(steps: list[Step], variant: Variant, agreement: str, heading: str = "What each step does") -> str:
    """A table of what each step of a ladder does, beside what it does in the paper, under a heading.

    ``agreement``: what is said of a step that does what it does in the paper; see :func:`statement`.
    """
    counts = [len(step.differences) for step in steps]
    columns = {
        "step": [step.row.row.label for step in steps],
        "compared with": [step.before.row.label for step in steps],
    }
    if len({step.metric for step in steps}) > 1:
        columns["accuracy"] = [METRICS[step.metric].removesuffix(" accuracy") for step in steps]
    columns["pairs"] = [pairs(n, step.row.seeds, step.left_out) for n, step in zip(counts, steps)]
    columns["difference"] = [signed(step.mean) for step in steps]
    columns["95 % interval"] = [interval(step.interval, signed) for step in steps]
    sources = _sources(steps)
    for source in sources:
        values = [step.reported.get(source) for step in steps]
        columns[f"reported, {source.name}"] = [signed(None if v is None else float(v)) for v in values]
    note = (
        "Accuracy with the step minus accuracy without, in percentage points: mean over the pairs of completed runs "
        "with the same seed, and the 95 % t-interval of that mean; it needs two pairs."
    ) + pairs_note(sum((step.left_out for step in steps), Counter()))
    if sources:
        compared = " or ".join(dict.fromkeys(next(iter(step.reported)).name for step in steps if step.reported))
        if noise := max(step.noise for step in steps):
            note += f" Reported differences of up to {noise}, the largest std that the paper gives, have no direction."
        columns["does it do that here?"] = [statement(step, variant, agreement) or NONE for step in steps]
        note += (
            f" “{agreement.capitalize()}”: the interval excludes 0, on the side of {compared}; “reversed”: it "
            "excludes 0 on the other side; “not shown”: it includes 0, so nothing is shown either way. No correction "
            f"is made for the number of steps: of {len(steps)} differences, each has its own 5 % chance of excluding 0 "
            "where a step does nothing."
        )
    return f"## {heading}\n\n{markdown_table(columns)}\n{note}\n"


def steps_numbers(steps: list[Step], variant: Variant, agreement: str) -> dict[str, list]:
    """The same as columns for a CSV."""
    found = [step.interval for step in steps]
    columns = {
        "step": [step.row.row.key for step in steps],
        "after": [step.before.row.key for step in steps],
        "metric": [step.metric for step in steps],
        "pairs": [len(step.differences) for step in steps],
        "seeds": [step.row.seeds for step in steps],
        "pairs_left_out": [step.left_out.total() for step in steps],
        "difference": [step.mean for step in steps],
        "std": [intervals.std(step.differences) for step in steps],
        "low": [bounds and bounds.low for bounds in found],
        "high": [bounds and bounds.high for bounds in found],
    }
    for source in _sources(steps):
        values = [step.reported.get(source) for step in steps]
        columns[f"{source.key}_difference"] = [None if value is None else float(value) for value in values]
    columns["statement"] = [statement(step, variant, agreement) for step in steps]
    return columns


def _sources(steps: list[Step]) -> list[Source]:
    """The papers that report any of the steps, in the order of the file."""
    used = {source for step in steps for source in step.reported}
    return [source for source in dict.fromkeys(n.source for n in reported.load()) if source in used]


@dataclass(frozen=True)
class Verdict:
    """Where ``reported`` lies, seen from the 95 % prediction interval of the mean of ``k`` further runs.

    A number in ``whole`` percent was rounded or cut off, nobody knows which: it is looked at either way. One that was
    ``cut_off`` stands for anything up to one point more.
    """

    reported: float
    interval: Interval
    k: int
    whole: bool = False
    cut_off: bool = False

    @cached_property
    def sides(self) -> dict[str, str]:
        """``inside``, ``above`` or ``below``, by how the number may have been made."""
        readings = {"as it is": (0.0, 1.0 if self.cut_off else 0.0)}
        if self.whole:
            readings = {"if rounded": (-0.5, 0.5), "if cut off": (0.0, 1.0)}
        return {how: self._side(self.reported + low, self.reported + high) for how, (low, high) in readings.items()}

    def _side(self, low: float, high: float) -> str:
        """Where the values from ``low`` to ``high`` lie; inside if any of them does."""
        return "above" if low > self.interval.high else "below" if high < self.interval.low else "inside"

    @property
    def inside(self) -> bool:
        """Whether the two agree, however the number was made."""
        return set(self.sides.values()) == {"inside"}

    def __str__(self) -> str:
        first, *others = dict.fromkeys(self.sides.values())
        where = f"{', '.join(f'{side} {how}' for how, side in self.sides.items())}:" if others else first
        further = "1 more run" if self.k == 1 else f"the mean of {self.k} more"
        return f"{where} {interval(self.interval)} of {further}"


def verdict(sample: list[float], target: Reported | None, variant: Variant) -> Verdict | None:
    """The verdict on a reported number: seen from one further run, or from as many as a reported mean is of.

    None outside the paper profile, without a number to compare with, and with fewer than two completed runs.
    """
    if target is None or variant.profile != "paper":
        return None
    k = target.n or 1  # of a mean of nobody says how many runs: as of one, which is the widest interval
    expected = intervals.prediction_interval(sample, k)
    if expected is None:
        return None
    return Verdict(float(target.value), expected, k, target.kind == "whole", target.kind == "cut_off")


def no_verdict(sample: list[float], variant: Variant) -> str:
    """Why there is none on a reported number, in the place of one."""
    return no_interval(sample) if variant.profile == "paper" else "not comparable"


def welch_cells(tests: list[WelchTest | None], show: Callable[[float | None], str]) -> dict[str, list[str]]:
    """What Welch's tests say, as columns of a table; ``show`` writes the ends of the intervals."""
    return {
        "95 % interval": [interval(test and test.interval, show) for test in tests],
        "t": [number(test and test.t) for test in tests],
        "df": [number(test and test.df, 1) for test in tests],
        "p": [p_value(test and test.p) for test in tests],
    }


def welch_numbers(tests: list[WelchTest | None]) -> dict[str, list]:
    """The same as columns for a CSV."""
    return {
        "low": [test and test.interval.low for test in tests],
        "high": [test and test.interval.high for test in tests],
        "t": [test and test.t for test in tests],
        "df": [test and test.df for test in tests],
        "p": [test and test.p for test in tests],
    }
