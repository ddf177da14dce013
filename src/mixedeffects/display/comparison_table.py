"""Tables of likelihood-ratio tests and information criteria, as R prints an ``anova``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from mixedeffects.display.lettering import wrapped
from mixedeffects.display.numbers import (
    STAR_LEGEND,
    format_numbers,
    format_p_values,
    round_number,
    significance_stars,
)
from mixedeffects.display.shown import html_document
from mixedeffects.display.tables import DEFAULT_WIDTH, Column, Table

__all__ = ["ShownComparison", "comparison_table", "values_html"]

#: R's ``getOption("digits") - 2``.
_DIGITS = 5
_WHOLE = ("npar", "Df")
_STATISTICS = ("Chisq", "delta", "weight")


def comparison_table(frame: pd.DataFrame) -> Table:
    """One row per model; NaN, where there is nothing to test, is left blank.

    Parameters
    ----------
    frame : DataFrame
        A column whose name starts with ``Pr(`` holds p-values; ``npar`` and ``Df`` counts.

    Examples
    --------
    >>> frame = pd.DataFrame(
    ...     {"npar": [4, 6], "AIC": [1802.079, 1763.939], "Pr(>Chisq)": [float("nan"), 7.07e-10]},
    ...     index=["m1", "m2"],
    ... )
    >>> comparison_table(frame)
       npar    AIC Pr(>Chisq)
    m1    4 1802.1
    m2    6 1763.9   7.07e-10 ***
    ---
    Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1
    """
    columns = []
    footnotes: tuple[str, ...] = ()
    for name in map(str, frame.columns):
        values = frame[name].to_numpy(dtype=float).tolist()
        if name.startswith("Pr("):
            texts = format_p_values(values, _DIGITS - 1, missing="")
        elif name in _WHOLE:
            texts = ["" if value != value else f"{value:.0f}" for value in values]
        else:
            if name in _STATISTICS:
                values = [round_number(value, _DIGITS - 1) for value in values]
            texts = format_numbers(values, _DIGITS, missing="")
        columns.append(Column(name, tuple(texts)))
        if name.startswith("Pr(") and any(value < 0.1 for value in values):
            columns.append(Column("", tuple(significance_stars(values)), "left", numeric=False))
            footnotes = (f"Signif. codes:  {STAR_LEGEND}",)
    return Table(tuple(columns), tuple(map(str, frame.index)), footnotes=footnotes)


class ShownComparison:
    """What prints as a heading, formulas, a table of tests or criteria, and notes."""

    def _parts(self) -> tuple[str, Mapping[str, str], pd.DataFrame, Sequence[str]]:
        raise NotImplementedError

    def __repr__(self) -> str:
        heading, models, table, notes = self._parts()
        above = [heading, *(f"{name}: {formula}" for name, formula in models.items())]
        return "\n".join(
            [
                *(line for text in above for line in wrapped(text, DEFAULT_WIDTH)),
                comparison_table(table).to_text(),
                *(line for note in notes for line in wrapped(note, DEFAULT_WIDTH)),
            ]
        )

    def _repr_html_(self) -> str:
        heading, models, table, notes = self._parts()
        parts = [f"<h4>{escape(heading)}</h4>"]
        parts += [
            f"<p>{escape(name)}: <code>{escape(formula)}</code></p>"
            for name, formula in models.items()
        ]
        parts.append(comparison_table(table).to_html())
        parts += [f'<p class="footnote">{escape(note)}</p>' for note in notes]
        return html_document(*parts)


def values_html(heading: str, frame: pd.DataFrame, note: str = "") -> str:
    """A few numbers with four decimals, in HTML."""
    columns = tuple(
        Column(str(name), tuple(f"{value:.4f}" for value in frame[name])) for name in frame.columns
    )
    table = Table(columns, tuple(map(str, frame.index)))
    parts = [f"<h4>{escape(heading)}</h4>", table.to_html()]
    if note.strip():
        parts.append(f'<p class="footnote">{escape(note.strip())}</p>')
    return html_document(*parts)
