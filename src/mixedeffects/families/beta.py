"""Proportions that are measured, not counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special as sp

from mixedeffects.families.family import Family, refuse_rows
from mixedeffects.families.links import Link, chain
from mixedeffects.families.polygamma import polygammas
from mixedeffects.families.response import Array, Derivatives, Response

__all__ = ["Beta"]

_PRECISION_AT_FIRST = (0.1, 1e4)


@dataclass(frozen=True, init=False, repr=False)
class Beta(Family):
    """Numbers between 0 and 1 whose variance is ``mu (1 - mu) / (1 + precision)``.

    Parameters
    ----------
    link : {"logit", "probit", "cloglog", "cauchit"} or Link
        Of the mean.

    References
    ----------
    Ferrari and Cribari-Neto (2004), Beta regression for modelling rates and proportions, Journal of
    Applied Statistics 31, 799-815.

    Examples
    --------
    >>> import mixedeffects as me
    >>> me.families.Beta()
    Family: beta (link: logit)
    """

    name = "beta"
    links = ("logit", "probit", "cloglog", "cauchit")
    parameter_name = "precision"
    mean_range = (0.0, 1.0)

    def __init__(self, link: str | Link = "logit") -> None:
        super().__init__(link)

    def log_density(self, y: Any, mu: Any, phi: Any = None, trials: Any = None) -> Any:
        precision = self.natural(phi)
        a, b = precision * mu, precision * (1.0 - mu)
        powers = (a - 1.0) * np.log(y) + (b - 1.0) * np.log1p(-y)
        return powers + sp.gammaln(precision) - sp.gammaln(a) - sp.gammaln(b)

    def variance(self, mu: Any, phi: float | None = None) -> Any:
        return mu * (1.0 - mu) / (1.0 + self.natural(phi))

    def derivatives(
        self, response: Response, eta: Array, phi: float | None, order: int, parameter: bool
    ) -> Derivatives:
        phi = 0.0 if phi is None else phi
        log_y = response.remember("log y", lambda: np.log(response.y))
        log_rest = response.remember("log(1 - y)", lambda: np.log1p(-response.y))
        precision, highest = float(np.exp(phi)), order + 2
        above = self.link.log_mean(eta, highest)
        below = self.link.log_complement(eta, highest)
        # By log a and log b, of which phi is a summand as the logarithm of the mean is.
        of_a = _power_and_gamma(log_y, precision * np.exp(above[0]), highest)
        of_b = _power_and_gamma(log_rest, precision * np.exp(below[0]), highest)
        first = chain((of_a[0] + above[0], of_a[1] + 1.0, *of_a[2:]), above)
        second = chain((of_b[0] + below[0], of_b[1] + 1.0, *of_b[2:]), below)
        out = [f + s for f, s in zip(first, second, strict=True)]
        out[0] += float(sp.gammaln(precision)) + 2.0 * phi - log_y - log_rest
        if not parameter:
            return Derivatives(tuple(out))
        slope = precision * float(sp.digamma(precision))
        curve = precision**2 * float(sp.polygamma(1, precision))
        by_phi = (
            of_a[1] + of_b[1] + (slope + 2.0),
            of_a[2] * above[1] + of_b[2] * below[1],
            of_a[3] * above[1] ** 2
            + of_a[2] * above[2]
            + of_b[3] * below[1] ** 2
            + of_b[2] * below[2],
            of_a[2] + of_b[2] + (slope + curve),
        )
        return Derivatives(tuple(out), by_phi)

    def _information(self, response: Response, eta: Array, phi: float | None) -> Array:
        precision = float(self.natural(phi))
        out = np.zeros_like(eta)
        for value, slope in (self.link.log_mean(eta, 1), self.link.log_complement(eta, 1)):
            a = precision * np.exp(value)
            out += (1.0 + a * a * polygammas(1.0 + a, 1)[0]) * slope * slope
        return out

    def check(self, response: Response, row_labels: Sequence[Any] | None = None) -> None:
        y = response.y
        refuse_rows(
            ~((y > 0.0) & (y < 1.0)),
            y,
            row_labels,
            "A response of the beta family must lie between 0 and 1, without 0 and 1 themselves.",
        )

    def start_phi(self, response: Response, mu: Array) -> float:
        square = np.average((response.y - mu) ** 2, weights=response.weights)
        binomial = np.average(mu * (1.0 - mu), weights=response.weights)
        # A perfect fit, as that of the response to itself, says nothing.
        precision = binomial / square - 1.0 if square > 1e-10 else 1.0
        low, high = _PRECISION_AT_FIRST
        return float(np.log(np.clip(precision, low, high)))

    def simulate(
        self, generator: np.random.Generator, mu: Array, response: Response, phi: float | None
    ) -> Array:
        precision = self.natural(phi)
        drawn = generator.beta(precision * mu, precision * (1.0 - mu))
        # A draw that rounds to an end is outside the support.
        out: Array = np.clip(drawn, np.finfo(np.float64).tiny, 1.0 - np.finfo(np.float64).epsneg)
        return out

    def cdf(
        self, y: Array, mu: Array, response: Response, phi: float | None, strict: bool = False
    ) -> Array:
        precision = self.natural(phi)
        out: Array = sp.betainc(precision * mu, precision * (1.0 - mu), y)
        return out


def _power_and_gamma(log_y: Array, a: Array, highest: int) -> tuple[Array, ...]:
    """A log y - log Gamma(1 + a), and its derivatives by log a; all vanish with a."""
    shifted = 1.0 + a
    first = a * (log_y - sp.digamma(shifted))
    gammas = polygammas(shifted, highest - 1)
    square = a * a
    second, third = square * gammas[0], square * a * gammas[1]
    out = [a * log_y - sp.gammaln(shifted), first, first - second, first - 3.0 * second - third]
    if highest >= 4:
        fourth = square * square * gammas[2]
        out.append(first - 7.0 * second - 6.0 * third - fourth)
    return tuple(out)
