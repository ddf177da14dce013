"""A model whose record is that of a generalized fit."""

from __future__ import annotations

from typing import cast

from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.model.shared.held import Held

__all__ = ["OfRecord"]


class OfRecord(Held):
    """A model whose record is that of a generalized fit."""

    @property
    def _record(self) -> GeneralizedFit:
        return cast(GeneralizedFit, self.fit)
