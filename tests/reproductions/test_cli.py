"""The command line of an experiment, and ``python -m reproductions``: what is trained, said and returned."""

import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from fakes import make_record, store
from tiny import TINY, make_experiment

from reproductions import __main__ as main
from reproductions import cifar_table, commands
from reproductions.harness import cli, launching, preflight
from reproductions.harness.experiment import Experiment, Variant
from reproductions.harness.launched import launched_tables
from reproductions.harness.launching import cost
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.slurm import queue
from reproductions.harness.launching.slurm.cluster_profile import load_cluster_profile
from reproductions.harness.launching.slurm.submissions import Submission
from reproductions.harness.launching.worker import Outcome
from reproductions.harness.provenance import ROOT
from reproductions.harness.record_files import record_path
from reproductions.harness.records import SCHEMA, read_pool
from resnet.recipe import Recipe

TINY_EXPERIMENT = make_experiment()
SMOKE = Variant("smoke")


pytestmark = pytest.mark.usefixtures("published")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "my runs"


class Launches(list):
    """The runs of each launch, the options of the last one, and what a launch comes to."""

    options: Options
    outcome = Outcome({})

    def launch(self, runs, paths, display, options):
        self.append(runs)
        self.options = options
        return self.outcome


@pytest.fixture
def launched(monkeypatch):
    """A launcher, with any name, that only takes note of what it is given."""
    launches = Launches()
    monkeypatch.setattr(
        launching, "choose", lambda name, device, runs: ("inline" if name == "auto" else name, launches.launch)
    )
    return launches


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def old_gpu(monkeypatch):
    """A GPU without bf16, as far as torch tells; returns its name."""
    name = "NVIDIA Tesla V100"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: name)
    return name


def run(out, *arguments, experiment=TINY_EXPERIMENT):
    """The exit status of the smoke profile with one seed, unless the arguments say otherwise."""
    defaults = ["--profile", "smoke", "--seeds", "1", "--out", str(out)]
    defaults += [] if "--launcher" in arguments else ["--launcher", "inline"]
    return cli.run_experiment(experiment, [*defaults, *arguments])


def store_edited(out, old, new):
    """Store the records of the tiny experiment, and edit the first one; returns its path."""
    store(out / "records", *(make_record(r, 20.0) for r in TINY_EXPERIMENT.runs(SMOKE, 1)))
    path = record_path(out / "records", TINY_EXPERIMENT.runs(SMOKE, 1)[0])
    path.write_text(path.read_text().replace(old, new))
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
    assert [v for _, v in launched_tables([experiment], out, pool)] == [SMOKE]
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


def test_one_failing_run_does_not_stop_the_others_and_why_is_shown(out, capsys):
    failing, other = TINY_EXPERIMENT.runs(SMOKE, 1)
    RunPaths(out, out).weights(failing).mkdir(parents=True)
    assert run(out) == 1
    printed = capsys.readouterr()
    assert list(read_pool(out / "records").records) == [other.identity]
    assert f"failed: {failing}\n[Errno 21] Is a directory" in printed.err and "Traceback" not in printed.err
    assert "resnet14: 1 of 1" in printed.out
    said = status(out, capsys)
    assert f"{failing}: failed: [Errno 21] Is a directory" in said


def test_a_damaged_record_is_named_and_not_trained_over(out, launched, capsys):
    path = store_edited(out, '"interruptions": 0', '"interruptions": 5')
    before = path.read_bytes()
    assert run(out) == 1
    printed = capsys.readouterr()
    assert str(path) in printed.err and "Move the file away" in printed.err
    assert launched == [[]] and path.read_bytes() == before
    assert "resnet8: 0 of 1" in printed.out


def test_a_record_of_newer_code_is_not_called_damaged_nor_moved_away(out, launched, capsys):
    path = store_edited(out, f'"schema": {SCHEMA}', f'"schema": {SCHEMA + 1}')
    assert run(out) == 1 and launched == [[]]
    said = capsys.readouterr().err
    assert f"newer record: {path} was written by newer code: its schema is {SCHEMA + 1}" in said
    assert "Update the code to use it." in said and "damaged" not in said and "Move" not in said
    assert run(out, "--dry-run") == 0 and "newer record" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--minutes", "1"]], ids=["one table", "minutes"])
