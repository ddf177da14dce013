"""The deviance minimised with one parameter held at a value; maximum likelihood.

A variance parameter is held in the *absolute* factors ``L_t = sigma T_t``. With the constrained
columns first, their standard deviations and correlation are in the first rows of a lower-triangular
factor,

    standard deviation   L_11 = sd                correlation   L_21 = r s, L_22 = sqrt(1 - r^2) s

and all that is left free is the entries below, the other terms and log sigma: an unconstrained
problem in which the factors are affine in the free entries. The objective is the deviance that is
not profiled over sigma,

    D = logdet M(T) + rho^2(T) / sigma^2 + n log(2 pi sigma^2),

and its local model is the average information in ``(T T', log sigma^2)``, read as an exact function
of the free entries. A fixed effect is taken out of the model instead; see `known_coefficient`.

Where residuals have a structure its parameters are free as well, in the coordinates of a search; S
then has determinant one, which leaves L as it is. What holds one of them is `constrained_residual`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.constrained_points import TiedFamily, TiedPoint, term_slices
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.finding import find_optimum
from mixedeffects.engine.known_coefficient import KnownCoefficient
from mixedeffects.engine.optimum import LARGE_CORE, SINGULAR
from mixedeffects.engine.parameters import (
    T_to_theta,
    lower_entries,
    theta_to_T,
)
from mixedeffects.engine.residual_point import ResidualPoint, log_unit
from mixedeffects.engine.residual_rows import ResidualRows
from mixedeffects.engine.trust_region import minimise

__all__ = [
    "Constrained",
    "ConstrainedCoefficient",
    "ConstrainedCorrelation",
    "ConstrainedDeviation",
    "ConstrainedParameter",
    "ConstrainedSigma",
    "ConstrainedVariance",
    "HeldParameter",
]

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_TOLERANCE = 1e-10
_MAX_EVALUATIONS = 200
#: A deviance predicted to fall by no more than this is a minimum for the purpose.
_ENOUGH = 1e-7
_MAX_RESTARTS = 3
#: Logarithm of a residual standard deviation beyond any data.
_BEYOND = 300.0
#: Standard deviations to start from where they would be zero, in units of sigma.
_INSIDE = 0.02


@dataclass(frozen=True, eq=False)
class Constrained:
    """The minimum of the deviance given the value of one parameter.

    Attributes
    ----------
    value : float
        The parameter, in the user's units.
    deviance : float
        -2 log-likelihood, in the engine's scale.
    T : tuple of ndarray (k, k)
        Relative factors in the engine's basis, square but not triangular in general.
    sigma : float
        Residual standard deviation, in the engine's scale.
    beta : ndarray (p,)
        Fixed effects, in the engine's basis.
    x : ndarray
        The free coordinates, to start another search from.
    evaluations : int
        Of objective and gradient.
    converged : bool
        Whether the search ended before it ran out of evaluations.
    residual : ResidualPoint or None
        R there, where residuals have a structure; its sigma is this one.
    """

    value: float
    deviance: float
    T: tuple[Matrix, ...]
    sigma: float
    beta: Matrix
    x: Vector
    evaluations: int
    converged: bool
    residual: ResidualPoint | None = None


class HeldParameter(Protocol):
    """A parameter that can be held at values."""

    def minimise(self, value: float, start: Vector) -> Constrained:
        """Minimise over everything else."""


class ConstrainedParameter(HeldParameter, Protocol):
    """One of a linear model."""

    def start(
        self, T: Sequence[Matrix], sigma: float, residual: ResidualPoint | None = None
    ) -> Vector:
        """Free coordinates of a point of the whole model."""


# --- fixed effects --------------------------------------------------------------------------------


class ConstrainedCoefficient:
    """A fixed effect, by its column in the user's X."""

    def __init__(self, A: CrossProducts, column: int) -> None:
        self._A = A
        self._known = KnownCoefficient(A, column)

    def start(
        self, T: Sequence[Matrix], sigma: float, residual: ResidualPoint | None = None
    ) -> Vector:
        """The relative factors; sigma is profiled out."""
        return T_to_theta([lower_factor(t) for t in T])

    def minimise(self, value: float, start: Vector) -> Constrained:
        """Fit the model without the column to the response less its share."""
        factors = [lower_factor(T) for T in theta_to_T(start, self._A.term_columns)]
        # A singular optimum is a stationary point for any response: start afresh from there.
        singular = any(np.linalg.svd(T, compute_uv=False)[-1] < SINGULAR for T in factors)
        A = self._known.blocks(value)
        optimum = find_optimum(A, False, start=None if singular else factors, further=singular)
        evaluation = optimum.evaluation
        return Constrained(
            value,
            evaluation.deviance,
            optimum.T,
            float(np.sqrt(evaluation.sigma2)),
            self._known.beta(value, evaluation.factorisation.solution.beta),
            T_to_theta(list(optimum.T)),
            optimum.evaluations,
            # A profile needs the deviance, not where it is smallest: no word about the gradient.
            optimum.predicted_decrease < _ENOUGH
            and (optimum.null_score is None or optimum.null_score > -1e-6),
        )


