"""The report step: from records to tables and plots, on any machine, in seconds."""

from pathlib import Path

from reproductions.harness.experiment import Experiment, RowResult, Variant
from reproductions.harness.reporting.tables import Page


def write_report(experiment: Experiment, variant: Variant, results: list[RowResult], out: Path) -> list[Path]:
    """Write the experiment's tables and plots of these results below ``out``; returns the files, .md first."""
    return experiment.report(make_page(experiment, variant, results, out))


def make_page(experiment: Experiment, variant: Variant, results: list[RowResult], out: Path) -> Page:
    """What the experiment's report takes."""
    return Page(experiment, variant, results, out, experiment.metric)
