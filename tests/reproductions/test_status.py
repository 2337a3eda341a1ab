"""The status of a folder of runs: what is recorded, running, queued, waiting, stopped, failed and damaged."""

import io
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from fakes import make_record, store
from tiny import make_experiment

from reproductions.harness import recorded
from reproductions.harness.console import make_console
from reproductions.harness.experiment import Row, Variant
from reproductions.harness.launched import launched_tables, note_tables
from reproductions.harness.launching.claims import claim
from reproductions.harness.launching.run_paths import RunPaths, Status
from reproductions.harness.launching.slurm import queue
from reproductions.harness.launching.slurm.queue import QueuedJob
from reproductions.harness.launching.slurm.submissions import Submission
from reproductions.harness.record_files import record_path
from reproductions.harness.records import read_pool
from reproductions.harness.status import LAST_LINES, SILENT_SECONDS, find_standings, show_status
from resnet import checkpoint
from resnet.progress import Progress

EXPERIMENT = make_experiment()
RUNS = EXPERIMENT.runs(Variant("smoke"), 2)


def show(paths, *experiments, as_json=False):
    """Print the status; returns the exit status and the text, which is not wrapped for programs."""
    console = make_console(file=io.StringIO(), width=20 if as_json else 200)
    code = show_status(paths.out, console, experiments or (EXPERIMENT,), as_json)
    return code, console.file.getvalue()


def write(paths, state, age=0.0, message="", run=RUNS[0], launch=""):
    progress = Progress(3, 6, 0.1, None, 40.0, 2.0) if state == "running" else None
    Status(state, str(run), time.time() - age, progress, message, launch).write(paths.work(run))


def keep_checkpoint(paths, run=RUNS[0]):
    checkpoint.save(paths.work(run), {})


def standings(paths, recorded=()):
    """Find the state and text of each run by its name, and check that each is named once."""
    found = find_standings(paths.out, set(recorded))
    assert len({standing.run for standing in found}) == len(found)
    return {standing.run: (standing.state, standing.text) for standing in found}


def stands(paths, run=RUNS[0]):
    return standings(paths)[str(run)]


def test_an_empty_or_absent_folder_has_no_records(paths):
    assert show(paths) == (0, f"no records in {paths.records}\n")
    assert show(RunPaths(paths.out / "absent", paths.data))[0] == 0
    assert not (paths.out / "absent").exists()


def test_recorded_runs_are_listed_by_row_with_their_errors(paths):
    store(paths.records, make_record(RUNS[0], 20.0), make_record(RUNS[1], 21.5))
    code, text = show(paths)
    assert code == 0 and "2/2" in text and "20.00, 21.50" in text and "resnet14" not in text


def test_more_seeds_than_the_default_are_shown(paths):
    store(paths.records, *(make_record(run, 20.0) for run in EXPERIMENT.runs(Variant("smoke"), 4, ["resnet8"])))
    assert "4/4" in show(paths)[1]


def test_records_of_no_listed_table_are_counted(paths):
    store(paths.records, make_record(RUNS[0], 20.0))
    said = show(paths, make_experiment(data="cifar10"))[1]
    assert said == f"records in no table of the suite: 1 of 1, in {paths.records}\n"


DEFAULTS = [("tiny", profile) for profile in ("paper", "short", "smoke")]  # whose rows are the same


def tables(out, *experiments):
    return [(one.name, variant.name) for one, variant in launched_tables(experiments, out, read_pool(out / "records"))]


def test_the_tables_of_a_folder_are_the_launched_ones_as_far_as_they_have_records(paths):
    other, precise = replace(EXPERIMENT, name="other"), Variant("smoke", precision="fp32")
    store(paths.records, make_record(RUNS[0], 20.0), make_record(precise.apply(RUNS[0]), 20.0))
    unrecorded = (EXPERIMENT, Variant(precision="bf16"))
    for launched in [(other, precise)], [(other, Variant("smoke")), (other, precise)], [unrecorded]:
        note_tables(paths.out, launched)
    assert len((paths.out / "launched.jsonl").read_text().splitlines()) == 3
    assert tables(paths.out, EXPERIMENT, other) == [("other", "smoke, fp32"), ("other", "smoke")]
    assert tables(paths.out, EXPERIMENT) == [], "the other table's script shows the records"


