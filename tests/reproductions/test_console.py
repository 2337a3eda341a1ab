"""The console of all commands: what is said comes out as it is."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from reproductions.harness.console import complain, make_console, show_files
from reproductions.harness.launching.progress import Display

BRACKETS = "a [b]c[/b] [1/2] [/red] :x:"


def test_brackets_and_colons_are_no_markup_and_long_lines_are_not_broken():
    console = make_console(file=io.StringIO(), width=40)
    table = Table("run")
    table.add_row(BRACKETS)
    console.print(5 * BRACKETS)
    complain(console, 5 * BRACKETS)
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert lines[:2] == [5 * BRACKETS, 5 * BRACKETS] and any(BRACKETS in line for line in lines[2:])


def test_numbers_have_no_colours_of_their_own():
    console = make_console(file=io.StringIO(), force_terminal=True)
    console.print("12 runs in 'runs'")
    assert console.file.getvalue() == "12 runs in 'runs'\n"


def test_a_display_of_its_own_says_brackets_too(capsys):
    Display(1).say(BRACKETS)
    assert capsys.readouterr().err == f"{BRACKETS}\n"


def test_files_are_named_relative_to_the_root_after_the_tables(tmp_path, capsys):
    table, plot = tmp_path / "tables" / "a.md", tmp_path / "plots" / "a.png"
    table.parent.mkdir()
    table.write_text(f"| {BRACKETS} |\n")
    show_files([table, plot], tmp_path)
    assert capsys.readouterr().out == f"| {BRACKETS} |\n\nwrote tables/a.md\nwrote plots/a.png\n"


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "8.50 ? 0.10 ? 3"), ("latin-1", "8.50 ± 0.10 ? 3")])
def test_characters_that_the_output_does_not_have_are_replaced(tmp_path, monkeypatch, encoding, shown):
    table, output = tmp_path / "a.md", io.BytesIO()
    table.write_text("8.50 ± 0.10 – 3\n", encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding=encoding))
    show_files([table, tmp_path / "of other bytes \udcff.png"], tmp_path)
    print("8.50 ± 0.10 – 3", flush=True)
    expected = f"{shown}\n\nwrote a.md\nwrote of other bytes ?.png\n{shown}\n"
    assert output.getvalue().decode(encoding) == expected


SHOWS = """
import sys
from pathlib import Path
from reproductions.harness.console import make_console, show_files
console = make_console(stderr=True)
console.print("said")
with console.status("working"):
    pass
show_files([Path(sys.argv[1])])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("target", ["full", "gone"])
def test_an_output_that_fails_ends_no_command(tmp_path, stream, target):
    table = tmp_path / "a.md"
    table.write_text("the table")
    if target == "full":
        handle = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, handle = os.pipe()
        os.close(reader)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: handle}
    done = subprocess.run([sys.executable, "-c", SHOWS, table], **streams, text=True, timeout=60)
    os.close(handle)
    assert done.returncode == 0
    if stream == "stdout":
        reason = "No space left on device" if target == "full" else "Broken pipe"
        assert done.stderr == f"said\n{table}: written, but not shown: standard output: {reason}\n"
    else:
        assert done.stdout == f"the table\nwrote {table}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_output_is_said_in_a_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "reproductions", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "list: [Errno 28] No space left on device\n")
