"""All covariance parameters of a model in which some terms have a structure.

A structured term lives in the user's columns and the engine in orthonormal ones,
``Sigma* = M Sigma M'``. Parameters are standard deviations relative to sigma, times the size of
their column, so that one is a natural size for each of them; and correlations. A term without
structure keeps the entries of its triangular factor in the engine's basis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.special
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.engine.basis import Basis, lower_factor
from mixedeffects.engine.parameters import lower_entries, n_parameters, theta_to_T
from mixedeffects.engine.structures import CovarianceStructure, StructureValues
from mixedeffects.engine.triangular import inverse_upper

__all__ = ["Parameterisation", "StructuredTerm", "UnstructuredTerm", "parameterise"]

Matrix = NDArray[np.float64]

#: Standard deviations to start from, relative to sigma, in the size of the column.
_SMALLEST_START, _LARGEST_START = 0.1, 30.0
#: The smallest to start from when the first search ended at a bound.
_SECOND_START = 0.3
#: Share of the range of a correlation to start within.
_WITHIN = 0.95
#: Sizes, and number of correlations, of grids.
_SIZES, _GRID = (0.15, 0.6, 2.5, 12.0), 7
#: Standard deviation of the logarithms of standard deviations that are drawn to start from.
_SPREAD = 1.5
#: Shares of their range within which parameters are close to a bound.
_CLOSE = 0.03
#: Standard deviation, in an orthonormal basis, that is next to none.
_NO_VARIANCE = 1e-4
#: Logarithm of the largest and of the smallest standard deviation.
_FAR = 100.0


@dataclass(frozen=True, eq=False)
class StructuredTerm:
    """One structured term.

    Attributes
    ----------
    structure : CovarianceStructure
        The family.
    M : ndarray, shape (k, k)
        From covariances of the scaled columns to the engine's.
    scale : ndarray, shape (number of standard deviations,)
        What a relative standard deviation of the user's columns is multiplied with.
    """

    structure: CovarianceStructure
    M: Matrix
    scale: Matrix

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return self.structure.n_parameters

    @property
    def lower(self) -> Matrix:
        """Lower bounds."""
        return self.structure.lower

    @property
    def upper(self) -> Matrix:
        """Upper bounds."""
        return self.structure.upper

    @property
    def is_deviation(self) -> NDArray[np.bool_]:
        """Which parameters are standard deviations."""
        return np.arange(self.n_parameters) < self.structure.n_sd

    def factor(self, eta: Matrix) -> Matrix:
        """A square relative factor in the engine's basis."""
        return np.ascontiguousarray(self.M @ self.structure.factor(eta))

    def covariance(self, eta: Matrix) -> Matrix:
        """Sigma in the engine's basis."""
        return np.asarray(self.M @ self.structure.covariance(eta) @ self.M.T)

    def derivatives(self, eta: Matrix) -> Matrix:
        """First derivatives of Sigma in the engine's basis, shape (m, k, k)."""
        return np.asarray(self.M @ self.structure.derivatives(eta) @ self.M.T)

    def contract(self, eta: Matrix, F: Matrix) -> tuple[Matrix, Matrix]:
        """Gradient and Hessian of ``<F, Sigma>``, F in the engine's basis."""
        return self.structure.contract(eta, self.own(F))

    def own(self, F: Matrix) -> Matrix:
        """Matrices (..., k, k) to take products with the covariance of the scaled columns by."""
        return np.asarray(self.M.T @ F @ self.M)

    def at(self, eta: Matrix) -> StructureValues:
        """Sigma of the scaled columns and its derivatives."""
        return self.structure.at(eta)

    def nearest(self, T: Matrix) -> Matrix:
        """Parameters near a factor in the engine's basis."""
        own = np.linalg.solve(self.M, T)
        return self.structure.nearest(own @ own.T)

    def starts(self, T: Matrix) -> list[Matrix]:
        """Starting values: by moments, and with other correlations."""
        first = self._inside(self.nearest(T), _SMALLEST_START)
        if not self.structure.has_correlation:
            return [first]
        return [first, *self._with_correlations(first)]

    def elsewhere(self, eta: Matrix) -> list[Matrix]:
        """Starting values far from where a correlation or a standard deviation is at a bound."""
        if not (self.structure.has_correlation and self.fixed(eta).any()):
            return []
        return self._with_correlations(self._inside(eta, _SECOND_START))

    def _inside(self, eta: Matrix, smallest: float) -> Matrix:
        out = eta.copy()
        sds = out[: self.structure.n_sd]
        np.clip(np.abs(sds), smallest, _LARGEST_START, out=sds)
        if self.structure.has_correlation:
            low, high = self.structure.correlation_range
            out[-1] = np.clip(out[-1], _WITHIN * low, _WITHIN * high)
        return out

    def _with_correlations(self, eta: Matrix) -> list[Matrix]:
        low, _ = self.structure.correlation_range
        out = np.repeat(eta[None], 4, axis=0)
        out[:, -1] = (0.5 * low, 0.0, 0.4, 0.8)
        return list(out)

    def canonical(self, eta: Matrix) -> Matrix:
        """The same Sigma with standard deviations that are not negative."""
        return self.structure.canonical(eta)

    def on_bounds(self, eta: Matrix) -> list[Matrix]:
        """Other parameters, each with one that is close to a bound put on it; the closest first."""
        found = []
        bounds = [(j, 0.0, abs(eta[j])) for j in range(self.structure.n_sd)]
        if self.structure.has_correlation:
            low, high = self.structure.correlation_range
            ends = [(bound, abs(eta[-1] - bound) / (high - low)) for bound in (low, high)]
            bounds += [(self.n_parameters - 1, *end) for end in ends]
        for place, bound, distance in sorted(bounds, key=lambda each: each[2]):
            if 0.0 < distance < _CLOSE:
                moved = eta.copy()
                moved[place] = bound
                found.append(moved)
        return found

    def scaled(self, eta: Matrix, factor: float) -> Matrix:
        """The same with all standard deviations multiplied."""
        out = eta.copy()
        out[: self.structure.n_sd] *= factor
        return out

    def held(self, eta: Matrix) -> NDArray[np.bool_]:
        """Parameters that a search without bounds cannot move."""
        return np.asarray(self.fixed(eta) | self.null(eta))

    def fixed(self, eta: Matrix) -> NDArray[np.bool_]:
        """Parameters at a bound, or without effect."""
        at_bound = (eta <= self.lower) | (eta >= self.upper)
        return np.asarray(at_bound | self.structure.unidentified(eta))

    def null(self, eta: Matrix) -> NDArray[np.bool_]:
        """Parameters that are standard deviations of zero."""
        out = np.zeros(self.n_parameters, dtype=np.bool_)
        out[: self.structure.n_sd] = eta[: self.structure.n_sd] == 0.0
        return out

    def grids(self, eta: Matrix) -> list[Matrix]:
        """Parameters of every size and correlation, arrays (sizes, correlations, parameters).

        With the ratios of the standard deviations that they have in eta, and with none.
        """
        if not self.structure.has_correlation:
            return []
        low, high = self.structure.correlation_range
        correlations = low + (high - low) * np.linspace(0.02, 0.98, _GRID)
        sds = np.abs(eta[: self.structure.n_sd])
        own = np.maximum(sds, 0.1 * sds.max(initial=_SMALLEST_START))
        patterns = [own / np.sqrt(np.mean(own**2))]
        if len(own) > 1:
            patterns.append(np.ones(len(own)))
        found = []
        for pattern in patterns:
            grid = np.empty((len(_SIZES), _GRID, self.n_parameters))
            grid[:, :, :-1] = np.multiply.outer(_SIZES, pattern)[:, None]
            grid[:, :, -1] = correlations
            found.append(grid)
        return found

    def drawn(self, rng: np.random.Generator) -> Matrix:
        """Parameters anywhere within reason; often one standard deviation for all columns."""
        out = np.exp(rng.normal(0.0, _SPREAD, self.n_parameters))
        if rng.random() < 0.5:
            out[: self.structure.n_sd] = out[0]
        if self.structure.has_correlation:
            low, high = self.structure.correlation_range
            # More often near the ends than in the middle, where starts by moments are.
            out[-1] = low + (high - low) * np.clip(rng.beta(0.7, 0.7), 0.001, 0.999)
        return out

    def off_bounds(self, eta: Matrix, step: float) -> list[Matrix]:
        """Other parameters, each a step away from one of the bounds that eta is on."""
        found = self.structure.with_more_variance(eta, step)
        if self.structure.has_correlation and not self.structure.unidentified(eta)[-1]:
            low, high = self.structure.correlation_range
            for bound, inward in ((low, 1.0), (high, -1.0)):
                if eta[-1] == bound:
                    moved = eta.copy()
                    moved[-1] += inward * step * (high - low)
                    found.append(moved)
        return found

    def variance_directions(self, eta: Matrix) -> Matrix:
        """Directions of Sigma in the engine's basis, shape (r, k, k)."""
        return np.asarray(self.M @ self.structure.variance_directions(eta) @ self.M.T)

    def natural(self, eta: Matrix) -> Matrix:
        """Standard deviations of the user's columns relative to sigma, and the correlation."""
        out = eta.copy()
        out[: self.structure.n_sd] /= self.scale
        return out


