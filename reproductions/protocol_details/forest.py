"""Forest plots: differences from 0, one line each."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from reproductions.harness.experiment import Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.figure import DOUBLE, INK, bars, legend_below, look, make_figure, styled


@dataclass(frozen=True)
class Line:
    """One line of a forest plot: values as dots in the colour of their ``group``, their mean with an interval."""

    label: str
    group: str
    values: list[float]
    interval: intervals.Interval | None


@styled
def forest(lines: list[Line], meaning: str, interval: str, variant: Variant) -> Figure:
    """Draw differences from 0, a line each from above. ``meaning``: of the axis. ``interval``: the name of the bars."""
    groups = list(dict.fromkeys(line.group for line in lines))
    data = "synthetic" if variant.profile == "smoke" else "cifar10"
    figure, (axis,) = make_figure(DOUBLE, 0.8 + 0.22 * len(lines), [""], variant, [data], grid="x")
    axis.axvline(0, color=INK, linewidth=0.7, zorder=1)
    legend: dict[str, object] = {}
    for y, line in enumerate(lines):
        colour, marker = look((4, 0, 2, 1, 3, 5)[groups.index(line.group) % 6])
        legend[f"one pair of seeds, {line.group}"] = axis.scatter(
            line.values, [y - 0.12] * len(line.values), s=9, color=colour, marker=marker, alpha=0.75, linewidth=0,
            zorder=3)  # fmt: skip
        bar = bars(line.values, line.interval) if line.interval else None
        drawn = axis.errorbar(intervals.mean(line.values), y + 0.12, xerr=bar, color=INK, marker="|", markersize=5,
                              capsize=2, linewidth=0.9, linestyle="none", zorder=4)  # fmt: skip
        legend[f"mean, {interval}" if bar else "mean"] = drawn
    samples, bounds = [value for line in lines for value in line.values], [line.interval for line in lines]
    reach = 1.6 * max(map(abs, samples)) or 1.0
    drawn = [bound for bound, line in zip(bounds, lines) if bound and len(line.values) > 2]
    if any(not -reach < bound.low <= bound.high < reach for bound in drawn):
        axis.set_xlim(-reach, reach)  # intervals may be so wide that nothing else could be seen
        legend = {f"{name}{' (some leave the axis)' if interval in name else ''}": m for name, m in legend.items()}
    axis.set_yticks(range(len(lines)), [f"{line.label} ({line.group}, n = {len(line.values)})" for line in lines])
    axis.set(ylim=(len(lines) - 0.4, -0.6), xlabel=meaning)
    axis.tick_params(axis="y", length=0)
    legend_below(figure, {name: legend[name] for name in sorted(legend, key=lambda name: name.startswith("mean"))})
    return figure
