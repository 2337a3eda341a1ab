"""Ladders: a line for every row, as in its table, with all seeds, their mean, and the papers' numbers."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reproductions import reported
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.compare import Step
from reproductions.harness.reporting.curves import (
    DROP,
    MARGIN,
    STEP_PLACES,
    curve_legend,
    draw_curves,
    epochs_of,
    limits,
)
from reproductions.harness.reporting.figure import (
    COLOURS,
    DOUBLE,
    GREY,
    HOLLOW,
    INK,
    OWN,
    bars,
    caption,
    legend_below,
    make_figure,
    styled,
)
from reproductions.harness.reporting.frame import METRICS, completed, final_values


@styled
def ladder(series: dict[str, list[RowResult]], variant: Variant, metric: str) -> Figure | None:
    """Draw one of METRICS at the last iteration, a line per row as in the table: every seed, the mean, its interval.

    ``series``: ladders of the same steps, drawn beside one another, by what sets them apart; a row's label may end in
    that, in parentheses. Papers' numbers are drawn in the paper profile if they were measured on the same data. The
    caption names the rows with nothing to draw. None if no run was completed.
    """

    def drawn(result: RowResult) -> bool:
        return bool(completed(result.records) or (variant.profile == "paper" and _comparable_numbers(result, metric)))

    lines = [*zip(*series.values())]
    filled = [any(map(drawn, line)) for line in lines]
    missing = [line[0].row.label.removesuffix(f" ({next(iter(series))})") for line, f in zip(lines, filled) if not f]
    series = {name: [result for result, f in zip(rows, filled) if f] for name, rows in series.items()}
    results = [result for rows in series.values() for result in rows]
    samples = {result.row.key: final_values(result.records, metric) for result in results}
    if not any(samples.values()):
        return None
    shown_numbers = {r.row.key: _comparable_numbers(r, metric) if variant.profile == "paper" else [] for r in results}
    labels = [r.row.label.removesuffix(f" ({name})") for name, rows in list(series.items())[:1] for r in rows]
    counts = [", ".join(str(len(samples[r.row.key])) for r in line) for line in zip(*series.values())]
    gap, room = (0.46, 0.55) if len(series) > 1 else (0.0, 1.0)  # between the same row of two series, and for each
    height = 0.7 + (0.5 if gap else 0.38) * len(labels)
    figure, (axis,) = make_figure(DOUBLE, height, [""], variant, [r.row.data for r in results], grid="x")
    if missing:
        caption(figure, f"{figure.get_suptitle()} · not yet run: {', '.join(missing)}")
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
    axis.set_yticks(range(len(labels)), [f"{label} (n = {n})" for label, n in zip(labels, counts)])
    axis.set(ylim=(len(labels) - 0.4, -0.6), xlabel=f"{METRICS[metric]} after the last iteration (%)")
    axis.tick_params(axis="y", length=0)
    for line in range(1, len(labels)):
        axis.axhline(line - 0.5, color="#EEEEEE", linewidth=0.6, zorder=0)
    legend = dict(sorted(legend.items(), key=lambda item: not item[0].startswith("one seed")))
    legend_below(
        figure, {f"{n}{' (some leave the axis)' if cut and 'interval' in n else ''}": legend[n] for n in legend}
    )
    return figure


def _draw_rung(axis: Axes, y: float, room: float, values: list[float], index: int, series: str, legend: dict) -> None:
    """Draw the seeds of one row above its mean with the interval; ``room`` is the height for the row."""
    if not values:
        axis.annotate(f"no completed runs{series and ', '}{series}", (0.5, y), xycoords=("axes fraction", "data"),
                      ha="center", va="center", fontsize=7, color=GREY)  # fmt: skip
        return
    colour, marker = ((OWN, "o"), (COLOURS[0], "s"))[index]
    heights = [y - 0.3 * room] * len(values)
    dots = axis.scatter(values, heights, s=10, color=colour, marker=marker, alpha=0.75, linewidth=0, zorder=3)
    legend[f"one seed{series and ', '}{series}"] = dots
    if len(values) > 1:
        _draw_bar(axis, y - 0.09 * room, values, "mean", "|", legend)


def _draw_bar(axis: Axes, y: float, values: list[float], name: str, marker: str, legend: dict) -> None:
    """Draw a mean, from three values on with its 95 % t-interval."""
    if values:
        bar, own = bars(values), marker == "|"
        drawn = axis.errorbar(intervals.mean(values), y, xerr=bar, color=INK if own else GREY, marker=marker, capsize=2,
                              markersize=5 if own else 3, linewidth=0.9, linestyle="none", zorder=4)  # fmt: skip
        legend[f"{name}, 95 % t-interval" if bar else name] = drawn


def _comparable_numbers(result: RowResult, metric: str) -> list[reported.Reported]:
    """Return the numbers that papers report for a row, if they measured them on the row's own data."""
    numbers = reported.in_paper(result.row.reported, METRICS[metric])
    return [number for number in numbers if number.data.lower().replace("-", "") == result.row.data]


