"""Arguments of a call in a formula: which are which, and whether they are what they should be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mixedeffects.errors import FormulaError
from mixedeffects.formula.syntax import Call, Node, deparse

__all__ = ["bound", "flag", "numbers", "one_of", "real", "whole"]


def bound(
    call: Call, parameters: Sequence[str], required: int = 1, endless: bool = False
) -> dict[str, Node]:
    """Match the arguments of a call to names, as R does: named ones first, then by position.

    Parameters
    ----------
    call : Call
        The call.
    parameters : sequence of str
        Names of the arguments in order.
    required : int
        How many of the first must be there.
    endless : bool
        Whether there may be more by position; they are called by their numbers.

    Raises
    ------
    FormulaError
        If there are too many or too few, or a name is not known or there twice.
    """
    function, text = call.function, deparse(call)
    found: dict[str, Node] = {}
    free = [name for name in parameters if all(name != a.name for a in call.arguments)]
    for position, argument in enumerate(call.arguments):
        name = argument.name
        if name is None:
            if not free and not endless:
                raise FormulaError(f"`{function}()` takes {_counted(parameters)}: `{text}`.")
            name = free.pop(0) if free else str(position + 1)
        elif name not in parameters:
            raise FormulaError(
                f"`{function}()` has no argument `{name}`; it takes {_counted(parameters)}: "
                f"`{text}`."
            )
        if name in found:
            raise FormulaError(f"`{function}()` is given `{name}` twice: `{text}`.")
        found[name] = argument.value
    absent = [name for name in parameters[:required] if name not in found]
    if absent and absent[0] == parameters[0] and not found:
        raise FormulaError(f"`{function}()` needs a column.")
    if absent:
        raise FormulaError(f"`{function}()` needs the argument `{absent[0]}`: `{text}`.")
    return found


def _counted(parameters: Sequence[str]) -> str:
    if len(parameters) == 1:
        return "one argument"
    return f"up to {len(parameters)} arguments ({', '.join(parameters)})"


def whole(call: Call, name: str, value: Any, lowest: int, highest: int) -> int:
    """A whole number between two others.

    Raises
    ------
    FormulaError
        If it is none.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value) and value == int(value) and lowest <= value <= highest:
        return int(value)
    raise FormulaError(
        f"`{deparse(call)}`: `{name}` must be a whole number from {lowest} to {highest:,}, not "
        f"{_shown(value)}."
    )


def real(call: Call, name: str, value: Any) -> float:
    """A finite number.

    Raises
    ------
    FormulaError
        If it is none.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise FormulaError(f"`{deparse(call)}`: `{name}` must be a number, not {_shown(value)}.")


def numbers(call: Call, name: str, value: Any) -> list[float]:
    """A number or several, written ``c(1, 2)``.

    Raises
    ------
    FormulaError
        If they are none.
    """
    return [real(call, name, each) for each in (value if isinstance(value, list) else [value])]


def flag(call: Call, name: str, value: Any) -> bool:
    """TRUE or FALSE.

    Raises
    ------
    FormulaError
        If it is neither.
    """
    if isinstance(value, bool):
        return value
    raise FormulaError(f"`{deparse(call)}`: `{name}` must be TRUE or FALSE, not {_shown(value)}.")


def one_of(call: Call, name: str, value: Any, choices: Sequence[str]) -> str:
    """One of some words.

    Raises
    ------
    FormulaError
        If it is none of them.
    """
    if isinstance(value, str) and value in choices:
        return value
    listed = ", ".join(f'"{choice}"' for choice in choices)
    raise FormulaError(f"`{deparse(call)}`: `{name}` must be one of {listed}, not {_shown(value)}.")


def _shown(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).upper()
        case float():
            return f"{value:g}"
        case str():
            return repr(value)
        case list():
            return "a list"
    return "a column"
