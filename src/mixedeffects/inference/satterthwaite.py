"""Satterthwaite's degrees of freedom, as lmerTest defines them.

With ``f(theta, sigma) = l'C l``, ``g`` its gradient and ``Avar = 2 H^-1`` over the positive
eigenvalues of H, the Hessian of the unprofiled deviance:  ``df = 2 f^2 / (g' Avar g)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays, read_only
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.covariance_changes import vcov_along_null_directions, vcov_jacobian
from mixedeffects.engine.residual_curvature import ResidualCurvature
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.inference.contrasts import contrast_rows

if TYPE_CHECKING:
    from mixedeffects.engine.curvature import Curvature

__all__ = ["Satterthwaite", "in_standard_errors", "satterthwaite_of"]

Matrix = NDArray[np.float64]

#: Eigenvalues of H, scaled to unit diagonal along its natural directions, that are not above this
#: are left out; lmerTest leaves out those of H itself that are not above the same number, which
#: depends on the units of theta.
_POSITIVE = 1e-8
#: Relative change of a variance along a flat direction that is more than rounding.
_DEPENDS = 1e-5


@dataclass(frozen=True, eq=False)
class Satterthwaite(ReadOnlyArrays):
    """Degrees of freedom from the curvature of the deviance.

    Parameters
    ----------
    vcov : ndarray, shape (p, p)
        Covariance matrix of the fixed effects.
    jacobian : ndarray, shape (m + 1, p, p)
        Its derivatives in (theta, sigma).
    curvature : Curvature
        Of the unprofiled deviance in the same parameters.
    along_null : ndarray, shape (r, p, p)
        Change of the covariance matrix along directions of V that the likelihood does not depend
        on.
    names : sequence of str, length p
        Names of the fixed effects.

    References
    ----------
    Kuznetsova, A., Brockhoff, P. B. and Christensen, R. H. B. (2017). lmerTest package: tests in
    linear mixed effects models. Journal of Statistical Software 82(13).
    """

    vcov: Matrix
    jacobian: Matrix
    curvature: Curvature
    along_null: Matrix
    names: Sequence[str]

    @property
    def hessian(self) -> Matrix:
        """Hessian of the unprofiled deviance in (theta, sigma), shape (m + 1, m + 1)."""
        return self.curvature.hessian

    @cached_property
    def natural_covariance(self) -> Matrix:
        """``2 H^-1`` over the positive eigenvalues of H along its natural directions.

        On what is left of them without those that the deviance does not depend on.
        """
        return self._spectrum[0]

    @cached_property
    def flat(self) -> Matrix:
        """Natural directions along which D is constant, or for all that rounding shows, (r, m + 1).

        Nothing is known about the parameters along them.
        """
        return self._spectrum[1]

    @cached_property
    def _spectrum(self) -> tuple[Matrix, Matrix]:
        curvature = self.curvature
        H, noise = curvature.natural, np.append(curvature.noise, 0.0)
        known = (
            scipy.linalg.null_space(curvature.undetermined)
            if len(curvature.undetermined)
            else np.eye(len(H))
        )
        H, noise = known.T @ H @ known, known.T**2 @ noise
        size = np.sqrt(np.maximum(np.abs(np.diag(H)), noise))
        values, vectors = np.linalg.eigh(H / np.outer(size, size))
        rounding = np.maximum(_POSITIVE, vectors.T**2 @ (noise / size**2))
        scaled = known @ (vectors / size[:, None])
        keep, flat = values > rounding, np.abs(values) <= rounding
        kept = scaled[:, keep]
        covariance = 2.0 * (kept / values[keep]) @ kept.T
        lengths = np.linalg.norm(scaled[:, flat], axis=0)
        undetermined = np.vstack([curvature.undetermined, (scaled[:, flat] / lengths).T])
        return read_only((covariance, undetermined))

    def depends(self, contrasts: Matrix) -> NDArray[np.bool_]:
        """Whether the variance of each contrast depends on what the data do not determine.

        Parameters
        ----------
        contrasts : ndarray, shape (r, p)
            One contrast a row.

        Returns
        -------
        ndarray of bool, shape (r,)

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.satterthwaite.depends([[1, 0], [0, 1]])
        array([False, False])
        """
        return np.isnan(self.df(contrasts))

    @property
    def parameter_covariance(self) -> Matrix:
        """The same in (theta, sigma), shape (m + 1, m + 1)."""
        L = self.curvature.directions
        return np.asarray(L @ self.natural_covariance @ L.T)

    def df(self, contrasts: Matrix) -> Matrix:
        """Degrees of freedom of each contrast.

        Parameters
        ----------
        contrasts : array or DataFrame, shape (r, p)
            One contrast a row; a DataFrame goes by the names of its columns.

        Returns
        -------
        ndarray, shape (r,)
            NaN where the variance depends on what the data do not determine.

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
        # In units of their standard errors, because squares of variances may be no numbers.
        L = in_standard_errors(contrast_rows(contrasts, self.names), self.vcov)
        variance = np.ones(len(L))
        gradient = np.einsum("rp,mpq,rq->rm", L, self.jacobian, L)
        df = self.df_of(variance, gradient)
        along = np.einsum("rp,kpq,rq->rk", L, self.along_null, L)
        return np.where(_moved(along, variance), np.nan, df)

    def df_of(self, variance: Matrix, gradient: Matrix) -> Matrix:
        """Degrees of freedom of any estimated variance, ``2 v^2 / Var(v)``.

        Parameters
        ----------
        variance : ndarray, shape (r,)
            The variances v.
        gradient : ndarray, shape (r, m + 1)
            Their derivatives in (theta, sigma).

        Returns
        -------
        ndarray, shape (r,)
            NaN where the variance depends on what the data do not determine.
        """
        # Relative to the variances, whose squares may be no numbers.
        natural = gradient / variance[:, None] @ self.curvature.directions
        spread = np.einsum("rm,mk,rk->r", natural, self.natural_covariance, natural)
        with np.errstate(divide="ignore"):
            df = 2.0 / spread
        return np.where(_moved(natural @ self.flat.T, np.ones(len(natural))), np.nan, df)

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
            NaN where the variance of one depends on what the data do not determine.

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
        values, vectors = np.linalg.eigh(L @ self.vcov @ L.T)
        if values[0] <= _POSITIVE * values[-1]:
            # Units of the contrasts may differ too much for their own eigenvectors.
            L = in_standard_errors(L, self.vcov)
            _, vectors = np.linalg.eigh(L @ self.vcov @ L.T)
        nu = self.df(vectors.T @ L)
        if np.isnan(nu).any():
            return np.nan
        if len(nu) == 1 or np.ptp(nu) < 1e-8:
            return float(nu.mean())
        if (nu <= 2.0).any():
            return 2.0
        E = float(np.sum(nu / (nu - 2.0)))
        return 2.0 * E / (E - len(nu))


def _moved(change: Matrix, variance: Matrix) -> NDArray[np.bool_]:
    """Whether any change, one a column, is more than rounding beside the variance."""
    return np.asarray((np.abs(change) > _DEPENDS * variance[:, None]).any(axis=1))


def in_standard_errors(L: Matrix, vcov: Matrix) -> Matrix:
    """Contrasts divided by their standard errors; NaN where there is no variance."""
    variance = np.einsum("rp,pq,rq->r", L, vcov, L)
    return np.asarray(L / np.sqrt(np.where(variance > 0.0, variance, np.nan))[:, None])


@once_per_fit("Satterthwaite")
def satterthwaite_of(fit: Fit) -> Satterthwaite:
    """Derivatives behind Satterthwaite's degrees of freedom of a fit."""
    curvature = fit.optimum.curvature
    jacobian = (
        curvature.vcov_jacobian
        if isinstance(curvature, ResidualCurvature)
        else vcov_jacobian(fit.optimum)
    )
    return Satterthwaite(
        fit.vcov,
        jacobian,
        curvature,
        vcov_along_null_directions(fit.optimum),
        fit.fixef_names,
    )
