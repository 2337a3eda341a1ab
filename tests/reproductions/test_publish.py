"""Publishing of records and weights, and the check of the committed results."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from functools import partial

import pytest
from fakes import as_of_schema, make_record, move, store
from repositories import commit
from trained import leave

from reproductions import cifar_table
from reproductions.cifar_table import error_against_depth
from reproductions.harness import provenance, publish, records
from reproductions.harness.experiment import Experiment, Row, Variant
from reproductions.harness.final_weights import read_final_weights
from reproductions.harness.known_records import read_known_pool
from reproductions.harness.record_files import record_path, weights_path
from reproductions.harness.records import ORIGIN, SCHEMA, read_record, seal
from reproductions.harness.reporting.figure import save
from resnet.data import Arrays
from resnet.data.cifar import KNOWN_COPIES
from resnet.files import sources_digest
from resnet.plugins import Plugin
from resnet.recipe import Recipe
from resnet.run import Run

RECIPE = Recipe().shortened(6, eval_interval=2)
RUNS = [Run("cifar_resnet20", RECIPE, "cifar10", seed) for seed in range(3)]
ROW = Row("resnet20", "ResNet-20", "cifar_resnet20", RECIPE)


def report(page):
    """A table and a plot like the real ones, but made quickly."""
    files = page.write([page.net(), page.reproduced()])
    depth = error_against_depth(page.results, page.variant)
    return [*files, *save(depth, page.plot_path("depth"), page.description)]


EXPERIMENT = Experiment("tiny", "Tiny nets", "no paper", lambda profile: [ROW] if profile == "paper" else [], report)


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Two repositories, to be copied: with one commit of the code, no results and a README that shows a table; and
    the same with two published records and what ``report`` makes of them."""
    folder = tmp_path_factory.mktemp("repositories")
    root = folder / "empty"
    (root / "resnet").mkdir(parents=True)
    (root / "resnet" / "run.py").write_text("code = 1\n")
    (root / "README.md").write_text("# Tables\n\n<!-- begin results/tables/tiny.md -->\n<!-- end -->\n\nThe end.\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        for command in ("init --quiet", "add --all", "-c user.name=A -c user.email=a@b commit --quiet --message first"):
            subprocess.run(["git", "-C", root, *command.split()], check=True)
        shutil.copytree(root, folder / "published")
        patch.setattr(provenance, "ROOT", folder / "published")
        code = provenance.code_identity()
        records = (make_record(run, 8.5 + run.seed / 10, code=code) for run in RUNS[:2])
        store(folder / "published" / "results" / "records", *records)
        publish.report(*arguments(folder / "published"))
    return folder


def arguments(root):
    """Make the arguments of ``report`` and ``check``."""
    return [(EXPERIMENT, Variant())], root / "results", root / "README.md"


@pytest.fixture
def repository(states, tmp_path, monkeypatch):
    return use(states / "empty", tmp_path, monkeypatch)


@pytest.fixture
def published(states, tmp_path, monkeypatch):
    return use(states / "published", tmp_path, monkeypatch)


def use(state, tmp_path, monkeypatch):
    root = tmp_path / "repository"
    shutil.copytree(state, root)
    monkeypatch.setattr(provenance, "ROOT", root)
    return root


@pytest.fixture
def own(repository, tmp_path):
    """Stores records of this repository's code in a user's pool: ``own(error, seed, **changes)``."""

    def make(error=8.5, seed=0, run=None, **changes):
        code = provenance.code_identity() | changes.pop("code", {})
        return store(tmp_path / "runs", make_record(run or RUNS[seed], error, **{"code": code, **changes}))[0]

    return make


# ------------------------------------------------------------------------------------------------------------- publish


def test_good_records_are_copied_as_they_are(repository, own, tmp_path):
    own(8.5, 0), own(8.6, 1)
    new, refused = publish.publish(tmp_path / "runs", repository / "results")
    assert not refused and len(new) == 2
    for path in new:
        source = tmp_path / "runs" / path.relative_to(repository / "results" / "records")
        assert path.read_bytes() == source.read_bytes()


def test_publishing_again_is_no_error_and_does_nothing(repository, own, tmp_path):
    own()
    publish.publish(tmp_path / "runs", repository / "results")
    assert publish.publish(tmp_path / "runs", repository / "results") == ([], {})


def test_records_of_the_first_schema_are_published_and_tabulated_beside_newer_ones(repository, own, tmp_path):
    store(tmp_path / "runs", as_of_schema(make_record(RUNS[0], 8.5, code=provenance.code_identity()), 1))
    own(8.6, 1)
    new, refused = publish.publish(tmp_path / "runs", repository / "results")
    assert not refused and {read_record(path)["schema"] for path in new} == {1, SCHEMA}
    publish.report(*arguments(repository))
    assert "8.50, 8.60 (n = 2 of 5)" in (repository / "results/tables/tiny.md").read_text()
    assert publish.check(*arguments(repository)) == []


def with_plugin(path, sha256):
    plugin = {"path": path, "options": {"alpha": 1.0}, "sha256": sha256}
    return Run("cifar_resnet20", replace(RECIPE, plugins=(Plugin.recorded(plugin),)))


def test_plugins_of_the_repository_are_published_as_they_are_in_the_commit(repository, own, tmp_path):
    (repository / "examples").mkdir()
    (repository / "examples" / "cutmix.py").write_text("class CutMix: ...\n")
    commit(repository)
    digest = sources_digest({"examples/cutmix.py": b"class CutMix: ...\n"})
    own(run=with_plugin("examples.cutmix:CutMix", digest))
    changed, outside = with_plugin("examples.cutmix:CutMix", "2" * 64), with_plugin("mine.cutmix:CutMix", digest)
    own(run=changed), own(run=outside)
    new, refused = publish.publish(tmp_path / "runs", repository / "results")
    reasons = {path.stem: reason for path, reason in refused.items()}
    assert len(new) == 1 and set(reasons) == {changed.short_id, outside.short_id}
    assert "its plugin examples.cutmix:CutMix is not the one of commit " in reasons[changed.short_id]
    assert "its plugin mine.cutmix:CutMix is not in this repository" in reasons[outside.short_id]
    new, refused = publish.publish(tmp_path / "runs", tmp_path / "own results", foreign=True)
    assert len(new) == 3 and not refused


def test_data_given_as_arrays_are_published_in_ones_own_results_only(repository, own, tmp_path):
    digest = "3" * 64
    run = Run("cifar_resnet20", RECIPE, "mine", arrays=Arrays(digest, 100, (32, 32, 3), 10))
    own(run=run, data={"sha256": digest, "official": False})
    _, refused = publish.publish(tmp_path / "runs", repository / "results")
    assert "neither the official files nor a known copy" in next(iter(refused.values()))
    new, refused = publish.publish(tmp_path / "runs", tmp_path / "own results", foreign=True)
    assert len(new) == 1 and not refused


def test_trials_of_other_values_stay_where_they_are_unless_their_table_is_published(repository, own, tmp_path):
    trial = Variant(settings=("weight_decay=0.0005",))
    runs = [Variant().apply(ROW.run(0)), *EXPERIMENT.runs(trial, 1)]
    runs += EXPERIMENT.runs(Variant(sweep=("learning_rate=0.05,0.2",)), 1)
    for run in runs:
        own(run=run)
    publishable = repository / "results"
    new, refused = publish.publish(tmp_path / "runs", publishable, [(EXPERIMENT, Variant())])
    assert [path.stem for path in new] == [runs[0].short_id] and len(refused) == 3
    assert all("no table shows this record" in reason for reason in refused.values())
    new, refused = publish.publish(tmp_path / "runs", publishable, [(EXPERIMENT, Variant()), (EXPERIMENT, trial)])
    assert [path.stem for path in new] == [runs[1].short_id] and len(refused) == 2


SYNTHETIC = Run("cifar_resnet20", RECIPE, "synthetic")


@pytest.mark.parametrize(
    "changes",
    [{"diverged": True}, {"data": {"sha256": next(iter(KNOWN_COPIES)), "official": False}}],
    ids=["a diverged run", "a known copy of the data"],
)
def test_a_record_may_also_be_of(repository, own, tmp_path, changes):
    own(**changes)
    assert len(publish.publish(tmp_path / "runs", repository / "results")[0]) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"code": {"modified": True}}, "modified"),
        ({"code": {"commit": "c0ffee"}}, "commit c0ffee is not in this repository"),
        ({"code": {"commit": None, "modified": None}}, "commit None is not in this repository"),
        ({"code": {"resnet_sha256": "1" * 64}}, "its code differs from commit"),
        ({"data": {"official": False}}, "neither the official files nor a known copy"),
        ({"run": SYNTHETIC}, "synthetic"),
    ],
)
def test_a_record_of_unknown_origin_is_refused_with_the_reason(repository, own, tmp_path, changes, reason):
    own(8.5, 0, **changes)
    good = own(8.6, 1)
    new, refused = publish.publish(tmp_path / "runs", repository / "results")
    assert [read_record(path) for path in new] == [good]
    assert [reason in text for text in refused.values()] == [True]


