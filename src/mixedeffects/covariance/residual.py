"""R, the covariance matrix of the residual errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.base.sealed import Sealed
from mixedeffects.covariance.diagonal_residual import DiagonalResidual
from mixedeffects.covariance.operator import CovarianceOperator
from mixedeffects.covariance.pictures import PictureOfV
from mixedeffects.covariance.residual_matrix import ResidualMatrix
from mixedeffects.covariance.rows import Rows
from mixedeffects.covariance.structure import CovarianceStructure
from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.display.vocabulary import squared_units
from mixedeffects.errors import ModelError
from mixedeffects.fitting.residual_parameters import covariance_of_times, residual_parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ResidualCovariance"]

Matrix = NDArray[np.float64]


class ResidualCovariance(CovarianceOperator, Sealed):
    """R, n x n: ``sigma^2 W^-1`` with prior weights W, or with correlations within groups of rows.

    Made by ``m.R`` for a fitted model. Nothing n x n is made until somebody asks for it.

    Parameters
    ----------
    sigma : float
        Residual standard deviation at unit weight.
    weights : ndarray, shape (n,), or None
        Prior weights.
    n : int
        Number of rows.
    residual : StructuredResidual, optional
        What R is where it is not ``sigma^2 W^-1``; it has the weights in it.
    rows : Rows, optional
        Row labels, and the factors whose levels name rows.
    name : str
        What is said of R where it is not the covariance of the residual errors.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.R.diag()[:3].round(2)
    array([654.94, 654.94, 654.94])

    With an autoregression within subjects beside a random intercept:

    >>> sleep = me.load_dataset("sleepstudy")
    >>> m = me.lmer("Reaction ~ Days + (1 | Subject)", sleep, residual="ar1(Days | Subject)")
    >>> m.R
    R: 180 x 180, 18 blocks, ar1(Days | Subject), sd 37.64, cor 0.6531
    >>> m.R.block("308").iloc[:3, :3].round(0)
            0       1       2
    0  1417.0   925.0   604.0
    1   925.0  1417.0   925.0
    2   604.0   925.0  1417.0
    """

    _letter = "R"
    _instead = "@, solve, diag and block(level) answer without it; max_gb= raises the limit."

    def __init__(
        self,
        sigma: float,
        weights: Matrix | None,
        n: int,
        residual: StructuredResidual | None = None,
        rows: Rows | None = None,
        name: str = "",
    ) -> None:
        self._sigma = sigma
        self._weights = weights
        self._size = n
        self._residual = residual
        self._given_rows = rows
        self._name = name

    @classmethod
    def _attributes_now(cls, stored: dict[str, Any]) -> dict[str, Any]:
        out = {"_residual": None, "_given_rows": None, "_name": "", **stored}
        if "_n" in out:
            out["_size"] = out.pop("_n")
        return out

    @cached_property
    def _matrix(self) -> ResidualMatrix:
        """What V is made with."""
        if self._residual is not None:
            return self._residual
        variances = np.full(self._size, self._sigma**2)
        return DiagonalResidual(variances if self._weights is None else variances / self._weights)

    @cached_property
    def _structure(self) -> CovarianceStructure:
        return CovarianceStructure((), (), self._matrix)

    @property
    def _rows(self) -> Rows:
        return self._given_rows or Rows(pd.RangeIndex(self._size), (), "R")

    # --- what it is ------------------------------------------------------------------------

    @property
    def structure(self) -> str | None:
        """What was given for ``residual=`` and ``variance=``, as it would be written.

        None where errors are independent, with one variance at unit prior weight.

        Examples
        --------
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy")
        >>> m = me.lmer("Reaction ~ Days + (1 | Subject)", sleep, residual="ar1(Days | Subject)")
        >>> m.R.structure
        'ar1(Days | Subject)'
        """
        if self._residual is None:
            return None
        term, variance = self._residual.term, self._residual.variance
        parts = [] if term is None else [term.text]
        if variance is not None:
            parts.append(f"variance by {variance.text}")
        return ", ".join(parts) or None

    @property
    def parameters(self) -> pd.Series:
        """The parameters on natural scales, a Series.

        ``Std.Dev.`` at unit prior weight, in units of the response, with the stratum and the time
        where it differs by these; ``cor``, with two times or a lag where there are several;
        ``range``, the distance in units of the position at which an exponential correlation is
        1/e; ``nugget``, the share of the variance that is not correlated. Of the columns of
        ``variance=`` those of a factor have a ``Std.Dev.`` each; others have coefficients of its
        logarithm, and ``Std.Dev.`` is then the one where they are zero.

        Examples
        --------
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy")
        >>> m = me.lmer("Reaction ~ Days + (1 | Subject)", sleep, residual="ar1(Days | Subject)")
        >>> m.R.parameters.round(3)
        Std.Dev.    37.637
        cor          0.653
        Name: Estimate, dtype: float64
        """
        if self._residual is None:
            return pd.Series([self._sigma], index=["Std.Dev."], name="Estimate")
        return residual_parameters(self._residual)

    @property
    def covariance(self) -> pd.DataFrame | dict[str, pd.DataFrame]:
        """Covariance matrix of the errors at the times that groups have in common.

        Returns
        -------
        DataFrame, T x T, or dict of str to DataFrame
            At unit prior weight, and where the columns of ``variance=`` are zero. With ``by=`` one
            for each stratum.

        Raises
        ------
        ModelError
            If there are no common times: errors are independent, or positions are numbers.

        Examples
        --------
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy").query("Days < 3")
        >>> m = me.lmer("Reaction ~ Days", sleep, residual="us(Days | Subject)")
        >>> m.R.covariance.round(0)
                0       1      2
        0  1032.0   791.0  445.0
        1   791.0  1113.0  758.0
        2   445.0   758.0  868.0
        """
        R = self._residual
        if R is None or R.term is None or R.term.times is None:
            raise ModelError(
                "R has no covariance matrix of times, because its groups of rows have no times in "
                "common. R.block(level) gives the covariance matrix of one group's rows."
            )
        times = R.term.times
        frames = [
            pd.DataFrame(covariance_of_times(R, s), index=times, columns=times)
            for s in range(R.term.n_strata)
        ]
        if R.term.strata is None:
            return frames[0]
        return dict(zip(map(str, R.term.strata), frames, strict=True))

    # --- entries ---------------------------------------------------------------------------

    def corr(self, level: Any, by: str | None = None) -> pd.DataFrame:
        """Correlations of the errors of one level.

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
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy")
        >>> m = me.lmer("Reaction ~ Days", sleep, residual="cs(1 | Subject)")
        >>> m.R.corr("308").iloc[:2, :2].round(3)
               0      1
        0  1.000  0.589
        1  0.589  1.000
        """
        block = self.block(level, by)
        sd = np.sqrt(np.diag(block))
        values = block.to_numpy() / np.outer(sd, sd)
        np.fill_diagonal(values, 1.0)
        return pd.DataFrame(values, index=block.index, columns=block.columns)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Matrix:
        """R as an ndarray, for NumPy: ``np.asarray(m.R)``."""
        return self.dense(np.inf).astype(np.float64 if dtype is None else dtype, copy=False)

    def __array_ufunc__(  # type: ignore[override]
        self, ufunc: Any, method: str, *inputs: Any, **options: Any
    ) -> Any:
        """``array @ R`` is a product with R; other functions of NumPy take R as an ndarray."""
        if ufunc is np.matmul and method == "__call__" and not options:
            return self.__rmatmul__(inputs[0])
        arrays = (np.asarray(x) if isinstance(x, ResidualCovariance) else x for x in inputs)
        return getattr(ufunc, method)(*arrays, **options)

    # --- products --------------------------------------------------------------------------

    def solve(self, B: Any) -> Matrix:
        """``R^-1 B``.

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

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> float(abs(m.R.solve(m.R @ m.y) - m.y).max()) < 1e-9
        True
        """
        x, restore = self._rows.columns(B, "R.solve(B)")
        return restore(self._matrix.solve(x))

    # --- how it looks ----------------------------------------------------------------------

    def plot(
        self, level: Any = None, by: str | None = None, *, ax: Any = None, **options: Any
    ) -> Axes:
        """Picture of R, or of one level's block with the numbers in its cells.

        Parameters
        ----------
        level, by
            As for `block`; by default all rows, in their order.
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
        >>> ax = m.R.plot("308", ax=Figure().subplots())
        >>> ax.images[0].get_array().shape
        (10, 10)
        """
        from mixedeffects.display import plots

        options.setdefault("title", f"R, {self._name or 'covariance of the residual errors'}")
        if options.get("kind") != "correlation":
            options.setdefault("units", squared_units(self._name))
        if level is not None:
            return plots.covariance(self.block(level, by), ax=ax, **options)
        if by is not None:
            raise ModelError("by= says what level= is a level of: give level too, or neither.")
        picture = PictureOfV(self._structure)
        return plots.covariance(picture, ax=ax, **options)

    def __repr__(self) -> str:
        if self._name:
            low, high = (float(bound) for bound in (self.diag().min(), self.diag().max()))
            return f"R, {self._name}: {self._n} x {self._n}, diagonal, {low:.4g} to {high:.4g}"
        if self._residual is None or self.structure is None:
            weighted = "" if self._weights is None else ", divided by the prior weights"
            return f"R: {self._n} x {self._n}, diagonal: {self._sigma**2:.6g}{weighted}"
        groupings = self._residual.groupings
        blocks = f"{groupings[0].n_levels} blocks" if groupings else "diagonal"
        parts = [f"R: {self._n} x {self._n}", blocks, str(self.structure)]
        parameters = self.parameters
        for name, label in (("Std.Dev.", "sd"), *((n, n) for n in ("cor", "range", "nugget"))):
            own = parameters[[str(key).split(" ")[0] == name for key in parameters.index]]
            if len(own):
                low, high = float(own.min()), float(own.max())
                between = f" to {high:.4g}" if len(own) > 1 else ""
                parts.append(f"{label} {low:.4g}{between}")
        return ", ".join(parts)
