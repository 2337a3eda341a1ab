"""The command line of an experiment, and ``python -m reproductions``: what is trained, said and returned."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from fakes import make_record, store
from tiny import TINY, make_experiment

from reproductions import __main__ as main
from reproductions import cifar_table
from reproductions.harness import cli, launching
from reproductions.harness.experiment import Experiment, Variant
from reproductions.harness.launching.job import Outcome
from reproductions.harness.launching.workplace import Workplace
from reproductions.harness.provenance import ROOT
from reproductions.harness.records import read_pool, record_path
from resnet.recipe import Recipe

TINY_EXPERIMENT = make_experiment()
SMOKE = Variant("smoke")


@pytest.fixture(autouse=True)
def no_published_results(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "PUBLISHED", tmp_path / "published")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "my runs"


@pytest.fixture
def launched(monkeypatch):
    """A launcher that only takes note of the runs it is given; returns the list of its launches."""
    launches = []

    def launch(runs, place, display, options):
        launches.append(runs)
        return Outcome({})

    monkeypatch.setattr(launching, "choose", lambda name: ("inline" if name == "auto" else name, launch))
    return launches


def run(out, *arguments, experiment=TINY_EXPERIMENT):
    """The exit status of the smoke profile with one seed, unless the arguments say otherwise."""
    return cli.run_experiment(experiment, ["--profile", "smoke", "--seeds", "1", "--out", str(out), *arguments])


def damage(out, number=0):
    """Edit the record of the tiny experiment's row of that number; returns its path."""
    path = record_path(out / "records", TINY_EXPERIMENT.runs(SMOKE, 1)[number])
    path.write_text(path.read_text().replace('"interruptions": 0', '"interruptions": 5'))
    return path


# ---------------------------------------------------------------------------------------------------------- whole runs


def test_the_smoke_profile_trains_every_run_and_ends_with_a_table(out, capsys):
    rows = make_experiment(depths=(8,)).rows
    experiment = Experiment("tiny", "Tiny nets", "no paper", rows, cifar_table.report)
    assert run(out, "--seeds", "2", experiment=experiment) == 0
    printed = capsys.readouterr()
    pool = read_pool(out / "records")
    assert len(pool.records) == 2 and {r["status"] for r in pool.records.values()} == {"completed"}
    assert {r["versions"]["torch"] for r in pool.records.values()} == {torch.__version__}
    table = (out / "tables" / "tiny_smoke.md").read_text()
    assert table in printed.out and "synthetic data, not comparable with the paper" in table
    assert "ResNet-8" in table and "n = 2" in table
    assert {path.name for path in (out / "plots").iterdir()} >= {"tiny_smoke_depth.png", "tiny_smoke_curves.svg"}
    assert "done 2/2" in printed.err
    assert len(list((out / "weights").iterdir())) == 2
    assert not list((out / "work").rglob("checkpoint*")), "a finished run needs no checkpoint"


def test_a_second_launch_trains_only_what_has_no_record(out, launched, capsys):
    first, second = TINY_EXPERIMENT.runs(SMOKE, 1)
    store(out / "records", make_record(first, 20.0))
    run(out)
    store(out / "records", make_record(second, 20.0))
    assert run(out) == 0
    assert launched == [[second], []]
    assert "2 runs, 2 already recorded" in capsys.readouterr().err


def test_chosen_rows_alone_are_trained(out, launched):
    run(out, "--rows", "resnet14", "--seeds", "3")
    assert [(r.model, r.seed) for r in launched[0]] == [("cifar_resnet14", seed) for seed in range(3)]


def test_a_launch_that_leaves_a_run_without_record_is_no_success(out, launched):
    assert run(out) == 1


def test_one_failing_run_does_not_stop_the_others_and_its_traceback_is_shown(out, capsys):
    failing, other = TINY_EXPERIMENT.runs(SMOKE, 1)
    (Workplace(out, out).work(failing) / "starts.json").mkdir(parents=True)
    assert run(out) == 1
    printed = capsys.readouterr()
    assert list(read_pool(out / "records").records) == [other.identity]
    assert f"failed: {failing}" in printed.err and "Traceback" in printed.err and "IsADirectoryError" in printed.err
    assert "resnet14: 1 of 1" in printed.out
    assert "failed" in status(out, capsys)


