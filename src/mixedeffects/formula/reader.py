"""Read formula text into a syntax tree, with R's grammar and precedence."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import NoReturn

from mixedeffects.errors import FormulaError
from mixedeffects.formula.syntax import (
    CONSTANTS,
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
)

__all__ = ["fail", "precedence", "problem", "read"]

_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?L?)
    | (?P<name>(?:[^\W\d]|\.(?!\d))[\w.]*)
    | `(?P<quoted>(?:\\.|[^`\\])*)`
    | (?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    | (?P<operator>%[^%\s]*%|\*\*|\|\||&&|<=|>=|==|!=|::|[-+*/^:|&~!<>=()\[\],])
    """,
    re.VERBOSE | re.DOTALL,
)
#: How deep parentheses, calls, signs and exponents may stand within each other.
_DEEPEST = 50
#: What characters of other formula languages are written as here.
_INSTEAD = {
    "{": "arithmetic is written `I(...)`, as in `I(x^2)`",
    "}": "arithmetic is written `I(...)`, as in `I(x^2)`",
    "%": "the remainder is written `%%`, and whole division `%/%`",
    "$": "write the column's name alone, and give the table as `data`",
}
#: What text processors and web pages make of operators and quotes.
_PASTED = str.maketrans("–−—‐‑∼˜×＋：", "----" + "-" + "~~*+:")
_PASTED_QUOTES = {"“": '”"“', "”": '”"', "„": '“”"', "‘": "’'‘", "’": "’'", "«": "»"}
#: How much of a long formula an error shows before and behind the place meant.
_SHOWN = 200
#: So that a caret can point, errors show one line.
_BLANKS = str.maketrans("\r\n\t", "   ")
#: R's packages whose functions a formula knows, where they are written ``splines::bs(x)``.
_PACKAGES = ("base", "stats", "splines")
# Binding powers, lowest first, as in R's ?Syntax.
_BINARY = {
    "~": 1,
    "|": 2,
    "||": 2,
    "&": 3,
    "&&": 3,
    "==": 5,
    "!=": 5,
    "<": 5,
    ">": 5,
    "<=": 5,
    ">=": 5,
    "+": 6,
    "-": 6,
    "*": 7,
    "/": 7,
    ":": 9,
    "^": 11,
}
_SPECIAL = 8  # %in%, %%, %/%
_UNARY = {"~": 1, "!": 4, "-": 10, "+": 10}
_POWER = _BINARY["^"]


@dataclass(frozen=True)
class _Token:
    kind: str
    value: str
    start: int
    end: int


def problem(message: str, text: str, start: int, end: int | None = None) -> FormulaError:
    """Return the error with the formula and a caret line under the place meant.

    Parameters
    ----------
    message : str
        The sentence.
    text : str
        The formula.
    start, end : int
        The stretch of the formula that the sentence is about.
    """
    width = max(1, (start + 1 if end is None else end) - start)
    # Of a very long formula only the surroundings.
    first = max(0, start - _SHOWN) if len(text) > 2 * _SHOWN else 0
    width = min(width, _SHOWN)
    shown = text[first : start + width + _SHOWN].translate(_BLANKS)
    return FormulaError(f"{message}\n\n    {shown}\n    {' ' * (start - first)}{'^' * width}")


def fail(message: str, text: str, start: int, end: int | None = None) -> NoReturn:
    """Raise what `problem` returns."""
    raise problem(message, text, start, end)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            character = text[position]
            plain = _plain(text, position)
            if plain != text:
                text = plain
                continue
            if character in "\"'`":
                fail(f"This {character} is never closed.", text, position)
            if character in _INSTEAD:
                fail(
                    f"The character {character!r} has no meaning in a formula: "
                    f"{_INSTEAD[character]}.",
                    text,
                    position,
                )
            fail(f"The character {character!r} has no meaning in a formula.", text, position)
        kind = str(found.lastgroup)
        if kind == "quoted" and not found["quoted"]:
            fail("There is no name between these backticks.", text, position, found.end())
        if kind != "space":
            tokens.append(_Token(kind, found[kind], position, found.end()))
        position = found.end()
    tokens.append(_Token("end", "", len(text), len(text) + 1))
    return tokens


def _plain(text: str, position: int) -> str:
    """The formula with a pasted operator or quoted text as it is typed; places stay the same."""
    character = text[position]
    closing = _PASTED_QUOTES.get(character)
    if closing is None:
        return text[:position] + character.translate(_PASTED) + text[position + 1 :]
    ends = [at for mark in closing if (at := text.find(mark, position + 1)) > 0]
    if not ends:
        return text
    content = text[position + 1 : min(ends)]
    quote = "'" if '"' in content else '"'
    return f"{text[:position]}{quote}{content}{quote}{text[min(ends) + 1 :]}"


