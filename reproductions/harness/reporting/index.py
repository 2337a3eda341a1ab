"""The index of the published results: a line for each table, with the row that says most about it."""

from collections.abc import Sequence

from reproductions.harness.experiment import PROFILES
from reproductions.harness.records import device_seconds, segments
from reproductions.harness.reporting import footnotes
from reproductions.harness.reporting.page import Page, of_last_row
from reproductions.harness.reporting.text import markdown_table


def write_index(pages: Sequence[Page]) -> str:
    """The text of the index. ``pages``: every table that has records."""
    lines = [_line(page) for page in pages]
    headings = ("experiment", "profile", "row", "reported", "reproduced", "verdict", "runs", "hardware", "hours")
    table = markdown_table(dict(zip(headings, zip(*lines), strict=True))) if lines else "No records yet.\n"
    meanings = {name: PROFILES[name].removeprefix(f"{name} profile: ") for name in ("paper", "short")}
    profiles = "\n".join(f"- {name}: {meaning}." for name, meaning in meanings.items())
    return (
        "# Results\n\nMade from the records in [records](records) by `make report`. Each table with what says most of "
        "it: the last row that has a reported number and completed runs, or what the table asks.\n\n"
        f"{table}\n{profiles}\n\nReported and reproduced are final errors or accuracies in percent, mean ± sample "
        "standard deviation; differences are in percentage points. The verdict says where the reported number lies, "
        "seen from an interval of what was reproduced, or what the table answers: each table's notes explain it. "
        "Hours are the runs' shares of their devices' time.\n"
    )


def _line(page: Page) -> list[str]:
    experiment, records = page.experiment, footnotes.all_records(page.results)
    headline = (experiment.headline or of_last_row)(page)
    hours = sum(device_seconds(record) for record in records) / 3600
    hardware = [segment["hardware"] for record in records for segment in segments(record) if segment["hardware"]]
    units = sorted({footnotes.unit(one) for one in hardware})
    return [
        f"[{experiment.title}](tables/{experiment.name}{page.variant.suffix}.md)",
        page.variant.name,
        headline.row,
        headline.reported,
        headline.reproduced,
        headline.verdict,
        str(len(records)),
        ", ".join(sorted({one["device"] for one in hardware})),
        f"{hours:.2f} {' and '.join(units)}",
    ]
