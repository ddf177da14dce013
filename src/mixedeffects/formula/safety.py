"""Refuse formulas that could do more than arithmetic on columns."""

from __future__ import annotations

import re

from mixedeffects.errors import FormulaError

__all__ = ["SAFE_FUNCTIONS", "check_safe"]

#: Functions a formula from a stranger may call.
SAFE_FUNCTIONS = frozenset(
    {
        "I",
        "C",
        "abs",
        "as.factor",
        "as.ordered",
        "bs",
        "cc",
        "center",
        "contr.helmert",
        "contr.poly",
        "contr.sum",
        "contr.treatment",
        "cr",
        "cs",
        "exp",
        "factor",
        "log",
        "log10",
        "log1p",
        "log2",
        "offset",
        "ordered",
        "poly",
        "scale",
        "sqrt",
    }
)

_BACKTICKED = re.compile(r"`[^`]*`")
_CALL = re.compile(r"([A-Za-z_.][\w.]*)\s*\(")
_FORBIDDEN = re.compile(r"[\[\]{}@;\\\"'!$]|__|\blambda\b|\bimport\b")


def check_safe(text: str) -> None:
    """Raise unless the formula has only names, numbers, operators and known functions.

    Parameters
    ----------
    text : str
        The formula.

    Raises
    ------
    FormulaError
        Naming what is not allowed.

    Examples
    --------
    >>> check_safe("y ~ log(x) + poly(z, 2) + (1 | g)")
    >>> check_safe("y ~ open('secrets') + (1 | g)")
    Traceback (most recent call last):
        ...
    mixedeffects.errors.FormulaError: The formula is not safe: it contains "'".
    """
    bare = _BACKTICKED.sub("name", text)
    found = _FORBIDDEN.search(bare)
    if found:
        raise FormulaError(f"The formula is not safe: it contains {found.group()!r}.")
    unknown = sorted({name for name in _CALL.findall(bare) if name not in SAFE_FUNCTIONS})
    if unknown:
        raise FormulaError(
            f"The formula is not safe: it calls {', '.join(unknown)}; the functions allowed are "
            f"{', '.join(sorted(SAFE_FUNCTIONS))}."
        )
