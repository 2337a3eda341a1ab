"""A reproduced number beside the reported one: whether the two agree."""

from dataclasses import dataclass
from functools import cached_property

from reproductions.harness.experiment import Variant
from reproductions.harness.reporting import cells, statistics
from reproductions.harness.reporting.statistics import Interval
from reproductions.reported import Reported


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
        return f"{where} {cells.interval(self.interval)} of {further}"


def verdict(sample: list[float], target: Reported | None, variant: Variant) -> Verdict | None:
    """The verdict on a reported number: seen from one further run, or from as many as a reported mean is of.

    None outside the paper profile, without a number to compare with, and with fewer than two completed runs.
    """
    if target is None or variant.profile != "paper":
        return None
    k = target.n or 1  # of a mean of nobody says how many runs: as of one, which is the widest interval
    expected = statistics.prediction_interval(sample, k)
    if expected is None:
        return None
    return Verdict(float(target.value), expected, k, target.kind == "whole", target.kind == "cut_off")


def no_verdict(sample: list[float], variant: Variant) -> str:
    """Why there is none on a reported number, in the place of one."""
    return cells.no_interval(sample) if variant.profile == "paper" else "not comparable"
