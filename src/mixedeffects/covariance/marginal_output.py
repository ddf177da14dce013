"""Methods of V that write it to a file or draw it: save, plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.covariance.export import check_target, save_matrix
from mixedeffects.covariance.operator import CovarianceOperator
from mixedeffects.covariance.pictures import PictureOfV, plot_V
from mixedeffects.errors import ModelError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["OutputOfV"]


class OutputOfV(CovarianceOperator):
    """The part of `MarginalCovariance` that shows it to people and other programs."""

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
    ) -> Axes:
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
        return PictureOfV(self._structure, rows)
