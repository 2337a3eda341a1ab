"""The summary of the paper profile: one line for each net whose test error a paper reports."""

from collections.abc import Sequence

from reproductions import reported
from reproductions.harness.console import counted
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.records import device_seconds, records_digest
from reproductions.harness.reporting import footnotes, intervals
from reproductions.harness.reporting.frame import METRICS, final_values
from reproductions.harness.reporting.page import Page
from reproductions.harness.reporting.text import NONE, markdown_table, sample, signed

METRIC = "test_error"
_NOTE = (
    "- Top-1 errors in percent after the last iteration: mean ± sample standard deviation over n seeds. The difference "
    "is reproduced minus reported, in percentage points. GPU-hours are the runs' shares of their device's time.\n"
)


def write_summary(pages: Sequence[Page]) -> str:
    """Return the text of the summary. ``pages``: every table that has records, of which it takes the paper profile's.

    A net of two tables has one line, from the first table.
    """
    results: dict[str, RowResult] = {}
    for page in pages:
        if page.variant == Variant() and page.metric == METRIC:
            for result in page.results:
                if reported.in_paper(result.row.reported, METRICS[METRIC]):
                    results.setdefault(result.row.run(0).identity, result)
    head = "# Test errors by the paper's protocol\n\n"
    done = [result for result in results.values() if final_values(result.records)]
    if not done:
        return f"{head}No records yet.\n"
    columns = {
        "net": [result.row.label for result in done],
        "reported": ["; ".join(value.described for value in _reported(result)) for result in done],
        "mean ± std (n)": [sample(result.records, result.seeds) for result in done],
        "difference": [_difference(result) for result in done],
        "GPU-hours": [_hours(result.records) for result in done],
    }
    records = footnotes.all_records(done)
    notes = [*footnotes.data_notes(records), *footnotes.hardware_notes(records)]
    notes.append(
        f"From {counted(len(records), 'record')}, SHA-256 over their digests `{records_digest(records)}`; "
        "made again by `make report`."
    )
    lacking = [f"{result.row.label} ({_reported(result)[0]})" for result in results.values() if result not in done]
    not_run = f"Not run yet, with the reported error: {', '.join(lacking)}.\n\n" if lacking else ""
    return f"{head}{markdown_table(columns)}\n{not_run}{_NOTE}" + "".join(f"- {note}\n" for note in notes)


def _reported(result: RowResult) -> list[reported.Reported]:
    return reported.in_paper(result.row.reported, METRICS[METRIC])


def _difference(result: RowResult) -> str:
    """Reproduced minus reported; a dash where the paper gives no number that a mean can be compared with."""
    target = reported.target(result.row.reported, METRICS[METRIC])
    return signed(intervals.mean(final_values(result.records)) - float(target.value)) if target else NONE


def _hours(records: list[dict]) -> str:
    """Return the hours on GPUs; hours of a processor are named as such: ``1.91 (CPU)``."""
    hours: dict[str, float] = {}
    for record in records:
        unit = footnotes.unit(record["hardware"])
        hours[unit] = hours.get(unit, 0) + device_seconds(record) / 3600
    return ", ".join(f"{own:.2f}" + ("" if unit == "GPU" else f" ({unit})") for unit, own in sorted(hours.items()))
