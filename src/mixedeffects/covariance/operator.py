"""What V, its parts and R have in common: an n x n matrix ``Z G Z' + R``, never formed.

A part is the same sum with fewer terms, and R has none, so one class has the methods of all that
multiply, cut and convert. What they do is done by the functions of the files they import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from mixedeffects.base.habits import OF_A_MATRIX, unknown_attribute
from mixedeffects.covariance.conversion import as_dense, as_linear_operator, as_sparse
from mixedeffects.covariance.diagonal_residual import DiagonalResidual
from mixedeffects.covariance.entries import diagonal, entries, small_blocks
from mixedeffects.covariance.product import times
from mixedeffects.covariance.rows import Rows
from mixedeffects.covariance.structure import CovarianceStructure
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["CovarianceOperator"]

Matrix = NDArray[np.float64]


class CovarianceOperator:
    """A symmetric n x n matrix ``Z G Z' + R`` as an operator; with R diagonal if made of arrays.

    Parameters
    ----------
    terms : sequence of RandomTerm
        Codes and columns of the random effects that take part; may be empty.
    blocks : sequence of ndarray (k, k)
        Covariance matrix G_t of each term's effects.
    diagonal : ndarray, shape (n,)
        The entries of R.
    factors : sequence of RandomTerm
        Terms whose grouping factors name rows, taking part or not.
    index : pandas.Index, length n
        Row labels.
    name : str
        What to call it in messages.
    """

    # NumPy must hand ``array @ V`` to us instead of turning V into an array first.
    __array_ufunc__ = None

    #: What of a fit it is: ``m.V``.
    _letter = "V"
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
        self._own_structure = CovarianceStructure(
            tuple(terms), tuple(blocks), DiagonalResidual(diagonal)
        )
        self._own_rows = Rows(index, tuple(factors), name)

    # --- shape ---------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        here = {
            key: (where, own.replace("m.V", f"m.{self._letter}"))
            for key, (where, own) in OF_A_MATRIX.items()
        }
        raise unknown_attribute(name, self._letter, here, dir(self))

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return len(self._rows), len(self._rows)

    @property
    def dtype(self) -> np.dtype[np.float64]:
        """``float64``, the type of the entries."""
        return np.dtype(np.float64)

    @property
    def index(self) -> pd.Index:
        """Row labels of the data, a pandas Index of length n."""
        return self._rows.index

    # --- products ------------------------------------------------------------------------

    def __matmul__(self, other: Any) -> Matrix:
        """``V @ x`` for x of shape (n,) or (n, m); DataError for other shapes."""
        x, restore = self._rows.columns(other, f"{self._rows.matrix} @ x")
        return restore(times(self._structure, x))

    def __rmatmul__(self, other: Any) -> Matrix:
        """``x @ V`` for x of shape (n,) or (m, n); DataError for other shapes."""
        return (self @ self._rows.transposed(other)).T

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
        return as_linear_operator(self)

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
        return diagonal(self._structure)

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
        i = self._rows.positions(rows)
        j = i if columns is None else self._rows.positions(columns)
        return entries(self._structure, i, j)

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
        rows = self._rows.of_level(level, by)
        labels = self.index[rows]
        values = small_blocks(self._structure, rows)
        return pd.DataFrame(values, index=labels, columns=labels)

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
        return as_sparse(self._structure, max_gb, self._rows.matrix, self._instead)

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
        return as_dense(self._structure, max_gb, self._rows.matrix, self._instead)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Matrix:
        """As an ndarray, for NumPy; the same limit as `dense`."""
        return self.dense().astype(np.float64 if dtype is None else dtype, copy=False)

    # --- what it is made of ----------------------------------------------------------------

    @property
    def _structure(self) -> CovarianceStructure:
        return self._own_structure

    @property
    def _rows(self) -> Rows:
        return self._own_rows

    @property
    def _n(self) -> int:
        return len(self._rows)

    @property
    def _terms(self) -> tuple[RandomTerm, ...]:
        return self._structure.terms

    @property
    def _blocks(self) -> tuple[Matrix, ...]:
        return self._structure.G

    @property
    def _diagonal(self) -> Matrix:
        return self._structure.R.diagonal()
