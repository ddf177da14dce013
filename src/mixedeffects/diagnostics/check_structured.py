"""What the checks compare where residuals are correlated, or of several variances.

With ``P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1`` the conditional residuals are ``R P y``. Looked at
are the normalized ones, ``R^-1/2 R P y``, one row after another in each residual group: if the
model holds they are uncorrelated and of one variance but for shrinkage, for which the data sets
drawn allow.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.linalg
import scipy.special
from numpy.typing import NDArray

from mixedeffects.covariance.design import z_times, z_transpose_times
from mixedeffects.covariance.of_fit import V_of
from mixedeffects.covariance.of_residuals import residual_matrix_of, whitened
from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.diagnostics.check_levels import WholeLevels
from mixedeffects.diagnostics.check_outcomes import Outcomes
from mixedeffects.engine.residual_search import find_residual_optimum
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ConvergenceWarning, ModelError
from mixedeffects.fitting.assembly import covariance_structures
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.residual_fitting import residual_start

__all__ = ["AtParameters", "has_known_sigma", "normalized_variances", "structured_outcomes"]

Matrix = NDArray[np.float64]

#: Memory for the right-hand sides of one chunk of solves, in bytes.
_CHUNK = 50e6


def has_known_sigma(fit: Fit) -> bool:
    """Whether ``sigma=`` was given."""
    return fit.residual is not None and fit.residual.model.design.sigma is not None


class AtParameters:
    """What the covariance parameters of a fit make of responses.

    Parameters
    ----------
    fit : Fit
        With ``residual=`` or ``variance=``.
    columns : ndarray, shape (n, c)
        Further columns of X.
    levels : sequence of WholeLevels
        Factors of which Cook's distances are wanted.
    """

    def __init__(self, fit: Fit, columns: Matrix, levels: Sequence[WholeLevels]) -> None:
        self._fit, self.levels = fit, levels
        self._R = _residual_of(fit)
        self._V = V_of(fit)
        self._X = fit.crossproducts.basis.fixed_columns(fit.frame.X)
        p = self._X.shape[1]
        solved = np.asarray(self._V.solve(np.hstack([self._X, columns])))
        self._S = solved[:, :p]
        self._root = scipy.linalg.cholesky(self._X.T @ self._S, lower=True) if p else None
        Pq = self._projected(solved[:, p:])
        information = np.maximum(np.einsum("ic,ic->c", columns, Pq), 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            self._score = Pq / np.sqrt(information)
        self._information = [each.information_of(self._S) for each in levels]

    def _projected(self, solved: Matrix) -> Matrix:
        """``P B`` from ``V^-1 B``."""
        if self._root is None:
            return solved
        beta = scipy.linalg.cho_solve((self._root, True), self._X.T @ solved)
        return np.asarray(solved - self._S @ beta)

    def outcomes(self, Y: Matrix, is_held: bool) -> Outcomes:
        """Those of responses, one a column.

        Parameters
        ----------
        Y : ndarray, shape (n, m)
            The responses.
        is_held : bool
            Whether the form of V alone is this fit's, and its scale is estimated from each
            response; unless sigma is known.
        """
        fit, frame = self._fit, self._fit.frame
        own = Y if frame.offset is None else Y - frame.offset[:, None]
        Py = self._projected(np.asarray(self._V.solve(own)))
        scale = np.ones(Y.shape[1])
        if is_held and not has_known_sigma(fit):
            df = fit.nobs - self._X.shape[1] if fit.reml else fit.nobs
            scale = np.sqrt(np.maximum(np.einsum("im,im->m", own, Py), 0.0) / df)
        errors = np.asarray(self._R.times(Py))
        modes, random = [], np.zeros_like(errors)
        for term, G in zip(frame.terms, fit.G_blocks, strict=True):
            b = np.einsum("ab,lbm->lam", G, z_transpose_times(term, Py))
            z_times(term, np.ascontiguousarray(b), random)
            modes.append(b)
        sd = np.sqrt(self._V.diag())[:, None]
        return Outcomes(
            residuals=whitened(self._R, errors) / scale,
            fitted=Y - errors,
            ranks=scipy.special.ndtr((errors + random) / (sd * scale)),
            modes=modes,
            curvature=self._score.T @ own / scale,
            sigma=fit.sigma * scale,
            distances={
                each.group: each.distances_of(A, Py / scale)
                for each, A in zip(self.levels, self._information, strict=True)
            },
        )

    def variances(self) -> Matrix:
        """Of the normalized residuals, the diagonal of ``B'P B`` with ``R = B B'``, shape (n,)."""
        n = self._fit.nobs
        out = np.empty(n)
        step = max(1, int(_CHUNK / (8.0 * n)))
        for low in range(0, n, step):
            high = min(low + step, n)
            unit = np.zeros((n, high - low))
            unit[np.arange(low, high), np.arange(high - low)] = 1.0
            B = np.asarray(self._R.root_times(unit))
            PB = self._projected(np.asarray(self._V.solve(B)))
            out[low:high] = np.einsum("ij,ij->j", B, PB)
        return out


def normalized_variances(fit: Fit) -> Matrix:
    """Variance of each normalized residual, shape (n,): one less what is fitted."""
    return AtParameters(fit, np.zeros((fit.nobs, 0)), []).variances()


def structured_outcomes(
    fit: Fit, columns: Matrix, levels: Sequence[WholeLevels], Y: Matrix
) -> Iterator[Outcomes]:
    """Outcomes of responses that could be fitted, one a column, each by its own fit."""
    assert fit.residual is not None
    frame, design, start = fit.frame, fit.residual.design, residual_start(fit)
    structures = covariance_structures(frame.terms)
    with one_blas_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for y in Y.T:
            own = np.ascontiguousarray(y)
            try:
                optimum = find_residual_optimum(
                    design.with_response(own if frame.offset is None else own - frame.offset),
                    fit.reml,
                    start=start,
                    control=fit.request.control,
                    structures=structures,
                )
                other = dataclasses.replace(frame, y=own)
                again = Fit(other, optimum.evaluation.A, optimum, fit.reml, fit.request)
                one = AtParameters(again, columns, levels).outcomes(own[:, None], is_held=False)
            except (ArithmeticError, ModelError, np.linalg.LinAlgError):
                # No residual variance left, for instance.
                continue
            yield one


def _residual_of(fit: Fit) -> StructuredResidual:
    R = residual_matrix_of(fit)
    assert isinstance(R, StructuredResidual)
    return R
