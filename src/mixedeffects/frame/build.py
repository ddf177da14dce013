"""Join a formula to data: the model frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.centring import is_far_from_zero
from mixedeffects.base.warning import warn
from mixedeffects.errors import DataError, DataWarning
from mixedeffects.families import Family
from mixedeffects.formula import Formula, ResidualSpec, parse_formula, read_residual
from mixedeffects.formula.syntax import Node, deparse, quote_name
from mixedeffects.formula.values import Coding, Factor
from mixedeffects.frame.checks import (
    check_finite,
    check_fixed,
    check_ranges,
    check_size,
    check_weights,
    numeric_response,
)
from mixedeffects.frame.contrasts import read_contrasts
from mixedeffects.frame.encode import DesignEncoder, VariableCoder, check_codings, fit_encoder
from mixedeffects.frame.grouping import combine
from mixedeffects.frame.identifiability import check_random_columns
from mixedeffects.frame.ingest import column_names, materialised
from mixedeffects.frame.model_frame import Dropped, ModelFrame
from mixedeffects.frame.named import NamedVariables, named_variables
from mixedeffects.frame.random_terms import random_terms
from mixedeffects.frame.rank import independent_columns
from mixedeffects.frame.residual_checks import check_places, check_residual
from mixedeffects.frame.residual_rows import residual_rows, rows_in_their_order
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm
from mixedeffects.frame.responses import (
    GivenResponse,
    check_binary_rows,
    read_exposure,
    read_generalized_response,
)
from mixedeffects.frame.structures import check_replication
from mixedeffects.frame.text_levels import doubt_spelling, doubt_text
from mixedeffects.frame.used_rows import UsedRows, read_rows
from mixedeffects.frame.variance_columns import read_variance, variance_columns

__all__ = ["build_model_frame"]

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
    named = named_variables(formula, response, spec, of_variance, roles, available)
    read = read_rows(named, source, available)

    y = np.zeros(read.n) if family is not None else _response(response, read)
    # Before anything that such levels may make impossible.
    _warn_of_labels(named, read)
    _check_values(named, read)
    given_weights = read.role("weights")
    if given_weights is not None:
        check_weights(*given_weights)
    w = None if given_weights is None else given_weights[1]
    given: GivenResponse | None = None
    if family is not None and response is not None:
        name = deparse(response)
        given = read_generalized_response(
            name, response, read.taken[name], given_weights, family, read.used.index
        )
        y, w = given.response.y, given.response.weights
    rival = None if known_sigma else _variance_of_rows(family)

    written = {deparse(tree) for tree in named.of_effects}
    codings, spare = (
        {name if name in written else quote_name(name): coding for name, coding in each.items()}
        for each in (codings, spare)
    )
    every = {**spare, **codings}
    X, encoder, far = _fixed_matrix(named, read, every, design_only)
    random = random_terms(named, read, every, design_only, rival)
    residuals = _residuals(named, read, design_only)
    check_codings(codings, (encoder, *random.encoders))
    total_offset = _offset(named, read, family)
    if not design_only:
        with np.errstate(over="ignore"):
            known = y if total_offset is None else y - total_offset
        if family is not None:
            # Its scale is that of the linear predictor, whatever the units of the response.
            known = np.zeros(read.n)
        check_ranges(
            ("None" if response is None else deparse(response), known),
            [(encoder.names, X), *((term.columns, term.z) for term in random.terms)],
            None if w is None or given_weights is None else (given_weights[0], w),
        )
        check_random_columns(random.terms)
        if rival:
            check_replication(random.terms)
        if given is not None:
            check_binary_rows(given.response, random.terms)
        if residuals.term is not None:
            check_residual(residuals.term, random.terms, residuals.variance, w)
    return ModelFrame(
        formula=formula,
        y=np.array(y),  # the data's own array must not be shared
        X=X,
        fixef_names=encoder.names,
        terms=random.terms,
        weights=w,
        offset=total_offset,
        index=read.used.index,
        positions=np.arange(read.n) if read.rows is None else read.rows,
        dropped=Dropped(
            rows=read.left_out,
            missing_by_column=read.missing,
            columns=tuple(encoder.all_names[i] for i in encoder.dropped),
            unused_levels={**random.unused, **residuals.unused},
            far_from_zero=far,
            n_rows=len(read.table),
            lost=read.lost,
            empty_steps=residuals.empty_steps,
        ),
        data=read.used.copy(),
        fixed_encoder=encoder,
        random_encoders=random.encoders,
        residual=residuals.term,
        variance=residuals.variance,
        residual_coders=residuals.coders,
        variance_encoder=residuals.variance_encoder,
        response=None if given is None else given.response,
        response_levels=() if given is None else given.levels,
    )


def _response(response: Node | None, read: UsedRows) -> Vector:
    if response is None:
        return np.zeros(read.n)
    name = deparse(response)
    y = numeric_response(name, read.taken[name])
    check_finite(name, y, "The response ")
    return y


def _warn_of_labels(named: NamedVariables, read: UsedRows) -> None:
    """Warn of columns whose labels are hardly what was meant; what ``factor()`` made is meant."""
    written = {deparse(tree) for tree in named.fixed.variables}
    for name in read.table.columns:
        is_fixed = quote_name(name) in written
        if is_fixed:
            value = read.variables[quote_name(name)].value
            labels: Sequence[Any] = value.levels if isinstance(value, Factor) else ()
            if not isinstance(read.table[name].dtype, pd.CategoricalDtype):
                doubt_text(name, labels, _doubt)
        elif name in read.groups and read.groups[name].uniques.dtype.kind not in "iufb":
            labels = [label for label in read.groups[name].uniques if isinstance(label, str)]
        else:
            continue
        doubt_spelling(name, labels, _doubt)


def _doubt(sentence: str) -> None:
    warn(sentence, DataWarning)


def _check_values(named: NamedVariables, read: UsedRows) -> None:
    """Refuse variables of effects and residuals that are not finite, and offsets in words."""
    offsets = [deparse(tree) for tree in named.fixed.offsets]
    names = {deparse(tree) for tree in (*named.of_effects, *named.of_residuals)}
    for name in sorted({*names, *offsets}):
        value = read.taken[name]
        if not isinstance(value, Factor):
            check_finite(name, value, labels=cast("Sequence[Any]", read.used.index))
        elif name in offsets:
            raise DataError(f"`offset({name})` must be numbers; `{name}` is categorical.")


def _offset(named: NamedVariables, read: UsedRows, family: Family | None) -> Vector | None:
    """What is known of the linear predictor, shape (n,); None where there is nothing."""
    given = read.role("offset")
    total = None if given is None else given[1]
    for tree in named.fixed.offsets:
        name = deparse(tree)
        value = read.taken[name]
        assert not isinstance(value, Factor)
        if value.ndim == 2:
            raise DataError(f"`offset({name})` has {value.shape[1]} columns; it needs one.")
        total = value.astype(np.float64) if total is None else total + value
    exposed = None if family is None else read.role("exposure")
    if family is not None and exposed is not None:
        own = read_exposure(*exposed, family, read.used.index)
        total = own if total is None else total + own
    return total


def _fixed_matrix(
    named: NamedVariables, read: UsedRows, codings: Mapping[str, Coding], design_only: bool
) -> tuple[Vector, DesignEncoder, tuple[str, ...]]:
    """X, what encodes it, and the dropped columns whose values are far from zero."""
    encoder, settled = fit_encoder(named.fixed, read.taken, read.states, codings)
    if encoder.coders:
        largest = max(encoder.coders, key=lambda coder: len(coder.suffixes)).name
        check_size(read.n, encoder.n_columns, largest)
    X = encoder.assemble(settled, read.n)
    kept = independent_columns(X)
    if not design_only:
        check_fixed(encoder.all_names, kept, read.n)
    far: tuple[str, ...] = ()
    if len(kept) < X.shape[1]:
        dropped = sorted(set(range(X.shape[1])) - set(kept.tolist()))
        far = tuple(encoder.all_names[j] for j in dropped if is_far_from_zero(X[:, j]))
        X = np.asfortranarray(X[:, kept])
    return X, encoder.keeping(kept), far


@dataclass(frozen=True, eq=False)
class _Residuals:
    """What the covariance of the residuals is made of on the rows used."""

    term: ResidualTerm | None = None
    coders: tuple[VariableCoder, ...] = ()
    unused: dict[str, int] = field(default_factory=dict)
    empty_steps: tuple[tuple[str, int], ...] = ()
    variance: VarianceTerm | None = None
    variance_encoder: DesignEncoder | None = None


def _residuals(named: NamedVariables, read: UsedRows, design_only: bool) -> _Residuals:
    out, spec = _Residuals(), named.residual
    if spec is not None:
        numbers = _row_numbers(spec, read)
        of_rows = residual_rows(spec, read.taken, read.states, read.groups_used, numbers)
        check_places(of_rows.term)
        empty = tuple(of_rows.empty.items())
        out = _Residuals(of_rows.term, of_rows.coders, of_rows.unused, empty)
    if named.variance is None:
        return out
    variance, encoder = variance_columns(
        *named.variance, read.taken, read.states, read.n, not design_only
    )
    return replace(out, variance=variance, variance_encoder=encoder)


def _row_numbers(spec: ResidualSpec, read: UsedRows) -> NDArray[np.int64] | None:
    """For ``ar1(1 | group)`` the number of each row in its group; rows left out count."""
    if spec.position or spec.kind != "ar1":
        return None
    columns = [read.groups[name] for name in spec.variables]
    if read.rows is None:
        return rows_in_their_order(combine(columns, spec.variables).codes)
    absent = np.any([column.codes < 0 for column in columns], axis=0)
    present = np.flatnonzero(~absent)
    columns = [replace(column, codes=column.codes[present]) for column in columns]
    numbers = np.full(absent.size, -1, dtype=np.int64)
    numbers[present] = rows_in_their_order(combine(columns, spec.variables).codes)
    return numbers[read.rows]


def _variance_of_rows(family: Family | None) -> str | None:
    """What a variance between rows would stand beside; None where there is nothing."""
    if family is None:
        return "residual variance"
    return f"{family.parameter_name} of the {family.name} family" if family.has_parameter else None
