"""Ladders: a line for every row, as in its table, with all seeds, their mean, and what papers report."""

import math

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reproductions import reported
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.compare import Step
from reproductions.harness.reporting.curves import (
    MARGIN,
    STEP_PLACES,
    curve_legend,
    draw_curves,
    epochs_of,
    errors_of,
    lower_limit,
    upper_limit,
)
from reproductions.harness.reporting.figure import COLOURS, GREY, INK, STYLE, bars, grid, make_figure
from reproductions.harness.reporting.frame import METRICS, completed, final_values


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
        grid(axis, "x")
        for line in range(1, len(labels)):
            axis.axhline(line - 0.5, color="#EEEEEE", linewidth=0.8, zorder=0)
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
            intervals.mean(values), y, xerr=bars(values), color=INK if marker == "|" else GREY, marker=marker,
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
    bounds = [found for sample in samples if (found := intervals.mean_interval(sample))]
    return any(interval.low < low or interval.high > high for interval in bounds)


def step_curves(steps: list[Step], variant: Variant) -> Figure | None:
    """Test error (solid) and training error (dashed) over the epochs, with each step and without, a panel per step.

    None if no run was completed.
    """
    results = [result for step in steps for result in (step.before, step.row)]
    drawn = [values for result in results for values in errors_of(result) if values]
    if not drawn:
        return None
    columns = 4 if len(steps) % 4 == 0 else min(3, len(steps))
    lines = math.ceil(len(steps) / columns)
    with matplotlib.rc_context(STYLE):
        figure, axes = make_figure(3.5 * columns, 1.2 + 2.5 * lines, len(steps), variant, columns)
        last = max(epochs_of(result.row.recipe.iterations, result) for result in results)
        top = upper_limit(drawn)
        bottom = lower_limit(drawn, top)
        for place, (axis, step) in enumerate(zip(axes, steps, strict=True)):
            axis.set(xlim=(0, MARGIN * last), ylim=(bottom, top), title=step.row.row.label)
            for index, result in zip(STEP_PLACES.values(), (step.before, step.row)):
                draw_curves(axis, result, index, 1 / epochs_of(1, result))
                for milestone in result.row.recipe.milestones:
                    axis.axvline(epochs_of(milestone, result), color=GREY, linewidth=0.7, linestyle=":", zorder=0)
            if missing := [n for n, r in zip(STEP_PLACES, (step.before, step.row)) if not completed(r.records)]:
                axis.text(0.5, 0.5, f"{' and '.join(missing)}:\nno completed runs", transform=axis.transAxes,
                          ha="center", va="center", color=GREY, fontsize=8.5)  # fmt: skip
            axis.set_xlabel("epochs" if place + columns >= len(steps) else "")
            axis.set_ylabel("error (%)" if place % columns == 0 else "")
            grid(axis, "y")
        curve_legend(figure, results, STEP_PLACES)
        return figure
