"""V for a picture of any size: its entries, or the exact means over squares of cells.

With B the n x bins matrix that adds up the rows of each bin, the sums over all squares are

    B'V B = sum over terms of (B'Z_t) (I (x) G_t) (B'Z_t)' + B'R B

and ``B'Z_t`` has at most as many entries as Z_t, so V is never formed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.covariance.entries import diagonal, small_blocks
from mixedeffects.covariance.groups import contiguous_spans, find_factor
from mixedeffects.covariance.residual_matrix import ResidualMatrix
from mixedeffects.covariance.structure import CovarianceStructure
from mixedeffects.display import plots
from mixedeffects.display.lettering import Name, short
from mixedeffects.display.vocabulary import squared_units

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mixedeffects.covariance.operator import CovarianceOperator

__all__ = ["PictureOfV", "plot_V"]

Matrix = NDArray[np.float64]

#: Share of nonzeros above which a dense product is faster than a sparse one.
_DENSE = 0.1
#: Columns multiplied by R at once.
_STRIP = 64
#: Blocks up to this many rows are drawn with the data's row labels.
_LABELLED = 1200
#: Sorted by a factor, so many levels may be named; the picture leaves out what has no room.
_NAMED = 10_000


class PictureOfV:
    """Rows of V as the pictures need them.

    Parameters
    ----------
    V : CovarianceStructure
        What to draw.
    rows : ndarray of intp, optional
        Which rows, in which order; by default all.
    scale : ndarray, shape (len(rows),), optional
        Row and column factors, for correlations.
    """

    def __init__(
        self,
        V: CovarianceStructure,
        rows: NDArray[np.intp] | None = None,
        scale: Matrix | None = None,
    ) -> None:
        self._V = V
        self._rows = np.arange(V.n) if rows is None else rows
        self._scale = np.ones(len(self._rows)) if scale is None else scale

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, rows)."""
        return len(self._rows), len(self._rows)

    def diagonal(self) -> Matrix:
        """The diagonal, shape (rows,)."""
        return np.asarray(diagonal(self._V)[self._rows] * self._scale**2)

    def correlations(self) -> PictureOfV:
        """The correlation matrix of the same rows."""
        scale = self._scale / np.sqrt(self.diagonal())
        return PictureOfV(self._V, self._rows, scale)

    def dense(self) -> Matrix:
        """All entries, rows x rows."""
        values = small_blocks(self._V, self._rows)
        return np.asarray(self._scale[:, None] * values * self._scale)

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
        out = self._residual_sums(bins, len(counts))
        for term, G in self._V.random():
            n_levels, k = term.n_levels, term.n_columns
            z = term.z[self._rows] * self._scale[:, None]
            columns = term.codes[self._rows].astype(np.int64)[:, None] * k + np.arange(k)
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

    def _residual_sums(self, bins: NDArray[np.intp], m: int) -> Matrix:
        """``B'R B`` of the scaled R, for bins 0 to m - 1."""
        bin_of = np.full(self._V.n, -1)
        bin_of[self._rows] = bins
        scale_of = np.zeros(self._V.n)
        scale_of[self._rows] = self._scale
        R = self._V.R
        n_entries = sum(
            float((np.bincount(grouping.codes).astype(np.float64) ** 2).sum())
            for grouping in R.groupings
        )
        if n_entries > R.n * max(m, _STRIP):
            return _sums_by_products(R, bin_of, scale_of, m)
        stored = R.sparse().tocoo()
        values = stored.data * scale_of[stored.row] * scale_of[stored.col]
        drawn = (bin_of[stored.row] >= 0) & (bin_of[stored.col] >= 0)
        at = bin_of[stored.row[drawn]] * m + bin_of[stored.col[drawn]]
        sums = np.bincount(at, values[drawn], m * m)
        return np.asarray(sums, dtype=np.float64).reshape(m, m)


def _sums_by_products(
    R: ResidualMatrix, bin_of: NDArray[np.intp], scale_of: Matrix, m: int
) -> Matrix:
    """``B'R B`` from products with columns of B, where R has more entries than B."""
    drawn = np.flatnonzero(bin_of >= 0)
    place = (bin_of[drawn], drawn)
    B = scipy.sparse.csr_array((scale_of[drawn], place), shape=(m, R.n))
    out = np.empty((m, m))
    for start in range(0, m, _STRIP):
        strip = slice(start, min(start + _STRIP, m))
        out[:, strip] = np.asarray(B @ R.times(np.ascontiguousarray(B[strip].toarray().T)))
    return out


def plot_V(
    V: CovarianceOperator, level: Any, by: str | None, ax: Any, options: dict[str, Any]
) -> Axes:
    """Picture of V or of one level's block; see `MarginalCovariance.plot`."""
    called = getattr(V, "_called", "")
    if options.get("kind") != "correlation":
        options.setdefault("units", squared_units(called))
    if level is not None:
        rows = V._rows.of_level(level, by)
        options.setdefault("title", Name(f"V of {short(_name(V, rows), 60)}"))
        if len(rows) > _LABELLED:
            return plots.covariance(PictureOfV(V._structure, rows), ax=ax, **options)
        return plots.covariance(V.block(level, by), ax=ax, **options)
    if by is None:
        rows = np.arange(len(V._rows))
        options.setdefault("title", f"V, {called or 'marginal covariance of the response'}")
        factors = V._structure.terms or V._structure.factors
        if factors:
            term = factors[-1]
            options.setdefault("groups", contiguous_spans(term, term.codes))
    else:
        term = find_factor(V._structure.factors, by)
        rows = np.argsort(term.codes, kind="stable")
        options.setdefault("title", Name(f"V, rows sorted by {short(term.group, 60)}"))
        options.setdefault("groups", contiguous_spans(term, term.codes[rows], most=_NAMED))
    return plots.covariance(PictureOfV(V._structure, rows), ax=ax, **options)


def _name(V: CovarianceOperator, rows: NDArray[np.intp]) -> str:
    """The factor and level whose rows these are."""
    for term in V._structure.factors:
        code = term.codes[rows[0]]
        if np.array_equal(np.flatnonzero(term.codes == code), rows):
            return f"{term.group} {term.levels[code]}"
    raise AssertionError("rows of no level")
