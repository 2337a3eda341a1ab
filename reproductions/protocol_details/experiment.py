"""Effects of the protocol details that He et al. 2015, section 4.2, leaves open.

    python -m reproductions.protocol_details --profile paper --seeds 5

ResNet-20 and ResNet-56 are trained by this suite's default recipe and with one change at a time: a choice of other
implementations, or another reading of the paper. The default's runs are the CIFAR-10 table's.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from reproductions.cifar_table import RECIPE, recipe_for
from reproductions.harness.experiment import Experiment, Row, RowResult
from reproductions.harness.reporting.figure import save
from reproductions.harness.reporting.frame import SAME_PRECISION, by_seed, comparable, share_runs
from reproductions.harness.reporting.page import Headline, Page
from reproductions.protocol_details import effects
from reproductions.protocol_details.effects import Effect
from resnet.data import TRAIN_IMAGES
from resnet.recipe import Recipe

EPOCHS, DROPS = 200, (100, 150)  # longer schedule of many implementations
VALIDATION_SHARE = Fraction(1, 10)  # the paper found its schedule on 45,000 of the 50,000 images


@dataclass(frozen=True)
class Change:
    """One change of the default recipe, the model, or the number of training images.

    A label may contain ``{fewer}``, ``{images}`` and ``{half}``, numbers of images. In the recipe, "half" stands for
    half a batch, "epoch" for the number of batches in all images.
    """

    key: str
    label: str
    recipe: dict = field(default_factory=dict)
    model: dict = field(default_factory=dict)
    fewer_images: bool = False
    longer: bool = False


CHANGES = (
    Change("conv-bias", "biases in the convolutions", model={"conv_bias": True}),
    Change("pad-both", "zero channels on both sides in option A", model={"shortcut_padding": "both"}),
    Change("fan-in", "fan-in initialisation", model={"initialization": "fan_in"}),
    Change("xavier", "Xavier's initialisation", model={"initialization": "xavier"}),
    Change("fewer-images", "{fewer:,} of {images:,} training images", fewer_images=True),
    Change("bn-half", "BN statistics over {half} images", recipe={"batch_norm_size": "half"}),
    Change("bn-recomputed", "BN statistics recomputed after training", recipe={"statistics_batches": "epoch"}),
    Change("channel-mean", "per-channel mean", recipe={"normalization": "channel_mean"}),
    Change("channel-std", "per-channel mean and std", recipe={"normalization": "channel_std"}),
    Change("no-bias-decay", "no decay on BN and biases", recipe={"decay_all": False}),
    Change("nesterov", "Nesterov momentum", recipe={"nesterov": True}),
    Change("momentum-kept", "momentum as v = m v + lr g", recipe={"momentum_at_drops": "kept"}),
    Change("drop-last", "last partial batch dropped", recipe={"last_batch": "drop"}),
    Change("use-last", "last partial batch used", recipe={"last_batch": "use"}),
    Change("fp32", "fp32", recipe={"precision": "fp32"}),
    Change("fp16", "fp16", recipe={"precision": "fp16"}),
    Change("offsets", "crop offsets 0 to 7", recipe={"crop_offsets": 8}),
    Change("epochs-200", f"{EPOCHS} epochs, drops at {DROPS[0]} and {DROPS[1]}", longer=True),
)


def rows(profile: str) -> list[Row]:
    """Return the default and every change for each net; the smoke profile has ResNet-8 only."""
    depths = (8,) if profile == "smoke" else (20, 56)
    recipe = recipe_for(profile)
    if profile == "smoke":
        recipe = recipe.shortened(30, eval_interval=10)
    data = "synthetic" if profile == "smoke" else "cifar10"
    return [row for depth in depths for row in _rows_of(depth, recipe, data)]


def _rows_of(depth: int, recipe: Recipe, data: str) -> Iterable[Row]:
    images = TRAIN_IMAGES[data]
    fewer = round(images * (1 - VALIDATION_SHARE))
    default = Row(f"resnet{depth}", f"ResNet-{depth}", f"cifar_resnet{depth}", recipe, data)
    yield default
    for change in CHANGES:
        half, epoch = recipe.batch_size // 2, round(images / recipe.batch_size)
        values = {name: {"half": half, "epoch": epoch}.get(value, value) for name, value in change.recipe.items()}
        if change.longer:
            values |= _epochs(recipe)
        yield replace(
            default,
            key=f"{default.key}-{change.key}",
            label=f"{default.label}, {change.label.format(fewer=fewer, images=images, half=half)}",
            recipe=replace(recipe, **values),
            model_options=change.model,
            train_images=fewer if change.fewer_images else None,
            after=default.key,
        )


def _epochs(recipe: Recipe) -> dict:
    """Return the schedule of EPOCHS epochs of CIFAR-10, shortened as the recipe is."""
    epoch = Fraction(TRAIN_IMAGES["cifar10"], RECIPE.batch_size) * Fraction(recipe.iterations, RECIPE.iterations)
    return {"iterations": round(EPOCHS * epoch), "milestones": tuple(round(drop * epoch) for drop in DROPS)}


def find_effects(results: list[RowResult]) -> list[Effect]:
    """Return the effects of every change, and of selecting the default's best evaluation on the test set."""
    by_key, found = {result.row.key: result for result in results}, []
    for result in results:
        row, default = result.row, by_key[result.row.after or result.row.key]
        net, errors = default.row.label, by_seed(default.records)
        if row.after is None:
            times = row.recipe.iterations // row.recipe.eval_interval
            change = f"best of {times} evaluations on the test set"
            found.append(Effect(net, change, effects.best_errors(result), errors, result.seeds, selected=True))
        else:
            change = row.label.removeprefix(f"{net}, ")
            records, left_out = comparable(result.records, default.records)
            same = _same(result, default, records, left_out)
            found.append(Effect(net, change, by_seed(records), errors, result.seeds, same=same, left_out=left_out))
    return found


def _same(result: RowResult, default: RowResult, compared: list[dict], left_out: Counter[str]) -> str:
    """Return "the same runs" or "the same precision" if the change changes nothing, else an empty string.

    "auto" may mean the precision of the change.
    """
    if share_runs(result.records, default.records):
        return "the same runs"
    return "the same precision" if left_out[SAME_PRECISION] and not compared else ""


def report(page: Page) -> list[Path]:
    """Write the errors, the effect of each change, and a forest plot; return the files."""
    found = find_effects(page.results)
    columns = [page.net("net and change"), page.precision(), page.published(), page.reproduced(), page.interval()]
    forest = effects.effects_forest(found, page.variant)
    return [
        *page.write(columns, [effects.section(found)]),
        page.write_csv(effects.numbers(found), "effects"),
        *save(forest, page.plot_path("forest"), page.description),
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