def test_where_tables_of_ones_own_were_launched_no_other_is_guessed_and_what_a_table_needs_is_its_own(paths):
    taught = replace(RUNS[0], recipe=replace(RUNS[0].recipe, temperature=2.0), teacher=RUNS[1])
    rows = [Row("taught", "taught", taught.model, taught.recipe, taught.data, teacher=EXPERIMENT.rows("smoke")[0])]
    own = replace(EXPERIMENT, name="mine", rows=lambda profile: rows if profile == "smoke" else [])
    store(paths.records, make_record(rows[0].run(0), 20.0), make_record(rows[0].run(0).teacher, 20.0))
    note_tables(paths.out, [(own, Variant("smoke"))])
    assert tables(paths.out, EXPERIMENT) == []
    counted, there = f"records in no table of the suite: 2 of 2, in {paths.records}\n", "tables of your own there: mine"
    assert show(paths)[1] == f"{counted}{there}; their scripts show them\n", "the list may be of older code"
    for seeds in (2, 3):
        note_tables(paths.out, [(replace(own, script="a folder/mine.py"), Variant("smoke"))], seeds)
    script = f"'{os.path.abspath('a folder/mine.py')}'"
    command = f"python {script} --profile smoke --seeds 3 --out {paths.out}"
    assert show(paths)[1] == f"{counted}{there}; to see them:\n  {command}\n"
    assert tables(paths.out, EXPERIMENT, own) == [("mine", "smoke")] and "no table" not in show(paths, own)[1]


@pytest.mark.parametrize("content", [None, b"", b'{"experiment": "tiny", "pro', b'[1]\n{"experiment": "gone"}\n\xff'])
def test_a_folder_without_a_list_that_can_be_read_has_the_default_tables(paths, content):
    store(paths.records, make_record(RUNS[0], 20.0))
    if content is not None:
        (paths.out / "launched.jsonl").write_bytes(content)
    assert tables(paths.out, make_experiment(data="cifar10")) == []
    assert tables(paths.out, EXPERIMENT) == DEFAULTS


# --------------------------------------------------------------------------------------- runs that SLURM has no part in


@pytest.mark.parametrize(
    ("age", "silence"), [(1, ""), (SILENT_SECONDS + 60, " (silent for 0:06:00)")], ids=["just written", "silent"]
)
def test_a_run_that_a_living_process_has_claimed_is_running(paths, age, silence):
    write(paths, "running", age)
    with claim(paths.work(RUNS[0])):
        text = f": 3/6, 2.0 it/s, test error 40.00 %, 0:00:02 left{silence}"
        assert standings(paths) == {str(RUNS[0]): ("running", text)}
        assert show(paths)[0] == 0 and f"{RUNS[0]}: running{text}\n" in show(paths)[1]


@pytest.mark.parametrize("before", ["stopped", "failed"])
def test_a_claimed_run_of_which_only_its_past_is_known_has_just_started(paths, before):
    write(paths, before, SILENT_SECONDS + 60, "its past")
    with claim(paths.work(RUNS[0])):
        assert stands(paths) == ("running", ", just started")


@pytest.mark.parametrize(
    ("kept", "text"),
    [
        (True, ", 3 of 6 iterations done; the same command goes on from its checkpoint"),
        (False, "; the same command begins it"),
    ],
    ids=["with a checkpoint", "without"],
)
def test_a_run_whose_process_was_killed_is_stopped(paths, kept, text):
    claim(paths.work(RUNS[0])).release()
    write(paths, "running")
    if kept:
        keep_checkpoint(paths)
    assert stands(paths) == ("stopped", text) and show(paths)[0] == 0


def test_a_run_that_was_asked_to_stop_says_where(paths):
    keep_checkpoint(paths)
    said, progress = f"{RUNS[0]} stopped at iteration 3; it can be resumed", Progress(3, 6, 0.1, None, 40.0, 2.0)
    Status("stopped", str(RUNS[0]), time.time(), progress, said).write(paths.work(RUNS[0]))
    assert stands(paths) == ("stopped", ", at iteration 3; the same command goes on from its checkpoint")
    (standing,) = find_standings(paths.out, set())
    assert (standing.as_json()["iteration"], standing.as_json()["iterations"]) == (3, 6)


def test_the_previous_checkpoint_will_do(paths):
    keep_checkpoint(paths)
    (paths.work(RUNS[0]) / checkpoint.NEWEST).rename(paths.work(RUNS[0]) / checkpoint.PREVIOUS)
    write(paths, "stopped")
    assert "goes on from its checkpoint" in stands(paths)[1]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("OSError: disk full\n", ": OSError: disk full"),
        ("", ": "),
        ("".join(f"line {n}\n" for n in range(9)), ": line 4\n  line 5\n  line 6\n  line 7\n  line 8"),
    ],
)
def test_a_failed_run_is_shown_with_its_last_lines(paths, message, text):
    write(paths, "failed", message=message)
    code, shown = show(paths)
    assert stands(paths) == ("failed", text) and text.count("\n") < LAST_LINES
    assert code == 1 and f"{RUNS[0]}: failed{text}\n" in shown


