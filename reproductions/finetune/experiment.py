"""Fine-tuning against training from scratch, on 570 images of each of five classes.

    python -m reproductions.finetune --profile paper --seeds 5
    python -m reproductions.finetune train FOLDER --out DIR --weights torchvision:resnet50
    python -m reproductions.finetune predict DIR/best.safetensors IMAGE_OR_FOLDER

The reported numbers were measured on somebody's own 2,850 images of 14 classes, with ImageNet weights. Without either,
this experiment asks the same question on CIFAR-10: ResNet-20 is trained on 25,000 images of the first five classes,
then on 2,850 of the other five, once from scratch and once from the pre-trained weights with a new last layer. Apart
from the initial weights, both trainings are the same: as reported, 30 epochs with batches of 64; SGD as in He et al.
2015, section 4.2, with learning-rate drops at a half and three quarters, and a learning rate proportional to the batch
size. A third row has a tenth of this rate, as is usual for fine-tuning. Neither rate was chosen by its result.

``train`` and ``predict`` are for one's own images: see :mod:`reproductions.finetune.own_folder`.
"""

import sys
from dataclasses import replace
from pathlib import Path

from reproductions import reported
from reproductions.harness.experiment import Experiment, Row, RowResult
from reproductions.harness.reporting import compare
from reproductions.harness.reporting.curves import learning_curves
from reproductions.harness.reporting.figure import save
from reproductions.harness.reporting.found import Found, of_steps
from reproductions.harness.reporting.frame import METRICS
from reproductions.harness.reporting.page import Column, Headline, Page
from reproductions.harness.reporting.text import interval, signed
from resnet.data import TRAIN_IMAGES
from resnet.recipe import Recipe

EPOCHS = {"paper": (5, 30), "short": (1, 6), "smoke": (10, 20)}  # of pre-training, and of the trainings after it
EVALUATIONS = 5  # per training, at most
REPORTED = {"scratch": "finetune_scratch", "finetuned": "finetune_finetuned"}  # on other images
BATCH_SIZES = {"paper": (128, 64), "short": (128, 64), "smoke": (32, 10)}


def recipe_for(data: str, epochs: int, batch_size: int) -> Recipe:
    """Return He et al.'s recipe for this number of epochs and batch size."""
    iterations = round(epochs * TRAIN_IMAGES[data] / batch_size)
    return Recipe(
        iterations=iterations,
        batch_size=batch_size,
        base_batch_size=128,
        milestones=(iterations // 2, iterations * 3 // 4),
        eval_interval=-(-iterations // EVALUATIONS),
    )


def rows(profile: str) -> list[Row]:
    """Return the rows: pre-training, from scratch, fine-tuned, and fine-tuned with a tenth of the learning rate."""
    smoke = profile == "smoke"
    first, last = (f"{'synthetic' if smoke else 'cifar10'}_{which}5" for which in ("first", "last"))
    broad, narrow = map(recipe_for, (first, last), EPOCHS[profile], BATCH_SIZES[profile])
    model = "cifar_resnet8" if smoke else "cifar_resnet20"
    pretraining = Row("pretraining", "pre-training, on the other five classes", model, broad, first)
    scratch = Row("scratch", "from scratch", model, narrow, last)
    finetuned = replace(scratch, key="finetuned", label="fine-tuned", pretrained=pretraining, after="scratch")
    slower = replace(narrow, learning_rate=narrow.learning_rate / 10)
    label = "fine-tuned, a tenth of the learning rate"
    return [pretraining, scratch, finetuned, replace(finetuned, key="finetuned_slower", label=label, recipe=slower)]


def report(page: Page) -> list[Path]:
    """Write the accuracies, the effect of fine-tuning paired by seed, and learning curves; return the files."""
    found = compare.find_steps(page.results)
    columns = [
        page.net("training"),
        _images(page.results),
        _reported(page),
        page.published(),
        page.reproduced(),
        page.interval(),
        *_with_reported(page).training()[:2],
    ]
    section = compare.steps_section(found, page.variant, "agrees", "What fine-tuning is worth")
    curves = learning_curves({"from scratch and fine-tuned": page.results[1:]}, page.variant)
    return [
        *page.write(columns, [section]),
        page.write_csv(compare.steps_numbers(found, page.variant, "agrees"), "steps"),
        *save(curves, page.plot_path("curves"), page.description),
    ]


def _images(results: list[RowResult]) -> Column:
    counts = [result.row.train_images or TRAIN_IMAGES[result.row.data] for result in results]
    epochs = [round(r.row.recipe.iterations * r.row.recipe.batch_size / n) for r, n in zip(results, counts)]
    cells = [f"{count:,}, {number} epochs" for count, number in zip(counts, epochs)]
    note = (
        "Each training is tested on all test images of its own five classes. A fine-tuned net begins with the final "
        "weights of the pre-training with the same seed, except its last layer, which is new."
    )
    return Column("training images", cells, {"training_images": counts, "epochs": epochs}, note)


def _reported(page: Page) -> Column:
    """Return the column of the reported numbers, which are on other images."""
    column = _with_reported(page).reported()
    note = (
        f"{column.note} These numbers are of other images, another net (ResNet-50), other pre-training (ImageNet) and "
        "Adam: they stand here for the question that they answer, and are not compared."
    )
    return replace(column, heading="top-1 accuracy, reported on other images", note=note)


def _with_reported(page: Page) -> Page:
    """Return the page with the reported numbers in its rows; the reproduced ones are not compared with them."""
    rows = [replace(result.row, reported=REPORTED.get(result.row.key)) for result in page.results]
    return replace(page, results=[replace(result, row=row) for result, row in zip(page.results, rows)])


def found(page: Page) -> list[Found]:
    """Return whether fine-tuning is better; how much better, the report says of other images alone."""
    steps = compare.find_steps(_with_reported(page).results)
    return [replace(one, reported=None, power=None) for one in of_steps(steps, page.variant.profile)]


def headline(page: Page) -> Headline:
    """Return the effect of fine-tuning with the learning rate of the training from scratch."""
    steps = compare.find_steps(page.results)
    step, comparisons = steps[0], compare.count_steps(steps)
    bounds, pairs = interval(step.interval(comparisons), signed), len(step.differences)
    finetuned, scratch = (reported.target(REPORTED[key], METRICS[page.metric]) for key in ("finetuned", "scratch"))
    return Headline(
        f"{step.row.row.label} − {step.before.row.label}",
        f"{finetuned} − {scratch}, of other images",
        f"{METRICS[page.metric]} {signed(step.mean)} {bounds} ({pairs} pairs)",
        "not comparable",
    )


EXPERIMENT = Experiment(
    name="finetune",
    title="Fine-tuning against training from scratch",
    source="a report without a public name, asked again of five classes of CIFAR-10",
    rows=rows,
    report=report,
    headline=headline,
    metric="top1_accuracy",
    claims=found,
    protocol="all of this suite's own protocol",
    epilog="For your own images: python -m reproductions.finetune train --help, and predict --help.",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment, or the command ``train`` or ``predict`` if it is the first argument; return the status."""
    from reproductions.finetune import own_folder as finetune_folder
    from reproductions.harness.cli import run_experiment

    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] in (["train"], ["predict"]):
        return finetune_folder.main(arguments)
    return run_experiment(EXPERIMENT, arguments)
