"""Hypotheses of types 1, 2 and 3 about the terms of the fixed part, as lmerTest defines them.

Type 1 takes up the terms one after the other. Type 2 adjusts a term for all others but those that
contain it. Type 3 averages over the cells of the terms that contain it, whatever the coding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.frame.data_summary import DataSummary
from mixedeffects.frame.encode import DesignEncoder, VariableCoder
from mixedeffects.frame.rank import independent_columns

__all__ = [
    "column_coefficients",
    "containing_terms",
    "term_columns",
    "term_contrasts",
    "tested_at_zero",
]

Matrix = NDArray[np.float64]

#: Coefficients of a contrast below this share of the largest are rounding errors.
_ROUNDING = 1e-9
#: Standard deviations from the mean from which zero is at the edge of the data.
_AT_THE_EDGE = 2.5


def term_columns(encoder: DesignEncoder) -> dict[str, list[int]]:
    """For each term the columns of X that are its own; none if all were dropped."""
    columns: dict[str, list[int]] = {label: [] for label in encoder.term_labels}
    for column, term in enumerate(encoder.assign):
        if term:
            columns[encoder.term_labels[term - 1]].append(column)
    return columns


def containing_terms(encoder: DesignEncoder) -> dict[str, list[str]]:
    """For each term those that contain it: its variables and further ones, the same covariates.

    As in lmerTest, a variable that a term codes by all its levels does not count as one of its
    variables, and only columns of single numbers count as covariates.
    """
    table, coders = encoder.table, encoder.coders
    variables = [
        {v for v in term if not _by_level(table.terms, position, v)}
        for position, term in enumerate(table.terms)
    ]
    covariates = [
        {v for v in own if coders[v].kind == "numeric" and len(coders[v].suffixes) == 1}
        for own in variables
    ]
    return {
        label: [
            other
            for j, other in enumerate(encoder.term_labels)
            if variables[i] < variables[j] and covariates[i] == covariates[j]
        ]
        for i, label in enumerate(encoder.term_labels)
    }


def _by_level(terms: Sequence[tuple[int, ...]], position: int, variable: int) -> bool:
    """Whether R's terms object has a 2 here: without it, the term is in no earlier one."""
    rest = set(terms[position]) - {variable}
    return bool(rest) and not any(rest <= set(earlier) for earlier in terms[:position])


def term_contrasts(encoder: DesignEncoder, summary: DataSummary, kind: int) -> dict[str, Matrix]:
    """The hypothesis of each term.

    Parameters
    ----------
    encoder : DesignEncoder
        Of the fixed part.
    summary : DataSummary
        Of its rows.
    kind : {1, 2, 3}
        Type of the hypotheses.

    Returns
    -------
    dict of str to ndarray, shape (rows, p)
        Contrasts by term; no rows for a term without columns.

    References
    ----------
    Kuznetsova, A., Brockhoff, P. B. and Christensen, R. H. B. (2017). lmerTest package: tests in
    linear mixed effects models. Journal of Statistical Software 82(13).
    """
    columns = term_columns(encoder)
    X = summary.design(encoder)
    if kind == 1 or len(columns) <= 1 or X.shape[1] <= 1:
        sequential = _sequential(X)
        return {label: sequential[own] for label, own in columns.items()}
    if kind == 2:
        return _type2(X, columns, containing_terms(encoder))
    return _type3(X, encoder, summary)


def _sequential(X: Matrix) -> Matrix:
    """Rows L with ``X = Q D L``, L unit upper triangular: each column given those before it."""
    size = np.linalg.norm(X, axis=0)
    R = np.asarray(np.linalg.qr(X / size, mode="r"))
    return np.asarray(R / np.diag(R)[:, None] * size / size[:, None])


def _type2(
    X: Matrix, columns: dict[str, list[int]], containing: dict[str, list[str]]
) -> dict[str, Matrix]:
    contrasts = {}
    for label, own in columns.items():
        if not containing[label]:
            # The same hypothesis as below; Satterthwaite's joint test depends on the basis that it
            # is written in, and this is lmerTest's.
            contrasts[label] = np.eye(X.shape[1])[own]
            continue
        last = own + [c for other in containing[label] for c in columns[other]]
        order = [c for c in range(X.shape[1]) if c not in last] + last
        L = np.empty((len(order), len(order)))
        L[:, order] = _sequential(X[:, order])
        start = len(order) - len(last)
        contrasts[label] = L[start : start + len(own)]
    return contrasts


