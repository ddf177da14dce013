"""What is kept of a model's sums: those, the levels, and how the columns were made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.engine.grouped_sums import GroupedSums, SumColumns
from mixedeffects.errors import ModelError
from mixedeffects.formula import parse_formula
from mixedeffects.formula.terms import expand_terms
from mixedeffects.formula.values import Coding
from mixedeffects.frame.grouping import Grouping
from mixedeffects.frame.model_frame import Dropped
from mixedeffects.frame.without_rows import SUMS, left_out
from mixedeffects.lazy.design import Design, KnownDesign, KnownVariable
from mixedeffects.lazy.model import LazyModel, Moments, encoders_of
from mixedeffects.lazy.sums import LevelSums
from mixedeffects.lazy.table import LazyTable

__all__ = ["Content", "Levels", "NoTable", "content_of", "levels_of", "model_of"]


@dataclass(frozen=True, eq=False)
class Levels:
    """The levels of a grouping factor.

    Attributes
    ----------
    name : str
        As in the formula, ``"pupil:school"``.
    variables : tuple of str
        The columns it is made of.
    values : Index
        Its levels; of several columns a MultiIndex.
    unused : int
        Levels declared that no row has.
    """

    name: str
    variables: tuple[str, ...]
    values: pd.Index[Any]
    unused: int


@dataclass(frozen=True, eq=False)
class Content:
    """The parts of `SufficientStatistics`.

    Attributes
    ----------
    formula : str
        The model.
    weights, offset : str or None
        As given.
    others : tuple of str
        Columns of the table that ``.`` in the formula may stand for.
    codings : dict of str to Coding
        Contrasts as asked for.
    known : KnownDesign
        Levels and transforms of the variables.
    columns : SumColumns
        Which column is which.
    sums : GroupedSums
        The sums.
    levels : tuple of Levels
        Of each grouping factor.
    largest : ndarray
        Largest absolute value of each column.
    dropped : Dropped
        Rows left out.
    """

    formula: str
    weights: str | None
    offset: str | None
    others: tuple[str, ...]
    codings: dict[str, Coding]
    known: KnownDesign
    columns: SumColumns
    sums: GroupedSums
    levels: tuple[Levels, ...]
    largest: NDArray[np.float64]
    dropped: Dropped


class _NoColumns(dict[str, Any]):
    """In place of columns and expressions of them."""

    def __missing__(self, name: str) -> Any:
        raise left_out(f"`{name}`", SUMS)


class NoTable(LazyTable):
    """In place of a table where there are only its sums: every further pass is refused."""

    is_there = False

    def __init__(self) -> None:
        self.native, self.engine, self.schema = None, SUMS, _NoColumns()
        self.seconds, self.listener = [], None

    def __getattr__(self, name: str) -> Any:
        if name == "frame":
            raise left_out("the rows", SUMS)
        raise AttributeError(name)

    @property
    def names(self) -> list[str]:
        """There are no columns to look at."""
        raise left_out("the columns of the table", SUMS)

    def kind(self, name: str) -> str:
        """There are none."""
        raise left_out(f"the column `{name}`", SUMS)

    def run(self, query: Any, what: str) -> pd.DataFrame:
        """There is nothing to ask."""
        raise left_out(what, SUMS)


def content_of(
    model: LazyModel,
    made: LevelSums,
    weights: str | None,
    offset: str | None,
    codings: dict[str, Coding],
    like: KnownDesign | None,
) -> Content:
    """What is kept of a model and its sums."""
    variables = {
        name: KnownVariable.of(variable)
        if like is None or name not in like.variables
        else like.variables[name]
        for name, variable in model.variables.items()
    }
    known = KnownDesign(
        variables,
        {name: model.states[name] for name in variables},
        made.sums.centre,
        made.sums.scale,
    )
    plain = [given for given in (weights, offset) if given is not None]
    others = tuple(name for name in model.table.names if name not in plain)
    return Content(
        model.formula.text,
        weights,
        offset,
        others if model.formula.uses_dot else (),
        codings,
        known,
        model.columns,
        made.sums,
        tuple(
            Levels(name, names, grouping.values, grouping.unused)
            for (name, names), grouping in zip(model.groups, made.groupings, strict=True)
        ),
        model.moments.largest,
        model.dropped,
    )


def levels_of(content: Content) -> LevelSums:
    """Sums with the levels as they come from a table."""
    groupings = [
        Grouping(
            np.arange(len(level.values), dtype=np.int32),
            level.values,
            level.unused,
        )
        for level in content.levels
    ]
    return LevelSums(content.sums, tuple(groupings), (content.sums.n, 0.0))


def model_of(content: Content) -> LazyModel:
    """The model, on no table."""
    formula = parse_formula(content.formula)
    fixed = formula.fixed_terms(content.others if formula.uses_dot else None)
    random = [expand_terms(bar.tree, formula.text) for bar in formula.random]
    values = {name: variable.value() for name, variable in content.known.variables.items()}
    try:
        fixed_encoder, encoders = encoders_of(
            formula, fixed, random, values, content.known.states, content.codings
        )
    except KeyError as error:
        raise ModelError(f"The statistics know nothing of {error.args[0]!r}.") from None
    sums, table = content.sums, NoTable()
    absent: Any = None
    return LazyModel(
        table,
        formula,
        absent,
        _NoColumns(),
        content.known.states,
        Design(table, list(sums.columns), [None] * len(sums.columns)),
        content.columns,
        fixed_encoder,
        encoders,
        formula.random,
        tuple((level.name, level.variables) for level in content.levels),
        content.weights,
        content.offset,
        absent,
        Moments(sums.n, sums.centre, sums.scale, content.largest),
        content.dropped,
    )
