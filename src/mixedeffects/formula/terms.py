"""Expand the right-hand side of a formula into terms, as R's ``terms.formula`` does.

A term is a set of variables, held as the bits of an integer; bit ``i`` stands for ``variables[i]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mixedeffects.formula.reader import fail
from mixedeffects.formula.syntax import Binary, Call, Group, Name, Node, Number, Unary, deparse

__all__ = ["TermTable", "expand_terms"]

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


def _union(*groups: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(bits for group in groups for bits in group))


class _Expansion:
    def __init__(self, text: str, others: Sequence[str] | None) -> None:
        self.text = text
        self.others = others
        self.variables: list[Node] = []
        self.index: dict[str, int] = {}
        self.offset_bits = 0
        self.offsets: list[Node] = []
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
                self.offsets.append(node.arguments[0].value)
        return 1 << self.index[key]

    def dot(self, node: Node) -> list[int]:
        if self.others is None:
            fail(
                "`.` stands for the other columns of the data; write the columns out here.",
                self.text,
                node.start,
                node.end,
            )
        return [self.variable(Name(name)) for name in self.others]

    def number(self, node: Number) -> list[int]:
        if node.value not in (0.0, 1.0):
            fail(
                "The only numbers that are terms are 1 (intercept) and 0 (no intercept); "
                "for arithmetic write `I(...)`.",
                self.text,
                node.start,
                node.end,
            )
        self.intercept = self.adding == (node.value == 1.0)
        return []

    def removed(self, node: Node) -> list[int]:
        self.adding = not self.adding
        terms = self.encode(node)
        self.adding = not self.adding
        return terms

    def power(self, node: Binary) -> list[int]:
        exponent = node.right
        if not isinstance(exponent, Number) or exponent.value < 1 or exponent.value % 1:
            fail(
                "Between terms `^` wants a whole number, as in `(a + b)^2`; "
                "for a power of a column write `I(x^2)`.",
                self.text,
                exponent.start,
                exponent.end,
            )
        base = self.encode(node.left)
        result = base
        for _ in range(min(int(exponent.value), len(base)) - 1):
            result = _union(a | b for a in result for b in base)
        return result

    def encode(self, node: Node) -> list[int]:
        match node:
            case Group(inner=inner):
                return self.encode(inner)
            case Number():
                return self.number(node)
            case Name(name="."):
                return self.dot(node)
            case Unary(operator="-", operand=operand):
                self.removed(operand)
                return []
            case Unary(operator="+", operand=operand):
                return self.encode(operand)
            case Binary(operator="^"):
                return self.power(node)
            case Binary(operator="-", left=left, right=right):
                kept = self.encode(left)
                removed = set(self.removed(right))
                return [bits for bits in kept if bits not in removed]
            case Binary(operator=operator, left=left, right=right) if (
                operator in _FORMULA_OPERATORS
            ):
                return self.combine(operator, self.encode(left), self.encode(right))
        return [self.variable(node)]

    @staticmethod
    def combine(operator: str, left: list[int], right: list[int]) -> list[int]:
        if operator == "+":
            return _union(left, right)
        if operator == "%in%":
            every = _all_bits(right)
            return _union(a | every for a in left)
        if operator == "/":
            every = _all_bits(left)
            return _union(left, (every | b for b in right))
        crossed = _union(a | b for a in left for b in right)
        return crossed if operator == ":" else _union(left, right, crossed)


def _all_bits(terms: Iterable[int]) -> int:
    every = 0
    for bits in terms:
        every |= bits
    return every


def _needs_every_level(terms: list[int], position: int, bit: int) -> bool:
    """R's TermCode: contrasts suffice where an earlier term holds the rest of this one."""
    rest = terms[position] & ~bit
    return rest != 0 and not any(rest & ~earlier == 0 for earlier in terms[:position])


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
    expansion = _Expansion(text, others)
    found = [b for b in expansion.encode(node) if not b & expansion.offset_bits]
    found.sort(key=int.bit_count)

    # Offsets are variables to R too, but nothing later needs them numbered.
    kept = [i for i in range(len(expansion.variables)) if any(b >> i & 1 for b in found)]
    renumbered = {old: new for new, old in enumerate(kept)}
    members = [[i for i in kept if bits >> i & 1] for bits in found]
    return TermTable(
        intercept=expansion.intercept,
        variables=tuple(expansion.variables[i] for i in kept),
        terms=tuple(tuple(renumbered[i] for i in term) for term in members),
        full=tuple(
            tuple(_needs_every_level(found, position, 1 << i) for i in term)
            for position, term in enumerate(members)
        ),
        offsets=tuple(expansion.offsets),
    )
