"""Records, one JSON file for each finished run, and pools of them."""

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from reproductions.harness.record_files import (
    NewerRecordError,
    RecordError,
    judged_by,
    load_record,
    record_files,
    record_path,
)
from resnet.files import write_atomically
from resnet.run import ROLES, Run, canonical_json

SCHEMA = 4
_NUMBER, _OPTIONAL = (int, float), (int, float, type(None))

# Every field of a record with its type; nested dictionaries are sections. Errors are top-1, in percent.
_FIELDS = {
    "schema": int,
    "identity": str,  # of the run: resnet.run.Run.identity
    "specification": dict,  # the run: model, options, recipe, data, seed
    "status": str,  # completed, or diverged: the training loss was not finite
    "parameters": int,
    "curve": list,  # one entry per evaluation; fields below
    "final": dict,  # the last entry of the curve: the result
    "best": dict,  # the entry with the lowest test error, or the task's best first metric: selected on the test set
    "warmup_ended_at": (int, type(None)),  # first iteration at the full learning rate, None without warm-up
    "weights_sha256": str,
    "teacher_sha256": (str, type(None)),  # of the weights of the run's teacher, None without one
    "pretrained_sha256": (str, type(None)),  # of the weights of the run that it was pretrained as, None without one
    "tests": dict,  # errors of the recipe's further tests of the final network, each a section like "ten_crop"
    # The parts of the training; fields below. The record's precision, hardware, versions and code are the last part's,
    # but code.modified is true if the code of any part was modified, or if the parts had several versions.
    "segments": list,
    "precision": str,
    "timing": {
        "wall_seconds": _NUMBER,
        "train_seconds": _NUMBER,  # without evaluations and checkpoints
        "images_per_second": _NUMBER,  # training images over train_seconds
        "device_seconds": _NUMBER,  # the run's share of the device's time: wall time over the runs that shared it
        "packed_with": int,  # the most other runs at once on the device
        "finished": str,  # UTC, ISO 8601
    },
    "hardware": {"type": str, "device": str, "threads": int, "processes": int},
    "versions": {"python": str, "torch": str, "cuda": (str, type(None)), "cudnn": (int, type(None))},
    "code": {
        "commit": (str, type(None)),
        "modified": (bool, type(None)),  # None where there is no git to ask
        "resnet_sha256": str,  # of the sources of the package resnet
    },
    "data": {"name": str, "sha256": str, "official": bool},
    "interruptions": int,
    "record_sha256": str,  # of the record without this field
}
# The fields that each schema added, as paths of names: older records don't have them.
_SINCE = {
    2: [("timing", "device_seconds"), ("timing", "packed_with"), ("hardware", "processes")],
    3: [("teacher_sha256",), ("pretrained_sha256",), ("tests",)],
    4: [("segments",)],
}
ORIGIN = ("hardware", "precision", "versions", "code")  # of a segment; all None where it is not known
_SEGMENT = {"from": int, "to": int, "device_seconds": _NUMBER}  # iterations done at its begin and end; as in timing
_TEST = {"test_error": _NUMBER, "test_top5_error": _NUMBER}
_POINT = {"iteration": int, "learning_rate": _NUMBER, "training_loss": _OPTIONAL}
_ERRORS = ("training_error", "test_error")  # in the entries of a classifier's curve; a task's have its metrics


def seal(record: dict, name: str = "record_sha256") -> dict:
    """Return the record with the digest of its other fields in the field ``name``."""
    content = {field: value for field, value in record.items() if field != name}
    return {**content, name: hashlib.sha256(canonical_json(content)).hexdigest()}


def write_record(root: Path, record: dict) -> Path:
    """Check the record and write it into the pool ``root``, once and whole; an existing one is kept."""
    record = seal(record)
    path = record_path(root, Run.from_specification(record["specification"]))
    validate(record, path)
    text = json.dumps(record, indent=1, allow_nan=False)
    try:
        write_atomically(path, text.encode() + b"\n", exclusive=True)
    except FileExistsError:
        read_record(path)
    return path


def read_record(path: Path) -> dict:
    """Read and check one record. Raises RecordError, NewerRecordError or UnreadableRecordError."""
    record = load_record(path)
    validate(record, path)
    return record


