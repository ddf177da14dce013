"""The profiled deviance d(theta), its gradient and its average-information Hessian.

    REML:  d = logdet M_{q+p} + (n-p) (1 + log(2 pi rho^2/(n-p))) - sum log w
    ML:    d = logdet M_q     +  n    (1 + log(2 pi rho^2/n))     - sum log w

With ``c = Z'Py`` and ``B = Z'PZ`` the matrix score of d with respect to ``Sigma_t = T_t T_t'`` is
``F_t = sum_i B_ii - c_i c_i' / sigma^2``, and the gradient with respect to T is ``2 F_t T_t``. The
average information in the entries of Sigma, sigma profiled out, is ``H = AI - s s'/df`` with
``AI_kl = (v_k' Z'WZ v_l - r_k' M^-1 r_l) / sigma^2``, ``v_k = (I (x) E_k) c``,
``r_k = L~'A v_k`` and ``s_k = v_k'c / sigma^2``.
Everything here is in the engine's basis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import (
    Factorisation,
    NotPositiveDefiniteError,
    SelectedInverse,
    factor_T,
)
from mixedeffects.engine.parameters import (
    T_to_theta,
    along_directions,
    block_diagonal,
    lower_entries,
    symmetric_directions,
)
from mixedeffects.engine.provisional import shrunken
from mixedeffects.engine.remainder import DenseRemainder
from mixedeffects.engine.triangular import solve_lower

__all__ = [
    "Evaluation",
    "LocalModel",
    "along_each",
    "deviance",
    "evaluate",
    "evaluate_with_inverse",
    "sum_of_scores",
]

Matrix = NDArray[np.float64]


def deviance(factorisation: Factorisation, reml: bool) -> float:
    """Profiled deviance (-2 log-likelihood, or the REML criterion) in the engine's scale."""
    A = factorisation.A
    df = A.n - A.p if reml else A.n
    logdet = factorisation.logdet_with_fixed if reml else factorisation.logdet_random
    return _profiled(logdet, df, factorisation.rho2, A.known_variance) - A.sum_log_weights


def _profiled(logdet: float, df: int, rho2: float, known: float | None = None) -> float:
    """With sigma profiled out, or known."""
    if not rho2 > 0.0:
        return math.inf
    if known is not None:
        return float(logdet + df * np.log(2.0 * np.pi * known) + rho2 / known)
    return float(logdet + df * (1.0 + np.log(2.0 * np.pi * rho2 / df)))


