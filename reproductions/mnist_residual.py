"""A small residual network without BN on MNIST: test accuracy after epochs 1, 3 and 10.

    python -m reproductions.mnist_residual --profile paper --seeds 5

Training follows the report: SGD with learning rate 0.01, momentum 0.5, batches of 64, 10 epochs; pixels minus 0.1307,
divided by 0.3081, the mean and standard deviation of the training images; PyTorch's initialisation; no augmentation, no
weight decay, and a constant learning rate. An epoch's last batch has the remaining 32 images. Everything is in fp32,
PyTorch's default. The report prints accuracies with ``%d``, so 96 means at least 96 and below 97, and the mean training
loss over every 300 batches, which is recorded here, too.
"""

import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from reproductions import reported
from reproductions.harness.experiment import Experiment, Row, RowResult, Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.compare import from_reported, verdict
from reproductions.harness.reporting.curves import (
    STEP_PLACES,
    curve_legend,
    draw_curve,
    draw_curves,
    errors_of,
    log_axis,
)
from reproductions.harness.reporting.figure import HOLLOW, SINGLE, legend_below, make_figure, named, save, styled
from reproductions.harness.reporting.found import Found
from reproductions.harness.reporting.frame import METRICS, final_values, mean_loss_curve
from reproductions.harness.reporting.page import Column, Headline, Page, of_fullest_row
from reproductions.reported import Reported
from resnet.data import TRAIN_IMAGES
from resnet.recipe import Recipe

BATCH_SIZE = 64
EPOCHS = {"paper": 10, "short": 3, "smoke": 10}
SHOWN = (1, 3, 10)  # epochs
REPORTED = {1: "mnist_residual_epoch1", 3: "mnist_residual_epoch3"}
LOSS_INTERVAL = 300  # batches; the means begin anew with each epoch


