"""He et al. 2015, Tables 2, 3 and 4: validation error of plain and residual nets on ImageNet.

    python -m reproductions.imagenet --profile paper --rows resnet18,resnet50
    python -m reproductions.imagenet --evaluate-only torchvision:resnet50 --data DIR

Plain nets and ResNet-18 to ResNet-152, with shortcuts as in the tables: option A for 18 layers, A, B and C for 34, B
for the bottlenecks. All are trained by the recipe of section 3.4: batches of 256 on 8 GPUs, so that BN takes its
statistics over 32 images; learning rate 0.1, divided by 10 when the error plateaus; up to 600,000 iterations; weight
decay 1e-4 and momentum 0.9; the shorter side scaled to 256 to 480 pixels, a random crop of 224 or its mirror image,
colour noise along the principal components; no dropout. The final network is tested on the square in each image's
centre ("1-crop"), on 10 crops, and as a whole at five scales.

When the error plateaued the paper does not say. Here the learning rate drops at 150,000, 300,000 and 450,000 of all
600,000 iterations: every 30 epochs, as in Facebook's later public code of these nets (fb.resnet.torch), for as long as
the paper says at most; Bag of Tricks trains its baseline in the same way. Other readings: 450,000 iterations with drops
at 150,000 and 300,000 (90 epochs, that code's own length), or a rule that watches the error, for which the paper states
neither a threshold nor held-out images.

One seed of all rows is about 4e19 floating-point operations, more than half of them those of the three bottleneck nets;
what that takes, ``--dry-run`` tells once records have the rates. So the paper profile has one seed unless told
otherwise, and then no verdict, which needs three.

``--evaluate-only`` trains nothing and tests the weights in a file, or torchvision's: see
:mod:`reproductions.imagenet.evaluate_checkpoint`.
"""

from dataclasses import replace
from pathlib import Path

from reproductions.harness.experiment import Experiment, Row
from reproductions.harness.reporting.curves import learning_curves
from reproductions.harness.reporting.figure import save
from reproductions.harness.reporting.footnotes import reported_note
from reproductions.harness.reporting.page import Column, Page, Section
from reproductions.imagenet import evaluate_checkpoint
from reproductions.imagenet.nets import NETS, TINY_NETS
from resnet.recipe import Recipe

RECIPE = Recipe(
    iterations=600_000,
    batch_size=256,
    milestones=(150_000, 300_000, 450_000),
    batch_norm_size=32,
    crop="scale",
    pca_noise=0.1,
    eval_interval=5_000,
    tests=("ten_crop", "multi_scale"),
)

TESTS = {
    "10-crop": ("ten_crop_error", "ten_crop_top5_error"),
    "multi-scale": ("multi_scale_error", "multi_scale_top5_error"),
    "1-crop": ("one_crop_error", "one_crop_top5_error"),
}
METRICS = [metric for metrics in TESTS.values() for metric in metrics]


def recipe_for(profile: str) -> Recipe:
    """The paper's recipe, or the one cut down for a profile."""
    if profile == "short":
        return RECIPE.shortened(RECIPE.iterations // 64, eval_interval=RECIPE.iterations // 640)
    if profile == "smoke":
        tiny = {"batch_size": 16, "batch_norm_size": 8, "learning_rate": 0.05, "image_size": 16}
        return RECIPE.shortened(20, eval_interval=10, **tiny)
    return RECIPE


def rows(profile: str) -> list[Row]:
    """The nets of the tables; in the smoke profile smaller ones on synthetic images."""
    smoke = profile == "smoke"
    return [
        Row(
            key=net.key,
            label=net.label,
            model=net.model,
            recipe=recipe_for(profile),
            data="synthetic_imagenet" if smoke else "imagenet",
            model_options=net.options,
            reported=f"imagenet_{net.key}",
        )
        for net in (TINY_NETS if smoke else NETS)
    ]


def report(page: Page) -> list[Path]:
    """The nets, their errors in each of the three tests beside the reported ones, and learning curves.

    The curves are those of Figure 4, plain beside residual nets with option A, and those of all other nets.
    """
    sections = [Section(test.capitalize(), _errors(page, test)) for test in TESTS]
    plain = [result for result in page.results if "plain" in result.row.model]
    identity = [result for result in page.results if result.row.model_options.get("shortcut") == "A"]
    others = [result for result in page.results if result not in plain + identity]
    depth = learning_curves({"plain nets": plain, "residual nets, option A": identity}, page.variant)
    deeper = learning_curves({"residual nets with projections": others}, page.variant)
    return [
        *page.write([page.net(), page.parameters(), page.multiply_adds()], sections),
        *save(depth, page.plot_path("curves"), page.description),
        *save(deeper, page.plot_path("projections"), page.description),
    ]


def _errors(page: Page, test: str) -> list[Column]:
    """The columns of a test: top-1 error, then top-5. The section's heading says which test, so theirs need not."""
    columns = [page.net()]
    for metric in TESTS[test]:
        own = replace(page, metric=metric)
        columns += [
            column.of(metric)
            for column in (
                replace(own.reported(), note=f"Reported: {reported_note(page.results, *METRICS)}."),
                own.other_implementations(),
                own.published(),
                own.reproduced(),
                own.difference(),
                *own.verdict(),
            )
        ]
    return [replace(column, heading=column.heading.replace(f", {test}", "")) for column in columns]


EXPERIMENT = Experiment(
    name="imagenet_table",
    module="imagenet",
    title="ImageNet validation error of plain and residual nets",
    source="He et al. 2015, Tables 2 to 4",
    rows=rows,
    report=report,
    seeds={"paper": 1, "short": 2, "smoke": 2},
    metric="ten_crop_error",
    epilog="With --evaluate-only CHECKPOINT nothing is trained, and weights are tested; add --help to it for how.",
)


def main(arguments: list[str]) -> int:
    """Test weights if ``--evaluate-only`` is among the arguments, else reproduce the tables; returns the status."""
    if any(argument.split("=")[0] == "--evaluate-only" for argument in arguments):
        return evaluate_checkpoint.main(arguments)
    from reproductions.harness.cli import run_experiment

    return run_experiment(EXPERIMENT, arguments)
