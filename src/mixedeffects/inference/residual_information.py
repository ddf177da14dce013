"""Information about the parameters of V where residuals are correlated, block by block.

With ``U S U' = I`` and ``L L' = U V0 U'`` of one connected block of V, ``B = L^-1 U`` whitens its
rows, and each direction K_r of V becomes ``W_r = B K_r B'``:

    X'V^-1K_rV^-1X = x'W_r x,    X'V^-1K_rV^-1K_sV^-1X = (W_r x)'(W_s x),    x = B X,
    tr(V^-1K_rV^-1K_s) = <W_r, W_s>

For a term K_r is ``z E_r z'`` within its levels; for the residuals the derivative S_r of S, with
``U S_r U' = -(U_r U^-1 + transpose)``. Blocks of one size are worked on together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import NDArray

from mixedeffects.covariance.sizes import refuse_beyond_memory
from mixedeffects.engine.parameters import symmetric_directions
from mixedeffects.engine.residual_objective import ResidualEvaluation
from mixedeffects.engine.residual_rows import ResidualRows
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.information_parts import InformationParts

__all__ = ["residual_information_parts"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]

#: Rows of a connected block of V that dense matrices are made of at most.
_MOST_ROWS = 5_000
#: Numbers in the arrays of one batch.
_BATCH = 4_000_000


def residual_information_parts(
    fit: Fit, most_rows: int = _MOST_ROWS
) -> tuple[InformationParts, list[tuple[int, Matrix]]]:
    """Products of V's directions, those of the residuals last; and each term's directions.

    Parameters
    ----------
    fit : Fit
        With correlated residuals, or several variances of them.
    most_rows : int
        Rows that a connected block of V may have.

    Raises
    ------
    ModelError
        If one has more, or the matrices would not fit into memory.
    """
    residual = fit.residual
    assert residual is not None
    rows, T = residual.design, fit.optimum.T
    free = fit.optimum.variance_directions
    members: list[tuple[int, Matrix]] = []
    for t, columns in enumerate(rows.term_columns):
        own = None if free is None else free[t]
        members.append((t, symmetric_directions(columns) if own is None else own))
    blocks = _connected_blocks(rows)
    n_directions = sum(len(own) for _, own in members) + len(residual.phi)
    _check_size(fit, blocks[-1], n_directions, most_rows)
    p, m = rows.p, n_directions
    precision, first = np.zeros((p, p)), np.zeros((m, p, p))
    second, traces, trace = np.zeros((m * p, m * p)), np.zeros((m, m)), np.zeros(m)
    for x, W in _whitened(residual, T, members, blocks):
        count = W.shape[1] * W.shape[2]
        flat = x.reshape(count, p)
        precision += flat.T @ flat
        Wx = (W @ x).reshape(m, count, p)
        first += flat.T @ Wx
        along = Wx.transpose(1, 0, 2).reshape(count, m * p)
        second += along.T @ along
        entries = W.reshape(m, count * W.shape[3])
        traces += entries @ entries.T
        trace += np.einsum("rbii->r", W)
    Phi = scipy.linalg.inv(precision)
    of_terms = [t for t, own in members for _ in own]
    owners = (*of_terms, *(len(members) + j for j in range(len(residual.phi))))
    return (
        InformationParts(
            0.5 * (Phi + Phi.T),
            0.5 * (first + first.transpose(0, 2, 1)),
            np.ascontiguousarray(second.reshape(m, p, m, p).transpose(0, 2, 1, 3)),
            traces,
            trace,
            rows.n,
            owners,
        ),
        members,
    )


def _connected_blocks(rows: ResidualRows) -> list[Positions]:
    """Places in the series of the rows of each connected block of V, (blocks, m), by size m."""
    n, model = rows.n, rows.model
    codes = [np.cumsum(model.is_first) - 1] if model.families else []
    codes += [term.codes.astype(np.int64) for term in rows.terms]
    label: Positions = np.arange(n)
    if codes:
        starts = np.cumsum([0, *[int(own.max()) + 1 for own in codes]])
        nodes = np.concatenate([own + start for own, start in zip(codes, starts, strict=False)])
        edges = (np.ones(len(nodes)), (np.tile(np.arange(n), len(codes)), n + nodes))
        size = n + int(starts[-1])
        graph = scipy.sparse.coo_array(edges, shape=(size, size))
        _, found = scipy.sparse.csgraph.connected_components(graph, directed=False)
        label = np.unique(found[:n], return_inverse=True)[1]
    order = np.argsort(label, kind="stable")
    sizes = np.bincount(label)
    ends = np.cumsum(sizes)
    out = []
    for m in np.unique(sizes).tolist():
        own = np.flatnonzero(sizes == m)
        out.append(np.asarray(order[(ends[own] - m)[:, None] + np.arange(m)], dtype=np.intp))
    return out


def _check_size(fit: Fit, largest: Positions, n_directions: int, most_rows: int) -> None:
    """Refuse what would take too long or too much memory."""
    m = largest.shape[1]
    if m > most_rows:
        raise ModelError(
            f"Kenward-Roger's method needs matrices with a row for each row of a connected block "
            f"of V where residuals are correlated or of several variances, and {_named(fit)} "
            f"{m:,} rows in one block; the limit is {most_rows:,}. Satterthwaite's method needs "
            "none."
        )
    refuse_beyond_memory(
        8.0 * (n_directions + 6.0) * m**2,
        f"Kenward-Roger's method for a connected block of V with {m:,} rows",
        "Satterthwaite's method needs no such matrices.",
    )


def _named(fit: Fit) -> str:
    """What holds the rows of a block together, and its verb."""
    names = [term.group for term in fit.frame.terms]
    if fit.frame.residual is not None:
        names.append(fit.frame.residual.group)
    distinct = [f"`{name}`" for name in dict.fromkeys(names)]
    if len(distinct) == 1:
        return f"{distinct[0]} has"
    return f"{', '.join(distinct[:-1])} and {distinct[-1]} together have"


def _whitened(
    residual: ResidualEvaluation,
    T: Sequence[Matrix],
    members: Sequence[tuple[int, Matrix]],
    blocks: Sequence[Positions],
) -> Iterator[tuple[Matrix, Matrix]]:
    """For batches of blocks x (b, m, p), and W (r, b, m, m) along all directions."""
    rows, whitening = residual.design, residual.model.at(residual.phi)
    X = rows.border[:, : rows.p]
    of_phi = [whitening.derivative(j) for j in range(len(residual.phi))]
    n_directions = sum(len(own) for _, own in members) + len(of_phi)
    place = np.empty(rows.n, dtype=np.intp)
    for every in blocks:
        m = every.shape[1]
        step = max(1, _BATCH // ((n_directions + 6) * m * m))
        for start in range(0, len(every), step):
            own = every[start : start + step]
            place[own] = np.arange(m)
            U = _dense(whitening.U, own, place)
            x = U @ X[own]
            W = np.empty((n_directions, *U.shape))
            changed = W[n_directions - len(of_phi) :]
            inverse = np.linalg.inv(U)
            for out, U_r in zip(changed, of_phi, strict=True):
                half = _dense(U_r, own, place) @ inverse
                out[:] = -(half + half.transpose(0, 2, 1))
            if rows.terms:
                V = np.zeros(U.shape)
                V[:, np.arange(m), np.arange(m)] = 1.0
                for term, factor in zip(rows.terms, T, strict=True):
                    z = term.z[own] @ factor
                    same = term.codes[own][:, :, None] == term.codes[own][:, None, :]
                    V += U @ (same * (z @ z.transpose(0, 2, 1))) @ U.transpose(0, 2, 1)
                root = np.linalg.inv(np.linalg.cholesky(V))
                x = root @ x
                changed[:] = root @ changed @ root.transpose(0, 2, 1)
                B = root @ U
                r = 0
                for t, directions in members:
                    term = rows.terms[t]
                    z = term.z[own]
                    same = term.codes[own][:, :, None] == term.codes[own][:, None, :]
                    for E in directions:
                        W[r] = B @ (same * (z @ E @ z.transpose(0, 2, 1))) @ B.transpose(0, 2, 1)
                        r += 1
            yield x, W


def _dense(matrix: scipy.sparse.csr_array, own: Positions, place: Positions) -> Matrix:
    """The entries of a sparse matrix within blocks (b, m), as arrays (b, m, m)."""
    b, m = own.shape
    part = matrix[own.ravel()]
    within = scipy.sparse.csr_array((part.data, place[part.indices], part.indptr), (b * m, m))
    return np.asarray(within.toarray().reshape(b, m, m))
