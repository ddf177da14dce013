"""What holds each parameter of a model with structured residuals, for its profile."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.constrained import ConstrainedParameter
from mixedeffects.engine.constrained_residual import (
    HeldColumn,
    HeldDeviation,
    HeldPairOfTimes,
    HeldPlace,
    HeldSigma,
    HeldTime,
    ResidualCoefficient,
)
from mixedeffects.engine.residual_families import CompoundSymmetry
from mixedeffects.engine.residual_model import ResidualModel
from mixedeffects.engine.residual_point import ResidualPoint, searched_rows
from mixedeffects.fitting.assembly import engine_terms
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.residual_assembly import residual_design
from mixedeffects.fitting.residual_parameters import (
    ResidualParameter,
    listed_parameters,
    reported_residual_parameters,
    residual_of,
)

__all__ = ["HeldParameter", "ResidualProfile"]

Matrix = NDArray[np.float64]

#: A correlation this near to its end, and a range so many times the largest distance, have nothing
#: left to change.
_NEAR, _FAR = 1e-6, 1e5


@dataclass(frozen=True, eq=False)
class HeldParameter:
    """What minimises the deviance at values of a parameter, and what it may be.

    Attributes
    ----------
    parameter : ConstrainedParameter
        What minimises.
    step : float
        A guess of a fraction of the standard error.
    low, high : float
        Its limits.
    positive : bool
        Whether the lower limit zero is never reached.
    far : tuple
        As of `ProfileCurve`.
    """

    parameter: ConstrainedParameter
    step: float
    low: float = -math.inf
    high: float = math.inf
    positive: bool = False
    far: tuple[float | None, float | None] = (None, None)


class ResidualProfile:
    """The parameters of R of one fit.

    Parameters
    ----------
    fit : Fit
        With structured residuals.
    """

    def __init__(self, fit: Fit) -> None:
        assert fit.residual is not None
        self._fit = fit
        self.rows = searched_rows(fit.residual.design)
        #: S with D one where its columns are zero, whatever phi is.
        self._unit = ResidualModel(replace(self.rows.model.design, sigma=1.0))
        listed = reported_residual_parameters(fit)
        #: All but the one that is sigma, in the order of `m.covariance_parameters`.
        self._places = [k for k, each in enumerate(listed) if not each.is_sigma]
        self._listed = listed

    @property
    def has_rivals(self) -> bool:
        """Whether there may be several maxima: beside a nugget, one of a short range and a long."""
        return self.rows.model.design.nugget

    def values(self, point: ResidualPoint) -> Matrix:
        """All parameters at a point, in the order of `m.covariance_parameters`, sigma last."""
        basis = self.rows.basis
        R = residual_of(self._fit, point.phi(self._unit), basis.sigma(point.sigma), self._unit)
        assert R is not None
        own = listed_parameters(R)
        values = [each.value for each in own]
        sigma = next(each.value for each in own if each.is_sigma)
        return np.array([*(values[k] for k in self._places), sigma])

    def coefficient(self, column: int) -> ResidualCoefficient:
        """A fixed effect, by its column."""
        frame = self._fit.frame
        design = residual_design(frame, self._fit.request.sigma)
        assert design is not None
        y = frame.y if frame.offset is None else frame.y - frame.offset
        return ResidualCoefficient(self.rows, y, frame.X, engine_terms(frame.terms), design, column)

    def sigma(self, estimate: float) -> HeldParameter | None:
        """The standard deviation that others are relative to; None where it is known."""
        return None if self.rows.known_variance is not None else self._deviation(0, estimate)

    def parameter(self, i: int, estimate: float) -> HeldParameter | None:
        """One of the others; None where its profile is not defined."""
        k = self._places[i]
        if math.isnan(estimate):
            return None
        own = self._listed[k]
        n_deviations = self._n_cells + self._n_variance
        if own.kind == "sd":
            return self._deviation(k, estimate)
        if k < n_deviations:
            column = k - self._n_cells + self._first_variance
            size = float(np.std(self.rows.model.design.v[:, column])) or 1.0
            step = 0.4 / (size * math.sqrt(2.0 * self.rows.n))
            return HeldParameter(HeldColumn(self.rows, column), step)
        return self._of_family(k - n_deviations, own, estimate)

    # --- standard deviations --------------------------------------------------------------

    @property
    def _by_time(self) -> bool:
        """Whether the standard deviations are those of an unstructured covariance."""
        design = self.rows.model.design
        return design.kind == "us" and not design.homogeneous

    @property
    def _n_variance(self) -> int:
        variance = self._fit.frame.variance
        return 0 if variance is None else variance.n_columns

    @property
    def _n_cells(self) -> int:
        """Standard deviations before those, or the coefficients, of ``variance=``."""
        design = self.rows.model.design
        if self._by_time:
            return design.n_times * design.n_strata
        return 1 + self._first_variance

    @property
    def _first_variance(self) -> int:
        return int(self.rows.model.design.v.shape[1]) - self._n_variance

    def _deviation(self, k: int, estimate: float) -> HeldParameter:
        design, known = self.rows.model.design, self.rows.known_variance is not None
        step = 0.4 * estimate / math.sqrt(2.0 * self.rows.n)
        parameter: ConstrainedParameter
        if self._by_time and k < self._n_cells:
            parameter = HeldTime(self.rows, k // design.n_times, k % design.n_times)
        elif k == 0:
            parameter = HeldSigma(self.rows)
        elif known:
            parameter = HeldDeviation(self.rows, k - 1)
        else:
            # One factor's levels alone, or the cells: of either one at most is one in a row.
            cells = range(self._first_variance or design.v.shape[1])
            parameter = HeldSigma(self.rows, k - 1, cells)
        return HeldParameter(parameter, step, 0.0, positive=True)

    # --- correlations, ranges and nuggets ---------------------------------------------------

    def _of_family(self, at: int, own: ResidualParameter, estimate: float) -> HeldParameter | None:
        model = self.rows.model
        design, groups = model.design, len(model.starts)
        step = 0.4 * max(1.0 - estimate**2, 0.01) / math.sqrt(groups)
        if design.kind == "us":
            pairs = design.n_times * (design.n_times - 1) // 2
            stratum, pair = divmod(at, pairs)
            rows, columns = np.tril_indices(design.n_times, -1)
            first, second = int(columns[pair]), int(rows[pair])
            if (
                self._by_time
                and stratum == 0
                and first > 0
                and self.rows.known_variance is not None
            ):
                return None
            held = HeldPairOfTimes(self.rows, stratum, first, second)
            return _correlation(held, step, -1.0)
        stratum, place = 0, at
        while place >= model.families[stratum].n_parameters:
            place -= model.families[stratum].n_parameters
            stratum += 1
        family = model.families[stratum]
        parameter = HeldPlace(self.rows, stratum, place)
        if own.kind == "range":
            largest = self._largest_distance
            return HeldParameter(
                parameter, 0.4 * estimate / math.sqrt(groups), 0.0, far=(None, _FAR * largest)
            )
        if own.kind == "nugget":
            return HeldParameter(parameter, 0.1 * max(estimate, 0.05), 0.0, 1.0)
        low = -1.0 / (family.largest - 1) if isinstance(family, CompoundSymmetry) else -1.0
        return _correlation(parameter, step, low)

    @property
    def _largest_distance(self) -> float:
        """A bound of the distance of two rows of a group."""
        model = self.rows.model
        squares = 0.0
        for column in model.positions.T:
            high = np.maximum.reduceat(column, model.starts)
            low = np.minimum.reduceat(column, model.starts)
            squares += float(((high - low) ** 2).max())
        return math.sqrt(squares)


def _correlation(parameter: ConstrainedParameter, step: float, low: float) -> HeldParameter:
    ends = (low + _NEAR * abs(low), 1.0 - _NEAR)
    return HeldParameter(parameter, step, low, 1.0, far=ends)
