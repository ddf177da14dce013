"""Variance parameters as people report them: standard deviations, correlations and sigma."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.engine.optimum import Optimum
from mixedeffects.engine.parameterisation import StructuredTerm
from mixedeffects.engine.parameters import lower_entries
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.parameter_keys import distinct
from mixedeffects.fitting.residual_parameters import reported_residual_parameters
from mixedeffects.frame.model_frame import RandomTerm

__all__ = [
    "covariance_parameters",
    "estimated_parameters",
    "natural_parameters",
    "parameter_names",
    "reported_parameters",
    "structure_parameters",
    "structures_at_bounds",
]

Matrix = NDArray[np.float64]


def parameter_names(terms: Sequence[RandomTerm]) -> list[str]:
    """Names in lme4's manner and in the order of theta, ``sigma`` last.

    ``sd_Days|Subject`` is a standard deviation, ``cor_Days.(Intercept)|Subject`` a correlation.
    """
    names = []
    for term in terms:
        columns = term.columns
        for row, column in zip(*lower_entries(len(columns)), strict=True):
            if row == column:
                names.append(f"sd_{columns[row]}|{term.label}")
            else:
                names.append(f"cor_{columns[row]}.{columns[column]}|{term.label}")
    return [*distinct(names), "sigma"]


def natural_parameters(T: Sequence[Matrix], sigma: Matrix | float) -> Matrix:
    """Standard deviations, correlations and sigma from relative factors.

    Parameters
    ----------
    T : sequence of ndarray (..., k, k)
        Lower-triangular relative covariance factors, one per term; leading axes are draws.
    sigma : float or ndarray (...,)
        Residual standard deviations.

    Returns
    -------
    ndarray, shape (..., m + 1)
        In the order of `parameter_names`; a correlation beside a zero standard deviation is NaN.
    """
    sigma = np.asarray(sigma, dtype=np.float64)
    parts = []
    for factor in T:
        size = np.linalg.norm(factor, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = factor / size[..., None]
        correlation = np.clip(unit @ np.swapaxes(unit, -1, -2), -1.0, 1.0)
        rows, columns = lower_entries(factor.shape[-1])
        values = correlation[..., rows, columns]
        on_diagonal = rows == columns
        values[..., on_diagonal] = size * sigma[..., None]
        parts.append(values)
    return np.concatenate([*parts, sigma[..., None]], axis=-1)


def covariance_parameters(fit: Fit) -> pd.Series:
    """The parameters that were estimated, as `reported_parameters` has them.

    With ``residual=`` or ``variance=`` those of R, named ``|Residual``, are before sigma. Where
    random effects are on the scale of a link there is no sigma.
    """
    own = reported_parameters(fit.frame.terms, fit.T, fit.working_sigma, fit.optimum)
    if fit.residual_sigma is None:
        return pd.Series(own.iloc[:-1])
    # The one that others are relative to is sigma.
    of_residuals = [each for each in reported_residual_parameters(fit) if not each.is_sigma]
    if not of_residuals:
        return own
    names = [*own.index[:-1], *(each.name for each in of_residuals)]
    values = [*own.iloc[:-1], *(each.value for each in of_residuals), fit.sigma]
    return pd.Series(values, index=[*distinct(names), "sigma"], name="Estimate")


def estimated_parameters(fit: Fit) -> pd.Series:
    """`covariance_parameters`, and last the parameter of the family where one was estimated."""
    own = covariance_parameters(fit)
    if fit.family_parameter is None:
        return own
    names = distinct([*(str(name) for name in own.index), fit.family_parameter])
    return pd.Series([*own, fit.family_value], index=names, name="Estimate")


def reported_parameters(
    terms: Sequence[RandomTerm], T: Sequence[Matrix], sigma: float, optimum: Optimum
) -> pd.Series:
    """The parameters that were estimated, on their natural scales; sigma last.

    Parameters
    ----------
    terms : sequence of RandomTerm
        The random-effects terms.
    T : sequence of ndarray (k, k)
        Their lower-triangular relative factors.
    sigma : float
        Residual standard deviation.
    optimum : Optimum
        Where the parameters of covariance structures are.

    Returns
    -------
    Series
        For a term without structure as `natural_parameters`. For one with a structure its own:
        ``sd_x|g`` for each column or ``sd|g`` for all of them, and ``cor|g``.
    """
    names: list[str] = []
    values: list[float] = []
    parameterisation, eta = optimum.parameterisation, optimum.eta
    for t, (term, factor) in enumerate(zip(terms, T, strict=True)):
        own = None if parameterisation is None else parameterisation.terms[t]
        if not isinstance(own, StructuredTerm) or parameterisation is None or eta is None:
            names += parameter_names([term])[:-1]
            values += natural_parameters([factor], sigma)[:-1].tolist()
            continue
        structure = own.structure
        natural = own.natural(parameterisation.split(eta)[t])
        natural[: structure.n_sd] *= sigma
        natural[structure.unidentified(natural)] = np.nan
        if structure.homogeneous:
            names.append(f"sd|{term.label}")
        else:
            names += [f"sd_{column}|{term.label}" for column in term.columns]
        if structure.has_correlation:
            names.append(f"cor|{term.label}")
        values += natural.tolist()
    return pd.Series([*values, sigma], index=[*distinct(names), "sigma"], name="Estimate")


def structures_at_bounds(terms: Sequence[RandomTerm], optimum: Optimum) -> list[str]:
    """In words, the parameters of covariance structures that are at a bound.

    Parameters
    ----------
    terms : sequence of RandomTerm
        The random-effects terms.
    optimum : Optimum
        Of the fit.
    """
    p, eta = optimum.parameterisation, optimum.eta
    if p is None or eta is None:
        return []
    found = []
    for term, own, values in zip(terms, p.terms, p.split(eta), strict=True):
        if not isinstance(own, StructuredTerm):
            continue
        structure = own.structure
        columns = [""] if structure.homogeneous else [f"_{column}" for column in term.columns]
        found += [
            f"`sd{column}|{term.label}` is zero"
            for column, sd in zip(columns, values[: structure.n_sd], strict=True)
            if sd == 0.0
        ]
        if structure.has_correlation and not structure.unidentified(values)[-1]:
            found += [
                f"`cor|{term.label}` is at the {end} end of its range, {bound:.3g}"
                for end, bound in zip(("lower", "upper"), structure.correlation_range, strict=True)
                if values[-1] == bound
            ]
    return found


def structure_parameters(parameters: pd.Series, label: str) -> list[tuple[str, str, float]]:
    """What one structured term has among `covariance_parameters`.

    Parameters
    ----------
    parameters : Series
        As `covariance_parameters` names them.
    label : str
        Label of the term.

    Returns
    -------
    list of (kind, column, value)
        The kind is ``"sd"`` or ``"cor"``; the column is empty for what is common to all columns.
    """
    found = []
    for name, value in parameters.items():
        head = str(name).removesuffix(f"|{label}")
        if head != name:
            kind, _, column = head.partition("_")
            found.append((kind, column, float(value)))
    return found
