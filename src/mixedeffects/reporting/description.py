"""Sentences for a paper in APA style, every number from the fit."""

from __future__ import annotations

import math
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

__all__ = ["Description", "describe"]

#: Decimals of estimates that can be asked for.
_MOST_DIGITS = 8
_SMALLEST_P = 0.001
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
_MOST_SENTENCES = 30


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
    if not is_whole_number(digits, least=1) or digits > _MOST_DIGITS:
        raise ModelError(f"digits must be a whole number from 1 to {_MOST_DIGITS}, not {digits!r}.")
    digits = int(digits)
    method, fixed = _fixed(fit, ddf, vcov, cluster, level, digits)
    parts = (
        (*_model(fit), method),
        fixed,
        _random(fit, digits),
        _cautions(fit),
    )
    return Description(tuple(tuple(part) for part in parts if part))


# --- the model ------------------------------------------------------------------------------------


def _model(fit: Fit) -> list[str]:
    frame = fit.frame
    criterion = "restricted maximum likelihood (REML)" if fit.reml else "maximum likelihood"
    groups = _listed([f"{count:,} levels of {g}" for g, count in _factors(fit).items()])
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
    for name, values in (("weights", frame.weights), ("offset", frame.offset)):
        if values is not None:
            sentences.append(
                f"The fit has prior {name}." if name == "weights" else "It has an offset."
            )
    rows = len(frame.dropped.rows)
    if rows:
        sentences.append(
            f"Of {fit.nobs + rows:,} rows {rows:,} {'was' if rows == 1 else 'were'} left out "
            "because values were missing."
        )
    return sentences


def _factors(fit: Fit) -> dict[str, int]:
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
                f"{label}: ‹F›({row['NumDF']:.0f}, {_df(row['DenDF'])}) = "
                f"{_number(row['F value'], 2)}, {_p(row['Pr(>F)'])} (type III)."
            )
    # Where a coding was asked for, its coefficients are the questions.
    left_out = [label for label in joint if not _is_planned(fit, label)]
    several = {names[j] for label in left_out for j in terms[label]}
    for name in names:
        if name in several or (name == "(Intercept)" and len(names) > 1):
            continue
        sentences.append(_coefficient(name, table.loc[name], level, digits))
    if left_out:
        sentences.append("The coefficients of terms with several are in m.coef_table().")
    if len(sentences) > _MOST_SENTENCES:
        left = len(sentences) - _MOST_SENTENCES
        sentences = sentences[:_MOST_SENTENCES]
        sentences.append(f"{left} more coefficients are in m.coef_table().")
    return method, sentences


def _is_planned(fit: Fit, term: str) -> bool:
    """Whether the coding of a factor of the term was asked for."""
    asked = {quote_name(name) for name in fit.request.contrasts or {}}
    return any(part in asked or part.startswith("C(") for part in term.split(":"))


