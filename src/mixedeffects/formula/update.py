"""R's ``update``: a formula in which ``.`` stands for what was there."""

from __future__ import annotations

import re

from mixedeffects.errors import FormulaError

__all__ = ["update_formula"]

#: A dot that stands alone: not part of a name or a number.
_DOT = re.compile(r"(?<![\w.`])\.(?![\w.`])")


def update_formula(old: str, new: str) -> str:
    """The new formula with each lone dot replaced by that side of the old one.

    Parameters
    ----------
    old : str
        Formula of the fitted model.
    new : str
        For example ``". ~ . + Sex"``, ``"log(y) ~ ."`` or a whole formula.

    Raises
    ------
    FormulaError
        If either has no ``~``.

    Examples
    --------
    >>> update_formula("y ~ x + (1 | g)", ". ~ . + z")
    'y ~ x + (1 | g) + z'
    >>> update_formula("y ~ x + (1 | g)", "log(.) ~ . - x")
    'log(y) ~ x + (1 | g) - x'
    """
    sides = []
    for text in (old, new):
        left, tilde, right = text.partition("~")
        if not tilde:
            raise FormulaError(
                f"The formula {text!r} has no '~': write the response on its left, for example "
                "'. ~ . + x'."
            )
        sides.append((left.strip(), right.strip()))
    (old_left, old_right), (new_left, new_right) = sides
    left = _DOT.sub(lambda _: old_left, new_left)
    right = _DOT.sub(lambda _: old_right, new_right)
    return f"{left} ~ {right}"
