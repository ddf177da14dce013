"""The covariance of the residuals as it is printed: a heading, lines, a table."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mixedeffects.display.numbers import format_numbers, round_number
from mixedeffects.display.tables import Column, Table

__all__ = ["ResidualBlock", "deviation_table", "in_line"]


@dataclass(frozen=True)
class ResidualBlock:
    """One part of what is said of the residuals.

    Parameters
    ----------
    heading : str
        What it is: ``"Residual covariance: ar1 in t within Mare (11 series, 25 to 31 rows)"``.
    lines : tuple of str
        Estimates that are told in a line.
    table : Table, optional
        Those that are not.
    is_short : bool
        Whether text has the first line beside the heading, where there is room.

    Examples
    --------
    >>> block = ResidualBlock("Residual covariance: ar1 in t within Mare", ("cor 0.572",))
    >>> print(block.to_text())
    Residual covariance: ar1 in t within Mare
      cor 0.572
    """

    heading: str
    lines: tuple[str, ...] = ()
    table: Table | None = None
    is_short: bool = False

    def to_text(self, width: int | None = None) -> str:
        """Lines below the heading, indented, and the table."""
        heading, lines = self.heading, self.lines
        beside = f"{heading}: {lines[0]}" if self.is_short and lines else ""
        if beside and (width is None or len(beside) <= width):
            heading, lines = beside, lines[1:]
        head, bracket, counts = heading.partition(" (")
        if width is not None and len(heading) > width and bracket:
            parts = [*_broken(head, width, "", "    "), *_broken(f"({counts}", width, "  ", "    ")]
        else:
            parts = _broken(heading, width, "", "    ")
        for line in lines:
            parts += _broken(line, width, "  ", "    ")
        if self.table is not None:
            parts.append(self.table.to_text(width))
        return "\n".join(line.rstrip() for line in parts)


def _broken(text: str, width: int | None, first: str, others: str) -> list[str]:
    if width is None or len(first) + len(text) <= width:
        return [first + text]
    # Two blanks stand between estimates; a value stays with its name.
    glued = "  ".join(part.replace(" ", "\0") for part in text.split("  ")) if first else text
    lines = textwrap.wrap(
        glued,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in lines]


def in_line(names: Sequence[str], values: Sequence[float], digits: int = 4) -> str:
    """Estimates one after the other.

    Examples
    --------
    >>> in_line(["Std.Dev.", "cor"], [3.50655, 0.57236])
    'Std.Dev. 3.507  cor 0.572'
    """
    texts = []
    for name, value in zip(names, values, strict=True):
        kind, _, of = name.partition(" ")
        text = _share(value, digits) if kind in ("cor", "nugget") else _number(value, digits)
        # Of which times or lag; a number stands beside another one otherwise.
        texts.append(f"{name}: {text}" if of and kind == "cor" else f"{name} {text}")
    return "  ".join(texts)


def deviation_table(
    keys: Sequence[tuple[str, Sequence[str]]],
    columns: Sequence[tuple[str, Sequence[float]]],
    correlations: Sequence[ArrayLike] = (),
    digits: int = 4,
) -> Table:
    """Standard deviations by time or stratum, with the triangle of correlations.

    Parameters
    ----------
    keys : sequence of (header, cells)
        What a row is.
    columns : sequence of (header, values)
        Standard deviations, and other parameters, a value a row; NaN leaves a cell empty.
    correlations : sequence of array (T, T)
        For each T rows the matrix whose lower triangle is shown.
    digits : int
        Significant digits; correlations have one decimal fewer.

    Examples
    --------
    >>> deviation_table(
    ...     [("AVISIT", ["VIS1", "VIS2"])],
    ...     [("Std.Dev.", [6.368, 5.155])],
    ...     [[[1.0, 0.439], [0.439, 1.0]]],
    ... )
     AVISIT Std.Dev. Corr
     VIS1   6.368
     VIS2   5.155    0.439
    """
    out = [Column(header, tuple(cells), "left", numeric=False) for header, cells in keys]
    for header, values in columns:
        known = [value for value in values if np.isfinite(value)]
        if header in ("Std.Dev.", "range"):
            texts = iter(format_numbers(known, digits))
        else:
            texts = iter([_share(value, digits) for value in known])
        cells = tuple(next(texts) if np.isfinite(value) else "" for value in values)
        out.append(Column(header, cells, "left"))
    triangles: list[list[str]] = []
    for each in correlations:
        matrix = np.asarray(each, dtype=np.float64)
        triangles += [[_share(r, digits) for r in row[:i]] for i, row in enumerate(matrix.tolist())]
    most = max((len(row) for row in triangles), default=0)
    out += [
        Column(
            "" if j else "Corr",
            tuple(row[j] if j < len(row) else "" for row in triangles),
            "left",
        )
        for j in range(most)
    ]
    n_rows = len(out[0].cells)
    return Table(tuple(out), labels=("",) * n_rows, keys=len(keys))


def _number(value: float, digits: int) -> str:
    (text,) = format_numbers([value], digits)
    return text.strip()


def _share(value: float, digits: int) -> str:
    (text,) = format_numbers([round_number(value, digits - 1)], decimals=digits - 1)
    return text.strip()
