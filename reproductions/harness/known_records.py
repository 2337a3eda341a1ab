"""Pools that are read often: a valid record is not checked again while its file is unchanged.

They serve to look at many records: publishing and checking read and check every record.
"""

import json
from contextlib import suppress
from pathlib import Path

from reproductions.harness import provenance
from reproductions.harness.record_files import (
    RecordError,
    UnreadableRecordError,
    cache_folder,
    file_state,
    load_record,
    record_files,
)
from reproductions.harness.records import Pool, read_record
from resnet.files import write_atomically

_LONG = ("curve", "segments")  # most of a record's text


def read_known_pool(root: Path, whole: bool = True) -> Pool:
    """Read every record below ``root``, and check the new and changed ones.

    whole: with curves and segments; without them no file is opened whose record is in the cache.
    """
    pool, path = Pool(root), cache_folder(root) / "records.json"
    code = provenance.sources_digest(provenance.source_files())
    known, found = _read(path, code), {}
    for file in record_files(root):
        try:
            name, state = str(file.relative_to(root)), file_state(file)
            if (entry := known.get(name)) is not None and entry["state"] == state:
                record = load_record(file) if whole else entry["record"]
            else:
                record = read_record(file)
                short = {field: value for field, value in record.items() if field not in _LONG}
                entry = {"state": state, "first": pool.first_of(record), "record": short}
                record = record if whole else short
        except RecordError as error:
            pool.damaged[file] = error
            continue
        except OSError as error:
            pool.damaged[file] = UnreadableRecordError(f"{file} can't be read: {error.strerror}")
            continue
        found[name] = entry
        pool.records[record["identity"]] = record
        pool.firsts[record["identity"]] = entry["first"]
    if found != known:
        with suppress(OSError):  # a folder of somebody else's, or a full disk
            write_atomically(path, json.dumps({"code": code, "records": found}).encode(), durable=False)
    return pool


def _read(path: Path, code: str) -> dict[str, dict]:
    """Read the cache, if this very code wrote it."""
    with suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
        content = json.loads(path.read_bytes())
        if content["code"] == code:
            return content["records"]
    return {}
