"""R's ``update``: a formula in which ``.`` stands for what was there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mixedeffects.errors import FormulaError
from mixedeffects.formula.bars import Bar, has_bar, split_bars
from mixedeffects.formula.reader import fail, precedence, read
from mixedeffects.formula.syntax import (
    Argument,
    Binary,
    Call,
    Group,
    Items,
    Name,
    Node,
    Number,
    Unary,
    chain_of,
    deparse,
    variable_names,
    walk,
)
from mixedeffects.formula.terms import expand_terms

__all__ = ["update_formula"]

_SIGNS = ("+", "-")
_POWER = precedence(Binary("^", Name("x"), Name("x")))


@dataclass(frozen=True)
class _Summand:
    """What is added or taken away on the right-hand side, and its text as written."""

    sign: str
    node: Node
    written: str
    #: Whether the new formula names it, rather than a dot standing for it.
    named: bool = True

    @property
    def is_random(self) -> bool:
        return has_bar(self.node) is not None


def update_formula(old: str, new: str) -> str:
    """The new formula with each dot replaced by that side of the old one.

    As in R the old side is put in as a whole: ``. / 10`` of ``a - b`` is ``(a - b)/10``, and
    ``. * z`` crosses ``z`` with all fixed terms. Random-effects terms are never crossed: they are
    kept once, or taken away.

    Parameters
    ----------
    old : str
        Formula of the fitted model.
    new : str
        For example ``". ~ . + Sex"``, ``"~ . - (1 | g)"``, ``"log(.) ~ ."`` or a whole formula.
        Without a left-hand side the response stays.

    Raises
    ------
    FormulaError
        If either has no ``~`` or cannot be read, or a random-effects term that is taken away is
        not there.

    Examples
    --------
    >>> update_formula("y ~ x + (1 | g)", ". ~ . + z")
    'y ~ x + (1 | g) + z'
    >>> update_formula("post - pre ~ x + (1 | g)", ". / 10 ~ . - x")
    '(post - pre)/10 ~ (1 | g)'
    >>> update_formula("y ~ a + b + (1 | g)", "~ . * z")
    'y ~ (a + b) * z + (1 | g)'
    >>> update_formula("y ~ a * b + (1 | g/h)", ". ~ . - a:b")
    'y ~ a * b + (1 | g/h) - a:b'
    """
    old_left, old_right = _sides(old)
    new_left, new_right = _sides(new)
    assert old_left is not None
    if new_left is None or _is_dot(new_left):
        left = _written(old_left, old)
    elif "." in variable_names(new_left):
        left = deparse(_put_in(new_left, old_left))
    else:
        left = _written(new_left, new)
    right = _right(_summands(old_right, old), old_right, new_right, old, new)
    return f"{left} ~ {right}"


def _sides(text: str) -> tuple[Node | None, Node]:
    if not isinstance(text, str):
        raise FormulaError(f"A formula is text, such as '. ~ . + x'; got {type(text).__name__}.")
    text = text.strip()
    try:
        tree = read(text)
    except FormulaError:
        if "~" in text:
            raise
        tree = None
    match tree:
        case Binary(operator="~", left=left, right=right):
            return left, right
        case Unary(operator="~", operand=right):
            return None, right
    raise FormulaError(
        f"The formula {text!r} has no '~': write the response on its left, for example '. ~ . + x'."
    )


def _is_dot(node: Node) -> bool:
    return isinstance(node, Name) and node.name == "."


def _written(node: Node, text: str) -> str:
    return text.strip()[node.start : node.end]


def _summands(node: Node, text: str, sign: str = "+") -> list[_Summand]:
    first, chain = chain_of(node, _SIGNS)
    signed = [("+", first)] + [(each.operator, each.right) for each in chain]
    parts: list[_Summand] = []
    for own, part in signed:
        if isinstance(part, Unary) and part.operator in _SIGNS:
            own, part = ("+" if own == part.operator else "-"), part.operand
        inner = part.inner if isinstance(part, Group) else part
        if isinstance(inner, Binary) and inner.operator in _SIGNS and has_bar(inner):
            parts += _summands(inner, text, own if sign == "+" else "-")
            continue
        if sign == "+":
            parts.append(_Summand(own, part, _written(part, text)))
        elif own == "+":
            # What is taken away from a sum that is taken away was not in it.
            parts.append(_Summand(sign, part, _written(part, text)))
    return parts


def _put_in(node: Node, old: Node, under: tuple[int, bool] = (0, False)) -> Node:
    """An expression with the dot replaced, in parentheses where precedence asks for them.

    ``under`` is the precedence of the operator above, and whether the node is its right operand.
    """
    place = {"start": node.start, "end": node.end}
    match node:
        case Name(name="."):
            binds = precedence(old)
            # `^` binds from the right, all others from the left.
            inner = under[1] if under[0] != _POWER else not under[1]
            loose = binds < under[0] or (binds == under[0] and inner)
            return Group(old) if loose else old
        case Group(inner=inner):
            return Group(_put_in(inner, old), **place)
        case Unary(operator=operator, operand=operand):
            return Unary(operator, _put_in(operand, old, (precedence(node), True)), **place)
        case Call(function=function, arguments=arguments):
            new = tuple(Argument(_put_in(a.value, old), a.name) for a in arguments)
            return Call(function, new, **place)
        case Items(items=items):
            return Items(tuple(_put_in(item, old) for item in items), **place)
        case Binary():
            first, chain = chain_of(node)
            tree = _put_in(first, old, (precedence(chain[0]), False))
            for each in chain:
                right = _put_in(each.right, old, (precedence(each), True))
                tree = Binary(each.operator, tree, right, start=each.start, end=each.end)
            return tree
    return node


def _right(before: list[_Summand], old_right: Node, new_right: Node, old: str, new: str) -> str:
    random = [part for part in before if part.is_random]
    fixed = [part for part in before if not part.is_random]
    whole = read(_joined(fixed))
    parts: list[_Summand] = []
    kept = False  # whether a dot has brought in the random-effects terms
    for position, part in enumerate(_summands(new_right, new)):
        if part.is_random or "." not in variable_names(part.node):
            parts.append(part)
        elif _is_dot(part.node) and part.sign == "+":
            # What begins the sum needs no parentheses; elsewhere a minus in it would reach back.
            plain = position == 0 or all(each.sign == "+" for each in fixed)
            parts += before if plain else [_summand("+", _grouped(whole)), *random]
            kept = True
        elif _is_dot(part.node):
            parts.append(_summand("-", _grouped(whole)))
            parts += [replace(each, sign="-", named=False) for each in random]
        else:
            _refuse_in_call(part.node, new)
            parts.append(_summand(part.sign, _put_in(part.node, whole, (0, True))))
            if not kept and part.sign == "+":
                parts += random
            kept = True
    return _without_cancelled(parts, new)


def _grouped(node: Node) -> Node:
    return Group(node) if isinstance(node, (Binary, Unary)) else node


def _summand(sign: str, node: Node) -> _Summand:
    return _Summand(sign, node, deparse(node))


def _refuse_in_call(node: Node, text: str) -> None:
    for each in walk(node):
        if isinstance(each, Call) and "." in variable_names(each):
            fail(
                "On the right-hand side `.` stands for terms, and a function takes columns: write "
                "the columns out.",
                text.strip(),
                each.start,
                each.end,
            )


def _without_cancelled(parts: list[_Summand], new: str) -> str:
    """The sum without what is added and taken away again, if it means the same."""
    fixed = [part for part in parts if not part.is_random]
    shorter = _cancel(fixed)
    left = _random_texts(parts, new)
    unchanged = all(text == part.written for text, part in zip(left, parts, strict=True))
    if len(shorter) == len(fixed) and unchanged:
        return _joined(parts, as_written=True)
    chosen = []
    for part, text in zip(parts, left, strict=True):
        if part.is_random:
            chosen += [_Summand("+", read(text), text)] if text else []
        elif part in shorter:
            chosen.append(part)
    return _joined(chosen)


def _cancel(parts: list[_Summand]) -> list[_Summand]:
    added = [part.node for part in parts if part.sign == "+"]
    gone = [
        part.node
        for part in parts
        if part.sign == "-" and not isinstance(part.node, Number) and part.node in added
    ]
    shorter = [part for part in parts if part.node not in gone]
    if not gone or any("." in variable_names(part.node) for part in parts):
        # A dot of the old formula holds names that are not known here.
        return parts
    # `a + a * b - a` takes a out of the product too.
    return shorter if _fixed_terms(shorter) == _fixed_terms(parts) else parts


def _random_texts(parts: list[_Summand], new: str) -> list[str]:
    """What each random-effects term is in the result, empty if it is gone; others as written."""
    there: list[list[tuple[_Meaning, Bar]]] = []
    whole: list[int] = []
    for part in parts:
        if not part.is_random:
            there.append([])
            whole.append(0)
            continue
        read_again = split_bars(read(part.written), part.written)[1]
        bars = [(_meaning(bar), bar) for bar in read_again]
        known = {meaning for each in there for meaning, _ in each}
        whole.append(len(bars))
        if part.sign == "-":
            for meaning, bar in bars:
                if part.named and meaning not in known:
                    raise _not_there(bar, [b for each in there for _, b in each], new)
            gone = {meaning for meaning, _ in bars}
            there = [[one for one in each if one[0] not in gone] for each in there]
            there.append([])
        else:
            there.append([one for one in bars if one[0] not in known])
    texts = []
    for part, count, bars in zip(parts, whole, there, strict=True):
        if len(bars) == count:
            texts.append(part.written)
        else:
            texts.append(" + ".join(bar.written for _, bar in bars))
    return texts


def _not_there(bar: Bar, there: list[Bar], text: str) -> FormulaError:
    shown = ", ".join(f"`{each.written}`" for each in there) or "none"
    return FormulaError(
        f"The random-effects term `{bar.written}` cannot be taken away, because it is not "
        f"there; the formula has {shown}.\n\n    {text.strip()}"
    )


_Meaning = tuple[bool, frozenset[frozenset[str]], tuple[str, ...], str, bool]


def _meaning(bar: Bar) -> _Meaning:
    """What makes two random-effects terms the same, however they are written."""
    table = expand_terms(bar.tree, str(bar))
    names = [deparse(variable) for variable in table.variables]
    columns = frozenset(frozenset(names[i] for i in term) for term in table.terms)
    group = tuple(sorted(bar.variables))
    return table.intercept, columns, group, bar.structure, bar.homogeneous


def _joined(parts: list[_Summand], as_written: bool = False) -> str:
    texts = [(part.sign, part.written if as_written else deparse(part.node)) for part in parts]
    return " ".join(f"{sign} {text}" for sign, text in texts).removeprefix("+ ") or "1"


def _fixed_terms(parts: list[_Summand]) -> tuple[bool, frozenset[str]]:
    text = _joined(parts)
    # A dot of the old formula stands for columns not known here: one more name.
    table = expand_terms(read(text), text, ())
    return table.intercept, frozenset(table.labels)
