"""Sentences about a generalized fit for a paper in APA style, every number from the fit."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from mixedeffects.base.options import checked_level
from mixedeffects.covariance.of_fit import varcorr_of
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.fitting.natural import covariance_parameters
from mixedeffects.inference.hypotheses import term_columns
from mixedeffects.inference.normal_tests import check_normal, normal_tests
from mixedeffects.inference.ratios import exponentiated, ratio_name
from mixedeffects.inference.wald import anova_table
from mixedeffects.reporting.description import (
    MOST_SENTENCES,
    Description,
    cautions,
    checked_digits,
    factors_of,
    is_planned,
    random_term,
    rows_left_out,
)
from mixedeffects.reporting.generalized_tables import quadrature_check
from mixedeffects.reporting.words import decimals_of, in_words, number_text, p_text

__all__ = ["describe_generalized"]

#: How distributions are called in a sentence.
_FAMILIES = {
    "poisson": "Poisson",
    "gamma": "Gamma",
    "gaussian": "Gaussian",
    "negative_binomial": "negative binomial",
    "inverse_gaussian": "inverse Gaussian",
}
_ABBREVIATED = {"odds ratio": "‹OR›", "hazard ratio": "‹HR›", "risk ratio": "‹RR›"}


def describe_generalized(
    fit: GeneralizedFit, vcov: Any, cluster: Any, level: float, digits: int, ddf: Any = "inf"
) -> Description:
    """See `GeneralizedLinearMixedModel.describe`."""
    check_normal(ddf)
    level, digits = checked_level(level), checked_digits(digits)
    method, fixed = _fixed(fit, vcov, cluster, level, digits)
    parts = ([*_model(fit), method], fixed, _random(fit, digits), [*cautions(fit), *_checked(fit)])
    return Description(tuple(tuple(part) for part in parts if part))


def _model(fit: GeneralizedFit) -> list[str]:
    frame, asked = fit.frame, fit.request
    groups = in_words([f"{count:,} levels of {g}" for g, count in factors_of(fit).items()])
    name = _FAMILIES.get(fit.family.name, fit.family.name)
    how = (
        "Laplace's approximation"
        if fit.nagq == 1
        else f"adaptive Gauss-Hermite quadrature, {fit.nagq} points for each random effect"
    )
    sentences = [
        f"A generalized linear mixed model of {frame.formula.response}, {name} with a "
        f"{fit.family.link.name} link, was fitted by maximum likelihood ({how}) to "
        f"{fit.nobs:,} observations in {groups}, with the Python package mixedeffects (version "
        f"{version('mixedeffects')}); the model was {fit.formula}."
    ]
    if frame.response_levels:
        failure, success = frame.response_levels
        sentences.append(f"A success was {success}, a failure {failure}.")
    if frame.has_trials:
        trials = asked.weights if isinstance(asked.weights, str) else None
        counts = fit.response.trials
        assert counts is not None
        successes = (fit.response.y * counts).sum()
        sentences += [
            f"The number of trials was {trials}." if trials else "Rows are of several trials.",
            f"Of {counts.sum():,.0f} trials {successes:,.0f} were successes.",
        ]
    elif asked.weights is not None:
        sentences.append("The fit has weights of the rows' log-likelihoods.")
    if asked.exposure is not None:
        of = asked.exposure if isinstance(asked.exposure, str) else "the exposure"
        sentences.append(f"The logarithm of {of} was an offset.")
    if asked.offset is not None or "offset(" in fit.formula:
        sentences.append("It has an offset.")
    return sentences + rows_left_out(fit)


def _fixed(
    fit: GeneralizedFit, vcov: Any, cluster: Any, level: float, digits: int
) -> tuple[str, list[str]]:
    """How the fixed effects are tested, and their sentences."""
    names = list(fit.fixef_names)
    if not names:
        return "The model has no fixed effects.", []
    table = normal_tests(fit, vcov, level, cluster)
    ratio = ratio_name(fit.family)
    ratios = exponentiated(table) if ratio else None
    how = table.notes[0].split("; ", 1)[-1].removeprefix("z-tests, ")
    if how == fit.covariance_kinds["model"].removeprefix("z-tests, "):
        how = "standard errors from the Hessian of the log-likelihood in all parameters"
    method = f"Fixed effects were tested by Wald tests, {how}."
    encoder = fit.frame.fixed_encoder
    terms = {} if encoder is None else term_columns(encoder)
    joint = [label for label, columns in terms.items() if len(columns) > 1]
    sentences = []
    if joint:
        anova = anova_table(fit, 3, "inf", vcov, cluster)
        for label in (name for name in joint if name in anova.index):
            row = anova.loc[label]
            if np.isfinite(row["Chisq"]):
                sentences.append(
                    f"{label}: ‹χ²›({row['Df']:.0f}) = {number_text(row['Chisq'], 2)}, "
                    f"{p_text(row['Pr(>Chisq)'])} (type III)."
                )
    # Where a coding was asked for, its coefficients are the questions.
    left_out = [label for label in joint if not is_planned(fit, label)]
    several = {names[j] for label in left_out for j in terms[label]}
    for name in names:
        if name in several or (name == "(Intercept)" and len(names) > 1):
            continue
        own = None if ratios is None else ratios.loc[name]
        sentences.append(_coefficient(name, table.loc[name], own, ratio or "", level, digits))
    if left_out:
        sentences.append("The coefficients of terms with several are in m.coef_table().")
    if len(sentences) > MOST_SENTENCES:
        left = len(sentences) - MOST_SENTENCES
        sentences = sentences[:MOST_SENTENCES]
        sentences.append(f"{left} more coefficients are in m.coef_table().")
    return method, sentences


def _coefficient(name: str, row: Any, ratio: Any, called: str, level: float, digits: int) -> str:
    label = "Intercept" if name == "(Intercept)" else name
    places = decimals_of(row["Std. Error"], digits)
    b, se = number_text(row["Estimate"], places), number_text(row["Std. Error"], places)
    if np.isnan(row["Std. Error"]):
        return f"{label}: ‹b› = {b}; its standard error is not determined."
    test = f"‹z› = {number_text(row['z value'], 2)}, {p_text(row['Pr(>|z|)'])}"
    if ratio is None or name == "(Intercept)":
        low, high = (number_text(row[bound], places) for bound in ("lower", "upper"))
        return f"{label}: ‹b› = {b}, ‹SE› = {se}, {100 * level:.4g}% CI [{low}, {high}], {test}."
    places = decimals_of(ratio["Std. Error"], digits)
    value, low, high = (number_text(ratio[key], places) for key in ("Estimate", "lower", "upper"))
    return (
        f"{label}: ‹b› = {b}, ‹SE› = {se}, {_ABBREVIATED.get(called, called)} = {value}, "
        f"{100 * level:.4g}% CI [{low}, {high}], {test}."
    )


def _random(fit: GeneralizedFit, digits: int) -> list[str]:
    sentences = []
    if fit.frame.structured_terms:
        listed = in_words(
            [
                f"{name} = {number_text(v, decimals_of(v, digits))}"
                for name, v in covariance_parameters(fit).items()
            ]
        )
        sentences.append(f"The parameters of the random effects' covariance were {listed}.")
    else:
        varcorr = varcorr_of(fit)
        sentences += [random_term(group, varcorr[group], digits) for group in varcorr]
    link = {"log": "logarithm", "identity": "response"}.get(
        fit.family.link.name, fit.family.link.name
    )
    sentences.append(f"Standard deviations are on the scale of the {link}.")
    if fit.family_estimate is not None:
        name, value = fit.family_estimate
        sentences.append(
            f"The estimate of the family's {name} was "
            f"{number_text(value, decimals_of(value, digits))}."
        )
    return sentences


def _checked(fit: GeneralizedFit) -> list[str]:
    """What there is to know of the integral, where it is not good enough."""
    check = quadrature_check(fit)
    if check is None or check.holds:
        return []
    return [
        f"The likelihood is not accurate enough: by {check.nodes} points for each random effect "
        f"-2 log-likelihood differs by {number_text(check.shift, 2)}."
    ]
