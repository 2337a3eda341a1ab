"""ResNet-18 and ResNet-34 as they are for ImageNet, on the small images of CIFAR-10, and what their stem costs there.

    python -m reproductions.cifar_imagenet_stem --profile paper --seeds 5

The 7x7 convolution and the max-pooling, each with stride 2, leave maps of 8x8 of 32x32 pixels before the first block;
a report without a public name gives 87 % for ResNet-18. Trained as reported: SGD with momentum 0.9, weight decay 5e-4,
batches of 128, learning rate 0.1 for 150 epochs and then 0.01 and 0.001 for 60 each, crops and flips. Beside it the
same net with a 3x3 stem without stride. Not reported and so chosen: torchvision's nets (projection shortcuts), images
less the channels' means over their standard deviations, an epoch's last 80 images carried into the next batch.
"""

import sys
from pathlib import Path

import torch

from reproductions.harness.experiment import Experiment, Row
from reproductions.harness.launching.workplace import Workplace
from reproductions.harness.measurements import MeasurementError
from reproductions.harness.predictions import PREDICTIONS
from reproductions.harness.reporting import plots, predictions, steps
from reproductions.harness.reporting.tables import Page
from resnet.data import TRAIN_IMAGES, DataError, load
from resnet.recipe import Recipe
from resnet.run import Run

BATCH_SIZE = 128
STAGES = (150, 60, 60)  # epochs at each learning rate


def recipe_for(profile: str) -> Recipe:
    """The three stages, or as many times shorter in the other profiles."""
    images = TRAIN_IMAGES["cifar10"]
    ends = [round(sum(STAGES[:count]) * images / BATCH_SIZE) for count in (1, 2, 3)]
    recipe = Recipe(
        iterations=ends[-1],
        batch_size=BATCH_SIZE,
        milestones=tuple(ends[:-1]),
        weight_decay=5e-4,
        eval_interval=round(5 * images / BATCH_SIZE),
        normalization="channel_std",
    )
    if profile == "short":
        return recipe.shortened(1_000, eval_interval=100)
    if profile == "smoke":
        return recipe.shortened(24, eval_interval=8, batch_size=16, learning_rate=0.02)
    return recipe


def rows(profile: str) -> list[Row]:
    """ResNet-18 and -34 with ImageNet's stem, and ResNet-18 with a small one; in the smoke profile ResNet-18 alone."""
    smoke = profile == "smoke"
    recipe, data = recipe_for(profile), "synthetic" if smoke else "cifar10"

    def row(key: str, label: str, model: str, after: str | None, **options) -> Row:
        reported = "stem_resnet18" if key == "resnet18" else None
        return Row(key, label, model, recipe, data, {"variant": "b", **options}, reported, after=after)

    small = row("resnet18-small", "ResNet-18, 3x3 stem", "resnet18", "resnet18", small_stem=True)
    first = row("resnet18", "ResNet-18, 7x7 stem", "resnet18", None)
    deeper = row("resnet34", "ResNet-34, 7x7 stem", "resnet34", "resnet18")
    return [first, small] if smoke else [first, deeper, small]


def report(page: Page) -> list[Path]:
    """The accuracies beside the reported one, what depth and the small stem change, and learning curves."""
    columns = [
        page.net(),
        page.parameters(),
        page.multiply_adds(),
        page.reported(),
        page.published(),
        page.reproduced(),
        page.interval(),
        page.difference(),
        page.verdict(),
    ]
    found, predicted = steps.find_steps(page.results), predictions.find(page.results, page.out)
    curves = plots.learning_curves({"": page.results}, page.variant)
    losses = plots.loss_curves(page.results, page.variant)
    confusion = predictions.confusion_figure(predicted, page.variant)
    return [
        *page.write(columns, [steps.section(found, page.variant, "confirmed"), predictions.section(predicted)]),
        page.write_csv(steps.numbers(found, page.variant, "confirmed"), "steps"),
        *plots.save(curves, page.plot_path("curves"), page.description),
        *plots.save(losses, page.plot_path("losses"), page.description),
        *plots.save(confusion, page.plot_path("confusion"), page.description),
    ]


def measure(records: list[dict], workplace: Workplace, device: torch.device) -> list[str]:
    """Predict the test images, and show some of them with the predictions of each net's first seed.

    The plots of images, ``plots/predictions_<run>.png``, are made where the data are, and so not published.
    """
    problems = PREDICTIONS.make_missing(records, workplace, device)
    for record in (record for record in records if record["specification"]["seed"] == 0):
        run = Run.from_specification(record["specification"])
        path = workplace.out / "plots" / f"predictions_{run.short_id}"
        description = f"predictions of {run} for test images, record {record['record_sha256']}"
        try:
            found = PREDICTIONS.find(workplace.out, record)
            if found is None or plots.is_saved(path, description):
                continue
            images = load(run.data, workplace.data).test_images
        except MeasurementError:  # which is among the problems already
            continue
        except (DataError, OSError) as error:
            problems.append(f"the images of {run} can't be shown: {error}")
            continue
        figure = predictions.grid_figure(found, images, f"{run}, test error {record['final']['test_error']:.2f} %")
        plots.save(figure, path, description)
    return problems


EXPERIMENT = Experiment(
    name="cifar_imagenet_stem",
    title="ImageNet's ResNet-18 and ResNet-34 on CIFAR-10",
    source="a report without a public name",
    rows=rows,
    report=report,
    metric="top1_accuracy",
    protocol="the reported protocol",
    measure=measure,
)

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENT))
