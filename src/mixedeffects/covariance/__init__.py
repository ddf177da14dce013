"""V, G, R and Z as objects, and generalized least squares with them."""

from mixedeffects.covariance.gls import GLSResult, gls
from mixedeffects.covariance.marginal import MarginalCovariance
from mixedeffects.covariance.parts import CovariancePart, CovarianceParts
from mixedeffects.covariance.random_effects import RandomEffectsCovariance
from mixedeffects.covariance.residual import ResidualCovariance
from mixedeffects.covariance.varcorr import VarCorr

__all__ = [
    "CovariancePart",
    "CovarianceParts",
    "GLSResult",
    "MarginalCovariance",
    "RandomEffectsCovariance",
    "ResidualCovariance",
    "VarCorr",
    "gls",
]
