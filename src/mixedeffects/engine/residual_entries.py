"""Entries of S between any rows of a residual group, those of the fit and others.

    S_ij = D_i C_ij D_j / sqrt(w_i w_j)

as `residual_model` has it; here one pair at a time, without the whitening of whole groups.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.engine.residual_families import (
    Chain,
    CompoundSymmetry,
    Known,
    Spatial,
    Toeplitz,
    Unstructured,
)
from mixedeffects.engine.residual_model import ResidualModel

__all__ = ["ResidualEntries"]

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]


class ResidualEntries:
    """Deviations and correlations of rows anywhere.

    Parameters
    ----------
    model : ResidualModel
        S as a function of its parameters.
    phi : ndarray, shape (number of parameters,)
        The parameters.
    """

    def __init__(self, model: ResidualModel, phi: Matrix) -> None:
        self.model, self.phi = model, phi

    def deviations(self, v: Matrix) -> Matrix:
        """D for rows of v as given (m, s), shape (m,)."""
        model = self.model
        if not model.n_delta:
            return np.full(len(v), np.exp(-model.shift))
        return np.asarray(np.exp(model.standardised(v) @ self.phi[: model.n_delta] - model.shift))

    def variances(self, stratum: Integers, positions: Matrix) -> Matrix:
        """C_ii for rows at positions (m, d), shape (m,): one, but for variances by time in C."""
        out = np.ones(len(positions))
        given = self.model.design.given
        if given is not None:
            return np.asarray(given.diagonal()[_steps(positions)])
        for s, table in enumerate(self._of_times):
            own = stratum == s
            if table is not None and own.any():
                out[own] = np.diag(table)[_steps(positions[own])]
        return out

    def correlations(self, stratum: Integers, a: Matrix, b: Matrix) -> Matrix:
        """C_ij for pairs of different rows of one group at positions (m, d), shape (m,)."""
        out = np.zeros(len(a))
        for s in range(len(self.model.families)):
            own = np.flatnonzero(stratum == s)
            if len(own):
                out[own] = self._pairs(s, a[own], b[own])
        return out

    @cached_property
    def _of_times(self) -> list[Matrix | None]:
        """C of all common times, by stratum, where there are such."""
        model = self.model
        out: list[Matrix | None] = []
        times = np.arange(model.design.n_times, dtype=np.float64)
        for family, at in zip(model.families, model.places, strict=True):
            zeta = self.phi[at]
            if isinstance(family, (Toeplitz, Unstructured)):
                out.append(family.matrix(zeta, times[:, None]))
            elif model.design.kind == "ante":
                assert isinstance(family, Chain)
                table = np.eye(len(times))
                r, _ = family.neighbours(zeta, times[:-1], times[1:])
                for t in range(len(times) - 1):
                    table[t, t + 1 :] = np.cumprod(r[t:])
                    table[t + 1 :, t] = table[t, t + 1 :]
                out.append(table)
            else:
                out.append(None)
        return out

    def _pairs(self, s: int, a: Matrix, b: Matrix) -> Matrix:
        family, zeta = self.model.families[s], self.phi[self.model.places[s]]
        table = self._of_times[s]
        if table is not None:
            return np.asarray(table[_steps(a), _steps(b)])
        if isinstance(family, Known):
            return np.asarray(family.given[_steps(a), _steps(b)]).ravel()
        if isinstance(family, CompoundSymmetry):
            return np.full(len(a), float(zeta[0]))
        if isinstance(family, Spatial):
            d = np.sqrt(((a - b) ** 2).sum(axis=1))
            share = 1.0 - float(zeta[1]) if family.has_nugget else 1.0
            return np.asarray(share * np.exp(-((d / zeta[0]) ** family.power)))
        assert isinstance(family, Chain)
        first, second = np.minimum(a[:, 0], b[:, 0]), np.maximum(a[:, 0], b[:, 0])
        return family.neighbours(zeta, first, second)[0]


def _steps(positions: Matrix) -> Integers:
    return np.rint(positions[:, 0]).astype(np.int64)
