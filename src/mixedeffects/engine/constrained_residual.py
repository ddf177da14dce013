"""The deviance minimised with one parameter of the residuals held, or a fixed effect beside them.

Each is the fit of another model, which has the parameter no more, by the search that fits them all:

* a correlation, range or nugget: a family without it (`held_families`);
* a coefficient of the logarithm of the standard deviation: its column goes into the weights;
* sigma, the standard deviation where the columns v are zero: a model whose sigma is known;
* the standard deviation of another cell or time: that one is made the one v is zero at, first;
* a fixed effect: its column, times the value, goes into the offset.

Maximum likelihood, and exact: nothing is approximated but the minimum by the search's tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.constrained import Constrained
from mixedeffects.engine.crossproducts import EngineTerm
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.held_families import HeldFamily, HeldPair, Reordered, held
from mixedeffects.engine.optimum import Optimum
from mixedeffects.engine.parameters import T_to_theta, theta_to_T
from mixedeffects.engine.residual_families import Family, Unstructured
from mixedeffects.engine.residual_model import ResidualDesign, ResidualModel
from mixedeffects.engine.residual_objective import ResidualEvaluation
from mixedeffects.engine.residual_point import ResidualPoint, log_unit
from mixedeffects.engine.residual_rows import ResidualRows
from mixedeffects.engine.residual_search import find_residual_optimum

__all__ = [
    "HeldColumn",
    "HeldDeviation",
    "HeldPairOfTimes",
    "HeldPlace",
    "HeldSigma",
    "HeldTime",
    "ResidualCoefficient",
    "optimum_from",
]

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

#: A deviance predicted to fall by no more than this is a minimum for the purpose.
_ENOUGH = 1e-7
_NO_SCORE = -1e-6


def _found_from(rows: ResidualRows, start: Vector) -> tuple[Optimum, ResidualEvaluation]:
    """The optimum by maximum likelihood, from theta and the coordinates of a search."""
    count = len(start) - rows.model.n_parameters
    T = [lower_factor(each) for each in theta_to_T(start[:count], rows.term_columns)]
    phi, _, _ = rows.model.bounded(start[count:])
    optimum = find_residual_optimum(rows, False, start=(T, phi))
    evaluation = optimum.residual
    assert evaluation is not None
    return optimum, evaluation


def optimum_from(rows: ResidualRows, found: Constrained) -> Optimum:
    """The optimum of the whole model, from a point of its profile.

    Parameters
    ----------
    rows : ResidualRows
        As `searched_rows` makes them.
    found : Constrained
        Where to start.
    """
    assert found.residual is not None
    phi = found.residual.phi(rows.model)
    start = _in_search(rows, found.T, phi)
    return find_residual_optimum(rows, False, start=(start, phi))


def _in_search(rows: ResidualRows, T: Sequence[Matrix], phi: Matrix) -> list[Matrix]:
    """Factors relative to the sigma of a search, lower triangular."""
    ratio = float(np.exp(log_unit(rows.model, phi)))
    return [lower_factor(ratio * own) for own in T]


def _with_known_sigma(rows: ResidualRows, model: ResidualModel, sigma: float) -> ResidualRows:
    """The rows with a residual standard deviation that is known, in the engine's scale."""
    _ = rows.sums
    out = rows.with_model(model)
    out.known_variance = sigma**2
    return out


class HeldResidual:
    """A parameter of R, held at values; the subclasses say which.

    Parameters
    ----------
    rows : ResidualRows
        As `searched_rows` makes them.
    """

    def __init__(self, rows: ResidualRows) -> None:
        self._rows = rows
        self._design = rows.model.design

    # --- what a subclass says -------------------------------------------------------------

    def _held(self, value: float) -> ResidualRows:
        """The rows of the model without the parameter."""
        raise NotImplementedError

    def _at(self, point: ResidualPoint) -> float:
        """The parameter at a point of the whole model, in the engine's units."""
        raise NotImplementedError

    def _inward(self, point: ResidualPoint) -> ResidualPoint:
        """A point of the whole model in the parameters of that without."""
        raise NotImplementedError

    def _outward(self, point: ResidualPoint, value: float) -> ResidualPoint:
        """And back."""
        raise NotImplementedError

    # --- what they have in common ---------------------------------------------------------

    def _own(self, value: float) -> float:
        """The value in the engine's units."""
        return value

    def start(
        self, T: Sequence[Matrix], sigma: float, residual: ResidualPoint | None = None
    ) -> Vector:
        """Free coordinates of a point of the whole model."""
        assert residual is not None
        rows = self._held(self._at(residual))
        own = self._inward(residual)
        return self._coordinates(rows, [sigma / own.sigma * each for each in T], own)

    def _coordinates(self, rows: ResidualRows, T: Sequence[Matrix], point: ResidualPoint) -> Vector:
        phi = point.phi(rows.model)
        return np.concatenate([T_to_theta(_in_search(rows, T, phi)), rows.model.unbounded(phi)])

    def minimise(self, value: float, start: Vector) -> Constrained:
        """Minimise over everything else; see `ConstrainedParameter`."""
        own = self._own(value)
        rows = self._held(own)
        optimum, evaluation = _found_from(rows, start)
        here = ResidualPoint.of(evaluation)
        outside = self._outward(here, own)
        return Constrained(
            value,
            evaluation.deviance,
            tuple(here.sigma / outside.sigma * each for each in optimum.T),
            outside.sigma,
            optimum.evaluation.factorisation.solution.beta,
            self._coordinates(rows, optimum.T, here),
            optimum.evaluations,
            _has_ended(optimum),
            outside,
        )


