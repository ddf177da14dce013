"""Distributions of the response of generalized models, with their links.

>>> import mixedeffects as me
>>> me.families.Binomial("cloglog")
Family: binomial (link: cloglog)
"""

from mixedeffects.families.beta import Beta
from mixedeffects.families.binomial import Binomial
from mixedeffects.families.family import Family
from mixedeffects.families.gamma import Gamma
from mixedeffects.families.gaussian import Gaussian
from mixedeffects.families.inverse_gaussian import InverseGaussian
from mixedeffects.families.links import Link
from mixedeffects.families.names import find_family
from mixedeffects.families.negative_binomial import NegativeBinomial
from mixedeffects.families.poisson import Poisson
from mixedeffects.families.response import Derivatives, Response, RowTerms

__all__ = [
    "Beta",
    "Binomial",
    "Derivatives",
    "Family",
    "Gamma",
    "Gaussian",
    "InverseGaussian",
    "Link",
    "NegativeBinomial",
    "Poisson",
    "Response",
    "RowTerms",
    "find_family",
]
