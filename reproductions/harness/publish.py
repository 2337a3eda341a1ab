"""From a user's records, what was measured of their runs, and some weights to the published results: publish, report,
check."""

import gzip
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from reproductions import degradation, headline
from reproductions.cifar_imagenet_stem.predictions import PREDICTIONS
from reproductions.harness import provenance
from reproductions.harness.exact_errors import EXACT_ERRORS
from reproductions.harness.experiment import Experiment, kept_runs, recorded_tables
from reproductions.harness.final_weights import read_final_weights
from reproductions.harness.known_records import cache_folder, file_state, read_known_pool
from reproductions.harness.records import Pool, read_pool, record_path, weights_path
from reproductions.harness.reporting.figure import read_description
from reproductions.harness.reporting.frame import CURVES, RUNS, write_frames
from reproductions.harness.reporting.index import write_index
from reproductions.harness.reporting.page import make_page
from reproductions.harness.reporting.summary import write_summary
from reproductions.layer_responses.measuring import RESPONSES
from resnet.data import KNOWN_COPIES
from resnet.files import write_atomically
from resnet.run import Run
from resnet.weights import WeightsError

README = Path("README.md")
INDEX, SUMMARY = Path("README.md"), Path("summary.md")  # of the results, in their folder
KINDS = (RESPONSES, PREDICTIONS, EXACT_ERRORS)  # of measurements
_MADE = ("tables", "plots")  # folders of results
_SECTION = re.compile(r"<!-- begin (results/(?:tables/)?[\w-]+\.md) -->\n(.*?)<!-- end -->", re.DOTALL)


def objections(record: dict, history: bool = True) -> list[str]:
    """What keeps a valid record from being published; nothing if it may be.

    Without ``history`` (a shallow clone, a tarball) the code is not compared with the commit that the record names.
    """
    codes, data = [segment["code"] for segment in record.get("segments", [record])], record["data"]
    known, found = [code for code in codes if code is not None], []
    if len(known) < len(codes):
        found.append("it is not known by which code its first iterations were trained")
    versions = {code["resnet_sha256"] for code in known}
    if len(versions) > 1 or any(code["modified"] for code in [record["code"], *known]):
        found.append("its code was modified or changed during the run")
    for code in {(code["commit"], code["resnet_sha256"]): code for code in known}.values():
        committed = provenance.committed_resnet_digest(code["commit"] or "") if history else code["resnet_sha256"]
        if committed is None:
            found.append(f"its commit {code['commit']} is not in this repository")
        elif committed != code["resnet_sha256"]:
            found.append(f"its code is not that of commit {code['commit']}")
    if data["name"].startswith("synthetic"):
        found.append("it is from synthetic data")
    elif not data["official"] and data["sha256"] not in KNOWN_COPIES:
        found.append(f"its data, SHA-256 {data['sha256']}, are neither the official files nor a known copy")
    return found


def publish(source: Path, results: Path) -> tuple[list[Path], dict[Path, str]]:
    """Copy the records below ``source`` that may be published into ``results/records``.

    Returns the new files, and for each record left out the reason. A published record is never replaced.
    """
    pool, published, new = read_pool(source), read_pool(results / "records"), []
    refused = {path: str(error) for path, error in pool.damaged.items()}
    for record in pool.records.values():
        run = Run.from_specification(record["specification"])
        path, target = record_path(source, run), record_path(results / "records", run)
        if (existing := published.get(run)) is not None:
            if existing["record_sha256"] != record["record_sha256"]:
                refused[path] = f"{target} is another record of the same run; published records are never replaced"
        elif target in published.damaged:
            refused[path] = f"{published.damaged[target]}; published records are never replaced"
        elif found := objections(record):
            refused[path] = "; ".join(found)
        else:
            write_atomically(target, path.read_bytes(), exclusive=True)
            new.append(target)
    return new, refused


