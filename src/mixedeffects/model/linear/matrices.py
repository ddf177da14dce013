"""The matrices of the model, as in the literature: X, y, Z, G, R and V."""

from __future__ import annotations

from typing import Any

from mixedeffects.covariance import (
    MarginalCovariance,
    ResidualCovariance,
)
from mixedeffects.covariance.of_fit import R_of, V_of
from mixedeffects.model.shared.held import Held

__all__ = ["Matrices"]


class Matrices(Held):
    """The matrices of the model, as in the literature: X, y, Z, G, R and V."""

    @property
    def R(self) -> ResidualCovariance:
        """Covariance matrix of the residual errors, n x n; see `ResidualCovariance`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.R
        R: 180 x 180, diagonal: 654.941

        Errors of a subject that are an autoregression in the days:

        >>> sleep = me.load_dataset("sleepstudy")
        >>> me.lmer("Reaction ~ Days", sleep, residual="ar1(Days | Subject)").R
        R: 180 x 180, 18 blocks, ar1(Days | Subject), sd 49.51, cor 0.8
        """
        return R_of(self.fit)

    @property
    def V(self) -> MarginalCovariance:
        """Marginal covariance matrix of the response, ``Z G Z' + R``; see `MarginalCovariance`.

        References
        ----------
        Laird, N. M. and Ware, J. H. (1982). Random-effects models for longitudinal data.
        Biometrics 38, 963-974.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.V.gls(m.X, m.y).coef.round(2).tolist()  # the fixed effects again
        [251.41, 10.47]
        >>> float(abs(m.V.sparse() - (m.Z @ m.G.sparse() @ m.Z.T + m.R.sparse())).max()) < 1e-9
        True
        """
        return V_of(self.fit)

    def getme(self, name: str) -> Any:
        """Any component that lme4's ``getME`` knows, under the same name.

        Indices (``Lind``, ``Gp``, ``Tp``) count from zero. ``L`` is the Cholesky factor of
        ``Lambda'Z'WZ Lambda + I`` in Z's column order, without a permutation.

        Parameters
        ----------
        name : str
            One of the names in `getme_names`.

        Returns
        -------
        array, sparse array, Series, DataFrame, dict, number or function
            What ``getME`` returns, in the matching Python type.

        Raises
        ------
        ModelError
            If the name is not known, or ``L``, ``RZX`` or ``RX`` would be too large; of what
            takes residuals to be independent, with ``residual=``, ``variance=`` or ``sigma=``; of
            random effects, without any.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.getme("theta").round(3)
        Subject.(Intercept)         0.967
        Subject.Days.(Intercept)    0.015
        Subject.Days                0.231
        dtype: float64
        >>> L = m.getme("Lambda")
        >>> float(abs(m.sigma**2 * L @ L.T - m.G.sparse()).max()) < 1e-9
        True
        """
        from mixedeffects.model.shared.getme import component

        return component(self.fit, name)

    @staticmethod
    def getme_names() -> list[str]:
        """Names that `getme` takes, a list of str.

        Examples
        --------
        >>> import mixedeffects as me
        >>> me.LinearMixedModel.getme_names()[:5]
        ['X', 'Z', 'Zt', 'Ztlist', 'mmList']
        """
        from mixedeffects.model.shared.getme import COMPONENTS

        return list(COMPONENTS)
