"""Distributions of the response of generalized models, with their links.

>>> import mixedeffects as me
>>> me.families.Binomial("cloglog")
Family: binomial (link: cloglog)
"""

from mixedeffects.families.binomial import Binomial
from mixedeffects.families.family import Family
from mixedeffects.families.links import Link
from mixedeffects.families.poisson import Poisson
from mixedeffects.families.response import Derivatives, Response, RowTerms

__all__ = ["Binomial", "Derivatives", "Family", "Link", "Poisson", "Response", "RowTerms"]
