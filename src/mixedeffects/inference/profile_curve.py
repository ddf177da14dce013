"""The profile of one parameter: exact points of zeta, walked to and solved for.

    zeta(psi) = sign(psi - psihat) sqrt(d_p(psi) - d(psihat)),

d_p the deviance minimised over everything but psi. Each new point starts from its neighbours'
minima, so a point costs a few evaluations; an interval's end is a root of ``|zeta| - z``, bracketed
by points and solved for with exact evaluations.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from mixedeffects.engine.constrained import Constrained, HeldParameter

__all__ = ["LowerDevianceError", "ProfileCurve", "ProfilePoint"]

#: A deviance below the fit's by this much is not rounding.
_SLACK = 1e-6
#: How near zeta must come to the quantile asked for.
_ROOT = 1e-7
#: Points a walk may take before it is given up.
_MOST_POINTS = 80
#: Points of it at which there may be no deviance.
_MOST_FAILURES = 12
#: Part of the way to a limit that is never reached which one step may go.
_NEARER = 0.75


class LowerDevianceError(Exception):
    """Profiling has found a better fit than the one it started from."""

    def __init__(self, found: Constrained, decrease: float) -> None:
        super().__init__(found.value)
        self.found = found
        self.decrease = decrease


@dataclass(frozen=True, order=True)
class ProfilePoint:
    """One point of a profile."""

    value: float
    zeta: float = field(compare=False)
    minimum: Constrained = field(compare=False)


class ProfileCurve:
    """All points known of one parameter's profile.

    Parameters
    ----------
    parameter : HeldParameter
        What minimises the deviance at a value.
    optimum : Constrained
        The fit, with the parameter's estimate as its value.
    step : float
        A guess of a fraction of the standard error.
    low, high : float
        Limits of the parameter; infinite where there is none.
    positive : bool
        Whether the lower limit zero is never reached.
    far : tuple of two floats or None
        For a limit that is never reached itself, but may be gone towards without end, the value
        next to it, or far out if it is infinite, from which on nothing changes any more.
    has_rivals : bool
        Whether there may be several minima at a value: then each is looked for from several points.
    """

    def __init__(
        self,
        parameter: HeldParameter,
        optimum: Constrained,
        step: float,
        low: float = -math.inf,
        high: float = math.inf,
        *,
        positive: bool = False,
        far: tuple[float | None, float | None] = (None, None),
        has_rivals: bool = False,
    ) -> None:
        self._parameter = parameter
        self._step = step
        self.limits = (low, high)
        self.positive = positive
        self.far = far
        self.has_rivals = has_rivals
        self.estimate = optimum.value
        self.deviance = optimum.deviance
        self.points = [ProfilePoint(optimum.value, 0.0, optimum)]
        self.evaluations = 0
        #: Values at which the search ended before the gradient vanished.
        self.unfinished: list[float] = []

    # --- points --------------------------------------------------------------------------

    def at(self, value: float) -> ProfilePoint:
        """The point at a value, computed unless it is known."""
        for point in self.points:
            if point.value == value:
                return point
        minimum = self._minimum(value)
        self.evaluations += minimum.evaluations
        if not minimum.converged:
            self.unfinished.append(value)
        difference = minimum.deviance - self.deviance
        if difference < -_SLACK - 1e-12 * abs(self.deviance):
            raise LowerDevianceError(minimum, -difference)
        zeta = math.copysign(math.sqrt(max(difference, 0.0)), value - self.estimate)
        point = ProfilePoint(value, zeta, minimum)
        insort(self.points, point)
        return point

    def _minimum(self, value: float) -> Constrained:
        fit = next(point for point in self.points if point.value == self.estimate)
        try:
            found = self._parameter.minimise(value, self._predicted(value))
        except ArithmeticError:
            # The line leads to where there is no deviance; the fit itself does not.
            found = self._parameter.minimise(value, fit.minimum.x)
        if not self.has_rivals:
            return found
        side = 1.0 if value > self.estimate else -1.0
        outside = [point for point in self.points if side * (point.value - value) > 0.0]
        near = min(outside, key=lambda point: abs(point.value - value), default=fit)
        evaluations = found.evaluations
        for start in {id(fit): fit, id(near): near}.values():
            try:
                other = self._parameter.minimise(value, start.minimum.x)
            except ArithmeticError:
                continue
            evaluations += other.evaluations
            if other.deviance < found.deviance:
                found = other
        return replace(found, evaluations=evaluations)

    def _predicted(self, value: float) -> np.ndarray:
        """Free coordinates along the line through the two nearest points."""
        near = sorted(self.points, key=lambda point: abs(point.value - value))
        first = near[0].minimum.x
        if len(near) == 1:
            return first
        run = near[1].value - near[0].value
        share = (value - near[0].value) / run
        if abs(share) > 2.0:
            return first
        return np.asarray(first + share * (near[1].minimum.x - first))

    def _on_side(self, side: int) -> list[ProfilePoint]:
        """Points from the estimate outwards."""
        points = [p for p in self.points if side * (p.value - self.estimate) >= 0.0]
        return points if side > 0 else points[::-1]

    # --- walking -------------------------------------------------------------------------

    def walk(self, side: int, z: float) -> None:
        """Go outwards in steps of about a sixth of z until ``|zeta|`` is z or a limit is met."""
        target = z / 6.0
        last, step = self.points[0], self._step
        for point in self._on_side(side):
            if abs(point.zeta) >= z:
                return
            if point.value != self.estimate and point.zeta != last.zeta:
                step = abs(target * (point.value - last.value) / (point.zeta - last.zeta))
            last = point
        failures = 0
        for _ in range(_MOST_POINTS):
            if self._has_ended(side, last.value):
                return
            try:
                point = self.at(self._clamped(last.value, side * step, side))
            except ArithmeticError:
                # No deviance where the line from the last points leads: nearer to them there is.
                step *= 0.25
                failures += 1
                if failures > _MOST_FAILURES:
                    raise
                continue
            gained, moved = abs(point.zeta - last.zeta), abs(point.value - last.value)
            if gained > 3.0 * target:
                # Too far to be a neighbour in a picture; it still brackets roots.
                step = max(0.1, target / gained) * moved
                continue
            last = point
            if abs(point.zeta) >= z:
                return
            step = moved * min(4.0, target / gained if gained > 0.0 else 4.0)

    def _limit(self, side: int) -> float:
        return self.limits[0 if side < 0 else 1]

    def _has_ended(self, side: int, value: float) -> bool:
        far = self.far[0 if side < 0 else 1]
        return value == self._limit(side) or (far is not None and side * (value - far) >= 0.0)

    def _clamped(self, value: float, step: float, side: int) -> float:
        target = value + step
        far, limit = self.far[0 if side < 0 else 1], self._limit(side)
        if far is not None:
            if math.isfinite(limit):
                step = side * min(side * step, _NEARER * abs(limit - value))
            target = value + step
            return far if side * (target - far) >= 0.0 else target
        if self.positive and target < 0.5 * value:
            return 0.5 * value
        return max(target, self._limit(-1)) if side < 0 else min(target, self._limit(1))

    # --- roots ---------------------------------------------------------------------------

    def bound(self, side: int, z: float) -> float:
        """Where ``|zeta|`` is z; the limit where it never is, NaN where the walk gave up."""
        bracket = self._bracket(side, z)
        if bracket is None:
            self.walk(side, z)
            bracket = self._bracket(side, z)
        if bracket is None:
            limit, end = self._limit(side), self._on_side(side)[-1]
            return limit if self._has_ended(side, end.value) else math.nan
        inner, outer = bracket
        size = 1e-12 * max(abs(inner.value), abs(outer.value))
        tolerance = max(_ROOT, 1e-12 * abs(self.deviance))
        for attempt in range(60):
            if abs(abs(outer.zeta) - z) <= tolerance:
                return outer.value
            if abs(z - abs(inner.zeta)) <= tolerance:
                return inner.value
            width = abs(outer.value - inner.value)
            if width <= size:
                break
            guess = self._interpolated(inner, outer, z)
            if attempt % 4 == 3:
                guess = 0.5 * (inner.value + outer.value)
            if guess in (inner.value, outer.value):
                break
            point = self.at(guess)
            if abs(point.zeta) < z:
                inner = point
            else:
                outer = point
        return outer.value

    def _bracket(self, side: int, z: float) -> tuple[ProfilePoint, ProfilePoint] | None:
        points = self._on_side(side)
        for inner, outer in pairwise(points):
            if abs(inner.zeta) < z <= abs(outer.zeta):
                return inner, outer
        return None

    def _interpolated(self, inner: ProfilePoint, outer: ProfilePoint, z: float) -> float:
        """The value at z of the inverse parabola through the nearest points, inside the bracket."""
        near = sorted(
            (p for p in self.points if (p.zeta > 0) == (outer.zeta > 0) or p.zeta == 0.0),
            key=lambda p: abs(abs(p.zeta) - z),
        )[:3]
        chosen = {p.value: p for p in (inner, outer, *near)}
        points = list(chosen.values())[:3]
        zetas = [abs(p.zeta) for p in points]
        low, high = sorted((inner.value, outer.value))
        if len(set(zetas)) == len(zetas) == 3:
            guess = 0.0
            for i, p in enumerate(points):
                others = [zeta for j, zeta in enumerate(zetas) if j != i]
                guess += p.value * math.prod((z - o) / (zetas[i] - o) for o in others)
            if low < guess < high:
                return guess
        share = (z - abs(inner.zeta)) / (abs(outer.zeta) - abs(inner.zeta))
        return inner.value + share * (outer.value - inner.value)
