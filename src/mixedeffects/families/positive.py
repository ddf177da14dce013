"""Families whose mean is positive: their log-likelihood is a function of the mean's logarithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedeffects.families.family import Family
from mixedeffects.families.links import chain
from mixedeffects.families.response import Array, Derivatives, Response

__all__ = ["PositiveMean"]


@dataclass(frozen=True, init=False, repr=False)
class PositiveMean(Family):
    """Derivatives by log(mu), through any link."""

    mean_range = (0.0, np.inf)

    def _by_log_mean(
        self, response: Response, log_mu: Array, phi: float | None, highest: int, parameter: bool
    ) -> Derivatives:
        """The log-likelihood and its derivatives by log(mu), and by phi."""
        raise self._lacks("_by_log_mean")

    def _information_of_log_mean(self, log_mu: Array, phi: float | None) -> Array:
        """Expected information on log(mu) in a row of weight 1."""
        raise self._lacks("_information_of_log_mean")

    def derivatives(
        self, response: Response, eta: Array, phi: float | None, order: int, parameter: bool
    ) -> Derivatives:
        if self.link.name == "log":
            return self._by_log_mean(response, eta, phi, order + 2, parameter)
        inner = self.link.log_mean(eta, order + 2)
        outer = self._by_log_mean(response, inner[0], phi, order + 2, parameter)
        # A mean of zero or infinity is none, even where the likelihood has a limit.
        value = np.where(np.isfinite(inner[0]), outer.by_eta[0], np.nan)
        by_eta = chain((value, *outer.by_eta[1:]), inner)
        if outer.by_phi is None:
            return Derivatives(by_eta)
        first, mixed, curved, second = outer.by_phi
        g1 = inner[1]
        return Derivatives(by_eta, (first, mixed * g1, curved * g1 * g1 + mixed * inner[2], second))

    def _information(self, response: Response, eta: Array, phi: float | None) -> Array:
        log_mu, slope = self.link.log_mean(eta, 1)
        return slope * slope * self._information_of_log_mean(log_mu, phi)

    def _latent_variances(self) -> dict[str, Callable[[Any, float | None], Any]]:
        out = super()._latent_variances()
        if self.link.name == "log":
            out["lognormal"] = lambda mu, phi: np.log1p(self._delta_variance(mu, phi))
        return out
