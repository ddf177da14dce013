"""Expand the right-hand side of a formula into terms, as R's ``terms.formula`` does.

A term is a set of variables, held as the bits of an integer; bit ``i`` stands for ``variables[i]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from mixedeffects.formula.reader import fail
from mixedeffects.formula.syntax import (
    Binary,
    Call,
    Group,
    Name,
    Node,
    Number,
    Unary,
    chain_of,
    deparse,
)

__all__ = ["TermTable", "expand_terms"]

#: Most terms that a right-hand side may expand to.
LARGEST = 10_000
#: Most products that are made to find the different ones.
_MOST_PRODUCTS = 100 * LARGEST

_FORMULA_OPERATORS = {"+", "-", "*", ":", "/", "^", "%in%"}


@dataclass(frozen=True)
class TermTable:
    """The terms of one right-hand side.

    Attributes
    ----------
    intercept : bool
        Whether the constant column is in.
    variables : tuple of Node
        The expressions that the terms are made of, in order of appearance.
    terms : tuple of tuple of int
        For each term the indices of its variables, increasing; ordered by degree, then appearance.
    full : tuple of tuple of bool
        For each variable of each term, whether a factor there gets one column per level (rather
        than its contrasts), by R's rule.
    offsets : tuple of Node
        The arguments of ``offset()``.
    """

    intercept: bool
    variables: tuple[Node, ...]
    terms: tuple[tuple[int, ...], ...]
    full: tuple[tuple[bool, ...], ...]
    offsets: tuple[Node, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Text of each term, such as ``recipe:temperature``."""
        names = [deparse(variable) for variable in self.variables]
        return tuple(":".join(names[i] for i in term) for term in self.terms)


#: Terms in the order in which they appear, each once.
_Terms = dict[int, None]


def _terms(groups: Iterable[int]) -> _Terms:
    return dict.fromkeys(groups)


class _Expansion:
    def __init__(self, tree: Node, text: str, others: Sequence[str] | None) -> None:
        self.tree = tree
        self.text = text
        self.others = others
        self.variables: list[Node] = []
        self.index: dict[str, int] = {}
        self.offset_bits = 0
        self.intercept = True
        self.adding = True

    def variable(self, node: Node) -> int:
        key = deparse(node)
        if key not in self.index:
            self.index[key] = len(self.variables)
            self.variables.append(node)
            if isinstance(node, Call) and node.function == "offset":
                if len(node.arguments) != 1:
                    fail("`offset()` takes one argument.", self.text, node.start, node.end)
                self.offset_bits |= 1 << self.index[key]
        return 1 << self.index[key]

    def dot(self, node: Node) -> _Terms:
        if self.others is None:
            fail(
                "`.` stands for the other columns of the data; write the columns out here.",
                self.text,
                node.start,
                node.end,
            )
        return _terms(self.variable(Name(name)) for name in self.others)

    def number(self, node: Number) -> _Terms:
        if node.value not in (0.0, 1.0):
            fail(
                "The only numbers that are terms are 1 (intercept) and 0 (no intercept); "
                "for arithmetic write `I(...)`.",
                self.text,
                node.start,
                node.end,
            )
        self.intercept = self.adding == (node.value == 1.0)
        return {}

    def removed(self, node: Node) -> _Terms:
        self.adding = not self.adding
        terms = self.encode(node)
        self.adding = not self.adding
        return terms

    def power(self, base: _Terms, node: Binary) -> _Terms:
        exponent = node.right
        if not isinstance(exponent, Number) or exponent.value < 1 or exponent.value % 1:
            fail(
                "Between terms `^` wants a whole number, as in `(a + b)^2`; "
                "for a power of a column write `I(x^2)`.",
                self.text,
                exponent.start,
                exponent.end,
            )
        result = base
        for _ in range(min(int(exponent.value), len(base)) - 1):
            if len(result) * len(base) > _MOST_PRODUCTS:
                self.refuse_size()
            grown = _terms(a | b for a in result for b in base)
            if len(grown) > LARGEST:
                self.refuse_size()
            if grown == result:
                break
            result = grown
        return result

    def encode(self, node: Node) -> _Terms:
        first, chain = chain_of(node, _FORMULA_OPERATORS)
        terms = self.operand(first)
        for operation in chain:
            terms = self.combine(terms, operation)
        return terms

    def operand(self, node: Node) -> _Terms:
        match node:
            case Group(inner=inner):
                return self.encode(inner)
            case Number():
                return self.number(node)
            case Name(name="."):
                return self.dot(node)
            case Unary(operator="-", operand=operand):
                self.removed(operand)
                return {}
            case Unary(operator="+", operand=operand):
                return self.encode(operand)
        return {self.variable(node): None}

    def combine(self, left: _Terms, node: Binary) -> _Terms:
        operator = node.operator
        if operator == "^":
            return self.power(left, node)
        if operator == "-":
            for bits in self.removed(node.right):
                left.pop(bits, None)
            return left
        right = self.encode(node.right)
        if operator == "+":
            left |= right
            return left
        if operator == "%in%":
            every = _all_bits(right)
            return _terms(a | every for a in left)
        if operator == "/":
            every = _all_bits(left)
            return left | _terms(every | b for b in right)
        if len(left) * len(right) > _MOST_PRODUCTS:
            self.refuse_size()
        crossed = _terms(a | b for a in left for b in right)
        if len(crossed) > LARGEST:
            self.refuse_size()
        return crossed if operator == ":" else left | right | crossed

    def refuse_size(self) -> NoReturn:
        count = _bound(self.tree, len(self.others or ()))
        fail(
            f"This expands to up to {count:,} terms; a formula may have {LARGEST:,}. For the "
            "interactions of two columns at a time write `(a + b + c)^2`.",
            self.text,
            max(self.tree.start, 0),
            self.tree.end,
        )