def publish_measurements(out: Path, results: Path) -> tuple[list[Path], dict[Path, str]]:
    """Copy what was measured below ``out`` of the published records' weights into ``results``.

    Returns the new files, and for each one left out the reason. What is published is never replaced.
    """
    new, refused, pool = [], {}, read_pool(results / "records")
    for kind in KINDS:
        found, problems = kind.read_all(out, pool)
        refused |= problems
        for path, content in found.items():
            target = results / kind.folder / path.name
            if found_objections := objections(content):
                refused[path] = "; ".join(found_objections)
            elif not target.exists():
                write_atomically(target, path.read_bytes(), exclusive=True)
                new.append(target)
            elif target.read_bytes() != path.read_bytes():
                refused[path] = f"{target} is another measurement of the same run; what is published is never replaced"
    return new, refused


def publish_weights(experiments: Sequence[Experiment], out: Path, results: Path) -> tuple[list[Path], dict[Path, str]]:
    """Copy the final weights below ``out`` of published runs whose rows keep them into ``results/weights``.

    Returns the new files, and for each one left out the reason. What is published is never replaced.
    """
    new, refused, pool = [], {}, read_pool(results / "records")
    for run in kept_runs(experiments):
        path, target, record = weights_path(out, run), weights_path(results, run), pool.get(run)
        if record is None or record["status"] == "diverged" or not path.exists():
            continue
        try:
            read_final_weights(out, record)
        except WeightsError as error:
            refused[path] = str(error)
            continue
        if not target.exists():
            write_atomically(target, path.read_bytes(), exclusive=True)
            new.append(target)
    return new, refused


def write_published(experiments: Sequence[Experiment], results: Path, pool: Pool) -> list[Path]:
    """Make every table and plot that has published records, their index, the summary, and the frames of all runs."""
    written, pages = [], []
    for experiment, variant, seeds in recorded_tables(experiments, pool):
        page = make_page(experiment, variant, experiment.results(variant, seeds, pool, pool), results)
        files = experiment.report(page)
        written += files
        if files:  # records alone make no table of layer responses
            pages.append(page)
    if degradation.EXPERIMENT in experiments:
        written += headline.write(results / "plots" / "headline", pool)
    for name, text in ((INDEX, write_index(pages)), (SUMMARY, write_summary(pages))):
        write_atomically(results / name, text.encode())
        written.append(results / name)
    return [*written, *write_frames(pool, results)]


def report(experiments: Sequence[Experiment], results: Path, readme: Path) -> tuple[list[Path], Pool]:
    """Make the published tables and plots, and the tables in the README from them, where anything changed since.

    A file counts as unchanged while its size and its time stamp stay; the pool is without curves then.
    """
    note, by = cache_folder(results / "records") / "report.json", _made_by(experiments)
    sources, products = _file_states(results, readme)
    with suppress(OSError, ValueError, TypeError, KeyError):
        last = json.loads(note.read_bytes())
        if last["by"] == by and (last["sources"], last["products"]) == (sources, products):
            return [*map(Path, last["written"])], read_known_pool(results / "records", whole=False)
    pool = read_known_pool(results / "records")
    for folder in _MADE:
        shutil.rmtree(results / folder, ignore_errors=True)
    written = write_published(experiments, results, pool)
    if readme.exists():
        readme.write_text(with_tables(readme.read_text(encoding="utf-8"), readme.parent), encoding="utf-8")
    _, products = _file_states(results, readme)
    made = {"by": by, "sources": sources, "products": products, "written": [*map(str, written)]}
    with suppress(OSError):
        write_atomically(note, json.dumps(made).encode(), durable=False)
    return written, pool


def _made_by(experiments: Sequence[Experiment]) -> dict[str, str]:
    """What decides, besides files of results, what a report is."""
    versions = {name: metadata.version(name) for name in ("matplotlib", "numpy", "pandas", "scipy", "torch")}
    code = provenance.sources_digest(provenance.source_files())
    return {"code": code, "experiments": " ".join(one.name for one in experiments), **versions}


