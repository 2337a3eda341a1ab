"""Format of numbers and tables. Errors and accuracies are in percent; a dash stands for an absent value."""

import re
from collections.abc import Mapping

from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import completed, final_values
from reproductions.harness.reporting.intervals import Interval

NONE = "–"


def number(value: float | None, digits: int = 2) -> str:
    """Format a number with a true minus sign; a dash for None.

    The last bits do not count: a mean of differences and a difference of means look the same.
    """
    return NONE if value is None else f"{round(value, 9):z.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 2) -> str:
    """Format a difference: ``+0.12``, ``−0.12``, and ``0.00`` without a sign."""
    shown = number(value, digits)
    return f"+{shown}" if shown[0].isdigit() and float(shown) else shown


def interval(values: Interval | None, show=number) -> str:
    """Format an interval as ``[8.60, 8.82]``; a dash for None."""
    return f"[{show(values.low)}, {show(values.high)}]" if values else NONE


def mean_std(values: list[float]) -> str:
    """Format values as ``8.71 ± 0.12``; one or two are listed instead: ``8.63, 8.79``."""
    if 0 < len(values) < intervals.FEWEST:
        return ", ".join(map(number, values))
    return number(intervals.mean(values)) + (f" ± {number(intervals.std(values))}" if values else "")


def count(records: list[dict], seeds: int) -> str:
    """Format a number of runs: ``n = 5``, ``n = 3 of 5`` where seeds are missing, ``n = 4 of 5, 1 diverged``."""
    n = len(completed(records))
    lost = len(records) - n
    return f"n = {n}{f' of {seeds}' if n < seeds else ''}{f', {lost} diverged' if lost else ''}"


def pairs(n: int, seeds: int, left_out: Mapping[str, int]) -> str:
    """Format a number of pairs: ``5``, ``3 of 5`` if some are missing, ``2 of 5 (1 of other precision)``."""
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(left_out.items()))
    return (f"{n}" if n >= seeds else f"{n} of {seeds}") + (f" ({reasons})" if reasons else "")


def no_interval(values: list[float]) -> str:
    """Return the words in place of a missing interval."""
    return f"none: n < {intervals.FEWEST}" if len(values) < intervals.FEWEST else "none: no spread"


def sample(records: list[dict], seeds: int, metric: str = "test_error") -> str:
    """Format mean ± standard deviation of the final values, with n: ``8.71 ± 0.12 (n = 5)``."""
    return f"{mean_std(final_values(records, metric))} ({count(records, seeds)})" if records else "no records"


def p_value(value: float | None) -> str:
    """Format a p-value to three decimals, or as ``< 0.001``; a dash for None."""
    return NONE if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def escaped(text: str) -> str:
    """Escape a text for a line of Markdown, so that it ends no cell of a table, begins no tag and breaks no line."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
    # Backslashes before a sign that gets one would else be taken for its own.
    return re.sub(r"(\\*)(\||<(?=[A-Za-z/!?]))", r"\1\1\\\2", text)


def markdown_table(columns: dict[str, list[str]]) -> str:
    """Format columns as a Markdown table, padded to be readable as text; columns of dashes are left out."""
    said = {name: cells for name, cells in columns.items() if not cells or any(cell != NONE for cell in cells)}
    filled = [[*map(escaped, (heading, *cells))] for heading, cells in (said or columns).items()]
    widths = [max(map(len, cells)) for cells in filled]
    padded = [[text.ljust(width) for text in cells] for cells, width in zip(filled, widths)]
    heading, *lines = ["| " + " | ".join(line) + " |" for line in zip(*padded, strict=True)]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([heading, rule, *lines]) + "\n"
