"""Variances and correlations of the random effects, as R's ``VarCorr`` gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import read_only
from mixedeffects.base.options import member
from mixedeffects.display import VarCorrBlock, varcorr_table
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.shown_tables import ShownTables
from mixedeffects.errors import ModelError
from mixedeffects.fitting.residual_parameters import RESIDUAL, ResidualParameter
from mixedeffects.frame.model_frame import RandomTerm

if TYPE_CHECKING:
    from mixedeffects.display.residual_text import ResidualBlock

__all__ = ["VarCorr"]

Matrix = NDArray[np.float64]


class VarCorr(ShownTables):
    """Estimated variances, standard deviations and correlations, term by term.

    Parameters
    ----------
    terms : sequence of RandomTerm
        The random-effects terms.
    blocks : sequence of ndarray (k, k)
        Covariance matrix of each term's effects, in squared units of the response.
    sigma : float or None
        Residual standard deviation; None on the scale of a link, where there is none.
    residuals : sequence of ResidualParameter
        Parameters of the residuals' covariance, where they are correlated or differ in variance.
    residual_blocks : sequence of ResidualBlock
        How these are printed.
    residual_arguments : mapping of str to str
        What ``residual`` and ``variance`` of the fit were, as they would be written.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.varcorr["Subject"].round(1)
                 (Intercept)  Days
    (Intercept)        612.1   9.6
    Days                 9.6  35.1
    >>> round(m.varcorr.sigma, 2)
    25.59
    """

    #: Parameters of the residuals' covariance, and how they are printed; none where residuals are
    #: independent.
    _residuals: Sequence[ResidualParameter] = ()
    _residual_blocks: Sequence[ResidualBlock] = ()
    _residual_arguments: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        terms: Sequence[RandomTerm],
        blocks: Sequence[Matrix],
        sigma: float | None,
        residuals: Sequence[ResidualParameter] = (),
        residual_blocks: Sequence[ResidualBlock] = (),
        residual_arguments: Mapping[str, str] | None = None,
    ) -> None:
        self._columns = {term.label: term.columns for term in terms}
        self._blocks = {
            term.label: read_only(np.array(block))
            for term, block in zip(terms, blocks, strict=True)
        }
        self._structures = {term.label: (term.structure, term.homogeneous) for term in terms}
        #: Residual standard deviation; None in a generalized model.
        self.sigma = sigma
        if residuals:
            self._residuals, self._residual_blocks = tuple(residuals), tuple(residual_blocks)
        if residual_arguments:
            self._residual_arguments = dict(residual_arguments)

    @property
    def residuals(self) -> tuple[ResidualParameter, ...]:
        """Parameters of the residuals' covariance; none where they are independent."""
        return tuple(self._residuals)

    def __call__(self, *arguments: Any, **options: Any) -> None:
        """Say that ``m.varcorr`` is not a method, as ``VarCorr(m)`` of R may suggest."""
        raise TypeError("m.varcorr is an attribute: write m.varcorr, without parentheses.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    def keys(self) -> list[str]:
        """Labels of the terms, a list of str."""
        return list(self._blocks)

    def _block(self, label: str) -> Matrix:
        if not member(label, self._blocks):
            known = ", ".join(repr(key) for key in self._blocks)
            raise ModelError(
                f"There is no random-effects term {label!r:.60}; the terms are {known}."
            )
        return self._blocks[label]

    def __getitem__(self, label: str) -> pd.DataFrame:
        """Covariance matrix of one term's effects, DataFrame k x k; ModelError if there is none."""
        names = list(self._columns[label]) if label in self._columns else []
        return pd.DataFrame(self._block(label), index=names or None, columns=names or None)

    def sd(self, label: str) -> pd.Series:
        """Standard deviations of one term's effects.

        Parameters
        ----------
        label : str
            The term, one of `keys`.

        Returns
        -------
        Series, length k
            In units of the response per unit of the column.

        Raises
        ------
        ModelError
            If there is no such term.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.varcorr.sd("Subject").round(2)
        (Intercept)    24.74
        Days            5.92
        Name: Std.Dev., dtype: float64
        """
        return pd.Series(
            np.sqrt(np.diag(self._block(label))), index=list(self._columns[label]), name="Std.Dev."
        )

    def corr(self, label: str) -> pd.DataFrame:
        """Correlation matrix of one term's effects.

        Parameters
        ----------
        label : str
            The term, one of `keys`.

        Returns
        -------
        DataFrame, k x k
            NaN beside a zero variance.

        Raises
        ------
        ModelError
            If there is no such term.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.varcorr.corr("Subject").round(3)
                     (Intercept)   Days
        (Intercept)        1.000  0.066
        Days               0.066  1.000
        """
        block = self._block(label)
        sd = np.sqrt(np.diag(block))
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = block / np.outer(sd, sd)
        np.fill_diagonal(correlation, 1.0)
        correlation = np.where(np.isfinite(correlation), np.clip(correlation, -1, 1), np.nan)
        names = list(self._columns[label])
        return pd.DataFrame(correlation, index=names, columns=names)

    def to_frame(self) -> pd.DataFrame:
        """One row per variance and covariance, as ``as.data.frame(VarCorr(m))`` in R.

        Returns
        -------
        DataFrame
            Columns ``grp``, ``var1``, ``var2``, ``vcov``, ``sdcor``: for a variance ``var2`` is
            missing and ``sdcor`` is the standard deviation; for a covariance ``sdcor`` is the
            correlation. Columns that are independent by construction (``diag``) have no covariance.
            Residuals have a row for each standard deviation; their correlations and ranges are
            among `LinearMixedModel.covariance_parameters`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.varcorr.to_frame()[["grp", "vcov", "sdcor"]].round(2)
        grp        vcov sdcor
        Subject  612.09 24.74
        Subject   35.07  5.92
        Subject    9.60  0.07
        Residual 654.94 25.59
        """
        rows: list[tuple[str, str | None, str | None, float, float]] = []
        for label, covariance in self._blocks.items():
            correlation = self.corr(label).to_numpy()
            names = self._columns[label]
            for name, variance in zip(names, np.diag(covariance), strict=True):
                rows.append((label, name, None, float(variance), float(np.sqrt(variance))))
            if self._structures[label][0] == "diag":
                continue
            rows.extend(
                (label, names[i], names[j], float(covariance[i, j]), float(correlation[i, j]))
                for i in range(len(names))
                for j in range(i + 1, len(names))
            )
        deviations = [each for each in self._residuals if each.kind == "sd"]
        rows += [
            (RESIDUAL, each.column or None, None, each.value**2, each.value) for each in deviations
        ]
        if not deviations and self.sigma is not None:
            rows.append((RESIDUAL, None, None, self.sigma**2, self.sigma))
        return ResultTable(rows, columns=["grp", "var1", "var2", "vcov", "sdcor"])

    def summary_blocks(self) -> list[VarCorrBlock]:
        """The terms as they are printed: a structure shows each of its parameters once."""
        return [
            VarCorrBlock(
                label,
                list(self._columns[label]),
                self.sd(label).to_numpy(),
                self.corr(label).to_numpy()
                if len(self._columns[label]) > 1 and self._structures[label][0] != "diag"
                else None,
                *self._structures[label],
            )
            for label in self._blocks
        ]

    def _table(self) -> Any:
        return varcorr_table(self.summary_blocks(), None if self._residuals else self.sigma)

    def _parts(self) -> list[Any]:
        """The table, if there is something in it, and what is said of the residuals."""
        from mixedeffects.display.summary import residual_section

        table = [self._table()] if self._blocks or not self._residuals else []
        return [*table, *map(residual_section, self._residual_blocks)]
