"""``make venv`` where a cluster has settings of its own for pip and Python, with a project of two tiny packages."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from reproductions.harness.provenance import ROOT

pytestmark = pytest.mark.slow

BACKEND = """
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "project-1-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        wheel.writestr("project.py", "")
        wheel.writestr("project-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: project\\nVersion: 1\\n"
            "Requires-Dist: needed\\nProvides-Extra: test\\nProvides-Extra: bench\\n")
        wheel.writestr("project-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("project-1.dist-info/RECORD", "")
    return name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
WHEEL = {
    "needed.py": "",
    "needed-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: needed\nVersion: 1\n",
    "needed-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "needed-1.dist-info/RECORD": "",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project that needs a package which only the configuration ``pip.conf`` of HOME leads to."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "Makefile", root)
    for name, text in {"backend.py": BACKEND, "pyproject.toml": PROJECT, "constraints.txt": ""}.items():
        (root / name).write_text(text)
    (root / "wheels").mkdir()
    with zipfile.ZipFile(root / "wheels" / "needed-1-py3-none-any.whl", "w") as wheel:
        for name, text in WHEEL.items():
            wheel.writestr(name, text)
    make_venv(root)
    return root


def make_venv(root, configuration="", **variables):
    """Make the project's environment with these variables and lines of the user's configuration of pip."""
    (root / ".venv" / ".installed").unlink(missing_ok=True)
    home = root / "home" / ".config" / "pip"
    home.mkdir(parents=True, exist_ok=True)
    lines = ["[global]", "no-index = true", f"find-links = {root / 'wheels'}", configuration]
    (home / "pip.conf").write_text("\n".join(lines) + "\n")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "XDG_"))}
    own |= {"HOME": str(root / "home"), **{name: value.format(root=root) for name, value in variables.items()}}
    python = Path(sys.base_prefix) / "bin" / "python3"
    command = ["make", "--silent", "venv", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=root, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def installed(root):
    return {path.name for path in (root / ".venv").glob("lib/*/site-packages/*.dist-info")} & {
        "project-1.dist-info",
        "needed-1.dist-info",
    }


@pytest.mark.parametrize(
    ("variables", "configuration"),
    [
        ({"PIP_USER": "1"}, ""),
        ({"PIP_TARGET": "{root}/elsewhere"}, ""),
        ({"PIP_PREFIX": "{root}/elsewhere"}, ""),
        ({}, "user = true"),
        ({}, "[install]\nuser = yes"),
        ({}, "[install]\ntarget = elsewhere"),
        ({}, "prefix = elsewhere"),
        ({"PIP_CONFIG_FILE": "{root}/own.conf"}, "user = true"),
        ({"PYTHONPATH": "{root}/modules"}, ""),
        ({"PYTHONHOME": "{root}/modules"}, ""),
    ],
    ids=str,
)
def test_packages_are_installed_into_the_environment_whatever_else_pip_is_told(project, variables, configuration):
    own = (
        f"[install]\nuser = true\n  target=elsewhere\n[global]\nprefix : elsewhere\nfind-links = {project / 'wheels'}\n"
    )
    (project / "own.conf").write_text(own + "no-index = true\n")
    shutil.rmtree(project / "modules", ignore_errors=True)
    (project / "modules" / "needed-1.dist-info").mkdir(parents=True)
    (project / "modules" / "needed-1.dist-info" / "METADATA").write_text(WHEEL["needed-1.dist-info/METADATA"])
    subprocess.run([project / ".venv/bin/python", "-m", "pip", "uninstall", "-qy", "project", "needed"], check=True)
    assert installed(project) == set()
    make_venv(project, configuration, **variables)
    assert len(installed(project)) == 2 and not (project / "elsewhere").exists()
