"""Evaluate the expressions of a formula on columns, remembering what prediction will need.

Nothing is handed to Python's ``eval``: a formula can call the functions listed in
``mixedeffects.formula.functions``, those of ``mixedeffects.formula.compat``, numpy's elementwise
functions as ``np.<name>``, and nothing else. It only reads: no function is given an array to write
to.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import DataError, FormulaError, MixedEffectsError, ModelError
from mixedeffects.formula.arguments import bound, flag
from mixedeffects.formula.compat import TRANSFORMS, transform
from mixedeffects.formula.functions import (
    ELEMENTWISE,
    INSTEAD,
    SUMMARIES,
    Function,
    numpy_function,
)
from mixedeffects.formula.syntax import (
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
    chain_of,
    deparse,
    walk,
)
from mixedeffects.formula.values import Coding, Evaluation, Factor, Lost, Value

__all__ = [
    "CONSTANTS",
    "TO_FACTOR",
    "State",
    "check_functions",
    "evaluate",
    "evaluate_rows",
    "known_functions",
    "label_of",
]

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
#: Functions that make a factor of their first argument.
TO_FACTOR = ("factor", "as.factor", "ordered", "as.ordered", "C", "relevel")
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
    "sdif": "sdif",
    "contr.sdif": "sdif",
    "Diff": "sdif",
    "SAS": "sas",
    "contr.SAS": "sas",
}


def known_functions() -> tuple[str, ...]:
    """Return the names of the functions a formula may call."""
    others = ("c", "cbind", "ifelse")
    return tuple(sorted({*ELEMENTWISE, *SUMMARIES, *TRANSFORMS, *TO_FACTOR, *_AS_IS, *others}))


def check_functions(tree: Node) -> None:
    """Refuse functions that a formula does not know, whatever the columns are.

    Raises
    ------
    FormulaError
        If there is one; the message says what to write instead.
    """
    known = {*known_functions(), *_CODINGS}
    for node in walk(tree):
        if isinstance(node, Call) and not (node.function in known or numpy_name(node.function)):
            raise _unknown_function(node)


def numpy_name(function: str) -> Function | None:
    """The function of numpy that is written ``np.<name>``; None if it is none."""
    package, _, name = function.partition(".")
    return numpy_function(name) if package in ("np", "numpy") else None


def evaluate(tree: Node, columns: Mapping[str, Value], n: int, state: State) -> Value:
    """The value of an expression; see `evaluate_rows`."""
    return evaluate_rows(tree, columns, n, state).value


def evaluate_rows(tree: Node, columns: Mapping[str, Value], n: int, state: State) -> Evaluation:
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
    Evaluation
        Its value is an ndarray, shape (n,) or (n, k), or a Factor.

    Raises
    ------
    FormulaError
        If the expression calls an unknown function or mixes things that do not go together.
    DataError
        If it cannot be evaluated on these columns.
    """
    evaluation = _Evaluation(columns, n, state)
    try:
        with np.errstate(all="ignore"):
            value = evaluation.value(tree)
    except MixedEffectsError:
        raise
    except Exception as error:
        raise DataError(
            f"`{deparse(tree)}` cannot be evaluated: {str(error).rstrip('.')}."
        ) from error
    missing: NDArray[np.bool_] | None = None
    if isinstance(value, _Flags):
        missing = value.missing
        value = value.values
        if value.ndim == 2:
            value = np.where(missing, np.nan, value)
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype == np.bool_:
        value = value.astype(np.float64)
    if isinstance(value, np.ndarray) and value.ndim in (1, 2) and value.shape[0] == n:
        if value.dtype != np.bool_:
            value = value.astype(np.float64, copy=False)
            absent = np.isnan(value)
            missing = absent if absent.ndim == 1 else absent.any(axis=1)
    elif isinstance(value, Factor):
        missing = value.codes < 0
    else:
        raise FormulaError(
            f"`{deparse(tree)}` does not give one value for each row; a term must vary with the "
            "rows."
        )
    if missing is None or not missing.any():
        return Evaluation(value, None)
    lost = [replace(each, rows=each.rows & missing) for each in evaluation.lost]
    return Evaluation(value, missing, tuple(each for each in lost if each.rows.any()))