def validate(record: dict, path: Path) -> None:
    """Raise RecordError unless the record is complete, consistent, unedited, and in its place."""

    def check(condition: bool, problem: str) -> None:
        if not condition:
            raise RecordError(f"{path} is not a valid record: {problem}")

    def check_fields(values, expected: dict, where: str) -> None:
        check(isinstance(values, dict), f"{where or 'it'} is not an object")
        check(set(expected) <= set(values), f"{where}{', '.join(sorted(set(expected) - set(values)))} missing")
        for name, kind in expected.items():
            if isinstance(kind, dict):
                check_fields(values[name], kind, f"{name}.")
            else:
                right = isinstance(values[name], kind)
                right &= not isinstance(values[name], bool) or bool in _kinds(kind)  # a bool is an int to Python
                check(right, f"{where}{name} is {values[name]!r}")

    check(isinstance(record, dict), "it is not an object")
    schema = record.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise NewerRecordError(f"{path} was written by newer code: its schema is {schema}, and this code knows none "
                               f"above {SCHEMA}")  # fmt: skip
    check(type(schema) is int and 1 <= schema <= SCHEMA, f"schema is {schema!r}, not {SCHEMA}")
    fields = _fields(schema)
    check_fields(record, fields, "")
    check(set(record) == set(fields), f"unknown field {', '.join(sorted(set(record) - set(fields)))}")
    try:
        digest = seal(record)["record_sha256"]
    except ValueError as error:  # a number that is not finite
        raise RecordError(f"{path} is not a valid record: {error}") from error
    check(digest == record["record_sha256"], "its digest does not fit its content: it was edited or damaged")
    try:
        run = Run.from_specification(record["specification"])
    except ValueError as error:
        text = f"{path} was written by newer or other code: this code can't train its run ({error})"
        raise NewerRecordError(text) from error
    check(run.identity == record["identity"], "its identity does not fit its specification")
    check(path.parts[-3:] == record_path(Path("x"), run).parts[-3:], f"it belongs at {record_path(Path('.'), run)}")
    check(record["status"] in ("completed", "diverged"), f"status is {record['status']!r}")
    same = run.arrays is None or record["data"]["sha256"] == run.arrays.sha256
    check(same and record["data"]["name"] == run.data, "its data differ from its specification")
    check(bool(record["curve"]), "the curve is empty")
    for point in record["curve"]:
        check_fields(point, _POINT | dict.fromkeys(run.task.metrics if run.task else _ERRORS, _OPTIONAL), "curve: ")
    done = 0
    for segment in record.get("segments", []):
        check_fields(segment, _SEGMENT | dict.fromkeys(ORIGIN, (str, dict, type(None))), "segments: ")
        if any(segment[name] is not None for name in ORIGIN):
            check_fields(segment, {name: fields[name] for name in ORIGIN}, "segments: ")
        check(set(segment) == {*_SEGMENT, *ORIGIN}, "segments: unknown field")
        check(done == segment["from"] < segment["to"], "its segments don't follow one another")
        done = segment["to"]
    iterations = [point["iteration"] for point in record["curve"]]
    check(iterations == sorted(set(iterations)), "the curve's iterations don't increase")
    check(record["final"] == record["curve"][-1], "final is not the curve's last entry")
    if "segments" in record:
        check(done == iterations[-1], "its segments and its curve end at different iterations")
        last = record["segments"][-1]
        same = all(last[name] == record[name] for name in ORIGIN if name != "code")
        same &= (last["code"] or {}) | {"modified": None} == record["code"] | {"modified": None}
        check(same, f"its {', '.join(ORIGIN)} differ from its last segment's")
    check(record["best"] == best_point(record["curve"]), "best is not the curve's best entry")
    tests = record.get("tests", {})
    for name, errors in tests.items():
        check_fields(errors, _TEST, f"tests.{name}.")
    if record["status"] == "completed":
        check(set(tests) == set(run.recipe.tests), f"it has the tests {sorted(tests)}, not {sorted(run.recipe.tests)}")
        for role in ROLES:
            is_there = record.get(f"{role}_sha256") is not None
            check(is_there == (role in run.needs), f"its {role} differs from its specification")
        last = iterations[-1]
        check(last == run.recipe.iterations, f"it ends at iteration {last} of {run.recipe.iterations}")
        values = [value for point in record["curve"] for value in point.values()]
        values += [each for value in values if isinstance(value, list) for each in value]  # mean losses
        finite = all(isinstance(v, _NUMBER) and math.isfinite(v) for v in values if not isinstance(v, list))
        check(finite, "the curve of a completed run has a value that is not finite")


