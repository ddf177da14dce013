"""Join a formula to data: the model frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.centring import is_far_from_zero
from mixedeffects.base.warning import warn
from mixedeffects.errors import DataError, DataWarning, ModelError
from mixedeffects.families import Family
from mixedeffects.formula import Bar, Formula, ResidualSpec, parse_formula, read_residual
from mixedeffects.formula.evaluate import State, check_functions
from mixedeffects.formula.syntax import Name, Node, deparse, quote_name
from mixedeffects.formula.terms import TermTable, expand_terms
from mixedeffects.formula.values import Coding, Factor, Lost, Value
from mixedeffects.frame.checks import (
    check_finite,
    check_fixed,
    check_grouping,
    check_lengths,
    check_random_effects,
    check_ranges,
    check_rows,
    check_size,
    check_weights,
    numeric_response,
)
from mixedeffects.frame.contrasts import read_contrasts
from mixedeffects.frame.encode import DesignEncoder, fit_encoder
from mixedeffects.frame.grouping import GroupColumn, Grouping, combine, read_group
from mixedeffects.frame.identifiability import check_random_columns
from mixedeffects.frame.ingest import as_column, column_names, materialised, take_columns
from mixedeffects.frame.model_frame import Dropped, ModelFrame, RandomTerm
from mixedeffects.frame.rank import independent_columns
from mixedeffects.frame.residual_checks import check_places, check_residual
from mixedeffects.frame.residual_rows import ResidualRows, residual_rows, rows_in_their_order
from mixedeffects.frame.responses import (
    GivenResponse,
    check_binary_rows,
    read_exposure,
    read_generalized_response,
)
from mixedeffects.frame.row_labels import by_row_labels
from mixedeffects.frame.structures import check_replication, check_structure_columns
from mixedeffects.frame.text_levels import doubt_spelling, doubt_text
from mixedeffects.frame.variables import (
    Columns,
    Evaluated,
    argument_tree,
    data_columns,
    evaluate_variable,
    take_rows,
)
from mixedeffects.frame.variance_columns import read_variance, variance_columns

__all__ = ["build_model_frame", "lme4_order", "term_labels"]

Vector = NDArray[np.float64]


def build_model_frame(
    formula: str | Formula,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    inherited: Mapping[str, Any] | None = None,
    design_only: bool = False,
    residual: str | None = None,
    variance: str | None = None,
    without_random: bool = False,
    known_sigma: bool = False,
    family: Family | None = None,
    exposure: Any = None,
) -> ModelFrame:
    """Make the arrays of a mixed model from a formula and a dataframe.

    Parameters
    ----------
    formula : str or Formula
        In lme4's grammar; see `mixedeffects.formula.parse_formula`.
    data : dataframe
        A pandas, polars (eager or lazy) or pyarrow table, anything else narwhals reads, or a
        mapping of names to columns. Only the columns the formula names are converted.
    weights : str or array_like, optional
        Prior weights: a column, or one value for each row of the data. A Series is matched by its
        row labels, which must be the data's.
    offset : str or array_like, optional
        A known part of the linear predictor, added to any ``offset()`` in the formula.
    contrasts : mapping of str to str, array or DataFrame, optional
        Codings of factors in the fixed effects: ``"treatment"``, ``"sum"``, ``"helmert"``,
        ``"poly"``, the label of the reference level, or a matrix with one row per level. By
        default as in R: treatment, and polynomials for ordered categoricals.
    inherited : mapping of str to str, array or DataFrame, optional
        The same for factors that need not be in the formula.
    design_only : bool
        Leave the response unread, zero in every row; the formula need not have one. Then nothing
        is to be estimated, and what could not be is no error.
    residual : str, optional
        How residuals are correlated; see `mixedeffects.formula.read_residual`.
    variance : str, optional
        What the logarithm of their standard deviation is linear in, as terms of a formula.
    without_random : bool
        Whether the formula may have no random-effects term even without ``residual`` and
        ``variance``.
    known_sigma : bool
        Whether the residual variance is known, so that one row a group says something of theirs.
    family : Family, optional
        Distribution of the response of a generalized model, which may then be successes and
        failures, a proportion with its trials as weights, or a factor of two levels.
    exposure : str or array_like, optional
        What the mean is proportional to, positive: an offset of its logarithm.

    Returns
    -------
    ModelFrame
        Rows with a missing value in any variable left out, and so are fixed-effects columns that
        are linear combinations of earlier ones; both are reported in ``dropped``.

    Raises
    ------
    FormulaError
        If the formula cannot be read.
    DataError
        If the data do not have what the formula asks for.
    ModelError
        If the model cannot be identified from the data.

    Warns
    -----
    DataWarning
        Of text that is rather numbers or dates, and of levels that differ only in their spelling.

    Examples
    --------
    >>> import pandas as pd
    >>> data = pd.DataFrame({"y": [1.0, 2, 4, 3, 5, 7], "x": [0.0, 1, 2] * 2, "g": list("aaabbb")})
    >>> frame = build_model_frame("y ~ x + (1 | g)", data)
    >>> frame.fixef_names
    ('(Intercept)', 'x')
    >>> list(frame.terms[0].levels)
    ['a', 'b']
    """
    spec = None if residual is None else read_residual(residual)
    of_variance = None if variance is None else read_variance(variance)
    if not isinstance(formula, Formula):
        formula = parse_formula(
            formula,
            one_sided=design_only,
            without_random=without_random or spec is not None or of_variance is not None,
        )
    response = None if design_only else formula.response_tree
    codings, spare = read_contrasts(contrasts), read_contrasts(inherited)
    source = materialised(data)
    available = column_names(source)
    roles = {"weights": weights, "offset": offset, "exposure": exposure}
    worked_out = {role: _expression(given, available) for role, given in roles.items()}
    by_name = [
        given
        for role, given in roles.items()
        if isinstance(given, str) and worked_out[role] is None
    ]
    of_groups = [] if spec is None else list(spec.variables)
    fixed = formula.fixed_terms(available if formula.uses_dot else None, [*by_name, *of_groups])
    random = [expand_terms(bar.tree, formula.text) for bar in formula.random]

    of_residuals: list[Node] = [] if spec is None else [*spec.position]
    if of_variance is not None:
        of_residuals += of_variance[1].variables
    grouped = [v for bar in formula.random for v in bar.variables] + of_groups
    if spec is not None and spec.by is not None:
        grouped.append(spec.by)
    trees = _trees(response, fixed, random) + of_residuals
    needed = [*trees, *(tree for tree in worked_out.values() if tree is not None)]
    table = _take(needed, [*grouped, *by_name], source, available)
    columns = Columns(table)
    evaluation = _evaluate_all(response, fixed, trees, columns)
    extra = {
        role: _argument(role, given, columns, worked_out[role]) for role, given in roles.items()
    }
    groups = {name: read_group(table[name]) for name in dict.fromkeys(grouped)}
    selection = _select_rows(evaluation, extra, groups, columns)
    rows = selection.rows

    values = {name: take_rows(e.value, rows) for name, e in evaluation.variables.items()}
    n = columns.n if rows is None else len(rows)
    y = np.zeros(n) if family is not None else _response(evaluation.response, values, n)
    # Before anything that such levels may make impossible.
    _warn_of_labels(evaluation, fixed, groups, table)
    _check_values(evaluation, fixed, random, of_residuals, values)
    w = _taken(extra["weights"], rows, "Column ")
    if w is not None and extra["weights"] is not None:
        check_weights(extra["weights"].name, w)
    used = table if rows is None else table.iloc[rows]
    given: GivenResponse | None = None
    if family is not None and response is not None:
        name = deparse(response)
        by = extra["weights"]
        trials = None if w is None or by is None else (by.name, w)
        given = read_generalized_response(name, response, values[name], trials, family, used.index)
        y, w = given.response.y, given.response.weights
    rival = None if known_sigma else _variance_of_rows(family)

    named = {deparse(tree) for part in (fixed, *random) for tree in part.variables}
    codings, spare = (
        {name if name in named else quote_name(name): coding for name, coding in each.items()}
        for each in (codings, spare)
    )
    every = {**spare, **codings}
    X, encoder, far = _fixed_matrix(fixed, values, evaluation.states, every, n, design_only)
    chosen = {
        name: group if rows is None else replace(group, codes=group.codes[rows])
        for name, group in groups.items()
    }
    terms, encoders, unused = _random_terms(
        formula, random, values, evaluation.states, every, chosen, n, design_only, rival
    )
    of_rows: ResidualRows | None = None
    if spec is not None:
        numbers = _row_numbers(spec, groups, rows)
        of_rows = residual_rows(spec, values, evaluation.states, chosen, numbers)
        check_places(of_rows.term)
        unused = {**unused, **of_rows.unused}
    variance_term, variance_encoder = (
        (None, None)
        if of_variance is None
        else variance_columns(*of_variance, values, evaluation.states, n, not design_only)
    )
    _check_codings(codings, (encoder, *encoders))
    total_offset = _offset(evaluation.offsets, values, _taken(extra["offset"], rows, "Column "))
    if family is not None and extra["exposure"] is not None:
        exposed = _taken(extra["exposure"], rows, "Column ")
        assert exposed is not None
        own = read_exposure(extra["exposure"].name, exposed, family, used.index)
        total_offset = own if total_offset is None else total_offset + own
    if not design_only:
        with np.errstate(over="ignore"):
            known = y if total_offset is None else y - total_offset
        if family is not None:
            # Its scale is that of the linear predictor, whatever the units of the response.
            known = np.zeros(n)
        check_ranges(
            (str(evaluation.response), known),
            [(encoder.names, X), *((term.columns, term.z) for term in terms)],
            None if w is None or extra["weights"] is None else (extra["weights"].name, w),
        )
        check_random_columns(terms)
        if rival:
            check_replication(terms)
        if given is not None:
            check_binary_rows(given.response, terms)
        if of_rows is not None:
            check_residual(of_rows.term, terms, variance_term, w)
    return ModelFrame(
        formula=formula,
        y=np.array(y),  # the data's own array must not be shared
        X=X,
        fixef_names=encoder.names,
        terms=terms,
        weights=w,
        offset=total_offset,
        index=used.index,
        positions=np.arange(len(table)) if rows is None else rows,
        dropped=Dropped(
            rows=table.index[:0] if rows is None else table.index.delete(rows),
            missing_by_column=selection.missing,
            columns=tuple(encoder.all_names[i] for i in encoder.dropped),
            unused_levels=unused,
            far_from_zero=far,
            n_rows=len(table),
            lost=selection.lost,
            empty_steps=() if of_rows is None else tuple(of_rows.empty.items()),
        ),
        data=used.copy(),
        fixed_encoder=encoder,
        random_encoders=encoders,
        residual=None if of_rows is None else of_rows.term,
        variance=variance_term,
        residual_coders=() if of_rows is None else of_rows.coders,
        variance_encoder=variance_encoder,
        response=None if given is None else given.response,
        response_levels=() if given is None else given.levels,
    )


def _row_numbers(
    spec: ResidualSpec, groups: Mapping[str, GroupColumn], rows: NDArray[np.intp] | None
) -> NDArray[np.int64] | None:
    """For ``ar1(1 | group)`` the number of each row in its group; rows left out count."""
    if spec.position or spec.kind != "ar1":
        return None
    columns = [groups[name] for name in spec.variables]
    if rows is None:
        return rows_in_their_order(combine(columns, spec.variables).codes)
    absent = np.any([column.codes < 0 for column in columns], axis=0)
    present = np.flatnonzero(~absent)
    columns = [replace(column, codes=column.codes[present]) for column in columns]
    numbers = np.full(absent.size, -1, dtype=np.int64)
    numbers[present] = rows_in_their_order(combine(columns, spec.variables).codes)
    return numbers[rows]


# --- the columns, and the variables made of them ---------------------------------------


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """Every variable of the model on all rows."""

    variables: dict[str, Evaluated]
    states: dict[str, State]
    response: str | None
    offsets: tuple[str, ...]


def _trees(response: Node | None, fixed: TermTable, random: list[TermTable]) -> list[Node]:
    """Every expression of the model: the response, fixed part, offsets, random effects."""
    first = [] if response is None else [response]
    own = [variable for table in random for variable in table.variables]
    return [*first, *fixed.variables, *fixed.offsets, *own]


def _take(
    trees: Sequence[Node], by_name: Sequence[str], source: Any, available: list[str]
) -> pd.DataFrame:
    for tree in trees:
        check_functions(tree)
    names = dict.fromkeys([*data_columns(trees, available), *by_name])
    frame = take_columns(source, names)
    if len(frame) == 0:
        check_rows(0, 0, {})
    return frame


def _evaluate_all(
    response: Node | None, fixed: TermTable, trees: Sequence[Node], columns: Columns
) -> _Evaluation:
    variables: dict[str, Evaluated] = {}
    states: dict[str, State] = {}
    for tree in trees:
        name = deparse(tree)
        if name not in variables:
            states[name] = {}
            variables[name] = evaluate_variable(tree, columns, states[name])
    return _Evaluation(
        variables,
        states,
        None if response is None else deparse(response),
        tuple(deparse(offset) for offset in fixed.offsets),
    )


def _expression(given: Any, available: Sequence[str]) -> Node | None:
    """What weights or an offset are worked out from, such as ``1 / vi``; None for a column."""
    if not isinstance(given, str):
        return None
    tree = argument_tree(given, available)
    return None if isinstance(tree, Name) else tree


def _argument(
    role: str, given: Any, columns: Columns, tree: Node | None = None
) -> Evaluated | None:
    """Read weights or offset, given as a column's name, an expression, or as values."""
    if given is None:
        return None
    if tree is not None:
        found = evaluate_variable(tree, columns, {})
        if isinstance(found.value, Factor) or found.value.ndim != 1:
            raise DataError(f"`{role}` must be one number a row; `{given}` is not.")
        return replace(found, name=given)
    if isinstance(given, str):
        name = given
        value, missing = columns[given]
    else:
        name = f"({role})"
        given = as_column(name, given)
        check_lengths(role, given, columns.n)
        series = pd.Series(by_row_labels(f"`{role}`", given, columns.frame.index))
        value, missing = Columns(series.rename(name).to_frame())[name]
    if isinstance(value, Factor):
        raise DataError(f"`{role}` must be numbers; `{name}` is text or categorical.")
    return Evaluated(name, value.astype(np.float64, copy=False), missing)