class _Reader:
    """A precedence-climbing reader over the tokens of one formula."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.position = 0
        self.depth = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.position]

    def advance(self) -> _Token:
        token = self.token
        self.position += 1
        return token

    def at(self, operator: str) -> bool:
        return self.token.kind == "operator" and self.token.value == operator

    def close(self, bracket: str, opened: _Token) -> _Token:
        if self.at(bracket):
            return self.advance()
        if self.token.kind == "end":
            fail(f"This {opened.value!r} is never closed.", self.text, opened.start)
        raise self.unexpected()

    def unexpected(self) -> FormulaError:
        token = self.token
        before = self.tokens[max(self.position - 1, 0)]
        if before.value in ("|", "||") and token.value == ")":
            return problem("The grouping factor is missing after the bar.", self.text, before.start)
        if before.value == "(" and token.value in ("|", "||"):
            return problem(
                "What varies is missing before the bar; write `1` for an intercept.",
                self.text,
                token.start,
            )
        if token.kind == "end":
            return problem("The formula ends where a term is expected.", self.text, token.start)
        if token.value in ")]":
            return problem(f"This {token.value!r} closes nothing.", self.text, token.start)
        if token.value == "=":
            return problem(
                "`=` names an argument inside a call; to compare, write `==`.",
                self.text,
                token.start,
            )
        if token.kind == before.kind == "name" and token is not before:
            both = self.text[before.start : token.end]
            return problem(
                f"{token.value!r} is not expected here. A name with blanks is written in "
                f"backticks: `{both}`.",
                self.text,
                token.start,
                token.end,
            )
        return problem(f"{token.value!r} is not expected here.", self.text, token.start, token.end)

    def expression(self, power: int = 0) -> Node:
        if self.depth >= _DEEPEST:
            fail(
                f"This stands more than {_DEEPEST} levels deep within parentheses, calls, signs "
                "and exponents; compute the column in the data first.",
                self.text,
                self.token.start,
            )
        self.depth += 1
        tree = self.chain(power)
        self.depth -= 1
        return tree

    def chain(self, power: int) -> Node:
        left = self.prefix()
        while self.token.kind == "operator":
            operator = "^" if self.token.value == "**" else self.token.value
            binding = _SPECIAL if operator.startswith("%") else _BINARY.get(operator, -1)
            if binding <= power:
                break
            self.advance()
            # `^` binds to the right, and its exponent may carry a sign: 2^-1.
            right = self.expression(_UNARY["-"] - 1 if binding == _POWER else binding)
            left = Binary(operator, left, right, start=left.start, end=right.end)
        return left

    def prefix(self) -> Node:
        token = self.token
        if token.kind == "operator" and token.value in _UNARY:
            self.advance()
            # The operand may itself start with a sign, so bind just below the operator.
            operand = self.expression(_UNARY[token.value] - 1)
            return Unary(token.value, operand, start=token.start, end=operand.end)
        return self.primary()

    def primary(self) -> Node:
        token = self.token
        place = {"start": token.start, "end": token.end}
        match token.kind:
            case "number":
                self.advance()
                value = float(token.value.rstrip("L"))
                if math.isinf(value):
                    fail("This number is too large.", self.text, token.start, token.end)
                return Number(value, token.value, **place)
            case "text":
                self.advance()
                return Text(re.sub(r"\\(.)", r"\1", token.value[1:-1]), **place)
            case "quoted":
                self.advance()
                return Name(re.sub(r"\\([\\`])", r"\1", token.value), **place)
            case "name":
                self.advance()
                if self.at("::"):
                    token = self.qualified(token)
                if self.at("("):
                    return self.call(token)
                if token.value in CONSTANTS:
                    return Constant(CONSTANTS[token.value], **place)
                return Name(token.value, **place)
            case "operator" if token.value == "(":
                self.advance()
                if self.at(")"):
                    fail(
                        "There is nothing between these parentheses.",
                        self.text,
                        token.start,
                        self.token.end,
                    )
                inner = self.expression()
                closing = self.close(")", token)
                return Group(inner, start=token.start, end=closing.end)
            case "operator" if token.value == "[":
                self.advance()
                items = []
                while not self.at("]"):
                    items.append(self.expression())
                    if not self.at(","):
                        break
                    self.advance()
                closing = self.close("]", token)
                return Items(tuple(items), start=token.start, end=closing.end)
        raise self.unexpected()

    def qualified(self, package: _Token) -> _Token:
        """The function in ``splines::bs``, whose package says nothing new."""
        self.advance()
        if package.value not in _PACKAGES or self.token.kind != "name":
            fail(
                f"`::` takes a function of one of R's packages {', '.join(_PACKAGES)}, whose "
                "functions are known here; for another write the function without its package, "
                "or compute the column in the data first.",
                self.text,
                package.start,
                self.token.end,
            )
        function = self.advance()
        if not self.at("("):
            raise self.unexpected()
        return replace(function, start=package.start)

    def call(self, function: _Token) -> Node:
        opened = self.advance()
        arguments = []
        while not self.at(")"):
            name = None
            following = self.tokens[min(self.position + 1, len(self.tokens) - 1)]
            if self.token.kind in ("name", "quoted") and following.value == "=":
                name = self.advance().value
                self.advance()
            arguments.append(Argument(self.expression(), name))
            if not self.at(","):
                break
            self.advance()
        closing = self.close(")", opened)
        return Call(function.value, tuple(arguments), start=function.start, end=closing.end)


def precedence(node: Node) -> int:
    """How tightly an expression holds together: an operator binds looser than a name or a call."""
    match node:
        case Binary(operator=operator):
            return _SPECIAL if operator.startswith("%") else _BINARY[operator]
        case Unary(operator=operator):
            return _UNARY[operator]
    return _POWER + 1


def read(text: str) -> Node:
    """Read an expression.

    Parameters
    ----------
    text : str
        R expression text, on one line.

    Returns
    -------
    Node

    Raises
    ------
    FormulaError
        If the text cannot be read; the message shows the place.
    """
    reader = _Reader(text)
    tree = reader.expression()
    if reader.token.kind != "end":
        raise reader.unexpected()
    return tree
