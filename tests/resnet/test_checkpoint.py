"""Checkpoints survive damaged files and killed processes: an older, whole state is loaded, and no code is executed."""

import hashlib
import io
import os
import pickle

import pytest
import torch
from damage import empty, flip_bit, truncate

from resnet import checkpoint
from resnet.checkpoint import NEWEST, PREVIOUS, CheckpointError


def state(number):
    weights = torch.arange(100, dtype=torch.float32) + number
    return {"iteration": number, "model": {"w": weights}, "curve": [{"loss": None, "error": 1.5}], "diverged": False}


def newest(folder):
    loaded = checkpoint.load_latest(folder)
    return loaded and loaded["iteration"]


def foreign(path):
    torch.save(state(9), path)


DAMAGES = pytest.mark.parametrize("damage", [truncate, flip_bit, empty, foreign])


def test_round_trip(tmp_path):
    checkpoint.save(tmp_path, state(3))
    loaded = checkpoint.load_latest(tmp_path)
    assert torch.equal(loaded["model"].pop("w"), state(3)["model"].pop("w"))
    assert loaded == {**state(3), "model": {}}


def test_two_generations_are_kept_until_they_are_removed(tmp_path):
    for number in (1, 2, 3):
        checkpoint.save(tmp_path, state(number))
    assert sorted(os.listdir(tmp_path)) == sorted([NEWEST, PREVIOUS])
    assert checkpoint.load(tmp_path / NEWEST)["iteration"] == 3
    assert checkpoint.load(tmp_path / PREVIOUS)["iteration"] == 2
    for _ in range(2):  # the second time there is nothing to remove
        checkpoint.remove(tmp_path)
        assert os.listdir(tmp_path) == [] and checkpoint.load_latest(tmp_path) is None
    assert checkpoint.load_latest(tmp_path / "absent") is None


@DAMAGES
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_loaded_if_it_is_whole(tmp_path, damage):
    for number in (1, 2):
        checkpoint.save(tmp_path, state(number))
    damage(tmp_path / NEWEST)
    with pytest.raises(CheckpointError, match=str(tmp_path / NEWEST)):
        checkpoint.load(tmp_path / NEWEST)
    with pytest.warns(UserWarning, match=NEWEST):
        assert newest(tmp_path) == 1
    checkpoint.save(tmp_path, state(3))  # training goes on, and the older state is not lost to the damaged file
    assert checkpoint.load(tmp_path / NEWEST)["iteration"] == 3
    assert checkpoint.load(tmp_path / PREVIOUS)["iteration"] == 1
    damage(tmp_path / NEWEST)
    damage(tmp_path / PREVIOUS)
    with pytest.warns(UserWarning) as caught:
        assert newest(tmp_path) is None
    assert len(caught) == 2


def test_a_checkpoint_of_newer_code_is_refused_and_stays(tmp_path):
    checkpoint.save(tmp_path, state(1))
    path = tmp_path / NEWEST
    path.write_bytes(path.read_bytes().replace(b"checkpoint-1", b"checkpoint-2", 1))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=f"{path} is in a newer checkpoint format.*update the code"):
        checkpoint.load_latest(tmp_path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [NEWEST]


def test_a_failure_of_the_device_is_not_put_down_to_the_checkpoint(tmp_path, monkeypatch):
    for number in (1, 2):
        checkpoint.save(tmp_path, state(number))
    with pytest.raises(RuntimeError, match="CUDA"):
        checkpoint.load_latest(tmp_path, "cuda:99")

    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(torch, "load", full)
        checkpoint.load_latest(tmp_path, "cuda")
    assert sorted(os.listdir(tmp_path)) == sorted([NEWEST, PREVIOUS]) and newest(tmp_path) == 2


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def plain_pickle(value):
    return pickle.dumps(value, protocol=2)


def torch_file(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("dump", [plain_pickle, torch_file])
def test_code_in_a_checkpoint_is_not_executed(tmp_path, dump):
    victim = tmp_path / "executed"
    payload = dump({"iteration": Malicious(victim)})
    path = tmp_path / NEWEST
    path.write_bytes(b"resnet-checkpoint-1\n" + hashlib.sha256(payload).digest() + payload)
    with pytest.raises(CheckpointError, match=str(path)):
        checkpoint.load(path)
    assert not victim.exists()
    pickle.loads(pickle.dumps(Malicious(victim))).close()
    assert victim.exists()  # it would have been


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_checkpoints(tmp_path, monkeypatch, function):
    for number in (1, 2):
        checkpoint.save(tmp_path, state(number))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(tmp_path, state(3))
    assert checkpoint.load(tmp_path / NEWEST)["iteration"] == 2
    assert checkpoint.load(tmp_path / PREVIOUS)["iteration"] == 1


class Killed(BaseException):
    pass


@pytest.mark.parametrize("completed", [0, 1, 2, 3])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_killed_between_any_two_renames(tmp_path, monkeypatch, before, completed):
    """``before`` checkpoints exist; the process dies after so many renames of the next."""
    for number in range(1, before + 1):
        checkpoint.save(tmp_path, state(number))
    replace, done = os.replace, []

    def dying(*paths):
        if len(done) == completed:
            raise Killed
        done.append(paths)
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        try:
            checkpoint.save(tmp_path, state(before + 1))
            finished = True
        except Killed:
            finished = False
    assert newest(tmp_path) == (before + 1 if finished else before or None)
    checkpoint.save(tmp_path, state(9))
    assert newest(tmp_path) == 9
