"""The optimum of the deviance where random effects have a covariance structure.

The parameters eta are those of `Parameterisation`. With F the matrix score of d in Sigma, the
gradient is ``<F, dSigma/deta>``; around a point the deviance is modelled by

    ``<F, Delta> + a'H a / 2``,   ``Delta = Sigma(eta + step) - Sigma(eta)``,

with a the coordinates of Delta in an orthonormal basis of the tangent space at eta and H the
average information there. Delta is exact, so the model knows how the structure bends. Standard
deviations and correlations may have bounds; there the gradient need only point outwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.objective import evaluate
from mixedeffects.engine.optimum import SINGULAR, Control, Optimum, Progress, record
from mixedeffects.engine.parameterisation import Parameterisation
from mixedeffects.engine.start import starting_factors
from mixedeffects.engine.trust_region import Iterate, minimise

__all__ = ["StructuredModel", "StructuredPoint", "bounded_step", "find_structured_optimum"]

Matrix = NDArray[np.float64]

#: Directions of the tangent space below this, relative to the largest, are none.
_FLAT = 1e-10
#: Columns on one factor from which information is only computed along the structure.
_MANY_COLUMNS = 8
#: Newton steps on the model before the deviance is computed again.
_MODEL_STEPS = 25
#: Decreases of the model that are lost in its rounding.
_RESOLUTION = 1e-13
_MAX_RESTARTS = 3
#: Relative score below which more variance would lower the deviance.
_NEGATIVE = -1e-6
#: Standard deviations to try in place of zero, relative to sigma.
_LITTLE, _MORE = 1e-4, 0.1
#: Difference of deviances that is more than rounding.
_SLACK = 1e-8


def _has_many_columns(A: CrossProducts) -> bool:
    """Whether a structure has far fewer directions than its covariance has entries."""
    return max(factor.k for factor in A.factors) > _MANY_COLUMNS


class StructuredPoint:
    """One evaluation, as the trust region wants it."""

    def __init__(
        self, A: CrossProducts, parameterisation: Parameterisation, eta: Matrix, reml: bool
    ) -> None:
        self.parameterisation = parameterisation
        self.eta = eta
        self.T = parameterisation.factors(eta)
        self.evaluation = evaluate(A, self.T, reml, _has_many_columns(A))
        self.value = self.evaluation.deviance
        self.gradient = parameterisation.gradient(eta, self.evaluation.score)

    def model(self) -> StructuredModel:
        """Model of the deviance around this point."""
        parts = self.parameterisation.split(self.eta)
        bases: list[Matrix] = []
        for term, own in zip(self.parameterisation.terms, parts, strict=True):
            flat = term.derivatives(own).reshape(len(own), -1)
            _, values, right = np.linalg.svd(flat, full_matrices=False)
            kept = right[values > _FLAT * max(float(values[0]), 1.0)]
            k = self.evaluation.score[len(bases)].shape[0]
            bases.append(np.ascontiguousarray(kept.reshape(-1, k, k)))
        return StructuredModel(
            self.parameterisation,
            self.eta,
            tuple(self.evaluation.score),
            tuple(bases),
            self.evaluation.information_along(bases),
        )

    def projected_gradient(self) -> Matrix:
        """The gradient without what points out of the bounds."""
        p, g = self.parameterisation, self.gradient
        outward = ((self.eta <= p.lower) & (g > 0.0)) | ((self.eta >= p.upper) & (g < 0.0))
        return np.where(outward, 0.0, g)


@dataclass(frozen=True, eq=False)
class StructuredModel:
    """Model of the deviance around eta; see the module.

    Attributes
    ----------
    parameterisation : Parameterisation
        The parameters.
    eta : ndarray, shape (m,)
        Where.
    score : tuple of ndarray (k, k)
        F per term.
    bases : tuple of ndarray (r, k, k)
        Orthonormal bases of the tangent spaces.
    information : ndarray
        Average information along all of them.
    """

    parameterisation: Parameterisation
    eta: Matrix
    score: tuple[Matrix, ...]
    bases: tuple[Matrix, ...]
    information: Matrix

    def at(self, step: Matrix, correction: Matrix) -> tuple[float, Matrix, Matrix]:
        """Change of d, gradient and Hessian of the model after a step."""
        p = self.parameterisation
        here, there = p.split(self.eta), p.split(self.eta + step)
        changes = [
            term.covariance(new) - term.covariance(old)
            for term, old, new in zip(p.terms, here, there, strict=True)
        ]
        a = np.concatenate(
            [np.einsum("rab,ab->r", U, D) for U, D in zip(self.bases, changes, strict=True)]
        )
        Ha = self.information @ a
        value = float(sum(np.vdot(F, D) for F, D in zip(self.score, changes, strict=True)))
        value += 0.5 * float(a @ Ha) + 0.5 * float(step @ correction @ step)
        gradients, hessians, tangents = [], [], []
        start = 0
        for term, own, F, U in zip(p.terms, there, self.score, self.bases, strict=True):
            pull = F + np.einsum("r,rab->ab", Ha[start : start + len(U)], U)
            start += len(U)
            gradient, hessian = term.contract(own, pull)
            gradients.append(gradient)
            hessians.append(hessian)
            tangents.append(np.einsum("rab,mab->rm", U, term.derivatives(own)))
        J = scipy.linalg.block_diag(*tangents)
        gradient = np.concatenate(gradients) + correction @ step
        hessian = scipy.linalg.block_diag(*hessians) + J.T @ self.information @ J + correction
        return value, gradient, np.asarray(hessian)

    def minimise(self, correction: Matrix, radius: float) -> tuple[Matrix, float]:
        """Step within radius and bounds that makes the model small, and the decrease it predicts.

        Newton steps on the model, each the minimum of its quadratic part within what is left of the
        radius.
        """
        p = self.parameterisation
        step = np.zeros(len(self.eta))
        value, gradient, hessian = self.at(step, correction)
        left = radius
        for _ in range(_MODEL_STEPS):
            low, high = p.lower - self.eta - step, p.upper - self.eta - step
            move = bounded_step(gradient, hessian, low, high, left)
            expected = -float(gradient @ move + 0.5 * move @ hessian @ move)
            if expected <= max(_RESOLUTION, -1e-6 * value):
                break
            trial = self.at(step + move, correction)
            if trial[0] > value - 0.1 * expected:
                left = 0.25 * float(np.linalg.norm(move))
                if left < 1e-12 * radius:
                    break
                continue
            step = step + move
            value, gradient, hessian = trial
            left = min(left, radius - float(np.linalg.norm(step)))
            if left < 0.01 * radius:
                break
        return step, max(-value, 0.0)


def bounded_step(
    gradient: Matrix, hessian: Matrix, low: Matrix, high: Matrix, radius: float
) -> Matrix:
    """A step that lowers a quadratic within a ball and a box around zero.

    Coordinates that the minimum within the ball puts outside the box are set to their bound one
    round after another, and the others minimised again. Not always the very minimum, but never
    above the value at zero.
    """
    fixed = ((low >= 0.0) & (gradient > 0.0)) | ((high <= 0.0) & (gradient < 0.0))
    step = np.zeros(len(gradient))
    for _ in range(len(gradient) + 1):
        free = ~fixed
        if not free.any():
            break
        pulled = gradient[free] + hessian[np.ix_(free, fixed)] @ step[fixed]
        room = radius**2 - float(step[fixed] @ step[fixed])
        if room <= 0.0:
            step[free] = 0.0
            break
        step[free] = _ball_step(pulled, hessian[np.ix_(free, free)], float(np.sqrt(room)))
        outside = free & ((step < low) | (step > high))
        if not outside.any():
            break
        step = np.clip(step, low, high)
        fixed = fixed | outside
    if gradient @ step + 0.5 * step @ hessian @ step <= 0.0:
        return step
    return _along_gradient(gradient, hessian, low, high, radius)


def _along_gradient(
    gradient: Matrix, hessian: Matrix, low: Matrix, high: Matrix, radius: float
) -> Matrix:
    """The best of shorter and shorter steps down the gradient, cut off at the bounds."""
    size = float(np.linalg.norm(gradient))
    length = radius / size if size > 0.0 else 0.0
    for _ in range(60):
        step = np.clip(-length * gradient, low, high)
        if gradient @ step + 0.5 * step @ hessian @ step < 0.0:
            return step
        length *= 0.25
    return np.zeros(len(gradient))


def _ball_step(gradient: Matrix, hessian: Matrix, radius: float) -> Matrix:
    """Minimum of a quadratic, convex or not, within a ball."""
    values, vectors = np.linalg.eigh(hessian)
    q = vectors.T @ gradient

    def step(shift: float) -> Matrix:
        below = values + shift
        return np.divide(-q, below, out=np.zeros_like(q), where=below > 0.0)

    smallest = float(values[0])
    size = max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
    if smallest > 1e-14 * size:
        inside = step(0.0)
        if float(np.linalg.norm(inside)) <= radius:
            return np.asarray(vectors @ inside)
    least = max(0.0, -smallest)
    low, high = least + 1e-13 * size, least + float(np.linalg.norm(q)) / radius + size
    at_least = step(low)
    length = float(np.linalg.norm(at_least))
    if length < radius:
        # The hard case: along the lowest curvature the gradient says nothing.
        if smallest < 0.0:
            at_least[0] += np.sqrt(radius**2 - length**2) * (-1.0 if q[0] > 0.0 else 1.0)
        return np.asarray(vectors @ at_least)
    for _ in range(100):
        middle = 0.5 * (low + high) if high < 4.0 * low else float(np.sqrt(low * high))
        if np.linalg.norm(step(middle)) > radius:
            low = middle
        else:
            high = middle
        if high - low <= 1e-10 * high:
            break
    return np.asarray(vectors @ step(high))


def find_structured_optimum(
    A: CrossProducts,
    reml: bool,
    parameterisation: Parameterisation,
    *,
    start: Sequence[Matrix] | None = None,
    control: Control | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Optimum:
    """Minimise the profiled deviance over the parameters; as `find_optimum`.

    Parameters
    ----------
    A, reml, start, control, progress
        As for `find_optimum`; the start is brought into the structure.
    parameterisation : Parameterisation
        The parameters of the terms in A's basis.
    """
    control = control or Control()
    offset = A.basis.deviance_offset(A.n, A.p, reml)
    began = time.perf_counter()
    path: list[float] = []
    evaluations = 0

    def point_at(eta: Matrix) -> StructuredPoint | None:
        inside = np.clip(eta, parameterisation.lower, parameterisation.upper)
        try:
            point = StructuredPoint(A, parameterisation, inside, reml)
        except NotPositiveDefiniteError:
            return None
        return point if np.isfinite(point.value) else None

    if start is None:
        eta, evaluations = _best_start(A, reml, parameterisation, point_at, control)
    else:
        eta = parameterisation.nearest(start)

    def report(iterate: Iterate[StructuredPoint]) -> None:
        if path and abs(iterate.point.value - path[-1]) <= 1e-14 * abs(path[-1]):
            return
        path.append(iterate.point.value)
        if progress is not None:
            progress(
                Progress(
                    len(path) - 1,
                    evaluations + iterate.evaluations,
                    iterate.point.value + offset,
                    float(np.abs(iterate.point.projected_gradient()).max()),
                    time.perf_counter() - began,
                )
            )

    iterations = 0

    def descend(eta: Matrix) -> _Descent:
        """To a minimum, and out of it again where the boundary holds the search up."""
        nonlocal evaluations, iterations
        for _restart in range(_MAX_RESTARTS + 1):
            result = minimise(
                point_at,
                eta,
                tolerance=control.tolerance,
                max_evaluations=max(control.max_evaluations - evaluations, 1),
                radius=float(np.sqrt(len(eta))),
                report=report,
            )
            evaluations += result.evaluations
            iterations += result.iterations
            point, extra = _snapped(point_at, result.point)
            score, escape, tried = _boundary_score(point_at, point)
            evaluations += extra + tried
            if escape is None or evaluations >= control.max_evaluations:
                break
            eta = escape
        return _Descent(point, result, score)

    best = descend(eta)
    # With correlations the boundary can have minima of its own.
    for other in _elsewhere(best.point):
        if evaluations >= control.max_evaluations:
            break
        found = descend(other)
        if found.point.value < best.point.value - _SLACK:
            best = found
    if path[-1] != best.point.value:
        path.append(best.point.value)
    point = best.point
    point.eta = parameterisation.canonical(point.eta)
    return record(
        point.evaluation,
        tuple(lower_factor(T) for T in point.T),
        gradient=point.projected_gradient(),
        parameters=point.eta,
        result=best.result,
        evaluations=evaluations,
        iterations=iterations,
        null_score=best.score,
        path=tuple(value + offset for value in path),
        parameterisation=parameterisation,
    )


@dataclass(frozen=True, eq=False)
class _Descent:
    """Where one search ended."""

    point: StructuredPoint
    result: Iterate[StructuredPoint]
    score: float | None


def _elsewhere(point: StructuredPoint) -> list[Matrix]:
    """Other starts for the terms whose correlation or standard deviations are at a bound."""
    parts = point.parameterisation.split(point.eta)
    return [
        np.concatenate([*parts[:t], other, *parts[t + 1 :]])
        for t, term in enumerate(point.parameterisation.terms)
        for other in term.elsewhere(parts[t])
    ]


def _best_start(
    A: CrossProducts,
    reml: bool,
    parameterisation: Parameterisation,
    point_at: Callable[[Matrix], StructuredPoint | None],
    control: Control,
) -> tuple[Matrix, int]:
    """Moment estimates, with the correlations that do best, one term after another."""
    factors = starting_factors(A, reml, _has_many_columns(A))
    evaluations = 1
    pairs = zip(parameterisation.terms, factors, strict=True)
    candidates = [term.starts(T) for term, T in pairs]
    chosen = [own[0] for own in candidates]
    for t, own in enumerate(candidates):
        if len(own) == 1 or evaluations + len(own) >= control.max_evaluations:
            continue
        values = []
        for candidate in own:
            point = point_at(np.concatenate([*chosen[:t], candidate, *chosen[t + 1 :]]))
            values.append(np.inf if point is None else point.value)
            evaluations += 1
        chosen[t] = own[int(np.argmin(values))]
    return np.concatenate(chosen), evaluations


def _snapped(
    point_at: Callable[[Matrix], StructuredPoint | None], point: StructuredPoint
) -> tuple[StructuredPoint, int]:
    """Make a variance that is next to nothing exactly zero, if the deviance agrees."""
    eta = point.parameterisation.snapped(point.eta, SINGULAR)
    if np.array_equal(eta, point.eta):
        return point, 0
    trial = point_at(eta)
    slack = 1e-12 * max(1.0, abs(point.value)) + 1e-9
    if trial is not None and trial.value <= point.value + slack:
        return trial, 1
    return point, 1


def _boundary_score(
    point_at: Callable[[Matrix], StructuredPoint | None], point: StructuredPoint
) -> tuple[float | None, Matrix | None, int]:
    """Smallest relative one-sided score where the structure is at its boundary, and a way out.

    The boundary: variances of zero, and correlations at the end of their range. The directions are
    those that stay within the structure. Where columns are correlated, variance added to one of
    them can raise the deviance at first and lower it later; that is tried. Also the evaluations.
    """
    p, evaluation = point.parameterisation, point.evaluation
    parts = p.split(point.eta)
    scores: list[float] = []
    escape: Matrix | None = None
    tried = 0
    for t, (term, own) in enumerate(zip(p.terms, parts, strict=True)):
        F, CC = evaluation.score[t], evaluation.outer_products[t]
        size = max(float(np.linalg.norm(F + CC)), np.finfo(np.float64).tiny)
        here = term.covariance(own)

        derivatives = term.derivatives(own)
        little, more = term.more_variance(own, _LITTLE), term.more_variance(own, _MORE)
        for near, far in zip(little, more, strict=True):
            change = term.covariance(near) - here
            tangent = np.einsum("r,rab->ab", near - own, derivatives)
            # Where there is a first derivative the score of the bound, below, is the condition.
            first_order = np.linalg.norm(tangent) > 0.5 * np.linalg.norm(change)
            score = 0.0 if first_order else _relative(F, change, size)
            there = np.concatenate([*parts[:t], far, *parts[t + 1 :]])
            down = _relative(F, term.covariance(far) - here, size)
            if score >= _NEGATIVE and down < _NEGATIVE:
                trial = point_at(there)
                tried += 1
                if trial is not None and trial.value < point.value - _SLACK:
                    score = down
            if not first_order or score < _NEGATIVE:
                scores.append(score)
            if score < _NEGATIVE and score == min(scores):
                escape = there
        inward = np.where(own <= term.lower, 1.0, np.where(own >= term.upper, -1.0, 0.0))
        steps = [sign * step for sign, step in zip(inward, derivatives, strict=True)]
        scores += [_relative(F, step, size) for step in steps if step.any()]
    return (min(scores) if scores else None), escape, tried


def _relative(F: Matrix, change: Matrix, size: float) -> float:
    """Derivative of the deviance along a change of Sigma, relative to the size of both."""
    length = float(np.linalg.norm(change))
    return float(np.vdot(F, change)) / (size * length) if length > 0.0 else 0.0
