"""What a table comes to in one line, for the index of all."""

import re
from dataclasses import dataclass

from reproductions import reported
from reproductions.harness.experiment import Row
from reproductions.harness.reporting.cells import NONE, sample
from reproductions.harness.reporting.comparisons import no_verdict, verdict
from reproductions.harness.reporting.samples import METRICS, final_values
from reproductions.harness.reporting.tables import Page
from reproductions.reported import Reported


@dataclass(frozen=True)
class Headline:
    """Of which row, or of what, it is; what is reported of it, what was reproduced, and how the two compare."""

    row: str
    reported: str
    reproduced: str
    verdict: str


def of_last_row(page: Page) -> Headline:
    """The last row with a reported number and completed runs; without such a row, the last with completed runs."""
    metric, name = page.metric, METRICS[page.metric]
    filled = [result for result in page.results if final_values(result.records, metric)] or page.results
    shown = ([result for result in filled if reported.target(result.row.reported, name)] or filled)[-1]
    values, target = final_values(shown.records, metric), reported.target(shown.row.reported, name)
    reproduced = f"{name} {sample(shown.records, shown.seeds, metric)}"
    if target is None:
        return Headline(shown.row.label, NONE, reproduced, NONE)
    if not _is_of_the_rows_data(target, shown.row):
        return Headline(shown.row.label, f"{target.described}, on {target.data}", reproduced, "not comparable")
    found = verdict(values, target, page.variant)
    said = f"reported is {found}" if found else no_verdict(values, page.variant)
    return Headline(shown.row.label, target.described, reproduced, said)


def _is_of_the_rows_data(target: Reported, row: Row) -> bool:
    """Whether a reported number was measured on the row's data set: "CIFAR-10" is cifar10."""
    return re.sub(r"\W", "", target.data).lower() == row.data
