"""Markdown tables as tests read them."""


def lines_of(text: str) -> list[list[str]]:
    """The cells of every line of the tables in a text, headings too."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def rows_of(text: str) -> dict[str, dict[str, str]]:
    """The rows of a text's only table by their first cell, each with its other cells by heading."""
    heading, *lines = lines_of(text)
    assert len(set(heading)) == len(heading)
    return {line[0]: dict(zip(heading[1:], line[1:], strict=True)) for line in lines}
