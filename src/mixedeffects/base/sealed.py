"""Results that are pickled as bytes with a checksum: nothing is built from a damaged file."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

from mixedeffects.base.caching import cached_property
from mixedeffects.errors import ModelError

__all__ = ["Sealed", "foreign", "opened", "sealed", "unsealed"]


class Sealed:
    """Base of results that are pickled as bytes with a checksum, without their caches."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        own = {
            name: value
            for name, value in self.__dict__.items()
            if not isinstance(getattr(type(self), name, None), cached_property)
        }
        return unsealed, (type(self), sealed(own))

    def __copy__(self) -> Any:
        out = object.__new__(type(self))
        out.__dict__.update(self.__dict__)
        return out

    @classmethod
    def _attributes_now(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """The attributes of this version from those that an earlier one may have stored."""
        return stored


def unsealed(kind: type, state: Any) -> Any:
    """What `Sealed` pickled.

    Raises
    ------
    ModelError
        If the state is damaged, or not one of these.
    """
    attributes = opened(state, kind.__name__) if isinstance(state, dict) else None
    if not isinstance(attributes, dict) or not issubclass(kind, Sealed):
        raise foreign()
    out = object.__new__(kind)
    out.__dict__.update(kind._attributes_now(attributes))
    return out


def sealed(attributes: dict[str, Any]) -> dict[str, bytes]:
    """Attributes as bytes, with their checksum."""
    content = pickle.dumps(attributes, protocol=5)
    return {"checksum": _checksum(content), "content": content}


def opened(state: dict[Any, Any], what: str) -> Any:
    """What `sealed` was given.

    Parameters
    ----------
    state : dict
        With the bytes and their checksum.
    what : str
        What messages call it.

    Raises
    ------
    ModelError
        If the bytes are damaged, or cannot be read with what is installed.
    """
    content, checksum = state.get("content"), state.get("checksum")
    if not isinstance(content, bytes) or not isinstance(checksum, bytes):
        raise foreign()
    if _checksum(content) != checksum:
        raise ModelError(
            f"This stored {what} is damaged: its checksum is not that of what is stored. Take "
            "another copy of the file, or fit again."
        )
    try:
        return pickle.loads(content)
    except Exception as error:
        raise ModelError(
            f"This stored {what} cannot be read with the packages installed here "
            f"({type(error).__name__}: {error}). Install the versions it was stored with, or fit "
            "again."
        ) from error


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def foreign() -> ModelError:
    """The error for something that is no stored fit or result."""
    return ModelError("What is stored there is not a fit that mixedeffects has written.")
