"""Publication of records, measurements and weights from a user's folder: publish, report, check."""

import gzip
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from reproductions.harness import provenance
from reproductions.harness.exact_errors import EXACT_ERRORS
from reproductions.harness.experiment import Experiment, Table, kept_runs
from reproductions.harness.final_weights import read_final_weights
from reproductions.harness.known_records import read_known_pool
from reproductions.harness.measurements import Measurement
from reproductions.harness.record_files import cache_folder, file_state, record_path, weights_path
from reproductions.harness.records import Pool, read_pool
from reproductions.harness.reporting import notes
from reproductions.harness.reporting.claims_page import write_claims
from reproductions.harness.reporting.figure import read_description
from reproductions.harness.reporting.frame import CURVES, RUNS, write_frames
from reproductions.harness.reporting.index import write_index
from reproductions.harness.reporting.page import Page, make_page, write_page
from reproductions.harness.reporting.summary import write_summary
from resnet.data import KNOWN_COPIES
from resnet.files import write_atomically
from resnet.plugins import Plugin, is_own
from resnet.run import Run
from resnet.weights import WeightsError

README = Path("README.md")
INDEX, SUMMARY, CLAIMS = Path("README.md"), Path("summary.md"), Path("claims.md")  # of the results, in their folder
NO_TABLE = (
    "no table shows this record; add its experiment and variant to PUBLISHED_TABLES in reproductions/experiments.py"
)
_MADE = ("tables", "plots")  # folders of results
_SECTION = re.compile(r"<!-- begin (results/(?:tables/)?[\w-]+\.md)(?:#([\w-]+))? -->\n(.*?)<!-- end -->", re.DOTALL)


def objections(record: dict, history: bool = True, foreign: bool = False) -> list[str]:
    """List the reasons against publishing a valid record.

    Without ``history`` (a shallow clone, a tarball) the code is not compared with the record's commit. ``foreign``:
    into results of a user's own, which take plugins and data sets that are not in this repository.
    """
    codes, data = [segment["code"] for segment in record.get("segments", [record])], record["data"]
    known, found = [code for code in codes if code is not None], []
    if len(known) < len(codes):
        found.append("the code of its first iterations is unknown")
    versions = {code["resnet_sha256"] for code in known}
    if len(versions) > 1 or any(code["modified"] for code in [record["code"], *known]):
        found.append("its code was modified or changed during the run")
    for code in {(code["commit"], code["resnet_sha256"]): code for code in known}.values():
        committed = provenance.committed_resnet_digest(code["commit"] or "") if history else code["resnet_sha256"]
        if committed is None:
            found.append(f"its commit {code['commit']} is not in this repository")
        elif committed != code["resnet_sha256"]:
            found.append(f"its code differs from commit {code['commit']}")
    if data["name"].startswith("synthetic"):
        found.append("it is from synthetic data")
    elif foreign and record.get("specification", {}).get("arrays"):
        pass  # the specification describes them
    elif not data["official"] and data["sha256"] not in KNOWN_COPIES:
        found.append(f"its data, SHA-256 {data['sha256']}, are neither the official files nor a known copy")
    return found if foreign else [*found, *_foreign_plugins(record, history)]


def _foreign_plugins(record: dict, history: bool) -> list[str]:
    """List the objections to the plugins of a record: they must be in this repository at the record's commit."""
    found = []
    for one in record.get("specification", {}).get("recipe", {}).get("plugins", []):
        plugin, commit = Plugin.recorded(one), record["code"]["commit"] or ""
        if not is_own(plugin):
            found.append(f"its plugin {plugin} is not in this repository; publish it into results of your own: --to")
        elif history and provenance.committed_module_digest(commit, plugin.module) != plugin.sha256:
            found.append(f"its plugin {plugin} is not the one of commit {commit}")
    return found


def publish(
    source: Path, results: Path, tables: Sequence[Table] | None = None, foreign: bool = False
) -> tuple[list[Path], dict[Path, str]]:
    """Copy the publishable records below ``source`` into ``results/records``; see :func:`objections` for ``foreign``.

    ``tables``: the published ones, outside of which no record is publishable; None for no such rule. Returns the new
    files, and the reason for each record left out. A published record is never replaced.
    """
    pool, published, new = read_pool(source), read_pool(results / "records"), []
    shown = None if tables is None else _first_runs(tables)
    refused = {path: str(error) for path, error in pool.damaged.items()}
    for record in pool.records.values():
        run = Run.from_specification(record["specification"])
        path, target = record_path(source, run), record_path(results / "records", run)
        if (existing := published.get(run)) is not None:
            if existing["record_sha256"] != record["record_sha256"]:
                refused[path] = f"{target} is another record of the same run; published records are never replaced"
        elif target in published.damaged:
            refused[path] = f"{published.damaged[target]}; published records are never replaced"
        else:
            problems = objections(record, foreign=foreign)
            if shown is not None and pool.first_of(record) not in shown:
                problems.append(NO_TABLE)
            _copy(path, target, problems, new, refused)
    return new, refused


