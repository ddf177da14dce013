"""Find the random-effects terms of a formula and expand ``||`` and ``/`` in them, as lme4 does."""

from __future__ import annotations

from dataclasses import dataclass, field

from mixedeffects.formula.reader import fail, problem
from mixedeffects.formula.structures import STRUCTURE_DEFAULTS, Written, read_structure
from mixedeffects.formula.syntax import (
    Binary,
    Call,
    Group,
    Name,
    Node,
    Number,
    Unary,
    chain_of,
    children,
    deparse,
    quote_name,
    walk,
)
from mixedeffects.formula.terms import TermTable, expand_terms

__all__ = ["Bar", "group_name", "group_variables", "has_bar", "split_bars"]

_BARS = ("|", "||")
#: Most names and operators of a grouping, so that its name can still be read.
_LONGEST_GROUPING = 100
_FACTOR_CALLS = ("factor", "as.factor")


@dataclass(frozen=True)
class Bar:
    """One random-effects term, ``(expression | group)``.

    Attributes
    ----------
    expression : str
        What varies, such as ``"1 + Days"`` or ``"0 + x"``.
    group : str
        lme4's name of the grouping factor, such as ``"tch:sch"``.
    variables : tuple of str
        The columns whose combinations are the levels, in the order of the name.
    structure : {"us", "diag", "cs", "ar1"}
        Covariance structure of the effects; ``"us"`` has none.
    homogeneous : bool
        Whether all columns have one variance; False for ``"us"``.
    tree : Node
        The syntax tree of ``expression``.
    start, end : int
        Where the term stands in the formula text.
    """

    expression: str
    group: str
    variables: tuple[str, ...]
    tree: Node = field(repr=False, compare=False)
    start: int = field(default=-1, repr=False, compare=False)
    end: int = field(default=-1, repr=False, compare=False)
    structure: str = "us"
    homogeneous: bool = False

    def __str__(self) -> str:
        return self._with(self.group)

    @property
    def written(self) -> str:
        """The term as a formula has it: the same, with an odd name of a column in backticks."""
        return self._with(quote_name(self.group) if self.variables == (self.group,) else self.group)

    def _with(self, group: str) -> str:
        if self.structure == "us":
            return f"({self.expression} | {group})"
        hom = ""
        if self.homogeneous != STRUCTURE_DEFAULTS[self.structure]:
            hom = f", hom = {str(self.homogeneous).upper()}"
        return f"{self.structure}({self.expression} | {group}{hom})"


def _top_bar(node: Node) -> Binary | None:
    return node if isinstance(node, Binary) and node.operator in _BARS else None


