"""Records as samples, one value per seed, and as pandas' frames. Errors and accuracies are in percent."""

from __future__ import annotations

import gzip
import io
import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reproductions.harness.records import Pool, device_seconds, read_pool, segments
from reproductions.harness.reporting import intervals
from resnet.files import write_atomically
from resnet.run import Run, canonical_json

if TYPE_CHECKING:
    import pandas  # loaded where a frame is made: it takes a second

# The metrics: their names in records, and in papers. An accuracy is 100 less the error.
METRICS = {
    "test_error": "test error",
    "training_error": "training error",
    "validation_error": "validation error",
    "test_top5_error": "top-5 error",
    "top1_accuracy": "top-1 accuracy",
    "top5_accuracy": "top-5 accuracy",
    "one_crop_error": "top-1 error, 1-crop",
    "one_crop_top5_error": "top-5 error, 1-crop",
    "ten_crop_error": "top-1 error, 10-crop",
    "ten_crop_top5_error": "top-5 error, 10-crop",
    "multi_scale_error": "top-1 error, multi-scale",
    "multi_scale_top5_error": "top-5 error, multi-scale",
    "pixel_accuracy": "pixel accuracy",
    "mean_iou": "mIoU",
    "map_11_point": "mAP",
    "map_area": "mAP (area)",
}
ACCURACIES = {"top1_accuracy": "test_error", "top5_accuracy": "test_top5_error"}
HIGHER_IS_BETTER = (*ACCURACIES, "pixel_accuracy", "mean_iou", "map_11_point", "map_area")  # the last four: of tasks
# Names in the records of image folders, whose evaluations look at the square in the centre of each image.
ONE_CROP = {"one_crop_error": "test_error", "one_crop_top5_error": "test_top5_error"}
# The further test of the final network, in the recipe, that measures a metric, and the metric's name in it.
FURTHER_TESTS = {
    "ten_crop_error": ("ten_crop", "test_error"),
    "ten_crop_top5_error": ("ten_crop", "test_top5_error"),
    "multi_scale_error": ("multi_scale", "test_error"),
    "multi_scale_top5_error": ("multi_scale", "test_top5_error"),
}

# Why two runs with the same seed are not compared.
OTHER_DEVICE, OTHER_PRECISION, SAME_PRECISION = "of other devices", "of other precision", "of the same precision"


def completed(records: list[dict]) -> list[dict]:
    """Return the runs that reached their last iteration; diverged runs are counted, but are in no sample."""
    return [record for record in records if record["status"] == "completed"]


def measured(point: dict, metric: str) -> float:
    """Return one of METRICS, except FURTHER_TESTS, at an evaluation of a completed run, in percent.

    ``training_error`` is the mean over the augmented batches since the evaluation before.
    """
    return 100 - point[ACCURACIES[metric]] if metric in ACCURACIES else point[ONE_CROP.get(metric, metric)]


def at_the_end(record: dict, metric: str) -> float:
    """Return the value of a metric at a completed run's last iteration."""
    if metric in FURTHER_TESTS:
        test, error = FURTHER_TESTS[metric]
        return record["tests"][test][error]
    return measured(record["final"], metric)


def by_seed(records: list[dict], metric: str = "test_error") -> dict[int, float]:
    """Return the final values of all completed runs by seed."""
    return {r["specification"]["seed"]: at_the_end(r, metric) for r in completed(records)}


def share_runs(records: list[dict], others: list[dict]) -> bool:
    """Return whether two rows share runs: a variant may override the difference between the rows."""
    return bool({record["identity"] for record in records} & {record["identity"] for record in others})


def comparable(new: list[dict], old: list[dict]) -> tuple[list[dict], Counter[str]]:
    """Select the completed runs of ``new`` that pair with a run of ``old`` by seed; count the others by reason.

    Both runs of a pair must have been on one kind of device throughout, with the same precision. Recipes that name
    different precisions are a comparison of precisions: there the runs' precisions must differ.
    """
    partners, kept, left_out = {r["specification"]["seed"]: r for r in completed(old)}, [], Counter()
    for record in completed(new):
        if (partner := partners.get(record["specification"]["seed"])) is None:
            continue
        if reason := _why_not(record, partner):
            left_out[reason] += 1
        else:
            kept.append(record)
    return kept, left_out


