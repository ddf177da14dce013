"""Reducing a matrix of any size to the pixels of a picture, without making it dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["Binned", "bin_matrix"]


@dataclass(frozen=True, eq=False)
class Binned:
    """A matrix reduced to pixels, each standing for a rectangle of cells.

    Attributes
    ----------
    pixels : ndarray of float64, shape (ceil(n / cells[0]), ceil(m / cells[1]))
        One value per rectangle; the last row and column may stand for fewer cells.
    shape : tuple of int
        Rows n and columns m of the matrix itself.
    cells : tuple of int
        Rows and columns of the matrix per pixel; ``(1, 1)`` if nothing was reduced.
    shows : str
        What a pixel shows of its cells.
    """

    pixels: NDArray[np.float64]
    shape: tuple[int, int]
    cells: tuple[int, int]
    shows: str = "value of largest magnitude"

    @property
    def is_reduced(self) -> bool:
        """Whether a pixel stands for more than one cell."""
        return self.cells != (1, 1)


def bin_matrix(
    matrix: Any,
    max_rows: int,
    max_columns: int,
    kind: Literal["values", "pattern"] = "values",
) -> Binned:
    """Reduce a matrix to at most ``max_rows`` by ``max_columns`` pixels.

    Parameters
    ----------
    matrix : ndarray, scipy sparse array or `PictureOfV`, shape (n, m)
        The matrix; a sparse one costs memory for its nonzeros and for the pixels only.
    max_rows, max_columns : int
        Largest number of pixels in each direction.
    kind : {"values", "pattern"}
        ``"values"`` keeps, of each rectangle, the value of largest magnitude with its sign (the
        positive one of two equal magnitudes; NaN if there is one). ``"pattern"`` gives the share
        of its cells that are not zero. A `PictureOfV` gives the mean of the cells instead.

    Returns
    -------
    Binned
        The pixels and the number of cells that each stands for.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedeffects.display.binning import bin_matrix
    >>> binned = bin_matrix(np.array([[1.0, -5.0, 0.0], [2.0, 0.0, 0.0]]), 1, 2)
    >>> binned.pixels, binned.cells
    (array([[-5.,  0.]]), (2, 2))
    """
    n, m = matrix.shape
    cells = (-(-n // max_rows), -(-m // max_columns))
    if hasattr(matrix, "block_means"):
        size = max(cells)
        pixels = matrix.dense() if size == 1 else matrix.block_means(size)
        return Binned(pixels, (n, m), (size, size), "mean")
    if sparse.issparse(matrix):
        pixels = _bin_sparse(matrix, cells, kind)
    elif kind == "pattern":
        pixels = _reduce(np.add, (matrix != 0).astype(np.float64), cells)
    elif cells == (1, 1):
        pixels = np.array(matrix, dtype=np.float64)
    else:
        pixels = _larger_magnitude(
            _reduce(np.maximum, matrix, cells), _reduce(np.minimum, matrix, cells)
        )
    if kind == "pattern":
        pixels /= np.outer(_bin_sizes(n, cells[0]), _bin_sizes(m, cells[1]))
        return Binned(pixels, (n, m), cells, "share of nonzeros")
    return Binned(pixels, (n, m), cells)


def _bin_sparse(
    matrix: Any, cells: tuple[int, int], kind: Literal["values", "pattern"]
) -> NDArray[np.float64]:
    # Through CSR so that repeated entries are added up before they are compared.
    entries = sparse.coo_array(sparse.csr_array(matrix))
    values = np.asarray(entries.data, dtype=np.float64)
    shape = (-(-matrix.shape[0] // cells[0]), -(-matrix.shape[1] // cells[1]))
    pixel = entries.row // cells[0] * np.int64(shape[1]) + entries.col // cells[1]
    if kind == "pattern":
        counts = np.bincount(pixel[values != 0], minlength=shape[0] * shape[1])
        return counts.astype(np.float64).reshape(shape)
    # Starting from zero is right: a pixel without zeros has a larger magnitude on one side.
    highest, lowest = np.zeros(shape), np.zeros(shape)
    # NaN takes over its pixel, as it should, but not without a warning.
    with np.errstate(invalid="ignore"):
        np.maximum.at(highest.reshape(-1), pixel, values)
        np.minimum.at(lowest.reshape(-1), pixel, values)
    return _larger_magnitude(highest, lowest)


def _larger_magnitude(
    highest: NDArray[np.float64], lowest: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.where(np.abs(lowest) > np.abs(highest), lowest, highest)


def _reduce(
    operation: np.ufunc, matrix: NDArray[np.float64], cells: tuple[int, int]
) -> NDArray[np.float64]:
    rows = operation.reduceat(matrix, np.arange(0, matrix.shape[0], cells[0]), axis=0)
    reduced = operation.reduceat(rows, np.arange(0, matrix.shape[1], cells[1]), axis=1)
    return np.asarray(reduced, dtype=np.float64)


def _bin_sizes(length: int, size: int) -> NDArray[np.int64]:
    starts = np.arange(0, length, size)
    return np.diff(starts, append=length)
