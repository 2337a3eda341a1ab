"""All experiments, in the order in which they are listed. A new table's script is added here."""

from reproductions import cifar_table, degradation, precision

EXPERIMENTS = (cifar_table.EXPERIMENT, degradation.EXPERIMENT, precision.EXPERIMENT)
