"""Which random-effects terms a prediction or simulation conditions on, as lme4's ``re.form``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixedeffects.errors import FormulaError, ModelError
from mixedeffects.formula import Bar, parse_formula
from mixedeffects.formula.terms import expand_terms
from mixedeffects.frame.model_frame import ModelFrame

__all__ = ["select_terms"]


def select_terms(frame: ModelFrame, re: Any) -> tuple[int, ...]:
    """Numbers of the terms chosen.

    Parameters
    ----------
    frame : ModelFrame
        The model's terms.
    re : "all", None, "none", str or list of str
        Labels of terms, or names of grouping factors for all terms on them; or a one-sided formula
        such as ``"~0"`` or ``"~ (1 | sch)"`` with terms of the model.

    Raises
    ------
    ModelError
        If a name or a term of the formula is not one of the model's.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
    >>> select_terms(m.frame, ["sch.cl"]), select_terms(m.frame, "~0")
    ((1,), ())
    """
    if re is None or (isinstance(re, str) and re == "none"):
        return ()
    if isinstance(re, str) and re == "all":
        return tuple(range(len(frame.terms)))
    if isinstance(re, str) and re.lstrip().startswith("~"):
        return _of_formula(frame, re)
    names = [re] if isinstance(re, str) else re
    if not isinstance(names, (list, tuple, set, frozenset)) or not all(
        isinstance(name, str) for name in names
    ):
        raise ModelError(
            "re must be 'all', None, or names of random-effects terms or grouping factors, not "
            f"{re!r:.60}."
        )
    chosen: set[int] = set()
    for name in names:
        chosen |= _of_name(frame, name)
    return tuple(sorted(chosen))


def _of_name(frame: ModelFrame, name: str) -> set[int]:
    groups = {t for t, term in enumerate(frame.terms) if term.group == name}
    labels = {t for t, term in enumerate(frame.terms) if term.label == name}
    parts = sorted(name.split(":"))
    either = {t for t, term in enumerate(frame.terms) if sorted(term.variables) == parts}
    found = groups or labels or either
    if not found:
        raise ModelError(f"The model has no random-effects term {name!r}; {_valid(frame)}")
    return found


def _of_formula(frame: ModelFrame, text: str) -> tuple[int, ...]:
    if text.replace(" ", "") in ("~0", "~NA"):
        return ()
    try:
        formula = parse_formula(text, one_sided=True)
    except FormulaError as error:
        raise ModelError(f"re={text!r} cannot be read: {error}") from None
    if formula.fixed not in ("0", "1"):
        raise ModelError(
            f"re={text!r} must have random-effects terms only, such as '~ (1 | group)'; the fixed "
            "effects are always part of a prediction."
        )
    return tuple(sorted({_of_bar(frame, bar) for bar in formula.random}))


def _of_bar(frame: ModelFrame, bar: Bar) -> int:
    table = expand_terms(bar.tree, str(bar))
    columns = (table.intercept, set(table.labels))
    for t, (term, encoder) in enumerate(zip(frame.terms, frame.random_encoders, strict=True)):
        fitted = (encoder.table.intercept, set(encoder.table.labels))
        if sorted(term.variables) == sorted(bar.variables) and fitted == columns:
            return t
    raise ModelError(f"The model has no random-effects term {bar}; {_valid(frame)}")


def _valid(frame: ModelFrame) -> str:
    labels: Sequence[str] = [term.label for term in frame.terms]
    bars = list(dict.fromkeys(bar.written for bar in frame.formula.random))
    names = dict.fromkeys([*(term.group for term in frame.terms), *labels])
    return (
        f"name {', '.join(repr(name) for name in names)}, or write {', '.join(bars)} after '~'. "
        "A term is taken as a whole."
    )
