"""Effects of the protocol details that He et al. 2015, section 4.2, leaves open.

    python -m reproductions.protocol_details --profile paper --seeds 5

ResNet-20 and ResNet-56 are trained by this suite's default recipe and with one change at a time: a choice of other
implementations, or another reading of the paper. The default's runs are the CIFAR-10 table's.
"""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from reproductions.cifar_table import RECIPE, recipe_for
from reproductions.harness.experiment import Experiment, Row, RowResult
from reproductions.harness.reporting.figure import save
from reproductions.harness.reporting.frame import (
    SAME_PRECISION,
    by_seed,
    comparable,
    completed,
    paired_differences,
    share_runs,
)
from reproductions.harness.reporting.page import Headline, Page
from reproductions.protocol_details import effects
from reproductions.protocol_details.effects import Effect
from resnet.data import TRAIN_IMAGES
from resnet.recipe import Recipe

EPOCHS, DROPS = 200, (100, 150)  # longer schedule of many implementations
VALIDATION_SHARE = Fraction(1, 10)  # the paper found its schedule on 45,000 of the 50,000 images


def rows(profile: str) -> list[Row]:
    """Return the default and every change for each net; the smoke profile has ResNet-8 only."""
    depths = (8,) if profile == "smoke" else (20, 56)
    recipe = recipe_for(profile)
    if profile == "smoke":
        recipe = recipe.shortened(30, eval_interval=10)
    data = "synthetic" if profile == "smoke" else "cifar10"
    return [row for depth in depths for row in _rows_of(depth, recipe, data)]


def _rows_of(depth: int, recipe: Recipe, data: str) -> list[Row]:
    """Return a net's default row and its changes: of the model, of the number of training images, or of the recipe."""
    images, half = TRAIN_IMAGES[data], recipe.batch_size // 2
    fewer = round(images * (1 - VALIDATION_SHARE))
    shortened = Fraction(recipe.iterations, RECIPE.iterations)
    epoch = Fraction(TRAIN_IMAGES["cifar10"], RECIPE.batch_size) * shortened
    longer = {"iterations": round(EPOCHS * epoch), "milestones": tuple(round(drop * epoch) for drop in DROPS)}

    def model(**options) -> dict:
        return {"model_options": options}

    def trained(**changes) -> dict:
        return {"recipe": replace(recipe, **changes)}

    changes = {
        "conv-bias": ("biases in the convolutions", model(conv_bias=True)),
        "pad-both": ("zero channels on both sides in option A", model(shortcut_padding="both")),
        "fan-in": ("fan-in initialisation", model(initialization="fan_in")),
        "xavier": ("Xavier's initialisation", model(initialization="xavier")),
        "fewer-images": (f"{fewer:,} of {images:,} training images", {"train_images": fewer}),
        "bn-half": (f"BN statistics over {half} images", trained(batch_norm_size=half)),
        "bn-recomputed": (
            "BN statistics recomputed after training",
            trained(statistics_batches=round(images / recipe.batch_size)),
        ),
        "channel-mean": ("per-channel mean", trained(normalization="channel_mean")),
        "channel-std": ("per-channel mean and std", trained(normalization="channel_std")),
        "no-bias-decay": ("no decay on BN and biases", trained(decay_all=False)),
        "nesterov": ("Nesterov momentum", trained(nesterov=True)),
        "momentum-kept": ("momentum as v = m v + lr g", trained(momentum_at_drops="kept")),
        "drop-last": ("last partial batch dropped", trained(last_batch="drop")),
        "use-last": ("last partial batch used", trained(last_batch="use")),
        "fp32": ("fp32", trained(precision="fp32")),
        "fp16": ("fp16", trained(precision="fp16")),
        "offsets": ("crop offsets 0 to 7", trained(crop_offsets=8)),
        "epochs-200": (f"{EPOCHS} epochs, drops at {DROPS[0]} and {DROPS[1]}", trained(**longer)),
    }
    name = f"ResNet-{depth}"
    default = Row(f"resnet{depth}", name, f"cifar_resnet{depth}", recipe, data)
    return [
        default,
        *(
            replace(default, key=f"{default.key}-{key}", label=f"{name}, {label}", after=default.key, **values)
            for key, (label, values) in changes.items()
        ),
    ]


def find_effects(results: list[RowResult]) -> list[Effect]:
    """Return the effects of every change, and of selecting the default's best evaluation on the test set."""
    by_key, found = {result.row.key: result for result in results}, []
    for result in results:
        row, default = result.row, by_key[result.row.after or result.row.key]
        net, errors = default.row.label, by_seed(default.records)
        if row.after is None:
            change = f"best of {row.recipe.iterations // row.recipe.eval_interval} evaluations on the test set"
            best = {r["specification"]["seed"]: r["best"]["test_error"] for r in completed(result.records)}
            found.append(Effect(net, change, paired_differences(best, errors), result.seeds, selected=True))
            continue
        records, left_out = comparable(result.records, default.records)
        same = "the same runs" if share_runs(result.records, default.records) else ""
        if not same and left_out[SAME_PRECISION] and not records:  # "auto" may mean the precision of the change
            same = "the same precision"
        differences, change = paired_differences(by_seed(records), errors), row.label.removeprefix(f"{net}, ")
        found.append(Effect(net, change, differences, result.seeds, same=same, left_out=left_out))
    return found


def report(page: Page) -> list[Path]:
    """Write the errors, the effect of each change, and a forest plot; return the files."""
    found = find_effects(page.results)
    columns = [page.net("net and change"), page.precision(), page.published(), page.reproduced(), page.interval()]
    return [
        *page.write(columns, [effects.section(found)]),
        page.write_csv(effects.numbers(found), "effects"),
        *save(effects.forest(found, page.variant), page.plot_path("forest"), page.description),
    ]


def headline(page: Page) -> Headline:
    """Return the largest effect, in either direction."""
    return effects.headline(find_effects(page.results))


EXPERIMENT = Experiment(
    name="protocol_details",
    title="Effects of protocol details",
    source="He et al. 2015, section 4.2, one change at a time, on CIFAR-10",
    rows=rows,
    report=report,
    headline=headline,
)
