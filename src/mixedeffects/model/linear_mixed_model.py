"""The fitted linear mixed model: docstrings and delegation, grouped in files by purpose."""

from __future__ import annotations

from typing import Any

from mixedeffects.base.default_ddf import with_ddf_of_the_fit
from mixedeffects.base.habits import OF_A_FIT, explains_arguments, unknown_attribute
from mixedeffects.model.linear.comparison import Comparison
from mixedeffects.model.linear.diagnostics import Diagnostics
from mixedeffects.model.linear.estimates import Estimates
from mixedeffects.model.linear.inference import Inference
from mixedeffects.model.linear.intervals import Intervals
from mixedeffects.model.linear.matrices import Matrices
from mixedeffects.model.linear.means import Means
from mixedeffects.model.linear.prediction import Prediction
from mixedeffects.model.linear.refitting import Refitting
from mixedeffects.model.linear.statsmodels_names import StatsmodelsNames
from mixedeffects.model.linear.tables import Tables
from mixedeffects.model.shared.fitted_model import FittedModel

__all__ = ["LinearMixedModel"]


@explains_arguments
@with_ddf_of_the_fit
class LinearMixedModel(
    StatsmodelsNames,
    Estimates,
    Matrices,
    Diagnostics,
    Prediction,
    Inference,
    Means,
    Intervals,
    Comparison,
    Tables,
    Refitting,
    FittedModel,
):
    """A fitted linear mixed model, made by `lmer` or `mmrm`.

    Printing it gives the summary. Its attributes are grouped as lme4's users know them: estimates
    (``fixef``, ``ranef``, ``varcorr``, ``sigma``, ``theta``), the matrices of the model (``X``,
    ``Z``, ``G``, ``R``, ``V``), tests and tables (``coef_table``, ``summary``, ``tidy``).

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.nobs, m.ngroups, round(m.criterion, 1)
    (180, {'Subject': 18}, 1743.6)
    >>> m.optimum.certificate.holds
    True
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise unknown_attribute(name, "A fitted model", OF_A_FIT, dir(self))
