"""Markdown with the pipe tables that GitHub, pandoc, Quarto and notebooks read."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["markdown_escape", "markdown_row", "markdown_table"]

_SPECIAL = re.compile(r"([\\`*_\[\]<>|$~^&])")
_BREAKS = re.compile(r"\s*[\r\n\t\v\f\x85\u2028\u2029]+\s*")


def markdown_escape(text: str) -> str:
    r"""Escape what Markdown would read as markup; line breaks become blanks.

    Examples
    --------
    >>> print(markdown_escape("y_1 ~ x + (1 | g)***"))
    y\_1 \~ x + (1 \| g)\*\*\*
    """
    return _SPECIAL.sub(r"\\\1", _BREAKS.sub(" ", text.strip()))


def markdown_row(cells: Sequence[str]) -> str:
    """Join escaped cells to a row."""
    return "| " + " | ".join(cells) + " |"


def markdown_table(
    header: Sequence[str],
    align: str,
    rows: Sequence[Sequence[str]],
    caption: str | None = None,
    footnotes: Sequence[str] = (),
) -> str:
    """Put a table together.

    Parameters
    ----------
    header : sequence of str
        Headers of the columns, not yet escaped, as all text here.
    align : str
        One letter a column: ``l``, ``r`` or ``c``.
    rows : sequence of sequence of str
        Cells.
    caption : str, optional
        A paragraph above.
    footnotes : sequence of str
        Paragraphs below.

    Returns
    -------
    str
        Markdown.

    Examples
    --------
    >>> print(markdown_table(["", "Estimate"], "lr", [["Days", "10.467"]]))
    |  | Estimate |
    | :-- | --: |
    | Days | 10.467 |
    """
    rules = {"l": ":--", "r": "--:", "c": ":-:"}
    table = [
        markdown_row([markdown_escape(cell) for cell in header]),
        markdown_row([rules[letter] for letter in align]),
        *(markdown_row([markdown_escape(cell) for cell in row]) for row in rows),
    ]
    parts = [] if caption is None else [f"**{markdown_escape(caption)}**"]
    parts += ["\n".join(table), *map(markdown_escape, footnotes)]
    return "\n\n".join(parts)