def recipe_for(profile: str, data: str) -> Recipe:
    """Return the reported recipe; the short profile has fewer epochs, the smoke profile fewer images."""
    steps = math.ceil(TRAIN_IMAGES[data] / BATCH_SIZE)  # of an epoch
    return Recipe(
        iterations=EPOCHS[profile] * steps,
        batch_size=BATCH_SIZE,
        learning_rate=0.05 if profile == "smoke" else 0.01,
        milestones=(),
        momentum=0.5,
        weight_decay=0.0,
        augment=False,
        precision="fp32",
        eval_interval=steps,
        loss_interval=min(LOSS_INTERVAL, steps // 3),
        normalization="channel_std",
        last_batch="use",
    )


def rows(profile: str) -> list[Row]:
    """Return the table's only row."""
    data = "synthetic_mnist" if profile == "smoke" else "mnist"
    recipe = recipe_for(profile, data)
    return [Row("mnist_residual", "small residual CNN", "mnist_residual", recipe, data)]


def report(page: Page) -> list[Path]:
    """Write the accuracies after the SHOWN epochs, learning curves, and mean losses; return the files."""
    (result,) = page.results
    lines = _lines(page)
    page = replace(page, results=[*lines.values()])
    columns = [
        _epoch_column(result, [*lines]),
        page.reported(),
        page.published(),
        page.reproduced(),
        page.interval(),
        page.difference(),
        *page.verdict(),
    ]
    curves = errors_over_epochs(result, lines, page.variant)
    losses = mean_losses(result, {} if page.variant.settings else reported_losses(result), page.variant)
    return [
        *page.write(columns),
        *save(curves, page.plot_path("curves"), page.description),
        *save(losses, page.plot_path("losses"), page.description),
    ]


def reported_losses(result: RowResult) -> dict[int, Reported]:
    """Return the reported mean losses by the iteration at which each interval ends in the row's training."""
    numbers = [n for n in reported.load() if n.metric == f"mean training loss over {LOSS_INTERVAL} batches"]
    places = [map(int, number.key.split("_")[-2:]) for number in numbers]
    steps = result.row.recipe.eval_interval
    return {(epoch - 1) * steps + batches: number for (epoch, batches), number in zip(places, numbers)}


def headline(page: Page) -> Headline:
    """Return the headline for the SHOWN epoch with a reported accuracy and most completed runs, the last of equals."""
    lines = [
        replace(line, row=replace(line.row, label=f"{line.row.label}, after epoch {epoch}"))
        for epoch, line in _lines(page).items()
    ]
    return of_fullest_row(replace(page, results=lines))


def found(page: Page) -> list[Found]:
    """Return whether the accuracies that are reported after some epochs are contradicted."""
    claims, metric = [], METRICS[page.metric]
    for epoch, line in _lines(page).items():
        values, target = final_values(line.records, page.metric), reported.target(line.row.reported, metric)
        if target is not None and page.variant.profile == "paper":
            effect = intervals.mean(values) - float(target.value) if values else None
            text = f"the {metric} after epoch {epoch} is {target.described}"
            said = str(verdict(values, target, page.variant) or "")
            show = partial(from_reported, target=target)
            claims.append(Found(f"epoch_{epoch}", text, (len(values),), effect, None, said=said, show=show))
    return claims


def _lines(page: Page) -> dict[int, RowResult]:
    """Return the row after each of the SHOWN epochs that its runs come to; without any, after the last epoch."""
    (result,) = page.results
    last = max(1, result.row.recipe.iterations // result.row.recipe.eval_interval)
    epochs = [epoch for epoch in SHOWN if epoch <= last] or [last]
    return {epoch: after_epoch(result, epoch, page.variant) for epoch in epochs}


def after_epoch(result: RowResult, epoch: int, variant: Variant) -> RowResult:
    """Return the row with its runs' results after ``epoch`` epochs and the number reported for that epoch.

    Nothing is reported of a variant with other values.
    """
    iteration = epoch * result.row.recipe.eval_interval

    def then(record: dict) -> dict:
        """Return the record with that epoch's results; a diverged run's stays as it is and enters no mean."""
        points = {point["iteration"]: point for point in record["curve"]}
        last = record["final"]  # of a run that is shorter than an epoch
        return record if record["status"] == "diverged" else {**record, "final": points.get(iteration, last)}

    row = replace(result.row, reported=None if variant.settings else REPORTED.get(epoch))
    published = None if result.published is None else list(map(then, result.published))
    return replace(result, row=row, records=list(map(then, result.records)), published=published)


def _epoch_column(result: RowResult, epochs: list[int]) -> Column:
    steps, batch_size = result.row.recipe.eval_interval, result.row.recipe.batch_size
    images = TRAIN_IMAGES[result.row.data]
    note = (
        "Accuracies are in percent: mean ± sample standard deviation over n seeds, the same runs after each of these "
        f"epochs. An epoch is {steps:,} steps, as many as batches of {batch_size} need for {images:,} images."
    )
    numbers = {"row": [result.row.key for _ in epochs], "epoch": epochs}
    return Column("after epoch", [str(epoch) for epoch in epochs], numbers, note)


@styled
def errors_over_epochs(result: RowResult, reported_after: dict[int, RowResult], variant: Variant) -> Figure | None:
    """Draw training error (dashed) and test error (solid) of a net that is evaluated after each epoch, on a log axis.

    ``reported_after``: rows whose reported top-1 accuracies, of the paper profile, belong to these epochs; one in whole
    percent is drawn as a box over all that it can stand for. None if no run was completed.
    """
    if not errors_of(result):
        return None
    figure, (axis,) = make_figure(SINGLE, 2.1, [""], variant, [result.row.data])
    place = STEP_PLACES["with the step"]
    draw_curves(axis, result, place, result.row.recipe.eval_interval)
    legend: dict[str, object] = {}
    for epoch, row in reported_after.items() if variant.profile == "paper" else ():
        for value in reported.in_paper(row.row.reported, METRICS["top1_accuracy"]):
            error = 100 - float(value.value)
            above, below = value.reach  # an accuracy's below is an error's above
            if any(value.reach):
                how = "cut off" if value.kind == "cut_off" else "rounded or cut off"
                legend[f"reported, {how} to whole percent: anywhere in the box"] = axis.bar(
                    epoch, below + above, 0.5, error - below, facecolor="none", edgecolor=HOLLOW["color"], zorder=4
                )
            else:
                (legend["reported"],) = axis.plot([epoch], [error], **HOLLOW)
    log_axis(axis)
    axis.set(xlabel="epochs", ylabel="error (%)")
    curve_legend(figure, [result], {named(result.row.label, result.records): place}, legend)
    return figure


@styled
def mean_losses(result: RowResult, numbers: dict[int, reported.Reported], variant: Variant) -> Figure | None:
    """Draw the mean training loss over each loss interval, on a log axis over the epochs, beside reported ``numbers``.

    These are given by iteration, and drawn in the paper profile. None if no run was completed.
    """
    if (losses := mean_loss_curve(result.records)) is None:
        return None
    figure, (axis,) = make_figure(SINGLE, 2.1, [""], variant, [result.row.data])
    epoch, place = result.row.recipe.eval_interval, STEP_PLACES["with the step"]
    draw_curve(axis, losses, place, epoch, most=len(losses))
    (line,), (band,) = axis.lines, axis.collections
    name = named(f"mean over {result.row.recipe.loss_interval} batches", result.records)
    legend = {name: line, "lowest to highest seed": band}
    if numbers and variant.profile == "paper":
        x, losses = [iteration / epoch for iteration in numbers], [float(n.value) for n in numbers.values()]
        (legend["reported"],) = axis.plot(x, losses, **HOLLOW)
    log_axis(axis)
    axis.set(xlabel="epochs", ylabel="training loss", xlim=(0, None))
    legend_below(figure, legend)
    return figure


EXPERIMENT = Experiment(
    name="mnist_residual",
    title="A small residual net without BN on MNIST",
    source="a report by qq_40211493",
    rows=rows,
    report=report,
    headline=headline,
    claims=found,
    metric="top1_accuracy",
    protocol="the reported protocol",
)

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENT))