def _taken(given: Evaluated | None, rows: NDArray[np.intp] | None, what: str) -> Vector | None:
    if given is None:
        return None
    values = take_rows(given.value, rows)
    assert not isinstance(values, Factor)
    check_finite(given.name, values, what if not given.name.startswith("(") else "")
    return np.array(values, dtype=np.float64)


# --- rows ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Selection:
    rows: NDArray[np.intp] | None  # None: all
    missing: dict[str, int]
    lost: tuple[str, ...]  # sentences about rows in which a function has no value


def _select_rows(
    evaluation: _Evaluation,
    extra: Mapping[str, Evaluated | None],
    groups: Mapping[str, GroupColumn],
    columns: Columns,
) -> _Selection:
    absent: NDArray[np.bool_] | None = None
    counts: dict[str, int] = {}

    def add(missing: NDArray[np.bool_] | None) -> None:
        nonlocal absent
        if missing is not None:
            absent = missing if absent is None else absent | missing

    for name in columns.frame.columns:
        if name in groups:
            missing = groups[name].codes < 0
            if missing.any():
                counts[name] = int(missing.sum())
                add(missing)
        else:
            masked = columns[name][1]
            if masked is not None:
                counts[name] = int(masked.sum())
                add(masked)
    for variable in evaluation.variables.values():
        if variable.made_missing:
            counts[variable.name] = variable.made_missing
        add(variable.missing)
    for given in extra.values():
        if given is not None and given.missing is not None:
            counts[given.name] = int(given.missing.sum())
            add(given.missing)

    lost = tuple(
        dict.fromkeys(
            _lost_rows(each, columns.n)
            for variable in evaluation.variables.values()
            for each in variable.lost
        )
    )
    if absent is None:
        return _Selection(None, counts, lost)
    rows = np.flatnonzero(~absent)
    check_rows(columns.n, len(rows), counts)
    return _Selection(rows, counts, lost)


