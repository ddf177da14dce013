"""Akaike's criterion for the conditional model, with effective degrees of freedom.

The degrees of freedom are the sum of the derivatives of the fitted values in their own responses,
where the variance parameters follow the response too. With the fit ``yhat(y, t)`` at parameters t,
the deviance ``d(y, t)`` that the estimate of t minimises, and the residual variance s2(t),

    d yhat / dy = H + sum_j u_j (dt_j/dy)',     u_j = d yhat / d t_j,
    dt/dy = -B^-1 g,     B = d2 d / dt dt',     g_k = d2 d / dt_k dy = d/dt_k 2 R^-1 (y - yhat),

so the trace is ``tr H - tr(B^-1 [g_k'u_j])``. Derivatives in t are central differences, two
evaluations for each parameter. Where a covariance matrix is singular it stays so under small
changes of the response, and t are coordinates of the matrices of its rank; those of a covariance
structure are its own parameters, and so are those of the residuals.

The trace is the bias of the likelihood of the response given the random effects for errors with any
covariance matrix R, by Stein's lemma. Each estimated parameter of R adds one, as sigma does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.covariance.design import z_times
from mixedeffects.covariance.of_residuals import residual_matrix_of
from mixedeffects.diagnostics.leverage import leverage
from mixedeffects.diagnostics.residuals import residuals
from mixedeffects.display.comparison_table import values_html
from mixedeffects.display.result_table import ResultTable
from mixedeffects.engine.curvature import natural_scales
from mixedeffects.engine.curvature_digits import visible_variances
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.objective import Evaluation, evaluate
from mixedeffects.engine.optimum import SINGULAR
from mixedeffects.engine.parameterisation import StructuredTerm
from mixedeffects.engine.residual_objective import evaluate_residual
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.modes import term_modes
from mixedeffects.fitting.representative import RepresentativeFrame, with_rows
from mixedeffects.progress import ProgressOption, Unfinished

__all__ = ["ConditionalAIC", "conditional_aic"]

Matrix = NDArray[np.float64]

#: Step of the central differences in an orthonormal basis, relative to natural sizes, and the
#: smallest share of it.
_STEP, _SHORTEST = 1e-4, 1e-4


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
        Effective degrees of freedom: ``leverage + correction + residual``.
    leverage : float
        Sum of the leverages, the degrees of freedom if V were known up to sigma.
    correction : float
        What the estimation of theta, and of the residuals' structure, adds to them.
    residual : int
        Number of estimated parameters of the residuals: one, sigma, and those of ``residual=`` and
        ``variance=``; a known sigma is none.

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
    residual: int = 1

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
    fit = with_rows(fit)
    coordinates = _Coordinates(fit)
    return Unfinished(
        "derivative",
        coordinates.count,
        coordinates.derivatives,
        lambda columns: _conditional_aic(fit, _correction(columns)),
    ).resume(progress)


def _conditional_aic(fit: Fit, correction: float) -> ConditionalAIC:
    R, residual = residual_matrix_of(fit), residuals(fit, "response")
    square = float(residual @ R.solve(residual[:, None])[:, 0])
    log_det = R.logdet()
    if isinstance(fit.frame, RepresentativeFrame):
        log_det = 2.0 * fit.nobs * float(np.log(fit.sigma))
        log_det -= float(fit.frame.sum_log_weights.sum())
    loglik = -0.5 * (fit.nobs * float(np.log(2.0 * np.pi)) + log_det + square)
    total = float(leverage(fit, "total").sum())
    parameters = 0 if fit.crossproducts.known_variance is not None else 1
    if fit.residual is not None:
        parameters += len(fit.residual.phi)
    df = total + correction + parameters
    return ConditionalAIC(-2.0 * loglik + 2.0 * df, loglik, df, total, correction, parameters)


def _correction(columns: list[tuple[Matrix, Matrix, Matrix]]) -> float:
    """``-tr(B^-1 [g_k'u_j])``."""
    if not columns:
        return 0.0
    B = np.column_stack([b for b, _, _ in columns])
    u, g = (np.stack(each) for each in list(zip(*columns, strict=True))[1:])
    # Flat directions, which the data say nothing about, must not divide by zero.
    return -float(np.trace(np.linalg.pinv(0.5 * (B + B.T), rcond=1e-8, hermitian=True) @ (g @ u.T)))


@dataclass(frozen=True, eq=False)
class _Point:
    """The criterion at other parameters: its gradient in t, fitted values, and score of y."""

    gradient: Matrix
    fitted: Matrix
    score: Matrix


class _Coordinates:
    """The parameters t: of each term's covariance, in the engine's basis, then of the residuals.

    Of a term without structure they are the entries of a factor that are free. One of rank r is
    rotated so that r of its rows form a triangle; the other columns are zero.
    """

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        optimum, A = fit.optimum, fit.crossproducts
        p, eta = optimum.parameterisation, optimum.eta
        own = [None] * len(optimum.T) if p is None else list(p.terms)
        values = [None] * len(optimum.T) if p is None or eta is None else p.split(eta)
        #: Structure and parameters of each term that has one.
        self._structured = {
            t: (term, value)
            for t, (term, value) in enumerate(zip(own, values, strict=True))
            if isinstance(term, StructuredTerm) and value is not None
        }
        self._factors: list[Matrix] = []
        #: Term, and row and column of its factor, or number and step of its parameter.
        self._free: list[tuple[int, int, int]] = []
        self._steps: list[float] = []
        visible = visible_variances(A)
        for t, T in enumerate(optimum.T):
            if t in self._structured:
                term, value = self._structured[t]
                self._factors.append(term.factor(value))
                size = np.diag(natural_scales(term, value, visible[t]))
                free = np.flatnonzero(~term.fixed(value)).tolist()
                self._free += [(t, j, 0) for j in free]
                self._steps += [_STEP * float(size[j]) for j in free]
                continue
            factor, free_entries = _free_entries(T)
            self._factors.append(factor)
            self._free += [(t, row, column) for row, column in free_entries]
            self._steps += [_STEP] * len(free_entries)
        self._phi = np.zeros(0)
        if fit.residual is not None:
            model, self._phi = fit.residual.model, np.asarray(fit.residual.phi)
            _, scale, _ = model.bounded(model.unbounded(self._phi))
            self._steps += (_STEP * scale).tolist()

    @property
    def count(self) -> int:
        """Number of parameters."""
        return len(self._steps)

    def derivatives(self, j: int) -> tuple[Matrix, Matrix, Matrix]:
        """In the j-th of them: of the gradient, the fitted values, and the score of the response.

        All in steps of natural size.
        """
        share = 1.0
        with one_blas_thread(self.fit.crossproducts.remainder.core_size):
            while True:
                try:
                    above, below = self._moved(j, share), self._moved(j, -share)
                    break
                except (NotPositiveDefiniteError, np.linalg.LinAlgError):
                    # Beside an end of the correlations that there can be.
                    share *= 0.1
                    if share < _SHORTEST:
                        raise
        scale = np.array(self._steps) / _STEP
        b = scale * (above.gradient - below.gradient)
        u, g = above.fitted - below.fitted, above.score - below.score
        return b / (2.0 * share * _STEP), u / (2.0 * share * _STEP), g / (2.0 * share * _STEP)

    def _moved(self, j: int, steps: float) -> _Point:
        factors, phi = [T.copy() for T in self._factors], self._phi.copy()
        values = {t: value.copy() for t, (_, value) in self._structured.items()}
        step = steps * self._steps[j]
        if j >= len(self._free):
            phi[j - len(self._free)] += step
        else:
            t, row, column = self._free[j]
            if t in values:
                values[t][row] += step
                factors[t] = self._structured[t][0].factor(values[t])
            else:
                factors[t][row, column] += step
        return self._at(factors, values, phi)

    def _at(self, factors: list[Matrix], values: dict[int, Matrix], phi: Matrix) -> _Point:
        fit = self.fit
        if fit.residual is None:
            here = evaluate(fit.crossproducts, factors, fit.reml)
            of_phi = np.zeros(0)
        else:
            there = evaluate_residual(fit.residual.design, factors, phi, fit.reml)
            here, of_phi = there.at_theta, there.score
        of_structures = {
            t: self._structured[t][0].contract(value, here.score[t])[0]
            for t, value in values.items()
        }
        gradient = [
            of_structures[t][a] if t in of_structures else here.gradient_T[t][a, b]
            for t, a, b in self._free
        ]
        fitted = _fitted(fit, here)
        return _Point(np.append(gradient, of_phi), fitted, self._score(here, fitted, phi))

    def _score(self, here: Evaluation, fitted: Matrix, phi: Matrix) -> Matrix:
        """Derivative of the deviance in the response, ``2 R^-1 (y - yhat)``."""
        fit, frame = self.fit, self.fit.frame
        residual = frame.y - fitted if frame.offset is None else frame.y - frame.offset - fitted
        basis = here.A.basis
        sigma = basis.sigma(float(np.sqrt(here.sigma2)))
        if fit.residual is None:
            out = 2.0 * residual / sigma**2
            return out if frame.weights is None else frame.weights * out
        model = fit.residual.model
        U = model.at(phi).U
        out = np.empty(len(residual))
        out[model.order] = U.T @ (U @ residual[model.order])
        return np.asarray(2.0 * out * (basis.weight_scale / sigma**2))


def _free_entries(T: Matrix) -> tuple[Matrix, list[tuple[int, int]]]:
    """The factor of a covariance matrix without structure, and the entries that are free."""
    k = len(T)
    left, values, _ = np.linalg.svd(T)
    r = int((values > SINGULAR).sum())
    root = left[:, :r] * values[:r]
    factor = np.zeros((k, k))
    if not r:
        return factor, []
    R, order = scipy.linalg.qr(root.T, mode="r", pivoting=True)
    factor[order, :r] = R[:r].T
    return factor, [(int(order[i]), j) for j in range(r) for i in range(j, k)]


def _fitted(fit: Fit, here: Evaluation) -> Matrix:
    """Fitted values less offset at other parameters."""
    beta = here.A.basis.beta(here.factorisation.solution.beta)
    out = (fit.frame.X @ beta)[:, None]
    modes = term_modes(here.factorisation)
    for term, b in zip(fit.frame.terms, modes, strict=True):
        z_times(term, b[:, :, None], out)
    return out[:, 0]
