"""From a fitted model to its `Summary`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixedeffects.display.summary import InformationCriteria, Summary
from mixedeffects.inference.coefficients import tests_with
from mixedeffects.inference.natural import structures_at_bounds
from mixedeffects.inference.singular import doubtful_degrees_of_freedom
from mixedeffects.inference.variance import DDF_METHODS, fixed_effects_variance
from mixedeffects.residuals import residual_quantiles

if TYPE_CHECKING:
    from mixedeffects.model import LinearMixedModel

__all__ = ["fit_notes", "summarise"]


def summarise(model: LinearMixedModel, ddf: str, vcov: str, cluster: Any = None) -> Summary:
    """Collect what the summary of a fitted model shows."""
    variance = fixed_effects_variance(model, vcov, ddf, cluster)
    coefficients = tests_with(model, variance, level=None)
    names = list(coefficients.index)
    covariance = variance.vcov
    sd = np.sqrt(np.diag(covariance))
    correlation = pd.DataFrame(covariance / np.outer(sd, sd), index=names, columns=names)
    criterion: float | InformationCriteria = model.criterion
    if not model.reml:
        criterion = InformationCriteria(
            model.aic, model.bic, model.loglik, model.criterion, model.df_resid
        )
    settings = model._settings
    return Summary(
        formula=model.formula,
        reml=model.reml,
        criterion=criterion,
        varcorr=model.varcorr.summary_blocks(),
        residual=model.sigma,
        nobs=model.nobs,
        ngroups=model.ngroups,
        coefficients=coefficients,
        correlation=correlation if len(names) > 1 else None,
        residual_quantiles=residual_quantiles(model),
        test_method=variance.method,
        data_name=model.data_name,
        weights_name=settings["weights"] if isinstance(settings["weights"], str) else None,
        offset_name=settings["offset"] if isinstance(settings["offset"], str) else None,
        notes=_notes(model, coefficients, variance.method == DDF_METHODS["satterthwaite"]),
    )


def _notes(model: LinearMixedModel, coefficients: pd.DataFrame, satterthwaite: bool) -> list[str]:
    notes = []
    dropped = model.dropped
    if len(dropped.rows):
        missing = ", ".join(
            f"{name} {count:,}" for name, count in dropped.missing_by_column.items()
        )
        notes.append(f"{len(dropped.rows):,} rows removed for missing values ({missing})")
    if dropped.columns:
        several = "columns" if len(dropped.columns) > 1 else "column"
        notes.append(
            f"fixed-effect model matrix is rank deficient, so {len(dropped.columns)} {several} "
            f"dropped: {', '.join(dropped.columns)}"
        )
        if dropped.far_from_zero:
            notes.append(dropped.advice())
    return notes + fit_notes(model, coefficients, satterthwaite)


def fit_notes(
    model: LinearMixedModel, coefficients: pd.DataFrame, satterthwaite: bool
) -> list[str]:
    """What there is to say about the fit: on the boundary, not converged, degrees of freedom."""
    notes = []
    if model.is_singular:
        notes.append(
            "boundary (singular) fit: some combination of the random effects is estimated to have "
            "no variance"
        )
        notes += structures_at_bounds(model.frame.terms, model.optimum)
        if satterthwaite:
            notes += _doubtful_degrees_of_freedom(model, coefficients["df"])
    optimum = model.optimum
    notes += [f"NOT DETERMINED BY THE DATA: {reason}" for reason in optimum.reasons]
    if not model.converged and not optimum.undetermined:
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


def _doubtful_degrees_of_freedom(model: LinearMixedModel, df: pd.Series) -> list[str]:
    """Notes on Satterthwaite's degrees of freedom that the design does not bear out."""
    doubtful = doubtful_degrees_of_freedom(model, df.to_numpy())
    alternatives = 'ddf="kr"' if model.reml else 'm.update(reml=True) and ddf="kr"'
    alternatives += ", or a cluster-robust covariance matrix such as CR2"
    if doubtful is None:
        return [
            "Satterthwaite's degrees of freedom can be far off at a singular fit; compare "
            f"{alternatives}"
        ]
    if not doubtful.any():
        return []
    shown = ", ".join(f"{name} ({value:.0f})" for name, value in df[doubtful].items())
    return [
        f"Satterthwaite's degrees of freedom are not to be trusted for {shown}: the singular fit "
        "hides how uncertain the variances are, and the design gives less than half as many; use "
        f"{alternatives}"
    ]