@dataclass(frozen=True, eq=False)
class _Flags:
    """Yes or no in each row, where a comparison with a missing number is neither."""

    values: NDArray[np.bool_]
    missing: NDArray[np.bool_]


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
        self.lost: list[Lost] = []

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
            case Unary(operator="!", operand=operand):
                return self.negation(operand)
            case Unary(operator="+" | "-" as sign, operand=operand):
                value = self.number(operand, f"`{sign}`")
                return -value if sign == "-" else value
            case Binary():
                first, chain = chain_of(node)
                value = self.value(first)
                for operation in chain:
                    value = self.binary(operation, value)
                return value
            case Call():
                return self.call(node)
        raise FormulaError(f"`{deparse(node)}` cannot be evaluated.")

    def name(self, name: str) -> Any:
        if name in self.columns:
            return self.columns[name]
        if name in CONSTANTS:
            return CONSTANTS[name]
        raise DataError(f"There is no column `{name}`.")

    def number(self, node: Node, what: str) -> Any:
        return self.as_number(node, self.value(node), what)

    def as_number(self, node: Node, value: Any, what: str) -> Any:
        """The value as numbers: an array, or one number."""
        if isinstance(value, Factor):
            raise _plain(node, value, what)
        if isinstance(value, _Flags):
            return np.where(value.missing, np.nan, value.values)
        if isinstance(value, np.ndarray):
            return value.astype(np.float64) if value.dtype == np.bool_ else value
        if isinstance(value, (bool, int, float)):
            return float(value)
        kind = "NULL" if value is None else "text" if isinstance(value, str) else "a list"
        raise FormulaError(f"{what} needs numbers, but `{deparse(node)}` is {kind}.")

    def noted(self, node: Node, result: Any, argument: Node, *operands: Any) -> Any:
        """A result, noting the rows in which it is no number though what it is made of is one."""
        if not isinstance(result, np.ndarray) or result.dtype.kind != "f":
            return result
        absent = _no_number(result, self.n)
        if not absent.any():
            return result
        for operand in operands:
            absent &= ~_no_number(operand, self.n)
        if absent.any():
            values = np.broadcast_to(np.asarray(operands[0]).T, (*result.T.shape[:-1], self.n)).T
            there = values[absent]
            self.lost.append(
                Lost(
                    deparse(node), deparse(argument), float(there.min()), float(there.max()), absent
                )
            )
        return result

    def binary(self, node: Binary, left: Any) -> Any:
        operator = node.operator
        if operator in _COMPARISON:
            return self.compare(node, left, self.value(node.right))
        what = f"`{operator}`"
        if operator in _LOGIC:
            first = self.flags(node.left, left, what)
            return _combined(operator, first, self.flags(node.right, self.value(node.right), what))
        if operator not in _ARITHMETIC:
            raise FormulaError(f"`{operator}` has no meaning in `{deparse(node)}`.")
        x = self.as_number(node.left, left, what)
        y = self.number(node.right, what)
        x, y = self.together(node, x, y)
        result = _ARITHMETIC[operator](x, y)
        by = operator in ("/", "%%", "%/%")
        operands = (y, x) if by else (x, y)
        return self.noted(node, result, node.right if by else node.left, *operands)

    def together(self, node: Node, *values: Any) -> list[Any]:
        """Values whose shapes go together: a column goes with each column of a matrix."""
        widths = {v.shape[1] for v in values if isinstance(v, np.ndarray) and v.ndim == 2}
        if len(widths) > 1:
            shown = " and ".join(str(width) for width in sorted(widths))
            raise FormulaError(f"`{deparse(node)}` puts {shown} columns together.")
        if not widths:
            return list(values)
        return [v[:, None] if isinstance(v, np.ndarray) and v.ndim == 1 else v for v in values]

    def flags(self, node: Node, value: Any, what: str) -> _Flags:
        if isinstance(value, _Flags):
            return value
        if isinstance(value, np.ndarray) and value.dtype == np.bool_:
            return _Flags(value, np.zeros_like(value))
        value = np.asarray(self.as_number(node, value, what))
        return _Flags(value != 0.0, np.isnan(value))

    def negation(self, node: Node) -> Any:
        flags = self.flags(node, self.value(node), "`!`")
        return _settled(_Flags(~flags.values, flags.missing))

    def compare(self, node: Binary, left: Any, right: Any) -> Any:
        if isinstance(right, Factor) and not isinstance(left, Factor):
            raise FormulaError(f"Write the column first in `{deparse(node)}`.")
        if isinstance(left, Factor):
            return self.compare_levels(node, left, right)
        compared = _COMPARISON[node.operator]
        logical = isinstance(left, np.ndarray) and left.dtype == np.bool_
        if logical and isinstance(right, str) and right.upper() in ("TRUE", "FALSE"):
            return compared(left, right.upper() == "TRUE")
        if isinstance(left, str) or isinstance(right, str):
            raise FormulaError(f"`{deparse(node)}` compares numbers with text.")
        what = f"`{node.operator}`"
        x, y = self.together(
            node, self.as_number(node.left, left, what), self.as_number(node.right, right, what)
        )
        missing = np.isnan(x) | np.isnan(y)
        return _settled(_Flags(np.asarray(compared(x, y)), np.asarray(missing)))

    def compare_levels(self, node: Binary, left: Factor, right: Any) -> Any:
        compared, absent = _COMPARISON[node.operator], left.codes < 0
        if isinstance(right, Factor):
            if node.operator not in ("==", "!="):
                raise FormulaError(f"Levels can be compared by `==` and `!=`: `{deparse(node)}`.")
            labels = [np.asarray((*f.levels, ""), dtype=object)[f.codes] for f in (left, right)]
            same = np.asarray(compared(*labels), dtype=np.bool_)
            return _settled(_Flags(same, absent | (right.codes < 0)))
        if right is None or isinstance(right, (list, np.ndarray, _Flags)):
            raise FormulaError(f"A factor is compared with one of its levels: `{deparse(node)}`.")
        label = label_of(right)
        levels = self.fitted_levels(node, left)
        if label not in levels:
            raise DataError(f"`{deparse(node)}`: {label!r} is not one of the levels.")
        if node.operator not in ("==", "!="):
            if not left.ordered:
                raise FormulaError(f"The levels have no order to compare: `{deparse(node)}`.")
            left = _reordered(left, list(levels), levels, node, keep=True)
            return _settled(_Flags(compared(left.codes, left.levels.index(label)), absent))
        place = left.levels.index(label) if label in left.levels else len(left.levels)
        return _settled(_Flags(compared(left.codes, place), absent))

    def fitted_levels(self, node: Node, factor: Factor) -> tuple[str, ...]:
        """The levels at the fit: other rows need not have them all."""
        remembered = self.state.setdefault(deparse(node), {})
        levels: tuple[str, ...] = remembered.setdefault("levels", factor.levels)
        return levels

    def call(self, node: Call) -> Any:
        function = node.function
        if function in _AS_IS:
            return self.value(bound(node, ("x",))["x"])
        if function in TRANSFORMS:
            return self.stateful(node)
        if function in SUMMARIES:
            return self.summary(node)
        if function in TO_FACTOR:
            return self.factor(node)
        if function == "c":
            return [self.value(a.value) for a in node.arguments]
        if function == "cbind":
            return self.cbind(node)
        if function == "ifelse":
            return self.ifelse(node)
        known = ELEMENTWISE.get(function) or numpy_name(function)
        if known is None:
            raise _unknown_function(node)
        return self.elementwise(node, known)

    def elementwise(self, node: Call, function: Function) -> Any:
        what = f"`{node.function}()`"
        nodes = bound(node, function.parameters, function.required, function.endless)
        values = {name: self.number(each, what) for name, each in nodes.items()}
        together = dict(zip(values, self.together(node, *values.values()), strict=True))
        if function.endless:
            return function.compute(*together.values())
        absent = [name for name in function.parameters if name not in together]
        if absent and function.parameters.index(absent[0]) < len(together):
            raise FormulaError(f"{what} needs the argument `{absent[0]}`: `{deparse(node)}`.")
        ordered = [together[name] for name in function.parameters if name in together]
        try:
            result = function.compute(*ordered)
        except (TypeError, ValueError) as error:
            raise FormulaError(f"`{deparse(node)}` cannot be evaluated: {error}.") from error
        if isinstance(result, np.ndarray) and result.dtype == np.bool_:
            asks = function.compute in (np.isnan, np.isfinite, np.isinf)
            missing = np.isnan(sum(ordered)) & (not asks)
            return _settled(_Flags(result, np.broadcast_to(missing, result.shape)))
        return self.noted(node, result, nodes[function.parameters[0]], *ordered)

    def cbind(self, node: Call) -> Any:
        if not node.arguments:
            raise FormulaError("`cbind()` needs a column.")
        parts = [self.number(a.value, "`cbind()`") for a in node.arguments]
        if not any(np.ndim(part) for part in parts):
            raise FormulaError(f"`cbind()` needs a column: `{deparse(node)}`.")
        return np.column_stack([part if np.ndim(part) else np.full(self.n, part) for part in parts])

    def ifelse(self, node: Call) -> Any:
        nodes = bound(node, ("test", "yes", "no"), 3)
        test = self.flags(nodes["test"], self.value(nodes["test"]), "`ifelse()`")
        yes, no = self.value(nodes["yes"]), self.value(nodes["no"])
        if isinstance(yes, str) and isinstance(no, str):
            levels = tuple(sorted({yes, no}))
            codes = np.where(test.values, levels.index(yes), levels.index(no))
            codes = np.broadcast_to(np.where(test.missing, -1, codes), (self.n,))
            return Factor(codes.astype(np.int32), levels)
        x = self.as_number(nodes["yes"], yes, "`ifelse()`")
        y = self.as_number(nodes["no"], no, "`ifelse()`")
        values, missing, x, y = self.together(node, test.values, test.missing, x, y)
        return np.where(missing, np.nan, np.where(values, x, y))

    def column(self, call: Call, node: Node) -> NDArray[np.float64]:
        """A column, or several, as numbers none of which is infinite."""
        value = self.number(node, f"`{call.function}()`")
        if not isinstance(value, np.ndarray) or value.shape[:1] != (self.n,):
            raise FormulaError(f"`{call.function}()` needs a column: `{deparse(call)}`.")
        infinite = np.isinf(value)
        if infinite.any():
            rows = int((infinite if value.ndim == 1 else infinite.any(axis=1)).sum())
            raise DataError(
                f"`{deparse(node)}` is infinite in {rows:,} row{'s' if rows > 1 else ''}, so "
                f"`{deparse(call)}` cannot be evaluated."
            )
        return value.astype(np.float64, copy=False)

    def stateful(self, node: Call) -> Any:
        if node.function == "poly" and len(node.arguments) > 1:
            second = node.arguments[1]
            if second.name is None and isinstance(self.value(second.value), np.ndarray):
                first = deparse(node.arguments[0].value)
                raise FormulaError(
                    f"`poly()` takes one column: `{deparse(node)}`. Write a polynomial for each, "
                    f"`poly({first}, 2) + poly({deparse(second.value)}, 2)`, and their products "
                    "as `a:b`."
                )
        nodes = bound(node, TRANSFORMS[node.function])
        if "x" not in nodes:
            raise FormulaError(f"`{node.function}()` needs a column.")
        values = self.column(node, nodes.pop("x"))
        given = {name: self.value(each) for name, each in nodes.items()}
        state = self.state.setdefault(deparse(node), {})
        absent = _no_number(values, self.n)
        if not absent.any():
            return transform(node, values, given, state)
        if absent.all():
            return np.full(self.n, np.nan)
        found = transform(node, values[~absent], given, state)
        spread = np.full((self.n, *found.shape[1:]), np.nan)
        spread[~absent] = found
        return spread

    def summary(self, node: Call) -> Any:
        remembered = self.state.setdefault(deparse(node), {})
        if "value" not in remembered:
            nodes = bound(node, ("x", "na.rm"))
            if "na.rm" in nodes:
                flag(node, "na.rm", self.value(nodes["na.rm"]))
            values = np.asarray(self.number(nodes["x"], f"`{node.function}()`"), dtype=np.float64)
            found = float(SUMMARIES[node.function](values))
            if not math.isfinite(found) and np.isfinite(values).all():
                raise DataError(
                    f"`{deparse(node)}` is no finite number: there are too few rows, or the values "
                    "are too large."
                )
            remembered["value"] = found
        return remembered["value"]

    def factor(self, node: Call) -> Factor:
        function = node.function
        if not node.arguments:
            raise FormulaError(f"`{function}()` needs a column.")
        if function == "C":
            return self.coded(node)
        factor = as_factor(self.value(node.arguments[0].value), deparse(node))
        rest = node.arguments[1:]
        if function in ("ordered", "as.ordered"):
            factor = replace(factor, ordered=True)
        if function == "relevel":
            if len(rest) != 1 or rest[0].name not in (None, "ref"):
                raise FormulaError(f'Write `relevel(f, ref = "level")`: `{deparse(node)}`.')
            first = [label_of(self.value(rest[0].value))]
            return _reordered(factor, first, self.fitted_levels(node, factor), node, keep=True)
        for a in rest:
            if a.name == "ordered":
                factor = replace(factor, ordered=flag(node, "ordered", self.value(a.value)))
                continue
            if a.name not in (None, "levels"):
                raise FormulaError(f"`{function}()` understands `levels`, not `{a.name}`.")
            factor = self.with_levels(node, factor, self.value(a.value))
        return factor

    def with_levels(self, node: Call, factor: Factor, chosen: Any) -> Factor:
        """The factor with the levels listed; rows of others have none."""
        if chosen is None or isinstance(chosen, (Factor, np.ndarray, _Flags)):
            raise FormulaError(
                f"`{node.function}()` takes one column, and its levels as `c(...)`: "
                f"`{deparse(node)}`. For every combination of two columns write `a:b`."
            )
        labels = [label_of(v) for v in (chosen if isinstance(chosen, list) else [chosen])]
        if len(set(labels)) < len(labels):
            raise FormulaError(f"`{deparse(node)}` lists a level twice.")
        known = self.fitted_levels(node, factor)
        new = _reordered(factor, labels, known, node, keep=False)
        gone = (new.codes < 0) & (factor.codes >= 0)
        if gone.any():
            others = [label for label in factor.levels if label not in labels]
            self.lost.append(Lost(deparse(node), ", ".join(others[:5]), math.nan, math.nan, gone))
        return new

    def coded(self, node: Call) -> Factor:
        nodes = bound(node, ("x", "contr", "levels"))
        factor = as_factor(self.value(nodes["x"]), deparse(node))
        if "levels" in nodes:
            factor = self.with_levels(node, factor, self.value(nodes["levels"]))
        if "contr" not in nodes:
            return replace(factor, coding=None)
        return replace(factor, coding=self.coding(nodes["contr"], node, factor))

    def coding(self, spec: Node, node: Call, factor: Factor) -> Coding:
        if isinstance(spec, Call) and spec.function in _CODINGS:
            return self.called_coding(spec, node, factor)
        name = spec.name if isinstance(spec, Name) else spec.value if isinstance(spec, Text) else ""
        if name in _CODINGS:
            return Coding(_CODINGS[name])
        raise FormulaError(
            f"`{deparse(node)}`: the coding is one of contr.treatment, contr.sum, contr.helmert, "
            "contr.poly, contr.sdif, contr.SAS; for a matrix use the argument `contrasts`."
        )

    def called_coding(self, spec: Call, node: Call, factor: Factor) -> Coding:
        """A coding with arguments: R's are the number of levels and a position, patsy's a level."""
        kind = _CODINGS[spec.function]
        of_r = spec.function.startswith("contr.")
        if kind != "treatment":
            if spec.arguments and not (of_r and len(spec.arguments) == 1):
                raise FormulaError(f"`{deparse(spec)}`: only a treatment coding has a base.")
            nodes = bound(spec, ("n",), 0)
        elif of_r:
            nodes = bound(spec, ("n", "base", "reference"), 0)
        else:
            nodes = bound(spec, ("reference", "base", "ref"), 0)
        given = {name: self.value(each) for name, each in nodes.items()}
        levels = self.fitted_levels(node, factor)
        n = given.pop("n", None)
        if n is not None and not isinstance(n, str) and n != len(levels):
            raise ModelError(
                f"`{deparse(node)}`: there are {len(levels)} levels; level number {label_of(n)} is "
                f"not meant here, since R's `{spec.function}()` takes the number of levels first. "
                f"For a reference level write `Treatment(reference = ...)`."
            )
        bases = [*given.values(), *([n] if isinstance(n, str) else [])]
        if len(bases) > 1:
            raise FormulaError(f"`{deparse(spec)}` has two bases.")
        if not bases:
            return Coding(kind)
        return Coding(kind, self.base(spec, bases[0], levels, "base" in given and of_r))

    @staticmethod
    def base(spec: Call, base: Any, levels: tuple[str, ...], by_position: bool) -> str | int:
        """A level; of a number the level called so, else a position as R or patsy count."""
        if base is None or isinstance(base, (list, np.ndarray, Factor, _Flags)):
            raise FormulaError(f"`{deparse(spec)}`: the base is one level.")
        label = label_of(base)
        numbered = isinstance(base, float) and base.is_integer()
        if isinstance(base, str) or not numbered or (label in levels and not by_position):
            return label
        # R counts from 1, patsy from 0.
        return int(base) if by_position else int(base) + 1


