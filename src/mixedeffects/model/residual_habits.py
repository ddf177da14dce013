"""Residual covariances as users of nlme, SAS and glmmTMB write them, in the words used here."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

from mixedeffects.base.habits import OF_ARGUMENTS, hint
from mixedeffects.errors import FormulaError, ModelError
from mixedeffects.formula.residual import read_residual

__all__ = ["explains_structures", "refuse_variance_function", "spelled_here"]

Function = TypeVar("Function", bound=Callable[..., Any])

_HERE = re.compile(r"is `(.+)` here\.")
_FORM = r"(?:form\s*=\s*)?~\s*"
_REPEATED = re.compile(r"\s*(?:repeated\s+)?([\w.]*)\s*/\s*(.+?)\s*;?\s*", re.IGNORECASE)
_OPTION = re.compile(r"(\w+)\s*=\s*([\w.]+(?:\([^()]*\))*)")
#: A variance function of nlme, with the rest of a sum behind it.
_FUNCTION = re.compile(r"\s*(var[A-Z]\w+)\s*\((.*)\)\s*", re.DOTALL)


def spelled_here(argument: str, value: object) -> str | None:
    """What the text given for an argument of another package is here; None if that is not known.

    Examples
    --------
    >>> spelled_here("correlation", "corAR1(form = ~ week | id)")
    'residual="ar1(week | id)"'
    >>> spelled_here("repeated", "visit / subject=id type=un group=arm")
    'residual="us(visit | id, by = arm)"'
    >>> spelled_here("dispformula", "~ sex")
    'variance="sex"'
    """
    if not isinstance(value, str):
        return None
    text = value.strip().removeprefix("~").strip()
    if argument == "dispformula":
        return f'variance="{text}"' if text not in ("", "0", "1") else None
    if argument not in ("correlation", "repeated", "covariance"):
        return None
    found = _REPEATED.fullmatch(text)
    options = {key.lower(): given for key, given in _OPTION.findall(found[2])} if found else {}
    if found and {"subject", "type"} <= options.keys():
        group = options["subject"]
        head = f"{options['group']} / " if "group" in options else ""
        text = f"{options['type']}({found[1] or '1'} | {head}{group})"
    try:
        return f'residual="{read_residual(text).text}"'
    except FormulaError as error:
        here = _HERE.search(str(error))
        return f'residual="{here[1]}"' if here else None


def explains_structures(function: Function) -> Function:
    """A function that says how what is given for another package's argument is written here."""
    habits = OF_ARGUMENTS[function.__name__]

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        for name in options.keys() & habits.keys():
            here = spelled_here(name, options[name])
            if here is not None:
                said = hint((habits[name][0], here))
                raise TypeError(f"{function.__name__}() has no argument {name!r}{said}.")
        refuse_variance_function(options.get("weights"))
        return function(*arguments, **options)

    return call  # type: ignore[return-value]


def refuse_variance_function(weights: object) -> None:
    """Say what a variance function of nlme is called here.

    Raises
    ------
    ModelError
        If the text given for ``weights=`` is one.

    Examples
    --------
    >>> refuse_variance_function("varIdent(form = ~ 1 | sex)")
    Traceback (most recent call last):
        ...
    mixedeffects.errors.ModelError: weights='varIdent(form = ~ 1 | sex)' is a variance function of
    nlme. Here: variance="sex".
    """
    if not isinstance(weights, str):
        return
    found = _FUNCTION.fullmatch(weights)
    if found is None:
        return
    if found[1] == "varFixed" and (fixed := re.fullmatch(_FORM + "(.+)", found[2].strip())):
        raise ModelError(
            f'weights={weights!r} is a variance function of nlme. Here: weights="1 / {fixed[1]}".'
        )
    terms = _variance_terms(found[1], found[2].strip())
    if terms is None:
        raise ModelError(
            f"weights={weights!r} is a variance function of nlme. variance= takes covariates and "
            "factors, such as 'sex + log(age)': a power of the fitted values has no likelihood of "
            "its own."
        )
    raise ModelError(
        f'weights={weights!r} is a variance function of nlme. Here: variance="{terms}".'
    )


def _variance_terms(function: str, inside: str) -> str | None:
    if function == "varComb":
        parts = re.findall(r"(var[A-Z]\w+)\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)", inside)
        terms = [_variance_terms(name, own.strip()) for name, own in parts]
        known = [each for each in terms if each is not None]
        return " + ".join(known) if known and len(known) == len(terms) else None
    if function == "varIdent":
        found = re.fullmatch(_FORM + r"1\s*\|\s*(.+)", inside)
        return found[1].strip().replace(" * ", ":").replace("*", ":") if found else None
    found = re.fullmatch(_FORM + r"([^|]+)", inside)
    if found is None or "fitted" in found[1] or function not in ("varPower", "varExp"):
        return None
    covariate = found[1].strip()
    return f"log({covariate})" if function == "varPower" else covariate