def test_runs_are_in_the_order_of_their_names(paths):
    for run in reversed(RUNS):
        write(paths, "stopped", run=run)
    assert list(standings(paths)) == sorted(str(run) for run in RUNS)


def test_a_run_without_a_record_is_named_after_its_table_and_row(paths):
    first, teacher = EXPERIMENT.rows("smoke")[0], replace(EXPERIMENT.rows("smoke")[0], model="cifar_resnet20")
    recipe = replace(first.recipe, temperature=2.0)
    student = replace(first, key="student", label="a student", recipe=recipe, teacher=teacher)
    experiment = replace(EXPERIMENT, rows=lambda profile: [first, student])
    note_tables(paths.out, [(experiment, Variant("smoke"))])
    unknown = replace(RUNS[0], seed=1_000)
    for run in (RUNS[0], student.run(3), teacher.run(0), unknown):
        write(paths, "stopped", run=run)
    lines = [line.partition(": cifar")[0] for line in show(paths, experiment)[1].splitlines()[1:]]
    named = ["tiny_smoke, ResNet-8", "tiny_smoke, a student", "tiny_smoke, a student, needed by it"]
    assert lines == [f"{unknown}: stopped; the same command begins it", *named]


def test_slurm_is_not_asked_where_nothing_was_submitted(paths, monkeypatch):
    monkeypatch.setattr(queue, "jobs", lambda ids: pytest.fail("asked"))
    write(paths, "stopped")
    assert stands(paths)[0] == "stopped"


def test_what_a_job_killed_after_its_record_left_behind_is_not_shown(paths):
    store(paths.records, make_record(RUNS[0], 20.0))
    write(paths, "running", SILENT_SECONDS + 60)
    assert standings(paths, [RUNS[0].short_id]) == {} and str(RUNS[0]) not in show(paths)[1]


def test_a_status_that_cannot_be_read_is_left_out(paths):
    paths.work(RUNS[0]).mkdir(parents=True)
    (paths.work(RUNS[0]) / "status.json").write_text("{")
    assert show(paths)[0] == 0


def test_a_second_look_needs_neither_torch_nor_the_records_and_sees_every_change(paths, monkeypatch):
    store(paths.records, make_record(RUNS[0], 20.0))
    first = show(paths)
    summarize = recorded.summarize
    monkeypatch.setattr(recorded, "summarize", None)
    assert show(paths) == first
    monkeypatch.setattr(recorded, "summarize", summarize)
    store(paths.records, make_record(RUNS[1], 21.5))
    assert "20.00, 21.50" in show(paths)[1]
    note_tables(paths.out, [(replace(EXPERIMENT, name="other"), Variant("smoke"))])
    assert "other" in show(paths, EXPERIMENT, replace(EXPERIMENT, name="other"))[1]
    record_path(paths.records, RUNS[0]).unlink()
    assert "20.00" not in show(paths)[1]
    script = f"import sys; from reproductions.__main__ import main; main(['status', '--out', {str(paths.out)!r}]); "
    for loaded in True, False:
        done = subprocess.run([sys.executable, "-c", f"{script}print('torch' in sys.modules)"], capture_output=True)
        assert done.stdout.decode().splitlines()[-1] == str(loaded), done.stderr.decode()


def test_a_damaged_record_is_named(paths):
    store(paths.records, make_record(RUNS[0], 20.0))
    path = record_path(paths.records, RUNS[0])
    path.write_text("{")
    code, text = show(paths)
    assert code == 1 and f"damaged record: {path}" in text


# ---------------------------------------------------------------------------------------------- runs submitted to SLURM


@pytest.fixture
def slurm(paths, monkeypatch):
    """Sets what SLURM's queue answers: a list of jobs, each with its state and reason, or None for no answer."""

    def answer(*jobs, silent=False):
        living = {id: QueuedJob(id, state, reason) for id, state, reason in jobs}
        monkeypatch.setattr(
            "reproductions.harness.status.queue.jobs",
            lambda ids: None if silent else {id: job for id, job in living.items() if id in ids},
        )

    monkeypatch.setattr(queue, "ending", lambda job, answers: "TIMEOUT")
    answer()
    return answer


def submit(paths, runs=RUNS, launch="a", array=12, submitted=1.0):
    """Write down a submission of these runs, with a job for each."""
    jobs = {f"{array}_{number}": str(paths.jobs / f"{array}_{number}.err") for number in range(len(runs))}
    names = {run.short_id: str(run) for run in runs}
    Submission(launch, "tiny", jobs, names, 1, submitted).write(paths)


