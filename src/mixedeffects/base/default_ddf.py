"""Tables of fits that have a method for degrees of freedom of their own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mixedeffects.base.options import plain
from mixedeffects.base.value_method import ValueMethod

__all__ = ["ddf_of_the_fit", "with_ddf_of_the_fit"]

Class = TypeVar("Class", bound=type)
Function = TypeVar("Function", bound=Callable[..., Any])

_USUAL = "satterthwaite"


def with_ddf_of_the_fit(kind: Class) -> Class:
    """Have the public methods of a class use the fit's own ``ddf`` where none is given.

    Methods name Satterthwaite's as their default, which is that of `lmer`; `mmrm` asks for another
    one, in the fit's request. A covariance matrix that is given brings its own.
    """
    for name in dir(kind):
        method = inspect.getattr_static(kind, name)
        is_plain = inspect.isfunction(method)
        if name.startswith("_") or not (is_plain or isinstance(method, ValueMethod)):
            continue
        function = method if is_plain else method.__wrapped__
        parameters = inspect.signature(function).parameters
        if "ddf" in parameters and parameters["ddf"].default == _USUAL:
            filled = ddf_of_the_fit(function)
            setattr(kind, name, filled if is_plain else ValueMethod(filled))
    return kind


def ddf_of_the_fit(function: Function) -> Function:
    """The same for one function of a model, or of several that have one method."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        own, is_normal = _own(arguments[0]) if arguments else (_USUAL, False)
        if own != _USUAL and options.keys() <= signature.parameters.keys():
            given = signature.bind_partial(*arguments, **options).arguments
            if "ddf" not in given and (is_normal or plain(given.get("vcov", "model")) == "model"):
                options["ddf"] = own
        return function(*arguments, **options)

    return call  # type: ignore[return-value]


def _own(models: Any) -> tuple[str, bool]:
    """The method that all of the models have, and whether it holds for every covariance matrix.

    The usual one if they differ, or are none.
    """
    if isinstance(models, Mapping):
        models = list(models.values())
    listed = models if isinstance(models, (list, tuple)) else [models]
    fits = [getattr(model, "fit", model) for model in listed]
    methods = {getattr(getattr(fit, "request", None), "ddf", _USUAL) for fit in fits}
    is_normal = not any(getattr(fit, "has_degrees_of_freedom", True) for fit in fits)
    return (methods.pop(), is_normal) if len(methods) == 1 else (_USUAL, False)
