"""The README and the pages in docs: links, commands, variables and files that they name are there."""

import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys

import pytest
import torch

from reproductions import __main__ as command_line
from reproductions import commands
from reproductions.experiments import EXPERIMENTS
from reproductions.finetune import own_folder
from reproductions.harness import cli, status
from reproductions.harness.provenance import ROOT
from reproductions.imagenet import evaluate_checkpoint
from reproductions.transfer import backbones
from resnet.data.synthetic import make_synthetic
from resnet.recipe import Recipe

DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
PAGES = ["README.md", "results/README.md", "slurm/README.md", "resnet/kernels/README.md", *DOCS]


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def make(*arguments):
    """What ``make`` prints, given these arguments; it takes nothing from a ``make`` that runs the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "-C", ROOT, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\\\n", " ")


def commands_in(text):
    """The commands of indented lines and between backticks, without those that leave a part out."""
    found = re.findall(r"^    ((?:make|python -m) [^#\n]*)|`((?:make|python -m) [^`]*)`", text, flags=re.MULTILINE)
    commands = [" ".join("".join(both).split()) for both in found]
    return [command for command in commands if not re.search(r"[<…]|\.\.\.", command)]


COMMANDS = sorted({command for page in PAGES for command in commands_in(text_of(page))})


@pytest.fixture
def parse(monkeypatch):
    """Parses ``python -m MODULE ARGUMENTS``, as the command itself does, and does nothing else."""
    monkeypatch.setattr(commands, "COMMANDS", dict.fromkeys(commands.COMMANDS, lambda *_: 0))
    monkeypatch.setattr(status, "show_status", lambda *_, **__: 0)
    monkeypatch.setattr(cli, "run_experiment", lambda one, arguments=None: int(not cli.parse(one, arguments)))
    monkeypatch.setattr(evaluate_checkpoint, "evaluate", lambda *_: "")
    monkeypatch.setattr(backbones, "of_backbones", lambda experiment, *_: experiment)
    for name in ("train_on_folder", "predict"):
        monkeypatch.setattr(own_folder, name, lambda *_: 0)

    def run(module, arguments):
        if module.startswith("benchmarks"):
            assert importlib.util.find_spec(module), module
            source = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
            assert all(f'"{flag}"' in source for flag in arguments if flag.startswith("--")), arguments
            return 0
        if module == "reproductions":
            return command_line.main(arguments)
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__")
        return ended.value.code

    return run


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command, parse):
    if command.startswith("make "):
        command = make("--dry-run", "--assume-old=.venv/.installed", *shlex.split(command)[1:])
    modules = re.findall(r"python -m ((?:reproductions|benchmarks)[\w.]*)([^|;&\n]*)", command)
    for module, arguments in modules:
        # The README adds one row as an example.
        assert parse(module, shlex.split(arguments.replace("resnet20-b", "resnet20"))) == 0


def test_commands_of_all_kinds_are_found():
    assert {"make test", "make reproduce-all MINUTES=10", "python -m reproductions models"} <= {*COMMANDS}
    assert any("SLURM_PROFILE=mycluster DRY_RUN=1" in command for command in COMMANDS)


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= 130


def test_every_make_variable_is_described():
    makefile = text_of("Makefile")
    used = set(re.findall(r"\$\((?:call \w+,|if \$\()?([A-Z_]+)[),]", makefile)) - {"MAKEFILE_LIST", "MAKECMDGOALS"}
    own = set(re.findall(r"^([A-Z_]+) :?= ", makefile, flags=re.MULTILINE))
    described = set(re.findall(r"^\| `([A-Z_]+)(?:=1)?` \|", text_of("docs/usage.md"), flags=re.MULTILINE))
    assert described == used - own and {"PROFILE", "ANEW", "PYTHON"} <= described


def test_every_make_target_is_named():
    targets = make("--silent", "help").rpartition("targets: ")[2].split()
    named = set(re.findall(r"[\w-]+", " ".join(map(text_of, PAGES))))
    assert len(targets) > 20 and set(targets) <= named


def test_the_library_is_used_as_the_readme_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"## As a library\n\n((?:    .*\n)+)", text_of("README.md"))
    names = {"images": torch.zeros(2, 32, 32, 3, dtype=torch.uint8)}
    exec(re.sub("^    ", "", code, flags=re.MULTILINE), names)
    assert names["logits"].shape == (2, 10) and len(code.splitlines()) == 5


def test_the_program_that_names_images_works_as_it_stands(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("resnet.data.load", lambda name, folder: make_synthetic(train_images=10, test_images=10))
    (code,) = re.findall(r"((?:    .*\n|\n)*    NAMES = (?:    .*\n|.+\n)+)", text_of("docs/usage.md"))
    exec(re.sub("^    ", "", code, flags=re.MULTILINE), {})
    assert capsys.readouterr().out.count(", in truth ") == 5


def test_files_on_the_map_are_there():
    text = text_of("docs/architecture.md")
    folders = [ROOT / name for name in ("resnet", "reproductions", "slurm", "benchmarks", "tests")]
    there = {path.name for folder in (*folders, ROOT) for path in folder.glob("*")}
    there |= {path.name for folder in folders for path in folder.rglob("*")}
    named = set(re.findall(r"\b(\w+\.(?:py|toml)|\w+(?=/))", text))
    assert len(named) > 50 and named - {"runs", "work", "results"} <= there


def test_the_scope_has_every_experiment_and_no_other():
    named = set(re.findall(r"make (reproduce-[a-z-]+)", (ROOT / "docs" / "scope.md").read_text()))
    assert named == {experiment.target.split()[0] for experiment in EXPERIMENTS}


def test_rows_that_pages_name_are_there():
    assert "ROWS=plain110,resnet110" in (ROOT / "docs" / "scope.md").read_text()
    rows = {row.key for experiment in EXPERIMENTS for row in experiment.rows("paper")}
    for page in PAGES:
        named = [row for rows in re.findall(r"ROWS=([a-z][\w,-]*)", text_of(page)) for row in rows.split(",")]
        assert set(named) <= rows | {"resnet20-b"}, page  # which the README adds as an example
    in_fidelity = set(re.findall(r"row `(\w+)`", (ROOT / "docs" / "fidelity.md").read_text()))
    assert in_fidelity == {"smoothing_all", "mixup_reversed", "distilled_half"} <= rows


def test_options_that_fidelity_names_are_fields_of_the_recipe():
    text = (ROOT / "docs" / "fidelity.md").read_text()
    fields = set(Recipe.__dataclass_fields__)
    for name in ("last_batch", "statistics_batches", "batch_norm_size", "normalization", "decay_all", "hard_weight"):
        assert f"`{name}`" in text and name in fields
    named = dict(re.findall(r"`(momentum_at_drops|smoothed_over|mixup_partner)=\"(\w+)\"`", text))
    assert set(named) <= fields and len(named) == 3


def anchors_of(path):
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text_of(page)):
        if not target.startswith("https://"):
            there = path.parent / target if target else path
            assert there.exists(), target
            assert not anchor or anchor in anchors_of(there), anchor
