"""Warnings that show the line of the user's own code."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

_PACKAGE = __name__.partition(".")[0]


def warn(sentence: str, category: type[Warning]) -> None:
    """Warn at the nearest line that is not of this package.

    Parameters
    ----------
    sentence : str
        What to say.
    category : class
        Kind of warning.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_own(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(sentence, category, stacklevel=level)


def _is_own(module: str) -> bool:
    return module == _PACKAGE or module.startswith(f"{_PACKAGE}.")
