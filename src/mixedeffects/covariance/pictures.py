"""V for a picture of any size: its entries, or the exact means over squares of cells.

With B the n x bins matrix that adds up the rows of each bin, the sums over all squares are

    B'V B = sum over terms of (B'Z_t) (I (x) G_t) (B'Z_t)' + B'R B

and ``B'Z_t`` has at most as many entries as Z_t, so V is never formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.covariance.groups import contiguous_spans, find_factor
from mixedeffects.frame.model_frame import RandomTerm

if TYPE_CHECKING:
    from mixedeffects.covariance.marginal import MarginalCovariance

__all__ = ["PictureOfV", "plot_V"]

Matrix = NDArray[np.float64]

#: Share of nonzeros above which a dense product is faster than a sparse one.
_DENSE = 0.1
#: Blocks up to this many rows are drawn with the data's row labels.
_LABELLED = 1200
#: Sorted by a factor, so many levels may be named; the picture leaves out what has no room.
_NAMED = 10_000


class PictureOfV:
    """Rows of V as the pictures need them.

    Parameters
    ----------
    terms : sequence of RandomTerm
        Codes and columns of the random effects.
    G : sequence of ndarray (k, k)
        Covariance matrix of each term's effects.
    residual_variance : ndarray, shape (n,)
        The diagonal of R.
    rows : ndarray of intp, optional
        Which rows, in which order; by default all.
    scale : ndarray, shape (len(rows),), optional
        Row and column factors, for correlations.
    """

    def __init__(
        self,
        terms: Sequence[RandomTerm],
        G: Sequence[Matrix],
        residual_variance: Matrix,
        rows: NDArray[np.intp] | None = None,
        scale: Matrix | None = None,
    ) -> None:
        self._terms, self._G, self._residual_variance = terms, G, residual_variance
        self._rows = np.arange(len(residual_variance)) if rows is None else rows
        self._scale = np.ones(len(self._rows)) if scale is None else scale

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, rows)."""
        return len(self._rows), len(self._rows)

    def _parts(self) -> list[tuple[NDArray[np.int32], int, Matrix, Matrix]]:
        """Codes, number of levels, scaled columns and G of each term."""
        return [
            (term.codes[self._rows], term.n_levels, term.z[self._rows] * self._scale[:, None], G)
            for term, G in zip(self._terms, self._G, strict=True)
        ]

    def diagonal(self) -> Matrix:
        """The diagonal, shape (rows,)."""
        out: Matrix = self._residual_variance[self._rows] * self._scale**2
        for _, _, z, G in self._parts():
            out = out + np.einsum("ia,ab,ib->i", z, G, z)
        return out

    def correlations(self) -> PictureOfV:
        """The correlation matrix of the same rows."""
        scale = self._scale / np.sqrt(self.diagonal())
        return PictureOfV(self._terms, self._G, self._residual_variance, self._rows, scale)

    def dense(self) -> Matrix:
        """All entries, rows x rows."""
        out = np.diag(self._residual_variance[self._rows] * self._scale**2)
        for codes, _, z, G in self._parts():
            out += np.where(codes[:, None] == codes[None, :], z @ G @ z.T, 0.0)
        return out

    def block_means(self, size: int) -> Matrix:
        """Means over squares of ``size`` x ``size`` cells; those at the far edges may be smaller.

        Parameters
        ----------
        size : int
            Rows and columns of a square.

        Returns
        -------
        ndarray, (ceil(rows / size), ceil(rows / size))
        """
        n = len(self._rows)
        bins = np.arange(n) // size
        counts = np.bincount(bins)
        out = np.diag(np.bincount(bins, self._residual_variance[self._rows] * self._scale**2))
        for codes, n_levels, z, G in self._parts():
            k = z.shape[1]
            columns = codes.astype(np.int64)[:, None] * k + np.arange(k)
            entries = (z.ravel(), (np.repeat(bins, k), columns.ravel()))
            sums: Any = scipy.sparse.csr_array(
                scipy.sparse.coo_array(entries, shape=(len(counts), n_levels * k))
            )
            if sums.nnz > _DENSE * sums.shape[0] * sums.shape[1]:
                dense = sums.toarray()
                times_G = (dense.reshape(-1, n_levels, k) @ G).reshape(dense.shape)
                out += times_G @ dense.T
            else:
                repeated: Any = scipy.sparse.kron(scipy.sparse.eye_array(n_levels), G, "csr")
                out += (sums @ repeated @ sums.T).toarray()
        return np.asarray(out / np.outer(counts, counts))


def plot_V(
    V: MarginalCovariance, level: Any, by: str | None, ax: Any, options: dict[str, Any]
) -> Any:
    """Picture of V or of one level's block; see `MarginalCovariance.plot`."""
    from mixedeffects.display import plots
    from mixedeffects.display.lettering import Name, short

    if options.get("kind") != "correlation":
        options.setdefault("units", "response units²")
    if level is not None:
        rows = V._level_rows(level, by)
        options.setdefault("title", Name(f"V of {short(_name(V, rows), 60)}"))
        if len(rows) > _LABELLED:
            return plots.covariance(V._as_picture(rows), ax=ax, **options)
        return plots.covariance(V.block(level, by), ax=ax, **options)
    if by is None:
        term, rows = V._terms[-1], np.arange(len(V.index))
        options.setdefault("title", "V, marginal covariance of the response")
        options.setdefault("groups", contiguous_spans(term, term.codes))
    else:
        term = find_factor(V._terms, by)
        rows = np.argsort(term.codes, kind="stable")
        options.setdefault("title", Name(f"V, rows sorted by {short(term.group, 60)}"))
        options.setdefault("groups", contiguous_spans(term, term.codes[rows], most=_NAMED))
    return plots.covariance(V._as_picture(rows), ax=ax, **options)


def _name(V: MarginalCovariance, rows: NDArray[np.intp]) -> str:
    """The factor and level whose rows these are."""
    for term in V._terms:
        code = term.codes[rows[0]]
        if np.array_equal(np.flatnonzero(term.codes == code), rows):
            return f"{term.group} {term.levels[code]}"
    raise AssertionError("rows of no level")
