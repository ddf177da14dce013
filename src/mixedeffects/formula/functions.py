"""The functions a formula may call, besides those that remember something, and their arguments.

No function takes an array that it would write to: numpy's ``out=`` and ``where=`` cannot be given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ELEMENTWISE", "INSTEAD", "SUMMARIES", "Function", "numpy_function"]


@dataclass(frozen=True)
class Function:
    """A function of numbers, one value for each row.

    Attributes
    ----------
    compute : callable
        Takes the arguments by position, and makes new arrays.
    parameters : tuple of str
        Names of the arguments; of one without end the name of each.
    required : int
        How many there must be.
    endless : bool
        Whether there may be any number of arguments.
    """

    compute: Callable[..., Any]
    parameters: tuple[str, ...] = ("x",)
    required: int = 1
    endless: bool = False


def _log(x: Any, base: Any = None) -> Any:
    return np.log(x) if base is None else np.log(x) / np.log(base)


def _round(x: Any, digits: float = 0.0) -> Any:
    if not isinstance(digits, (int, float)) or digits != int(digits) or abs(digits) > 300:
        raise ValueError("digits is a whole number")
    return np.round(x, int(digits))


def _largest(*values: Any) -> Any:
    return reduce(np.maximum, values)


def _smallest(*values: Any) -> Any:
    return reduce(np.minimum, values)


# R's names; numpy's functions are also reachable as `np.<name>`.
ELEMENTWISE: dict[str, Function] = {
    "abs": Function(np.abs),
    "acos": Function(np.arccos),
    "as.integer": Function(np.trunc),
    "as.numeric": Function(np.positive),
    "asin": Function(np.arcsin),
    "atan": Function(np.arctan),
    "atan2": Function(np.arctan2, ("y", "x"), 2),
    "ceiling": Function(np.ceil),
    "cos": Function(np.cos),
    "cosh": Function(np.cosh),
    "exp": Function(np.exp),
    "expm1": Function(np.expm1),
    "floor": Function(np.floor),
    "log": Function(_log, ("x", "base")),
    "log10": Function(np.log10),
    "log1p": Function(np.log1p),
    "log2": Function(np.log2),
    "pmax": Function(_largest, endless=True),
    "pmin": Function(_smallest, endless=True),
    "round": Function(_round, ("x", "digits")),
    "sign": Function(np.sign),
    "sin": Function(np.sin),
    "sinh": Function(np.sinh),
    "sqrt": Function(np.sqrt),
    "tan": Function(np.tan),
    "tanh": Function(np.tanh),
    "trunc": Function(np.trunc),
}


def numpy_function(name: str) -> Function | None:
    """The elementwise function of numpy that is called ``np.<name>``; None if there is none."""
    found = getattr(np, name, None)
    if not isinstance(found, np.ufunc) or found.nout != 1 or found.signature is not None:
        return None
    if not any(types.startswith("d" * found.nin + "->") for types in found.types):
        return None
    names = ("x",) if found.nin == 1 else tuple(f"x{i + 1}" for i in range(found.nin))
    return Function(found, names, found.nin)


def _sd(x: NDArray[np.float64]) -> Any:
    return np.sqrt(_var(x))


def _var(x: NDArray[np.float64]) -> Any:
    return np.var(x, ddof=1) if x.size > 1 else np.nan


# One number from a column. Remembered at the fit, so that prediction uses the same number.
SUMMARIES: dict[str, Callable[[NDArray[np.float64]], Any]] = {
    "max": np.max,
    "mean": np.mean,
    "median": np.median,
    "min": np.min,
    "sd": _sd,
    "sum": np.sum,
    "var": _var,
}

_SMOOTH = (
    "there are no penalised smooths here; splines are `ns(x, df = 4)`, `bs(x, df = 5)` and "
    "`cr(x, df = 4)`"
)
#: Functions of other packages, and what is written here.
INSTEAD = {
    "Q": "a name that is no plain word is written in backticks: {quoted}",
    "cut": "make the intervals as a column of the data first, for example with `pandas.cut`",
    "droplevels": "levels without rows are left out anyway",
    "gp": "there are no Gaussian processes here",
    "interaction": "the combinations of two factors are written `a:b`",
    "lag": "make the lagged column in the data first, within each group",
    "mo": "there are no monotonic effects here; write `factor(x)`, or `ordered(x)` for polynomials",
    "nlevels": "compute the column in the data first",
    "rcs": "restricted cubic splines are natural splines: write `ns(x, df = 3)`",
    "s": _SMOOTH,
    "te": _SMOOTH,
    "where": "write `ifelse(test, yes, no)`",
}
