"""The Laplace criterion and its gradient, at one set of parameters.

    D(T, beta, phi) = f* + log |M|                       -2 log L, all constants kept

with f* the smallest penalised deviance and M with the observed weights W. With ``P`` the inverse
of ``A + G^-1`` on the random effects, ``h = diag(Z P Z')`` and the derivative W' of W in eta,

    t = h W'      v = P Z't      a = t - W Z v      e = Z'a

where t goes through the derivative of the modes, and

    dD/dbeta = X'(a - 2 r)
    F_t      = sum_i [Z'V^-1 Z]_ii - c_i c_i' + (e_i c_i' + c_i e_i') / 2,    dD = <F_t, dSigma_t>
    dD/dphi  = sum d_phi + h'W_phi + (Z v)'r_phi

Here ``V = Z G Z' + W^-1``. F is the matrix score in Sigma, as in the linear model (`objective`).
Everything is in the engine's basis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import (
    Factorisation,
    NotPositiveDefiniteError,
    SelectedInverse,
)
from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.generalized.mode import Mode, find_mode
from mixedeffects.engine.objective import sum_of_scores
from mixedeffects.families import RowTerms

__all__ = ["GeneralizedEvaluation", "LogDetGradient", "evaluate_laplace"]

Matrix = NDArray[np.float64]
Blocks = tuple[Matrix, ...]

#: Conditional variance of a random effect, relative to its variance, from which the criterion does
#: not exist: see `_refuse_bifurcation`.
_WIDER = 10.0


@dataclass(frozen=True, eq=False)
class LogDetGradient(ReadOnlyArrays):
    """Derivatives of ``log |M|`` alone, the modes moving with the parameters.

    By quadrature, of all that the criterion has beyond f*.

    ``score`` holds a matrix (k, k) per term for Sigma, ``beta`` has shape (p,), ``phi`` is for the
    family parameter.
    """

    score: Blocks
    beta: Matrix
    phi: float


@dataclass(frozen=True, eq=False)
class GeneralizedEvaluation(ReadOnlyArrays):
    """Criterion and derivatives at one set of parameters, in the engine's basis.

    Attributes
    ----------
    design : GeneralizedDesign
        The model.
    T : tuple of ndarray (k, k)
        One factor per term; ``Sigma = T T'`` is absolute, on the scale of eta.
    beta : ndarray, shape (p,)
        Fixed effects.
    phi : float
        Family parameter on its search scale; zero where there is none.
    mode : Mode
        Conditional modes: ``b`` and ``c`` per factor, ``eta``, rows, factorisation of M.
    criterion : float
        D, -2 log L.
    h : ndarray, shape (n,)
        ``diag(Z P Z')``; times W, leverages of the working model.
    score : tuple of ndarray (k, k)
        F per term, symmetric.
    outer_products : tuple of ndarray (k, k)
        ``sum_i c_i c_i'`` per term.
    beta_gradient : ndarray, shape (p,)
        dD/dbeta.
    phi_gradient : float
        dD/dphi, zero where there is none.
    logdet : LogDetGradient
        The part of ``log |M|`` in all of these.
    v_rows : ndarray, shape (n,)
        ``Z v``.
    e : tuple of ndarray (l, k)
        e per factor.
    P : ndarray, shape (l, k, k), or None
        Blocks of P, where there is one factor: its conditional covariances.
    nodes : int
        Quadrature points per random effect that criterion and gradient are by.
    """

    design: GeneralizedDesign
    T: Blocks
    beta: Matrix
    phi: float
    mode: Mode
    criterion: float
    h: Matrix
    score: Blocks
    outer_products: Blocks
    beta_gradient: Matrix
    phi_gradient: float
    logdet: LogDetGradient
    v_rows: Matrix
    e: Blocks
    P: Matrix | None = None
    nodes: int = 1

    def __getstate__(self) -> dict[str, object]:
        # The working model follows from the rest.
        return {
            k: v for k, v in self.__dict__.items() if k not in ("A", "factorisation", "by_level")
        }

    def as_given(self, design: GeneralizedDesign) -> GeneralizedEvaluation:
        """One of ``design.by_level`` as one of the design, rows in its order."""
        return self._of(design, design.as_given)

    @cached_property
    def by_level(self) -> GeneralizedEvaluation:
        """The same with its rows sorted by level."""
        return self._of(self.design.by_level, self.design.sorted_by_level)

    def _of(
        self, design: GeneralizedDesign, moved: Callable[[Matrix], Matrix]
    ) -> GeneralizedEvaluation:
        if design is self.design:
            return self
        terms = {k: moved(own) for k, own in vars(self.rows).items() if own is not None}
        mode = replace(self.mode, eta=moved(self.eta), rows=RowTerms(**terms))
        h, v_rows = moved(self.h), moved(self.v_rows)
        return replace(self, design=design, mode=mode, h=h, v_rows=v_rows)

    @property
    def deviance(self) -> float:
        """The criterion: -2 log L."""
        return self.criterion

    @property
    def eta(self) -> Matrix:
        """Linear predictor at the modes, offset included, shape (n,)."""
        return self.mode.eta

    @property
    def rows(self) -> RowTerms:
        """Deviances of the rows and their derivatives at the modes."""
        return self.mode.rows

    @property
    def modes(self) -> list[Matrix]:
        """Random effects per term, (l, k), in the engine's basis."""
        return self.design.skeleton.by_term(self.mode.b)

    @property
    def linear(self) -> Matrix:
        """``X beta + offset``, shape (n,)."""
        return self.design.X @ self.beta + self.design.offset

    @property
    def sigma2(self) -> float:
        """Residual variance of the working model: one."""
        return 1.0

    @property
    def df(self) -> int:
        """Number of rows."""
        return self.design.n

    @property
    def reml(self) -> bool:
        """There is no REML criterion."""
        return False

    @cached_property
    def working_weights(self) -> Matrix:
        """W, with the expected weight where the observed one is not positive, shape (n,)."""
        W = self.rows.W
        if (W > 0.0).all():
            return W
        expected = self.design.expected_weights(self.eta, self.phi)
        return np.where(W > 0.0, W, expected)

    @cached_property
    def working_response(self) -> Matrix:
        """``eta - offset + r / W``, shape (n,); eta without offset where W is zero."""
        W = self.working_weights
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(W > 0.0, self.rows.r / W, 0.0)
        return np.asarray(self.eta - self.design.offset + step)

    @cached_property
    def A(self) -> CrossProducts:
        """Cross-products of the working model: ``[Z X z]`` with weights W, residual variance 1."""
        return self.design.working_products(self.working_weights, self.working_response)

    @cached_property
    def factorisation(self) -> Factorisation:
        """Of the working model. Its `solution` is the penalised one, not the fit's beta and b."""
        return Factorisation(self.A, self.T)

    def tangent(self, T: Sequence[Matrix], beta: Matrix, phi: float) -> Blocks:
        """The c of other parameters, to first order: where to look for their modes."""
        design, mode, rows = self.design, self.mode, self.mode.rows
        moved = []
        for factor, own in zip(design.skeleton.factors, mode.c, strict=True):
            out = np.zeros_like(own)
            for member in factor.members:
                t, at = member.term, member.columns
                change = T[t] @ T[t].T - self.T[t] @ self.T[t].T
                out[:, at] = own[:, at] @ change
            moved.append(out)
        direct = design.expand(moved) + design.X @ (beta - self.beta)
        change = rows.W * direct
        if phi != self.phi and rows.r_phi is not None:
            change = change - rows.r_phi * (phi - self.phi)
        solved, _ = mode.factorisation.solve(
            [own[:, :, None] for own in design.sums(change)], np.empty((0, 1))
        )
        change = change - rows.W * design.expand([own[:, :, 0] for own in solved])
        return tuple(c - own for c, own in zip(mode.c, design.sums(change), strict=True))


def evaluate_laplace(
    design: GeneralizedDesign,
    T: Sequence[Matrix],
    beta: Matrix,
    phi: float,
    *,
    near: GeneralizedEvaluation | None = None,
    c: Sequence[Matrix] | None = None,
) -> GeneralizedEvaluation:
    """Find the modes, factorise, differentiate.

    Parameters
    ----------
    design : GeneralizedDesign
        The model.
    T : sequence of ndarray (k, k)
        One factor per term, in the engine's basis.
    beta : ndarray, shape (p,)
        Fixed effects in the engine's basis.
    phi : float
        Family parameter on its search scale; zero where there is none.
    near : GeneralizedEvaluation, optional
        One close by, from whose modes to start.
    c : sequence of ndarray (l, k), optional
        Where else to start; see `find_mode`.

    Raises
    ------
    NotPositiveDefiniteError
        Where there is no criterion.
    """
    T, beta = tuple(T), np.asarray(beta, dtype=np.float64)
    linear = design.X @ beta + design.offset
    if near is not None:
        c = near.tangent(T, beta, phi)
    mode = find_mode(design, T, linear, phi, c)
    factorisation, rows = mode.factorisation, mode.rows
    inverse = factorisation.selected_inverse(with_fixed=False, keep=True)
    _refuse_bifurcation(factorisation, inverse, rows)
    h = design.leverage_places.leverages(inverse)
    t = h * rows.W1
    solved, _ = factorisation.solve([own[:, :, None] for own in design.sums(t)], np.empty((0, 1)))
    v_rows = design.expand([own[:, :, 0] for own in solved])
    a = t - rows.W * v_rows
    e = tuple(design.sums(a))
    of_logdet, of_f = [], []
    for T_f, N, B, c_f, e_f in zip(factorisation.T, inverse.N, inverse.B, mode.c, e, strict=True):
        cross = e_f.T @ c_f
        of_logdet.append(sum_of_scores(T_f, N, B) + 0.5 * (cross + cross.T))
        of_f.append(c_f.T @ c_f)
    logdet_score, products = design.by_term(of_logdet), design.by_term(of_f)
    phi_gradient = logdet_phi = 0.0
    if rows.d_phi is not None and rows.W_phi is not None and rows.r_phi is not None:
        logdet_phi = float(h @ rows.W_phi + v_rows @ rows.r_phi)
        phi_gradient = float(rows.d_phi.sum()) + logdet_phi
    of_beta = design.X.T @ a
    return GeneralizedEvaluation(
        design,
        T,
        beta,
        phi,
        mode,
        mode.f + factorisation.logdet_random,
        h,
        tuple(own - cc for own, cc in zip(logdet_score, products, strict=True)),
        products,
        of_beta - 2.0 * (design.X.T @ rows.r),
        phi_gradient,
        LogDetGradient(logdet_score, of_beta, logdet_phi),
        v_rows,
        e,
        inverse.P[0] if len(inverse.P) == 1 else None,
    )


def _refuse_bifurcation(
    factorisation: Factorisation, inverse: SelectedInverse, rows: RowTerms
) -> None:
    """Refuse modes about to part in two, where M becomes singular and log |M| falls without end.

    Only with negative weights can what is known of a random effect be less than without the rows.
    """
    if not (rows.W < 0.0).any():
        return
    for T, P in zip(factorisation.T, inverse.P, strict=True):
        prior = np.einsum("ab,ab->a", T, T)
        if (np.einsum("laa->la", P) > _WIDER * prior).any():
            raise NotPositiveDefiniteError("the conditional modes are about to part in two")
