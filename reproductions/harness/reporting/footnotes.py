"""Footnotes of a table: papers, data, hardware, code, records, and the command that makes it again.

They hold no times and no paths of a machine, so the same records give the same text.
"""

from collections import Counter
from contextlib import suppress
from pathlib import Path

from reproductions import reported
from reproductions.harness.console import counted
from reproductions.harness.exact_errors import EXACT_ERRORS
from reproductions.harness.experiment import Experiment, RowResult, Variant
from reproductions.harness.measurements import MeasurementError
from reproductions.harness.records import records_digest, segment_seconds, segments
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import METRICS, at_the_end, completed
from reproductions.harness.reporting.text import signed
from reproductions.reported import Source
from resnet.data import KNOWN_COPIES
from resnet.kernels import FUSED


def is_published(results: list[RowResult]) -> bool:
    """Return whether these are the project's own published results, with nothing to compare them with."""
    return all(result.published is None for result in results)


def command(experiment: Experiment, variant: Variant, results: list[RowResult]) -> str:
    """Return the command that makes the files of these results again."""
    if is_published(results):
        return "make report"
    # The results of a sweep are the rows that were chosen.
    keys = dict.fromkeys(result.row.own_key for result in results if variant.sweep)
    return experiment.command(variant, max(result.seeds for result in results), [*keys])


def all_records(results: list[RowResult]) -> list[dict]:
    """Return once each record that the results are made from, teachers' included."""
    teachers = [result.teacher for result in results if result.teacher]
    return _once(teachers + [record for result in results for record in result.records])


def published_records(results: list[RowResult]) -> list[dict]:
    """Return once each published record that the results are compared with."""
    return _once([record for result in results for record in result.published or []])


def _once(records: list[dict]) -> list[dict]:
    return list({record["identity"]: record for record in records}.values())


def description(experiment: Experiment, variant: Variant, results: list[RowResult]) -> str:
    """Describe a generated file in one line: its content, its records, and the command that makes it again."""
    own, compared = all_records(results), published_records(results)
    origin = f"{counted(len(own), 'record')}, SHA-256 {records_digest(own)}"
    if compared:
        origin += f"; published here: {counted(len(compared), 'record')}, SHA-256 {records_digest(compared)}"
    made = f"made again by: {command(experiment, variant, results)}"
    return f"{experiment.title} ({experiment.source}); {experiment.heading(variant)}; from {origin}; {made}"


def reported_note(results: list[RowResult], *metrics: str) -> str:
    """Name the papers whose numbers stand in the table, with their tables or figures."""
    places: dict[Source, dict[str, None]] = {}
    for metric in metrics:
        for value in (n for result in results for n in reported.in_paper(result.row.reported, METRICS[metric])):
            places.setdefault(value.source, {})[value.where] = None
    return "; ".join(
        ", ".join(filter(None, (source.link, source.title and f"*{source.title}*", "; ".join(where))))
        for source, where in places.items()
    )


def diverged_notes(results: list[RowResult]) -> list[str]:
    """Name the diverged runs; no note without any."""
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
    """Name the teachers of distilled rows, with their final values."""
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
    """Name the data by the digest of their arrays, and say so where they are not the official files."""
    given = {r["data"]["name"] for r in records if r["specification"].get("arrays")}
    copies = Counter((r["data"]["name"], r["data"]["official"], r["data"]["sha256"]) for r in records)
    notes = []
    for (name, official, digest), n in sorted(copies.items()):
        if name in given:
            what = f"{name}, given as arrays"
        elif name.startswith("synthetic"):
            what = "synthetic images made by the code"
        else:
            said = "the official files of {}" if official else "a copy of {} that is **not the official files**"
            what = said.format(name) + (f" ({KNOWN_COPIES[digest]})" if digest in KNOWN_COPIES else "")
        notes.append(f"Data: {counted(n, 'run')} on {what}, SHA-256 of the arrays `{digest}`.")
    return notes


def exact_notes(records: list[dict], out: Path) -> list[str]:
    """Describe the effect of a copy's inexact test images on the errors, from the measurements below ``out``."""
    found = []
    for record in completed(records):
        with suppress(MeasurementError):  # a damaged file counts as none
            found += filter(None, [EXACT_ERRORS.find(out, record)])
    differences: dict[tuple[str, int], list[float]] = {}
    for file in found:
        own = differences.setdefault((file["data"]["name"], file["exact_images"]), [])
        own.append(file["exact_error"] - file["error"])
    return [
        f"On the {images:,} test images of {name} that are exact in this copy, the mean test error differs by "
        f"{signed(intervals.mean(own))} points ({counted(len(own), 'run')} measured, in fp32)."
        for (name, images), own in sorted(differences.items())
    ]


def hardware_notes(records: list[dict]) -> list[str]:
    """Describe the runs' hardware and the hours on it."""
    groups: dict[tuple[str, str], list[tuple[dict, dict]]] = {}
    for record in records:
        for segment in segments(record):
            groups.setdefault(_place(segment), []).append((record, segment))
    notes = []
    for (name, where), members in sorted(groups.items()):
        hours = sum(segment_seconds(segment) for _, segment in members) / 3600
        runs = {record["identity"]: len(_places(record)) > 1 for record, _ in members}
        most = 1 + max(record["timing"].get("packed_with", 0) for record, _ in members)
        how = "the runs' wall times added up" if most == 1 else f"up to {most} runs at once on a {name}"
        in_part = f", {sum(runs.values())} of them in part," if any(runs.values()) else ""
        notes.append(f"Hardware: {counted(len(runs), 'run')}{in_part} on {where}; {hours:.2f} {name}-hours, {how}.")
    return notes


