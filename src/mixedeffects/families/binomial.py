"""Binomial responses: successes and failures, or proportions of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special as sp

from mixedeffects import _kernels
from mixedeffects.families.family import Family, refuse_rows
from mixedeffects.families.links import Link
from mixedeffects.families.response import (
    NONE,
    Array,
    Derivatives,
    Response,
    RowTerms,
    compiled_terms,
)

__all__ = ["Binomial"]

_LATENT = {"logit": math.pi**2 / 3.0, "probit": 1.0, "cloglog": math.pi**2 / 6.0}
_SYMMETRIC = ("logit", "probit", "cauchit")


@dataclass(frozen=True, init=False, repr=False)
class Binomial(Family):
    """Successes among trials.

    Parameters
    ----------
    link : {"logit", "probit", "cloglog", "cauchit", "log", "identity"} or Link
        Of the probability of a success.

    Examples
    --------
    >>> import mixedeffects as me
    >>> me.families.Binomial("probit")
    Family: binomial (link: probit)
    """

    name = "binomial"
    links = ("logit", "probit", "cloglog", "cauchit", "log", "identity")
    canonical_link = "logit"
    mean_range = (0.0, 1.0)
    discrete = True
    takes_trials = True

    def __init__(self, link: str | Link = "logit") -> None:
        super().__init__(link)

    def log_density(self, y: Any, mu: Any, phi: Any = None, trials: Any = None) -> Any:
        m = 1.0 if trials is None else trials
        ways = 0.0 if trials is None else _log_ways(m, y)
        return m * (sp.xlogy(y, mu) + sp.xlog1py(1.0 - y, -mu)) + ways

    def variance(self, mu: Any, phi: float | None = None) -> Any:
        return mu * (1.0 - mu)

    def _compiled_rows(self, response: Response, eta: Array, order: int) -> RowTerms | None:
        # A subclass may have derivatives of its own.
        if self.link.name != "logit" or type(self) is not Binomial:
            return None
        m, y = response.trials, response.y
        trials = ways = NONE
        if m is not None:
            trials, ways = m, response.remember("log ways", lambda: _log_ways(m, y))
        return compiled_terms(_kernels.logit_rows, response, (y, trials, ways), eta, order)

    def derivatives(
        self, response: Response, eta: Array, phi: float | None, order: int, parameter: bool
    ) -> Derivatives:
        highest = order + 2
        if self.link.name == "logit":
            out = _logit(response.y, eta, highest)
        elif response.binary and self.link.name in _SYMMETRIC:
            sign = response.remember("sign", lambda: 2.0 * response.y - 1.0)
            once = self.link.log_mean(sign * eta, highest)
            out = [sign * each if k % 2 else each for k, each in enumerate(once)]
        else:
            y, rest = response.y, 1.0 - response.y
            success = self.link.log_mean(eta, highest)
            failure = self.link.log_complement(eta, highest)
            out = [y * s + rest * f for s, f in zip(success, failure, strict=True)]
        if response.trials is not None:
            m = response.trials
            out = [m * each for each in out]
            out[0] = out[0] + response.remember("log ways", lambda: _log_ways(m, response.y))
        return Derivatives(tuple(out))

    def _information(self, response: Response, eta: Array, phi: float | None) -> Array:
        success, failure = self.link.log_mean(eta, 1)[1], self.link.log_complement(eta, 1)[1]
        out = -success * failure
        return out if response.trials is None else out * response.trials

    def check(self, response: Response, row_labels: Sequence[Any] | None = None) -> None:
        y = response.y
        if response.trials is None:
            refuse_rows(
                ~((y == 0.0) | (y == 1.0)),
                y,
                row_labels,
                "A binomial response without trials must be 0 or 1; a proportion needs the number "
                "of its trials (weights= or cbind(successes, failures))." + _codes(y),
            )
            return
        m = response.trials
        refuse_rows(
            ~((m >= 1.0) & _whole(m)),
            m,
            row_labels,
            "Trials of a binomial response must be whole numbers from 1.",
        )
        refuse_rows(
            ~((y >= 0.0) & (y <= 1.0)),
            y,
            row_labels,
            "A proportion of successes must lie from 0 to 1.",
        )
        refuse_rows(
            ~_whole(m * y),
            m * y,
            row_labels,
            "Successes of a binomial response must be whole numbers.",
        )

    def start_mu(self, response: Response) -> Array:
        m = 1.0 if response.trials is None else response.trials
        return (m * response.y + 0.5) / (m + 1.0)

    def simulate(
        self,
        generator: np.random.Generator,
        mu: Array,
        response: Response,
        phi: float | None = None,
    ) -> Array:
        if response.trials is None:
            return generator.binomial(1, mu).astype(np.float64)
        return generator.binomial(np.rint(response.trials).astype(np.int64), mu) / response.trials

    def cdf(
        self,
        y: Array,
        mu: Array,
        response: Response,
        phi: float | None = None,
        strict: bool = False,
    ) -> Array:
        m = np.ones_like(y) if response.trials is None else response.trials
        k = np.rint(m * y) - strict
        inside = np.clip(k, 0.0, m - 1.0)
        out = sp.betainc(m - inside, inside + 1.0, 1.0 - mu)
        return np.where(k < 0.0, 0.0, np.where(k >= m, 1.0, out))

    def _latent_variances(self) -> dict[str, Callable[[Any, float | None], Any]]:
        out = super()._latent_variances()
        if self.link.name in _LATENT:
            of_link = _LATENT[self.link.name]
            out = {"theoretical": lambda mu, phi: of_link + 0.0 * np.asarray(mu), **out}
        return out


def _logit(y: Array, eta: Array, highest: int) -> list[Array]:
    """One exponential for everything, and differences that keep their digits far out."""
    e = np.exp(-np.abs(eta))
    tail = 1.0 / (1.0 + e)
    upper = eta >= 0.0
    rest = e * tail
    q = np.where(upper, rest, tail)
    p = np.where(upper, tail, rest)
    pq = rest * tail
    value = y * eta
    value -= np.maximum(eta, 0.0)
    value -= np.log1p(e)
    out = [value, y * q - (1.0 - y) * p, -pq]
    if highest >= 3:
        out.append(pq * (p - q))
    if highest >= 4:
        out.append(pq * (6.0 * pq - 1.0))
    return out


def _log_ways(m: Any, y: Any) -> Any:
    k = np.rint(m * y)
    return sp.gammaln(m + 1.0) - sp.gammaln(k + 1.0) - sp.gammaln(m - k + 1.0)


def _whole(values: Array) -> Any:
    return np.abs(values - np.rint(values)) <= 1e-6 * np.maximum(1.0, np.abs(values))


def _codes(y: Array) -> str:
    """What values that are no zeros and ones may be meant for."""
    values = np.unique(y)
    if len(values) == 2:
        return (
            f" If {values[1]:g} stands for a success and {values[0]:g} for a failure, take "
            f"`y == {values[1]:g}` as the response."
        )
    if values[0] >= 0.0 and 1.0 < values[-1] <= 100.0 and (values % 1.0 != 0.0).any():
        return " Percentages are to be divided by 100."
    return ""
