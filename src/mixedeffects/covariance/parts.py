"""V split by source of variation: one part for each grouping factor, and the residual."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mixedeffects.covariance.diagonal_residual import DiagonalResidual
from mixedeffects.covariance.operator import CovarianceOperator
from mixedeffects.covariance.rows import Rows
from mixedeffects.covariance.structure import CovarianceStructure
from mixedeffects.display.numbers import format_numbers
from mixedeffects.display.tables import Column, Table
from mixedeffects.errors import ModelError

__all__ = ["CovariancePart", "CovarianceParts", "split_by_source"]


class CovariancePart(CovarianceOperator):
    """One source's share of V: ``Z_g G_g Z_g'`` of a grouping factor, or R.

    Made by ``m.V.parts``. It multiplies, is cut and turned into a matrix as V itself is; being
    singular as a rule, it has no ``solve``.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
    >>> school = m.V.parts["sch.cl"]
    >>> school.rows([0, 5]).round(2)  # two teachers, one school
    array([[0.42, 0.42],
           [0.42, 0.42]])
    >>> round(school.share(), 3)
    0.16
    """

    def __init__(
        self, structure: CovarianceStructure, whole: CovarianceOperator, name: str
    ) -> None:
        self._own_structure = structure
        self._own_rows = replace(whole._rows, matrix=f"V.parts[{name!r}]")
        self._whole = whole

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_terms" in state:
            # As stored before there were structures of V.
            R = DiagonalResidual(state["_diagonal"])
            rows = Rows(state["_index"], state["_factors"], state["_name"])
            structure = CovarianceStructure(state["_terms"], state["_blocks"], R)
            self._own_structure, self._own_rows, self._whole = structure, rows, state["_whole"]
        else:
            self.__dict__.update(state)

    @property
    def T(self) -> CovariancePart:
        """The part itself: it is symmetric."""
        return self

    def share(self) -> float:
        """Proportion of the marginal variance that is due to this source, averaged over the rows.

        Returns
        -------
        float
            Mean of ``part.diag() / V.diag()``, between 0 and 1. With random intercepts alone it is
            the intraclass correlation of the factor.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> round(m.V.parts["Batch"].share(), 4)
        0.4185
        """
        return float(np.mean(self.diag() / self._whole.diag()))

    def __repr__(self) -> str:
        size = f"{self._n:,} x {self._n:,}"
        return f"{self._rows.matrix}: {size}, {self.share():.1%} of the marginal variance"


class CovarianceParts(dict[str, CovariancePart]):
    """V by source: ``{"tch:sch": part, "sch": part, "Residual": part}``; the parts sum to V.

    Made by ``m.V.parts``. Terms on one grouping factor, such as those of ``(x || g)``, make one
    part. Printing it gives mean variance and share of each source.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
    >>> m.V.parts
    V by source, averaged over 150 rows
                  Variance Share
    tch.cl:sch.cl  1.22659 46.7%
    sch.cl         0.42022 16.0%
    Residual       0.98116 37.3%
    Total          2.62796
    """

    def __missing__(self, name: str) -> CovariancePart:
        known = ", ".join(repr(key) for key in self)
        raise ModelError(f"V has no part {name!r}; the parts are {known}.")

    def share(self) -> pd.Series:
        """Each source's proportion of the marginal variance, averaged over the rows.

        Returns
        -------
        Series
            Sums to 1. With random intercepts alone, the intraclass correlations; with random
            slopes the variance differs from row to row, and so do the shares that are averaged.

        References
        ----------
        Goldstein, H., Browne, W. and Rasbash, J. (2002). Partitioning variation in multilevel
        models. Understanding Statistics 1, 223-231.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.V.parts.share().round(3)
        Subject     0.671
        Residual    0.329
        Name: share, dtype: float64
        """
        shares = [part.share() for part in self.values()]
        return pd.Series(shares, index=list(self), name="share")

    def _table(self) -> Table:
        variances = [float(part.diag().mean()) for part in self.values()]
        shares = [f"{value:.1%}" for value in self.share()]
        first = next(iter(self.values()))
        return Table(
            (
                Column("Variance", tuple(format_numbers([*variances, sum(variances)], 5))),
                Column("Share", (*shares, "")),
            ),
            labels=(*self, "Total"),
            caption=f"V by source, averaged over {first.shape[0]:,} rows",
        )

    def __repr__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()


def split_by_source(whole: CovarianceOperator) -> CovarianceParts:
    """One part per grouping factor in the order of the terms, then R."""
    V = whole._structure
    no_residual = DiagonalResidual(np.zeros(V.n))
    parts = {}
    for group in dict.fromkeys(term.group for term in V.terms):
        terms, G = zip(*[own for own in V.random() if own[0].group == group], strict=True)
        parts[group] = CovariancePart(CovarianceStructure(terms, G, no_residual), whole, group)
    name = "Residual"
    while name in parts:  # a grouping factor may be called so
        name += ".1"
    parts[name] = CovariancePart(CovarianceStructure((), (), V.R), whole, name)
    return CovarianceParts(parts)
