"""The index of the published results: a line for each experiment, with the row that says most about it."""

from collections.abc import Sequence

from reproductions.harness.experiment import PROFILES
from reproductions.harness.records import device_seconds, segments
from reproductions.harness.reporting import footnotes
from reproductions.harness.reporting.page import Page, of_fullest_row
from reproductions.harness.reporting.text import NONE, markdown_table

_HEAD = """# Results

`make report` makes every page here from the records in [records](records). [claims.md](claims.md) says of each
claim of the papers whether it was found, and [summary.md](summary.md) compares the nets of the paper profile with the
papers. Each line below is an experiment, by its table of the paper profile if there is one, shown by the row with most
completed runs among those with a reported number, or by the answer to the table's question.

How to read the tables:

- The result of a run is its error, or its accuracy, after the last iteration, in percent. The best value over the
  learning curve has a column of its own, because it is selected on the test set.
- A result is given as mean ± sample standard deviation over n seeds. "n = 3 of 5" says that two seeds have no record
  yet. A run whose loss is no longer finite is counted as diverged and is in no mean.
- The 95 % t-interval is Student's interval of the mean, from three runs on; one or two runs are listed. A reported
  number is contradicted where it lies outside of the 95 % prediction interval of one more run, or by Welch's test where
  the paper reports mean ± std of several runs. "Not contradicted (± 0.54)" does not say that the two are equal: within
  that half-width of the interval no number would be contradicted.
- Intervals and p-values of several claims, steps or comparisons in one table are corrected for their number. A
  difference that a table's seeds would seldom find is "not resolvable", which does not say that there is none.
- Differences are in percentage points. Hours are the runs' shares of their devices' time.
- The notes below a table name its data, hardware, code and records. The numbers are in a CSV file beside the table.
"""


def write_index(pages: Sequence[Page]) -> str:
    """Return the text of the index. ``pages``: every table that has records."""
    tables: dict[str, list[Page]] = {}
    for page in pages:
        tables.setdefault(page.experiment.name, []).append(page)
    lines = [_line(*sorted(own, key=lambda page: page.variant.profile != "paper")) for own in tables.values()]
    headings = ("experiment", "profile", "row", "reported", "reproduced", "reported number", "runs", "hardware",
                "hours", "other tables")  # fmt: skip
    table = markdown_table(dict(zip(headings, zip(*lines), strict=True))) if lines else "No records yet.\n"
    meanings = {"paper": "the whole protocol that the table's heading names: a paper's, a report's or this suite's own",
                "short": PROFILES["short"].removeprefix("short profile: ")}  # fmt: skip
    profiles = "\n".join(f"- {name}: {meaning}." for name, meaning in meanings.items())
    return f"{_HEAD}\n{table}\n{profiles}\n"


def _line(page: Page, *others: Page) -> list[str]:
    experiment, records = page.experiment, footnotes.all_records(page.results)
    headline = (experiment.headline or of_fullest_row)(page)
    hours = sum(device_seconds(record) for record in records) / 3600
    hardware = [segment["hardware"] for record in records for segment in segments(record) if segment["hardware"]]
    units = sorted({footnotes.unit(one) for one in hardware})
    return [
        _link(page, experiment.title),
        page.variant.name,
        headline.row,
        headline.reported,
        headline.reproduced,
        headline.verdict,
        str(len(records)),
        ", ".join(sorted({one["device"] for one in hardware})),
        f"{hours:.2f} {' and '.join(units)}",
        ", ".join(_link(other, other.variant.name) for other in others) or NONE,
    ]


def _link(page: Page, text: str) -> str:
    return f"[{text}](tables/{page.experiment.name}{page.variant.suffix}.md)"