def _fields(schema: int) -> dict:
    """Return the fields of a record of this schema."""
    fields = {name: dict(kind) if isinstance(kind, dict) else kind for name, kind in _FIELDS.items()}
    for path in (path for since, paths in _SINCE.items() if since > schema for path in paths):
        *section, name = path
        del (fields[section[0]] if section else fields)[name]
    return fields


def _kinds(kind) -> tuple:
    return kind if isinstance(kind, tuple) else (kind,)


def segments(record: dict) -> list[dict]:
    """Return the parts of a run's training; a record of an older schema has one part, with its last origin."""
    if "segments" in record:
        return record["segments"]
    timing = record["timing"]  # the first schema knew neither packs nor several processes
    seconds = timing.get("device_seconds", timing["wall_seconds"])
    whole = {"from": 0, "to": record["final"]["iteration"], "device_seconds": seconds}
    return [whole | {name: record[name] for name in ORIGIN}]


def segment_seconds(segment: dict) -> float:
    """Return the device time of a segment in seconds, summed over its devices."""
    return segment["device_seconds"] * (segment["hardware"] or {}).get("processes", 1)


def device_seconds(record: dict) -> float:
    """Return the device time of the run in seconds, summed over its devices."""
    return sum(map(segment_seconds, segments(record)))


def best_point(curve: list[dict]) -> dict:
    """Return the evaluation with the lowest test error, or the highest value of the task's first metric.

    Of equals it is the first. It is selected on the test set.
    """
    name = judged_by(curve[0])
    measured = [point for point in curve if point[name] is not None]
    sign = 1 if name == "test_error" else -1
    return min(measured, key=lambda point: sign * point[name]) if measured else {}


@dataclass(frozen=True)
class Pool:
    """All records below a folder: ``records`` by run identity, and unusable files in ``damaged``, each with its error.

    ``firsts``: by run identity, the identity of the same row's run with seed 0, as far as it is known.
    """

    root: Path
    records: dict[str, dict] = field(default_factory=dict)
    damaged: dict[Path, RecordError] = field(default_factory=dict)
    firsts: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    _rows: dict[str, list[dict]] = field(default_factory=dict, compare=False, repr=False)

    def get(self, run: Run) -> dict | None:
        """Return the run's record; None without one."""
        return self.records.get(run.identity)

    def of_row(self, first: Run) -> list[dict]:
        """Return the records of a row's runs, ordered by seed; ``first`` is its run with seed 0."""
        if sum(map(len, self._rows.values())) != len(self.records):
            self._rows.clear()
            for record in self.records.values():
                self._rows.setdefault(self.first_of(record), []).append(record)
            for records in self._rows.values():
                records.sort(key=lambda record: record["specification"]["seed"])
        return self._rows.get(first.identity, [])

    def first_of(self, record: dict) -> str:
        """Return the identity of the run with seed 0 of the same row as the record's run."""
        identity = record["identity"]
        if identity not in self.firsts:
            self.firsts[identity] = _with_seed_0(Run.from_specification(record["specification"])).identity
        return self.firsts[identity]


def _with_seed_0(run: Run) -> Run:
    """Return the run with seed 0 of the same row: with the same teacher, and a pre-training with seed 0."""
    if run.pretrained is None:
        return replace(run, seed=0)
    if run.pretrained.seed != run.seed:  # no row has such a run
        return run
    return replace(run, seed=0, pretrained=_with_seed_0(run.pretrained))


def read_pool(root: Path) -> Pool:
    """Read every record below ``root``. Raises PoolError as :func:`record_files` does."""
    pool = Pool(root)
    for path in record_files(root):
        try:
            record = read_record(path)
            pool.records[record["identity"]] = record
        except RecordError as error:
            pool.damaged[path] = error
    return pool


def records_digest(records: list[dict], name: str = "record_sha256") -> str:
    """Return the SHA-256 of the records' sorted digests, which identifies the records of a table."""
    return hashlib.sha256("".join(sorted(record[name] for record in records)).encode()).hexdigest()
