"""Records as finished runs leave them, without training: for tests of what is made from records."""

import copy
import csv
import math
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reproductions.harness.experiment import Experiment, RowResult, Variant
from reproductions.harness.records import (
    ORIGIN,
    SCHEMA,
    Pool,
    best_point,
    read_pool,
    read_record,
    seal,
    write_record,
)
from reproductions.harness.reporting import curves, figure
from reproductions.harness.reporting.page import Page, make_page, write_page
from resnet.data import WITH_TOP5
from resnet.recipe import learning_rate_at
from resnet.run import ROLES, Run
from resnet.tasks import Task

PARAMETERS = {"cifar_resnet20": 269_722, "cifar_resnet56": 853_018, "cifar_resnet110": 1_727_962}


def leave_out_plots(patch: pytest.MonkeyPatch) -> None:
    """Have reports write no plots, wherever the functions were imported to."""
    stand_ins = {
        figure.save: lambda figure, path, description: [],
        curves.learning_curves: lambda panels, variant, apart=None: None,
    }
    for module in [module for name, module in sys.modules.items() if name.startswith("reproductions")]:
        for function, stand_in in stand_ins.items():
            if getattr(module, function.__name__, None) is function:
                patch.setattr(module, function.__name__, stand_in)


def written_in(figure) -> list[str]:
    """Everything that is written in a figure."""
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def make_record(run: Run, test_error: float, training_error: float = 5.0, diverged: bool = False, **changes) -> dict:
    """A record of ``run`` that ends at the errors given (percent), with a curve that looks like a run's.

    Of a run with a task, the test error stands for each of its metrics.

    ``changes`` replace whole fields, or parts of sections.
    """
    draw = random.Random(run.seed)
    iterations = [i for i in range(1, run.recipe.iterations + 1) if run.recipe.evaluates_after(i)]
    curve = [_point(run, i, test_error, training_error, draw) for i in iterations]
    if diverged:
        curve = [*curve[:2], curve[2] | {"training_loss": None, "training_error": None, "test_error": None}]
    else:
        curve[-1] |= {"test_error": test_error, "training_error": training_error}
    if run.data in WITH_TOP5:
        curve = [point | {"test_top5_error": point["test_error"] and point["test_error"] / 4} for point in curve]
    if (interval := run.recipe.loss_interval) is not None:
        means = run.recipe.eval_interval // interval
        curve = [point | {"mean_losses": [point["training_loss"]] * means} for point in curve]
    if run.task is not None:
        curve = [_of_task(point, run.task) for point in curve]
    record = {
        "schema": SCHEMA,
        "identity": run.identity,
        "specification": run.specification(),
        "status": "diverged" if diverged else "completed",
        "parameters": PARAMETERS.get(run.model, 1_000_000),
        "curve": curve,
        "final": curve[-1],
        "best": best_point(curve),
        "warmup_ended_at": None,
        "weights_sha256": "0" * 64,
        **{f"{role}_sha256": "0" * 64 if role in run.needs else None for role in ROLES},
        "tests": {name: {"test_error": test_error, "test_top5_error": test_error / 4} for name in run.recipe.tests},
        "precision": "bf16" if run.recipe.precision == "auto" else run.recipe.precision,
        "timing": {
            "wall_seconds": 3600.0,
            "train_seconds": 3500.0,
            "images_per_second": 2340.0,
            "packed_with": 0,
            "finished": "2026-01-01T00:00:00+00:00",
        },
        "hardware": {"type": "cuda", "device": "NVIDIA H200", "threads": 1, "processes": 1},
        "versions": {"python": "3.11.9", "torch": "2.11.0", "cuda": "13.0", "cudnn": 91200},
        "code": {"commit": "c0ffee" + "0" * 34, "modified": False, "resnet_sha256": "1" * 64},
        "data": {"name": run.data, "sha256": "2" * 64, "official": run.data != "synthetic"},
        "interruptions": 0,
    }
    for name, value in changes.items():
        record[name] = {**record[name], **value} if isinstance(value, dict) else value
    record["timing"].setdefault("device_seconds", record["timing"]["wall_seconds"])
    if record["schema"] == SCHEMA:
        seconds = record["timing"]["device_seconds"]
        whole = {"from": 0, "to": curve[-1]["iteration"], "device_seconds": seconds}
        record.setdefault("segments", [whole | {name: record[name] for name in ORIGIN}])
    return record


def as_of_schema(record: dict, schema: int) -> dict:
    """Make the record as code of an older schema wrote it, sealed."""
    record = copy.deepcopy(record) | {"schema": schema}
    del record["segments"]
    if schema < 3:
        del record["teacher_sha256"], record["pretrained_sha256"], record["tests"]
    if schema < 2:
        del record["timing"]["packed_with"], record["timing"]["device_seconds"], record["hardware"]["processes"]
    return seal(record)


