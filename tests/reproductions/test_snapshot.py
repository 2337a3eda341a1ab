"""Jobs run the code that was submitted: a copy that is whole, is checked, and says which code it is."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from repositories import commit
from waiting import find_disk_full

from reproductions.harness import provenance
from reproductions.harness.launching.private import check_private
from reproductions.harness.launching.slurm import snapshot

FILES = ("resnet/run.py", "reproductions/harness/table.py", "reproductions/reported.toml", "README.md")


def test_a_copy_has_the_code_and_its_identity(repository, tmp_path, monkeypatch):
    identity = provenance.code_identity()
    copy = snapshot.take(tmp_path / "code")
    assert copy.parent == tmp_path / "code" and len(copy.name) == 16
    names = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    code = {"resnet/run.py", "reproductions/harness/table.py", "reproductions/reported.toml"}
    assert names == code | {provenance.CODE_FILE}
    assert all((copy / name).read_bytes() == (repository / name).read_bytes() for name in code)
    monkeypatch.setattr(provenance, "ROOT", copy)
    assert provenance.code_identity() == identity and identity["modified"] is False


def test_an_equal_copy_is_used_again_and_other_code_has_another(repository, tmp_path):
    first = snapshot.take(tmp_path / "code")
    assert snapshot.take(tmp_path / "code") == first
    (repository / "resnet" / "run.py").write_text("changed = True\n")
    second = snapshot.take(tmp_path / "code")
    assert second != first and (first / "resnet" / "run.py").read_text() == "# resnet/run.py\n"
    assert json.loads((second / provenance.CODE_FILE).read_text())["modified"] is True
    commit(repository)
    third = snapshot.take(tmp_path / "code")  # the same files, but now they are a commit's
    assert json.loads((third / provenance.CODE_FILE).read_text())["modified"] is False
    assert sorted((tmp_path / "code").iterdir()) == sorted([first, second, third]), "nothing temporary is left"


@pytest.mark.parametrize("damage", ["edit", "remove", "add", "description"])
def test_a_copy_that_was_changed_is_refused_and_says_so_itself(repository, tmp_path, monkeypatch, damage):
    copy = snapshot.take(tmp_path / "code")
    if damage == "remove":
        (copy / "resnet" / "run.py").unlink()
    else:
        names = {"edit": "resnet/run.py", "add": "resnet/new.py", "description": provenance.CODE_FILE}
        (copy / names[damage]).write_text("changed = True\n")
    with pytest.raises(ValueError, match=rf"{copy.name} has changed since the code was copied .*remove it: rm -r "):
        snapshot.take(tmp_path / "code")
    monkeypatch.setattr(provenance, "ROOT", copy)
    identity = provenance.code_identity()
    assert identity["modified"] is True and set(identity) == {"commit", "modified", "resnet_sha256"}


def test_what_python_leaves_in_a_copy_is_no_change(repository, tmp_path):
    copy = snapshot.take(tmp_path / "code")
    (copy / "resnet" / "__pycache__").mkdir()
    (copy / "resnet" / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"compiled")
    assert snapshot.take(tmp_path / "code") == copy


def test_code_that_is_edited_while_it_is_copied_is_an_error(repository, tmp_path, monkeypatch):
    read = provenance.source_files

    def read_and_edit(*arguments):
        files = read(*arguments)
        (repository / "resnet" / "run.py").write_text(f"# {os.urandom(8).hex()}\n")
        return files

    monkeypatch.setattr(provenance, "source_files", read_and_edit)
    with pytest.raises(ValueError, match="edited while it was copied"):
        snapshot.take(tmp_path / "code")
    assert not (tmp_path / "code").exists()


def test_several_launches_at_once_share_one_copy(repository, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        copies = set(pool.map(lambda _: snapshot.take(tmp_path / "code"), range(8)))
    assert len(copies) == 1 and list((tmp_path / "code").iterdir()) == list(copies)


def test_a_copy_that_can_not_be_written_leaves_nothing(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "write_atomically", find_disk_full)
    with pytest.raises(OSError, match="No space left"):
        snapshot.take(tmp_path / "code")
    assert not list((tmp_path / "code").iterdir())


@pytest.mark.slow
def test_a_process_started_in_a_copy_runs_it(tmp_path):
    copy = snapshot.take(tmp_path / "code")
    script = (
        "import resnet.files, reproductions.reported; from reproductions.harness import provenance as p;"
        "print(p.ROOT, resnet.files.__file__); p.os.environ['PATH'] = ''; print(p.json.dumps(p.code_identity()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    for folder in (copy, tmp_path):
        command = [sys.executable, "-c", script]
        output = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout
        first, second = output.splitlines()
        assert first == f"{copy} {copy}/resnet/files.py"
        described = json.loads((copy / provenance.CODE_FILE).read_text())
        assert json.loads(second) == {name: described[name] for name in ("commit", "modified", "resnet_sha256")}


# --------------------------------------------------------------------------------------------------- private folders


def test_a_missing_folder_is_made_for_this_user_alone(tmp_path):
    previous = os.umask(0)
    try:
        check_private(tmp_path / "a" / "b")
    finally:
        os.umask(previous)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "a" / "b").chmod(0o755)  # others may read
    check_private(tmp_path / "a" / "b")


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused_with_advice(tmp_path, mode):
    folder = tmp_path / "it's here"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ValueError, match="other users can write to (.|\n)*chmod 700 '"):
        check_private(folder)
    with pytest.raises(ValueError, match="other users can write to"):
        snapshot.take(folder)


def test_links_and_files_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for name, message in (("link", "is a link"), ("dangling", "is a link"), ("file", "is not a folder")):
        with pytest.raises(ValueError, match=message):
            check_private(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


def test_somebody_elses_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "theirs").stat().st_uid + 1)
    with pytest.raises(ValueError, match="belongs to another user"):
        check_private(tmp_path / "theirs")
