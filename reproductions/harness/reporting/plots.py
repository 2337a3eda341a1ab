"""Plots of results as PNG and SVG, clear in grey print and for colour-blind readers.

Errors and accuracies are in percent. Both formats carry a description: from which records, and how to make them again.
"""

import io
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from reproductions import reported
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting import statistics
from reproductions.harness.reporting.samples import METRICS, Curve, completed, curve, final_values
from reproductions.harness.reporting.steps import Step
from resnet.data import TRAIN_IMAGES
from resnet.files import write_atomically
from resnet.recipe import Recipe, learning_rate_at

# Those of Okabe and Ito's colours that show on white; every colour has a marker that tells it apart in grey.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, GREY = "#222222", "#767676"
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "reproductions",  # else its ids are drawn at random
    "svg.fonttype": "path",
}
MARGIN = 1.01  # of the iterations, so that the last markers are whole
THOUSANDS_FROM = 10_000  # iterations; longer runs have an axis in thousands


def save(figure: Figure | None, path: Path, description: str) -> list[Path]:
    """Write ``path``.png and ``path``.svg with the description in them; nothing if there is no figure.

    Neither a date nor a version goes into the files: equal plots are equal bytes.
    """
    if figure is None:
        return []
    written = []
    for suffix, unwanted in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        content = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(content, format=suffix, dpi=160, metadata={"Description": description, **unwanted})
        target = path.with_name(f"{path.name}.{suffix}")
        write_atomically(target, content.getvalue())
        written.append(target)
    return written


def read_description(path: Path) -> str | None:
    """The description that :func:`save` wrote into a PNG or SVG; None if it has none."""
    if path.suffix == ".svg":
        element = ElementTree.parse(path).find(".//{http://purl.org/dc/elements/1.1/}description")
        return None if element is None else element.text
    with Image.open(path) as image:
        return image.info.get("Description")


# -------------------------------------------------------------------------------------------------- learning curves


def learning_curves(panels: dict[str, list[RowResult]], variant: Variant) -> Figure | None:
    """Training error (dashed) and test error (solid) over the iterations, a panel per title, axes shared.

    As in Figure 6 of He et al. 2015, with a band from the lowest to the highest seed around the mean. None if no run
    was completed.
    """
    results = [result for panel in panels.values() for result in panel]
    drawn = [values for result in results for values in _test_and_training(result) if values]
    if not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = make_figure(10.0 if len(panels) > 1 else 7.0, 4.6, len(panels), variant)
        last = max(result.row.recipe.iterations for result in results)
        unit = 1_000 if last >= THOUSANDS_FROM else 1
        top = _upper_limit(drawn)
        bottom = _lower_limit(drawn, top)
        for axis, (title, panel) in zip(axes, panels.items(), strict=True):
            axis.set(xlim=(0, MARGIN * last / unit), ylim=(bottom, top), title=title)
            axis.set_xlabel("iterations (thousands)" if unit > 1 else "iterations")
            _mark_drops(axis, panel, unit)
            for index, result in enumerate(panel):
                _draw_curves(axis, result, index, unit)
            _label_ends(axis, panel, bottom, top)
            axis.grid(axis="y", color="#DDDDDD", linewidth=0.6)
            axis.set_axisbelow(True)
        axes[0].set_ylabel("error (%)")
        _curve_legend(figure, results)
        return figure


