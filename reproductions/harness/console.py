"""Output, exit statuses and default folders of all commands."""

import argparse
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from reproductions.harness import provenance

EXIT_FAILED, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 130
PUBLISHED = provenance.ROOT / "results"
DEFAULT_OUT, DEFAULT_DATA = Path("runs"), Path("data")
WIDE = 140  # characters of a line in a pipe or a file


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose errors are a message and a hint, because the usage of all flags would hide the message.

    Flags can't be abbreviated.
    """

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **{"allow_abbrev": False} | settings)

    def error(self, message: str) -> NoReturn:
        """Print the message and end the process with EXIT_REFUSED."""
        self.exit(EXIT_REFUSED, f"{self.prog}: error: {message}\n--help lists the flags\n")


def path_argument(text: str) -> Path:
    """Parse a path, with ~ expanded: shells leave it as it is behind an equals sign or in quotes."""
    if not text:  # of a variable that is not set: it would be the current folder
        raise argparse.ArgumentTypeError("no path is named")
    return Path(os.path.expanduser(text))


def replace_unprintable() -> None:
    """Have standard output show ? for characters that its encoding lacks, as stderr does, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        with suppress(OSError):  # it first writes its buffer, which fails on a full disk
            sys.stdout.reconfigure(errors="replace")


class _Lenient:
    """A text stream that drops text which its file does not accept: the disk is full, or the reader is gone."""

    def __init__(self, file):
        self._file = file

    def write(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError:
            abandon(self._file)

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError:
            abandon(self._file)

    def __getattr__(self, name: str):
        return getattr(self._file, name)


def make_console(**settings) -> Console:
    """Make a console that prints texts and tables as they are: without markup, and without added line breaks.

    Tables are as wide as the terminal or COLUMNS; without either, they have WIDE characters.
    Standard output replaces unprintable characters from now on. ``settings`` are rich's own, such as ``stderr``; text
    for a stderr that cannot be written to is dropped, because the work goes on.
    """
    replace_unprintable()
    target = sys.stderr if settings.get("stderr") else sys.stdout
    if "file" not in settings and not (target and target.isatty()) and "COLUMNS" not in os.environ:
        settings.setdefault("width", WIDE)
    if settings.get("stderr") and sys.stderr is not None:  # None is one that was closed
        settings["file"] = _Lenient(sys.stderr)
    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False, **settings)


def counted(n: int, what: str) -> str:
    """Format a count with its noun: ``1 run``, ``2 runs``."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def complain(console: Console, text: str) -> None:
    """Print an error in red."""
    console.print(text, style="red")


def show_files(paths: list[Path], root: Path = Path()) -> None:
    """Print the tables and name the files, relative to ``root`` where they are below it.

    If standard output cannot be written to, stderr says so: the files exist all the same.
    """
    tables = [path.read_text(encoding="utf-8") for path in paths if path.suffix == ".md"]
    shown = [path.relative_to(root) if path.is_relative_to(root) else path for path in paths]
    replace_unprintable()
    try:
        for text in (*tables, *(f"wrote {path}" for path in shown)):
            print(text, flush=True)
    except OSError as error:
        text = f"{', '.join(map(str, shown))}: written, but not shown: standard output: {error.strerror}"
        complain(make_console(stderr=True), text)
        abandon(sys.stdout)


def abandon(stream) -> None:
    """Discard a stream's buffer: writing it would fail once more when the process ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
