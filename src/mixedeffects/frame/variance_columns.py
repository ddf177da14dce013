"""The columns that the logarithm of the residual standard deviation is linear in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import FormulaError, ModelError
from mixedeffects.formula.bars import has_bar
from mixedeffects.formula.evaluate import State
from mixedeffects.formula.reader import fail, read
from mixedeffects.formula.residual_elsewhere import VARIANCE_FUNCTIONS
from mixedeffects.formula.syntax import Call, Group, Name, Node, Unary, deparse, walk
from mixedeffects.formula.terms import TermTable, expand_terms
from mixedeffects.formula.values import Coding, Factor, Value
from mixedeffects.frame.checks import check_size
from mixedeffects.frame.coder import VariableCoder
from mixedeffects.frame.encode import DesignEncoder, fit_encoder
from mixedeffects.frame.rank import independent_columns
from mixedeffects.frame.residual_term import VarianceTerm

__all__ = ["read_variance", "variance_columns"]


def read_variance(text: str) -> tuple[str, TermTable]:
    """Read what the residual standard deviation follows.

    Parameters
    ----------
    text : str
        Terms as in the fixed part of a formula: ``"sex + log(age)"``. The standard deviation is
        ``sigma`` times the exponential of their linear combination, so there is no intercept.

    Returns
    -------
    text : str
        As it would be written.
    table : TermTable
        The terms, with an intercept, so that factors have a reference level.

    Raises
    ------
    FormulaError
        If it cannot be read or has no meaning.

    Examples
    --------
    >>> read_variance("sex+log( age )")[0]
    'sex + log(age)'
    """
    if not isinstance(text, str):
        raise FormulaError(
            f"`variance` is text, such as 'sex + log(age)'; got {type(text).__name__}."
        )
    text = " ".join(text.split())
    if not text:
        raise FormulaError("`variance` is empty; write for example 'sex + log(age)'.")
    tree: Node = read(text)
    if isinstance(tree, Unary) and tree.operator == "~":
        tree = tree.operand
    bar = has_bar(tree)
    for node in walk(tree):
        if isinstance(node, Call) and node.function.lower() in VARIANCE_FUNCTIONS:
            fail(
                f"What nlme writes `{node.function}` is "
                f"{VARIANCE_FUNCTIONS[node.function.lower()]}.",
                text,
                node.start,
                node.end,
            )
        if isinstance(node, Name) and node.name == ".":
            fail("Write out what the variance follows.", text, node.start, node.end)
    if bar is not None:
        fail(
            "`variance` has terms of columns and no bar; a variance for each position is written "
            "residual='diag(visit | id)'.",
            text,
            bar.start,
            bar.end,
        )
    table = expand_terms(tree, text)
    if table.offsets:
        fail(
            "A known part of the variance is given as `weights`, which divide it.",
            text,
            tree.start,
            tree.end,
        )
    if not table.intercept:
        fail(
            "The size of all residuals is `sigma`, which cannot be taken away; leave `0` or `-1` "
            "out, and the factors have a reference level.",
            text,
            tree.start,
            tree.end,
        )
    if not table.terms:
        fail("`variance` names nothing that varies.", text, tree.start, tree.end)
    while isinstance(tree, Group):
        tree = tree.inner
    return deparse(tree), table


def variance_columns(
    text: str,
    table: TermTable,
    values: Mapping[str, Value],
    states: Mapping[str, State],
    n: int,
    check: bool,
) -> tuple[VarianceTerm, DesignEncoder]:
    """Make the columns of the rows used.

    Parameters
    ----------
    text : str
    table : TermTable
        As `read_variance` returns them.
    values : mapping of str to ndarray or Factor
        Each variable on the rows used, nothing missing.
    states : mapping of str to dict
        What each variable's stateful transforms remembered.
    n : int
        Number of rows.
    check : bool
        Whether columns that cannot be told apart are an error.

    Returns
    -------
    term : VarianceTerm
    encoder : DesignEncoder
        Makes the columns from other data.

    Raises
    ------
    ModelError
        If a column is constant, or a linear combination of earlier ones.
    """
    names = [deparse(tree) for tree in table.variables]
    # Ratios of standard deviations are read against a level, also where the levels are ordered.
    codings = {
        name: Coding("treatment")
        for name in names
        if isinstance(value := values[name], Factor) and value.coding is None
    }
    encoder, settled = fit_encoder(table, values, states, codings)
    check_size(n, encoder.n_columns, f"variance={text!r}")
    every = encoder.assemble(settled, n)
    kept = np.arange(1, every.shape[1])
    if check:
        for coder, codes in zip(encoder.coders, settled, strict=True):
            if coder.kind != "numeric":
                _check_levels(text, coder, codes)
        _check_columns(text, encoder.all_names, every)
    encoder = replace(encoder, kept=kept)
    v = np.ascontiguousarray(every[:, 1:])
    return VarianceTerm(text, encoder.names, v, _reference(encoder)), encoder


def _reference(encoder: DesignEncoder) -> str:
    """The level of a factor that stands alone which has no column, named like those that have."""
    if len(encoder.coders) != 1 or encoder.coders[0].kind == "numeric":
        return ""
    (coder,) = encoder.coders
    without = [name for name in coder.column_names(full=True) if name not in encoder.names]
    return without[0] if len(without) == 1 else ""


def _check_levels(text: str, coder: VariableCoder, codes: NDArray[np.integer[Any]]) -> None:
    """Each level needs two rows: one row can be fitted exactly, whatever its variance."""
    single = np.flatnonzero(np.bincount(codes, minlength=len(coder.levels)) == 1)
    if len(single):
        shown = ", ".join(repr(coder.levels[i]) for i in single[:5])
        raise ModelError(
            f"variance={text!r} gives each level of `{coder.name}` its own standard deviation, but "
            f"there is one row at {shown}, from which none can be estimated. Join levels, or leave "
            "these rows out."
        )


def _check_columns(text: str, names: tuple[str, ...], every: NDArray[np.float64]) -> None:
    for name, column in zip(names[1:], every.T[1:], strict=True):
        if (column == column[0]).all():
            raise ModelError(
                f"The column `{name}` of variance={text!r} is {column[0]:g} in every row used, so "
                "nothing of the variance can be said of it. Leave the term out, or filter the data "
                "so that it varies."
            )
    kept = set(independent_columns(every).tolist())
    dependent = [name for j, name in enumerate(names) if j not in kept]
    if dependent:
        shown = ", ".join(f"`{name}`" for name in dependent)
        raise ModelError(
            f"In variance={text!r} {shown} cannot be told from the other columns and the constant "
            "`sigma`, of which it is a linear combination. Leave a term out."
        )
