"""Rows whose mean a fit cannot tell."""

from __future__ import annotations

from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.frame.estimable import Estimability

__all__ = ["estimability"]


@once_per_fit("estimability")
def estimability(fit: Fit) -> Estimability:
    """How columns dropped for rank follow from those kept."""
    return Estimability(fit.frame)
