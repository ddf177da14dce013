"""One line of a list of checks, and how a p-value becomes a word."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["FAR_BELOW", "FINE", "LOOK", "PROBLEM", "VERDICTS", "Finding", "judged", "named_rows"]

FINE, LOOK, PROBLEM = "fine", "look", "problem"
#: From best to worst.
VERDICTS = (FINE, LOOK, PROBLEM)

#: So many times below the level a p-value alone is a problem, if what it is about is not small.
FAR_BELOW = 5.0


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
        What was checked, and where of several things which: ``"normality: Subject"``.
    statistic : str
        What the value is.
    value : float
        The value.
    verdict : {"fine", "look", "problem"}
        Whether there is anything to do.
    advice : str
        What was seen, and what to do about it.
    p_value : float
        NaN where there is none.
    df : float
        NaN where there are none.
    """

    check: str
    statistic: str
    value: float
    verdict: str
    advice: str
    p_value: float = math.nan
    df: float = math.nan


def judged(p_value: float, level: float, large: bool) -> str:
    """The verdict on a p-value.

    Parameters
    ----------
    p_value, level : float
        Up to the level there is something to look at; up to a fifth of it a problem.
    large : bool
        Whether what was found matters by its size; with many rows a p-value sees what does not.

    Examples
    --------
    >>> judged(0.2, 0.05, True), judged(0.004, 0.05, True), judged(0.004, 0.05, False)
    ('fine', 'problem', 'look')
    """
    if not p_value <= level:
        return FINE
    return PROBLEM if large and p_value <= level / FAR_BELOW else LOOK


def named_rows(labels: list[str], most: int = 3) -> str:
    """Names in a sentence, and how many more there are.

    Examples
    --------
    >>> named_rows(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(labels[:most])
    return shown if len(labels) <= most else f"{shown} and {len(labels) - most:,} more"
