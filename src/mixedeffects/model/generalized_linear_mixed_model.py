"""The fitted generalized linear mixed model: docstrings and delegation."""

from __future__ import annotations

from typing import Any

from mixedeffects.base.habits import (
    OF_A_FIT,
    OF_A_GENERALIZED_FIT,
    explains_arguments,
    unknown_attribute,
)
from mixedeffects.model.generalized.comparison import GeneralizedVarianceExplained
from mixedeffects.model.generalized.diagnostics import GeneralizedDiagnostics
from mixedeffects.model.generalized.estimates import GeneralizedEstimates
from mixedeffects.model.generalized.inference import GeneralizedInference
from mixedeffects.model.generalized.intervals import GeneralizedIntervals
from mixedeffects.model.generalized.matrices import GeneralizedMatrices
from mixedeffects.model.generalized.means import GeneralizedMeans
from mixedeffects.model.generalized.prediction import GeneralizedPrediction
from mixedeffects.model.generalized.refitting import GeneralizedRefitting
from mixedeffects.model.generalized.refused import NEVER, NoSuchAnswerError, Refused, sentence
from mixedeffects.model.generalized.statsmodels_names import GeneralizedStatsmodelsNames
from mixedeffects.model.generalized.tables import GeneralizedTables
from mixedeffects.model.shared.fitted_model import FittedModel

__all__ = ["GeneralizedLinearMixedModel"]


@explains_arguments
class GeneralizedLinearMixedModel(
    GeneralizedStatsmodelsNames,
    GeneralizedEstimates,
    GeneralizedMatrices,
    GeneralizedInference,
    GeneralizedIntervals,
    GeneralizedPrediction,
    GeneralizedDiagnostics,
    GeneralizedMeans,
    GeneralizedVarianceExplained,
    GeneralizedTables,
    GeneralizedRefitting,
    Refused,
    FittedModel,
):
    """A fitted generalized linear mixed model, made by `glmer`.

    Printing it gives the summary. Estimates, matrices and tables are called as those of
    `LinearMixedModel`; random effects and fixed effects are on the scale of the link. What is not
    defined for generalized models raises a ModelError that says so.

    Examples
    --------
    >>> import mixedeffects as me
    >>> cbpp = me.load_dataset("cbpp")
    >>> m = me.glmer(
    ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
    ... )
    >>> m.nobs, m.ngroups, round(m.criterion, 1)
    (56, {'herd': 15}, 184.1)
    >>> m.optimum.certificate.holds
    True
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in NEVER:
            raise NoSuchAnswerError(sentence(name))
        habits = {**OF_A_FIT, **OF_A_GENERALIZED_FIT}
        raise unknown_attribute(name, "A fitted model", habits, dir(self))
