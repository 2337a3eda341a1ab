"""Learning curves: errors and losses over the iterations or epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting.figure import (
    DOUBLE,
    GREY,
    INK,
    SINGLE,
    legend_below,
    look,
    make_figure,
    named,
    spread,
    styled,
)
from reproductions.harness.reporting.frame import completed, curve
from resnet.data import TRAIN_IMAGES

if TYPE_CHECKING:
    import pandas  # loaded where a frame is made: it takes a second

MARGIN = 1.02  # of the iterations, so that the last markers are whole
THOUSANDS_FROM = 10_000  # iterations; longer runs have an axis in thousands
STEP_PLACES = {"without the step": 3, "with the step": 1}  # their colours and markers
LONGEST = 12  # characters of a name that is written beside the end of its curve
DASHES = (0, (4, 2))  # of training errors and plain nets
DROP = {"color": GREY, "linewidth": 0.6, "linestyle": ":"}  # of the learning rate


@styled
def learning_curves(
    panels: dict[str, list[RowResult]], variant: Variant, apart: dict[str, int] | None = None
) -> Figure | None:
    """Draw training error (dashed) and test error (solid) over the iterations, as in Figure 6 of He et al. 2015.

    A panel per title shows the rows that have completed runs, with a band from the lowest to the highest seed around
    the mean; panels without any are left out, and the others share their axes. apart: titles of panels with an error
    axis of their own, each with the place of its first row, which gives colour and marker. None without completed runs.
    """
    apart = apart or {}
    shown = {
        title: {place: result for place, result in enumerate(rows, apart.get(title, 0)) if completed(result.records)}
        for title, rows in panels.items()
    }
    shown = {title: panel for title, panel in shown.items() if panel}
    if not shown:
        return None
    together = [result for title, panel in shown.items() if title not in apart for result in panel.values()]
    results = [result for panel in shown.values() for result in panel.values()]
    figure, axes = make_figure(
        DOUBLE if len(shown) > 1 else SINGLE, 2.2, [*shown], variant, [result.row.data for result in results],
        share_y=not apart.keys() & shown.keys(),
    )  # fmt: skip
    last = max(result.row.recipe.iterations for result in results)
    unit = 1_000 if last >= THOUSANDS_FROM else 1
    for axis, (title, panel) in zip(axes, shown.items()):
        axis.set(xlim=(0, MARGIN * last / unit), ylim=limits(panel.values() if title in apart else together))
        axis.set_xlabel("iterations (thousands)" if unit > 1 else "iterations")
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        drops = {drop for r in panel.values() for drop in r.row.recipe.milestones if drop < r.row.recipe.iterations}
        mark_drops(axis, {drop / unit for drop in drops})
        for place, result in panel.items():
            draw_curves(axis, result, place, unit)
        _label_ends(axis, panel)
    axes[0].set_ylabel("error (%)")
    nets = {named(r.row.label, r.records): place for panel in shown.values() for place, r in panel.items()}
    curve_legend(figure, results, dict(sorted(nets.items(), key=lambda net: net[1])))
    return figure


def errors_of(result: RowResult) -> list[pandas.DataFrame]:
    """Return a row's curves of the test error and of the training error; none without completed runs."""
    found = [curve(result.records, metric) for metric in ("test_error", "training_error")]
    return [values for values in found if values is not None]


def draw_curves(axis: Axes, result: RowResult, index: int, unit: float) -> None:
    """Draw both errors of a row with the colour and marker of a place; an axis has ``unit`` iterations per 1."""
    for values, dashed in zip(errors_of(result), (False, True)):
        draw_curve(axis, values, index, unit, dashed)


def draw_curve(
    axis: Axes, values: pandas.DataFrame, index: int, unit: float, dashed: bool = False, most: int = 8
) -> None:
    """Draw a curve's mean, with the band from min to max and about ``most`` markers, over its index."""
    colour, marker = look(index)
    x = values.index / unit
    step = max(1, math.ceil(len(x) / most))
    axis.plot(
        x, values["mean"], color=colour, linewidth=0.8 if dashed else 1.3, linestyle=DASHES if dashed else "-",
        marker=marker, markevery=(index % step, step), markerfacecolor="white" if dashed else colour,
        zorder=2 if dashed else 3,
    )  # fmt: skip
    axis.fill_between(x, values["min"], values["max"], color=colour, alpha=0.18, linewidth=0, zorder=1)


