"""Which means are wanted, in words as R's emmeans takes them: ``"pairwise ~ a * b | c"``."""

from __future__ import annotations

import re
from typing import Any

from mixedeffects.base.options import plain
from mixedeffects.errors import ModelError
from mixedeffects.fitting.data_summary import data_summary
from mixedeffects.fitting.fit import Fit

__all__ = ["specs_in_words"]


def specs_in_words(specs: Any, by: Any, fit: Fit) -> tuple[Any, Any, str | None]:
    """Variables, groups and method of comparisons of ``"pairwise ~ a * b | c"``, or ``"a * b"``.

    Parameters
    ----------
    specs, by
        As for `LinearMixedModel.emmeans`.
    fit : Fit
        Whose columns a name with such characters may be.

    Returns
    -------
    specs, by
        As given where ``specs`` is not in words, else lists of names.
    method : str or None
        What stands before ``~``.

    Raises
    ------
    ModelError
        If there is more than one ``~`` or ``|``, a bar beside ``by``, or nothing behind the bar.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("angle ~ recipe * temp + (1 | replicate)", me.load_dataset("cake"))
    >>> specs_in_words("pairwise ~ recipe | temp", None, m.fit)
    (['recipe'], ['temp'], 'pairwise')
    """
    words = plain(specs)
    if not isinstance(words, str) or words in data_summary(fit).names:
        return specs, by, None
    if not re.search(r"[~|]", words) and ("(" in words or not re.search(r"[*+:]", words)):
        return specs, by, None
    left, _, right = words.rpartition("~")
    own, bar, groups = right.partition("|")
    if "~" in left or "|" in groups or (bar and by is not None):
        raise ModelError(
            f"specs {words!r:.60} cannot be read: one `~` and one `|` at most, as in "
            "'pairwise ~ a | b', and then no by= beside it."
        )
    names = [_variables(part) for part in (own, groups)]
    if bar and not names[1]:
        raise ModelError(f"specs {words!r:.60} names no variable behind the bar.")
    return names[0], names[1] if bar else by, left.strip() or None


def _variables(text: str) -> list[str]:
    names = [part.strip().strip("`") for part in re.split(r"[*+:]", text)]
    return [name for name in names if name not in ("", "1")]
