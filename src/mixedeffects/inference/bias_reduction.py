"""The adjustment of CR2: what each cluster contributes, without a matrix of the cluster's size.

For a cluster with covariance ``Phi``, columns ``X`` scaled so that ``X'V^-1X = I`` over all
clusters, and residuals ``e`` with covariance ``B = Phi - X X'``, the adjustment is the symmetric A
with ``A B A = Phi`` on the range of B (Pustejovsky and Tipton 2018),

    A = S (S B S)^(+1/2) S,    S = Phi^(1/2)     ((.)^(+1/2): root of the pseudo-inverse)

Where R is ``r I``, every vector outside the span of ``[X Z]`` is an eigenvector of Phi and B with
eigenvalue r, and A leaves it alone. So rows can be rotated, ``Q'[X Z e]`` with Q orthogonal, and
all but ``p + q`` of the rotated ones dropped: what is left is the triangular factor of ``[X Z e]``.
The same holds within any set of rows with one residual variance and one level of each factor.
Where residuals are correlated no rows are dropped: A is not the same on whitened rows.

With ``Phi = E diag(l) E'``, ``h = diag(l)^(-1/2) E'X`` and the singular value decomposition
``diag(l) (I - h h')^(1/2) = P s Q'`` (half the digits of S B S would be lost),

    F = A Phi^-1 X = E diag(l)^(1/2) P s^+ P' h
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.covariance.residual_matrix import ResidualMatrix
from mixedeffects.covariance.roots import covariance_root
from mixedeffects.errors import ModelError
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["bias_reduced"]

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]

#: ``1 - c^2`` below this means that the cluster alone determines a direction of the coefficients.
_DETERMINED = 1e-10
#: Numbers in the arrays of one batch.
_BATCH = 4_000_000
#: Numbers in one cluster's [X Z e] above which rows are combined first.
_LARGE = 20_000_000
#: Rows of one cluster that its matrix may have at most.
_MOST_ROWS = 8_000
#: The same where residuals are correlated.
_MOST_CORRELATED = 5_000
#: A triangular factor pays where it has so much fewer rows.
_WORTHWHILE = 1.25


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows as V sees them: columns, residual, level and z of each term, residual variance.

    And the cluster of each, and its number in the data; rotated rows have none.
    """

    X: Matrix
    e: Matrix
    z: list[Matrix]
    codes: list[Integers]
    r: Matrix
    cluster: Integers
    number: Integers

    def take(self, rows: NDArray[np.intp]) -> _Rows:
        return _Rows(
            self.X[rows],
            self.e[rows],
            [z[rows] for z in self.z],
            [codes[rows] for codes in self.codes],
            self.r[rows],
            self.cluster[rows],
            self.number[rows],
        )


