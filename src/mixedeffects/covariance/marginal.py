"""V = Z G Z' + R, the marginal covariance matrix of the response, as an operator.

Nothing n x n is made until somebody asks for it. With ``V = sigma^2 (Z Lambda Lambda' Z' + W^-1)``

    V x      = sigma^2 (Z Lambda Lambda' Z'x + W^-1 x)
    V^-1 x   = (W x - W Z P Z' W x) / sigma^2,    P = Lambda M_q^-1 Lambda'
    log|V|   = n log sigma^2 - sum log w + log|M_q|

where ``M_q = Lambda'Z'WZ Lambda + I`` is factored in blocks by the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.covariance.design import random_effects_matrix, z_times, z_transpose_times
from mixedeffects.covariance.export import save_matrix
from mixedeffects.covariance.gls import GLSResult, gls
from mixedeffects.covariance.groups import (
    connected_blocks,
    find_factor,
    find_level,
    rows_of_levels,
)
from mixedeffects.covariance.pictures import PictureOfV, plot_V
from mixedeffects.covariance.random_effects import RandomEffectsCovariance
from mixedeffects.covariance.residual import ResidualCovariance
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.parameters import n_parameters, theta_to_T
from mixedeffects.errors import DataError, ModelError
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["MarginalCovariance"]

Matrix = NDArray[np.float64]


class MarginalCovariance:
    """V as an n x n operator: solve, multiply, cut by cluster, turn into a matrix.

    Made by ``m.V``. Rows are the rows used in the fit, in the order of the data.

    Parameters
    ----------
    terms : sequence of RandomTerm
        Codes and columns of the random effects.
    blocks : sequence of ndarray (k, k)
        Covariance matrix G_t of each term's effects.
    sigma : float
        Residual standard deviation at unit weight.
    weights : ndarray, shape (n,), or None
        Prior weights.
    factorisation : Factorisation
        M at these parameters, from the engine.
    index : pandas.Index, length n
        Row labels.

    Examples
    --------
    >>> import numpy as np
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.V.shape
    (180, 180)
    >>> m.V.block("308").iloc[:2, :2].round(1)
            0       1
    0  1267.0   621.7
    1   621.7  1321.3
    >>> bool(np.allclose(m.V.solve(m.V @ m.y), m.y))
    True
    """

    # NumPy must hand ``array @ V`` to us instead of turning V into an array first.
    __array_ufunc__ = None

    def __init__(
        self,
        terms: Sequence[RandomTerm],
        blocks: Sequence[Matrix],
        sigma: float,
        weights: Matrix | None,
        factorisation: Factorisation,
        index: pd.Index,
    ) -> None:
        self._terms = tuple(terms)
        self._G = tuple(np.asarray(block) for block in blocks)
        self.sigma = sigma
        self._weights = weights
        self._factorisation = factorisation
        self._index = index
        self._n = len(index)

    # --- shape ---------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self._n, self._n

    @property
    def dtype(self) -> np.dtype[np.float64]:
        """``float64``, the type of V's entries."""
        return np.dtype(np.float64)

    @property
    def index(self) -> pd.Index:
        """Row labels of the data, a pandas Index of length n."""
        return self._index

    @property
    def T(self) -> MarginalCovariance:
        """V itself: it is symmetric."""
        return self

    # --- V x, V^-1 x, log|V| -------------------------------------------------------------

    @cached_property
    def _residual_variance(self) -> Matrix:
        return ResidualCovariance(self.sigma, self._weights, self._n).diag()

    def __matmul__(self, other: Any) -> Matrix:
        """``V @ x`` for x of shape (n,) or (n, m); DataError for other shapes."""
        x, restore = self._rows(other, "V @ x")
        out = self._residual_variance[:, None] * x
        for term, G in zip(self._terms, self._G, strict=True):
            z_times(term, np.matmul(G, z_transpose_times(term, x)), out)
        return restore(out)

    def __rmatmul__(self, other: Any) -> Matrix:
        """``x @ V`` for x of shape (n,) or (m, n); DataError for other shapes."""
        x = np.asarray(other, dtype=np.float64)
        return (self @ x.T).T

    def solve(self, B: Any) -> Matrix:
        """``V^-1 B`` without forming V.

        Parameters
        ----------
        B : array or DataFrame, shape (n,) or (n, m)
            Right-hand sides.

        Returns
        -------
        ndarray of the shape of B

        Raises
        ------
        DataError
            If B does not have n rows or is not finite.

        References
        ----------
        Henderson, H. V. and Searle, S. R. (1981). On deriving the inverse of a sum of matrices.
        SIAM Review 23, 53-60.

        Examples
        --------
        ``X'V^-1X`` is the inverse of the covariance matrix of the fixed effects:

        >>> import numpy as np
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> bool(np.allclose(m.X.T @ m.V.solve(m.X), np.linalg.inv(m.vcov())))
        True
        """
        x, restore = self._rows(B, "V.solve(B)")
        weighted = x if self._weights is None else x * self._weights[:, None]
        correction = np.zeros_like(x)
        self._add_z_P_z(weighted, correction)
        if self._weights is not None:
            correction *= self._weights[:, None]
        return restore((weighted - correction) / self.sigma**2)

    def _add_z_P_z(self, x: Matrix, out: Matrix) -> None:
        """Add ``Z P Z' x`` to out, P in the user's columns, relative to sigma^2."""
        A = self._factorisation.A
        C, scale = A.basis.terms, A.basis.weight_scale
        rhs = []
        for factor in A.factors:
            parts = [
                np.matmul(C[m.term].T, z_transpose_times(self._terms[m.term], x))
                for m in factor.members
            ]
            rhs.append(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))
        effects, _ = self._factorisation.solve(rhs, np.zeros((0, x.shape[1])))
        for factor, b in zip(A.factors, effects, strict=True):
            for m in factor.members:
                own = np.matmul(C[m.term], b[:, m.columns]) / scale
                z_times(self._terms[m.term], own, out)

    def logdet(self) -> float:
        """Natural logarithm of the determinant, ``log |V|``.

        Examples
        --------
        >>> import numpy as np
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> round(m.V.logdet(), 3), round(float(np.linalg.slogdet(m.V.dense())[1]), 3)
        (1243.179, 1243.179)
        """
        A = self._factorisation.A
        tau2 = self.sigma**2 / A.basis.weight_scale
        return float(self._n * np.log(tau2) - A.sum_log_weights + self._factorisation.logdet_random)

    def quad(self, r: Any) -> float | Matrix:
        """Quadratic form ``r' V^-1 r``.

        Parameters
        ----------
        r : array, shape (n,) or (n, m)
            One vector, or several as columns.

        Returns
        -------
        float, or ndarray m x m

        Raises
        ------
        DataError
            If r does not have n rows or is not finite.

        Examples
        --------
        At a REML fit the squared distance of y from its mean is n - p:

        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> round(m.V.quad(m.resid("marginal")), 6)
        178.0
        """
        x = np.asarray(r, dtype=np.float64)
        value = x.T @ self.solve(x)
        return float(value) if np.ndim(value) == 0 else value

    def gls(self, X: Any, y: Any, names: Sequence[str] | None = None) -> GLSResult:
        """Generalized least squares with this V.

        Parameters
        ----------
        X, y, names
            As for `mixedeffects.gls`.

        Returns
        -------
        GLSResult

        Raises
        ------
        DataError, ModelError
            As for `mixedeffects.gls`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.V.gls(m.X, m.y, names=m.fixef.index).se.round(2)
        (Intercept)    6.82
        Days           1.55
        Name: Std. Error, dtype: float64
        """
        return gls(X, y, self, names)

    def at(self, theta: Any, sigma: float | None = None) -> MarginalCovariance:
        """V of the same rows at other parameters.

        Parameters
        ----------
        theta : array, shape (m,)
            Relative covariance parameters, in lme4's order.
        sigma : float, optional
            Residual standard deviation; by default this V's.

        Returns
        -------
        MarginalCovariance
            This V stays as it is.

        Raises
        ------
        ModelError
            If theta has the wrong length, a value is not finite, or sigma is not positive.

        Examples
        --------
        Without random effects the rows are independent:

        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.V.at([0, 0, 0], sigma=30.0).rows([0, 1])
        array([[900.,   0.],
               [  0., 900.]])
        """
        columns = [term.n_columns for term in self._terms]
        values = np.asarray(theta, dtype=np.float64).reshape(-1)
        expected = n_parameters(columns)
        if len(values) != expected or not np.isfinite(values).all():
            raise ModelError(
                f"theta must be {expected} finite numbers for terms with {columns} columns; got "
                f"{len(values)}: {values.tolist()}."
            )
        scale = self.sigma if sigma is None else float(sigma)
        if not (np.isfinite(scale) and scale > 0.0):
            raise ModelError(f"sigma must be a positive number; got {sigma}.")
        A = self._factorisation.A
        T = theta_to_T(values, columns)
        factors = [A.basis.engine_factor(t, factor) for t, factor in enumerate(T)]
        return MarginalCovariance(
            self._terms,
            [scale**2 * (factor @ factor.T) for factor in T],
            scale,
            self._weights,
            Factorisation(A, factors),
            self._index,
        )

    # --- pieces --------------------------------------------------------------------------

    def diag(self) -> Matrix:
        """Marginal variances, shape (n,), in squared units of the response.

        Examples
        --------
        Standard deviation on days 0 to 4, in milliseconds:

        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> (m.V.diag()[:5] ** 0.5).round(1)
        array([35.6, 36.3, 38. , 40.5, 43.6])
        """
        out = self._residual_variance.copy()
        for term, G in zip(self._terms, self._G, strict=True):
            out += np.einsum("ia,ab,ib->i", term.z, G, term.z)
        return out

    def rows(self, rows: Any, columns: Any = None) -> Matrix:
        """``V[rows, columns]``.

        Parameters
        ----------
        rows, columns : sequence of int
            Positions, counted from 0; columns default to rows.

        Returns
        -------
        ndarray, len(rows) x len(columns)
            In squared units of the response.

        Raises
        ------
        IndexError
            If a position is not below n.

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
        i = np.asarray(rows, dtype=np.intp)
        j = i if columns is None else np.asarray(columns, dtype=np.intp)
        out = np.zeros((len(i), len(j)))
        for term, G in zip(self._terms, self._G, strict=True):
            same = term.codes[i][:, None] == term.codes[j][None, :]
            out += np.where(same, term.z[i] @ G @ term.z[j].T, 0.0)
        a, b = np.nonzero(i[:, None] == j[None, :])
        out[a, b] += self._residual_variance[i[a]]
        return out

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
            term = find_factor(self._terms, by)
            return np.flatnonzero(term.codes == find_level(term, level))
        groups = list({term.group: term for term in self._terms}.values())
        hits = []
        for term in groups:
            try:
                hits.append((term, find_level(term, level)))
            except ModelError:
                if len(groups) == 1:
                    raise
        if len(hits) == 1:
            term, position = hits[0]
            return np.flatnonzero(term.codes == position)
        names = ", ".join(repr(term.group) for term in groups)
        if not hits:
            raise ModelError(
                f"No grouping factor has a level {level!r}; the factors are {names}. "
                "Name the factor with by= to see its nearest levels."
            )
        several = ", ".join(repr(term.group) for term, _ in hits)
        raise ModelError(
            f"The level {level!r} exists in several factors: {several}. Say which with by=."
        )

    def blocks(self, by: str | None = None) -> Iterator[tuple[Any, NDArray[np.intp], Matrix]]:
        """Iterate over V's blocks.

        Parameters
        ----------
        by : str, optional
            A grouping factor: one block per level, cut out of V. By default the connected blocks:
            rows that share any level, directly or through others; V is zero between them.

        Yields
        ------
        level : str or int
            Level label, or the number of the connected block.
        rows : ndarray of intp
            Row positions.
        block : ndarray, n_i x n_i
            ``V[rows, rows]``, in squared units of the response.

        Raises
        ------
        ModelError
            If there is no such factor.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> len(list(m.V.blocks())), len(list(m.V.blocks(by="tch.cl:sch.cl")))
        (10, 30)
        >>> level, rows, block = next(m.V.blocks(by="tch.cl:sch.cl"))
        >>> level, rows.tolist(), block.shape
        ('1:a', [0, 1, 2, 3, 4], (5, 5))
        """
        if by is None:
            groups: Sequence[Any] = range(len(self._connected))
            rows_of = self._connected
        else:
            term = find_factor(self._terms, by)
            groups = list(term.levels)
            rows_of = rows_of_levels(term.codes, term.n_levels)
        for level, rows in zip(groups, rows_of, strict=True):
            yield level, rows, self.rows(rows)

    @cached_property
    def _connected(self) -> list[NDArray[np.intp]]:
        numbers = connected_blocks(self._terms)
        return rows_of_levels(numbers, int(numbers.max()) + 1)

    def corr(self, level: Any, by: str | None = None) -> pd.DataFrame:
        """Correlations within one level, as option VCORR of SAS's PROC MIXED gives them.

        Parameters
        ----------
        level, by
            As for `block`.

        Returns
        -------
        DataFrame, n_i x n_i
            With ones on the diagonal.

        Raises
        ------
        ModelError
            As for `block`.

        Examples
        --------
        In a school, pupils of one teacher (rows 0 and 1) and of different teachers (0 and 5):

        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.V.corr("a").loc[[0, 1, 5], [0, 1, 5]].round(2)
              0     1     5
        0  1.00  0.63  0.16
        1  0.63  1.00  0.16
        5  0.16  0.16  1.00
        """
        block = self.block(level, by)
        values = block.to_numpy()
        sd = np.sqrt(np.diag(values))
        return pd.DataFrame(values / np.outer(sd, sd), index=block.index, columns=block.columns)

    def whiten(self, B: Any, kind: Literal["cholesky", "symmetric"] = "cholesky") -> Matrix:
        """A square root of V^-1 times B, so that whitened residuals have identity covariance.

        Parameters
        ----------
        B : array, shape (n,) or (n, m)
            What to whiten, for example ``y - X beta``.
        kind : {"cholesky", "symmetric"}
            ``L^-1 B`` with ``V = L L'`` in row order within each connected block, or
            ``V^(-1/2) B``.

        Returns
        -------
        ndarray of the shape of B

        Raises
        ------
        DataError
            If B does not have n rows or is not finite.
        ModelError
            If kind is not known, or the largest connected block would not fit into 4 GB.

        References
        ----------
        Houseman, E. A., Ryan, L. M. and Coull, B. A. (2004). Cholesky residuals for assessing
        normal errors in a linear model with correlated outcomes. Journal of the American
        Statistical Association 99, 383-394.

        Examples
        --------
        Generalized least squares is ordinary least squares of whitened data:

        >>> import numpy as np
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> X, y = m.V.whiten(m.X), m.V.whiten(m.y)
        >>> np.linalg.lstsq(X, y, rcond=None)[0].round(2)
        array([251.41,  10.47])
        """
        if kind not in ("cholesky", "symmetric"):
            raise ModelError(f"kind is 'cholesky' or 'symmetric', not {kind!r}.")
        x, restore = self._rows(B, "V.whiten(B)")
        largest = max(len(rows) for rows in self._connected)
        _refuse_above(
            8.0 * largest**2,
            4.0,
            f"Whitening needs the largest connected block of V, {largest:,} rows,",
            "V.solve, V.quad and V.logdet need no block.",
        )
        out = np.empty_like(x)
        for rows in self._connected:
            block = self.rows(rows)
            if kind == "cholesky":
                root = scipy.linalg.cholesky(block, lower=True)
                out[rows] = scipy.linalg.solve_triangular(root, x[rows], lower=True)
            else:
                values, vectors = np.linalg.eigh(block)
                out[rows] = (vectors / np.sqrt(values)) @ (vectors.T @ x[rows])
        return restore(out)

    # --- as a matrix ---------------------------------------------------------------------

    def sparse(self, max_gb: float = 4.0) -> scipy.sparse.csc_array:
        """V as a sparse matrix.

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
        entries = sum(
            float((np.bincount(term.codes).astype(np.float64) ** 2).sum()) for term in self._terms
        )
        entries = min(entries, float(self._n) ** 2)
        _refuse_above(12.0 * entries, max_gb, "V as a sparse matrix", _INSTEAD)
        Z = random_effects_matrix(self._terms)
        G = RandomEffectsCovariance(self._terms, self._G).sparse()
        V = Z @ G @ Z.T + scipy.sparse.diags_array(self._residual_variance)
        out = scipy.sparse.csc_array(V)
        out.eliminate_zeros()
        out.sort_indices()
        return out

    def dense(self, max_gb: float = 4.0) -> Matrix:
        """V as an ndarray.

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
        _refuse_above(
            8.0 * float(self._n) ** 2,
            max_gb,
            f"V as a dense {self._n:,} x {self._n:,} matrix",
            _INSTEAD,
        )
        out = np.diag(self._residual_variance)
        for term, G in zip(self._terms, self._G, strict=True):
            for rows in rows_of_levels(term.codes, term.n_levels):
                z = term.z[rows]
                out[np.ix_(rows, rows)] += z @ G @ z.T
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Matrix:
        """V as an ndarray, for NumPy; the same limit as `dense`."""
        return self.dense().astype(np.float64 if dtype is None else dtype, copy=False)

    def save(self, path: Any, level: Any = None, by: str | None = None) -> None:
        """Write V, or the block of one level, to a file.

        Parameters
        ----------
        path : str or path
            Ending in ``.npz`` (scipy sparse), ``.mtx`` (Matrix Market, for R among others) or
            ``.csv`` (all entries, labelled by the data's row labels).
        level, by
            As for `block`; by default all of V.

        Raises
        ------
        DataError
            If the ending is not one of these, or there is no such folder.
        ModelError
            As for `block` and `sparse`, or if a csv file would be larger than 1 GB.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import pandas as pd
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "V.csv"
        ...     m.V.save(path, level="308")
        ...     pd.read_csv(path, index_col=0).shape
        (10, 10)
        """
        save_matrix(self if level is None else self.block(level, by), path)

    def plot(
        self, level: Any = None, by: str | None = None, *, ax: Any = None, **options: Any
    ) -> Any:
        """Picture of V, or of one level's block with the numbers in its cells.

        V is never formed: where there are more rows than pixels, each pixel shows the exact mean
        of the cells it stands for, and the picture says how many they are.

        Parameters
        ----------
        level, by
            As for `block`. Without a level all rows are drawn, sorted by the factor ``by`` if one
            is given.
        ax : matplotlib Axes, optional
            Where to draw.
        **options
            Passed on to `mixedeffects.plot.covariance`.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ModelError
            As for `block`.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> ax = m.V.plot("308", ax=Figure().subplots(), units="ms^2")
        >>> ax.images[0].get_array().shape
        (10, 10)
        """
        return plot_V(self, level, by, ax, options)

    def _as_picture(self, rows: NDArray[np.intp] | None = None) -> PictureOfV:
        """What `mixedeffects.plot` draws: some rows, or all."""
        return PictureOfV(self._terms, self._G, self._residual_variance, rows)

    # --- helpers -------------------------------------------------------------------------

    def _rows(self, values: Any, what: str) -> tuple[Matrix, Callable[[Matrix], Matrix]]:
        """Values as an (n, m) array, and how to give the result the shape of the input."""
        if scipy.sparse.issparse(values):
            sparse: Any = values
            values = sparse.toarray()
        try:
            x = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(f"{what}: an array of numbers is needed, not {values!r:.60}.") from None
        if x.ndim not in (1, 2) or x.shape[0] != self._n:
            raise DataError(
                f"{what}: V is {self._n} x {self._n}, so {self._n} rows are needed; "
                f"the shape given is {x.shape}."
            )
        if not np.isfinite(x).all():
            raise DataError(f"{what}: {int((~np.isfinite(x)).sum())} values are not finite.")
        if x.ndim == 1:
            return np.ascontiguousarray(x[:, None]), lambda out: out[:, 0]
        return np.ascontiguousarray(x), lambda out: out

    def __repr__(self) -> str:
        groups = "; ".join(f"{t.label} ({t.n_levels} levels)" for t in self._terms)
        sizes = [len(rows) for rows in self._connected]
        structure = (
            "one connected block"
            if len(sizes) == 1
            else f"{len(sizes):,} blocks of {_range(min(sizes), max(sizes))} rows"
        )
        return (
            f"V = Z G Z' + R: {self._n:,} x {self._n:,}, {structure}\n"
            f"  random effects: {groups}\n"
            f"  dense it would take {_size(8.0 * float(self._n) ** 2)}; "
            "solve, logdet, quad, @, diag, block and gls need none of it"
        )


_INSTEAD = (
    "V.solve, V.logdet, V.quad, V @ x, V.diag, V.gls and V.block(level) answer without it; "
    "max_gb= raises the limit."
)


def _refuse_above(n_bytes: float, max_gb: float, what: str, instead: str) -> None:
    if n_bytes > max_gb * 1e9:
        raise ModelError(
            f"{what} would take {_size(n_bytes)}, more than the limit of {max_gb:g} GB. {instead}"
        )


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _size(n_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000.0:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000.0
    return f"{n_bytes:.3g} GB"
