"""The list of all experiments and published tables, and the order in which evidence for them is trained.

A new table's script is added here.
"""

from collections.abc import Sequence

from reproductions import cifar_table, degradation, mnist_residual, precision
from reproductions.bag_of_tricks import efficient as bag_of_tricks_efficient
from reproductions.bag_of_tricks import refinements as bag_of_tricks_refinements
from reproductions.bag_of_tricks import tweaks as bag_of_tricks_tweaks
from reproductions.cifar_imagenet_stem import experiment as cifar_imagenet_stem
from reproductions.finetune import experiment as finetune
from reproductions.harness.experiment import Experiment, Table, Variant
from reproductions.harness.launch import Wanted, wanted_runs
from reproductions.imagenet import table as imagenet_table
from reproductions.layer_responses import experiment as layer_responses
from reproductions.protocol_details import experiment as protocol_details
from reproductions.transfer import detection as transfer_detection
from reproductions.transfer import segmentation as transfer_segmentation

_BAG_OF_TRICKS = (bag_of_tricks_efficient, bag_of_tricks_tweaks, bag_of_tricks_refinements)

EXPERIMENTS = (
    cifar_table.EXPERIMENT,
    degradation.EXPERIMENT,
    layer_responses.EXPERIMENT,
    precision.EXPERIMENT,
    imagenet_table.EXPERIMENT,
    *(script.EXPERIMENTS[dataset] for dataset in ("cifar10", "imagenet") for script in _BAG_OF_TRICKS),
    mnist_residual.EXPERIMENT,
    cifar_imagenet_stem.EXPERIMENT,
    protocol_details.EXPERIMENT,
    finetune.EXPERIMENT,
    *transfer_segmentation.EXPERIMENTS.values(),
    *transfer_detection.EXPERIMENTS.values(),
    *(script.EXPERIMENTS["cifar100"] for script in (cifar_table, degradation, *_BAG_OF_TRICKS)),
)

# The tables of results/, in the order of their index; those without records are left out of it.
_DEPARTURES = {
    cifar_table.EXPERIMENT: [Variant(precision="bf16")],
    layer_responses.EXPERIMENT: [Variant(precision="bf16")],
}
PUBLISHED_TABLES: tuple[Table, ...] = tuple(
    (experiment, variant)
    for experiment in EXPERIMENTS
    for variant in (Variant(), *_DEPARTURES.get(experiment, []), Variant("short"))
)

_EFFICIENT, _TWEAKS, _REFINEMENTS = (script.EXPERIMENTS["cifar10"] for script in _BAG_OF_TRICKS)
# Tables and their rows (None: all), the most wanted first, and the seeds that each pass over them trains: three first,
# because nothing is tested with fewer.
_ORDER = {
    "short": (
        (degradation.EXPERIMENT, ("plain20", "plain56", "resnet20", "resnet56")),
        (_REFINEMENTS, None),
        (cifar_table.EXPERIMENT, ("resnet32", "resnet44")),
        (_TWEAKS, None),
        (_EFFICIENT, None),
        (cifar_table.EXPERIMENT, ("resnet110",)),
        (degradation.EXPERIMENT, ("plain32", "plain44")),
    ),
    "paper": (
        (degradation.EXPERIMENT, ("plain20", "resnet20")),
        (degradation.EXPERIMENT, ("plain56", "resnet56")),
        (cifar_table.EXPERIMENT, ("resnet32", "resnet44", "resnet110")),
        (degradation.EXPERIMENT, ("plain32", "plain44")),
        (_TWEAKS, None),
        (_REFINEMENTS, None),
        (_EFFICIENT, None),
    ),
}
_PASSES = {"short": (range(3), range(3, 5)), "paper": (range(5),)}


def evidence(on_gpu: bool) -> list[Wanted]:
    """List the runs for the published tables, the most wanted first: the short profile, then the paper's.

    Rows in FP16 are included on a GPU only: a processor takes ten times as long for them.
    """
    wanted = []
    for profile, passes in _PASSES.items():
        variant = Variant(profile)
        for seeds in passes:
            for experiment, keys in _ORDER[profile]:
                wanted += wanted_runs(experiment, variant, seeds, keys or _larger_batches_first(experiment, variant))
    return [one for one in wanted if on_gpu or one.run.recipe.precision != "fp16"]


def _larger_batches_first(experiment: Experiment, variant: Variant) -> Sequence[str]:
    """List the keys of the rows not on request; in a ladder for two batch sizes, the larger one's first."""
    rows = experiment.chosen_rows(variant, None)
    return [row.key for row in (sorted(rows, key=lambda r: -r.recipe.batch_size) if experiment is _EFFICIENT else rows)]
