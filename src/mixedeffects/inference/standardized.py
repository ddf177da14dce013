"""Standardised coefficients: in standard deviations of the response per one of the predictor."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, checked_flag, checked_level
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.vocabulary import BROOM, INTERVAL
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.fitting import fit_formula
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.fitting.generalized.assembly import generalized_design
from mixedeffects.fitting.generalized.fitting import fit_generalized_frame
from mixedeffects.fitting.residual_fitting import fit_residual_frame
from mixedeffects.formula.syntax import (
    Binary,
    Call,
    Name,
    Node,
    Number,
    Unary,
    variable_names,
    walk,
)
from mixedeffects.frame import build_model_frame
from mixedeffects.inference.coefficients import coefficient_tests
from mixedeffects.inference.contrasts import listed_names
from mixedeffects.inference.ratios import exponentiated, ratio_of

__all__ = ["generalized_standardized", "standardized_coefficients"]

Matrix = NDArray[np.float64]

_METHODS = ("refit", "basic", "pseudo")
#: Calls whose value is defined for a standardised column, whatever it is.
_HARMLESS = ("I", "poly", "scale", "center", "ns", "bs", "cr", "cc")
#: Spread within clusters, relative to a column's own, that is no more than rounding.
_WITHIN = 1e-8


def standardized_coefficients(
    fit: Fit,
    method: Any,
    two_sd: Any,
    include_response: Any,
    ddf: str,
    vcov: str,
    cluster: Any,
    level: float,
) -> ResultTable:
    """See `LinearMixedModel.standardize`."""
    method = checked_choice(method, "method", _METHODS)
    two_sd = checked_flag(two_sd, "two_sd")
    include_response = checked_flag(include_response, "include_response")
    level = checked_level(level)
    if method == "refit":
        scaled = _refitted(fit, two_sd, include_response)
        table = coefficient_tests(scaled, ddf, vcov, level, _cluster(fit, cluster))
        return _named(_multiplied(table, np.ones(len(table))), table.notes)
    predictor, response = _deviations(fit) if method == "basic" else _by_level(fit)
    if not include_response:
        response = np.ones(len(predictor))
    factor = predictor * (2.0 if two_sd else 1.0) / response
    table = coefficient_tests(fit, ddf, vcov, level, cluster)
    return _named(_multiplied(table, factor), table.notes)


def generalized_standardized(
    fit: GeneralizedFit,
    method: Any,
    two_sd: Any,
    vcov: str,
    cluster: Any,
    level: float,
    exponentiate: Any,
) -> ResultTable:
    """See `GeneralizedLinearMixedModel.standardize`."""
    method = checked_choice(method, "method", _METHODS)
    two_sd, level = checked_flag(two_sd, "two_sd"), checked_level(level)
    if checked_flag(exponentiate, "exponentiate"):
        ratio_of(fit)
    if method == "pseudo":
        raise ModelError(
            "method='pseudo' divides by standard deviations of the response within and between "
            "clusters, and the response of a generalized model stays as it is. Use method='refit' "
            "or 'basic'."
        )
    if method == "refit":
        scaled = _generalized_refit(fit, two_sd)
        table = coefficient_tests(scaled, "inf", vcov, level, _cluster(fit, cluster))
        factor = np.ones(len(table))
    else:
        table = coefficient_tests(fit, "inf", vcov, level, cluster)
        factor = _spreads(fit, fit.prior_weights) * (2.0 if two_sd else 1.0)
    multiplied = _multiplied(table, factor)
    return _named(exponentiated(multiplied) if exponentiate else multiplied, table.notes)


def _multiplied(table: ResultTable, factor: Matrix) -> pd.DataFrame:
    """With each coefficient, its error and its interval times a number."""
    out = pd.DataFrame(table)
    scaled = ["Estimate", "Std. Error", *INTERVAL]
    out[scaled] = out[scaled].mul(factor, axis=0)
    return out


def _named(table: pd.DataFrame, notes: tuple[str, ...]) -> ResultTable:
    named = table.rename(columns=BROOM)
    named.insert(0, "term", list(table.index))
    return ResultTable.of(named.reset_index(drop=True), notes)


# --- after the fit ---------------------------------------------------------------------


def _deviations(fit: Fit) -> tuple[Matrix, Matrix]:
    """Standard deviations of the columns of X and, for each, of the response."""
    predictor = _spreads(fit, fit.frame.weights)
    return predictor, np.full(len(predictor), _sd(fit.frame.y, fit.frame.weights))


def _spreads(fit: Fit, weights: Matrix | None) -> Matrix:
    """Standard deviations of the columns of X."""
    out = np.array([_sd(column, weights) for column in fit.frame.X.T])
    # An intercept has nothing to be standardised by.
    out[np.ptp(fit.frame.X, axis=0) == 0.0] = np.nan
    return out


def _by_level(fit: Fit) -> tuple[Matrix, Matrix]:
    """Those of the level on which each column varies.

    Columns that vary within clusters go with the response's variance within them, the others, by
    their value in each cluster, with that between.
    """
    if fit.residual is not None:
        raise ModelError(
            "method='pseudo' takes the response's variances within clusters and between them from "
            "a model with independent residuals, and this model has `residual=` or `variance=`. "
            "Use method='refit' or 'basic'."
        )
    groups = {term.group for term in fit.frame.terms}
    if len(groups) != 1:
        raise ModelError(
            "method='pseudo' takes each coefficient by its level, within clusters or between, and "
            f"needs one grouping factor; there are {listed_names(sorted(groups))}. Use "
            "method='refit' or 'basic'."
        )
    frame, codes = fit.frame, fit.frame.terms[0].codes
    within, between = _null_model(fit)
    count = np.bincount(codes).astype(np.float64)
    predictor, response = np.empty(frame.X.shape[1]), np.empty(frame.X.shape[1])
    for j, column in enumerate(frame.X.T):
        means = np.bincount(codes, column) / count
        size = _sd(column, None)
        varies = np.abs(column - means[codes]).max() > _WITHIN * max(size, np.abs(column).max())
        predictor[j] = _sd(column, frame.weights) if varies else _sd(means, None)
        response[j] = within if varies else between
    predictor[np.ptp(frame.X, axis=0) == 0.0] = np.nan
    if (response[np.isfinite(predictor)] == 0.0).any():
        raise ModelError(
            "The response does not vary between clusters, so effects between them cannot be "
            "standardised by level; use method='refit' or 'basic'."
        )
    return predictor, response


def _null_model(fit: Fit) -> tuple[float, float]:
    """Standard deviations of the response within and between the clusters."""
    data = pd.DataFrame({"y": fit.frame.y, "g": fit.frame.terms[0].codes.astype(str)})
    null = fit_formula("y ~ 1 + (1 | g)", data, weights=fit.frame.weights, progress=False)
    return null.sigma, float(np.sqrt(null.G_blocks[0][0, 0]))


def _sd(values: Matrix, weights: Matrix | None) -> float:
    """Standard deviation; with weights the unbiased one of reliability weights."""
    if weights is None:
        return float(np.std(values, ddof=1))
    share = weights / weights.sum()
    deviation = values - share @ values
    return float(np.sqrt(share @ deviation**2 / (1.0 - share @ share)))


# --- fitted again ----------------------------------------------------------------------


def _cluster(fit: Fit, cluster: Any) -> Any:
    """Clusters given by row of the data as given, by row of the refit."""
    rows = fit.nobs + len(fit.frame.dropped.rows)
    if isinstance(cluster, (list, tuple)) and len(cluster) == rows:
        return [cluster[i] for i in fit.frame.positions]
    if isinstance(cluster, (np.ndarray, pd.Series)) and cluster.shape == (rows,):
        return np.asarray(cluster)[fit.frame.positions]
    return cluster


def _refitted(fit: Fit, two_sd: bool, include_response: bool) -> Fit:
    """The model of standardised columns, by the same criterion."""
    frame, formula = fit.frame, fit.frame.formula
    if frame.offset is not None:
        raise ModelError(
            "method='refit' cannot standardise a model with an offset, which is in units of the "
            "response; use method='basic'."
        )
    data = frame.data.copy()
    weights = fit.request.weights
    if isinstance(weights, str) and weights in data and weights not in formula.right_variables:
        data = data.drop(columns=weights)
    _standardise(data, _numeric_columns(fit), frame.weights, two_sd)
    tree, text = formula.response_tree, formula.text
    name = tree.name if isinstance(tree, Name) else formula.response
    if not isinstance(tree, Name):
        formula = formula.with_response(name, list(data.columns))
        text = formula.text
    data[name] = _standardised(frame.y, frame.weights) if include_response else frame.y
    if fit.residual is not None:
        # Positions and what variances follow stay in their own units.
        own = build_model_frame(
            text,
            data,
            weights=frame.weights,
            contrasts=fit.request.contrasts,
            inherited=fit.request.inherited,
            without_random=True,
        )
        own = dataclasses.replace(own, residual=frame.residual, variance=frame.variance)
        request = dataclasses.replace(fit.request, data=data, weights=frame.weights)
        return fit_residual_frame(own, fit.reml, request)
    return fit_formula(
        text,
        data,
        reml=fit.reml,
        weights=frame.weights,
        contrasts=fit.request.contrasts,
        inherited=fit.request.inherited,
        control=fit.request.control,
        progress=False,
    )


def _generalized_refit(fit: GeneralizedFit, two_sd: bool) -> GeneralizedFit:
    """The model of standardised predictors: response, trials, weights and offset as they are."""
    frame, formula = fit.frame, fit.frame.formula
    data, numbers = frame.data.copy(), _numeric_columns(fit)
    assert frame.fixed_encoder is not None
    for tree in frame.fixed_encoder.table.offsets:
        both = [name for name in variable_names(tree) if name in numbers]
        if both:
            raise ModelError(
                f"{both[0]!r} is a predictor and in an offset, which keeps its own units, so "
                "method='refit' cannot standardise it; make a copy of the column, or use 'basic'."
            )
    asked = fit.request
    roles = [
        role for role in (asked.weights, asked.offset, asked.exposure) if isinstance(role, str)
    ]
    name = "response"
    while name in data:
        name += "_"
    # Before columns of the data change that the response may be made of.
    text = formula.with_response(name, list(data.columns), roles).text
    _standardise(data, numbers, fit.prior_weights, two_sd)
    data[name] = frame.y
    own = build_model_frame(
        text, data, contrasts=asked.contrasts, inherited=asked.inherited, weights=frame.weights
    )
    own = dataclasses.replace(
        own, response=frame.response, offset=frame.offset, response_levels=frame.response_levels
    )
    request = dataclasses.replace(asked, data=data)
    return fit_generalized_frame(own, generalized_design(own, fit.family), request)


def _standardise(
    data: pd.DataFrame, names: list[str], weights: Matrix | None, two_sd: bool
) -> None:
    """Put standardised columns in place of these."""
    for name in names:
        values = data[name].to_numpy(dtype=np.float64)
        data[name] = _standardised(values, weights) / (2.0 if two_sd else 1.0)


def _standardised(values: Matrix, weights: Matrix | None) -> Matrix:
    size = _sd(values, weights)
    if size == 0.0:
        return values - values[:1]
    return np.asarray((values - np.average(values, weights=weights)) / size)


def _numeric_columns(fit: Fit) -> list[str]:
    """Columns of the data that are numbers in the model."""
    frame = fit.frame
    encoder = frame.fixed_encoder
    coders = () if encoder is None else encoder.coders
    trees = [coder.tree for coder in coders]
    trees += [bar.tree for bar in frame.formula.random]
    groups = {variable for bar in frame.formula.random for variable in bar.variables}
    is_number = {
        str(name): pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        for name, column in frame.data.items()
    }
    numbers: dict[str, None] = {}
    for tree in trees:
        kept = _kept_as_they_are(tree)
        for name in variable_names(tree):
            if is_number.get(name, False) and name not in kept:
                numbers[name] = None
    factors = {name for tree in trees for name in _kept_as_they_are(tree)} | groups
    both = [name for name in numbers if name in factors]
    if both:
        raise ModelError(
            f"{both[0]!r} is a number in one part of the formula and a factor in another, so "
            "method='refit' cannot standardise it; make a copy of the column, or use 'basic'."
        )
    for tree in trees:
        _check_expression(tree, set(numbers))
    return list(numbers)


def _kept_as_they_are(tree: Node) -> set[str]:
    """Names inside factor() and the like."""
    calls = ("factor", "as.factor", "ordered", "C")
    return {
        name
        for node in walk(tree)
        if isinstance(node, Call) and node.function in calls
        for name in variable_names(node)
    }


def _shift(tree: Node) -> str | None:
    """A number that is added to something or taken from it, as it is written."""
    for node in walk(tree):
        if isinstance(node, Binary) and node.operator in ("+", "-"):
            for each in (node.left, node.right):
                if isinstance(each, Number):
                    return each.literal
    return None


def _check_expression(tree: Node, numbers: set[str]) -> None:
    """Refuse functions and comparisons that mean something else of a standardised column."""
    for node in walk(tree):
        odd: str | None = None
        if isinstance(node, Call) and node.function not in (*_HARMLESS, "factor", "as.factor"):
            odd = f"{node.function}()"
        elif isinstance(node, (Binary, Unary)) and node.operator in (
            "<",
            ">",
            "<=",
            ">=",
            "==",
            "!=",
        ):
            odd = f"a comparison, {node.operator}"
        elif isinstance(node, Call) and node.function == "I":
            # What it interacts with would be told at a point far from the data.
            by = _shift(node)
            odd = None if by is None else f"a shift by {by}"
        names = [name for name in variable_names(node) if name in numbers]
        if odd and names:
            raise ModelError(
                f"method='refit' standardises the columns of the data, and the formula has {odd} "
                f"of {names[0]!r}, which would be that of its standardised values. Make it a "
                "column of the data first, take center() in place of a shift, or use "
                "method='basic'."
            )
