"""LaTeX with the booktabs package: text escaped, numbers set as mathematics where they need it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mixedeffects.base.options import checked_text

__all__ = ["latex_cell", "latex_escape", "latex_row", "latex_spanning", "latex_tabular"]

# Glyphs rather than characters for < > |: the default font encoding has others in their places.
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"$\sim$",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "''",
}
_BREAKS = re.compile(r"\s*[\r\n\t\v\f\x85\u2028\u2029]+\s*")
_MINUS = re.compile(r"(?<![\w.)\]])-(?=[\d.]|Inf)")
_POWER = re.compile(r"(?<=\d)e([-+]?)0*(\d+)\b")
_STARS = re.compile(r"(?<=\d)(\*+)$")


def latex_escape(text: str) -> str:
    r"""Escape what LaTeX would read as a command; line breaks become blanks.

    Examples
    --------
    >>> print(latex_escape("y_1 ~ x & (1 | a%b)"))
    y\_1 $\sim$ x \& (1 \textbar{} a\%b)
    """
    escaped = "".join(_ESCAPES.get(character, character) for character in _one_line(text))
    # Two hyphens would be set as one dash.
    return re.sub(r"-(?=-)", "-{}", escaped)


def latex_cell(text: str) -> str:
    r"""Escape a cell with numbers: minus signs, powers of ten and stars are set as such.

    Examples
    --------
    >>> print(latex_cell("-1.5e-07***"), latex_cell("[-0.1, 0.2]"), latex_cell("< 2e-16"))
    $-$1.5$\times10^{-7}$$^{***}$ [$-$0.1, 0.2] \textless{} 2$\times10^{-16}$
    """
    escaped = _STARS.sub(r"$^{\1}$", latex_escape(text.strip()))
    escaped = _MINUS.sub("$-$", escaped)
    return _POWER.sub(lambda m: rf"$\times10^{{{m[1].strip('+')}{m[2]}}}$", escaped)


def latex_row(cells: Sequence[str]) -> str:
    r"""Join escaped cells to a row; one that LaTeX would take for an option of the row is guarded.

    Examples
    --------
    >>> print(latex_row(["[a]", "1"]))
    {}[a] & 1 \\
    """
    row = " & ".join(cells)
    guard = "{}" if row.lstrip()[:1] in ("[", "*") else ""
    return f"{guard}{row} \\\\".lstrip()


def latex_spanning(text: str, n_columns: int, style: str = "") -> str:
    """Make a row of one escaped text over all columns."""
    return rf"\multicolumn{{{n_columns}}}{{l}}{{{style}{latex_escape(text)}}} \\"


def latex_tabular(
    columns: str,
    header: Sequence[str],
    body: Sequence[str],
    footnotes: Sequence[str] = (),
    caption: str | None = None,
    label: str | None = None,
) -> str:
    r"""Put rows together.

    Parameters
    ----------
    columns : str
        Alignment of the columns, such as ``"lrr"``.
    header, body : sequence of str
        Rows as `latex_row` makes them, or rules.
    footnotes : sequence of str
        Text below, not yet escaped.
    caption, label : str, optional
        Either makes a ``table`` environment around the ``tabular``; the caption is escaped, the
        label taken as it is.

    Returns
    -------
    str
        LaTeX that needs ``\usepackage{booktabs}``.
    """
    notes = [latex_spanning(note, len(columns), r"\footnotesize ") for note in footnotes]
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *header,
        r"\midrule",
        *body,
        r"\bottomrule",
        *notes,
        r"\end{tabular}",
    ]
    caption, label = checked_text(caption, "caption"), checked_text(label, "label")
    if caption is None and label is None:
        return "\n".join(lines)
    above = [r"\begin{table}[htbp]", r"\centering"]
    if caption is not None:
        above.append(rf"\caption{{{latex_escape(caption)}}}")
    if label is not None:
        above.append(rf"\label{{{label}}}")
    return "\n".join([*above, *lines, r"\end{table}"])


def _one_line(text: str) -> str:
    return _BREAKS.sub(" ", text)