@pytest.mark.parametrize(
    ("earlier", "reason"),
    [
        ({"code": {"modified": True}}, "modified"),
        ({"code": {"resnet_sha256": "1" * 64}}, "changed during the run; its code differs from commit"),
        ({"code": {"commit": "c0ffee"}}, "commit c0ffee is not in this repository"),
        (dict.fromkeys(ORIGIN), "code of its first iterations is unknown"),
    ],
    ids=["modified", "another version", "another commit", "unknown"],
)
def test_a_record_with_one_segment_of_unknown_origin_is_refused(repository, tmp_path, earlier, reason):
    record = make_record(RUNS[0], 8.5, code=provenance.code_identity())
    store(tmp_path / "runs", move(record, 2, **earlier))
    new, refused = publish.publish(tmp_path / "runs", repository / "results")
    assert not new and [reason in text for text in refused.values()] == [True]


def test_a_record_of_a_run_that_moved_is_published(repository, tmp_path):
    record = make_record(RUNS[0], 8.5, code=provenance.code_identity())
    store(tmp_path / "runs", move(record, 2, hardware={"type": "cpu", "device": "AMD EPYC"}))
    assert len(publish.publish(tmp_path / "runs", repository / "results")[0]) == 1


def test_a_damaged_record_is_refused(repository, own, tmp_path):
    own()
    path = record_path(tmp_path / "runs", RUNS[0])
    path.write_text(path.read_text().replace("8.5", "5.8"))
    new, refused = publish.publish(tmp_path / "runs", repository / "results")
    assert not new and "edited or damaged" in refused[path]
    assert not (repository / "results").exists()


