"""Evaluate the expressions of a formula on columns, remembering what prediction will need.

Nothing is handed to Python's ``eval``: a formula can call the functions listed in
``mixedeffects.formula.functions``, the transforms of ``mixedeffects.formula.compat``, numpy's
elementwise functions as ``np.<name>``, and nothing else.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import DataError, FormulaError, MixedEffectsError
from mixedeffects.formula.compat import TRANSFORMS, transform
from mixedeffects.formula.functions import ELEMENTWISE, SUMMARIES
from mixedeffects.formula.syntax import (
    Argument,
    Binary,
    Call,
    Constant,
    Group,
    Items,
    Name,
    Node,
    Number,
    Text,
    Unary,
    deparse,
)
from mixedeffects.formula.values import Coding, Factor, Value

__all__ = ["CONSTANTS", "State", "evaluate", "known_functions"]

State = dict[str, dict[str, Any]]

CONSTANTS = {"pi": math.pi, "T": True, "F": False}

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "%%": np.mod,
    "%/%": np.floor_divide,
}
_COMPARISON: dict[str, Callable[[Any, Any], Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
}
_LOGIC: dict[str, Callable[[Any, Any], Any]] = {
    "&": np.logical_and,
    "&&": np.logical_and,
    "|": np.logical_or,
    "||": np.logical_or,
}
_TO_FACTOR = ("factor", "as.factor", "ordered", "as.ordered", "C", "relevel")
_AS_IS = ("I", "identity", "offset")
_CODINGS = {
    "treatment": "treatment",
    "contr.treatment": "treatment",
    "contr.Treatment": "treatment",
    "Treatment": "treatment",
    "sum": "sum",
    "contr.sum": "sum",
    "contr.Sum": "sum",
    "Sum": "sum",
    "helmert": "helmert",
    "contr.helmert": "helmert",
    "Helmert": "helmert",
    "poly": "poly",
    "contr.poly": "poly",
    "Poly": "poly",
}


def known_functions() -> tuple[str, ...]:
    """Return the names of the functions a formula may call."""
    names = {*ELEMENTWISE, *SUMMARIES, *TRANSFORMS, *_TO_FACTOR, *_AS_IS, "c", "cbind"}
    return tuple(sorted(names))


def evaluate(tree: Node, columns: Mapping[str, Value], n: int, state: State) -> Value:
    """Evaluate an expression.

    Parameters
    ----------
    tree : Node
        The expression.
    columns : mapping of str to ndarray or Factor
        The columns it names, without missing values.
    n : int
        Number of rows.
    state : dict
        What the stateful parts remember, by their text. Empty at the fit, which fills it.

    Returns
    -------
    ndarray, shape (n,) or (n, k), or Factor

    Raises
    ------
    FormulaError
        If the expression calls an unknown function or mixes things that do not go together.
    DataError
        If it cannot be evaluated on these columns.
    """
    try:
        with np.errstate(all="ignore"):
            value = _Evaluation(columns, n, state).value(tree)
    except MixedEffectsError:
        raise
    except Exception as error:
        raise DataError(
            f"`{deparse(tree)}` cannot be evaluated: {str(error).rstrip('.')}."
        ) from error
    if isinstance(value, Factor):
        return value
    if isinstance(value, np.ndarray) and value.ndim in (1, 2) and value.shape[0] == n:
        return value if value.dtype == np.bool_ else value.astype(np.float64, copy=False)
    raise FormulaError(
        f"`{deparse(tree)}` does not give one value for each row; a term must vary with the rows."
    )


def _plain(node: Node, factor: Factor, what: str) -> FormulaError:
    shown = ", ".join(factor.levels[:3]) + (", ..." if len(factor.levels) > 3 else "")
    return FormulaError(
        f"{what} needs numbers, but `{deparse(node)}` is categorical (levels {shown})."
    )


class _Evaluation:
    def __init__(self, columns: Mapping[str, Value], n: int, state: State) -> None:
        self.columns = columns
        self.n = n
        self.state = state

    def value(self, node: Node) -> Any:
        match node:
            case Name(name=name):
                return self.name(name)
            case Number(value=value) | Text(value=value) | Constant(value=value):
                return value
            case Group(inner=inner):
                return self.value(inner)
            case Items(items=items):
                return [self.value(item) for item in items]
            case Unary(operator=operator, operand=operand):
                value = self.number(operand, f"`{operator}`")
                if operator == "!":
                    return np.logical_not(value)
                return -value if operator == "-" else value
            case Binary():
                return self.binary(node)
            case Call():
                return self.call(node)
        raise FormulaError(f"`{deparse(node)}` cannot be evaluated.")  # pragma: no cover

    def name(self, name: str) -> Any:
        if name in self.columns:
            return self.columns[name]
        if name in CONSTANTS:
            return CONSTANTS[name]
        raise DataError(f"There is no column `{name}`.")

    def number(self, node: Node, what: str) -> Any:
        value = self.value(node)
        if isinstance(value, Factor):
            raise _plain(node, value, what)
        if isinstance(value, np.ndarray) and value.dtype == np.bool_ and what != "`!`":
            return value.astype(np.float64)
        return value

    def binary(self, node: Binary) -> Any:
        operator = node.operator
        if operator in _COMPARISON:
            return self.compare(node)
        if operator in _LOGIC:
            return _LOGIC[operator](self.value(node.left), self.value(node.right))
        if operator not in _ARITHMETIC:
            raise FormulaError(f"`{operator}` has no meaning in `{deparse(node)}`.")
        what = f"`{operator}`"
        return _ARITHMETIC[operator](self.number(node.left, what), self.number(node.right, what))

    def compare(self, node: Binary) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(right, Factor) and not isinstance(left, Factor):
            raise FormulaError(f"Write the column first in `{deparse(node)}`.")
        if not isinstance(left, Factor):
            return _COMPARISON[node.operator](left, right)
        if isinstance(right, Factor):
            labels = [np.asarray(f.levels, dtype=object)[f.codes] for f in (left, right)]
            if node.operator not in ("==", "!="):
                raise FormulaError(f"Levels can be compared by `==` and `!=`: `{deparse(node)}`.")
            return np.asarray(_COMPARISON[node.operator](*labels), dtype=np.bool_)
        label = _label(right)
        levels = self.fitted_levels(node, left)
        if label not in levels:
            raise DataError(f"`{deparse(node)}`: {label!r} is not one of the levels.")
        if node.operator not in ("==", "!="):
            if not left.ordered:
                raise FormulaError(f"The levels have no order to compare: `{deparse(node)}`.")
            left = _reordered(left, list(levels), levels, node, keep=True)
            return _COMPARISON[node.operator](left.codes, left.levels.index(label))
        place = left.levels.index(label) if label in left.levels else -1
        return _COMPARISON[node.operator](left.codes, place)

    def fitted_levels(self, node: Node, factor: Factor) -> tuple[str, ...]:
        """The levels at the fit: other rows need not have them all."""
        remembered = self.state.setdefault(deparse(node), {})
        levels: tuple[str, ...] = remembered.setdefault("levels", factor.levels)
        return levels

    def call(self, node: Call) -> Any:
        function = node.function
        if function in _AS_IS:
            return self.value(self.one_argument(node))
        if function in TRANSFORMS:
            return self.stateful(node)
        if function in SUMMARIES:
            return self.summary(node)
        if function in _TO_FACTOR:
            return self.factor(node)
        if function == "c":
            return [self.value(a.value) for a in node.arguments]
        if function == "cbind":
            parts = [self.number(a.value, "`cbind`") for a in node.arguments]
            return np.column_stack(parts)
        implementation = ELEMENTWISE.get(function)
        if implementation is None and function.startswith(("np.", "numpy.")):
            candidate = getattr(np, function.split(".", 1)[1], None)
            implementation = candidate if isinstance(candidate, np.ufunc) else None
        if implementation is None:
            raise FormulaError(_unknown_function(function))
        positional = [self.argument(a, function) for a in node.arguments if a.name is None]
        named = {a.name: self.argument(a, function) for a in node.arguments if a.name is not None}
        return implementation(*positional, **named)

    def argument(self, argument: Argument, function: str) -> Any:
        if function == "ifelse":
            return self.value(argument.value)
        return self.number(argument.value, f"`{function}()`")

    @staticmethod
    def one_argument(node: Call) -> Node:
        if len(node.arguments) != 1:
            raise FormulaError(f"`{node.function}()` takes one argument: `{deparse(node)}`.")
        return node.arguments[0].value

    def column(self, node: Call) -> NDArray[np.float64]:
        if not node.arguments:
            raise FormulaError(f"`{node.function}()` needs a column.")
        value = self.number(node.arguments[0].value, f"`{node.function}()`")
        return np.asarray(value, dtype=np.float64)

    def stateful(self, node: Call) -> Any:
        values = self.column(node)
        rest = node.arguments[1:]
        positional = [self.value(a.value) for a in rest if a.name is None]
        positional = [int(v) if isinstance(v, float) and v.is_integer() else v for v in positional]
        named = {}
        for a in rest:
            if a.name is not None:
                value = self.value(a.value)
                is_whole = isinstance(value, float) and value.is_integer()
                named[a.name] = int(value) if is_whole else value
        state = self.state.setdefault(deparse(node), {})
        return transform(node.function, values, positional, named, state)

    def summary(self, node: Call) -> Any:
        remembered = self.state.setdefault(deparse(node), {})
        if "value" not in remembered:
            inner = self.one_argument(node)
            values = np.asarray(self.number(inner, f"`{node.function}()`"), dtype=np.float64)
            remembered["value"] = float(SUMMARIES[node.function](values))
        return remembered["value"]

    def factor(self, node: Call) -> Factor:
        function = node.function
        if not node.arguments:
            raise FormulaError(f"`{function}()` needs a column.")
        factor = as_factor(self.value(node.arguments[0].value), deparse(node))
        rest = node.arguments[1:]
        if function in ("ordered", "as.ordered"):
            factor = replace(factor, ordered=True)
        if function == "C":
            return replace(factor, coding=self.coding(rest, node))
        if function == "relevel":
            if len(rest) != 1 or rest[0].name not in (None, "ref"):
                raise FormulaError(f'Write `relevel(f, ref = "level")`: `{deparse(node)}`.')
            first = [_label(self.value(rest[0].value))]
            return _reordered(factor, first, self.fitted_levels(node, factor), node, keep=True)
        for a in rest:
            if a.name not in (None, "levels"):
                raise FormulaError(f"`{function}()` understands `levels`, not `{a.name}`.")
            chosen = self.value(a.value)
            if isinstance(chosen, (Factor, np.ndarray)):
                raise FormulaError(
                    f"`{function}()` takes one column, and its levels as `c(...)`: "
                    f"`{deparse(node)}`. For every combination of two columns write `a:b`."
                )
            labels = [_label(v) for v in (chosen if isinstance(chosen, list) else [chosen])]
            known = self.fitted_levels(node, factor)
            factor = _reordered(factor, labels, known, node, keep=False)
        return factor

    def coding(self, arguments: tuple[Argument, ...], node: Call) -> Coding | None:
        if not arguments:
            return None
        if len(arguments) > 1:
            raise FormulaError(f"`C()` takes a column and a coding: `{deparse(node)}`.")
        spec = arguments[0].value
        if isinstance(spec, Call) and spec.function in _CODINGS:
            kind = _CODINGS[spec.function]
            base = None
            for a in spec.arguments:
                if kind != "treatment" or a.name not in (None, "base", "reference", "ref"):
                    raise FormulaError(f"`{deparse(spec)}`: only a treatment coding has a base.")
                base = self.value(a.value)
            return Coding(kind, int(base) if isinstance(base, float) else base)
        name = spec.name if isinstance(spec, Name) else spec.value if isinstance(spec, Text) else ""
        if name in _CODINGS:
            return Coding(_CODINGS[name])
        raise FormulaError(
            f"`{deparse(node)}`: the coding is one of contr.treatment, contr.sum, contr.helmert, "
            "contr.poly; for a matrix use the argument `contrasts`."
        )


def _label(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "TRUE" if value else "FALSE"
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def as_factor(value: Any, text: str) -> Factor:
    """Make a factor of a column: its different values, sorted, are the levels."""
    if isinstance(value, Factor):
        return value
    if not isinstance(value, np.ndarray) or value.ndim != 1:
        raise FormulaError(f"`{text}`: a factor is made of one column.")
    levels, codes = np.unique(value, return_inverse=True)
    return Factor(codes.astype(np.int32), tuple(_label(level) for level in levels.tolist()))


def _reordered(
    factor: Factor, first: list[str], known: tuple[str, ...], node: Node, *, keep: bool
) -> Factor:
    unknown = [label for label in first if label not in known]
    if unknown:
        raise DataError(
            f"`{deparse(node)}`: {unknown[0]!r} is not one of the levels ({', '.join(known[:10])})."
        )
    levels = first + [label for label in factor.levels if keep and label not in first]
    new_code = np.array(
        [levels.index(label) if label in levels else -1 for label in factor.levels] + [-1]
    )
    return replace(factor, codes=new_code[factor.codes].astype(np.int32), levels=tuple(levels))


def _unknown_function(name: str) -> str:
    near = difflib.get_close_matches(name, known_functions(), 2)
    hint = f" Did you mean {' or '.join(f'`{n}()`' for n in near)}?" if near else ""
    return (
        f"`{name}()` is not a function a formula knows.{hint} Known are "
        f"{', '.join(known_functions())}, and numpy's as `np.<name>()`; anything else can be "
        "computed as a column of the data first."
    )
