"""Rows whose mean a fit cannot tell."""

from __future__ import annotations

from mixedeffects.fitting.data_summary import data_summary
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.frame.estimable import Estimability

__all__ = ["estimability"]


@once_per_fit("estimability")
def estimability(fit: Fit) -> Estimability:
    """How columns dropped for rank follow from those kept."""
    assert fit.frame.fixed_encoder is not None
    return Estimability(fit.frame.fixed_encoder, data_summary(fit))
