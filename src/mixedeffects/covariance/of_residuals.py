"""What rows whose errors are correlated ask of a fit: which belong together, and quadratic forms.

With ``P = Lambda M_q^-1 Lambda'`` and S, relative to the same unit,

    V^-1 = S^-1 - S^-1 Z P Z' S^-1,     R V^-1 = I - Z P Z' S^-1,     R V^-1 R = S - Z P Z'

so that diagonals of all of these come from row-wise forms ``u_i'P v_i`` with u and v a row of Z or
of ``S^-1 Z``. A row of Z has one level of each factor, and so has one of ``S^-1 Z`` if every
residual group lies in one level; otherwise P is solved for, one column for each random effect.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.covariance.between_levels import rank_within_blocks, solve_for_levels
from mixedeffects.covariance.diagonal_residual import DiagonalResidual
from mixedeffects.covariance.groups import Factor, connected_blocks
from mixedeffects.covariance.marginal import MarginalCovariance
from mixedeffects.covariance.of_fit import R_of, structured_residual_of
from mixedeffects.covariance.residual_matrix import ResidualMatrix
from mixedeffects.covariance.structure import with_residual_factor
from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.residual_entries import ResidualEntries
from mixedeffects.fitting.fit import Fit, once_per_fit

__all__ = [
    "V_at",
    "blocks_of_rows",
    "engine_matrix",
    "factors_of_rows",
    "forms_by_rows",
    "precisions",
    "residual_entries_of",
    "residual_matrix_of",
    "residual_semivariances",
    "row_forms",
    "rows_by_factor",
    "solved_columns",
    "whitened",
]

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]
Side = Literal["Z", "S^-1 Z"]

#: Memory for the right-hand sides and solutions of one chunk of solves, in bytes.
_CHUNK = 100e6


@once_per_fit("residual matrix")
def residual_matrix_of(fit: Fit) -> ResidualMatrix:
    """R as V is made with it."""
    return structured_residual_of(fit) or DiagonalResidual(R_of(fit).diag())


def residual_entries_of(fit: Fit) -> ResidualEntries:
    """Entries of S of a fit with ``residual=`` or ``variance=``."""
    assert fit.residual is not None
    return ResidualEntries(fit.residual.model, fit.residual.phi)


def factors_of_rows(fit: Fit) -> tuple[Factor, ...]:
    """Factors whose levels name rows: those of the random effects, then the residual groups."""
    return with_residual_factor(fit.frame.terms, fit.frame.residual)


def residual_semivariances(fit: Fit, i: Integers, j: Integers) -> Matrix:
    """``(R_ii + R_jj - 2 R_ij) / 2`` of pairs of different rows, shape (m,)."""
    variances = residual_matrix_of(fit).diagonal()
    out = np.asarray(0.5 * (variances[i] + variances[j]))
    term = fit.frame.residual
    if fit.residual is None or term is None:
        return out
    same = np.flatnonzero(term.codes[i] == term.codes[j])
    if len(same):
        i, j = i[same], j[same]
        entries, model = residual_entries_of(fit), fit.residual.model
        at, stratum = model.design.positions, model.design.stratum.astype(np.int64)
        C = entries.correlations(stratum[i], at[i], at[j])
        sd = np.sqrt(variances / entries.variances(stratum, at))
        out[same] -= C * sd[i] * sd[j]
    return out


def blocks_of_rows(fit: Fit) -> Integers:
    """Connected block of V of each row, shape (n,): by random effects and residual groups."""
    R = structured_residual_of(fit)
    factors = [*fit.frame.terms, *(() if R is None else R.groupings)]
    return connected_blocks(factors) if factors else np.arange(fit.nobs, dtype=np.int64)


def whitened(R: StructuredResidual, x: Matrix) -> Matrix:
    """``R^-1/2 x`` for x (n,) or (n, m), one row after another in each residual group."""
    order = R.model.order
    out = np.empty(x.shape)
    out[order] = (R.whitening.U @ x[order]) / np.sqrt(R.tau2)
    return out


def V_at(fit: Fit, other: Fit) -> MarginalCovariance:
    """V of the rows of a fit at the parameters of one to other rows, with ``residual=``."""
    assert fit.residual is not None and other.residual is not None
    own, its = fit.residual.design, other.residual
    frame, basis = fit.frame, own.basis
    phi = np.array(its.phi)
    n_delta = its.model.n_delta
    phi[:n_delta] = own.model.of_coefficients(its.model.coefficients(its.phi))
    model = own.model.with_unit_at_zero(phi)
    T = [basis.engine_factor(t, factor) for t, factor in enumerate(other.T)]
    factorisation = Factorisation(own.with_model(model).at(phi).A, T)
    R = StructuredResidual(
        model, phi, other.sigma, basis.weight_scale, frame.residual, frame.variance
    )
    return MarginalCovariance(
        frame.terms, other.G_blocks, other.sigma, frame.weights, factorisation, frame.index, R
    )


def precisions(R: StructuredResidual) -> Matrix:
    """The diagonal of ``R^-1``, shape (n,)."""
    U = R.whitening.U
    out = np.empty(R.n)
    out[R.model.order] = np.bincount(U.indices, U.data**2, R.n) / R.tau2
    return out


def rows_by_factor(fit: Fit) -> tuple[list[NDArray[np.int32]], list[Matrix]]:
    """Level and columns, in the engine's basis, of each row in each factor."""
    A: CrossProducts = fit.crossproducts
    codes, z = [], []
    for factor in A.factors:
        columns = np.empty((len(fit.frame.y), factor.k))
        for member in factor.members:
            term = fit.frame.terms[member.term]
            columns[:, member.columns] = A.basis.term_columns(member.term, term.z)
        codes.append(fit.frame.terms[factor.members[0].term].codes)
        z.append(columns)
    return codes, z


