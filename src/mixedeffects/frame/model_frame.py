"""The model frame: everything the engine needs from the data, as arrays with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import DetachedTable, ReadOnlyArrays
from mixedeffects.families.response import Response
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

if TYPE_CHECKING:
    from mixedeffects.formula import Formula
    from mixedeffects.frame.coder import VariableCoder
    from mixedeffects.frame.encode import DesignEncoder

__all__ = ["Dropped", "ModelFrame", "RandomTerm"]


@dataclass(frozen=True, eq=False)
class RandomTerm(ReadOnlyArrays):
    """One random-effects term: a grouping factor as codes, and a small dense matrix of columns.

    Attributes
    ----------
    label : str
        Unique label in lme4's manner: ``"Subject"``, and ``"Subject.1"`` for a second term on the
        same factor.
    group : str
        Name of the grouping factor: ``"Subject"``, ``"tch:sch"``.
    variables : tuple of str
        The columns whose combinations are the levels, in the order of the name: ``("tch", "sch")``.
    columns : tuple of str
        R-style names of the k columns, for example ``("(Intercept)", "Days")``.
    levels : pandas.Index of str, length l
        Level labels in order; only levels that occur in the rows used.
    level_values : pandas.MultiIndex or pandas.Index, length l
        The original values that make each level (one entry per variable in ``variables``).
    codes : ndarray of int32, shape (n,)
        Level of each row.
    z : ndarray of float64, shape (n, k), C order
        The term's columns.
    structure : {"us", "diag", "cs", "ar1"}
        Covariance structure of its effects; ``"us"`` has none.
    homogeneous : bool
        Whether a structure has one variance for all columns.
    """

    label: str
    group: str
    variables: tuple[str, ...]
    columns: tuple[str, ...]
    levels: pd.Index
    level_values: pd.Index
    codes: NDArray[np.int32]
    z: NDArray[np.float64]
    structure: str = "us"
    homogeneous: bool = False

    @property
    def n_levels(self) -> int:
        """Number of levels, l."""
        return len(self.levels)

    @property
    def n_columns(self) -> int:
        """Number of columns, k."""
        return int(self.z.shape[1])

    @property
    def constant(self) -> NDArray[np.float64]:
        """What is one in every row, shape (n, 1)."""
        return np.ones((len(self.codes), 1))

    def of_rows(self, rows: NDArray[Any]) -> dict[str, Any]:
        """Columns of some rows."""
        return {"z": np.ascontiguousarray(self.z[rows])}

    def taking(self, kept: Sequence[int], names: tuple[str, ...]) -> RandomTerm:
        """The term with some of its columns, under other names."""
        return replace(self, columns=names, z=np.ascontiguousarray(self.z[:, list(kept)]))

    def intercept(self) -> RandomTerm:
        """An intercept by the same levels."""
        return replace(self, columns=("(Intercept)",), z=self.constant)

    def encoded(self, encoder: DesignEncoder, data: pd.DataFrame) -> RandomTerm:
        """The term with other columns of the same variables.

        Parameters
        ----------
        encoder : DesignEncoder
            Makes them.
        data : DataFrame
            Of what.
        """
        z = np.ascontiguousarray(encoder.encode(data)[0])
        return replace(self, columns=encoder.all_names, z=z)


@dataclass(frozen=True, eq=False)
class Dropped:
    """What was left out of the fit, and why.

    Attributes
    ----------
    rows : pandas.Index
        Labels (of the data's own index) of the rows removed for missing values.
    missing_by_column : dict of str to int
        For each variable with missing values, how many rows it is missing in.
    columns : tuple of str
        Names of fixed-effects columns removed because they are linear combinations of earlier ones.
    unused_levels : dict of str to int
        For each grouping factor, how many declared levels occur in no row used.
    n_rows : int or None
        Number of rows of the data, used or not.
    lost : tuple of str
        What was warned of: functions of the formula that have no value in some rows.
    far_from_zero : tuple of str
        Those of ``columns`` whose values vary so little beside their size that rounding has taken
        what tells them from others. Centred, they may well be kept.
    empty_steps : tuple of (str, int)
        The position of the residuals, and how many of its steps occur in no row used. They are
        left in: the rows before and behind them are so much further apart.
    """

    rows: pd.Index
    missing_by_column: dict[str, int] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    unused_levels: dict[str, int] = field(default_factory=dict)
    n_rows: int | None = None
    lost: tuple[str, ...] = ()
    far_from_zero: tuple[str, ...] = ()
    empty_steps: tuple[tuple[str, int], ...] = ()

    def __bool__(self) -> bool:
        return bool(len(self.rows) or self.columns or self.unused_levels)

    def sentences(self) -> list[str]:
        """Return what was left out, one sentence for each kind."""
        said = []
        if len(self.rows):
            total = "" if self.n_rows is None else f" of {self.n_rows:,}"
            counts = ", ".join(f"{name} {count:,}" for name, count in self._worst_first())
            rows = "rows" if self.n_rows is not None or len(self.rows) > 1 else "row"
            why = f" ({counts})" if counts else ""
            said.append(f"{len(self.rows):,}{total} {rows} removed for missing values{why}")
        if self.columns:
            names = ", ".join(f"`{name}`" for name in self.columns)
            one = len(self.columns) == 1
            said.append(
                f"column {names} removed: linear combination of earlier columns"
                if one
                else f"columns {names} removed: linear combinations of earlier columns"
            )
        if self.far_from_zero:
            said.append(self.advice())
        for group, count in self.unused_levels.items():
            levels = "level" if count == 1 else "levels"
            said.append(f"{count:,} declared {levels} of `{group}` without rows")
        for position, count in self.empty_steps:
            steps = "step" if count == 1 else "steps"
            said.append(f"{count:,} {steps} of `{position}` without rows kept as gaps in time")
        return said

    def advice(self) -> str:
        """What to do about columns far from zero; empty where there are none."""
        if not self.far_from_zero:
            return ""
        names = ", ".join(f"`{name}`" for name in self.far_from_zero)
        return f"the values of {names} are so far from zero that they look constant: centre them"

    def _worst_first(self) -> list[tuple[str, int]]:
        return sorted(self.missing_by_column.items(), key=lambda item: -item[1])

    def __repr__(self) -> str:
        return "; ".join(self.sentences()) or "nothing dropped"

    def _repr_html_(self) -> str:
        sentences = self.sentences() or ["nothing dropped"]
        return "<ul>" + "".join(f"<li>{escape(s)}</li>" for s in sentences) + "</ul>"


@dataclass(frozen=True, eq=False)
class ModelFrame(ReadOnlyArrays):
    """Response, fixed-effects matrix and random-effects terms of the rows used.

    Attributes
    ----------
    formula : Formula
        What the user wrote, parsed.
    y : ndarray, shape (n,)
        Response, as given (the offset is not subtracted).
    X : ndarray, shape (n, p)
        Fixed-effects model matrix, full column rank.
    fixef_names : tuple of str, length p
        R-style names of the columns of X.
    terms : tuple of RandomTerm
        In lme4's order: decreasing number of levels.
    weights : ndarray, shape (n,), or None
        Prior weights; None means all one.
    offset : ndarray, shape (n,), or None
        Known part of the linear predictor; None means zero.
    index : pandas.Index, length n
        Row labels of the data, for the rows used.
    positions : ndarray of intp, shape (n,)
        Positions of the rows used in the data given.
    dropped : Dropped
        Rows and columns left out.
    data : pandas.DataFrame
        The columns the formula uses, rows used only (n rows), with their types.
    fixed_encoder : DesignEncoder or None
        Makes the columns of X from other data; also says which term each column belongs to.
    random_encoders : tuple of DesignEncoder
        The same for the columns z of each of ``terms``.
    residual : ResidualTerm or None
        Covariance structure of the residuals; None means independent.
    variance : VarianceTerm or None
        What the logarithm of their standard deviation is linear in; None means nothing.
    residual_coders : tuple of VariableCoder
        Make the position of a row in other data, one for each part; then one for its stratum.
    variance_encoder : DesignEncoder or None
        Makes the columns of ``variance`` from other data.
    response : Response or None
        The response of a generalized model: y, trials and weights; None for a linear one.
    response_levels : tuple of str
        Failure and success, where the response was a factor or true and false.
    """

    formula: Formula
    y: NDArray[np.float64]
    X: NDArray[np.float64]
    fixef_names: tuple[str, ...]
    terms: tuple[RandomTerm, ...]
    weights: NDArray[np.float64] | None
    offset: NDArray[np.float64] | None
    index: pd.Index
    positions: NDArray[np.intp]
    dropped: Dropped
    data: DetachedTable = DetachedTable()  # noqa: RUF009 - a descriptor
    fixed_encoder: DesignEncoder | None = None
    random_encoders: tuple[DesignEncoder, ...] = ()
    residual: ResidualTerm | None = None
    variance: VarianceTerm | None = None
    residual_coders: tuple[VariableCoder, ...] = ()
    variance_encoder: DesignEncoder | None = None
    response: Response | None = None
    response_levels: tuple[str, ...] = ()

    @property
    def nobs(self) -> int:
        """Number of rows used, n."""
        return int(self.y.shape[0])

    @property
    def rows_behind(self) -> int:
        """How many rows the last one stands for, having no part in any column; usually none."""
        return 0

    def further_fields(self, _rows: NDArray[Any]) -> dict[str, Any]:
        """What of some rows there is besides the fields of a model frame."""
        return {}

    @property
    def has_trials(self) -> bool:
        """Whether the response is a number of successes among several trials."""
        return self.response is not None and self.response.trials is not None

    @property
    def structured_terms(self) -> tuple[str, ...]:
        """Labels of the terms whose covariance has a structure (``diag``, ``cs``, ``ar1``)."""
        return tuple(term.label for term in self.terms if term.structure != "us")
