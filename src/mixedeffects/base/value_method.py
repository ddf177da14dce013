"""Methods whose plain value can be had without calling them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["ValueMethod"]


class ValueMethod:
    """A method that takes options, and without parentheses stands for its value without them.

    ``m.resid("pearson")`` is called as any method; where other packages have an attribute of that
    name, ``np.asarray(m.resid)``, ``m.resid.mean()`` and ``y - m.resid`` work too. The value is
    computed at each use.

    Parameters
    ----------
    function : callable
        The method.

    Examples
    --------
    >>> class Counts:
    ...     @ValueMethod
    ...     def halves(self, of=4):
    ...         return np.arange(of) / 2
    >>> Counts().halves(2), float(Counts().halves.max()), len(Counts().halves)
    (array([0. , 0.5]), 1.5, 4)
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function
        functools.update_wrapper(self, function)  # type: ignore[arg-type]

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        return self.__wrapped__ if owner is None else _Value(self.__wrapped__, owner)


class _Value:
    """What stands for the value until it is called."""

    def __init__(self, function: Callable[..., Any], owner: Any) -> None:
        self._function, self._owner = function, owner
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._function(self._owner, *arguments, **options)

    def __repr__(self) -> str:
        return repr(self())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self(), dtype=dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self(), name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self())

    def __len__(self) -> int:
        return len(self())

    def __getitem__(self, key: Any) -> Any:
        return self()[key]


def _forward(name: str, function: Callable[..., Any]) -> None:
    setattr(_Value, f"__{name}__", lambda self, other: function(self(), other))
    if name in ("add", "sub", "mul", "truediv", "pow", "matmul"):
        setattr(_Value, f"__r{name}__", lambda self, other: function(other, self()))


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "lt", "le", "gt", "ge"):
    _forward(_name, getattr(operator, _name))
