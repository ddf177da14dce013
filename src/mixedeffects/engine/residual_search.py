"""The search for the optimum where residuals are correlated, in theta and phi at once.

Steps are those of the trust region on the average information, with the exact change of every
Sigma and the change of S linear in phi. At the end phi is held, and the search over random effects
alone looks whether something is left to gain there: a singular covariance, a correlation at the end
of its range. If there is, both go on from that point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.finding import find_optimum
from mixedeffects.engine.objective import evaluate
from mixedeffects.engine.optimum import Control, Optimum, record
from mixedeffects.engine.parameterisation import Parameterisation, parameterise
from mixedeffects.engine.residual_objective import ResidualEvaluation, evaluate_residual
from mixedeffects.engine.residual_rows import ResidualRows
from mixedeffects.engine.start import starting_factors
from mixedeffects.engine.structured_point import (
    StructuredModel,
    in_coordinates,
    tangent_bases,
)
from mixedeffects.engine.structures import CovarianceStructure
from mixedeffects.engine.telling import Progress, Teller
from mixedeffects.engine.trust_region import Iterate, minimise, minimise_model

__all__ = ["find_residual_optimum"]

Matrix = NDArray[np.float64]

#: Descents, each from where the search over random effects alone ended.
_ROUNDS = 4
#: Decrease of the deviance that is worth another descent.
_WORTH = 1e-8
#: How far out a coordinate is from which it may be on its way to infinity, relative to where ranges
#: are the largest distance; what it may still promise; how much farther is looked, and by what the
#: deviance may be higher there.
_FAR, _PROMISE, _FARTHER, _HIGHER = 9.0, 1e-5, math.log(10.0), 1e-7
#: Logarithm of the odds of a correlation beyond which the deviance is rounding.
_EDGE = 20.0
#: Rounding of the deviance for each row from which on there is none.
_ROUNDING = 1e-8
#: Steps to there, each a quarter of the one before, that are enough.
_TOO_FAR = 4
#: Standard deviation, in an orthonormal basis, to start from at least.
_SMALLEST_START = 0.1


class _EndlessError(Exception):
    """Nothing is left to gain on the way, which goes on, but what is rounding."""

    def __init__(self, end: Iterate[_Point]) -> None:
        super().__init__()
        self.end = end


class _Space:
    """Coordinates of the search: those of the random effects, then those of the residuals."""

    def __init__(
        self, rows: ResidualRows, parameterisation: Parameterisation, eta: Matrix, reml: bool
    ) -> None:
        self.rows, self.parameterisation, self.eta, self.reml = rows, parameterisation, eta, reml
        self._is_free = all(
            structure is None
            for structure in (getattr(t, "structure", None) for t in parameterisation.terms)
        )
        held = np.zeros(len(eta), dtype=np.bool_) if self._is_free else parameterisation.held(eta)
        self.moving = np.flatnonzero(~held)
        self._centre = eta if self._is_free else parameterisation.unbounded(eta)
        self._ranges = rows.model.ranges
        #: Steps one after the other to where the deviance is rounding.
        self.too_far = 0

    def coordinates(self, phi: Matrix) -> Matrix:
        """Of the point itself, with these residual parameters."""
        z = self.rows.model.unbounded(phi)
        for each in self._ranges:
            if each.nugget is not None:
                z[each.nugget] += each.coupling(z[each.place])[0]
        return np.concatenate([self._centre[self.moving], z])

    def uncoupled(self, x: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Coordinates each of a parameter of its own, from those of the search.

        Beside a nugget, differences of residuals hardly change where the range grows and the nugget
        shrinks in proportion, so the search goes along and across that curve. Also the derivatives
        of the coordinates, and what the second derivatives add to a Hessian for each unit of the
        gradient in the nugget's coordinate: one entry for each coordinate, on the diagonal.
        """
        m = len(self.moving)
        z, J, bent = x.copy(), np.eye(len(x)), np.zeros((len(x), len(x)))
        for each in self._ranges:
            if each.nugget is not None:
                i, j = m + each.place, m + each.nugget
                value, first, second = each.coupling(x[i])
                z[j] -= value
                J[j, i] = -first
                bent[j, i] = -second
        return z, J, bent

    def is_endless(self, each: Iterate[_Point]) -> bool:
        """Whether a coordinate is far out and the deviance no higher farther out still.

        Its way there is an exponential one, on which no more is left than its derivative.
        """
        if each.predicted > _PROMISE:
            return False
        m, x, gradient = len(self.moving), each.x, each.point.gradient
        out = np.abs(self.uncoupled(x)[0])
        for place, middle in self.rows.model.endless.items():
            j = m + place
            if middle is None:
                far, sign = out[j] > _FAR, math.copysign(1.0, self.uncoupled(x)[0][j])
            else:
                far, sign = x[j] > middle + math.log(10.0), 1.0
            if not far or abs(gradient[j]) > _PROMISE or sign * gradient[j] > 0.0:
                continue
            farther = x.copy()
            farther[j] += sign * _FARTHER
            there = self.point(farther)
            if there is not None and there.value <= each.point.value + _HIGHER:
                return True
        return False

    def straight(self, here: Matrix, there: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """As `parameters`, with ranges replaced by what S is more nearly linear in."""
        both, first, second = self.parameters(there)
        m, n_eta = len(self.moving), len(self.eta)
        for each in self._ranges:
            i = m + each.place
            straight = each.straight(here[i], there[i])
            if straight is not None:
                both[n_eta + each.place], first[i], second[i] = straight
        return both, first, second

    def parameters(self, x: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Eta and phi, one after the other; first and second derivatives of those that move."""
        m = len(self.moving)
        full = self._centre.copy()
        full[self.moving] = x[:m]
        first, second = np.ones(len(full)), np.zeros(len(full))
        eta = full
        if not self._is_free:
            moved, first, second = self.parameterisation.bounded(full)
            eta = self.eta.copy()
            eta[self.moving] = moved[self.moving]
        phi, of_phi, bent = self.rows.model.bounded(x[m:])
        return (
            np.concatenate([eta, phi]),
            np.concatenate([first[self.moving], of_phi]),
            np.concatenate([second[self.moving], bent]),
        )

    @property
    def kept(self) -> NDArray[np.intp]:
        """Which of eta and phi move."""
        n_phi = self.rows.model.n_parameters
        return np.concatenate([self.moving, len(self.eta) + np.arange(n_phi)])

    def point(self, x: Matrix) -> _Point | None:
        """The point at x; None where there is no deviance, or nothing of it but rounding."""
        z, _, _ = self.uncoupled(x)
        m = len(self.moving)
        bounded = [m + j for j, middle in self.rows.model.endless.items() if middle is None]
        if np.abs(z[bounded]).max(initial=0.0) > _EDGE:
            return None
        try:
            point = _Point(self, x)
        except (NotPositiveDefiniteError, np.linalg.LinAlgError):
            return None
        if not has_digits(point.evaluation):
            self.too_far += 1
            return None
        self.too_far = 0
        return point

    def is_at_end(self, each: Iterate[_Point]) -> bool:
        """Whether farther on the deviance is rounding, or it is endless."""
        lost = each.predicted < each.point.evaluation.rounding
        return lost or self.too_far > _TOO_FAR or self.is_endless(each)


class _Point:
    """One evaluation, as the trust region wants it."""

    def __init__(self, space: _Space, x: Matrix) -> None:
        self.space, self.x = space, x
        z, J, _ = space.uncoupled(x)
        both, first, _ = space.parameters(z)
        m = len(space.eta)
        self.eta, phi = both[:m], both[m:]
        T = space.parameterisation.factors(self.eta)
        self.evaluation = evaluate_residual(space.rows, T, phi, space.reml)
        self.value = self.evaluation.deviance
        if not math.isfinite(self.value):
            raise NotPositiveDefiniteError("the deviance is not finite")
        score = self.evaluation.score
        if m:
            of_eta = space.parameterisation.gradient(self.eta, self.evaluation.at_theta.score)
            score = np.concatenate([of_eta, score])
        self.gradient = J.T @ (first * score[space.kept])

    def model(self) -> _Model:
        """Model of the deviance around this point."""
        evaluation, parameterisation = self.evaluation, self.space.parameterisation
        bases = tangent_bases(parameterisation, self.eta)
        inner = StructuredModel(
            parameterisation,
            self.eta,
            tuple(evaluation.at_theta.score),
            tuple(bases),
            evaluation.information(bases),
            evaluation.score,
        )
        return _Model(self.space, self.x, inner)


@dataclass(frozen=True, eq=False)
class _Model:
    """The model of `StructuredModel` in the coordinates of the search."""

    space: _Space
    x: Matrix
    inner: StructuredModel

    def at(self, step: Matrix, correction: Matrix) -> tuple[float, Matrix, Matrix]:
        """Change of d, gradient and Hessian of the model after a step."""
        kept, m = self.space.kept, len(step)
        z, _, _ = self.space.uncoupled(self.x)
        end, J, bent = self.space.uncoupled(self.x + step)
        here, _, _ = self.space.parameters(z)
        there, first, second = self.space.straight(z, end)
        value, gradient, hessian = in_coordinates(
            self.inner.at(there - here), kept, first, second, end - z, np.zeros((m, m))
        )
        corrected = correction @ step
        hessian = J.T @ hessian @ J + np.diag(gradient @ bent)
        return (
            value + 0.5 * float(step @ corrected),
            J.T @ gradient + corrected,
            hessian + correction,
        )

    def minimise(self, correction: Matrix, radius: float) -> tuple[Matrix, float]:
        """Step within the radius that makes the model small, and the decrease it predicts."""
        return minimise_model(lambda step: self.at(step, correction), len(self.x), radius)


class _Search:
    """Searches over all parameters, and over the random effects alone, that share a budget."""

    def __init__(
        self,
        rows: ResidualRows,
        reml: bool,
        structures: Sequence[CovarianceStructure | None] | None,
        control: Control,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.rows, self.reml, self.structures, self.control = rows, reml, structures, control
        free: list[CovarianceStructure | None] = [None] * len(rows.term_columns)
        self.parameterisation = parameterise(rows.basis, rows.term_columns, structures or free)
        self.offset = rows.basis.deviance_offset(rows.n, rows.p, reml)
        self.spent = self.steps = 0
        self.path: list[float] = []
        self._teller = Teller(progress, self.offset)

    @property
    def _most(self) -> int:
        """Evaluations that are left."""
        return max(2, self.control.max_evaluations - self.spent)

    def over_all(self, space: _Space, x: Matrix) -> Iterate[_Point]:
        """To a minimum over all parameters, or to where a way out has no end."""

        def report(each: Iterate[_Point]) -> None:
            value = each.point.value
            is_new = not self.path or value < self.path[-1]
            if is_new:
                self.path.append(value)
            elif not space.too_far:
                return
            if not each.stopped and each.iterations > 0 and space.is_at_end(each):
                raise _EndlessError(each)
            if is_new and self._teller.is_heard:
                self._teller.tell(
                    len(self.path) - 1,
                    self.spent + each.evaluations,
                    value,
                    each.point.gradient,
                    each.point.evaluation.at_theta.T,
                )

        try:
            result = minimise(
                space.point,
                x,
                tolerance=self.control.tolerance,
                max_evaluations=self._most,
                radius=math.sqrt(max(len(x), 1)),
                report=report,
            )
        except _EndlessError as endless:
            result = replace(endless.end, stopped="converged")
        self.spent += result.evaluations
        self.steps += result.iterations
        return result

    def over_effects(self, evaluation: ResidualEvaluation) -> Optimum | None:
        """The optimum with S held; None where S is singular but for rounding."""
        try:
            return find_optimum(
                evaluation.at_theta.A,
                self.reml,
                start=[lower_factor(own) for own in evaluation.at_theta.T],
                control=replace(self.control, max_evaluations=self._most),
                structures=self.structures,
                further=False,
            )
        except ArithmeticError:
            return None


def find_residual_optimum(
    rows: ResidualRows,
    reml: bool,
    *,
    start: tuple[Sequence[Matrix], Matrix] | None = None,
    control: Control | None = None,
    progress: Callable[[Progress], None] | None = None,
    structures: Sequence[CovarianceStructure | None] | None = None,
) -> Optimum:
    """Minimise the profiled deviance over the factors and the residual parameters.

    Parameters
    ----------
    rows : ResidualRows
        The design.
    reml : bool
        REML criterion or -2 log-likelihood.
    start : tuple (factors, phi), optional
        Where to start; by default at moments of the residuals of a fit without correlations.
    control : Control, optional
        Tolerance and limits.
    progress : callable, optional
        Called after every accepted step.
    structures : sequence of CovarianceStructure or None, optional
        One per term; None for a term whose covariance is free.
    """
    search = _Search(rows, reml, structures, control or Control(), progress)
    T, phi = _start(rows, reml) if start is None else start
    search.spent = 0 if start else 1
    parameterisation = search.parameterisation
    inner: Optimum | None = None
    for _ in range(_ROUNDS):
        eta = parameterisation.nearest(T) if len(T) else np.zeros(0)
        space = _Space(rows, parameterisation, eta, reml)
        x = space.coordinates(phi)
        if inner is not None and (not np.isfinite(x).all() or space.point(x) is None):
            # The parameters are at their bounds but for rounding: nowhere to go on from.
            break
        result = search.over_all(space, x)
        point = result.point
        evaluation = point.evaluation
        phi = evaluation.phi
        again = search.over_effects(evaluation) if len(T) else None
        if again is None:
            break
        inner = again
        if point.value - inner.evaluation.deviance < _WORTH:
            if inner.singular:
                # The search over random effects alone puts on the boundary what is next to it.
                snapped = evaluate_residual(rows, inner.T, phi, reml)
                if has_digits(snapped):
                    evaluation = snapped
            break
        search.spent += inner.evaluations
        T = inner.T
    finished = _finished(result) if evaluation is result.point.evaluation else None
    evaluation = finished or _with_unit_at_zero(evaluation)
    here = evaluation.at_theta
    path = search.path
    if not path or here.deviance < path[-1]:
        path.append(here.deviance)
    optimum = record(
        here,
        tuple(lower_factor(own) for own in here.T),
        gradient=point.gradient,
        parameters=np.ones(len(point.gradient)),
        result=result,
        evaluations=search.spent,
        iterations=search.steps,
        null_score=None if inner is None else inner.null_score,
        path=tuple(value + search.offset for value in path),
        search_evaluations=search.spent,
    )
    optimum.residual = evaluation
    if structures is not None:
        optimum.parameterisation = parameterisation
        optimum.eta = parameterisation.canonical(parameterisation.nearest(here.T))
    return optimum


def has_digits(evaluation: ResidualEvaluation) -> bool:
    """Whether the deviance is more than rounding."""
    return evaluation.rounding < _ROUNDING * evaluation.at_theta.A.n


def _finished(result: Iterate[_Point]) -> ResidualEvaluation | None:
    """After the step that the model would take next; None where that leads no lower.

    An optimum is evaluated once more in any case, in the units of a fit. What the step gains is
    next to nothing, but fixed effects move with the parameters in first order.
    """
    point, space, n = result.point, result.point.space, len(result.x)
    if result.stopped != "converged" or not n:
        return None
    step, _ = point.model().minimise(np.zeros((n, n)), result.radius)
    both, _, _ = space.parameters(space.uncoupled(result.x + step)[0])
    m = len(space.eta)
    T = space.parameterisation.factors(both[:m])
    try:
        there = _in_units_at_zero(space.rows, T, both[m:], space.reml)
    except (NotPositiveDefiniteError, np.linalg.LinAlgError):
        return None
    is_lower = there.deviance <= point.value + point.evaluation.rounding
    return there if is_lower and has_digits(there) else None


def _with_unit_at_zero(evaluation: ResidualEvaluation) -> ResidualEvaluation:
    """The same point with sigma the standard deviation where v is zero, not a mean."""
    if evaluation.design.known_variance is not None:
        return evaluation
    here = evaluation.at_theta
    return _in_units_at_zero(evaluation.design, here.T, evaluation.phi, here.reml)


def _in_units_at_zero(
    rows: ResidualRows, T: Sequence[Matrix], phi: Matrix, reml: bool
) -> ResidualEvaluation:
    """At factors relative to the mean of a search, with sigma as `_with_unit_at_zero` has it."""
    if rows.known_variance is not None:
        return evaluate_residual(rows, T, phi, reml)
    moved, log_factor = rows.with_unit_at_zero(phi)
    return evaluate_residual(moved, [own * math.exp(log_factor) for own in T], phi, reml)


def _start(rows: ResidualRows, reml: bool) -> tuple[list[Matrix], Matrix]:
    """Factors by moments without correlations, and parameters by those of what is left."""
    weights = rows.model.weights
    logdet = 0.0 if weights is None else -float(np.log(weights).sum())
    A = rows.crossproducts(rows.weighted(weights), logdet)
    T = starting_factors(A, reml) if rows.term_columns else []
    here = evaluate(A, T, reml)
    solution = here.factorisation.solution
    return T, rows.model.start(rows.residuals(A.by_term(solution.b), solution.beta))
