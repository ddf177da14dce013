"""Likelihood-ratio tests of fitted models of one response."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.habits import explained
from mixedeffects.base.options import checked_flag
from mixedeffects.comparison.comparable import comparable, model_text
from mixedeffects.comparison.nesting import (
    SAME_RANDOM_EFFECTS,
    added_variance_of,
    contains_mean,
    contains_variance,
    same_mean,
)
from mixedeffects.comparison.residual_nesting import same_residual
from mixedeffects.display.comparison_table import ShownComparison
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit, HoldsFit
from mixedeffects.inference.chi_bar import NO_DIFFERENCE, chi_squared_p, mixture_p

__all__ = ["ModelComparison", "anova"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class ModelComparison(ShownComparison):
    """Likelihood-ratio tests of fits to one response, made by `anova`.

    Attributes
    ----------
    table : DataFrame
        One row per model, fewest parameters first: ``npar``, ``AIC``, ``BIC``, ``logLik``,
        ``deviance`` (-2 log-likelihood, or the REML criterion), and for each model against the one
        above it ``Chisq``, ``Df`` and ``Pr(>Chisq)``.
    models : dict of str to str
        Formula of each model, with the structure of its residuals, by name: ``m1`` is the first
        argument.
    fits : tuple of LinearMixedModel
        The fits compared, in the order of the table; those fitted again by maximum likelihood are
        here in that form.
    reml : bool
        Whether restricted likelihoods are compared.
    refitted : bool
        Whether any model was fitted again by maximum likelihood.
    notes : tuple of str
        What to know when reading the table.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m1 = me.lmer("Reaction ~ Days + (1 | Subject)", me.load_dataset("sleepstudy"))
    >>> comparison = me.anova(m1, m1.update(". ~ . + (0 + Days | Subject)"))
    >>> comparison.refitted, comparison.to_frame()["Chisq"].round(2).to_dict()
    (False, {'m1': nan, 'm2': 42.8})
    """

    table: pd.DataFrame
    models: dict[str, str]
    fits: tuple[HoldsFit, ...]
    reml: bool
    refitted: bool
    notes: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (1 | Subject)", me.load_dataset("sleepstudy"))
        >>> list(me.anova(m, m.update(". ~ . - Days")).to_frame().index)
        ['m2', 'm1']
        """
        return self.table.copy()

    def _parts(self) -> tuple[str, dict[str, str], pd.DataFrame, tuple[str, ...]]:
        return "Likelihood-ratio tests", self.models, self.table, self.notes


