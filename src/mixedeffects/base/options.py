"""Arguments that are a flag, a number or a name, checked in one way.

NumPy's scalars and arrays of no dimension count as the values they hold. Anything else that is not
what an argument takes ends in a ModelError that says what it takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from mixedeffects.errors import ModelError

__all__ = [
    "checked_choice",
    "checked_flag",
    "checked_level",
    "checked_names",
    "checked_number",
    "checked_text",
    "entropy_of",
    "is_listed",
    "is_whole_number",
    "meant",
    "member",
    "plain",
]


def plain(value: Any) -> Any:
    """A value of Python in place of one of NumPy's that holds it; anything else as it is."""
    if isinstance(value, np.ndarray) and value.ndim == 0 and not np.ma.is_masked(value):
        value = value[()]
    return value.item() if isinstance(value, (np.bool_, np.number, np.str_)) else value


def checked_flag(value: Any, name: str) -> bool:
    """True or False.

    Raises
    ------
    ModelError
        If it is neither.

    Examples
    --------
    >>> import numpy as np
    >>> checked_flag(np.bool_(True), "refit")
    True
    """
    value = plain(value)
    if not isinstance(value, bool):
        raise ModelError(f"{name} must be True or False, not {value!r:.60}.")
    return value


def is_whole_number(value: Any, least: int = 1) -> bool:
    """Whether it is a whole number, at least so large; True and False are none."""
    value = plain(value)
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def checked_number(value: Any, what: str) -> float:
    """A finite real number.

    Raises
    ------
    ModelError
        If it is not.
    """
    value = plain(value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or math.isnan(value) or abs(value) > np.finfo(np.float64).max:
        raise ModelError(f"{what} must be a finite number, not {value!r:.60}.")
    return float(value)


def checked_level(value: Any, name: str = "level", example: float = 0.95) -> float:
    """A probability, neither 0 nor 1.

    Raises
    ------
    ModelError
        If it is not.
    """
    value = plain(value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and 0.0 < value < 1.0):
        raise ModelError(
            f"{name} must lie between 0 and 1, for example {example:g}; got {value!r:.60}."
        )
    return float(value)


def is_listed(value: Any) -> bool:
    """Whether it holds several things in an order: not text, bytes or a mapping."""
    value = plain(value)
    return hasattr(value, "__iter__") and not isinstance(value, (str, bytes, dict))


def member(value: Any, known: Iterable[str]) -> str | None:
    """The one of these names that is meant; None if it is none of them, or no name."""
    return value if isinstance(value, str) and value in known else None


def checked_choice(value: Any, what: str, known: Sequence[str], more: str = "") -> str:
    """One of several names.

    Raises
    ------
    ModelError
        If it is none of them, with all of them and the one that is spelt most like it.

    Examples
    --------
    >>> checked_choice("percentil", "Interval kind", ["percentile", "basic"])
    Traceback (most recent call last):
        ...
    mixedeffects.errors.ModelError: Interval kind 'percentil' is not known; there are 'percentile',
    'basic'. Did you mean 'percentile'?
    """
    value = plain(value)
    if member(value, known) is not None:
        return str(value)
    listed = ", ".join(repr(each) for each in known)
    raise ModelError(
        f"{what} {value!r:.60} is not known; there are {listed}{more}.{meant(value, known)}"
    )


def checked_names(given: Any, name: str) -> list[Any]:
    """One name, or several in a list, as a list; what they are is for the caller to say.

    Raises
    ------
    ModelError
        If it is neither.
    """
    given = plain(given)
    if isinstance(given, str):
        return [given]
    if not is_listed(given):
        raise ModelError(f"{name} must be a name or a list of names, not {given!r:.60}.")
    names = list(given)
    for each in names:
        if not isinstance(each, str):
            raise ModelError(
                f"{name} must be a name or a list of names; one of them is {each!r:.60}."
            )
    return names


def checked_text(value: Any, name: str) -> str | None:
    """A text, or None.

    Raises
    ------
    ModelError
        If it is neither.
    """
    value = plain(value)
    if value is not None and not isinstance(value, str):
        raise ModelError(f"{name} must be text, not {value!r:.60}.")
    return value


def entropy_of(seed: Any) -> int:
    """A seed as a whole number: itself, drawn from a Generator, or fresh for None.

    Raises
    ------
    ModelError
        If it is none of these.
    """
    seed = plain(seed)
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**63))
    if not is_whole_number(seed, least=0):
        raise ModelError(
            f"seed must be a whole number from 0, a numpy Generator or None, not {seed!r:.60}."
        )
    return int(seed)


def meant(value: Any, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The question whether the name that is spelt most like it is meant; empty if none is.

    How much alike they must be, from 0 to 1, is said by `cutoff`.

    Examples
    --------
    >>> meant("bonf", ["tukey", "bonferroni"]), meant("zebra", ["tukey"])
    (" Did you mean 'bonferroni'?", '')
    """
    if not isinstance(value, str):
        return ""
    given = value.lower()[:60]
    lowered = {each.lower(): each for each in known}
    near = get_close_matches(given, lowered, n=1, cutoff=cutoff)
    if not near:
        # Cut short, or with more behind.
        near = [
            each for each in lowered if min(len(each), len(given)) > 1 and _one_begins(each, given)
        ]
    return f" Did you mean {lowered[near[0]]!r}?" if near else ""


def _one_begins(first: str, second: str) -> bool:
    return first.startswith(second) or second.startswith(first)
