"""Quantiles of new responses: those of a family's distribution mixed over a normal predictor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.special as sp
from numpy.typing import NDArray

from mixedeffects.families import Family, Response

__all__ = ["NewResponses"]

Matrix = NDArray[np.float64]

#: Points of the mixture, even steps over so many standard deviations to each side.
_POINTS, _REACH = 121, 6.0
#: Rows worked on at a time, doublings of a bracket, and steps inside it.
_CHUNK, _DOUBLINGS, _MOST = 4_096, 60, 100
#: Error of a probability that is none.
_CLOSE = 1e-10


class NewResponses:
    """The distributions of new responses, one for each row.

    Predictors without a mean, which some links have, are left out of the mixture.

    Parameters
    ----------
    family : Family
        Distribution and link.
    phi : float or None
        Its parameter, on the scale of the search.
    eta, sd : ndarray, shape (m,)
        Mean and standard deviation of the linear predictor.
    trials : ndarray, shape (m,), or None
        Of proportions of successes.
    """

    def __init__(
        self, family: Family, phi: float | None, eta: Matrix, sd: Matrix, trials: Matrix | None
    ) -> None:
        self.family, self.phi, self.eta, self.sd, self.trials = family, phi, eta, sd, trials

    def quantiles(self, *shares: float) -> list[Matrix]:
        """For each share the smallest value with at least so much probability up to it."""
        out = [np.full(len(self.eta), np.nan) for _ in shares]
        for rows in self._parts():
            mu, weights, trials = self._mixture(rows)
            for values, share in zip(out, shares, strict=True):
                values[rows] = self._quantile(mu, weights, trials, share)
        return out

    def standard_deviations(self) -> Matrix:
        """Standard deviation of each distribution, shape (m,)."""
        out = np.full(len(self.eta), np.nan)
        for rows in self._parts():
            mu, weights, trials = self._mixture(rows)
            own = self.family.variance(mu, self.phi)
            if trials is not None:
                own = own / trials
            mean = np.einsum("ik,ik->i", mu, weights)
            second = np.einsum("ik,ik->i", own + (mu - mean[:, None]) ** 2, weights)
            out[rows] = np.sqrt(second)
        return out

    def _parts(self) -> list[NDArray[np.intp]]:
        known = np.flatnonzero(np.isfinite(self.eta) & np.isfinite(self.sd))
        return [known[i : i + _CHUNK] for i in range(0, len(known), _CHUNK)]

    def _mixture(self, rows: NDArray[np.intp]) -> tuple[Matrix, Matrix, Matrix | None]:
        """Means and their weights (m, points), and trials (m, 1)."""
        x = np.linspace(-_REACH, _REACH, _POINTS)
        at = self.eta[rows, None] + self.sd[rows, None] * x
        valid = self.family.valid(at)
        weights = np.where(valid, np.exp(-0.5 * x * x), 0.0)
        weights /= weights.sum(axis=1)[:, None]
        with np.errstate(all="ignore"):
            mu = np.asarray(self.family.link.inverse(at))
        centre = mu[np.arange(len(mu)), np.argmax(weights, axis=1)]
        trials = None if self.trials is None else self.trials[rows, None]
        return np.where(valid, mu, centre[:, None]), weights, trials

    def _quantile(self, mu: Matrix, weights: Matrix, trials: Matrix | None, share: float) -> Matrix:
        def below(y: Matrix) -> Matrix:
            column = y[:, None]
            found = self.family.cdf(column, mu, Response(column, trials), self.phi)
            return np.asarray(np.einsum("ik,ik->i", np.broadcast_to(found, mu.shape), weights))

        if self.family.discrete:
            return self._discrete(below, mu, trials, share)
        return self._continuous(below, np.einsum("ik,ik->i", mu, weights), share)

    def _discrete(
        self, below: Callable[[Matrix], Matrix], mu: Matrix, trials: Matrix | None, share: float
    ) -> Matrix:
        low = np.full(len(mu), -1.0)
        size = np.ones(len(mu)) if trials is None else trials[:, 0]
        if self.family.takes_trials:
            high = size.copy()
        else:
            high = np.ceil(mu.max(axis=1)) + 1.0
            for _ in range(_DOUBLINGS):
                short = below(high) < share
                if not short.any():
                    break
                low, high = np.where(short, high, low), np.where(short, 2.0 * high, high)
        while (high - low > 1.0).any():
            middle = np.floor(0.5 * (low + high))
            there = below(middle / size) >= share
            low, high = np.where(there, low, middle), np.where(there, middle, high)
        return high / size

    def _continuous(self, below: Callable[[Matrix], Matrix], mean: Matrix, share: float) -> Matrix:
        out_of, into = _scale(self.family.mean_range)
        centre = into(mean)
        step = np.ones_like(centre)
        low, high = centre - step, centre + step
        with np.errstate(all="ignore"):
            for _ in range(_DOUBLINGS):
                too_high, too_low = below(out_of(low)) > share, below(out_of(high)) < share
                if not (too_high.any() or too_low.any()):
                    break
                step = 2.0 * step
                low = np.where(too_high, low - step, low)
                high = np.where(too_low, high + step, high)
            return np.asarray(out_of(_crossing(lambda t: below(out_of(t)) - share, low, high)))


def _crossing(f: Callable[[Matrix], Matrix], low: Matrix, high: Matrix) -> Matrix:
    """Where rising functions cross zero, by false position as of Illinois."""
    below, above = f(low), f(high)
    side = np.zeros(len(low))
    for _ in range(_MOST):
        slope = above - below
        middle = np.where(slope > 0.0, (low * above - high * below) / slope, 0.5 * (low + high))
        found = f(middle)
        up = found >= 0.0
        below = np.where(up & (side > 0.0), 0.5 * below, np.where(up, below, found))
        above = np.where(~up & (side < 0.0), 0.5 * above, np.where(up, found, above))
        low, high = np.where(up, low, middle), np.where(up, middle, high)
        side = np.where(up, 1.0, -1.0)
        if (np.abs(found) < _CLOSE).all():
            break
    return middle


def _scale(
    limits: tuple[float, float],
) -> tuple[Callable[[Matrix], Matrix], Callable[[Matrix], Matrix]]:
    """From all numbers to those between the limits of the mean, and back."""
    if limits == (0.0, 1.0):
        return sp.expit, sp.logit
    if limits[0] == 0.0 and np.isinf(limits[1]):
        return np.exp, np.log
    return (lambda t: t), (lambda y: y)