def _bound(node: Node, others: int) -> int:
    """How many terms a tree expands to if none is there twice."""
    first, chain = chain_of(node, _FORMULA_OPERATORS)
    match first:
        case Group(inner=inner) | Unary(operator="+", operand=inner):
            count = _bound(inner, others)
        case Number() | Unary(operator="-"):
            count = 0
        case Name(name="."):
            count = others
        case _:
            count = 1
    for operation in chain:
        if operation.operator == "^":
            assert isinstance(operation.right, Number)
            most = min(int(operation.right.value), count)
            count = sum(math.comb(count, size) for size in range(1, most + 1))
            continue
        right = 0 if operation.operator == "-" else _bound(operation.right, others)
        match operation.operator:
            case "+" | "/":
                count += right
            case ":":
                count *= right
            case "*":
                count += right + count * right
    return count


def _all_bits(terms: Iterable[int]) -> int:
    every = 0
    for bits in terms:
        every |= bits
    return every


def _members(bits: int) -> list[int]:
    members = []
    while bits:
        lowest = bits & -bits
        members.append(lowest.bit_length() - 1)
        bits ^= lowest
    return members


def _full(found: Sequence[int]) -> list[tuple[bool, ...]]:
    """R's TermCode: contrasts suffice where an earlier term holds the rest of a term.

    The terms being in order of degree, an earlier one that holds the rest is the rest itself, or
    of the degree of the term: the rest and one variable more.
    """
    held: set[int] = set()
    full = []
    for bits in found:
        rests = [bits & ~(1 << i) for i in _members(bits)]
        full.append(tuple(rest != 0 and rest not in held for rest in rests))
        held.add(bits)
        held.update(rests)
    return full


def _offset_argument(call: Node) -> Node:
    assert isinstance(call, Call)
    return call.arguments[0].value


def expand_terms(node: Node, text: str, others: Sequence[str] | None = None) -> TermTable:
    """Expand a right-hand side into its terms.

    Parameters
    ----------
    node : Node
        The right-hand side, without random-effects terms.
    text : str
        The formula, for error messages.
    others : sequence of str, optional
        The columns that ``.`` stands for; without it ``.`` is an error.

    Returns
    -------
    TermTable

    Raises
    ------
    FormulaError
        If an operator is used in a way that has no meaning between terms.
    """
    expansion = _Expansion(node, text, others)
    every = expansion.encode(node)
    found = [b for b in every if not b & expansion.offset_bits]
    found.sort(key=int.bit_count)
    if len(found) > LARGEST:
        expansion.refuse_size()

    # Offsets are variables to R too, but nothing later needs them numbered.
    kept = _members(_all_bits(found))
    renumbered = {old: new for new, old in enumerate(kept)}
    # As in R: crossing takes nothing from an offset.
    offsets = _members(_all_bits(every) & expansion.offset_bits)
    return TermTable(
        intercept=expansion.intercept,
        variables=tuple(expansion.variables[i] for i in kept),
        terms=tuple(tuple(renumbered[i] for i in _members(bits)) for bits in found),
        full=tuple(_full(found)),
        offsets=tuple(_offset_argument(expansion.variables[i]) for i in offsets),
    )
