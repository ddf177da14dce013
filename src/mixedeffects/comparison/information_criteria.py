"""Information criteria of fitted models of one response."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.habits import explained
from mixedeffects.base.options import checked_choice
from mixedeffects.comparison.comparable import comparable, model_text
from mixedeffects.display.comparison_table import ShownComparison
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import HoldsFit

__all__ = ["InformationCriteria", "compare"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class InformationCriteria(ShownComparison):
    """Information criteria of fits to one response, made by `compare`.

    Attributes
    ----------
    table : DataFrame
        One row per model, best first: ``npar``, ``logLik``, ``AIC``, ``AICc``, ``BIC``; ``delta``,
        how far the chosen criterion is above the best; ``weight``, the models' relative
        likelihoods ``exp(-delta / 2)`` scaled to sum to one.
    models : dict of str to str
        Formula of each model, with the structure of its residuals, by name: ``m1`` is the first
        argument.
    fits : tuple of LinearMixedModel
        The fits compared, in the order of the table; those fitted again by maximum likelihood are
        here in that form.
    criterion : {"AIC", "AICc", "BIC"}
        What ``delta`` and ``weight`` are about.
    reml, refitted, notes
        As for `ModelComparison`.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m1 = me.lmer("Reaction ~ Days + (1 | Subject)", me.load_dataset("sleepstudy"))
    >>> best = me.compare(m1, m1.update(". ~ . + (0 + Days | Subject)"))
    >>> best.to_frame()["delta"].round(1).to_dict()
    {'m2': 0.0, 'm1': 40.8}
    """

    table: pd.DataFrame
    models: dict[str, str]
    fits: tuple[HoldsFit, ...]
    criterion: str
    reml: bool
    refitted: bool
    notes: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (1 | Subject)", me.load_dataset("sleepstudy"))
        >>> list(me.compare(m).to_frame())
        ['npar', 'logLik', 'AIC', 'AICc', 'BIC', 'delta', 'weight']
        """
        return self.table.copy()

    def _parts(self) -> tuple[str, dict[str, str], pd.DataFrame, tuple[str, ...]]:
        heading = f"Information criteria, best first; delta and weight by {self.criterion}"
        return heading, self.models, self.table, self.notes


@explained
def compare(*models: HoldsFit, criterion: str = "AIC", refit: bool = True) -> InformationCriteria:
    """Information criteria of fits of the same response, best first.

    The models need not be nested. Criteria made of restricted likelihoods can be compared only
    between models with the same fixed effects; otherwise all models are fitted again by maximum
    likelihood, as in `anova`, and the result says so.

    Parameters
    ----------
    *models : LinearMixedModel or GeneralizedLinearMixedModel
        Fits of the same rows, with the same weights; generalized ones of one ``nagq``, and of
        families that are all of counts, or all of densities.
    criterion : {"AIC", "AICc", "BIC"}
        What the models are ordered by, and ``delta`` and ``weight`` are made of.
    refit : bool
        As for `anova`.

    Returns
    -------
    InformationCriteria
        Parameters are counted as in ``m.n_parameters``, and the sample size in AICc and BIC is the
        number of rows. AICc is infinite where there are not two more rows than parameters.

    Raises
    ------
    ModelError
        If the criterion is not known, and as for `anova`.

    References
    ----------
    Burnham, K. P. and Anderson, D. R. (2002). Model Selection and Multimodel Inference. Springer.

    Hurvich, C. M. and Tsai, C.-L. (1989). Regression and time series model selection in small
    samples. Biometrika 76, 297-307.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m1 = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m2 = m1.update("Reaction ~ Days + (Days || Subject)")
    >>> me.compare(m1, m2, m2.update(". ~ . + I(Days^2)"))
    Information criteria, best first; delta and weight by AIC
    m2: Reaction ~ Days + (Days || Subject)
    m3: Reaction ~ Days + (Days || Subject) + I(Days^2)
    m1: Reaction ~ Days + (Days | Subject)
       npar  logLik    AIC   AICc    BIC  delta weight
    m2    5 -876.00 1762.0 1762.3 1778.0 0.0000 0.4495
    m3    6 -875.17 1762.3 1762.8 1781.5 0.3377 0.3797
    m1    6 -875.97 1763.9 1764.4 1783.1 1.9361 0.1707
    Refitted by maximum likelihood, because the fixed effects differ: m1, m2, m3.
    """
    criterion = checked_choice(criterion, "criterion", ("AIC", "AICc", "BIC"))
    given = comparable("me.compare", models, refit, families=True)
    k, n = given.n_parameters, given.fits[0].nobs
    aic = given.criteria + 2.0 * k
    left = n - k - 1.0
    table = pd.DataFrame(
        {
            "npar": k,
            "logLik": -0.5 * given.criteria,
            "AIC": aic,
            "AICc": np.where(
                left > 0.0, aic + 2.0 * k * (k + 1.0) / np.where(left > 0.0, left, 1.0), np.inf
            ),
            "BIC": given.criteria + np.log(n) * k,
        },
        index=given.names,
    )
    lowest = float(table[criterion].min())
    if np.isinf(lowest):
        raise ModelError(
            f"AICc is infinite for every model: {n} rows are too few for {int(k.min())} or more "
            "parameters."
        )
    table["delta"] = table[criterion] - lowest
    likelihood = np.exp(-0.5 * table["delta"])
    table["weight"] = likelihood / likelihood.sum()
    order = np.argsort(table["delta"].to_numpy(), kind="stable").tolist()
    return InformationCriteria(
        ResultTable.of(table.iloc[order]),
        {given.names[i]: model_text(given.fits[i]) for i in order},
        tuple(given.models[i] for i in order),
        criterion,
        given.reml,
        given.refitted,
        given.notes,
    )
