"""Linear mixed models whose marginal covariance V = Z G Z' + R is an object you can work with.

>>> import mixedeffects as me
>>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
>>> me.gls(m.X, m.y, m.V).coef.round(2).tolist() == m.fixef.round(2).tolist()
True
"""

from importlib.metadata import version as _version
from typing import Any as _Any

from mixedeffects import families, plot
from mixedeffects.base.habits import OF_THE_PACKAGE as _OF_THE_PACKAGE
from mixedeffects.base.habits import unknown_attribute as _unknown_attribute
from mixedeffects.comparison.cross_validation import CrossValidation, cross_validate
from mixedeffects.comparison.information_criteria import InformationCriteria, compare
from mixedeffects.comparison.likelihood_ratio import ModelComparison, anova
from mixedeffects.covariance import (
    GLSResult,
    MarginalCovariance,
    RandomEffectsCovariance,
    ResidualCovariance,
    VarCorr,
    gls,
)
from mixedeffects.datasets import list_datasets, load_dataset
from mixedeffects.engine import Certificate, Control, Optimum, Progress
from mixedeffects.errors import (
    ClusterWarning,
    ConvergenceWarning,
    CostWarning,
    DataError,
    DataWarning,
    FileError,
    FormulaError,
    IdentifiabilityWarning,
    Interrupted,
    MixedEffectsError,
    ModelError,
)
from mixedeffects.frame.data_files import read_table
from mixedeffects.frame.hypothesis_coding import contrast_matrix
from mixedeffects.frame.known_covariance import KnownCovariance, known
from mixedeffects.inference.bootstrap import Bootstrap
from mixedeffects.inference.pooled_fits import PooledFits
from mixedeffects.inference.pooling import pool
from mixedeffects.lazy.statistics import SufficientStatistics
from mixedeffects.lazy.sufficient import sufficient
from mixedeffects.model import GeneralizedLinearMixedModel, LinearMixedModel, glmer, lmer, mmrm
from mixedeffects.prediction.planned import PlannedCovariance, marginal_covariance
from mixedeffects.prediction.power import Power, power
from mixedeffects.progress import Repetitions, TablePass, Unfinished
from mixedeffects.reporting.citation import cite
from mixedeffects.reporting.estimates_table import EstimatesTable, etable
from mixedeffects.storage.former_paths import find_former_modules as _find_former_modules

__version__ = _version("mixedeffects")

__all__ = [
    "Bootstrap",
    "Certificate",
    "ClusterWarning",
    "Control",
    "ConvergenceWarning",
    "CostWarning",
    "CrossValidation",
    "DataError",
    "DataWarning",
    "EstimatesTable",
    "FileError",
    "FormulaError",
    "GLSResult",
    "GeneralizedLinearMixedModel",
    "IdentifiabilityWarning",
    "InformationCriteria",
    "Interrupted",
    "KnownCovariance",
    "LinearMixedModel",
    "MarginalCovariance",
    "MixedEffectsError",
    "ModelComparison",
    "ModelError",
    "Optimum",
    "PlannedCovariance",
    "PooledFits",
    "Power",
    "Progress",
    "RandomEffectsCovariance",
    "Repetitions",
    "ResidualCovariance",
    "SufficientStatistics",
    "TablePass",
    "Unfinished",
    "VarCorr",
    "anova",
    "cite",
    "compare",
    "contrast_matrix",
    "cross_validate",
    "etable",
    "families",
    "glmer",
    "gls",
    "known",
    "list_datasets",
    "lmer",
    "load_dataset",
    "marginal_covariance",
    "mmrm",
    "plot",
    "pool",
    "power",
    "read_table",
    "sufficient",
]

_find_former_modules()


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def __getattr__(name: str) -> _Any:
    if name.startswith("_"):
        raise AttributeError(f"module 'mixedeffects' has no attribute {name!r}")
    raise _unknown_attribute(name, "mixedeffects", _OF_THE_PACKAGE, __all__)