def _why_not(record: dict, partner: dict) -> str:
    """Return the reason why two runs can't be a pair; empty if they can."""
    both = (record, partner)
    kinds = {part["hardware"] and part["hardware"]["type"] for one in both for part in segments(one)}
    if len(kinds) > 1 or None in kinds:
        return OTHER_DEVICE
    about_precision = len({one["specification"]["recipe"]["precision"] for one in both}) > 1
    different = len({one["precision"] for one in both}) > 1  # no run changes it midway: its checkpoint is refused
    return "" if about_precision == different else OTHER_PRECISION if different else SAME_PRECISION


def pairs_note(left_out: Counter[str]) -> str:
    """Return the sentence for a table in which pairs were left out."""
    if not left_out:
        return ""
    return (
        " Only runs on one kind of device are compared, and only with the same precision, or with different ones where "
        "the recipes name them: the others are counted in brackets."
    )


def paired_differences(new: dict[int, float], old: dict[int, float]) -> list[float]:
    """Return new minus old for every common seed, in order; rounding makes equal differences bitwise equal."""
    return [round(new[seed] - old[seed], 9) for seed in sorted(new.keys() & old.keys())]


def final_values(records: list[dict], metric: str = "test_error") -> list[float]:
    """Return the final values of all completed runs."""
    return [at_the_end(record, metric) for record in completed(records)]


def best_values(records: list[dict], metric: str = "test_error") -> list[float]:
    """Return the values at the best evaluations of all completed runs, which is a selection on the test set."""
    return [measured(record["best"], metric) for record in completed(records)]


def aggregated(samples: Sequence[list[float]]) -> pandas.DataFrame:
    """Return mean, std, and the ends ``low`` and ``high`` of the mean's 95 % t-interval of each sample, a line each.

    They are NaN where a sample has too few values, and the interval's ends also where its values are equal.
    """
    import pandas

    def end(name: str) -> Callable[[pandas.Series], float]:
        return lambda own: getattr(intervals.percent(intervals.mean_interval([*own])), name, math.nan)

    lines = [(place, value) for place, own in enumerate(samples) for value in own]
    grouped = pandas.DataFrame(lines, columns=["sample", "value"]).astype({"value": float}).groupby("sample")["value"]
    return grouped.agg(mean="mean", std="std", low=end("low"), high=end("high")).reindex(range(len(samples)))


def mean_loss_curve(records: list[dict]) -> pandas.DataFrame | None:
    """Return the mean training loss over each of the recipe's loss intervals, at the end of the interval.

    As :func:`curve` does; None without completed runs or a ``loss_interval``.
    """
    return _over_seeds(
        (before + record["specification"]["recipe"]["loss_interval"] * number, loss)
        for record in completed(records)
        for before, point in zip([0, *(point["iteration"] for point in record["curve"])], record["curve"])
        for number, loss in enumerate(point.get("mean_losses", []), start=1)
    )


def curve(records: list[dict], metric: str) -> pandas.DataFrame | None:
    """Return the learning curve of one row's completed runs: their mean, min and max by iteration; None without any."""
    return _over_seeds(
        (point["iteration"], measured(point, metric)) for record in completed(records) for point in record["curve"]
    )


def _over_seeds(points: Iterable[tuple[int, float]]) -> pandas.DataFrame | None:
    import pandas

    table = pandas.DataFrame(points, columns=["iteration", "value"])
    return None if table.empty else table.groupby("iteration")["value"].agg(["mean", "min", "max"])


# ------------------------------------------------------------------------------------------------------------- frames

RUNS, CURVES = "runs.csv", "curves.csv.gz"  # of all published records


def read_frame(records: str | Path, curves: bool = False) -> pandas.DataFrame:
    """Read all records below a folder into a frame; see :func:`reproductions.frame`."""
    pool = read_pool(Path(records))
    for error in pool.damaged.values():
        warnings.warn(f"left out: {error}", stacklevel=3)
    if not pool.records:
        raise ValueError(f"there are no records below {records}; name their folder, such as results/records")
    return curves_frame(pool) if curves else runs_frame(pool)


