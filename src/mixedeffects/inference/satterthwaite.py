"""Satterthwaite's degrees of freedom, as lmerTest defines them.

With ``f(theta, sigma) = l'C l``, ``g`` its gradient and ``Avar = 2 H^-1`` over the positive
eigenvalues of H, the Hessian of the unprofiled deviance:  ``df = 2 f^2 / (g' Avar g)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.arrays import ReadOnlyArrays
from mixedeffects.inference.contrasts import contrast_rows

__all__ = ["Satterthwaite"]

Matrix = NDArray[np.float64]

#: Eigenvalues of H not above this are left out, as lmerTest does.
_POSITIVE = 1e-8


@dataclass(frozen=True, eq=False)
class Satterthwaite(ReadOnlyArrays):
    """Degrees of freedom from the curvature of the deviance.

    Parameters
    ----------
    vcov : ndarray, shape (p, p)
        Covariance matrix of the fixed effects.
    jacobian : ndarray, shape (m + 1, p, p)
        Its derivatives in (theta, sigma).
    hessian : ndarray, shape (m + 1, m + 1)
        Hessian of the unprofiled deviance.
    names : sequence of str, length p
        Names of the fixed effects.

    References
    ----------
    Kuznetsova, A., Brockhoff, P. B. and Christensen, R. H. B. (2017). lmerTest package: tests in
    linear mixed effects models. Journal of Statistical Software 82(13).
    """

    vcov: Matrix
    jacobian: Matrix
    hessian: Matrix
    names: Sequence[str]

    @property
    def parameter_covariance(self) -> Matrix:
        """``2 H^-1`` over the positive eigenvalues of H, shape (m + 1, m + 1)."""
        size = np.sqrt(np.abs(np.diag(self.hessian)))
        if (size > 0.0).all():
            scaled = self.hessian / np.outer(size, size)
            if np.linalg.eigvalsh(scaled)[0] > _POSITIVE:
                # Nothing to leave out: invert in a scale that does not depend on units.
                return np.asarray(2.0 * np.linalg.inv(scaled) / np.outer(size, size))
        values, vectors = np.linalg.eigh(self.hessian)
        keep = values > _POSITIVE
        kept = vectors[:, keep]
        return np.asarray(2.0 * (kept / values[keep]) @ kept.T)

    def df(self, contrasts: Matrix) -> Matrix:
        """Degrees of freedom of each contrast.

        Parameters
        ----------
        contrasts : array or DataFrame, shape (r, p)
            One contrast a row; a DataFrame goes by the names of its columns.

        Returns
        -------
        ndarray, shape (r,)

        Raises
        ------
        ModelError
            If there are not p columns, or a column is no fixed effect.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.satterthwaite.df([[1, 0], [0, 1]]).round(1)
        array([  9. , 124.7])
        """
        L = contrast_rows(contrasts, self.names)
        variance = np.einsum("rp,pq,rq->r", L, self.vcov, L)
        gradient = np.einsum("rp,mpq,rq->rm", L, self.jacobian, L)
        spread = np.einsum("rm,mk,rk->r", gradient, self.parameter_covariance, gradient)
        with np.errstate(divide="ignore"):
            return np.asarray(2.0 * variance**2 / spread)

    def f_df(self, contrasts: Matrix) -> float:
        """Denominator degrees of freedom of a joint F test, after Fai and Cornelius.

        The contrasts are turned into uncorrelated ones with ``nu_m`` degrees of freedom each, and
        the mean of the F distribution matched: ``2 E / (E - q)``, ``E = sum nu_m / (nu_m - 2)``.

        Parameters
        ----------
        contrasts : array or DataFrame, shape (q, p)
            Linearly independent contrasts, tested together.

        Returns
        -------
        float

        Raises
        ------
        ModelError
            As for `df`.

        References
        ----------
        Fai, A. H.-T. and Cornelius, P. L. (1996). Approximate F-tests of multiple degree of freedom
        hypotheses in generalized least squares analyses of unbalanced split-plot experiments.
        Journal of Statistical Computation and Simulation 54, 363-378.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> round(m.satterthwaite.f_df([[1, 0], [0, 1]]), 1)
        17.0
        """
        L = contrast_rows(contrasts, self.names)
        _, vectors = np.linalg.eigh(L @ self.vcov @ L.T)
        nu = self.df(vectors.T @ L)
        if len(nu) == 1 or np.ptp(nu) < 1e-8:
            return float(nu.mean())
        if (nu <= 2.0).any():
            return 2.0
        E = float(np.sum(nu / (nu - 2.0)))
        return 2.0 * E / (E - len(nu))
