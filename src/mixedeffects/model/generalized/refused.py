"""What a linear mixed model answers and a generalized one does not: refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from mixedeffects.errors import ModelError

__all__ = ["NEVER", "NoSuchAnswerError", "Refused"]

#: Not defined for a generalized model.
NEVER = {
    "anova_effect_sizes": "they are shares of sums of squares of a linear model",
    "caic": "its degrees of freedom are those of a linear model",
    "effect_size": "it is in standard deviations of a normal residual",
    "kenward_roger": "the method is for linear models; tests use the normal distribution",
    "r2_by_level": "it divides the variance of a normal residual",
    "reml": "there is no restricted likelihood; the fit is by maximum likelihood",
    "satterthwaite": "the method is for linear models; tests use the normal distribution",
}


class NoSuchAnswerError(ModelError, AttributeError):
    """Something that a generalized model does not answer; for `hasattr` it is not there."""


def sentence(name: str) -> str:
    """Why something is refused, and what to do."""
    return f"`{name}` is not defined for generalized linear mixed models: {NEVER[name]}."


def _method(name: str) -> Callable[..., NoReturn]:
    def refuse(self: Any, *_arguments: Any, **_options: Any) -> NoReturn:
        raise ModelError(sentence(name))

    refuse.__name__ = name
    refuse.__qualname__ = f"Refused.{name}"
    refuse.__doc__ = f"Refused: {sentence(name)}"
    return refuse


class Refused:
    """Methods of a linear mixed model that a generalized one refuses by name."""


for _name in NEVER:
    if _name not in ("kenward_roger", "reml", "satterthwaite"):
        setattr(Refused, _name, _method(_name))
