"""R's ``update``: a formula in which ``.`` stands for what was there."""

from __future__ import annotations

import re

from mixedeffects.errors import FormulaError
from mixedeffects.formula.reader import read
from mixedeffects.formula.syntax import Binary, Node, Number, deparse, walk
from mixedeffects.formula.terms import expand_terms

__all__ = ["update_formula"]

#: A dot that stands alone: not part of a name or a number.
_DOT = re.compile(r"(?<![\w.`])\.(?![\w.`])")


def update_formula(old: str, new: str) -> str:
    """The new formula with each lone dot replaced by that side of the old one.

    Parameters
    ----------
    old : str
        Formula of the fitted model.
    new : str
        For example ``". ~ . + Sex"``, ``"log(y) ~ ."`` or a whole formula.

    Raises
    ------
    FormulaError
        If either has no ``~``.

    Examples
    --------
    >>> update_formula("y ~ x + (1 | g)", ". ~ . + z")
    'y ~ x + (1 | g) + z'
    >>> update_formula("y ~ x + (1 | g)", "log(.) ~ . - x")
    'log(y) ~ (1 | g)'
    >>> update_formula("y ~ a * b + (1 | g/h)", ". ~ . - a:b")
    'y ~ a * b + (1 | g/h) - a:b'
    """
    sides = []
    for text in (old, new):
        left, tilde, right = text.partition("~")
        if not tilde:
            raise FormulaError(
                f"The formula {text!r} has no '~': write the response on its left, for example "
                "'. ~ . + x'."
            )
        sides.append((left.strip(), right.strip()))
    (old_left, old_right), (new_left, new_right) = sides
    left = _DOT.sub(lambda _: old_left, new_left)
    right = _DOT.sub(lambda _: old_right, new_right)
    return _without_cancelled(left, right)


def _without_cancelled(left: str, right: str) -> str:
    """The formula without terms that are added and taken away again, if it means the same."""
    text = f"{left} ~ {right}"
    try:
        parts = _summands(read(right))
        random = _cancel([part for part in parts if _has_bar(part[1])])
        fixed = [part for part in parts if not _has_bar(part[1])]
        shorter = _cancel(fixed)
        if _fixed_terms(shorter) != _fixed_terms(fixed):
            # `a + a * b - a` takes a out of the product too.
            shorter = fixed
    except FormulaError:
        # Whoever reads the formula will say what is wrong with it.
        return text
    if len(random) + len(shorter) == len(parts):
        return text
    kept = [part for part in parts if part in random or part in shorter]
    return f"{left} ~ {_joined(kept)}"


def _summands(node: Node) -> list[tuple[str, Node]]:
    """What is added and taken away at the top level, with its sign."""
    if isinstance(node, Binary) and node.operator in ("+", "-"):
        return [*_summands(node.left), (node.operator, node.right)]
    return [("+", node)]


def _has_bar(node: Node) -> bool:
    return any(isinstance(each, Binary) and each.operator in ("|", "||") for each in walk(node))


def _cancel(parts: list[tuple[str, Node]]) -> list[tuple[str, Node]]:
    gone = [
        node
        for sign, node in parts
        if sign == "-" and not isinstance(node, Number) and ("+", node) in parts
    ]
    return [part for part in parts if part[1] not in gone]


def _joined(parts: list[tuple[str, Node]]) -> str:
    text = " ".join(f"{sign} {deparse(node)}" for sign, node in parts)
    return text.removeprefix("+ ") or "1"


def _fixed_terms(parts: list[tuple[str, Node]]) -> tuple[bool, tuple[str, ...]]:
    text = _joined(parts)
    table = expand_terms(read(text), text)
    return table.intercept, tuple(table.labels)
