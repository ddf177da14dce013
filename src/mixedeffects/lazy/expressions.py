"""Expressions of a formula handed to the engine of a table.

What `evaluate` computes from arrays is written here as an expression of the table's own engine.
"Missing" is null throughout: NaN is made null at the columns, and so is what has no value, such as
the logarithm of a negative number, before the engine can make an error of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from mixedeffects.errors import DataError, FormulaError
from mixedeffects.formula.arguments import bound
from mixedeffects.formula.compat import TRANSFORMS
from mixedeffects.formula.evaluate import CONSTANTS, State, label_of, numpy_name
from mixedeffects.formula.functions import ELEMENTWISE, SUMMARIES
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
)
from mixedeffects.lazy.table import LazyTable

__all__ = [
    "Flags",
    "Labels",
    "LostRows",
    "Numbers",
    "Translation",
    "count_where",
    "not_expressible",
    "number_column",
]

Expr = Any


@dataclass(frozen=True, eq=False)
class Numbers:
    """One column of numbers for each of several expressions."""

    columns: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class Flags:
    """Yes, no or missing."""

    column: Expr


@dataclass(frozen=True, eq=False)
class Labels:
    """A column of text or categories."""

    name: str
    column: Expr


@dataclass(frozen=True, eq=False)
class LostRows:
    """Rows in which a part of an expression has no value, though its columns have.

    Attributes
    ----------
    text, argument : str
        The part, such as ``sqrt(x)``, and what it is made of.
    rows : expression
        True in these rows.
    value : expression
        The argument.
    """

    text: str
    argument: str
    rows: Expr
    value: Expr


def not_expressible(node: Node, engine: str) -> FormulaError:
    """The error for what an engine cannot be asked."""
    what = f"`{node.function}()`" if isinstance(node, Call) else f"`{deparse(node)}`"
    return FormulaError(
        f"{what} in `{deparse(node)}` cannot be handed to the table's engine ({engine}); compute "
        "it as a column of the table first, or collect the rows: rows='collect'."
    )


def count_where(condition: Expr) -> Expr:
    """In how many rows a condition is true; where it is missing it is not."""
    import narwhals as nw

    return nw.when(condition).then(1.0).otherwise(0.0).sum()


def number_column(table: LazyTable, name: str) -> Expr:
    """A column of numbers, null where it is missing."""
    import narwhals as nw

    dtype = table.schema[name]
    column = nw.col(name)
    if dtype == nw.Boolean:
        return nw.when(column).then(1.0).otherwise(nw.when(~column).then(0.0))
    column = column.cast(nw.Float64)
    if dtype.is_float():
        # Elsewhere than in pandas NaN is a number like others.
        return nw.when(~column.is_nan()).then(column)
    return column


class Translation:
    """Translates the expressions of a formula on one table.

    Parameters
    ----------
    table : LazyTable
        The table.
    transformed : callable
        ``(call, translation of its argument, state)`` to the columns of a stateful transform.
    summarised : callable
        ``(call, translation of its argument)`` to one number.
    """

    def __init__(
        self,
        table: LazyTable,
        transformed: Callable[[Call, Numbers, Mapping[str, Any], dict[str, Any]], Numbers],
        summarised: Callable[[Call, Expr], float],
    ) -> None:
        self.table = table
        self._transformed, self._summarised = transformed, summarised
        self.lost: list[LostRows] = []
        self.state: State = {}

    def numbers(self, tree: Node, state: State) -> Numbers | Flags:
        """A variable of the formula, with what its stateful parts remember."""
        self.state, before = state, self.state
        try:
            value = self._value(tree)
        finally:
            self.state = before
        if isinstance(value, (Numbers, Flags)):
            return value
        raise FormulaError(
            f"`{deparse(tree)}` does not give one value for each row; a term must vary with the "
            "rows."
        )

    # --- nodes ---------------------------------------------------------------------------

    def _value(self, node: Node) -> Any:
        match node:
            case Name(name=name):
                return self._name(name)
            case Number(value=value) | Text(value=value) | Constant(value=value):
                return value
            case Group(inner=inner):
                return self._value(inner)
            case Items(items=items):
                return [self._value(item) for item in items]
            case Unary(operator="!", operand=operand):
                return Flags(~self._flags(operand, self._value(operand)))
            case Unary(operator="+" | "-" as sign, operand=operand):
                number = self._number(operand, f"`{sign}`")
                return number if sign == "+" else _each(lambda x: -x, number)
            case Binary():
                first, chain = chain_of(node)
                value = self._value(first)
                for operation in chain:
                    value = self._binary(operation, value)
                return value
            case Call():
                return self._call(node)
        raise not_expressible(node, self.table.engine)

    def _name(self, name: str) -> Any:
        import narwhals as nw

        if name not in self.table.schema:
            if name in CONSTANTS:
                return CONSTANTS[name]
            self.table.kind(name)
        kind = self.table.kind(name)
        if kind == "label":
            return Labels(name, nw.col(name).cast(nw.String))
        if kind == "flag":
            return Flags(nw.col(name))
        return Numbers((number_column(self.table, name),))

    def _number(self, node: Node, what: str) -> Numbers | float:
        return self._as_number(node, self._value(node), what)

    def _as_number(self, node: Node, value: Any, what: str) -> Numbers | float:
        import narwhals as nw

        if isinstance(value, Numbers):
            return value
        if isinstance(value, Flags):
            column = value.column
            return Numbers((nw.when(column).then(1.0).otherwise(nw.when(~column).then(0.0)),))
        if isinstance(value, (bool, int, float)):
            return float(value)
        if isinstance(value, Labels):
            raise FormulaError(f"{what} needs numbers, but `{deparse(node)}` is categorical.")
        kind = "NULL" if value is None else "text" if isinstance(value, str) else "a list"
        raise FormulaError(f"{what} needs numbers, but `{deparse(node)}` is {kind}.")

    def _flags(self, node: Node, value: Any) -> Expr:
        if isinstance(value, Flags):
            return value.column
        value = self._as_number(node, value, "a condition")
        if isinstance(value, float):
            import narwhals as nw

            return nw.lit(value != 0.0)
        return self._single(node, value) != 0.0

    def _single(self, node: Node, value: Numbers) -> Expr:
        if len(value.columns) != 1:
            raise not_expressible(node, self.table.engine)
        return value.columns[0]

    # --- operators -----------------------------------------------------------------------

    def _binary(self, node: Binary, left: Any) -> Any:
        operator = node.operator
        if operator in _COMPARISON:
            return self._compare(node, left, self._value(node.right))
        if operator in ("&", "&&", "|", "||"):
            # The engines' logic of three values is R's.
            one = self._flags(node.left, left)
            other = self._flags(node.right, self._value(node.right))
            return Flags(one & other if operator.startswith("&") else one | other)
        if operator not in _ARITHMETIC:
            raise FormulaError(f"`{operator}` has no meaning in `{deparse(node)}`.")
        what = f"`{operator}`"
        x = self._as_number(node.left, left, what)
        y = self._number(node.right, what)
        if isinstance(x, float) and isinstance(y, float):
            return _constant(operator, x, y)
        return self._broadcast(node, lambda a, b: self._arithmetic(node, a, b), x, y)

    def _broadcast(self, node: Node, apply: Callable[..., Expr], *values: Any) -> Numbers:
        widths = {len(v.columns) for v in values if isinstance(v, Numbers)} - {1}
        if len(widths) > 1:
            shown = " and ".join(str(width) for width in sorted(widths))
            raise FormulaError(f"`{deparse(node)}` puts {shown} columns together.")
        width = max(widths, default=1)

        def column(value: Any, j: int) -> Any:
            if not isinstance(value, Numbers):
                return value
            return value.columns[j if len(value.columns) > 1 else 0]

        return Numbers(tuple(apply(*(column(v, j) for v in values)) for j in range(width)))

    def _arithmetic(self, node: Binary, x: Any, y: Any) -> Expr:
        import narwhals as nw

        operator = node.operator
        if operator == "+":
            return x + y
        if operator == "-":
            return x - y
        if operator == "*":
            return x * y
        if operator == "^":
            return self._power(node, x, y)
        if isinstance(y, float):
            divided = x / y if y != 0.0 else self._by_zero(node, x, nw.lit(0.0))
        else:
            divided = self._by_zero(node, x, y)
        if operator == "/":
            return divided
        whole = divided.floor()
        return whole if operator == "%/%" else x - whole * y

    def _by_zero(self, node: Binary, x: Any, y: Expr) -> Expr:
        """A quotient: infinite where only the divisor is zero, missing where both are."""
        import narwhals as nw

        x = nw.lit(x) if isinstance(x, float) else x
        self._note(node, node.right, (x == 0.0) & (y == 0.0), y)
        infinite = nw.when((y == 0.0) & (x != 0.0)).then(nw.lit(math.inf))
        return nw.when(y != 0.0).then(x / nw.when(y != 0.0).then(y)).otherwise(infinite)

    def _power(self, node: Binary, x: Any, y: Any) -> Expr:
        import narwhals as nw

        if isinstance(y, float) and y.is_integer() and 1.0 <= y <= 16.0:
            return reduce(lambda a, b: a * b, [x] * int(y))
        if isinstance(x, float):
            if x <= 0.0:
                raise not_expressible(node, self.table.engine)
            return (y * math.log(x)).exp()
        if not isinstance(y, float):
            raise not_expressible(node, self.table.engine)
        if y == 0.0:
            return nw.when(~x.is_null()).then(1.0)
        if y == 0.5:
            root = nw.when(x >= 0.0).then(nw.when(x >= 0.0).then(x).sqrt())
            self._note(node, node.left, x < 0.0, x)
            return root
        if y.is_integer() and y < 0.0:
            below = reduce(lambda a, b: a * b, [x] * int(-y))
            return (
                nw.when(x != 0.0)
                .then(1.0 / nw.when(x != 0.0).then(below))
                .otherwise(nw.when(x == 0.0).then(nw.lit(math.inf)))
            )
        positive = nw.when(x > 0.0).then(x)
        at_zero = nw.lit(0.0 if y > 0.0 else math.inf)
        self._note(node, node.left, x < 0.0, x)
        return (
            nw.when(x > 0.0)
            .then((positive.log() * y).exp() if not y.is_integer() else positive**y)
            .otherwise(nw.when(x == 0.0).then(at_zero))
        )

    def _note(self, node: Node, argument: Node, rows: Expr, value: Expr) -> None:
        self.lost.append(LostRows(deparse(node), deparse(argument), rows, value))

    def _compare(self, node: Binary, left: Any, right: Any) -> Flags:
        compared = _COMPARISON[node.operator]
        if isinstance(right, Labels) and not isinstance(left, Labels):
            raise FormulaError(f"Write the column first in `{deparse(node)}`.")
        if isinstance(left, Labels):
            if node.operator not in ("==", "!="):
                raise not_expressible(node, self.table.engine)
            if isinstance(right, Labels):
                return Flags(compared(left.column, right.column))
            if right is None or isinstance(right, (list, Numbers, Flags)):
                raise FormulaError(
                    f"A factor is compared with one of its levels: `{deparse(node)}`."
                )
            label = label_of(right)
            self._check_level(node, left, label)
            return Flags(compared(left.column, label))
        if isinstance(left, Flags) and isinstance(right, str) and right.upper() in _TRUTH:
            return Flags(left.column if right.upper() == "TRUE" else ~left.column)
        if isinstance(left, str) or isinstance(right, str):
            raise FormulaError(f"`{deparse(node)}` compares numbers with text.")
        what = f"`{node.operator}`"
        x, y = self._as_number(node.left, left, what), self._as_number(node.right, right, what)
        if isinstance(x, float) and isinstance(y, float):
            raise FormulaError(f"`{deparse(node)}` compares no column.")
        column = [v if isinstance(v, float) else self._single(node, v) for v in (x, y)]
        if isinstance(column[0], float):
            return Flags(_TURNED[node.operator](column[1], column[0]))
        return Flags(compared(*column))

    def _check_level(self, node: Node, labels: Labels, label: str) -> None:
        """A level that no row has would be a column of zeros; so it is an error, as in memory."""
        remembered = self.state.setdefault(deparse(node), {})
        if "levels" not in remembered:
            import narwhals as nw

            found = self.table.run(
                self.table.frame.filter(~nw.col(labels.name).is_null())
                .select(labels.column.alias("level"))
                .unique(),
                f"levels of {labels.name}",
            )
            remembered["levels"] = tuple(sorted(map(str, found["level"])))
        if label not in remembered["levels"]:
            raise DataError(f"`{deparse(node)}`: {label!r} is not one of the levels.")

    # --- functions -----------------------------------------------------------------------

    def _call(self, node: Call) -> Any:
        function = node.function
        if function in ("I", "identity", "offset"):
            return self._value(bound(node, ("x",))["x"])
        if function in TRANSFORMS:
            return self._stateful(node)
        if function in SUMMARIES:
            return self._summary(node)
        if function == "c":
            return [self._value(a.value) for a in node.arguments]
        if function == "cbind":
            return self._cbind(node)
        if function == "ifelse":
            return self._ifelse(node)
        if function in ELEMENTWISE or numpy_name(function):
            return self._elementwise(node)
        raise not_expressible(node, self.table.engine)

    def _elementwise(self, node: Call) -> Numbers | Flags:
        name = node.function.removeprefix("np.").removeprefix("numpy.")
        known = ELEMENTWISE.get(name) or numpy_name(node.function)
        if known is None or (
            name not in _FUNCTIONS and name not in ("log", "pmax", "pmin", "round")
        ):
            raise not_expressible(node, self.table.engine)
        what = f"`{node.function}()`"
        nodes = bound(node, known.parameters, known.required, known.endless)
        values = [self._number(each, what) for each in nodes.values()]
        if all(isinstance(value, float) for value in values):
            result = known.compute(*values)
            return float(result)  # type: ignore[return-value]
        if name in ("pmax", "pmin"):
            return self._broadcast(node, _extreme(name == "pmax"), *values)
        arguments = list(nodes.values())
        if name == "round":
            digits = values[1] if len(values) > 1 else 0.0
            if not isinstance(digits, float) or not digits.is_integer():
                raise not_expressible(node, self.table.engine)
            return self._broadcast(node, lambda x: _rounded(x, int(digits)), values[0])
        if name == "log" and len(values) > 1:
            base = values[1]
            if not isinstance(base, float) or base <= 0.0 or base == 1.0:
                raise not_expressible(node, self.table.engine)
            by = math.log(base)
            return self._broadcast(
                node, lambda x: self._logarithm(node, arguments[0], x) / by, values[0]
            )
        if name in ("log", "log2", "log10"):
            by = {"log": 1.0, "log2": math.log(2.0), "log10": math.log(10.0)}[name]
            return self._broadcast(
                node, lambda x: self._logarithm(node, arguments[0], x) / by, values[0]
            )
        domain, compute = _FUNCTIONS[name]

        def apply(x: Expr) -> Expr:
            import narwhals as nw

            if domain is None:
                return compute(x)
            inside = domain(x)
            self._note(node, arguments[0], ~inside, x)
            return nw.when(inside).then(compute(nw.when(inside).then(x)))

        return self._broadcast(node, apply, values[0])

    def _logarithm(self, node: Node, argument: Node, x: Expr) -> Expr:
        import narwhals as nw

        self._note(node, argument, x < 0.0, x)
        at_zero = nw.when(x == 0.0).then(nw.lit(-math.inf))
        return nw.when(x > 0.0).then(nw.when(x > 0.0).then(x).log()).otherwise(at_zero)

    def _cbind(self, node: Call) -> Numbers:
        if not node.arguments:
            raise FormulaError("`cbind()` needs a column.")
        parts = [self._number(a.value, "`cbind()`") for a in node.arguments]
        if not all(isinstance(part, Numbers) for part in parts):
            raise not_expressible(node, self.table.engine)
        return Numbers(tuple(c for part in parts for c in part.columns))  # type: ignore[union-attr]

    def _ifelse(self, node: Call) -> Numbers:
        import narwhals as nw

        nodes = bound(node, ("test", "yes", "no"), 3)
        test = self._flags(nodes["test"], self._value(nodes["test"]))
        yes, no = self._value(nodes["yes"]), self._value(nodes["no"])
        x = self._as_number(nodes["yes"], yes, "`ifelse()`")
        y = self._as_number(nodes["no"], no, "`ifelse()`")

        def chosen(a: Any, b: Any) -> Expr:
            a, b = (nw.lit(v) if isinstance(v, float) else v for v in (a, b))
            return nw.when(test).then(a).otherwise(nw.when(~test).then(b))

        return self._broadcast(node, chosen, x, y)

    def _stateful(self, node: Call) -> Numbers:
        nodes = bound(node, TRANSFORMS[node.function])
        if "x" not in nodes:
            raise FormulaError(f"`{node.function}()` needs a column.")
        x = self._number(nodes.pop("x"), f"`{node.function}()`")
        if not isinstance(x, Numbers):
            raise FormulaError(f"`{node.function}()` needs a column: `{deparse(node)}`.")
        given = {name: self._value(each) for name, each in nodes.items()}
        return self._transformed(node, x, given, self.state.setdefault(deparse(node), {}))

    def _summary(self, node: Call) -> float:
        remembered = self.state.setdefault(deparse(node), {})
        if "value" not in remembered:
            nodes = bound(node, ("x", "na.rm"))
            x = self._number(nodes["x"], f"`{node.function}()`")
            if not isinstance(x, Numbers):
                raise FormulaError(f"`{node.function}()` needs a column: `{deparse(node)}`.")
            remembered["value"] = self._summarised(node, self._single(node, x))
        return float(remembered["value"])


def _each(apply: Callable[[Any], Any], value: Numbers | float) -> Numbers | float:
    if isinstance(value, float):
        return float(apply(value))
    return Numbers(tuple(apply(column) for column in value.columns))


#: Arithmetic of numbers written in the formula.
_OF_NUMBERS: dict[str, Callable[[float, float], Any]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "^": lambda x, y: x**y,
    "%%": lambda x, y: x % y,
    "%/%": lambda x, y: x // y,
}


def _constant(operator: str, x: float, y: float) -> float:
    try:
        value = _OF_NUMBERS[operator](x, y)
    except ArithmeticError:
        raise DataError(f"`{x:g} {operator} {y:g}` in the formula has no value.") from None
    if isinstance(value, complex):
        raise DataError(f"`{x:g} {operator} {y:g}` in the formula has no value.")
    return float(value)


def _extreme(largest: bool) -> Callable[..., Expr]:
    def apply(*values: Any) -> Expr:
        import narwhals as nw

        columns = [nw.lit(v) if isinstance(v, float) else v for v in values]

        def further(a: Expr, b: Expr) -> Expr:
            # A missing value makes neither comparison true.
            either = nw.when(a < b).then(b if largest else a)
            return nw.when(a >= b).then(a if largest else b).otherwise(either)

        return reduce(further, columns)

    return apply


def _rounded(x: Expr, digits: int) -> Expr:
    """Halves to even, as numpy does; engines round them in ways of their own."""
    import narwhals as nw

    power = 10.0 ** abs(digits)
    scaled = x * power if digits > 0 else x / power if digits < 0 else x
    up = (scaled + 0.5).floor()
    half = (up - scaled == 0.5) & (up - 2.0 * (up / 2.0).floor() == 1.0)
    whole = nw.when(half).then(up - 1.0).otherwise(nw.when(~half).then(up))
    return whole / power if digits > 0 else whole * power if digits < 0 else whole


def _truncated(x: Expr) -> Expr:
    import narwhals as nw

    return nw.when(x >= 0.0).then(x.floor()).otherwise(nw.when(x < 0.0).then(x.ceil()))


def _sign(x: Expr) -> Expr:
    import narwhals as nw

    negative = nw.when(x < 0.0).then(-1.0).otherwise(nw.when(x == 0.0).then(0.0))
    return nw.when(x > 0.0).then(1.0).otherwise(negative)


def _log1p(x: Expr) -> Expr:
    """``log(1 + x)`` with all digits: what 1 + x loses is put back by a factor."""
    import narwhals as nw

    u = 1.0 + x
    above = nw.when(u > 0.0).then(u)
    rest = nw.when(u != 1.0).then(u - 1.0)
    exact = nw.when(u == 1.0).then(x).otherwise(above.log() * x / rest)
    return nw.when(x > -1.0).then(exact).otherwise(nw.when(x == -1.0).then(nw.lit(-math.inf)))


def _expm1(x: Expr) -> Expr:
    """``exp(x) - 1`` with all digits, by the same device."""
    import narwhals as nw

    u = x.exp()
    inner = nw.when((u != 1.0) & (u > 0.0) & (u - 1.0 != -1.0)).then(u)
    exact = (inner - 1.0) * x / nw.when(u != 1.0).then(inner.log())
    least = nw.when(u - 1.0 == -1.0).then(-1.0).otherwise(exact)
    return nw.when(u == 1.0).then(x).otherwise(nw.when(x > 30.0).then(u).otherwise(least))


def _sinh(x: Expr) -> Expr:
    e = _expm1(x)
    return (e + e / (e + 1.0)) / 2.0


def _tanh(x: Expr) -> Expr:
    import narwhals as nw

    e = _expm1(2.0 * nw.when(x <= 20.0).then(x))
    return nw.when(x > 20.0).then(1.0).otherwise(e / (e + 2.0))


#: Where each function has a value (None: everywhere), and what it is there.
_FUNCTIONS: dict[str, tuple[Callable[[Any], Any] | None, Callable[[Any], Any]]] = {
    "abs": (None, lambda x: x.abs()),
    "absolute": (None, lambda x: x.abs()),
    "as.integer": (None, _truncated),
    "as.numeric": (None, lambda x: x),
    "ceil": (None, lambda x: x.ceil()),
    "ceiling": (None, lambda x: x.ceil()),
    "cos": (None, lambda x: x.cos()),
    "cosh": (None, lambda x: (x.exp() + (-x).exp()) / 2.0),
    "exp": (None, lambda x: x.exp()),
    "expm1": (None, _expm1),
    "floor": (None, lambda x: x.floor()),
    "log1p": (lambda x: x >= -1.0, _log1p),
    "negative": (None, lambda x: -x),
    "sign": (None, _sign),
    "sin": (None, lambda x: x.sin()),
    "sinh": (None, _sinh),
    "sqrt": (lambda x: x >= 0.0, lambda x: x.sqrt()),
    "square": (None, lambda x: x * x),
    "tanh": (None, _tanh),
    "trunc": (None, _truncated),
}
_ARITHMETIC = ("+", "-", "*", "/", "^", "%%", "%/%")
_TRUTH = ("TRUE", "FALSE")
_COMPARISON: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
    "<": lambda x, y: x < y,
    ">": lambda x, y: x > y,
    "<=": lambda x, y: x <= y,
    ">=": lambda x, y: x >= y,
}
_TURNED = {
    "==": _COMPARISON["=="],
    "!=": _COMPARISON["!="],
    "<": _COMPARISON[">"],
    ">": _COMPARISON["<"],
    "<=": _COMPARISON[">="],
    ">=": _COMPARISON["<="],
}