def test_a_published_record_is_never_replaced(repository, own, tmp_path):
    target = record_path(repository / "results" / "records", RUNS[0])
    own(8.5)
    publish.publish(tmp_path / "runs", repository / "results")
    before = target.read_bytes()
    record_path(tmp_path / "runs", RUNS[0]).unlink()
    own(6.5)
    new, refused = publish.publish(tmp_path / "runs", repository / "results")
    assert not new and "never replaced" in str(refused)
    assert target.read_bytes() == before


def test_not_even_a_damaged_published_record_is_replaced(repository, own, tmp_path):
    own()
    target = record_path(repository / "results" / "records", RUNS[0])
    target.parent.mkdir(parents=True)
    target.write_text("{")
    new, refused = publish.publish(tmp_path / "runs", repository / "results")
    assert not new and str(target) in str(refused) and target.read_text() == "{"


# ------------------------------------------------------------------------------------------------------------- weights

KEEPING = replace(EXPERIMENT, rows=lambda profile: [replace(ROW, keep_weights=2)] if profile == "paper" else [])


@pytest.fixture
def kept(repository, tmp_path):
    """A user's folder with three completed runs and their weights, of the first two of which the row keeps them; their
    records are published."""
    for run in RUNS:
        leave(tmp_path / "out", run, 8.5, code=provenance.code_identity())
    assert len(publish.publish(tmp_path / "out" / "records", repository / "results")[0]) == 3
    return tmp_path / "out"


