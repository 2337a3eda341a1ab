"""Effects of changes of a default: differences paired by seed, corrected for multiple comparisons; a forest plot."""

from collections import Counter
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from reproductions.harness.console import counted
from reproductions.harness.experiment import Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.figure import DOUBLE, INK, bars, legend_below, look, make_figure, styled
from reproductions.harness.reporting.frame import pairs_note
from reproductions.harness.reporting.intervals import Interval
from reproductions.harness.reporting.page import Headline
from reproductions.harness.reporting.text import NONE, interval, markdown_table, no_interval, p_value, pairs, signed


@dataclass(frozen=True)
class Effect:
    """Effect of a ``change`` on the test error of a ``net``, in percentage points.

    ``differences``: error with the change minus error without, for every seed with two completed runs. ``left_out``:
    reasons for which runs can't be compared, with their counts. ``seeds``: number of seeds asked for. ``selected``: the
    change takes the best of several errors, which can only lower the error. ``same``: "the same runs" or the like if
    the change changes nothing; it is not tested.
    """

    net: str
    change: str
    differences: list[float]
    seeds: int
    selected: bool = False
    same: str = ""
    left_out: Counter[str] = field(default_factory=Counter)

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


@styled
def forest(effects: list[Effect], variant: Variant) -> Figure | None:
    """Draw every effect as a line: pairs of seeds as dots, the mean with its corrected interval. None without pairs."""
    shown = [effect for effect in by_size(effects) if effect.differences]
    if not shown:
        return None
    nets = list(dict.fromkeys(effect.net for effect in shown))
    data = "synthetic" if variant.profile == "smoke" else "cifar10"
    figure, (axis,) = make_figure(DOUBLE, 0.8 + 0.22 * len(shown), [""], variant, [data], grid="x")
    axis.axvline(0, color=INK, linewidth=0.7, zorder=1)
    legend: dict[str, object] = {}
    found = [effect.interval(count(effects)) for effect in shown]
    for y, (effect, bounds) in enumerate(zip(shown, found)):
        colour, marker = look((4, 0, 2, 1, 3, 5)[nets.index(effect.net) % 6])
        legend[f"one pair of seeds, {effect.net}"] = axis.scatter(
            effect.differences, [y - 0.12] * len(effect.differences), s=9, color=colour, marker=marker, alpha=0.75,
            linewidth=0, zorder=3)  # fmt: skip
        bar = bars(effect.differences, bounds) if bounds else None
        drawn = axis.errorbar(effect.mean, y + 0.12, xerr=bar, color=INK, marker="|", markersize=5, capsize=2,
                              linewidth=0.9, linestyle="none", zorder=4)  # fmt: skip
        legend["mean, 95 % interval, corrected" if bar else "mean"] = drawn
    reach = 1.6 * max(abs(difference) for effect in shown for difference in effect.differences) or 1.0
    if any(not -reach < bounds.low <= bounds.high < reach for bounds in found if bounds):
        axis.set_xlim(-reach, reach)  # intervals may be so wide that nothing else could be seen
        legend = {f"{name}{' (some leave the axis)' if 'interval' in name else ''}": m for name, m in legend.items()}
    axis.set_yticks(range(len(shown)), [f"{one.change} ({one.net}, n = {len(one.differences)})" for one in shown])
    axis.set(ylim=(len(shown) - 0.4, -0.6), xlabel="test error, points above the default")
    axis.tick_params(axis="y", length=0)
    legend_below(figure, {name: legend[name] for name in sorted(legend, key=lambda name: name.startswith("mean"))})
    return figure
