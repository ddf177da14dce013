"""A table in sections with columns side by side, as papers print several fits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from mixedeffects.display.latex import latex_cell, latex_escape, latex_row, latex_tabular
from mixedeffects.display.lettering import one_line, wrapped
from mixedeffects.display.markdown import markdown_escape, markdown_row
from mixedeffects.display.shown import Shown
from mixedeffects.display.tables import DEFAULT_WIDTH

__all__ = ["Row", "Section", "SectionedTable"]

_NUMBER = re.compile(r"^([(\[]?[-+]?[\d,]+)((?:\.\d*)?(?:e[-+]?\d+)?[)\]]?\**)$")


@dataclass(frozen=True)
class Row:
    """A label and one text per column; empty where a column has nothing to say."""

    label: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Rows below a title; the title may be empty."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, repr=False)
class SectionedTable(Shown):
    """Sections of rows under common columns.

    Parameters
    ----------
    columns : tuple of str
        Headers.
    header : tuple of Row
        Further rows of the header.
    sections : tuple of Section
        Parts, ruled off from each other.
    footnotes : tuple of str
        Lines below.

    Raises
    ------
    ValueError
        If a row has not as many cells as there are columns.

    Examples
    --------
    >>> rows = (Row("Days", ("10.467***", "-8.1")), Row("", ("(1.546)", "(2.00)")))
    >>> SectionedTable(("(1)", "(2)"), (), (Section("", rows),), ("SE in parentheses",))
    -----------------------
              (1)      (2)
    -----------------------
    Days   10.467***  -8.1
           (1.546)    (2.00)
    -----------------------
    SE in parentheses
    """

    columns: tuple[str, ...]
    header: tuple[Row, ...]
    sections: tuple[Section, ...]
    footnotes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self._rows():
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"row {row.label!r} has {len(row.cells)} cells for {len(self.columns)} columns"
                )

    def _rows(self) -> list[Row]:
        return [*self.header, *(row for section in self.sections for row in section.rows)]

    def to_text(self) -> str:
        """Render fixed-width text, numbers with their decimal points below each other.

        Returns
        -------
        str
            Lines without trailing blanks.
        """
        rows = self._rows()
        columns = [
            _aligned([one_line(text) for text in (header, *(row.cells[j] for row in rows))])
            for j, header in enumerate(self.columns)
        ]
        titles = [section.title for section in self.sections]
        margin = max(map(len, [*titles, *(row.label for row in rows)]), default=0)
        width = margin + sum(2 + len(column[0]) for column in columns)
        labels = ["", *(one_line(row.label) for row in rows)]
        lines = iter(zip(labels, *columns, strict=True))

        def line() -> str:
            label, *cells = next(lines)
            return "  ".join([label.ljust(margin), *cells])

        rule = "-" * width
        out = [rule, line(), *(line() for _ in self.header), rule]
        for section in self.sections:
            out += [section.title] if section.title else []
            out += [line() for _ in section.rows]
            out.append(rule)
        notes = [
            line for note in self.footnotes for line in wrapped(note, max(width, DEFAULT_WIDTH))
        ]
        return "\n".join(text.rstrip() for text in [*out, *notes])

    def to_html(self) -> str:
        """Render the bare ``<table>`` element and its footnotes, without style rules.

        Returns
        -------
        str
            HTML in which every text is escaped.
        """
        width = len(self.columns) + 1

        def row(label: str, cells: Sequence[str], tag: str) -> str:
            inner = "".join(f'<{tag} class="number">{escape(cell)}</{tag}>' for cell in cells)
            return f'<tr><th scope="row">{escape(label)}</th>{inner}</tr>'

        parts = ["<table>", "<thead>", row("", self.columns, "th")]
        parts += [row(r.label, r.cells, "th") for r in self.header]
        parts.append("</thead>")
        for section in self.sections:
            parts.append("<tbody>")
            if section.title:
                title = escape(section.title)
                parts.append(
                    f'<tr><th colspan="{width}" scope="rowgroup"><em>{title}</em></th></tr>'
                )
            parts += [row(r.label, r.cells, "td") for r in section.rows]
            parts.append("</tbody>")
        parts.append("</table>")
        parts += [f'<p class="footnote">{escape(note)}</p>' for note in self.footnotes]
        return "\n".join(parts)

    def to_latex(self, caption: str | None = None, label: str | None = None) -> str:
        r"""Render a LaTeX ``tabular`` with booktabs' rules.

        Parameters
        ----------
        caption, label : str, optional
            Either makes a ``table`` environment.

        Returns
        -------
        str
            LaTeX in which every text is escaped; it needs ``\usepackage{booktabs}``.
        """
        width = len(self.columns) + 1
        header = [latex_row(["", *map(latex_escape, self.columns)])]
        header += [
            latex_row([latex_escape(r.label), *map(latex_cell, r.cells)]) for r in self.header
        ]
        body: list[str] = []
        for section in self.sections:
            body += [r"\midrule"] if body else []
            if section.title:
                title = rf"\textit{{{latex_escape(section.title)}}}"
                body.append(rf"\multicolumn{{{width}}}{{l}}{{{title}}} \\")
            body += [
                latex_row([latex_escape(r.label), *map(latex_cell, r.cells)]) for r in section.rows
            ]
        align = "l" + "c" * len(self.columns)
        return latex_tabular(align, header, body, self.footnotes, caption, label)

    def to_markdown(self) -> str:
        """Render a Markdown pipe table; titles of sections are rows of it.

        Returns
        -------
        str
            Markdown in which every text is escaped.
        """
        empty = [""] * len(self.columns)
        rows = [[markdown_escape(t) for t in (r.label, *r.cells)] for r in self.header]
        for section in self.sections:
            if section.title:
                rows.append([f"**{markdown_escape(section.title)}**", *empty])
            rows += [[markdown_escape(t) for t in (r.label, *r.cells)] for r in section.rows]
        lines = [
            markdown_row(["", *map(markdown_escape, self.columns)]),
            markdown_row([":--", *[":-:"] * len(self.columns)]),
            *map(markdown_row, rows),
        ]
        return "\n\n".join(["\n".join(lines), *map(markdown_escape, self.footnotes)])


def _aligned(texts: Sequence[str]) -> list[str]:
    """Numbers with their points below each other, the rest centred."""
    split = [_NUMBER.match(text) for text in texts]
    before = max((len(m[1]) for m in split if m), default=0)
    after = max((len(m[2]) for m in split if m), default=0)
    width = max(before + after, *map(len, texts), 0)
    left = (width - before - after) // 2
    return [
        (" " * left + m[1].rjust(before) + m[2].ljust(after)).ljust(width)
        if m
        else text.center(width)
        for text, m in zip(texts, split, strict=True)
    ]
