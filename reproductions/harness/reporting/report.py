"""The report step: from records to tables and plots, on any machine, in seconds."""

from pathlib import Path

from reproductions.harness.experiment import Experiment, Variant
from reproductions.harness.records import Pool


def write_report(
    experiment: Experiment, variant: Variant, seeds: int, pool: Pool, published: Pool, out: Path
) -> list[Path]:
    """Write the experiment's tables and plots from the records of ``pool`` below ``out``; returns the files, .md first.

    ``published`` holds the project's own results, shown for comparison; where it is the same pool, the published
    table itself is made. Only valid records count: what is in ``pool.damaged`` is for the caller to show.
    """
    return experiment.report(experiment, variant, experiment.results(variant, seeds, pool, published), out)
