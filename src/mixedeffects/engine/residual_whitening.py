"""The whitening of rows whose residuals have covariance S: a root of its inverse.

    U S U' = I

U is lower triangular in the order of the series: two entries in a row where each residual depends
on the one before it alone, else a triangle for each group. `ResidualModel` says what S is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.engine.residual_families import Block, Chain, Family

__all__ = [
    "BlockWhitening",
    "ChainWhitening",
    "Pattern",
    "Structure",
    "Whitening",
    "pivot_cancellation",
]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Pattern:
    """Groups with the same positions: their rows (groups, m), and the positions (m, d)."""

    stratum: int
    rows: Positions
    positions: Matrix


class Rows(Protocol):
    """What is asked of the design."""

    @property
    def n(self) -> int:
        """Number of rows."""


class Structure(Protocol):
    """What is asked of the model of S: see `ResidualModel`."""

    v: Matrix
    weights: Matrix | None
    shift: float
    is_normalised: bool
    is_first: NDArray[np.bool_]
    families: tuple[Family, ...]
    places: list[slice]
    n_parameters: int

    @property
    def design(self) -> Rows:
        """What it is made of."""

    @property
    def n_delta(self) -> int:
        """Number of parameters of the standard deviations."""

    @property
    def innovations(self) -> NDArray[np.bool_]:
        """Rows whose variance given those before them in their group is a unit."""

    @property
    def steps(self) -> tuple[Positions, list[tuple[int, Matrix, Matrix]], Positions]:
        """Rows after the first of their group; the steps by stratum; which one leads to each."""

    @property
    def patterns(self) -> Sequence[Pattern]:
        """Groups by stratum and positions."""

    @property
    def sparsity(self) -> tuple[Positions, Positions]:
        """``indptr, indices`` of U and its derivatives."""


def pivot_cancellation(matrix: Matrix, root: Matrix) -> float:
    """Largest entry of the diagonal of a matrix relative to what elimination leaves of it."""
    return float((np.diag(matrix) / np.diag(root) ** 2).max(initial=1.0))


class Whitening:
    """U at some phi, and its derivatives.

    Attributes
    ----------
    U : csr_array, n x n
        Lower triangular, rows in the order of the series.
    logdet : float
        ``log |S|``.
    logdet_gradient : ndarray, shape (number of parameters,)
        Its derivatives in phi.
    """

    U: scipy.sparse.csr_array
    logdet: float
    logdet_gradient: Matrix

    #: Logarithm of what U is multiplied by so that the mean innovation is one; zero where it need
    #: not be.
    log_factor = 0.0
    #: Half the logarithm of the mean innovation, without prior weights, before S is divided by it;
    #: and the derivatives in phi, shape (number of parameters,).
    log_unit: float
    log_unit_gradient: Matrix
    #: Largest variance of a row, relative to what is left of it given those before it in its group.
    cancellation: float

    def __init__(self, model: Structure, phi: Matrix) -> None:
        self.model, self.phi = model, phi
        with np.errstate(over="ignore"):
            #: W^1/2 D^-1
            self.scale = np.exp(model.shift - model.v @ phi[: model.n_delta])
        if model.weights is not None:
            self.scale = self.scale * np.sqrt(model.weights)
        if not (np.isfinite(self.scale).all() and (self.scale > 0.0).all()):
            raise np.linalg.LinAlgError("a standard deviation is not finite")

    def _normalise(self, log_root: Matrix, changes: Matrix) -> None:
        """Divide S by its mean innovation, if that is wanted.

        Parameters
        ----------
        log_root : ndarray, shape (n,)
            Logarithm of the diagonal of U, without prior weights.
        changes : ndarray, shape (number of correlation parameters, n)
            Its derivatives in them.
        """
        model, n = self.model, self.model.design.n
        counted = model.innovations
        log_variance = -2.0 * log_root[counted]
        largest = float(log_variance.max())
        share = np.exp(log_variance - largest)
        total = float(share.sum())
        self.log_unit = 0.5 * (largest + np.log(total / len(share)))
        of_delta = model.v[counted].T @ share
        self.log_unit_gradient = np.append(of_delta, -changes[:, counted] @ share) / total
        if not model.is_normalised:
            return
        self.log_factor = self.log_unit
        self._scale_by(float(np.exp(self.log_factor)))
        self.logdet -= 2.0 * n * self.log_unit
        self.logdet_gradient = self.logdet_gradient - 2.0 * n * self.log_unit_gradient

    @property
    def _log_scale(self) -> Matrix:
        """Logarithm of D^-1."""
        return np.asarray(self.model.shift - self.model.v @ self.phi[: self.model.n_delta])

    def _scale_by(self, factor: float) -> None:
        """Multiply U."""
        self.U = self._matrix(factor * self.U.data)

    def _matrix(self, data: Matrix) -> scipy.sparse.csr_array:
        indptr, indices = self.model.sparsity
        n = self.model.design.n
        return scipy.sparse.csr_array((data, indices, indptr), shape=(n, n))

    def derivative(self, j: int) -> scipy.sparse.csr_array:
        """dU/dphi_j."""
        if j < self.model.n_delta:
            data = -self.U.data * self.model.v[self.model.sparsity[1], j]
        else:
            data = np.exp(self.log_factor) * self._of_correlation(j)
        if self.model.is_normalised:
            data = data + self.log_unit_gradient[j] * self.U.data
        return self._matrix(data)

    def _of_correlation(self, j: int) -> Matrix:
        """Data of dU/dphi_j, before S is divided by anything."""
        raise NotImplementedError

    def working_variates(self, residuals: Matrix) -> Matrix:
        """``U S_j g`` up to its sign, shape (n, number of parameters), for ``g = S^-1 residuals``.

        ``U'^-1 K_j residuals`` with ``K_j = U_j'U + U'U_j`` the derivative of ``S^-1``.
        """
        return self.transposed_root(self.changes_of_inverse(residuals))

    def changes_of_inverse(self, residuals: Matrix) -> Matrix:
        """``K_j residuals``, shape (n, number of parameters), K_j the derivative of ``S^-1``."""
        e = self.U @ residuals
        out = np.empty((len(e), self.model.n_parameters))
        for j in range(out.shape[1]):
            U_j = self.derivative(j)
            out[:, j] = U_j.T @ e + self.U.T @ (U_j @ residuals)
        return out

    def contracted(self, left: Matrix, right: Matrix) -> Matrix:
        """``sum_c left_c'K_j right_c`` over columns of arrays (n, c), for each parameter."""
        white_left, white_right = self.U @ left, self.U @ right
        out = np.empty(self.model.n_parameters)
        for j in range(len(out)):
            U_j = self.derivative(j)
            out[j] = np.vdot(U_j @ left, white_right) + np.vdot(white_left, U_j @ right)
        return out

    def transposed_root(self, x: Matrix) -> Matrix:
        """``U'^-1 x`` for x (n, m)."""
        raise NotImplementedError

    def root(self, x: Matrix) -> Matrix:
        """``U^-1 x`` for x (n, m): errors of covariance S, if x is white."""
        raise NotImplementedError


