"""The final weights of finished runs, which jobs leave beside the records."""

from pathlib import Path

import torch

from reproductions.harness.record_files import weights_path
from resnet import checkpoint
from resnet.checkpoint import digest_of_weights
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


def _path(out: Path, record: dict) -> Path:
    return weights_path(out, Run.from_specification(record["specification"]))