def row_forms(fit: Fit, left: Side, right: Side) -> Matrix:
    """``u_i'P v_i`` for all rows, shape (n,), u and v rows of Z or of ``S^-1 Z``.

    P and S are in units of ``sigma^2 / weight_scale``, those of the engine.
    """
    R = residual_matrix_of(fit)
    assert isinstance(R, StructuredResidual)
    if not fit.frame.terms:
        return np.zeros(len(fit.frame.y))
    codes, z = rows_by_factor(fit)
    if _hold_the_series(fit):
        solved = [R.tau2 * R.solve(own) for own in z]
        u, v = (z if side == "Z" else solved for side in (left, right))
        return forms_by_rows(fit, codes, u, v)
    return _by_solves(fit, R, left, right)


def _hold_the_series(fit: Fit) -> bool:
    """Whether every residual group lies in one level of each factor."""
    assert fit.residual is not None
    return not any(fit.residual.design.scattered)


def forms_by_rows(
    fit: Fit, codes: list[NDArray[np.int32]], u: list[Matrix], v: list[Matrix]
) -> Matrix:
    """``u_i'P v_i`` for rows with one level of each factor, shape (n,).

    Within a level P is the selected inverse. Between two factors it is zero between connected
    blocks of the data, so one right-hand side serves one level of every block at once: nested
    factors take as many as there are effects outside the innermost factor in the largest block,
    whatever the number of blocks. The innermost factor, which has the most effects, is never solved
    for, because P is symmetric.

    Parameters
    ----------
    fit : Fit
        The fit.
    codes : list of ndarray (n,)
        Level of each row, for each factor.
    u, v : lists of ndarray (n, k)
        Columns of each factor, in the engine's basis.
    """
    A, factorisation = fit.crossproducts, fit.factorisation
    P = factorisation.selected_inverse(with_fixed=False, keep=True).P
    out = np.zeros(len(fit.frame.y))
    for f in range(len(A.factors)):
        out += np.einsum("ia,iab,ib->i", u[f], P[f][codes[f]], v[f])
    if len(A.factors) == 1:
        return out
    blocks = blocks_of_rows(fit)
    per_column = 8.0 * sum(f.n_levels * f.k for f in A.factors)
    for g in range(1, len(A.factors)):
        k = A.factors[g].k
        rank = rank_within_blocks(codes[g], A.factors[g].n_levels, blocks)
        rank_of_row = rank[codes[g]]
        order = np.argsort(rank_of_row, kind="stable")
        step = max(1, int(_CHUNK / (per_column * k)))
        for low in range(0, int(rank.max()) + 1, step):
            high = min(low + step, int(rank.max()) + 1)
            first, last = np.searchsorted(rank_of_row[order], [low, high])
            rows = order[first:last]
            inverse = solve_for_levels(factorisation, g, rank, low, high)
            columns = (rank_of_row[rows] - low)[:, None] * k + np.arange(k)
            for f in range(g):
                between = inverse[f][
                    codes[f][rows][:, None, None],
                    np.arange(A.factors[f].k)[None, :, None],
                    columns[:, None, :],
                ]
                out[rows] += np.einsum("ia,iab,ib->i", u[f][rows], between, v[g][rows])
                out[rows] += np.einsum("ia,iab,ib->i", v[f][rows], between, u[g][rows])
    return out


