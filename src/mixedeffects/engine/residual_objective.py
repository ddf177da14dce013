"""The profiled deviance where residuals are correlated, and its derivatives, at one point.

    d(theta, phi) = [ d of `objective` on A(phi) ] + log |S(phi)|

With ``P = L~ M^-1 L~'``, ``a = [-b; -beta; 1]`` and dA_r the derivative of A in phi_r,

    score_r = tr(S^-1 S_r) + <P, dA_r> + a'dA_r a / sigma^2.

The average information, jointly with that of Sigma, comes from the working variates
``f_r = S_r S^-1 (y - X beta - Z b)``: ``[Z X]'S^-1 f_r`` is minus the part of ``dA_r a``.

Where the random effects are far larger than a residual, ``[X y]`` are taken less their modes (see
`provisional`), and what is a sum over rows of residuals is summed up over rows. What digits are
then left is known; see `ResidualEvaluation.cancellation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.factorisation import SelectedInverse
from mixedeffects.engine.objective import Evaluation, along_each, evaluate_with_inverse
from mixedeffects.engine.quadratic_forms import inner_products
from mixedeffects.engine.residual_model import ResidualModel
from mixedeffects.engine.residual_rows import ResidualRows, RowsAt, inner_product
from mixedeffects.engine.residual_sums import ChainSumsAt, PatternSumsAt

__all__ = ["ResidualEvaluation", "evaluate_residual"]

Matrix = NDArray[np.float64]

#: Cancellation in ``[X y]`` from which they are taken less their modes.
_LOST = 1e5
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class ResidualEvaluation(ReadOnlyArrays):
    """Deviance and derivatives at one set of factors and residual parameters.

    Attributes
    ----------
    at_theta : Evaluation
        The deviance, with ``log |S|``, and its derivatives in the random effects.
    design : ResidualRows
        The design.
    rows : RowsAt, ChainSumsAt or PatternSumsAt
        A and its derivatives.
    phi : ndarray, shape (r,)
        Residual parameters.
    score : ndarray, shape (r,)
        Derivatives in phi.
    slopes : ndarray, shape (r,)
        ``a'dA_r a / sigma^2``.
    effects : tuple of ndarray (l, k, r)
        ``Z'S^-1 f_r`` per factor.
    fixed : ndarray, shape (p, r)
        ``X'S^-1 f_r``.
    """

    at_theta: Evaluation
    design: ResidualRows
    rows: RowsAt | ChainSumsAt | PatternSumsAt
    phi: Matrix
    score: Matrix
    slopes: Matrix
    effects: tuple[Matrix, ...]
    fixed: Matrix
    #: Largest sum of squares that the deviance is made of, relative to what is left of it: among
    #: rows given those before them in their group, random effects, and ``[X y]``. The relative
    #: rounding of each is as much larger than that of a number.
    cancellation: float

    @property
    def model(self) -> ResidualModel:
        """The covariance of the residuals as a function of phi."""
        return self.design.model

    @property
    def rounding(self) -> float:
        """Of the deviance."""
        return _EPS * self.cancellation * self.at_theta.A.n

    @property
    def deviance(self) -> float:
        """d, in the engine's scale."""
        return self.at_theta.deviance

    @cached_property
    def residuals(self) -> Matrix:
        """``y - X beta - Z b`` in the order of the series, in the engine's scale."""
        return self.design.residuals(self.modes, self.at_theta.factorisation.solution.beta)

    @property
    def modes(self) -> list[Matrix]:
        """Random effects (l, k) of each term."""
        return self.at_theta.A.by_term(self.at_theta.factorisation.solution.b)

    def information(self, directions: Sequence[Matrix]) -> Matrix:
        """Average information of d along matrices (r, k, k) per term, then in phi.

        sigma profiled out.
        """
        form = self.unprofiled_information(directions)
        if self.at_theta.A.known_variance is not None:
            return form[:-1, :-1]
        return np.asarray(form[:-1, :-1] - form[:-1, -1:] * form[-1, :-1] / self.at_theta.df)

    def unprofiled_information(self, directions: Sequence[Matrix]) -> Matrix:
        """The same and along V itself, which is last."""
        here, A = self.at_theta, self.at_theta.A
        factorisation = here.factorisation
        c = factorisation.solution.c
        n_theta = sum(len(each) for each in directions)
        n_phi = len(self.phi)
        if not n_theta + n_phi:
            # All variances of effects are at zero, and nothing of R is estimated.
            return np.array([[float(here.df)]])
        v = along_each(A, c, directions) if A.factors else []
        blocks, border = A.multiply(v, np.zeros((A.p + 1, n_theta))) if v else ([], None)
        of_border = np.zeros((A.p, 0)) if border is None else border[: A.p]
        total = [
            np.concatenate([own, more], axis=2)
            for own, more in zip(blocks, self.effects, strict=True)
        ]
        fixed = np.hstack([of_border, self.fixed])
        seen = fixed if here.reml else fixed[:0]
        solved, remainder = factorisation.forward(total, seen)
        form = np.zeros((n_theta + n_phi, n_theta + n_phi))
        beta = factorisation.solution.beta
        form[n_theta:, n_theta:] = self.rows.working_products(self.modes, beta)
        for own, product in zip(v, total, strict=True):
            # Where no variance can move there are no directions.
            own, product = (x.reshape(x.shape[0] * x.shape[1], x.shape[2]) for x in (own, product))
            form[:n_theta] += own.T @ product
        form[n_theta:, :n_theta] = form[:n_theta, n_theta:].T
        for half in solved:
            flat = half.reshape(-1, half.shape[-1])
            form -= flat.T @ flat
        form -= remainder.T @ remainder
        s = -self.slopes
        if n_theta:
            s = np.concatenate([inner_products(directions, here.outer_products), s])
        out = np.empty((len(s) + 1, len(s) + 1))
        out[:-1, :-1], out[-1, -1] = form / here.sigma2, here.df
        out[:-1, -1] = out[-1, :-1] = s
        return out