def test_a_damaged_record_is_named_and_not_trained_over(out, launched, capsys):
    store(out / "records", *(make_record(r, 20.0) for r in TINY_EXPERIMENT.runs(SMOKE, 1)))
    path = damage(out)
    before = path.read_bytes()
    assert run(out) == 1
    printed = capsys.readouterr()
    assert str(path) in printed.err and "Move the file away" in printed.err
    assert launched == [[]] and path.read_bytes() == before
    assert "resnet8: 0 of 1" in printed.out


def test_an_interrupted_launch_says_how_to_go_on(out, monkeypatch, capsys):
    def launch(runs, place, display, options):
        return Outcome({}, "stopped at iteration 3")

    monkeypatch.setattr(launching, "choose", lambda name: ("inline", launch))
    assert run(out) == 130
    assert "stopped at iteration 3.\nThe same command goes on" in capsys.readouterr().err


def test_a_second_ctrl_c_ends_at_once_without_a_traceback(out, monkeypatch, capsys):
    def launch(runs, place, display, options):
        raise KeyboardInterrupt

    monkeypatch.setattr(launching, "choose", lambda name: ("inline", launch))
    assert run(out) == 130
    assert "goes on from the last checkpoints" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "long"], "invalid choice: 'long'"),
        (["--launcher", "cloud"], "invalid choice: 'cloud'"),
        (["--rows", "resnet8,resnet9"], "no row resnet9; its rows are: resnet8, resnet14"),
        (["--rows", " , "], "no row is named"),
        (["--seeds", "0"], "'0' is not a whole number of at least 1"),
        (["--seeds", "-1"], "not a whole number"),
        (["--seeds", "1.5"], "not a whole number"),
        (["--train-images", "2001"], "synthetic has 2000 training images, so 2001 can't be used"),
        (["--precision", "fp8"], "invalid choice: 'fp8'"),
        (["--checkpoint-seconds", "nan"], "not a number of seconds above 0"),
        (["--checkpoint-seconds", "-1"], "not a number of seconds above 0"),
        (["--epochs", "3"], "unrecognized arguments"),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(out, launched, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        run(out, *arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert not launched and not out.exists()


@pytest.mark.parametrize(("flag", "value"), [("--slots", "2"), ("--slurm-profile", "example")])
def test_a_flag_that_the_launcher_would_ignore_is_refused(out, launched, capsys, flag, value):
    assert run(out, flag, value) == 2
    assert f"{flag} has no meaning for the inline launcher" in capsys.readouterr().err and not launched


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_trained(tmp_path, launched, capsys):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "runs") == 2
    assert f"{tmp_path / 'file' / 'runs'} can't be written to" in capsys.readouterr().err and not launched


def test_missing_data_are_refused_with_what_to_do(out, tmp_path, launched, monkeypatch, capsys):
    def no_network(self):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", no_network)
    assert run(out, "--data", str(tmp_path / "empty"), experiment=make_experiment(data="cifar10")) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "empty") in said and "no network" in said and "--data" in said and not launched


def test_a_damaged_archive_is_refused_by_its_name(out, tmp_path, launched, capsys):
    (tmp_path / "cifar10.npz").write_bytes(b"PK\x03\x04 and nothing more")
    assert run(out, "--data", str(tmp_path), experiment=make_experiment(data="cifar10")) == 2
    assert f"{tmp_path / 'cifar10.npz'} is damaged" in capsys.readouterr().err and not launched


# ------------------------------------------------------------------------------------------- paper profile without GPU


PAPER = make_experiment(Recipe(batch_size=8))  # 64,000 iterations


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_paper_profile_without_a_gpu_stops_with_days_and_commands(out, no_gpu, launched, capsys):
    assert run(out, "--profile", "paper", experiment=PAPER) == 2
    said = capsys.readouterr().out
    assert re.search(r"would take \d+\.\d days", said)
    assert re.search(r"1 x cifar_resnet14 at [\d,]+ images per second \(measured now on ", said)
    for command in ("PROFILE=smoke", "PROFILE=short", "LAUNCHER=slurm", "make report", "--yes"):
        assert command in said
    assert not launched and not out.exists()