def test_a_launch_says_before_it_trains_why_its_records_can_not_be_published(
    out, launched, monkeypatch, capsys, tmp_path, flags
):
    monkeypatch.setattr(preflight.provenance, "why_unpublishable", lambda code: "git says: no")
    run(out, *flags)
    assert "these records can't be published: git says: no. Training goes on." in capsys.readouterr().err and launched
    monkeypatch.setattr(preflight.provenance, "why_unpublishable", lambda code: "")
    run(out, *flags)
    assert "can't be published" not in capsys.readouterr().err


def test_an_interrupted_launch_says_how_to_go_on(out, launched, capsys):
    launched.outcome = Outcome({}, "stopped at iteration 3")
    assert run(out) == 130
    assert "stopped at iteration 3.\nThe same command goes on" in capsys.readouterr().err


def test_a_second_ctrl_c_ends_at_once_without_a_traceback(out, launched, monkeypatch, capsys):
    monkeypatch.setattr(launched, "launch", Mock(side_effect=KeyboardInterrupt))
    assert run(out) == 130
    assert "goes on from the last checkpoints" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------- what the launcher is told


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", Options(max_starts=5)),
        ("--pack auto", Options()),
        ("--launcher local --slots 3 --pack 2 --device cpu --max-starts 4",
         Options(slots=3, pack=2, device="cpu", max_starts=4)),
        ("--launcher slurm --slurm-profile example --detach",
         Options(slurm=load_cluster_profile("example"), detach=True)),
        ("--launcher slurm --device cuda", Options(device="cuda")),  # a cluster's is not looked for here
    ],
)  # fmt: skip
def test_a_launcher_is_told_what_the_flags_say(out, no_gpu, launched, flags, expected):
    run(out, *flags.split())
    assert launched.options == replace(expected, experiment="tiny")


def test_the_device_and_the_runs_decide_which_launcher_auto_is(out, launched, monkeypatch):
    asked = []
    monkeypatch.setattr(launching, "choose", lambda *names: asked.append(names) or ("inline", launched.launch))
    run(out, "--device", "cpu", "--launcher", "auto")
    assert asked == [("auto", "cpu", 2)]
    run(out, "--device", "cpu", "--launcher", "auto", "--slots", "2")
    assert asked[1] == ("local", "cpu", 2), "however few runs are left"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--pack", "4"], ", which trains one run at a time in spite of --pack"),
        (["--pack", "1"], ""),
        (["--pack", "auto"], ""),
        ([], ""),
    ],
)
def test_packing_that_was_asked_for_is_said_to_have_no_effect_on_a_processor(out, launched, capsys, flags, said):
    run(out, "--device", "cpu", *flags)
    assert f"inline launcher on the CPU{said}, records in" in capsys.readouterr().err


