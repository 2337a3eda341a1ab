"""Plots of results as PNG and SVG, clear in grey print and for colour-blind readers.

Errors are top-1, in percent. Both formats carry a description: from which records, and how to make them again.
"""

import io
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

from reproductions import reported
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting import statistics
from reproductions.harness.reporting.samples import Curve, completed, curve, final_errors
from resnet.files import write_atomically

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
        figure, axes = _figure(10.0 if len(panels) > 1 else 7.0, 4.6, len(panels), variant)
        last = max(result.row.recipe.iterations for result in results)
        unit = 1_000 if last >= THOUSANDS_FROM else 1
        top = _upper_limit(drawn)
        bottom = _lower_limit(drawn, top)
        for axis, (title, panel) in zip(axes, panels.items()):
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


def _test_and_training(result: RowResult) -> tuple[Curve | None, Curve | None]:
    return curve(result.records, "test_error"), curve(result.records, "training_error")


def _figure(width: float, height: float, panels: int, variant: Variant) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side, headed by the variant unless it is the paper's protocol."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0])
    if variant.suffix:
        figure.suptitle(variant.heading, fontsize=9.5, color=GREY, style="italic")
    return figure, axes


def _draw_curves(axis: Axes, result: RowResult, index: int, unit: int) -> None:
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


def _mark_drops(axis: Axes, panel: list[RowResult], unit: int) -> None:
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


def _curve_legend(figure: Figure, results: list[RowResult]) -> None:
    counts = sorted({len(completed(result.records)) for result in results} - {0})
    seeds = "1 seed" if counts == [1] else f"{'–'.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} seeds"
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
        "training error (on augmented batches)",
        "from the lowest to the highest seed",
    ]
    columns = len(handles) if figure.get_figwidth() > 8 else 2
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


# -------------------------------------------------------------------------------------------------- error against depth


def error_against_depth(results: list[RowResult], variant: Variant) -> Figure | None:
    """Final test error of every seed as a dot, their mean with its 95 % interval, and the reported number beside it.

    Reported numbers are drawn in the paper profile only. Nets stand side by side, evenly spaced. None if no run was
    completed.
    """
    if not any(completed(result.records) for result in results):
        return None
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = _figure(7.0, 4.4, 1, variant)
        legend: dict[str, object] = {}
        for x, result in enumerate(results):
            _draw_sample(axis, x, final_errors(result.records), legend)
            if result.published:
                _draw_published(axis, x - 0.25, final_errors(result.published), legend)
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
