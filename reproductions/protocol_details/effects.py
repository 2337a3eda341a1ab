"""Effects of changes of a default: differences paired by seed, corrected for multiple comparisons."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from matplotlib.figure import Figure

from reproductions.harness.console import counted
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import completed, paired_differences, pairs_note
from reproductions.harness.reporting.intervals import Interval
from reproductions.harness.reporting.page import Headline
from reproductions.harness.reporting.text import NONE, interval, markdown_table, no_interval, p_value, pairs, signed
from reproductions.protocol_details.forest import Line, forest


@dataclass(frozen=True)
class Effect:
    """Effect of a ``change`` on the test error of a ``net``, in percentage points.

    ``changed`` and ``default``: errors by seed. ``left_out``: reasons for which runs can't be compared, with their
    counts. ``seeds``: number of seeds asked for. ``selected``: the change takes the best of several errors, which can
    only lower the error. ``same``: "the same runs" or the like if the change changes nothing; it is not tested.
    """

    net: str
    change: str
    changed: dict[int, float]
    default: dict[int, float]
    seeds: int
    selected: bool = False
    same: str = ""
    left_out: Counter[str] = field(default_factory=Counter)

    @cached_property
    def differences(self) -> list[float]:
        """Error with the change minus error without, for every seed with two completed runs."""
        return paired_differences(self.changed, self.default)

    @property
    def mean(self) -> float | None:
        """Mean of the differences; None without pairs."""
        return intervals.mean(self.differences)

    def interval(self, comparisons: int) -> Interval | None:
        """Return the t-interval of the mean; None if it can't be computed or nothing was changed.

        The intervals of ``comparisons`` effects hold simultaneously with 95 % probability (Bonferroni).
        """
        return None if self.same else intervals.mean_interval(self.differences, intervals.corrected(comparisons))

    def p(self, comparisons: int) -> float | None:
        """Return the p-value of the paired t-test times the number of comparisons (Bonferroni), at most 1.

        None if the effect is not tested or has too few pairs.
        """
        p = None if self.same or self.selected else intervals.paired_p(self.differences)
        return None if p is None else min(1.0, comparisons * p)

    def statement(self, comparisons: int) -> str:
        """Return the result in words: better, worse, not shown, or why there is none."""
        bounds = self.interval(comparisons)
        if self.same:
            return f"none: {self.same}"
        if not self.differences:
            return "no pairs"
        if self.selected:
            return "lower by selection"
        if bounds is None:
            return no_interval(self.differences)
        return "not shown" if 0 in bounds else "worse" if self.mean > 0 else "better"


def count(effects: list[Effect]) -> int:
    """Return the number of comparisons: all effects that are tested once their runs are there."""
    return max(1, sum(not effect.same and not effect.selected for effect in effects))


def by_size(effects: list[Effect]) -> list[Effect]:
    """Sort the effects by absolute mean, the largest first; effects without pairs come last."""
    return sorted(effects, key=lambda effect: -abs(effect.mean) if effect.differences else 1.0)


def best_errors(result: RowResult) -> dict[int, float]:
    """Return each seed's lowest test error over all evaluations, selected on the test set."""
    return {r["specification"]["seed"]: r["best"]["test_error"] for r in completed(result.records)}


def section(effects: list[Effect]) -> str:
    """Return a Markdown section: the effects, the largest first."""
    comparisons, ordered = count(effects), by_size(effects)
    table = markdown_table(
        {
            "change": [effect.change for effect in ordered],
            "net": [effect.net for effect in ordered],
            "pairs": [pairs(len(effect.differences), effect.seeds, effect.left_out) for effect in ordered],
            "difference": [signed(effect.mean) for effect in ordered],
            "95 % interval, corrected": [interval(effect.interval(comparisons), signed) for effect in ordered],
            "p, corrected": [p_value(effect.p(comparisons)) for effect in ordered],
            "the change is": [e.statement(comparisons) if e.differences or e.same else NONE for e in ordered],
        }
    )
    return (
        f"## Effect of each change\n\n{table}\nTest error with the change minus test error of the default with the "
        "same seed, in percentage points: above 0, the change is worse. Means over pairs of completed runs, paired "
        f"t-intervals and t-tests, corrected for {counted(comparisons, 'comparison')} (Bonferroni): if no change has "
        "an effect, the probability that any interval excludes 0 is at most 5 %. The best of several evaluations is "
        "selected by test error, so it is never above the last; the difference is the effect of this selection. It is "
        "neither tested nor counted; its interval has the same level."
        f"{pairs_note(sum((effect.left_out for effect in effects), Counter()))}\n"
    )


def numbers(effects: list[Effect]) -> dict[str, list]:
    """Return the effects as columns for a CSV file, in the table's order."""
    comparisons, ordered = count(effects), by_size(effects)
    bounds = [effect.interval(comparisons) for effect in ordered]
    return {
        "change": [effect.change for effect in ordered],
        "net": [effect.net for effect in ordered],
        "pairs": [len(effect.differences) for effect in ordered],
        "seeds": [effect.seeds for effect in ordered],
        "pairs_left_out": [effect.left_out.total() for effect in ordered],
        "difference": [effect.mean for effect in ordered],
        "std": [intervals.std(effect.differences) for effect in ordered],
        "low_corrected": [b and b.low for b in bounds],
        "high_corrected": [b and b.high for b in bounds],
        "p_corrected": [effect.p(comparisons) for effect in ordered],
        "comparisons": [comparisons] * len(effects),
    }


def headline(effects: list[Effect]) -> Headline:
    """Return the headline for the index: the largest effect."""
    compared = [effect for effect in effects if not effect.same and not effect.selected]
    largest, comparisons = by_size(compared)[0], count(effects)
    bounds = interval(largest.interval(comparisons), signed)
    reproduced = f"test error {signed(largest.mean)} {bounds} ({len(largest.differences)} pairs)"
    return Headline(f"the largest: {largest.net}, {largest.change}", NONE, reproduced, largest.statement(comparisons))


def effects_forest(effects: list[Effect], variant: Variant) -> Figure | None:
    """Draw every effect as a line: pairs of seeds as dots, the mean with its corrected interval. None without pairs."""
    shown = [effect for effect in by_size(effects) if effect.differences]
    if not shown:
        return None
    lines = [Line(effect.change, effect.net, effect.differences, effect.interval(count(effects))) for effect in shown]
    meaning = "test error, points above the default"
    return forest(lines, meaning, "95 % interval, corrected", variant)
