"""Sentences for a paper in APA style, every number from the fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from typing import Any

import numpy as np

from mixedeffects.base.options import checked_level, is_whole_number
from mixedeffects.comparison.variance_explained import intraclass_correlation, r_squared
from mixedeffects.covariance.of_fit import varcorr_of
from mixedeffects.display.shown import html_document
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.natural import covariance_parameters
from mixedeffects.fitting.residual_parameters import (
    RESIDUAL,
    ResidualParameter,
    reported_residual_parameters,
)
from mixedeffects.formula.syntax import quote_name
from mixedeffects.inference.coefficients import tests_with
from mixedeffects.inference.hypotheses import term_columns
from mixedeffects.inference.variance_by_name import fixed_effects_variance
from mixedeffects.inference.wald import anova_table
from mixedeffects.reporting.words import (
    decimals_of,
    df_text,
    in_words,
    number_text,
    p_text,
    share_text,
)

__all__ = [
    "MOST_SENTENCES",
    "Description",
    "cautions",
    "checked_digits",
    "describe",
    "factors_of",
    "is_planned",
    "random_term",
    "rows_left_out",
]

#: Decimals of estimates that can be asked for.
_MOST_DIGITS = 8
_GIVEN = {"weights": "prior weights", "offset": "an offset"}
#: Symbols that are set in italics.
_MARKED = re.compile("‹(.*?)›")
#: What the parameters of the residuals' covariance are called.
_RESIDUALS = {
    "sd": "‹SD›",
    "log_sd": "the change of log ‹SD› per {of}",
    "power": "the power of {of}",
    "cor": "‹r›",
    "range": "the range",
    "nugget": "the nugget",
}
#: Coefficients and terms that are written out; more are for a table.
MOST_SENTENCES = 30


@dataclass(frozen=True)
class Description:
    """Sentences about a fit, made by `LinearMixedModel.describe`.

    Printing it gives plain text. Symbols are marked for italics in Markdown and HTML.

    Attributes
    ----------
    paragraphs : tuple of tuple of str
        Sentences by paragraph: the model, the fixed effects, the random effects, what to know.
        Symbols stand between ‹ and ›.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> print(m.describe().paragraphs[1][0])
    Days: ‹b› = 10.47, ‹SE› = 1.55, 95% CI [7.21, 13.73], ‹t›(17.0) = 6.77, ‹p› < .001.
    """

    paragraphs: tuple[tuple[str, ...], ...]

    def to_markdown(self) -> str:
        """The paragraphs in Markdown, symbols in italics."""
        escaped = (re.sub(r"([*_`|\[\]])", r"\\\1", " ".join(each)) for each in self.paragraphs)
        return "\n\n".join(_MARKED.sub(r"*\1*", each) for each in escaped)

    def to_html(self) -> str:
        """The paragraphs in HTML, symbols in italics."""
        escaped = (escape(" ".join(each)) for each in self.paragraphs)
        marked = (_MARKED.sub(r"<i>\1</i>", each) for each in escaped)
        return "\n".join(f"<p>{each}</p>" for each in marked)

    def __str__(self) -> str:
        return "\n\n".join(_MARKED.sub(r"\1", " ".join(each)) for each in self.paragraphs)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_document(self.to_html())


def describe(fit: Fit, ddf: str, vcov: str, cluster: Any, level: float, digits: int) -> Description:
    """See `LinearMixedModel.describe`."""
    level = checked_level(level)
    digits = checked_digits(digits)
    method, fixed = _fixed(fit, ddf, vcov, cluster, level, digits)
    parts = (
        (*_model(fit), method),
        fixed,
        _random(fit, digits),
        cautions(fit),
    )
    return Description(tuple(tuple(part) for part in parts if part))


def checked_digits(digits: Any) -> int:
    """Decimals of estimates.

    Raises
    ------
    ModelError
        If they are no such number.
    """
    if not is_whole_number(digits, least=1) or digits > _MOST_DIGITS:
        raise ModelError(f"digits must be a whole number from 1 to {_MOST_DIGITS}, not {digits!r}.")
    return int(digits)


# --- the model ------------------------------------------------------------------------------------


def _model(fit: Fit) -> list[str]:
    frame = fit.frame
    criterion = "restricted maximum likelihood (REML)" if fit.reml else "maximum likelihood"
    groups = in_words([f"{count:,} levels of {g}" for g, count in factors_of(fit).items()])
    kind = "A linear mixed model" if frame.terms else "A linear model with structured residuals"
    sentences = [
        f"{kind} of {frame.formula.response} was fitted by {criterion} to "
        f"{fit.nobs:,} observations{' in ' if groups else ''}{groups}, with the Python package "
        f"mixedeffects (version {version('mixedeffects')}); the model was {fit.formula}."
    ]
    if frame.residual is not None:
        is_given = frame.residual.kind == "known"
        structure = "given as a matrix" if is_given else frame.residual.text
        sentences.append(f"The covariance of the residuals was {structure}.")
    if frame.variance is not None:
        sentences.append(
            "The logarithm of the residual standard deviation was linear in "
            f"{frame.variance.text.replace(' + ', ' and ')}."
        )
    if fit.request.sigma is not None:
        sentences.append(f"The residual standard deviation was known, {fit.sigma:.6g}.")
    asked = fit.request
    if asked.weights is not None:
        sentences.append("The fit has prior weights.")
    in_formula = frame.fixed_encoder is not None and frame.fixed_encoder.table.offsets
    if asked.offset is not None or in_formula:
        sentences.append("It has an offset.")
    return sentences + rows_left_out(fit)


def rows_left_out(fit: Fit) -> list[str]:
    """How many rows had missing values, if some had."""
    rows = len(fit.frame.dropped.rows)
    if not rows:
        return []
    return [
        f"Of {fit.nobs + rows:,} rows {rows:,} {'was' if rows == 1 else 'were'} left out "
        "because values were missing."
    ]


def factors_of(fit: Fit) -> dict[str, int]:
    """Number of levels by grouping factor."""
    found: dict[str, int] = {}
    for term in fit.frame.terms:
        found.setdefault(":".join(term.variables), term.n_levels)
    residual = fit.frame.residual
    if residual is not None and residual.variables:
        found.setdefault(":".join(residual.variables), residual.n_levels)
    return found


# --- fixed effects --------------------------------------------------------------------------------


def _fixed(
    fit: Fit, ddf: str, vcov: str, cluster: Any, level: float, digits: int
) -> tuple[str, list[str]]:
    """How the fixed effects are tested, and their sentences."""
    names = list(fit.frame.fixef_names)
    if not names:
        return "The model has no fixed effects.", []
    variance = fixed_effects_variance(fit, vcov, ddf, cluster)
    table = tests_with(fit, variance, level)
    how = variance.method.removeprefix("t-tests use ").removeprefix("tests use ")
    method = f"Fixed effects were tested with {how}."
    encoder = fit.frame.fixed_encoder
    terms = {} if encoder is None else term_columns(encoder)
    joint = [label for label, columns in terms.items() if len(columns) > 1]
    sentences = []
    if joint:
        anova = anova_table(fit, 3, ddf, vcov, cluster)
        for label in (name for name in joint if name in anova.index):
            row = anova.loc[label]
            if np.isnan(row["F value"]):
                continue
            sentences.append(
                f"{label}: ‹F›({row['NumDF']:.0f}, {df_text(row['DenDF'])}) = "
                f"{number_text(row['F value'], 2)}, {p_text(row['Pr(>F)'])} (type III)."
            )
    # Where a coding was asked for, its coefficients are the questions.
    left_out = [label for label in joint if not is_planned(fit, label)]
    several = {names[j] for label in left_out for j in terms[label]}
    for name in names:
        if name in several or (name == "(Intercept)" and len(names) > 1):
            continue
        sentences.append(_coefficient(name, table.loc[name], level, digits))
    if left_out:
        sentences.append("The coefficients of terms with several are in m.coef_table().")
    if len(sentences) > MOST_SENTENCES:
        left = len(sentences) - MOST_SENTENCES
        sentences = sentences[:MOST_SENTENCES]
        sentences.append(f"{left} more coefficients are in m.coef_table().")
    return method, sentences


def is_planned(fit: Fit, term: str) -> bool:
    """Whether the coding of a factor of the term was asked for."""
    asked = {quote_name(name) for name in fit.request.contrasts or {}}
    return any(part in asked or part.startswith("C(") for part in term.split(":"))


def _coefficient(name: str, row: Any, level: float, digits: int) -> str:
    label = "Intercept" if name == "(Intercept)" else name
    decimals = decimals_of(row["Std. Error"], digits)
    numbers = [
        number_text(row[key], decimals) for key in ("Estimate", "Std. Error", "lower", "upper")
    ]
    b, se, low, high = numbers
    if np.isnan(row["Std. Error"]):
        return f"{label}: ‹b› = {b}; its standard error is not determined."
    test = f"‹t›({df_text(row['df'])})" if np.isfinite(row["df"]) else "‹z›"
    return (
        f"{label}: ‹b› = {b}, ‹SE› = {se}, {100 * level:.4g}% CI [{low}, {high}], "
        f"{test} = {number_text(row['t value'], 2)}, {p_text(row['Pr(>|t|)'])}."
    )


# --- random effects -------------------------------------------------------------------------------


def _random(fit: Fit, digits: int) -> list[str]:
    sentences = []
    residuals = reported_residual_parameters(fit)
    if fit.frame.structured_terms:
        values = [
            (name, v)
            for name, v in covariance_parameters(fit).items()
            if not residuals or not (name == "sigma" or str(name).endswith(f"|{RESIDUAL}"))
        ]
        listed = in_words(
            [f"{name} = {number_text(v, decimals_of(v, digits))}" for name, v in values]
        )
        sentences.append(f"The parameters of the random effects' covariance were {listed}.")
    else:
        varcorr = varcorr_of(fit)
        sentences += [random_term(group, varcorr[group], digits) for group in varcorr]
        if not residuals:
            residual = number_text(fit.sigma, decimals_of(fit.sigma, digits))
            sentences.append(f"The residual standard deviation was {residual}.")
    if fit.request.sigma is not None:
        residuals = [each for each in residuals if not each.is_sigma]
    if residuals:
        sentences.append(_residuals(residuals, digits))
    if not fit.frame.terms:
        return sentences
    r2, icc = r_squared(fit), intraclass_correlation(fit, False)
    sentences.append(
        f"The fixed effects accounted for {share_text(r2.marginal)} of the variance and fixed and "
        f"random effects together for {share_text(r2.conditional)} (marginal and conditional "
        f"‹R›², Nakagawa and Schielzeth); the adjusted intraclass correlation was "
        f"{share_text(icc.adjusted)}."
    )
    return sentences


def _residuals(parameters: Sequence[ResidualParameter], digits: int) -> str:
    """The parameters of the residuals' covariance; many are for a table."""
    if len(parameters) > MOST_SENTENCES:
        return f"The {len(parameters)} parameters of the residuals' covariance are in m.R."
    texts = []
    for each in parameters:
        of = ", ".join(filter(None, (each.stratum, " and ".join(each.of))))
        name = _RESIDUALS[each.kind].format(of=of)
        decimals = decimals_of(each.value, digits)
        is_share = each.kind in ("cor", "nugget")
        value = share_text(each.value) if is_share else number_text(each.value, decimals)
        behind = f" {of}" if of and "{of}" not in _RESIDUALS[each.kind] else ""
        texts.append(f"{name}{behind} = {value}")
    return f"The estimates for the residuals were {in_words(texts)}."


