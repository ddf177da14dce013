"""A fit as plain data, for JSON: one schema for `LinearMixedModel.to_dict` and the command line.

Version 1 of the schema has these keys. Numbers are in full precision; one that is not finite is
null. Keys may be added within a version; none is renamed, removed or given another meaning.

============================ =====================================================================
schema, schema_version       ``"mixedeffects.fit"`` and 1
mixedeffects                 version that wrote it
kind                         ``"linear"`` or ``"generalized"``
formula, data, reml          text of the formula; name of the data or null; true for REML
nobs, ngroups                rows used; levels of each grouping factor
criterion, loglik, aic, bic  REML criterion or -2 log-likelihood, as lme4 defines them
n_parameters, df_residual    fixed effects, entries of theta and sigma; rows less these
sigma, theta, theta_names    residual standard deviation; relative covariance parameters
singular, converged          true or false; not converged also where parameters are undetermined
undetermined                 names of the variance parameters that the data do not determine
evaluations                  of the objective with its gradient
optimum                      ``evaluations``, ``iterations``, ``gradient_norm``, ``message`` and
                             ``certificate``: its numbers and whether it ``holds``; ``reasons``,
                             in sentences, why parameters are undetermined; ``limits``: in
                             which directions the likelihood has no maximum
tests                        how ``vcov`` and the degrees of freedom were computed, in words
coefficients                 by name: ``Estimate``, ``Std. Error``, ``df``, ``t value``,
                             ``Pr(>|t|)`` (``z value`` and ``Pr(>|z|)`` for generalized models)
                             and the bounds of the interval; if two have the name ``x``, they
                             are ``x (1)`` and ``x (2)``
vcov                         covariance matrix of the fixed effects, rows in their order
varcorr                      by term: covariance matrix of its effects
random_effects               one object a term: ``term``, ``group``, ``levels`` (their number),
                             ``columns``, ``structure`` (``us`` is any covariance), ``sd``,
                             ``correlation``
covariance_parameters        the parameters estimated, by the names of ``m.covariance_parameters``
residual                     null where residuals are independent, of one variance; else
                             ``structure``, ``variance``: text as for `lmer`; ``sigma_known``;
                             ``parameters``: by the names of ``m.R.parameters``
family                       null for linear models; else ``name``, ``link``, ``parameter`` (its
                             name or null), ``value``, ``estimated``; ``nagq``, quadrature points
                             per random effect, 1 for Laplace's approximation; ``shift``: by
                             how much -2 log L by more points differs, null where that is not
                             known; ``levels``: failure and success, or null; ``trials``,
                             ``weights``, ``offset``, ``exposure``: names of columns, or null
dropped                      ``rows`` (number), ``missing_by_column``, ``columns``,
                             ``unused_levels``
rows_dropped,                the number of rows and the names of columns once more
columns_dropped
ranef                        if asked for, by grouping factor: ``levels``, ``columns`` and
                             ``values``, a row for each level
robust                       if asked for on the command line: ``kind``, ``cluster``,
                             ``n_clusters``, ``repaired``, ``coefficients``, ``vcov``
effects                      if asked for on the command line, one object each: ``variables``,
                             ``response``, ``level``, ``notes``, and ``rows``: the points with
                             ``estimate``, ``std_error``, ``df``, ``conf_low``, ``conf_high``
============================ =====================================================================
"""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixedeffects.base.files import check_place, target_path, write_text_whole
from mixedeffects.base.options import checked_flag
from mixedeffects.covariance.of_fit import varcorr_of
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.fitting.natural import covariance_parameters
from mixedeffects.fitting.parameter_keys import distinct
from mixedeffects.fitting.residual_parameters import reported_residual_parameters
from mixedeffects.fitting.theta import theta_names
from mixedeffects.inference.cluster_robust import RobustCovariance
from mixedeffects.inference.coefficients import tests_with
from mixedeffects.inference.conditional import conditional_modes
from mixedeffects.inference.variance_by_name import fixed_effects_variance
from mixedeffects.reporting.generalized_tables import quadrature_check

if TYPE_CHECKING:
    from mixedeffects.diagnostics.check_result import ModelChecks
    from mixedeffects.inference.effects import Effects
    from mixedeffects.inference.score_robust import ScoreRobustCovariance

__all__ = [
    "SCHEMA",
    "SCHEMA_VERSION",
    "checks_document",
    "effects_document",
    "fit_document",
    "json_text",
    "robust_document",
    "write_json",
]

SCHEMA = "mixedeffects.fit"
SCHEMA_VERSION = 1


