"""He et al. 2015, Tables 2, 3 and 4: validation error of plain and residual nets on ImageNet.

    python -m reproductions.imagenet --profile paper --rows resnet18,resnet50
    python -m reproductions.imagenet --evaluate-only torchvision:resnet50 --data DIR

The nets are plain nets and ResNet-18 to ResNet-152, with the tables' shortcuts: option A for 18 layers; A, B and C for
34; B for the bottlenecks. All are trained by the recipe of section 3.4: batches of 256, with the statistics of BN over
32 images, as on 8 GPUs, of which the section does not speak; learning rate 0.1, divided by 10 when the error plateaus;
up to 600,000 iterations; weight decay 1e-4 and momentum 0.9; the shorter side scaled to 256 to 480 pixels, random crops
of 224 with flips, colour noise along the principal components; no dropout. The final network is tested on each image's
central square ("1-crop"), on 10 crops, and on the whole image at five scales.

The paper does not say when the error plateaued. Here the learning rate drops at 150,000, 300,000 and 450,000 of 600,000
iterations: every 30 epochs, as in Facebook's later public code for these nets (fb.resnet.torch), up to the paper's
maximum; Bag of Tricks trains its baseline in the same way. Other readings are 450,000 iterations with drops at 150,000
and 300,000 (90 epochs, the length in that code), or a rule that watches the error, for which the paper gives neither a
threshold nor held-out images.

One seed of all rows is about 4e19 floating-point operations, more than half of them for the three bottleneck nets;
``--dry-run`` estimates the time once records have the rates. The paper profile therefore has one seed by default, and
no verdict, which needs three.

``--evaluate-only`` trains nothing and tests the weights in a file, or torchvision's: see
:mod:`reproductions.imagenet.evaluate_checkpoint`.
"""

from dataclasses import replace
from pathlib import Path

from reproductions.harness.experiment import Experiment, Row
from reproductions.harness.reporting.claims import Claim, Finding, judge
from reproductions.harness.reporting.curves import learning_curves
from reproductions.harness.reporting.figure import save
from reproductions.harness.reporting.footnotes import reported_note
from reproductions.harness.reporting.found import of_findings
from reproductions.harness.reporting.page import Column, Page, Section
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

# Key, label, model and shortcut (None: it has none) of each row.
NETS = (
    ("plain18", "plain-18", "plain18", None),
    ("plain34", "plain-34", "plain34", None),
    ("resnet18", "ResNet-18 A", "resnet18", "A"),
    ("resnet34a", "ResNet-34 A", "resnet34", "A"),
    ("resnet34b", "ResNet-34 B", "resnet34", "B"),
    ("resnet34c", "ResNet-34 C", "resnet34", "C"),
    ("resnet50", "ResNet-50", "resnet50", "B"),
    ("resnet101", "ResNet-101", "resnet101", "B"),
    ("resnet152", "ResNet-152", "resnet152", "B"),
)
# Smoke: nets for small images, because multi-scale tests of nets for ImageNet take minutes on a CPU.
TINY_NETS = (
    ("plain8", "plain-8", "cifar_plain8", None),
    ("plain14", "plain-14", "cifar_plain14", None),
    ("resnet8", "ResNet-8 A", "cifar_resnet8", "A"),
    ("resnet14a", "ResNet-14 A", "cifar_resnet14", "A"),
    ("resnet14b", "ResNet-14 B", "cifar_resnet14", "B"),
    ("resnet14c", "ResNet-14 C", "cifar_resnet14", "C"),
    ("bottleneck11", "bottleneck ResNet-11", "cifar_bottleneck11", None),
)
TESTS = {
    "10-crop": ("ten_crop_error", "ten_crop_top5_error"),
    "multi-scale": ("multi_scale_error", "multi_scale_top5_error"),
    "1-crop": ("one_crop_error", "one_crop_top5_error"),
}
# Pairs of nets, the better one first, that section 4.1 compares: plain nets, plain with residual ones, and depths.
BETTER = (
    ("plain18", "plain34"),
    ("resnet34a", "resnet18"),
    ("resnet34a", "plain34"),
    ("resnet34b", "resnet34a"),
    ("resnet34c", "resnet34b"),
    ("resnet50", "resnet34b"),
    ("resnet101", "resnet50"),
    ("resnet152", "resnet101"),
)
METRICS = [metric for metrics in TESTS.values() for metric in metrics]


def recipe_for(profile: str) -> Recipe:
    """Return the paper's recipe, shortened in the other profiles."""
    if profile == "short":
        return RECIPE.shortened(RECIPE.iterations // 64, eval_interval=RECIPE.iterations // 640)
    if profile == "smoke":
        tiny = {"batch_size": 16, "batch_norm_size": 8, "learning_rate": 0.05, "image_size": 16}
        return RECIPE.shortened(20, eval_interval=10, **tiny)
    return RECIPE


def rows(profile: str) -> list[Row]:
    """Return the tables' rows; in the smoke profile, smaller nets on synthetic images."""
    smoke = profile == "smoke"
    return [
        Row(
            key=key,
            label=label,
            model=model,
            recipe=recipe_for(profile),
            data="synthetic_imagenet" if smoke else "imagenet",
            model_options={"shortcut": shortcut} if shortcut else {},
            reported=f"imagenet_{key}",
        )
        for key, label, model, shortcut in (TINY_NETS if smoke else NETS)
    ]


def report(page: Page) -> list[Path]:
    """Write the nets, their errors in each of the three tests, and learning curves; return the files.

    One plot has Figure 4's nets, plain ones beside residual ones with option A; another has all other nets.
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
    """Return a test's columns, top-1 error first; headings omit the test, which the section's heading names."""
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


def judged(page: Page) -> list[Finding]:
    """Judge the claims of section 4.1 about depth, shortcuts and plain nets by the runs."""
    rows, claims = {result.row.key: result.row for result in page.results}, []
    for better, other in BETTER:
        if better in rows and other in rows:
            text = f"{rows[better].label} has a lower error than {rows[other].label}"
            claims.append(Claim(f"{other}_{better}", text, EXPERIMENT.source, (other, better), (1, -1), page.metric))
    return judge(claims, page.results, page.variant)


EXPERIMENT = Experiment(
    name="imagenet_table",
    module="imagenet",
    title="ImageNet validation error of plain and residual nets",
    source="He et al. 2015, Tables 2 to 4",
    rows=rows,
    report=report,
    seeds={"paper": 1, "short": 2, "smoke": 2},
    metric="ten_crop_error",
    claims=lambda page: of_findings(judged(page)),
    epilog="With --evaluate-only CHECKPOINT, weights are tested and nothing is trained; its options: add --help.",
)


def main(arguments: list[str]) -> int:
    """Test weights if ``--evaluate-only`` is an argument, else reproduce the tables; return the exit status."""
    if any(argument.split("=")[0] == "--evaluate-only" for argument in arguments):
        from reproductions.imagenet import evaluate_checkpoint

        return evaluate_checkpoint.main(arguments)
    from reproductions.harness.cli import run_experiment

    return run_experiment(EXPERIMENT, arguments)
