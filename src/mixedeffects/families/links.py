"""Links: the linear predictor as a function of the mean, and the mean's derivatives.

A link gives the mean, its logarithm, or the logarithm of its complement to 1, each with derivatives
by the linear predictor: what a family's log-likelihood is made of. The logarithms are computed as
they are, not from the mean, and so are accurate where the mean is all but 0 or 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.special as sp
from numpy.typing import NDArray

from mixedeffects.families.jets import Jet
from mixedeffects.families.log_probabilities import (
    log_cauchy,
    log_logistic,
    log_minimum,
    log_normal,
)
from mixedeffects.families.response import Array, Response

__all__ = ["LINKS", "Link", "chain", "predictor_unit"]


@dataclass(frozen=True)
class Link:
    """A link; one of your own says its `name`, `link` and `inverse`, written with NumPy.

    The derivatives are taken from `inverse` itself, which therefore is written with NumPy's and
    SciPy's elementwise functions (exp, log1p, ``scipy.special.ndtr``, ``numpy.where``, ...).

    Examples
    --------
    The log-log link:

    >>> import numpy as np
    >>> class LogLog(Link):
    ...     name = "loglog"
    ...
    ...     def link(self, mu):
    ...         return -np.log(-np.log(mu))
    ...
    ...     def inverse(self, eta):
    ...         return np.exp(-np.exp(-eta))
    >>> LogLog().mean(np.array([0.0]), 1)[1].round(4).tolist()
    [0.3679]
    """

    name: ClassVar[str] = ""

    def link(self, mu: Any) -> Any:
        """The linear predictor at a mean."""
        raise NotImplementedError

    def inverse(self, eta: Any) -> Any:
        """The mean at a linear predictor."""
        raise NotImplementedError

    def valid(self, eta: Array) -> NDArray[np.bool_]:
        """Whether a linear predictor has a mean."""
        return np.isfinite(eta)

    def derivative(self, eta: Array) -> Array:
        """Derivative of the mean by the linear predictor."""
        return self.mean(eta, 1)[1]

    def mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        """The mean and its derivatives by the linear predictor, up to the fourth."""
        return _derivatives(self.inverse(Jet.variable(eta)), highest)

    def log_mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        """The logarithm of the mean and its derivatives."""
        return _derivatives(np.log(self.inverse(Jet.variable(eta))), highest)

    def log_complement(self, eta: Array, highest: int) -> tuple[Array, ...]:
        """The logarithm of 1 less the mean and its derivatives."""
        return _derivatives(np.log1p(-self.inverse(Jet.variable(eta))), highest)


def _derivatives(jet: Any, highest: int) -> tuple[Array, ...]:
    return tuple(np.asarray(jet.derivative(order)) for order in range(highest + 1))


def chain(outer: tuple[Array, ...], inner: tuple[Array, ...]) -> tuple[Array, ...]:
    """Derivatives of f(g(eta)) from those of f at g and of g at eta, as many as both have."""
    out = [outer[0]]
    highest = min(len(outer), len(inner)) - 1
    if highest >= 1:
        g1 = inner[1]
        out.append(outer[1] * g1)
    if highest >= 2:
        g2, square = inner[2], g1 * g1
        out.append(outer[2] * square + outer[1] * g2)
    if highest >= 3:
        g3 = inner[3]
        out.append(outer[3] * square * g1 + 3.0 * outer[2] * g1 * g2 + outer[1] * g3)
    if highest >= 4:
        out.append(
            outer[4] * square * square
            + 6.0 * outer[3] * square * g2
            + outer[2] * (3.0 * g2 * g2 + 4.0 * g1 * g3)
            + outer[1] * inner[4]
        )
    return tuple(out)


class _Symmetric(Link):
    """The quantiles of a distribution that is symmetric about 0."""

    def log_complement(self, eta: Array, highest: int) -> tuple[Array, ...]:
        mirrored = self.log_mean(-eta, highest)
        return tuple(-each if order % 2 else each for order, each in enumerate(mirrored))

    def mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        return _exp_of(self.log_mean(eta, highest))


def _exp_of(log: tuple[Array, ...]) -> tuple[Array, ...]:
    value = np.exp(log[0])
    return chain((value,) * len(log), log)


class Logit(_Symmetric):
    """log(mu / (1 - mu))."""

    name = "logit"

    def link(self, mu: Any) -> Any:
        return sp.logit(mu)

    def inverse(self, eta: Any) -> Any:
        return sp.expit(eta)

    def log_mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        return log_logistic(eta, highest)


class Probit(_Symmetric):
    """The normal quantile of mu."""

    name = "probit"

    def link(self, mu: Any) -> Any:
        return sp.ndtri(mu)

    def inverse(self, eta: Any) -> Any:
        return sp.ndtr(eta)

    def log_mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        return log_normal(eta, highest)


class Cauchit(_Symmetric):
    """The Cauchy quantile of mu."""

    name = "cauchit"

    def link(self, mu: Any) -> Any:
        return np.tan(np.pi * (mu - 0.5))

    def inverse(self, eta: Any) -> Any:
        if isinstance(eta, Jet):
            return 0.5 + np.arctan(eta) / np.pi
        return np.arctan2(1.0, -np.asarray(eta)) / np.pi

    def log_mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        return log_cauchy(eta, highest)


class Cloglog(Link):
    """log(-log(1 - mu))."""

    name = "cloglog"

    def link(self, mu: Any) -> Any:
        return np.log(-np.log1p(-np.asarray(mu)))

    def inverse(self, eta: Any) -> Any:
        return -np.expm1(-np.exp(eta))

    def log_mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        return log_minimum(eta, highest)

    def log_complement(self, eta: Array, highest: int) -> tuple[Array, ...]:
        return (-np.exp(eta),) * (highest + 1)

    def mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        return _exp_of(self.log_mean(eta, highest))


class Log(Link):
    """log(mu)."""

    name = "log"

    def link(self, mu: Any) -> Any:
        return np.log(mu)

    def inverse(self, eta: Any) -> Any:
        return np.exp(eta)

    def mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        return (np.exp(eta),) * (highest + 1)

    def log_mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        zero = np.zeros_like(eta)
        return (eta, np.ones_like(eta), zero, zero, zero)[: highest + 1]

    def log_complement(self, eta: Array, highest: int) -> tuple[Array, ...]:
        # Not a probability from 0 on.
        value = np.where(eta < 0.0, np.log(-np.expm1(np.minimum(eta, 0.0))), np.nan)
        odds = 1.0 / np.expm1(-eta)
        first = odds * (1.0 + odds)
        out = (value, -odds, -first, -first * (1.0 + 2.0 * odds), -first * (1.0 + 6.0 * first))
        return out[: highest + 1]


class _Power(Link):
    """A mean that is a power of the linear predictor, which is positive."""

    exponent: ClassVar[float] = 1.0

    def link(self, mu: Any) -> Any:
        return np.power(mu, 1.0 / self.exponent)

    def inverse(self, eta: Any) -> Any:
        return np.power(eta, self.exponent)

    def mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        inverse = 1.0 / eta
        out = [self.inverse(eta)]
        for order in range(highest):
            out.append(out[-1] * inverse * (self.exponent - order))
        return tuple(out)

    def log_mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        out = [self.exponent * np.log(eta)]
        inverse = 1.0 / eta
        power = -self.exponent * np.ones_like(eta)
        for order in range(1, highest + 1):
            power = power * -inverse
            out.append(math.factorial(order - 1) * power)
        return tuple(out)


class Identity(_Power):
    """The mean itself."""

    name = "identity"

    def link(self, mu: Any) -> Any:
        return np.asarray(mu) * 1.0

    def inverse(self, eta: Any) -> Any:
        return eta * 1.0

    def mean(self, eta: Array, highest: int) -> tuple[Array, ...]:
        zero = np.zeros_like(eta)
        return (eta, np.ones_like(eta), zero, zero, zero)[: highest + 1]

    def log_complement(self, eta: Array, highest: int) -> tuple[Array, ...]:
        mirrored = self.log_mean(1.0 - eta, highest)
        return tuple(-each if order % 2 else each for order, each in enumerate(mirrored))


class Sqrt(_Power):
    """The square root of mu."""

    name = "sqrt"
    exponent = 2.0

    def valid(self, eta: Array) -> NDArray[np.bool_]:
        return eta > 0.0


class Inverse(_Power):
    """1 / mu."""

    name = "inverse"
    exponent = -1.0

    def link(self, mu: Any) -> Any:
        return 1.0 / np.asarray(mu)

    def inverse(self, eta: Any) -> Any:
        return 1.0 / eta


class InverseSquare(_Power):
    """1 / mu^2."""

    name = "1/mu^2"
    exponent = -0.5

    def valid(self, eta: Array) -> NDArray[np.bool_]:
        return eta > 0.0


#: The links of this package by their names.
LINKS: dict[str, Link] = {
    each.name: each
    for each in (
        Logit(), Probit(), Cloglog(), Cauchit(), Log(), Identity(), Sqrt(), Inverse(),
        InverseSquare(),
    )
}  # fmt: skip


def predictor_unit(link: Link, response: Response) -> float:
    """The power of two next to the size of the linear predictor, where that is what steps are of.

    A power of the mean is as well told from twice as much at a mean of a million as at one of one.
    Other links have a scale of their own, roots of counts too, and the unit is one.
    """
    if not isinstance(link, _Power) or isinstance(link, Sqrt):
        return 1.0
    weights = response.weights
    weights = weights if weights is not None and weights.any() else None
    size = float(np.average(np.abs(response.y), weights=weights))
    if not 0.0 < size < np.inf:
        return 1.0
    return float(2.0 ** round(math.log2(abs(float(link.link(size))))))
