"""Records are written once and whole, and whatever is wrong with one is an error that names its file."""

import copy
import json
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import as_of_schema, make_record, move, store
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY

from reproductions.harness.provenance import ROOT
from reproductions.harness.record_files import NewerRecordError, PoolError, RecordError, record_path
from reproductions.harness.records import (
    ORIGIN,
    SCHEMA,
    device_seconds,
    read_pool,
    read_record,
    records_digest,
    seal,
    segments,
    write_record,
)
from resnet.recipe import Recipe
from resnet.run import Run

RUN = Run("cifar_resnet20", TINY, "cifar10", seed=1)


@pytest.fixture
def record(tmp_path):
    return store(tmp_path, make_record(RUN, 8.5))[0]


def put(root, record, run=RUN):
    """The file of a record put where ``run`` belongs, without any check."""
    path = record_path(root, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def test_a_record_is_one_json_file_named_after_data_model_and_run(tmp_path):
    path = write_record(tmp_path, make_record(RUN, 8.5))
    assert path == tmp_path / "cifar10" / "cifar_resnet20" / f"{RUN.identity[:16]}.json"
    assert json.loads(path.read_text())["final"]["test_error"] == 8.5
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_the_second_write_of_a_run_keeps_the_first(tmp_path):
    first = write_record(tmp_path, make_record(RUN, 8.5)).read_bytes()
    assert write_record(tmp_path, make_record(RUN, 3.2)).read_bytes() == first


def test_an_invalid_record_is_not_written(tmp_path):
    with pytest.raises(RecordError):
        write_record(tmp_path, make_record(RUN, 8.5, parameters="many"))
    assert not list(tmp_path.rglob("*"))


def test_a_run_whose_record_is_damaged_is_not_written_over(tmp_path):
    path = write_record(tmp_path, make_record(RUN, 8.5))
    path.write_text("{")
    with pytest.raises(RecordError, match=str(path)):
        write_record(tmp_path, make_record(RUN, 8.5))
    assert path.read_text() == "{"


def test_a_diverged_record_is_valid_without_its_last_errors(tmp_path):
    record = store(tmp_path, make_record(RUN, 90.0) | diverged_fields())[0]
    assert record["status"] == "diverged"
    assert record["final"]["test_error"] is None and record["best"]["test_error"] == 95.0


def diverged_fields():
    seen = {"iteration": 3, "learning_rate": 0.1, "training_loss": 2.0, "training_error": 91.0, "test_error": 95.0}
    lost = {"iteration": 6, "learning_rate": 0.1, "training_loss": None, "training_error": None, "test_error": None}
    return {"status": "diverged", "curve": [seen, lost], "final": lost, "best": seen}


def test_a_run_that_diverged_before_its_first_evaluation_has_no_best(tmp_path):
    lost = diverged_fields()["final"] | {"iteration": 3}
    changes = {"status": "diverged", "curve": [lost], "final": lost, "best": {}}
    record = make_record(RUN, 90.0) | changes
    record["segments"][0]["to"] = 3
    assert store(tmp_path, record)[0]["best"] == {}


# ------------------------------------------------------------------------------- damage, the digest made to fit again


def set_curve(record, curve):
    best = min(curve, key=lambda point: point["test_error"], default={})
    record |= {"curve": curve, "final": curve[-1] if curve else {}, "best": best}


DAMAGE = {
    "missing field": lambda r: r.pop("precision"),
    "missing field of a section": lambda r: r["timing"].pop("wall_seconds"),
    "unknown field": lambda r: r.update(comment="mine"),
    "text for a number": lambda r: r.update(parameters="270k"),
    "float for an int": lambda r: r.update(parameters=269722.0),
    "bool for an int": lambda r: r.update(interruptions=False),
    "int for a bool": lambda r: r["data"].update(official=1),
    "bool for a number": lambda r: r["timing"].update(wall_seconds=True),
    "null for a number": lambda r: r["timing"].update(images_per_second=None),
    "list for a section": lambda r: r.update(code=[]),
    "a schema to come": lambda r: r.update(schema=SCHEMA + 1),
    "no schema": lambda r: r.update(schema=0),
    "schema that is a float": lambda r: r.update(schema=float(SCHEMA)),
    "schema that is a bool": lambda r: r.update(schema=True),
    "schema that is a list": lambda r: r.update(schema=[1]),
    "schema 2 without its neighbours": lambda r: r["timing"].pop("packed_with"),
    "schema 2 without its share of the device": lambda r: r["timing"].pop("device_seconds"),
    "schema 2 without its processes": lambda r: r["hardware"].pop("processes"),
    "unknown status": lambda r: r.update(status="finished"),
    "identity of another run": lambda r: r.update(identity="0" * 64),
    "specification of another run": lambda r: r["specification"].update(seed=2),
    "unknown model": lambda r: r["specification"].update(model="vgg"),
    "another training version": lambda r: r["specification"].update(training_version=99),
    "recipe that is no object": lambda r: r["specification"].update(recipe=3),
    "data of another name": lambda r: r["data"].update(name="cifar100"),
    "final differs from the curve": lambda r: r["final"].update(test_error=1.0),
    "best differs from the curve": lambda r: r["best"].update(test_error=1.0),
    "no segments": lambda r: r.update(segments=[]),
    "a segment without its device": lambda r: r["segments"][0].pop("hardware"),
    "a segment with more fields": lambda r: r["segments"][0].update(comment="mine"),
    "segments that don't begin with the run": lambda r: r["segments"][0].update({"from": 1}),
    "segments that don't follow one another": lambda r: r["segments"].append(r["segments"][0]),
    "segments that end too early": lambda r: r["segments"][0].update(to=3),
    "a segment of which only something is known": lambda r: r.update(move(r, 3, code=None)),
    "a last segment that is not known": lambda r: r["segments"][0].update(dict.fromkeys(ORIGIN)),
    "a last segment on another device": lambda r: r["segments"][0]["hardware"].update(device="GPU X"),
    "a last segment of another commit": lambda r: r["segments"][0]["code"].update(commit=None),
    "empty curve": lambda r: set_curve(r, []),
    "curve with a bool": lambda r: set_curve(r, [r["curve"][0] | {"learning_rate": True}, r["curve"][1]]),
    "curve with a gap in a point": lambda r: r["curve"][0].pop("training_loss"),
    "curve not in order": lambda r: set_curve(r, r["curve"][::-1]),
    "curve with an iteration twice": lambda r: set_curve(r, [r["curve"][1], r["curve"][1]]),
    "completed, but short": lambda r: set_curve(r, r["curve"][:1]),
    "completed, but without an error": lambda r: set_curve(
        r, [r["curve"][0] | {"training_error": None}, r["curve"][1]]
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_an_error_that_names_the_file(tmp_path, record, damage):
    record = copy.deepcopy(record)
    DAMAGE[damage](record)
    path = put(tmp_path, seal(record))
    with pytest.raises(RecordError, match=str(path)):
        read_record(path)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_an_error_that_names_the_file(tmp_path, record, value):
    text = json.dumps(record)
    path = record_path(tmp_path, RUN)
    path.write_text(text.replace('"wall_seconds": 3600.0', f'"wall_seconds": {value}'))
    with pytest.raises(RecordError, match=str(path)):
        read_record(path)


def test_a_record_in_another_place_is_an_error_that_names_the_right_one(tmp_path, record):
    path = record_path(tmp_path, Run("cifar_resnet20", TINY, "cifar10", seed=2))
    record_path(tmp_path, RUN).rename(path)
    with pytest.raises(RecordError, match=f"{path}.*{RUN.short_id}"):
        read_record(path)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"7", b'"text"', b"{}", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_record_is_an_error_that_names_it(tmp_path, content):
    path = record_path(tmp_path, RUN)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RecordError, match=str(path)):
        read_record(path)


def test_a_truncated_record_is_an_error_wherever_it_ends(tmp_path, record):
    path = record_path(tmp_path, RUN)
    content = path.read_bytes().rstrip()
    for length in random.Random(0).sample(range(len(content)), 50):
        path.write_bytes(content[:length])
        with pytest.raises(RecordError, match=str(path)):
            read_record(path)


@given(st.data())
def test_a_record_with_a_flipped_bit_is_refused_or_still_says_the_same(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("bits")
    path = write_record(root, make_record(RUN, 8.5))
    content, before = bytearray(path.read_bytes()), read_record(path)
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        assert read_record(path) == before
    except RecordError as error:
        assert str(path) in str(error)


def leaves(value, path=()):
    """The paths to everything in a record that is neither object nor list."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for key, inner in items for leaf in leaves(inner, (*path, key))]
    return [path]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
SEALED = seal(make_record(RUN, 8.5))


@given(st.sampled_from(leaves(SEALED)), SCALARS | st.sampled_from([{}, []]))
def test_any_edit_of_one_value_is_refused(tmp_path_factory, leaf, value):
    record = copy.deepcopy(SEALED)
    *parents, last = leaf
    place = record
    for key in parents:
        place = place[key]
    same = json.dumps(place[last]) == json.dumps(value)
    place[last] = value
    path = put(tmp_path_factory.mktemp("edit"), record)
    if same:
        read_record(path)
    else:
        with pytest.raises(RecordError, match=str(path)):
            read_record(path)


# -------------------------------------------------------------------------------------------------------- older schemas


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_record_of_an_older_schema_is_still_valid(tmp_path, record, schema):
    older = as_of_schema(record, schema)
    assert SCHEMA == 4 and read_record(put(tmp_path, older)) == older
    assert read_pool(tmp_path).get(RUN) == older
    assert segments(older)[0]["code"] == older["code"] and segments(older)[0]["to"] == RUN.recipe.iterations


def test_a_record_of_an_older_schema_has_none_of_the_newer_fields(tmp_path, record):
    path = put(tmp_path, seal(as_of_schema(record, 2) | {"tests": {}}))
    with pytest.raises(RecordError, match="unknown field tests"):
        read_record(path)


def test_tests_and_teacher_are_those_of_the_specification(tmp_path):
    taught = Run("cifar_resnet20", replace(RUN.recipe, temperature=20), teacher=RUN)
    tested = Run("resnet18", Recipe(crop="area", tests=("ten_crop",)), "imagenet")
    for run, change, said in (
        (taught, {"teacher_sha256": None}, "teacher differs from its specification"),
        (RUN, {"teacher_sha256": "0" * 64}, "teacher differs from its specification"),
        (RUN, {"tests": {"ten_crop": {"test_error": 1.0, "test_top5_error": 0.1}}}, "tests .'ten_crop'., not .."),
        (tested, {"tests": {"ten_crop": {"test_error": 1.0, "test_top5_error": None}}}, "test_top5_error is None"),
        (tested, {"tests": {"ten_crop": {"test_error": 1.0}}}, "test_top5_error missing"),
    ):
        record = make_record(run, 8.5)
        write_record(tmp_path / "valid", record)
        with pytest.raises(RecordError, match=said):
            write_record(tmp_path / "not valid", record | change)


def test_a_record_of_the_first_schema_with_the_number_of_the_newest_is_refused(tmp_path, record):
    path = put(tmp_path, seal(as_of_schema(record, 1) | {"schema": SCHEMA}))
    with pytest.raises(RecordError, match=f"{path}.*segments, teacher_sha256, tests missing"):
        read_record(path)


@pytest.mark.parametrize("damage", ["missing field of a section", "bool for a number", "list for a section"])
def test_damage_to_a_record_of_the_first_schema_is_an_error_too(tmp_path, record, damage):
    older = as_of_schema(record, 1)
    DAMAGE[damage](older)
    path = put(tmp_path, seal(older))
    with pytest.raises(RecordError, match=str(path)):
        read_record(path)


def test_the_committed_records_are_valid():
    pool = read_pool(ROOT / "results" / "records")
    assert not pool.damaged and {record["schema"] for record in pool.records.values()} <= {1, 2, 3, 4}
    assert any(record["schema"] < SCHEMA for record in pool.records.values())


def test_a_run_took_its_share_of_every_device_it_was_on(tmp_path, record):
    shared = make_record(RUN, 8.5, timing={"device_seconds": 450.0, "packed_with": 7}, hardware={"processes": 2})
    assert device_seconds(seal(shared)) == 900.0
    assert device_seconds(as_of_schema(record, 1)) == record["timing"]["wall_seconds"] == device_seconds(record)
    assert device_seconds(move(shared, 3, hardware={"processes": 4})) == 225 * 4 + 225 * 2
    assert device_seconds(move(shared, 3, **dict.fromkeys(ORIGIN))) == 225 + 225 * 2


# ---------------------------------------------------------------------------------------------------------------- pool


def test_a_pool_reports_what_is_damaged_and_never_counts_it(tmp_path):
    runs = [Run("cifar_resnet20", TINY, "cifar10", seed) for seed in range(3)]
    for run in runs:
        write_record(tmp_path, make_record(run, 8.0 + run.seed))
    damaged = record_path(tmp_path, runs[1])
    damaged.write_text(damaged.read_text().replace("8", "7", 1))
    pool = read_pool(tmp_path)
    assert {record["specification"]["seed"] for record in pool.records.values()} == {0, 2}
    assert list(pool.damaged) == [damaged] and str(damaged) in str(pool.damaged[damaged])
    assert pool.get(runs[0])["final"]["test_error"] == 8.0 and pool.get(runs[1]) is None


def newer(record, what):
    """The record as newer code may write it: in the next schema, of a run with an option or by rules of its own."""
    specification = record["specification"]
    if what == "schema":
        return record | {"schema": SCHEMA + 1, "new": 1}
    if what == "option":
        specification = specification | {"recipe": specification["recipe"] | {"new": 1}}
    if what == "rules":
        specification = specification | {"training_version": 2}
    return seal(record | {"specification": specification})


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("schema", f"its schema is {SCHEMA + 1}, and this code knows none above {SCHEMA}"),
        ("option", r"this code can't train its run \(.*'new'"),
        ("rules", r"this code can't train its run \(training version 2, but this code has version 1"),
    ],
)
def test_a_record_of_newer_code_is_no_damaged_one(tmp_path, record, what, said):
    path = put(tmp_path, newer(record, what))
    with pytest.raises(NewerRecordError, match=f"{path} was written by newer .*code: {said}") as caught:
        read_record(path)
    assert caught.value.kind == "newer record" and caught.value.advice == "Update the code to use it."
    pool = read_pool(tmp_path)
    assert not pool.records and isinstance(pool.damaged[path], NewerRecordError)


def test_an_edited_option_is_damage_and_no_newer_code(tmp_path, record):
    path = put(tmp_path, {**newer(record, "option"), "record_sha256": record["record_sha256"]})
    with pytest.raises(RecordError, match="edited or damaged") as caught:
        read_record(path)
    assert caught.value.kind == "damaged record"


def deny(monkeypatch, *denied):
    """Let these paths be another user's, which can't be read."""
    scandir, read_text = os.scandir, Path.read_text

    def raise_or(function, path, *arguments, **more):
        if Path(path) in denied:
            raise PermissionError(13, "Permission denied", str(path))
        return function(path, *arguments, **more)

    monkeypatch.setattr(os, "scandir", lambda path=".": raise_or(scandir, path))
    monkeypatch.setattr(Path, "read_text", lambda path, *args, **more: raise_or(read_text, path, *args, **more))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_records_in_a_folder_that_can_not_be_read_are_not_taken_for_missing(tmp_path, record, monkeypatch, depth):
    folder = record_path(tmp_path, RUN).parents[2 - depth]
    deny(monkeypatch, folder)
    with pytest.raises(PoolError, match=rf"{folder} can't be read \(Permission denied\).*--out"):
        read_pool(tmp_path)


def test_folders_below_the_records_are_not_looked_into(tmp_path, record):
    path = record_path(tmp_path, RUN)
    (path.parent / "back").symlink_to(tmp_path)
    (path.parent / "copies").mkdir()
    (path.parent / "copies" / path.name).write_bytes(path.read_bytes())
    pool = read_pool(tmp_path)
    assert len(pool.records) == 1 and not pool.damaged


def test_a_record_that_can_not_be_read_is_not_to_be_moved_away(tmp_path, record, monkeypatch):
    path = record_path(tmp_path, RUN)
    deny(monkeypatch, path)
    error = read_pool(tmp_path).damaged[path]
    assert str(error) == f"{path} can't be read: Permission denied" and error.kind == "unreadable record"
    assert error.advice == "Have the file made readable for this user."


def test_an_absent_folder_is_an_empty_pool(tmp_path):
    pool = read_pool(tmp_path / "nowhere")
    assert pool.records == {} and pool.damaged == {}


def test_a_temporary_file_of_a_killed_writer_is_no_record(tmp_path, record):
    path = record_path(tmp_path, RUN)
    (path.parent / f".{path.name}.abc.tmp").write_text("{")
    pool = read_pool(tmp_path)
    assert len(pool.records) == 1 and not pool.damaged


def test_the_digest_of_records_is_that_of_the_set(tmp_path):
    runs = [Run("cifar_resnet20", TINY, "cifar10", seed) for seed in range(4)]
    records = store(tmp_path, *(make_record(run, 8.0) for run in runs))
    digest = records_digest(records)
    assert digest == records_digest(records[::-1]) and len(digest) == 64
    assert digest != records_digest(records[:3]) != records_digest([])
