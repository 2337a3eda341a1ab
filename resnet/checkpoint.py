"""Checkpoints: two generations, written atomically, verified by a digest, and loaded without executing code."""

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
from resnet.progress import CHECKPOINTS

NEWEST, PREVIOUS = CHECKPOINTS
_ANY_FORMAT = b"resnet-checkpoint-"
_MAGIC = _ANY_FORMAT + b"1\n"


class CheckpointError(Exception):
    """Unusable checkpoint. The message names the file."""


class NewerFormatError(CheckpointError):
    """Checkpoint in a newer format than this code can read."""


class MismatchError(ValueError):
    """Checkpoint that this run can't resume from here; ``what`` names the part that differs."""

    def __init__(self, what: str, text: str):
        super().__init__(text)
        self.what = what


def save(folder: Path, state: dict) -> None:
    """Write ``state`` as the newest checkpoint in ``folder``; the newest so far becomes the previous one.

    ``state`` holds tensors and plain Python values. Once the first checkpoint exists, a process killed at any moment
    leaves at least one complete checkpoint. Raises OSError if the disk is full; the old checkpoints are then intact.
    """
    fresh = folder / f"checkpoint.{os.getpid()}.new"  # unique, in case two processes train the same run
    write_atomically(fresh, pack(state))
    with suppress(FileNotFoundError):  # this is the first one
        os.replace(folder / NEWEST, folder / PREVIOUS)
    os.replace(fresh, folder / NEWEST)


def load_latest(folder: Path, device="cpu") -> dict | None:
    """Load the newest intact checkpoint in ``folder``; return None if there is none.

    A damaged checkpoint is renamed to ``*.damaged`` with a warning. Raises NewerFormatError for a checkpoint in a newer
    format and OSError for an unreadable one; neither is renamed.
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
            warnings.warn(f"{error}; it was renamed to {damaged.name}; resuming from an older state", stacklevel=2)
    return None


def remove(folder: Path) -> None:
    """Delete the checkpoints of a finished run."""
    unfinished = (*folder.glob("checkpoint.*.new"), *folder.glob(".checkpoint.*.tmp"))
    for path in (folder / NEWEST, folder / PREVIOUS, *unfinished):
        path.unlink(missing_ok=True)


def pack(state: dict) -> bytes:
    """Return ``state`` as the bytes of a checkpoint file: a format line, a SHA-256 digest, torch's own format."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    return _MAGIC + hashlib.sha256(payload).digest() + payload


def is_checkpoint(path: Path) -> bool:
    """Return whether a file has the format of :func:`pack`."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def load(path: Path, device="cpu") -> dict:
    """Read one checkpoint file.

    Raises CheckpointError if the file is damaged or holds anything but tensors and plain values. Errors of the device,
    such as torch.OutOfMemoryError, say nothing about the file, and are raised as they are.
    """
    content = path.read_bytes()
    start = len(_MAGIC) + 32
    if not content.startswith(_MAGIC):
        if content.startswith(_ANY_FORMAT):
            raise NewerFormatError(f"{path} is in a newer checkpoint format than this code can read; update the code")
        raise CheckpointError(f"{path} is not a checkpoint of this program")
    payload = content[start:]
    if hashlib.sha256(payload).digest() != content[len(_MAGIC) : start]:
        raise CheckpointError(f"{path} is damaged: its content does not match its SHA-256 digest")
    try:
        return torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except (pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{path} holds objects other than tensors and plain values") from error


def digest_of_weights(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of a state dict: of its tensors' names and bytes, in their order."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()
