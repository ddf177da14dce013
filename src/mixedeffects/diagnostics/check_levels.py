"""Cook's distances of levels that share no random effect with other rows, for any V and response.

Where no connected block of V lies in two levels of a factor, with ``A_j = X_j' V_jj^-1 X_j``, its
sum A over the levels, and ``u_j = X_j' V_jj^-1 (y - X beta)_j``, level j changes the fixed effects
by ``(A - A_j)^-1 u_j``: sums over levels are all that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.caching import cached_property
from mixedeffects.covariance.groups import Factor
from mixedeffects.covariance.of_residuals import blocks_of_rows, factors_of_rows, rows_by_factor
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.fitting.fit import Fit

__all__ = ["WholeLevels", "factors_by_name", "whole_groups"]

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Share of the information about some direction below which nothing is left without a level.
_NOTHING_LEFT = 1e-6


def factors_by_name(fit: Fit) -> dict[str, Factor]:
    """Grouping factors of random effects and residuals; the blocks of a given R have no name."""
    return {factor.group: factor for factor in factors_of_rows(fit) if factor.variables}


def whole_groups(fit: Fit) -> list[str]:
    """Grouping factors of which each level holds all rows of its connected blocks."""
    blocks = blocks_of_rows(fit)
    n_blocks = int(blocks.max()) + 1
    out = []
    for group, term in factors_by_name(fit).items():
        pairs = np.unique(term.codes.astype(np.int64) * n_blocks + blocks)
        if len(pairs) == n_blocks and term.n_levels > 1:
            out.append(group)
    return out


@dataclass(eq=False)
class WholeLevels:
    """The levels of one such factor.

    Parameters
    ----------
    fit : Fit
        The fit.
    group : str
        The factor.
    """

    fit: Fit
    group: str

    @cached_property
    def _term(self) -> tuple[NDArray[np.int32], int]:
        term = factors_by_name(self.fit)[self.group]
        return term.codes, term.n_levels

    @cached_property
    def _X(self) -> Matrix:
        return np.ascontiguousarray(
            self.fit.crossproducts.basis.fixed_columns(self.fit.frame.X), dtype=np.float64
        )

    @cached_property
    def _weights(self) -> Matrix:
        weights = self.fit.frame.weights
        scale = self.fit.crossproducts.basis.weight_scale
        return np.ones(self.fit.nobs) if weights is None else weights / scale

    @cached_property
    def _squares(self) -> Matrix:
        """``X_j' W X_j``, shape (l, p, p)."""
        return self._sums(self._X * self._weights[:, None])

    def _sums(self, values: Matrix) -> Matrix:
        """``X_j' values_j``, shape (l, p, m)."""
        codes, n_levels = self._term
        sums = np.zeros((n_levels, self._X.shape[1], values.shape[1]))
        _kernels.group_sums(codes, self._X, np.ascontiguousarray(values), sums)
        return sums

    @cached_property
    def _products(self) -> tuple[list[Matrix], list[Integers]]:
        """Products of X with each factor, (l, k, p), and the level that each of its own is in."""
        codes, _ = self._term
        weighted = np.ascontiguousarray(self._X * self._weights[:, None])
        products, places = [], []
        A = self.fit.crossproducts
        for factor, own, z in zip(A.factors, *rows_by_factor(self.fit), strict=True):
            sums = np.zeros((factor.n_levels, factor.k, self._X.shape[1]))
            _kernels.group_sums(own, np.ascontiguousarray(z), weighted, sums)
            place = np.zeros(factor.n_levels, dtype=np.int64)
            place[own] = codes
            products.append(sums)
            places.append(place)
        return products, places

    def information(self, factorisation: Factorisation) -> Matrix:
        """``A_j`` at any factors T, in units of sigma^-2 at weights of mean one, (l, p, p)."""
        products, places = self._products
        b, _ = factorisation.solve(products, np.zeros((0, self._X.shape[1])))
        out = self._squares.copy()
        for own, solved, place in zip(products, b, places, strict=True):
            np.subtract.at(out, place, np.einsum("lka,lkb->lab", own, solved))
        return out

    def information_of(self, solved: Matrix) -> Matrix:
        """``A_j`` from ``V^-1 X``, (l, p, p), in the units of V."""
        return self._sums(solved)

    def distances(self, information: Matrix, residuals: Matrix) -> Matrix:
        """Cook's distance of each level, shape (l, m); NaN where nothing is left without it.

        Parameters
        ----------
        information : ndarray, shape (l, p, p)
            As above.
        residuals : ndarray, shape (n, m)
            ``sqrt(w) (y - X beta - Z b) / sigma``, which is ``sigma V^-1 (y - X beta) / sqrt(w)``.
        """
        return self.distances_of(information, residuals * np.sqrt(self._weights)[:, None])

    def distances_of(self, information: Matrix, solved: Matrix) -> Matrix:
        """The same from ``V^-1 (y - X beta)``, shape (n, m), in the units of V."""
        p = self._X.shape[1]
        # In a basis in which A is the identity.
        root = scipy.linalg.cholesky(information.sum(axis=0), lower=True)
        inverse = scipy.linalg.solve_triangular(root, np.eye(p), lower=True)
        own = inverse @ information @ inverse.T
        score = inverse @ self._sums(solved)
        values, vectors = np.linalg.eigh(np.eye(p) - own)
        known = values[:, 0] > _NOTHING_LEFT
        turned = np.einsum("lab,lam->lbm", vectors, score)
        turned /= np.where(known[:, None], values, 1.0)[:, :, None]
        out = np.einsum("lbm,lbm->lm", turned, turned) / p
        return np.where(known[:, None], out, np.nan)