def errors_over_epochs(result: RowResult, reported_after: dict[int, RowResult], variant: Variant) -> Figure | None:
    """Training error (dashed) and test error (solid) of a net that is evaluated after each epoch, on a log axis.

    ``reported_after``: rows whose reported top-1 accuracies, of the paper profile, belong to these epochs; one in whole
    percent is drawn with all that it can stand for. None if no run was completed.
    """
    drawn = [values for values in _test_and_training(result) if values]
    if not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = make_figure(7.0, 4.6, 1, variant)
        _draw_curves(axis, result, STEP_PLACES["with the step"], result.row.recipe.eval_interval)
        legend: dict[str, object] = {}
        for epoch, row in reported_after.items() if variant.profile == "paper" else ():
            for value in reported.in_paper(row.row.reported, METRICS["top1_accuracy"]):
                error = 100 - float(value.value)
                reach = [[1.0], [0.5]] if value.kind == "whole" else None
                legend["reported (in whole percent, rounded or cut off)" if reach else "reported"] = axis.errorbar(
                    epoch, error, reach, color=COLOURS[3], marker="D", markersize=7, markerfacecolor="white",
                    markeredgewidth=1.8, capsize=4, linewidth=1.4, linestyle="none", zorder=5,
                )  # fmt: skip
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel="epochs", ylabel="error (%)")
        axis.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        axis.set_axisbelow(True)
        _curve_legend(figure, [result], extra=legend)
        return figure


