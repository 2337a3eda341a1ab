"""Learning curves and schedules: errors, losses, accuracies and learning rates over the iterations or epochs."""

import math

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from reproductions import reported
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.reporting.plots.figure import (
    COLOURS,
    GREY,
    INK,
    STYLE,
    counted_seeds,
    grid,
    look,
    make_figure,
    spread,
)
from reproductions.harness.reporting.samples import METRICS, Curve, completed, curve, mean_loss_curve
from reproductions.harness.reporting.steps import Step
from resnet.data import TRAIN_IMAGES
from resnet.recipe import Recipe, learning_rate_at

MARGIN = 1.01  # of the iterations, so that the last markers are whole
THOUSANDS_FROM = 10_000  # iterations; longer runs have an axis in thousands
STEP_PLACES = {"without the step": 3, "with the step": 4}  # their colours and markers


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
            grid(axis, "y")
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
                reaches = {"whole": ([[1.0], [0.5]], "rounded or cut off"), "cut_off": ([[1.0], [0.0]], "cut off")}
                reach, how = reaches.get(value.kind, (None, ""))
                legend[f"reported (in whole percent, {how})" if reach else "reported"] = axis.errorbar(
                    epoch, error, reach, color=COLOURS[3], marker="D", markersize=7, markerfacecolor="white",
                    markeredgewidth=1.8, capsize=4, linewidth=1.4, linestyle="none", zorder=5,
                )  # fmt: skip
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel="epochs", ylabel="error (%)")
        grid(axis, "y")
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
            colour, marker = look(index)
            axis.plot(loss.iterations, loss.mean, color=colour, marker=marker, markersize=4.5, linewidth=1.6,
                      markevery=max(1, len(loss.iterations) // 8), label=results[index].row.label)  # fmt: skip
            axis.fill_between(loss.iterations, loss.low, loss.high, color=colour, alpha=0.15, linewidth=0)
        axis.set_yscale("log")
        axis.set(xlabel="iterations", ylabel="training loss")
        grid(axis, "y")
        figure.legend(loc="outside lower center", ncols=min(3, len(drawn)))
        return figure


def mean_losses(result: RowResult, numbers: dict[int, reported.Reported], variant: Variant) -> Figure | None:
    """The means of a net's training loss over its recipe's loss intervals, on a log axis over the epochs, and the
    reported ones, ``numbers`` by iteration, of the paper profile. None if no run was completed.
    """
    if (losses := mean_loss_curve(result.records)) is None:
        return None
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = make_figure(7.0, 4.2, 1, variant)
        epoch, colour = result.row.recipe.eval_interval, COLOURS[STEP_PLACES["with the step"]]
        x = [iteration / epoch for iteration in losses.iterations]
        interval = result.row.recipe.loss_interval
        axis.plot(x, losses.mean, color=colour, marker="o", markersize=4, linewidth=1.6,
                  label=f"mean over {interval} batches, mean of {_seeds([result])}")  # fmt: skip
        axis.fill_between(x, losses.low, losses.high, color=colour, alpha=0.15, linewidth=0,
                          label="from the lowest to the highest seed")  # fmt: skip
        if variant.profile == "paper":
            axis.plot([iteration / epoch for iteration in numbers], [float(n.value) for n in numbers.values()],
                      color=COLOURS[3], marker="D", markersize=6, markerfacecolor="white", markeredgewidth=1.6,
                      linestyle="none", zorder=5, label="reported")  # fmt: skip
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel="epochs", ylabel="training loss", xlim=(0, None))
        grid(axis, "y")
        figure.legend(loc="outside lower center", ncols=3)
        return figure


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
            for index, result in zip(STEP_PLACES.values(), (step.before, step.row)):
                _draw_curves(axis, result, index, 1 / _epochs(1, result))
                for milestone in result.row.recipe.milestones:
                    axis.axvline(_epochs(milestone, result), color=GREY, linewidth=0.7, linestyle=":", zorder=0)
            if missing := [n for n, r in zip(STEP_PLACES, (step.before, step.row)) if not completed(r.records)]:
                axis.text(0.5, 0.5, f"{' and '.join(missing)}:\nno completed runs", transform=axis.transAxes,
                          ha="center", va="center", color=GREY, fontsize=8.5)  # fmt: skip
            axis.set_xlabel("epochs" if place + columns >= len(steps) else "")
            axis.set_ylabel("error (%)" if place % columns == 0 else "")
            grid(axis, "y")
        _curve_legend(figure, results, STEP_PLACES)
        return figure


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
            grid(axis, "y")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows))
        return figure


def _test_and_training(result: RowResult) -> tuple[Curve | None, Curve | None]:
    return curve(result.records, "test_error"), curve(result.records, "training_error")


def _draw_curves(axis: Axes, result: RowResult, index: int, unit: float) -> None:
    colour, marker = look(index)
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
        colour, marker = look(index)
        axis.plot(
            [1 / MARGIN, 1.05, 1.07], [fraction, height, height], transform=axis.transAxes, clip_on=False, color=colour,
            linewidth=1.0, marker=marker, markersize=5.5, markevery=[2],
        )  # fmt: skip
        axis.text(1.095, height, panel[index].row.label, transform=axis.transAxes, va="center", fontsize=9)


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
    seeds, several = _seeds(results), any(len(completed(result.records)) > 1 for result in results)
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


def _epochs(iterations: int, result: RowResult) -> float:
    """How often so many iterations of a row go through its training images."""
    return iterations * result.row.recipe.batch_size / TRAIN_IMAGES[result.row.data]


def _drawn_iterations(recipe: Recipe) -> list[int]:
    """Iterations at which the learning rate is drawn: evenly, and on both sides of where it changes at once."""
    even = range(0, recipe.iterations, max(1, recipe.iterations // 400))
    corners = [recipe.linear_warmup, recipe.iterations - 1]
    corners += [iteration for milestone in recipe.milestones for iteration in (milestone - 1, milestone)]
    return sorted({*even, *(i for i in corners if 0 <= i < recipe.iterations)})


def _seeds(results: list[RowResult]) -> str:
    """``1 seed``, ``3–5 seeds``: how many the means of the rows that have any are of."""
    return counted_seeds(sorted({len(completed(result.records)) for result in results} - {0}))
