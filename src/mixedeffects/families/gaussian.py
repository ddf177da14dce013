"""Normal responses, with links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special as sp

from mixedeffects.families.family import Family, refuse_rows
from mixedeffects.families.gamma import dispersion_at_first
from mixedeffects.families.links import Link, chain
from mixedeffects.families.response import Array, Derivatives, Response

__all__ = ["Gaussian"]

_LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True, init=False, repr=False)
class Gaussian(Family):
    """Normal responses of a constant variance, the dispersion, about a mean with a link.

    With the identity link this is the linear mixed model by maximum likelihood, for which `lmer`
    is faster and offers more.

    Parameters
    ----------
    link : {"identity", "log", "inverse"} or Link
        Of the mean.

    Examples
    --------
    >>> import mixedeffects as me
    >>> me.families.Gaussian("log")
    Family: gaussian (link: log)
    """

    name = "gaussian"
    links = ("identity", "log", "inverse")
    canonical_link = "identity"
    parameter_name = "dispersion"

    def __init__(self, link: str | Link = "identity") -> None:
        super().__init__(link)

    def log_density(self, y: Any, mu: Any, phi: Any = None, trials: Any = None) -> Any:
        dispersion = self.natural(phi)
        return -0.5 * (_LOG_2PI + np.log(dispersion) + (y - mu) ** 2 / dispersion)

    def variance(self, mu: Any, phi: float | None = None) -> Any:
        return self.natural(phi) + 0.0 * np.asarray(mu)

    def derivatives(
        self, response: Response, eta: Array, phi: float | None, order: int, parameter: bool
    ) -> Derivatives:
        phi = 0.0 if phi is None else phi
        tau, highest = float(np.exp(phi)), order + 2
        inner = self.link.mean(eta, highest)
        residual = response.y - inner[0]
        first = tau * residual
        half = 0.5 * residual * first
        minus, zero = np.full_like(eta, -tau), np.zeros_like(eta)
        value = 0.5 * (phi - _LOG_2PI) - half
        by_eta = chain((value, first, minus, zero, zero)[: highest + 1], inner)
        by_phi = (0.5 - half, by_eta[1], by_eta[2], -half) if parameter else None
        return Derivatives(by_eta, by_phi)

    def check(self, response: Response, row_labels: Sequence[Any] | None = None) -> None:
        y = response.y
        refuse_rows(
            ~np.isfinite(y),
            y,
            row_labels,
            "A response of the gaussian family must be finite numbers.",
        )

    def start_mu(self, response: Response) -> Array:
        if self.link.name == "identity":
            return response.y
        # Means that the link has, whatever the signs of single responses.
        middle = float(np.average(response.y, weights=response.weights))
        spread = 0.1 * (abs(middle) or float(np.abs(response.y).mean()) or 1.0)
        if self.link.name == "log":
            return np.maximum(response.y, spread)
        sign = -1.0 if middle < 0.0 else 1.0
        return sign * np.maximum(sign * response.y, spread)

    def start_phi(self, response: Response, mu: Array) -> float:
        return dispersion_at_first((response.y - mu) ** 2, response)

    def simulate(
        self, generator: np.random.Generator, mu: Array, response: Response, phi: float | None
    ) -> Array:
        return mu + float(np.sqrt(self.natural(phi))) * generator.standard_normal(mu.shape)

    def cdf(
        self, y: Array, mu: Array, response: Response, phi: float | None, strict: bool = False
    ) -> Array:
        out: Array = sp.ndtr((y - mu) / np.sqrt(self.natural(phi)))
        return out