def _lost_rows(lost: Lost, n: int) -> str:
    """What to say of the rows in which a part of the formula has no value."""
    count = int(lost.rows.sum())
    rows = f"{count:,} of {n:,} rows"
    if np.isnan(lost.low):
        return (
            f"`{lost.text}` leaves {rows} out: it does not list {lost.argument}. To leave them out "
            "without this warning, filter the data."
        )
    between = (
        f"is {lost.low:g}"
        if lost.low == lost.high
        else (f"lies between {lost.low:g} and {lost.high:g}")
    )
    return (
        f"`{lost.text}` has no value in {rows}, where `{lost.argument}` {between}; these rows were "
        "left out. Mend the column, or mark the values as missing."
    )


# --- values ----------------------------------------------------------------------------


def _response(name: str | None, values: Mapping[str, Value], n: int) -> Vector:
    if name is None:
        return np.zeros(n)
    y = numeric_response(name, values[name])
    check_finite(name, y, "The response ")
    return y


def _warn_of_labels(
    evaluation: _Evaluation,
    fixed: TermTable,
    groups: Mapping[str, GroupColumn],
    table: pd.DataFrame,
) -> None:
    """Warn of columns whose labels are hardly what was meant; what ``factor()`` made is meant."""
    written = {deparse(tree) for tree in fixed.variables}
    for name in table.columns:
        is_fixed = quote_name(name) in written
        if is_fixed:
            value = evaluation.variables[quote_name(name)].value
            labels: Sequence[Any] = value.levels if isinstance(value, Factor) else ()
            if not isinstance(table[name].dtype, pd.CategoricalDtype):
                doubt_text(name, labels, _doubt)
        elif name in groups and groups[name].uniques.dtype.kind not in "iufb":
            labels = [label for label in groups[name].uniques if isinstance(label, str)]
        else:
            continue
        doubt_spelling(name, labels, _doubt)


