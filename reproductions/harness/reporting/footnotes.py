"""Where the numbers of a table came from: papers, data, hardware, code, records, and the command that makes it again.

No times and no paths of a machine: the same records give the same text.
"""

from collections import Counter

from reproductions import reported
from reproductions.harness.experiment import Experiment, RowResult, Variant
from reproductions.harness.records import device_seconds, records_digest
from reproductions.harness.reporting.samples import METRICS, at_the_end, completed
from reproductions.reported import Source
from resnet.data import KNOWN_COPIES
from resnet.kernels import FUSED


def is_published(results: list[RowResult]) -> bool:
    """Whether these results are the project's own published ones, with nothing to compare them with."""
    return all(result.published is None for result in results)


def command(experiment: Experiment, variant: Variant, results: list[RowResult]) -> str:
    """What makes these files again."""
    if is_published(results):
        return "make report"
    return experiment.command(variant, max(result.seeds for result in results))


def all_records(results: list[RowResult]) -> list[dict]:
    """Every record that the results are made from, once, teachers' too."""
    teachers = [result.teacher for result in results if result.teacher]
    return _once(teachers + [record for result in results for record in result.records])


def published_records(results: list[RowResult]) -> list[dict]:
    return _once([record for result in results for record in result.published or []])


def _once(records: list[dict]) -> list[dict]:
    return list({record["identity"]: record for record in records}.values())


def description(experiment: Experiment, variant: Variant, results: list[RowResult]) -> str:
    """One line that says what a generated file shows, from which records, and how to make it again."""
    own, compared = all_records(results), published_records(results)
    origin = f"{counted(len(own), 'record')}, SHA-256 {records_digest(own)}"
    if compared:
        origin += f"; published here: {counted(len(compared), 'record')}, SHA-256 {records_digest(compared)}"
    made = f"made again by: {command(experiment, variant, results)}"
    return f"{experiment.title} ({experiment.source}); {experiment.heading(variant)}; from {origin}; {made}"


def reported_note(results: list[RowResult], *metrics: str) -> str:
    """The papers whose numbers stand in the table, with table or figure."""
    places: dict[Source, dict[str, None]] = {}
    for metric in metrics:
        for value in (n for result in results for n in reported.in_paper(result.row.reported, METRICS[metric])):
            places.setdefault(value.source, {})[value.where] = None
    return "; ".join(
        ", ".join(filter(None, (source.link, source.title and f"*{source.title}*", "; ".join(where))))
        for source, where in places.items()
    )


def diverged_notes(results: list[RowResult]) -> list[str]:
    lost = [
        f"{result.row.label} seed {record['specification']['seed']} "
        f"(found at iteration {record['final']['iteration']:,})"
        for result in results
        for record in result.records
        if record["status"] == "diverged"
    ]
    lost = list(dict.fromkeys(lost))
    return [f"Diverged, the loss not finite; counted, but in no mean: {', '.join(lost)}."] if lost else []


def teacher_notes(variant: Variant, results: list[RowResult], metric: str) -> list[str]:
    """From which run rows are distilled, and what it came to."""
    taught: dict[str, list[RowResult]] = {}
    for result in results:
        if result.row.teacher is not None:
            taught.setdefault(variant.apply(result.row.teacher.run(0)).short_id, []).append(result)
    notes = []
    for run, students in taught.items():
        label = students[0].row.teacher.label
        if (record := students[0].teacher) is None:
            came_to = "no record here"
        elif not completed([record]):
            came_to = "diverged"
        else:
            came_to = f"{METRICS[metric]} {at_the_end(record, metric):.2f} after the last iteration"
        names = ", ".join(f"“{student.row.label}”" for student in students)
        notes.append(f"Teacher of {names}: {label}, seed 0 (run `{run}`), {came_to}.")
    return notes


def data_notes(records: list[dict]) -> list[str]:
    """Which data, by the digest of their arrays; plain where they are not the official files."""
    copies = Counter((r["data"]["name"], r["data"]["official"], r["data"]["sha256"]) for r in records)
    notes = []
    for (name, official, digest), n in sorted(copies.items()):
        if name.startswith("synthetic"):
            what = "synthetic images made by the code"
        else:
            said = "the official files of {}" if official else "a copy of {} that is **not the official files**"
            what = said.format(name) + (f" ({KNOWN_COPIES[digest]})" if digest in KNOWN_COPIES else "")
        notes.append(f"Data: {counted(n, 'run')} on {what}, SHA-256 of the arrays `{digest}`.")
    return notes


def hardware_notes(records: list[dict]) -> list[str]:
    """What the runs ran on, and for how long."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for record in records:
        hardware, versions = record["hardware"], record["versions"]
        device, software = hardware["device"], f"torch {versions['torch']}"
        unit = "GPU" if hardware["type"] == "cuda" else "CPU"
        if unit == "GPU":
            software += f", CUDA {versions['cuda']}, cuDNN {versions['cudnn']}"
            software += f", fused kernels, Triton {versions['triton']}" if versions.get("kernels") == FUSED else ""
        else:
            device += f", {counted(hardware['threads'], 'thread')}"
        if (processes := hardware.get("processes", 1)) > 1:
            device += f", {processes} processes a run"
        groups.setdefault((unit, f"{device}; {record['precision']}; {software}"), []).append(record)
    notes = []
    for (unit, where), members in sorted(groups.items()):
        hours = sum(device_seconds(record) for record in members) / 3600
        most = 1 + max(record["timing"].get("packed_with", 0) for record in members)
        how = "the runs' wall times added up" if most == 1 else f"up to {most} runs at once on a {unit}"
        spent = f"{hours:.2f} {unit}-hours, {how}"
        notes.append(f"Hardware: {counted(len(members), 'run')} on {where}; {spent}.")
    return notes


def code_note(records: list[dict]) -> str:
    """Which commits, and which of the runs came from modified code."""
    said = {True: ", **modified code**", None: ", not known whether modified", False: ""}
    sources = Counter((r["code"]["commit"] or "", r["code"]["modified"]) for r in records)
    parts = [
        f"{f'commit {commit[:10]}' if commit else 'unknown commit'} ({counted(n, 'run')}{said[modified]})"
        for (commit, modified), n in sorted(sources.items(), key=str)
    ]
    return f"Code: {'; '.join(parts)}."


def records_notes(experiment: Experiment, variant: Variant, results: list[RowResult]) -> list[str]:
    """From which records, and how to make the table again."""
    own, compared = all_records(results), published_records(results)
    notes = [
        f"From {counted(len(own), 'record')}, SHA-256 over their digests `{records_digest(own)}`; "
        f"made again by `{command(experiment, variant, results)}`."
    ]
    if compared:
        origin = f"{counted(len(compared), 'record')} in `results/records`, SHA-256 over their digests"
        notes.append(f"Published here: {origin} `{records_digest(compared)}`.")
    return notes


def counted(n: int, what: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"
