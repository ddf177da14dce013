"""Generalized linear mixed models: the Laplace criterion, its optimum, and what is known there."""

from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation, evaluate_laplace
from mixedeffects.engine.generalized.optimum import GeneralizedOptimum, find_generalized_optimum

__all__ = [
    "GeneralizedDesign",
    "GeneralizedEvaluation",
    "GeneralizedOptimum",
    "evaluate_laplace",
    "find_generalized_optimum",
]
