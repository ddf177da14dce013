"""Few rows in place of all: with the same cross-products in every cell of some columns.

In a cell, the rows that share the values of some columns, let ``C`` be the columns of the design.
Any R with ``R'R = C'WC`` may stand for these rows wherever only products within cells matter: R is
``C`` times a rotation of the rows, and less rows of zeros. So it does for V, which is diagonal
within a cell beside what its levels share, and for all that is computed from V and cross-products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.errors import DataError, ModelError
from mixedeffects.lazy.design import present
from mixedeffects.lazy.expressions import count_where
from mixedeffects.lazy.model import LazyModel
from mixedeffects.lazy.sums import ProductQueries, all_products, symmetric_products

__all__ = ["CellRows", "cell_rows"]

Matrix = NDArray[np.float64]

#: Pivot of a cell's cross-products, relative to the column's own, that is rounding.
_ROUNDING = 1e-14


@dataclass(frozen=True, eq=False)
class CellRows:
    """Rows that stand for those of each cell.

    Attributes
    ----------
    keys : DataFrame, m rows
        The columns whose combinations are the cells, under their names.
    columns : ndarray, shape (m, M)
        The columns of the design, less centre and by scale; times the root of the weight, but where
        cells have one weight each.
    weights : ndarray, shape (m,), or None
        The weights, where cells have one each.
    counts : ndarray of int, shape (m,)
        Number of rows of the cell in its first row, nought in the others.
    sum_log_weights : ndarray, shape (m,)
        The same of the sum of the logarithms of their weights.
    """

    keys: pd.DataFrame
    columns: Matrix
    weights: Matrix | None
    counts: NDArray[np.int64]
    sum_log_weights: Matrix


def cell_rows(
    model: LazyModel, extra: Sequence[str], guard: tuple[int, float], *, by_weight: bool = False
) -> CellRows:
    """Rows that stand for all, in one pass over the table.

    Parameters
    ----------
    model : LazyModel
        The model; the columns of its grouping factors make cells.
    extra : sequence of str
        Further columns that do.
    guard : (int, float)
        Number of rows and sum of the response that the fit had.
    by_weight : bool
        Whether rows of one cell must have one weight: where not only products matter, but how much
        single rows vary.

    Raises
    ------
    DataError
        If one of these is no column, or has missing values in the rows used.
    """
    names = tuple(dict.fromkeys([*model.key_names, *extra]))
    _check_extra(model, [name for name in names if name not in model.key_names])
    m = len(model.design.keys)
    everything = all_products(m)
    what = f"cells of {', '.join(names)}"
    queries = ProductQueries(model, guard)
    table = queries.sums(names, everything, what, by_weight=by_weight)
    roots, counts = _roots(symmetric_products(table, everything, m), table["rows"].to_numpy())
    cell = np.repeat(np.arange(len(table)), counts)
    keys = pd.DataFrame({name: table[f"k{i}"] for i, name in enumerate(names)})
    weights = None
    if "w" in table:
        weights = table["w"].to_numpy(dtype=np.float64)[cell]
        roots = roots / np.sqrt(weights)[:, None]
    first = np.cumsum(counts) - counts
    rows, log_weights = np.zeros(len(cell), dtype=np.int64), np.zeros(len(cell))
    rows[first] = table["rows"].to_numpy()
    if "logw" in table:
        log_weights[first] = table["logw"].to_numpy(dtype=np.float64)
    keys = keys.iloc[cell].reset_index(drop=True)
    return CellRows(keys, roots, weights, rows, log_weights)


def _check_extra(model: LazyModel, names: Sequence[str]) -> None:
    table = model.table
    for name in names:
        if name not in table.schema:
            table.kind(name)
        missing = count_where(~present(table, name))
        query = table.frame.filter(model.complete).select(missing.alias("n"))
        count = int(table.run(query, f"missing values of {name}")["n"].iloc[0])
        if count:
            raise DataError(
                f"The column {name!r} has {count} missing values in the rows used, and clusters "
                "need a value. Drop these rows before the fit, or give them clusters of their own."
            )


def _roots(products: Matrix, rows: NDArray[np.int64]) -> tuple[Matrix, NDArray[np.intp]]:
    """Rows with these cross-products (c, M, M), cell after cell, and how many each has.

    Cholesky factors of all cells at once; what depends on earlier columns has a row of zeros,
    which is left out.
    """
    c, m, _ = products.shape
    left = products.copy()
    roots = np.zeros((c, m, m))
    own = np.einsum("cmm->cm", products).copy()
    for j in range(m):
        pivot = left[:, j, j]
        good = pivot > _ROUNDING * np.maximum(own[:, j], np.finfo(np.float64).tiny)
        row = np.where(good[:, None], left[:, j, :], 0.0)
        row /= np.sqrt(np.where(good, pivot, 1.0))[:, None]
        row[:, :j] = 0.0
        roots[:, j] = row
        left -= row[:, :, None] * row[:, None, :]
    kept = roots.any(axis=2)
    # As many rows as a cell has are enough; rounding may have left another.
    rank = np.cumsum(kept, axis=1)
    kept &= rank <= rows[:, None]
    if not kept.any():
        raise ModelError("The table has no rows left.")
    return roots[kept], kept.sum(axis=1)
