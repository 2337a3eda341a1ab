"""The index of the published results: a line for each table, with the row that says most about it."""

from collections.abc import Sequence

from reproductions.harness.experiment import PROFILES
from reproductions.harness.records import device_seconds, segments
from reproductions.harness.reporting import footnotes
from reproductions.harness.reporting.page import Page, of_last_row
from reproductions.harness.reporting.text import markdown_table

_HEAD = """# Results

`make report` makes every page here from the records in [records](records). [summary.md](summary.md) compares the nets
of the paper profile with the papers. Each line below is a table, shown by the last row that has a reported number and
completed runs, or by the answer to the table's question.

How to read the tables:

- The result of a run is its error, or its accuracy, after the last iteration, in percent. The best value over the
  learning curve has a column of its own, because it is selected on the test set.
- A result is given as mean ± sample standard deviation over n seeds. "n = 3 of 5" says that two seeds have no record
  yet. A run whose loss is no longer finite is counted as diverged and is in no mean.
- The 95 % t-interval is Student's interval of the mean. The verdict says whether the reported number lies in the 95 %
  prediction interval of one more run (of the mean of five more runs, where the paper reports a mean of five), or
  answers the table's question. With two seeds these intervals are very wide.
- Differences are in percentage points. Hours are the runs' shares of their devices' time.
- The notes below a table name its data, hardware, code and records. The numbers are in a CSV file beside the table.
"""


def write_index(pages: Sequence[Page]) -> str:
    """The text of the index. ``pages``: every table that has records."""
    lines = [_line(page) for page in pages]
    headings = ("experiment", "profile", "row", "reported", "reproduced", "verdict", "runs", "hardware", "hours")
    table = markdown_table(dict(zip(headings, zip(*lines), strict=True))) if lines else "No records yet.\n"
    meanings = {name: PROFILES[name].removeprefix(f"{name} profile: ") for name in ("paper", "short")}
    profiles = "\n".join(f"- {name}: {meaning}." for name, meaning in meanings.items())
    return f"{_HEAD}\n{table}\n{profiles}\n"


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
