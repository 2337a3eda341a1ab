"""What all commands have in common: how they print, what they return, and where they look by default."""

import io
import sys
from pathlib import Path

from rich.console import Console

from reproductions.harness import provenance

EXIT_FAILED, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 130
PUBLISHED = provenance.ROOT / "results"
DEFAULT_OUT, DEFAULT_DATA = Path("runs"), Path("data")


def replace_unprintable() -> None:
    """Have standard output show ? for characters that its encoding does not have, rather than end the command.

    That is what stderr does in its own way.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def make_console(**settings) -> Console:
    """A console that prints texts and tables as they are: brackets are no markup, and lines break where they end.

    From now on standard output replaces characters that it can't show, whoever prints them. ``settings`` are rich's
    own, such as ``stderr``.
    """
    replace_unprintable()
    return Console(soft_wrap=True, highlight=False, markup=False, **settings)


def complain(console: Console, text: str) -> None:
    """Print what is wrong, in red."""
    console.print(text, style="red")


def show_files(paths: list[Path], root: Path = Path()) -> None:
    """Print the tables and name the files, relative to ``root`` where they are below it."""
    console = make_console()
    for path in paths:
        if path.suffix == ".md":
            console.print(path.read_text(encoding="utf-8"))
    for path in paths:
        shown = path.relative_to(root) if path.is_relative_to(root) else path
        console.print(f"wrote {shown}")
