"""Damage done to files, by name."""

from pathlib import Path


def truncate(path: Path, count: int = 200) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace(path: Path) -> None:
    path.write_bytes(b"<html>404 Not Found</html>")