def test_weights_that_a_row_keeps_are_published_once_as_they_are(repository, kept):
    results = repository / "results"
    new, refused = publish.publish_weights([KEEPING], kept, results)
    assert new == [weights_path(results, run) for run in RUNS[:2]] and not refused
    assert [path.read_bytes() for path in new] == [weights_path(kept, run).read_bytes() for run in RUNS[:2]]
    assert publish.publish_weights([KEEPING], kept, results) == ([], {})
    assert publish.publish_weights([EXPERIMENT], kept, results) == ([], {})
    read_final_weights(results, read_record(record_path(results / "records", RUNS[0])))


def test_weights_without_a_published_record_stay_where_they_are(repository, kept):
    record_path(repository / "results" / "records", RUNS[0]).unlink()
    weights_path(kept, RUNS[1]).unlink()
    assert publish.publish_weights([KEEPING], kept, repository / "results") == ([], {})
    assert not (repository / "results" / "weights").exists()


def test_weights_that_are_not_the_published_records_are_refused(repository, kept):
    first, second = (weights_path(kept, run) for run in RUNS[:2])
    first.write_bytes(second.read_bytes())
    second.write_bytes(second.read_bytes()[:-1])
    new, refused = publish.publish_weights([KEEPING], kept, repository / "results")
    assert not new and set(refused) == {first, second}
    assert "but the run's record says" in refused[first] and "is damaged" in refused[second]


def test_a_diverged_run_has_no_weights_to_keep(repository, tmp_path):
    leave(tmp_path / "out", RUNS[0], diverged=True, code=provenance.code_identity())
    publish.publish(tmp_path / "out" / "records", repository / "results")
    assert publish.publish_weights([KEEPING], tmp_path / "out", repository / "results") == ([], {})


def test_the_check_looks_at_published_weights(repository, kept):
    results = repository / "results"
    publish.publish_weights([KEEPING], kept, results)
    publish.report([(KEEPING, Variant())], *arguments(repository)[1:])
    everything = [(KEEPING, Variant())], *arguments(repository)[1:]
    assert publish.check(*everything) == []
    first, second = (weights_path(results, run) for run in RUNS[:2])
    second.unlink()  # which costs no more than training it again
    assert publish.check(*everything) == []
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    assert any(f"{first} is damaged" in problem for problem in publish.check(*everything))
    first.write_bytes(weights_path(kept, RUNS[1]).read_bytes())
    assert any(f"{first} holds the weights" in problem for problem in publish.check(*everything))
    first.rename(first.with_name("another.pt"))
    assert any("another.pt: no published record belongs to these weights" in p for p in publish.check(*everything))


# -------------------------------------------------------------------------------------------------------- report, check


def test_what_report_has_made_passes_the_check(published):
    assert publish.check(*arguments(published)) == []
    readme = (published / "README.md").read_text()
    assert "### Tiny nets" in readme and "8.50, 8.60 (n = 2 of 5)" in readme and readme.endswith("The end.\n")
    files = {path.name for path in (published / "results").rglob("*.*") if path.suffix != ".json"}
    frames = {"summary.md", "claims.md", "runs.csv", "curves.csv.gz"}
    assert files == {"README.md", "tiny.md", "tiny.csv", "tiny_depth.png", "tiny_depth.svg"} | frames
    index = (published / "results" / "README.md").read_text()
    meanings = (
        "\n- paper: the whole protocol that the table's heading names: a paper's, a report's or this suite's own.\n"
    )
    assert f"{meanings}- short: real data, fewer iterations, not comparable" in index
    assert 0 < index.index("How to read the tables:") < index.index("| experiment ")
    assert "](tables/tiny.md)" in index and "test error 8.50, 8.60 (n = 2 of 5)" in index and "2.00 GPU" in index


def test_the_summary_stands_in_the_readme_where_it_is_marked(published):
    readme = published / "README.md"
    readme.write_text("<!-- begin results/summary.md -->\n<!-- end -->\n")
    assert any("README.md: a table differs" in problem for problem in publish.check(*arguments(published)))
    publish.report(*arguments(published))
    assert "\n### Test errors by the paper's protocol\n" in readme.read_text()
    assert publish.check(*arguments(published)) == []