def _treatment(coder: VariableCoder) -> VariableCoder:
    if coder.kind == "numeric":
        return coder
    count = len(coder.levels)
    return replace(coder, contrasts=np.arange(1, count), suffixes=coder.levels[1:])


def _type3(of_model: Matrix, encoder: DesignEncoder, summary: DataSummary) -> dict[str, Matrix]:
    coded = replace(encoder, coders=tuple(_treatment(coder) for coder in encoder.coders), kept=None)
    X = summary.design(coded)
    coded = coded.keeping(np.asarray(independent_columns(X), dtype=np.intp))
    X = X if coded.kept is None else X[:, coded.kept]
    every = replace(
        coded,
        table=replace(encoder.table, full=tuple((True,) * len(t) for t in encoder.table.terms)),
        kept=None,
    )
    cells = summary.design(every)
    # Coefficients of the cells in terms of those of X: cells = X (least squares) L'.
    L = column_coefficients(X, cells).T
    columns = term_columns(coded)
    containing = containing_terms(encoder)
    by_degree = sorted(range(len(encoder.term_labels)), key=lambda i: -len(encoder.table.terms[i]))
    for i in by_degree:
        label = encoder.term_labels[i]
        above = [c for other in containing[label] for c in columns[other]]
        own = columns[label]
        if above and own:
            fitted = L[:, above] @ np.linalg.lstsq(L[:, above], L[:, own], rcond=None)[0]
            L[:, own] = _clean(L[:, own] - fitted, L[:, own])
    position = {name: i for i, name in enumerate(every.names)}
    # Cells that the treatment coding has columns for; by R's names they are the same.
    L = L[[position[name] for name in coded.names]]
    to_model = column_coefficients(X, of_model)
    contrasts = {}
    for label, own in columns.items():
        rows = L[:, own].T
        rows = rows[np.abs(rows).sum(axis=1) > 0.0] @ to_model
        contrasts[label] = rows
    return contrasts


def column_coefficients(X: Matrix, targets: Matrix) -> Matrix:
    """Least-squares coefficients of each target on X, rounding errors set to zero."""
    size, size_targets = np.linalg.norm(X, axis=0), np.linalg.norm(targets, axis=0)
    size_targets[size_targets == 0.0] = 1.0
    Q, R = np.linalg.qr(X / size)
    scaled = np.linalg.solve(R, Q.T @ (targets / size_targets))
    return np.asarray(_clean(scaled, scaled) / size[:, None] * size_targets)


def _clean(values: Matrix, beside: Matrix) -> Matrix:
    largest = np.abs(beside).max(initial=0.0)
    return np.where(np.abs(values) > _ROUNDING * largest, values, 0.0)


def tested_at_zero(encoder: DesignEncoder, summary: DataSummary) -> dict[str, list[str]]:
    """Numbers of which zero is at the edge of the data or beyond, and what they interact with.

    The hypothesis of such a term, of type 2 or 3, is one at zero of the number.
    """
    terms = [frozenset(term) for term in encoder.table.terms]
    column = {position - 1: j for j, position in enumerate(encoder.assign)}
    found: dict[str, list[str]] = {}
    for position, own in enumerate(terms):
        for number, coder in enumerate(encoder.coders):
            alone = frozenset({number})
            if (
                number in own
                or coder.kind != "numeric"
                or coder.width(full=False) != 1
                or own | alone not in terms
                or alone not in terms
                or terms.index(alone) not in column
            ):
                continue
            values, spread = summary.column(encoder, column[terms.index(alone)])
            outside = values.low > 0.0 or values.high < 0.0
            if outside or abs(values.mean) > _AT_THE_EDGE * spread:
                found.setdefault(coder.name, []).append(encoder.term_labels[position])
    return found
