"""Profile likelihood: zeta of every parameter, and the intervals it gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.options import checked_flag, checked_level, checked_number, member
from mixedeffects.base.sealed import Sealed
from mixedeffects.base.warning import warn
from mixedeffects.display.parameter_table import parameter_table
from mixedeffects.display.result_table import ResultTable, interval_table
from mixedeffects.engine.constrained import (
    Constrained,
    ConstrainedCoefficient,
    ConstrainedCorrelation,
    ConstrainedDeviation,
    ConstrainedSigma,
)
from mixedeffects.engine.covariance_changes import fixed_effects_covariance
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.optimum import Optimum
from mixedeffects.engine.parameters import lower_entries
from mixedeffects.engine.residual_point import ResidualPoint
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ConvergenceWarning, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.natural import natural_parameters
from mixedeffects.fitting.parameter_keys import parameter_keys
from mixedeffects.inference.profile_curve import LowerDevianceError, ProfileCurve, ProfilePoint
from mixedeffects.inference.profile_residual import HeldParameter, ResidualProfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BetterFitError", "Profile"]

Matrix = NDArray[np.float64]

#: Standard deviations below this, in units of sigma, are zero; correlations this near to one are.
_ZERO = 1e-7
#: Points so far beyond the level in zeta are left out of tables and pictures.
_BEYOND = 1.0
#: Change of zeta below which a curve that goes on without end is level.
_LEVEL = 0.02


class BetterFitError(Exception):
    """A better fit, with a sentence about where it was found."""

    def __init__(self, sentence: str, found: Constrained) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.found = found


class Profile(Sealed):
    """Profile likelihood of the parameters of a model, made by `LinearMixedModel.profile`.

    For a parameter psi, ``zeta(psi) = sign(psi - psihat) sqrt(d(psi) - d(psihat))``, with d the
    -2 log-likelihood minimised over all other parameters. If the likelihood were quadratic in psi,
    zeta would be a straight line, and it is compared with the standard normal distribution.

    Attributes
    ----------
    level : float
        The profile reaches the ends of intervals of this level.
    criterion : float
        -2 log-likelihood at the maximum-likelihood estimates.
    estimates : Series
        Maximum-likelihood estimates of all parameters of the model.
    evaluations : int
        Evaluations of deviance and gradient so far.

    References
    ----------
    Bates, D., Maechler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects models
    using lme4. Journal of Statistical Software 67(1), section 5.1.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    >>> m.profile()
    Profile likelihood of 3 parameters, 45 points up to 99 % intervals; -2 log L 327.3271
    Maximum likelihood: the REML fit was fitted again for this
    <BLANKLINE>
                         Estimate   lower   upper
    sd_(Intercept)|Batch    37.26   12.20   84.06
    sigma                   49.51   38.23   67.66
    (Intercept)           1528    1486    1569
    """

    def __init__(
        self,
        fit: Fit,
        optimum: Optimum,
        names: list[str],
        chosen: list[int],
        level: float,
    ) -> None:
        self.level = level
        self._A: CrossProducts = fit.crossproducts
        self._refitted = fit.reml
        self._names = names
        self._chosen = chosen
        self._fixed_at = len(names) - len(fit.frame.fixef_names)
        self._se = np.sqrt(
            np.diag(
                fixed_effects_covariance(
                    optimum.evaluation.factorisation,
                    self._A.basis.sigma(float(np.sqrt(optimum.evaluation.sigma2))),
                )
            )
        )
        self._levels = [term.n_levels for term in fit.frame.terms]
        self._residual = None if fit.residual is None else ResidualProfile(fit)
        self._random = sum(k * (k + 1) // 2 for k in self._A.term_columns)
        self._optimum = Constrained(
            math.nan,
            optimum.evaluation.deviance,
            tuple(optimum.T),
            float(np.sqrt(optimum.evaluation.sigma2)),
            optimum.evaluation.factorisation.solution.beta,
            np.empty(0),
            optimum.evaluations,
            optimum.converged,
            None if optimum.residual is None else ResidualPoint.of(optimum.residual),
        )
        self._estimates = self._natural(self._optimum)
        #: One curve per chosen parameter; None where the parameter is not defined.
        self._curves = [self._curve(i) for i in chosen]

    # --- doing the work ------------------------------------------------------------------

    def _walk(self, j: int, side: int) -> None:
        """Go to one end of the profile of a parameter, given by its place among those chosen."""
        curve = self._curves[j]
        if curve is not None:
            self._tracked(self._chosen[j], curve.walk, side, _quantile(self.level))

    def _finish(self) -> None:
        self._shown = [[] if c is None else list(c.points) for c in self._curves]
        self.confint(min(0.95, self.level), _report=False)
        unfinished = [
            f"{self._names[i]} at {value:.6g}"
            for i, curve in zip(self._chosen, self._curves, strict=True)
            if curve is not None
            for value in curve.unfinished
        ]
        if unfinished:
            listed = ", ".join(unfinished[:5]) + (", ..." if len(unfinished) > 5 else "")
            warn(
                "The deviance was not minimised to the end while profiling, so zeta may be too "
                f"large in size, at {len(unfinished)} points: {listed}.",
                ConvergenceWarning,
            )

    def _tracked(self, i: int, task: Callable[..., Any], *arguments: Any) -> Any:
        """Run a task of a curve, and say where it found a better fit."""
        try:
            return task(*arguments)
        except LowerDevianceError as lower:
            raise BetterFitError(
                f"With {self._names[i]} held at {lower.found.value:.6g}, the deviance is lower by "
                f"{lower.decrease:.2g} than that of the fit.",
                lower.found,
            ) from None

    def _natural(self, minimum: Constrained) -> Matrix:
        """All parameters at one minimum, in the user's units."""
        A = self._A
        scale = np.sqrt(A.basis.weight_scale)
        T = [C @ own / scale for C, own in zip(A.basis.terms, minimum.T, strict=True)]
        sigma = A.basis.sigma(minimum.sigma)
        values = natural_parameters(T, sigma)
        self._snap(values, minimum)
        if self._residual is not None and minimum.residual is not None:
            values = np.append(values[:-1], self._residual.values(minimum.residual))
        return np.concatenate([values, A.basis.beta(minimum.beta)])

    def _snap(self, values: Matrix, minimum: Constrained) -> None:
        """Zero for standard deviations that are rounding, one for correlations that are one."""
        at = 0
        for C, T in zip(self._A.basis.terms, minimum.T, strict=True):
            m = len(C) * (len(C) + 1) // 2
            snap_entries(values[at : at + m], C, T)
            at += m

    def _curve(self, i: int) -> ProfileCurve | None:
        estimate = float(self._estimates[i])
        held = self._held(i, estimate)
        if held is None:
            return None
        here = self._optimum
        start = held.parameter.start(here.T, here.sigma, here.residual)
        return ProfileCurve(
            held.parameter,
            replace(here, value=estimate, x=start, evaluations=0, converged=True),
            held.step,
            held.low,
            held.high,
            positive=held.positive,
            far=held.far,
            has_rivals=self._residual is not None and self._residual.has_rivals,
        )

    def _held(self, i: int, estimate: float) -> HeldParameter | None:
        """What holds a parameter; None where it is not defined."""
        A, reference, of_residuals = self._A, self._optimum.sigma, self._residual
        if i >= self._fixed_at:
            column = i - self._fixed_at
            step = 0.4 * float(self._se[column])
            if of_residuals is not None:
                return HeldParameter(of_residuals.coefficient(column), step)
            return HeldParameter(ConstrainedCoefficient(A, column), step)
        if i == self._fixed_at - 1:
            if of_residuals is not None:
                return of_residuals.sigma(estimate)
            step = 0.4 * estimate / math.sqrt(2.0 * A.n)
            return HeldParameter(ConstrainedSigma(A, reference), step, 0.0, positive=True)
        if i >= self._random:
            assert of_residuals is not None
            return of_residuals.parameter(i - self._random, estimate)
        rows = None if of_residuals is None else of_residuals.rows
        t, row, column = self._entry(i)
        levels = self._levels[t]
        if row == column:
            size = np.linalg.norm(A.basis.terms[t][row]) * A.basis.response_scale
            least = reference * float(size) * math.sqrt(levels / A.n)
            step = 0.4 * max(estimate / math.sqrt(2.0 * levels), 0.1 * least)
            return HeldParameter(ConstrainedDeviation(A, reference, t, row, rows), step, 0.0)
        if math.isnan(estimate):
            return None
        step = 0.4 * max(1.0 - estimate**2, 0.01) / math.sqrt(levels)
        parameter = ConstrainedCorrelation(A, reference, t, (row, column), rows)
        return HeldParameter(parameter, step, -1.0, 1.0)

    def _entry(self, i: int) -> tuple[int, int, int]:
        """Term, row and column of a parameter of the random effects."""
        for t, k in enumerate(self._A.term_columns):
            rows, columns = lower_entries(k)
            if i < len(rows):
                return t, int(rows[i]), int(columns[i])
            i -= len(rows)
        raise AssertionError

    # --- looking at it -------------------------------------------------------------------

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters profiled."""
        return [self._names[i] for i in self._chosen]

    @property
    def estimates(self) -> pd.Series:
        """Maximum-likelihood estimates of all parameters of the model; a Series."""
        return pd.Series(self._estimates, index=self._names, name="Estimate")

    @property
    def criterion(self) -> float:
        """-2 log-likelihood at the maximum-likelihood estimates."""
        return self._optimum.deviance + self._offset

    @property
    def evaluations(self) -> int:
        """Evaluations of deviance and gradient so far."""
        return sum(curve.evaluations for curve in self._curves if curve is not None)

    @property
    def _offset(self) -> float:
        A = self._A
        return A.basis.deviance_offset(A.n, A.p, False)

    def _points(self, j: int) -> list[ProfilePoint]:
        most = _quantile(self.level) + _BEYOND
        return [point for point in self._shown[j] if abs(point.zeta) <= most]

    def to_frame(self) -> pd.DataFrame:
        """The points of the profiles.

        Returns
        -------
        DataFrame, one row per point
            Columns ``parameter``, ``value``, ``zeta``, ``deviance`` (-2 log-likelihood), and all
            parameters of the model where the deviance is smallest given the value. No rows for a
            correlation beside a standard deviation of zero.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> points = m.profile("sigma").to_frame()
        >>> list(points)[:4]
        ['parameter', 'value', 'zeta', 'deviance']
        >>> list(points)[4:]
        ['sd_(Intercept)|Batch', 'sigma', '(Intercept)']
        """
        labels, rows, others = [], [], []
        for j, i in enumerate(self._chosen):
            for point in self._points(j):
                labels.append(self._names[i])
                rows.append((point.value, point.zeta, point.minimum.deviance + self._offset))
                values = self._natural(point.minimum)
                values[i] = point.value
                others.append(values)
        table = pd.DataFrame(np.reshape(rows, (-1, 3)), columns=["value", "zeta", "deviance"])
        table.insert(0, "parameter", labels)
        own = parameter_keys(list(table.columns), self._names)[table.shape[1] :]
        rest = pd.DataFrame(np.reshape(others, (-1, len(own))), columns=own)
        return ResultTable.of(pd.concat([table, rest], axis=1))

    def zeta(self, parameter: str, value: float) -> float:
        """Signed root of the increase in deviance with a parameter held at a value.

        Parameters
        ----------
        parameter : str
            One of `parameters`.
        value : float
            In the parameter's units.

        Returns
        -------
        float
            Computed exactly, by minimising over everything else.

        Raises
        ------
        ModelError
            If the parameter is not known or not defined, or cannot have the value.

        Examples
        --------
        The likelihood-ratio statistic of a slope of zero:

        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> round(m.profile("Days").zeta("Days", 0.0) ** 2, 2)
        23.54
        """
        if not member(parameter, self.parameters):
            listed = ", ".join(repr(name) for name in self.parameters)
            raise ModelError(f"There is no profile of {parameter!r:.60}; there are {listed}.")
        j = self.parameters.index(parameter)
        curve = self._curves[j]
        if curve is None:
            raise self._undefined(parameter)
        value = checked_number(value, "value")
        low, high = curve.limits
        allowed = low <= value <= high and not (curve.positive and value <= 0.0)
        ends = [
            limit for limit, far in zip(curve.limits, curve.far, strict=True) if far is not None
        ]
        allowed = allowed and value not in ends
        if not (np.isfinite(value) and allowed):
            raise ModelError(f"{parameter} cannot be {value}; it lies between {low} and {high}.")
        with one_blas_thread(self._A.remainder.core_size):
            return float(self._after(self._chosen[j], curve.at, float(value)).zeta)

    def _undefined(self, parameter: str) -> ModelError:
        if self._residual is None or self._chosen[self.parameters.index(parameter)] < self._random:
            return ModelError(
                f"{parameter} is not defined: one of its standard deviations is estimated as zero."
            )
        return ModelError(
            f"{parameter} has no profile: it is known, or no row tells of it, or it is the "
            "correlation of two times, neither of them the first, and sigma is known."
        )

    def _after(self, i: int, task: Callable[..., Any], *arguments: Any) -> Any:
        """Run a task once the profile is there: a better fit is then an error."""
        try:
            return self._tracked(i, task, *arguments)
        except BetterFitError as better:
            if self._residual is not None:
                raise ModelError(
                    f"{better.sentence} The likelihood has several maxima: simplify the structure "
                    "of the residuals."
                ) from None
            raise ModelError(
                f"{better.sentence} Fit the model again with another start=."
            ) from None

    def confint(self, level: float = 0.95, *, _report: bool = True) -> ResultTable:
        """Profile-likelihood intervals: where ``|zeta|`` is the normal quantile.

        Parameters
        ----------
        level : float
            Confidence level; any, but beyond that of the profile it takes further points.

        Returns
        -------
        DataFrame, one row per parameter
            Columns ``lower`` and ``upper``. Where zeta does not reach the quantile, a bound is the
            limit of the parameter: 0 for a standard deviation, -1 or 1 for a correlation, infinity
            for a range; for parameters of the residuals a note says so. A
            correlation has no bounds of its own where one of its standard deviations may be zero
            at that level. NaN for a correlation beside a standard deviation estimated as zero, and
            for a sigma that is known.

        Raises
        ------
        ModelError
            If the level is not between 0 and 1.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.profile().confint(0.9)
                               lower   upper
        sd_(Intercept)|Batch   16.77   72.87
        sigma                  39.73   64.07
        (Intercept)          1495    1560
        ---
        90 % profile-likelihood intervals
        """
        level = checked_level(level)
        z = _quantile(level)
        rows, notes = [], []
        track = self._after if _report else self._tracked
        with one_blas_thread(self._A.remainder.core_size):
            for i, curve in zip(self._chosen, self._curves, strict=True):
                if curve is None:
                    rows.append([math.nan, math.nan])
                else:
                    rows.append([track(i, curve.bound, side, z) for side in (-1, 1)])
                    if np.isnan(rows[-1]).any():
                        warn(
                            f"The profile of {self._names[i]} is so flat that an end of its "
                            f"{100 * level:g} % interval was not reached; it is NaN.",
                            ConvergenceWarning,
                        )
                    notes += [
                        f"{self._names[i]}: {end:g} is the limit of what it can be; the likelihood "
                        "does not fall far enough on the way there for an end of the interval"
                        for end, limit in zip(rows[-1], curve.limits, strict=True)
                        if end == limit and self._random <= i < self._fixed_at
                    ]
        table = interval_table(rows, self.parameters, level, "profile-likelihood")
        return ResultTable.of(pd.DataFrame(table), (*table.notes, *notes)) if notes else table

    def plot(
        self, parameters: Any = None, *, absolute: bool = False, ax: Any = None
    ) -> Axes | NDArray[Any]:
        """Draw zeta against each parameter, with the intervals it gives.

        A straight line means that a Wald interval would do; the vertical lines end the intervals
        of level 50, 80, 90, 95 and 99 %.

        Parameters
        ----------
        parameters : str or list of str, optional
            Which; by default all that have a profile.
        absolute : bool
            Draw ``|zeta|``, and each interval as a bar at its height.
        ax : matplotlib Axes or sequence of them, optional
            Where to draw, one for each parameter; by default a new figure.

        Returns
        -------
        matplotlib.axes.Axes or ndarray of Axes, with their figure as ``.figure``
            One Axes for one parameter.

        Raises
        ------
        ModelError
            If a parameter is not known, or the number of axes does not match.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.profile("sigma").plot("sigma").get_xlabel()
        'sigma'
        """
        from mixedeffects.inference.profile_plot import draw_profile

        absolute = checked_flag(absolute, "absolute")
        return draw_profile(self.curves(), self.level, parameters, absolute, ax)

    def curves(self) -> dict[str, tuple[Matrix, Matrix]]:
        """Values and zeta of the points of each profile, by parameter; for pictures.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> value, zeta = m.profile("sigma").curves()["sigma"]
        >>> bool((zeta[1:] > zeta[:-1]).all())
        True
        """
        found = {}
        for j, i in enumerate(self._chosen):
            points = self._points(j)
            curve = self._curves[j]
            if curve is not None and math.isinf(curve.limits[1]):
                points = _without_level_end(points)
            if len(points) > 1:
                pairs = np.array([(point.value, point.zeta) for point in points])
                found[self._names[i]] = (pairs[:, 0], pairs[:, 1])
        return found

    def _lines(self) -> list[str]:
        count = sum(len(self._points(j)) for j in range(len(self._chosen)))
        many = "1 parameter" if len(self._chosen) == 1 else f"{len(self._chosen)} parameters"
        lines = [
            f"Profile likelihood of {many}, {count:,} points up to {100 * self.level:g} % "
            f"intervals; -2 log L {self.criterion:.4f}"
        ]
        if self._refitted:
            lines.append("Maximum likelihood: the REML fit was fitted again for this")
        return lines

    def _table(self) -> Any:
        table = self.confint(min(0.95, self.level))
        table.insert(0, "Estimate", self._estimates[self._chosen])
        return parameter_table(table, digits=4)

    def __repr__(self) -> str:
        return "\n".join([*self._lines(), "", str(self._table())])

    def _repr_html_(self) -> str:
        head = "".join(f"<p>{escape(line)}</p>" for line in self._lines())
        return head + str(self._table()._repr_html_())


def snap_entries(own: Matrix, C: Matrix, T: Matrix) -> None:
    """Zero and one where deviations and correlations of a term are that but for rounding."""
    rows, columns = lower_entries(len(C))
    # Relative to sigma and to the size of the column in the data.
    zero = np.linalg.norm(C @ T, axis=1) <= _ZERO * np.linalg.norm(C, axis=1)
    on_diagonal = rows == columns
    own[on_diagonal & zero[rows]] = 0.0
    own[~on_diagonal & (zero[rows] | zero[columns])] = np.nan
    near = ~on_diagonal & (np.abs(own) > 1.0 - _ZERO)
    own[near] = np.sign(own[near])


def _without_level_end(points: list[ProfilePoint]) -> list[ProfilePoint]:
    """Without those far out where zeta does not change any more."""
    while len(points) > 2 and points[-1].zeta - points[-2].zeta < _LEVEL:
        points = points[:-1]
    return points


def _quantile(level: float) -> float:
    return float(scipy.stats.norm.ppf(0.5 + level / 2.0))
