"""Pictures of matrices and of fitted models; they need matplotlib (the extra ``plots``).

``me.plot.matrix(m.Z)`` draws a matrix. The pictures of a fitted model, ``me.plot.qq(m)``, are those
of ``m.plot("qq")`` as well.
"""

from __future__ import annotations

from mixedeffects.display.plots import covariance, matrix
from mixedeffects.pictures.effect_plots import effects
from mixedeffects.pictures.panel import checks, influence, panel
from mixedeffects.pictures.ranef_plots import caterpillar, ranef_pairs, ranef_qq
from mixedeffects.pictures.residual_plots import groups, leverage, qq, residuals, scale

__all__ = [
    "caterpillar",
    "checks",
    "covariance",
    "effects",
    "groups",
    "influence",
    "leverage",
    "matrix",
    "panel",
    "qq",
    "ranef_pairs",
    "ranef_qq",
    "residuals",
    "scale",
]
