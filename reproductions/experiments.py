"""All experiments, in the order in which they are listed. A new table's script is added here."""

from reproductions import (
    bag_of_tricks_efficient,
    bag_of_tricks_refinements,
    bag_of_tricks_tweaks,
    cifar_table,
    degradation,
    imagenet_table,
    mnist_residual,
    precision,
    protocol_details,
)

_BAG_OF_TRICKS = (bag_of_tricks_efficient, bag_of_tricks_tweaks, bag_of_tricks_refinements)

EXPERIMENTS = (
    cifar_table.EXPERIMENT,
    degradation.EXPERIMENT,
    precision.EXPERIMENT,
    imagenet_table.EXPERIMENT,
    *(script.EXPERIMENTS[dataset] for dataset in ("cifar10", "imagenet") for script in _BAG_OF_TRICKS),
    mnist_residual.EXPERIMENT,
    protocol_details.EXPERIMENT,
)