def fit_document(
    fit: Fit,
    ddf: str = "satterthwaite",
    vcov: str = "model",
    cluster: Any = None,
    ranef: bool = False,
) -> dict[str, Any]:
    """The document of a fit; see `LinearMixedModel.to_dict`."""
    ranef = checked_flag(ranef, "ranef")
    variance = fixed_effects_variance(fit, vcov, ddf, cluster)
    optimum, dropped = fit.optimum, fit.frame.dropped
    document = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "mixedeffects": version("mixedeffects"),
        "kind": fit.kind,
        "formula": fit.formula,
        "data": fit.request.data_name,
        "reml": bool(fit.reml),
        "nobs": fit.nobs,
        "ngroups": fit.ngroups,
        "criterion": fit.criterion,
        "loglik": fit.loglik,
        "aic": fit.aic,
        "bic": fit.bic,
        "n_parameters": fit.n_parameters,
        "df_residual": fit.df_resid,
        "sigma": fit.sigma,
        "theta": fit.theta,
        "theta_names": theta_names(fit.frame.terms),
        "singular": bool(fit.optimum.singular),
        "converged": bool(fit.optimum.converged),
        "undetermined": list(optimum.undetermined),
        "evaluations": optimum.evaluations,
        "optimum": {
            "evaluations": optimum.evaluations,
            "iterations": optimum.iterations,
            "gradient_norm": optimum.gradient_norm,
            "message": optimum.message,
            "reasons": list(optimum.reasons),
            "limits": list(optimum.limits),
            "certificate": {
                "relative_gradient": optimum.certificate.relative_gradient,
                "predicted_decrease": optimum.certificate.predicted_decrease,
                "null_score": optimum.certificate.null_score,
                "smallest_curvature": optimum.certificate.smallest_curvature,
                "curvature_rounding": optimum.certificate.curvature_rounding,
                "holds": optimum.certificate.holds,
            },
        },
        "tests": variance.method,
        "coefficients": _rows(tests_with(fit, variance, 0.95)),
        "vcov": variance.vcov,
        "varcorr": {label: varcorr_of(fit)[label].to_numpy() for label in varcorr_of(fit)},
        "random_effects": [
            {
                "term": term.label,
                "group": term.group,
                "levels": term.n_levels,
                "columns": list(term.columns),
                "structure": term.structure,
                "sd": varcorr_of(fit).sd(term.label).to_numpy(),
                "correlation": varcorr_of(fit).corr(term.label).to_numpy(),
            }
            for term in fit.frame.terms
        ],
        "covariance_parameters": covariance_parameters(fit).to_dict(),
        "residual": _residual(fit),
        "family": _family(fit),
        "dropped": {
            "rows": len(dropped.rows),
            "missing_by_column": dropped.missing_by_column,
            "columns": list(dropped.columns),
            "unused_levels": dropped.unused_levels,
        },
        "rows_dropped": len(dropped.rows),
        "columns_dropped": list(dropped.columns),
    }
    if ranef:
        document["ranef"] = {
            group: {
                "levels": list(modes.index.astype(str)),
                "columns": list(modes.columns),
                "values": modes.to_numpy(),
            }
            for group, modes in conditional_modes(fit).items()
        }
    return _plain_mapping(document)


def _residual(fit: Fit) -> dict[str, Any] | None:
    """The covariance of the residuals."""
    if fit.residual is None:
        return None
    term, variance = fit.frame.residual, fit.frame.variance
    parameters = reported_residual_parameters(fit)
    return {
        "structure": None if term is None else term.text,
        "variance": None if variance is None else variance.text,
        "sigma_known": fit.request.sigma is not None,
        "parameters": {each.label: each.value for each in parameters},
    }


def _family(fit: Fit) -> dict[str, Any] | None:
    """The distribution of the response, where it is not a linear model's."""
    if not isinstance(fit, GeneralizedFit):
        return None
    family, asked = fit.family, fit.request
    check = quadrature_check(fit)
    roles = {
        "trials": asked.weights if fit.frame.has_trials else None,
        "weights": None if fit.frame.has_trials else asked.weights,
        "offset": asked.offset,
        "exposure": asked.exposure,
    }
    return {
        "name": family.name,
        "link": family.link.name,
        "parameter": family.parameter_name or None,
        "value": family.natural(fit.search_phi) if family.parameter_name else None,
        "estimated": bool(family.has_parameter),
        "nagq": fit.nagq,
        "shift": None if check is None else check.shift,
        "levels": list(fit.frame.response_levels) or None,
        **{role: given if isinstance(given, str) else None for role, given in roles.items()},
    }


def robust_document(robust: RobustCovariance | ScoreRobustCovariance) -> dict[str, Any]:
    """The part of the document about a cluster-robust covariance."""
    return _plain_mapping(
        {
            "kind": robust.kind,
            "cluster": list(robust.cluster),
            "n_clusters": list(robust.n_clusters),
            "repaired": isinstance(robust, RobustCovariance) and bool(robust.repaired),
            "coefficients": _rows(robust.table),
            "vcov": robust.vcov.to_numpy(),
        }
    )


def effects_document(effects: Effects) -> dict[str, Any]:
    """The part of the document about the effects of some variables."""
    return _plain_mapping(
        {
            "variables": [*effects.variables, *effects.by],
            "response": effects.response,
            "level": effects.level,
            "notes": list(effects.notes),
            "rows": [
                {str(name): value for name, value in row.items()}
                for row in effects.to_frame().to_dict("records")
            ],
        }
    )


def checks_document(checks: ModelChecks) -> list[dict[str, Any]]:
    """The part of the document about checks: one entry a verdict."""
    plain = _plain_mapping({"checks": checks.to_frame().to_dict("records")})
    return list(plain["checks"])


def json_text(document: dict[str, Any]) -> str:
    """JSON that every reader takes: no NaN or Infinity, which are no JSON."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def write_json(document: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the document as a file, whole or not at all.

    Raises
    ------
    DataError
        If the path is a folder, or in none.
    FileError
        If the file cannot be written.
    """
    target = target_path(path)
    check_place(target)
    write_text_whole(target, json_text(document) + "\n")


def _rows(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    named = table.set_axis(distinct([str(name) for name in table.index]))
    return {
        str(name): {str(column): value for column, value in row.items()}
        for name, row in named.iterrows()
    }


def _plain_mapping(values: dict[str, Any]) -> dict[str, Any]:
    return {str(key): _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    """Lists, dicts, text, integers and finite numbers only."""
    if isinstance(value, dict):
        return _plain_mapping(value)
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(each) for each in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value
