"""Measurements of finished runs' final networks: a small sealed JSON file for each, made once.

They lie in a folder beside ``records/`` and are read without weights, data or a GPU. There are four kinds:
:data:`~reproductions.layer_responses.responses.RESPONSES`,
:data:`~reproductions.cifar_imagenet_stem.predictions.PREDICTIONS`,
:data:`~reproductions.harness.exact_errors.EXACT_ERRORS` and :data:`~reproductions.transfer.pictures.PICTURES`.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from reproductions.harness import provenance, records
from reproductions.harness.final_weights import has_final_weights, read_final_weights
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.records import Pool
from resnet.data import Data, DataError, ImageDataset, load, place
from resnet.device import exact_kernels
from resnet.files import write_atomically
from resnet.hooks import build
from resnet.plugins import PluginError
from resnet.run import Run
from resnet.weights import WeightsError

SCHEMA = 1
_FIELDS = {
    "schema": int,
    "identity": str,  # of the run
    "weights_sha256": str,  # of its final network
    "data": dict,  # name, sha256, official
    "images": int,
    "how": str,
    "hardware": dict,
    "versions": dict,
    "code": dict,
    "sha256": str,  # of the rest
}


class MeasurementError(Exception):
    """A measurement that cannot be made or used. The message names the file."""


@dataclass(frozen=True)
class Measurement:
    """One kind of measurement.

    folder: the folder of its files, and their name in messages. how: the images and the mode. fields: the fields of its
    files besides the common ones. measure: returns these fields from a network, the data on its device and the run; it
    is called with deterministic kernels and without TF32. problem: returns the problem with these fields in the file of
    a record, None without one. concerns: whether a record's run can be measured.
    """

    folder: str
    how: str
    fields: dict[str, type]
    measure: Callable[[nn.Module, Data, Run], dict]
    problem: Callable[[dict, dict], str | None]
    concerns: Callable[[dict], bool] = lambda record: True

    def path(self, out: Path, record: dict) -> Path:
        """Name the file of a record's run below ``out``, whose ``records`` has the record."""
        return out / self.folder / f"{record['identity'][:16]}.json"

    def find(self, out: Path, record: dict) -> dict | None:
        """Find the measurement of a record's run, None without one. Raises MeasurementError for a damaged file."""
        path = self.path(out, record)
        return self.read(path, record) if path.exists() else None

    def read(self, path: Path, record: dict) -> dict:
        """Read one file, and check that it is whole, unedited, and belongs to this record's run, weights and data.

        Raises MeasurementError.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise MeasurementError(f"{path} can't be read as {self.folder}: {error}") from error
        if problem := self._problem(content, record):
            raise MeasurementError(f"{path} does not hold the {self.folder} of its run: {problem}")
        return content

    def _problem(self, content, record: dict) -> str | None:
        expected = _FIELDS | self.fields
        schema = content.get("schema") if isinstance(content, dict) else None
        if type(schema) is int and schema > SCHEMA:
            return f"newer code wrote it, in schema {schema}, and this code knows none above {SCHEMA}: update the code"
        if not isinstance(content, dict) or set(content) != set(expected):
            return "its fields are not the expected ones"
        if wrong := [name for name, kind in expected.items() if type(content[name]) is not kind]:
            return f"{wrong[0]} is {content[wrong[0]]!r}"
        if content["schema"] != SCHEMA:
            return f"schema is {content['schema']!r}, not {SCHEMA}"
        try:
            digest = seal(content)["sha256"]
        except ValueError:  # a number that is not finite
            digest = None
        if digest != content["sha256"]:
            return "its digest does not fit its content: it was edited or damaged"
        for name in ("identity", "weights_sha256", "data"):
            if content[name] != record[name]:
                return f"its {name} differs from the run's record"
        return self.problem(content, record)

    def make(self, record: dict, out: Path, dataset: ImageDataset, device: torch.device) -> dict:
        """Measure a completed run's final network.

        Raises MeasurementError for other data than the run's, and WeightsError for other weights.
        """
        run = Run.from_specification(record["specification"])
        if dataset.digest != record["data"]["sha256"]:
            raise MeasurementError(f"{run} was trained on {run.data} with the SHA-256 {record['data']['sha256']}, but "
                                   f"the data here have {dataset.digest}")  # fmt: skip
        state = read_final_weights(out, record)
        if run.task is None:
            model = build(run, dataset.num_classes)
        else:
            from resnet.tasks.trainer import task_network  # whose torchvision takes a second to load

            model = task_network(run, dataset.num_classes)
        model.load_state_dict(state)
        model = model.to(device, memory_format=torch.channels_last)
        data = place(dataset, run.train_images, device)
        with exact_kernels():
            measured = self.measure(model, data, run)
        return seal(
            {
                "schema": SCHEMA,
                "identity": record["identity"],
                "weights_sha256": record["weights_sha256"],
                "data": record["data"],
                "images": data.test_images["test"],
                "how": self.how,
                **measured,
                **provenance.origin(device),
            }
        )

    def make_missing(
        self, records: list[dict], run_paths: RunPaths, device: torch.device, until: float = math.inf
    ) -> list[str]:
        """Measure the completed runs that have weights and no measurement yet; returns the problems.

        Runs without weights are left out: the table says so. After the time ``until`` (seconds since the epoch) no
        measurement is started.
        """
        problems, datasets = [], {}
        for record in filter(self.concerns, records):
            try:
                measured = self.find(run_paths.out, record) is not None
                if measured or time.time() > until or not has_final_weights(run_paths.out, record):
                    continue
                name = record["data"]["name"]
                dataset = datasets[name] = datasets.get(name) or load(name, run_paths.data)
                content = self.make(record, run_paths.out, dataset, device)
                write(self.path(run_paths.out, record), content)
            except (MeasurementError, WeightsError, DataError, PluginError, OSError) as error:
                problems.append(str(error))
        return problems

    def read_all(self, out: Path, pool: Pool) -> tuple[dict[Path, dict], dict[Path, str]]:
        """Read all files below ``out``; returns the contents, and the problems of unusable and recordless files."""
        by_name = {record["identity"][:16]: record for record in pool.records.values()}
        found, problems = {}, {}
        for path in sorted((out / self.folder).glob("*.json")):
            try:
                if path.stem not in by_name:
                    raise MeasurementError(f"{path} belongs to no record")
                found[path] = self.read(path, by_name[path.stem])
            except MeasurementError as error:
                problems[path] = str(error)
        return found, problems


def write(path: Path, content: dict) -> None:
    """Write a file, once and whole. Raises FileExistsError."""
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n", exclusive=True)


seal, digest = partial(records.seal, name="sha256"), partial(records.records_digest, name="sha256")
