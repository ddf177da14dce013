"""From a formula and a dataframe to arrays."""

from __future__ import annotations

from mixedeffects.frame.build import build_model_frame
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.grouping import level_codes
from mixedeffects.frame.model_frame import Dropped, ModelFrame, RandomTerm
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

__all__ = [
    "DesignEncoder",
    "Dropped",
    "ModelFrame",
    "RandomTerm",
    "ResidualTerm",
    "VarianceTerm",
    "build_model_frame",
    "level_codes",
]
