"""The base of every fitted model: what all of them answer alike, storing and printing."""

from __future__ import annotations

from typing import Any

from mixedeffects.display.summary import Summary
from mixedeffects.model.shared.estimates import SharedEstimates
from mixedeffects.model.shared.matrices import SharedMatrices

__all__ = ["FittedModel"]


class FittedModel(SharedEstimates, SharedMatrices):
    """The base of every fitted model: what all of them answer alike, storing and printing."""

    def __getstate__(self) -> dict[str, Any]:
        from mixedeffects.storage.pickling import state_of

        return state_of(self.fit)

    def __setstate__(self, state: Any) -> None:
        from mixedeffects.storage.pickling import restored

        self._fit = restored(state)

    def _default_summary(self) -> Summary:
        """The summary that is shown for the model itself."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return str(self._default_summary())

    def _repr_html_(self) -> str:
        return str(self._default_summary()._repr_html_())
