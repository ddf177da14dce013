"""Square roots of V^-1 applied to vectors, one connected block of V at a time.

Blocks of one size are handled together, so a hundred thousand small groups cost a few array
operations. The symmetric root of a block with equal prior weights needs no matrix of the block's
size. With ``S = Z Gamma / tau``, where ``Gamma Gamma' = G`` and tau is the residual standard
deviation,

    V         = tau^2 (I + S S'),        S'S = Q diag(d) Q'
    V^(-1/2) x = (x + S Q diag(h(d)) Q' S'x) / tau,
    h(d)      = ((1 + d)^(-1/2) - 1) / d = -1 / (sqrt(1 + d) (1 + sqrt(1 + d)))

which is smooth at d = 0, so small or zero variances need no care. With unequal weights, or errors
that are correlated, R is no multiple of the identity and the root of V has no such form: then the
block itself is decomposed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.warning import warn
from mixedeffects.covariance.diagonal_residual import DiagonalResidual
from mixedeffects.covariance.entries import large_block, small_blocks
from mixedeffects.covariance.groups import ConnectedBlocks
from mixedeffects.covariance.roots import covariance_root
from mixedeffects.covariance.sizes import refuse_above, size_text
from mixedeffects.covariance.structure import CovarianceStructure
from mixedeffects.errors import CostWarning, ModelError

__all__ = ["cholesky_root", "symmetric_root"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]

#: Variance beside the smallest residual variance from which V has lost too many digits of that.
_EXTREME = 1e6
#: Rows of a block up to which blocks of one size are handled together.
_SMALL = 64
#: Entries of the arrays made for blocks handled together.
_BATCH = 2_000_000
#: Operations from which a dense factorisation is announced by a `CostWarning`: those of the
#: Cholesky factor of 5,000 rows, some seconds.
_LARGE = 4e10


def cholesky_root(V: CovarianceStructure, x: Matrix, max_gb: float) -> Matrix:
    """``L^-1 x`` with ``V = L L'``, rows in their order within each connected block.

    Parameters
    ----------
    V : CovarianceStructure
        With R positive definite.
    x : ndarray, shape (n, m)
        What to multiply.
    max_gb : float
        Largest block allowed, in gigabytes.

    Raises
    ------
    ModelError
        If a block would be larger than that, or is not numerically positive definite.

    Warns
    -----
    CostWarning
        If the largest block takes long to factor.
    """
    connected = V.connected
    largest = int(connected.sizes.max())
    _announce(
        8.0 * largest**2,
        _cubes(connected.sizes) / 3.0,
        max_gb,
        "Whitening with the Cholesky factor needs the largest connected block of V, "
        f"{largest:,} rows; it",
        "V.solve, V.quad and V.logdet need no block, and where prior weights are equal neither "
        "does kind='symmetric'; max_gb= raises the limit.",
    )
    out = np.empty_like(x)
    for rows in _together(connected):
        # V itself has lost digits of R where its random effects are far larger: see the root.
        extreme = _contrast(V, np.atleast_2d(rows)) > _EXTREME
        for own in np.atleast_2d(rows)[extreme]:
            upper = np.asarray(np.linalg.qr(_stacked(V, own), mode="r"))
            upper = upper * np.where(np.diag(upper) < 0.0, -1.0, 1.0)[:, None]
            out[own] = scipy.linalg.solve_triangular(upper, x[own], trans="T")
        rows = rows if not extreme.any() else np.atleast_2d(rows)[~extreme]
        if not rows.size:
            continue
        try:
            if rows.ndim == 1:
                root = scipy.linalg.cholesky(
                    large_block(V, rows, "F"), lower=True, overwrite_a=True
                )
                out[rows] = scipy.linalg.solve_triangular(root, x[rows], lower=True)
            else:
                out[rows] = _forward(np.asarray(np.linalg.cholesky(small_blocks(V, rows))), x[rows])
        except np.linalg.LinAlgError:
            raise ModelError(
                "V is not numerically positive definite: its residual variance is too small beside "
                "that of the random effects."
            ) from None
    return out


def symmetric_root(V: CovarianceStructure, x: Matrix, max_gb: float) -> Matrix:
    """``V^(-1/2) x``; parameters as for `cholesky_root`.

    Raises
    ------
    ModelError
        If a matrix to decompose would be larger than ``max_gb``.

    Warns
    -----
    CostWarning
        If the largest one takes long to decompose.
    """
    connected = V.connected
    # No eigenvalue of R below its largest variance: then R is that variance times the identity.
    spherical = connected.smallest(V.R.floor()) == connected.largest(V.R.diagonal())
    low_rank = spherical & (_n_effects(V) <= connected.sizes)
    out = np.empty_like(x)
    if not low_rank.all():
        largest = int(connected.sizes[~low_rank].max())
        _announce(
            2 * 8.0 * largest**2,
            9.0 * _cubes(connected.sizes[~low_rank]),
            max_gb,
            f"V^(-1/2) needs the eigenvectors of a connected block of V with {largest:,} rows "
            f"({_not_spherical(V)}, or it has more random effects than rows); they",
            "kind='cholesky' takes half the memory and a small part of the time; V.solve, V.quad "
            "and V.logdet need no block; max_gb= raises the limit.",
        )
        for rows in _together(connected, ~low_rank):
            extreme = _contrast(V, np.atleast_2d(rows)) > _EXTREME
            for own in np.atleast_2d(rows)[extreme]:
                _, size, right = np.linalg.svd(_stacked(V, own), full_matrices=False)
                out[own] = right.T @ ((right @ x[own]) / size[:, None])
            rows = rows if not extreme.any() else np.atleast_2d(rows)[~extreme]
            if not rows.size:
                continue
            if rows.ndim == 1:
                values, vectors = scipy.linalg.eigh(large_block(V, rows, "F"), overwrite_a=True)
                out[rows] = (vectors / np.sqrt(values)) @ (vectors.T @ x[rows])
            else:
                values, vectors = np.linalg.eigh(small_blocks(V, rows))
                inner = np.matmul(vectors.transpose(0, 2, 1), x[rows])
                out[rows] = np.matmul(vectors, inner / np.sqrt(values)[:, :, None])
    if low_rank.any():
        own = np.flatnonzero(low_rank[connected.numbers])
        out[own] = _low_rank_root(V, own, x[own], max_gb)
    return out


def _low_rank_root(V: CovarianceStructure, own: Positions, x: Matrix, max_gb: float) -> Matrix:
    """``V^(-1/2) x`` for rows in blocks of equal residual variance, by the q x q route."""
    connected = V.connected
    tau = np.sqrt(V.R.diagonal()[own])[:, None]
    S = _scaled_effects(V, own, tau)
    if S.shape[1] == 0:
        return np.asarray(x / tau)
    # Columns sorted by block, blocks by their number of columns, so that those of one size lie
    # together. A level belongs to one block, so any of its rows tells which.
    block_of_column = np.zeros(S.shape[1], dtype=np.intp)
    stored = S.tocoo()
    block_of_column[stored.col] = connected.numbers[own][stored.row]
    n_columns = np.bincount(block_of_column, minlength=len(connected.sizes))
    order = np.lexsort((block_of_column, n_columns[block_of_column]))
    S = scipy.sparse.csr_array(S[:, order])
    widths = n_columns[block_of_column[order]]
    largest = int(widths.max())
    _announce(
        2 * 8.0 * largest**2,
        9.0 * _cubes(n_columns),
        max_gb,
        f"V^(-1/2) needs the eigenvectors of a matrix with a row for each of the {largest:,} "
        "random effects in the largest connected block of V; they",
        "V.solve, V.quad and V.logdet do without; max_gb= raises the limit.",
    )
    products = scipy.sparse.csr_array(S.T @ S)
    inner = S.T @ x
    weighted = np.empty_like(inner)
    start = 0
    while start < len(widths):
        q = int(widths[start])
        n_blocks = int(np.searchsorted(widths, q, side="right") - start) // q
        step = max(1, _BATCH // q**2)
        for first in range(0, n_blocks, step):
            count = min(step, n_blocks - first)
            at = slice(start + first * q, start + (first + count) * q)
            d, Q = np.linalg.eigh(_diagonal_blocks(products, at, q))
            root = np.sqrt(1.0 + np.maximum(d, 0.0))
            coefficients = np.matmul(
                Q.transpose(0, 2, 1), inner[at].reshape(count, q, inner.shape[1])
            )
            coefficients *= (-1.0 / (root * (1.0 + root)))[:, :, None]
            weighted[at] = np.matmul(Q, coefficients).reshape(count * q, inner.shape[1])
        start += n_blocks * q
    return np.asarray((x + S @ weighted) / tau)


def _not_spherical(V: CovarianceStructure) -> str:
    """Why R may be no multiple of the identity."""
    if V.R.groupings:
        return "its errors are correlated"
    if isinstance(V.R, DiagonalResidual):
        return "its prior weights are unequal"
    return "its residual variances differ"


def _contrast(V: CovarianceStructure, rows: Positions) -> Matrix:
    """Largest variance of each block over the smallest eigenvalue of its R, for rows (b, s)."""
    variances = V.R.diagonal()[rows]
    for term, G in V.random():
        z = term.z[rows]
        variances += np.einsum("bsk,kl,bsl->bs", z, G, z)
    return np.asarray(variances.max(axis=1) / V.R.floor()[rows].min(axis=1))


def _stacked(V: CovarianceStructure, rows: Positions) -> Matrix:
    """B with ``V = B'B`` of the rows of one block: those of Gamma'Z' above R's root."""
    s = len(rows)
    parts = []
    for term, G in V.random():
        scaled = term.z[rows] @ covariance_root(G)
        levels, code = np.unique(term.codes[rows], return_inverse=True)
        part = np.zeros((len(levels), scaled.shape[1], s))
        part[code, :, np.arange(s)] = scaled
        parts.append(part.reshape(-1, s))
    residual = np.zeros((s, s))
    V.R.add_blocks(rows, residual)
    return np.vstack([*parts, np.linalg.cholesky(residual).T])


def _n_effects(V: CovarianceStructure) -> NDArray[np.intp]:
    """Number of directions in which the random effects of each connected block vary."""
    connected = V.connected
    out = np.zeros(len(connected), dtype=np.intp)
    for term, G in V.random():
        block_of_level = np.zeros(term.n_levels, dtype=np.int64)
        block_of_level[term.codes] = connected.numbers
        out += covariance_root(G).shape[1] * np.bincount(block_of_level, minlength=len(out))
    return out


def _scaled_effects(V: CovarianceStructure, own: Positions, tau: Matrix) -> scipy.sparse.csr_array:
    """S = Z Gamma / tau for some rows, a column for each direction of positive variance."""
    parts: list[scipy.sparse.csr_array] = []
    for term, G in V.random():
        z = term.z[own] @ covariance_root(G) / tau
        k = z.shape[1]
        if k:
            columns = term.codes[own].astype(np.int64)[:, None] * k + np.arange(k)
            starts = np.arange(0, len(own) * k + 1, k)
            parts.append(
                scipy.sparse.csr_array(
                    (z.ravel(), columns.ravel(), starts), shape=(len(own), term.n_levels * k)
                )
            )
    if not parts:
        return scipy.sparse.csr_array((len(own), 0))
    S = scipy.sparse.csr_array(scipy.sparse.hstack(parts, format="csr"))
    used = np.flatnonzero(np.bincount(S.indices, minlength=S.shape[1]))
    return scipy.sparse.csr_array(S[:, used])


def _diagonal_blocks(matrix: scipy.sparse.csr_array, at: slice, q: int) -> Matrix:
    """The q x q blocks on the diagonal of a block-diagonal matrix, for rows ``at``: (b, q, q)."""
    first, last = matrix.indptr[at.start], matrix.indptr[at.stop]
    counts = np.diff(matrix.indptr[at.start : at.stop + 1])
    rows = np.repeat(np.arange(at.stop - at.start), counts)
    columns = (matrix.indices[first:last] - at.start) % q
    out = np.zeros(((at.stop - at.start), q))
    out[rows, columns] = matrix.data[first:last]
    return out.reshape(-1, q, q)


def _together(
    connected: ConnectedBlocks, chosen: NDArray[np.bool_] | None = None
) -> Iterator[Positions]:
    """Rows of the blocks: (b, s) for small ones of one size together, (s,) for a larger one."""
    which = np.arange(len(connected.sizes)) if chosen is None else np.flatnonzero(chosen)
    which = which[np.argsort(connected.sizes[which], kind="stable")]
    sizes = connected.sizes[which]
    n_small = int(np.searchsorted(sizes, _SMALL, side="right"))
    start = 0
    while start < n_small:
        s = int(sizes[start])
        stop = int(np.searchsorted(sizes, s, side="right"))
        step = max(1, _BATCH // s**2)
        for first in range(start, stop, step):
            blocks = which[first : min(first + step, stop)]
            yield connected.order[connected.starts[blocks][:, None] + np.arange(s)]
        start = stop
    for block in which[n_small:]:
        yield connected.rows(int(block))


def _forward(root: Matrix, x: Matrix) -> Matrix:
    """``L^-1 x`` for many small L at once, shapes (b, s, s) and (b, s, m)."""
    out = np.empty_like(x)
    for i in range(root.shape[1]):
        known = np.matmul(root[:, i, None, :i], out[:, :i])[:, 0]
        out[:, i] = (x[:, i] - known) / root[:, i, i, None]
    return out


def _cubes(sizes: NDArray[np.intp]) -> float:
    return float((sizes.astype(np.float64) ** 3).sum())


def _announce(
    n_bytes: float,
    operations: float,
    max_gb: float,
    what: str,
    instead: str,
) -> None:
    """Refuse what does not fit, and say beforehand what takes long."""
    refuse_above(n_bytes, max_gb, what, instead)
    if operations > _LARGE:
        warn(
            f"{what} take{'' if what.endswith('they') else 's'} {size_text(n_bytes)}; all blocks "
            f"together need about {operations:.1e} floating-point operations. {instead}",
            CostWarning,
        )
