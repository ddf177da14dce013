"""Tables of parameters of different sizes, such as variances beside correlations."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from mixedeffects.display.numbers import pad_to_common_point
from mixedeffects.display.tables import Column, Table

__all__ = ["parameter_table"]


def parameter_table(frame: pd.DataFrame, digits: int = 4, scale: str | None = None) -> Table:
    """One row per parameter; all numbers of a row share their decimals.

    Parameters
    ----------
    frame : DataFrame
        Numbers, one row per parameter.
    digits : int
        Significant digits of the number that sets the decimals of its row.
    scale : str, optional
        The column with that number, a standard error for instance; by default the smallest of the
        row that is not zero.

    Returns
    -------
    Table

    Examples
    --------
    >>> frame = pd.DataFrame({"Estimate": [0.0655, 251.4]}, index=["cor", "(Intercept)"])
    >>> parameter_table(frame, digits=3)
                Estimate
    cor           0.0655
    (Intercept) 251
    """
    values = frame.to_numpy(dtype=float)
    cells = [[""] * frame.shape[1] for _ in range(len(frame))]
    for i, row in enumerate(values):
        sizes = np.abs(row if scale is None else row[list(frame.columns).index(scale), None])
        sizes = sizes[np.isfinite(sizes) & (sizes > 0.0)]
        if not len(sizes):
            sizes = np.abs(row[np.isfinite(row) & (row != 0.0)])
        decade = math.floor(math.log10(sizes.min())) + 1 if len(sizes) else 0
        decimals = min(max(digits - decade, 0), 12)
        cells[i] = [f"{value:.{decimals}f}" if np.isfinite(value) else "NaN" for value in row]
    columns = []
    for j, header in enumerate(frame.columns):
        columns.append(Column(str(header), tuple(pad_to_common_point([row[j] for row in cells]))))
    return Table(tuple(columns), tuple(map(str, frame.index)))