def _no_number(value: Any, n: int) -> NDArray[np.bool_]:
    """The rows in which a value is no number."""
    absent: NDArray[np.bool_] = np.isnan(np.asarray(value, dtype=np.float64))
    if absent.ndim == 2:
        absent = np.logical_or.reduce(absent, axis=1)
    return np.array(np.broadcast_to(absent, (n,)))


def _settled(flags: _Flags) -> Any:
    """Plain booleans where nothing is missing."""
    return flags if flags.missing.any() else flags.values


def _combined(operator: str, x: _Flags, y: _Flags) -> Any:
    """R's three-valued logic: what is missing does not matter where the other side decides."""
    values = _LOGIC[operator](x.values, y.values)
    decides = operator.startswith("|")
    decided = (~x.missing & (x.values == decides)) | (~y.missing & (y.values == decides))
    missing = (x.missing | y.missing) & ~decided
    return _settled(_Flags(np.where(decided, decides, values), missing))


def label_of(value: Any) -> str:
    """How a level is written: whole numbers without a point, TRUE and FALSE."""
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
    return Factor(codes.astype(np.int32), tuple(label_of(level) for level in levels.tolist()))


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


def _unknown_function(call: Call) -> FormulaError:
    name = call.function
    plain = name.removeprefix("np.").removeprefix("numpy.")
    near = difflib.get_close_matches(plain, known_functions(), 2)
    hint = f" Did you mean {' or '.join(f'`{n}()`' for n in near)}?" if near else ""
    if plain in INSTEAD:
        first = call.arguments[0].value if call.arguments else None
        quoted = f"`{first.value}`" if isinstance(first, Text) else "`my column`"
        instead = INSTEAD[plain].format(quoted=quoted)
        hint = f" {instead[0].upper()}{instead[1:]}."
    return FormulaError(
        f"`{name}()` is not a function a formula knows.{hint} Known are "
        f"{', '.join(known_functions())}, and numpy's as `np.<name>()`; anything else can be "
        "computed as a column of the data first."
    )
