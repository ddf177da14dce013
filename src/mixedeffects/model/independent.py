"""Methods that take residuals to be independent say so where they are not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from mixedeffects.errors import ModelError

__all__ = ["independent_residuals_only"]

Method = TypeVar("Method", bound=Callable[..., Any])


def independent_residuals_only(method: Method) -> Method:
    """Refuse a method of a model with ``residual=`` or ``variance=``, by name."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.fit.residual is not None:
            raise ModelError(
                f"`{method.__name__}` takes residuals to be independent, with one variance beside "
                "the prior weights, and this model has `residual=` or `variance=`."
            )
        return method(self, *arguments, **options)

    return call  # type: ignore[return-value]