def test_without_any_records_the_readme_says_so(repository):
    assert publish.check(*arguments(repository)) != []
    publish.report(*arguments(repository))
    assert "No records yet." in (repository / "README.md").read_text()
    assert publish.check(*arguments(repository)) == []


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def record_in(results, run=RUNS[1]):
    return record_path(results / "records", run)


def edit_a_record_and_its_digest(results):
    path = record_in(results)
    path.write_text(json.dumps(seal(json.loads(path.read_text().replace("8.6", "6.6")))))


TAMPERING = {  # by the change: a function that makes it in the folder of results, and the problem that is found
    "an edited table": (lambda results: edit(results / "tables/tiny.md", "8.50", "6.50"), "tiny.md: differs"),
    "an edited CSV": (lambda results: edit(results / "tables/tiny.csv", "8.55", "6.55"), "tiny.csv: differs"),
    "a missing table": (lambda results: (results / "tables/tiny.csv").unlink(), "tiny.csv: missing"),
    "an edited index": (lambda results: edit(results / "README.md", "8.50", "6.50"), "README.md: differs"),
    "a missing index": (lambda results: (results / "README.md").unlink(), "README.md: differs"),
    "an edited summary": (lambda results: edit(results / "summary.md", "No", "no"), "summary.md: differs"),
    "a missing summary": (lambda results: (results / "summary.md").unlink(), "summary.md: differs"),
    "an edited frame of runs": (lambda results: edit(results / "runs.csv", "8.6", "6.6"), "runs.csv: differs"),
    "a damaged frame of curves": (
        lambda results: (results / "curves.csv.gz").write_bytes(b"x"),
        "curves.csv.gz: differs",
    ),
    "a missing plot": (lambda results: (results / "plots/tiny_depth.svg").unlink(), "tiny_depth.svg: missing"),
    "a plot of other records": (
        lambda results: edit(results / "plots/tiny_depth.svg", "2 records", "3 records"),
        "tiny_depth.svg: differs",
    ),
    "a plot that is no image": (
        lambda results: (results / "plots/tiny_depth.png").write_text("x"),
        "tiny_depth.png: differs",
    ),
    "a left-over table": (lambda results: (results / "tables/old.md").write_text("x"), "old.md: no records produce"),
    "a left-over plot": (lambda results: (results / "plots/old.png").write_text("x"), "old.png: no records produce"),
    "an edited record": (
        lambda results: edit(record_in(results), "8.6", "6.6"),
        f"{RUNS[1].short_id}.json is not a valid record",
    ),
    "an edited record with a digest to match": (edit_a_record_and_its_digest, "tiny.md: differs"),
    "a removed record": (lambda results: record_in(results).unlink(), "tiny.md: differs"),
    "a record in another place": (
        lambda results: record_in(results).rename(record_in(results, RUNS[2])),
        "it belongs at",
    ),
    "an edited README": (
        lambda results: edit(results.parent / "README.md", "8.50, 8.60", "6.50, 8.60"),
        "README.md: a table differs",
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_the_check_finds(published, what):
    tamper, message = TAMPERING[what]
    tamper(published / "results")
    problems = publish.check(*arguments(published))
    assert any(message in problem for problem in problems), problems
    assert "make report" in problems[-1]


def test_the_check_finds_a_record_of_modified_code_that_was_put_in_by_hand(published):
    code = provenance.code_identity() | {"modified": True}
    store(published / "results" / "records", make_record(RUNS[2], 5.0, code=code))
    problems = publish.check(*arguments(published))
    assert f"{RUNS[2].short_id}.json" in problems[0] and "modified" in problems[0]


def test_report_leaves_out_a_damaged_record_and_tells_of_it(published):
    path = record_path(published / "results" / "records", RUNS[1])
    path.write_text("{")
    _, pool = publish.report(*arguments(published))
    assert list(pool.damaged) == [path] and "8.50 (n = 1 of 5)" in (published / "results/tables/tiny.md").read_text()


def states_of(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and "cache" not in path.parts}


def test_report_makes_nothing_anew_that_would_be_the_same(published, monkeypatch):
    written, pool = publish.report(*arguments(published))
    states = states_of(published / "results")
    with monkeypatch.context() as patch:
        patch.setattr(publish, "write_published", None)
        patch.setattr(records, "validate", None)  # which is not called either
        again, known = publish.report(*arguments(published))
    assert (
        again == written and states_of(published / "results") == states and known.records.keys() == pool.records.keys()
    )
    assert len(known.records) == 2


@pytest.mark.parametrize("change", ["a record", "a table", "a table's absence", "the readme", "the code"])
def test_report_makes_all_anew_when_anything_changed(published, monkeypatch, change):
    publish.report(*arguments(published))
    made = {path: path.read_bytes() for path in (published / "results" / "tables").iterdir()}
    table = published / "results" / "tables" / "tiny.md"
    if change == "a record":
        code = provenance.code_identity()
        store(published / "results" / "records", make_record(RUNS[2], 9.0, code=code))
    elif change == "a table":
        table.write_text(table.read_text().replace("8.50", "5.50"))
    elif change == "a table's absence":
        table.unlink()
    elif change == "the readme":
        (published / "README.md").write_text((published / "README.md").read_text().replace("8.50", "5.5"))
    else:
        monkeypatch.setattr(publish, "write_published", lambda *_: (["made"], []))
        monkeypatch.setattr(provenance, "source_files", lambda: {"other": b"code"})
        assert publish.report(*arguments(published))[0] == ["made"]
        return
    publish.report(*arguments(published))
    if change == "a record":
        assert "n = 3 of 5" in table.read_text()
    else:
        assert {path: path.read_bytes() for path in (published / "results" / "tables").iterdir()} == made
        assert "8.50" in (published / "README.md").read_text()


def test_neither_check_nor_publish_believes_what_report_or_status_found_before(repository, own, tmp_path):
    own(8.0)
    path = record_path(tmp_path / "runs", RUNS[0])
    read = partial(read_known_pool, tmp_path / "runs")
    assert len(read().records) == len(read(whole=False).records) == 1
    before = path.stat()
    path.write_text(path.read_text().replace("8.0", "7.0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(read().records) == len(read(whole=False).records) == 1, "the file looks as it did"
    new, refused = publish.publish(tmp_path / "runs", repository / "results")
    assert not new and "edited or damaged" in refused[path]
    target = record_path(repository / "results" / "records", RUNS[0])
    target.parent.mkdir(parents=True)
    shutil.copy(path, target)
    assert "edited or damaged" in publish.check(*arguments(repository))[0]


def test_the_check_names_records_that_no_table_shows(published):
    run = replace(RUNS[0], recipe=replace(RECIPE, precision="fp32"))
    record = make_record(run, 8.0, code=provenance.code_identity())
    store(published / "results" / "records", record)
    tables, *folders = arguments(published)
    problem, *_ = publish.check(tables, *folders)  # then the frame that lacks it
    path = record_path(published / "results" / "records", run)
    assert problem.startswith(f"{path}: no table shows this record") and "PUBLISHED_TABLES" in problem
    tables = [*tables, (EXPERIMENT, Variant(precision="fp32"))]
    publish.report(tables, *folders)
    assert publish.check(tables, *folders) == []
    assert (published / "results" / "tables" / "tiny_fp32.md").exists()


def test_the_real_tables_come_out_byte_for_byte_the_same(tmp_path):
    rows = {row.key: row for row in cifar_table.rows("short")}
    for key in ("resnet20", "resnet56"):
        runs = [rows[key].run(seed) for seed in range(2)]
        store(tmp_path / "results" / "records", *(make_record(run, 30.0 + run.seed) for run in runs))
    made, tables = [], [(cifar_table.EXPERIMENT, Variant("short"))]
    for _ in range(2):
        shutil.rmtree(tmp_path / "results" / "cache", ignore_errors=True)
        files, _ = publish.report(tables, tmp_path / "results", tmp_path / "README.md")
        made.append({path: path.read_bytes() for path in files if path.suffix in (".md", ".csv")})
    names = {"README.md", "summary.md", "claims.md", "runs.csv", "cifar_table_short.md", "cifar_table_short.csv"}
    names |= {"cifar_table_short_claims.csv"}
    assert made[0] == made[1] and {path.name for path in made[0]} == names
    assert b"not comparable with the paper" in made[0][files[0]]