@dataclass(frozen=True, eq=False)
class UnstructuredTerm:
    """A term with any covariance matrix: the entries of its factor T in the engine's basis."""

    k: int

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return n_parameters([self.k])

    @property
    def lower(self) -> Matrix:
        """Lower bounds; there are none."""
        return np.full(self.n_parameters, -np.inf)

    @property
    def upper(self) -> Matrix:
        """Upper bounds; there are none."""
        return np.full(self.n_parameters, np.inf)

    @property
    def is_deviation(self) -> NDArray[np.bool_]:
        """Whether the one parameter is a standard deviation."""
        return np.full(self.n_parameters, self.k == 1)

    def factor(self, eta: Matrix) -> Matrix:
        """T."""
        return theta_to_T(eta, [self.k])[0]

    def covariance(self, eta: Matrix) -> Matrix:
        """``T T'``."""
        T = self.factor(eta)
        return np.asarray(T @ T.T)

    def derivatives(self, eta: Matrix) -> Matrix:
        """First derivatives of ``T T'``, shape (m, k, k)."""
        T = self.factor(eta)
        rows, columns = lower_entries(self.k)
        half = np.zeros((len(rows), self.k, self.k))
        half[np.arange(len(rows)), rows] = T[:, columns].T
        return np.asarray(half + half.transpose(0, 2, 1))

    def contract(self, eta: Matrix, F: Matrix) -> tuple[Matrix, Matrix]:
        """Gradient and Hessian of ``<F, T T'>``."""
        values = self.at(eta)
        return values.gradient(F), values.hessian(F)

    def own(self, F: Matrix) -> Matrix:
        """The matrices themselves."""
        return F

    def at(self, eta: Matrix) -> FactorValues:
        """``T T'`` and its derivatives."""
        return FactorValues(self.factor(eta))

    def nearest(self, T: Matrix) -> Matrix:
        """Entries of the triangular factor."""
        return np.asarray(lower_factor(T)[lower_entries(self.k)])

    def starts(self, T: Matrix) -> list[Matrix]:
        """The one starting value."""
        return [self.nearest(T)]

    def elsewhere(self, eta: Matrix) -> list[Matrix]:
        """No other starting values."""
        return []

    def canonical(self, eta: Matrix) -> Matrix:
        """The same with a diagonal that is not negative."""
        return self.nearest(self.factor(eta))

    def on_bounds(self, eta: Matrix) -> list[Matrix]:
        """The same with directions that have next to no variance given none, if there are any."""
        if self.k == 1:
            return [np.zeros(1)] if 0.0 < abs(eta[0]) < _CLOSE else []
        left, values, right = np.linalg.svd(self.factor(eta))
        if values[-1] >= _NO_VARIANCE or values[-1] == 0.0:
            return []
        return [self.nearest((left * np.where(values < _NO_VARIANCE, 0.0, values)) @ right)]

    def scaled(self, eta: Matrix, factor: float) -> Matrix:
        """The same with all standard deviations multiplied."""
        return factor * eta

    def held(self, eta: Matrix) -> NDArray[np.bool_]:
        """A standard deviation of zero, of one column; else none."""
        return np.asarray(self.is_deviation & (eta == 0.0))

    def fixed(self, eta: Matrix) -> NDArray[np.bool_]:
        """No parameter is at a bound."""
        return np.zeros(len(eta), dtype=np.bool_)

    def null(self, eta: Matrix) -> NDArray[np.bool_]:
        """Entries of columns without variance."""
        size = np.linalg.norm(self.factor(eta), axis=0)
        return np.asarray((size <= 1e-4)[lower_entries(self.k)[1]])

    def grids(self, eta: Matrix) -> list[Matrix]:
        """None."""
        return []

    def drawn(self, rng: np.random.Generator) -> Matrix:
        """Independent columns with variances anywhere within reason."""
        return self.nearest(np.diag(np.exp(rng.normal(0.0, _SPREAD, self.k))))

    def off_bounds(self, eta: Matrix, step: float) -> list[Matrix]:
        """Other parameters, each with variance in a direction that has none."""
        T = self.factor(eta)
        left, values, _ = np.linalg.svd(T)
        out = []
        for direction in left[:, values <= 1e-10].T:
            grown = T @ T.T + step**2 * np.outer(direction, direction)
            w, vectors = np.linalg.eigh(grown)
            out.append(self.nearest(vectors * np.sqrt(np.maximum(w, 0.0))))
        return out

    def variance_directions(self, eta: Matrix) -> Matrix | None:
        """None: all directions."""
        return None