def random_term(group: str, covariance: Any, digits: int) -> str:
    """A sentence on the random effects of one term."""
    names = [str(name) for name in covariance.index]
    sd = np.sqrt(np.diag(covariance.to_numpy()))
    effects = []
    for name, value in zip(names, sd, strict=True):
        what = "intercepts" if name == "(Intercept)" else f"effects of {name}"
        effects.append(f"{what} (‹SD› = {number_text(value, decimals_of(value, digits))})")
    text = f"{group} had random {in_words(effects)}"
    if len(names) == 2 and sd.min() > 0.0:
        r = covariance.iloc[1, 0] / sd.prod()
        text += f", correlated ‹r› = {share_text(r)}"
    elif len(names) > 2:
        text += "; their correlations are in m.varcorr"
    return f"{text}."


def cautions(fit: Fit) -> list[str]:
    """What to know: a singular fit, columns left out."""
    optimum = fit.optimum
    sentences = []
    if optimum.singular:
        sentences.append(
            "The fit is singular: some combination of random effects is estimated to have no "
            "variance (m.check('singularity') says which)."
        )
    if optimum.undetermined:
        listed = in_words(list(optimum.undetermined))
        sentences.append(f"The data do not determine {listed}.")
    elif optimum.limits:
        sentences += optimum.limits
    elif not optimum.converged:
        sentences.append("The optimiser did not reach a certified optimum; see m.optimum.")
    columns = fit.frame.dropped.columns
    if columns:
        listed = in_words(list(columns))
        sentences.append(
            f"Left out because they are linear combinations of other columns: {listed}."
        )
    return sentences
