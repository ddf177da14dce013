"""A model on a lazy table: which rows it uses, and its design as expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.warning import warn
from mixedeffects.engine.grouped_sums import SumColumns, TermColumns
from mixedeffects.errors import DataError, DataWarning, ModelError
from mixedeffects.formula import Bar, Formula, parse_formula
from mixedeffects.formula.evaluate import State, check_functions
from mixedeffects.formula.syntax import Name, Node, deparse, quote_name
from mixedeffects.formula.terms import TermTable, expand_terms
from mixedeffects.formula.values import Coding, Value
from mixedeffects.frame.checks import check_rows, infinite_values
from mixedeffects.frame.contrasts import read_contrasts
from mixedeffects.frame.encode import DesignEncoder, check_codings
from mixedeffects.frame.model_frame import Dropped
from mixedeffects.frame.random_terms import group_variables
from mixedeffects.frame.structures import check_structure_columns
from mixedeffects.frame.text_levels import doubt_spelling, doubt_text
from mixedeffects.frame.used_rows import lost_values
from mixedeffects.frame.variables import argument_tree, data_columns
from mixedeffects.lazy.design import (
    Design,
    KnownDesign,
    KnownVariable,
    LazyVariable,
    Variables,
    encoder_of,
    present,
)
from mixedeffects.lazy.expressions import Expr, LostRows, count_where
from mixedeffects.lazy.table import LazyTable

__all__ = ["LazyModel", "Moments", "encoders_of", "named_expression", "read_lazy_model"]

#: Most columns of a design that are handed to an engine: their products are half their square.
MOST_COLUMNS = 150
#: Size of a mean, relative to the standard deviation, from which a column is taken less its centre.
_FAR = 8.0


@dataclass(frozen=True, eq=False)
class Moments:
    """One look at the columns of the design over the rows used.

    Attributes
    ----------
    n : int
        Rows used.
    centre, scale : ndarrays, shape (M,)
        What the columns are taken less, and divided by: numbers of few digits, so that little is
        rounded.
    largest : ndarray, shape (M,)
        Largest absolute value.
    """

    n: int
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    largest: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LazyModel:
    """A model on a lazy table.

    Attributes
    ----------
    table : LazyTable
        The table.
    formula : Formula
        The model.
    complete : expression
        True in the rows used.
    variables : dict of str to LazyVariable
        Those of the formula, with the levels that occur in the rows used.
    design : Design
        The columns of X and Z and the response, each once.
    columns : SumColumns
        Which is which; X before columns are dropped for rank.
    fixed_encoder, random_encoders
        As of a `ModelFrame`, before columns are dropped for rank.
    bars : tuple of Bar
        The random-effects terms as written; lme4's order needs the levels.
    groups : tuple of (str, tuple of str)
        Grouping factors: name, and the columns whose combinations are the levels.
    weights, offset : expression or None
        Prior weights, and what is taken off the response.
    response : expression
        The response as given.
    moments : Moments
        Of the design.
    dropped : Dropped
        Rows left out.
    data_columns : tuple of str
        Columns of the table that the model uses.
    """

    table: LazyTable
    formula: Formula
    complete: Expr
    variables: dict[str, LazyVariable]
    states: dict[str, Any]
    design: Design
    columns: SumColumns
    fixed_encoder: DesignEncoder
    random_encoders: tuple[DesignEncoder, ...]
    bars: tuple[Bar, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    weights: Expr | None
    offset: Expr | None
    response: Expr
    moments: Moments
    dropped: Dropped
    data_columns: tuple[str, ...] = ()

    def rows(self, keys: Sequence[str]) -> Any:
        """The rows used: some columns, those of the design less centre and by scale, and weights.

        Parameters
        ----------
        keys : sequence of str
            Columns of the table; they are called ``k0``, ``k1``, ...

        Returns
        -------
        narwhals.LazyFrame
            Also with ``u1``, ``u2``, ... and, where there are weights, ``w``.
        """
        import narwhals as nw

        frame = _used(self.table, self.complete, self.dropped)
        columns = [nw.col(name).alias(f"k{i}") for i, name in enumerate(keys)]
        columns += [self.moved(j).alias(f"u{j}") for j in range(1, len(self.design.columns))]
        if self.weights is not None:
            columns.append(self.weights.alias("w"))
        return frame.select(*columns)

    def moved(self, j: int) -> Expr:
        """A column of the design less its centre and by its scale."""
        column = self.design.columns[j]
        centre, scale = float(self.moments.centre[j]), float(self.moments.scale[j])
        moved = column - centre if centre != 0.0 else column
        return moved / scale if scale != 1.0 else moved

    @property
    def key_names(self) -> tuple[str, ...]:
        """Columns that make grouping factors, each once."""
        return tuple(dict.fromkeys(v for _, variables in self.groups for v in variables))


def read_lazy_model(
    formula: str | Formula,
    table: LazyTable,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    inherited: Mapping[str, Any] | None = None,
    like: KnownDesign | None = None,
) -> LazyModel:
    """Make a model's design on a lazy table; the arguments are those of `build_model_frame`.

    Parameters
    ----------
    formula, weights, offset, contrasts, inherited
        As for `build_model_frame`.
    table : LazyTable
        The table.
    like : KnownDesign, optional
        Of other rows, whose levels, transforms, centres and scales are taken.

    Raises
    ------
    FormulaError
        If the formula cannot be read, or cannot be handed to the table's engine.
    DataError
        If the table does not have what the formula asks for.
    ModelError
        If the model cannot be identified from it.

    Warns
    -----
    DataWarning
        As `build_model_frame`.
    """
    if not isinstance(formula, Formula):
        formula = parse_formula(formula)
    codings, spare = read_contrasts(contrasts), read_contrasts(inherited)
    by_name = {"weights": weights, "offset": offset}
    argument = {
        role: None if given is None else _argument(role, given, table)
        for role, given in by_name.items()
    }
    plain = [deparse(tree) for tree in argument.values() if isinstance(tree, Name)]
    fixed = formula.fixed_terms(table.names if formula.uses_dot else None, plain)
    random = [expand_terms(bar.tree, formula.text) for bar in formula.random]
    own = [variable for part in (fixed, *random) for variable in part.variables]
    trees: list[Node] = [formula.response_tree, *own, *fixed.offsets]
    for tree in trees:
        check_functions(tree)
    groups = _groups(formula, table)
    variables = Variables(table, like)
    response = _response(formula.response_tree, variables)
    named: dict[str, LazyVariable] = {}
    for tree in [*own, *fixed.offsets]:
        named[deparse(tree)] = variables[tree]
    extra = {
        role: None if tree is None else _single(role, variables[tree], str(by_name[role]))
        for role, tree in argument.items()
    }
    needed = list(
        dict.fromkeys(
            [
                *data_columns(
                    [*trees, *(t for t in argument.values() if t is not None)], table.names
                ),
                *(v for _, names in groups for v in names),
            ]
        )
    )
    complete = reduce(
        lambda a, b: a & b,
        [
            *(present(table, name) for name in needed),
            *(variable.present for variable in variables.known),
        ],
    )
    dropped = _dropped(table, needed, variables, complete)
    if len(dropped.rows):
        named = {name: variables.used(variable, complete) for name, variable in named.items()}
    _warn_of_labels(fixed, named, table)

    spelled = {deparse(tree) for part in (fixed, *random) for tree in part.variables}
    codings, spare = (
        {name if name in spelled else quote_name(name): coding for name, coding in each.items()}
        for each in (codings, spare)
    )
    every: dict[str, Coding] = {**spare, **codings}
    states = variables.states
    design = Design(table)
    values = {name: _value(variable, like) for name, variable in named.items()}
    fixed_encoder, encoders = encoders_of(formula, fixed, random, values, states, every)
    check_codings(codings, (fixed_encoder, *encoders))
    _check_columns((fixed_encoder, *encoders))
    in_fixed = design.of_encoder(fixed_encoder, named)
    terms = []
    names = [name for name, _ in groups]
    for bar, encoder in zip(formula.random, encoders, strict=True):
        terms.append(TermColumns(names.index(bar.group), design.of_encoder(encoder, named)))
    offset_sum = _offset([named[deparse(tree)] for tree in fixed.offsets], extra["offset"])
    y = response.columns[0] if offset_sum is None else response.columns[0] - offset_sum
    key = response.name if offset_sum is None else f"{response.name} less offset"
    at = design.place(key, lambda: y)
    weights_name = str(weights) if weights is not None else ""
    used = _used(table, complete, dropped)
    moments = _moments(
        table, used, complete, design, extra["weights"], weights_name, response.name, at
    )
    if like is not None and len(like.centre) == len(design.keys):
        moments = replace(moments, centre=like.centre, scale=like.scale)
    return LazyModel(
        table,
        formula,
        complete,
        named,
        states,
        design,
        SumColumns(in_fixed, tuple(terms), at),
        fixed_encoder,
        encoders,
        formula.random,
        groups,
        extra["weights"],
        offset_sum,
        response.columns[0],
        moments,
        dropped,
        tuple(needed),
    )


def named_expression(role: str, given: Any, table: LazyTable) -> Expr:
    """Weights or an offset as an expression of a table.

    Raises
    ------
    DataError
        If it is no name of a column, or no number a row.
    """
    return _single(role, Variables(table)[_argument(role, given, table)], given)


def _argument(role: str, given: Any, table: LazyTable) -> Node:
    if not isinstance(given, str):
        raise DataError(
            f"`{role}` of a table that stays in its engine is the name of a column, or an "
            f"expression of columns, not {type(given).__name__}."
        )
    return argument_tree(given, table.names)


def _groups(formula: Formula, table: LazyTable) -> tuple[tuple[str, tuple[str, ...]], ...]:
    made_of = group_variables(formula.random)
    for variables in made_of.values():
        for name in variables:
            _check_key(name, table)
    return tuple(made_of.items())


def _check_key(name: str, table: LazyTable) -> None:
    """Any type that can be sorted into levels may group rows."""
    import narwhals as nw

    if name not in table.schema:
        table.kind(name)
    dtype = table.schema[name]
    if dtype in (nw.List, nw.Array, nw.Struct, nw.Object, nw.Unknown):
        raise DataError(
            f"Column `{name}` holds {dtype}, which cannot be sorted into levels; convert it to "
            "numbers or to text."
        )


def _check_columns(encoders: Sequence[DesignEncoder]) -> None:
    """Refuse more columns than an engine can sum the products of."""
    total = sum(encoder.n_columns for encoder in encoders)
    if total > MOST_COLUMNS:
        largest = max(
            (coder for encoder in encoders for coder in encoder.coders),
            key=lambda coder: len(coder.suffixes),
        )
        raise ModelError(
            f"The model has {total:,} columns, most of them of `{largest.name}`, whose products an "
            f"engine would have to sum in {total * (total + 1) // 2:,} columns; at most "
            f"{MOST_COLUMNS} are handed to it. Use fewer, make a grouping factor of it, "
            f"`(1 | {largest.name})`, or collect the rows: rows='collect'."
        )


def _offset(of_formula: Sequence[LazyVariable], given: Expr | None) -> Expr | None:
    """What is known of the linear predictor; None where there is nothing."""
    for each in of_formula:
        if each.kind == "factor":
            raise DataError(f"`offset({each.name})` must be numbers; `{each.name}` is categorical.")
        if len(each.columns) != 1:
            raise DataError(f"`offset({each.name})` has {len(each.columns)} columns; it needs one.")
    parts = [each.columns[0] for each in of_formula]
    if given is not None:
        parts.append(given)
    return reduce(lambda a, b: a + b, parts) if parts else None


def _response(tree: Node, variables: Variables) -> LazyVariable:
    name = deparse(tree)
    response = variables[tree]
    if response.factor is not None:
        levels = response.factor.levels
        shown = ", ".join(levels[:3]) + (", ..." if len(levels) > 3 else "")
        raise DataError(
            f"The response `{name}` is categorical with {len(levels)} levels ({shown}), but a "
            "linear mixed model needs numbers. Make a number of it first."
        )
    return _one_column(response, f"The response `{name}`", "a model has one response")


def _one_column(variable: LazyVariable, what: str, why: str) -> LazyVariable:
    if len(variable.columns) != 1:
        raise DataError(f"{what} has {len(variable.columns)} columns; {why}.")
    return variable


def _single(role: str, variable: LazyVariable, given: str) -> Expr:
    if variable.factor is not None or len(variable.columns) != 1:
        raise DataError(f"`{role}` must be one number a row; `{given}` is not.")
    return variable.columns[0]


def _value(variable: LazyVariable, like: KnownDesign | None) -> Value:
    if like is not None and variable.name in like.variables:
        return like.variables[variable.name].value()
    # The levels that occur are those of its own codes.
    return variable.factor or KnownVariable.of(variable).value()


def encoders_of(
    formula: Formula,
    fixed: TermTable,
    random: Sequence[TermTable],
    values: Mapping[str, Value],
    states: Mapping[str, State],
    codings: Mapping[str, Coding],
) -> tuple[DesignEncoder, tuple[DesignEncoder, ...]]:
    """Encoders of the fixed effects and of each term; see `encoder_of`.

    Raises
    ------
    ModelError
        If a term's structure does not suit its columns.
    """
    encoders = []
    for bar, part in zip(formula.random, random, strict=True):
        encoder = encoder_of(part, values, states, codings)
        if bar.structure != "us":
            check_structure_columns(bar, encoder)
        encoders.append(encoder)
    return encoder_of(fixed, values, states, codings), tuple(encoders)


def _warn_of_labels(fixed: TermTable, named: Mapping[str, LazyVariable], table: LazyTable) -> None:
    """Warn of columns whose labels are hardly what was meant."""
    import narwhals as nw

    for tree in fixed.variables:
        if not isinstance(tree, Name) or tree.name not in table.schema:
            continue
        variable = named[deparse(tree)]
        if variable.factor is None:
            continue
        if table.schema[tree.name] == nw.String:
            doubt_text(tree.name, variable.factor.levels, lambda s: warn(s, DataWarning))
        doubt_spelling(tree.name, variable.factor.levels, lambda s: warn(s, DataWarning))


# --- rows ------------------------------------------------------------------------------


def _dropped(
    table: LazyTable, needed: Sequence[str], variables: Variables, complete: Expr
) -> Dropped:
    """Count the rows left out and why, in one query."""
    import narwhals as nw

    asked = {"n": nw.len(), "used": count_where(complete)}
    for i, name in enumerate(needed):
        asked[f"missing{i}"] = count_where(~present(table, name))
    for i, variable in enumerate(variables.known):
        asked[f"made{i}"] = count_where(variable.own_present & ~variable.present)
    guards: list[LostRows] = variables.translation.lost
    for i, lost in enumerate(guards):
        inside = nw.when(lost.rows).then(lost.value)
        asked[f"lost{i}"] = count_where(lost.rows)
        asked[f"low{i}"], asked[f"high{i}"] = inside.min(), inside.max()
    query = table.frame.select(*(each.alias(name) for name, each in asked.items()))
    row = table.run(query, "rows used").iloc[0]
    total, used = int(row["n"]), int(row["used"])
    missing = {
        name: int(row[f"missing{i}"]) for i, name in enumerate(needed) if row[f"missing{i}"] > 0
    }
    for i, variable in enumerate(variables.known):
        if row[f"made{i}"] > 0:
            missing[variable.name] = int(row[f"made{i}"])
    check_rows(total, used, missing)
    sentences = []
    for i, lost in enumerate(guards):
        if row[f"lost{i}"] > 0:
            low, high = float(row[f"low{i}"]), float(row[f"high{i}"])
            count = int(row[f"lost{i}"])
            sentences.append(lost_values(lost.text, lost.argument, low, high, count, total))
    return Dropped(
        rows=pd.RangeIndex(total - used),
        missing_by_column=missing,
        n_rows=total,
        lost=tuple(dict.fromkeys(sentences)),
    )


def _used(table: LazyTable, complete: Expr, dropped: Dropped) -> Any:
    """The rows used: where none was left out, no query has to look for them once more."""
    # Where there are only sums, asking for the frame is an error.
    return table.frame if len(dropped.rows) == 0 else table.frame.filter(complete)


def _moments(
    table: LazyTable,
    used: Any,
    complete: Expr,
    design: Design,
    weights: Expr | None,
    weights_name: str,
    response: str,
    at_response: int,
) -> Moments:
    """Mean, spread and largest value of every column of the design; refuses what is no number."""
    import narwhals as nw

    m = len(design.keys)
    columns = [column.alias(f"c{j}") for j, column in enumerate(design.columns) if j]
    if weights is not None:
        columns.append(weights.alias("w"))
    asked: dict[str, Expr] = {"n": nw.len()}
    for j in range(1, m):
        column = nw.col(f"c{j}")
        asked |= {
            f"mean{j}": column.mean(),
            f"low{j}": column.min(),
            f"high{j}": column.max(),
            f"square{j}": (column * column).mean(),
        }
    if weights is not None:
        w = nw.col("w")
        asked |= {"w_low": w.min(), "w_high": w.max()}
    query = used.select(*columns)
    query = query.select(*(each.alias(name) for name, each in asked.items()))
    row = table.run(query, "means and spreads").iloc[0]
    if weights is not None:
        _check_weights(table, complete, weights, weights_name, row)
    centre, scale, largest = np.zeros(m), np.ones(m), np.ones(m)
    for j in range(1, m):
        low, high = float(row[f"low{j}"]), float(row[f"high{j}"])
        key = design.keys[j]
        if np.isinf(low) or np.isinf(high):
            column = design.columns[j]
            infinite = count_where(column.abs() == np.inf)
            query = table.frame.filter(complete).select(infinite.alias("n"))
            rows = int(table.run(query, f"infinite values of {key}")["n"].iloc[0])
            what = f"The response `{response}`" if j == at_response else f"`{key}`"
            raise infinite_values(what, f"{rows:,} row{'s' if rows > 1 else ''}")
        largest[j] = max(-low, high)
        mean = float(row[f"mean{j}"])
        spread = np.sqrt(max(float(row[f"square{j}"]) - mean**2, 0.0))
        reach = high - low
        # The difference of squares may be rounding; the range is not.
        spread = spread if spread > 1e-3 * reach else 0.25 * reach
        if abs(mean) > _FAR * spread and spread > 0.0:
            # Of few digits: what is left of a value then keeps all of its own.
            step = 2.0 ** np.floor(np.log2(spread))
            centre[j] = np.round(mean / step) * step
            size = spread
        else:
            size = np.sqrt(max(float(row[f"square{j}"]), 0.0)) or 1.0
        if np.isfinite(size) and size > 0.0 and not 0.25 <= size <= 4.0:
            scale[j] = 2.0 ** np.round(np.log2(size))
    return Moments(int(row["n"]), centre, scale, largest)


def _check_weights(
    table: LazyTable, complete: Expr, weights: Expr, name: str, row: pd.Series[Any]
) -> None:
    if np.isinf(float(row["w_high"])):
        raise DataError(f"Column `{name}` is infinite in some rows. Correct these values.")
    if float(row["w_low"]) > 0.0:
        return

    query = table.frame.filter(complete).select(
        count_where(weights < 0.0).alias("negative"), count_where(weights == 0.0).alias("zero")
    )
    found = table.run(query, "weights that are not positive").iloc[0]
    counts = [f"{int(found[kind]):,} {kind}" for kind in ("negative", "zero") if found[kind] > 0]
    raise DataError(
        f"Weights must be positive: `{name}` has {' and '.join(counts)}. To leave rows out, "
        "filter the data or set their weight to missing."
    )
