"""Hypotheses in words: ``"Days = 0"``, ``"a - b"``, ``"2 * x = (Intercept) + 3"``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import ModelError

__all__ = ["LinearExpression", "is_expression", "linear_expression"]

Matrix = NDArray[np.float64]

_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_OPERATORS = "+-*/()="
_DEEPEST = 50


@dataclass(frozen=True, eq=False)
class LinearExpression:
    """``l'beta + constant``.

    Attributes
    ----------
    l : ndarray, shape (p,)
        Coefficients.
    constant : float
        What does not depend on beta.
    """

    l: Matrix  # noqa: E741
    constant: float

    def plus(self, other: LinearExpression, sign: float = 1.0) -> LinearExpression:
        """The sum, or the difference."""
        return LinearExpression(self.l + sign * other.l, self.constant + sign * other.constant)

    def times(self, factor: float) -> LinearExpression:
        """A multiple."""
        return LinearExpression(factor * self.l, factor * self.constant)

    @property
    def is_number(self) -> bool:
        """Whether it does not depend on beta."""
        return not self.l.any()


def is_expression(text: str) -> bool:
    """Whether a text that is no name is perhaps a hypothesis in words."""
    return any(operator in text for operator in "+-*/=")


def linear_expression(text: str, names: Sequence[str]) -> LinearExpression:
    """Read a linear combination of coefficients, or an equation of two: left less right.

    Parameters
    ----------
    text : str
        Names of coefficients, numbers, ``+ - * / ( )`` and at most one ``=``. Names stand as they
        are, the longest first; they may stand in backticks.
    names : sequence of str
        The coefficients.

    Returns
    -------
    LinearExpression

    Raises
    ------
    ModelError
        If it cannot be read, is not linear, or has a name that is not known.

    Examples
    --------
    >>> found = linear_expression("2 * Days = 20", ["(Intercept)", "Days"])
    >>> found.l, found.constant
    (array([0., 2.]), -20.0)
    """
    reader = _Reader(text, names)
    left = reader.sum()
    if reader.at("="):
        reader.position += 1
        left = left.plus(reader.sum(), -1.0)
    if reader.position < len(reader.tokens):
        raise reader.problem(f"{reader.tokens[reader.position]!r} is not expected there")
    if left.is_number:
        raise reader.problem("it has no coefficient in it")
    return left


class _Reader:
    def __init__(self, text: str, names: Sequence[str]) -> None:
        self.text, self.names = text, list(names)
        self.tokens = self._tokens()
        self.position = self.depth = 0

    def problem(self, reason: str) -> ModelError:
        listed = ", ".join(repr(name) for name in self.names)
        return ModelError(
            f"The hypothesis {self.text!r:.80} cannot be read: {reason}. The coefficients are "
            f"{listed}."
        )

    def _tokens(self) -> list[str | float | int]:
        """Operators as text, numbers as float, coefficients as their positions."""
        ordered = sorted(range(len(self.names)), key=lambda i: -len(self.names[i]))
        tokens: list[str | float | int] = []
        at = 0
        while at < len(self.text):
            if self.text[at].isspace():
                at += 1
                continue
            for i in ordered:
                name = self.names[i]
                for written in (f"`{name}`", name):
                    if self.text.startswith(written, at) and self._ends(at + len(written), name):
                        tokens.append(i)
                        at += len(written)
                        break
                else:
                    continue
                break
            else:
                number = _NUMBER.match(self.text, at)
                if number is not None:
                    tokens.append(float(number[0]))
                    at = number.end()
                elif self.text[at] in _OPERATORS:
                    tokens.append(self.text[at])
                    at += 1
                else:
                    unknown = re.match(r"[^\s+*/=()-]+", self.text[at:])
                    word = self.text[at] if unknown is None else unknown[0]
                    raise self.problem(f"{word!r} is no coefficient")
        return tokens

    def _ends(self, at: int, name: str) -> bool:
        """Whether a name ends here, and does not go on as a longer word."""
        if at >= len(self.text) or not (name[-1].isalnum() or name[-1] in "_."):
            return True
        return not (self.text[at].isalnum() or self.text[at] in "_.:")

    def at(self, operator: str) -> bool:
        return self.position < len(self.tokens) and self.tokens[self.position] == operator

    def sum(self) -> LinearExpression:
        total = self.product()
        while self.at("+") or self.at("-"):
            sign = 1.0 if self.tokens[self.position] == "+" else -1.0
            self.position += 1
            total = total.plus(self.product(), sign)
        return total

    def product(self) -> LinearExpression:
        value = self.signed()
        while self.at("*") or self.at("/"):
            division = self.at("/")
            self.position += 1
            other = self.signed()
            if division:
                if not other.is_number or other.constant == 0.0:
                    raise self.problem("only numbers other than zero divide")
                value = value.times(1.0 / other.constant)
            elif other.is_number:
                value = value.times(other.constant)
            elif value.is_number:
                value = other.times(value.constant)
            else:
                raise self.problem("a product of coefficients is not linear")
        return value

    def signed(self) -> LinearExpression:
        if self.at("-") or self.at("+"):
            sign = -1.0 if self.at("-") else 1.0
            self.position += 1
            return self._deeper(self.signed).times(sign)
        if self.position >= len(self.tokens):
            raise self.problem("it ends where a coefficient or a number is expected")
        token = self.tokens[self.position]
        self.position += 1
        if token == "(":
            value = self._deeper(self.sum)
            if not self.at(")"):
                raise self.problem("a parenthesis is never closed")
            self.position += 1
            return value
        l = np.zeros(len(self.names))  # noqa: E741
        if isinstance(token, str):
            raise self.problem(f"{token!r} is not expected there")
        if isinstance(token, float):
            return LinearExpression(l, token)
        l[token] = 1.0
        return LinearExpression(l, 0.0)

    def _deeper(self, read: Callable[[], LinearExpression]) -> LinearExpression:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.problem(f"it is more than {_DEEPEST} levels deep")
        value = read()
        self.depth -= 1
        return value
