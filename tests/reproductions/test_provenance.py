"""Which code a run used, by the commit, by whether it was modified, and by a digest of its own."""

import importlib.util
import os
import platform
import re
import subprocess
from pathlib import Path

import pytest
import torch
from repositories import commit, git

from reproductions.harness import provenance

FILES = ("resnet/run.py", "resnet/models/cifar.py", "resnet/notes.txt", "reproductions/table.py", "README.md",
         "results/r.json")  # fmt: skip


def test_a_clean_checkout_is_its_commit(repository):
    head = git(repository, "rev-parse", "HEAD").strip()
    identity = provenance.code_identity()
    assert identity["commit"] == head and identity["modified"] is False
    assert identity["resnet_sha256"] == provenance.committed_resnet_digest(head)


@pytest.mark.parametrize("name", ["resnet/run.py", "reproductions/table.py", "resnet/new.py", "reproductions/new.py"])
def test_a_change_of_the_code_is_a_modification(repository, name):
    git(repository, "config", "status.showUntrackedFiles", "no")  # as some have it for the home folder
    (repository / name).write_text("changed = True\n")
    assert provenance.code_identity()["modified"] is True


@pytest.mark.parametrize("name", ["results/r.json", "results/new.json", "README.md"])
def test_a_change_of_anything_else_is_none(repository, name):
    (repository / name).write_text("changed")
    assert provenance.code_identity()["modified"] is False


def test_the_digest_is_of_the_sources_of_resnet_alone(repository):
    before = provenance.code_identity()["resnet_sha256"]
    (repository / "reproductions" / "table.py").write_text("changed = True\n")
    (repository / "resnet" / "notes.txt").write_text("changed\n")
    assert provenance.code_identity()["resnet_sha256"] == before
    (repository / "resnet" / "run.py").rename(repository / "resnet" / "walk.py")
    assert provenance.code_identity()["resnet_sha256"] != before


def test_older_commits_keep_their_digest(repository):
    first = git(repository, "rev-parse", "HEAD").strip()
    before = provenance.code_identity()["resnet_sha256"]
    (repository / "resnet" / "models" / "größe.py").write_text("new = 'ü'\n", encoding="utf-8")
    second = commit(repository)
    assert provenance.committed_resnet_digest(first) == before
    assert provenance.committed_resnet_digest(second) == provenance.code_identity()["resnet_sha256"] != before


@pytest.mark.parametrize("commit", ["", "0" * 40, "nonsense", "--all", "-h"])
def test_an_unknown_commit_has_no_digest(repository, commit):
    assert provenance.committed_resnet_digest(commit) is None


def test_code_copied_without_git_names_the_commit_by_a_variable(repository, monkeypatch):
    (repository / ".git").rename(repository.parent / "elsewhere")
    digest = provenance.code_identity()["resnet_sha256"]
    assert provenance.code_identity() == {"commit": None, "modified": None, "resnet_sha256": digest}
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, "c0ffee")
    assert provenance.code_identity() == {"commit": "c0ffee", "modified": None, "resnet_sha256": digest}
    assert not provenance.has_history()


def test_git_has_the_last_word_on_the_commit(repository, monkeypatch):
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, "c0ffee")
    assert provenance.code_identity()["commit"] == git(repository, "rev-parse", "HEAD").strip()


def test_no_other_repository_is_asked_where_one_is_named_in_the_environment(repository, monkeypatch):
    expected, other = provenance.code_identity(), repository.parent / "other"
    git(repository, "clone", "--quiet", str(repository), str(other))
    (other / "resnet" / "run.py").write_text("other = True\n")
    commit(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert provenance.code_identity() == expected and expected["modified"] is False


def test_a_machine_without_git_does_not_know_whether_the_code_was_modified(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    identity = provenance.code_identity()
    assert identity["commit"] is None and identity["modified"] is None and len(identity["resnet_sha256"]) == 64


def why():
    return provenance.why_unpublishable(provenance.code_identity())


def test_nothing_stands_against_a_clean_checkout(repository):
    assert why() == ""


def test_git_says_itself_why_it_does_not_tell_the_commit_of_another_users_checkout(repository, monkeypatch):
    head = git(repository, "rev-parse", "HEAD").strip()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    said = why()
    assert "dubious ownership" in said and f"safe.directory '{repository}'" in said and "RESNET_COMMIT" in said
    assert "\n" not in said
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, head)
    assert why() == ""


def test_why_records_of_other_code_can_not_be_published(repository, monkeypatch):
    head = git(repository, "rev-parse", "HEAD")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        assert "git can't be started: No such file or directory" in why()
    (repository / "resnet" / "run.py").write_text("changed = True\n")
    assert why() == f"the code was modified since commit {head[:12]}; begin from a commit with all changes"
    git(repository, "update-index", "--assume-unchanged", "resnet/run.py")
    assert f"differ from commit {head[:12]}, though git sees no change" in why()
    (repository / ".git").rename(repository.parent / "elsewhere")
    assert f"{repository} has no .git" in why() and "RESNET_COMMIT" in why()


def test_a_shallow_clone_has_no_history(repository, monkeypatch):
    assert provenance.has_history()
    (repository / "README.md").write_text("second commit")
    commit(repository)
    shallow = repository.parent / "shallow"
    git(repository, "clone", "--quiet", "--depth", "1", f"file://{repository}", str(shallow))
    monkeypatch.setattr(provenance, "ROOT", shallow)
    assert not provenance.has_history()


def test_hardware_and_versions_are_named():
    hardware, versions = provenance.hardware(torch.device("cpu"), 3), provenance.versions()
    assert hardware["type"] == "cpu" and hardware["device"] and hardware["threads"] == 3
    assert versions["torch"] == torch.__version__ and versions["python"].count(".") == 2
    assert versions["kernels"] == "library" and provenance.versions("fused")["kernels"] == "fused"
    installed = importlib.util.find_spec("triton") is not None
    assert (versions["triton"] is not None) == installed


def test_a_processor_is_recorded_by_its_name_in_proc_where_there_is_one(monkeypatch):
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = found[1] if found else platform.processor() or platform.machine()
    assert provenance.device_name(torch.device("cpu")) == f"{name}, {os.cpu_count()} cores"


def test_a_mac_asks_for_the_name_of_its_processor(monkeypatch):
    def denied(path, *arguments, **more):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "read_text", denied)
    monkeypatch.setattr(provenance.psutil, "MACOS", True)
    told = subprocess.CompletedProcess([], 0, stdout="Apple M2 Pro\n")
    monkeypatch.setattr(provenance.subprocess, "run", lambda command, **_: told)
    assert provenance.device_name(torch.device("cpu")) == f"Apple M2 Pro, {os.cpu_count()} cores"
