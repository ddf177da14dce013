"""What a pickle of a fit holds, and how fits stored by earlier versions are read.

A stored fit is one dict with the number of its format. Its parts are pickled once more into bytes,
with a checksum of these beside them: no array is built from a file that is damaged. What can be
computed again from the cross-products is left out: caches, and the factorisation at the optimum.
The classes within it are pickled by name: a change of one that old pickles do not survive takes a
new format number, and `restore` then turns the old state into the new one.

Format 1, which is read and no longer written, has the parts themselves, without a checksum.
"""

from __future__ import annotations

import hashlib
import pickle
from typing import TYPE_CHECKING, Any

from mixedeffects.caching import cached_property
from mixedeffects.errors import ModelError

if TYPE_CHECKING:
    from mixedeffects.model import LinearMixedModel

__all__ = ["FORMAT", "Sealed", "restore", "state_of", "unsealed"]

#: Number of the format that is written.
FORMAT = 2

#: Attributes of a model that are not computed from others.
_ATTRIBUTES = (
    "frame",
    "reml",
    "data_name",
    "optimum",
    "_A",
    "_given",
    "_settings",
    "_remembered",
)


def state_of(model: LinearMixedModel) -> dict[str, Any]:
    """Everything a fit consists of, without what follows from it."""
    import mixedeffects

    own = model.__dict__
    return {
        "format": FORMAT,
        "mixedeffects": mixedeffects.__version__,
        **_sealed({name: own[name] for name in _ATTRIBUTES}),
    }


def restore(model: LinearMixedModel, state: Any) -> None:
    """Fill an empty model from what `state_of` gave, in this version or an earlier one.

    Raises
    ------
    ModelError
        If the state is damaged, of a later format, or of no format at all.
    """
    number = state.get("format") if isinstance(state, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise _foreign()
    if number > FORMAT:
        raise ModelError(
            f"This fit was stored by mixedeffects {state.get('mixedeffects')}, in format {number}; "
            f"this version reads formats up to {FORMAT}. Upgrade mixedeffects to read it."
        )
    attributes = state.get("attributes") if number == 1 else _opened(state, "fit")
    if not isinstance(attributes, dict) or not _is_whole(attributes):
        raise _foreign()
    model.__dict__.update({name: attributes[name] for name in _ATTRIBUTES})


class Sealed:
    """Base of results that are pickled as bytes with a checksum, as fits are, without caches."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        own = {
            name: value
            for name, value in self.__dict__.items()
            if not isinstance(getattr(type(self), name, None), cached_property)
        }
        return unsealed, (type(self), _sealed(own))

    def __copy__(self) -> Any:
        out = object.__new__(type(self))
        out.__dict__.update(self.__dict__)
        return out


def unsealed(kind: type, state: Any) -> Any:
    """What `Sealed` pickled.

    Raises
    ------
    ModelError
        If the state is damaged, or not one of these.
    """
    attributes = _opened(state, kind.__name__) if isinstance(state, dict) else None
    if not isinstance(attributes, dict) or not issubclass(kind, Sealed):
        raise _foreign()
    out = object.__new__(kind)
    out.__dict__.update(attributes)
    return out


def _sealed(attributes: dict[str, Any]) -> dict[str, bytes]:
    content = pickle.dumps(attributes, protocol=5)
    return {"checksum": _checksum(content), "content": content}


def _opened(state: dict[Any, Any], what: str) -> Any:
    content, checksum = state.get("content"), state.get("checksum")
    if not isinstance(content, bytes) or not isinstance(checksum, bytes):
        raise _foreign()
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


def _is_whole(attributes: dict[Any, Any]) -> bool:
    """Whether the parts are there and what they should be."""
    from mixedeffects.engine import CrossProducts, Optimum
    from mixedeffects.frame.model_frame import ModelFrame

    kinds = {"frame": ModelFrame, "optimum": Optimum, "_A": CrossProducts, "_settings": dict}
    return set(_ATTRIBUTES) <= set(attributes) and all(
        isinstance(attributes[name], kind) for name, kind in kinds.items()
    )


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _foreign() -> ModelError:
    return ModelError("What is stored there is not a fit that mixedeffects has written.")
