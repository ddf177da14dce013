"""Refuse to give sums of few rows away: levels, pairs of levels, cells of factors."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from mixedeffects.engine.grouped_sums import GroupedSums
from mixedeffects.errors import DataError
from mixedeffects.lazy.design import LazyVariable
from mixedeffects.lazy.expressions import count_where
from mixedeffects.lazy.model import LazyModel

__all__ = ["check_minimum_rows"]


def check_minimum_rows(model: LazyModel, sums: GroupedSums, minimum: int) -> None:
    """Count the rows behind each sum of a level, a pair of levels, and a cell of factors.

    Cells are those of every factor, logical and number of two values in the design, of any two of
    them, of those of each fixed term, and by level of those that vary by it.

    Raises
    ------
    DataError
        If some have fewer than ``minimum`` rows.
    """
    found: list[str] = []
    names = [name for name, _ in model.groups]

    def note(rows: Any, what: str, of: str) -> None:
        few = int(np.count_nonzero(np.asarray(rows) < minimum))
        if few:
            found.append(f"{few:,} of {len(rows):,} {what} of {of}")

    for name, factor in zip(names, sums.factors, strict=True):
        note(factor.rows, "levels", f"`{name}`")
    for pair in sums.pairs:
        s, t = pair.factors
        note(pair.rows, "pairs of levels", f"`{names[s]}` and `{names[t]}`")
    classes = _classes(model)
    for group in _sets(model, classes):
        text = ":".join(group)
        note(_counts(model, (), [classes[name] for name in group]), "cells", f"`{text}`")
    for bar, (_, variables) in _bars(model):
        inside = [v for v in _variables_of(model.random_encoders[bar]) if v in classes]
        if inside:
            text = f"`{':'.join(inside)}` by `{model.bars[bar].group}`"
            note(_counts(model, variables, [classes[v] for v in inside]), "cells", text)
    if found:
        raise DataError(
            f"Sums of fewer than {minimum:,} rows are not given away (minimum_rows={minimum}): "
            f"{'; '.join(found)} have fewer. Leave these rows out, or make levels coarser."
        )


def _variables_of(encoder: Any) -> list[str]:
    return [coder.name for coder in encoder.coders]


def _bars(model: LazyModel) -> list[tuple[int, tuple[str, tuple[str, ...]]]]:
    groups = dict(model.groups)
    return [(i, (bar.group, groups[bar.group])) for i, bar in enumerate(model.bars)]


def _sets(model: LazyModel, classes: dict[str, Any]) -> list[tuple[str, ...]]:
    """The factors whose cells can be read from the sums over all rows."""
    names = list(classes)
    sets: list[tuple[str, ...]] = [(name,) for name in names]
    sets += list(combinations(names, 2))
    encoder = model.fixed_encoder
    for term, _, _ in encoder.blocks:
        inside = tuple(encoder.coders[i].name for i in term if encoder.coders[i].name in classes)
        sets.append(inside)
    return [each for each in dict.fromkeys(tuple(sorted(s)) for s in sets) if each]


def _classes(model: LazyModel) -> dict[str, list[Any]]:
    """Columns by which rows fall into few classes, of each variable that has any."""
    import narwhals as nw

    encoders = (model.fixed_encoder, *model.random_encoders)
    used = dict.fromkeys(name for encoder in encoders for name in _variables_of(encoder))
    variables: dict[str, LazyVariable] = {name: model.variables[name] for name in used}
    out: dict[str, list[Any]] = {}
    numbers = {n: v for n, v in variables.items() if v.kind == "numeric" and len(v.columns) == 1}
    two = set()
    if numbers:
        rows = model.table.frame.filter(model.complete).select(
            *(v.columns[0].alias(f"c{i}") for i, v in enumerate(numbers.values()))
        )
        ends = model.table.run(
            rows.select(
                *(nw.col(f"c{i}").min().alias(f"low{i}") for i in range(len(numbers))),
                *(nw.col(f"c{i}").max().alias(f"high{i}") for i in range(len(numbers))),
            ),
            "columns of two values",
        ).iloc[0]

        def between(i: int) -> Any:
            low, high = float(ends[f"low{i}"]), float(ends[f"high{i}"])
            inside = (nw.col(f"c{i}") > low) & (nw.col(f"c{i}") < high)
            return count_where(inside).alias(f"n{i}")

        counts = model.table.run(
            rows.select(*(between(i) for i in range(len(numbers)))), "columns of two values"
        ).iloc[0]
        two = {name for i, name in enumerate(numbers) if counts[f"n{i}"] == 0}
    for name, variable in variables.items():
        if variable.factor is not None:
            out[name] = [nw.col(source) for source in variable.sources]
        elif variable.kind == "logical" or name in two:
            out[name] = [variable.columns[0]]
    return out


def _counts(model: LazyModel, keys: tuple[str, ...], classes: list[list[Any]]) -> Any:
    """Numbers of rows of the cells that occur."""
    import narwhals as nw

    columns = [nw.col(name) for name in keys] + [c for each in classes for c in each]
    aliases = [f"k{i}" for i in range(len(columns))]
    rows = model.table.frame.filter(model.complete).select(
        *(column.alias(alias) for column, alias in zip(columns, aliases, strict=True))
    )
    query = rows.group_by(*aliases).agg(nw.len().alias("rows"))
    return model.table.run(query, "rows of each cell")["rows"].to_numpy(dtype=np.int64)
