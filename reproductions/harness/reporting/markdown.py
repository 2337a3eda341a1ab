"""Tables as Markdown."""

import re


def escaped(text: str) -> str:
    """Any text as a part of one line of Markdown: it ends no cell of a table, begins no tag, and breaks no line."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
    # Backslashes before a sign that gets one would else be taken for its own.
    return re.sub(r"(\\*)(\||<(?=[A-Za-z/!?]))", r"\1\1\\\2", text)


def markdown_table(columns: dict[str, list[str]]) -> str:
    """A table given by its columns, padded so that the text can be read as it is."""
    filled = [[*map(escaped, (heading, *cells))] for heading, cells in columns.items()]
    widths = [max(map(len, cells)) for cells in filled]
    padded = [[text.ljust(width) for text in cells] for cells, width in zip(filled, widths)]
    heading, *lines = ["| " + " | ".join(line) + " |" for line in zip(*padded, strict=True)]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([heading, rule, *lines]) + "\n"
