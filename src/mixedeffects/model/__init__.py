"""What a user holds: a fitted model, whose methods ask the rooms below."""

from mixedeffects.model.linear_mixed_model import LinearMixedModel
from mixedeffects.model.lmer import lmer
from mixedeffects.model.mmrm import mmrm

__all__ = ["LinearMixedModel", "lmer", "mmrm"]
