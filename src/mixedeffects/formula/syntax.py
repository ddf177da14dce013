"""Syntax trees of R expressions, and the text R would print for them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

__all__ = [
    "Argument",
    "Binary",
    "Call",
    "Constant",
    "Group",
    "Items",
    "Name",
    "Node",
    "Number",
    "Text",
    "Unary",
    "chain_of",
    "deparse",
    "quote_name",
    "variable_names",
    "walk",
]


@dataclass(frozen=True)
class Node:
    """One node of a syntax tree; ``start`` and ``end`` are positions in the formula text."""

    start: int = field(default=-1, compare=False, repr=False, kw_only=True)
    end: int = field(default=-1, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True)
class Name(Node):
    """A column, or a function where one is passed by name."""

    name: str


@dataclass(frozen=True)
class Number(Node):
    """A number; ``literal`` is what was written."""

    value: float
    literal: str


@dataclass(frozen=True)
class Text(Node):
    """A quoted string."""

    value: str


@dataclass(frozen=True)
class Constant(Node):
    """``TRUE``, ``FALSE`` or ``NULL``."""

    value: bool | None


@dataclass(frozen=True)
class Unary(Node):
    """``-x``, ``+x`` or ``!x``."""

    operator: str
    operand: Node


@dataclass(frozen=True)
class Binary(Node):
    """Two operands and an operator."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Argument:
    """One argument of a call, with its name if it was given one."""

    value: Node
    name: str | None = None


@dataclass(frozen=True)
class Call(Node):
    """A function call."""

    function: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Group(Node):
    """An expression in parentheses, kept because names show the parentheses."""

    inner: Node


@dataclass(frozen=True)
class Items(Node):
    """A bracketed list such as ``[1, 2]``, the same as ``c(1, 2)``."""

    items: tuple[Node, ...]


#: Words that are values and no names.
CONSTANTS = {
    "TRUE": True,
    "FALSE": False,
    "True": True,
    "False": False,
    "NULL": None,
    "None": None,
}
_SYNTACTIC = re.compile(r"(?:[^\W\d_]|\.(?!\d))[\w.]*\Z")
#: What a backslash has to precede for a quoted name to be read as it is.
_ESCAPED = re.compile(r"\\(?=[\\`]|\Z)|`")
# R spaces these; `^`, `:` and `/` it writes close.
_SPACED = {"+", "-", "*", "|", "||", "&", "&&", "~", "<", ">", "<=", ">=", "==", "!="}


def quote_name(name: str) -> str:
    """Write a name as R does: in backticks unless it is a syntactic name."""
    if _SYNTACTIC.match(name) and name not in CONSTANTS:
        return name
    return f"`{_ESCAPED.sub(lambda found: chr(92) + found[0], name)}`"


def _number(node: Number) -> str:
    if node.literal.endswith("L"):
        return f"{int(node.value)}L"
    if node.value == 0:
        return "0"
    digits = 15
    scientific = f"{node.value:.{digits - 1}e}"
    mantissa, exponent = scientific.split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    power = int(exponent)
    scientific = f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
    significant = len(mantissa.replace(".", "").replace("-", ""))
    fixed = f"{node.value:.{max(0, significant - 1 - power)}f}"
    # R prints the shorter of the two, fixed notation on a tie.
    return fixed if len(fixed) <= len(scientific) else scientific


def deparse(node: Node) -> str:
    """Return the text of an expression, spaced as R's ``deparse`` spaces it.

    Parameters
    ----------
    node : Node
        The syntax tree.

    Returns
    -------
    str
    """
    match node:
        case Name(name=name):
            return quote_name(name)
        case Number():
            return _number(node)
        case Text(value=value):
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'
        case Constant(value=value):
            return "NULL" if value is None else str(value).upper()
        case Unary(operator=operator, operand=operand):
            return operator + deparse(operand)
        case Group(inner=inner):
            return f"({deparse(inner)})"
        case Items(items=items):
            return f"[{', '.join(deparse(item) for item in items)}]"
        case Call(function=function, arguments=arguments):
            parts = [
                deparse(a.value) if a.name is None else f"{a.name} = {deparse(a.value)}"
                for a in arguments
            ]
            return f"{function}({', '.join(parts)})"
        case Binary():
            first, chain = chain_of(node)
            written = [deparse(first)]
            for each in chain:
                spaced = each.operator in _SPACED or each.operator.startswith("%")
                space = " " if spaced else ""
                written.append(f"{space}{each.operator}{space}{deparse(each.right)}")
            return "".join(written)
    raise TypeError(f"not a syntax tree: {node!r}")  # pragma: no cover


def chain_of(node: Node, operators: Container[str] | None = None) -> tuple[Node, list[Binary]]:
    """Take a chain such as ``a + b + c`` apart without recursion: chains may be very long.

    Parameters
    ----------
    node : Node
        The last operation of the chain, or anything else, which is a chain of none.
    operators : container of str, optional
        Operators that continue a chain; by default all.

    Returns
    -------
    first : Node
        The operand that the chain begins with.
    operations : list of Binary
        From the first to the last; the right operand of each is what is joined on.
    """
    operations = []
    while isinstance(node, Binary) and (operators is None or node.operator in operators):
        operations.append(node)
        node = node.left
    return node, operations[::-1]


def children(node: Node) -> tuple[Node, ...]:
    """Return the direct children of a node."""
    match node:
        case Unary(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return (left, right)
        case Group(inner=inner):
            return (inner,)
        case Items(items=items):
            return items
        case Call(arguments=arguments):
            return tuple(a.value for a in arguments)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and everything below it, left to right."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield current
        waiting += reversed(children(current))


def variable_names(node: Node) -> tuple[str, ...]:
    """Return the names an expression refers to, in order of appearance, each once.

    What follows the first argument of ``C()`` names a coding, not a column.
    """
    found: dict[str, None] = {}
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, Name):
            found[current.name] = None
        below = children(current)
        coded = isinstance(current, Call) and current.function == "C"
        waiting += reversed(below[:1] if coded else below)
    return tuple(found)