def _doubt(sentence: str) -> None:
    warn(sentence, DataWarning)


def _check_values(
    evaluation: _Evaluation,
    fixed: TermTable,
    random: list[TermTable],
    of_residuals: Sequence[Node],
    values: Mapping[str, Value],
) -> None:
    names = {deparse(tree) for table in (fixed, *random) for tree in table.variables}
    names |= {deparse(tree) for tree in of_residuals}
    for name in sorted({*names, *evaluation.offsets}):
        value = values[name]
        if not isinstance(value, Factor):
            check_finite(name, value)
        elif name in evaluation.offsets:
            raise DataError(f"`offset({name})` must be numbers; `{name}` is categorical.")


def _offset(
    names: tuple[str, ...], values: Mapping[str, Value], given: Vector | None
) -> Vector | None:
    total = given
    for name in names:
        value = values[name]
        assert not isinstance(value, Factor)
        if value.ndim == 2:
            raise DataError(f"`offset({name})` has {value.shape[1]} columns; it needs one.")
        total = value.astype(np.float64) if total is None else total + value
    return total


def _fixed_matrix(
    fixed: TermTable,
    values: Mapping[str, Value],
    states: Mapping[str, State],
    codings: Mapping[str, Coding],
    n: int,
    design_only: bool,
) -> tuple[Vector, DesignEncoder, tuple[str, ...]]:
    encoder, settled = fit_encoder(fixed, values, states, codings)
    if encoder.coders:
        largest = max(encoder.coders, key=lambda coder: len(coder.suffixes)).name
        check_size(n, encoder.n_columns, largest)
    X = encoder.assemble(settled, n)
    kept = independent_columns(X)
    if not design_only:
        check_fixed(encoder.all_names, kept, n)
    far: tuple[str, ...] = ()
    if len(kept) < X.shape[1]:
        dropped = sorted(set(range(X.shape[1])) - set(kept.tolist()))
        far = tuple(encoder.all_names[j] for j in dropped if is_far_from_zero(X[:, j]))
        X = np.asfortranarray(X[:, kept])
    return X, encoder.keeping(kept), far


