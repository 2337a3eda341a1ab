"""A copy of the code for jobs, so that a later start runs the submitted code in spite of later edits."""

import hashlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from reproductions.harness import provenance
from reproductions.harness.launching.private import check_private
from resnet.files import write_atomically
from resnet.plugins import Plugin, sources_outside

PLUGINS = "plugins"  # the folder of the copy that plugins' own packages are copied to


def take(folder: Path, plugins: Collection[Plugin] = ()) -> Path:
    """Copy the code and the packages of ``plugins`` into ``folder/<digest>`` and return that folder.

    An equal copy there is used again. The digest, 16 hexadecimal digits, is of all the code and of its commit. A
    process runs the copy if it is the working directory and first in PYTHONPATH, followed by its folder PLUGINS, and
    its records name the copied code. Raises ValueError, with the remedy,
    if an equal copy has been changed, if the code is edited during the copy, or if others can write to ``folder``;
    OSError if the copy cannot be written.
    """
    identity = provenance.code_identity()
    files = provenance.source_files()
    if identity != provenance.code_identity() or identity["resnet_sha256"] != provenance.resnet_digest(files):
        raise ValueError("the code was edited while it was copied for the jobs; start again")
    described = {**identity, "sources_sha256": provenance.sources_digest(files)}
    if outside := {f"{PLUGINS}/{name}": text for name, text in sources_outside(plugins).items()}:
        described["plugins_sha256"] = provenance.sources_digest(outside)
        files |= outside
    files[provenance.CODE_FILE] = json.dumps(described, indent=1).encode()
    snapshot = folder / hashlib.sha256(files[provenance.CODE_FILE]).hexdigest()[:16]
    check_private(folder)
    if not snapshot.exists():
        _write(files, snapshot)
    _verify(files, snapshot)
    return snapshot


def _write(files: dict[str, bytes], snapshot: Path) -> None:
    """Write the files into a folder that appears whole or not at all."""
    temporary = Path(tempfile.mkdtemp(dir=snapshot.parent, prefix=f".{snapshot.name}.", suffix=".tmp"))
    try:
        for name, content in files.items():
            write_atomically(temporary / name, content)
        try:
            os.rename(temporary, snapshot)
        except OSError:
            if not snapshot.exists():  # else another launch was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _verify(files: dict[str, bytes], snapshot: Path) -> None:
    try:
        own = (path for path in (snapshot / PLUGINS).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        present = {path.relative_to(snapshot).as_posix(): path.read_bytes() for path in own}
        present |= provenance.source_files(snapshot)
        present[provenance.CODE_FILE] = (snapshot / provenance.CODE_FILE).read_bytes()
    except OSError as error:
        present = {str(error): b""}
    if present != files:
        names = sorted(name for name in present.keys() | files.keys() if present.get(name) != files.get(name))
        shown = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
        raise ValueError(
            f"{snapshot} has changed since the code was copied ({shown}); "
            f"when no job uses it any more, remove it: rm -r {shlex.quote(str(snapshot))}"
        )
