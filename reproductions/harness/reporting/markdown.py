"""Tables as Markdown."""


def markdown_table(columns: dict[str, list[str]]) -> str:
    """A table given by its columns, padded so that the text can be read as it is."""
    filled = [[heading, *cells] for heading, cells in columns.items()]
    widths = [max(map(len, cells)) for cells in filled]
    padded = [[text.ljust(width) for text in cells] for cells, width in zip(filled, widths)]
    heading, *lines = ["| " + " | ".join(line) + " |" for line in zip(*padded, strict=True)]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([heading, rule, *lines]) + "\n"
