"""Summary and tidy tables of a generalized fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mixedeffects.base.options import checked_flag
from mixedeffects.covariance.of_fit import varcorr_of
from mixedeffects.diagnostics.generalized_residuals import (
    generalized_quantiles,
    generalized_residuals,
)
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.summary import InformationCriteria, Summary
from mixedeffects.engine.generalized import LaplaceCheck, QuadratureCheck
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.inference.coefficients import tests_with
from mixedeffects.inference.estimates import fixed_rows
from mixedeffects.inference.normal_tests import normal_tests
from mixedeffects.inference.ratios import exponentiated, ratio_of
from mixedeffects.inference.variance_by_name import fixed_effects_variance
from mixedeffects.reporting.model_summary import fit_notes, frame_notes, trials_of
from mixedeffects.reporting.tidy import checked_effects, joined, random_parameters, random_values

__all__ = [
    "augment_generalized",
    "default_generalized_summary",
    "quadrature_check",
    "summarise_generalized",
    "tidy_generalized",
]

#: Points per random effect of the check of Laplace's approximation, and how many points of all rows
#: a summary takes the time for.
_CHECKED, _MOST_POINTS = 9, 10_000_000


def summarise_generalized(fit: GeneralizedFit, vcov: Any, cluster: Any = None) -> Summary:
    """Collect what the summary of a generalized fit shows."""
    variance = fixed_effects_variance(fit, vcov, "inf", cluster)
    coefficients = tests_with(fit, variance, level=None)
    covariance, names = variance.vcov, list(fit.fixef_names)
    sd = np.sqrt(np.diag(covariance))
    correlation = pd.DataFrame(covariance / np.outer(sd, sd), index=names, columns=names)
    certificate = fit.optimum.certificate
    trials = trials_of(fit)
    notes = [] if trials is None else [trials]
    notes += [*frame_notes(fit), *fit_notes(fit, coefficients, False)]
    if fit.optimum.converged and not fit.optimum.limits:
        notes.append(str(certificate))
    check = quadrature_check(fit)
    if check is not None and str(check) not in str(certificate):
        notes.append(str(check))
    how = "Laplace approximation" if fit.nagq == 1 else f"adaptive quadrature, {fit.nagq} points"
    return Summary(
        formula=fit.formula,
        reml=False,
        criterion=InformationCriteria(fit.aic, fit.bic, fit.loglik, fit.criterion, fit.df_resid),
        varcorr=varcorr_of(fit).summary_blocks(),
        residual=None,
        nobs=fit.nobs,
        ngroups=fit.ngroups,
        coefficients=coefficients,
        correlation=correlation if len(names) > 1 else None,
        residual_quantiles=generalized_quantiles(fit),
        notes=notes,
        title=f"Generalized linear mixed model fit by maximum likelihood ({how})",
        details=_details(fit),
        test_method=None if variance.method == fit.covariance_kinds["model"] else variance.method,
    )


def quadrature_check(fit: GeneralizedFit) -> LaplaceCheck | QuadratureCheck | None:
    """How far the criterion is from quadrature with more points; None where that takes long."""
    points = _CHECKED ** sum(len(term.columns) for term in fit.frame.terms)
    known = "laplace_check" in vars(fit.found)
    if fit.nagq > 1:
        return fit.found.quadrature_check
    if fit.nobs * points > _MOST_POINTS and not known:
        return None
    return fit.found.laplace_check


def _details(fit: GeneralizedFit) -> dict[str, str]:
    """What stands below the title, by label."""
    request = fit.request
    named = {
        " Family": family_text(fit),
        "Formula": fit.formula,
        "   Data": request.data_name,
        " Trials" if fit.frame.has_trials else "Weights": request.weights,
        " Offset": request.offset,
        "Exposure": request.exposure,
    }
    found = {label: text for label, text in named.items() if isinstance(text, str)}
    if fit.frame.response_levels:
        failure, success = fit.frame.response_levels
        found["Success"] = f"{success} (failure: {failure})"
    return found


def family_text(fit: GeneralizedFit) -> str:
    """The family with its link and, where it is estimated, its parameter."""
    text = repr(fit.family).removeprefix("Family: ")
    return text if fit.phi is None else f"{text}, {fit.family.parameter_name} {fit.phi:.5g}"


@once_per_fit("summary")
def _default(fit: Fit) -> Summary:
    return summarise_generalized(generalized(fit), "model")


def default_generalized_summary(fit: GeneralizedFit) -> Summary:
    """The summary that is shown for the fit itself."""
    return _default(fit)


def tidy_generalized(
    fit: GeneralizedFit,
    effects: str | Sequence[str],
    vcov: Any,
    level: float | None,
    exponentiate: Any = False,
    cluster: Any = None,
) -> ResultTable:
    """One row per parameter; see `GeneralizedLinearMixedModel.tidy`."""
    wanted = checked_effects(effects)
    as_ratios = checked_flag(exponentiate, "exponentiate")
    if as_ratios:
        ratio_of(fit)

    def fixed() -> pd.DataFrame:
        table = normal_tests(fit, vcov, level, cluster)
        return fixed_rows(exponentiated(table) if as_ratios else table)

    def parameters() -> pd.DataFrame:
        own = fit.family_estimate
        return random_parameters(fit) if own is None else random_parameters(fit, ("Family", *own))

    makers: dict[str, Callable[[], pd.DataFrame]] = {
        "fixed": fixed,
        "ran_pars": parameters,
        "ran_vals": lambda: random_values(fit),
    }
    return joined(makers[name]() for name in wanted)


def augment_generalized(fit: GeneralizedFit) -> ResultTable:
    """The data used, with fitted values; see `GeneralizedLinearMixedModel.augment`."""
    out = fit.frame.data.copy()
    out["_fitted"] = fit.mu
    out["_resid"] = generalized_residuals(fit, "response")
    out["_link"] = fit.eta
    out["_fixed"] = fit.fixed_part
    return ResultTable.of(out)
