"""What `etable` is given: models, names, marks and labels, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixedeffects.base.options import checked_names, is_listed, is_whole_number, plain
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit

__all__ = ["Labels", "check_digits", "fits_and_names", "marks_of", "one_for_each"]

_STARS = {"***": 0.001, "**": 0.01, "*": 0.05}


def fits_and_names(models: Any, names: Any) -> tuple[list[Fit], tuple[str, ...]]:
    """The fits and the names of their columns."""
    if isinstance(models, Mapping):
        if names is not None:
            raise ModelError("The keys of the dict are the names of the columns; leave names= out.")
        listed, given = list(models.values()), [str(key) for key in models]
    else:
        listed = [models] if _is_fitted(models) else _listed(models)
        given = [f"({i})" for i in range(1, len(listed) + 1)]
        if names is not None:
            given = checked_names(names, "names")
    if not listed:
        raise ModelError("There are no models to put into a table.")
    for position, model in enumerate(listed, start=1):
        if not _is_fitted(model):
            raise ModelError(
                f"A table takes models fitted by lmer or glmer; number {position} is a "
                f"{type(model).__name__}."
            )
    fits = [model.fit for model in listed]
    if len(given) != len(fits):
        raise ModelError(f"There are {len(fits)} models but {len(given)} names.")
    columns = tuple(str(name) for name in given)
    if len(set(columns)) < len(columns):
        raise ModelError(f"The names of the columns must differ; they are {', '.join(columns)}.")
    return fits, columns


def _is_fitted(model: Any) -> bool:
    return isinstance(getattr(model, "fit", None), Fit)


def _listed(models: Any) -> list[Any]:
    if not is_listed(models):
        raise ModelError(
            f"models must be a fitted model, a list or a dict of them, not {models!r:.60}."
        )
    return list(models)


def check_digits(digits: Any) -> None:
    """Refuse what is no number of decimals."""
    if not is_whole_number(digits, least=0) or digits > 15:
        raise ModelError(f"digits must be a whole number from 0 to 15, not {digits!r:.60}.")


def marks_of(stars: Any) -> list[tuple[str, float]]:
    """Marks with the bounds that p must be below, the smallest bound first."""
    stars = plain(stars)
    if isinstance(stars, bool):
        stars = _STARS if stars else {}
    if not isinstance(stars, Mapping):
        raise ModelError(f"stars must be True, False or a dict of marks, not {stars!r:.60}.")
    for mark, bound in stars.items():
        number = isinstance(bound, (int, float, np.floating)) and not isinstance(bound, bool)
        if not isinstance(mark, str) or not number or not 0.0 < bound <= 1.0:
            raise ModelError(
                f"stars must give each mark a bound between 0 and 1, not {mark!r}: {bound!r:.60}."
            )
    return sorted(((mark, float(bound)) for mark, bound in stars.items()), key=lambda m: m[1])


def one_for_each(value: Any, what: str, n: int) -> list[Any]:
    """An option of each of n models, given as a list or as one for all."""
    if not isinstance(value, (list, tuple)):
        return [value] * n
    if len(value) != n:
        raise ModelError(f"{what} has {len(value)} entries for {n} models.")
    return list(value)


class Labels:
    """The names to show."""

    def __init__(self, labels: Any) -> None:
        if labels is not None and not isinstance(labels, Mapping):
            raise ModelError(f"labels must be a dict of names to labels, not {labels!r:.60}.")
        self._labels = {} if labels is None else {str(k): str(v) for k, v in labels.items()}

    def __call__(self, name: str) -> str:
        """The label of a name, or of the parts of an interaction."""
        if name in self._labels:
            return self._labels[name]
        parts = name.split(":")
        if any(part in self._labels for part in parts):
            return ":".join(self._labels.get(part, part) for part in parts)
        return name