def _place(segment: dict) -> tuple[str, str]:
    """Return the unit of a segment's hardware and the full description of it."""
    hardware, versions = segment["hardware"], segment["versions"]
    if hardware is None:
        return "device", "a device and with software that are not known"
    device, software = hardware["device"], f"torch {versions['torch']}"
    if unit(hardware) == "GPU":
        software += f", CUDA {versions['cuda']}, cuDNN {versions['cudnn']}"
        software += f", fused kernels, Triton {versions['triton']}" if versions.get("kernels") == FUSED else ""
    else:
        device += f", {counted(hardware['threads'], 'thread')}"
    if (processes := hardware.get("processes", 1)) > 1:
        device += f", {processes} processes a run"
    return unit(hardware), f"{device}; {segment['precision']}; {software}"


def _places(record: dict) -> list[tuple[str, int]]:
    """Return the run's hardware in order of time, each with the last iteration on it."""
    places: list[tuple[str, int]] = []
    for segment in segments(record):
        where = _place(segment)[1]
        if places and places[-1][0] == where:
            places.pop()
        places.append((where, segment["to"]))
    return places


def moved_notes(results: list[RowResult]) -> list[str]:
    """Name the runs that moved to another device or other software, as far as it is known."""
    moved, unsure, notes = {}, {}, []
    for result in results:
        taught = [] if result.teacher is None else [(result.row.teacher.label, result.teacher)]
        for label, record in [*taught, *((result.row.label, record) for record in result.records)]:
            name = f"{label} seed {record['specification']['seed']}"
            if len(places := _places(record)) > 1:
                parts = ", then ".join(f"to iteration {end:,} on {where}" for where, end in places)
                moved[record["identity"]] = f"{name} ({parts})"
            elif "segments" not in record and record["interruptions"]:
                unsure[record["identity"]] = name
    if moved:
        notes.append(
            f"Moved: {'; '.join(moved.values())}. An interrupted run ends as one without interruptions does on one "
            "kind of device with one software; of these runs that is not claimed."
        )
    if unsure:
        names = ", ".join(unsure.values())
        notes.append(f"Interrupted, with a record that names only the last device and software: {names}.")
    return notes


def precision_notes(results: list[RowResult]) -> list[str]:
    """Count the precisions that devices chose, if they differ or if a processor chose bf16; by row if rows differ."""
    left = _left_to_the_device(all_records(results))
    chosen = Counter((unit(record["hardware"]), record["precision"]) for record in left)
    if len({precision for _, precision in chosen}) < 2 and ("CPU", "bf16") not in chosen:
        return []
    parts = [f"{counted(n, 'run')} in {precision} on a {name}" for (name, precision), n in sorted(chosen.items())]
    note = f"Precision: left to the device (`auto`), which chose: {', '.join(parts)}."
    by_row = {r.row.label: Counter(own["precision"] for own in _left_to_the_device(r.records)) for r in results}
    by_row = {label: counts for label, counts in by_row.items() if counts}
    if len(by_row) > 1 and len({precision for counts in by_row.values() for precision in counts}) > 1:
        listed = {
            label: ", ".join(f"{n} in {p}" for p, n in sorted(counts.items())) for label, counts in by_row.items()
        }
        said = "; ".join(f"{label} {counts}" for label, counts in listed.items())
        note += f" By row: {said}. A difference between rows of unlike precision may be due to the precision."
    return [note]


def _left_to_the_device(records: list[dict]) -> list[dict]:
    return [record for record in records if record["specification"]["recipe"]["precision"] == "auto"]


def unit(hardware: dict) -> str:
    """Return the unit of this hardware's hours: GPU or CPU."""
    return "GPU" if hardware["type"] == "cuda" else "CPU"


def code_note(records: list[dict], published: bool) -> str:
    """Name the commits, and the runs from modified code.

    A record is ``published`` only after the digest of its package resnet was proved to be the commit's.
    """
    sources = Counter(_source(record, published) for record in records)
    parts = [f"{commits} ({counted(n, 'run')}{said})" for (commits, said), n in sorted(sources.items())]
    return f"Code: {'; '.join(parts)}."


def _source(record: dict, published: bool) -> tuple[str, str]:
    """Return the commits of a record's or measurement's code in order of time, and whether they are that code."""
    codes = [segment["code"] for segment in record.get("segments", [record])]
    commits = [f"commit {code['commit'][:10]}" if code and code["commit"] else "unknown commit" for code in codes]
    modified = record["code"]["modified"]
    if modified is None and published and None not in codes and all(code["commit"] for code in codes):
        said = ", package resnet proved to be the commit's by its digest"
    else:
        said = {True: ", **modified code**", None: ", not known whether modified", False: ""}[modified]
    if len({code["resnet_sha256"] for code in codes if code}) > 1:
        said = ", **begun by one version of the code and ended by another**"
    return ", then ".join(dict.fromkeys(commits)), said


def records_notes(experiment: Experiment, variant: Variant, results: list[RowResult]) -> list[str]:
    """Name the number and digest of the records, and the command that makes the table again."""
    own, compared = all_records(results), published_records(results)
    notes = [
        f"From {counted(len(own), 'record')}, SHA-256 over their digests `{records_digest(own)}`; "
        f"made again by `{command(experiment, variant, results)}`."
    ]
    if compared:
        origin = f"{counted(len(compared), 'record')} in `results/records`, SHA-256 over their digests"
        notes.append(f"Published here: {origin} `{records_digest(compared)}`.")
    return notes