def test_yes_overrides(out, no_gpu, launched):
    run(out, "--profile", "paper", "--yes", experiment=PAPER)
    assert len(launched[0]) == 2


def test_a_cluster_needs_no_gpu_here(out, no_gpu, launched):
    run(out, "--profile", "paper", "--launcher", "slurm", experiment=PAPER)
    assert len(launched[0]) == 2


# -------------------------------------------------------------------------------------------------------------- dry run


def test_a_dry_run_lists_runs_and_cost_and_trains_nothing(out, launched, capsys):
    first, second = TINY_EXPERIMENT.runs(SMOKE, 2, ["resnet8"])
    store(out / "records", make_record(first, 20.0))
    assert run(out, "--dry-run", "--seeds", "2", "--rows", "resnet8") == 0
    said = capsys.readouterr().out
    assert re.search(r"resnet8 seed 0[^│]*│ recorded", said)
    assert re.search(r"resnet8 seed 1[^│]*│ to be trained +│ [\d,]+ ", said)
    assert re.search(r"1 of 2 runs to be trained: \d+\.\d\d [CG]PU-hours", said)
    assert not launched and not (out / "work").exists()


def test_a_dry_run_for_a_cluster_takes_the_rate_of_gpu_records(out, launched, capsys):
    recorded, other = TINY_EXPERIMENT.runs(SMOKE, 2, ["resnet8"])
    timing = {"images_per_second": 1000.0, "wall_seconds": 200.0, "train_seconds": 100.0}
    store(out / "records", make_record(recorded, 20.0, timing=timing))
    long = replace(TINY, iterations=450_000, milestones=())  # x 8 images x 2 for the overhead: 2 hours
    experiment = make_experiment(long)
    assert run(out, "--dry-run", "--launcher", "slurm", experiment=experiment) == 0
    said = capsys.readouterr().out
    assert "2 of 2 runs to be trained: 2.00 GPU-hours for 1 of them" in said
    assert "cifar_resnet8: 1 records on NVIDIA H200" in said and "not measured" in said


def test_a_dry_run_shows_a_damaged_record(out, launched, capsys):
    store(out / "records", *(make_record(r, 20.0) for r in TINY_EXPERIMENT.runs(SMOKE, 1)))
    damage(out)
    assert run(out, "--dry-run") == 0
    assert "damaged record" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- python -m reproductions


def status(out, capsys):
    main.main(["status", "--out", str(out)])
    return capsys.readouterr().out


def test_list_names_every_experiment_with_its_target_and_rows(capsys):
    assert main.main(["list"]) == 0
    said = capsys.readouterr().out
    assert "make reproduce-cifar-table    rows: resnet20 resnet32 resnet44 resnet56 resnet110" in said
    assert "make reproduce-degradation    rows: plain20" in said and "Table 6" in said


def test_every_listed_target_is_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for experiment in main.EXPERIMENTS:
        assert f"{experiment.target}: " in makefile
        assert f"reproductions.{experiment.name} $(FLAGS)" in makefile


def test_publish_reports_what_it_refuses(out, capsys):
    store(out / "records", make_record(TINY_EXPERIMENT.runs(SMOKE, 1)[0], 20.0))
    assert main.main(["publish", "--out", str(out)]) == 1
    assert "it is from synthetic data" in capsys.readouterr().out


def test_report_and_check_work_from_any_folder(tmp_path, monkeypatch, capsys):
    root = tmp_path / "repository"
    run = cifar_table.rows("short")[0].run(0)
    store(root / "results" / "records", make_record(run, 30.0))
    monkeypatch.setattr(main, "ROOT", root)
    monkeypatch.setattr(main, "PUBLISHED", root / "results")
    monkeypatch.chdir(tmp_path)
    assert main.main(["report"]) == 0
    said = capsys.readouterr().out
    assert "wrote results/tables/cifar_table_short.md" in said and "CIFAR-10 test error of residual nets" in said
    assert main.main(["check"]) == 1
    assert "is not in this repository" in capsys.readouterr().out


def test_an_experiment_is_a_script_that_can_be_run_from_any_folder(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "reproductions.degradation", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "python -m reproductions.degradation" in done.stdout and not list(tmp_path.iterdir())
