"""Checkpoints: two generations, each written atomically, verified and loaded without executing code."""

import hashlib
import io
import os
import pickle
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from resnet.files import write_atomically

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
_ANY_FORMAT = b"resnet-checkpoint-"
_MAGIC = _ANY_FORMAT + b"1\n"


class CheckpointError(Exception):
    """A checkpoint that can't be used. The message names the file."""


class NewerFormatError(CheckpointError):
    """A checkpoint in a format that this code does not know, because newer code wrote it."""


class MismatchError(ValueError):
    """A checkpoint that a run can't go on from here; ``what`` is the part of it that does not fit."""

    def __init__(self, what: str, text: str):
        super().__init__(text)
        self.what = what


def save(folder: Path, state: dict) -> None:
    """Make ``state`` the newest checkpoint in ``folder``; the newest until now becomes the previous one.

    ``state`` holds tensors and plain Python values. A process killed at any moment leaves at least one whole
    checkpoint, once there has been one. Raises OSError if the disk is full; the old checkpoints are then intact.
    """
    fresh = folder / f"checkpoint.{os.getpid()}.new"  # a name of its own, should two processes train the same run
    write_atomically(fresh, pack(state))
    with suppress(FileNotFoundError):  # there is no newest one yet
        os.replace(folder / NEWEST, folder / PREVIOUS)
    os.replace(fresh, folder / NEWEST)


def load_latest(folder: Path, device="cpu") -> dict | None:
    """The newest whole checkpoint in ``folder``, None if there is none; a damaged one is set aside with a warning.

    Raises NewerFormatError for one that newer code wrote, and OSError for one that can't be read; both stay.
    """
    for path in (folder / NEWEST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            return load(path, device)
        except NewerFormatError:
            raise
        except CheckpointError as error:
            damaged = path.with_suffix(".damaged")
            os.replace(path, damaged)
            warnings.warn(f"{error}; kept as {damaged.name}, going on from an older state", stacklevel=2)
    return None


def remove(folder: Path) -> None:
    """Delete the checkpoints of a finished run."""
    unfinished = (*folder.glob("checkpoint.*.new"), *folder.glob(".checkpoint.*.tmp"))
    for path in (folder / NEWEST, folder / PREVIOUS, *unfinished):
        path.unlink(missing_ok=True)


def pack(state: dict) -> bytes:
    """``state`` as the bytes of a checkpoint file: a line that names the format, a SHA-256, torch's own format."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    return _MAGIC + hashlib.sha256(payload).digest() + payload


def is_checkpoint(path: Path) -> bool:
    """Whether a file begins as :func:`pack` makes them."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def load(path: Path, device="cpu") -> dict:
    """Read one checkpoint file. Raises CheckpointError if it is damaged or holds anything but tensors and values."""
    content = path.read_bytes()
    start = len(_MAGIC) + 32
    if not content.startswith(_MAGIC):
        if content.startswith(_ANY_FORMAT):
            raise NewerFormatError(f"{path} was written by newer code, in a format that this code does not know; "
                                   "update the code")  # fmt: skip
        raise CheckpointError(f"{path} is not a checkpoint of this program")
    payload = content[start:]
    if hashlib.sha256(payload).digest() != content[len(_MAGIC) : start]:
        raise CheckpointError(f"{path} is damaged: its SHA-256 does not fit its content")
    try:
        return torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path} holds something other than tensors and plain values") from error


def digest_of_weights(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of a network's state dict: of the names and bytes of its tensors, in their order."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()
