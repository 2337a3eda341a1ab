"""Error against depth: nets side by side, with all seeds, their mean, and what the paper reports."""

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reproductions import reported
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting import statistics
from reproductions.harness.reporting.plots.figure import COLOURS, GREY, INK, STYLE, bars, grid, make_figure
from reproductions.harness.reporting.samples import completed, final_values


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
        grid(axis, "y")
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
            x + 0.16, statistics.mean(values), bars(values), color=INK, marker="_", markersize=12, markeredgewidth=2,
            capsize=4, linewidth=1.4, zorder=4,
        )  # fmt: skip


def _draw_published(axis: Axes, x: float, values: list[float], legend: dict) -> None:
    if values:
        legend["published here, 95 % t-interval"] = axis.errorbar(
            x, statistics.mean(values), bars(values), color=GREY, marker="s", markersize=6, capsize=3, linewidth=1.1
        )


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