def loss_curves(results: list[RowResult], variant: Variant) -> Figure | None:
    """The training loss over the iterations, on a log axis: the seeds' mean and the band from lowest to highest.

    None if no run was completed.
    """
    drawn = {i: loss for i, r in enumerate(results) if (loss := curve(r.records, "training_loss"))}
    if not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = make_figure(7.0, 4.2, 1, variant)
        for index, loss in drawn.items():
            colour, marker = _look(index)
            axis.plot(loss.iterations, loss.mean, color=colour, marker=marker, markersize=4.5, linewidth=1.6,
                      markevery=max(1, len(loss.iterations) // 8), label=results[index].row.label)  # fmt: skip
            axis.fill_between(loss.iterations, loss.low, loss.high, color=colour, alpha=0.15, linewidth=0)
        axis.set_yscale("log")
        axis.set(xlabel="iterations", ylabel="training loss")
        axis.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        axis.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=min(3, len(drawn)))
        return figure


def _test_and_training(result: RowResult) -> tuple[Curve | None, Curve | None]:
    return curve(result.records, "test_error"), curve(result.records, "training_error")


def make_figure(
    width: float, height: float, panels: int, variant: Variant, columns: int | None = None, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side, headed by the variant unless it is the paper's protocol.

    In lines of so many ``columns`` if told, the last one filled from the left.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    columns = columns or panels
    lines = math.ceil(panels / columns)
    axes = list(figure.subplots(lines, columns, sharex=True, sharey=share_y, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.remove()
    axes = axes[:panels]
    for axis in axes:  # above an empty place there is no other axis to bear the numbers
        axis.tick_params(labelbottom=axes.index(axis) + columns >= panels)
    if variant.suffix:
        figure.suptitle(variant.heading, fontsize=9.5, color=GREY, style="italic")
    return figure, axes


def _draw_curves(axis: Axes, result: RowResult, index: int, unit: float) -> None:
    colour, marker = _look(index)
    test, training = _test_and_training(result)
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
        colour, marker = _look(index)
        axis.plot(
            [1 / MARGIN, 1.05, 1.07], [fraction, height, height], transform=axis.transAxes, clip_on=False, color=colour,
            linewidth=1.0, marker=marker, markersize=5.5, markevery=[2],
        )  # fmt: skip
        axis.text(1.095, height, panel[index].row.label, transform=axis.transAxes, va="center", fontsize=9)


def _look(index: int) -> tuple[str, str]:
    """Colour and marker of the net at this place of its panel."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """The positions (from 0 to 1), moved apart to distances of at least ``gap`` with their order kept.

    Those that are too close form a stack around their mean, which moves them least in the sense of least squares.
    """
    order = sorted(range(len(positions)), key=positions.__getitem__)
    stacks: list[list[int]] = []

    def bottom(stack: list[int]) -> float:
        centre, reach = statistics.mean([positions[i] for i in stack]), gap * (len(stack) - 1)
        return min(max(centre - reach / 2, 0), 1 - reach)

    for index in order:
        stacks.append([index])
        while len(stacks) > 1 and bottom(stacks[-1]) < bottom(stacks[-2]) + gap * len(stacks[-2]):
            stacks[-2:] = [stacks[-2] + stacks[-1]]
    placed = {index: bottom(stack) + gap * place for stack in stacks for place, index in enumerate(stack)}
    return [placed[index] for index in range(len(positions))]


def _upper_limit(curves: list[Curve]) -> float:
    """Where the axis ends: above everything, unless the first iterations would take most of it.

    If the highest error is more than three times the highest at the end, the axis ends above 9 in 10 of the points.
    """
    values = sorted(value for c in curves for value in c.high)
    last = max(c.high[-1] for c in curves)
    high = values[-1] if values[-1] <= 3 * last else values[int(0.9 * (len(values) - 1))]
    return _step(high) * math.ceil(1.02 * high / _step(high))


def _lower_limit(curves: list[Curve], top: float) -> float:
    """0, or a round number below the data if more than a quarter of the axis would be empty."""
    low = min(value for c in curves for value in c.low)
    return 0.0 if low < 0.25 * top else _step(top) * math.floor(0.98 * low / _step(top))


def _step(value: float) -> float:
    """A round step, of which ``value`` has a handful."""
    return next(step for step in (0.01, 0.1, 0.5, 1, 2, 5, 10, 20) if value <= 8 * step or step == 20)


def _curve_legend(
    figure: Figure, results: list[RowResult], nets: dict[str, int] | None = None, extra: dict | None = None
) -> None:
    """What the lines mean; ``nets``: names of those that no label at their ends tells, with their places; ``extra``:
    what else is drawn, by name.
    """
    seeds = _seeds(results)
    solid = {"linewidth": 1.9, "marker": "o", "markersize": 5}
    dashed = {"linewidth": 1.1, "linestyle": (0, (4, 2)), "marker": "o", "markersize": 4, "markerfacecolor": "white"}
    handles = [
        Line2D([], [], color=INK, **solid),
        Line2D([], [], color=INK, **dashed),
        Patch(color=INK, alpha=0.15, linewidth=0),
    ]
    lost = sum(record["status"] == "diverged" for result in results for record in result.records)
    names = [
        f"test error, mean of {seeds}{f' ({lost} diverged, not drawn)' if lost else ''}",
        f"training error (on {'augmented ' if any(r.row.recipe.augment for r in results) else ''}batches)",
        "from the lowest to the highest seed",
    ]
    for name, index in (nets or {}).items():
        colour, marker = _look(index)
        handles.append(Line2D([], [], color=colour, linewidth=1.9, marker=marker, markersize=5))
        names.append(name)
    if nets and any(result.row.recipe.milestones for result in results):
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=":"))
        names.append("learning rate ÷ 10")
    handles += (extra or {}).values()
    names += extra or {}
    columns = 3 if figure.get_figwidth() > 8 else 2
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


# -------------------------------------------------------------------------------------------------------------- ladders


def ladder(series: dict[str, list[RowResult]], variant: Variant, metric: str) -> Figure | None:
    """One of METRICS at the last iteration, a line per row as in the table: every seed, and the mean with its interval.

    ``series``: ladders of the same steps, drawn beside one another, by what sets them apart; a row's label may end in
    that, in parentheses. Papers' numbers are drawn in the paper profile if they were measured on the same data. None
    if no run was completed.
    """
    results = [result for rows in series.values() for result in rows]
    samples = {result.row.key: final_values(result.records, metric) for result in results}
    if not any(samples.values()):
        return None
    shown_numbers = {r.row.key: _comparable_numbers(r, metric) if variant.profile == "paper" else [] for r in results}
    labels = [r.row.label.removesuffix(f" ({name})") for name, rows in list(series.items())[:1] for r in rows]
    gap, room = (0.46, 0.55) if len(series) > 1 else (0.0, 1.0)  # between the same row of two series, and for each
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = make_figure(7.4, 1.5 + (0.8 if gap else 0.6) * len(labels), 1, variant)
        legend: dict[str, object] = {}
        for index, (name, rows) in enumerate(series.items()):
            for line, result in enumerate(rows):
                y = line + gap * (index - (len(series) - 1) / 2)
                _draw_rung(axis, y, room, samples[result.row.key], index, name, legend)
                if result.published:
                    published = final_values(result.published, metric)
                    _draw_bar(axis, y + 0.06 * room, published, "published here", "s", legend)
                for value in shown_numbers[result.row.key]:
                    _draw_reported_rung(axis, y + (0.34 if value.std else 0.2) * room, value, legend)
        reach = [float(number.value) for numbers in shown_numbers.values() for number in numbers]
        cut = _limit_ladder(axis, list(samples.values()), reach)
        axis.set_yticks(range(len(labels)), labels)
        axis.set(ylim=(len(labels) - 0.4, -0.6), xlabel=f"{METRICS[metric]} after the last iteration (%)")
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        for line in range(1, len(labels)):
            axis.axhline(line - 0.5, color="#EEEEEE", linewidth=0.8, zorder=0)
        axis.set_axisbelow(True)
        legend = dict(sorted(legend.items(), key=lambda item: not item[0].startswith("one seed")))
        names = [f"{name}{' (some leave the axis)' if cut and name.startswith('mean') else ''}" for name in legend]
        figure.legend(legend.values(), names, loc="outside lower center", ncols=2 if len(legend) != 3 else 3)
        return figure


def _draw_rung(axis: Axes, y: float, room: float, values: list[float], index: int, series: str, legend: dict) -> None:
    """The seeds of one row above its mean with the interval; ``room`` is what there is for the row."""
    if not values:
        axis.annotate(f"no completed runs{series and ', '}{series}", (0.5, y), xycoords=("axes fraction", "data"),
                      ha="center", va="center", fontsize=8.5, color=GREY)  # fmt: skip
        return
    colour, marker = (COLOURS[4], "o") if index == 0 else (COLOURS[3], "s")
    heights = [y - 0.3 * room] * len(values)
    dots = axis.scatter(values, heights, s=20, color=colour, marker=marker, alpha=0.75, linewidth=0, zorder=3)
    legend[f"one seed{series and ', '}{series}"] = dots
    if len(values) > 1:
        _draw_bar(axis, y - 0.09 * room, values, "mean", "|", legend)


def _draw_bar(axis: Axes, y: float, values: list[float], name: str, marker: str, legend: dict) -> None:
    """A mean with its 95 % t-interval."""
    if values:
        legend[f"{name}, 95 % t-interval"] = axis.errorbar(
            statistics.mean(values), y, xerr=_bars(values), color=INK if marker == "|" else GREY, marker=marker,
            markersize=9 if marker == "|" else 5, markeredgewidth=2 if marker == "|" else 1, capsize=3, linewidth=1.3,
            zorder=4,
        )  # fmt: skip


def _comparable_numbers(result: RowResult, metric: str) -> list[reported.Reported]:
    """What papers report for a row, if they measured it on the row's own data."""
    numbers = reported.in_paper(result.row.reported, METRICS[metric])
    return [number for number in numbers if number.data.lower().replace("-", "") == result.row.data]


def _draw_reported_rung(axis: Axes, y: float, number: reported.Reported, legend: dict) -> None:
    """A paper's number as an open diamond, a mean with its standard deviation as a filled one."""
    std = None if number.std is None else float(number.std)
    legend[f"{number.source.name}{', mean ± std' if std else ''}"] = axis.errorbar(
        float(number.value), y, xerr=std, color=COLOURS[2], markersize=6, marker="D",
        markerfacecolor=COLOURS[2] if std else "white", markeredgewidth=1.6, capsize=3, linewidth=1.3,
        linestyle="none", zorder=5,
    )  # fmt: skip


def _limit_ladder(axis: Axes, samples: list[list[float]], others: list[float]) -> bool:
    """End the axis where t-intervals reach much further than everything else; whether any does."""
    values = [value for sample in samples for value in sample] + others
    room = 0.75 * max(max(values) - min(values), 0.5)
    low, high = axis.get_xlim()
    low, high = max(low, min(values) - room, 0.0), min(high, max(values) + room, 100.0)
    axis.set_xlim(low, high)
    bounds = [found for sample in samples if (found := statistics.mean_interval(sample))]
    return any(interval.low < low or interval.high > high for interval in bounds)


def step_curves(steps: list[Step], variant: Variant) -> Figure | None:
    """Test error (solid) and training error (dashed) over the epochs, with each step and without, a panel per step.

    None if no run was completed.
    """
    results = [result for step in steps for result in (step.before, step.row)]
    drawn = [values for result in results for values in _test_and_training(result) if values]
    if not drawn:
        return None
    columns = 4 if len(steps) % 4 == 0 else min(3, len(steps))
    lines = math.ceil(len(steps) / columns)
    with matplotlib.rc_context(STYLE):
        figure, axes = make_figure(3.5 * columns, 1.2 + 2.5 * lines, len(steps), variant, columns)
        last = max(_epochs(result.row.recipe.iterations, result) for result in results)
        top = _upper_limit(drawn)
        bottom = _lower_limit(drawn, top)
        for place, (axis, step) in enumerate(zip(axes, steps, strict=True)):
            axis.set(xlim=(0, MARGIN * last), ylim=(bottom, top), title=step.row.row.label)
            for look, result in zip(STEP_PLACES.values(), (step.before, step.row)):
                _draw_curves(axis, result, look, 1 / _epochs(1, result))
                for milestone in result.row.recipe.milestones:
                    axis.axvline(_epochs(milestone, result), color=GREY, linewidth=0.7, linestyle=":", zorder=0)
            if missing := [n for n, r in zip(STEP_PLACES, (step.before, step.row)) if not completed(r.records)]:
                axis.text(0.5, 0.5, f"{' and '.join(missing)}:\nno completed runs", transform=axis.transAxes,
                          ha="center", va="center", color=GREY, fontsize=8.5)  # fmt: skip
            axis.set_xlabel("epochs" if place + columns >= len(steps) else "")
            axis.set_ylabel("error (%)" if place % columns == 0 else "")
            axis.grid(axis="y", color="#DDDDDD", linewidth=0.6)
            axis.set_axisbelow(True)
        _curve_legend(figure, results, STEP_PLACES)
        return figure


STEP_PLACES = {"without the step": 3, "with the step": 4}  # their colours and markers


def _epochs(iterations: int, result: RowResult) -> float:
    """How often so many iterations of a row go through its training images."""
    return iterations * result.row.recipe.batch_size / TRAIN_IMAGES[result.row.data]


def schedules(rows: dict[str, RowResult], variant: Variant) -> Figure:
    """The learning rate over the epochs (a) and, where there are records, the top-1 accuracy (b).

    As in Figure 3 of Bag of Tricks. ``rows``: what is drawn, by the schedule's name.
    """
    with matplotlib.rc_context(STYLE):
        curves = {name: curve(result.records, "top1_accuracy") for name, result in rows.items()}
        errors = [values for result in rows.values() if (values := curve(result.records, "test_error"))]
        panels = 2 if errors else 1
        figure, axes = make_figure(5.0 * panels, 3.9, panels, variant, share_y=False)
        for index, (name, result) in enumerate(rows.items()):
            line = {
                "color": COLOURS[list(STEP_PLACES.values())[index]],
                "linestyle": ("-", (0, (5, 2)))[index % 2],
                "linewidth": 1.9,
            }
            iterations = _drawn_iterations(result.row.recipe)
            rates = [learning_rate_at(result.row.recipe, iteration) for iteration in iterations]
            axes[0].plot([_epochs(iteration, result) for iteration in iterations], rates, label=name, **line)
            if (values := curves[name]) is not None:
                x = [_epochs(iteration, result) for iteration in values.iterations]
                axes[1].plot(x, values.mean, label=name, **line)
                axes[1].fill_between(x, values.low, values.high, color=line["color"], alpha=0.15, linewidth=0)
        axes[0].set(ylabel="learning rate", title="(a) learning rate" if panels > 1 else "", ylim=(0, None))
        if panels > 1:
            seeds = _seeds(list(rows.values()))
            axes[1].set(ylabel="top-1 accuracy (%)", title=f"(b) top-1 accuracy, mean and range of {seeds}")
            axes[1].set_ylim(bottom=100 - _upper_limit(errors))
        for axis in axes:
            axis.set(xlabel="epochs", xlim=(0, None))
            axis.grid(axis="y", color="#DDDDDD", linewidth=0.6)
            axis.set_axisbelow(True)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows))
        return figure


def _drawn_iterations(recipe: Recipe) -> list[int]:
    """Iterations at which the learning rate is drawn: evenly, and on both sides of where it changes at once."""
    even = range(0, recipe.iterations, max(1, recipe.iterations // 400))
    corners = [recipe.linear_warmup, recipe.iterations - 1]
    corners += [iteration for milestone in recipe.milestones for iteration in (milestone - 1, milestone)]
    return sorted({*even, *(i for i in corners if 0 <= i < recipe.iterations)})


def _seeds(results: list[RowResult]) -> str:
    """``1 seed``, ``3–5 seeds``: how many the means of the rows that have any are of."""
    return _counted_seeds(sorted({len(completed(result.records)) for result in results} - {0}))


def _counted_seeds(counts: list[int]) -> str:
    return "1 seed" if counts == [1] else f"{'–'.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} seeds"


# -------------------------------------------------------------------------------------------------- error against depth


def error_against_depth(results: list[RowResult], variant: Variant) -> Figure | None:
    """Final test error of every seed as a dot, their mean with its 95 % interval, and the reported number beside it.

    Reported numbers are drawn in the paper profile only. Nets stand side by side, evenly spaced. None if no run was
    completed.
    """
    if not any(completed(result.records) for result in results):
        return None
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = make_figure(7.0, 4.4, 1, variant)
        legend: dict[str, object] = {}
        for x, result in enumerate(results):
            _draw_sample(axis, x, final_values(result.records), legend)
            if result.published:
                _draw_published(axis, x - 0.25, final_values(result.published), legend)
            if variant.profile == "paper":
                _draw_reported(axis, x + 0.3, result, legend)
        axis.set_xticks(range(len(results)), [result.row.label for result in results])
        axis.set(xlim=(-0.6, len(results) - 0.4), ylabel="test error after the last iteration (%)")
        axis.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.margins(y=0.12)
        low, high = axis.get_ylim()
        axis.set_ylim(max(0.0, low), min(100.0, high))  # an interval from two seeds may reach further
        figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=min(3, len(legend)))
        return figure


def _draw_sample(axis: Axes, x: float, values: list[float], legend: dict) -> None:
    if not values:
        axis.annotate(
            "no completed runs", (x, 0.5), xycoords=("data", "axes fraction"), rotation=90, ha="center", va="center",
            fontsize=8.5, color=GREY,
        )  # fmt: skip
        return
    width = min(0.18, 0.06 * (len(values) - 1))  # the seeds lie side by side, in their order
    places = [x + width * (i / (len(values) - 1) - 0.5) if len(values) > 1 else x for i in range(len(values))]
    legend["one seed"] = axis.scatter(places, values, s=22, color=COLOURS[4], alpha=0.75, linewidth=0, zorder=3)
    if len(values) > 1:
        legend["mean, 95 % t-interval"] = axis.errorbar(
            x + 0.16, statistics.mean(values), _bars(values), color=INK, marker="_", markersize=12, markeredgewidth=2,
            capsize=4, linewidth=1.4, zorder=4,
        )  # fmt: skip


def _draw_published(axis: Axes, x: float, values: list[float], legend: dict) -> None:
    if values:
        legend["published here, 95 % t-interval"] = axis.errorbar(
            x, statistics.mean(values), _bars(values), color=GREY, marker="s", markersize=6, capsize=3, linewidth=1.1
        )


def _bars(values: list[float]) -> list[list[float]] | None:
    """Lengths of the 95 % t-interval below and above the mean, as error bars want them."""
    mean, bounds = statistics.mean(values), statistics.mean_interval(values)
    return [[mean - bounds.low], [bounds.high - mean]] if bounds else None


def _draw_reported(axis: Axes, x: float, result: RowResult, legend: dict) -> None:
    """The paper's number as an open diamond, with its standard deviation if it has one; a best of n as a cross."""
    for value in reported.in_paper(result.row.reported):
        std = None if value.std is None else float(value.std)
        name = f"reported best of {value.n}" if value.kind == "best" else "reported mean ± std" if std else "reported"
        legend[name] = axis.errorbar(
            x + 0.1 * (value.kind == "best"), float(value.value), std, color=COLOURS[3], markersize=7,
            marker="x" if value.kind == "best" else "D", markerfacecolor="white", markeredgewidth=1.8, capsize=4,
            linewidth=1.4, linestyle="none", zorder=5,
        )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- forest plot


@dataclass(frozen=True)
class Line:
    """One line of a forest plot: values as dots in the colour of their ``group``, their mean with an interval."""

    label: str
    group: str
    values: list[float]
    interval: statistics.Interval | None


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
            mean, bounds = statistics.mean(line.values), line.interval
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
        axis.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        axis.set_axisbelow(True)
        names = sorted(legend, key=lambda name: name.startswith("mean"))
        figure.legend([legend[name] for name in names], names, loc="outside lower center", ncols=2)
        return figure


# ---------------------------------------------------------------------------------------------------- layer responses


@dataclass(frozen=True)
class Layers:
    """A net's layers, each with the standard deviation of its response in every seed's net: in the order of the layers,
    and sorted by size.
    """

    label: str
    plain: bool
    in_order: list[list[float]]
    by_size: list[list[float]]


def layer_responses(nets: list[Layers], seeds: list[int], variant: Variant) -> Figure:
    """Standard deviations of layer responses in layer order (above) and sorted by size (below), as in Figure 7 of He et
    al. 2015: of plain nets dashed, with a band from the lowest to the highest of so many ``seeds`` around the mean.

    A net without layers is not drawn; the others look as they would beside it.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = make_figure(8.2, 7.0, 2, variant, columns=1)
        titles = ("in layer order", "sorted by size")
        for axis, title, panel in zip(axes, titles, ([n.in_order for n in nets], [n.by_size for n in nets])):
            for index, (net, layers) in enumerate(zip(nets, panel)):
                if layers:
                    _draw_layers(axis, layers, net, index)
            axis.set(title=title, ylabel="standard deviation of the response")
            axis.grid(axis="y", color="#DDDDDD", linewidth=0.6)
            axis.set_axisbelow(True)
        values = [value for net in nets for layer in net.in_order for value in layer]
        axes[0].set(xlim=(0, None))
        if min(values) < max(values) / 2:
            axes[0].set(ylim=(0, None))
        axes[0].set_xlabel("3x3 layer, from the input on")
        axes[1].set_xlabel("3x3 layer, from the largest standard deviation on")
        axes[0].tick_params(labelbottom=True)
        handles, names = axes[0].get_legend_handles_labels()
        handles.append(Patch(color=INK, alpha=0.15, linewidth=0))
        names.append(f"lowest to highest of {_counted_seeds(seeds)}; lines: mean")
        figure.legend(handles, names, loc="outside lower center", ncols=3)
        return figure


LAYERS_PLACES = (3, 1, 2, 4, 5)  # colours and markers of the nets of Figure 7, the plain ones first


def _draw_layers(axis: Axes, layers: list[list[float]], net: Layers, index: int) -> None:
    colour, marker = _look(LAYERS_PLACES[index % len(LAYERS_PLACES)])
    places = range(1, len(layers) + 1)
    step = max(1, len(layers) // 9)
    axis.plot(
        places, [statistics.mean(layer) for layer in layers], label=net.label, color=colour, linewidth=1.5,
        linestyle=(0, (4, 2)) if net.plain else "-", marker=marker, markersize=5, markevery=(index % step, step),
        markerfacecolor="white" if net.plain else colour,
    )  # fmt: skip
    axis.fill_between(places, list(map(min, layers)), list(map(max, layers)), color=colour, alpha=0.15, linewidth=0)
