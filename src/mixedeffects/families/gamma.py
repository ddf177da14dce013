"""Positive responses with a constant coefficient of variation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special as sp

from mixedeffects.families.family import refuse_rows
from mixedeffects.families.links import Link
from mixedeffects.families.positive import PositiveMean
from mixedeffects.families.response import Array, Derivatives, Response

__all__ = ["Gamma", "dispersion_at_first", "refuse_all_but_positive"]

_LOG_2PI = float(np.log(2.0 * np.pi))
_STIRLING_FROM = 20.0
# Stirling's series of log Gamma: coefficients of nu^-1, nu^-3, ...
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


@dataclass(frozen=True, init=False, repr=False)
class Gamma(PositiveMean):
    """Positive numbers whose variance is ``dispersion * mu^2``.

    The shape of the distribution is 1 / dispersion. The default link is the logarithm, where R has
    the inverse.

    Parameters
    ----------
    link : {"log", "inverse", "identity"} or Link
        Of the mean.

    Examples
    --------
    >>> import mixedeffects as me
    >>> me.families.Gamma("inverse")
    Family: gamma (link: inverse)
    """

    name = "gamma"
    links = ("log", "inverse", "identity")
    canonical_link = "inverse"
    parameter_name = "dispersion"

    def __init__(self, link: str | Link = "log") -> None:
        super().__init__(link)

    def log_density(self, y: Any, mu: Any, phi: Any = None, trials: Any = None) -> Any:
        nu = 1.0 / self.natural(phi)
        u = nu * y / mu
        return nu * np.log(u) - u - np.log(y) - sp.gammaln(nu)

    def variance(self, mu: Any, phi: float | None = None) -> Any:
        return self.natural(phi) * mu * mu

    def _by_log_mean(
        self, response: Response, log_mu: Array, phi: float | None, highest: int, parameter: bool
    ) -> Derivatives:
        nu = float(np.exp(phi)) if phi is not None else 1.0
        log_y = response.remember("log y", lambda: np.log(response.y))
        log_u = log_y - log_mu
        u = np.exp(log_u)
        unit = u - 1.0 - log_u
        c, c1, c2 = _normalising(nu)
        scaled = nu * u
        value = c - log_y - nu * unit
        first, minus = scaled - nu, -scaled
        out = (value, first, minus, scaled, minus)[: highest + 1]
        if not parameter:
            return Derivatives(out)
        by_shape = nu * (c1 - unit)
        return Derivatives(out, (by_shape, first, minus, by_shape + nu * nu * c2))

    def _information_of_log_mean(self, log_mu: Array, phi: float | None) -> Array:
        return np.full_like(log_mu, 1.0 / self.natural(phi))

    def check(self, response: Response, row_labels: Sequence[Any] | None = None) -> None:
        refuse_all_but_positive("gamma", response, row_labels)

    def start_phi(self, response: Response, mu: Array) -> float:
        return dispersion_at_first((response.y / mu - 1.0) ** 2, response)

    def simulate(
        self, generator: np.random.Generator, mu: Array, response: Response, phi: float | None
    ) -> Array:
        dispersion = self.natural(phi)
        out: Array = generator.gamma(1.0 / dispersion, mu * dispersion)
        return out

    def cdf(
        self, y: Array, mu: Array, response: Response, phi: float | None, strict: bool = False
    ) -> Array:
        nu = 1.0 / self.natural(phi)
        out: Array = sp.gammainc(nu, nu * y / mu)
        return out

    def _latent_variances(self) -> dict[str, Callable[[Any, float | None], Any]]:
        out = super()._latent_variances()
        if self.link.name == "log":
            out["trigamma"] = lambda mu, phi: (
                sp.polygamma(1, 1.0 / self.natural(phi)) + 0.0 * np.asarray(mu)
            )
        return out


def _normalising(nu: float) -> tuple[float, float, float]:
    """Nu log nu - nu - log Gamma(nu) and its derivatives, without their cancellation."""
    if nu < _STIRLING_FROM:
        return (
            float(sp.xlogy(nu, nu) - nu - sp.gammaln(nu)),
            float(np.log(nu) - sp.digamma(nu)),
            float(1.0 / nu - sp.polygamma(1, nu)),
        )
    value, first, second = 0.5 * (np.log(nu) - _LOG_2PI), 0.5 / nu, -0.5 / nu**2
    for k, coefficient in enumerate(_STIRLING):
        power = -(2 * k + 1)
        value -= coefficient * nu**power
        first -= coefficient * power * nu ** (power - 1)
        second -= coefficient * power * (power - 1) * nu ** (power - 2)
    return float(value), float(first), float(second)


def dispersion_at_first(squares: Array, response: Response) -> float:
    """Minus the logarithm of the mean of squared standardised residuals."""
    mean = float(np.average(squares, weights=response.weights))
    # A perfect fit, as that of the response to itself, says nothing.
    return -float(np.log(mean)) if mean > 1e-10 else 0.0


def refuse_all_but_positive(
    name: str, response: Response, row_labels: Sequence[Any] | None
) -> None:
    """Positive numbers only.

    Raises
    ------
    DataError
        If there are others, with their rows.
    """
    y = response.y
    refuse_rows(
        ~((y > 0.0) & np.isfinite(y)),
        y,
        row_labels,
        f"A response of the {name} family must be above 0.",
    )
