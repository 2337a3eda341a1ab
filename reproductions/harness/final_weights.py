"""The final weights of finished runs, which jobs leave beside the records, and weights from elsewhere, of backbones."""

from pathlib import Path

import torch

from reproductions.harness.record_files import weights_path
from resnet import checkpoint
from resnet.checkpoint import digest_of_weights
from resnet.files import write_atomically
from resnet.run import Run
from resnet.weights import WeightsError


def has_final_weights(out: Path, record: dict) -> bool:
    """Return whether the file of the final weights of a record's run exists below ``out``."""
    return _path(out, record).exists()


def read_final_weights(out: Path, record: dict, device: torch.device | str = "cpu") -> dict:
    """Read the final state dict of a record's run. Raises WeightsError if it is missing or not the record's."""
    path = _path(out, record)
    try:
        state = checkpoint.load(path, device)
    except FileNotFoundError as error:
        raise WeightsError(f"the weights {path} are gone") from error
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error}") from error
    except checkpoint.CheckpointError as error:
        raise WeightsError(str(error)) from error
    if (digest := digest_of_weights(state)) != record["weights_sha256"]:
        expected = record["weights_sha256"]
        raise WeightsError(f"{path} holds the weights {digest}, but the run's record says {expected}")
    return state


def keep_backbone(out: Path, state: dict) -> str:
    """Copy the weights of a backbone below ``out``, where its runs find them; return their SHA-256. Raises OSError."""
    digest = digest_of_weights(state)
    if not (path := _backbone_path(out, digest)).exists():
        write_atomically(path, checkpoint.pack(state))
    return digest


def read_backbone(out: Path, digest: str, device: torch.device | str = "cpu") -> dict:
    """Read the weights with this SHA-256. Raises WeightsError if they are missing, damaged or others."""
    path = _backbone_path(out, digest)
    try:
        state = checkpoint.load(path, device)
    except (OSError, checkpoint.CheckpointError) as error:
        text = f"the weights of the backbone can't be read ({error}); the command that names them in BACKBONES="
        raise WeightsError(f"{text} puts them there") from error
    if (found := digest_of_weights(state)) != digest:
        raise WeightsError(
            f"{path} holds the weights {found}, not {digest}: remove it, and give the same command again"
        )
    return state


def _backbone_path(out: Path, digest: str) -> Path:
    return out / "backbones" / f"{digest[:16]}.pt"


def _path(out: Path, record: dict) -> Path:
    return weights_path(out, Run.from_specification(record["specification"]))
