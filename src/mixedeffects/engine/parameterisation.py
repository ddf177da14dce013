"""All covariance parameters of a model in which some terms have a structure.

A structured term lives in the user's columns and the engine in orthonormal ones,
``Sigma* = M Sigma M'``. Parameters are standard deviations relative to sigma, times the size of
their column, so that one is a natural size for each of them; and correlations. A term without
structure keeps the entries of its triangular factor in the engine's basis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.basis import Basis, lower_factor
from mixedeffects.engine.parameters import lower_entries, n_parameters, theta_to_T
from mixedeffects.engine.structures import CovarianceStructure
from mixedeffects.engine.triangular import inverse_upper

__all__ = ["Parameterisation", "StructuredTerm", "UnstructuredTerm", "parameterise"]

Matrix = NDArray[np.float64]

#: Standard deviations to start from, relative to sigma, in the size of the column.
_SMALLEST_START, _LARGEST_START = 0.1, 30.0
#: The smallest to start from when the first search ended at a bound.
_SECOND_START = 0.3
#: Share of the range of a correlation to start within.
_WITHIN = 0.95


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
        return self.structure.contract(eta, self.M.T @ F @ self.M)

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

    def snapped(self, eta: Matrix, tolerance: float) -> Matrix:
        """Standard deviations that are next to nothing made zero.

        Not where zero is a bound: the search stops at it exactly, or has a reason not to.
        """
        small = np.isinf(self.lower) & (np.abs(eta) < tolerance)
        return np.where(small, 0.0, eta)

    def fixed(self, eta: Matrix) -> NDArray[np.bool_]:
        """Parameters at a bound, or without effect."""
        at_bound = (eta <= self.lower) | (eta >= self.upper)
        return np.asarray(at_bound | self.structure.unidentified(eta))

    def null(self, eta: Matrix) -> NDArray[np.bool_]:
        """Parameters that are standard deviations of zero."""
        out = np.zeros(self.n_parameters, dtype=np.bool_)
        out[: self.structure.n_sd] = eta[: self.structure.n_sd] == 0.0
        return out

    def more_variance(self, eta: Matrix, sd: float) -> list[Matrix]:
        """Other parameters, each with variance where there is none."""
        return self.structure.with_more_variance(eta, sd)

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
        rows, columns = lower_entries(self.k)
        gradient = 2.0 * (F @ self.factor(eta))[rows, columns]
        same = columns[:, None] == columns
        return gradient, np.where(same, 2.0 * F[np.ix_(rows, rows)], 0.0)

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

    def snapped(self, eta: Matrix, tolerance: float) -> Matrix:
        """Directions with next to no variance given none."""
        left, values, right = np.linalg.svd(self.factor(eta))
        if values[-1] >= tolerance or values[-1] == 0.0:
            return eta
        return self.nearest((left * np.where(values < tolerance, 0.0, values)) @ right)

    def fixed(self, eta: Matrix) -> NDArray[np.bool_]:
        """No parameter is at a bound."""
        return np.zeros(len(eta), dtype=np.bool_)

    def null(self, eta: Matrix) -> NDArray[np.bool_]:
        """Entries of columns without variance."""
        size = np.linalg.norm(self.factor(eta), axis=0)
        return np.asarray((size <= 1e-4)[lower_entries(self.k)[1]])

    def more_variance(self, eta: Matrix, sd: float) -> list[Matrix]:
        """Other parameters, each with variance in a direction that has none."""
        T = self.factor(eta)
        left, values, _ = np.linalg.svd(T)
        out = []
        for direction in left[:, values <= 1e-10].T:
            grown = T @ T.T + sd**2 * np.outer(direction, direction)
            w, vectors = np.linalg.eigh(grown)
            out.append(self.nearest(vectors * np.sqrt(np.maximum(w, 0.0))))
        return out

    def variance_directions(self, eta: Matrix) -> Matrix | None:
        """None: all directions."""
        return None


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

    def snapped(self, eta: Matrix, tolerance: float) -> Matrix:
        """Variances that are next to nothing made zero."""
        parts = zip(self.terms, self.split(eta), strict=True)
        return np.concatenate([term.snapped(own, tolerance) for term, own in parts])

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
