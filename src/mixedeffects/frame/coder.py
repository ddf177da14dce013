"""What is remembered of one variable of a formula, to code it again in other data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.errors import DataError
from mixedeffects.formula.evaluate import State
from mixedeffects.formula.syntax import Node, deparse
from mixedeffects.formula.values import Factor, Value
from mixedeffects.frame.checks import check_finite
from mixedeffects.frame.columns import Mask, labels_of
from mixedeffects.frame.variables import Columns, evaluate_variable

__all__ = ["VariableCoder", "copied_state", "unseen_levels"]


@dataclass(frozen=True, eq=False)
class VariableCoder:
    """What is remembered of one variable.

    Attributes
    ----------
    tree : Node
        The expression.
    kind : {"numeric", "logical", "factor"}
        What it evaluated to.
    levels : tuple of str
        Of a factor, those in the rows used; FALSE and TRUE of a logical.
    contrasts : ndarray, shape (levels, contrasts), or (contrasts,) of int
        As `contrast_columns` returns them; empty for numbers.
    suffixes : tuple of str
        What the columns add to the name, of the contrasts or of a matrix such as ``poly(x, 2)``.
    state : dict
        What stateful transforms remember.
    """

    tree: Node
    kind: Literal["numeric", "logical", "factor"]
    levels: tuple[str, ...]
    contrasts: NDArray[Any]
    suffixes: tuple[str, ...]
    state: State

    @cached_property
    def name(self) -> str:
        """R's text of the expression."""
        return deparse(self.tree)

    def width(self, full: bool) -> int:
        """Number of its columns, one per level if ``full``."""
        return len(self.levels if full and self.kind != "numeric" else self.suffixes)

    def column_names(self, full: bool) -> list[str]:
        """Return the names of its columns, one per level if ``full``."""
        suffixes = self.levels if full and self.kind != "numeric" else self.suffixes
        return [self.name + suffix for suffix in suffixes]

    def column(self, values: NDArray[Any], j: int, full: bool) -> NDArray[Any]:
        """Return column ``j`` on the rows of ``values`` (numbers, or codes of a factor)."""
        column: NDArray[Any]
        if self.kind == "numeric":
            column = values if values.ndim == 1 else values[:, j]
        elif full:
            column = np.equal(values, j)
        elif self.contrasts.ndim == 1:
            column = np.equal(values, self.contrasts[j])
        else:
            column = np.take(self.contrasts[:, j], values)
        return column

    def evaluate(self, columns: Columns) -> tuple[NDArray[Any], Mask | None]:
        """Evaluate and settle it on other data; also return where it is missing.

        Raises
        ------
        DataError
            As for `settle`, or if a number is infinite.
        """
        evaluated = evaluate_variable(self.tree, columns, copied_state(self.state))
        value, missing = evaluated.value, evaluated.missing
        if self.kind == "numeric" and missing is not None and missing.all():
            # Where nothing could be evaluated, nothing is known of the number of columns.
            width = len(self.suffixes)
            return np.full(columns.n if width == 1 else (columns.n, width), np.nan), missing
        settled = self.settle(value)
        if self.kind == "numeric":
            check_finite(self.name, settled if missing is None else settled[~missing])
        return settled, missing

    def settle(self, value: Value) -> NDArray[Any]:
        """Return numbers as they are and a factor as codes into ``levels``.

        Raises
        ------
        DataError
            If there are levels that the fit did not see, or numbers where it saw levels.
        """
        if self.kind == "numeric":
            if isinstance(value, Factor):
                raise DataError(f"`{self.name}` was numeric in the fit; here it is categorical.")
            wanted = len(self.suffixes)
            if (1 if value.ndim == 1 else value.shape[1]) != wanted:
                raise DataError(f"`{self.name}` had {wanted} columns in the fit.")
            return value
        if not isinstance(value, Factor):
            if self.kind == "logical" and value.dtype == np.bool_:
                return value.astype(np.int32)
            value = _as_levels(value)
        if value.levels == self.levels:
            return value.codes
        known = {label: i for i, label in enumerate(self.levels)}
        if self.kind == "logical":
            known |= {"False": 0, "True": 1}
        used = np.unique(value.codes[value.codes >= 0]).tolist()
        unseen = [value.levels[i] for i in used if value.levels[i] not in known]
        if unseen:
            raise unseen_levels(self.name, unseen, self.levels)
        lookup = np.array([known.get(label, -1) for label in value.levels] + [-1], dtype=np.int32)
        return np.take(lookup, value.codes)


def unseen_levels(name: str, unseen: Sequence[str], known: Sequence[str]) -> DataError:
    """The error for levels of a variable that a fit did not see."""
    shown = ", ".join(repr(label) for label in unseen[:5])
    more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
    return DataError(
        f"`{name}` has {'a level' if len(unseen) == 1 else 'levels'} that the fit did not see: "
        f"{shown}{more}. Known are {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}."
    )


def _as_levels(value: NDArray[Any]) -> Factor:
    found, codes = np.unique(value, return_inverse=True)
    missing = np.isnan(value) if value.dtype.kind == "f" else np.zeros(value.size, dtype=np.bool_)
    return Factor(np.where(missing, -1, codes), tuple(labels_of(found.tolist())))


def copied_state(state: State) -> State:
    """A state to evaluate with: a transform may write to it, and the fit's must stay as it is."""
    return {text: dict(remembered) for text, remembered in state.items()}
