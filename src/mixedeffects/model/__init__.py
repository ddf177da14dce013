"""What a user holds: a fitted model, whose methods ask the rooms below."""

from mixedeffects.model.generalized_linear_mixed_model import GeneralizedLinearMixedModel
from mixedeffects.model.glmer import glmer
from mixedeffects.model.linear_mixed_model import LinearMixedModel
from mixedeffects.model.lmer import lmer
from mixedeffects.model.mmrm import mmrm

__all__ = ["GeneralizedLinearMixedModel", "LinearMixedModel", "glmer", "lmer", "mmrm"]
