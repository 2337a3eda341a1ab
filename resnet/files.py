"""Atomic file writes, and digests of files."""

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes, exclusive: bool = False, durable: bool = True) -> None:
    """Write ``content`` to ``path`` through a temporary file beside it, which ``durable`` flushes to disk first.

    A reader of ``path`` sees the old content or the new, never a part. With ``exclusive``, an existing file is kept and
    FileExistsError raised. Raises OSError, for example on a full disk, with the old content intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            with suppress(PermissionError):  # file systems such as FAT have fixed modes
                os.fchmod(file.fileno(), 0o666 & ~_umask())
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if exclusive:
            _link(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def sources_digest(files: dict[str, bytes]) -> str:
    """Return the SHA-256 of files by their names, paths with forward slashes."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()


def remove_unfinished(*paths: Path) -> None:
    """Delete the temporary files that killed processes left beside these paths."""
    for path in paths:
        for unfinished in path.parent.glob(f".{path.name}.*.tmp"):
            unfinished.unlink(missing_ok=True)


def _link(temporary: str, path: Path) -> None:
    """Give the file the name ``path``. Raises FileExistsError if the name is taken."""
    try:
        os.link(temporary, path)  # fails if the name is taken, unlike a rename
    except FileExistsError:
        raise
    except OSError:  # on a file system without hard links, checking first is the best option
        if path.exists():
            raise FileExistsError(f"{path} exists") from None
        os.replace(temporary, path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def some(names: list[str], shown: int = 5) -> str:
    """Return the first ``shown`` names as text, with the number of further ones."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more > 0 else "")