@dataclass(frozen=True, eq=False)
class Evaluation(ReadOnlyArrays):
    """Objective and derivatives at one set of relative covariance factors.

    Attributes
    ----------
    A : CrossProducts
        The blocks.
    T : tuple of ndarray (k, k)
        One factor per term, in the engine's basis.
    reml : bool
        Which criterion.
    deviance : float
        d, in the engine's scale.
    rho2 : float
        Penalised residual sum of squares.
    logdet_gradient, rho2_gradient : tuples of ndarray (k, k)
        Derivatives of the log determinant and of rho^2 with respect to T, per term (all entries).
    score : tuple of ndarray (k, k)
        F per term, symmetric.
    outer_products : tuple of ndarray (k, k)
        ``sum_i c_i c_i' / sigma^2`` per term.
    """

    A: CrossProducts
    T: tuple[Matrix, ...]
    reml: bool
    deviance: float
    rho2: float
    logdet_gradient: tuple[Matrix, ...]
    rho2_gradient: tuple[Matrix, ...]
    score: tuple[Matrix, ...]
    outer_products: tuple[Matrix, ...]
    computed: Factorisation | None = None
    quadratic: Matrix | None = None

    def __getstate__(self) -> dict[str, object]:
        # A factorisation is large, and follows from A and T.
        kept = {name: value for name, value in self.__dict__.items() if name != "factorisation"}
        return kept | {"computed": None}

    @cached_property
    def factorisation(self) -> Factorisation:
        """M(theta), factored."""
        return self.computed or Factorisation(self.A, self.T)

    @cached_property
    def _quadratic(self) -> Matrix:
        return _quadratic_form(self) if self.quadratic is None else self.quadratic

    @cached_property
    def information(self) -> Matrix:
        """Average information of d in the entries of Sigma, sigma profiled out."""
        quadratic = self._quadratic
        if self.A.known_variance is not None:
            return quadratic / self.sigma2
        s = _joined([along_directions(CC) for CC in self.outer_products])
        return np.asarray(quadratic / self.sigma2 - s[:, None] * s / self.df)

    def information_along(self, directions: Sequence[Matrix]) -> Matrix:
        """The same in fewer coordinates: along symmetric matrices (r, k, k) for each term."""
        form = self.unprofiled_information(directions)
        if self.A.known_variance is not None:
            return form[:-1, :-1]
        return np.asarray(form[:-1, :-1] - form[:-1, -1:] * form[-1, :-1] / self.df)

    def unprofiled_information(self, directions: Sequence[Matrix]) -> Matrix:
        """The same and along V itself, which is last, with sigma held: ``y'P K_r P K_s P y``."""
        if self.quadratic is None and "_quadratic" not in self.__dict__:
            quadratic = _quadratic_form(self, directions)
        else:
            # A symmetric matrix is its lower entries times `symmetric_directions`.
            L = block_diagonal([D[:, *lower_entries(D.shape[1])] for D in directions])
            quadratic = L @ self._quadratic @ L.T
        s = np.concatenate(
            [
                np.einsum("rab,ab->r", D, CC)
                for D, CC in zip(directions, self.outer_products, strict=True)
            ]
        )
        form = np.empty((len(s) + 1, len(s) + 1))
        form[:-1, :-1], form[-1, -1] = quadratic / self.sigma2, self.df
        form[:-1, -1] = form[-1, :-1] = s
        return form

    @property
    def df(self) -> int:
        """N - p under REML, n under ML."""
        return self.A.n - self.A.p if self.reml else self.A.n

    @property
    def sigma2(self) -> float:
        """Residual variance in the engine's scale: rho^2 / df, unless it is known."""
        known = self.A.known_variance
        return self.rho2 / self.df if known is None else known

    @cached_property
    def gradient_T(self) -> tuple[Matrix, ...]:
        """Derivative of d with respect to every entry of each T."""
        sigma2 = self.sigma2
        return tuple(
            logdet + rho2 / sigma2
            for logdet, rho2 in zip(self.logdet_gradient, self.rho2_gradient, strict=True)
        )

    @cached_property
    def gradient(self) -> Matrix:
        """Derivative of d with respect to theta (lower triangles, column by column)."""
        return T_to_theta(self.gradient_T)

    @cached_property
    def joint_score(self) -> Matrix:
        """Derivative of d in the entries of Sigma (lower triangles, column by column)."""
        return _joined([along_directions(F) for F in self.score])

    def local_model(self, T: Sequence[Matrix], information: Matrix | None = None) -> LocalModel:
        """Model of d around this point, by default from the average information."""
        sizes = tuple(F.shape[0] for F in self.score)
        information = self.information if information is None else information
        return LocalModel(T_to_theta(T), sizes, self.joint_score, information)


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

    def in_units_of(self, rows: Sequence[Matrix]) -> LocalModel:
        """The same model of factors whose rows are divided by these sizes, (k,) per term."""
        if all((size == 1.0).all() for size in rows):
            return self
        of_theta, of_sigma = [], []
        for size in rows:
            row, column = lower_entries(len(size))
            of_theta.append(size[row])
            of_sigma.append(size[row] * size[column])
        unit = _joined(of_sigma)
        return LocalModel(
            self.theta / _joined(of_theta),
            self.sizes,
            self.score * unit,
            self.information * np.outer(unit, unit),
        )

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


def evaluate(
    A: CrossProducts, T: Sequence[Matrix], reml: bool, few_directions: bool = False
) -> Evaluation:
    """Factorise at T and differentiate: one selected inverse whatever the number of parameters.

    With ``few_directions`` the information in all entries of Sigma, of which there are very many
    for terms with many columns, is not computed along the way.
    """
    single = len(A.chain) == 1 and not A.rest and A.known_variance is None
    if single and A.provisional is None and not few_directions:
        return _evaluate_single_factor(A, T, reml)
    return _evaluate(A, T, reml, keep=False)[0]