def with_validation(record: dict, error: float) -> dict:
    """The record of a run whose error on held-out training images was this one throughout."""
    curve = [{**point, "validation_error": error} for point in record["curve"]]
    return record | {"curve": curve, "final": curve[-1], "best": best_point(curve)}


def move(record: dict, iteration: int, **earlier) -> dict:
    """The record of a run that came to this iteration elsewhere: ``earlier`` is what was other there, None what is not
    known of it. Half of the device's time was spent there."""
    (last,) = record["segments"]
    seconds = last["device_seconds"] / 2
    first = {name: earlier.get(name, last[name]) for name in ORIGIN}
    first |= {name: {**last[name], **part} for name, part in earlier.items() if isinstance(part, dict)}
    segments = [
        {"from": 0, "to": iteration, "device_seconds": seconds, **first},
        {**last, "from": iteration, "device_seconds": seconds},
    ]
    return {**record, "segments": segments, "interruptions": 1}


def _point(run: Run, iteration: int, test_error: float, training_error: float, draw: random.Random) -> dict:
    rate = learning_rate_at(run.recipe, iteration - 1, 0)
    begun = 60 * math.exp(-12 * iteration / run.recipe.iterations)  # what the first iterations add
    drops = round(-math.log10(rate / run.recipe.peak_learning_rate))
    high = {0: 8, 1: 1.5}.get(drops, 0)  # what a high learning rate adds
    return {
        "iteration": iteration,
        "learning_rate": rate,
        "training_loss": 0.1 + 0.01 * begun,
        "training_error": training_error + begun + high + draw.uniform(0, 0.4),
        "test_error": test_error + begun + high + draw.uniform(0, 0.2) + draw.uniform(0, high / 2),
    }


def _of_task(point: dict, task: Task) -> dict:
    kept = {name: value for name, value in point.items() if not name.endswith("_error")}
    return kept | dict.fromkeys(task.metrics, point["test_error"])


def store(root: Path, *records: dict) -> list[dict]:
    """Write records into the pool ``root``; returns them as they are read again, sealed."""
    return [read_record(write_record(root, record)) for record in records]


def make_pool(
    experiment: Experiment,
    variant: Variant,
    errors: dict[str, list],
    root: Path,
    training: dict[str, float] | None = None,
    teacher_error: float | None = None,
    **changes,
) -> Pool:
    """A pool of runs that end at the test errors given by row and seed: None is one that diverged, "" a missing one.

    ``training``: the training errors by row. ``teacher_error``: of the rows' teachers, which have no record without.
    """
    rows = experiment.rows_of(variant)
    for row in rows:
        for seed, error in enumerate(errors.get(row.key, [])):
            if error != "":
                run, trained = variant.apply(row.run(seed)), (training or {}).get(row.key, 5.0)
                write_record(root, make_record(run, error or 9.0, trained, diverged=error is None, **changes))
    teachers = {row.teacher.key: row.teacher for row in rows if row.teacher and teacher_error is not None}
    for teacher in teachers.values():
        write_record(root, make_record(variant.apply(teacher.run(0)), teacher_error))
    return read_pool(root)


def make_results(
    experiment: Experiment,
    variant: Variant,
    errors: dict[str, list],
    root: Path,
    published: dict[str, list] | None = None,
    seeds: int | None = None,
    **more,
) -> list[RowResult]:
    """Results of :func:`make_pool`, compared with ``published`` ones if given, as of ``seeds`` seeds."""
    own = make_pool(experiment, variant, errors, root / "own", **more)
    others = own if published is None else make_pool(experiment, variant, published, root / "published", **more)
    most = max(map(len, [*errors.values(), *(published or {}).values()]), default=0)
    seeds = seeds or experiment.seeds[variant.profile]
    return [replace(result, seeds=seeds) for result in experiment.results(variant, most, own, others)]


def page_of(experiment: Experiment, variant: Variant, errors: dict[str, list], root: Path, **more) -> Page:
    """The page of :func:`make_results`, whose files lie in ``root``."""
    return make_page(experiment, variant, make_results(experiment, variant, errors, root, **more), root)


def report_on(experiment: Experiment, variant: Variant, errors: dict[str, list], root: Path, **more) -> list[Path]:
    """The files of the report on :func:`make_results`, below ``root``."""
    return write_page(page_of(experiment, variant, errors, root, **more))


def numbers_of(path: Path, key: str = "row") -> dict[str, dict[str, str]]:
    """The lines of a CSV file by a column."""
    with path.open(newline="") as file:
        return {line[key]: line for line in csv.DictReader(file)}
