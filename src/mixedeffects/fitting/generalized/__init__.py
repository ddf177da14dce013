"""From a frame to the fit of a generalized linear mixed model, and from a fit to related ones."""

from mixedeffects.fitting.generalized.record import GeneralizedFit, generalized

__all__ = ["GeneralizedFit", "generalized"]
