"""The coefficients of several fits side by side: which there are, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from mixedeffects.display.numbers import fixed_decimals
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.sectioned import Row
from mixedeffects.display.vocabulary import INTERVAL
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.coefficients import tests_with
from mixedeffects.inference.variance import check_normal, is_robust
from mixedeffects.inference.variance_by_name import fixed_effects_variance
from mixedeffects.reporting.estimates_arguments import Labels, one_for_each

__all__ = ["CoefficientRows", "chosen_coefficients", "coefficients", "in_order"]


def coefficients(
    fits: Sequence[Fit],
    columns: Sequence[str],
    ddf: Any,
    vcov: Any,
    cluster: Any,
    level: float,
    label: Labels,
) -> tuple[list[str], list[ResultTable]]:
    """How the tests were made, and the table of coefficients by label, of each fit."""
    kinds = one_for_each(vcov, "vcov", len(fits))
    alone = not any(fit.has_degrees_of_freedom for fit in fits)
    if alone and isinstance(ddf, str) and ddf != "satterthwaite":
        # The usual method, which nobody may have asked for, is left out without a word.
        check_normal(ddf)
    some_robust = any(is_robust(kind) for kind in kinds)
    methods, tables = [], []
    for fit, column, kind, method in zip(
        fits, columns, kinds, one_for_each(ddf, "ddf", len(fits)), strict=True
    ):
        own = None if some_robust and not is_robust(kind) else cluster
        # One method for all is for those that have degrees of freedom.
        used = method if fit.has_degrees_of_freedom or isinstance(ddf, list) else "inf"
        variance = fixed_effects_variance(fit, kind, used, own)
        table = tests_with(fit, variance, level)
        shown = [label(str(name)) for name in table.index]
        if len(set(shown)) < len(shown):
            twice = sorted({name for name in shown if shown.count(name) > 1})
            raise ModelError(
                f"labels give several coefficients of {column} the same name: {', '.join(twice)}."
            )
        table["name"] = [str(name) for name in table.index]
        table.index = pd.Index(shown)
        methods.append(variance.method)
        tables.append(table)
    return methods, tables


def in_order(parts: Sequence[Iterable[str]]) -> list[str]:
    """All names; a new one comes before the known name that it precedes in its part, else last."""
    out: list[str] = []
    for part in parts:
        pending: list[str] = []
        for name in part:
            if name in out:
                place = out.index(name)
                out[place:place] = pending
                pending = []
            else:
                pending.append(name)
        out += pending
    return out


def chosen_coefficients(
    tables: Sequence[pd.DataFrame], label: Labels, keep: Any, drop: Any, order: Any
) -> list[str]:
    """Labels of the coefficients to show, in order."""
    found = in_order([list(table.index) for table in tables])
    known = {shown: {shown} for shown in found}
    for table in tables:
        for shown, name in zip(table.index, table["name"], strict=True):
            known[shown].add(name)
    search = partial(_matching, known)
    if keep is not None:
        wanted = {name for names in search("keep", keep) for name in names}
        found = [name for name in found if name in wanted]
    if drop is not None:
        unwanted = {name for names in search("drop", drop) for name in names}
        found = [name for name in found if name not in unwanted]
    if order is not None:
        first = [name for names in search("order", order) for name in names if name in found]
        found = list(dict.fromkeys([*first, *found]))
    return found


def _matching(known: Mapping[str, set[str]], what: str, patterns: Any) -> list[list[str]]:
    """For each pattern the labels that it matches, at least one."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(p, str) for p in patterns):
        raise ModelError(f"{what} must be names of coefficients or patterns, not {patterns!r:.60}.")
    out = []
    for pattern in patterns:
        matched = [shown for shown, names in known.items() if pattern in names]
        if not matched:
            try:
                search = re.compile(pattern).search
            except re.error as error:
                raise ModelError(
                    f"{what}: {pattern!r} is neither a coefficient nor a regular expression "
                    f"({error}). The coefficients are {', '.join(known)}."
                ) from None
            matched = [shown for shown, names in known.items() if any(map(search, names))]
        if not matched:
            raise ModelError(
                f"{what}: {pattern!r} matches no coefficient; they are {', '.join(known)}."
            )
        out.append(matched)
    return out


@dataclass(frozen=True)
class CoefficientRows:
    """How coefficients are written."""

    statistic: str
    digits: int
    marks: Sequence[tuple[str, float]]

    def rows(self, name: str, tables: Sequence[pd.DataFrame]) -> list[Row]:
        """The estimates of one coefficient, and what stands below them."""
        own = [dict(table.loc[[name]].iloc[0]) if name in table.index else None for table in tables]
        return [
            Row(name, tuple("" if c is None else self._estimate(c) for c in own)),
            Row("", tuple("" if c is None else self._below(c) for c in own)),
        ]

    def _estimate(self, coefficient: Mapping[Any, Any]) -> str:
        p = float(_either(coefficient, "p"))
        mark = next((mark for mark, bound in self.marks if p < bound), "")
        return fixed_decimals(coefficient["Estimate"], self.digits) + mark

    def _below(self, coefficient: Mapping[Any, Any]) -> str:
        if self.statistic == "ci":
            low, high = (fixed_decimals(coefficient[bound], self.digits) for bound in INTERVAL)
            return f"[{low}, {high}]"
        return f"({fixed_decimals(_either(coefficient, self.statistic), self.digits)})"


#: Columns of a table of t tests or of z tests.
_COLUMNS = {"se": ("Std. Error",), "t": ("t value", "z value"), "p": ("Pr(>|t|)", "Pr(>|z|)")}


def _either(coefficient: Mapping[Any, Any], statistic: str) -> Any:
    """A number of the table, whichever test it is of."""
    return next(coefficient[name] for name in _COLUMNS[statistic] if name in coefficient)