@explained
def anova(*models: HoldsFit, refit: bool = True, boundary: bool = False) -> ModelComparison:
    """Compare fits of the same response by likelihood-ratio tests, in lme4's layout.

    Each model is tested against the one with the next fewer parameters.

    Restricted likelihoods are those of what is left of the response without its fixed effects, so
    they can be compared only between models with the same fixed effects. Then they are, as they
    stand (lme4 does that with ``refit = FALSE``): no fit is needed, and the test of random effects
    takes account of the fixed effects estimated. If the fixed effects differ, or some fits are by
    REML and some by maximum likelihood, all are fitted again by maximum likelihood, and the result
    says so. Fixed effects are the same if the columns of X span the same space, whatever the
    coding.

    Parameters
    ----------
    *models : LinearMixedModel or GeneralizedLinearMixedModel
        Two or more fits of the same rows, with the same weights; generalized ones of one family,
        link and ``nagq``.
    refit : bool
        Whether models may be fitted again where their likelihoods cannot be compared; otherwise
        that is an error.
    boundary : bool
        A variance cannot be negative, so the usual p-value of an added variance is too large. Where
        one variance is added, with its covariances with q effects of the same term, use the even
        mixture of chi-squared distributions with q and q + 1 degrees of freedom instead. It holds
        for many levels and a smaller model with regular covariance matrices. Where it does not
        apply, the usual p-value stays, and a note says why.

    Returns
    -------
    ModelComparison
        ``Chisq`` and ``Pr(>Chisq)`` are NaN for the first model, and for a model with as many
        parameters as the one above it. Models that look not to be nested get a note: for them the
        reference distribution does not hold.

    Raises
    ------
    ModelError
        If there are not two models or one of them is none; if rows, response or weights differ, or
        linear and generalized models, families, links or ``nagq`` are mixed; if fits would have to
        be made again with ``refit=False``.

    References
    ----------
    Stram, D. O. and Lee, J. W. (1994). Variance components testing in the longitudinal mixed
    effects model. Biometrics 50, 1171-1177.

    Welham, S. J. and Thompson, R. (1997). Likelihood ratio tests for fixed model terms using
    residual maximum likelihood. Journal of the Royal Statistical Society B 59, 701-714.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m1 = me.lmer("Reaction ~ Days + (1 | Subject)", me.load_dataset("sleepstudy"))
    >>> m2 = m1.update("Reaction ~ Days + (Days | Subject)")
    >>> me.anova(m1, m2)
    Likelihood-ratio tests
    m1: Reaction ~ Days + (1 | Subject)
    m2: Reaction ~ Days + (Days | Subject)
       npar    AIC    BIC  logLik deviance  Chisq Df Pr(>Chisq)
    m1    4 1794.5 1807.2 -893.23   1786.5
    m2    6 1755.6 1774.8 -871.81   1743.6 42.837  2   4.99e-10 ***
    ---
    Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1
    Not refitted: all models have the same fixed effects, so their REML likelihoods are compared.
    """
    if len(models) == 1 and isinstance(getattr(models[0], "fit", None), Fit):
        raise ModelError(
            "me.anova compares two or more models. Tests within one model are m.anova() for its "
            "fixed effects and m.ranova() for its random effects."
        )
    boundary = checked_flag(boundary, "boundary")
    given = comparable("me.anova", models, refit)
    order = sorted(range(len(given.models)), key=lambda i: given.n_parameters[i])
    names = [given.names[i] for i in order]
    criteria, npar = given.criteria[order], given.n_parameters[order]
    rows = [(np.nan, np.nan, np.nan)]
    notes = list(given.notes)
    for at, (i, j) in enumerate(pairwise(order)):
        small, large = given.fits[i], given.fits[j]
        pair = f"{names[at]} and {names[at + 1]}"
        added = int(npar[at + 1] - npar[at])
        if added == 0:
            rows.append((np.nan, 0.0, np.nan))
            notes.append(f"No test of {pair}: they have equally many parameters.")
            continue
        nested = contains_mean(large, small) and contains_variance(large, small)
        statistic = float(criteria[at] - criteria[at + 1])
        if not nested:
            notes.append(
                f"{pair} do not look nested, so chi-squared is no reference for their difference; "
                "me.compare gives information criteria, which do not need that."
            )
        elif statistic < -NO_DIFFERENCE:
            notes.append(f"{names[at + 1]} fits worse than {names[at]}: see its m.optimum.")
        statistic = statistic if statistic > NO_DIFFERENCE else 0.0
        p = chi_squared_p(statistic, added)
        if boundary:
            p, note = _at_the_boundary(small, large, nested, statistic, p)
            notes.append(f"Pr(>Chisq) of {names[at + 1]}: {note}")
        rows.append((statistic, float(added), p))
    table = pd.DataFrame(
        {
            "npar": npar,
            "AIC": criteria + 2.0 * npar,
            "BIC": criteria + np.log(given.fits[0].nobs) * npar,
            "logLik": -0.5 * criteria,
            "deviance": criteria,
            "Chisq": [row[0] for row in rows],
            "Df": [row[1] for row in rows],
            "Pr(>Chisq)": [row[2] for row in rows],
        },
        index=names,
    )
    return ModelComparison(
        ResultTable.of(table),
        {name: model_text(given.fits[i]) for name, i in zip(names, order, strict=True)},
        tuple(given.models[i] for i in order),
        given.reml,
        given.refitted,
        tuple(notes),
    )


def _at_the_boundary(
    small: Fit, large: Fit, nested: bool, statistic: float, usual: float
) -> tuple[float, str]:
    """The p-value that takes account of the boundary where there is one, and what it is."""
    kept = "the usual chi-squared p-value;"
    if not nested:
        return usual, f"{kept} the mixture is for nested models."
    if not same_mean(large, small):
        return usual, f"{kept} the mixture is for models with the same fixed effects."
    q = added_variance_of(small, large)
    if not same_residual(small, large):
        if q == SAME_RANDOM_EFFECTS:
            return usual, f"{kept} the parameters of the residuals that are added have no boundary."
        return usual, f"{kept} the structure of the residuals changes as well."
    if isinstance(q, str):
        return usual, f"{kept} no simple mixture applies ({q})."
    note = f"50:50 mixture of chi-squared with {q} and {q + 1} df."
    if small.optimum.singular:
        note += " The smaller model is singular itself, and then the mixture is approximate."
    return mixture_p(statistic, q), note