def has_bar(node: Node) -> Node | None:
    """Return the first bar below a node; inside a call ``|`` means "or" and does not count."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, Call):
            if current.function in STRUCTURE_DEFAULTS:
                return current
        elif _top_bar(current) is not None:
            return current
        else:
            waiting += reversed(children(current))
    return None


def split_bars(node: Node, text: str) -> tuple[Node | None, list[Bar]]:
    """Split a right-hand side into its fixed part and its random-effects terms.

    Parameters
    ----------
    node : Node
        The right-hand side.
    text : str
        The formula, for error messages.

    Returns
    -------
    fixed : Node or None
        What remains without the random-effects terms; None if nothing does.
    bars : list of Bar
        In the order written, ``||`` and ``/`` expanded.

    Raises
    ------
    FormulaError
        If a bar stands outside parentheses or is combined by anything but ``+``.
    """
    bare = _top_bar(node)
    if bare is not None:
        fail(
            f"The bar needs parentheses around its term: write "
            f"`({_last_term(bare.left)} {bare.operator} {deparse(bare.right)})`.",
            text,
            bare.left.end,
            bare.right.start,
        )
    bars: list[Written] = []
    fixed = _without_bars(node, text, bars)
    return fixed, [
        bar
        for written in bars
        for one in _expand_double(written.bar, text)
        for bar in _expand_nesting(*one, written, text)
    ]


def _last_term(node: Node) -> str:
    """Guess what was meant to vary: in ``y ~ x + 1 | g`` only the ``1``."""
    while isinstance(node, Binary) and node.operator == "+":
        node = node.right
    return deparse(node)


def _without_bars(node: Node, text: str, bars: list[Written]) -> Node | None:
    match node:
        case Call():
            written = read_structure(node, text)
            if written is not None:
                _refuse_second_bar(written.bar, text)
                bars.append(written)
                return None
            return node
        case Group(inner=inner):
            bar = _top_bar(inner)
            if bar is not None:
                _refuse_second_bar(bar, text)
                whole = Binary(bar.operator, bar.left, bar.right, start=node.start, end=node.end)
                bars.append(Written(whole, "us", False))
                return None
            rest = _without_bars(inner, text, bars)
            if rest is None or rest is inner:
                return None if rest is None else node
            return Group(rest, start=node.start, end=node.end)
        case Binary(operator="+" | "-"):
            begin, chain = chain_of(node, ("+", "-"))
            first = _without_bars(begin, text, bars)
            for each in chain:
                first = _joined(first, each, text, bars)
            return first
        case Unary(operator="+", operand=operand):
            return _without_bars(operand, text, bars)
    _refuse_bar(node, text)
    return node


def _joined(first: Node | None, each: Binary, text: str, bars: list[Written]) -> Node | None:
    if each.operator == "-":
        _refuse_bar(each.right, text)
        if first is None:
            return Unary("-", each.right, start=each.start, end=each.end)
        return Binary("-", first, each.right, start=each.start, end=each.end)
    second = _without_bars(each.right, text, bars)
    if first is None or second is None:
        return first or second
    return Binary("+", first, second, start=each.start, end=each.end)


def _refuse_bar(node: Node, text: str) -> None:
    inside = has_bar(node)
    if inside is not None:
        fail(
            "A random-effects term can only be added with `+`; it cannot be subtracted, crossed "
            "or nested.",
            text,
            inside.start,
            inside.end,
        )


def _refuse_second_bar(bar: Binary, text: str) -> None:
    nested = has_bar(bar.left) or has_bar(bar.right)
    if nested is not None:
        fail(
            "A random-effects term has one bar; write one pair of parentheses for each term.",
            text,
            nested.start,
            nested.end,
        )


def _label_tree(table: TermTable, term: tuple[int, ...]) -> Node:
    tree = table.variables[term[0]]
    for i in term[1:]:
        tree = Binary(":", tree, table.variables[i])
    return tree


def _expand_double(bar: Binary, text: str) -> list[tuple[Node, Node, Binary]]:
    """Return (expression, grouping, place) once per uncorrelated part of a term."""
    for part in walk(bar.left):
        if isinstance(part, Name) and part.name == ".":
            fail("Write out what varies; `.` has no meaning here.", text, part.start, part.end)
    table = expand_terms(bar.left, text)
    if table.offsets:
        fail("An offset does not vary by group.", text, bar.left.start, bar.left.end)
    if not table.intercept and not table.terms:
        fail(
            "This random-effects term has no columns; write `1` for an intercept.",
            text,
            bar.start,
            bar.end,
        )
    if bar.operator == "|":
        return [(bar.left, bar.right, bar)]
    parts: list[Node] = [Number(1.0, "1")] if table.intercept else []
    parts += [Binary("+", Number(0.0, "0"), _label_tree(table, term)) for term in table.terms]
    return [(part, bar.right, bar) for part in parts]


def _expand_nesting(
    expression: Node, grouping: Node, place: Binary, written: Written, text: str
) -> list[Bar]:
    if sum(1 for _ in walk(grouping)) > _LONGEST_GROUPING:
        fail(
            f"The grouping has more than {_LONGEST_GROUPING} parts; make one column of them first.",
            text,
            grouping.start,
            grouping.end,
        )
    return [
        Bar(
            expression=deparse(expression),
            group=group_name(factor),
            variables=tuple(group_variables(factor, text)),
            tree=expression,
            start=place.start,
            end=place.end,
            structure=written.structure,
            homogeneous=written.homogeneous,
        )
        for factor in _nested(grouping)
    ]


def _nested(grouping: Node) -> list[Node]:
    """Expand ``a/b/c`` into ``c:(b:a)``, ``b:a``, ``a``, innermost first."""
    if not (isinstance(grouping, Binary) and grouping.operator == "/"):
        return [grouping]
    outer = _nested(grouping.left)
    parent = outer[0]
    return [Binary(":", grouping.right, parent), *outer]


def group_name(factor: Node) -> str:
    """lme4's name of a grouping factor: ``tch:sch``."""
    if isinstance(factor, Name):
        return factor.name
    if isinstance(factor, Group):
        return group_name(factor.inner)
    if isinstance(factor, Binary):
        right = deparse(factor.right)
        # `:` reads from the left, so a compound right side shows its parentheses.
        if isinstance(factor.right, Binary):
            right = f"({right})"
        return f"{deparse(factor.left)}:{right}"
    return deparse(factor)


def group_variables(factor: Node, text: str) -> list[str]:
    """The columns whose combinations are the levels; an error where it is no grouping factor."""
    match factor:
        case Name(name="."):
            fail(
                "`.` cannot be a grouping factor; name the column.", text, factor.start, factor.end
            )
        case Name(name=name):
            return [name]
        case Group(inner=inner):
            return group_variables(inner, text)
        case Binary(operator=":", left=left, right=right):
            return group_variables(left, text) + group_variables(right, text)
        case Call(function=function, arguments=(argument,)) if function in _FACTOR_CALLS:
            # Any column is made a factor before grouping, so this says nothing new.
            return group_variables(argument.value, text)
        case Binary(operator="/"):
            fail(
                "Nesting inside a part of the grouping cannot be expanded; write the terms out, "
                "such as `(1 | a) + (1 | a:b)`.",
                text,
                factor.start,
                factor.end,
            )
        case Binary(operator="+" | "*", left=left, right=right):
            fail(
                f"A grouping factor is one factor: write `{deparse(left)}:{deparse(right)}` for "
                "the combinations, or two terms for two factors.",
                text,
                factor.start,
                factor.end,
            )
    raise problem(
        f"`{deparse(factor)}` cannot be used as a grouping factor: name a column, "
        "`a:b`, `a/b` or `factor(a)`, or make the column in the data first.",
        text,
        factor.start,
        factor.end,
    )