def _check_codings(codings: Mapping[str, Coding], encoders: Sequence[DesignEncoder]) -> None:
    """Every factor that ``contrasts`` names is one of the formula."""
    factors = list(dict.fromkeys(name for encoder in encoders for name in encoder.factors))
    for name in codings:
        if name not in factors:
            raise ModelError(
                f"`contrasts` names `{name}`, which is not a factor of the fixed or random effects"
                f"{' (those are ' + ', '.join(factors) + ')' if factors else ''}."
            )


def _variance_of_rows(family: Family | None) -> str | None:
    """What a variance between rows would stand beside; None where there is nothing."""
    if family is None:
        return "residual variance"
    return f"{family.parameter_name} of the {family.name} family" if family.has_parameter else None


# --- random-effects terms --------------------------------------------------------------


def _random_terms(
    formula: Formula,
    random: list[TermTable],
    values: Mapping[str, Value],
    states: Mapping[str, State],
    codings: Mapping[str, Coding],
    columns: Mapping[str, GroupColumn],
    n: int,
    design_only: bool,
    rival: str | None,
) -> tuple[tuple[RandomTerm, ...], tuple[DesignEncoder, ...], dict[str, int]]:
    groupings: dict[str, Grouping] = {}
    made_of: dict[str, tuple[str, ...]] = {}
    for bar in formula.random:
        if made_of.setdefault(bar.group, bar.variables) != bar.variables:
            raise ModelError(
                f"Two grouping factors are called `{bar.group}`: a column and a combination of "
                "columns. Rename the column."
            )
        if bar.group not in groupings:
            grouping = combine([columns[v] for v in bar.variables], bar.variables)
            if not design_only:
                levels_of = (bar.group, len(grouping.labels), grouping.labels)
                check_grouping(*levels_of, n if rival else None, rival or "")
            groupings[bar.group] = grouping

    order = lme4_order([len(groupings[bar.group].labels) for bar in formula.random])
    levels = {name: pd.Index(grouping.labels) for name, grouping in groupings.items()}
    terms: list[RandomTerm] = []
    encoders = []
    labels = term_labels([formula.random[i].group for i in order])
    for i, label in zip(order, labels, strict=True):
        bar = formula.random[i]
        encoder, settled = fit_encoder(random[i], values, states, codings)
        # Before the columns are built: there may be very many.
        if design_only:
            check_size(n, encoder.n_columns, bar.group)
        elif bar.structure == "us" and rival:
            check_random_effects(encoder.n_columns, len(levels[bar.group]), str(bar), n, rival)
        if bar.structure != "us":
            check_structure_columns(bar, encoder)
        terms.append(
            _term(
                bar,
                label,
                encoder,
                encoder.assemble(settled, n, "C"),
                groupings[bar.group],
                levels[bar.group],
            )
        )
        encoders.append(encoder)
    unused = {name: g.unused for name, g in groupings.items() if g.unused}
    return tuple(terms), tuple(encoders), unused