@dataclass(frozen=True, eq=False)
class FactorValues:
    """``T T'`` for a lower-triangular T, and derivatives in its entries; as `StructureValues`."""

    T: Matrix

    @property
    def covariance(self) -> Matrix:
        """``T T'``."""
        return np.asarray(self.T @ self.T.T)

    def gradient(self, F: Matrix) -> Matrix:
        """Derivatives of ``<F, T T'>`` for symmetric F, shape (..., k, k) to (..., m)."""
        rows, columns = lower_entries(len(self.T))
        return np.asarray(2.0 * (F @ self.T)[..., rows, columns])

    def hessian(self, F: Matrix) -> Matrix:
        """Second derivatives for a symmetric F, m x m."""
        rows, columns = lower_entries(len(self.T))
        return np.where(columns[:, None] == columns, 2.0 * F[np.ix_(rows, rows)], 0.0)


Term = StructuredTerm | UnstructuredTerm


@dataclass(frozen=True, eq=False)
class Parameterisation:
    """The terms' parameters one after another."""

    terms: tuple[Term, ...]

    @cached_property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return sum(term.n_parameters for term in self.terms)

    @cached_property
    def places(self) -> tuple[slice, ...]:
        """Where each term's parameters are."""
        ends = np.cumsum([0, *[term.n_parameters for term in self.terms]]).tolist()
        return tuple(slice(a, b) for a, b in pairwise(ends))

    @cached_property
    def lower(self) -> Matrix:
        """Lower bounds."""
        return np.concatenate([term.lower for term in self.terms])

    @cached_property
    def upper(self) -> Matrix:
        """Upper bounds."""
        return np.concatenate([term.upper for term in self.terms])

    def split(self, eta: Matrix) -> list[Matrix]:
        """Each term's parameters."""
        return [eta[at] for at in self.places]

    @cached_property
    def is_deviation(self) -> NDArray[np.bool_]:
        """Which parameters are standard deviations: of structures, and of single columns."""
        return np.concatenate([term.is_deviation for term in self.terms])

    def factors(self, eta: Matrix) -> list[Matrix]:
        """Square relative factors in the engine's basis."""
        return [term.factor(own) for term, own in zip(self.terms, self.split(eta), strict=True)]

    def gradient(self, eta: Matrix, F: Sequence[Matrix]) -> Matrix:
        """Derivative of ``sum <F_t, Sigma_t>`` in the parameters."""
        return np.concatenate(
            [
                term.contract(own, f)[0]
                for term, own, f in zip(self.terms, self.split(eta), F, strict=True)
            ]
        )

    def nearest(self, T: Sequence[Matrix]) -> Matrix:
        """Parameters near these factors."""
        return np.concatenate([term.nearest(t) for term, t in zip(self.terms, T, strict=True)])

    def canonical(self, eta: Matrix) -> Matrix:
        """The same covariances in the form they are reported in."""
        parts = zip(self.terms, self.split(eta), strict=True)
        return np.concatenate([term.canonical(own) for term, own in parts])

    def on_bounds(self, eta: Matrix) -> list[Matrix]:
        """Each term's `on_bounds`, the other terms as they are."""
        parts = self.split(eta)
        return [
            np.concatenate([*parts[:t], moved, *parts[t + 1 :]])
            for t, term in enumerate(self.terms)
            for moved in term.on_bounds(parts[t])
        ]

    def scaled(self, eta: Matrix, factor: float) -> Matrix:
        """The same with all standard deviations multiplied."""
        parts = zip(self.terms, self.split(eta), strict=True)
        return np.concatenate([term.scaled(own, factor) for term, own in parts])

    @cached_property
    def _correlations(self) -> tuple[NDArray[np.intp], Matrix, Matrix]:
        """Where the correlations are, and the ends of their ranges."""
        found = [
            (at.stop - 1, *term.structure.correlation_range)
            for term, at in zip(self.terms, self.places, strict=True)
            if isinstance(term, StructuredTerm) and term.structure.has_correlation
        ]
        low, high = (np.array([each[end] for each in found]) for end in (1, 2))
        return np.array([each[0] for each in found], dtype=np.intp), low, high

    def unbounded(self, eta: Matrix) -> Matrix:
        """Coordinates without bounds.

        Logarithms of standard deviations, and of the odds of a structure's correlation being at the
        upper end of its range; infinite for what is at a bound. Entries of the factors of several
        columns without structure as they are.
        """
        out = eta.copy()
        where, low, high = self._correlations
        with np.errstate(divide="ignore"):
            out[self.is_deviation] = np.log(np.abs(eta[self.is_deviation]))
            out[where] = np.log(eta[where] - low) - np.log(high - eta[where])
        return out

    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """The parameters for what `unbounded` gives, and their first and second derivatives."""
        where, low, high = self._correlations
        eta, first, second = z.copy(), np.ones(len(z)), np.zeros(len(z))
        sds = np.exp(np.clip(z[self.is_deviation], -_FAR, _FAR))
        eta[self.is_deviation] = first[self.is_deviation] = second[self.is_deviation] = sds
        share = scipy.special.expit(z[where])
        eta[where] = low + (high - low) * share
        first[where] = (high - low) * share * (1.0 - share)
        second[where] = first[where] * (1.0 - 2.0 * share)
        return eta, first, second

    def with_variances(self, eta: Matrix, size: float) -> Matrix:
        """The same with standard deviations of a size for terms that have only zeros."""
        out = eta.copy()
        for at in self.places:
            own = eta[at][self.is_deviation[at]]
            if not own.any():
                out[at][self.is_deviation[at]] = size
        return out

    @property
    def has_correlation(self) -> bool:
        """Whether some structure has a correlation."""
        return len(self._correlations[0]) > 0

    def drawn(self, rng: np.random.Generator) -> Matrix:
        """Parameters anywhere within reason, to start from."""
        return np.concatenate([term.drawn(rng) for term in self.terms])

    def held(self, eta: Matrix) -> NDArray[np.bool_]:
        """Each term's `held`."""
        parts = zip(self.terms, self.split(eta), strict=True)
        return np.concatenate([term.held(own) for term, own in parts])

    def fixed(self, eta: Matrix) -> NDArray[np.bool_]:
        """Parameters at a bound or without effect: no derivative says how well they are known."""
        parts = zip(self.terms, self.split(eta), strict=True)
        return np.concatenate([term.fixed(own) for term, own in parts])

    def null(self, eta: Matrix) -> NDArray[np.bool_]:
        """Parameters of variances that are zero."""
        parts = zip(self.terms, self.split(eta), strict=True)
        return np.concatenate([term.null(own) for term, own in parts])

    def variance_directions(self, eta: Matrix) -> list[Matrix | None]:
        """Directions of each term's Sigma in the engine's basis; None for all."""
        parts = zip(self.terms, self.split(eta), strict=True)
        return [term.variance_directions(own) for term, own in parts]


def parameterise(
    basis: Basis, term_columns: Sequence[int], structures: Sequence[CovarianceStructure | None]
) -> Parameterisation:
    """Parameters of the terms in this basis; None for a term without structure."""
    terms: list[Term] = []
    for C, k, structure in zip(basis.terms, term_columns, structures, strict=True):
        if structure is None:
            terms.append(UnstructuredTerm(k))
            continue
        inverse = inverse_upper(C)
        # Root mean square of each column over the data: z = z* C^-1 with z* orthonormal.
        size = np.linalg.norm(inverse, axis=0)
        if structure.homogeneous:
            size = np.full(k, np.sqrt(np.mean(size**2)))
        M = inverse / size
        scale = size[: structure.n_sd] * np.sqrt(basis.weight_scale)
        terms.append(StructuredTerm(structure, np.ascontiguousarray(M), scale))
    return Parameterisation(tuple(terms))
