"""Fixtures that the tests in this folder share."""

import pytest
from fakes import leave_out_plots
from hypothesis import settings
from repositories import commit, git

from reproductions.harness import cli, provenance
from reproductions.harness.launching.run_paths import RunPaths

settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")


@pytest.fixture
def paths(tmp_path) -> RunPaths:
    return RunPaths(tmp_path, tmp_path)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder of published results for launches, empty at first."""
    monkeypatch.setattr(cli, "PUBLISHED", tmp_path / "published")
    return tmp_path / "published"


@pytest.fixture
def no_plots(monkeypatch):
    """Plots take most of the time and have tests of their own."""
    leave_out_plots(monkeypatch)


@pytest.fixture
def repository(tmp_path, monkeypatch, request):
    """A repository with a commit of some code, which is taken for the project's own. Its path has a space.

    A module's FILES name its files; each is a comment of its name.
    """
    root = tmp_path / "a copy"
    for name in getattr(request.module, "FILES", ("resnet/run.py",)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
    monkeypatch.setattr(provenance, "ROOT", root)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.delenv(provenance.COMMIT_VARIABLE, raising=False)
    provenance.committed_resnet_digest.cache_clear()  # commits of the same second are the same
    git(root, "init", "--quiet")
    commit(root)
    return root
