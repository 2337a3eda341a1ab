"""Notes on tables, from one file of texts whose numbers are placeholders that follow the records."""

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from reproductions import reported
from reproductions.harness.experiment import RowResult
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import METRICS, final_values
from reproductions.harness.reporting.text import number, signed

FILE = Path(__file__).parents[2] / "notes.toml"
_PLACEHOLDER = re.compile(r"\{(\w+):([\w-]+)(?::([\w-]+))?\}")


class NoteError(ValueError):
    """A note that can't be shown. The message names the file and the note."""


@dataclass(frozen=True)
class Note:
    """A note on one row, by its key, of one table, by its file's name without the suffix."""

    table: str
    row: str
    text: str

    def fill(self, results: Sequence[RowResult], metric: str) -> str:
        """Return the text with the numbers of these results in percent. Raises NoteError for a wrong placeholder."""
        by_key = {result.row.key: result for result in results}

        def value(match: re.Match) -> str:
            name, key, further = match.groups()
            try:
                if name == "difference":
                    means = [intervals.mean(final_values(by_key[one].records, metric)) for one in (key, further)]
                    return signed(means[0] - means[1])
                return _FORMATS[name](by_key[key], final_values(by_key[key].records, further or metric), metric)
            except (KeyError, TypeError, IndexError) as error:
                raise self.error(f"{match.group()} has no value: a wrong name, row or metric, or no number") from error

        return " ".join(_PLACEHOLDER.sub(value, self.text).split())

    @property
    def rows(self) -> set[str]:
        """Keys of the rows that the note names."""
        found = [match.groups() for match in _PLACEHOLDER.finditer(self.text)]
        compared = {further for name, _, further in found if name == "difference"}
        return {self.row} | {key for _, key, _ in found} | compared

    def check(self) -> None:
        """Raise NoteError for a digit or a brace outside the placeholders."""
        if found := re.search(r"\S*[\d{}]\S*", _PLACEHOLDER.sub("", self.text)):
            raise self.error(f"{found.group()!r} stands outside a placeholder such as {{mean:{self.row}}}")

    def error(self, text: str) -> NoteError:
        """Create an error that names the note's place."""
        return NoteError(f"{FILE}: the note on {self.row} in {self.table}: {text}")


_FORMATS = {
    "label": lambda result, values, metric: result.row.label,
    "n": lambda result, values, metric: str(len(values)),
    "values": lambda result, values, metric: ", ".join(map(number, values)),
    "mean": lambda result, values, metric: number(intervals.mean(values) + 0),
    "std": lambda result, values, metric: number(intervals.std(values) + 0),
    "reported": lambda result, values, metric: str(reported.in_paper(result.row.reported, METRICS[metric])[0]),
}


@cache
def load(path: Path = FILE) -> tuple[Note, ...]:
    """Read and check all notes. Raises NoteError."""
    try:
        notes = tuple(Note(**each) for each in tomllib.loads(path.read_text(encoding="utf-8")).get("note", []))
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise NoteError(f"{path}: {error}") from error
    for note in notes:
        note.check()
    return notes


def section(table: str, results: Sequence[RowResult], metric: str, keys: Iterable[str]) -> str:
    """Write a table's notes under a heading, without the ones that name a row without runs; nothing if none is left.

    ``keys``: the keys of all rows of the table, which has rows on request only once they have records.
    """
    lacking = {*keys} - {result.row.key for result in results if final_values(result.records, metric)}
    labels = {result.row.key: result.row.label for result in results}
    own = [note for note in load() if note.table == table and not note.rows & lacking and note.row in labels]
    lines = "".join(f"- {labels[note.row]}: {note.fill(results, metric)}\n" for note in own)
    return lines and f"## Notes\n\n{lines}"
