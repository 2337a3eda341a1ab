"""Report of the predictions: confusion matrices, most confident mistakes, and a grid of images.

It reads the files of :data:`reproductions.cifar_imagenet_stem.predictions.PREDICTIONS`. Only the grid needs the data.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reproductions.cifar_imagenet_stem.predictions import PREDICTIONS
from reproductions.harness.console import counted
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.measurements import MeasurementError
from reproductions.harness.reporting.curves import draw_curve, log_axis
from reproductions.harness.reporting.figure import (
    COLOURS,
    DOUBLE,
    INK,
    SINGLE,
    SMALLEST,
    caption,
    legend_below,
    make_figure,
    named,
    styled,
)
from reproductions.harness.reporting.frame import completed, curve
from reproductions.harness.reporting.text import markdown_table

CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "synthetic": (
        *("disc", "ring", "square", "frame", "triangle"),
        *("cross", "bar", "two bars", "two squares", "half disc"),
    ),
}
SHOWN = 10  # number of most confident mistakes, and of first images


@dataclass(frozen=True)
class Predicted:
    """The predictions of a row's runs: ``files`` in the order of the seeds."""

    result: RowResult
    files: list[dict]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the data set's classes."""
        return CLASSES[self.result.row.data]

    @property
    def confusion(self) -> np.ndarray:
        """Percent of each class's images (row) by predicted class (column), over all runs: (C, C)."""
        counts = np.zeros(2 * (len(self.classes),))
        for file in self.files:
            np.add.at(counts, (file["labels"], file["predicted"]), 1)
        return 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))


def surest_mistakes(file: dict) -> list[int]:
    """Return the indices of the SHOWN misclassified test images with the highest probabilities, highest first."""
    wrong = [n for n, label in enumerate(file["labels"]) if label != file["predicted"][n]]
    return sorted(wrong, key=lambda n: (-file["probability"][n], n))[:SHOWN]


def find(results: list[RowResult], out: Path) -> list[Predicted]:
    """Return the rows with predictions of their runs; damaged files and rows without predictions are left out."""
    found = []
    for result in results:
        files = []
        for record in completed(result.records):
            try:
                file = PREDICTIONS.find(out, record)
            except MeasurementError:
                continue
            files += [file] if file is not None else []
        found += [Predicted(result, files)] if files else []
    return found


def section(found: list[Predicted]) -> str:
    """Return a Markdown section: the most confident mistakes of each row's first run; empty without predictions."""
    if not found:
        return ""
    parts = ["## Most confident mistakes\n"]
    for predicted in found:
        file, mistakes = predicted.files[0], surest_mistakes(predicted.files[0])
        table = markdown_table(
            {
                "test image": [f"{number:,}" for number in mistakes],
                "class": [predicted.classes[file["labels"][n]] for n in mistakes],
                "predicted": [predicted.classes[file["predicted"][n]] for n in mistakes],
                "probability": [f"{file['probability'][n]:.4f}" for n in mistakes],
            }
        )
        runs = f"the first of {counted(len(predicted.files), 'run')} with predictions"
        parts.append(f"{predicted.result.row.label}, {runs}:\n\n{table}")
    return "\n".join(parts)


@styled
def confusion_figure(found: list[Predicted], variant: Variant) -> Figure | None:
    """Draw the confusion matrices, in percent of each class. None if nothing was predicted."""
    if not found:
        return None
    columns = min(2, len(found))
    titles, data = [p.result.row.label for p in found], [p.result.row.data for p in found]
    titles = [f"{title} (n = {len(predicted.files)})" for title, predicted in zip(titles, found)]
    width, height = (SINGLE, DOUBLE)[columns - 1], 3.3 * -(-len(found) // columns)
    figure, axes = make_figure(width, height, titles, variant, data, columns, grid="")
    for place, (axis, predicted) in enumerate(zip(axes, found)):
        matrix = predicted.confusion
        axis.imshow(np.sqrt(matrix), cmap="Blues", vmin=0, vmax=10)  # the root shows what is rare
        for line, column in np.ndindex(matrix.shape):
            if (percent := matrix[line, column]) >= 0.05:
                colour, text = "white" if percent > 40 else INK, f"{percent:.{0 if percent >= 99.95 else 1}f}"
                axis.text(column, line, text, ha="center", va="center", fontsize=SMALLEST, color=colour)
        axis.set_xticks(range(len(predicted.classes)), predicted.classes, rotation=60, ha="right")
        axis.set_yticks(range(len(predicted.classes)), predicted.classes)
        axis.tick_params(length=0, labelbottom=True)
        axis.set_xlabel("taken for")
        axis.set_ylabel("is (percent of each class)" if place % columns == 0 else "")
    return figure


@styled
def grid_figure(file: dict, images: np.ndarray, title: str) -> Figure:
    """Draw the first test images and the surest mistakes of one run. images: uint8 (N, H, W, 3), the whole test set."""
    shown, classes = [*range(SHOWN), *surest_mistakes(file)], CLASSES[file["data"]["name"]]
    figure = Figure(figsize=(DOUBLE, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    caption(figure, title)
    for place, (axis, number) in enumerate(zip(figure.subplots(4, SHOWN // 2).flat, shown)):
        label, guess = (classes[file[name][number]] for name in ("labels", "predicted"))
        axis.imshow(images[number])
        axis.set(xticks=[], yticks=[])
        text = guess if label == guess else f"{guess}, is {label}"
        sure, colour = 100 * file["probability"][number], INK if label == guess else COLOURS[3]
        axis.set_title(f"{text}\n{sure:.1f} %", fontsize=SMALLEST, color=colour, loc="center", weight="normal")
        if place % (SHOWN // 2) == 0:
            axis.set_ylabel("surest mistakes" if place >= SHOWN else "first images")
    for axis in figure.axes[len(shown) :]:
        axis.remove()
    return figure


@styled
def loss_curves(results: list[RowResult], variant: Variant) -> Figure | None:
    """Draw the training loss over the iterations, on a log axis: the seeds' mean and the band from lowest to highest.

    None if no run was completed.
    """
    drawn = {i: loss for i, r in enumerate(results) if (loss := curve(r.records, "training_loss")) is not None}
    if not drawn:
        return None
    figure, (axis,) = make_figure(SINGLE, 2.1, [""], variant, [results[index].row.data for index in drawn])
    legend = {}
    for index, loss in drawn.items():
        draw_curve(axis, loss, index, 1)
        legend[named(results[index].row.label, results[index].records)] = axis.lines[-1]
    log_axis(axis)
    axis.set(xlabel="iterations", ylabel="training loss")
    axis.xaxis.set_major_locator(MaxNLocator(4))
    legend_below(figure, legend)
    return figure