def bias_reduced(
    terms: Sequence[RandomTerm],
    blocks: Sequence[Matrix],
    R: ResidualMatrix,
    X: Matrix,
    e: Matrix,
    clusters: Integers,
    labels: Sequence[str],
) -> tuple[Matrix, Matrix, Matrix]:
    """Scores and the moments of their weights, for every cluster.

    Parameters
    ----------
    terms, blocks : sequences
        The random effects and their covariance matrices.
    R : ResidualMatrix
        Covariance matrix of the residual errors, zero between clusters.
    X : ndarray, shape (n, p)
        Columns with ``X'V^-1X = I``.
    e : ndarray, shape (n,)
        Marginal residuals.
    clusters : ndarray, shape (n,)
        Number of each row's cluster, 0 to J - 1; V must be zero between clusters.
    labels : sequence of str
        Names of the clusters, for messages.

    Returns
    -------
    scores : ndarray, shape (J, p)
        ``F'e`` with ``F = A Phi^-1 X``.
    U, T : ndarray, shape (J, p, p)
        ``X'F`` and ``F'Phi F``.

    Raises
    ------
    ModelError
        If the matrix of a cluster would be too large.
    """
    roots = [covariance_root(G) for G in blocks]
    kept = [t for t, root in enumerate(roots) if root.shape[1]]
    order = np.argsort(clusters, kind="stable")
    rows = _Rows(
        X,
        e,
        [terms[t].z @ roots[t] for t in kept],
        [terms[t].codes.astype(np.int64) for t in kept],
        R.diagonal(),
        clusters,
        np.arange(len(X)),
    ).take(order)
    J, p = len(labels), X.shape[1]
    if R.groupings:
        return _correlated(rows, R, labels)
    levels = _LevelPositions(rows, [terms[t].n_levels for t in kept], J)
    rows = _combine_rows(rows, levels, J)
    sizes = np.bincount(rows.cluster, minlength=J)
    starts = np.cumsum(sizes) - sizes
    width = p + levels.width + 1
    constant = np.logical_and.reduceat(rows.r == rows.r[starts][rows.cluster], starts)
    factored = constant & (_WORTHWHILE * width < sizes)
    largest = int(np.argmax(np.where(factored, width, sizes)))
    if min(sizes[largest], width[largest] if factored[largest] else sizes[largest]) > _MOST_ROWS:
        raise ModelError(
            f"CR2 needs the eigenvectors of a matrix with {int(sizes[largest]):,} rows for cluster "
            f"{labels[largest]!r}, where prior weights or levels leave nothing to combine; the "
            f"limit is {_MOST_ROWS:,}. CR3, CR1S and CR0 need none."
        )
    scores, U, T = np.empty((J, p)), np.empty((J, p, p)), np.empty((J, p, p))
    for members in _batches(sizes, np.zeros_like(sizes), ~factored, square=True):
        out = _adjusted(*_whole(rows, members, starts, sizes))
        scores[members], U[members], T[members] = out
    for members in _batches(sizes, levels.width, factored, square=False):
        out = _adjusted(*_triangular(rows, levels, members, starts, sizes))
        scores[members], U[members], T[members] = out
    return scores, U, T