def _first_runs(tables: Sequence[Table]) -> set[str]:
    """Return the identities of the rows' runs with seed 0, and of the runs that these need."""
    first = [variant.apply(row.run(0)) for experiment, variant in tables for row in experiment.fit_rows(variant)]
    return {run.identity for each in first for run in (each, *each.needs.values())}


def _copy(path: Path, target: Path, problems: list[str], new: list[Path], refused: dict[Path, str]) -> None:
    """Copy a file to ``target`` and add it to ``new``, or add it and its problems to ``refused``."""
    if target.exists() and target.read_bytes() != path.read_bytes():
        problems = [*problems, f"{target} is another file for the same run; published files are never replaced"]
    if problems:
        refused[path] = "; ".join(problems)
    elif not target.exists():
        write_atomically(target, path.read_bytes(), exclusive=True)
        new.append(target)


def _kinds(experiments: Iterable[Experiment]) -> list[Measurement]:
    """List the kinds of measurements of these experiments, each once."""
    kinds = [EXACT_ERRORS]
    for kind in (kind for experiment in experiments for kind in experiment.measurements):
        kinds += [] if kind in kinds else [kind]
    return kinds


def publish_measurements(
    experiments: Sequence[Experiment], out: Path, results: Path
) -> tuple[list[Path], dict[Path, str]]:
    """Copy the measurements below ``out`` of the published records' weights into ``results``.

    Returns the new files, and the reason for each one left out. Published files are never replaced.
    """
    new, refused, pool = [], {}, read_pool(results / "records")
    for kind in _kinds(experiments):
        found, problems = kind.read_all(out, pool)
        refused |= problems
        for path, content in found.items():
            _copy(path, results / kind.folder / path.name, objections(content), new, refused)
    return new, refused


def publish_weights(experiments: Sequence[Experiment], out: Path, results: Path) -> tuple[list[Path], dict[Path, str]]:
    """Copy the final weights below ``out`` of published runs whose rows keep them into ``results/weights``.

    Returns the new files, and the reason for each one left out. Published files are never replaced.
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
        if not target.exists():  # a damaged one is for the check
            _copy(path, target, [], new, refused)
    return new, refused


def write_published(tables: Sequence[Table], results: Path, pool: Pool) -> tuple[list[Path], list[Page]]:
    """Write the tables that have records, their plots, index, summary and frames; returns the files and the pages."""
    written, pages, every = [], [], []
    for experiment, variant in tables:
        seeds = experiment.recorded_seeds(variant, pool)
        wanted = seeds or experiment.seeds[variant.profile]
        page = make_page(experiment, variant, experiment.results(variant, wanted, pool, pool), results)
        every.append(page)
        if seeds:
            files = write_page(page)
            written += files
            pages += [page] if files else []  # records alone make no table of layer responses
    for experiment in dict.fromkeys(experiment for experiment, _ in tables):
        if experiment.overview is not None:
            written += experiment.overview(experiment, results / "plots", pool)
    for name, text in (
        (INDEX, write_index(pages)),
        (SUMMARY, write_summary(pages)),
        (CLAIMS, write_claims(every, pages)),
    ):
        write_atomically(results / name, text.encode())
        written.append(results / name)
    return [*written, *write_frames(pool, results)], pages


def report(tables: Sequence[Table], results: Path, readme: Path) -> tuple[list[Path], Pool]:
    """Write the published tables and plots, and the README's tables, if anything changed since the last time.

    Raises NoteError for a note on a table that can't be shown.

    A file is unchanged while its size and its time stamp are; the returned pool then has no curves.
    """
    note, by = cache_folder(results / "records") / "report.json", _made_by(tables)
    sources, products = _file_states(results, readme)
    with suppress(OSError, ValueError, TypeError, KeyError):
        last = json.loads(note.read_bytes())
        if last["by"] == by and (last["sources"], last["products"]) == (sources, products):
            return [*map(Path, last["written"])], read_known_pool(results / "records", whole=False)
    pool = read_known_pool(results / "records")
    notes.load()  # raises before anything is removed
    for folder in _MADE:
        shutil.rmtree(results / folder, ignore_errors=True)
    written, _ = write_published(tables, results, pool)
    if readme.exists():
        readme.write_text(with_tables(readme.read_text(encoding="utf-8"), readme.parent), encoding="utf-8")
    _, products = _file_states(results, readme)
    made = {"by": by, "sources": sources, "products": products, "written": [*map(str, written)]}
    with suppress(OSError):
        write_atomically(note, json.dumps(made).encode(), durable=False)
    return written, pool


def _made_by(tables: Sequence[Table]) -> dict[str, str]:
    """Identify the code, tables and packages that decide a report besides the files of results."""
    versions = {name: metadata.version(name) for name in ("matplotlib", "numpy", "pandas", "scipy", "torch")}
    code = provenance.sources_digest(provenance.source_files())
    names = " ".join(f"{experiment.name}{variant.suffix}" for experiment, variant in tables)
    return {"code": code, "tables": names, **versions}


def _file_states(results: Path, readme: Path) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return the sizes and time stamps of the files that a report is made from, and of the files that it makes."""
    sources: dict[str, list[int]] = {}
    products = {str(path): file_state(path) for path in (*_singles(results), readme) if path.exists()}
    for folder in results.glob("*/"):
        if folder != cache_folder(results / "records"):
            found = {str(path): file_state(path) for path in folder.rglob("*") if path.is_file()}
            (products if folder.name in _MADE else sources).update(found)
    return sources, products