def _draw_reported_rung(axis: Axes, y: float, number: reported.Reported, legend: dict) -> None:
    """Draw a paper's number as a hollow diamond, a mean with its standard deviation as a filled one."""
    std = None if number.std is None else float(number.std)
    look = HOLLOW | ({"markerfacecolor": HOLLOW["color"]} if std else {})
    drawn = axis.errorbar(float(number.value), y, xerr=std, capsize=2, linewidth=0.9, **look)
    legend[f"{number.source.name}{', mean ± std' if std else ''}"] = drawn


def _limit_ladder(axis: Axes, samples: list[list[float]], others: list[float]) -> bool:
    """End the axis where t-intervals reach much further than everything else; return whether any does."""
    values = [value for sample in samples for value in sample] + others
    room = 0.75 * max(max(values) - min(values), 0.5)
    low, high = axis.get_xlim()
    low, high = max(low, min(values) - room, 0.0), min(high, max(values) + room, 100.0)
    axis.set_xlim(low, high)
    reaches = [(intervals.mean(sample), *sum(bar, [])) for sample in samples if (bar := bars(sample))]
    return any(mean - below < low or mean + above > high for mean, below, above in reaches)


@styled
def step_curves(steps: list[Step], variant: Variant) -> Figure | None:
    """Draw test error (solid) and training error (dashed) over the epochs, with each step and without, a panel a step.

    Steps are left out unless both rows have completed runs. None if no step is left.
    """
    steps = [step for step in steps if completed(step.row.records) and completed(step.before.records)]
    if not steps:
        return None
    results = [result for step in steps for result in (step.before, step.row)]
    columns = 2 if len(steps) in (2, 4) else min(3, len(steps))
    titles, data = [step.row.row.label for step in steps], [result.row.data for result in results]
    figure, axes = make_figure(DOUBLE, 0.3 + 1.8 * math.ceil(len(steps) / columns), titles, variant, data, columns)
    last = max(epochs_of(result.row.recipe.iterations, result) for result in results)
    for place, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        axis.set(xlim=(0, MARGIN * last), ylim=limits(results))
        for index, result in zip(STEP_PLACES.values(), (step.before, step.row)):
            draw_curves(axis, result, index, 1 / epochs_of(1, result))
        for drop in {epochs_of(drop, r) for r in (step.before, step.row) for drop in r.row.recipe.milestones}:
            axis.axvline(drop, zorder=0, **DROP)  # the two may drop at different epochs: the legend has the label
        n, before = (len(completed(result.records)) for result in (step.row, step.before))
        axis.text(0.97, 0.97, f"n = {n}, without {before}", transform=axis.transAxes, ha="right", va="top",
                  fontsize=7, color=GREY, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        axis.set_xlabel("epochs" if place + columns >= len(steps) else "")
        axis.set_ylabel("error (%)" if place % columns == 0 else "")
    curve_legend(figure, results, STEP_PLACES)
    return figure
