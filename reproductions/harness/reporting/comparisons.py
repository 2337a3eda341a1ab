"""What is compared: a reproduced error with the reported one, and a deep net with a shallow one."""

from dataclasses import dataclass

from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting import cells, statistics
from reproductions.harness.reporting.samples import final_errors
from reproductions.harness.reporting.statistics import Interval
from reproductions.reported import Reported


@dataclass(frozen=True)
class Verdict:
    """Where ``reported`` lies, seen from the 95 % prediction interval of the mean of ``k`` further runs."""

    reported: float
    interval: Interval
    k: int

    @property
    def inside(self) -> bool:
        return self.reported in self.interval

    def __str__(self) -> str:
        side = "inside" if self.inside else "above" if self.reported > self.interval.high else "below"
        further = "1 more run" if self.k == 1 else f"the mean of {self.k} more"
        return f"{side} {cells.interval(self.interval)} of {further}"


def verdict(sample: list[float], target: Reported | None, variant: Variant) -> Verdict | None:
    """The verdict on a reported number: seen from one further run, or from as many as a reported mean is of.

    None outside the paper profile, without a number to compare with, and with fewer than two completed runs.
    """
    if target is None or variant.profile != "paper":
        return None
    k = target.n if target.kind == "mean" else 1
    expected = statistics.prediction_interval(sample, k)
    return Verdict(float(target.value), expected, k) if expected else None


@dataclass(frozen=True)
class Difference:
    """What sets a deep net's final error apart from a shallow one's."""

    deep: RowResult
    shallow: RowResult
    metric: str

    @property
    def samples(self) -> tuple[list[float], list[float]]:
        return final_errors(self.deep.records, self.metric), final_errors(self.shallow.records, self.metric)

    @property
    def difference(self) -> float | None:
        """Mean of the deep net minus mean of the shallow one, in percentage points."""
        deep, shallow = map(statistics.mean, self.samples)
        return None if deep is None or shallow is None else deep - shallow

    @property
    def test(self) -> statistics.WelchTest | None:
        return statistics.welch_test(*self.samples)
