"""Linear mixed models whose marginal covariance V = Z G Z' + R is an object you can work with.

>>> import mixedeffects as me
>>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
>>> me.gls(m.X, m.y, m.V).coef.round(2).tolist() == m.fixef.round(2).tolist()
True
"""

from importlib.metadata import version as _version

from mixedeffects import plot
from mixedeffects.comparison import InformationCriteria, ModelComparison, anova, compare
from mixedeffects.covariance import (
    GLSResult,
    MarginalCovariance,
    RandomEffectsCovariance,
    ResidualCovariance,
    VarCorr,
    gls,
)
from mixedeffects.cross_validation import CrossValidation, cross_validate
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
from mixedeffects.estimates_table import EstimatesTable, etable
from mixedeffects.inference.bootstrap import Bootstrap
from mixedeffects.model import LinearMixedModel, lmer
from mixedeffects.planned import PlannedCovariance, marginal_covariance
from mixedeffects.power import Power, power
from mixedeffects.progress import Repetitions, Unfinished

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
    "IdentifiabilityWarning",
    "InformationCriteria",
    "Interrupted",
    "LinearMixedModel",
    "MarginalCovariance",
    "MixedEffectsError",
    "ModelComparison",
    "ModelError",
    "Optimum",
    "PlannedCovariance",
    "Power",
    "Progress",
    "RandomEffectsCovariance",
    "Repetitions",
    "ResidualCovariance",
    "Unfinished",
    "VarCorr",
    "anova",
    "compare",
    "cross_validate",
    "etable",
    "gls",
    "list_datasets",
    "lmer",
    "load_dataset",
    "marginal_covariance",
    "plot",
    "power",
]