class ChainWhitening(Whitening):
    """Where each residual depends on the one before it alone: recursions."""

    def __init__(self, model: Structure, phi: Matrix) -> None:
        super().__init__(model, phi)
        n = model.design.n
        self._r = np.zeros(n)
        rows, by_stratum, which = model.steps
        correlations, derivatives = [], []
        for family, at, (_, first, second) in zip(
            model.families, model.places, by_stratum, strict=False
        ):
            assert isinstance(family, Chain)
            r, dr = family.neighbours(phi[at], first, second)
            correlations.append(r)
            derivatives.append(dr)
        if correlations:
            whole = np.concatenate(correlations)
            if not (np.abs(whole) < 1.0).all():
                raise np.linalg.LinAlgError("a correlation of neighbours is one")
            self._r[rows] = whole[which]
        ends = np.cumsum([0, *[len(r) for r in correlations]])
        self._by_step = [
            (int(ends[s]), dr[k]) for s, dr in enumerate(derivatives) for k in range(len(dr))
        ]
        self._q = 1.0 / ((1.0 - self._r) * (1.0 + self._r))
        self.cancellation = float(self._q.max())
        root = np.sqrt(self._q)
        self._before = np.append(self.scale[:1], self.scale[:-1])
        self._band = np.empty((2, n))
        np.multiply(-self._r * root, self._before, out=self._band[0])
        np.multiply(root, self.scale, out=self._band[1])
        self._band[0, model.is_first] = 0.0
        self.logdet = -float(np.log(self._q).sum()) - 2.0 * float(np.log(self.scale).sum())
        gradient = [2.0 * model.v.sum(axis=0)] if model.n_delta else []
        slope = self._r * self._q
        changes = np.empty((len(self._by_step), n))
        for k in range(len(changes)):
            changes[k] = slope * self._row_derivative(k)
        self.logdet_gradient = np.concatenate([*gradient, -2.0 * changes.sum(axis=1)])
        self._normalise(self._log_scale + 0.5 * np.log(self._q), changes)

    def _row_derivative(self, k: int) -> Matrix:
        """Derivatives of the correlation of each row with the one before."""
        rows, by_stratum, which = self.model.steps
        start, values = self._by_step[k]
        full = np.zeros(sum(each[0] for each in by_stratum))
        full[start : start + len(values)] = values
        out = np.zeros(self.model.design.n)
        out[rows] = full[which]
        return out

    @cached_property
    def U(self) -> scipy.sparse.csr_array:  # type: ignore[override]
        """U, with two entries in every row."""
        return self._matrix(self._band.T.reshape(-1))

    def _scale_by(self, factor: float) -> None:
        self._band *= factor

    def derivative_band(self, j: int) -> Matrix:
        """Entries of dU/dphi_j before the diagonal and on it, shape (2, n)."""
        out = np.empty_like(self._band)
        if j < self.model.n_delta:
            v = self.model.v[:, j]
            np.multiply(self._band[1], -v, out=out[1])
            out[0, 0] = 0.0
            np.multiply(self._band[0, 1:], -v[:-1], out=out[0, 1:])
        else:
            steep = np.exp(self.log_factor) * self._q**1.5
            steep *= self._row_derivative(j - self.model.n_delta)
            np.multiply(steep, -self._before, out=out[0])
            out[1] = self._r * steep * self.scale
            out[0, self.model.is_first] = 0.0
        if self.model.is_normalised:
            out += self.log_unit_gradient[j] * self._band
        return out

    def derivative(self, j: int) -> scipy.sparse.csr_array:
        """dU/dphi_j."""
        return self._matrix(self.derivative_band(j).T.reshape(-1))

    def working_variates(self, residuals: Matrix) -> Matrix:
        """See `Whitening`; by recursions, without sparse matrices."""
        e = _band_times(self._band, residuals)
        m = self.model.n_parameters
        out, back = np.empty((m, len(e))), np.empty((len(e), m))
        for j in range(m):
            change = self.derivative_band(j)
            out[j] = _band_times(change, residuals)
            back[:, j] = change[1] * e
            back[:-1, j] += change[0, 1:] * e[1:]
        return np.asarray(out.T + self.transposed_root(back)) if m else out.T

    def transposed_root(self, x: Matrix) -> Matrix:
        """``U'^-1 x``, backwards along the series."""
        return np.asarray(scipy.linalg.solve_banded((0, 1), self._band, x, check_finite=False))

    def root(self, x: Matrix) -> Matrix:
        """``U^-1 x``, forwards along the series."""
        band = np.vstack([self._band[1], np.append(self._band[0, 1:], 0.0)])
        return np.asarray(scipy.linalg.solve_banded((1, 0), band, x, check_finite=False))