def evaluate_residual(
    rows: ResidualRows, T: Sequence[Matrix], phi: Matrix, reml: bool
) -> ResidualEvaluation:
    """Whiten, factorise, differentiate.

    Parameters
    ----------
    rows : ResidualRows
        The design.
    T : sequence of ndarray (k, k)
        One factor per term, in the engine's basis.
    phi : ndarray, shape (r,)
        Residual parameters.
    reml : bool
        Which criterion.

    Raises
    ------
    NotPositiveDefiniteError, LinAlgError
        Where there is no deviance.
    """
    at_phi = rows.at(phi)
    A = at_phi.A
    here, inverse = evaluate_with_inverse(A, T, reml)
    if A.factors and here.factorisation.border_cancellation > _LOST:
        if not isinstance(at_phi, RowsAt):
            at_phi = RowsAt(rows, phi)
        A = at_phi.without_effects(T)
        here, inverse = evaluate_with_inverse(A, T, reml)
    cancellation = max(
        at_phi.cancellation,
        here.factorisation.border_cancellation,
        *(
            float((size * np.einsum("lkk->lk", P)).max(initial=1.0))
            for size, P in zip(A.diagonals, inverse.P, strict=True)
        ),
    )
    solution = here.factorisation.solution
    if isinstance(at_phi, RowsAt) and (rows.is_local or A.provisional is not None):
        residuals = rows.residuals(A.by_term(solution.b), solution.beta)
        squares, of_effects, of_fixed = at_phi.of_residuals(residuals)
        slopes = squares / here.sigma2
        score = at_phi.logdet_gradient + _of_inverse(at_phi, here, inverse) + slopes
        effects = tuple(-own for own in of_effects)
        return ResidualEvaluation(
            here, rows, at_phi, phi, score, slopes, effects, -of_fixed, cancellation
        )
    b = [-own[:, :, None] for own in solution.b]
    border = np.append(-solution.beta, 1.0)[:, None]
    m = len(phi)
    score, slopes = np.array(at_phi.logdet_gradient), np.empty(m)
    found = [np.empty((*own.shape, m)) for own in solution.b]
    fixed = np.empty((A.p, m))
    for j in range(m):
        D = at_phi.derivative(j)
        products, of_border = D.multiply(b, border)
        square = float(border[:, 0] @ of_border[:, 0])
        for own, product, out in zip(b, products, found, strict=True):
            square += float(np.vdot(own, product))
            out[:, :, j] = -product[:, :, 0]
        fixed[:, j] = -of_border[: A.p, 0]
        slopes[j] = square / here.sigma2
        score[j] += inner_product(inverse, D, reml) + slopes[j]
    return ResidualEvaluation(
        here, rows, at_phi, phi, score, slopes, tuple(found), fixed, cancellation
    )


def _of_inverse(at_phi: RowsAt, here: Evaluation, inverse: SelectedInverse) -> Matrix:
    """``<P, dA_r>`` for each parameter."""
    factorisation, rows = here.factorisation, at_phi.rows
    border = factorisation.border
    with_fixed = here.reml and border is None
    if rows.is_local:
        out = at_phi.contracted(inverse, with_fixed)
    else:
        changes = (at_phi.derivative(j) for j in range(len(at_phi.phi)))
        out = np.array([inner_product(inverse, D, with_fixed) for D in changes])
    if border is None or not here.reml:
        return out
    # The fixed effects' part, of X less its modes.
    modes = [np.ascontiguousarray(own[:, :, : rows.p]) for own in border.modes]
    left = rows.less_effects(rows.border[:, : rows.p], here.A.by_term(modes))
    solved = scipy.linalg.cho_solve((factorisation.fixed_root, True), left.T).T
    return out + at_phi.whitening.contracted(left, solved)