def _coefficient(name: str, row: Any, level: float, digits: int) -> str:
    label = "Intercept" if name == "(Intercept)" else name
    decimals = _decimals(row["Std. Error"], digits)
    numbers = [_number(row[key], decimals) for key in ("Estimate", "Std. Error", "lower", "upper")]
    b, se, low, high = numbers
    if np.isnan(row["Std. Error"]):
        return f"{label}: ‹b› = {b}; its standard error is not determined."
    test = f"‹t›({_df(row['df'])})" if np.isfinite(row["df"]) else "‹z›"
    return (
        f"{label}: ‹b› = {b}, ‹SE› = {se}, {100 * level:.4g}% CI [{low}, {high}], "
        f"{test} = {_number(row['t value'], 2)}, {_p(row['Pr(>|t|)'])}."
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
        listed = _listed([f"{name} = {_number(v, _decimals(v, digits))}" for name, v in values])
        sentences.append(f"The parameters of the random effects' covariance were {listed}.")
    else:
        varcorr = varcorr_of(fit)
        sentences += [_term(group, varcorr[group], digits) for group in varcorr]
        if not residuals:
            residual = _number(fit.sigma, _decimals(fit.sigma, digits))
            sentences.append(f"The residual standard deviation was {residual}.")
    if fit.request.sigma is not None:
        residuals = [each for each in residuals if not each.is_sigma]
    if residuals:
        sentences.append(_residuals(residuals, digits))
    if not fit.frame.terms:
        return sentences
    r2, icc = r_squared(fit), intraclass_correlation(fit, False)
    sentences.append(
        f"The fixed effects accounted for {_share(r2.marginal)} of the variance and fixed and "
        f"random effects together for {_share(r2.conditional)} (marginal and conditional "
        f"‹R›², Nakagawa and Schielzeth); the adjusted intraclass correlation was "
        f"{_share(icc.adjusted)}."
    )
    return sentences


def _residuals(parameters: Sequence[ResidualParameter], digits: int) -> str:
    """The parameters of the residuals' covariance; many are for a table."""
    if len(parameters) > _MOST_SENTENCES:
        return f"The {len(parameters)} parameters of the residuals' covariance are in m.R."
    texts = []
    for each in parameters:
        of = ", ".join(filter(None, (each.stratum, " and ".join(each.of))))
        name = _RESIDUALS[each.kind].format(of=of)
        decimals = _decimals(each.value, digits)
        is_share = each.kind in ("cor", "nugget")
        value = _share(each.value) if is_share else _number(each.value, decimals)
        behind = f" {of}" if of and "{of}" not in _RESIDUALS[each.kind] else ""
        texts.append(f"{name}{behind} = {value}")
    return f"The estimates for the residuals were {_listed(texts)}."


def _term(group: str, covariance: Any, digits: int) -> str:
    names = [str(name) for name in covariance.index]
    sd = np.sqrt(np.diag(covariance.to_numpy()))
    effects = []
    for name, value in zip(names, sd, strict=True):
        what = "intercepts" if name == "(Intercept)" else f"effects of {name}"
        effects.append(f"{what} (‹SD› = {_number(value, _decimals(value, digits))})")
    text = f"{group} had random {_listed(effects)}"
    if len(names) == 2 and sd.min() > 0.0:
        r = covariance.iloc[1, 0] / sd.prod()
        text += f", correlated ‹r› = {_share(r)}"
    elif len(names) > 2:
        text += "; their correlations are in m.varcorr"
    return f"{text}."


def _cautions(fit: Fit) -> list[str]:
    optimum = fit.optimum
    sentences = []
    if optimum.singular:
        sentences.append(
            "The fit is singular: some combination of random effects is estimated to have no "
            "variance (m.check('singularity') says which)."
        )
    if optimum.undetermined:
        listed = _listed(list(optimum.undetermined))
        sentences.append(f"The data do not determine {listed}.")
    elif optimum.limits:
        sentences += optimum.limits
    elif not optimum.converged:
        sentences.append("The optimiser did not reach a certified optimum; see m.optimum.")
    columns = fit.frame.dropped.columns
    if columns:
        listed = _listed(list(columns))
        sentences.append(
            f"Left out because they are linear combinations of other columns: {listed}."
        )
    return sentences


# --- numbers and words ----------------------------------------------------------------------------


def _decimals(scale: float, digits: int) -> int:
    """Decimals that show a standard error with two digits at least, and not fewer than asked."""
    if not math.isfinite(scale) or scale == 0.0:
        return digits
    return min(max(digits, 1 - math.floor(math.log10(abs(scale)))), 12)


def _number(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{value}"
    text = f"{value + 0.0:.{decimals}f}"
    # A minus, not a hyphen.
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def _share(value: float) -> str:
    """A number that cannot exceed one in size: no zero before the point, as APA has it."""
    text = _number(value, 2)
    return text.replace("0.", ".", 1) if text.lstrip("−").startswith("0.") else text


def _p(p: float) -> str:
    if math.isnan(p):
        return "‹p› not determined"
    if p < _SMALLEST_P:
        return "‹p› < .001"
    return f"‹p› = {f'{p:.3f}'.removeprefix('0')}" if p < 0.9995 else "‹p› > .999"


def _df(df: float) -> str:
    return f"{df:.1f}" if math.isfinite(df) else "∞"


def _listed(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
