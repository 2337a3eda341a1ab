"""Report of a training on one's own images: class balance, accuracies, confusion matrix and learning curves."""

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reproductions.harness.reporting.figure import (
    DOUBLE,
    GREY,
    SINGLE,
    SMALLEST,
    STYLE,
    find_fonts,
    fonts_for,
    legend_below,
    look,
    styled,
)
from reproductions.harness.reporting.intervals import wilson
from reproductions.harness.reporting.text import NONE, escaped, interval, markdown_table, number
from resnet.data.folder import FolderDataset
from resnet.files import write_atomically
from resnet.finetuning import BEST, LAST, InitialModel, Settings, Training
from resnet.models import count_parameters

WIDEST = 30  # number of classes up to which the confusion matrix is a table
CONFUSIONS = 30  # number of most frequent confusions listed for more classes


def write(
    folder: Path,
    beginning: InitialModel,
    dataset: FolderDataset,
    settings: Settings,
    done: Training,
    held_out: str,
    left_out: list[str],
) -> list[Path]:
    """Write report.md, confusion.png and curves.png into ``folder``; returns their paths."""
    confusion = np.array(done.confusion)
    plots = {"confusion.png": confusion_plot(confusion, dataset.classes), "curves.png": curves_plot(done)}
    for name, figure in plots.items():
        content = io.BytesIO()
        find_fonts(figure)
        with matplotlib.rc_context(STYLE):
            figure.savefig(content, format="png", dpi=300, metadata={"Software": None})
        write_atomically(folder / name, content.getvalue())
    last, best, test_images = done.history[-1], done.best, len(dataset.test)
    augmented = "random crops and flips" if settings.augment else "central crops"
    lines = [
        f"# {escaped(f'{dataset.name}: {beginning.architecture}, {beginning.said}')}",
        "",
        f"**Validation accuracy {last['validation_accuracy']:.2f} %** after the last of {last['epoch']} epochs, 95 % "
        f"interval {interval(wilson(np.trace(confusion), test_images))} (Wilson, {test_images:,} images); training "
        f"accuracy {last['training_accuracy']:.2f} %. Best over the epochs, so selected on the validation images: "
        f"{best['validation_accuracy']:.2f} % after epoch {best['epoch']}.",
        "",
        f"- {len(dataset.train):,} training images, {test_images:,} held out: {held_out}.",
        f"- Adam with learning rate {settings.learning_rate:g}, batches of {settings.batch_size}, images of "
        f"{settings.image_size} pixels, {augmented}, seed {settings.seed}; {count_parameters(beginning.model):,} "
        "parameters.",
        f"- `{LAST}` holds the weights after the last epoch (used for the tables), `{BEST}` the best epoch's.",
        *(f"- {line[0].upper()}{line[1:]}." for line in map(escaped, left_out)),
        "",
        "## Classes",
        "",
        class_table(dataset, confusion),
        "A class's accuracy is the share of its held-out images that are classified correctly.",
        "",
        "## Confusion matrix",
        "",
        confusion_table(confusion, dataset.classes),
        "![Confusion matrix](confusion.png)",
        "",
        "## Learning curve",
        "",
        curve_table(done),
        "Training loss and accuracy are means over the epoch's batches, measured during training.",
        "",
        "![Learning curves](curves.png)",
        "",
    ]
    write_atomically(folder / "report.md", "\n".join(lines).encode())
    return [folder / "report.md", *(folder / name for name in plots)]


def class_table(dataset: FolderDataset, confusion: np.ndarray) -> str:
    """Return a Markdown table of each class's images and accuracy."""
    trained = np.bincount(dataset.train.labels, minlength=dataset.num_classes)
    tested, right = confusion.sum(axis=1), confusion.diagonal()
    return markdown_table(
        {
            "class": [*dataset.classes],
            "training images": [f"{count:,}" for count in trained],
            "share": [f"{100 * count / trained.sum():.1f} %" for count in trained],
            "held out": [f"{count:,}" for count in tested],
            "accuracy": [number(100 * r / t) if t else NONE for r, t in zip(right, tested)],
            "95 % interval": [interval(wilson(r, t)) if t else NONE for r, t in zip(right, tested)],
        }
    )


