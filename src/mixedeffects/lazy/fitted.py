"""Fitted values and residuals as columns of the table that a model was fitted to, or of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.errors import DataError
from mixedeffects.frame.coder import unseen_levels
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.lazy.attach import attached, join_key, joined_values
from mixedeffects.lazy.design import Design, LazyVariable, Variables, all_present, codes_into
from mixedeffects.lazy.expressions import Expr
from mixedeffects.lazy.model import LazyModel
from mixedeffects.lazy.table import LazyTable

__all__ = [
    "Effects",
    "LinearPredictor",
    "joined_by_level",
    "linear_predictor",
    "predictor_of_fit",
]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Effects:
    """Random effects of one term.

    Attributes
    ----------
    term : RandomTerm
        Its variables and levels; no rows.
    modes : ndarray, shape (l, k)
        Their values.
    """

    term: RandomTerm
    modes: Matrix


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """A table with what predicts its rows.

    Attributes
    ----------
    table : LazyTable
        The table.
    frame : narwhals.LazyFrame
        Its rows, with the effects of their levels joined.
    fixed : expression
        ``x'beta`` plus the offset.
    random : expression or None
        ``z'b`` of the terms given; effects of levels that are not known are null.
    columns : list of expression
        The columns of X.
    added : tuple of str
        Columns that the frame has besides those of the table.
    unseen : expression or None
        True where a level is not known.
    """

    table: LazyTable
    frame: Any
    fixed: Expr
    random: Expr | None
    columns: list[Expr]
    added: tuple[str, ...]
    unseen: Expr | None

    def linear(self, *, new_levels: str = "error") -> Expr:
        """Fixed and random part together.

        Parameters
        ----------
        new_levels : {"error", "population"}
            With ``"population"`` effects of levels that are not known are zero.
        """
        if self.random is None:
            return self.fixed
        if new_levels == "population":
            import narwhals as nw

            random = nw.when(~self.random.is_null()).then(self.random).otherwise(0.0)
            return self.fixed + random
        return self.fixed + self.random


def predictor_of_fit(
    model: LazyModel,
    fixed: Sequence[int],
    beta: Matrix,
    effects: Sequence[tuple[Effects, Sequence[int]]],
) -> LinearPredictor:
    """The rows that a model used, with what predicts them.

    Parameters
    ----------
    model : LazyModel
        The model.
    fixed : sequence of int
        Places of the columns of X in its design.
    beta : ndarray, shape (p,)
        Their coefficients.
    effects : sequence of (Effects, sequence of int)
        Random effects with the places of their columns.
    """
    columns = [_column(model.design, j) for j in fixed]
    parts = [(each, [_column(model.design, j) for j in at]) for each, at in effects]
    frame = model.table.frame.filter(model.complete)
    return _predictor(model.table, frame, columns, beta, parts, model.offset)


def linear_predictor(
    table: LazyTable,
    encoder: DesignEncoder,
    beta: Matrix,
    effects: Sequence[tuple[Effects, DesignEncoder]],
    offset: Expr | None = None,
) -> LinearPredictor:
    """The rows of any table, with what predicts them; null where a variable is missing.

    Parameters
    ----------
    table : LazyTable
        The table.
    encoder : DesignEncoder
        Of the fixed part.
    beta : ndarray, shape (p,)
        Its coefficients.
    effects : sequence of (Effects, DesignEncoder)
        Random effects with the encoders of their columns.
    offset : expression, optional
        Known part, besides what the formula has.

    Raises
    ------
    DataError
        If a column is missing, or a factor has a level that the fit did not see.
    """
    design = Design(table)
    variables = Variables(table)
    columns = _encoded(design, variables, encoder)
    parts = [(each, _encoded(design, variables, own)) for each, own in effects]
    of_formula = [variables.again(coder.tree, coder.state).columns[0] for coder in encoder.offsets]
    every = [*of_formula, *([] if offset is None else [offset])]
    total = reduce(lambda a, b: a + b, every) if every else None
    return _predictor(table, table.frame, columns, beta, parts, total)


def _encoded(design: Design, variables: Variables, encoder: DesignEncoder) -> list[Expr]:
    known: dict[str, LazyVariable] = {}
    for coder in encoder.coders:
        variable = variables.again(coder.tree, coder.state)
        if coder.kind == "factor":
            variable = _known_levels(variable, coder.levels)
        elif (variable.factor is not None) or len(variable.columns) != len(coder.suffixes):
            raise DataError(f"`{coder.name}` was {coder.kind} in the fit; here it is not.")
        known[coder.name] = variable
    places = design.of_encoder(encoder, known)
    kept = range(len(places)) if encoder.kept is None else encoder.kept
    there = [variable.present for variable in known.values()]
    if not there:
        return [_column(design, places[j]) for j in kept]
    import narwhals as nw

    present = reduce(lambda a, b: a & b, there)
    return [nw.when(present).then(_column(design, places[j])) for j in kept]


def _known_levels(variable: LazyVariable, levels: tuple[str, ...]) -> LazyVariable:
    """The variable with the levels of the fit."""
    factor = variable.factor
    if factor is None:
        raise DataError(f"`{variable.name}` was categorical in the fit; here it is numeric.")
    codes, unseen = codes_into(factor, levels)
    if unseen:
        raise unseen_levels(variable.name, unseen, levels)
    return replace(variable, factor=replace(factor, codes=codes, levels=levels))


def joined_by_level(
    table: LazyTable, frame: Any, number: int, term: RandomTerm, columns: dict[str, Matrix]
) -> tuple[Any, list[str]]:
    """Rows with values of their levels.

    Parameters
    ----------
    table : LazyTable
        Whose rows they are.
    frame : narwhals.LazyFrame
        The rows.
    number : int
        Of the grouping factor.
    term : RandomTerm
        Its variables and levels.
    columns : dict of str to ndarray, shape (l,)
        The values.

    Returns
    -------
    frame : narwhals.LazyFrame
    keys : list of str
        Columns that it has besides.
    """
    keys = [f"__key_{number}_{i}" for i in range(len(term.variables))]
    values = term.level_values
    small: dict[str, Any] = {}
    for i, (key, name) in enumerate(zip(keys, term.variables, strict=True)):
        part = values.get_level_values(i) if isinstance(values, pd.MultiIndex) else values
        if name not in table.schema:
            table.kind(name)
        small[key] = joined_values(table, name, part)
    small |= columns
    frame = frame.with_columns(
        *(join_key(table, v).alias(k) for v, k in zip(term.variables, keys, strict=True))
    )
    return frame.join(attached(table, pd.DataFrame(small)), on=keys, how="left"), keys


def _column(design: Design, j: int) -> Expr:
    import narwhals as nw

    return nw.lit(1.0) if j == 0 else design.columns[j]


def _predictor(
    table: LazyTable,
    frame: Any,
    columns: list[Expr],
    beta: Matrix,
    effects: Sequence[tuple[Effects, list[Expr]]],
    offset: Expr | None,
) -> LinearPredictor:
    import narwhals as nw

    fixed = reduce(
        lambda a, b: a + b,
        [c * float(b) for c, b in zip(columns, beta, strict=True)] or [nw.lit(0.0)],
    )
    if offset is not None:
        fixed = fixed + offset
    by_factor: dict[str, list[tuple[int, Effects, list[Expr]]]] = {}
    for t, (each, own) in enumerate(effects):
        by_factor.setdefault(each.term.group, []).append((t, each, own))
    added: list[str] = []
    parts, unseen = [], []
    for f, members in enumerate(by_factor.values()):
        term = members[0][1].term
        values: dict[str, Matrix] = {}
        for t, each, own in members:
            for j, column in enumerate(own):
                effect = f"__effect_{t}_{j}"
                values[effect] = each.modes[:, j]
                parts.append(nw.col(effect) * column)
                added.append(effect)
        frame, keys = joined_by_level(table, frame, f, term, values)
        added += keys
        first = f"__effect_{members[0][0]}_0"
        unseen.append(nw.col(first).is_null() & all_present(table, term.variables))
    random = reduce(lambda a, b: a + b, parts) if parts else None
    return LinearPredictor(
        table,
        frame,
        fixed,
        random,
        columns,
        tuple(added),
        reduce(lambda a, b: a | b, unseen) if unseen else None,
    )
