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
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from reproductions import reported
from reproductions.harness.experiment import Experiment, Row, RowResult, Variant
from reproductions.harness.reporting.curves import STEP_PLACES, curve_legend, draw_curves, drawn_seeds, errors_of
from reproductions.harness.reporting.figure import COLOURS, STYLE, grid, make_figure, save
from reproductions.harness.reporting.frame import METRICS, mean_loss_curve
from reproductions.harness.reporting.page import Column, Headline, Page, of_last_row
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
    epochs = _shown_epochs(page)
    lines = [_after(result, epoch) for epoch in epochs]
    page = replace(page, results=lines)
    columns = [
        _epoch_column(result, epochs),
        page.reported(),
        page.published(),
        page.reproduced(),
        page.interval(),
        page.difference(),
        page.verdict(),
    ]
    curves = errors_over_epochs(result, dict(zip(epochs, lines)), page.variant)
    losses = mean_losses(result, reported_losses(result), page.variant)
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
    """Return the headline for the last of the SHOWN epochs with a reported accuracy."""
    (result,) = page.results
    lines = []
    for epoch in _shown_epochs(page):
        line = _after(result, epoch)
        lines.append(replace(line, row=replace(line.row, label=f"{line.row.label}, after epoch {epoch}")))
    return of_last_row(replace(page, results=lines))


def _shown_epochs(page: Page) -> list[int]:
    return [epoch for epoch in SHOWN if epoch <= EPOCHS[page.variant.profile]]


def _after(result: RowResult, epoch: int) -> RowResult:
    """Return the row with its runs' results after ``epoch`` epochs and the number reported for that epoch."""
    iteration = epoch * result.row.recipe.eval_interval

    def then(record: dict) -> dict:
        """Return the record with that epoch's results; a diverged run's stays as it is and enters no mean."""
        points = {point["iteration"]: point for point in record["curve"]}
        return record if record["status"] == "diverged" else {**record, "final": points[iteration]}

    row = replace(result.row, reported=REPORTED.get(epoch))
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


def errors_over_epochs(result: RowResult, reported_after: dict[int, RowResult], variant: Variant) -> Figure | None:
    """Training error (dashed) and test error (solid) of a net that is evaluated after each epoch, on a log axis.

    ``reported_after``: rows whose reported top-1 accuracies, of the paper profile, belong to these epochs; one in whole
    percent is drawn with all that it can stand for. None if no run was completed.
    """
    drawn = [values for values in errors_of(result) if values]
    if not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = make_figure(7.0, 4.6, 1, variant)
        draw_curves(axis, result, STEP_PLACES["with the step"], result.row.recipe.eval_interval)
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
        curve_legend(figure, [result], extra=legend)
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
                  label=f"mean over {interval} batches, mean of {drawn_seeds([result])}")  # fmt: skip
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


EXPERIMENT = Experiment(
    name="mnist_residual",
    title="A small residual net without BN on MNIST",
    source="a report by qq_40211493",
    rows=rows,
    report=report,
    headline=headline,
    metric="top1_accuracy",
    protocol="the reported protocol",
)

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENT))
