"""The profiled deviance d(theta), its gradient and its average-information Hessian.

    REML:  d = logdet M_{q+p} + (n-p) (1 + log(2 pi rho^2/(n-p))) - sum log w
    ML:    d = logdet M_q     +  n    (1 + log(2 pi rho^2/n))     - sum log w

With ``c = Z'Py`` and ``B = Z'PZ`` the matrix score of d with respect to ``Sigma_t = T_t T_t'`` is
``F_t = sum_i B_ii - c_i c_i' / sigma^2``, and the gradient with respect to T is ``2 F_t T_t``.
Everything here is in the engine's basis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import Factorisation, NotPositiveDefiniteError
from mixedeffects.engine.parameters import (
    T_to_theta,
    lower_entries,
    symmetric_directions,
)

__all__ = ["Evaluation", "LocalModel", "average_information", "deviance", "evaluate"]

Matrix = NDArray[np.float64]


def deviance(factorisation: Factorisation, reml: bool) -> float:
    """Profiled deviance (-2 log-likelihood, or the REML criterion) in the engine's scale."""
    A = factorisation.A
    df = A.n - A.p if reml else A.n
    logdet = factorisation.logdet_with_fixed if reml else factorisation.logdet_random
    return float(
        logdet + df * (1.0 + np.log(2.0 * np.pi * factorisation.rho2 / df)) - A.sum_log_weights
    )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Objective and derivatives at one set of relative covariance factors.

    Attributes
    ----------
    factorisation : Factorisation
        M(theta), factored.
    reml : bool
        Which criterion.
    deviance : float
        d, in the engine's scale.
    logdet_gradient, rho2_gradient : tuples of ndarray (k, k)
        Derivatives of the log determinant and of rho^2 with respect to T, per term (all entries).
    score : tuple of ndarray (k, k)
        F per term, symmetric.
    outer_products : tuple of ndarray (k, k)
        ``sum_i c_i c_i' / sigma^2`` per term.
    """

    factorisation: Factorisation
    reml: bool
    deviance: float
    logdet_gradient: tuple[Matrix, ...]
    rho2_gradient: tuple[Matrix, ...]
    score: tuple[Matrix, ...]
    outer_products: tuple[Matrix, ...]

    @property
    def df(self) -> int:
        """N - p under REML, n under ML."""
        A = self.factorisation.A
        return A.n - A.p if self.reml else A.n

    @property
    def sigma2(self) -> float:
        """Profiled residual variance rho^2 / df, in the engine's scale."""
        return self.factorisation.rho2 / self.df

    @cached_property
    def gradient_T(self) -> tuple[Matrix, ...]:
        """Derivative of d with respect to every entry of each T."""
        return tuple(
            logdet + rho2 / self.sigma2
            for logdet, rho2 in zip(self.logdet_gradient, self.rho2_gradient, strict=True)
        )

    @cached_property
    def gradient(self) -> Matrix:
        """Derivative of d with respect to theta (lower triangles, column by column)."""
        return np.concatenate([g[lower_entries(g.shape[0])] for g in self.gradient_T])

    def local_model(self, T: Sequence[Matrix]) -> LocalModel:
        """Model of d around this point, from the average information."""
        score = np.concatenate(
            [(symmetric_directions(len(F)) * F).sum(axis=(1, 2)) for F in self.score]
        )
        sizes = tuple(F.shape[0] for F in self.score)
        return LocalModel(T_to_theta(T), sizes, score, average_information(self))


