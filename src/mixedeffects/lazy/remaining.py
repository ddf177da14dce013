"""Columns of a design less effects of their levels, row by row in the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.grouped_sums import SumColumns, TermColumns
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.lazy.design import Design
from mixedeffects.lazy.expressions import Expr
from mixedeffects.lazy.fitted import joined_by_level
from mixedeffects.lazy.model import LazyModel, Moments
from mixedeffects.lazy.sums import level_sums

__all__ = ["EffectsOfLevels", "RemainingSums", "sums_of_remaining"]

Matrix = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class EffectsOfLevels:
    """Effects of several columns by the levels of one grouping factor.

    Attributes
    ----------
    term : RandomTerm
        Its variables and levels.
    own : tuple of int
        The columns of the design that the effects multiply.
    values : ndarray, shape (l, a, m)
        Effects of each of these, for each of m columns.
    """

    term: RandomTerm
    own: tuple[int, ...]
    values: Matrix


@dataclasses.dataclass(frozen=True, eq=False)
class RemainingSums:
    """Sums of products of what is left of m columns.

    Attributes
    ----------
    by_level : list of ndarray, shape (l, a, m)
        With the columns that effects multiply, by the levels of each factor.
    square : ndarray, shape (m, m)
        With each other.
    """

    by_level: list[Matrix]
    square: Matrix


def sums_of_remaining(
    model: LazyModel, columns: Matrix, effects: Sequence[EffectsOfLevels]
) -> RemainingSums:
    """Take effects off combinations of a design's columns, and sum products of what is left.

    Differences of large numbers are made row by row, so that their sums keep their digits.

    Parameters
    ----------
    model : LazyModel
        The model.
    columns : ndarray, shape (M, m)
        The columns, as combinations of those of the design less centre and by scale.
    effects : sequence of EffectsOfLevels
        One for each grouping factor of the model, in its order.
    """
    import narwhals as nw

    def moved(j: int) -> Expr:
        return nw.lit(1.0) if j == 0 else nw.col(f"__moved_{j}")

    n_columns = len(model.design.columns)
    frame = model.table.frame.filter(model.complete)
    frame = frame.with_columns(*(model.moved(j).alias(f"__moved_{j}") for j in range(1, n_columns)))
    m = columns.shape[1]
    parts: list[list[Expr]] = [
        [moved(j) * float(columns[j, a]) for j in range(n_columns) if columns[j, a] != 0.0]
        for a in range(m)
    ]
    for f, each in enumerate(effects):
        values = {}
        for i, j in enumerate(each.own):
            for a in range(m):
                name = f"__effect_{f}_{i}_{a}"
                values[name] = each.values[:, i, a]
                parts[a].append(nw.col(name) * -1.0 * moved(j))
        frame, _ = joined_by_level(model.table, frame, f, each.term, values)
    varying = sorted({j for each in effects for j in each.own} - {0})
    table = dataclasses.replace(model.table, frame=frame)
    keys = ["1", *(f"column {j}" for j in varying), *(f"left {a}" for a in range(m))]
    left = [reduce(lambda a, b: a + b, own) for own in parts]
    design = Design(table, keys, [None, *(moved(j) for j in varying), *left])
    place = {0: 0} | {j: i for i, j in enumerate(varying, start=1)}
    terms = tuple(
        TermColumns(f, tuple(place[j] for j in each.own)) for f, each in enumerate(effects)
    )
    size = len(keys)
    moments = Moments(model.moments.n, np.zeros(size), np.ones(size), np.ones(size))
    other = dataclasses.replace(
        model,
        table=table,
        design=design,
        columns=SumColumns((), terms, size - 1),
        moments=moments,
    )
    sums = level_sums(other).sums
    at = np.arange(size - m, size)
    by_level = []
    for each, factor in zip(effects, sums.factors, strict=True):
        own = [factor.own.index(place[j]) for j in each.own]
        by_level.append(factor.products[:, own][:, :, at])
    return RemainingSums(by_level, sums.total[np.ix_(at, at)])
