"""Pooling fits of several imputed data sets: what is given is checked, and the means are taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import read_only
from mixedeffects.base.default_ddf import ddf_of_the_fit
from mixedeffects.base.habits import explained
from mixedeffects.base.options import plain
from mixedeffects.covariance.of_fit import residual_arguments, residual_blocks_of
from mixedeffects.covariance.varcorr import VarCorr
from mixedeffects.display.residual_text import ResidualBlock, in_line
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit, HoldsFit, fit_of
from mixedeffects.fitting.in_table import is_weighted
from mixedeffects.fitting.natural import covariance_parameters
from mixedeffects.fitting.residual_parameters import reported_residual_parameters
from mixedeffects.inference.pooled_fits import PooledFits
from mixedeffects.inference.variance import FixedDf, FixedEffectsVariance
from mixedeffects.inference.variance_by_name import fixed_effects_variance

__all__ = ["pool"]

Matrix = NDArray[np.float64]


@explained
@ddf_of_the_fit
def pool(
    fits: Iterable[HoldsFit],
    *,
    ddf: str | float = "satterthwaite",
    vcov: str = "model",
    cluster: Any = None,
) -> PooledFits:
    """Pool fits of one model to several imputed data sets, by Rubin's rules.

    Estimates are means over the fits; their variance is the mean variance within the fits and the
    variance of the estimates between them, which the missing values make.

    Parameters
    ----------
    fits : list of LinearMixedModel or of GeneralizedLinearMixedModel
        Two or more fits of one formula, by one criterion, one for each imputed data set.
    ddf : {"satterthwaite", "kr", "kr-observed", "residual", "inf"} or float
        Degrees of freedom that the complete data would have, from which Barnard and Rubin's follow.
        By name they are those of each fit for each contrast, of which the harmonic mean is taken:
        df stand for the relative variance ``2 / df`` of an estimated variance, and that is what can
        be averaged. One number holds for all contrasts. ``"inf"`` gives Rubin's own df of 1987; it
        is the default of generalized models, which take this name or a number.
    vcov, cluster
        Covariance matrix within each fit, as for `LinearMixedModel.coef_table`, or
        `GeneralizedLinearMixedModel.coef_table`.

    Returns
    -------
    PooledFits
        With ``coef_table``, ``contrast``, ``wald``, ``anova``, ``emmeans``, ``joint_tests``,
        ``tidy`` and ``glance``.

    Raises
    ------
    ModelError
        If there is one fit only, or the fits are not of one model: other formulas, coefficients,
        codings, criteria, weights, families, residual structures or numbers of rows.

    Notes
    -----
    ``mice::pool`` of R takes ``df.residual`` of the first fit as complete-data degrees of freedom,
    one number for all coefficients, which is too many for what varies between clusters only. Here
    this is ``ddf=fits[0].fit.df_resid``.

    Estimates of a generalized model are on the scale of the link, with the covariance matrix of the
    joint Hessian within each fit. Its complete-data tests are normal; the pooled ones are t-tests
    all the same, because B is estimated from few fits.

    References
    ----------
    Rubin, D. B. (1987). Multiple Imputation for Nonresponse in Surveys. Wiley.

    Barnard, J. and Rubin, D. B. (1999). Small-sample degrees of freedom with multiple imputation.
    Biometrika 86, 948-955.

    Examples
    --------
    Days that are known up to a rounding error, imputed five times:

    >>> import numpy as np
    >>> import mixedeffects as me
    >>> sleep = me.load_dataset("sleepstudy")
    >>> rng = np.random.default_rng(1)
    >>> imputed = [sleep.assign(Days=sleep["Days"] + rng.normal(0, 0.5, 180)) for _ in range(5)]
    >>> me.pool([me.lmer("Reaction ~ Days + (Days | Subject)", data) for data in imputed])
    Reaction ~ Days + (Days | Subject), pooled over 5 fits by Rubin's rules
                Estimate Std. Error   df t value Pr(>|t|)   RIV   FMI
    ...
    """
    given = _as_list(fits)
    held = [fit_of(model, f"fits[{i}]", any_kind=True) for i, model in enumerate(given)]
    _check_one_model(held)
    variances = tuple(_variance(fit, vcov, ddf, cluster) for fit in held)
    names = list(held[0].fixef_names)
    # From the first, so that equal estimates have no variance at all.
    moved = np.array([fit.beta - held[0].beta for fit in held])
    within = np.mean([variance.vcov for variance in variances], axis=0)
    between = np.cov(moved, rowvar=False).reshape(len(names), len(names))
    total = within + (1.0 + 1.0 / len(held)) * between
    blocks = [np.mean(own, axis=0) for own in zip(*(fit.G_blocks for fit in held), strict=True)]
    parameters = pd.concat([covariance_parameters(fit) for fit in held], axis=1)
    method = _method(ddf, variances[0])
    return PooledFits(
        estimates=pd.Series(held[0].beta + moved.mean(axis=0), index=names, name="Estimate"),
        within=pd.DataFrame(within, names, names),
        between=pd.DataFrame(between, names, names),
        vcov=pd.DataFrame(total, names, names),
        varcorr=_varcorr(held, read_only(blocks)),
        fits=tuple(held),
        method=method,
        notes=_notes(held, method, between),
        _variances=variances,
        _parameters=parameters.mean(axis=1, skipna=False),
        phi=_family_parameter(held),
    )


def _as_list(fits: Any) -> list[Any]:
    if isinstance(getattr(fits, "fit", fits), Fit) or not isinstance(fits, Iterable):
        raise ModelError(
            "pool takes a list of fits, one for each imputed data set: "
            f"me.pool([me.lmer(formula, data) for data in imputed]); not {fits!r:.60}."
        )
    given = list(fits.values() if isinstance(fits, Mapping) else fits)
    if len(given) < 2:
        count = "one fit" if given else "no fit"
        raise ModelError(
            f"There is {count} to pool. What imputation adds to the variance shows only between "
            "the fits of two or more imputed data sets; 20 or more are a good choice."
        )
    return given


def _check_one_model(fits: Sequence[Fit]) -> None:
    """All fits are of one model to as many rows."""
    first = fits[0]
    for i, fit in enumerate(fits[1:], start=1):
        if fit.kind != first.kind:
            raise ModelError(
                f"fits[{i}] is a {fit.kind} mixed model and fits[0] a {first.kind} one; pooled "
                "fits are of one model."
            )
        ours, theirs = first.frame.formula, fit.frame.formula
        if theirs.response != ours.response:
            raise ModelError(
                f"fits[{i}] has another response, {theirs.response!r}, than fits[0], "
                f"{ours.response!r}; pooled fits are of one model."
            )
        parts = [(f.fixed, f.intercept, f.random, f.offsets) for f in (ours, theirs)]
        if parts[0] != parts[1]:
            raise ModelError(
                f"fits[{i}] has another formula, {theirs.text!r}, than fits[0], {ours.text!r}; "
                "pooled fits are of one model."
            )
        if fit.reml != first.reml:
            by = ["maximum likelihood", "REML"]
            raise ModelError(
                f"fits[{i}] is by {by[fit.reml]} and fits[0] by {by[first.reml]}; fit all by one "
                "criterion."
            )
        if fit.fixef_names != first.fixef_names:
            odd = sorted(set(fit.fixef_names) ^ set(first.fixef_names))
            raise ModelError(
                f"fits[{i}] has other coefficients than fits[0]: {', '.join(odd[:6])} "
                f"{'are' if len(odd) > 1 else 'is'} not in both. Give factors the same levels in "
                "all data sets, and see m.dropped for columns that were left out."
            )
        if fit.nobs != first.nobs:
            raise ModelError(
                f"fits[{i}] has {fit.nobs:,} rows and fits[0] {first.nobs:,}. Imputed data sets "
                "have the same rows; see m.dropped for values that are still missing."
            )
        if [t.columns for t in fit.frame.terms] != [t.columns for t in first.frame.terms]:
            raise ModelError(
                f"The random effects of fits[{i}] have other columns than those of fits[0]; give "
                "factors the same levels in all data sets."
            )
        if _coding(fit) != _coding(first):
            raise ModelError(
                f"A factor is coded otherwise in fits[{i}] than in fits[0], so that coefficients "
                "of one name mean different things; use the same contrasts= for all."
            )
        if is_weighted(fit) != is_weighted(first):
            raise ModelError(
                f"One of fits[0] and fits[{i}] has prior weights and the other none; pooled fits "
                "are of one model."
            )

        _check_residuals(i, fit, first)


def _check_residuals(i: int, fit: Fit, first: Fit) -> None:
    """The response of a fit has the distribution of that of the first, with its structure."""
    theirs, ours = (_arguments(each) for each in (fit, first))
    for name in ("residual", "variance", "sigma", "family", "nagq", "exposure"):
        one, another = theirs.get(name), ours.get(name)
        if one != another:
            raise ModelError(
                f"fits[{i}] has {name}={one!r} and fits[0] {name}={another!r}; pooled fits are of "
                "one model."
            )
    labels = [[p.label for p in reported_residual_parameters(each)] for each in (fit, first)]
    if labels[0] != labels[1]:
        odd = sorted(set(labels[0]) ^ set(labels[1]))
        raise ModelError(
            f"The residuals of fits[{i}] have other parameters than those of fits[0]: "
            f"{', '.join(map(repr, odd[:6]))} {'are' if len(odd) > 1 else 'is'} not in both. Give "
            "factors the same levels in all data sets."
        )


def _family_parameter(fits: Sequence[Fit]) -> float | None:
    """Geometric mean: the logarithm is what is nearly normal; None where there is none."""
    values = [fit.family_value for fit in fits if fit.family_value is not None]
    return float(np.exp(np.mean(np.log(values)))) if values else None


def _arguments(fit: Fit) -> dict[str, Any]:
    """What a fit was asked for that says what model it is of."""
    asked = fit.request
    # Given as values, an exposure is of the rows.
    exposure = asked.exposure if isinstance(asked.exposure, str) else None
    return {
        **residual_arguments(fit),
        "sigma": asked.sigma,
        "family": asked.family,
        "nagq": asked.nagq,
        "exposure": exposure,
    }


def _varcorr(fits: Sequence[Fit], blocks: Sequence[Matrix]) -> VarCorr:
    """Means of variances, and of the other parameters of the residuals."""
    residual = [fit.residual_sigma for fit in fits if fit.residual_sigma is not None]
    sigma = float(np.sqrt(np.mean(np.square(residual)))) if residual else None
    listed = [reported_residual_parameters(fit) for fit in fits]
    means = []
    for own in zip(*listed, strict=True):
        values = np.array([each.value for each in own])
        is_sd = own[0].kind == "sd"
        mean = np.sqrt(np.mean(values**2)) if is_sd else np.mean(values)
        means.append(replace(own[0], value=float(mean)))
    said = []
    if means:
        line = in_line([each.label for each in means], [each.value for each in means])
        heading = residual_blocks_of(fits[0])[0].heading
        said.append(ResidualBlock(heading, (line,)))
    terms = fits[0].frame.terms
    return VarCorr(terms, blocks, sigma, means, said, residual_arguments(fits[0]))


def _coding(fit: Fit) -> list[Any]:
    encoder = fit.frame.fixed_encoder
    coders = () if encoder is None else encoder.coders
    return [
        (coder.name, coder.kind, coder.levels, np.round(coder.contrasts, 12).tolist())
        for coder in coders
    ]


def _variance(fit: Fit, vcov: str, ddf: Any, cluster: Any) -> FixedEffectsVariance:
    number = plain(ddf)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return fixed_effects_variance(fit, vcov, ddf, cluster)
    if not number > 0.0:
        raise ModelError(f"ddf must be a positive number or the name of a method, not {number!r}.")
    own = fixed_effects_variance(fit, vcov, "inf", cluster)
    fixed = FixedDf(float(number))
    return replace(own, df=fixed.df, f_test=fixed.f_test, method=f"{number:g}")


def _method(ddf: Any, variance: FixedEffectsVariance) -> str:
    if not isinstance(plain(ddf), str):
        return f"{float(ddf):g} complete-data degrees of freedom"
    return f"complete data: {variance.method}"


def _notes(fits: Sequence[Fit], method: str, between: Matrix) -> tuple[str, ...]:
    criterion = "REML" if fits[0].reml else "maximum likelihood"
    if fits[0].approximation:
        criterion += f" ({fits[0].approximation})"
    notes = [f"{fits[0].nobs:,} rows in each fit, by {criterion}; {method}"]
    failed = [i for i, fit in enumerate(fits) if not fit.optimum.converged]
    if failed:
        notes.append(f"not converged: {_numbered(failed)}")
    singular = [i for i, fit in enumerate(fits) if fit.optimum.singular]
    if singular:
        notes.append(f"singular: {_numbered(singular)}")
    if not between.any():
        notes.append("all fits have the same estimates: the data sets do not differ")
    learnt = _learnt_otherwise(fits)
    if learnt:
        notes.append(
            f"{', '.join(learnt)} depend on the data set, so that coefficients differ in meaning"
        )
    return tuple(notes)


def _numbered(positions: Sequence[int]) -> str:
    shown = ", ".join(f"fits[{i}]" for i in positions[:8])
    return f"{shown} and {len(positions) - 8} more" if len(positions) > 8 else shown


def _learnt_otherwise(fits: Sequence[Fit]) -> list[str]:
    """Expressions with transforms that learned other numbers from other data, such as scale()."""
    encoders = [fit.frame.fixed_encoder for fit in fits]
    if any(encoder is None for encoder in encoders):
        return []
    states = [
        {coder.name: repr(coder.state) for coder in encoder.coders}
        for encoder in encoders
        if encoder is not None
    ]
    return [name for name in states[0] if any(own[name] != states[0][name] for own in states[1:])]