@dataclass(frozen=True, eq=False)
class LocalModel:
    """Quadratic model of d in Sigma around one point, read as a function of a step in theta.

    ``d(Sigma + Delta) ~ d + <F, Delta> + vech(Delta)' H_Sigma vech(Delta) / 2`` with ``Delta``
    the exact change of ``T T'``, so the model is a quartic in the step: unlike its own quadratic
    part it stays bounded below where a variance is far too small.
    """

    theta: Matrix
    sizes: tuple[int, ...]
    score: Matrix
    information: Matrix

    def at(self, step: Matrix, correction: Matrix) -> tuple[float, Matrix, Matrix]:
        """Change of d, gradient and Hessian of the model after a step in theta."""
        return _kernels.sigma_model_at(
            self.theta, self.sizes, self.score, self.information, correction, step
        )

    def minimise(self, correction: Matrix, radius: float) -> tuple[Matrix, float]:
        """Step within the radius that makes the model small, and the decrease it predicts."""
        return _kernels.minimise_sigma_model(
            self.theta, self.sizes, self.score, self.information, correction, radius
        )


def evaluate(A: CrossProducts, T: Sequence[Matrix], reml: bool) -> Evaluation:
    """Factorise at T and differentiate: one selected inverse whatever the number of parameters."""
    factorisation = Factorisation(A, T)
    inverse = factorisation.selected_inverse(with_fixed=reml)
    solution = factorisation.solution
    n_terms = len(A.term_columns)
    df = A.n - A.p if reml else A.n
    if not factorisation.rho2 > 0.0:
        raise NotPositiveDefiniteError("the residual sum of squares is zero")
    sigma2 = factorisation.rho2 / df
    empty = np.empty((0, 0))
    logdet_gradient, rho2_gradient, score, products = ([empty] * n_terms for _ in range(4))
    for f, factor in enumerate(A.factors):
        cc = solution.c[f].T @ solution.c[f]
        for member in factor.members:
            t, at = member.term, (member.columns, member.columns)
            logdet_gradient[t] = 2.0 * inverse.N[f][at]
            rho2_gradient[t] = -2.0 * cc[at] @ T[t]
            products[t] = cc[at] / sigma2
            score[t] = inverse.B[f][at] - products[t]
    return Evaluation(
        factorisation,
        reml,
        deviance(factorisation, reml),
        tuple(logdet_gradient),
        tuple(rho2_gradient),
        tuple(score),
        tuple(products),
    )


def average_information(evaluation: Evaluation) -> Matrix:
    """Average information of d in the entries of Sigma, sigma profiled out.

    ``v_k = (I (x) E_k) c``; ``AI_kl = (v_k' Z'WZ v_l - r_k' M^-1 r_l) / sigma^2`` with
    ``r_k = L~'A v_k``; ``s_k = v_k'c / sigma^2``; ``H = AI - s s'/df``.
    """
    factorisation = evaluation.factorisation
    A, sigma2 = factorisation.A, evaluation.sigma2
    c = factorisation.solution.c
    directions = [symmetric_directions(k) for k in A.term_columns]
    starts = np.cumsum([0] + [len(d) for d in directions])
    total = int(starts[-1])
    blocks = []
    for f, factor in enumerate(A.factors):
        v = np.zeros((factor.n_levels, factor.k, total))
        for member in factor.members:
            t = member.term
            own = c[f][:, member.columns]
            v[:, member.columns, starts[t] : starts[t + 1]] = np.einsum(
                "la,mab->lbm", own, directions[t]
            )
        blocks.append(v)
    zero = np.zeros((A.p + 1, total))
    Av, Av_border = A.multiply(blocks, zero)
    # Only under REML are the fixed effects part of the projection.
    border = Av_border[: A.p] if evaluation.reml else Av_border[:0]
    solved, remainder = factorisation.forward(Av, border)
    AI = -(remainder.T @ remainder)
    for v, product, half in zip(blocks, Av, solved + [_EMPTY] * len(A.rest), strict=True):
        flat = v.reshape(-1, total)
        AI += flat.T @ product.reshape(-1, total)
        if half.size:
            half = half.reshape(-1, total)
            AI -= half.T @ half
    s = np.zeros(total)
    for v, own in zip(blocks, c, strict=True):
        s += v.reshape(-1, total).T @ own.reshape(-1)
    s /= sigma2
    return np.asarray(AI / sigma2 - np.outer(s, s) / evaluation.df)


_EMPTY = np.empty((0, 0, 0))