def test_training_on_a_processor_says_why_unless_it_was_asked_for(out, no_gpu, launched, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "why_no_cuda", lambda: "no driver")
    run(out)
    assert "inline launcher on the CPU (no CUDA GPU: no driver), records in" in capsys.readouterr().err
    run(out, "--device", "cpu")
    assert "no driver" not in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "long"], "invalid choice: 'long'"),
        (["--launcher", "cloud"], "invalid choice: 'cloud'"),
        (["--rows", "resnet8,resnet9"], "no row resnet9 in the smoke profile; available rows: resnet8, resnet14"),
        (["--rows", " , "], "no row is named"),
        (["--seeds", "0"], "'0' is not a whole number of at least 1"),
        (["--seeds", "-1"], "not a whole number"),
        (["--seeds", "1.5"], "not a whole number"),
        (["--train-images", "2001"], "synthetic has 2000 training images, so 2001 can't be used"),
        (["--precision", "fp8"], "invalid choice: 'fp8'"),
        (["--checkpoint-seconds", "nan"], "not a number above 0"),
        (["--checkpoint-seconds", "-1"], "not a number above 0"),
        (["--minutes", "ten"], "'ten' is not a number above 0"),
        (["--datase", "cifar100"], "unrecognized arguments: --datase"),
        (["--sweep", "learning_rate=0.1,0.2", "--train-images", "2000"], "2000 holds out no images to rank a sweep by"),
        (["--pack", "0"], "'0' is not a whole number of at least 1"),
        (["--pack", "many"], "'many' is not a whole number"),
        (["--max-starts", "0"], "'0' is not a whole number of at least 1"),
        (["--slots", "0"], "'0' is not a whole number of at least 1"),
        (["--epochs", "3"], "unrecognized arguments"),
        (["--data", ""], "no path is named"),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(out, launched, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        run(out, *arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said
    assert said.startswith("python -m reproductions.tiny: error: ") and said.endswith("\n--help lists the flags\n")
    assert not launched and not out.exists()


def test_a_path_in_the_home_folder_is_found_where_the_shell_left_the_tilde(out, launched, monkeypatch):
    monkeypatch.setenv("HOME", str(out.parent / "home"))
    assert cli.parse(TINY_EXPERIMENT, ["--out=~/runs", "--data=~nobody-here/x"]).out == out.parent / "home" / "runs"


@pytest.mark.parametrize(
    ("launcher", "flag", "value"),
    [
        ("inline", "--slots", ["2"]),
        ("slurm", "--slots", ["2"]),
        ("inline", "--slurm-profile", ["example"]),
        ("local", "--slurm-profile", ["example"]),
        ("inline", "--detach", []),
        ("local", "--detach", []),
        ("inline", "--max-starts", ["2"]),
        ("local", "--device", ["cuda:1"]),
    ],
)
def test_a_flag_that_the_launcher_would_ignore_is_refused(out, launched, capsys, launcher, flag, value):
    assert run(out, "--launcher", launcher, flag, *value) == 2
    said = capsys.readouterr().err
    assert re.search(rf"{flag} (cuda:1 )?has no meaning for the {launcher} launcher", said) and not launched


@pytest.mark.parametrize("name", ["gpu0", "cuda:7", "cuda", "CPU", ""])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(out, no_gpu, launched, monkeypatch, capsys, name):
    monkeypatch.setattr("resnet.device.why_no_cuda", lambda: "no driver")
    assert run(out, "--device", name) == 2
    said = capsys.readouterr().err
    assert f"there is no device {name!r}; available devices: cpu (no CUDA GPU: no driver)" in said and not launched


def test_bf16_on_a_gpu_without_it_is_refused_before_anything_is_trained(out, old_gpu, launched, capsys):
    assert run(out, "--precision", "bf16") == 2
    assert f"{old_gpu} does not support bf16" in capsys.readouterr().err and not launched
    run(out)
    assert f"inline launcher on {old_gpu}, records in" in capsys.readouterr().err and launched


def test_an_unknown_cluster_profile_is_refused_with_those_there_are(out, launched, capsys):
    assert run(out, "--launcher", "slurm", "--slurm-profile", "nowhere") == 2
    said = capsys.readouterr().err
    assert "'nowhere'" in said and "example" in said and not launched


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_trained(tmp_path, launched, capsys):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "runs") == 2
    assert f"{tmp_path / 'file' / 'runs'} can't be written to" in capsys.readouterr().err and not launched


@pytest.mark.parametrize("name", ["records", "work"])
def test_a_folder_in_it_that_cannot_be_written_to_is_refused_too(out, launched, capsys, monkeypatch, name):
    (out / name).mkdir(parents=True)
    temporary = tempfile.TemporaryFile

    def denied(*arguments, dir, **more):
        if dir == out / name:
            raise PermissionError(13, "Permission denied", str(dir))
        return temporary(*arguments, dir=dir, **more)

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    assert run(out) == 2 and not launched
    said = capsys.readouterr().err
    assert f"{out} can't be written to ([Errno 13] Permission denied: '{out / name}')" in said and "--out" in said


@pytest.mark.parametrize("command", ["status", "publish", "export", "train", "within"])
def test_records_that_cannot_be_read_are_refused_by_every_command_in_a_line(
    tmp_path, launched, capsys, monkeypatch, command
):
    scandir = os.scandir

    def denied(folder):
        if str(folder) == str(tmp_path / "records"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    if command in ("train", "within"):
        code = run(tmp_path, *(["--minutes", "1"] if command == "within" else []))
    else:
        code = main.main([command, "--out", str(tmp_path)])
    printed = capsys.readouterr()
    said = f"{tmp_path / 'records'} can't be read (Permission denied); have it made readable for this user, or name"
    assert code == 2 and said in printed.out + printed.err and not launched


def test_missing_data_are_refused_with_what_to_do(out, tmp_path, launched, monkeypatch, capsys):
    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", Mock(side_effect=OSError("no network")))
    assert run(out, "--data", str(tmp_path / "empty"), experiment=make_experiment(data="cifar10")) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "empty") in said and "no network" in said and "--data" in said and not launched


def test_a_damaged_archive_is_refused_by_its_name(out, tmp_path, launched, capsys):
    (tmp_path / "cifar10.npz").write_bytes(b"PK\x03\x04 and nothing more")
    assert run(out, "--data", str(tmp_path), experiment=make_experiment(data="cifar10")) == 2
    assert f"{tmp_path / 'cifar10.npz'} is damaged" in capsys.readouterr().err and not launched


# ------------------------------------------------------------------------------------------- paper profile without GPU


PAPER = make_experiment(Recipe(iterations=640_000))


def test_the_paper_profile_without_a_gpu_stops_with_days_and_commands(out, no_gpu, launched, capsys):
    assert run(out, "--profile", "paper", experiment=PAPER) == 2
    said = capsys.readouterr().out
    assert re.search(r"would take \d+\.\d days", said)
    assert re.search(r"1 x cifar_resnet14 at [\d,]+ images per second \(measured now on ", said)
    for command in ("PROFILE=smoke", "PROFILE=short", "LAUNCHER=slurm", "make report", "--yes"):
        assert command in said
    assert not launched and not out.exists()


def test_a_processor_that_was_asked_for_is_refused_all_the_same(out, launched, capsys):
    assert run(out, "--profile", "paper", "--device", "cpu", experiment=PAPER) == 2
    said = capsys.readouterr().out
    assert re.search(r"The paper profile on the CPU would take \d+\.\d days", said) and not launched


@pytest.mark.parametrize(("slots", "days"), [(1, 2.0), (2, 1.0), (64, 1.0)])
def test_slots_share_the_cores_that_there_are(out, no_gpu, launched, monkeypatch, capsys, slots, days):
    monkeypatch.setattr(preflight, "available_cores", lambda: 2)
    rate = cost.Rate(2 * 640_000 * 128 / (2 * 86400), 1.0, "made up")  # so that the two runs take two days
    monkeypatch.setattr(cost, "measured_rate", lambda *_: rate)
    flags = ("--profile", "paper", "--launcher", "local", "--device", "cpu", "--slots", str(slots))
    assert run(out, *flags, "--seeds", "1", experiment=PAPER) == 2
    assert f"would take {days} days" in capsys.readouterr().out and not launched


@pytest.mark.parametrize(
    ("flags", "experiment"),
    [([], make_experiment(TINY)), (["--yes"], PAPER), (["--launcher", "slurm"], PAPER)],
    ids=["minutes on a CPU", "--yes", "a cluster"],
)
def test_the_paper_profile_without_a_gpu_is_not_refused_for(out, no_gpu, launched, flags, experiment):
    run(out, "--profile", "paper", *flags, experiment=experiment)
    assert len(launched[0]) == 2


# -------------------------------------------------------------------------------------------------------------- dry run


def test_a_dry_run_lists_runs_and_cost_and_trains_nothing(out, launched, capsys):
    first, second = TINY_EXPERIMENT.runs(SMOKE, 2, ["resnet8"])
    store(out / "records", make_record(first, 20.0))
    assert run(out, "--dry-run", "--seeds", "2", "--rows", "resnet8") == 0
    said = capsys.readouterr().out
    assert re.search(r"│ ResNet-8 +│ cifar_resnet8 seed 0[^│]*│ recorded", said)
    assert re.search(r"│ ResNet-8 +│ cifar_resnet8 seed 1[^│]*│ to be trained +│ [\d,]+ ", said)
    assert re.search(r"1 of 2 runs to be trained: [\d.]+ [CG]PU-minutes", said)
    assert not launched and not (out / "work").exists()


def test_a_dry_run_counts_the_hours_of_the_device_asked_for(out, launched, capsys):
    assert run(out, "--dry-run", "--rows", "resnet8", "--device", "cpu") == 0
    assert re.search(r"1 of 1 run to be trained: [\d.]+ CPU-minutes", capsys.readouterr().out)


def test_a_dry_run_of_the_local_queue_measures_with_the_threads_of_a_slot(out, launched, capsys, monkeypatch):
    measured = []
    monkeypatch.setattr("reproductions.harness.launching.slots.available_cores", lambda: 6)
    monkeypatch.setattr(cost, "measured_rate", lambda *_: measured.append(torch.get_num_threads()))
    flags = ("--dry-run", "--seeds", "5", "--rows", "resnet8", "--device", "cpu", "--launcher", "local")
    assert run(out, *flags, "--slots", "3") == 0
    assert "5 of 5 runs to be trained, in a time that is not known" in capsys.readouterr().out
    assert run(out, *flags) == 0
    assert measured == [2, 1]
    monkeypatch.setattr("reproductions.harness.launch.available_cores", lambda: 6)
    monkeypatch.setattr(cost, "measured_rate", lambda *_: cost.Rate(1.0, 1000.0, "guessed"))  # x 6 x 8 images
    assert run(out, *flags, "--slots", "3") == 0
    assert "5 of 5 runs to be trained: 67 CPU-hours for 5 of them, about 22 hours in 3 slots" in capsys.readouterr().out


def test_a_dry_run_for_a_cluster_takes_the_rate_of_gpu_records(out, launched, capsys):
    recorded, other = TINY_EXPERIMENT.runs(SMOKE, 2, ["resnet8"])
    timing = {"images_per_second": 1000.0, "wall_seconds": 200.0, "train_seconds": 100.0}
    store(out / "records", make_record(recorded, 20.0, timing=timing))
    long = replace(TINY, iterations=450_000, milestones=())  # x 8 images x 2 for the overhead: 2 hours
    experiment = make_experiment(long)
    assert run(out, "--dry-run", "--launcher", "slurm", experiment=experiment) == 0
    said = capsys.readouterr().out
    assert re.search(r"2 of 2 runs to be trained: \d\.\d\d GPU-hours for 2 of them\n2 jobs with 1 GPU each\n", said)
    assert "2.00 hours" in said and "cifar_resnet8, batch 8: 1 record on NVIDIA H200" in said
    assert "cifar_resnet14, batch 8: estimated by multiply-adds" in said
    others = make_experiment(long, depths=(20, 32))
    assert run(out, "--dry-run", "--launcher", "slurm", "--pack", "2", experiment=others) == 0
    said = capsys.readouterr().out
    assert "for 2 of them\n1 job with 1 GPU each\n" in said, "by the rate of a net of another table"


# ------------------------------------------------------------------------------------------ a script with two data sets

TWO = {
    "first": make_experiment(depths=(8,)),
    "second": replace(make_experiment(depths=(14,)), name="tiny_second", script="tiny", dataset="second",
                      seeds={"paper": 3, "short": 2, "smoke": 1}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "models"),
    [([], ["cifar_resnet8"]), (["--dataset", "first"], ["cifar_resnet8"]), (["--dataset=second"], ["cifar_resnet14"])],
)
def test_the_dataset_chooses_the_experiment(out, launched, arguments, models):
    run(out, *arguments, experiment=TWO)
    assert [r.model for r in launched[0]] == models
    assert launched.options.experiment == ("tiny_second" if "--dataset=second" in arguments else "tiny")


def test_an_unknown_dataset_is_refused_and_one_experiment_takes_none(out, launched, capsys):
    for experiment, complaint in ((TWO, "invalid choice: 'third'"), (TINY_EXPERIMENT, "unrecognized arguments")):
        with pytest.raises(SystemExit) as ended:
            run(out, "--dataset", "third", experiment=experiment)
        assert ended.value.code == 2 and complaint in capsys.readouterr().err
    assert not launched


def test_help_names_the_data_sets_and_the_seeds_of_the_one_chosen(capsys):
    for arguments, seeds in (
        ([], "paper 5, short 5, smoke 2"),
        (["--dataset", "second"], "paper 3, short 2, smoke 1"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.run_experiment(TWO, [*arguments, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert ended.value.code == 0 and "--dataset {first,second}" in said and seeds in said
        assert "python -m reproductions.tiny " in said


# ---------------------------------------------------------------------------------------------- python -m reproductions


def status(out, capsys):
    main.main(["status", "--out", str(out)])
    return capsys.readouterr().out


def test_list_names_every_experiment_with_its_target_and_rows(capsys):
    assert main.main(["list"]) == 0
    said = capsys.readouterr().out
    assert "make reproduce-cifar-table    rows: resnet20 resnet32 resnet44 resnet56 resnet110; on request" in said
    assert "make reproduce-degradation    rows: plain20" in said and "Table 6" in said


def dry_make(*arguments):
    """Return the commands that make would run, without running them."""
    command = ["make", "--dry-run", "--always-make", "--old-file=.venv/.installed", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def would_run(*arguments):
    """Return the scripts that make would run, each with its flags, without running them."""
    found = re.findall(r"-m reproductions\.([\w.]+)([^;|\n]*)", dry_make(*arguments).replace("\\\n", " "))
    return [(script, " ".join(flags.split())) for script, flags in found]


def test_a_switch_that_is_off_and_a_variable_that_does_not_exist():
    assert would_run("reproduce-degradation", "DRY_RUN=0", "YES=No") == [("degradation", "")]
    assert would_run("reproduce-degradation", "DRY_RUN=1", "YES=yes") == [("degradation", "--yes --dry-run")]
    made = subprocess.run(["make", "--dry-run", "list", "SEED=3"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode and "there is no variable SEED; the variables are: PROFILE" in made.stderr


@pytest.mark.parametrize(
    ("target", "given", "unread"),
    [
        ("publish", ["OUT=runs", "DRY_RUN=1"], "DRY_RUN"),
        ("export", ["DATASET=cifar100"], "DATASET"),
        ("reproduce-all", ["MINUTES=5", "PROFILE=smoke", "ROWS=resnet20"], "PROFILE ROWS"),
        ("bench", ["DEVICE=cpu"], "DEVICE"),
    ],
)
def test_a_variable_that_the_target_does_not_read_is_refused(target, given, unread):
    made = subprocess.run(["make", "--dry-run", target, *given], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode and f"make {target} does not read {unread};" in " ".join(made.stderr.split())


def test_every_listed_target_is_in_the_makefile():
    for experiment in commands.EXPERIMENTS:
        dataset = f"--dataset {experiment.dataset}" if experiment.dataset else ""
        ((script, flags),) = would_run(*experiment.target.split(), "PROFILE=smoke")
        assert script == experiment.module
        assert flags.replace("'", "") == f"--profile smoke {dataset}".strip()


def test_one_target_makes_all_tables_of_bag_of_tricks_one_after_another(monkeypatch):
    made = would_run("reproduce-bag-of-tricks", "DATASET=imagenet", "PROFILE=smoke")
    assert made == [("bag_of_tricks", "--profile 'smoke' --dataset 'imagenet'")]
    names, statuses = [], iter([0, 0, 0, 0, 1])
    monkeypatch.setattr(cli, "run_experiment", lambda own: names.append(own["imagenet"].script) or next(statuses))
    for expected in (0, 1):  # one that fails ends it
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("reproductions.bag_of_tricks", run_name="__main__")
        assert ended.value.code == expected
    assert names == [f"bag_of_tricks_{t}" for t in ("efficient", "tweaks", "refinements", "efficient", "tweaks")]


def test_one_target_makes_every_table():
    made = would_run("reproduce-all", "SEEDS=3")
    assert all(flags.startswith("--seeds '3'") for _, flags in made)
    of_papers = [e for e in commands.EXPERIMENTS if e.dataset != "cifar100"]
    everything = {(e.module, f"--dataset {e.dataset}" if e.dataset else "") for e in of_papers}
    assert {(script, flags.removeprefix("--seeds '3'").strip()) for script, flags in made} == everything
    assert len(made) == len(of_papers)


LIVING = {id: queue.QueuedJob(id, "PENDING", "Priority") for id in ("12_0", "12_1", "14")}


@pytest.fixture
def submitted(out, monkeypatch):
    """Jobs of two experiments in a queue where some have ended; returns the list of cancelled ones."""
    arrays = {"cifar_table": ["12_0", "12_1", "13_0"], "degradation": ["14"]}
    for experiment, jobs in arrays.items():
        logs = {job: "log" for job in jobs}
        Submission(experiment, experiment, logs, {"a": "run"}, 1, time.time()).write(RunPaths(out, out))
    cancelled = []
    monkeypatch.setattr(queue, "check_reachable", lambda: None)
    monkeypatch.setattr(queue, "jobs", lambda ids: {id: job for id, job in LIVING.items() if id in ids})
    monkeypatch.setattr(queue, "cancel", lambda ids: cancelled.extend(ids))
    return cancelled


def test_cancel_cancels_the_living_jobs_of_one_experiment(out, submitted, capsys):
    assert main.main(["cancel", "cifar_table", "--out", str(out)]) == 0
    assert sorted(submitted) == ["12_0", "12_1"]
    assert "cancelled 2 jobs of cifar_table: 12_0, 12_1; a launch continues" in capsys.readouterr().out


def test_cancel_says_when_there_is_nothing_to_cancel(out, submitted, monkeypatch, tmp_path, capsys):
    assert main.main(["cancel", "cifar_table", "--out", str(tmp_path / "elsewhere")]) == 0
    assert f"cifar_table has no jobs from {tmp_path / 'elsewhere'}" in capsys.readouterr().out
    monkeypatch.setattr(queue, "jobs", lambda ids: {})
    assert main.main(["cancel", "cifar_table", "--out", str(out)]) == 0
    assert f"cifar_table has no jobs from {out}" in capsys.readouterr().out and not submitted


def refuse(*arguments):
    raise ValueError("in SLURM's words: no")


@pytest.mark.parametrize(
    ("function", "answer", "said"),
    [
        ("check_reachable", refuse, "in SLURM's words: no"),
        ("jobs", lambda ids: None, "does not say which jobs are still there (squeue failed); nothing was cancelled"),
        ("cancel", refuse, "in SLURM's words: no"),
    ],
)
def test_cancel_is_refused_where_slurm_does_not_answer(out, submitted, monkeypatch, capsys, function, answer, said):
    monkeypatch.setattr(queue, function, answer)
    assert main.main(["cancel", "cifar_table", "--out", str(out)]) == 2
    assert said in capsys.readouterr().out and not submitted


def test_cancel_wants_the_name_of_an_experiment(capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["cancel"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("python -m reproductions cancel: error: ") and "experiment" in said
    with pytest.raises(SystemExit) as ended:
        main.main(["status", "--jsn"])
    first = "python -m reproductions status: error: unrecognized arguments: --jsn"
    assert ended.value.code == 2 and capsys.readouterr().err == f"{first}\n--help lists the flags\n"


def test_cancel_takes_the_name_of_any_launch_that_has_jobs(out, submitted, capsys):
    assert main.main(["cancel", "mytable", "--out", str(out)]) == 2
    assert "there is no experiment mytable, and no job of that name from" in capsys.readouterr().out
    Submission("token", "mytable", {"14": "a log"}, {}, 1, 0.0).write(RunPaths(out, out))
    assert main.main(["cancel", "mytable", "--out", str(out)]) == 0
    assert submitted == ["14"] and "cancelled 1 job of mytable: 14" in capsys.readouterr().out


def test_publish_reports_what_it_refuses(out, capsys):
    store(out / "records", make_record(TINY_EXPERIMENT.runs(SMOKE, 1)[0], 20.0))
    assert main.main(["publish", "--out", str(out)]) == 1
    assert "it is from synthetic data" in capsys.readouterr().out


def test_report_and_check_work_from_any_folder(tmp_path, monkeypatch, capsys):
    root = tmp_path / "repository"
    run = cifar_table.rows("short")[0].run(0)
    store(root / "results" / "records", make_record(run, 30.0))
    monkeypatch.setattr(commands, "ROOT", root)
    monkeypatch.setattr(commands, "PUBLISHED", root / "results")
    monkeypatch.chdir(tmp_path)
    assert main.main(["report"]) == 0
    said = capsys.readouterr().out
    assert "wrote results/tables/cifar_table_short.md" in said and "CIFAR-10 test error of residual nets" in said
    assert main.main(["check"]) == 1
    assert "is not in this repository" in capsys.readouterr().out


@pytest.fixture
def four_cores(monkeypatch):
    """A processor with four cores, of which others keep ``four_cores.busy`` busy; ``four_cores.threads`` train."""
    machine = SimpleNamespace(busy=0, threads=4)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(preflight, "busy_cores", lambda: machine.busy)
    monkeypatch.setattr(preflight, "available_cores", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: machine.threads)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: setattr(machine, "threads", count))
    return machine


@pytest.mark.parametrize(("busy", "threads"), [(0, 4), (1, 3), (3, 1), (4, 1), (9, 1)])
def test_runs_that_begin_inline_leave_busy_cores_alone(out, launched, capsys, monkeypatch, four_cores, busy, threads):
    four_cores.busy = busy
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # which is no number
    arguments = ["--profile", "smoke", "--out", str(out), "--device", "cpu"]
    cli.run_experiment(TINY_EXPERIMENT, arguments)
    said = capsys.readouterr().err
    assert four_cores.threads == threads
    told = f"keep {busy} of 4 cores busy: runs that are begun now train with {threads} instead of 4 threads" in said
    assert told == (busy > 0)
    four_cores.threads = 4
    cli.run_experiment(TINY_EXPERIMENT, [*arguments, "--minutes", "1"])
    assert four_cores.threads == threads


@pytest.mark.parametrize("how", ["OMP_NUM_THREADS", "another launcher", "nothing is missing"])
def test_nobody_else_is_told_how_many_threads_train(out, launched, four_cores, monkeypatch, how):
    four_cores.busy = 3
    if how == "OMP_NUM_THREADS":
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
    if how == "nothing is missing":
        store(out / "records", *(make_record(run, 20.0) for run in TINY_EXPERIMENT.runs(SMOKE, 2)))
    more = ["--launcher", "local"] if how == "another launcher" else []
    cli.run_experiment(TINY_EXPERIMENT, ["--profile", "smoke", "--out", str(out), "--device", "cpu", *more])
    assert four_cores.threads == 4


def test_an_experiment_is_a_script_that_can_be_run_from_any_folder(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "reproductions.degradation", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "python -m reproductions.degradation" in done.stdout and not list(tmp_path.iterdir())