def _has_ended(optimum: Optimum) -> bool:
    return optimum.predicted_decrease < max(_ENOUGH, 1e-12 * abs(optimum.path[-1])) and (
        optimum.null_score is None or optimum.null_score > _NO_SCORE
    )


class HeldPlace(HeldResidual):
    """A parameter of a stratum's family."""

    def __init__(self, rows: ResidualRows, stratum: int, place: int) -> None:
        super().__init__(rows)
        self._stratum, self._place = stratum, place

    def _held(self, value: float) -> ResidualRows:
        families = list(self._rows.model.families)
        families[self._stratum] = held(families[self._stratum], self._place, value)
        return self._rows.with_model(self._rows.model.with_families(families))

    def _at(self, point: ResidualPoint) -> float:
        return float(point.zeta[self._stratum][self._place])

    def _inward(self, point: ResidualPoint) -> ResidualPoint:
        zeta = list(point.zeta)
        zeta[self._stratum] = np.delete(zeta[self._stratum], self._place)
        return replace(point, zeta=tuple(zeta))

    def _outward(self, point: ResidualPoint, value: float) -> ResidualPoint:
        zeta = list(point.zeta)
        zeta[self._stratum] = np.insert(zeta[self._stratum], self._place, value)
        return replace(point, zeta=tuple(zeta))


class HeldColumn(HeldResidual):
    """A coefficient of the logarithm of the standard deviation, by its column of v."""

    def __init__(self, rows: ResidualRows, column: int) -> None:
        super().__init__(rows)
        self._column = column
        v = np.delete(self._design.v, column, axis=1)
        self._model = ResidualModel(replace(self._design, v=v))

    def _held(self, value: float) -> ResidualRows:
        factor = np.exp(-2.0 * value * self._design.v[:, self._column])
        if not (np.isfinite(factor).all() and (factor > 0.0).all()):
            raise NotPositiveDefiniteError("the deviance is not finite")
        return self._rows.with_columns(self._model.with_relative_weights(factor))

    def _at(self, point: ResidualPoint) -> float:
        return float(point.coefficients[self._column])

    def _inward(self, point: ResidualPoint) -> ResidualPoint:
        return replace(point, coefficients=np.delete(point.coefficients, self._column))

    def _outward(self, point: ResidualPoint, value: float) -> ResidualPoint:
        return replace(point, coefficients=np.insert(point.coefficients, self._column, value))


class HeldDeviation(HeldColumn):
    """The standard deviation at a column that is one there alone, where sigma is known."""

    def _own(self, value: float) -> float:
        known = self._rows.known_variance
        assert known is not None
        return float(np.log(value / self._rows.basis.sigma(np.sqrt(known))))


class HeldSigma(HeldResidual):
    """The standard deviation at one cell of v, or where all of v is zero.

    Parameters
    ----------
    rows : ResidualRows
        As `searched_rows` makes them.
    column : int, optional
        The column that is one in the cell; by default the cell is where v is zero.
    cells : sequence of int
        The columns of which one at most is one in any row.
    """

    def __init__(
        self, rows: ResidualRows, column: int | None = None, cells: Sequence[int] = ()
    ) -> None:
        super().__init__(rows)
        self._column, self._cells = column, list(cells)
        v = self._design.v
        if column is not None:
            v = v.copy()
            v[:, column] = 1.0 - self._design.v[:, self._cells].sum(axis=1)
        self._with_sigma = rows.with_columns(ResidualModel(replace(self._design, v=v, sigma=1.0)))

    def _own(self, value: float) -> float:
        """In the engine's scale."""
        return value / self._rows.basis.sigma(1.0)

    def _held(self, value: float) -> ResidualRows:
        return _with_known_sigma(self._with_sigma, self._with_sigma.model, value)

    def _moved(self, point: ResidualPoint) -> ResidualPoint:
        """The same with another cell in the first's place; its own inverse."""
        if self._column is None:
            return point
        own = float(point.coefficients[self._column])
        coefficients = point.coefficients.copy()
        coefficients[self._cells] -= own
        coefficients[self._column] = -own
        return replace(point, sigma=point.sigma * float(np.exp(own)), coefficients=coefficients)

    def _at(self, point: ResidualPoint) -> float:
        return self._moved(point).sigma

    def _inward(self, point: ResidualPoint) -> ResidualPoint:
        return self._moved(point)

    def _outward(self, point: ResidualPoint, value: float) -> ResidualPoint:
        return self._moved(replace(point, sigma=value))


