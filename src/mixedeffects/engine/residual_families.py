"""Families of correlations between the residuals of one group of rows.

A family is one small class: how many parameters it has, the correlation matrix they give and its
derivatives, and coordinates without bounds for the search. Nothing else asks which family it is.
There are two kinds. In a `Chain` a residual depends on the one before it alone, so a family is the
correlation of neighbours, and rows are whitened one after another. A `Block` gives the matrix of
any rows at once.

Parameters are natural ones: correlations, ranges (the distance at which an exponential correlation
is 1/e), a nugget (share of the variance that is not correlated).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.sparse
import scipy.special
from numpy.typing import NDArray

__all__ = [
    "Block",
    "Chain",
    "Family",
    "Known",
    "exponential",
    "logistic",
    "make_family",
    "odds",
]

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Correlations to start from at most.
_STEEPEST = 0.9


class Family(ABC):
    """What every family of correlations has."""

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Number of parameters."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """What the parameters are called."""

    @abstractmethod
    def unbounded(self, zeta: Matrix) -> Matrix:
        """Coordinates of a search without bounds."""

    @abstractmethod
    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """The parameters, and their first and second derivatives in their own coordinates."""


class Chain(Family):
    """Each residual depends on the one before it alone."""

    @abstractmethod
    def neighbours(self, zeta: Matrix, first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
        """Correlations of neighbours at positions (s,), and their derivatives (m, s)."""

    @abstractmethod
    def moment(self, correlation: Matrix, first: Matrix, second: Matrix, weight: Matrix) -> Matrix:
        """Parameters that are near correlations of neighbours."""


class Block(Family):
    """Correlation matrices of any rows."""

    @abstractmethod
    def matrix(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """C of rows at positions (m, d), m x m."""

    @abstractmethod
    def derivatives(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """First derivatives of C, shape (number of parameters, m, m)."""

    @abstractmethod
    def moment(self, pairs: Matrix, products: Matrix) -> Matrix:
        """Parameters that are near products of residuals of mean square one.

        Parameters
        ----------
        pairs : ndarray, shape (N, 2, d)
            Positions of the two rows.
        products : ndarray, shape (N,)
            Of their residuals.
        """


def logistic(z: Matrix, low: float, high: float) -> tuple[Matrix, Matrix, Matrix]:
    """Values between two bounds, and their derivatives."""
    share = scipy.special.expit(z)
    first = (high - low) * share * (1.0 - share)
    return low + (high - low) * share, first, first * (1.0 - 2.0 * share)


def odds(values: Matrix, low: float, high: float) -> Matrix:
    """Logarithms of odds: `logistic` back."""
    return np.asarray(np.log(values - low) - np.log(high - values))


def exponential(z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Positive values, and their derivatives."""
    values = np.exp(np.clip(z, -100.0, 100.0))
    return values, values, values


# --- chains ------------------------------------------------------------------------------