def _by_solves(fit: Fit, R: StructuredResidual, left: Side, right: Side) -> Matrix:
    """The same where a row of ``S^-1 Z`` has several levels of a factor."""
    A, factorisation = fit.crossproducts, fit.factorisation
    Z, places = engine_matrix(fit)
    solved = solved_columns(R, Z) if "S^-1 Z" in (left, right) else Z
    u, v = (scipy.sparse.csc_array(Z if side == "Z" else solved) for side in (left, right))
    out = np.zeros(len(fit.frame.y))
    q = Z.shape[1]
    step = max(1, int(_CHUNK / (8.0 * (2 * q + fit.nobs))))
    for low in range(0, q, step):
        m = min(low + step, q) - low
        rhs = []
        for f, place in zip(A.factors, places, strict=True):
            own = np.zeros((f.n_levels, f.k, m))
            here = np.flatnonzero((place.ravel() >= low) & (place.ravel() < low + m))
            own.reshape(-1, m)[here, place.ravel()[here] - low] = 1.0
            rhs.append(own)
        columns = factorisation.solve(rhs, np.zeros((0, m)))[0]
        P = np.vstack([own.reshape(-1, m) for own in columns])
        out += np.asarray(v[:, low : low + m].multiply(u @ P).sum(axis=1)).ravel()
    return out


def engine_matrix(fit: Fit) -> tuple[scipy.sparse.csr_array, list[Integers]]:
    """Z in the engine's basis, and for each factor which column each of its effects has (l, k)."""
    codes, z = rows_by_factor(fit)
    parts, places, start = [], [], 0
    for factor, code, columns in zip(fit.crossproducts.factors, codes, z, strict=True):
        n, k = columns.shape
        own = code[:, None].astype(np.int64) * k + np.arange(k)
        shape = (n, factor.n_levels * k)
        entries = (columns.ravel(), own.ravel(), np.arange(0, n * k + 1, k))
        parts.append(scipy.sparse.csr_array(entries, shape=shape))
        size = factor.n_levels * k
        places.append(start + np.arange(size).reshape(factor.n_levels, k))
        start += size
    return scipy.sparse.csr_array(scipy.sparse.hstack(parts)), places


def solved_columns(R: StructuredResidual, Z: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """``S^-1 Z`` for a sparse matrix Z of n rows, in the engine's units."""
    order, U = R.model.order, R.whitening.U
    sorted_rows = U.T @ (U @ Z[order])
    back = np.empty(len(order), dtype=np.intp)
    back[order] = np.arange(len(order))
    return scipy.sparse.csr_array(sorted_rows)[back]
