"""What a pickle of a model holds, and how those stored by earlier versions are read.

A stored model is one dict with the number of its format. The parts of its fit are pickled once more
into bytes, with a checksum of these beside them: no array is built from a file that is damaged.
What can be computed again from the cross-products is left out: caches, and the factorisation at the
optimum. The classes within it are pickled by name: a change of one that old pickles do not survive
takes a new format number, and `restored` then turns the old state into a fit; where classes have
moved, `former_paths` finds them.

Formats 1 and 2 are read and no longer written. They have the parts under other names, and the first
has no checksum.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from mixedeffects.base.sealed import foreign, opened, sealed
from mixedeffects.engine import CrossProducts, Optimum
from mixedeffects.engine.generalized import GeneralizedOptimum
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.fitting.request import Request
from mixedeffects.frame.model_frame import ModelFrame
from mixedeffects.storage.former_paths import Remembered
from mixedeffects.storage.without_data import without_data

__all__ = ["FORMAT", "restored", "state_of"]

#: Number of the format that is written.
FORMAT = 3

#: The parts of a fit, and what they are.
_PARTS = {
    "frame": ModelFrame,
    "crossproducts": CrossProducts,
    "optimum": Optimum,
    "reml": bool,
    "request": Request,
    "remembered": dict,
}
#: What earlier formats call them.
_FORMERLY = {"frame": ModelFrame, "_A": CrossProducts, "optimum": Optimum, "_settings": dict}


def state_of(fit: Fit) -> dict[str, Any]:
    """Everything a fit consists of, without what follows from it.

    One whose rows stayed in a table goes without it, and with what the rows have to say.
    """
    fit = fit if fit.rows is None else without_data(fit)
    return {
        "format": FORMAT,
        "mixedeffects": version("mixedeffects"),
        "kind": fit.kind,
        **sealed({name: getattr(fit, name) for name in _PARTS}),
    }


def restored(state: Any) -> Fit:
    """The fit that `state_of` gave, in this version or an earlier one.

    Raises
    ------
    ModelError
        If the state is damaged, of a later format, or of no format at all.
    """
    number = state.get("format") if isinstance(state, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise foreign()
    if number > FORMAT:
        raise ModelError(
            f"This fit was stored by mixedeffects {state.get('mixedeffects')}, in format {number}; "
            f"this version reads formats up to {FORMAT}. Upgrade mixedeffects to read it."
        )
    parts = state.get("attributes") if number == 1 else opened(state, "fit")
    if number < FORMAT:
        parts = _of_this_format(parts)
    made_of: type[Fit] = Fit
    parts_of: dict[str, type] = _PARTS
    if state.get("kind") == GeneralizedFit.kind:
        made_of, parts_of = GeneralizedFit, {**_PARTS, "optimum": GeneralizedOptimum}
    if not _is_whole(parts, parts_of):
        raise foreign()
    return made_of(**{name: parts[name] for name in parts_of})


def _of_this_format(parts: Any) -> dict[str, Any]:
    """The parts of a fit from the attributes that a model had."""
    if not _is_whole(parts, _FORMERLY):
        raise foreign()
    settings, remembered = parts["_settings"], parts.get("_remembered")
    known = ("weights", "offset", "contrasts", "control")
    request = Request(
        data=parts.get("_given"),
        data_name=parts.get("data_name"),
        inherited=settings.get("inherited") or {},
        **{name: settings.get(name) for name in known},
    )
    return {
        "frame": parts["frame"],
        "crossproducts": parts["_A"],
        "optimum": parts["optimum"],
        "reml": bool(parts.get("reml")),
        "request": request,
        "remembered": remembered.as_dict() if isinstance(remembered, Remembered) else {},
    }


def _is_whole(parts: Any, kinds: dict[str, type]) -> bool:
    """Whether the parts are there and what they should be."""
    return isinstance(parts, dict) and all(
        isinstance(parts.get(name), kind) for name, kind in kinds.items()
    )