def runs_frame(pool: Pool) -> pandas.DataFrame:
    """Return a frame with one line per run, the runs of a row side by side. An absent number is NaN."""
    import pandas

    return pandas.DataFrame([_run_line(record, pool) for record in _in_order(pool)])


def curves_frame(pool: Pool) -> pandas.DataFrame:
    """Return a frame with one line per evaluation, the runs in the order of :func:`runs_frame`."""
    import pandas

    lines = []
    for record in _in_order(pool):
        names = _name_columns(record, pool)
        for point in record["curve"]:
            losses = json.dumps(point["mean_losses"]) if "mean_losses" in point else None
            lines.append(names | {key: value for key, value in point.items() if key != "mean_losses"})
            lines[-1] |= {"mean_losses": losses}
    return pandas.DataFrame(lines)


def _in_order(pool: Pool) -> list[dict]:
    def place(record: dict) -> tuple:
        run = record["specification"]
        return run["data"], run["model"], pool.first_of(record), run["seed"], record["identity"]

    return sorted(pool.records.values(), key=place)


def _name_columns(record: dict, pool: Pool) -> dict:
    """Return the columns that identify a run; runs of the same ``row`` differ only in their seed."""
    run = record["specification"]
    return {"run": record["identity"][:16], "row": pool.first_of(record)[:16], "model": run["model"],
            "seed": run["seed"]}  # fmt: skip


def _run_line(record: dict, pool: Pool) -> dict:
    run = Run.from_specification(record["specification"])
    final, best, timing, hardware = (record[name] or {} for name in ("final", "best", "timing", "hardware"))
    needs = {role: need.short_id for role, need in run.needs.items()}
    return {
        **_name_columns(record, pool),
        "options": canonical_json(run.model_options).decode(),
        "recipe_changes": canonical_json(run.recipe.changes()).decode(),
        "data": run.data,
        "train_images": run.train_images,
        "teacher": needs.get("teacher"),
        "pretrained": needs.get("pretrained"),
        "status": record["status"],
        "parameters": record["parameters"],
        "iterations": final["iteration"],
        **{name: final.get(name) for name in ("training_loss", "training_error", "test_error", "test_top5_error")},
        **({"validation_error": final["validation_error"]} if "validation_error" in final else {}),
        **{f"best_{name}": best.get(name) for name in ("iteration", "test_error")},
        **({} if run.task is None else {"task": run.task.name} | {name: final.get(name) for name in run.task.metrics}),
        **{metric: record.get("tests", {}).get(test, {}).get(name) for metric, (test, name) in FURTHER_TESTS.items()},
        "wall_seconds": timing["wall_seconds"],
        "train_seconds": timing["train_seconds"],
        "device_seconds": device_seconds(record),
        "images_per_second": timing["images_per_second"],
        "packed_with": timing.get("packed_with", 0),
        "finished": timing["finished"],
        "device": hardware.get("device"),
        "device_type": hardware.get("type"),
        "threads": hardware.get("threads"),
        "precision": record["precision"],
        "torch": record["versions"]["torch"],
        "commit": record["code"]["commit"],
        "official_data": record["data"]["official"],
        "interruptions": record["interruptions"],
        "identity": record["identity"],
    }


def csv_text(table: pandas.DataFrame, digits: int = 6) -> str:
    """Format a frame as CSV with numbers of ``digits`` significant digits; an absent one is empty."""
    return table.to_csv(index=False, lineterminator="\n", float_format=f"{{:z.{digits}g}}".format)


def write_frames(pool: Pool, folder: Path) -> list[Path]:
    """Write the frames of all records, RUNS and CURVES, into a folder; returns both paths."""
    runs, curves = (csv_text(table, 10).encode() for table in (runs_frame(pool), curves_frame(pool)))
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", mtime=0, fileobj=packed) as file:  # no name and no time: the same records, bytes
        file.write(curves)
    write_atomically(folder / RUNS, runs)
    write_atomically(folder / CURVES, packed.getvalue())
    return [folder / RUNS, folder / CURVES]
