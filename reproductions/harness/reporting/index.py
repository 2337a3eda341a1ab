"""The index of the published results: a line for each table, with the row that says most about it."""

from collections.abc import Sequence

from reproductions import reported
from reproductions.harness.experiment import PROFILES, Experiment, RowResult, Variant
from reproductions.harness.records import device_seconds
from reproductions.harness.reporting import footnotes
from reproductions.harness.reporting.cells import NONE, sample
from reproductions.harness.reporting.comparisons import verdict
from reproductions.harness.reporting.markdown import markdown_table
from reproductions.harness.reporting.samples import METRICS, final_values


def write_index(tables: Sequence[tuple[Experiment, Variant, list[RowResult]]]) -> str:
    """The page's text. ``tables``: each experiment that has records, in each profile, with its rows' results."""
    lines = [_line(*table) for table in tables]
    headings = ("experiment", "profile", "row", "reported", "reproduced", "verdict: reported is", "runs", "hardware",
                "hours")  # fmt: skip
    table = markdown_table(dict(zip(headings, zip(*lines), strict=True))) if lines else "No records yet.\n"
    meanings = {name: PROFILES[name].removeprefix(f"{name} profile: ") for name in ("paper", "short")}
    profiles = "\n".join(f"- {name}: {meaning}." for name, meaning in meanings.items())
    return (
        "# Results\n\nMade from the records in [records](records) by `make report`. One row stands for each table: the "
        "last one that has a reported number and completed runs, else the last one with completed runs.\n\n"
        f"{table}\n{profiles}\n\nReported and reproduced are final errors or accuracies in percent, mean ± sample "
        "standard deviation. The verdict is given in the paper profile only; see each table's notes. Hours are the "
        "runs' shares of their devices' time.\n"
    )


def _line(experiment: Experiment, variant: Variant, results: list[RowResult]) -> list[str]:
    metric, records = experiment.metric, footnotes.all_records(results)
    shown = headline(results, metric)
    target = reported.target(shown.row.reported, METRICS[metric])
    said = verdict(final_values(shown.records, metric), target, variant)
    unsaid = "not comparable" if variant.profile != "paper" else "none: n < 2"
    hours = sum(device_seconds(record) for record in records) / 3600
    units = sorted({"GPU" if record["hardware"]["type"] == "cuda" else "CPU" for record in records})
    return [
        f"[{experiment.title}](tables/{experiment.name}{variant.suffix}.md)",
        variant.profile,
        shown.row.label,
        target.described if target else NONE,
        f"{METRICS[metric]} {sample(shown.records, shown.seeds, metric)}",
        str(said) if said else unsaid if target else NONE,
        str(len(records)),
        ", ".join(sorted({record["hardware"]["device"] for record in records})),
        f"{hours:.2f} {' and '.join(units)}",
    ]


def headline(results: list[RowResult], metric: str) -> RowResult:
    """The row that stands for a table: the last with a reported number and completed runs, if there is one."""
    filled = [result for result in results if final_values(result.records, metric)] or results
    compared = [result for result in filled if reported.target(result.row.reported, METRICS[metric])]
    return (compared or filled)[-1]
