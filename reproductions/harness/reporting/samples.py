"""What the records of one row amount to: samples of errors, one value per seed. Errors are top-1, in percent."""

from dataclasses import dataclass

from reproductions.harness.reporting import statistics


def completed(records: list[dict]) -> list[dict]:
    """The runs that came to their end; those that diverged are counted, but are in no sample."""
    return [record for record in records if record["status"] == "completed"]


def final_errors(records: list[dict], metric: str = "test_error") -> list[float]:
    """The error at the last iteration of every completed run.

    ``training_error`` is the mean over the augmented batches since the evaluation before.
    """
    return [record["final"][metric] for record in completed(records)]


def best_errors(records: list[dict]) -> list[float]:
    """The lowest test error on the curve of every completed run: selected on the test set."""
    return [record["best"]["test_error"] for record in completed(records)]


@dataclass(frozen=True)
class Curve:
    """An error over the iterations: mean, lowest and highest of the completed runs."""

    iterations: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def curve(records: list[dict], metric: str) -> Curve | None:
    """The learning curve of one row's completed runs; None if there are none."""
    curves = [record["curve"] for record in completed(records)]
    if not curves:
        return None
    points = [[point[metric] for point in together] for together in zip(*curves, strict=True)]
    iterations = [point["iteration"] for point in curves[0]]
    return Curve(iterations, [statistics.mean(p) for p in points], [min(p) for p in points], [max(p) for p in points])
