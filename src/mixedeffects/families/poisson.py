"""Counts without overdispersion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special as sp

from mixedeffects import _kernels
from mixedeffects.families.family import refuse_rows
from mixedeffects.families.links import Link
from mixedeffects.families.positive import PositiveMean
from mixedeffects.families.response import (
    Array,
    Derivatives,
    Response,
    RowTerms,
    compiled_terms,
)

__all__ = ["Poisson", "refuse_all_but_counts"]


#: Count from which log-probabilities are computed by how far the mean is from it.
_LARGE = 1e6


@dataclass(frozen=True, init=False, repr=False)
class Poisson(PositiveMean):
    """Counts whose variance is their mean.

    Parameters
    ----------
    link : {"log", "sqrt", "identity"} or Link
        Of the mean.

    Examples
    --------
    >>> import mixedeffects as me
    >>> me.families.Poisson()
    Family: poisson (link: log)
    """

    name = "poisson"
    links = ("log", "sqrt", "identity")
    canonical_link = "log"
    discrete = True

    def __init__(self, link: str | Link = "log") -> None:
        super().__init__(link)

    def log_density(self, y: Any, mu: Any, phi: Any = None, trials: Any = None) -> Any:
        return sp.xlogy(y, mu) - mu - sp.gammaln(y + 1.0)

    def variance(self, mu: Any, phi: float | None = None) -> Any:
        return mu

    def _compiled_rows(self, response: Response, eta: Array, order: int) -> RowTerms | None:
        # A subclass may have derivatives of its own.
        if self.link.name != "log" or type(self) is not Poisson or _are_large(response):
            return None
        given = (response.y, log_factorials(response))
        return compiled_terms(_kernels.log_rows, response, given, eta, order)

    def _by_log_mean(
        self, response: Response, log_mu: Array, phi: float | None, highest: int, parameter: bool
    ) -> Derivatives:
        mu = np.exp(log_mu)
        if _are_large(response):
            value = _near_the_count(response, log_mu, mu)
        else:
            value = response.y * log_mu
            value -= mu
            value -= log_factorials(response)
        minus = -mu
        return Derivatives((value, response.y - mu, *(minus,) * (highest - 1)))

    def _information_of_log_mean(self, log_mu: Array, phi: float | None) -> Array:
        return np.exp(log_mu)

    def check(self, response: Response, row_labels: Sequence[Any] | None = None) -> None:
        refuse_all_but_counts(self.name, response, row_labels)

    def start_mu(self, response: Response) -> Array:
        return response.y + 0.1

    def simulate(
        self,
        generator: np.random.Generator,
        mu: Array,
        response: Response,
        phi: float | None = None,
    ) -> Array:
        return generator.poisson(mu).astype(np.float64)

    def cdf(
        self,
        y: Array,
        mu: Array,
        response: Response,
        phi: float | None = None,
        strict: bool = False,
    ) -> Array:
        k = y - strict
        return np.where(k < 0.0, 0.0, sp.pdtr(np.maximum(k, 0.0), mu))

    def _latent_variances(self) -> dict[str, Callable[[Any, float | None], Any]]:
        out = super()._latent_variances()
        if self.link.name == "log":
            out["trigamma"] = lambda mu, phi: sp.polygamma(1, mu)
        return out


def _are_large(response: Response) -> bool:
    """Whether the parts of a log-probability are so large that their sum has no digits left."""
    found: bool = response.remember(
        "large counts", lambda: bool(response.y.max(initial=0.0) > _LARGE)
    )
    return found


def _near_the_count(response: Response, log_mu: Array, mu: Array) -> Array:
    """Log-probabilities from log(mu / y), by which they are small, and Stirling's series."""
    y = np.maximum(response.y, 1.0)
    log_y, peak = response.remember("peaks", lambda: _peaks(y))
    above = log_mu - log_y
    value = y * (above - np.expm1(above)) + peak
    return np.where(response.y > 0.0, value, -mu)


def _peaks(y: Array) -> tuple[Array, Array]:
    """log(y), and log-probabilities of a count y at the mean y."""
    log_y = np.log(y)
    series = (1.0 - (1.0 - 2.0 / (7.0 * y * y)) / (30.0 * y * y)) / (12.0 * y)
    far = -0.5 * (np.log(2.0 * np.pi) + log_y) - series
    return log_y, np.where(y > 1e3, far, y * log_y - y - sp.gammaln(y + 1.0))


def log_factorials(response: Response) -> Array:
    """log(y!), once for a response."""
    out: Array = response.remember("log factorials", lambda: sp.gammaln(response.y + 1.0))
    return out


def refuse_all_but_counts(name: str, response: Response, row_labels: Sequence[Any] | None) -> None:
    """Counts only.

    Raises
    ------
    DataError
        If there are others, with their rows.
    """
    y = response.y
    refuse_rows(
        ~((y >= 0.0) & (y == np.rint(y)) & np.isfinite(y)),
        y,
        row_labels,
        f"A response of the {name} family must be counts: whole numbers from 0.",
    )
