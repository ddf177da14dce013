"""Generalized linear mixed models: the Laplace criterion, its optimum, and what is known there."""

from mixedeffects.engine.generalized.accuracy import (
    LaplaceCheck,
    QuadratureCheck,
    laplace_check,
    quadrature_check,
)
from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.generalized.existence import (
    Separation,
    separating_direction,
    separation_message,
)
from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation, evaluate_laplace
from mixedeffects.engine.generalized.optimum import GeneralizedOptimum, find_generalized_optimum
from mixedeffects.engine.generalized.quadrature import (
    adaptive_quadrature,
    check_quadrature,
    evaluate_criterion,
)

__all__ = [
    "GeneralizedDesign",
    "GeneralizedEvaluation",
    "GeneralizedOptimum",
    "LaplaceCheck",
    "QuadratureCheck",
    "Separation",
    "adaptive_quadrature",
    "check_quadrature",
    "evaluate_criterion",
    "evaluate_laplace",
    "find_generalized_optimum",
    "laplace_check",
    "quadrature_check",
    "separating_direction",
    "separation_message",
]
