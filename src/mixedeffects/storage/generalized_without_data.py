"""The optimum of a generalized fit without its rows.

Modes, factorisations and cross-products are as large as the random effects, and
stay. What is computed from rows but is small, the joint Hessian and the check of Laplace's
approximation, is worked out before they go.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from mixedeffects.engine import CrossProducts
from mixedeffects.engine.generalized import (
    GeneralizedDesign,
    GeneralizedEvaluation,
    GeneralizedOptimum,
)
from mixedeffects.engine.generalized.mode import Mode
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.frame.without_rows import left_out
from mixedeffects.reporting.generalized_tables import quadrature_check

__all__ = [
    "DesignWithoutRows",
    "EvaluationWithoutRows",
    "ModeWithoutRows",
    "generalized_optimum_without_rows",
]

Part = TypeVar("Part")

_ROWS = "the rows of the generalized model"
#: What is not made of rows.
_OF_DESIGN = (
    "family",
    "n",
    "p",
    "basis",
    "term_columns",
    "parameterisation",
    "is_structured",
    "skeleton",
)
_OF_MODE = ("b", "c", "A", "factorisation", "f", "decrement", "factorisations")
_OF_EVALUATION = (
    "T",
    "beta",
    "phi",
    "criterion",
    "score",
    "outer_products",
    "beta_gradient",
    "phi_gradient",
    "logdet",
    "P",
    "nodes",
)


class _WithoutRows:
    """What is not there was made of rows."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise left_out(_ROWS)

    def __getstate__(self) -> dict[str, Any]:
        """All of it: what was made of rows cannot be made again."""
        return dict(self.__dict__)


class DesignWithoutRows(_WithoutRows, GeneralizedDesign):
    """A design with its family, basis and parameters but no rows."""


class ModeWithoutRows(_WithoutRows, Mode):
    """Conditional modes with their factorisation but no rows."""


class EvaluationWithoutRows(_WithoutRows, GeneralizedEvaluation):
    """An evaluation with its criterion, scores and working cross-products but no rows."""

    @property
    def A(self) -> CrossProducts:
        """Cross-products of the working model."""
        kept: CrossProducts = self.__dict__["working_products"]
        return kept


def generalized_optimum_without_rows(fit: GeneralizedFit) -> GeneralizedOptimum:
    """The same optimum, with what tables ask of it and without what grows with the rows."""
    found = fit.found
    # From their rows, and kept from now on.
    _ = found.certificate, quadrature_check(fit), found.evaluation.design.skeleton
    evaluation = found.evaluation
    design = _without(evaluation.design, DesignWithoutRows, _OF_DESIGN)
    mode = _without(evaluation.mode, ModeWithoutRows, _OF_MODE)
    slim = _without(evaluation, EvaluationWithoutRows, _OF_EVALUATION)
    slim.__dict__.update(design=design, mode=mode, working_products=evaluation.A)
    out = copy.copy(found)
    out.evaluation = slim
    return out


def _without(part: Any, kind: type[Part], names: tuple[str, ...]) -> Part:
    slim = object.__new__(kind)
    slim.__dict__.update({k: v for k, v in part.__dict__.items() if k in names})
    return slim
