"""From a fitted model to its `Summary`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mixedeffects.covariance.of_fit import residual_blocks_of, varcorr_of
from mixedeffects.diagnostics.residuals import residual_quantiles
from mixedeffects.display.summary import InformationCriteria, Summary
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.fitting.natural import structures_at_bounds
from mixedeffects.frame.double_bars import correlated_in_double_bars
from mixedeffects.frame.without_rows import SUMS
from mixedeffects.inference.coefficients import tests_with
from mixedeffects.inference.singular import doubtful_degrees_of_freedom
from mixedeffects.inference.variance import DDF_METHODS
from mixedeffects.inference.variance_by_name import fixed_effects_variance
from mixedeffects.reporting.words import in_words

__all__ = ["default_summary", "fit_notes", "frame_notes", "summarise"]


def summarise(fit: Fit, ddf: str, vcov: str, cluster: Any = None) -> Summary:
    """Collect what the summary of a fitted model shows."""
    variance = fixed_effects_variance(fit, vcov, ddf, cluster)
    coefficients = tests_with(fit, variance, level=None)
    names = list(coefficients.index)
    covariance = variance.vcov
    sd = np.sqrt(np.diag(covariance))
    correlation = pd.DataFrame(covariance / np.outer(sd, sd), index=names, columns=names)
    criterion: float | InformationCriteria = fit.criterion
    if not fit.reml:
        criterion = InformationCriteria(fit.aic, fit.bic, fit.loglik, fit.criterion, fit.df_resid)
    weights, offset = fit.request.weights, fit.request.offset
    satterthwaite = variance.method == DDF_METHODS["satterthwaite"]
    return Summary(
        formula=fit.formula,
        reml=fit.reml,
        criterion=criterion,
        varcorr=varcorr_of(fit).summary_blocks(),
        residual=fit.sigma,
        nobs=fit.nobs,
        ngroups=fit.ngroups,
        coefficients=coefficients,
        correlation=correlation if len(names) > 1 else None,
        residual_quantiles=residual_quantiles(fit),
        test_method=variance.method,
        data_name=fit.request.data_name,
        weights_name=weights if isinstance(weights, str) else None,
        offset_name=offset if isinstance(offset, str) else None,
        residual_covariance=residual_blocks_of(fit),
        notes=[*frame_notes(fit), *fit_notes(fit, coefficients, satterthwaite)],
    )


@once_per_fit("summary")
def default_summary(fit: Fit) -> Summary:
    """The summary that is shown for the fit itself."""
    return summarise(fit, fit.request.ddf, "model")


@once_per_fit("trials")
def trials_of(fit: Fit) -> str | None:
    """In words, how many trials the rows have, and how many were successes; None without trials."""
    if not fit.frame.has_trials:
        return None
    response = fit.frame.response
    assert response is not None and response.trials is not None
    total = round(float(response.trials.sum()))
    successes = round(float(response.trials @ response.y))
    return f"{total:,} trials in {response.n:,} rows, {successes:,} of them successes"


def frame_notes(fit: Fit) -> list[str]:
    """What there is to say about the rows and columns: those left out, and terms in ``||``."""
    notes = []
    dropped = fit.frame.dropped
    if fit.rows is not None and fit.rows.model.table.engine == SUMS:
        notes.append(f"fitted to sums of {fit.nobs:,} rows, which are not there")
    elif fit.rows is not None:
        notes.append(f"rows stayed in the table ({fit.rows.model.table.engine}), {fit.nobs:,} used")
    if len(dropped.rows):
        missing = ", ".join(
            f"{name} {count:,}" for name, count in dropped.missing_by_column.items()
        )
        rows = "row" if len(dropped.rows) == 1 else "rows"
        notes.append(f"{len(dropped.rows):,} {rows} removed for missing values ({missing})")
    if dropped.columns:
        several = "columns" if len(dropped.columns) > 1 else "column"
        notes.append(
            f"fixed-effect model matrix is rank deficient, so {len(dropped.columns)} {several} "
            f"dropped: {', '.join(dropped.columns)}"
        )
        if dropped.far_from_zero:
            notes.append(dropped.advice())
    correlated = correlated_in_double_bars(fit.frame.formula, fit.frame.terms)
    if correlated:
        has = "has" if len(correlated) == 1 else "have"
        names = in_words([f"`{name}`" for name in correlated])
        function = "glmer" if fit.has_link else "lmer"
        notes.append(
            f"{names} in `||` {has} correlated effects, as in lme4; "
            f'{function}(..., double_bar="separate") makes them independent'
        )
    return notes


def fit_notes(fit: Fit, coefficients: pd.DataFrame, satterthwaite: bool) -> list[str]:
    """What there is to say about the fit: on the boundary, not converged, degrees of freedom."""
    notes = []
    if fit.optimum.singular:
        notes.append(
            "boundary (singular) fit: some combination of the random effects is estimated to have "
            "no variance"
        )
        notes += structures_at_bounds(fit.frame.terms, fit.optimum)
        if satterthwaite:
            notes += _doubtful_degrees_of_freedom(fit, coefficients["df"])
    optimum = fit.optimum
    notes += [f"NOT DETERMINED BY THE DATA: {reason}" for reason in optimum.reasons]
    notes += [f"NO MAXIMUM: {limit}" for limit in optimum.limits]
    if optimum.limits:
        return notes
    if not fit.optimum.converged and not optimum.undetermined:
        notes.append(f"NOT CONVERGED: {optimum.message}")
    elif optimum.residual_vanishes:
        notes.append(
            "the residual standard deviation goes to zero: the fit is close to the limit of the "
            "likelihood, a model without residual variance"
        )
    elif satterthwaite and not optimum.certificate.holds:
        # The second derivatives are there anyway, so the whole certificate is known.
        notes.append(f"{optimum.certificate}")
    return notes


#: So many coefficients are named in a note.
_NAMED = 6


def _doubtful_degrees_of_freedom(fit: Fit, df: pd.Series) -> list[str]:
    """Notes on Satterthwaite's degrees of freedom that the design does not bear out."""
    doubtful = doubtful_degrees_of_freedom(fit, df.to_numpy())
    alternatives = 'ddf="kr"' if fit.reml else 'm.update(reml=True) and ddf="kr"'
    alternatives += ", or a cluster-robust covariance matrix such as CR2"
    if doubtful is None:
        return [
            "Satterthwaite's degrees of freedom can be far off at a singular fit; compare "
            f"{alternatives}"
        ]
    if not doubtful.any():
        return []
    listed = [f"{name} ({value:.0f})" for name, value in df[doubtful].items()]
    shown = ", ".join(listed[:_NAMED])
    if len(listed) > _NAMED:
        shown += f" and {len(listed) - _NAMED} more"
    return [
        f"Satterthwaite's degrees of freedom are not to be trusted for {shown}: the singular fit "
        "hides how uncertain the variances are, and the design gives less than half as many; use "
        f"{alternatives}"
    ]
