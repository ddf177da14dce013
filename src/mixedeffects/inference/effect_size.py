"""Contrasts in units of a standard deviation: Cohen's d."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import checked_level, checked_number, member, plain
from mixedeffects.covariance.mean_variances import random_variances, residual_variance
from mixedeffects.covariance.of_fit import structured_residual_of
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.vocabulary import intervals_at
from mixedeffects.engine.covariance_changes import new_effects_jacobian
from mixedeffects.engine.from_sums import root_of_sums
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.in_table import unweighted_moments
from mixedeffects.inference.estimates import Estimates
from mixedeffects.inference.linear_functions import linear_estimates, named_contrasts
from mixedeffects.inference.satterthwaite import satterthwaite_of
from mixedeffects.inference.variance_by_name import fixed_effects_variance

__all__ = ["EffectSizes", "contrast_effect_sizes", "effect_sizes"]

Matrix = NDArray[np.float64]

#: Step of the differences that give derivatives of the mean residual variance.
_STEP = 1e-5
_IN_WORDS = {
    "total": "standard deviation of a response given the fixed effects",
    "residual": "residual standard deviation",
}


@dataclass(frozen=True, eq=False)
class EffectSizes:
    """Contrasts divided by a standard deviation.

    Made by `MeanComparisons.effect_size` and `LinearMixedModel.effect_size`.

    Attributes
    ----------
    labels : DataFrame
        One row per contrast: what it is called.
    estimates : Estimates
        Effect sizes, their standard errors, and the degrees of freedom of the contrasts.
    sigma : float
        The standard deviation they are divided by, in units of the response.
    edf : float
        Its degrees of freedom; infinite if it is taken to be known.
    level : float
        Confidence level.
    notes : tuple of str
        The same in words.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> nine_days = m.effect_size({"nine days": {"Days": 9}}, sigma="residual")
    >>> nine_days.to_frame().round(2)
    contrast  estimate std_error   df conf_low conf_high
    nine days     3.68      0.59 17.0     2.45      4.92
    ---
    in units of 25.59, the residual standard deviation, with 144.0 degrees of freedom
    95 % intervals, not adjusted
    >>> round(nine_days.sigma, 2), round(nine_days.edf, 1)
    (25.59, 144.0)
    """

    labels: pd.DataFrame
    estimates: Estimates
    sigma: float
    edf: float
    level: float
    notes: tuple[str, ...]

    def to_frame(self) -> ResultTable:
        """Effect sizes with their intervals.

        Returns
        -------
        ResultTable, one row per contrast
            The labels, ``estimate``, ``std_error``, ``df``, ``conf_low`` and ``conf_high``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> list(m.effect_size({"a week": {"Days": 7}}).to_frame())
        ['contrast', 'estimate', 'std_error', 'df', 'conf_low', 'conf_high']
        """
        found = self.estimates
        half = found.half_widths(self.level)
        table = self.labels.assign(
            estimate=found.estimate,
            std_error=found.se,
            df=found.df,
            conf_low=found.estimate - half,
            conf_high=found.estimate + half,
        )
        return ResultTable.of(table, self.notes)

    def __repr__(self) -> str:
        return repr(self.to_frame())

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())


def effect_sizes(
    fit: Fit, labels: pd.DataFrame, found: Estimates, sigma: Any, edf: Any, level: Any
) -> EffectSizes:
    """See `MeanComparisons.effect_size`."""
    level = checked_level(level)
    scale, known, what = _scale(fit, sigma)
    if edf is not None:
        known = plain(edf)
        if isinstance(known, bool) or not isinstance(known, (int, float)) or not known > 0.0:
            raise ModelError(f"edf must be a positive number, not {edf!r:.60}.")
        # Whole numbers may be beyond all floating-point ones.
        known = float(min(known, np.finfo(np.float64).max)) if known != np.inf else np.inf
    d = found.estimate / scale
    error = np.sqrt((found.se / scale) ** 2 + d**2 / (2.0 * known))
    of = "taken as known" if np.isinf(known) else f"with {known:.1f} degrees of freedom"
    notes = (
        f"in units of {scale:.4g}, the {what}, {of}",
        f"{intervals_at(level)}, not adjusted",
    )
    return EffectSizes(labels, Estimates(d, error, found.df), scale, float(known), level, notes)


def contrast_effect_sizes(
    fit: Fit,
    hypothesis: Any,
    sigma: Any,
    edf: Any,
    ddf: str,
    vcov: str,
    cluster: Any,
    level: float,
) -> EffectSizes:
    """See `LinearMixedModel.effect_size`."""
    L, constant = named_contrasts(fit.frame, hypothesis)
    variance = fixed_effects_variance(fit, vcov, ddf, cluster)
    found = linear_estimates(fit.beta, variance, L.to_numpy(), constant)
    return effect_sizes(fit, pd.DataFrame({"contrast": list(L.index)}), found, sigma, edf, level)


def _scale(fit: Fit, sigma: Any) -> tuple[float, float, str]:
    """A standard deviation, its degrees of freedom, and what it is."""
    name = member(plain(sigma), _IN_WORDS)
    if name is None:
        if isinstance(plain(sigma), str):
            raise ModelError(
                f"sigma {sigma!r:.60} is not known; there are 'total', 'residual', or a number."
            )
        value = checked_number(sigma, "sigma")
        if not value > 0.0:
            raise ModelError(f"sigma must be positive, not {value:g}.")
        return value, np.inf, "standard deviation given"
    if fit.residual_sigma is None:
        raise ModelError(
            "There is no residual standard deviation on the scale of the link, in whose units "
            "differences could be; odds ratios and ratios are effect sizes by themselves. "
            "sigma= takes a number."
        )
    m = len(satterthwaite_of(fit).hessian)
    residual = residual_variance(fit)
    gradient, variance = np.zeros(m), residual
    gradient[-1] = 2.0 * residual / fit.sigma
    of_residuals = _residual_jacobian(fit)
    n_theta = m - 1 - len(of_residuals)
    gradient[n_theta:-1] = of_residuals
    if name == "total":
        variance += sum(random_variances(fit).values())
        # Where residuals have a structure, parameters are always in the fitting basis.
        user = None if fit.residual is None else False
        for t in range(len(fit.frame.terms)):
            rows = _rows_of_mean_products(fit, t)
            own = new_effects_jacobian(fit.optimum, t, rows, user).sum(axis=0)
            gradient[:n_theta] += own[:-1]
            gradient[-1] += own[-1]
    if fit.crossproducts.known_variance is not None:
        gradient[-1] = 0.0
    df = satterthwaite_of(fit).df_of(np.array([variance]), gradient[None, :])
    return float(np.sqrt(variance)), float(df[0]), _IN_WORDS[name]


def _rows_of_mean_products(fit: Fit, t: int) -> Matrix:
    """Rows that have the mean of z z' as their sum of squares."""
    if fit.rows is not None:
        moments, at = unweighted_moments(fit), fit.rows.columns.terms[t].columns
        return root_of_sums(moments.products(at) / fit.nobs)
    return np.asarray(np.linalg.qr(fit.frame.terms[t].z / np.sqrt(fit.nobs), mode="r"))


def _residual_jacobian(fit: Fit) -> Matrix:
    """Derivatives of the mean residual variance in the parameters of the residuals."""
    R, residual = structured_residual_of(fit), fit.residual
    if R is None or residual is None:
        return np.zeros(0)
    out = np.empty(len(residual.phi))
    unbounded = residual.model.unbounded(residual.phi)
    _, slopes, _ = residual.model.bounded(unbounded)
    for j, slope in enumerate(slopes.tolist()):
        means = []
        for step in (_STEP, -_STEP):
            moved = residual.phi.copy()
            moved[j] += step * slope
            means.append(float(dataclasses.replace(R, phi=moved).diagonal().mean()))
        out[j] = (means[0] - means[1]) / (2.0 * _STEP * slope)
    return out
