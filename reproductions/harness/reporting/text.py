"""How numbers are written in a table. Errors and accuracies are in percent; what is absent is a dash."""

import re
from collections.abc import Mapping

from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import completed, final_values
from reproductions.harness.reporting.intervals import Interval

NONE = "–"


def number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:z.{digits}f}".replace("-", "−")


def signed(value: float | None) -> str:
    """``+0.12``, ``−0.12``, and ``0.00`` without a sign."""
    return NONE if value is None else "0.00" if round(value, 2) == 0 else f"{value:+.2f}".replace("-", "−")


def interval(values: Interval | None, show=number) -> str:
    return f"[{show(values.low)}, {show(values.high)}]" if values else NONE


def mean_std(values: list[float]) -> str:
    """``8.71 ± 0.12``; one value, or two, stand for themselves: ``8.63, 8.79``."""
    if 0 < len(values) < intervals.FEWEST:
        return ", ".join(map(number, values))
    return number(intervals.mean(values)) + (f" ± {number(intervals.std(values))}" if values else "")


def count(records: list[dict], seeds: int) -> str:
    """``n = 5``, ``n = 3 of 5`` where seeds are missing, ``n = 4 of 5, 1 diverged``."""
    n = len(completed(records))
    lost = len(records) - n
    return f"n = {n}{f' of {seeds}' if n < seeds else ''}{f', {lost} diverged' if lost else ''}"


def pairs(n: int, seeds: int, left_out: Mapping[str, int]) -> str:
    """``5``, ``3 of 5`` where some are missing, ``2 of 5 (1 of other precision)`` where some are not compared."""
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(left_out.items()))
    return (f"{n}" if n >= seeds else f"{n} of {seeds}") + (f" ({reasons})" if reasons else "")


def no_interval(values: list[float]) -> str:
    """Why a sample has no interval, in the place of what it would say."""
    return f"none: n < {intervals.FEWEST}" if len(values) < intervals.FEWEST else "none: no spread"


def sample(records: list[dict], seeds: int, metric: str = "test_error") -> str:
    """Mean ± standard deviation of the final values, with n: ``8.71 ± 0.12 (n = 5)``."""
    return f"{mean_std(final_values(records, metric))} ({count(records, seeds)})" if records else "no records"


def p_value(value: float | None) -> str:
    return NONE if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def escaped(text: str) -> str:
    """Any text as a part of one line of Markdown: it ends no cell of a table, begins no tag, and breaks no line."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
    # Backslashes before a sign that gets one would else be taken for its own.
    return re.sub(r"(\\*)(\||<(?=[A-Za-z/!?]))", r"\1\1\\\2", text)


def markdown_table(columns: dict[str, list[str]]) -> str:
    """A table given by its columns, padded so that the text can be read as it is; columns of dashes are left out."""
    said = {name: cells for name, cells in columns.items() if not cells or any(cell != NONE for cell in cells)}
    filled = [[*map(escaped, (heading, *cells))] for heading, cells in (said or columns).items()]
    widths = [max(map(len, cells)) for cells in filled]
    padded = [[text.ljust(width) for text in cells] for cells, width in zip(filled, widths)]
    heading, *lines = ["| " + " | ".join(line) + " |" for line in zip(*padded, strict=True)]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([heading, rule, *lines]) + "\n"