def _term(
    bar: Bar,
    label: str,
    encoder: DesignEncoder,
    z: NDArray[np.float64],
    grouping: Grouping,
    levels: pd.Index[Any],
) -> RandomTerm:
    return RandomTerm(
        label=label,
        group=bar.group,
        variables=bar.variables,
        columns=encoder.names,
        levels=levels,
        level_values=grouping.values,
        codes=grouping.codes,
        z=z,
        structure=bar.structure,
        homogeneous=bar.homogeneous,
    )


def term_labels(groups: Sequence[str]) -> list[str]:
    """A label of its own for each term, as in lme4: ``g``, ``g.1`` for a second on one factor.

    Examples
    --------
    >>> term_labels(["g", "h", "g"])
    ['g', 'h', 'g.1']
    """
    labels: list[str] = []
    for group in groups:
        label, repeat = group, 0
        while label in labels:
            repeat += 1
            label = f"{group}.{repeat}"
        labels.append(label)
    return labels


def lme4_order(n_levels: list[int]) -> list[int]:
    """Order the terms as lme4's ``mkReTrms``: untouched unless some count increases."""
    if all(a >= b for a, b in pairwise(n_levels)):
        return list(range(len(n_levels)))
    return sorted(range(len(n_levels)), key=n_levels.__getitem__)[::-1]
