"""Akaike's criterion for the conditional model, with effective degrees of freedom.

The degrees of freedom are the sum of the derivatives of the fitted values in their own responses,
where the variance parameters follow the response too. With the fit ``yhat(y, t)`` at parameters t,
the deviance ``d(y, t)`` that the estimate of t minimises, and the residual variance s2(t),

    d yhat / dy = H + sum_j u_j (dt_j/dy)',     u_j = d yhat / d t_j,
    dt/dy = -B^-1 g,     B = d2 d / dt dt',     g_k = d2 d / dt_k dy = d/dt_k 2 W (y - yhat) / s2,

so the trace is ``tr H - tr(B^-1 [g_k'u_j])``. Derivatives in t are central differences, two
evaluations for each parameter. Where a covariance matrix is singular it stays so under small
changes of the response, and t are coordinates of the matrices of its rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.covariance.design import z_times
from mixedeffects.diagnostics.leverage import leverage
from mixedeffects.diagnostics.residuals import residuals
from mixedeffects.display.comparison_table import values_html
from mixedeffects.display.result_table import ResultTable
from mixedeffects.engine.objective import Evaluation, evaluate
from mixedeffects.engine.optimum import SINGULAR
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.modes import term_modes
from mixedeffects.progress import ProgressOption, Unfinished

__all__ = ["ConditionalAIC", "conditional_aic"]

Matrix = NDArray[np.float64]

#: Step of the central differences in an orthonormal basis.
_STEP = 1e-4


@dataclass(frozen=True, eq=False)
class ConditionalAIC:
    """Conditional AIC, made by `LinearMixedModel.caic`.

    Attributes
    ----------
    caic : float
        ``-2 loglik + 2 df``.
    loglik : float
        Log-likelihood of the response given fixed effects and conditional modes.
    df : float
        Effective degrees of freedom: ``leverage + correction + 1``, the one for sigma.
    leverage : float
        Sum of the leverages, the degrees of freedom if theta were known.
    correction : float
        What the estimation of theta adds.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.caic()
    Conditional AIC 1711.5: log-likelihood -824.51, effective df 31.25
    """

    caic: float
    loglik: float
    df: float
    leverage: float
    correction: float

    def to_frame(self) -> pd.DataFrame:
        """One row with all values.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> list(m.caic().to_frame())
        ['cAIC', 'logLik', 'df', 'leverage', 'correction']
        """
        return ResultTable(
            {
                "cAIC": [self.caic],
                "logLik": [self.loglik],
                "df": [self.df],
                "leverage": [self.leverage],
                "correction": [self.correction],
            }
        )

    def __repr__(self) -> str:
        return (
            f"Conditional AIC {self.caic:.1f}: log-likelihood {self.loglik:.2f}, "
            f"effective df {self.df:.2f}"
        )

    def _repr_html_(self) -> str:
        return values_html("Conditional AIC", self.to_frame().set_axis([""]))


def conditional_aic(fit: Fit, progress: ProgressOption = None) -> ConditionalAIC:
    """See `LinearMixedModel.caic`."""
    factors, free = _coordinates(fit)
    return Unfinished(
        "derivative",
        len(free),
        lambda j: _derivatives(fit, factors, free, j),
        lambda columns: _conditional_aic(fit, _correction(columns)),
    ).resume(progress)


def _conditional_aic(fit: Fit, correction: float) -> ConditionalAIC:
    weights = fit.frame.weights
    residual = residuals(fit, "response")
    squares = residual**2 if weights is None else weights * residual**2
    loglik = -0.5 * (
        fit.nobs * float(np.log(2.0 * np.pi * fit.sigma**2))
        - (0.0 if weights is None else float(np.log(weights).sum()))
        + float(squares.sum()) / fit.sigma**2
    )
    total = float(leverage(fit, "total").sum())
    df = total + correction + 1.0
    return ConditionalAIC(-2.0 * loglik + 2.0 * df, loglik, df, total, correction)


def _derivatives(
    fit: Fit, factors: list[Matrix], free: list[tuple[int, int, int]], j: int
) -> tuple[Matrix, Matrix, Matrix]:
    """In the j-th free entry: of the gradient, the fitted values, and the score of the response."""
    t, row, column = free[j]
    sides = []
    with one_blas_thread(fit.crossproducts.remainder.core_size):
        for sign in (1.0, -1.0):
            moved = [T.copy() for T in factors]
            moved[t][row, column] += sign * _STEP
            here = evaluate(fit.crossproducts, moved, fit.reml)
            gradient = np.array([here.gradient_T[s][a, b] for s, a, b in free])
            fitted = _fitted(fit, here)
            sides.append((gradient, fitted, _score(fit, here, fitted)))
    b, u, g = ((above - below) / (2.0 * _STEP) for above, below in zip(*sides, strict=True))
    return b, u, g


def _correction(columns: list[tuple[Matrix, Matrix, Matrix]]) -> float:
    """``-tr(B^-1 [g_k'u_j])``."""
    if not columns:
        return 0.0
    B = np.column_stack([b for b, _, _ in columns])
    u, g = (np.stack(each) for each in list(zip(*columns, strict=True))[1:])
    # Flat directions, which the data say nothing about, must not divide by zero.
    return -float(np.trace(np.linalg.pinv(0.5 * (B + B.T), rcond=1e-8, hermitian=True) @ (g @ u.T)))


def _coordinates(fit: Fit) -> tuple[list[Matrix], list[tuple[int, int, int]]]:
    """Factors in the engine's basis, and their entries (term, row, column) that are free.

    A factor of rank r is rotated so that r of its rows form a triangle; the other columns are zero.
    """
    factors, free = [], []
    for t, T in enumerate(fit.optimum.T):
        k = len(T)
        left, values, _ = np.linalg.svd(T)
        r = int((values > SINGULAR).sum())
        root = left[:, :r] * values[:r]
        factor = np.zeros((k, k))
        if r:
            R, order = scipy.linalg.qr(root.T, mode="r", pivoting=True)
            factor[order, :r] = R[:r].T
            free += [(t, int(order[i]), j) for j in range(r) for i in range(j, k)]
        factors.append(factor)
    return factors, free


def _fitted(fit: Fit, here: Evaluation) -> Matrix:
    """Fitted values less offset at other parameters."""
    beta = fit.crossproducts.basis.beta(here.factorisation.solution.beta)
    out = (fit.frame.X @ beta)[:, None]
    modes = term_modes(here.factorisation)
    for term, b in zip(fit.frame.terms, modes, strict=True):
        z_times(term, b[:, :, None], out)
    return out[:, 0]


def _score(fit: Fit, here: Evaluation, fitted: Matrix) -> Matrix:
    """Derivative of the deviance in the response, ``2 W (y - yhat) / s2``."""
    frame = fit.frame
    residual = frame.y - fitted if frame.offset is None else frame.y - frame.offset - fitted
    sigma = fit.crossproducts.basis.sigma(float(np.sqrt(here.sigma2)))
    out = 2.0 * residual / sigma**2
    return out if frame.weights is None else frame.weights * out