# --- variance parameters --------------------------------------------------------------------------


class ConstrainedVariance:
    """A parameter of the variances, held at values.

    The term it belongs to gets a basis ``w = R b*`` of its own whose first rows are the columns
    concerned; ``fixed`` of them are tied.
    """

    term: int | None = None
    fixed = 0
    #: Where the coordinates of the tied rows stand.
    _sizes = slice(0, 0)

    def __init__(
        self, A: CrossProducts, reference: float, rows: ResidualRows | None = None
    ) -> None:
        self._A, self._residual_rows = A, rows
        #: A size for the coordinates: the fit's sigma in the engine's scale.
        self._reference = reference
        self._R = [np.eye(k) for k in A.term_columns]

    def _use_rows(self, term: int, columns: Sequence[int]) -> Matrix:
        """Put rows of the term's basis first, scaled to one; their sizes in the user's units."""
        C = self._A.basis.terms[term][list(columns)]
        size = np.linalg.norm(C, axis=1)
        others = np.linalg.qr(C.T, mode="complete")[0][:, len(C) :].T
        self._R[term] = np.vstack([C / size[:, None], others])
        self.term, self.fixed = term, len(C)
        return np.asarray(self._A.basis.response_scale * size)

    def _tied(self, value: float) -> tuple[Matrix, list[Matrix]]:
        """Constant part and free directions of the tied rows, in the term's own basis."""
        raise NotImplementedError

    def _fixed_log_sigma(self, value: float) -> float | None:
        known = self._A.known_variance
        return None if known is None else 0.5 * float(np.log(known))

    def _family(self, value: float) -> TiedFamily:
        K = sum(self._A.term_columns)
        base, directions = np.zeros((K, K)), []
        for t, (k, s) in enumerate(zip(self._A.term_columns, term_slices(self._A), strict=True)):
            D = np.linalg.inv(self._R[t])
            first = 0
            own: list[Matrix] = []
            if t == self.term:
                constant, own = self._tied(value)
                base[s, s] = D @ constant
                first = self.fixed
            for row, column in zip(*lower_entries(k), strict=True):
                if row >= first:
                    unit = np.zeros((k, k))
                    unit[row, column] = self._reference
                    own.append(unit)
            for direction in own:
                whole = np.zeros((K, K))
                whole[s, s] = D @ direction
                directions.append(whole)
        return TiedFamily(
            self._A,
            base,
            np.array(directions).reshape(len(directions), K, K),
            self._fixed_log_sigma(value),
            self._residual_rows,
        )

    def _coordinates_of_tied(self, L: Matrix) -> list[float]:
        return []

    def _absolute(self, T: Sequence[Matrix], sigma: float) -> list[Matrix]:
        """Lower-triangular absolute factors in the terms' own bases."""
        return [lower_factor(R @ t * sigma) for R, t in zip(self._R, T, strict=True)]

    def _pack(self, factors: Sequence[Matrix], sigma: float, of_residuals: Vector) -> Vector:
        parts: list[float] = []
        for t, L in enumerate(factors):
            first = 0
            if t == self.term:
                parts += self._coordinates_of_tied(L)
                first = self.fixed
            rows, columns = lower_entries(len(L))
            free = rows >= first
            parts += (L[rows[free], columns[free]] / self._reference).tolist()
        parts += of_residuals.tolist()
        if self._fixed_log_sigma(1.0) is None:
            parts.append(float(np.log(sigma)))
        return np.array(parts)

    def start(
        self, T: Sequence[Matrix], sigma: float, residual: ResidualPoint | None = None
    ) -> Vector:
        """Free coordinates of a point of the whole model."""
        factors, of_residuals = self._absolute(T, sigma), np.zeros(0)
        if self._residual_rows is not None and residual is not None:
            model = self._residual_rows.model
            phi = residual.phi(model)
            of_residuals = model.unbounded(phi)
            sigma = sigma * float(np.exp(-log_unit(model, phi)))
        return self._pack(factors, sigma, of_residuals)

    def _whole(self, point: TiedPoint) -> tuple[tuple[Matrix, ...], float, ResidualPoint | None]:
        """Relative factors, sigma and R at a point, with sigma that of the fit."""
        sigma = float(np.exp(point.log_sigma))
        if point.residual is None:
            return tuple(point.T), sigma, None
        model, phi = point.residual.model, point.phi
        ratio = float(np.exp(log_unit(model, phi)))
        zeta = tuple(np.array(phi[at]) for at in model.places[: len(model.families)])
        own = ResidualPoint(ratio * sigma, model.coefficients(phi), zeta)
        return tuple(T / ratio for T in point.T), ratio * sigma, own

    def minimise(self, value: float, start: Vector) -> Constrained:
        """Minimise over all other parameters; see `ConstrainedParameter`."""
        return self._minimise(value, start)

    def _minimise(
        self, value: float, start: Vector, allowed: Callable[[Vector], bool] | None = None
    ) -> Constrained:
        """Minimise, where steps to coordinates that are not allowed are shortened."""
        family, x = self._family(value), start
        evaluations = 0

        last: list[TiedPoint] = []

        def point_at(x: Vector) -> TiedPoint | None:
            # Two large factorisations are not kept beside each other; the model is known by now.
            if last and self._A.remainder.core_size > LARGE_CORE:
                last.pop().evaluation.factorisation.release()
            # Beyond any data: a step that far is shortened, not evaluated.
            if family.log_sigma is None and abs(x[-1]) > _BEYOND:
                return None
            if allowed is not None and not allowed(x):
                return None
            try:
                point = TiedPoint(family, x)
            except (NotPositiveDefiniteError, np.linalg.LinAlgError):
                return None
            last[:] = [point]
            return point if np.isfinite(point.value) else None

        for _ in range(_MAX_RESTARTS + 1):
            result = minimise(
                point_at,
                x,
                tolerance=_TOLERANCE,
                max_evaluations=_MAX_EVALUATIONS,
                radius=float(np.sqrt(len(x) or 1)),
            )
            evaluations += result.evaluations
            escape = self._escape(result.point)
            if escape is None:
                break
            x = escape
        x, point, extra = self._snapped(point_at, result.x, result.point)
        T, sigma, residual = self._whole(point)
        return Constrained(
            value,
            point.value,
            T,
            sigma,
            point.evaluation.factorisation.solution.beta,
            x,
            evaluations + extra,
            result.predicted < max(_ENOUGH, 1e-12 * abs(point.value)),
            residual,
        )

    def _free_block(self, t: int, L: Matrix) -> tuple[Matrix, int]:
        """The part of a term's factor below its tied rows, and where it starts."""
        first = self.fixed if t == self.term else 0
        return np.tril(L[first:, first:]), first

    def _snapped(
        self, point_at: Callable[[Vector], TiedPoint | None], x: Vector, point: TiedPoint
    ) -> tuple[Vector, TiedPoint, int]:
        """Put nearly singular covariances exactly on the boundary, if the deviance agrees."""
        sigma = float(np.exp(point.log_sigma))
        factors, changed = [], False
        for t, (R, s) in enumerate(zip(self._R, term_slices(self._A), strict=True)):
            L = R @ point.L[s, s]
            free, first = self._free_block(t, L)
            left, size, right = np.linalg.svd(free)
            small = (size < SINGULAR * sigma) & (size > 0.0)
            if small.any():
                changed = True
                kept = np.where(small, 0.0, size)
                L[first:, first:] = lower_factor((left * kept) @ right)
            factors.append(L)
        if not changed:
            return x, point, 0
        moved = self._repacked(point, factors, sigma)
        trial = point_at(moved)
        slack = 1e-12 * max(1.0, abs(point.value)) + 1e-9
        if trial is not None and trial.value <= point.value + slack:
            return moved, trial, 1
        return x, point, 1

    def _escape(self, point: TiedPoint) -> Vector | None:
        """A better start where the search has stopped at zero variance that the data want."""
        sigma = float(np.exp(point.log_sigma))
        found = False
        factors = []
        for t, (R, s) in enumerate(zip(self._R, term_slices(self._A), strict=True)):
            L = R @ point.L[s, s]
            free, first = self._free_block(t, L)
            left, size, _ = np.linalg.svd(free)
            null = left[:, size < SINGULAR * sigma]
            if null.shape[1]:
                CC = point.evaluation.outer_products[t]
                share = point.evaluation.sigma2 / point.sigma2
                F = point.evaluation.score[t] + (1.0 - share) * CC
                D = np.linalg.inv(R)
                inner = null.T @ (D.T @ F @ D)[first:, first:] @ null
                values, vectors = np.linalg.eigh(inner)
                scale = float(np.linalg.norm((D.T @ (F + share * CC) @ D)[first:, first:]))
                if values[0] < -1e-6 * scale:
                    found = True
                    direction = 0.1 * sigma * (null @ vectors[:, :1])
                    L[first:, first:] = _lower_factor_of_wide(np.hstack([free, direction]))
            factors.append(L)
        return self._repacked(point, factors, sigma) if found else None

    def _repacked(self, point: TiedPoint, factors: Sequence[Matrix], sigma: float) -> Vector:
        """Coordinates of changed factors whose tied rows, signs included, are the point's."""
        x = self._pack(factors, sigma, point.x[point.family.of_residuals])
        x[self._sizes] = point.x[self._sizes]
        return x