def mark_drops(axis: Axes, places: Iterable[float]) -> None:
    """Mark with thin lines, labelled above the axis, the places where the learning rate is divided by 10."""
    for place in sorted(places):
        axis.axvline(place, zorder=0, **DROP)
        axis.annotate("÷ 10", (place, 1), xycoords=("data", "axes fraction"), xytext=(0, 1),
                      textcoords="offset points", ha="center", va="bottom", fontsize=7, color=GREY)  # fmt: skip
        axis.set_title(axis.get_title(loc="left"), pad=11)


def _label_ends(axis: Axes, panel: dict[int, RowResult]) -> None:
    """Write each net's name beside the end of its test curve, moved apart where two would overlap.

    A panel with a longer name has its names in the legend alone.
    """
    if max(len(result.row.label) for result in panel.values()) > LONGEST:
        return
    bottom, top = axis.get_ylim()
    ends = [curve(result.records, "test_error")["mean"].iloc[-1] for result in panel.values()]
    fractions = [min(1.0, (end - bottom) / (top - bottom)) for end in ends]
    for (place, result), fraction, height in zip(panel.items(), fractions, spread(fractions, gap=0.085)):
        colour, _ = look(place)
        axis.plot([1.0, 1.03], [fraction, height], transform=axis.transAxes, clip_on=False, color=colour, linewidth=0.6)
        axis.text(1.04, height, result.row.label, transform=axis.transAxes, va="center", fontsize=7, color=colour)


def limits(results: Iterable[RowResult]) -> tuple[float, float]:
    """Return the ends of an axis for the errors of these rows (percent), which have completed runs.

    The axis shows everything, unless the first iterations would take most of it: if the highest error is more than
    three times the highest at the end, the axis ends above 9 in 10 of the points. It begins at 0, or below the data if
    more than a quarter would be empty.
    """
    curves = [found for result in results for found in errors_of(result)]
    values = sorted(value for found in curves for value in found["max"])
    low, high, last = min(found["min"].min() for found in curves), values[-1], max(f["max"].iloc[-1] for f in curves)
    if high > 3 * last:
        high = max(values[int(0.9 * (len(values) - 1))], last)
    bottom = 0.0 if low < 0.25 * high else max(0.0, low - 0.06 * (high - low))
    return bottom, min(100.0, high + 0.04 * (high - bottom))


def curve_legend(
    figure: Figure, results: list[RowResult], nets: dict[str, int], extra: dict[str, object] | None = None
) -> None:
    """Explain lines and bands below the figure.

    nets: names, each with the place that gives its colour and marker. extra: further artists by name.
    """
    line = {"color": INK, "marker": "o"}
    entries: dict[str, object] = {}
    for name, index in nets.items():
        colour, marker = look(index)
        entries[name] = Line2D([], [], color=colour, marker=marker)
    several = any(len(completed(result.records)) > 1 for result in results)
    augmented = " (augmented)" if any(result.row.recipe.augment for result in results) else ""
    entries[f"test error{', mean' if several else ''}"] = Line2D([], [], **line)
    entries[f"training error{augmented}"] = Line2D([], [], linestyle=DASHES, markerfacecolor="white", **line)
    if several:
        entries["lowest to highest seed"] = Patch(color=INK, alpha=0.18, linewidth=0)
    if any(result.row.recipe.milestones for result in results):
        entries["learning rate ÷ 10"] = Line2D([], [], **DROP)
    legend_below(figure, entries | (extra or {}))


def log_axis(axis: Axes) -> None:
    """Make the vertical axis logarithmic, with 1, 2, 5 written out, and the horizontal one of whole numbers."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def epochs_of(iterations: int, result: RowResult) -> float:
    """Return how many times that many iterations of a row go through its training images."""
    return iterations * result.row.recipe.batch_size / TRAIN_IMAGES[result.row.data]
