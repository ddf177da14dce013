"""Columns of numbers that were read as text, as by one `.` for a missing value in a file."""

from __future__ import annotations

import re

import pandas as pd

from mixedeffects.formula.syntax import Name
from mixedeffects.frame.checks import read_as_text
from mixedeffects.frame.model_frame import ModelFrame

__all__ = ["numbers_as_levels"]

#: From so many different values on a column of text is taken for measurements rather than codes.
_MANY = 10
#: What files write for a missing value, beside signs such as `.`.
_MISSING = ("na", "n/a", "#n/a", "nan", "null", "none", "missing", "nd")


def numbers_as_levels(frame: ModelFrame) -> list[str]:
    """Sentences about text columns of the fixed part whose levels look like measurements.

    Whole numbers may be codes, and so may values with letters, such as ``12a``; categoricals are
    meant as they are.
    """
    encoder = frame.fixed_encoder
    sentences = []
    for coder in () if encoder is None else encoder.coders:
        if coder.kind != "factor" or not isinstance(coder.tree, Name) or len(coder.levels) < _MANY:
            continue
        if isinstance(frame.data[coder.tree.name].dtype, pd.CategoricalDtype):
            continue
        found = read_as_text(coder.levels)
        if found is None:
            continue
        others, why = found
        meant = [o for o in others if re.search(r"\w", o) and o.strip().lower() not in _MISSING]
        measured = others or any(re.search("[.,]", level) for level in coder.levels)
        if measured and not meant:
            sentences.append(
                f"`{coder.name}` is text, so each of its {len(coder.levels)} values is a level of "
                f"its own, though {why}. If levels are meant, make it categorical."
            )
    return sentences
