"""The semivariogram of the residuals, and the one that V implies.

For rows i, j of one cluster, at distance ``|t_i - t_j|``,

    empirical  (r_i - r_j)^2 / 2              implied  (V_ii + V_jj - 2 V_ij) / 2

averaged over the pairs of a bin. Pairs are numbered, cluster by cluster, and decoded from their
numbers in pieces, so no cluster's pairs are ever all in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.base.options import checked_choice, is_whole_number, plain
from mixedeffects.covariance.groups import find_factor
from mixedeffects.covariance.of_fit import G_of
from mixedeffects.covariance.of_residuals import (
    blocks_of_rows,
    factors_of_rows,
    residual_semivariances,
)
from mixedeffects.covariance.sizes import refuse_beyond_memory
from mixedeffects.diagnostics.residuals import residuals
from mixedeffects.diagnostics.variogram_plot import Drawing, draw_variogram
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.request import given_table
from mixedeffects.frame.columns import describe_type
from mixedeffects.frame.ingest import materialised, take_columns, values_of_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["VARIOGRAM_KINDS", "Bins", "PairsInBins", "Variogram", "clusters_of", "variogram"]

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]
Bins = int | Sequence[float] | None

VARIOGRAM_KINDS = ("marginal", "cholesky", "symmetric")

#: Up to so many different distances get a bin each.
_DISTINCT = 20
#: Otherwise there are so many bins of equal width.
_EQUAL_BINS = 12
#: Distances closer than this, relative to the largest, are the same.
_SAME = 1e-9
_CHUNK = 250_000


@dataclass(frozen=True, eq=False)
class Variogram:
    """Empirical and implied semivariogram, made by `LinearMixedModel.variogram`.

    Attributes
    ----------
    table : DataFrame
        One row per bin: ``distance``, the mean distance of its pairs; ``n_pairs``; ``empirical``,
        the mean of half the squared differences of residuals; ``implied``, what V makes of the
        same pairs. In squared units of the response (without units for whitened residuals). Of a
        generalized model ``implied`` is the mean of data sets drawn from it, and between
        ``lower`` and ``upper`` are those of the level asked for, bin by bin.
    kind : str
        Which residuals.
    by : str
        The clusters: a grouping factor, or ``"connected blocks"``.
    distance : str
        Name of the distance.
    n_pairs : int
        Pairs used.
    n_pairs_total : int
        Pairs there are within clusters.
    n_outside : int
        Pairs used that fall into none of the bins given.
    draws : int
        Data sets drawn; zero where V says what is implied.
    level : float
        Share of them between ``lower`` and ``upper``.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (1 | Subject)", me.load_dataset("sleepstudy"))
    >>> m.variogram("Days", bins=3)
    Semivariogram of the marginal residuals within Subject: 810 pairs
     distance  n_pairs  empirical  implied
       1.9167      432     694.81   960.46
       4.8667      270     1155.5   960.46
       7.6667      108     1491.1   960.46
    """

    table: pd.DataFrame
    kind: str
    by: str
    distance: str
    n_pairs: int
    n_pairs_total: int
    n_outside: int = 0
    draws: int = 0
    level: float = 0.95

    @property
    def is_sampled(self) -> bool:
        """Whether only a sample of the pairs was used."""
        return self.n_pairs < self.n_pairs_total

    def plot(self, *, ax: Any = None, units: str | None = None) -> Axes:
        """Draw both semivariograms against the distance.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        units : str, optional
            Squared units of the response, for example ``"ms²"``, for the label of the axis.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> ax = m.variogram("Days").plot(ax=Figure().subplots(), units="ms²")
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('difference in Days', 'semivariance (ms²)')
        """
        return draw_variogram(
            self.table, self.distance, self._drawn_as(), self.sentence(), ax, units
        )

    def _drawn_as(self) -> Drawing:
        """What the picture calls residuals and what is implied."""
        if not self.draws:
            return Drawing(self.kind == "marginal")
        return Drawing(
            False,
            f" of {_residuals(self.kind)}",
            f"mean of {self.draws:,} data sets drawn",
            f"{100.0 * self.level:.3g} % of them",
        )

    def sentence(self) -> str:
        """What was averaged, in words.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.variogram("Days").sentence()
        'Semivariogram of the marginal residuals within Subject: 810 pairs'
        """
        text = f"Semivariogram of the {_residuals(self.kind)} within {self.by}: "
        text += (
            f"{self.n_pairs:,} of {self.n_pairs_total:,} pairs, sampled"
            if self.is_sampled
            else f"{self.n_pairs:,} pairs"
        )
        if self.draws:
            text += f", beside {self.draws:,} data sets drawn"
        if self.n_outside:
            text += f"; {self.n_outside:,} of them outside the bins"
        return text

    def __repr__(self) -> str:
        table = self.table.to_string(index=False, float_format="{:.5g}".format)
        return f"{self.sentence()}\n{table}"


def _residuals(kind: str) -> str:
    if kind == "pearson":
        return "Pearson residuals"
    plain_kind = kind in ("marginal", "quantile")
    return f"{kind} residuals" if plain_kind else f"whitened residuals ({kind})"


def variogram(
    fit: Fit,
    distance: Any,
    by: str | None = None,
    kind: str = "marginal",
    bins: Bins = None,
    max_pairs: int = 2_000_000,
) -> Variogram:
    """Semivariogram of a model's residuals; see `LinearMixedModel.variogram`.

    Raises
    ------
    DataError
        If the distances are missing, not finite or not numbers.
    ModelError
        If ``kind``, ``by``, ``bins`` or ``max_pairs`` is not what it should be, or no cluster has
        two rows.
    """
    kind = checked_choice(kind, "Variogram kind", VARIOGRAM_KINDS)
    pairs = PairsInBins(fit, distance, by, bins, max_pairs)
    residual = residuals(fit, kind)
    implied = pairs.means(
        lambda i, j: _implied(fit, i, j) if kind == "marginal" else np.ones(len(i))
    )
    table = ResultTable(
        {**pairs.columns(), "empirical": pairs.semivariances(residual), "implied": implied}
    )
    return pairs.result(table, kind)


class PairsInBins:
    """The pairs of rows of a semivariogram, by bins of their distances.

    Parameters
    ----------
    fit : Fit
        The fit.
    distance, by, bins, max_pairs
        As for `variogram`.

    Raises
    ------
    DataError, ModelError
        As for `variogram`.
    """

    def __init__(self, fit: Fit, distance: Any, by: str | None, bins: Bins, max_pairs: int) -> None:
        if not is_whole_number(max_pairs):
            raise ModelError(f"max_pairs must be a whole number above zero, not {max_pairs!r:.60}.")
        self._t, self.name = _distances(fit, distance)
        clusters, self.label = clusters_of(fit, by)
        self._pairs = _Pairs(clusters, int(max_pairs))
        if not self._pairs.total:
            raise ModelError(f"No two rows share a level of {self.label}, so there are no pairs.")
        self._edges = _edges(self._t, self._pairs, bins)
        self._outside = 0
        sums = np.zeros((2, len(self._edges) - 1))
        for i, j, at, outside in self._binned():
            apart = np.abs(self._t[i] - self._t[j])
            sums[0] += np.bincount(at, apart, sums.shape[1])
            sums[1] += np.bincount(at, None, sums.shape[1])
            self._outside += outside
        self._used = sums[1] > 0
        self._count = sums[1, self._used]
        self._distance = sums[0, self._used] / self._count

    def _binned(self) -> Iterator[tuple[Integers, Integers, Integers, int]]:
        """Rows of the pairs inside the bins, in pieces; their bins, and how many are outside."""
        t, edges = self._t, self._edges
        for i, j in self._pairs:
            apart = np.abs(t[i] - t[j])
            at = np.searchsorted(edges, apart, side="right") - 1
            # The last bin includes its upper edge.
            at[apart == edges[-1]] = len(edges) - 2
            inside = (at >= 0) & (at < len(edges) - 1)
            yield i[inside], j[inside], at[inside], int((~inside).sum())

    def means(self, of_pairs: Callable[[Integers, Integers], Matrix]) -> Matrix:
        """The mean of something of each pair in every bin that has one."""
        total = np.zeros(len(self._edges) - 1)
        for i, j, at, _ in self._binned():
            total += np.bincount(at, of_pairs(i, j), len(total))
        return np.asarray(total[self._used] / self._count)

    def semivariances(self, residual: Matrix) -> Matrix:
        """Means of half the squared differences."""
        return self.means(lambda i, j: 0.5 * (residual[i] - residual[j]) ** 2)

    def columns(self) -> dict[str, Any]:
        """Mean distance and number of pairs of each bin."""
        return {"distance": self._distance, "n_pairs": self._count.astype(np.int64)}

    def result(
        self, table: pd.DataFrame, kind: str, draws: int = 0, level: float = 0.95
    ) -> Variogram:
        """The semivariogram with this table."""
        used, total = self._pairs.used, self._pairs.total
        return Variogram(
            table, kind, self.label, self.name, used, total, self._outside, draws, level
        )


def _implied(fit: Fit, i: Integers, j: Integers) -> Matrix:
    """``(V_ii + V_jj - 2 V_ij) / 2`` of each pair of different rows."""
    out = residual_semivariances(fit, i, j)
    for term in fit.frame.terms:
        G = G_of(fit)[term.label].to_numpy()
        same = term.codes[i] == term.codes[j]
        zi, zj = term.z[i], term.z[j]
        # Where the level is shared only the difference of the columns is left, without cancelling.
        shared = np.where(same[:, None], zi - zj, zi)
        out += 0.5 * np.einsum("ia,ab,ib->i", shared, G, shared)
        out += 0.5 * np.where(same, 0.0, np.einsum("ia,ab,ib->i", zj, G, zj))
    return out


def clusters_of(fit: Fit, by: str | None) -> tuple[Integers, str]:
    """Number of each row's cluster, and what the clusters are called."""
    terms = factors_of_rows(fit)
    if by is not None:
        term = find_factor(terms, by)
        return term.codes.astype(np.int64), term.group
    if not terms:
        raise ModelError(
            "The model has no groups of rows, neither of random effects nor of residuals: by= "
            "cannot name one, and no two rows are related."
        )
    groups = {term.group for term in terms}
    blocks = blocks_of_rows(fit)
    outermost = min(reversed(terms), key=lambda term: term.n_levels)
    if len(groups) == 1 or blocks.max() == 0:
        return outermost.codes.astype(np.int64), outermost.group
    same = len(np.unique(outermost.codes)) == blocks.max() + 1
    return blocks, outermost.group if same else "connected blocks"


