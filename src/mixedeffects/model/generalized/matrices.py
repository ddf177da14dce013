"""The matrices of the working model: z, W, R and V."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mixedeffects.covariance import MarginalCovariance, ResidualCovariance
from mixedeffects.covariance.of_fit import R_of, V_of
from mixedeffects.model.generalized.of_record import OfRecord

__all__ = ["GeneralizedMatrices"]


class GeneralizedMatrices(OfRecord):
    """The matrices of the working model: z, W, R and V."""

    @property
    def working(self) -> pd.DataFrame:
        """The working model at the conditional modes, one row for each row used.

        Columns ``z``, the working response without offset, ``X beta + Z b + r / W``, and ``W``,
        its weight: the second derivative of minus the row's log-likelihood, or its expectation
        where that is not positive. With r the first derivative, ``V^-1 (z - X beta) = r`` exactly.

        Raises
        ------
        ModelError
            If a row has no weight: its fitted mean is at the end of its range.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.working.head(2).round(3)
               z      W
        0 -1.584  2.985
        1 -0.911  1.460
        >>> r = cbpp["incidence"] - cbpp["size"] * m.fitted
        >>> float(abs(m.V.solve(m.working["z"] - m.X @ m.fixef) - r).max()) < 1e-6
        True
        """
        W = self._record.working_weights
        z = self._record.evaluation.working_response
        return pd.DataFrame({"z": z, "W": W}, index=self.frame.index)

    @property
    def R(self) -> ResidualCovariance:
        """Covariance matrix of the working residuals, W^-1, on the scale of the link.

        Raises
        ------
        ModelError
            If a row has no weight: its fitted mean is at the end of its range.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.R
        R, working covariance, link scale: 56 x 56, diagonal, 0.1375 to 6.456
        """
        return R_of(self.fit)

    @property
    def V(self) -> MarginalCovariance:
        """Working covariance matrix ``Z G Z' + W^-1``, on the scale of the link.

        It is that of the working response at the conditional modes, and not the covariance of the
        response. ``V^-1 (z - X beta) = r`` holds exactly. ``m.V.gls(m.X, z)`` is a penalised update
        and not `fixef`, whose criterion has the determinant in it too.

        Raises
        ------
        ModelError
            If a row has no weight: its fitted mean is at the end of its range.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> print(str(m.V).splitlines()[0])
        V = Z G Z' + R, working covariance, link scale: 56 x 56, 15 blocks of 1 to 4 rows
        """
        return V_of(self.fit)

    def getme(self, name: str) -> Any:
        """Components that lme4's ``getME`` knows, under the same name.

        Those with weights in them (``L``, ``RX``, ``RZX``, ``A``) have the working weights.

        Parameters
        ----------
        name : str
            One of the names in `getme_names`.

        Returns
        -------
        array, sparse array, Series, DataFrame, dict or number
            What ``getME`` returns, in the matching Python type.

        Raises
        ------
        ModelError
            If the name is not known, or not defined for a generalized model.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.getme("theta").round(3)
        herd.(Intercept)    0.642
        dtype: float64
        """
        from mixedeffects.model.shared.getme import generalized_component

        return generalized_component(self._record, name)

    @staticmethod
    def getme_names() -> list[str]:
        """Names that `getme` takes, a list of str.

        Examples
        --------
        >>> import mixedeffects as me
        >>> "u" in me.GeneralizedLinearMixedModel.getme_names()
        True
        """
        from mixedeffects.model.shared.getme import GENERALIZED_COMPONENTS

        return list(GENERALIZED_COMPONENTS)
