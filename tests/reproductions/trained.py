"""Runs as they are when they have ended, records and weights, without training: of networks with drawn weights."""

from functools import cache
from pathlib import Path

from fakes import make_record, store

from reproductions.harness.launching.run_paths import RunPaths
from resnet import checkpoint
from resnet.checkpoint import digest_of_weights
from resnet.data import ImageDataset, load
from resnet.data.sampling import seeded_generator
from resnet.files import write_atomically
from resnet.models import create_model
from resnet.run import Run

DATA = {"name": "synthetic", "official": True}


@cache
def synthetic() -> ImageDataset:
    return load("synthetic")


def leave(out: Path, run: Run, test_error: float = 9.0, **changes) -> dict:
    """Leave a record and final weights below ``out``; returns the record. ``changes`` are those of make_record."""
    state = create_model(run.model, seeded_generator(run.seed, "initialisation"), **run.model_options).state_dict()
    write_atomically(RunPaths(out, Path()).weights(run), checkpoint.pack(state))
    data = {**DATA, "sha256": synthetic().digest} if run.data == "synthetic" else {}
    changes = {"weights_sha256": digest_of_weights(state), "data": data, **changes}
    return store(out / "records", make_record(run, test_error, **changes))[0]
