"""Learning curves and schedules: errors, losses, accuracies and learning rates over the iterations or epochs."""

import math

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting.figure import (
    GREY,
    INK,
    STYLE,
    counted_seeds,
    grid,
    look,
    make_figure,
    spread,
)
from reproductions.harness.reporting.frame import Curve, completed, curve
from resnet.data import TRAIN_IMAGES

MARGIN = 1.01  # of the iterations, so that the last markers are whole
THOUSANDS_FROM = 10_000  # iterations; longer runs have an axis in thousands
STEP_PLACES = {"without the step": 3, "with the step": 4}  # their colours and markers


def learning_curves(panels: dict[str, list[RowResult]], variant: Variant) -> Figure | None:
    """Training error (dashed) and test error (solid) over the iterations, a panel per title, axes shared.

    As in Figure 6 of He et al. 2015, with a band from the lowest to the highest seed around the mean. None if no run
    was completed.
    """
    results = [result for panel in panels.values() for result in panel]
    drawn = [values for result in results for values in errors_of(result) if values]
    if not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = make_figure(10.0 if len(panels) > 1 else 7.0, 4.6, len(panels), variant)
        last = max(result.row.recipe.iterations for result in results)
        unit = 1_000 if last >= THOUSANDS_FROM else 1
        top = upper_limit(drawn)
        bottom = lower_limit(drawn, top)
        for axis, (title, panel) in zip(axes, panels.items(), strict=True):
            axis.set(xlim=(0, MARGIN * last / unit), ylim=(bottom, top), title=title)
            axis.set_xlabel("iterations (thousands)" if unit > 1 else "iterations")
            _mark_drops(axis, panel, unit)
            for index, result in enumerate(panel):
                draw_curves(axis, result, index, unit)
            _label_ends(axis, panel, bottom, top)
            grid(axis, "y")
        axes[0].set_ylabel("error (%)")
        curve_legend(figure, results)
        return figure


def errors_of(result: RowResult) -> tuple[Curve | None, Curve | None]:
    return curve(result.records, "test_error"), curve(result.records, "training_error")


def draw_curves(axis: Axes, result: RowResult, index: int, unit: float) -> None:
    colour, marker = look(index)
    test, training = errors_of(result)
    for values, dashed in ((training, True), (test, False)):
        if values is None:
            continue
        x = [iteration / unit for iteration in values.iterations]
        step = max(1, math.ceil(len(x) / 8))
        axis.plot(
            x, values.mean, color=colour, linewidth=1.1 if dashed else 1.9, linestyle=(0, (4, 2)) if dashed else "-",
            marker=marker, markersize=4 if dashed else 5, markevery=(index % step, step),
            markerfacecolor="white" if dashed else colour, zorder=2 if dashed else 3,
        )  # fmt: skip
        axis.fill_between(x, values.low, values.high, color=colour, alpha=0.15, linewidth=0, zorder=1)


def _mark_drops(axis: Axes, panel: list[RowResult], unit: float) -> None:
    """Vertical lines where the learning rate is divided by 10."""
    for milestone in sorted({m for result in panel for m in result.row.recipe.milestones}):
        axis.axvline(milestone / unit, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        axis.annotate(
            "learning rate ÷ 10", (milestone / unit, 1), xycoords=("data", "axes fraction"), xytext=(-3, -3),
            textcoords="offset points", rotation=90, ha="right", va="top", fontsize=7.5, color=GREY,
        )  # fmt: skip


def _label_ends(axis: Axes, panel: list[RowResult], bottom: float, top: float) -> None:
    """Each net's marker and name where its test curve ends, moved apart where they would overlap."""
    ends = {i: test.mean[-1] for i, r in enumerate(panel) if (test := curve(r.records, "test_error"))}
    if not ends:
        axis.text(0.5, 0.5, "no completed runs", transform=axis.transAxes, ha="center", va="center", color=GREY,
                  backgroundcolor="white")  # fmt: skip
    fractions = [min(1.0, (end - bottom) / (top - bottom)) for end in ends.values()]
    for index, fraction, height in zip(ends, fractions, spread(fractions, gap=0.06)):
        colour, marker = look(index)
        axis.plot(
            [1 / MARGIN, 1.05, 1.07], [fraction, height, height], transform=axis.transAxes, clip_on=False, color=colour,
            linewidth=1.0, marker=marker, markersize=5.5, markevery=[2],
        )  # fmt: skip
        axis.text(1.095, height, panel[index].row.label, transform=axis.transAxes, va="center", fontsize=9)


def upper_limit(curves: list[Curve]) -> float:
    """Where the axis ends: above everything, unless the first iterations would take most of it.

    If the highest error is more than three times the highest at the end, the axis ends above 9 in 10 of the points.
    """
    values = sorted(value for c in curves for value in c.high)
    last = max(c.high[-1] for c in curves)
    high = values[-1] if values[-1] <= 3 * last else values[int(0.9 * (len(values) - 1))]
    return _step(high) * math.ceil(1.02 * high / _step(high))


def lower_limit(curves: list[Curve], top: float) -> float:
    """0, or a round number below the data if more than a quarter of the axis would be empty."""
    low = min(value for c in curves for value in c.low)
    return 0.0 if low < 0.25 * top else _step(top) * math.floor(0.98 * low / _step(top))


def _step(value: float) -> float:
    """A round step, of which ``value`` has a handful."""
    return next(step for step in (0.01, 0.1, 0.5, 1, 2, 5, 10, 20) if value <= 8 * step or step == 20)


def curve_legend(
    figure: Figure, results: list[RowResult], nets: dict[str, int] | None = None, extra: dict | None = None
) -> None:
    """What the lines mean; ``nets``: names of those that no label at their ends tells, with their places; ``extra``:
    what else is drawn, by name.
    """
    seeds, several = drawn_seeds(results), any(len(completed(result.records)) > 1 for result in results)
    solid = {"linewidth": 1.9, "marker": "o", "markersize": 5}
    dashed = {"linewidth": 1.1, "linestyle": (0, (4, 2)), "marker": "o", "markersize": 4, "markerfacecolor": "white"}
    handles = [
        Line2D([], [], color=INK, **solid),
        Line2D([], [], color=INK, **dashed),
    ]
    lost = sum(record["status"] == "diverged" for result in results for record in result.records)
    names = [
        f"test error, {'mean of ' if several else ''}{seeds}{f' ({lost} diverged, not drawn)' if lost else ''}",
        f"training error (on {'augmented ' if any(r.row.recipe.augment for r in results) else ''}batches)",
    ]
    if several:
        handles.append(Patch(color=INK, alpha=0.15, linewidth=0))
        names.append("from the lowest to the highest seed")
    for name, index in (nets or {}).items():
        colour, marker = look(index)
        handles.append(Line2D([], [], color=colour, linewidth=1.9, marker=marker, markersize=5))
        names.append(name)
    if nets and any(result.row.recipe.milestones for result in results):
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=":"))
        names.append("learning rate ÷ 10")
    handles += (extra or {}).values()
    names += extra or {}
    columns = 3 if figure.get_figwidth() > 8 else 2
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def epochs_of(iterations: int, result: RowResult) -> float:
    """How often so many iterations of a row go through its training images."""
    return iterations * result.row.recipe.batch_size / TRAIN_IMAGES[result.row.data]


def drawn_seeds(results: list[RowResult]) -> str:
    """``1 seed``, ``3–5 seeds``: how many the means of the rows that have any are of."""
    return counted_seeds(sorted({len(completed(result.records)) for result in results} - {0}))
