"""What is compared: a reproduced number with the reported one, a deep net with a shallow one, a row with another."""

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from reproductions import reported
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting import cells, statistics
from reproductions.harness.reporting.samples import METRICS, by_seed, final_values, paired_differences
from reproductions.harness.reporting.statistics import Interval
from reproductions.reported import Reported, Source


@dataclass(frozen=True)
class Verdict:
    """Where ``reported`` lies, seen from the 95 % prediction interval of the mean of ``k`` further runs.

    A number in ``whole`` percent was rounded or cut off, nobody knows which: it is looked at either way.
    """

    reported: float
    interval: Interval
    k: int
    whole: bool = False

    @cached_property
    def sides(self) -> dict[str, str]:
        """``inside``, ``above`` or ``below``, by how the number may have been made."""
        readings = {"if rounded": (-0.5, 0.5), "if cut off": (0.0, 1.0)} if self.whole else {"as it is": (0.0, 0.0)}
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
        return f"{where} {cells.interval(self.interval)} of {further}"


def verdict(sample: list[float], target: Reported | None, variant: Variant) -> Verdict | None:
    """The verdict on a reported number: seen from one further run, or from as many as a reported mean is of.

    None outside the paper profile, without a number to compare with, and with fewer than two completed runs.
    """
    if target is None or variant.profile != "paper":
        return None
    k = target.n if target.kind == "mean" else 1
    expected = statistics.prediction_interval(sample, k)
    return Verdict(float(target.value), expected, k, target.kind == "whole") if expected else None


@dataclass(frozen=True)
class Difference:
    """What sets a deep net's final error apart from a shallow one's."""

    deep: RowResult
    shallow: RowResult
    metric: str

    @property
    def samples(self) -> tuple[list[float], list[float]]:
        return final_values(self.deep.records, self.metric), final_values(self.shallow.records, self.metric)

    @property
    def difference(self) -> float | None:
        """Mean of the deep net minus mean of the shallow one, in percentage points."""
        deep, shallow = map(statistics.mean, self.samples)
        return None if deep is None or shallow is None else deep - shallow

    @property
    def test(self) -> statistics.WelchTest | None:
        return statistics.welch_test(*self.samples)


@dataclass(frozen=True)
class Step:
    """What a row of a ladder adds to the row that it comes after, seed by seed."""

    row: RowResult
    before: RowResult
    metric: str = "top1_accuracy"

    @cached_property
    def differences(self) -> list[float]:
        """With the step minus without, in percentage points, for every seed whose two runs were completed."""
        new, old = (by_seed(result.records, self.metric) for result in (self.row, self.before))
        return paired_differences(new, old)

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.differences)

    @property
    def interval(self) -> Interval | None:
        """The 95 % t-interval of the mean of the paired differences; None of fewer than two pairs."""
        return statistics.mean_interval(self.differences)

    @cached_property
    def reported(self) -> dict[Source, Decimal]:
        """The same difference in each paper that has a number for both rows."""
        new, old = (
            {n.source: n.value for n in reported.in_paper(r.row.reported, METRICS[self.metric])}
            for r in (self.row, self.before)
        )
        return {source: new[source] - old[source] for source in new if source in old}

    @property
    def changes_nothing(self) -> bool:
        """Whether both rows are the same runs: a variant may override what sets them apart."""
        return bool({r["identity"] for r in self.row.records} & {r["identity"] for r in self.before.records})


def find_steps(results: list[RowResult], metric: str = "top1_accuracy") -> list[Step]:
    """The steps of a table: one for each row that comes after another."""
    by_key = {result.row.key: result for result in results}
    return [Step(result, by_key[result.row.after], metric) for result in results if result.row.after]


def statement(step: Step, variant: Variant, agreement: str) -> str | None:
    """What the paired differences say of the paper's (the first, where several sources have one), in a few words.

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
        return "none: n < 2"
    if 0 in step.interval:
        return "not shown"
    expected = next(iter(step.reported.values()))
    if not expected:
        return "none: reported is 0"
    return agreement if (step.mean > 0) == (expected > 0) else "reversed"
