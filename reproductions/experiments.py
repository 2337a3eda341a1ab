"""All experiments, in the order in which they are listed. A new table's script is added here."""

from reproductions import (
    bag_of_tricks_efficient,
    bag_of_tricks_refinements,
    bag_of_tricks_tweaks,
    cifar_imagenet_stem,
    cifar_table,
    degradation,
    finetune,
    imagenet_table,
    layer_responses,
    mnist_residual,
    precision,
    protocol_details,
)

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
)
