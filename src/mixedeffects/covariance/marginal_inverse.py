"""Methods of V that need its inverse: solve, logdet, quad, gls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.covariance.factored import FactoredCovariance
from mixedeffects.covariance.gls import GLSResult, gls
from mixedeffects.covariance.inverse import log_determinant, solve
from mixedeffects.covariance.operator import CovarianceOperator

__all__ = ["InverseOfV"]

Matrix = NDArray[np.float64]


class InverseOfV(CovarianceOperator):
    """The part of `MarginalCovariance` that takes the engine's factor."""

    @property
    @abstractmethod
    def _factored(self) -> FactoredCovariance:
        """V with the factor of M."""

    def solve(self, B: Any) -> Matrix:
        """``V^-1 B`` without forming V.

        Parameters
        ----------
        B : array or DataFrame, shape (n,) or (n, m)
            Right-hand sides.

        Returns
        -------
        ndarray of the shape of B

        Raises
        ------
        DataError
            If B does not have n rows or is not finite.

        References
        ----------
        Henderson, H. V. and Searle, S. R. (1981). On deriving the inverse of a sum of matrices.
        SIAM Review 23, 53-60.

        Examples
        --------
        ``X'V^-1X`` is the inverse of the covariance matrix of the fixed effects:

        >>> import numpy as np
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> bool(np.allclose(m.X.T @ m.V.solve(m.X), np.linalg.inv(m.vcov())))
        True
        """
        x, restore = self._rows.columns(B, "V.solve(B)")
        return restore(solve(self._factored, x))

    def logdet(self) -> float:
        """Natural logarithm of the determinant, ``log |V|``.

        Examples
        --------
        >>> import numpy as np
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> round(m.V.logdet(), 3), round(float(np.linalg.slogdet(m.V.dense())[1]), 3)
        (1243.179, 1243.179)
        """
        return log_determinant(self._factored)

    def quad(self, r: Any) -> float | Matrix:
        """Quadratic form ``r' V^-1 r``.

        Parameters
        ----------
        r : array, Series or DataFrame, shape (n,) or (n, m)
            One vector, or several as columns.

        Returns
        -------
        float, or ndarray m x m

        Raises
        ------
        DataError
            If r does not have n rows or is not finite.

        Examples
        --------
        At a REML fit the squared distance of y from its mean is n - p:

        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> round(m.V.quad(m.resid("marginal")), 6)
        178.0
        """
        x, _ = self._rows.columns(r, "V.quad(r)")
        values: Matrix = x.T @ solve(self._factored, x)
        return float(values[0, 0]) if np.ndim(r) == 1 else values

    def gls(self, X: Any, y: Any, names: Sequence[str] | None = None) -> GLSResult:
        """Generalized least squares with this V.

        Parameters
        ----------
        X, y, names
            As for `mixedeffects.gls`.

        Returns
        -------
        GLSResult

        Raises
        ------
        DataError, ModelError
            As for `mixedeffects.gls`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.V.gls(m.X, m.y, names=m.fixef.index).se.round(2)
        (Intercept)    6.82
        Days           1.55
        Name: Std. Error, dtype: float64
        """
        return gls(X, y, self, names)