def evaluate_with_inverse(
    A: CrossProducts, T: Sequence[Matrix], reml: bool
) -> tuple[Evaluation, SelectedInverse]:
    """The same, and all of P on A's pattern."""
    return _evaluate(A, T, reml, keep=True)


def _evaluate(
    A: CrossProducts, T: Sequence[Matrix], reml: bool, keep: bool
) -> tuple[Evaluation, SelectedInverse]:
    factorisation = Factorisation(A, T)
    border = factorisation.border
    inverse = factorisation.selected_inverse(reml and border is None, keep)
    N, B = list(inverse.N), list(inverse.B)
    for f, T_f in enumerate(factorisation.T):
        B[f] = sum_of_scores(T_f, N[f], B[f])
        if border is not None and reml:
            half = solve_lower(factorisation.fixed_root, _rows_of(border.scores[f][:, :, : A.p]))
            half = half.reshape(A.p, len(border.scores[f]), len(T_f))
            taken = np.einsum("pla,plb->ab", half, half)
            B[f], N[f] = B[f] - taken, N[f] - taken @ T_f
    cc = [c.T @ c for c in factorisation.solution.c]
    d = deviance(factorisation, reml)
    found = _evaluation(A, T, reml, d, factorisation.rho2, N, B, cc, factorisation)
    return found, inverse


def _rows_of(scores: Matrix) -> Matrix:
    """Arrays (l, k, p) as p rows."""
    levels, k, p = scores.shape
    return scores.reshape(levels * k, p).T


def sum_of_scores(T: Matrix, N: Matrix, B: Matrix) -> Matrix:
    """``B = sum [Z'PZ]_ii`` with the digits that it lost where T is large, from ``N = B T``.

    ``B (Sigma + I) = N T' + B``.
    """
    left, size, right = np.linalg.svd(T)
    B = ((N @ right.T * size + B @ left) / (1.0 + size**2)) @ left.T
    return np.asarray(0.5 * (B + B.T))


def _evaluate_single_factor(A: CrossProducts, T: Sequence[Matrix], reml: bool) -> Evaluation:
    """The same for one grouping factor, without keeping a factorisation."""
    (factor,) = A.chain
    assert isinstance(A.remainder, DenseRemainder)
    k = factor.k
    m = k * (k + 1) // 2
    N, B, cc, quadratic = np.empty((k, k)), np.empty((k, k)), np.empty((k, k)), np.empty((m, m))
    matrix = A.remainder.matrix
    try:
        logdet_random, logdet_with_fixed, rho2 = _kernels.evaluate_single_factor(
            factor_T(factor, T),
            factor.diag,
            factor.panel,
            matrix,
            reml,
            N,
            B,
            cc,
            quadratic,
        )
    except RuntimeError as error:
        raise NotPositiveDefiniteError(str(error)) from None
    df = A.n - A.p if reml else A.n
    logdet = logdet_with_fixed if reml else logdet_random
    d = _profiled(logdet, df, rho2) - A.sum_log_weights
    if len(factor.members) > 1:
        own = _own_directions(k, tuple((s.term, s.columns) for s in factor.members))
        quadratic = quadratic[np.ix_(own, own)]
    return _evaluation(A, T, reml, float(d), rho2, (N,), (B,), (cc,), None, quadratic)


def _own_directions(k: int, members: tuple[tuple[int, slice], ...]) -> NDArray[np.intp]:
    """Among the entries of the factor's covariance, those within a term, in the order of theta."""
    rows, columns = lower_entries(k)
    number = np.zeros((k, k), dtype=np.intp)
    number[rows, columns] = np.arange(len(rows))
    own = []
    for _, at in sorted(members, key=lambda member: member[0]):
        block = number[at, at]
        own.append(block[lower_entries(len(block))])
    return np.concatenate(own)


