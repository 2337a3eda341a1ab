"""What each step of a ladder of rows does: paired differences by seed, and what they say of the paper's."""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from reproductions import reported
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting import statistics
from reproductions.harness.reporting.cells import NONE, interval, no_interval, pairs, signed
from reproductions.harness.reporting.markdown import markdown_table
from reproductions.harness.reporting.samples import (
    METRICS,
    by_seed,
    comparable,
    paired_differences,
    pairs_note,
    share_runs,
)
from reproductions.harness.reporting.statistics import Interval
from reproductions.reported import Source


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
        return statistics.mean(self.differences)

    @property
    def interval(self) -> Interval | None:
        """The 95 % t-interval of the mean of the paired differences; None of fewer than two pairs, or equal ones."""
        return statistics.mean_interval(self.differences)

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


def section(steps: list[Step], variant: Variant, agreement: str, heading: str = "What each step does") -> str:
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


def numbers(steps: list[Step], variant: Variant, agreement: str) -> dict[str, list]:
    """The same as columns for a CSV."""
    intervals = [step.interval for step in steps]
    columns = {
        "step": [step.row.row.key for step in steps],
        "after": [step.before.row.key for step in steps],
        "metric": [step.metric for step in steps],
        "pairs": [len(step.differences) for step in steps],
        "seeds": [step.row.seeds for step in steps],
        "pairs_left_out": [step.left_out.total() for step in steps],
        "difference": [step.mean for step in steps],
        "std": [statistics.std(step.differences) for step in steps],
        "low": [bounds and bounds.low for bounds in intervals],
        "high": [bounds and bounds.high for bounds in intervals],
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
