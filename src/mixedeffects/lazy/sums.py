"""The queries that make the sums of a model, and what comes back as `GroupedSums`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.scratch import IN_MEMORY, Pieces, Scratch
from mixedeffects.engine.grouped_sums import FactorSums, GroupedSums, PairSums, SumColumns
from mixedeffects.errors import DataError
from mixedeffects.frame.grouping import GroupColumn, Grouping, combine, read_group
from mixedeffects.frame.ingest import take_columns
from mixedeffects.lazy.model import LazyModel

__all__ = [
    "LevelSums",
    "ProductQueries",
    "RowsInTable",
    "all_products",
    "given_response_sums",
    "level_sums",
    "square_of",
    "symmetric_products",
    "unweighted_sums",
]

Matrix = NDArray[np.float64]

#: Columns up to which all products are summed by the first factor, and over all rows from these.
_FEW_COLUMNS = 10
#: Departure of a sum from the first that is rounding of sums made in another order.
_SAME = 1e-7


@dataclass(frozen=True, eq=False)
class LevelSums:
    """Sums by level, with the levels.

    Attributes
    ----------
    sums : GroupedSums
        The sums.
    groupings : tuple of Grouping
        Labels and values of the levels of each grouping factor; ``codes`` are 0, 1, ...
    guard : (int, float)
        Number of rows, and sum of the response, by which another table is known.
    """

    sums: GroupedSums
    groupings: tuple[Grouping, ...]
    guard: tuple[int, float]


@dataclass(frozen=True, eq=False)
class RowsInTable:
    """What further passes over the table of a fit need.

    Attributes
    ----------
    model : LazyModel
        The model on it.
    columns : SumColumns
        Which columns of the design are X, without those dropped for rank, Z and y, with the terms
        in the order of the fit.
    sums : GroupedSums
        Over all rows, without those by level.
    guard : (int, float)
        See `LevelSums`.
    """

    model: LazyModel
    columns: SumColumns
    sums: GroupedSums
    guard: tuple[int, float]


class ProductQueries:
    """Sums of products over the rows of a model.

    Parameters
    ----------
    model : LazyModel
        The model.
    first : (int, float), optional
        Number of rows and sum of the response that there must be, those of the fit; by default
        what the first query finds.
    """

    def __init__(self, model: LazyModel, first: tuple[int, float] | None = None) -> None:
        self.model, self.first = model, first

    def sums(
        self,
        keys: Sequence[str],
        products: Sequence[tuple[int, int]],
        what: str,
        *,
        by_weight: bool = False,
    ) -> pd.DataFrame:
        """Sums of ``w u_i u_j`` by some keys, with the number of rows and the sum of y.

        Parameters
        ----------
        keys : sequence of str
            Columns of the table, none for sums over all rows.
        products : sequence of (int, int)
            Which columns are multiplied.
        what : str
            What it is for.
        by_weight : bool
            Also by the weight, in a column ``w``.

        Returns
        -------
        DataFrame
            The keys; ``rows``; ``guard``, the sum of y; ``p0``, ``p1``, ... the products; with
            weights ``logw``, the sum of their logarithms.
        """
        query = self._query(keys, products, by_weight)
        table = self.model.table.run(query, what)
        self.check(table, what)
        return table

    def batches(
        self, keys: Sequence[str], products: Sequence[tuple[int, int]], what: str
    ) -> Iterator[Any]:
        """The same in pieces, as frames of narwhals."""
        n, y = 0, 0.0
        for batch in self.model.table.batches(self._query(keys, products, False), what):
            n += int(batch["rows"].sum())
            y += float(batch["guard"].sum())
            yield batch
        self._check(n, y, what)

    def _query(
        self, keys: Sequence[str], products: Sequence[tuple[int, int]], by_weight: bool
    ) -> Any:
        import narwhals as nw

        weighted = self.model.weights is not None

        def product(i: int, j: int) -> Any:
            factors = [nw.col(f"u{c}") for c in (i, j) if c]
            if weighted:
                factors.append(nw.col("w"))
            if not factors:
                return nw.lit(1.0)
            out = factors[0]
            for each in factors[1:]:
                out = out * each
            return out

        aliases = [f"k{i}" for i in range(len(keys))] + ["w"] * (by_weight and weighted)
        # What the number of rows or the guard says already is not summed twice.
        response = self.model.columns.response
        known = {} if weighted else {(0, 0): "rows", (0, response): "guard"}
        rows = self.model.rows(keys).select(
            *(nw.col(alias) for alias in aliases),
            *(product(*p).alias(f"p{c}") for c, p in enumerate(products) if p not in known),
            *([nw.col("w").log().alias("logw")] if weighted else []),
            nw.col(f"u{response}").alias("guard"),
        )
        totals = [
            nw.col("guard").sum(),
            *(nw.col(f"p{c}").sum() for c, p in enumerate(products) if p not in known),
        ]
        if weighted:
            totals.append(nw.col("logw").sum())
        if keys:
            answer = rows.group_by(*aliases).agg(nw.len().alias("rows"), *totals)
        else:
            answer = rows.select(nw.len().alias("rows"), *totals)
        again = [
            nw.col(known[p]).cast(nw.Float64).alias(f"p{c}")
            for c, p in enumerate(products)
            if p in known
        ]
        return answer.with_columns(*again) if again else answer

    def check(self, table: pd.DataFrame, what: str) -> None:
        """Refuse a table whose rows are other ones than before.

        Parameters
        ----------
        table : DataFrame
            With ``rows``, and in ``guard`` the sum of the response less centre and by scale.
        what : str
            What was asked.
        """
        self._check(int(table["rows"].sum()), float(table["guard"].sum()), what)

    def _check(self, n: int, y: float, what: str) -> None:
        if self.first is None:
            self.first = (self.model.moments.n, y)
        first_n, first_y = self.first
        if n != first_n:
            raise DataError(
                f"The table changed between passes: the model had {first_n:,} rows, and in the "
                f"query for {what} there were {n:,}. Fit to a snapshot of it: a table that does "
                "not change, or a file."
            )
        if not abs(y - first_y) <= _SAME * max(np.sqrt(n), abs(first_y)):
            raise DataError(
                f"The table changed between passes: in the query for {what} the response had "
                "another sum. Fit to a snapshot of it: a table that does not change, or a file; "
                "a sample or an order by random numbers is drawn anew in each query."
            )


def all_products(m: int) -> list[tuple[int, int]]:
    """All pairs of m columns, each once."""
    return list(combinations_with_replacement(range(m), 2))


def level_sums(model: LazyModel, scratch: Scratch = IN_MEMORY) -> LevelSums:
    """Sum the products of a model's columns, over all rows and by levels.

    Parameters
    ----------
    model : LazyModel
        The model.
    scratch : Scratch
        Where what there is for each level is kept.

    Raises
    ------
    DataError
        If the table changed in between.
    """
    m = len(model.design.keys)
    queries = ProductQueries(model)
    own = _own_columns(model)
    n_groups = len(model.groups)
    everything = all_products(m)
    total, log_weights = None, 0.0
    if m > _FEW_COLUMNS or n_groups == 0 or model.weights is not None:
        table = queries.sums((), everything, "all rows")
        total = symmetric_products(table, everything, m)[0]
        if model.weights is not None:
            log_weights = float(table["logw"].iloc[0])
    factors: list[FactorSums] = []
    groupings: list[Grouping] = []
    columns: list[list[GroupColumn]] = []
    for g, (name, variables) in enumerate(model.groups):
        wanted = everything if total is None else _products_of(own[g], m)
        answer = _by_level(queries, variables, wanted, own[g], f"levels of {name}", scratch)
        if total is None:
            total = np.empty((m, m))
            for (i, j), value in zip(wanted, answer.totals, strict=True):
                total[i, j] = total[j, i] = value
        parts = [read_group(key.rename(v)) for key, v in zip(answer.keys, variables, strict=True)]
        grouping = combine(parts, variables)
        order = np.argsort(grouping.codes)
        products = answer.products.sorted(grouping.codes)
        parts = [GroupColumn(p.codes[order], p.uniques, p.declared) for p in parts]
        # The columns are looked at again where there are pairs of levels.
        columns.append(parts if n_groups > 1 else [])
        codes = np.arange(len(order), dtype=np.int32)
        groupings.append(Grouping(codes, grouping.values, grouping.unused))
        factors.append(FactorSums(own[g], products, answer.rows[order]))
    assert total is not None
    pairs = []
    for s, t in combinations(range(n_groups), 2):
        pairs.append(_pair(model, queries, own, factors, columns, s, t))
    n = model.moments.n
    sums = GroupedSums(
        tuple(model.design.keys),
        model.moments.centre,
        model.moments.scale,
        n,
        float(total[0, 0]),
        log_weights,
        total,
        tuple(factors),
        tuple(pairs),
    )
    assert queries.first is not None
    return LevelSums(sums, tuple(groupings), queries.first)


def square_of(model: LazyModel, weights: Matrix) -> float:
    """``sum w r^2`` of a combination r of the columns u, made a column first.

    Parameters
    ----------
    model : LazyModel
        The model.
    weights : ndarray, shape (M,)
        What the columns are multiplied with.
    """
    import narwhals as nw

    terms = [nw.col(f"u{j}") * float(v) for j, v in enumerate(weights) if j and v != 0.0]
    constant = nw.lit(float(weights[0]))
    rest = reduce(lambda a, b: a + b, terms, constant)
    square = rest * rest if model.weights is None else rest * rest * nw.col("w")
    query = model.rows(()).select(square.alias("square")).select(nw.col("square").sum())
    return float(model.table.run(query, "what is left of a column")["square"].iloc[0])


def given_response_sums(rows: RowsInTable) -> tuple[float, float]:
    """``sum w y`` and ``sum w y^2`` of the response as given, whatever the offset."""
    import narwhals as nw

    model = rows.model
    y = model.response.alias("y")
    columns = [y] if model.weights is None else [y, model.weights.alias("w")]
    own = nw.col("y") if model.weights is None else nw.col("y") * nw.col("w")
    query = model.table.frame.filter(model.complete).select(*columns)
    query = query.select(own.alias("total"), (own * nw.col("y")).alias("squares"))
    query = query.select(nw.col("total").sum(), nw.col("squares").sum())
    row = model.table.run(query, "sums of the response").iloc[0]
    return float(row["total"]), float(row["squares"])


def unweighted_sums(rows: RowsInTable) -> tuple[GroupedSums, float]:
    """Sums over all rows without the weights, and the mean of their inverses."""
    import narwhals as nw

    model = rows.model
    m = len(model.design.keys)
    everything = all_products(m)
    plain = replace(model, weights=None)
    table = ProductQueries(plain, rows.guard).sums((), everything, "unweighted products")
    total = symmetric_products(table, everything, m)[0]
    inverse = model.rows(()).select((1.0 / nw.col("w")).mean().alias("mean"))
    mean = float(model.table.run(inverse, "inverse weights")["mean"].iloc[0])
    sums = replace(rows.sums, total=total, sum_weights=float(rows.sums.n), sum_log_weights=0.0)
    return sums, mean


def _own_columns(model: LazyModel) -> list[tuple[int, ...]]:
    """For each grouping factor the columns of its terms, the constant first."""
    own = []
    for g in range(len(model.groups)):
        columns = {c for term in model.columns.terms if term.factor == g for c in term.columns}
        own.append(tuple(sorted({0, *columns})))
    return own


def _products_of(own: Sequence[int], m: int) -> list[tuple[int, int]]:
    return sorted({(min(i, j), max(i, j)) for i in own for j in range(m)})


def symmetric_products(table: pd.DataFrame, products: Sequence[tuple[int, int]], m: int) -> Matrix:
    """Products of an answer as matrices, shape (rows, M, M)."""
    out = np.empty((len(table), m, m))
    for c, (i, j) in enumerate(products):
        out[:, i, j] = out[:, j, i] = table[f"p{c}"].to_numpy(dtype=np.float64)
    return out


@dataclass(frozen=True, eq=False)
class _LevelAnswer:
    """What the query by levels gave, in the order in which it came.

    Attributes
    ----------
    keys : list of Series
        Values of the columns that make the levels.
    rows : ndarray of int
        Number of rows of each.
    products : Pieces
        Of the columns of a factor with all, (a, M) for each level.
    totals : ndarray
        Sums of all products asked for.
    """

    keys: list[pd.Series[Any]]
    rows: NDArray[np.int64]
    products: Pieces
    totals: Matrix


def _by_level(
    queries: ProductQueries,
    variables: Sequence[str],
    wanted: Sequence[tuple[int, int]],
    own: Sequence[int],
    what: str,
    scratch: Scratch,
) -> _LevelAnswer:
    m = len(queries.model.design.keys)
    aliases = [f"k{i}" for i in range(len(variables))]
    keys: list[pd.DataFrame] = []
    rows: list[NDArray[np.int64]] = []
    totals = np.zeros(len(wanted))
    products = scratch.pieces((len(own), m))
    for batch in queries.batches(variables, wanted, what):
        keys.append(take_columns(batch, aliases))
        rows.append(np.array(batch["rows"].to_numpy(), dtype=np.int64))
        piece = np.empty((len(batch), len(own), m))
        for c, (i, j) in enumerate(wanted):
            column = np.asarray(batch[f"p{c}"].to_numpy(), dtype=np.float64)
            totals[c] += column.sum()
            for a, b in {(i, j), (j, i)}:
                if a in own:
                    piece[:, own.index(a), b] = column
        products.append(piece)
    table = keys[0] if len(keys) == 1 else pd.concat(keys, ignore_index=True)
    return _LevelAnswer([table[alias] for alias in aliases], np.concatenate(rows), products, totals)


def _pair(
    model: LazyModel,
    queries: ProductQueries,
    own: Sequence[tuple[int, ...]],
    factors: Sequence[FactorSums],
    columns: Sequence[list[GroupColumn]],
    s: int,
    t: int,
) -> PairSums:
    """Sums by the pairs of levels of two factors."""
    names = [model.groups[s][1], model.groups[t][1]]
    for one, other, turned in ((s, t, False), (t, s, True)):
        inner, outer = model.groups[one][1], model.groups[other][1]
        if set(outer) <= set(inner):
            # Nested by name: each level of the inner factor is a pair.
            at = [inner.index(name) for name in outer]
            codes = _codes([columns[one][i] for i in at], columns[other])
            each = np.arange(factors[one].n_levels, dtype=np.int32)
            products = factors[one].products[:, :, list(own[other])]
            rows = factors[one].rows
            if turned:
                return PairSums((s, t), (codes, each), products.transpose(0, 2, 1), rows)
            return PairSums((s, t), (each, codes), products, rows)
    wanted = sorted({(min(i, j), max(i, j)) for i in own[s] for j in own[t]})
    keys = tuple(dict.fromkeys([*names[0], *names[1]]))
    what = f"pairs of {model.groups[s][0]} and {model.groups[t][0]}"
    table = queries.sums(keys, wanted, what)
    found = {v: read_group(table[f"k{i}"].rename(v)) for i, v in enumerate(keys)}
    of_pairs = [
        _codes([found[v] for v in part], columns[f]) for part, f in zip(names, (s, t), strict=True)
    ]
    at_product = {pair: c for c, pair in enumerate(wanted)}
    products = np.empty((len(table), len(own[s]), len(own[t])))
    for a, i in enumerate(own[s]):
        for b, j in enumerate(own[t]):
            column = table[f"p{at_product[min(i, j), max(i, j)]}"]
            products[:, a, b] = column.to_numpy(dtype=np.float64)
    return PairSums(
        (s, t), (of_pairs[0], of_pairs[1]), products, table["rows"].to_numpy(dtype=np.int64)
    )


def _codes(found: Sequence[GroupColumn], known: Sequence[GroupColumn]) -> NDArray[np.int32]:
    """Levels of a factor, one for each row of ``known``, that rows of other values have."""
    n = len(found[0].codes)
    level = np.zeros(len(known[0].codes), dtype=np.int64)
    row = np.zeros(n, dtype=np.int64)
    for new, old in zip(found, known, strict=True):
        where = old.uniques.get_indexer(new.uniques)
        level = level * len(old.uniques) + old.codes
        row = row * len(old.uniques) + where[new.codes]
        # Renumbered without gaps, so that no product is too large.
        numbers, level = np.unique(level, return_inverse=True)
        place = np.minimum(np.searchsorted(numbers, row), len(numbers) - 1)
        if (numbers[place] != row).any():
            raise DataError("The table changed between passes: a query has levels of its own.")
        row = place
    at = np.empty(len(level), dtype=np.int32)
    at[level] = np.arange(len(level), dtype=np.int32)
    return np.asarray(at[row], dtype=np.int32)
