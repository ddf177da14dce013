"""The optimum of the deviance where random effects have a covariance structure.

A search moves on one face of the parameter space at a time, without bounds (see `Face`). What ends
close to a bound is put on it, and where the deviance falls on a way off the bounds the search goes
on there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.boundary import SLACK, boundary_score, put_on_bounds
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.face import Face, FacePoint
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.optimum import Control, Optimum, record
from mixedeffects.engine.parameterisation import Parameterisation
from mixedeffects.engine.start import starting_factors
from mixedeffects.engine.structured_point import StructuredPoint, has_many_columns
from mixedeffects.engine.telling import Progress, Teller
from mixedeffects.engine.trust_region import Iterate, minimise

__all__ = ["Search", "find_structured_optimum"]

Matrix = NDArray[np.float64]

#: Faces that one search may go through for every parameter.
_FACES = 2
#: Further starts that are drawn, and how many in turn may find nothing new.
_DRAWN, _IN_VAIN, _SEED = 8, 4, 20
#: Starts from minima on grids.
_FROM_GRIDS = 5
#: How far off a bound to start, and how often from a new optimum.
_AWAY, _ROUNDS = 0.2, 2
#: Predicted decrease from which on predictions are good.
_LOCAL = 0.05
#: Random effects, and rows of the dense core, up to which evaluations are cheap.
_FEW_EFFECTS, _SMALL_CORE = 2_000, 100
#: Relative difference of parameters that are on their way to the same minimum.
_SAME = 0.02
#: Decrease of the deviance that is nothing to go on for.
_NOTHING = 1e-8
#: Step of the differences of gradients.
_DIFFERENCE = 1e-4
#: Relative standard deviation that a search goes to at first, how much further it goes where the
#: deviance still falls, and where that ends.
_LARGEST, _FURTHER, _NO_END = 3e3, 20.0, 1e7
#: Relative standard deviation from which the residual variance may be on its way to zero, and the
#: change of the deviance that does not speak against it when the former doubles.
_SUSPICIOUS, _HARDLY = 300.0, 0.01


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
    search = Search(A, reml, parameterisation, control or Control(), progress)
    best = search.descend(search.best_start() if start is None else parameterisation.nearest(start))
    search.is_unbounded = best.falls_without_end
    if best.result.stopped != "evaluations":
        best = search.from_elsewhere(best, given=start is not None)
    if search.path[-1] != best.point.value:
        search.path.append(best.point.value)
    point = best.point
    gradient = np.zeros(parameterisation.n_parameters)
    gradient[best.face.free] = _in_natural_steps(best)
    point.eta = parameterisation.canonical(point.eta)
    return record(
        point.evaluation,
        tuple(lower_factor(T) for T in point.T),
        gradient=gradient,
        scale=np.ones(len(gradient)),
        parameters=point.eta,
        result=best.result,
        evaluations=search.evaluations,
        iterations=best.iterations,
        null_score=best.score,
        path=tuple(value + search.offset for value in search.path),
        parameterisation=parameterisation,
        residual_vanishes=best.residual_vanishes,
        observed=best.is_surely_at_rest,
        search_evaluations=best.evaluations,
        starts=search.starts,
        agreed=search.agreed,
        unbounded=search.is_unbounded,
    )


@dataclass(frozen=True, eq=False)
class _Descent:
    """Where one search ended.

    On which face, the last steps there, whether it is certain that nothing is left to gain there,
    the score off the face, whether the residual variance goes to zero, and whether the deviance
    then falls without end.
    """

    point: StructuredPoint
    face: Face
    result: Iterate[FacePoint]
    is_surely_at_rest: bool
    score: float | None
    residual_vanishes: bool = False
    falls_without_end: bool = False
    evaluations: int = 0
    iterations: int = 0


class _KnownMinimumError(Exception):
    """A descent is on its way to where another one ended, or will end above that."""

    def __init__(self, same: bool) -> None:
        super().__init__()
        self.same = same


class Search:
    """Descents that share a budget of evaluations and a record."""

    def __init__(
        self,
        A: CrossProducts,
        reml: bool,
        parameterisation: Parameterisation,
        control: Control,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.A, self.reml, self.parameterisation = A, reml, parameterisation
        self.control = control
        self.offset = A.basis.deviance_offset(A.n, A.p, reml)
        self.teller = Teller(progress, self.offset)
        self.path: list[float] = []
        self.evaluations = self.iterations = 0
        #: Starts so far, and how many of them led to the lowest minimum.
        self.starts = self.agreed = 1
        #: Whether some descent fell without end.
        self.is_unbounded = False
        self._most = self.control.max_evaluations
        self._last: StructuredPoint | None = None
        self._known: StructuredPoint | None = None

    @property
    def is_exhausted(self) -> bool:
        """Whether the present descent has no evaluation left."""
        return self.evaluations >= self._most

    def point_at(self, eta: Matrix) -> StructuredPoint | None:
        """One evaluation; None where there is no deviance."""
        last = self._last
        if last is not None and np.array_equal(last.eta, eta):
            return last
        self.evaluations += 1
        try:
            point = StructuredPoint(self.A, self.parameterisation, eta, self.reml)
        except NotPositiveDefiniteError:
            return None
        if not np.isfinite(point.value):
            return None
        self._last = point
        return point

    def descend(self, eta: Matrix) -> _Descent:
        """To a minimum; what it took is recorded with it."""
        evaluations, iterations = self.evaluations, self.iterations
        found = self._to_the_end(eta)
        return replace(
            found,
            evaluations=self.evaluations - evaluations,
            iterations=self.iterations - iterations,
        )

    def _to_the_end(self, eta: Matrix) -> _Descent:
        """To a minimum, or as far as standard deviations can grow.

        Where the standard deviations grow beyond all bounds beside the residual one, and the
        deviance hardly changes any more, its limit is that of a model without residual variance.
        """
        largest = _LARGEST
        while True:
            found = self._within(self._clipped(eta, largest), largest)
            size = self._largest_deviation(found.point.eta)
            if size < _SUSPICIOUS or self.is_exhausted:
                return found
            ahead = [self.parameterisation.scaled(found.point.eta, by) for by in (1.4, 2.0)]
            points = [self.point_at(each) for each in ahead]
            falls = [-np.inf if p is None else found.point.value - p.value for p in points]
            if max(map(abs, falls)) <= _HARDLY:
                return replace(found, residual_vanishes=True)
            if max(falls) < 0.0 and size < 0.9 * largest:
                return found
            if largest >= _NO_END:
                return replace(found, residual_vanishes=True, falls_without_end=True)
            best = int(np.argmax(falls))
            eta = ahead[best] if falls[best] > 0.0 else found.point.eta
            largest *= _FURTHER

    def from_elsewhere(self, best: _Descent, given: bool) -> _Descent:
        """The best of descents from other starts, until several in turn have found nothing new.

        Correlations and variances at their bounds can make minima of their own. Where evaluations
        are expensive, or a start was given, only an optimum at the boundary is doubted.

        Parameters
        ----------
        best : _Descent
            The first.
        given : bool
            Whether its start was given.
        """
        p = self.parameterisation
        if not given and p.has_correlation and self._is_cheap():
            best = self._best_of(best, self._grid_minima(best.point.eta))
            if p.n_parameters > 2:
                rng = np.random.default_rng(_SEED)
                drawn = [p.drawn(rng) for _ in range(_DRAWN)]
                best = self._best_of(best, drawn, patience=_IN_VAIN)
            ways = _off_bounds
        else:
            ways = _elsewhere
        for _ in range(_ROUNDS):
            better = self._best_of(best, ways(best.point))
            if better is best:
                break
            best = better
        return self._finished(best)

    def _finished(self, best: _Descent) -> _Descent:
        """The same, gone on with once if its evaluations were used up in a narrow valley."""
        if best.result.stopped != "evaluations":
            return best
        self._most = self.evaluations + self.control.max_evaluations
        further = self.descend(best.point.eta)
        if not _is_better(further, best) and further.result.stopped == "evaluations":
            return best
        return replace(
            further,
            evaluations=best.evaluations + further.evaluations,
            iterations=best.iterations + further.iterations,
        )

    def _best_of(
        self, best: _Descent, starts: Sequence[Matrix], patience: int | None = None
    ) -> _Descent:
        """The best of descents from some starts and the one given."""
        vain = 0
        for start in starts:
            self._most = self.evaluations + self.control.max_evaluations
            self._known = None if best.falls_without_end else best.point
            self.starts += 1
            vain += 1
            try:
                found = self.descend(start)
            except _KnownMinimumError as known:
                self.agreed += known.same
            except ArithmeticError:
                pass
            else:
                self.is_unbounded |= found.falls_without_end
                if _is_better(found, best):
                    best, vain, self.agreed = found, 0, 1
                elif found.point.value < best.point.value + SLACK:
                    self.agreed += 1
            if vain == patience:
                break
        self._known = None
        return best

    def _grid_minima(self, eta: Matrix) -> list[Matrix]:
        """Starts from grids of sizes and correlations, term by term.

        Where the deviance is lowest; and where there is little variance and the correlation is
        close to either end of its range: many a minimum is a short way from no variance at all.
        Where all columns of a term are of one size, others without variance are of that size too:
        two terms that share an effect may each have none without the other.
        """
        p = self.parameterisation
        parts = p.split(eta)
        found: list[tuple[float, Matrix]] = []
        ends: list[Matrix] = []
        for t, term in enumerate(p.terms):
            grids = term.grids(parts[t])
            for number, grid in enumerate(grids):
                etas = [
                    np.concatenate([*parts[:t], own, *parts[t + 1 :]])
                    for own in grid.reshape(-1, grid.shape[-1])
                ]
                if number > 0:
                    sizes = grid[:, :, 0].ravel().tolist()
                    etas = [p.with_variances(*each) for each in zip(etas, sizes, strict=True)]
                points = [self.point_at(each) for each in etas]
                values = np.array([np.inf if each is None else each.value for each in points])
                found += [(values[i], etas[i]) for i in _local_minima(values, grid.shape[:2])]
            if grids:
                ends += [etas[0], etas[grid.shape[1] - 1]]
        found.sort(key=lambda each: each[0])
        return [each for _, each in found[:_FROM_GRIDS]] + ends

    def _is_cheap(self) -> bool:
        """Whether an evaluation takes no time to speak of."""
        effects = sum(factor.n_levels * factor.k for factor in self.A.factors)
        return effects <= _FEW_EFFECTS and self.A.remainder.core_size <= _SMALL_CORE

    def _largest_deviation(self, eta: Matrix) -> float:
        return float(np.abs(eta[self.parameterisation.is_deviation]).max(initial=0.0))

    def _clipped(self, eta: Matrix, largest: float) -> Matrix:
        too_large = self._largest_deviation(eta) / largest
        return self.parameterisation.scaled(eta, 0.5 / too_large) if too_large > 0.5 else eta

    def _within(self, eta: Matrix, largest: float) -> _Descent:
        """To a minimum without very large standard deviations, from face to face."""
        surely = False
        for _ in range(_FACES * self.parameterisation.n_parameters + 2):
            face = Face(self.parameterisation, eta, largest)
            result, surely = self._minimise(face)
            inner = result.point.inner
            point = put_on_bounds(self.point_at, inner)
            score = None
            if point is not inner and not self.is_exhausted:
                eta = point.eta
                continue
            found = boundary_score(self.point_at, point)
            score = found.score
            if found.escape is None or self.is_exhausted:
                break
            self._last, eta = found.escape, found.escape.eta
        return _Descent(point, face, result, surely, score)

    def _minimise(self, face: Face) -> tuple[Iterate[FacePoint], bool]:
        """To a minimum on one face, and whether it is certain that nothing is left to gain."""

        def point_at(z: Matrix) -> FacePoint | None:
            inner = self.point_at(face.parameters(z)[0])
            return None if inner is None else FacePoint(face, z, inner)

        x, m = face.start, len(face.free)
        if m == 0:
            point = point_at(x)
            if point is None:
                raise ArithmeticError("The objective cannot be evaluated at the starting value.")
            return Iterate(x, point, 1, 0, 0.0, 0.0, "converged"), True
        radius = float(np.sqrt(m))
        correction = None
        while True:
            result = minimise(
                point_at,
                x,
                tolerance=self.control.tolerance,
                max_evaluations=max(self._most - self.evaluations, 1),
                radius=radius,
                report=self._report,
                correction=correction,
                natural=True,
            )
            self.iterations += result.iterations
            point = result.point
            if result.stopped == "evaluations":
                return result, False
            if self._is_surely_at_rest(point):
                return result, True
            if correction is not None and result.iterations == 0:
                return result, result.predicted < _NOTHING
            if self.evaluations + m >= self._most:
                return result, False
            # The model may owe its confidence to what it learnt elsewhere.
            x, radius = result.x, 1.0
            observed = self._observed_hessian(point, point_at)
            correction = observed - point.model().at(np.zeros(m), np.zeros((m, m)))[2]
            self._last = point.inner

    def _is_surely_at_rest(self, point: FacePoint) -> bool:
        """Whether the model, without anything it learnt, sees nothing to gain within a step."""
        m = len(point.z)
        return point.model().minimise(np.zeros((m, m)), 1.0)[1] < _NOTHING

    def _observed_hessian(
        self, point: FacePoint, point_at: Callable[[Matrix], FacePoint | None]
    ) -> Matrix:
        """Second derivatives by differences of gradients."""
        columns = []
        for direction in np.eye(len(point.z)):
            # Downhill, where a search stays too.
            step = -np.copysign(_DIFFERENCE, direction @ point.gradient)
            there = point_at(point.z + step * direction)
            change = np.zeros(len(point.z)) if there is None else there.gradient - point.gradient
            columns.append(change / step)
        H = np.array(columns)
        return np.asarray(0.5 * (H + H.T))

    def _report(self, iterate: Iterate[FacePoint]) -> None:
        value = iterate.point.value
        known = self._known
        if known is not None:
            eta = iterate.point.inner.eta
            near = np.abs(eta - known.eta) <= _SAME * (_SAME + np.abs(known.eta))
            if value >= known.value - SLACK and near.all():
                raise _KnownMinimumError(same=True)
            if iterate.predicted < _LOCAL and value - 4.0 * iterate.predicted > known.value:
                raise _KnownMinimumError(same=False)
            return
        if self.path and abs(value - self.path[-1]) <= 1e-14 * abs(self.path[-1]):
            return
        self.path.append(value)
        if self.teller.is_heard:
            self.teller.tell(
                len(self.path) - 1,
                self.evaluations,
                value,
                iterate.point.gradient,
                iterate.point.inner.T,
            )

    def best_start(self) -> Matrix:
        """Moment estimates, with the correlations that do best, one term after another."""
        factors = starting_factors(self.A, self.reml, has_many_columns(self.A))
        self.evaluations += 1
        pairs = zip(self.parameterisation.terms, factors, strict=True)
        candidates = [term.starts(T) for term, T in pairs]
        chosen = [own[0] for own in candidates]
        for t, own in enumerate(candidates):
            if len(own) == 1 or self.evaluations + len(own) >= self.control.max_evaluations:
                continue
            values = []
            for candidate in own:
                point = self.point_at(np.concatenate([*chosen[:t], candidate, *chosen[t + 1 :]]))
                values.append(np.inf if point is None else point.value)
            chosen[t] = own[int(np.argmin(values))]
        return np.concatenate(chosen)


def _in_natural_steps(found: _Descent) -> Matrix:
    """The gradient along steps of one, or shorter ones where these change the deviance by more."""
    point = found.result.point
    m = len(point.z)
    if m == 0:
        return point.gradient
    bent = np.abs(np.diag(point.model().at(np.zeros(m), np.zeros((m, m)))[2]))
    return np.asarray(point.gradient / np.sqrt(np.maximum(bent / max(abs(point.value), 1.0), 1.0)))


def _is_better(found: _Descent, best: _Descent) -> bool:
    """Whether to prefer where a descent ended: any minimum to none."""
    if found.falls_without_end or best.falls_without_end:
        return best.falls_without_end and not found.falls_without_end
    return found.point.value < best.point.value - SLACK


def _local_minima(values: Matrix, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Positions on a grid of two dimensions that are lower than all their neighbours."""
    framed = np.pad(values.reshape(shape), 1, constant_values=np.inf)
    around = np.lib.stride_tricks.sliding_window_view(framed, (3, 3)).reshape(-1, 9)
    return np.flatnonzero((np.argmin(around, axis=1) == 4) & np.isfinite(values))


def _off_bounds(point: StructuredPoint) -> list[Matrix]:
    """Other starts a way off each bound that a term is on, and off all of them at once."""
    parts = point.parameterisation.split(point.eta)
    found = [
        np.concatenate([*parts[:t], other, *parts[t + 1 :]])
        for t, term in enumerate(point.parameterisation.terms)
        for other in term.off_bounds(parts[t], _AWAY)
    ]
    if len(found) > 1:
        changes = np.array(found) - point.eta
        # Two of them may move the same parameter.
        largest = np.abs(changes).argmax(axis=0)
        found.append(point.eta + changes[largest, np.arange(len(largest))])
    return found


def _elsewhere(point: StructuredPoint) -> list[Matrix]:
    """Other starts for the terms whose correlation or standard deviations are at a bound."""
    parts = point.parameterisation.split(point.eta)
    return [
        np.concatenate([*parts[:t], other, *parts[t + 1 :]])
        for t, term in enumerate(point.parameterisation.terms)
        for other in term.elsewhere(parts[t])
    ]