def test_a_run_with_a_job_in_the_queue_is_queued(paths, slurm):
    submit(paths)
    slurm(("12_0", "PENDING", "Priority"), ("12_1", "RUNNING", "None"))
    assert stands(paths, RUNS[0]) == ("queued", ": 12_0 pending (Priority)")
    assert stands(paths, RUNS[1]) == ("queued", ": 12_1 running")
    assert show(paths)[0] == 0


def test_a_requeued_run_is_queued_with_what_is_done(paths, slurm):
    submit(paths)
    write(paths, "running")
    keep_checkpoint(paths)
    slurm(("12_0", "PENDING", "BeginTime"))
    assert stands(paths) == ("queued", ", 3 of 6 iterations done: 12_0 pending (BeginTime)")


def test_any_job_of_the_submission_may_train_a_run_whose_own_has_ended(paths, slurm):
    submit(paths)
    slurm(*((f"12_{number}", "RUNNING", "") for number in range(1, len(RUNS))))
    jobs = [f"12_{number} running" for number in range(1, len(RUNS))]
    assert stands(paths) == ("queued", f": {', '.join(jobs)}")
    submit(paths, EXPERIMENT.runs(Variant("smoke"), 4), array=13, launch="b", submitted=2.0)
    slurm(*((f"13_{number}", "RUNNING", "") for number in range(1, 8)))
    assert stands(paths) == ("queued", ": 13_1 running, 13_2 running, 13_3 running …")


def test_a_submitted_run_that_is_claimed_is_running(paths, slurm):
    submit(paths)
    write(paths, "running")
    slurm(("12_0", "RUNNING", ""))
    with claim(paths.work(RUNS[0])):
        assert stands(paths)[0] == "running"


def test_a_run_that_no_job_is_left_for_is_waiting_and_says_how_its_job_ended(paths, slurm):
    submit(paths)
    paths.jobs.mkdir(parents=True)
    (paths.jobs / "12_0.err").write_text("before\nits last words\n")
    write(paths, "running")
    keep_checkpoint(paths)
    state, text = stands(paths)
    assert state == "waiting" and text.startswith(", 3 of 6 iterations done; no job is left for it (job 12_0 ")
    assert "TIMEOUT" in text and "its last words" in text
    assert text.endswith("; the same command goes on from its checkpoint") and show(paths)[0] == 0
    assert stands(paths, RUNS[1])[1].endswith("; the same command begins it")


def test_slurm_is_asked_once_how_a_job_ended_that_several_runs_have_in_common(paths, monkeypatch):
    asked = []
    monkeypatch.setattr(queue, "jobs", lambda ids: {})
    monkeypatch.setattr(queue, "_run", lambda command: asked.append(command[0]) or "12_0|TIMEOUT|0:0")
    names = {run.short_id: str(run) for run in RUNS}
    Submission("a", "tiny", {"12_0": "log"}, names, len(RUNS), 1.0).write(paths)
    assert {state for state, _ in standings(paths).values()} == {"waiting"} and asked == ["sacct"]


def test_where_slurm_does_not_answer_the_files_alone_tell(paths, slurm, monkeypatch):
    monkeypatch.setattr(queue, "ending", lambda job, answers: pytest.fail("asked, in vain and slowly"))
    submit(paths)
    write(paths, "running", run=RUNS[1])
    keep_checkpoint(paths, RUNS[1])
    write(paths, "failed", message="out of luck", run=RUNS[2])
    write(paths, "running", run=RUNS[3])
    slurm(silent=True)
    with claim(paths.work(RUNS[3])):
        found = standings(paths)
    unknown = "(SLURM's queue does not answer)"
    assert found[str(RUNS[0])] == ("queued", f" as 12_0 or ended {unknown}")
    assert found[str(RUNS[1])] == ("queued", f" as 12_1 or ended, 3 of 6 iterations done {unknown}")
    assert found[str(RUNS[2])] == ("failed", ": out of luck") and found[str(RUNS[3])][0] == "running"


def test_a_failed_run_that_was_submitted_again_is_queued(paths, slurm):
    submit(paths)
    write(paths, "failed", message="out of luck", launch="a")
    slurm(("12_1", "RUNNING", ""), ("13_0", "PENDING", "Resources"))
    assert stands(paths) == ("failed", ": out of luck"), "the jobs of its launch leave it alone"
    submit(paths, RUNS[:1], "b", 13, submitted=2.0)
    assert stands(paths) == ("queued", ": 13_0 pending (Resources)")
    slurm()
    assert stands(paths) == ("failed", ": out of luck"), "nobody has begun it since"


def test_recorded_runs_of_a_submission_are_left_out(paths, slurm):
    submit(paths)
    assert list(standings(paths, [run.short_id for run in RUNS[1:]])) == [str(RUNS[0])]
    assert standings(paths, [run.short_id for run in RUNS]) == {}
