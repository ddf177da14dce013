"""Pictures of matrices: ``me.plot.matrix(m.Z)``; needs matplotlib (the extra ``plots``)."""

from __future__ import annotations

from mixedeffects.display.plots import covariance, matrix

__all__ = ["covariance", "matrix"]
