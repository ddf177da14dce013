"""The table of random effects: standard deviations, variances and correlations by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mixedeffects.display.numbers import format_numbers, round_number
from mixedeffects.display.tables import Column, Table

__all__ = ["VarCorrBlock", "varcorr_table"]

Component = Literal["Variance", "Std.Dev."]

#: Structures in which all correlations follow from that of neighbouring columns.
_ONE_CORRELATION = ("cs", "ar1")


@dataclass(frozen=True, eq=False)
class VarCorrBlock:
    """The random effects of one term.

    Parameters
    ----------
    group : str
        Label of the grouping factor.
    names : sequence of str
        Names of the k columns.
    std_devs : array_like of float, shape (k,)
        Standard deviations, in the response's units.
    correlation : array_like of float, shape (k, k), optional
        Correlation matrix; None where the columns are independent by construction.
    structure : {"us", "diag", "cs", "ar1"}
        Covariance structure. That of ``"cs"`` and ``"ar1"`` has one correlation, which is printed
        once with the name of the structure, as lme4 2 does.
    homogeneous : bool
        Whether the columns have one variance, printed once.

    Raises
    ------
    ValueError
        If the shapes do not agree.

    Examples
    --------
    >>> VarCorrBlock("Subject", ["(Intercept)"], [35.75]).group
    'Subject'
    """

    group: str
    names: Sequence[str]
    std_devs: ArrayLike
    correlation: ArrayLike | None = None
    structure: str = "us"
    homogeneous: bool = False

    def __post_init__(self) -> None:
        k = len(self.names)
        if np.shape(self.std_devs) != (k,):
            raise ValueError(
                f"group {self.group!r} has {k} names but standard deviations of shape "
                f"{np.shape(self.std_devs)}"
            )
        if self.correlation is not None and np.shape(self.correlation) != (k, k):
            raise ValueError(
                f"group {self.group!r} needs a {k} x {k} correlation matrix, not one of shape "
                f"{np.shape(self.correlation)}"
            )

    @property
    def rows(self) -> list[tuple[str, float]]:
        """Name and standard deviation of each row to print."""
        std_devs = np.asarray(self.std_devs, dtype=float).tolist()
        if self.homogeneous and len(self.names) > 1:
            between = ", " if len(self.names) == 2 else ", ..., "
            return [(f"{self.names[0]}{between}{self.names[-1]}", std_devs[0])]
        return list(zip(self.names, std_devs, strict=True))


def varcorr_table(
    blocks: Sequence[VarCorrBlock],
    residual: float | None,
    digits: int = 5,
    components: Sequence[Component] = ("Std.Dev.",),
) -> Table:
    """Variance components as lme4 prints them.

    Parameters
    ----------
    blocks : sequence of VarCorrBlock
        The terms in the order to print. Repeated groups get a number, as in ``Subject.1``.
    residual : float or None
        Residual standard deviation; None leaves its row out.
    digits : int
        Significant digits; correlations have two decimals fewer, at least two.
    components : sequence of {"Variance", "Std.Dev."}
        Columns to print, in this order.

    Returns
    -------
    Table
        Columns ``Groups``, ``Name``, the components, and ``Corr`` if there are correlations.

    Examples
    --------
    >>> block = VarCorrBlock("Subject", ["(Intercept)"], [35.7536])
    >>> print("|" + str(varcorr_table([block], residual=44.2589)))
    | Groups   Name        Std.Dev.
     Subject  (Intercept) 35.754
     Residual             44.259
    """
    groups: list[str] = []
    names: list[str] = []
    std_devs: list[float] = []
    for label, block in zip(_unique_labels(blocks), blocks, strict=True):
        groups += [label, *[""] * (len(block.rows) - 1)]
        names += [name for name, _ in block.rows]
        std_devs += [value for _, value in block.rows]
    if residual is not None:
        groups.append("Residual")
        names.append("")
        std_devs.append(float(residual))
    values = {"Variance": [value**2 for value in std_devs], "Std.Dev.": std_devs}
    columns = [
        Column("Groups", tuple(groups), "left", numeric=False),
        Column("Name", tuple(names), "left", numeric=False),
    ]
    columns += [
        Column(component, tuple(format_numbers(values[component], digits)), "left")
        for component in components
    ]
    columns += _correlation_columns(blocks, len(groups), max(2, digits - 2))
    return Table(tuple(columns), labels=("",) * len(groups), keys=2)


def _unique_labels(blocks: Sequence[VarCorrBlock]) -> list[str]:
    labels: list[str] = []
    taken = {block.group for block in blocks}
    seen: set[str] = set()
    for block in blocks:
        label, number = block.group, 0
        if label in seen:
            while label in taken:
                number += 1
                label = f"{block.group}.{number}"
        seen.add(block.group)
        taken.add(label)
        labels.append(label)
    return labels


def _correlation_columns(
    blocks: Sequence[VarCorrBlock], n_rows: int, decimals: int
) -> list[Column]:
    """Set the lower triangles of all blocks below one header ``Corr``."""
    shown = [b for b in blocks if b.correlation is not None]
    n_columns = max(
        (1 if b.structure in _ONE_CORRELATION else len(b.names) - 1 for b in shown), default=0
    )
    rows: list[list[str]] = []
    for block in blocks:
        triangle = _lower_triangle(block, decimals)
        rows += [row + [""] * (n_columns - len(row)) for row in triangle]
    rows += [[""] * n_columns for _ in range(n_rows - len(rows))]
    return [
        Column("" if j else "Corr", tuple(row[j] for row in rows), "left") for j in range(n_columns)
    ]


def _lower_triangle(block: VarCorrBlock, decimals: int) -> list[list[str]]:
    """Row i holds the i correlations with the columns before it."""
    k = len(block.names)
    if block.correlation is None:
        return [[] for _ in block.rows]
    correlation = np.asarray(block.correlation, dtype=float)
    if block.structure in _ONE_CORRELATION:
        neighbours = np.diag(correlation, 1)
        known = neighbours[np.isfinite(neighbours)]
        value = round_number(float(known[0]), decimals) if len(known) else np.nan
        (text,) = format_numbers([value], decimals=decimals, missing="NaN")
        return [[f"{text} ({block.structure})"], *[[] for _ in block.rows[1:]]]
    rounded = [round_number(value, decimals) for value in correlation.ravel()]
    texts = format_numbers(rounded, decimals=decimals, missing="NaN")
    return [texts[i * k : i * k + i] for i in range(k)]
