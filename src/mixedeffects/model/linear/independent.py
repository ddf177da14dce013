"""Methods that take residuals to be independent say so where they are not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from mixedeffects.covariance.of_residuals import refuse_structured

__all__ = ["independent_residuals_only"]

Method = TypeVar("Method", bound=Callable[..., Any])


def independent_residuals_only(method: Method) -> Method:
    """Refuse a method of a model with ``residual=`` or ``variance=``, by name."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        refuse_structured(self.fit, f"`{method.__name__}`")
        return method(self, *arguments, **options)

    return call  # type: ignore[return-value]
