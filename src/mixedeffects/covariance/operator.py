"""What V and each of its parts have in common: an n x n matrix ``Z G Z' + diagonal``, never formed.

A part is the same sum with fewer terms, so one class does the multiplying, cutting and converting
for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from mixedeffects.arrays import number_array, read_only
from mixedeffects.covariance.design import random_effects_matrix, z_times, z_transpose_times
from mixedeffects.covariance.groups import (
    find_factor,
    find_level,
    matching_levels,
    rows_of_levels,
)
from mixedeffects.covariance.random_effects import RandomEffectsCovariance
from mixedeffects.covariance.sizes import refuse_above
from mixedeffects.errors import DataError, ModelError
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.frame.row_labels import by_row_labels

__all__ = ["CovarianceOperator"]

Matrix = NDArray[np.float64]


class CovarianceOperator:
    """A symmetric n x n matrix ``Z G Z' + D`` with D diagonal, as an operator.

    Parameters
    ----------
    terms : sequence of RandomTerm
        Codes and columns of the random effects that take part; may be empty.
    blocks : sequence of ndarray (k, k)
        Covariance matrix G_t of each term's effects.
    diagonal : ndarray, shape (n,)
        The entries of D.
    factors : sequence of RandomTerm
        Terms whose grouping factors name rows, taking part or not.
    index : pandas.Index, length n
        Row labels.
    name : str
        What to call it in messages.
    """

    # NumPy must hand ``array @ V`` to us instead of turning V into an array first.
    __array_ufunc__ = None

    _instead = "@, diag and block(level) answer without it; max_gb= raises the limit."

    def __init__(
        self,
        terms: Sequence[RandomTerm],
        blocks: Sequence[Matrix],
        diagonal: Matrix,
        factors: Sequence[RandomTerm],
        index: pd.Index,
        name: str,
    ) -> None:
        self._terms = tuple(terms)
        self._blocks = tuple(read_only(np.array(block, dtype=np.float64)) for block in blocks)
        self._diagonal = diagonal
        self._factors = tuple(factors)
        self._index = index
        self._n = len(index)
        self._name = name

    # --- shape ---------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self._n, self._n

    @property
    def dtype(self) -> np.dtype[np.float64]:
        """``float64``, the type of the entries."""
        return np.dtype(np.float64)

    @property
    def index(self) -> pd.Index:
        """Row labels of the data, a pandas Index of length n."""
        return self._index

    # --- products ------------------------------------------------------------------------

    def __matmul__(self, other: Any) -> Matrix:
        """``V @ x`` for x of shape (n,) or (n, m); DataError for other shapes."""
        x, restore = self._rows(other, f"{self._name} @ x")
        out = self._diagonal[:, None] * x
        for term, G in zip(self._terms, self._blocks, strict=True):
            z_times(term, np.matmul(G, z_transpose_times(term, x)), out)
        return restore(out)

    def __rmatmul__(self, other: Any) -> Matrix:
        """``x @ V`` for x of shape (n,) or (m, n); DataError for other shapes."""
        what = f"x @ {self._name}"
        if isinstance(other, pd.DataFrame):
            other = by_row_labels(f"the transpose in {what}", other.T, self._index, self._name).T
        else:
            other = by_row_labels(f"the values in {what}", other, self._index, self._name)
        x = number_array(other, what)
        if x.ndim not in (1, 2) or x.shape[-1] != self._n:
            raise DataError(
                f"x @ {self._name}: {self._name} is {self._n} x {self._n}, so x needs {self._n} "
                f"columns; its shape is {x.shape}."
            )
        return (self @ x.T).T

    def aslinearoperator(self) -> scipy.sparse.linalg.LinearOperator:
        """For SciPy's iterative solvers and eigenvalue routines.

        Returns
        -------
        scipy.sparse.linalg.LinearOperator, n x n
            With ``matvec``, ``matmat`` and their transposes, which are the same.

        Examples
        --------
        Largest eigenvalue of V without forming V:

        >>> import numpy as np
        >>> import scipy.sparse.linalg
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> operator = m.V.aslinearoperator()
        >>> largest = scipy.sparse.linalg.eigsh(operator, 1, v0=np.ones(180))[0]
        >>> bool(np.isclose(largest[0], np.linalg.eigvalsh(m.V.dense())[-1]))
        True
        """
        product = self.__matmul__
        return scipy.sparse.linalg.LinearOperator(
            self.shape,
            matvec=product,
            rmatvec=product,
            matmat=product,
            rmatmat=product,
            dtype=self.dtype,
        )

    # --- pieces --------------------------------------------------------------------------

    def diag(self) -> Matrix:
        """Variances, shape (n,), in squared units of the response.

        Examples
        --------
        Standard deviation on days 0 to 4, in milliseconds:

        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> (m.V.diag()[:5] ** 0.5).round(1)
        array([35.6, 36.3, 38. , 40.5, 43.6])
        """
        out = self._diagonal.copy()
        for term, G in zip(self._terms, self._blocks, strict=True):
            out += np.einsum("ia,ab,ib->i", term.z, G, term.z)
        return out

    def rows(self, rows: Any, columns: Any = None) -> Matrix:
        """``V[rows, columns]``.

        Parameters
        ----------
        rows, columns : sequence of int, or of n bool
            Positions, counted from 0, negative ones from the end; columns default to rows.

        Returns
        -------
        ndarray, len(rows) x len(columns)
            In squared units of the response.

        Raises
        ------
        IndexError
            If a position is not below n, or no whole number.

        Examples
        --------
        Rows 0 and 1 belong to one subject, row 10 to the next:

        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.V.rows([0, 1, 10]).round(1)
        array([[1267. ,  621.7,    0. ],
               [ 621.7, 1321.3,    0. ],
               [   0. ,    0. , 1267. ]])
        """
        i = self._positions(rows)
        j = i if columns is None else self._positions(columns)
        out = np.zeros((len(i), len(j)))
        for term, G in zip(self._terms, self._blocks, strict=True):
            same = term.codes[i][:, None] == term.codes[j][None, :]
            out += np.where(same, term.z[i] @ G @ term.z[j].T, 0.0)
        a, b = np.nonzero(i[:, None] == j[None, :])
        out[a, b] += self._diagonal[i[a]]
        return out

    def _positions(self, given: Any) -> NDArray[np.intp]:
        if isinstance(given, pd.Series) and given.dtype == bool:
            given = by_row_labels("the rows", given, self._index, self._name)
        try:
            positions = np.atleast_1d(np.asarray(given))
        except ValueError:
            # Lists of different lengths.
            positions = np.empty((1, 1), dtype=object)
        if positions.dtype == bool and positions.shape == (self._n,):
            return np.flatnonzero(positions)
        if positions.size == 0:
            return np.zeros(0, dtype=np.intp)
        if positions.ndim != 1 or positions.dtype.kind not in "iu":
            raise IndexError(
                f"Rows are given by position, whole numbers from 0 to {self._n - 1}, or by "
                f"{self._n} booleans; not {given!r:.60}."
            )
        outside = (positions < -self._n) | (positions >= self._n)
        if outside.any():
            raise IndexError(
                f"{self._name} has {self._n} rows; there is no position {positions[outside][0]}."
            )
        # Negative positions must compare equal to the same row counted from the front.
        return positions.astype(np.intp) % self._n

    def block(self, level: Any, by: str | None = None) -> pd.DataFrame:
        """V of the rows of one level.

        Parameters
        ----------
        level : str, number or tuple
            The level: its label, its value, or its values as a tuple for an interaction such as
            ``"tch:sch"``, in the order of the name or of the nesting.
        by : str, optional
            The grouping factor. May be left out where only one factor has such a level.

        Returns
        -------
        DataFrame, n_i x n_i
            In squared units of the response, labelled by the data's row labels.

        Raises
        ------
        ModelError
            If there is no such factor or level, or several factors have it.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.V.block("a").shape, m.V.block(("a", 3)).shape  # school a; its teacher 3
        ((15, 15), (5, 5))
        >>> m.V.block(("a", 3)).iloc[:2, :2].round(2)
              10    11
        10  2.63  1.65
        11  1.65  2.63
        """
        rows = self._level_rows(level, by)
        labels = self._index[rows]
        return pd.DataFrame(self.rows(rows), index=labels, columns=labels)

    def _level_rows(self, level: Any, by: str | None) -> NDArray[np.intp]:
        if by is not None:
            term = find_factor(self._factors, by)
            return np.flatnonzero(term.codes == find_level(term, level))
        groups = list({term.group: term for term in self._factors}.values())
        hits = [term for term in groups if matching_levels(term, level)]
        if len(hits) == 1 or len(groups) == 1:
            term = hits[0] if hits else groups[0]
            return np.flatnonzero(term.codes == find_level(term, level))
        names = ", ".join(repr(term.group) for term in groups)
        if not hits:
            raise ModelError(
                f"No grouping factor has a level {level!r}; the factors are {names}. "
                "Name the factor with by= to see its nearest levels."
            )
        several = ", ".join(repr(term.group) for term in hits)
        raise ModelError(
            f"The level {level!r} exists in several factors: {several}. Say which with by=."
        )

    # --- as a matrix ---------------------------------------------------------------------

    def sparse(self, max_gb: float = 4.0) -> scipy.sparse.csc_array:
        """As a sparse matrix.

        Parameters
        ----------
        max_gb : float
            Largest size allowed, in gigabytes.

        Returns
        -------
        scipy.sparse.csc_array, n x n
            In squared units of the response; no stored zeros.

        Raises
        ------
        ModelError
            If it would take more than ``max_gb`` gigabytes; says what to use instead.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.V.sparse().nnz  # 18 blocks of 10 x 10
        1800
        """
        entries = float(self._n) + sum(
            float((np.bincount(term.codes).astype(np.float64) ** 2).sum()) for term in self._terms
        )
        entries = min(entries, float(self._n) ** 2)
        refuse_above(12.0 * entries, max_gb, f"{self._name} as a sparse matrix", self._instead)
        total: Any = scipy.sparse.diags_array(self._diagonal)
        if self._terms:
            Z = random_effects_matrix(self._terms)
            total = Z @ RandomEffectsCovariance(self._terms, self._blocks).sparse() @ Z.T + total
        out = scipy.sparse.csc_array(total)
        out.eliminate_zeros()
        out.sort_indices()
        return out

    def dense(self, max_gb: float = 4.0) -> Matrix:
        """As an ndarray.

        Parameters
        ----------
        max_gb : float
            Largest size allowed, in gigabytes.

        Returns
        -------
        ndarray, n x n
            In squared units of the response.

        Raises
        ------
        ModelError
            If it would take more than ``max_gb`` gigabytes; says what to use instead.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.V.dense()[:2, :2].round(1)
        array([[1267. ,  621.7],
               [ 621.7, 1321.3]])
        """
        refuse_above(
            8.0 * float(self._n) ** 2,
            max_gb,
            f"{self._name} as a dense {self._n:,} x {self._n:,} matrix",
            self._instead,
        )
        out = np.diag(self._diagonal)
        for term, G in zip(self._terms, self._blocks, strict=True):
            for rows in rows_of_levels(term.codes, term.n_levels):
                z = term.z[rows]
                out[np.ix_(rows, rows)] += z @ G @ z.T
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Matrix:
        """As an ndarray, for NumPy; the same limit as `dense`."""
        return self.dense().astype(np.float64 if dtype is None else dtype, copy=False)

    # --- helpers -------------------------------------------------------------------------

    def _rows(self, values: Any, what: str) -> tuple[Matrix, Callable[[Matrix], Matrix]]:
        """Values as an (n, m) array, and how to give the result the shape of the input."""
        values = by_row_labels(f"the values in {what}", values, self._index, self._name)
        x = number_array(values, what)
        if x.ndim not in (1, 2) or x.shape[0] != self._n:
            raise DataError(
                f"{what}: {self._name} is {self._n} x {self._n}, so {self._n} rows are needed; "
                f"the shape given is {x.shape}."
            )
        if not np.isfinite(x).all():
            raise DataError(f"{what}: {int((~np.isfinite(x)).sum())} values are not finite.")
        if x.ndim == 1:
            return np.ascontiguousarray(x[:, None]), lambda out: out[:, 0]
        return np.ascontiguousarray(x), lambda out: out
