"""Tables of a fit that has a method for degrees of freedom of its own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from mixedeffects.base.options import plain
from mixedeffects.base.value_method import ValueMethod

__all__ = ["with_ddf_of_the_fit"]

Class = TypeVar("Class", bound=type)

_USUAL = "satterthwaite"


def with_ddf_of_the_fit(kind: Class) -> Class:
    """Have the public methods of a class use the fit's own ``ddf`` where none is given.

    Methods name Satterthwaite's as their default, which is that of `lmer`; `mmrm` asks for another
    one, in the fit's request. A covariance matrix that is given brings its own.
    """
    for name in dir(kind):
        method = inspect.getattr_static(kind, name)
        plain_method = inspect.isfunction(method)
        if name.startswith("_") or not (plain_method or isinstance(method, ValueMethod)):
            continue
        function = method if plain_method else method.__wrapped__
        parameters = inspect.signature(function).parameters
        if "ddf" in parameters and parameters["ddf"].default == _USUAL:
            filled = _filled(function)
            setattr(kind, name, filled if plain_method else ValueMethod(filled))
    return kind


def _filled(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        own = self.fit.request.ddf
        if own != _USUAL and options.keys() <= signature.parameters.keys():
            given = signature.bind_partial(self, *arguments, **options).arguments
            if "ddf" not in given and plain(given.get("vcov", "model")) == "model":
                options["ddf"] = own
        return method(self, *arguments, **options)

    return call
