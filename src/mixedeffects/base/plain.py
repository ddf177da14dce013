"""Plain values as JSON and back, exactly: numbers, text, tuples, small arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["as_plain", "from_plain"]


def as_plain(value: Any) -> Any:
    """What JSON can hold of nested lists, tuples, dicts and small arrays.

    Raises
    ------
    TypeError
        If it is anything else: the name of its type.

    Examples
    --------
    >>> as_plain({"knots": np.array([0.5, 1.0]), 0: (1, None)})
    {'map': [['knots', {'array': [0.5, 1.0], 'type': 'f8'}], [0, {'tuple': [1, None]}]]}
    """
    if value is None or (isinstance(value, (bool, int, float, str)) and type(value) in _PLAIN):
        return value
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"array": value.tolist(), "type": value.dtype.str[1:]}
    if isinstance(value, tuple):
        return {"tuple": [as_plain(each) for each in value]}
    if isinstance(value, list):
        return [as_plain(each) for each in value]
    if isinstance(value, dict):
        return {"map": [[as_plain(key), as_plain(each)] for key, each in value.items()]}
    raise TypeError(type(value).__name__)


_PLAIN = (bool, int, float, str)


def from_plain(value: Any) -> Any:
    """Turn what `as_plain` made into what it was.

    Examples
    --------
    >>> from_plain({"map": [[0, {"tuple": [1, None]}]]})
    {0: (1, None)}
    """
    if isinstance(value, list):
        return [from_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(from_plain(each) for each in value["tuple"])
    if "map" in value:
        return {from_plain(key): from_plain(each) for key, each in value["map"]}
    kind = str(value["type"])
    if kind[:1] not in ("b", "i", "u", "f"):
        raise ValueError(kind)
    return np.array(value["array"], dtype=np.dtype(kind))
