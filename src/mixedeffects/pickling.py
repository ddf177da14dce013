"""What a pickle of a fit holds, and how fits stored by earlier versions are read.

A stored fit is one dict with the number of its format. What can be computed again from the
cross-products is left out: caches, and the factorisation at the optimum. The classes within it are
pickled by name: a change of one that old pickles do not survive takes a new format number, and
`restore` then turns the old state into the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixedeffects.errors import ModelError

if TYPE_CHECKING:
    from mixedeffects.model import LinearMixedModel

__all__ = ["FORMAT", "restore", "state_of"]

#: Number of the format that is written.
FORMAT = 1

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
        "attributes": {name: own[name] for name in _ATTRIBUTES},
    }


def restore(model: LinearMixedModel, state: Any) -> None:
    """Fill an empty model from what `state_of` gave, in this version or an earlier one.

    Raises
    ------
    ModelError
        If the state is of a later format, or of no format at all.
    """
    number = state.get("format") if isinstance(state, dict) else None
    if not isinstance(number, int) or number < 1:
        raise ModelError("What is stored there is not a fit that mixedeffects has written.")
    if number > FORMAT:
        raise ModelError(
            f"This fit was stored by mixedeffects {state.get('mixedeffects')}, in format {number}; "
            f"this version reads formats up to {FORMAT}. Upgrade mixedeffects to read it."
        )
    model.__dict__.update(state["attributes"])
