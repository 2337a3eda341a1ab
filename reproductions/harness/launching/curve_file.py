"""A run's curve while it has no record: ``curve.jsonl`` in its work folder, a line for each evaluation."""

import json
from pathlib import Path

from resnet.files import write_atomically

NAME = "curve.jsonl"
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40  # characters of a sparkline, at most


class CurveFile:
    """The file of a run that this process trains."""

    def __init__(self, folder: Path):
        self._path = folder / NAME
        self._lines: int | None = None  # in the file, once this process has written it

    def write(self, curve: list[dict]) -> None:
        """Append the evaluations that the file lacks; the first time, or after an error, write the file anew.

        An earlier process may have evaluated after its last checkpoint: these lines go, and come again. Raises OSError.
        """
        written, self._lines = self._lines, None
        if written is None:
            if curve or self._path.exists():
                write_atomically(self._path, _text(curve), durable=False)
        elif len(curve) > written:
            with self._path.open("ab") as file:
                file.write(_text(curve[written:]))
        self._lines = len(curve)


def _text(curve: list[dict]) -> bytes:
    return "".join(f"{json.dumps(point)}\n" for point in curve).encode()


def read_curve(folder: Path) -> list[dict]:
    """Read the evaluations in a run's work folder; none if there is no file, and none from a line cut short."""
    try:
        lines = (folder / NAME).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    points = []
    for line in lines:
        try:
            point = json.loads(line)
        except ValueError:
            continue
        if isinstance(point, dict) and isinstance(point.get("iteration"), int):
            points.append(point)
    return points


def shown(point: dict) -> dict:
    """Return an evaluation without its test errors if it has a validation error, the one to choose by."""
    hidden = "validation_error" in point
    return {name: value for name, value in point.items() if not (hidden and name.startswith("test_"))}


def sparkline(values: list[float]) -> str:
    """Draw values as bars, of which at most 40 are shown, the last one among them; all of one height are lowest."""
    count = len(values)
    shown = [values[-1 - place * count // _WIDTH] for place in range(_WIDTH)][::-1] if count > _WIDTH else values
    low, high = min(shown), max(shown)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join(_BARS[round((value - low) / step)] for value in shown)