def confusion_table(confusion: np.ndarray, classes: tuple[str, ...]) -> str:
    """Return the confusion matrix as a Markdown table, with a row per class and a column per predicted class.

    Of more than WIDEST classes, it lists only the most frequent confusions.
    """
    names = [*classes]
    if len(classes) <= WIDEST:
        columns = {name: [f"{count:,}" for count in column] for name, column in zip(names, confusion.T)}
        return markdown_table({"class \\ predicted": names, **columns})
    wrong = confusion - np.diag(confusion.diagonal())
    places = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [divmod(int(place), len(classes)) for place in places if wrong.flat[place]]
    return markdown_table(
        {
            "class": [names[i] for i, _ in pairs],
            "predicted": [names[j] for _, j in pairs],
            "images": [f"{wrong[i, j]:,}" for i, j in pairs],
            "of": [f"{confusion[i].sum():,}" for i, _ in pairs],
        }
    )


def curve_table(done: Training) -> str:
    """Return a Markdown table of the losses and accuracies after each epoch."""
    keys = ("training_loss", "validation_loss", "training_accuracy", "validation_accuracy")
    columns = {key.replace("_", " "): [number(entry[key], 3 if "loss" in key else 2) for entry in done.history]
               for key in keys}  # fmt: skip
    return markdown_table({"epoch": [str(entry["epoch"]) for entry in done.history], **columns})


@styled
def confusion_plot(confusion: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Draw shares of each class's images as shades, with the numbers where there is room for them.

    Of more classes than there is room for, every second, third, ... has its name. A class whose name no font here can
    draw has its place in the tables instead.
    """
    count = len(classes)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    width = SINGLE if count <= 8 else DOUBLE
    figure, axis = _one_panel(width, 0.85 * width)
    image = axis.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axis, label="percent of the class", shrink=0.8)
    drawn = [f"no. {i}" if fonts_for(name)[1] else name for i, name in enumerate(classes, start=1)]
    shown = [plain(name if len(name) <= 24 else f"{name[:23]}…") for name in drawn]
    every = -(-count // WIDEST)
    axis.set_xticks(range(0, count, every), shown[::every], rotation=90)
    axis.set_yticks(range(0, count, every), shown[::every])
    if count * len(str(confusion.max())) <= (24 if width == SINGLE else 60):  # digits of 7 pt beside one another
        for (row, column), value in np.ndenumerate(confusion):
            if value:
                colour = "white" if shares[row, column] > 0.6 else "black"
                axis.text(column, row, f"{value}", ha="center", va="center", color=colour, fontsize=SMALLEST)
    unnamed = " (no.: its place in the tables)" if any(fonts_for(name)[1] for name in classes) else ""
    axis.set(xlabel="taken for", ylabel=f"class{unnamed}")
    return figure


@styled
def curves_plot(done: Training) -> Figure:
    """Draw training (dashed) and validation accuracy (solid) over the epochs."""
    epochs = [entry["epoch"] for entry in done.history]
    figure, axis = _one_panel(SINGLE, 2.1)
    legend = {}
    for key, place, line in (("validation_accuracy", 4, "-"), ("training_accuracy", 0, "--")):
        colour, marker = look(place)
        values = [entry[key] for entry in done.history]
        (legend[key.replace("_", " ")],) = axis.plot(epochs, values, line, color=colour, marker=marker)
    legend["best epoch"] = axis.axvline(done.best["epoch"], color=GREY, linewidth=0.6, linestyle=":")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="epoch", ylabel="accuracy (%)")
    axis.grid(axis="y")
    legend_below(figure, legend)
    return figure


def _one_panel(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def plain(name: str) -> str:
    """Escape a class's name for a plot, where a dollar sign would begin a formula."""
    return name.replace("$", "\\$")
