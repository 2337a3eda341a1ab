"""Packages that PYTHONPATH puts before the environment's own are refused in a line before anything starts."""

import os
import re
import subprocess
import sys
from importlib import metadata

import pytest

from reproductions.environment import MODULES
from reproductions.harness.provenance import ROOT


def start(*command, path=(), **variables):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), **variables}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture
def modules(tmp_path):
    """A cluster's module: ``modules(name)`` puts a package there whose import fails."""

    def make(name, package=True):
        folder = tmp_path / "module" / name if package else tmp_path / "module"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ("__init__.py" if package else f"{name}.py")).write_text("raise RuntimeError('theirs')\n")
        return tmp_path / "module"

    return make


@pytest.mark.parametrize(("name", "package"), [("numpy", True), ("torch", True), ("typing_extensions", False)])
@pytest.mark.parametrize("command", ["reproductions", "reproductions.cifar_table", "benchmarks.throughput"])
def test_a_package_by_pythonpath_is_refused_in_a_line(modules, command, name, package):
    folder = modules(name, package)
    done = start("-m", command, "--help", path=[ROOT, folder])
    assert done.returncode == 2 and not done.stdout and len(done.stderr.splitlines()) == 1
    assert f"PYTHONPATH has Python import {name} from {folder} instead of the environment {sys.prefix}" in done.stderr


def test_what_a_job_unpickles_raises_the_same(modules):
    modules("torch")
    done = start("-c", "import reproductions.harness.launching.job", path=[modules("numpy")])
    assert re.match(r"ImportError: PYTHONPATH has Python import numpy, torch from", done.stderr.splitlines()[-1])


@pytest.mark.slow
def test_what_the_user_adds_is_left_alone(modules, tmp_path):
    folder = modules("of_my_own")
    (folder / "numpy").mkdir()  # of no package: Python takes the environment's
    (tmp_path / "link").symlink_to(metadata.distribution("numpy").locate_file(""))
    modules("pytest_of_theirs")
    done = start(
        "-m", "reproductions", "list", path=[folder, tmp_path / "link", *filter(None, sys.path), "", "missing"]
    )
    assert done.returncode == 0 and "cifar_table" in done.stdout, done.stderr


def test_a_notebooks_backend_of_matplotlib_is_no_matter(tmp_path):
    script = "import reproductions, matplotlib; print(matplotlib.get_backend())"
    done = start("-c", script, path=[ROOT], MPLBACKEND="module://matplotlib_inline.backend_inline")
    assert done.returncode == 0 and done.stdout, done.stderr


def test_a_backend_that_is_there_stays_the_notebooks(tmp_path):
    (tmp_path / "inline_of_mine").mkdir()
    script = "import reproductions, os; print(os.environ['MPLBACKEND'])"
    (tmp_path / "inline_of_mine" / "__init__.py").touch()
    done = start("-c", script, path=[ROOT, tmp_path], MPLBACKEND="module://inline_of_mine.backend")
    assert done.stdout.strip() == "module://inline_of_mine.backend", done.stderr


def test_an_environment_without_torch_takes_all_from_pythonpath(modules):
    script = "import sysconfig; sysconfig.get_path = lambda name: '/nowhere'; import reproductions"
    assert "theirs" not in (said := start("-c", script, path=[modules("numpy")]).stderr) and not said


def test_all_that_the_constraints_pin_is_looked_for_but_what_tests_need():
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    pinned -= {"execnet", "hypothesis", "iniconfig", "nvidia-ml-py", "pluggy", "pytest", "pytest-xdist", "ruff"}
    pinned -= {"lightning-utilities", "pycocotools", "sortedcontainers", "torchmetrics"}
    modules, installed = metadata.packages_distributions(), {found.name for found in metadata.distributions()}
    assert pinned - installed <= {"markdown-it-py", "mdurl"}, "which older versions of rich do without"
    assert {name for module in MODULES for name in modules.get(module, ())} == pinned & installed
