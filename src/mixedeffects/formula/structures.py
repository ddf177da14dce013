"""Covariance structures in a formula: ``cs(0 + week | id, hom = TRUE)`` and its like."""

from __future__ import annotations

from dataclasses import dataclass

from mixedeffects.formula.evaluate import known_functions
from mixedeffects.formula.reader import fail
from mixedeffects.formula.syntax import Argument, Binary, Call, Constant, Group, Node, deparse

__all__ = ["STRUCTURE_DEFAULTS", "Written", "read_structure"]

#: The structures, and whether they have one variance for all columns unless told otherwise; for an
#: unstructured covariance the question does not arise.
STRUCTURE_DEFAULTS: dict[str, bool | None] = {"us": None, "diag": False, "cs": False, "ar1": True}

#: Names in other packages, and what to write here.
_ELSEWHERE = {
    "homcs": "cs(..., hom = TRUE)",
    "homdiag": "diag(..., hom = TRUE)",
    "hetar1": "ar1(..., hom = FALSE)",
    "hetcs": "cs(...)",
}


@dataclass(frozen=True)
class Written:
    """A random-effects term as it stands in the formula, its structure read."""

    bar: Binary
    structure: str
    homogeneous: bool


def read_structure(call: Call, text: str) -> Written | None:
    """The term in a call such as ``cs(x | g)``; None for a call that is none.

    Parameters
    ----------
    call : Call
        A call among the terms.
    text : str
        The formula, for error messages.

    Raises
    ------
    FormulaError
        If it has a bar, but is not one of the structures, or its arguments are not as they should.
    """
    known = call.function in STRUCTURE_DEFAULTS
    bar = _bar(call.arguments[0]) if call.arguments else None
    names = ", ".join(f"`{name}`" for name in STRUCTURE_DEFAULTS)
    if not known:
        if bar is None or call.function in known_functions() or "." in call.function:
            return None
        hint = (
            f" What other packages call `{call.function}` is `{_ELSEWHERE[call.function]}` here."
            if call.function in _ELSEWHERE
            else ""
        )
        fail(
            f"`{call.function}` is not a covariance structure; the structures are {names}.{hint}",
            text,
            call.start,
            call.start + len(call.function),
        )
    if bar is None:
        is_spline = call.function == "cs"
        fail(
            f"`{call.function}` is a covariance structure and needs a random-effects term with one "
            f"bar, such as `{call.function}({'0 + ' if call.function == 'ar1' else ''}x | g)`."
            f"{' For a cubic spline write `ns(x, df = 4)` or `cr(x, df = 4)`.' * is_spline}",
            text,
            call.start,
            call.end,
        )
    if bar.operator == "||":
        fail(
            f"`||` is a covariance structure itself; inside `{call.function}()` write one bar, "
            "or write `diag()` for independent columns.",
            text,
            bar.left.end,
            bar.right.start,
        )
    homogeneous = _homogeneous(call, text)
    return Written(
        Binary(bar.operator, bar.left, bar.right, start=call.start, end=call.end),
        call.function,
        homogeneous,
    )


def _bar(argument: Argument) -> Binary | None:
    if argument.name is not None:
        return None
    node: Node = argument.value
    while isinstance(node, Group):
        node = node.inner
    return node if isinstance(node, Binary) and node.operator in ("|", "||") else None


def _homogeneous(call: Call, text: str) -> bool:
    default = STRUCTURE_DEFAULTS[call.function]
    for argument in call.arguments[1:]:
        value = argument.value
        start, end = value.start, value.end
        if argument.name != "hom":
            given = deparse(value) if argument.name is None else f"{argument.name} = ..."
            fail(
                f"After the random-effects term `{call.function}` takes only `hom = TRUE` or "
                f"`hom = FALSE`, not `{given}`.",
                text,
                start,
                end,
            )
        if default is None:
            fail(
                "`us` is a covariance matrix without structure, so `hom` has no meaning; it is an "
                "argument of `diag`, `cs` and `ar1`.",
                text,
                start,
                end,
            )
        if not (isinstance(value, Constant) and isinstance(value.value, bool)):
            fail(
                "`hom` must be TRUE (one variance for all columns) or FALSE (a variance for each), "
                f"not `{deparse(value)}`.",
                text,
                start,
                end,
            )
    if len(call.arguments) > 2:
        fail(f"`{call.function}` takes `hom` once.", text, call.start, call.end)
    if len(call.arguments) == 2:
        value = call.arguments[1].value
        assert isinstance(value, Constant)
        return bool(value.value)
    return bool(default)