def _correlated(
    rows: _Rows, R: ResidualMatrix, labels: Sequence[str]
) -> tuple[Matrix, Matrix, Matrix]:
    """The same where residuals are correlated: with the whole matrix of each cluster."""
    J, p = len(labels), rows.X.shape[1]
    sizes = np.bincount(rows.cluster, minlength=J)
    starts = np.cumsum(sizes) - sizes
    largest = int(np.argmax(sizes))
    if sizes[largest] > _MOST_CORRELATED:
        raise ModelError(
            f"CR2 needs the eigenvectors of a matrix with {int(sizes[largest]):,} rows for cluster "
            f"{labels[largest]!r}, where residuals are correlated; the limit is "
            f"{_MOST_CORRELATED:,}. CR3, CR1S and CR0 need none."
        )
    scores, U, T = np.empty((J, p)), np.empty((J, p, p)), np.empty((J, p, p))
    for m in np.unique(sizes).tolist():
        every = np.flatnonzero(sizes == m)
        most = max(1, _BATCH // (m * m))
        for start in range(0, len(every), most):
            members = every[start : start + most]
            own = starts[members][:, None] + np.arange(m)
            Phi = np.zeros((len(members), m, m))
            R.add_blocks(rows.number[own], Phi)
            for z, codes in zip(rows.z, rows.codes, strict=True):
                level = codes[own]
                same = level[:, :, None] == level[:, None, :]
                Phi += np.where(same, z[own] @ z[own].transpose(0, 2, 1), 0.0)
            out = _adjusted(rows.X[own], rows.e[own], Phi)
            scores[members], U[members], T[members] = out
    return scores, U, T


class _LevelPositions:
    """Where the random effects of each level stand among those of its cluster."""

    def __init__(self, rows: _Rows, n_levels: Sequence[int], J: int) -> None:
        #: Number of random effects of each cluster.
        self.width = np.zeros(J, dtype=np.int64)
        #: First column of each level of each term.
        self.first: list[Integers] = []
        for z, codes, L in zip(rows.z, rows.codes, n_levels, strict=True):
            owner = np.zeros(L, dtype=np.int64)
            owner[codes] = rows.cluster
            used = np.zeros(L, dtype=bool)
            used[codes] = True
            owner[~used] = J
            order = np.argsort(owner, kind="stable")
            counts = np.bincount(owner, minlength=J + 1)
            position = np.empty(L, dtype=np.int64)
            position[order] = np.arange(L) - np.repeat(np.cumsum(counts) - counts, counts)
            k = z.shape[1]
            self.first.append(k * position + np.append(self.width, 0)[owner])
            self.width += k * counts[:J]


def _combine_rows(rows: _Rows, levels: _LevelPositions, J: int) -> _Rows:
    """Rotate the rows that share all levels and the weight, in clusters too large as they are."""
    p = rows.X.shape[1]
    sizes = np.bincount(rows.cluster, minlength=J)
    starts = np.cumsum(sizes) - sizes
    constant = np.logical_and.reduceat(rows.r == rows.r[starts][rows.cluster], starts)
    few = 1 + p + sum(z.shape[1] for z in rows.z)
    large = np.where(constant, sizes * (p + levels.width + 1) > _LARGE, sizes > 4 * few)
    if not large.any():
        return rows
    chosen = np.flatnonzero(large[rows.cluster])
    _, weight = np.unique(rows.r[chosen], return_inverse=True)
    keys = np.column_stack([rows.cluster[chosen], *(c[chosen] for c in rows.codes), weight])
    order = np.lexsort(keys.T[::-1])
    keys, chosen = keys[order], chosen[order]
    starts = np.flatnonzero((np.diff(keys, axis=0, prepend=-1) != 0).any(axis=1))
    counts = np.diff(starts, append=len(keys))
    many = counts > few
    if not many.any():
        return rows
    alone = chosen[~np.repeat(many, counts)]
    parts = [rows.take(np.concatenate([np.flatnonzero(~large[rows.cluster]), alone]))]
    widths = np.cumsum([p, *(z.shape[1] for z in rows.z)])
    for start, count in zip(starts[many], counts[many], strict=True):
        own = rows.take(chosen[start : start + count])
        R = _triangular_factor(np.column_stack([own.X, *own.z, own.e]))
        z = [R[:, a:b] for a, b in itertools.pairwise(widths)]
        first = own.take(np.zeros(len(R), dtype=np.intp))
        parts.append(
            _Rows(R[:, :p], R[:, -1], z, first.codes, first.r, first.cluster, first.number)
        )
    merged = _Rows(
        np.concatenate([part.X for part in parts]),
        np.concatenate([part.e for part in parts]),
        [np.concatenate([part.z[t] for part in parts]) for t in range(len(rows.z))],
        [np.concatenate([part.codes[t] for part in parts]) for t in range(len(rows.z))],
        np.concatenate([part.r for part in parts]),
        np.concatenate([part.cluster for part in parts]),
        np.concatenate([part.number for part in parts]),
    )
    return merged.take(np.argsort(merged.cluster, kind="stable"))


def _triangular_factor(K: Matrix) -> Matrix:
    return np.asarray(np.linalg.qr(K, mode="r"))


def _rounded(size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sizes rounded up by at most a quarter, so that few different ones are left."""
    step = 2 ** np.maximum(np.floor(np.log2(np.maximum(size, 1))).astype(np.int64) - 2, 0)
    return np.asarray(-(-size // step) * step)


def _batches(
    sizes: Integers, width: Integers, chosen: NDArray[np.bool_], square: bool
) -> Iterator[NDArray[np.intp]]:
    """Clusters of nearly one shape, as many at a time as memory allows."""
    candidates = np.flatnonzero(chosen)
    if not len(candidates):
        return
    shape = np.column_stack([_rounded(sizes[candidates]), _rounded(width[candidates])])
    order = np.lexsort(shape.T)
    shape, candidates = shape[order], candidates[order]
    changes = np.flatnonzero((np.diff(shape, axis=0) != 0).any(axis=1)) + 1
    for group in np.split(np.arange(len(candidates)), changes):
        m, q = shape[group[0]]
        most = max(1, int(_BATCH // (m * m if square else m * (q + 8))))
        for start in range(0, len(group), most):
            yield candidates[group[start : start + most]]


def _positions(
    members: NDArray[np.intp], starts: Integers, sizes: Integers
) -> tuple[NDArray[np.intp], Integers, Integers]:
    """Rows of the clusters, and for each the cluster's place in the batch and its own in it."""
    n = sizes[members]
    batch = np.repeat(np.arange(len(members)), n)
    within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    return np.asarray(starts[members][batch] + within, dtype=np.intp), batch, within


def _whole(
    rows: _Rows, members: NDArray[np.intp], starts: Integers, sizes: Integers
) -> tuple[Matrix, Matrix, Matrix]:
    """X, e and Phi of each cluster, row by row.

    Clusters are filled up with rows of zeros and variance one, which are independent of the others
    and contribute nothing.
    """
    where, batch, within = _positions(members, starts, sizes)
    b, m = len(members), int(_rounded(sizes[members]).max())
    X, e = np.zeros((b, m, rows.X.shape[1])), np.zeros((b, m))
    X[batch, within], e[batch, within] = rows.X[where], rows.e[where]
    Phi = np.zeros((b, m, m))
    diagonal = np.full((b, m), rows.r[where].mean())
    diagonal[batch, within] = rows.r[where]
    Phi[:, np.arange(m), np.arange(m)] = diagonal
    for z, codes in zip(rows.z, rows.codes, strict=True):
        Z, level = np.zeros((b, m, z.shape[1])), np.full((b, m), -1)
        Z[batch, within], level[batch, within] = z[where], codes[where]
        Phi += np.where(level[:, :, None] == level[:, None, :], Z @ Z.transpose(0, 2, 1), 0.0)
    return X, e, Phi


def _triangular(
    rows: _Rows,
    levels: _LevelPositions,
    members: NDArray[np.intp],
    starts: Integers,
    sizes: Integers,
) -> tuple[Matrix, Matrix, Matrix]:
    """X, e and Phi of each cluster in p + q dimensions, from the triangular factor of [X Z e]."""
    where, batch, within = _positions(members, starts, sizes)
    p = rows.X.shape[1]
    b, q = len(members), int(_rounded(levels.width[members]).max())
    m = max(int(_rounded(sizes[members]).max()), p + q + 1)
    K = np.zeros((b, m, p + q + 1))
    K[batch, within, :p], K[batch, within, -1] = rows.X[where], rows.e[where]
    for z, codes, first in zip(rows.z, rows.codes, levels.first, strict=True):
        column = p + first[codes[where]]
        for a in range(z.shape[1]):
            K[batch, within, column + a] = z[where, a]
    R = _triangular_factor(K)[:, : p + q]
    Z = R[:, :, p : p + q]
    Phi = Z @ Z.transpose(0, 2, 1)
    diagonal = np.arange(p + q)
    Phi[:, diagonal, diagonal] += rows.r[starts[members]][:, None]
    return R[:, :, :p], R[:, :, -1], Phi


def _adjusted(X: Matrix, e: Matrix, Phi: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """``F'e``, ``X'F`` and ``F'Phi F`` of a batch of clusters, shapes (b, m, p), (b, m), (b, m, m).

    Directions are ordered by decreasing eigenvalue, for which the decomposition of a matrix with
    rows of very different sizes is accurate.
    """
    values, vectors = np.linalg.eigh(Phi)
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    if not (values[:, -1] > 0.0).all():
        raise ModelError(
            "The covariance matrix of a cluster is singular to rounding: variances or weights "
            "within it differ by more than numbers of 64 bits can tell. Use CR0 or CR1, or leave "
            "rows of next to no weight out."
        )
    root = np.sqrt(values)[:, :, None]
    x = vectors.transpose(0, 2, 1) @ X
    h = x / root
    c2, Q = np.linalg.eigh(h.transpose(0, 2, 1) @ h)
    rest = 1.0 - c2
    determined = rest < _DETERMINED
    rest = np.where(determined, 0.0, rest)
    hQ = h @ Q
    # (I - h h')^(1/2) = I - h Q diag(1 / (1 + sqrt(1 - c^2))) Q'h'
    half = -(hQ / (1.0 + np.sqrt(rest))[:, None, :]) @ hQ.transpose(0, 2, 1)
    m = np.arange(X.shape[1])
    half[:, m, m] += 1.0
    P, s, _ = np.linalg.svd(values[:, :, None] * half)
    # As many singular values are zero as directions are determined; they come last.
    null = m >= len(m) - determined.sum(axis=1)[:, None]
    inverse = np.where(null, 0.0, 1.0 / np.where(null, 1.0, s))
    f = root * (P @ (inverse[:, :, None] * (P.transpose(0, 2, 1) @ h)))
    epsilon = np.einsum("bmi,bm->bi", vectors, e)
    scores = np.einsum("bip,bi->bp", f, epsilon)
    U = x.transpose(0, 2, 1) @ f
    return scores, U, (f * values[:, :, None]).transpose(0, 2, 1) @ f