def _file_states(results: Path, readme: Path) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """The sizes and time stamps of the files that a report is made from, and of those that it makes."""
    sources: dict[str, list[int]] = {}
    products = {str(path): file_state(path) for path in (*_singles(results), readme) if path.exists()}
    for folder in results.glob("*/"):
        if folder != cache_folder(results / "records"):
            found = {str(path): file_state(path) for path in folder.rglob("*") if path.is_file()}
            (products if folder.name in _MADE else sources).update(found)
    return sources, products


def _singles(results: Path) -> list[Path]:
    """The generated files beside the folders."""
    return [results / name for name in (INDEX, SUMMARY, RUNS, CURVES)]


def with_tables(text: str, root: Path) -> str:
    """The README's text with each marked section replaced by the table it names, headings lowered by two levels."""

    def section(match: re.Match) -> str:
        path = root / match.group(1)
        table = path.read_text(encoding="utf-8") if path.exists() else "No records yet.\n"
        table = re.sub(r"^#", "###", table, flags=re.MULTILINE)
        return f"<!-- begin {match.group(1)} -->\n{table}<!-- end -->"

    return _SECTION.sub(section, text)


def check(experiments: Sequence[Experiment], results: Path, readme: Path) -> list[str]:
    """What is wrong with the committed results: nothing if every table, plot and the README follow from the records."""
    pool = read_pool(results / "records")
    problems, history = [str(error) for error in pool.damaged.values()], provenance.has_history()
    for record in pool.records.values():
        path = record_path(results / "records", Run.from_specification(record["specification"]))
        problems += [f"{path}: {objection}" for objection in objections(record, history)]
    for kind in KINDS:
        measured, damaged = kind.read_all(results, pool)
        problems += damaged.values()
        problems += [f"{path}: {text}" for path, content in measured.items() for text in objections(content, history)]
    problems += _wrong_weights(results, pool)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "results"
        for kind in KINDS:
            if (results / kind.folder).exists():
                shutil.copytree(results / kind.folder, fresh / kind.folder)
        write_published(experiments, fresh, pool)
        for old, new in zip(_singles(results), _singles(fresh)):
            if not old.exists() or _content(old) != _content(new):
                problems.append(f"{old}: differs from what the records give")
        for kind in _MADE:
            problems += _differences(results / kind, fresh / kind)
        text = readme.read_text(encoding="utf-8") if readme.exists() else ""
        if text != with_tables(text, fresh.parent):
            problems.append(f"{readme}: a table differs from what the records give")
    return [*problems, "make them again with: make report"] if problems else []


def _wrong_weights(results: Path, pool: Pool) -> list[str]:
    """What is wrong with the published weights: each file must be a published record's, and hold its run's."""
    runs = {identity: Run.from_specification(record["specification"]) for identity, record in pool.records.items()}
    records, problems = {weights_path(results, run): pool.records[identity] for identity, run in runs.items()}, []
    for path in sorted((results / "weights").glob("*")):
        if path not in records:
            problems.append(f"{path}: these weights are of no published record's run")
            continue
        try:
            read_final_weights(results, records[path])
        except WeightsError as error:
            problems.append(str(error))
    return problems


def _differences(committed: Path, fresh: Path) -> list[str]:
    """Files that are missing, left over or different; of a plot, whose pixels depend on fonts, its description."""
    old, new = ({path.name: path for path in folder.glob("*")} for folder in (committed, fresh))
    problems = [f"{committed / name}: missing" for name in sorted(set(new) - set(old))]
    problems += [f"{committed / name}: no records give this file" for name in sorted(set(old) - set(new))]
    for name in sorted(set(old) & set(new)):
        read = _description if name.endswith((".png", ".svg")) else Path.read_bytes
        if read(old[name]) != read(new[name]):
            problems.append(f"{committed / name}: differs from what the records give")
    return problems


def _content(path: Path) -> bytes | None:
    """A file's content, decompressed: the same text need not give the same bytes everywhere; None of a damaged one."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error):
        return None


def _description(path: Path) -> str | None:
    """What a plot says of itself; None if it is no plot."""
    try:
        return read_description(path)
    except (OSError, SyntaxError):  # not an image; not XML
        return None
