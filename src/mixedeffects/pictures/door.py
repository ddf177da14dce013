"""Pictures take what a user holds and draw from the fit in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from mixedeffects.fitting.fit import fit_of

__all__ = ["of_a_fit", "of_any_fit"]


Drawn = TypeVar("Drawn")


def of_a_fit(picture: Callable[..., Drawn]) -> Callable[..., Drawn]:
    """Have a picture of a fit take a fitted model, and refuse anything else."""
    return _door(picture, False, "LinearMixedModel")


def of_any_fit(picture: Callable[..., Drawn]) -> Callable[..., Drawn]:
    """The same for pictures that mean something for generalized models too."""
    return _door(picture, True, "LinearMixedModel | GeneralizedLinearMixedModel")


def _door(picture: Callable[..., Drawn], any_kind: bool, kind: str) -> Callable[..., Drawn]:
    @wraps(picture)
    def drawn(model: Any, *arguments: Any, **options: Any) -> Drawn:
        return picture(
            fit_of(model, "The first argument", any_kind=any_kind), *arguments, **options
        )

    own = inspect.signature(picture)
    first, *others = own.parameters.values()
    named = first.replace(name="model", annotation=kind)
    drawn.__signature__ = own.replace(parameters=[named, *others])  # type: ignore[attr-defined]
    return drawn
