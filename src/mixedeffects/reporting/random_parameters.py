"""Parameters of the random effects and of the residuals by what tables of estimates call them."""

from __future__ import annotations

from collections.abc import Callable

from mixedeffects.covariance.of_fit import varcorr_of
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.natural import covariance_parameters, structure_parameters
from mixedeffects.fitting.residual_parameters import reported_residual_parameters

__all__ = ["RESIDUAL", "one_residual_deviation", "random_parameters"]

#: What the residual standard deviation is called.
RESIDUAL = "Residual: SD"


def random_parameters(fit: Fit, label: Callable[[str], str] = str) -> dict[str, float]:
    """Standard deviations and correlations by what they are called."""
    out: dict[str, float] = {}
    terms = fit.frame.terms
    for term in terms:
        # Terms on one factor share its name unless they have a column in common.
        twice = any(
            other is not term
            and other.group == term.group
            and set(other.columns) & set(term.columns)
            for other in terms
        )
        group = term.label if twice else label(term.group)
        if term.structure != "us":
            for kind, column, value in structure_parameters(covariance_parameters(fit), term.label):
                text = "corr." if kind == "cor" else f"SD {label(column)}" if column else "SD"
                out[f"{group}: {text}"] = value
            continue
        sd, corr = varcorr_of(fit).sd(term.label), varcorr_of(fit).corr(term.label).to_numpy()
        names = [label(column) for column in term.columns]
        own = {f"{group}: SD {name}": float(value) for name, value in zip(names, sd, strict=True)}
        if len(own) < len(names) or not own.keys().isdisjoint(out):
            raise ModelError(
                f"labels give random effects of {term.label} names that others have: "
                f"{', '.join(own)}."
            )
        for j, second in enumerate(names):
            for i, first in enumerate(names[:j]):
                own[f"{group}: corr. {first}, {second}"] = float(corr[i, j])
        out |= own
    if fit.family_estimate is not None:
        parameter, estimate = fit.family_estimate
        out[f"Family: {parameter}"] = estimate
    return out | _residual_parameters(fit, label)


#: What the parameters of the residuals are called, by kind.
_OF_RESIDUALS = {
    "sd": "SD",
    "log_sd": "log SD per",
    "power": "power of",
    "cor": "corr.",
    "range": "range",
    "nugget": "nugget",
}


def _residual_parameters(fit: Fit, label: Callable[[str], str]) -> dict[str, float]:
    """The same of the residuals; sigma has its own row, unless it is that of a time or stratum."""
    out = {}
    for each in reported_residual_parameters(fit):
        names = ", ".join(label(name) for name in each.of)
        text = " ".join(filter(None, (_OF_RESIDUALS[each.kind], each.stratum, names)))
        if f"Residual: {text}" != RESIDUAL:
            out[f"Residual: {text}"] = each.value
    return out


def one_residual_deviation(fit: Fit) -> bool:
    """Whether sigma belongs to all rows, not to those of the first time or stratum."""
    residuals = reported_residual_parameters(fit)
    return not any(each.is_sigma and each.column for each in residuals)
