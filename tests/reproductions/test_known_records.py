"""Pools that are read again: what was found valid is not checked anew, and what may have changed is."""

import os
from dataclasses import replace

import pytest
import tiny
from fakes import make_record, store

from reproductions.harness import provenance, records
from reproductions.harness.experiment import Row, Variant
from reproductions.harness.known_records import read_known_pool
from reproductions.harness.record_files import cache_folder, record_path
from reproductions.harness.records import Pool, read_pool
from resnet.run import Run

RUNS = [Run("cifar_resnet8", tiny.TINY, "synthetic", seed) for seed in range(3)]


@pytest.fixture
def root(tmp_path):
    store(tmp_path / "records", *(make_record(run, 20.0 + run.seed) for run in RUNS))
    return tmp_path / "records"


@pytest.fixture
def checked(monkeypatch):
    """The names of the records that are checked from now on."""
    names, validate = [], records.validate
    monkeypatch.setattr(records, "validate", lambda record, path: (names.append(path.stem), validate(record, path)))
    return names


def test_what_is_read_again_is_the_same_and_not_checked(root, checked):
    first = read_known_pool(root)
    assert first == read_pool(root) and len(checked) == 6
    assert read_known_pool(root) == first and len(checked) == 6


def test_without_curves_no_known_file_is_opened(root, checked, monkeypatch):
    whole = read_known_pool(root).records
    monkeypatch.setattr(records, "load_record", None)
    monkeypatch.setattr("reproductions.harness.known_records.load_record", None)
    short = read_known_pool(root, whole=False).records
    for identity, record in whole.items():
        assert short[identity] == {key: value for key, value in record.items() if key not in ("curve", "segments")}


@pytest.mark.parametrize("whole", [True, False])
def test_only_what_is_new_or_changed_is_checked(root, checked, whole):
    read_known_pool(root, whole)
    new, changed = replace(RUNS[0], seed=9), record_path(root, RUNS[1])
    store(root, make_record(new, 30.0))
    changed.write_text(changed.read_text().replace("21.0", "11.0"))
    record_path(root, RUNS[2]).unlink()
    del checked[:]
    pool = read_known_pool(root, whole)
    assert {*checked} == {new.short_id, RUNS[1].short_id}
    assert pool.records.keys() == {RUNS[0].identity, new.identity} and "was edited" in str(pool.damaged[changed])
    again = read_known_pool(root, whole).damaged
    assert [*map(str, again.values())] == [*map(str, pool.damaged.values())], "what is damaged stays so"


def test_other_code_checks_all_of_it_anew(root, checked, monkeypatch):
    read_known_pool(root)
    monkeypatch.setattr(provenance, "source_files", lambda: {"other": b"code"})
    del checked[:]
    read_known_pool(root)
    assert len(checked) == 3


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"code": 1}', b"\xff"])
def test_a_cache_that_can_not_be_read_or_written_is_none(root, checked, content):
    cache = cache_folder(root) / "records.json"
    cache.parent.mkdir()
    cache.write_bytes(content)
    assert len(read_known_pool(root).records) == 3
    cache.unlink()
    os.rmdir(cache.parent)
    cache.parent.write_text("a file in the place of the folder")
    assert len(read_known_pool(root).records) == 3


def test_the_records_of_a_row_are_found_whatever_their_seeds(tmp_path):
    first = Row("first", "first", "cifar_resnet8", tiny.TINY, "synthetic_first5")
    teacher = Row("teacher", "teacher", "cifar_resnet8", tiny.TINY, "synthetic")
    rows = {
        "plain": Row("plain", "plain", "cifar_resnet8", tiny.TINY, "synthetic"),
        "tuned": Row("tuned", "tuned", "cifar_resnet8", tiny.TINY, "synthetic", pretrained=first),
        "distilled": Row("d", "d", "cifar_resnet8", replace(tiny.TINY, temperature=4.0), "synthetic", teacher=teacher),
    }
    variant, pool, seeds = Variant(precision="fp32"), Pool(tmp_path), (11, 0, 3)
    for row in rows.values():
        for seed in seeds:
            run = variant.apply(row.run(seed))
            pool.records[run.identity] = make_record(run, 20.0)
    tuned = variant.apply(rows["tuned"].run(1))
    mixed = replace(tuned, pretrained=variant.apply(first.run(0)))  # as no row has it
    pool.records[mixed.identity] = make_record(mixed, 20.0)
    for row in rows.values():
        found = row.records(variant, pool)
        assert [record["identity"] for record in found] == [variant.apply(row.run(s)).identity for s in sorted(seeds)]
        assert row.records(Variant(), pool) == []
    added = variant.apply(rows["plain"].run(4))
    pool.records[added.identity] = make_record(added, 20.0)
    assert len(rows["plain"].records(variant, pool)) == 4