def _lower_factor_of_wide(factor: Matrix) -> Matrix:
    """Lower-triangular T with ``T T' = factor factor'`` for more columns than rows."""
    k = len(factor)
    T = np.asarray(np.linalg.qr(factor.T, mode="r"))[:k].T
    return np.asarray(np.tril(T * np.where(np.diag(T) < 0.0, -1.0, 1.0)))


class ConstrainedSigma(ConstrainedVariance):
    """The residual standard deviation."""

    def _fixed_log_sigma(self, value: float) -> float | None:
        return float(np.log(value / self._A.basis.sigma(1.0)))


class ConstrainedDeviation(ConstrainedVariance):
    """The standard deviation of one column of a term."""

    def __init__(
        self,
        A: CrossProducts,
        reference: float,
        term: int,
        column: int,
        rows: ResidualRows | None = None,
    ) -> None:
        super().__init__(A, reference, rows)
        (self._size,) = self._use_rows(term, [column])

    def _tied(self, value: float) -> tuple[Matrix, list[Matrix]]:
        assert self.term is not None
        constant = np.zeros((self._A.term_columns[self.term],) * 2)
        constant[0, 0] = value / self._size
        return constant, []


class ConstrainedCorrelation(ConstrainedVariance):
    """The correlation of two columns of a term.

    Its two standard deviations must not change sign, for that of the correlation would change with
    them. Where one of them is zero any correlation will do, so the deviance with either at zero is
    an upper limit whatever the value.
    """

    def __init__(
        self,
        A: CrossProducts,
        reference: float,
        term: int,
        columns: tuple[int, int],
        rows: ResidualRows | None = None,
    ) -> None:
        super().__init__(A, reference, rows)
        self._use_rows(term, columns)
        before = sum(k * (k + 1) // 2 for k in A.term_columns[:term])
        self._sizes = slice(before, before + 2)
        self._without = [
            ConstrainedDeviation(A, reference, term, column, rows) for column in columns
        ]
        self._flat: Constrained | None = None

    def _tied(self, value: float) -> tuple[Matrix, list[Matrix]]:
        assert self.term is not None
        k = self._A.term_columns[self.term]
        first, second = np.zeros((k, k)), np.zeros((k, k))
        first[0, 0] = self._reference
        second[1, :2] = self._reference * np.array([value, np.sqrt(max(0.0, 1.0 - value**2))])
        return np.zeros((k, k)), [first, second]

    def _coordinates_of_tied(self, L: Matrix) -> list[float]:
        return [float(L[0, 0] / self._reference), float(np.hypot(*L[1, :2]) / self._reference)]

    def _one_sign(self, x: Vector) -> bool:
        return bool(np.prod(x[self._sizes]) >= 0.0)

    def _inside(self, x: Vector) -> Vector:
        inside = x.copy()
        inside[self._sizes] = np.maximum(np.abs(x[self._sizes]), _INSIDE)
        return inside

    def minimise(self, value: float, start: Vector) -> Constrained:
        """Minimise over all other parameters; see `ConstrainedParameter`."""
        x, evaluations = self._inside(start), 0
        if self._flat is None:
            whole = self._whole(TiedPoint(self._family(value), x))
            tries = [each.minimise(0.0, each.start(*whole)) for each in self._without]
            self._flat = min(tries, key=lambda each: each.deviance)
            evaluations = sum(each.evaluations for each in tries)
        flat = self._flat
        found = self._minimise(value, x)
        evaluations += found.evaluations
        if not self._one_sign(found.x):
            # The best is at the correlation's opposite; look again on this side alone.
            again = [x, self._inside(self.start(flat.T, flat.sigma, flat.residual))]
            tries = [self._minimise(value, each, self._one_sign) for each in again]
            evaluations += sum(each.evaluations for each in tries)
            found = min(tries, key=lambda each: each.deviance)
        if flat.deviance <= found.deviance:
            # Kept away from zero, to be a start for other values.
            found = replace(flat, x=x)
        return replace(found, value=value, evaluations=evaluations)
