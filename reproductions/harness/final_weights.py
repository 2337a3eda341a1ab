"""The weights that finished runs ended with, as jobs leave them beside the records."""

from pathlib import Path

from reproductions.harness.launching.workplace import Workplace
from resnet import checkpoint
from resnet.checkpoint import digest_of_weights
from resnet.run import Run
from resnet.weights import WeightsError


def weights_path(out: Path, record: dict) -> Path:
    """Where a record's run left its final weights below ``out``."""
    return Workplace(out, Path()).weights(Run.from_specification(record["specification"]))


def read_final_weights(out: Path, record: dict) -> dict:
    """The state dict that a record's run ended with. Raises WeightsError unless it is there and the record's."""
    path = weights_path(out, record)
    try:
        state = checkpoint.load(path)
    except FileNotFoundError as error:
        raise WeightsError(f"the weights {path} are gone; train again in another OUT") from error
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error}") from error
    except checkpoint.CheckpointError as error:
        raise WeightsError(str(error)) from error
    if (digest := digest_of_weights(state)) != record["weights_sha256"]:
        expected = record["weights_sha256"]
        raise WeightsError(f"{path} holds the weights {digest}, but the run's record says {expected}")
    return state
