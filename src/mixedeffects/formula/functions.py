"""The functions a formula may call, besides the stateful transforms of formulaic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ELEMENTWISE", "SUMMARIES"]


def _log(x: Any, base: Any = None) -> Any:
    return np.log(x) if base is None else np.log(x) / np.log(base)


def _round(x: Any, digits: int = 0) -> Any:
    return np.round(x, int(digits))


# R's names first; numpy's ufuncs are also reachable as `np.<name>`.
ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "as.integer": np.trunc,
    "as.numeric": np.positive,
    "asin": np.arcsin,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "ceiling": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "exp": np.exp,
    "expm1": np.expm1,
    "floor": np.floor,
    "ifelse": np.where,
    "log": _log,
    "log10": np.log10,
    "log1p": np.log1p,
    "log2": np.log2,
    "pmax": np.maximum,
    "pmin": np.minimum,
    "round": _round,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "tan": np.tan,
    "tanh": np.tanh,
    "trunc": np.trunc,
}


def _sd(x: NDArray[np.float64]) -> Any:
    return np.std(x, ddof=1)


def _var(x: NDArray[np.float64]) -> Any:
    return np.var(x, ddof=1)


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
