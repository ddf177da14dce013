"""Tables of estimated marginal means and of their comparisons."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from mixedeffects.display.coefficients import coefficient_table
from mixedeffects.display.numbers import format_numbers, round_number
from mixedeffects.display.tables import Column, Table
from mixedeffects.frame.columns import labels_of

__all__ = ["labelled_table"]

#: Rows shown; a table of 5,000 comparisons is not read on a screen.
_SHOWN = 60


def labelled_table(frame: pd.DataFrame, labels: int, notes: tuple[str, ...]) -> Table:
    """Labels, estimates and intervals, with the notes below.

    Parameters
    ----------
    frame : DataFrame
        The labels in its first columns.
    labels : int
        How many columns those are.
    notes : tuple of str
        What to know when reading it.
    """
    shown = frame.head(_SHOWN)
    # Apart from the estimates: thousands of degrees of freedom would take their decimals.
    numbers = coefficient_table(shown.iloc[:, labels:].drop(columns="df"), stars=False)
    df = [round_number(value, 1) for value in shown["df"]]
    columns = [*numbers.columns]
    columns.insert(2, Column("df", tuple(format_numbers(df, 15, decimals=1))))
    keys = [
        Column(str(name), tuple(labels_of(shown[name].tolist())), "left", numeric=False)
        for name in shown.columns[:labels]
    ]
    more = len(frame) - len(shown)
    rest = (f"{more} more rows; see .to_frame()",) if more else ()
    return replace(numbers, columns=(*keys, *columns), labels=None, footnotes=(*rest, *notes))
