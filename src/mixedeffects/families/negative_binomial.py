"""Counts with overdispersion that is quadratic in the mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special as sp

from mixedeffects.base.options import checked_number
from mixedeffects.errors import ModelError
from mixedeffects.families.links import Link
from mixedeffects.families.poisson import log_factorials, refuse_all_but_counts
from mixedeffects.families.positive import PositiveMean
from mixedeffects.families.response import Array, Derivatives, Response

__all__ = ["NegativeBinomial"]

# Counts up to here are summed term by term, which stays exact where theta is large.
_SUMMED_UP_TO = 10_000
_THETA_AT_FIRST = (0.05, 1e3)


@dataclass(frozen=True, init=False, repr=False)
class NegativeBinomial(PositiveMean):
    """Counts whose variance is ``mu + mu^2 / theta``: R's ``glm.nb``, glmmTMB's ``nbinom2``.

    Parameters
    ----------
    link : {"log", "sqrt", "identity"} or Link
        Of the mean.
    theta : float, optional
        Given; estimated if None.

    Raises
    ------
    ModelError
        If theta is not positive.

    Examples
    --------
    >>> import mixedeffects as me
    >>> me.families.NegativeBinomial(theta=2.0)
    Family: negative_binomial (link: log, theta: 2)
    """

    theta: float | None

    name = "negative_binomial"
    links = ("log", "sqrt", "identity")
    parameter_name = "theta"
    discrete = True

    def __init__(self, link: str | Link = "log", theta: float | None = None) -> None:
        super().__init__(link)
        if theta is not None:
            theta = checked_number(theta, "theta")
            if theta <= 0.0:
                raise ModelError(f"theta must be above 0, not {theta:g}; None estimates it.")
        object.__setattr__(self, "theta", theta)

    def __repr__(self) -> str:
        given = "" if self.theta is None else f", theta: {self.theta:g}"
        return f"Family: {self.name} (link: {self.link.name}{given})"

    @property
    def has_parameter(self) -> bool:
        return self.theta is None

    def natural(self, phi: Any) -> Any:
        return np.exp(phi) if self.theta is None else self.theta

    def log_density(self, y: Any, mu: Any, phi: Any = None, trials: Any = None) -> Any:
        theta = self.natural(phi)
        constant = sp.gammaln(y + theta) - sp.gammaln(theta) - sp.gammaln(y + 1.0)
        return constant + sp.xlogy(y, mu) - y * np.log(theta + mu) - theta * np.log1p(mu / theta)

    def variance(self, mu: Any, phi: float | None = None) -> Any:
        return mu * (1.0 + mu / self.natural(phi))

    def _by_log_mean(
        self, response: Response, log_mu: Array, phi: float | None, highest: int, parameter: bool
    ) -> Derivatives:
        y, theta = response.y, float(self.natural(phi))
        z = log_mu - np.log(theta)
        e = np.exp(-np.abs(z))
        tail = 1.0 / (1.0 + e)
        rest = e * tail
        upper = z >= 0.0
        # p = mu / (mu + theta), q = 1 - p and growth = log(1 + mu / theta).
        p, q, pq = np.where(upper, tail, rest), np.where(upper, rest, tail), rest * tail
        growth = np.log1p(e) + np.maximum(z, 0.0)
        sums = _sums(response, theta, parameter)
        value = sums[0] - log_factorials(response) + y * (log_mu - growth) - theta * growth
        theta_p = theta * p
        scale = (y + theta) * pq
        out = [value, y * q - theta_p, -scale]
        if highest >= 3:
            out.append(scale * (p - q))
        if highest >= 4:
            out.append(scale * (6.0 * pq - 1.0))
        if not parameter:
            return Derivatives(tuple(out))
        curve = theta_p - theta * growth
        by_phi = (
            y * p + curve - sums[1],
            scale - theta_p,
            scale * (q - p) - theta * pq,
            sums[2] - y * pq + curve + theta_p * p,
        )
        return Derivatives(tuple(out), by_phi)

    def _information_of_log_mean(self, log_mu: Array, phi: float | None) -> Array:
        theta = float(self.natural(phi))
        out: Array = theta * sp.expit(log_mu - np.log(theta))
        return out

    def check(self, response: Response, row_labels: Sequence[Any] | None = None) -> None:
        refuse_all_but_counts("negative binomial", response, row_labels)

    def start_mu(self, response: Response) -> Array:
        return np.maximum(response.y, 1.0 / 6.0)

    def start_phi(self, response: Response, mu: Array) -> float:
        excess = np.average((response.y - mu) ** 2 - mu, weights=response.weights)
        square = np.average(mu * mu, weights=response.weights)
        low, high = _THETA_AT_FIRST
        return float(np.log(np.clip(square / excess if excess > 0.0 else high, low, high)))

    def simulate(
        self, generator: np.random.Generator, mu: Array, response: Response, phi: float | None
    ) -> Array:
        theta = self.natural(phi)
        means = generator.gamma(theta, mu / theta)
        return np.asarray(generator.poisson(means), dtype=np.float64)

    def cdf(
        self, y: Array, mu: Array, response: Response, phi: float | None, strict: bool = False
    ) -> Array:
        k, theta = y - strict, self.natural(phi)
        return np.where(
            k < 0.0, 0.0, sp.betainc(theta, np.maximum(k, 0.0) + 1.0, theta / (theta + mu))
        )

    def _latent_variances(self) -> dict[str, Callable[[Any, float | None], Any]]:
        out = super()._latent_variances()
        if self.link.name == "log":
            out["trigamma"] = lambda mu, phi: sp.polygamma(
                1, 1.0 / (1.0 / mu + 1.0 / self.natural(phi))
            )
        return out


def _sums(response: Response, theta: float, parameter: bool) -> tuple[Array, ...]:
    """Over k < y: of log(1 + k / theta), k / (theta + k) and k theta / (theta + k)^2."""
    most = response.remember("largest", lambda: float(response.y.max(initial=0.0)))
    if most > _SUMMED_UP_TO:
        return _differences(response.y, theta, parameter)
    counts = response.remember("counts", lambda: response.y.astype(np.intp))
    k = np.arange(most)
    terms = [np.log1p(k / theta)]
    if parameter:
        share = k / (theta + k)
        terms += [share, share * (theta / (theta + k))]
    return tuple(np.concatenate([[0.0], np.cumsum(each)])[counts] for each in terms)


def _differences(y: Array, theta: float, parameter: bool) -> tuple[Array, ...]:
    out = [sp.gammaln(y + theta) - sp.gammaln(theta) - y * np.log(theta)]
    if parameter:
        first = theta * (sp.digamma(y + theta) - sp.digamma(theta))
        second = theta**2 * (sp.polygamma(1, y + theta) - sp.polygamma(1, theta))
        out += [y - first, first + second]
    return tuple(out)
