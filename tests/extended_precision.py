"""Models with one random intercept from their definition, in NumPy's longest floating-point type.

Where that has no more digits than a double, as on some processors, what follows has those of a
double, which is enough for what the tests ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.special
from numpy.typing import NDArray

from generalized_references import MODELS, design, reference

Long = np.longdouble
Vector = NDArray[np.longdouble]
Criterion = Callable[[Vector], Long]


def hermite_rule(nodes: int) -> tuple[Vector, Vector]:
    """Nodes and weights for the standard normal density."""

    def polynomials(z: Vector) -> tuple[Vector, Vector]:
        before, last = np.ones_like(z), z.copy()
        for degree in range(1, nodes):
            before, last = last, z * last - degree * before
        return before, last

    z = np.polynomial.hermite_e.hermegauss(nodes)[0].astype(Long)
    for _ in range(4):
        before, last = polynomials(z)
        z = z - last / (nodes * before)
    weights = 1.0 / polynomials(z)[0] ** 2
    return z, weights / weights.sum()


class RandomIntercept:
    """-2 log likelihood of a stored model at ``x``: theta, then the coefficients."""

    def __init__(self, name: str) -> None:
        made = design(name)
        (term,) = made.terms
        self.codes, self.n_levels = term.codes, term.n_levels
        self.X, self.offset, self.y = (a.astype(Long) for a in (made.X, made.offset, made.y))
        trials = np.ones(len(made.y)) if made.trials is None else made.trials
        self.trials = trials.astype(Long)
        self.rows = {"logit": self._logit, "log": self._counts, "probit": self._probit}[
            MODELS[name].link
        ]

    def _sums(self, rows: Vector) -> Vector:
        out = np.zeros(self.n_levels, Long)
        np.add.at(out, self.codes, rows)
        return out

    def _logit(self, eta: Vector) -> tuple[Vector, Vector, Vector]:
        """Log density of each row, and its first and minus its second derivative."""
        n, k = self.trials, self.y * self.trials
        p = 0.5 + 0.5 * np.tanh(0.5 * eta)
        ways = scipy.special.gammaln(np.array([n + 1.0, k + 1.0, n - k + 1.0], np.float64))
        value = k * eta - n * np.logaddexp(Long(0.0), eta) + ways[0] - ways[1] - ways[2]
        return value, k - n * p, n * p * (1.0 - p)

    def _counts(self, eta: Vector) -> tuple[Vector, Vector, Vector]:
        mu = np.exp(eta)
        value = self.y * eta - mu - scipy.special.gammaln(self.y.astype(np.float64) + 1.0)
        return value, self.y - mu, mu

    def _probit(self, eta: Vector) -> tuple[Vector, Vector, Vector]:
        # SciPy has no longer type for it.
        sign = np.where(self.y > 0.5, 1.0, -1.0)
        at = sign * eta.astype(np.float64)
        value = scipy.special.log_ndtr(at)
        ratio = np.exp(-0.5 * at**2 - value) / np.sqrt(2.0 * np.pi)
        return value.astype(Long), (sign * ratio).astype(Long), ratio * (at + ratio)

    def modes(self, x: Vector) -> tuple[Vector, Vector]:
        """Modes u of all levels, and the second derivatives M there."""
        linear, theta = self.X @ x[1:] + self.offset, x[0]
        u = np.zeros(self.n_levels, Long)
        for _ in range(200):
            _, r, W = self.rows(linear + theta * u[self.codes])
            M = 1.0 + theta**2 * self._sums(W)
            step = (theta * self._sums(r) - u) / M
            u = u + np.clip(step, -1.0, 1.0)
            if np.abs(step).max() < 8.0 * np.finfo(Long).eps:
                break
        return u, 1.0 + theta**2 * self._sums(self.rows(linear + theta * u[self.codes])[2])

    def _penalised(self, x: Vector, u: Vector) -> Vector:
        eta = self.X @ x[1:] + self.offset + x[0] * u[self.codes]
        return u * u - 2.0 * self._sums(self.rows(eta)[0])

    def laplace(self, x: Vector) -> Long:
        """Laplace's approximation."""
        u, M = self.modes(x)
        return (self._penalised(x, u) + np.log(M)).sum()

    def quadrature(self, x: Vector, nodes: int) -> Long:
        """Adaptive Gauss-Hermite quadrature."""
        u, M = self.modes(x)
        rule = zip(*hermite_rule(nodes), strict=True)
        parts = np.array(
            [np.log(w) + (z * z - self._penalised(x, u + z / np.sqrt(M))) / 2.0 for z, w in rule]
        )
        most = parts.max(axis=0)
        return (np.log(M) - 2.0 * (most + np.log(np.exp(parts - most).sum(axis=0)))).sum()


def derivatives(criterion: Criterion, x: Vector, steps: Vector) -> tuple[Vector, Vector]:
    """Gradient and Hessian by central differences of the fourth order."""
    n, unit = len(x), np.diag(steps)
    here, gradient, hessian = criterion(x), np.empty(n, Long), np.empty((n, n), Long)
    for j in range(n):
        ends = {s: criterion(x + s * unit[j]) for s in (-2, -1, 1, 2)}
        gradient[j] = (8.0 * (ends[1] - ends[-1]) - (ends[2] - ends[-2])) / (12.0 * steps[j])
        both = 16.0 * (ends[1] + ends[-1]) - (ends[2] + ends[-2]) - 30.0 * here
        hessian[j, j] = both / (12.0 * steps[j] ** 2)
        for i in range(j):
            mixed = []
            for s in (1.0, 2.0):
                corners = [
                    criterion(x + s * (a * unit[i] + b * unit[j])) * a * b
                    for a in (1.0, -1.0)
                    for b in (1.0, -1.0)
                ]
                mixed.append(sum(corners) / (4.0 * s * s * steps[i] * steps[j]))
            hessian[i, j] = hessian[j, i] = (4.0 * mixed[0] - mixed[1]) / 3.0
    return gradient, hessian


@dataclass(frozen=True)
class Minimum:
    """Where a criterion is least."""

    criterion: float
    theta: float
    beta: NDArray[np.float64]
    se: NDArray[np.float64]
    modes: NDArray[np.float64]
    conditional_variances: NDArray[np.float64]


@cache
def laplace_minimum(name: str) -> Minimum:
    """Newton's method from R's stored optimum."""
    answer, own = reference(name)["laplace"], RandomIntercept(name)
    x = np.array([answer["theta"], *answer["beta"]], Long)
    sizes = np.array([0.2, *answer["se"]], Long)
    for _ in range(4):
        gradient, hessian = derivatives(own.laplace, x, 0.01 * sizes)
        step = np.linalg.solve(hessian.astype(np.float64), gradient.astype(np.float64))
        x = x - step
        if np.abs(step / sizes).max() < 1e-9:
            break
    covariance = 2.0 * np.linalg.inv(hessian.astype(np.float64))
    u, M = own.modes(x)
    return Minimum(
        float(own.laplace(x)),
        float(x[0]),
        x[1:].astype(np.float64),
        np.sqrt(np.diag(covariance))[1:],
        (x[0] * u).astype(np.float64),
        (x[0] ** 2 / M).astype(np.float64),
    )