def _band_times(band: Matrix, x: Matrix) -> Matrix:
    """A matrix with entries on and before its diagonal times x (n,)."""
    out = band[1] * x
    out[1:] += band[0, 1:] * x[:-1]
    return np.asarray(out)


class BlockWhitening(Whitening):
    """Where a group has a matrix of its own: one root for each pattern of positions."""

    def __init__(self, model: Structure, phi: Matrix) -> None:
        super().__init__(model, phi)
        self._roots: list[tuple[Matrix, Matrix]] = []
        _indptr, indices = model.sparsity
        data = np.empty(len(indices))
        logdet, self.cancellation = 0.0, 1.0
        for pattern in model.patterns:
            family = model.families[pattern.stratum]
            assert isinstance(family, Block)
            C = family.matrix(phi[model.places[pattern.stratum]], pattern.positions)
            L: Matrix = np.asarray(np.linalg.cholesky(C))
            self.cancellation = max(self.cancellation, pivot_cancellation(C, L))
            inverse = np.asarray(
                scipy.linalg.solve_triangular(L, np.eye(len(L)), lower=True, check_finite=False)
            )
            self._roots.append((L, inverse))
            self._fill(data, pattern, inverse)
            logdet += len(pattern.rows) * 2.0 * float(np.log(np.diag(L)).sum())
        self.U = self._matrix(data)
        self.logdet = logdet - 2.0 * float(np.log(self.scale).sum())
        gradient = np.zeros(model.n_parameters)
        gradient[: model.n_delta] = 2.0 * model.v.sum(axis=0)
        self._changes: list[Matrix] = []
        log_root = self._log_scale
        changes = np.zeros((model.n_parameters, model.design.n))
        for pattern, (L, inverse) in zip(model.patterns, self._roots, strict=True):
            at = model.places[pattern.stratum]
            family = model.families[pattern.stratum]
            assert isinstance(family, Block)
            change = inverse @ family.derivatives(phi[at], pattern.positions) @ inverse.T
            self._changes.append(change)
            of_rows = np.einsum("rii->ri", change)
            gradient[at] += len(pattern.rows) * of_rows.sum(axis=1)
            log_root[pattern.rows] -= np.log(np.diag(L))
            changes[at][:, pattern.rows] = -0.5 * of_rows[:, None, :]
        self.logdet_gradient = gradient
        self._normalise(log_root, changes[model.n_delta :])

    def _fill(self, data: Matrix, pattern: Pattern, matrix: Matrix) -> None:
        """Put a lower-triangular matrix, times the scale, at the rows of a pattern."""
        a, b = np.tril_indices(len(matrix))
        at = self.model.sparsity[0][pattern.rows][:, a] + b
        data[at] = matrix[a, b] * self.scale[pattern.rows[:, b]]

    def _of_correlation(self, j: int) -> Matrix:
        data = np.zeros(len(self.U.data))
        for pattern, (_, inverse), change in zip(
            self.model.patterns, self._roots, self._changes, strict=True
        ):
            at = self.model.places[pattern.stratum]
            if at.start <= j < at.stop:
                half = np.tril(change[j - at.start])
                np.einsum("ii->i", half)[:] *= 0.5
                self._fill(data, pattern, -half @ inverse)
        return data

    def _times_inverse(self, x: Matrix) -> Matrix:
        """``C^-1 x`` for x (n, c)."""
        out = np.empty_like(x)
        for pattern, (_, inverse) in zip(self.model.patterns, self._roots, strict=True):
            out[pattern.rows] = (inverse.T @ inverse) @ x[pattern.rows]
        return out

    def changes_of_inverse(self, residuals: Matrix) -> Matrix:
        """See `Whitening`; pattern by pattern."""
        model = self.model
        out = np.zeros((len(residuals), model.n_parameters))
        if not model.n_parameters:
            return out
        scale = np.exp(self.log_factor) * self.scale
        e = scale * residuals
        solved = self._times_inverse(e[:, None])[:, 0]
        for j in range(model.n_delta):
            v = model.v[:, j]
            out[:, j] = -v * solved - self._times_inverse((v * e)[:, None])[:, 0]
        for pattern, change in zip(model.patterns, self._changes_of_inverses, strict=True):
            at = model.places[pattern.stratum]
            # (groups, m) times (m, parameters m)
            count, m = len(change), pattern.rows.shape[1]
            moved = e[pattern.rows] @ change.transpose(2, 0, 1).reshape(m, count * m)
            out[pattern.rows, at] = moved.reshape(len(pattern.rows), count, m).transpose(0, 2, 1)
        if model.is_normalised:
            out += 2.0 * solved[:, None] * self.log_unit_gradient
        return np.asarray(scale[:, None] * out)

    def contracted(self, left: Matrix, right: Matrix) -> Matrix:
        """See `Whitening`; from the products of rows at two positions of a pattern."""
        model = self.model
        if not model.n_parameters:
            return np.zeros(0)
        scale = np.exp(self.log_factor) * self.scale[:, None]
        left, right = scale * left, scale * right
        out = np.zeros(model.n_parameters)
        total = 0.0
        for pattern, (_, inverse), change in zip(
            model.patterns, self._roots, self._changes_of_inverses, strict=True
        ):
            m = pattern.rows.shape[1]
            wide = left[pattern.rows.T].reshape(m, -1), right[pattern.rows.T].reshape(m, -1)
            products = wide[0] @ wide[1].T
            total += float(np.vdot(inverse.T @ inverse, products))
            out[model.places[pattern.stratum]] += np.tensordot(change, products, 2)
        if model.n_delta:
            with_left = np.einsum("nc,nc->n", left, self._times_inverse(right))
            with_right = np.einsum("nc,nc->n", right, self._times_inverse(left))
            out[: model.n_delta] -= model.v.T @ (with_left + with_right)
        if model.is_normalised:
            out += 2.0 * total * self.log_unit_gradient
        return out

    @cached_property
    def _changes_of_inverses(self) -> list[Matrix]:
        """Derivatives of ``C^-1`` in the parameters of its family, by pattern."""
        return [
            -inverse.T @ change @ inverse
            for (_, inverse), change in zip(self._roots, self._changes, strict=True)
        ]

    def transposed_root(self, x: Matrix) -> Matrix:
        """``U'^-1 x = L'(x / scale)``."""
        out = np.empty_like(x)
        scaled = x / (np.exp(self.log_factor) * self.scale[:, None])
        for pattern, (L, _) in zip(self.model.patterns, self._roots, strict=True):
            out[pattern.rows] = L.T @ scaled[pattern.rows]
        return out

    def root(self, x: Matrix) -> Matrix:
        """``U^-1 x = (L x) / scale``."""
        out = np.empty_like(x)
        for pattern, (L, _) in zip(self.model.patterns, self._roots, strict=True):
            out[pattern.rows] = L @ x[pattern.rows]
        return np.asarray(out / (np.exp(self.log_factor) * self.scale[:, None]))