class _HeldOfTimes(HeldResidual):
    """What is common to standard deviations and correlations of unstructured covariances.

    They are families in other orders, with the variance of one stratum at one time as the unit.
    """

    #: Stratum and time whose variance is the unit.
    _unit = (0, 0)
    _stratum = 0

    def __init__(self, rows: ResidualRows) -> None:
        super().__init__(rows)
        self._own_rows = rows
        self._families = [_unstructured(family) for family in rows.model.families]

    def _restricted(self, value: float) -> HeldPair | HeldFamily | None:
        """The stratum's family with what is held; None where that is sigma."""
        raise NotImplementedError

    def _held(self, value: float) -> ResidualRows:
        families: list[Family] = list(self._families)
        own = self._restricted(value)
        if own is not None:
            families[self._stratum] = own
        return self._own_rows.with_model(self._own_rows.model.with_families(families))

    def _covariances(
        self, families: Sequence[Unstructured], zeta: Sequence[Matrix]
    ) -> list[Matrix]:
        """Of all times, in their own order, relative to the unit."""
        times = np.arange(self._design.n_times, dtype=np.float64)[:, None]
        return [family.matrix(own, times) for family, own in zip(families, zeta, strict=True)]

    def _inward(self, point: ResidualPoint) -> ResidualPoint:
        C = self._covariances([_unstructured(f) for f in self._rows.model.families], point.zeta)
        s, t = self._unit
        ratio = float(C[s][t, t])
        zeta = [
            _entries(family, own / ratio) for family, own in zip(self._families, C, strict=True)
        ]
        own = self._restricted(self._at(point))
        if own is not None:
            zeta[self._stratum] = _without_held(own, zeta[self._stratum])
        return replace(point, sigma=point.sigma * float(np.sqrt(ratio)), zeta=tuple(zeta))

    def _outward(self, point: ResidualPoint, value: float) -> ResidualPoint:
        zeta = list(point.zeta)
        own = self._restricted(value)
        if own is not None:
            zeta[self._stratum] = own.full(zeta[self._stratum])
        C = self._covariances(self._families, zeta)
        ratio = float(C[0][0, 0])
        families = [_unstructured(family) for family in self._rows.model.families]
        outside = [family.from_matrix(own / ratio) for family, own in zip(families, C, strict=True)]
        return replace(point, sigma=point.sigma * float(np.sqrt(ratio)), zeta=tuple(outside))


def _unstructured(family: Family) -> Unstructured:
    assert isinstance(family, Unstructured)
    return family


def _entries(family: Unstructured, C: Matrix) -> Matrix:
    return family.of_times(C) if isinstance(family, Reordered) else family.from_matrix(C)


def _without_held(family: HeldPair | HeldFamily, zeta: Matrix) -> Matrix:
    """Parameters of a family from all entries of its factor; what is held is the first of them."""
    return family.of_entries(zeta) if isinstance(family, HeldPair) else zeta[1:]


class HeldTime(_HeldOfTimes):
    """The standard deviation of a stratum at one time, of an unstructured covariance.

    Parameters
    ----------
    rows : ResidualRows
        As `searched_rows` makes them.
    stratum, time : int
        Which.
    """

    def __init__(self, rows: ResidualRows, stratum: int, time: int) -> None:
        super().__init__(rows)
        self._stratum, self._time = stratum, time
        self._known = rows.known_variance
        if self._known is None:
            # Made the unit, and the unit sigma.
            self._unit = (stratum, time)
            self._own_rows = rows.with_columns(ResidualModel(replace(self._design, sigma=1.0)))
            self._families = [
                Reordered.with_first(
                    family, *([time] if s == stratum else []), is_free=s != stratum
                )
                for s, family in enumerate(self._families)
            ]
        else:
            family = self._families[stratum]
            first = [time] if family.is_free else [0, time]
            self._families[stratum] = Reordered.with_first(family, *first)

    def _at(self, point: ResidualPoint) -> float:
        times = [_unstructured(family) for family in self._rows.model.families]
        C = self._covariances(times, point.zeta)[self._stratum]
        relative = float(np.sqrt(C[self._time, self._time]))
        return relative if self._known is not None else point.sigma * relative

    def _own(self, value: float) -> float:
        known = 1.0 if self._known is None else float(np.sqrt(self._known))
        return value / self._rows.basis.sigma(known)

    def _restricted(self, value: float) -> HeldPair | HeldFamily | None:
        own = self._families[self._stratum]
        if self._known is None or not isinstance(own, Reordered):
            return None
        return held(own, 0, value) if own.is_free else HeldPair(own, size=value)

    def _held(self, value: float) -> ResidualRows:
        out = super()._held(value)
        return out if self._known is not None else _with_known_sigma(out, out.model, value)

    def _outward(self, point: ResidualPoint, value: float) -> ResidualPoint:
        if self._known is None:
            point = replace(point, sigma=value)
        return super()._outward(point, value)