class Autoregression(Chain):
    """``rho^h`` for rows h steps apart; rho may be negative."""

    n_parameters = 1
    names = ("cor",)

    def neighbours(self, zeta: Matrix, first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
        """Powers of rho."""
        step = np.rint(second - first)
        rho = float(zeta[0])
        return np.asarray(rho**step), np.asarray((step * rho ** (step - 1.0))[None])

    def unbounded(self, zeta: Matrix) -> Matrix:
        """The inverse hyperbolic tangent, doubled."""
        return odds(zeta, -1.0, 1.0)

    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Rho."""
        return logistic(z, -1.0, 1.0)

    def moment(self, correlation: Matrix, first: Matrix, second: Matrix, weight: Matrix) -> Matrix:
        """From the shortest step there is."""
        step = np.rint(second - first)
        at = step == step.min()
        r = float(np.average(correlation[at], weights=weight[at]))
        size = min(abs(r) ** (1.0 / step.min()), _STEEPEST)
        odd = int(step.min()) % 2 == 1
        return np.array([np.sign(r) * size if odd else size])


class ContinuousAutoregression(Chain):
    """``exp(-h / range)`` for rows a distance h apart, in one dimension."""

    n_parameters = 1
    names = ("range",)

    def neighbours(self, zeta: Matrix, first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
        """Exponentials."""
        h, reach = second - first, float(zeta[0])
        r = np.exp(-h / reach)
        return r, (r * (h / reach) / reach)[None]

    def unbounded(self, zeta: Matrix) -> Matrix:
        """The logarithm of the range."""
        return np.log(zeta)

    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """The range."""
        return exponential(z)

    def moment(self, correlation: Matrix, first: Matrix, second: Matrix, weight: Matrix) -> Matrix:
        """From the typical correlation at the typical distance."""
        h = float(np.average(second - first, weights=weight))
        r = float(np.clip(np.average(correlation, weights=weight), 0.1, _STEEPEST))
        return np.array([-h / np.log(r)])


@dataclass(frozen=True)
class AnteDependence(Chain):
    """A correlation for each pair of neighbouring times; products of them farther apart."""

    n_times: int

    @property
    def n_parameters(self) -> int:
        """One less than there are times."""
        return self.n_times - 1

    @property
    def names(self) -> tuple[str, ...]:
        """By the number of the first time."""
        return tuple(f"cor.{t + 1}" for t in range(self.n_parameters))

    def neighbours(self, zeta: Matrix, first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
        """Products of the correlations on the way."""
        a, b = np.rint(first).astype(np.int64), np.rint(second).astype(np.int64)
        t = np.arange(self.n_parameters)
        on_the_way = (a <= t[:, None]) & (t[:, None] < b)
        factors = np.where(on_the_way, zeta[:, None], 1.0)
        r = factors.prod(axis=0)
        derivatives = np.zeros(factors.shape)
        for j in range(self.n_parameters):
            others = np.delete(factors, j, axis=0).prod(axis=0)
            derivatives[j] = np.where(on_the_way[j], others, 0.0)
        return r, derivatives

    def unbounded(self, zeta: Matrix) -> Matrix:
        """The inverse hyperbolic tangent of each, doubled."""
        return odds(zeta, -1.0, 1.0)

    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """The correlations."""
        return logistic(z, -1.0, 1.0)

    def moment(self, correlation: Matrix, first: Matrix, second: Matrix, weight: Matrix) -> Matrix:
        """From the pairs next to each other, else their average."""
        a, b = np.rint(first).astype(np.int64), np.rint(second).astype(np.int64)
        out = np.full(self.n_parameters, np.average(correlation, weights=weight))
        for t in range(self.n_parameters):
            at = (a == t) & (b == t + 1)
            if at.any():
                out[t] = np.average(correlation[at], weights=weight[at])
        return np.clip(out, -_STEEPEST, _STEEPEST)


# --- blocks ------------------------------------------------------------------------------


@dataclass(frozen=True)
class CompoundSymmetry(Block):
    """One correlation for all pairs of rows, at most ``largest`` of them in a group."""

    largest: int

    n_parameters = 1
    names = ("cor",)

    @property
    def _low(self) -> float:
        return -1.0 / (self.largest - 1)

    def matrix(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """Rho off the diagonal."""
        m = len(positions)
        return np.asarray(zeta[0] * np.ones((m, m)) + (1.0 - zeta[0]) * np.eye(m))

    def derivatives(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """Ones off the diagonal."""
        m = len(positions)
        return np.asarray((1.0 - np.eye(m))[None])

    def unbounded(self, zeta: Matrix) -> Matrix:
        """Logarithm of the odds of the upper end."""
        return odds(zeta, self._low, 1.0)

    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Rho."""
        return logistic(z, self._low, 1.0)

    def moment(self, pairs: Matrix, products: Matrix) -> Matrix:
        """The mean product."""
        return np.array([np.clip(products.mean(), 0.8 * self._low, _STEEPEST)])


@dataclass(frozen=True)
class Toeplitz(Block):
    """A correlation for each number of steps between two times."""

    n_times: int

    @property
    def n_parameters(self) -> int:
        """One less than there are times."""
        return self.n_times - 1

    @property
    def names(self) -> tuple[str, ...]:
        """By lag."""
        return tuple(f"cor.lag{h + 1}" for h in range(self.n_parameters))

    def matrix(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """By lag."""
        return np.asarray(np.append(1.0, zeta)[_lags(positions)])

    def derivatives(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """Ones at each lag."""
        steps = np.arange(1, self.n_times)[:, None, None]
        return np.asarray(_lags(positions) == steps, dtype=np.float64)

    def unbounded(self, zeta: Matrix) -> Matrix:
        """Themselves: where they are no correlations there is no likelihood."""
        return zeta.copy()

    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Themselves."""
        return z.copy(), np.ones(len(z)), np.zeros(len(z))

    def moment(self, pairs: Matrix, products: Matrix) -> Matrix:
        """Mean products, less where they are no correlations."""
        lag = np.rint(np.abs(pairs[:, 0, 0] - pairs[:, 1, 0])).astype(np.int64)
        sums = np.bincount(lag, products, self.n_times)[1:]
        counts = np.bincount(lag, minlength=self.n_times)[1:]
        means: Matrix = np.asarray(sums / np.maximum(counts, 1))
        whole = np.arange(self.n_times, dtype=np.float64)[:, None]
        while np.linalg.eigvalsh(self.matrix(means, whole))[0] < 0.05:
            means = 0.9 * means
        return np.asarray(means)


@cache
def _entries_of_factor(
    n_times: int, correlation: bool, is_free: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, columns = np.tril_indices(n_times, -1 if correlation else 0)
    if not (correlation or is_free):
        rows, columns = rows[1:], columns[1:]
    rows.flags.writeable = columns.flags.writeable = False
    return rows, columns


@dataclass(frozen=True)
class Unstructured(Block):
    """Any covariance matrix of n times, the first entry of its factor one.

    ``C = L L'``; the parameters are the other entries of L, row by row. With ``correlation`` the
    rows of L have length one, and their diagonal is not a parameter.
    """

    n_times: int
    correlation: bool
    is_free: bool = False

    @property
    def _entries(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return _entries_of_factor(self.n_times, self.correlation, self.is_free)

    @property
    def n_parameters(self) -> int:
        """Number of free entries."""
        return len(self._entries[0])

    @property
    def names(self) -> tuple[str, ...]:
        """Of entries of the factor."""
        return tuple(f"L{i + 1}{j + 1}" for i, j in zip(*self._entries, strict=True))

    def _factor(self, zeta: Matrix) -> Matrix:
        L = np.eye(self.n_times)
        L[self._entries] = zeta
        return L / np.linalg.norm(L, axis=1)[:, None] if self.correlation else L

    def _chosen(self, positions: Matrix) -> NDArray[np.int64]:
        return np.rint(positions[:, 0]).astype(np.int64)

    def matrix(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """Rows and columns of ``L L'``."""
        L = self._factor(zeta)[self._chosen(positions)]
        return np.asarray(L @ L.T)

    def derivatives(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """Of ``L L'``."""
        rows, columns = self._entries
        raw = np.eye(self.n_times)
        raw[rows, columns] = zeta
        L = self._factor(zeta)
        dL = np.zeros((len(rows), self.n_times, self.n_times))
        if self.correlation:
            length = np.linalg.norm(raw, axis=1)[rows]
            dL[np.arange(len(rows)), rows] = -L[rows] * (L[rows, columns] / length)[:, None]
            dL[np.arange(len(rows)), rows, columns] += 1.0 / length
        else:
            dL[np.arange(len(rows)), rows, columns] = 1.0
        chosen = self._chosen(positions)
        half = dL[:, chosen] @ L[chosen].T
        return np.asarray(half + half.transpose(0, 2, 1))

    def unbounded(self, zeta: Matrix) -> Matrix:
        """Themselves."""
        return zeta.copy()

    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Themselves."""
        return z.copy(), np.ones(len(z)), np.zeros(len(z))

    def from_matrix(self, C: Matrix) -> Matrix:
        """The parameters of a covariance matrix of all times, up to its size."""
        if self.correlation:
            sd = np.sqrt(np.diag(C))
            C = C / np.outer(sd, sd)
        L: Matrix = np.asarray(np.linalg.cholesky(C))
        if self.correlation:
            L = L / np.diag(L)[:, None]
        elif not self.is_free:
            L = L / L[0, 0]
        return np.asarray(L[self._entries])

    def moment(self, pairs: Matrix, products: Matrix) -> Matrix:
        """Mean products, drawn to a diagonal until they are a covariance matrix."""
        a, b = self._chosen(pairs[:, 0]), self._chosen(pairs[:, 1])
        sums, counts = np.zeros((2, self.n_times, self.n_times))
        np.add.at(sums, (a, b), products)
        np.add.at(counts, (a, b), 1.0)
        sums, counts = sums + sums.T, counts + counts.T
        C = sums / np.maximum(counts, 1.0)
        own = np.diag(np.where(np.diag(C) > 0.0, np.diag(C), 1.0))
        share = 1.0
        sd = np.sqrt(np.diag(own))
        C = C / np.outer(sd, sd)
        np.einsum("ii->i", C)[:] = 1.0
        while np.linalg.eigvalsh(C)[0] < 0.05:
            share *= 0.9
            C = share * C + (1.0 - share) * np.eye(self.n_times)
        return self.from_matrix(C * np.outer(sd, sd))


@dataclass(frozen=True)
class Spatial(Block):
    """Correlations that fall with the distance: ``exp(-(d / range)^power)``, and a nugget."""

    power: int
    has_nugget: bool

    @property
    def n_parameters(self) -> int:
        """The range, and the nugget where there is one."""
        return 1 + self.has_nugget

    @property
    def names(self) -> tuple[str, ...]:
        """The range, and the nugget."""
        return ("range", "nugget")[: self.n_parameters]

    def matrix(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """By distance."""
        return self._of_distance(zeta, _distances(positions))

    def _of_distance(self, zeta: Matrix, d: Matrix) -> Matrix:
        C = np.exp(-((d / zeta[0]) ** self.power))
        if self.has_nugget:
            C = (1.0 - zeta[1]) * C + zeta[1] * np.eye(len(d))
        return np.asarray(C)

    def derivatives(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """In the range, and in the nugget."""
        d = _distances(positions)
        scaled = (d / zeta[0]) ** self.power
        C = np.exp(-scaled)
        of_range = self.power * scaled / zeta[0] * C
        if not self.has_nugget:
            return np.asarray(of_range[None])
        return np.stack([(1.0 - zeta[1]) * of_range, np.eye(len(d)) - C])

    def unbounded(self, zeta: Matrix) -> Matrix:
        """Logarithms of the range and of the odds of the nugget."""
        out = np.log(zeta)
        if self.has_nugget:
            out[1] = odds(zeta[1:], 0.0, 1.0)[0]
        return out

    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """The range and the nugget."""
        of_range = exponential(z[:1])
        if not self.has_nugget:
            return of_range
        of_nugget = logistic(z[1:], 0.0, 1.0)
        value, first, second = (
            np.concatenate(each) for each in zip(of_range, of_nugget, strict=True)
        )
        return value, first, second

    def moment(self, pairs: Matrix, products: Matrix) -> Matrix:
        """The range from the correlation of the closest tenth of the pairs."""
        d = np.sqrt(((pairs[:, 0] - pairs[:, 1]) ** 2).sum(axis=1))
        near = d <= np.quantile(d, 0.1)
        r = float(np.clip(products[near].mean(), 0.2, _STEEPEST))
        nugget = 0.2 if self.has_nugget else 0.0
        r = min(r / (1.0 - nugget), _STEEPEST)
        reach = float(d[near].mean()) / (-np.log(r)) ** (1.0 / self.power)
        return np.array([reach, nugget][: self.n_parameters])


@dataclass(frozen=True, eq=False)
class Known(Block):
    """A covariance matrix that is given; positions are its rows."""

    given: scipy.sparse.csr_array

    n_parameters = 0
    names = ()

    def matrix(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """Its rows and columns."""
        at = np.rint(positions[:, 0]).astype(np.int64)
        return np.asarray(self.given[at][:, at].toarray())

    def derivatives(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """None."""
        m = len(positions)
        return np.zeros((0, m, m))

    def unbounded(self, zeta: Matrix) -> Matrix:
        """None."""
        return zeta.copy()

    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """None."""
        return z.copy(), z.copy(), z.copy()

    def moment(self, pairs: Matrix, products: Matrix) -> Matrix:
        """None."""
        return np.zeros(0)


def _lags(positions: Matrix) -> NDArray[np.int64]:
    t = np.rint(positions[:, 0]).astype(np.int64)
    return np.asarray(np.abs(t[:, None] - t))


def _distances(positions: Matrix) -> Matrix:
    difference = positions[:, None, :] - positions[None, :, :]
    return np.asarray(np.sqrt((difference**2).sum(axis=2)))


def make_family(
    kind: str,
    n_times: int,
    largest: int,
    homogeneous: bool,
    nugget: bool,
    first: bool,
    d: int,
    given: scipy.sparse.csr_array | None = None,
) -> Family | None:
    """The family of a structure; None where residuals are independent.

    Parameters
    ----------
    kind : str
        Name of the structure.
    n_times : int
        Common times, where there are any.
    largest : int
        Rows of the largest group.
    homogeneous : bool
        Whether all times have one variance.
    nugget : bool
        Whether there is a nugget.
    first : bool
        Whether it is that of the first stratum, whose first variance is the unit.
    d : int
        Number of coordinates.
    given : csr_array, optional
        The matrix of ``"known"``.
    """
    match kind:
        case "known":
            assert given is not None
            return Known(given)
        case "diag":
            return None
        case "ar1":
            return Autoregression()
        case "car1":
            return ContinuousAutoregression()
        case "ante":
            return AnteDependence(n_times)
        case "cs":
            return CompoundSymmetry(largest)
        case "toep":
            return Toeplitz(n_times)
        case "us":
            return Unstructured(n_times, homogeneous, not first)
        case "exp" if d == 1 and not nugget:
            return ContinuousAutoregression()
        case "exp":
            return Spatial(1, nugget)
        case "gau":
            return Spatial(2, nugget)
    raise ValueError(kind)