def _distances(fit: Fit, distance: Any) -> tuple[Matrix, str]:
    """Positions of the rows used on the axis of the distance, and its name."""
    frame = fit.frame
    if isinstance(distance, str):
        name = distance
        values: Any = take_columns(materialised(given_table(fit.request)), [name])[name].iloc[
            frame.positions
        ]
    else:
        name = str(getattr(distance, "name", None) or "distance")
        values = distance
    n_rows = fit.nobs + len(frame.dropped.rows)
    series = values_of_rows(f"the distance {name!r}", values, frame.index, frame.positions, n_rows)
    if not pd.api.types.is_numeric_dtype(series.dtype) or series.dtype.kind == "c":
        raise DataError(
            f"The distance {name!r} holds {describe_type(series)}; numbers are needed, for example "
            "days since a start."
        )
    t = series.to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(t).all():
        raise DataError(
            f"The distance {name!r} has {int((~np.isfinite(t)).sum())} values that are missing or "
            "not finite in the rows used."
        )
    return t, name


class _Pairs:
    """Pairs of rows within clusters, in pieces; a sample of them where there are too many.

    The sample is stratified: the numbered pairs are cut into as many stretches of equal length as
    pairs are wanted, and one is drawn from each, so every cluster is there in proportion. The seed
    is fixed: the same data give the same pairs.
    """

    def __init__(self, clusters: Integers, most: int) -> None:
        self._order = np.argsort(clusters, kind="stable")
        sizes = np.bincount(clusters)
        self._first = np.cumsum(sizes) - sizes
        self._ends = np.cumsum(sizes * (sizes - 1) // 2)
        self.total = int(self._ends[-1])
        self._sample: Integers | None = None
        self.used = self.total
        if self.total > most:
            self.used = most
            whole, rest = divmod(self.total, most)
            edges = np.arange(most + 1, dtype=np.int64)
            edges = edges * whole + edges * rest // most
            share = np.random.default_rng(0).random(most)
            self._sample = edges[:-1] + (share * np.diff(edges)).astype(np.int64)

    def __iter__(self) -> Iterator[tuple[Integers, Integers]]:
        for start in range(0, self.used, _CHUNK):
            stop = min(start + _CHUNK, self.used)
            yield self._rows(
                np.arange(start, stop) if self._sample is None else self._sample[start:stop]
            )

    def _rows(self, number: Integers) -> tuple[Integers, Integers]:
        cluster = np.searchsorted(self._ends, number, side="right")
        before = np.concatenate([[0], self._ends[:-1]])[cluster]
        later, earlier = _decode(number - before)
        first = self._first[cluster]
        return self._order[first + earlier], self._order[first + later]


def _decode(number: Integers) -> tuple[Integers, Integers]:
    """(a, b) with a > b >= 0 and ``number = a (a - 1) / 2 + b``."""
    a = ((1.0 + np.sqrt(1.0 + 8.0 * number)) / 2.0).astype(np.int64)
    # The root may be off by one in its last digit.
    a -= a * (a - 1) // 2 > number
    a += a * (a + 1) // 2 <= number
    return a, number - a * (a - 1) // 2


def _edges(t: Matrix, pairs: _Pairs, bins: Bins) -> Matrix:
    """Edges of the bins, ascending."""
    bins = plain(bins)
    if bins is not None and (isinstance(bins, bool) or not isinstance(bins, int)):
        return _checked_edges(bins)
    if bins is not None and bins < 1:
        raise ModelError(f"bins must be at least 1, or edges in ascending order; got {bins}.")
    low, high, distinct = np.inf, 0.0, np.zeros(0)
    tolerance = _SAME * float(np.ptp(t)) or 1.0
    for i, j in pairs:
        apart = np.abs(t[i] - t[j])
        low, high = min(low, float(apart.min())), max(high, float(apart.max()))
        if len(distinct) <= _DISTINCT:
            distinct = np.unique(np.append(distinct, np.round(apart / tolerance)))
    if bins is None and len(distinct) <= _DISTINCT:
        centres = distinct * tolerance
        middle = 0.5 * (centres[1:] + centres[:-1])
        return np.concatenate([[low - tolerance], middle, [high + tolerance]])
    if high == low:
        return np.array([low - tolerance, high + tolerance])
    if bins is not None:
        # Edges, and four sums with as many again in the making.
        refuse_beyond_memory(72.0 * float(bins), f"{bins:,} bins", "Use fewer.")
    return np.linspace(low, high, (_EQUAL_BINS if bins is None else int(bins)) + 1)


def _checked_edges(bins: Any) -> Matrix:
    try:
        edges = number_array(bins, "bins", ModelError)
    except ModelError:
        edges = np.zeros(0)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ModelError(
            "bins must be a number of bins, or at least two edges in ascending order; "
            f"got {bins!r:.60}."
        )
    return edges
