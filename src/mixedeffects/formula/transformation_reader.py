"""The left-hand side of a formula, taken apart into the steps of a transformation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.formula.arguments import bound
from mixedeffects.formula.compat import TRANSFORMS
from mixedeffects.formula.evaluate import CONSTANTS, State, evaluate
from mixedeffects.formula.functions import SUMMARIES
from mixedeffects.formula.syntax import (
    Binary,
    Call,
    Constant,
    Group,
    Items,
    Name,
    Node,
    Number,
    Unary,
    children,
    deparse,
)
from mixedeffects.formula.transformations import Step, Transformation
from mixedeffects.formula.values import Factor, Value

__all__ = ["read_transformation"]


def read_transformation(
    tree: Node, columns: Mapping[str, Value], n: int, state: State
) -> Transformation:
    """Take a left-hand side apart.

    Parameters
    ----------
    tree : Node
        The left-hand side.
    columns : mapping of str to ndarray
        The columns it names, in the rows used: a power has one inverse only on one side of zero.
    n : int
        Number of rows.
    state : dict
        What ``scale()``, ``mean()`` and the like learned from all rows.

    Returns
    -------
    Transformation
        Without steps where the response is a column as it is.

    Raises
    ------
    ModelError
        If there is no known inverse.
    """
    reader = _Reader(deparse(tree), columns, n, state)
    original = reader.read(tree)
    steps = tuple(step for step in reader.steps if step != Step("affine", (1.0, 0.0)))
    return Transformation(deparse(tree), original, steps, reader.logged)


#: Functions of one argument as steps, from the inner outwards; numpy's names mean the same.
_FUNCTIONS: dict[str, tuple[Step, ...]] = {
    "log": (Step("log"),),
    "log2": (Step("log"), Step("affine", (1.0 / np.log(2.0), 0.0))),
    "log10": (Step("log"), Step("affine", (1.0 / np.log(10.0), 0.0))),
    "log1p": (Step("affine", (1.0, 1.0)), Step("log")),
    "exp": (Step("exp"),),
    "exp2": (Step("affine", (float(np.log(2.0)), 0.0)), Step("exp")),
    "expm1": (Step("exp"), Step("affine", (1.0, -1.0))),
    "asin": (Step("arcsine"),),
    "arcsin": (Step("arcsine"),),
    "arcsinh": (Step("arsinh"),),
}
#: Functions that are powers.
_POWERS = {"sqrt": 0.5, "square": 2.0, "reciprocal": -1.0, "cbrt": 1.0 / 3.0}
_AS_IS = ("I", "identity", "as.numeric", "positive")
_LEARNED = ("scale", "center", "standardize")


class _Reader:
    """Collects the steps of one left-hand side."""

    def __init__(self, text: str, columns: Mapping[str, Value], n: int, state: State) -> None:
        self.text, self.columns, self.n, self.state = text, columns, n, state
        self.steps: list[Step] = []
        self.logged = ""

    def read(self, node: Node) -> str:
        """Append the steps of an expression, after those of what it is made of."""
        match node:
            case Name():
                return deparse(node)
            case Group(inner=inner):
                return self.read(inner)
            case Unary(operator="-" | "+" as sign, operand=inner):
                original = self.read(inner)
                self.affine(-1.0 if sign == "-" else 1.0, 0.0)
                return original
            case Binary():
                return self.binary(node)
            case Call():
                return self.call(node)
        raise self.unknown(node)

    def affine(self, a: float, b: float) -> None:
        a, b = float(a), float(b)
        if a == 0.0 or not np.isfinite([a, b]).all():
            raise ModelError(
                f"type='response': `{self.text}` does not determine what it is made of, because it "
                "multiplies it by zero or by what is not finite."
            )
        self.steps.append(Step("affine", (a, b)))

    def binary(self, node: Binary) -> str:
        left, right = self.constant(node.left), self.constant(node.right)
        if left is None and right is None:
            if len(self.columns) > 1 and node.operator in ("+", "-", "*", "/"):
                # Of several columns, such as a count by a size: a quantity of its own.
                return deparse(node)
            raise self.unknown(node)
        inner = node.left if left is None else node.right
        number = right if left is None else left
        assert number is not None
        if node.operator == "^" and left is not None:
            original = self.read(inner)
            if left <= 0.0 or left == 1.0:
                raise self.unknown(node)
            self.affine(float(np.log(left)), 0.0)
            self.steps.append(Step("exp"))
            return original
        if node.operator == "^" or (node.operator == "/" and left is not None):
            original = self.read(inner)
            self.power(-1.0 if node.operator == "/" else number, inner)
            if node.operator == "/":
                self.affine(number, 0.0)
            return original
        slopes = {
            "+": (1.0, number),
            "-": (1.0, -number) if left is None else (-1.0, number),
            "*": (number, 0.0),
            "/": (1.0 / number if number else 0.0, 0.0),
        }
        if node.operator not in slopes:
            raise self.unknown(node)
        original = self.read(inner)
        self.affine(*slopes[node.operator])
        return original

    def call(self, node: Call) -> str:
        name = node.function
        package, _, own = name.partition(".")
        if package in ("np", "numpy"):
            name = own
        if not node.arguments:
            raise self.unknown(node)
        if name in _LEARNED and node.function in TRANSFORMS:
            inner = bound(node, TRANSFORMS[name])["x"]
            original = self.read(inner)
            self.affine(*self.learned(node, inner))
            return original
        inner = node.arguments[0].value
        if name in _AS_IS:
            return self.read(inner)
        if name == "log" and len(node.arguments) == 2:
            nodes = bound(node, ("x", "base"), 1)
            base = self.constant(nodes["base"])
            if base is None or base <= 0.0 or base == 1.0:
                raise self.unknown(node)
            return self.function(nodes["x"], (*_FUNCTIONS["log"], _scaled_by(1.0 / np.log(base))))
        if len(node.arguments) != 1:
            raise self.unknown(node)
        if name in _POWERS:
            original = self.read(inner)
            self.power(_POWERS[name], inner)
            return original
        if name == "log" and (odds := _odds(inner)) is not None:
            original = self.read(odds)
            self.steps.append(Step("logit"))
            self.logged = deparse(inner)
            return original
        if name in _FUNCTIONS:
            return self.function(inner, _FUNCTIONS[name])
        raise self.unknown(node)

    def function(self, inner: Node, steps: tuple[Step, ...]) -> str:
        original = self.read(inner)
        self.steps += steps
        if any(step.kind == "log" for step in steps):
            shifted = steps[0].kind == "affine"
            self.logged = f"1 + {deparse(inner)}" if shifted else deparse(inner)
        return original

    def power(self, p: float, inner: Node) -> None:
        values = self.values(inner)
        if p == 0.0 or not np.isfinite(p):
            raise self.unknown(inner)
        if p == 1.0:
            return
        positive, negative = bool((values >= 0.0).all()), bool((values <= 0.0).all())
        if not positive and not negative:
            raise ModelError(
                f"type='response': `{self.text}` has no inverse here, for `{deparse(inner)}` is on "
                f"both sides of zero and its power {p:.5g} does not tell them apart. Leave type "
                f"out for estimates of {self.text}."
            )
        self.steps.append(Step("power", (p, 1.0 if positive else -1.0)))

    def learned(self, node: Call, inner: Node) -> tuple[float, float]:
        """The slope and shift of a function that learned them, from what it makes of the rows."""
        u, v = self.values(inner), self.values(node)
        low, high = int(np.argmin(u)), int(np.argmax(u))
        if u[low] == u[high]:
            raise self.unknown(node)
        slope = (v[high] - v[low]) / (u[high] - u[low])
        return float(slope), float(v[low] - slope * u[low])

    def values(self, node: Node) -> NDArray[np.float64]:
        value = evaluate(node, self.columns, self.n, self.state)
        if isinstance(value, Factor):
            raise self.unknown(node)
        return np.asarray(value, dtype=np.float64).reshape(self.n, -1)[:, 0]

    def constant(self, node: Node) -> float | None:
        """The number that an expression is in all rows; None if it has a column."""
        if not _is_constant(node, self.columns):
            return None
        # Joined to numbers for each row, as which only an expression is evaluated.
        ones = np.ones(self.n)
        joined = Binary("+", node, Name("(zero)"))
        columns = {**self.columns, "(zero)": 0.0 * ones}
        value = evaluate(joined, columns, self.n, self.state)
        assert not isinstance(value, Factor)
        return float(value[0])

    def unknown(self, node: Node) -> ModelError:
        part = deparse(node)
        where = "" if part == self.text else f" in `{self.text}`"
        return ModelError(
            f"type='response': the way back from `{part}`{where} is not known; known are "
            f"logarithms, exp, powers, sqrt, 1/y, sums and products with numbers, scale(), "
            f"center(), asin and logits. Leave type out for estimates of {self.text}."
        )


def _scaled_by(slope: float) -> Step:
    return Step("affine", (float(slope), 0.0))


def _is_constant(node: Node, columns: Mapping[str, Value]) -> bool:
    """Whether an expression is the same in all rows."""
    match node:
        case Number():
            return True
        case Constant() | Items():
            return False
        case Name(name=name):
            return name in CONSTANTS and name not in columns
        case Call(function=function) if function in SUMMARIES:
            return True
    below = children(node)
    return bool(below) and all(_is_constant(each, columns) for each in below)


def _odds(node: Node) -> Node | None:
    """The p of ``p / (1 - p)``."""
    match node:
        case Binary(operator="/", left=p, right=Group(inner=Binary("-", Number(value=1.0), q))):
            return p if _bare(p) == _bare(q) else None
    return None


def _bare(node: Node) -> Any:
    return node.inner if isinstance(node, Group) else node