def _singles(results: Path) -> list[Path]:
    """Return the generated files beside the folders."""
    return [results / name for name in (INDEX, SUMMARY, CLAIMS, RUNS, CURVES)]


def with_tables(text: str, root: Path) -> str:
    """Replace each marked section of the README's text by the table it names, with headings two levels lower.

    ``results/claims.md#in-short`` is the part of that page under the heading "In short".
    """

    def section(match: re.Match) -> str:
        path, name = root / match.group(1), match.group(2)
        table = path.read_text(encoding="utf-8") if path.exists() else "No records yet.\n"
        if name:
            parts = {re.sub(r"\W+", "-", part.partition("\n")[0].lower()): part for part in table.split("\n## ")}
            table = parts.get(name, "").partition("\n\n")[2].rstrip("\n") + "\n"
        table = re.sub(r"^#", "###", table, flags=re.MULTILINE)
        return f"<!-- begin {match.group(1)}{f'#{name}' if name else ''} -->\n{table}<!-- end -->"

    return _SECTION.sub(section, text)


def check(tables: Sequence[Table], results: Path, readme: Path) -> list[str]:
    """Find the problems of the committed results.

    Tables, plots and the README must follow from the records, and every record must be in a table.
    """
    pool = read_pool(results / "records")
    problems, history = [str(error) for error in pool.damaged.values()], provenance.has_history()
    for record in pool.records.values():
        problems += [f"{_path(results, record)}: {objection}" for objection in objections(record, history)]
    kinds = _kinds(experiment for experiment, _ in tables)
    for kind in kinds:
        measured, damaged = kind.read_all(results, pool)
        problems += damaged.values()
        problems += [f"{path}: {text}" for path, content in measured.items() for text in objections(content, history)]
    problems += _wrong_weights(results, pool)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "results"
        for kind in kinds:
            if (results / kind.folder).exists():
                shutil.copytree(results / kind.folder, fresh / kind.folder)
        try:
            _, pages = write_published(tables, fresh, pool)
        except notes.NoteError as error:
            return [*problems, str(error)]
        shown = {record["identity"] for page in pages for result in page.results
                  for record in (*result.records, result.teacher) if record}  # fmt: skip
        lost = pool.records.keys() - shown
        problems += [f"{_path(results, pool.records[identity])}: {NO_TABLE}" for identity in lost]
        for old, new in zip(_singles(results), _singles(fresh)):
            if _content(old) != _content(new):
                problems.append(f"{old}: differs from the records")
        for kind in _MADE:
            problems += _differences(results / kind, fresh / kind)
        text = readme.read_text(encoding="utf-8") if readme.exists() else ""
        if text != with_tables(text, fresh.parent):
            problems.append(f"{readme}: a table differs from the records")
    return [*problems, "make them again with: make report"] if problems else []


def _path(results: Path, record: dict) -> Path:
    return record_path(results / "records", Run.from_specification(record["specification"]))


def _wrong_weights(results: Path, pool: Pool) -> list[str]:
    """Find the problems of the published weights: each file must hold the final weights of a published record's run."""
    runs = {identity: Run.from_specification(record["specification"]) for identity, record in pool.records.items()}
    records, problems = {weights_path(results, run): pool.records[identity] for identity, run in runs.items()}, []
    for path in sorted((results / "weights").glob("*")):
        if path not in records:
            problems.append(f"{path}: no published record belongs to these weights")
            continue
        try:
            read_final_weights(results, records[path])
        except WeightsError as error:
            problems.append(str(error))
    return problems


def _differences(committed: Path, fresh: Path) -> list[str]:
    """Find the files that are missing, left over or different."""
    old, new = ({path.name: path for path in folder.glob("*")} for folder in (committed, fresh))
    problems = [f"{committed / name}: missing" for name in sorted(set(new) - set(old))]
    problems += [f"{committed / name}: no records produce this file" for name in sorted(set(old) - set(new))]
    for name in sorted(set(old) & set(new)):
        if _content(old[name]) != _content(new[name]):
            problems.append(f"{committed / name}: differs from the records")
    return problems


def _content(path: Path) -> bytes | str | None:
    """Read the part of a file that is the same on every machine; None if the file is damaged or not there.

    It is the description of a plot, and the decompressed content of a compressed file.
    """
    try:
        if path.suffix in (".png", ".svg"):
            return read_description(path)
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error, SyntaxError):  # the last of a plot that is not XML
        return None
