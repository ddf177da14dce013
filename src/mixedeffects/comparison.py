"""Comparison of fitted models of one response: likelihood-ratio tests and information criteria."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.inference.chi_bar import NO_DIFFERENCE, chi_squared_p, mixture_p
from mixedeffects.model import LinearMixedModel
from mixedeffects.nesting import added_variance, contains_mean, contains_variance, same_mean
from mixedeffects.options import checked_choice, checked_flag
from mixedeffects.refitting import by_maximum_likelihood

__all__ = ["InformationCriteria", "ModelComparison", "anova", "compare"]

Matrix = NDArray[np.float64]

#: Responses this close, relative to their size, are the same numbers computed in different ways.
_SAME_RESPONSE = 1e-12


@dataclass(frozen=True, eq=False)
class ModelComparison:
    """Likelihood-ratio tests of fits to one response, made by `anova`.

    Attributes
    ----------
    table : DataFrame
        One row per model, fewest parameters first: ``npar``, ``AIC``, ``BIC``, ``logLik``,
        ``deviance`` (-2 log-likelihood, or the REML criterion), and for each model against the one
        above it ``Chisq``, ``Df`` and ``Pr(>Chisq)``.
    models : dict of str to str
        Formula of each model, by name: ``m1`` is the first argument.
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
    fits: tuple[LinearMixedModel, ...]
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

    def __repr__(self) -> str:
        from mixedeffects.display.comparison_table import comparison_text

        return comparison_text(*self._parts())

    def _repr_html_(self) -> str:
        from mixedeffects.display.comparison_table import comparison_html

        return comparison_html(*self._parts())


@dataclass(frozen=True, eq=False)
class InformationCriteria:
    """Information criteria of fits to one response, made by `compare`.

    Attributes
    ----------
    table : DataFrame
        One row per model, best first: ``npar``, ``logLik``, ``AIC``, ``AICc``, ``BIC``; ``delta``,
        how far the chosen criterion is above the best; ``weight``, the models' relative
        likelihoods ``exp(-delta / 2)`` scaled to sum to one.
    models : dict of str to str
        Formula of each model, by name: ``m1`` is the first argument.
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
    fits: tuple[LinearMixedModel, ...]
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

    def __repr__(self) -> str:
        from mixedeffects.display.comparison_table import comparison_text

        return comparison_text(*self._parts())

    def _repr_html_(self) -> str:
        from mixedeffects.display.comparison_table import comparison_html

        return comparison_html(*self._parts())


def anova(*models: LinearMixedModel, refit: bool = True, boundary: bool = False) -> ModelComparison:
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
    *models : LinearMixedModel
        Two or more fits of the same rows, with the same weights.
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
        If there are not two models or one of them is none; if rows, response or weights differ;
        if fits would have to be made again with ``refit=False``.

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
    if len(models) == 1 and isinstance(models[0], LinearMixedModel):
        raise ModelError(
            "me.anova compares two or more models. Tests within one model are m.anova() for its "
            "fixed effects and m.ranova() for its random effects."
        )
    boundary = checked_flag(boundary, "boundary")
    fits = _prepare("me.anova", models, refit)
    order = sorted(range(len(fits.models)), key=lambda i: fits.n_parameters[i])
    names = [fits.names[i] for i in order]
    criteria, npar = fits.criteria[order], fits.n_parameters[order]
    rows = [(np.nan, np.nan, np.nan)]
    notes = list(fits.notes)
    for at, (i, j) in enumerate(pairwise(order)):
        small, large = fits.models[i], fits.models[j]
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
            "BIC": criteria + np.log(fits.models[0].nobs) * npar,
            "logLik": -0.5 * criteria,
            "deviance": criteria,
            "Chisq": [row[0] for row in rows],
            "Df": [row[1] for row in rows],
            "Pr(>Chisq)": [row[2] for row in rows],
        },
        index=names,
    )
    return ModelComparison(
        table,
        {name: fits.models[i].formula for name, i in zip(names, order, strict=True)},
        tuple(fits.models[i] for i in order),
        fits.reml,
        fits.refitted,
        tuple(notes),
    )


def compare(
    *models: LinearMixedModel, criterion: str = "AIC", refit: bool = True
) -> InformationCriteria:
    """Information criteria of fits of the same response, best first.

    The models need not be nested. Criteria made of restricted likelihoods can be compared only
    between models with the same fixed effects; otherwise all models are fitted again by maximum
    likelihood, as in `anova`, and the result says so.

    Parameters
    ----------
    *models : LinearMixedModel
        Fits of the same rows, with the same weights.
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
    fits = _prepare("me.compare", models, refit)
    k, n = fits.n_parameters, fits.models[0].nobs
    aic = fits.criteria + 2.0 * k
    left = n - k - 1.0
    table = pd.DataFrame(
        {
            "npar": k,
            "logLik": -0.5 * fits.criteria,
            "AIC": aic,
            "AICc": np.where(
                left > 0.0, aic + 2.0 * k * (k + 1.0) / np.where(left > 0.0, left, 1.0), np.inf
            ),
            "BIC": fits.criteria + np.log(n) * k,
        },
        index=fits.names,
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
        table.iloc[order],
        {fits.names[i]: fits.models[i].formula for i in order},
        tuple(fits.models[i] for i in order),
        criterion,
        fits.reml,
        fits.refitted,
        fits.notes,
    )


