"""Tables of the fixed effects: estimates with tests, and their correlations."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from mixedeffects.display.abbreviation import abbreviate
from mixedeffects.display.numbers import (
    STAR_LEGEND,
    format_numbers,
    format_p_values,
    round_number,
    significance_stars,
)
from mixedeffects.display.tables import Column, Table

__all__ = ["coefficient_table", "correlation_table"]


def coefficient_table(frame: pd.DataFrame, digits: int = 4, *, stars: bool = True) -> Table:
    """Estimates and tests in the layout of R's ``printCoefmat``.

    Parameters
    ----------
    frame : DataFrame
        One row per coefficient. A column whose name starts with ``Pr(`` holds p-values, one
        whose name ends in `` value`` a test statistic; all other columns (estimates, standard
        errors, degrees of freedom) share their decimals.
    digits : int
        Significant digits of the smallest estimate or standard error.
    stars : bool
        Mark p-values with significance codes and explain them in a footnote. Left out when no
        p-value is below 0.1.

    Returns
    -------
    Table
        The columns of `frame` in order, and the significance codes.

    Examples
    --------
    >>> frame = pd.DataFrame(
    ...     {"Estimate": [251.405], "Std. Error": [6.8246], "t value": [36.8383]},
    ...     index=["(Intercept)"],
    ... )
    >>> coefficient_table(frame)
                Estimate Std. Error t value
    (Intercept)  251.405      6.825   36.84
    """
    headers = [str(header) for header in frame.columns]
    values = {
        header: [float(value) for value in frame.iloc[:, j].to_numpy(dtype=float)]
        for j, header in enumerate(headers)
    }
    p_headers = [header for header in headers if header.startswith("Pr(")]
    test_headers = [header for header in headers if header.endswith(" value")]
    scale_headers = [h for h in headers if h not in p_headers and h not in test_headers]
    test_digits = max(1, min(5, digits - 1))

    texts = _common_decimals({header: values[header] for header in scale_headers}, digits)
    for header in test_headers:
        rounded = [round_number(value, test_digits) for value in values[header]]
        texts[header] = format_numbers(rounded, digits)
    for header in p_headers:
        texts[header] = format_p_values(values[header], test_digits)

    columns = [Column(header, tuple(texts[header])) for header in headers]
    footnotes: tuple[str, ...] = ()
    if stars and any(p < 0.1 for header in p_headers for p in values[header]):
        marks = significance_stars(values[p_headers[-1]])
        columns.append(Column("", tuple(marks), "left", numeric=False))
        footnotes = (f"Signif. codes:  {STAR_LEGEND}",)
    return Table(tuple(columns), tuple(map(str, frame.index)), footnotes=footnotes)


def correlation_table(correlation: pd.DataFrame, decimals: int = 3) -> Table:
    """Correlations of the fixed effects: the lower triangle with abbreviated names.

    Parameters
    ----------
    correlation : DataFrame
        Square correlation matrix with the coefficient names as index, two or more of them.
    decimals : int
        Decimals to print.

    Returns
    -------
    Table
        All rows but the first and all columns but the last.

    Raises
    ------
    ValueError
        If the matrix is not square or has fewer than two rows.

    Examples
    --------
    >>> names = ["(Intercept)", "Days"]
    >>> correlation_table(pd.DataFrame([[1, -0.138], [-0.138, 1]], index=names, columns=names))
         (Intr)
    Days -0.138
    """
    n = len(correlation)
    if correlation.shape != (n, n) or n < 2:
        raise ValueError(
            f"correlations of fixed effects need a square matrix with two or more rows, not one "
            f"of shape {correlation.shape}"
        )
    names = [str(name) for name in correlation.index]
    entries = np.asarray(correlation, dtype=float).ravel().tolist()
    rounded = [round_number(value, decimals) for value in entries]
    texts = format_numbers(rounded, decimals=decimals, missing="NaN")
    columns = tuple(
        Column(header, tuple(texts[i * n + j] if i > j else "" for i in range(1, n)), "left")
        for j, header in enumerate(abbreviate(names, 6)[:-1])
    )
    return Table(columns, tuple(abbreviate(names, 11)[1:]))


def _common_decimals(columns: dict[str, list[float]], digits: int) -> dict[str, list[str]]:
    """Format columns on one scale, so that estimates and standard errors can be compared."""
    values = [value for column in columns.values() for value in column]
    sizes = [abs(value) for value in values if math.isfinite(value) and value != 0]
    # Decimals are set by the smallest number: the others then have digits enough.
    decades = math.floor(math.log10(min(sizes))) + 1 if sizes else 0
    rounded = [round_number(value, max(1, digits - decades)) for value in values]
    texts = format_numbers(rounded, digits)
    split: dict[str, list[str]] = {}
    start = 0
    for header, column in columns.items():
        split[header] = texts[start : start + len(column)]
        start += len(column)
    return split
