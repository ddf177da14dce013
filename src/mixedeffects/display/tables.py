"""One table, four renderings: fixed-width text as R prints it, HTML, LaTeX and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from mixedeffects.display.latex import latex_cell, latex_escape, latex_row, latex_tabular
from mixedeffects.display.lettering import one_line, wrapped
from mixedeffects.display.markdown import markdown_table
from mixedeffects.display.numbers import pad_to_common_width, text_width
from mixedeffects.display.shown import Shown

__all__ = ["Column", "Table", "named_row"]

DEFAULT_WIDTH = 80


@dataclass(frozen=True)
class Column:
    """A column of texts with its header.

    Parameters
    ----------
    header : str
        Column header; may be empty.
    cells : tuple of str
        One text per row.
    align : {"left", "right"}
        Alignment in the text rendering.
    numeric : bool
        Numbers are aligned to the right in HTML whatever the text rendering does.

    Examples
    --------
    >>> Column("df", ("17", " 4")).width
    2
    """

    header: str
    cells: tuple[str, ...]
    align: Literal["left", "right"] = "right"
    numeric: bool = True

    @property
    def width(self) -> int:
        """Characters the widest of header and cells takes."""
        return max(map(text_width, self.lines()))

    def lines(self) -> list[str]:
        """Header and cells, padded to the column's width."""
        texts = [one_line(text) for text in (self.header, *self.cells)]
        return pad_to_common_width(texts, left=self.align == "right")