class HeldPairOfTimes(_HeldOfTimes):
    """The correlation of a stratum between two times, of an unstructured covariance.

    Where sigma is known, the first is to be the first time of all in the first stratum.

    Parameters
    ----------
    rows : ResidualRows
        As `searched_rows` makes them.
    stratum, first, second : int
        Which.
    """

    def __init__(self, rows: ResidualRows, stratum: int, first: int, second: int) -> None:
        super().__init__(rows)
        family = self._families[stratum]
        self._stratum, self._times = stratum, (first, second)
        self._reordered = Reordered.with_first(family, first, second)
        self._families[stratum] = self._reordered
        if not (family.is_free or family.correlation):
            self._unit = (stratum, first)

    def _at(self, point: ResidualPoint) -> float:
        times = [_unstructured(family) for family in self._rows.model.families]
        C = self._covariances(times, point.zeta)[self._stratum]
        i, j = self._times
        return float(C[i, j] / np.sqrt(C[i, i] * C[j, j]))

    def _restricted(self, value: float) -> HeldPair | HeldFamily | None:
        if self._reordered.correlation:
            # Rows of the factor are divided by their length: the second is (r, sqrt(1 - r^2)).
            return held(self._reordered, 0, value / float(np.sqrt((1.0 - value) * (1.0 + value))))
        return HeldPair(self._reordered, correlation=value)


class ResidualCoefficient:
    """A fixed effect beside structured residuals.

    Parameters
    ----------
    whole : ResidualRows
        The rows of the model, as `searched_rows` makes them.
    y, X : ndarray, shapes (n,) and (n, p)
        Response less offset, and the fixed-effects matrix, in the order of the data.
    terms : sequence of EngineTerm
        The random effects.
    design : ResidualDesign
        What the covariance of the residuals is made of.
    column : int
        Which column it is.
    """

    def __init__(
        self,
        whole: ResidualRows,
        y: Vector,
        X: Matrix,
        terms: Sequence[EngineTerm],
        design: ResidualDesign,
        column: int,
    ) -> None:
        self._whole, self._y, self._X = whole, y, X
        self._terms, self._design, self._column = terms, design, column

    @cached_property
    def _without(self) -> ResidualRows:
        """The rows without the column."""
        X = np.delete(self._X, self._column, axis=1)
        return ResidualRows(self._y, X, self._terms, self._design)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_without"}

    def start(
        self, T: Sequence[Matrix], sigma: float, residual: ResidualPoint | None = None
    ) -> Vector:
        """Free coordinates of a point of the whole model; sigma is profiled out."""
        assert residual is not None
        return self._coordinates(T, residual)

    def _coordinates(self, T: Sequence[Matrix], point: ResidualPoint) -> Vector:
        model = self._without.model
        phi = point.phi(model)
        return np.concatenate([T_to_theta(_in_search(self._without, T, phi)), model.unbounded(phi)])

    def minimise(self, value: float, start: Vector) -> Constrained:
        """Fit the model without the column to the response less its share."""
        rows = self._without.with_response(self._y - value * self._X[:, self._column])
        optimum, evaluation = _found_from(rows, start)
        basis, own = self._whole.basis, rows.basis
        here = ResidualPoint.of(evaluation)
        outside = replace(here, sigma=own.sigma(here.sigma) / basis.sigma(1.0))
        beta = own.beta(optimum.evaluation.factorisation.solution.beta)
        beta = np.insert(beta, self._column, value)
        change = own.deviance_offset(rows.n, rows.p, False)
        change -= basis.deviance_offset(rows.n, self._whole.p, False)
        return Constrained(
            value,
            evaluation.deviance + change,
            optimum.T,
            outside.sigma,
            np.asarray(np.linalg.solve(basis.response_scale * basis.fixed, beta - basis.beta0)),
            self._coordinates(optimum.T, here),
            optimum.evaluations,
            _has_ended(optimum),
            outside,
        )
