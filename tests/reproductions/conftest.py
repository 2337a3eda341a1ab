"""What the tests in this folder share."""

import subprocess

import pytest
from hypothesis import settings

from reproductions.harness import provenance

settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a commit of some code, which is taken for the project's own."""
    root = tmp_path / "repository"
    (root / "resnet").mkdir(parents=True)
    (root / "resnet" / "run.py").write_text("code = 1\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for command in ("init --quiet", "add --all", "-c user.name=A -c user.email=a@b commit --quiet --message first"):
        subprocess.run(["git", "-C", root, *command.split()], check=True)
    monkeypatch.setattr(provenance, "ROOT", root)
    return root