def _joined(parts: list[Matrix]) -> Matrix:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _evaluation(
    A: CrossProducts,
    T: Sequence[Matrix],
    reml: bool,
    d: float,
    rho2: float,
    N: Sequence[Matrix],
    B: Sequence[Matrix],
    cc: Sequence[Matrix],
    factorisation: Factorisation | None,
    quadratic: Matrix | None = None,
) -> Evaluation:
    """From sums per factor to derivatives per term."""
    if not rho2 > 0.0:
        raise NotPositiveDefiniteError("the residual sum of squares is zero")
    sigma2 = rho2 / (A.n - A.p if reml else A.n) if A.known_variance is None else A.known_variance
    empty = np.empty((0, 0))
    logdet_gradient, rho2_gradient, score, products = (
        [empty] * len(A.term_columns) for _ in range(4)
    )
    for f, factor in enumerate(A.factors):
        for member in factor.members:
            t, at = member.term, (member.columns, member.columns)
            own = cc[f][at]
            logdet_gradient[t] = 2.0 * N[f][at]
            rho2_gradient[t] = -2.0 * own @ T[t]
            products[t] = own / sigma2
            score[t] = B[f][at] - products[t]
    return Evaluation(
        A,
        tuple(T),
        reml,
        d,
        rho2,
        tuple(logdet_gradient),
        tuple(rho2_gradient),
        tuple(score),
        tuple(products),
        factorisation,
        quadratic,
    )


def _quadratic_form(evaluation: Evaluation, directions: Sequence[Matrix] | None = None) -> Matrix:
    """``v_k' Z'WZ v_l - r_k' M^-1 r_l`` with ``v_k = (I (x) E_k) c`` and ``r_k = L~'A v_k``."""
    factorisation, A = evaluation.factorisation, evaluation.A
    c = factorisation.solution.c
    if directions is None:
        directions = [symmetric_directions(k) for k in A.term_columns]
    total = sum(len(each) for each in directions)
    if total == 0:
        return np.zeros((0, 0))
    blocks = along_each(A, c, directions)
    # Products of responses Z v less the effects v, which are of one size with the answer whatever
    # the size of T; see `provisional`.
    w = [shrunken(T, v) for T, v in zip(factorisation.T, blocks, strict=True)]
    Aw, Aw_border = A.multiply(w, np.zeros((A.p + 1, total)))
    # Only under REML are the fixed effects part of the projection.
    seen = factorisation.border
    border = Aw_border[: A.p] if evaluation.reml and seen is None else Aw_border[:0]
    solved, remainder = factorisation.forward(
        [product - own for product, own in zip(Aw, w, strict=True)], border
    )
    form = -(remainder.T @ remainder)
    solved += [_EMPTY] * len(A.rest)
    for T, own, product, half in zip(factorisation.T, w, Aw, solved, strict=True):
        form += own.reshape(-1, total).T @ product.reshape(-1, total)
        ridge = np.einsum("ab,lam->lbm", T, own).reshape(-1, total)
        form += ridge.T @ ridge
        if half.size:
            half = half.reshape(-1, total)
            form -= half.T @ half
    if seen is not None and evaluation.reml:
        along = sum(
            _rows_of(scores[:, :, : A.p]) @ v.reshape(-1, total)
            for scores, v in zip(seen.scores, blocks, strict=True)
        )
        half = solve_lower(factorisation.fixed_root, np.asarray(along))
        form -= half.T @ half
    return np.asarray(form)


def along_each(
    A: CrossProducts, effects: Sequence[Matrix], directions: Sequence[Matrix]
) -> list[Matrix]:
    """``(I (x) E_r) b`` for effects (l, k) per factor and matrices (r, k, k) per term.

    Arrays (l, k, m) per factor, the directions of all terms one after the other.
    """
    starts = np.cumsum([0] + [len(each) for each in directions])
    blocks = []
    for own, factor in zip(effects, A.factors, strict=True):
        v = np.zeros((factor.n_levels, factor.k, int(starts[-1])))
        for member in factor.members:
            t = member.term
            E = directions[t]
            # sum over a of own_la E_rab, all levels at once
            stacked = E.transpose(1, 2, 0).reshape(E.shape[1], E.shape[2] * len(E))
            v[:, member.columns, starts[t] : starts[t + 1]] = (
                own[:, member.columns] @ stacked
            ).reshape(factor.n_levels, E.shape[2], len(E))
        blocks.append(v)
    return blocks


_EMPTY = np.empty((0, 0, 0))
