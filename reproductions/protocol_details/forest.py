"""Forest plots: differences from 0, one line each."""

from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure

from reproductions.harness.experiment import Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.figure import COLOURS, INK, MARKERS, STYLE, grid, make_figure


@dataclass(frozen=True)
class Line:
    """One line of a forest plot: values as dots in the colour of their ``group``, their mean with an interval."""

    label: str
    group: str
    values: list[float]
    interval: intervals.Interval | None


def forest(lines: list[Line], meaning: str, interval: str, variant: Variant) -> Figure:
    """Differences from 0, one line each, from above. ``meaning``: of the axis. ``interval``: what the bars are."""
    groups = list(dict.fromkeys(line.group for line in lines))
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = make_figure(7.8, 1.6 + 0.3 * len(lines), 1, variant)
        axis.axvline(0, color=INK, linewidth=0.9, zorder=1)
        legend: dict[str, object] = {}
        for y, line in enumerate(lines):
            index = groups.index(line.group)
            colour, marker = COLOURS[(4, 3, 2, 0, 1, 5)[index % 6]], MARKERS[index % len(MARKERS)]
            legend[f"one pair of seeds, {line.group}"] = axis.scatter(
                line.values, [y - 0.12] * len(line.values), s=16, color=colour, marker=marker, alpha=0.75, linewidth=0,
                zorder=3)  # fmt: skip
            mean, bounds = intervals.mean(line.values), line.interval
            bars = None if bounds is None else [[mean - bounds.low], [bounds.high - mean]]
            drawn = axis.errorbar(mean, y + 0.12, xerr=bars, color=INK, marker="|", markersize=8, markeredgewidth=2,
                                  capsize=3, linewidth=1.2, zorder=4)  # fmt: skip
            legend[f"mean, {interval}"] = drawn
        samples = [value for line in lines for value in line.values]
        reach = 1.6 * max(map(abs, samples)) or 1.0
        if any(line.interval and not -reach < line.interval.low <= line.interval.high < reach for line in lines):
            axis.set_xlim(-reach, reach)  # of two seeds, intervals are so wide that nothing else could be seen
            legend = {f"{name}{' (some leave the axis)' if interval in name else ''}": m for name, m in legend.items()}
        axis.set_yticks(range(len(lines)), [f"{line.label} ({line.group})" for line in lines])
        axis.set(ylim=(len(lines) - 0.4, -0.6), xlabel=meaning)
        axis.tick_params(axis="y", length=0)
        grid(axis, "x")
        names = sorted(legend, key=lambda name: name.startswith("mean"))
        figure.legend([legend[name] for name in names], names, loc="outside lower center", ncols=2)
        return figure
