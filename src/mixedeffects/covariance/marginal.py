"""V = Z G Z' + R, the marginal covariance matrix of the response, as an operator.

Nothing n x n is made until somebody asks for it. With ``V = sigma^2 (Z Lambda Lambda' Z' + W^-1)``

    V x      = sigma^2 (Z Lambda Lambda' Z'x + W^-1 x)
    V^-1 x   = (W x - W Z P Z' W x) / sigma^2,    P = Lambda M_q^-1 Lambda'
    log|V|   = n log sigma^2 - sum log w + log|M_q|

where ``M_q = Lambda'Z'WZ Lambda + I`` is factored in blocks by the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.arrays import number_array
from mixedeffects.caching import cached_property
from mixedeffects.covariance.components import check_sigma, read_theta
from mixedeffects.covariance.conditioned import conditioned_terms
from mixedeffects.covariance.design import random_effects_matrix, z_times, z_transpose_times
from mixedeffects.covariance.export import check_target, save_matrix
from mixedeffects.covariance.gls import GLSResult, gls
from mixedeffects.covariance.groups import (
    ConnectedBlocks,
    check_nesting,
    find_factor,
    rows_of_levels,
)
from mixedeffects.covariance.operator import CovarianceOperator
from mixedeffects.covariance.parts import CovarianceParts, split_by_source
from mixedeffects.covariance.pictures import PictureOfV, plot_V
from mixedeffects.covariance.random_effects import RandomEffectsCovariance
from mixedeffects.covariance.residual import ResidualCovariance
from mixedeffects.covariance.sampling import draw
from mixedeffects.covariance.sizes import range_text, size_text
from mixedeffects.covariance.whitening import cholesky_root, symmetric_root
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import Factorisation, NotPositiveDefiniteError
from mixedeffects.engine.parameters import theta_to_T
from mixedeffects.engine.provisional import remaining_effects
from mixedeffects.errors import DataError, ModelError
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.options import checked_flag, member
from mixedeffects.pickling import Sealed

__all__ = ["MarginalCovariance", "factorise"]

Matrix = NDArray[np.float64]


#: Share of a vector beside its modes below which those are computed again from what is left.
_LOST = 1e-3


class MarginalCovariance(CovarianceOperator, Sealed):
    """V as an n x n operator: solve, multiply, cut by cluster, turn into a matrix.

    Made by ``m.V`` for a fitted model, and by `mixedeffects.marginal_covariance` for a planned one.
    Rows are the rows used, in the order of the data.

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

    _instead = (
        "V.solve, V.logdet, V.quad, V @ x, V.diag, V.gls and V.block(level) answer without it; "
        "max_gb= raises the limit."
    )

    def __init__(
        self,
        terms: Sequence[RandomTerm],
        blocks: Sequence[Matrix],
        sigma: float,
        weights: Matrix | None,
        factorisation: Factorisation,
        index: pd.Index,
    ) -> None:
        residual = ResidualCovariance(sigma, weights, len(index))
        computed, G, self._transforms = conditioned_terms(terms, blocks, factorisation, sigma)
        super().__init__(computed, G, residual.diag(), computed, index, "V")
        self._user_terms, self._user_blocks = tuple(terms), tuple(blocks)
        #: Residual standard deviation at unit prior weight, in units of the response.
        self.sigma = sigma
        self._weights = weights
        self._factorisation = factorisation

    @property
    def T(self) -> MarginalCovariance:
        """V itself: it is symmetric."""
        return self

    # --- what it is made of ----------------------------------------------------------------

    @property
    def G(self) -> RandomEffectsCovariance:
        """Covariance matrix of the random effects, q x q."""
        return RandomEffectsCovariance(self._user_terms, self._user_blocks)

    @property
    def R(self) -> ResidualCovariance:
        """Covariance matrix of the residual errors, n x n and diagonal."""
        return ResidualCovariance(self.sigma, self._weights, self._n)

    @property
    def Z(self) -> scipy.sparse.csc_array:
        """Random-effects model matrix, n x q, in the column order of G."""
        return random_effects_matrix(self._user_terms)

    @cached_property
    def parts(self) -> CovarianceParts:
        """V by source: ``{"tch:sch": part, "sch": part, "Residual": part}``, summing to V.

        Each part is an operator as V is; ``V.parts.share()`` gives their proportions of the
        marginal variance. Terms on one grouping factor make one part.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> list(m.V.parts)
        ['tch.cl:sch.cl', 'sch.cl', 'Residual']
        >>> m.V.parts.share().round(3)
        tch.cl:sch.cl    0.467
        sch.cl           0.160
        Residual         0.373
        Name: share, dtype: float64
        """
        return split_by_source(self, self._terms, self._blocks, self._diagonal)

    # --- V^-1 x, log|V| --------------------------------------------------------------------

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
        left = self._less_effects(x)
        if self._weights is not None:
            left *= self._weights[:, None]
        return restore(left / self.sigma**2)

    def _less_effects(self, x: Matrix) -> Matrix:
        """``V0^-1 x`` but for the weights: x less its modes, times the columns of Z."""
        factorisation = self._factorisation
        nothing = np.zeros((0, x.shape[1]))
        effects, _ = factorisation.solve(self._z_transpose_times(x), nothing)
        left = x.copy()
        self._subtract_z_times(effects, left)
        lost = np.linalg.norm(left, axis=0) < _LOST * np.linalg.norm(x, axis=0)
        if lost.any():
            effects = [np.ascontiguousarray(own[:, :, lost]) for own in effects]
            rest = np.ascontiguousarray(left[:, lost])
            more = remaining_effects(factorisation, effects, self._z_transpose_times(rest))
            self._subtract_z_times(more, rest)
            left[:, lost] = rest
        return left

    def _z_transpose_times(self, x: Matrix) -> list[Matrix]:
        """``Z'Wx`` per factor, in the engine's columns and weights."""
        A = self._factorisation.A
        weighted = x
        if self._weights is not None:
            weighted = x * (self._weights / A.basis.weight_scale)[:, None]
        products = []
        for factor in A.factors:
            parts = [
                np.matmul(
                    self._transforms[m.term].T, z_transpose_times(self._terms[m.term], weighted)
                )
                for m in factor.members
            ]
            products.append(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))
        return products

    def _subtract_z_times(self, effects: Sequence[Matrix], out: Matrix) -> None:
        """Subtract Z times effects in the engine's columns from out."""
        for factor, b in zip(self._factorisation.A.factors, effects, strict=True):
            for m in factor.members:
                own = np.matmul(-self._transforms[m.term], b[:, m.columns])
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
        r : array, Series or DataFrame, shape (n,) or (n, m)
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
        x, _ = self._rows(r, "V.quad(r)")
        values: Matrix = x.T @ self.solve(x)
        return float(values[0, 0]) if np.ndim(r) == 1 else values

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
            If theta has the wrong length, a value is not finite, sigma is not positive, or V is
            not numerically positive definite there.

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
        values = read_theta(self._terms, theta, no_numbers=DataError)
        scale = self.sigma if sigma is None else check_sigma(sigma)
        A = self._factorisation.A
        T = theta_to_T(values, columns)
        factors = [A.basis.engine_factor(t, factor) for t, factor in enumerate(T)]
        factorisation = factorise(A, factors)
        blocks = [scale**2 * (factor @ factor.T) for factor in T]
        return self._with(blocks, scale, factorisation)

    def _with(
        self, blocks: Sequence[Matrix], sigma: float, factorisation: Factorisation
    ) -> MarginalCovariance:
        """The same rows with other covariances."""
        return MarginalCovariance(
            self._user_terms, blocks, sigma, self._weights, factorisation, self._index
        )

    # --- block by block ------------------------------------------------------------------

    def blocks(
        self, by: str | None = None, *, partial: bool = False
    ) -> Iterator[tuple[Any, NDArray[np.intp], Matrix]]:
        """Iterate over V's blocks.

        Parameters
        ----------
        by : str, optional
            A grouping factor by which V is block-diagonal: one block per level. By default the
            connected blocks: rows that share any level, directly or through others; V is zero
            between them.
        partial : bool
            Whether ``by`` may also be a factor by which V is not block-diagonal, such as teachers
            within schools. The blocks are then cut out of V, and the covariances between rows of
            different levels are in none of them.

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
            If there is no such factor, or V is not block-diagonal by it and ``partial`` is false.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> level, rows, block = next(m.V.blocks(by="sch.cl"))
        >>> level, rows.tolist(), block.shape
        ('a', [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], (15, 15))

        Pupils of different teachers of a school are correlated, so V has no blocks by teacher:

        >>> m.V.blocks(by="tch.cl:sch.cl")
        Traceback (most recent call last):
            ...
        mixedeffects.errors.ModelError: V is not block-diagonal by 'tch.cl:sch.cl': ...
        >>> len(list(m.V.blocks(by="tch.cl:sch.cl", partial=True)))
        30
        """
        levels: Sequence[Any]
        partial = checked_flag(partial, "partial")
        if by is None:
            levels = range(len(self._connected))
            rows_of = [self._connected.rows(number) for number in levels]
        else:
            term = find_factor(self._terms, by)
            if not partial:
                check_nesting(self._terms, term)
            levels = list(term.levels)
            rows_of = rows_of_levels(term.codes, term.n_levels)
        return ((level, rows, self.rows(rows)) for level, rows in zip(levels, rows_of, strict=True))

    @cached_property
    def _connected(self) -> ConnectedBlocks:
        return ConnectedBlocks.of(self._terms)

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

    # --- square roots and samples ----------------------------------------------------------

    def whiten(
        self,
        B: Any,
        kind: Literal["cholesky", "symmetric"] = "cholesky",
        max_gb: float = 4.0,
    ) -> Matrix:
        """A square root of V^-1 times B, so that whitened residuals have identity covariance.

        Parameters
        ----------
        B : array, shape (n,) or (n, m)
            What to whiten, for example ``y - X beta``.
        kind : {"cholesky", "symmetric"}
            ``L^-1 B`` with ``V = L L'`` in row order within each connected block, or
            ``V^(-1/2) B``.
        max_gb : float
            Largest matrix to factor, in gigabytes.

        Returns
        -------
        ndarray of the shape of B
            Without units, if B is in units of the response.

        Raises
        ------
        DataError
            If B does not have n rows or is not finite.
        ModelError
            If kind is not known, or a matrix to factor would take more than ``max_gb``.

        Warns
        -----
        CostWarning
            Before the work starts, if factoring takes more than 4e10 operations: a Cholesky factor
            of 5,000 rows, eigenvectors of 1,600 random effects.

        Notes
        -----
        The Cholesky factor is that of each connected block of V, so one block with all rows, as
        crossed factors make it, costs n^3 / 3 operations. The symmetric root costs no more than the
        eigenvectors of a matrix with a row for each random effect of the block, however many rows
        the block has. That holds where the prior weights within a block are equal; where they
        are not, R is no multiple of the identity and the block itself is decomposed.

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
        if not member(kind, ("cholesky", "symmetric")):
            raise ModelError(f"kind is 'cholesky' or 'symmetric', not {kind!r:.60}.")
        x, restore = self._rows(B, "V.whiten(B)")
        root = cholesky_root if kind == "cholesky" else symmetric_root
        return restore(root(self._terms, self._blocks, self._diagonal, self._connected, x, max_gb))

    def sample(
        self,
        size: int | None = None,
        seed: int | np.random.Generator | None = None,
        mean: Any = None,
    ) -> Matrix:
        """Draw from the normal distribution N(mean, V), through Z, G and R.

        Parameters
        ----------
        size : int, optional
            Number of draws; by default one.
        seed : int or numpy.random.Generator, optional
            For the same draws again.
        mean : float or array, shape (n,), optional
            Mean of every draw, for example ``X @ beta``; by default 0.

        Returns
        -------
        ndarray, shape (n,) or (n, size)
            In units of the response; one column per draw.

        Raises
        ------
        DataError
            If the mean does not have n values or is not finite.
        ModelError
            If size is not a positive whole number.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> draws = m.V.sample(2000, seed=1, mean=m.X @ m.fixef)
        >>> draws.shape
        (180, 2000)
        >>> draws[:2].std(axis=1).round(0), (m.V.diag()[:2] ** 0.5).round(0)
        (array([35., 35.]), array([36., 36.]))
        """
        centre = np.zeros(self._n)
        if mean is not None:
            given = number_array(mean, "V.sample(mean=...)")
            given = np.full(self._n, given) if given.ndim == 0 else mean
            centre = self._rows(given, "V.sample(mean=...)")[0][:, 0]
        drawn = draw(self._terms, self._blocks, self._diagonal, size, seed)
        drawn += centre[:, None]
        return drawn[:, 0] if size is None else drawn

    # --- to look at ------------------------------------------------------------------------

    def save(
        self,
        path: Any,
        level: Any = None,
        by: str | None = None,
        *,
        escape_formulas: bool = False,
    ) -> None:
        """Write V, or the block of one level, to a file.

        Parameters
        ----------
        path : str or path
            Ending in ``.npz`` (scipy sparse), ``.mtx`` (Matrix Market, for R among others), or
            ``.csv`` or ``.csv.gz`` (all entries, labelled by the data's row labels). The file is
            there whole or not at all.
        level, by
            As for `block`; by default all of V.
        escape_formulas : bool
            In csv files, put an apostrophe before row labels that begin with ``=``, ``+``, ``-``
            or ``@``, which spreadsheets run as formulas.

        Raises
        ------
        DataError
            If the ending is not one of these, or there is no such folder.
        FileError
            If the file cannot be written: no permission, no space.
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
        check_target(path)
        if level is None and by is not None:
            raise ModelError("by= says what level= is a level of: give level too, or neither.")
        matrix = self if level is None else self.block(level, by)
        save_matrix(matrix, path, escape_formulas=escape_formulas)

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
        return PictureOfV(self._terms, self._blocks, self._diagonal, rows)

    def __repr__(self) -> str:
        groups = "; ".join(f"{t.label} ({t.n_levels} levels)" for t in self._terms)
        sizes = self._connected.sizes
        structure = (
            "one connected block"
            if len(sizes) == 1
            else f"{len(sizes):,} blocks of {range_text(min(sizes), max(sizes))} rows"
        )
        return (
            f"V = Z G Z' + R: {self._n:,} x {self._n:,}, {structure}\n"
            f"  random effects: {groups}\n"
            f"  dense it would take {size_text(8.0 * float(self._n) ** 2)}; "
            "solve, logdet, quad, @, diag, block and gls need none of it"
        )


def factorise(A: CrossProducts, factors: Sequence[Matrix]) -> Factorisation:
    """M at these relative covariance factors, or a ModelError if rounding makes it indefinite."""
    try:
        return Factorisation(A, factors)
    except NotPositiveDefiniteError:
        raise ModelError(
            "V is not numerically positive definite: the variances of the random effects are too "
            "large beside the residual variance."
        ) from None