def _at_the_boundary(
    small: LinearMixedModel, large: LinearMixedModel, nested: bool, statistic: float, usual: float
) -> tuple[float, str]:
    """The p-value that takes account of the boundary where there is one, and what it is."""
    kept = "the usual chi-squared p-value;"
    if not nested:
        return usual, f"{kept} the mixture is for nested models."
    if not same_mean(large, small):
        return usual, f"{kept} the mixture is for models with the same fixed effects."
    q = added_variance(small.frame.terms, large.frame.terms)
    if isinstance(q, str):
        return usual, f"{kept} no simple mixture applies ({q})."
    note = f"50:50 mixture of chi-squared with {q} and {q + 1} df."
    if small.is_singular:
        note += " The smaller model is singular itself, and then the mixture is approximate."
    return mixture_p(statistic, q), note


# --- what can be compared -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Models whose likelihoods can be compared, in the order given."""

    models: list[LinearMixedModel]
    names: list[str]
    criteria: Matrix
    reml: bool
    refitted: bool
    notes: tuple[str, ...]

    @property
    def n_parameters(self) -> NDArray[np.int64]:
        return np.array([model.n_parameters for model in self.models], dtype=np.int64)


def _prepare(function: str, given: Sequence[Any], refit: bool) -> _Prepared:
    """Check that the models are of the same data, and fit them again where necessary."""
    refit = checked_flag(refit, "refit")
    models = _fitted_models(function, given)
    names = [f"m{i}" for i in range(1, len(models) + 1)]
    for name, model in zip(names[1:], models[1:], strict=True):
        _check_same_data(names[0], models[0], name, model)
    by_reml = [name for name, model in zip(names, models, strict=True) if model.reml]
    reml = len(by_reml) == len(models)
    notes: list[str] = []
    if not by_reml:
        notes.append("Not refitted: all models are fitted by maximum likelihood.")
    elif reml and all(same_mean(models[0], model) for model in models[1:]):
        notes.append(
            "Not refitted: all models have the same fixed effects, so their REML likelihoods are "
            "compared."
        )
        by_reml = []
    else:
        why = "the fixed effects differ" if reml else "the other fits are by maximum likelihood"
        if not refit:
            raise ModelError(
                f"REML fits ({', '.join(by_reml)}) cannot be compared here, because {why}. Fit "
                "them by maximum likelihood with m.update(reml=False), or leave refit=True."
            )
        notes.append(f"Refitted by maximum likelihood, because {why}: {', '.join(by_reml)}.")
        models = [by_maximum_likelihood(model) for model in models]
        reml = False
    for name, model in zip(names, models, strict=True):
        undetermined = model.optimum.undetermined
        if undetermined:
            notes.append(
                f"The data do not determine {', '.join(undetermined)} of {name}: its likelihood "
                "is the largest, but its parameters and AIC count too many."
            )
        elif not model.converged:
            notes.append(f"Not converged, so not at its maximum: {name}.")
    return _Prepared(models, names, _criteria(models, reml), reml, bool(by_reml), tuple(notes))


def _criteria(models: Sequence[LinearMixedModel], reml: bool) -> Matrix:
    """Criteria with common constants: REML's depends on the coding of X by ``log |X'X|``."""
    out = np.array([model.criterion for model in models])
    if reml:
        log_det = np.array([model._A.basis.log_det_fixed for model in models])
        out += 2.0 * (log_det - log_det[0])
    return out


def _fitted_models(function: str, given: Sequence[Any]) -> list[LinearMixedModel]:
    if not given:
        raise ModelError(f"{function} needs fitted models to compare; none was given.")
    for position, model in enumerate(given, start=1):
        if not isinstance(model, LinearMixedModel):
            several = isinstance(model, (list, tuple))
            hint = f" Give models one by one: {function}(*models)." if several else ""
            raise ModelError(
                f"Argument {position} of {function} must be a model fitted by me.lmer, not "
                f"{type(model).__name__}.{hint}"
            )
    return list(given)


def _check_same_data(
    first: str, one: LinearMixedModel, second: str, other: LinearMixedModel
) -> None:
    pair = f"{first} and {second}"
    if one.nobs != other.nobs:
        raise ModelError(
            f"{pair} are fitted to different rows, {_rows(one)} and {_rows(other)}, so their "
            "likelihoods cannot be compared. Fit both to the rows complete for all variables."
        )
    y, z = one.y, other.y
    differs = np.abs(y - z) > _SAME_RESPONSE * np.maximum(np.abs(y), np.abs(z))
    if differs.any():
        if np.array_equal(np.sort(y), np.sort(z)):
            what = "have the same response values in different order: fit both to one table"
        else:
            what = (
                f"have different responses ({one.frame.formula.response} and "
                f"{other.frame.formula.response}; {int(differs.sum()):,} of {one.nobs:,} values "
                "differ)"
            )
        raise ModelError(f"{pair} {what}. Likelihoods of different data cannot be compared.")
    w, v = one.frame.weights, other.frame.weights
    w = np.ones(one.nobs) if w is None else w
    v = np.ones(one.nobs) if v is None else v
    unequal = int((w != v).sum())
    if unequal:
        raise ModelError(
            f"{pair} have different prior weights in {unequal:,} of {one.nobs:,} rows; their "
            "difference would be about the weights. Fit both with the same weights=."
        )


def _rows(model: LinearMixedModel) -> str:
    missing = model.dropped.missing_by_column
    if not missing:
        return f"{model.nobs:,}"
    return f"{model.nobs:,} (without those missing in {', '.join(missing)})"
