"""Factors in ``(f || g)``: lme4 leaves the effects of their levels correlated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mixedeffects.base.options import checked_choice
from mixedeffects.formula import Formula, parse_formula
from mixedeffects.formula.evaluate import TO_FACTOR
from mixedeffects.formula.reader import read
from mixedeffects.formula.syntax import (
    Binary,
    Call,
    Group,
    Node,
    children,
    deparse,
    variable_names,
    walk,
)
from mixedeffects.formula.values import Factor
from mixedeffects.frame.ingest import column_names, materialised, take_columns
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.frame.variables import Columns

__all__ = ["as_double_bars_mean", "correlated_in_double_bars", "separate_double_bars"]


def as_double_bars_mean(text: str, data: Any, double_bar: Any) -> str:
    """The formula as ``double_bar=`` of `mixedeffects.lmer` has it read.

    Raises
    ------
    ModelError
        If ``double_bar`` is neither ``"lme4"`` nor ``"separate"``.
    """
    if checked_choice(double_bar, "double_bar", ("lme4", "separate")) == "separate":
        return separate_double_bars(text, data)
    return text


def separate_double_bars(text: str, data: Any) -> str:
    """The formula with ``diag(f | g)`` in place of ``(f || g)``, where f has a factor.

    Parameters
    ----------
    text : str
        A formula that can be read.
    data : dataframe
        Where it is known which columns are factors.
    """
    text = parse_formula(text, without_random=True).text
    source = materialised(data)
    known = set(column_names(source))
    out, end = [], 0
    for group in _double_bars(read(text)):
        bar = group.inner
        assert isinstance(bar, Binary)
        names = [name for name in variable_names(bar.left) if name in known]
        if not (_makes_a_factor(bar.left) or _has_a_factor(source, names)):
            continue
        out += [text[end : group.start], f"diag({deparse(bar.left)} | {deparse(bar.right)})"]
        end = group.end
    return "".join([*out, text[end:]])


def _double_bars(tree: Node) -> Iterator[Group]:
    """Terms with ``||`` in the order written; inside a call it means "or"."""
    if isinstance(tree, Group) and isinstance(tree.inner, Binary) and tree.inner.operator == "||":
        yield tree
    elif not isinstance(tree, Call):
        for child in children(tree):
            yield from _double_bars(child)


def _makes_a_factor(tree: Node) -> bool:
    return any(isinstance(node, Call) and node.function in TO_FACTOR for node in walk(tree))


def _has_a_factor(source: Any, names: Sequence[str]) -> bool:
    columns = Columns(take_columns(source, list(names)))
    values = [columns[name][0] for name in names]
    return any(isinstance(value, Factor) or value.dtype == np.bool_ for value in values)


def correlated_in_double_bars(formula: Formula, terms: Sequence[RandomTerm]) -> list[str]:
    """What stands in ``||`` and has several columns, whose effects are correlated all the same.

    Parameters
    ----------
    formula : Formula
        As fitted.
    terms : sequence of RandomTerm
        Its random-effects terms.
    """
    places = {(group.start, group.end) for group in _double_bars(read(formula.text))}
    found: dict[str, None] = {}
    for bar in formula.random:
        what = bar.expression.removeprefix("0 + ")
        names = variable_names(bar.tree)
        if (bar.start, bar.end) in places and names:
            several = [t for t in terms if t.group == bar.group and len(t.columns) > 1]
            if any(all(names[0] in column for column in term.columns) for term in several):
                found[what] = None
    return list(found)
