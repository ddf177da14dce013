"""The information about the parameters of V along a basis of its directions, and what it changes.

V has directions K_r: for each term changes of ``G_t``, for structured residuals derivatives in
their parameters, and V itself, which takes the place of that in the residual variance. Neither
Kenward and Roger's adjusted covariance nor its degrees of freedom depend on the basis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.engine.factorisation import Factorisation

__all__ = ["InformationParts", "coordinates", "expected_covariance"]

Matrix = NDArray[np.float64]

#: Information along a direction of V, relative to what it would be without fixed effects, below
#: which there is none.
_UNIDENTIFIED = 1e-10
#: Rounding in the information, relative to the shrinkage of the effects.
_ROUNDING = 1e-15
#: Share of its largest direction in a term's information below which a direction is not in V.
_ABSENT = 1e-12


@dataclass(frozen=True, eq=False)
class InformationParts(ReadOnlyArrays):
    """Products of V^-1 with directions K_r of V, one of which is V itself, in the engine's columns.

    Attributes
    ----------
    Phi : ndarray, shape (p, p)
        ``(X'V^-1X)^-1``.
    first : ndarray, shape (m, p, p)
        ``X'V^-1K_rV^-1X`` for the directions before V itself.
    second : ndarray, shape (m, m, p, p)
        ``X'V^-1K_rV^-1K_sV^-1X``.
    traces : ndarray, shape (m, m)
        ``tr(V^-1K_rV^-1K_s)``.
    trace : ndarray, shape (m,)
        ``tr(V^-1K_r)``.
    n : int
        Number of rows.
    owners : tuple of int
        Which directions are of one kind, so that their sizes can be compared.
    """

    Phi: Matrix
    first: Matrix
    second: Matrix
    traces: Matrix
    trace: Matrix
    n: int
    owners: tuple[int, ...]

    @property
    def m(self) -> int:
        """Number of directions before V itself."""
        return len(self.first)

    @property
    def expected_information(self) -> Matrix:
        """Twice the expected information of the restricted likelihood, shape (m + 1, m + 1).

        For V itself ``n - p``, and with another direction ``tr(V^-1K_s) + tr(Phi P_s)``.
        """
        m, Phi = self.m, self.Phi
        PhiP = Phi @ self.first
        out = np.empty((m + 1, m + 1))
        out[:m, :m] = (
            self.traces
            - 2.0 * np.einsum("pq,rsqp->rs", Phi, self.second)
            + np.einsum("rpq,sqp->rs", PhiP, PhiP)
        )
        out[:m, m] = out[m, :m] = self.trace - np.einsum("rpp->r", PhiP)
        out[m, m] = self.n - len(Phi)
        out[:m, :m] = 0.5 * (out[:m, :m] + out[:m, :m].T)
        return out

    def adjusted(self, W: Matrix) -> Matrix:
        """Kenward and Roger's covariance for the covariance W of the parameters."""
        m, Phi = self.m, self.Phi
        # For V itself Q_rs - P_r Phi P_s vanishes.
        spread = np.einsum("rs,rspq->pq", W[:m, :m], self.second) - np.einsum(
            "rs,rpq,sqt->pt", W[:m, :m], self.first, Phi @ self.first
        )
        return np.asarray(Phi + 2.0 * Phi @ spread @ Phi)

    @property
    def jacobian(self) -> Matrix:
        """Derivatives of Phi along the directions, shape (m + 1, p, p)."""
        return np.concatenate([self.Phi @ self.first @ self.Phi, self.Phi[None]])


def expected_covariance(
    found: InformationParts, factorisation: Factorisation, known: Matrix
) -> tuple[Matrix, Matrix]:
    """Twice the inverse of the expected information, and the directions that have none.

    Parameters
    ----------
    found : InformationParts
        Along all directions of V.
    factorisation : Factorisation
        Of M.
    known : ndarray, shape (r, m + 1)
        Null directions that are known.
    """
    A = factorisation.A
    # What a difference of H leaves of its digits, where the effects explain most.
    shrinkage = max(
        (
            float(np.vdot(T, T)) * A.n / factor.n_levels
            for T, factor in zip(factorisation.T, A.factors, strict=True)
        ),
        default=0.0,
    )
    none = max(_UNIDENTIFIED, _ROUNDING * (1.0 + shrinkage))
    size = np.append(
        np.sqrt(_natural_sizes(np.diag(found.traces), found.owners)), np.sqrt(A.n - A.p)
    )
    if A.known_variance is None:
        return _twice_inverse(found.expected_information, size, known, none)
    # V itself is no direction where the residual variance is known.
    m = found.m
    within, undetermined = _twice_inverse(
        found.expected_information[:m, :m], size[:m], known[:, :m], none
    )
    W = np.zeros((m + 1, m + 1))
    W[:m, :m] = within
    return W, np.column_stack([undetermined, np.zeros(len(undetermined))])


def coordinates(
    members: Sequence[tuple[int, Matrix]],
    changes: Sequence[Matrix],
    of_residuals: Matrix,
    of_V: Matrix,
) -> Matrix:
    """Changes of V as combinations of its directions, shape (r, m + 1).

    Parameters
    ----------
    members : sequence of (int, ndarray (r_t, k, k))
        Terms and their directions, in the order of the directions.
    changes : sequence of ndarray (r, k, k)
        Changes of each term's Sigma.
    of_residuals : ndarray, shape (r, number of residual parameters)
        Changes of these.
    of_V : ndarray, shape (r,)
        Multiples of V itself.
    """
    parts = []
    for term, directions in members:
        flat = directions.reshape(len(directions), -1)
        wanted = changes[term].reshape(len(of_V), -1)
        parts.append(np.linalg.lstsq(flat.T, wanted.T, rcond=None)[0].T)
    return np.column_stack([*parts, of_residuals, of_V])


def _natural_sizes(traces: Matrix, owners: Sequence[int]) -> Matrix:
    """``tr(V^-1K_r V^-1K_r)``, what the information along K_r is without fixed effects."""
    own = np.asarray(owners)
    largest = np.array([traces[own == f].max() for f in own])
    return np.maximum(traces, np.maximum(_ABSENT * largest, np.finfo(np.float64).tiny))


def _twice_inverse(
    information: Matrix, size: Matrix, known: Matrix, none: float
) -> tuple[Matrix, Matrix]:
    """``2 I^-1``, generalised where components cannot be told apart, and the null directions.

    Parameters
    ----------
    information : ndarray, shape (m, m)
        I.
    size : ndarray, shape (m,)
        What the roots of its diagonal would be if nothing were taken away.
    known : ndarray, shape (r, m)
        Null directions that are known.
    none : float
        Eigenvalues in these sizes that are not more than rounding.
    """
    rest = np.eye(len(size))
    nothing = known * size
    if len(known):
        nothing = scipy.linalg.orth(nothing.T).T
        rest = scipy.linalg.null_space(nothing)
    values, vectors = np.linalg.eigh(rest.T @ (information / np.outer(size, size)) @ rest)
    vectors = rest @ vectors
    keep = values > none
    kept = vectors[:, keep] / size[:, None]
    return (
        np.asarray(2.0 * (kept / values[keep]) @ kept.T),
        np.vstack([nothing, vectors[:, ~keep].T]) / size,
    )
