"""Where means and effects are drawn: along the axis, in which series, in which panel."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.display.curves import Curve, Panel
from mixedeffects.frame.columns import labels_of
from mixedeffects.inference.grid_averages import GridAverage

__all__ = ["Layout", "layout_of", "layout_of_means"]

Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Layout:
    """The place of each row of a table of means.

    Attributes
    ----------
    x : ndarray, shape (means,)
        Values of a number, or positions of levels.
    categories : tuple of str or None
        The levels; None for a number.
    series, panel : ndarray of int, shape (means,)
        Colours and facets.
    series_names, panel_names : tuple of str
        Their labels.
    names : tuple of str
        The variable along the axis (or none), and those that make the series.
    ordered : bool
        Whether the series are values of one number.
    """

    x: Matrix
    categories: tuple[str, ...] | None
    series: Codes
    panel: Codes
    series_names: tuple[str, ...]
    panel_names: tuple[str, ...]
    names: tuple[str, ...]
    ordered: bool

    @property
    def x_name(self) -> str:
        """The name of the axis."""
        return self.names[0] if self.names else ""

    @property
    def series_name(self) -> str:
        """The heading of the legend."""
        return ", ".join(self.names[1:])

    def panels(
        self, table: pd.DataFrame, texts: Sequence[str] = (), arrows: Matrix | None = None
    ) -> list[Panel]:
        """The curves of each panel.

        Parameters
        ----------
        table : DataFrame
            Estimates and the ends of intervals, columns ``estimate``, ``conf_low``, ``conf_high``.
        texts : sequence of str
            For each mean.
        arrows : ndarray, shape (means, 2), or None
            For each mean the lengths of its arrows.
        """
        y, low, high = (
            table[name].to_numpy(dtype=np.float64) for name in ("estimate", "conf_low", "conf_high")
        )
        out = []
        for p, title in enumerate(self.panel_names):
            curves = []
            for s in range(len(self.series_names)):
                rows = np.flatnonzero((self.panel == p) & (self.series == s))
                rows = rows[np.argsort(self.x[rows], kind="stable")]
                if len(rows):
                    curves.append(
                        Curve(
                            s,
                            self.x[rows],
                            y[rows],
                            low[rows],
                            high[rows],
                            tuple(texts[int(i)] for i in rows) if len(texts) else (),
                            None if arrows is None else arrows[rows],
                        )
                    )
            out.append(Panel(title, tuple(curves)))
        return out


def layout_of(levels: pd.DataFrame, by: Sequence[str], factors: Collection[str] = ()) -> Layout:
    """Place means: the first variable along the axis, others in colours, those of ``by`` in panels.

    Parameters
    ----------
    levels : DataFrame
        The levels or values of each mean.
    by : sequence of str
        Columns that make the panels.
    factors : collection of str
        Columns of numbers whose values the formula takes as levels.
    """
    own = [str(name) for name in levels if name not in by]
    categories: tuple[str, ...] | None = ("overall",)
    x = np.zeros(len(levels))
    if own:
        first = levels[own[0]]
        if isinstance(first.dtype, pd.CategoricalDtype):
            categories = tuple(labels_of(first.cat.categories.tolist()))
            x = first.cat.codes.to_numpy().astype(np.float64)
        elif own[0] in factors:
            values, codes = np.unique(first.to_numpy(), return_inverse=True)
            categories, x = tuple(labels_of(values.tolist())), codes.astype(np.float64)
        else:
            categories, x = None, first.to_numpy(dtype=np.float64)
    series, series_names = _combined(levels[own[1:]], named=False)
    panel, panel_names = _combined(levels[list(by)], named=True)
    ordered = (
        len(own) == 2
        and own[1] not in factors
        and not isinstance(levels[own[1]].dtype, pd.CategoricalDtype)
    )
    return Layout(x, categories, series, panel, series_names, panel_names, tuple(own), ordered)


class Placed(Protocol):
    """What has a place: means over a grid."""

    @property
    def levels(self) -> pd.DataFrame:
        """Levels of each mean."""
        ...

    @property
    def by(self) -> tuple[str, ...]:
        """Factors that make the panels."""
        ...

    @property
    def average(self) -> GridAverage:
        """The grid."""
        ...


def layout_of_means(means: Placed) -> Layout:
    """Place means; numbers that the formula makes categories of have places as levels have.

    Parameters
    ----------
    means : Placed
        The means.
    """
    return layout_of(means.levels, means.by, means.average.grid.numbers_as_factors)


def _combined(levels: pd.DataFrame, named: bool) -> tuple[Codes, tuple[str, ...]]:
    """The combinations of some columns in the order of their levels, and their labels."""
    if not levels.shape[1] or not len(levels):
        return np.zeros(len(levels), dtype=np.intp), ("",)
    codes, labels = [], []
    for name in levels:
        column = levels[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            codes.append(column.cat.codes.to_numpy().astype(np.intp))
            texts = labels_of(column.cat.categories.tolist())
        else:
            values, own = np.unique(column.to_numpy(), return_inverse=True)
            codes.append(own.astype(np.intp))
            texts = [f"{value:.4g}" for value in values]
        labels.append([f"{name}: {text}" if named else text for text in texts])
    shape = tuple(len(each) for each in labels)
    flat = np.ravel_multi_index(tuple(codes), shape)
    found, positions = np.unique(flat, return_inverse=True)
    texts = [
        ", ".join(own[i] for own, i in zip(labels, at, strict=True))
        for at in zip(*np.unravel_index(found, shape), strict=True)
    ]
    return positions.astype(np.intp), tuple(texts)
