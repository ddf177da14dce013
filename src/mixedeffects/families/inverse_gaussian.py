"""Positive responses whose variance grows with the third power of the mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special as sp

from mixedeffects.families.gamma import dispersion_at_first, refuse_all_but_positive
from mixedeffects.families.links import Link
from mixedeffects.families.positive import PositiveMean
from mixedeffects.families.response import Array, Derivatives, Response

__all__ = ["InverseGaussian"]

_LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True, init=False, repr=False)
class InverseGaussian(PositiveMean):
    """Positive numbers whose variance is ``dispersion * mu^3``.

    The default link is the logarithm, where R has 1/mu^2.

    Parameters
    ----------
    link : {"log", "1/mu^2", "inverse", "identity"} or Link
        Of the mean.

    Examples
    --------
    >>> import mixedeffects as me
    >>> me.families.InverseGaussian("1/mu^2")
    Family: inverse_gaussian (link: 1/mu^2)
    """

    name = "inverse_gaussian"
    links = ("log", "1/mu^2", "inverse", "identity")
    canonical_link = "1/mu^2"
    parameter_name = "dispersion"

    def __init__(self, link: str | Link = "log") -> None:
        super().__init__(link)

    def log_density(self, y: Any, mu: Any, phi: Any = None, trials: Any = None) -> Any:
        dispersion = self.natural(phi)
        unit = (y / mu - 1.0) ** 2 / y
        return -0.5 * (np.log(dispersion) + _LOG_2PI + 3.0 * np.log(y) + unit / dispersion)

    def variance(self, mu: Any, phi: float | None = None) -> Any:
        return self.natural(phi) * mu**3

    def _by_log_mean(
        self, response: Response, log_mu: Array, phi: float | None, highest: int, parameter: bool
    ) -> Derivatives:
        y, phi = response.y, 0.0 if phi is None else phi
        tau = float(np.exp(phi))
        constant = response.remember("-3/2 log y", lambda: -1.5 * np.log(y) - 0.5 * _LOG_2PI)
        v = np.exp(-log_mu)
        gap = y * v - 1.0
        half = (0.5 * tau) * gap * gap / y
        # tau y v^2 and tau v: each derivative multiplies them by -2 and -1.
        once = tau * v
        twice = y * v * once
        first, second = once * gap, once - 2.0 * twice
        out: tuple[Array, ...] = (constant + 0.5 * phi - half, first, second)
        if highest >= 3:
            out += (4.0 * twice - once,)
        if highest >= 4:
            out += (once - 8.0 * twice,)
        return Derivatives(out, (0.5 - half, first, second, -half) if parameter else None)

    def _information_of_log_mean(self, log_mu: Array, phi: float | None) -> Array:
        return np.exp(-log_mu) / float(self.natural(phi))

    def check(self, response: Response, row_labels: Sequence[Any] | None = None) -> None:
        refuse_all_but_positive("inverse Gaussian", response, row_labels)

    def start_phi(self, response: Response, mu: Array) -> float:
        return dispersion_at_first((response.y / mu - 1.0) ** 2 / mu, response)

    def simulate(
        self, generator: np.random.Generator, mu: Array, response: Response, phi: float | None
    ) -> Array:
        out: Array = generator.wald(mu, 1.0 / self.natural(phi))
        return out

    def cdf(
        self, y: Array, mu: Array, response: Response, phi: float | None, strict: bool = False
    ) -> Array:
        tau = 1.0 / self.natural(phi)
        root = np.sqrt(tau / y)
        lower = sp.ndtr(root * (y / mu - 1.0))
        out: Array = lower + np.exp(2.0 * tau / mu + sp.log_ndtr(-root * (y / mu + 1.0)))
        return out