@dataclass(frozen=True, repr=False)
class Table(Shown):
    """Columns of texts, with row labels, a caption and footnotes.

    ``str()`` and ``repr()`` give the text, ``_repr_html_()`` the same cells in HTML.

    Parameters
    ----------
    columns : tuple of Column
        The columns, all of one length.
    labels : tuple of str, optional
        Row labels. Without them the text starts with the first column; with empty ones it starts
        with a blank.
    caption : str, optional
        A line above the table.
    footnotes : tuple of str
        Lines below the table; the text has a rule above them.
    corner : str
        Header of the row labels.
    keys : int
        How many of the first columns say what a row is; where the text is broken into blocks they
        are repeated.

    Raises
    ------
    ValueError
        If columns and labels differ in length.

    Examples
    --------
    >>> estimates = Column("Estimate", ("251.405", " 10.467"))
    >>> Table((estimates,), labels=("(Intercept)", "Days"))
                Estimate
    (Intercept)  251.405
    Days          10.467
    """

    columns: tuple[Column, ...]
    labels: tuple[str, ...] | None = None
    caption: str | None = None
    footnotes: tuple[str, ...] = ()
    corner: str = ""
    keys: int = 0

    def __post_init__(self) -> None:
        lengths = {f"column {column.header!r}": len(column.cells) for column in self.columns}
        if self.labels is not None:
            lengths["labels"] = len(self.labels)
        if len(set(lengths.values())) > 1:
            listing = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise ValueError(f"the parts of a table must have one length, not {listing}")

    @property
    def n_rows(self) -> int:
        """Number of rows, the header not counted."""
        if self.labels is not None:
            return len(self.labels)
        return len(self.columns[0].cells) if self.columns else 0

    def to_text(self, width: int | None = DEFAULT_WIDTH) -> str:
        """Render fixed-width text.

        Parameters
        ----------
        width : int, optional
            A table which needs this many characters or more continues in further blocks below,
            each with the row labels, as R does, and so do lines of its footnotes. None never
            breaks.

        Returns
        -------
        str
            Lines without trailing blanks.
        """
        lines = wrapped(self.caption, width) if self.caption else []
        for block in self._blocks(width):
            lines += self._block_lines(block)
        if self.footnotes:
            lines += ["---", *(line for note in self.footnotes for line in wrapped(note, width))]
        return "\n".join(line.rstrip() for line in lines)

    def to_html(self) -> str:
        """Render the bare ``<table>`` element and its footnotes, without style rules.

        Returns
        -------
        str
            HTML in which every text is escaped.
        """
        corner = [f"<th>{escape(self.corner)}</th>"] if self._has_visible_labels else []
        header = corner + [
            f"<th{_html_class(column)}>{escape(column.header.strip())}</th>"
            for column in self.columns
        ]
        parts = ["<table>"]
        if self.caption:
            parts.append(f"<caption>{escape(self.caption)}</caption>")
        parts.append(f"<thead><tr>{''.join(header)}</tr></thead>")
        parts.append("<tbody>")
        parts += [f"<tr>{''.join(self._html_row(row))}</tr>" for row in range(self.n_rows)]
        parts.append("</tbody></table>")
        parts += [f'<p class="footnote">{escape(note)}</p>' for note in self.footnotes]
        return "\n".join(parts)

    def to_latex(self, caption: str | None = None, label: str | None = None) -> str:
        r"""Render a LaTeX ``tabular`` with booktabs' rules; footnotes are rows below it.

        Parameters
        ----------
        caption : str, optional
            By default that of the table. A caption or a label puts it into a ``table``
            environment.
        label : str, optional
            For ``\ref``.

        Returns
        -------
        str
            LaTeX in which every text is escaped; it needs ``\usepackage{booktabs}``.

        Examples
        --------
        >>> estimates = Column("Estimate", ("251.405", " -8.467"))
        >>> print(Table((estimates,), labels=("(Intercept)", "x_1")).to_latex())
        \begin{tabular}{lr}
        \toprule
         & Estimate \\
        \midrule
        (Intercept) & 251.405 \\
        x\_1 & $-$8.467 \\
        \bottomrule
        \end{tabular}
        """
        visible = self._has_visible_labels
        align = ("l" if visible else "") + "".join("lr"[c.numeric] for c in self.columns)
        headers = [latex_escape(column.header.strip()) for column in self.columns]
        body = []
        for row in range(self.n_rows):
            cells = [
                (latex_cell if column.numeric else latex_escape)(column.cells[row].strip())
                for column in self.columns
            ]
            body.append(latex_row([*self._visible_label(row, latex_escape), *cells]))
        return latex_tabular(
            align,
            [latex_row([latex_escape(self.corner)] * visible + headers)],
            body,
            self.footnotes,
            self.caption if caption is None else caption,
            label,
        )

    def to_markdown(self) -> str:
        r"""Render a Markdown pipe table, the caption above and footnotes below it.

        Returns
        -------
        str
            Markdown in which every text is escaped.

        Examples
        --------
        >>> estimates = Column("Estimate", ("251.405", " 10.467"))
        >>> print(Table((estimates,), labels=("(Intercept)", "x|y")).to_markdown())
        |  | Estimate |
        | :-- | --: |
        | (Intercept) | 251.405 |
        | x\|y | 10.467 |
        """
        visible = self._has_visible_labels
        rows = [
            [*self._visible_label(row, str), *(column.cells[row] for column in self.columns)]
            for row in range(self.n_rows)
        ]
        return markdown_table(
            [self.corner] * visible + [column.header for column in self.columns],
            ("l" if visible else "") + "".join("lr"[c.numeric] for c in self.columns),
            rows,
            self.caption,
            self.footnotes,
        )

    def _visible_label(self, row: int, escaped: Callable[[str], str]) -> list[str]:
        if self.labels is None or not self._has_visible_labels:
            return []
        return [escaped(self.labels[row].strip())]

    @property
    def _has_visible_labels(self) -> bool:
        return self.labels is not None and any(self.labels)

    def _blocks(self, width: int | None) -> list[list[Column]]:
        """Columns that stand side by side; a column too wide for the page stands alone."""
        if width is None:
            return [list(self.columns)]
        keys = list(self.columns[: self.keys])
        margin = max(map(text_width, (self.corner, *self.labels))) if self.labels else 0
        margin += sum(1 + column.width for column in keys)
        blocks: list[list[Column]] = [list(keys)]
        used = margin
        for column in self.columns[self.keys :]:
            # R keeps the last character of the line free.
            if len(blocks[-1]) > len(keys) and used + 1 + column.width >= width:
                blocks.append(list(keys))
                used = margin
            blocks[-1].append(column)
            used += 1 + column.width
        return blocks

    def _block_lines(self, block: Sequence[Column]) -> list[str]:
        parts = [column.lines() for column in block]
        if self.labels is not None:
            labels = [self.corner, *map(one_line, self.labels)]
            parts.insert(0, pad_to_common_width(labels, left=False))
        return [" ".join(cells) for cells in zip(*parts, strict=True)]

    def _html_row(self, row: int) -> list[str]:
        cells = []
        if self._has_visible_labels and self.labels is not None:
            cells.append(f'<th scope="row">{escape(self.labels[row].strip())}</th>')
        cells += [
            f"<td{_html_class(column)}>{escape(column.cells[row].strip())}</td>"
            for column in self.columns
        ]
        return cells


def named_row(names: Sequence[str], texts: Sequence[str]) -> Table:
    """Make a table of one row and columns of one width, as R prints a named vector.

    Parameters
    ----------
    names : sequence of str
        Column headers.
    texts : sequence of str
        The cells.

    Returns
    -------
    Table
        Columns aligned to the right, without row labels.

    Examples
    --------
    >>> print("|" + str(named_row(["Min", "Median"], ["-3.95", "0.02"])))
    |   Min Median
     -3.95   0.02
    """
    padded = pad_to_common_width([*names, *texts])
    headers, cells = padded[: len(names)], padded[len(names) :]
    return Table(
        tuple(Column(header, (cell,)) for header, cell in zip(headers, cells, strict=True))
    )


def _html_class(column: Column) -> str:
    return ' class="number"' if column.numeric else ""
