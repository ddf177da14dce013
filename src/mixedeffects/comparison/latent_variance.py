"""Variance explained in a generalized model: with the family's own variance on the link's scale.

fixed     sample variance of X beta (divisor n - 1), offset left out
random    mean over the rows of z_i'G z_i, by grouping factor
residual  variance of the family on the scale of the link, and of effects of single rows
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from mixedeffects.base.options import checked_choice, checked_flag
from mixedeffects.comparison.variance_explained import (
    ICC,
    R2,
    Variances,
    icc_of,
    intraclass_correlation,
    r2_of,
    r_squared,
)
from mixedeffects.covariance.mean_variances import random_variances
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.fitting.generalized.assembly import generalized_design
from mixedeffects.fitting.generalized.fitting import fit_generalized_frame
from mixedeffects.inference.population_average import population_mean

__all__ = ["METHODS", "generalized_icc", "generalized_r2", "icc_of_fit", "r2_of_fit"]

METHODS = ("theoretical", "delta", "lognormal", "trigamma")
#: In this order a family has one by default.
_BY_DEFAULT = ("theoretical", "lognormal", "delta")


def generalized_icc(fit: GeneralizedFit, by_group: Any, method: Any) -> ICC:
    """See `GeneralizedLinearMixedModel.icc`."""
    by_group = checked_flag(by_group, "by_group")
    return icc_of(_variances(fit, _method(fit, method)), by_group)


def generalized_r2(fit: GeneralizedFit, method: Any) -> R2:
    """See `GeneralizedLinearMixedModel.r2`."""
    return r2_of(_variances(fit, _method(fit, method)))


def icc_of_fit(fit: Fit) -> ICC:
    """The intraclass correlation of a fit of either kind, by its usual method."""
    if isinstance(fit, GeneralizedFit):
        return generalized_icc(fit, False, None)
    return intraclass_correlation(fit, False)


def r2_of_fit(fit: Fit) -> R2:
    """R2 of a fit of either kind, by its usual method."""
    return generalized_r2(fit, None) if isinstance(fit, GeneralizedFit) else r_squared(fit)


def _method(fit: GeneralizedFit, method: Any) -> str:
    """The method that is meant, if the family has it."""
    known = [each for each in METHODS if _has(fit, each)]
    if method is None:
        return next(each for each in _BY_DEFAULT if each in known)
    checked_choice(method, "method", METHODS)
    if method not in known:
        family = fit.family
        raise ModelError(
            f"method={method!r} is not defined for the {family.name} family with the link "
            f"{family.link.name}; there is {' and '.join(repr(each) for each in known)}."
        )
    return str(method)


def _has(fit: GeneralizedFit, method: str) -> bool:
    try:
        fit.family.latent_variance(method, 0.5, fit.search_phi)
    except ModelError:
        return False
    return True


@once_per_fit("mean of the null model")
def _null_mean(fit: Any) -> float:
    """Mean of the response by the model with the intercept alone and the same random effects."""
    record = generalized(fit)
    frame = record.frame
    if record.fixef_names != ("(Intercept)",):
        frame = dataclasses.replace(
            frame, X=np.ones((record.nobs, 1), order="F"), fixef_names=("(Intercept)",)
        )
        design = generalized_design(frame, record.family)
        record = fit_generalized_frame(frame, design, record.request)
    offset = 0.0 if frame.offset is None else float(frame.offset.mean())
    variance = sum(random_variances(record).values())
    eta = np.array([record.beta[0] + offset])
    return float(population_mean(record.family, eta, np.array([variance]))[0][0])


@once_per_fit("mean variances on the scale of the link")
def _variances(fit: Any, method: str) -> Variances:
    record = generalized(fit)
    own = random_variances(record)
    # What each row has for itself is no correlation within a group.
    of_rows = [group for group in own if record.ngroups[group] == record.nobs]
    linear = record.frame.X @ record.beta
    fixed = float(np.var(linear, ddof=1))
    rounding = 8.0 * np.finfo(np.float64).eps * float(np.abs(linear).max(initial=0.0))
    mean = 0.5 if method == "theoretical" else _null_mean(record)
    family = record.family
    residual = float(family.latent_variance(method, mean, record.search_phi))
    name = family.name.replace("_", " ")
    said = f"variance of the {name} family on the scale of the link: {residual:.4g}, "
    said += f"{method}" if method == "theoretical" else f"{method}, at a mean of {mean:.4g}"
    if of_rows:
        said += f"; with that of {', '.join(of_rows)}, which has a level for each row"
    return Variances(
        fixed if fixed > rounding**2 else 0.0,
        pd.Series({g: v for g, v in own.items() if g not in of_rows}, name="variance", dtype=float),
        residual + sum(own[group] for group in of_rows),
        False,
        said=said,
    )
