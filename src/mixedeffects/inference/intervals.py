"""Confidence intervals for all parameters, by one of three methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, checked_level, plain
from mixedeffects.display.result_table import ResultTable, interval_table
from mixedeffects.display.vocabulary import INTERVAL
from mixedeffects.engine.optimum import SINGULAR
from mixedeffects.engine.parameterisation import StructuredTerm
from mixedeffects.engine.parameters import lower_entries, n_parameters, theta_to_T
from mixedeffects.engine.structures import CovarianceStructure
from mixedeffects.errors import Interrupted, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import generalized
from mixedeffects.fitting.natural import (
    covariance_parameters,
    estimated_parameters,
    natural_parameters,
)
from mixedeffects.fitting.parameter_keys import chosen_positions, parameter_keys
from mixedeffects.fitting.residual_parameters import listed_parameters, residual_of
from mixedeffects.inference.bootstrap import Bootstrap, bootstrap
from mixedeffects.inference.coefficients import coefficient_tests
from mixedeffects.inference.generalized_bootstrap import generalized_bootstrap
from mixedeffects.inference.generalized_profile import generalized_profile
from mixedeffects.inference.profile import Profile
from mixedeffects.inference.profiling import profile
from mixedeffects.inference.satterthwaite import satterthwaite_of
from mixedeffects.inference.variance import check_normal
from mixedeffects.progress import Listener, Then

__all__ = ["confidence_intervals", "wald_variance_intervals"]

Matrix = NDArray[np.float64]
Natural = Callable[[Matrix], Matrix]

_METHODS = ("wald", "profile", "boot")
#: The arguments each method has a use for, and their defaults.
_DEFAULTS = {
    "ddf": ("satterthwaite", "wald"),
    "vcov": ("model", "wald"),
    "cluster": (None, "wald"),
    "n": (1000, "boot"),
    "seed": (None, "boot"),
    "kind": ("percentile", "boot"),
}
#: Step of the differences that give the derivatives of standard deviations and correlations.
_STEP = 1e-6
#: Share of a parameter's derivative along a flat direction that is more than rounding.
_MOVED = 1e-5


def confidence_intervals(
    fit: Fit,
    method: Any,
    parameters: Any,
    level: Any,
    *,
    progress: Any,
    **options: Any,
) -> ResultTable:
    """See `LinearMixedModel.confint`."""
    method = plain(method)
    method = method.lower() if isinstance(method, str) else method
    method = checked_choice(method, "method", tuple(_METHODS))
    ways, defaults = _WAYS[fit.kind], dict(_DEFAULTS)
    if not fit.has_degrees_of_freedom:
        check_normal(options["ddf"])
        options["ddf"] = "inf"
        defaults["ddf"] = ("inf", "wald")
    for name, (default, user) in defaults.items():
        given = options[name]
        # Where none is given, a fit that has a method of its own asks for that.
        default = (
            fit.request.ddf
            if name == "ddf" and isinstance(given, str) and given == fit.request.ddf
            else default
        )
        if user != method and not (given is default or _same(given, default)):
            raise ModelError(f"{name}= is for method {user!r}; {method!r} has no use for it.")
    Listener(progress)
    level = checked_level(level)
    frame = fit.frame
    variances = list(estimated_parameters(fit).index)
    names = parameter_keys(variances, frame.fixef_names)
    chosen = chosen_positions(parameters, names, frame.fixef_names)
    if method == "profile":
        selected = None if len(chosen) == len(names) else [names[i] for i in chosen]

        def of_profile(found: Profile) -> ResultTable:
            return found.confint(level).loc[[names[i] for i in chosen]]  # type: ignore[no-any-return]

        try:
            return of_profile(ways.profile(fit, selected, max(0.95, float(level)), progress))
        except Interrupted as stopped:
            stopped.partial = Then(stopped.partial, of_profile)
            raise
    if method == "boot":

        def of_draws(draws: Bootstrap) -> ResultTable:
            return draws.confint(level, options["kind"]).iloc[chosen]

        try:
            count, seed = options["n"], options["seed"]
            return of_draws(ways.bootstrap(fit, count, seed, None, None, None, progress))
        except Interrupted as stopped:
            stopped.partial = Then(stopped.partial, of_draws)
            raise
    bounds = np.full((len(names), 2), np.nan)
    if any(i < len(variances) for i in chosen):
        bounds[: len(variances)] = ways.wald(fit, float(level))
    if any(i >= len(variances) for i in chosen):
        table = coefficient_tests(fit, options["ddf"], options["vcov"], level, options["cluster"])
        bounds[len(variances) :] = table[list(INTERVAL)].to_numpy()
    unknown = [i for i in chosen if i < len(variances) and np.isnan(bounds[i]).any()]
    more = []
    if unknown and fit.optimum.singular:
        more.append(
            "NaN: on the boundary of the covariances (singular fit) there is no curvature to make "
            "an interval of; method='profile' and 'boot' have one"
        )
    return interval_table(bounds[chosen], [names[i] for i in chosen], level, "Wald", more)


def _same(given: Any, default: Any) -> bool:
    """Whether an argument is its default; arrays never are."""
    return isinstance(given, (str, int)) and given == default


def wald_variance_intervals(fit: Fit, level: float) -> Matrix:
    """Normal intervals on the scales of log sd and Fisher's z, shape (m + 1, 2).

    Of the residuals' parameters also on those of the logarithm of a range and the log odds of a
    nugget; coefficients of the logarithm of a standard deviation stay as they are. The covariance
    is twice the inverse of the observed Hessian of the deviance, or of the REML criterion. Rows of
    a term whose covariance is singular are NaN: there the criterion is not quadratic on any scale.
    So are those of parameters that the data do not determine, and sigma's where the residual
    variance goes to zero, or where it is known.
    """
    curvature = fit.optimum.curvature
    natural, defined = (_of_structures if fit.frame.structured_terms else _of_factors)(fit)
    if fit.residual is not None:
        natural, defined = _with_residuals(fit, natural, defined)
    names = list(covariance_parameters(fit).index)
    scales = np.array([_scale_of(name) for name in names])

    def transformed(values: Matrix) -> Matrix:
        return _on_scales(natural(values), scales)

    here = np.append(curvature.theta, curvature.sigma)
    J = np.empty((len(names), len(here)))
    for j, move in enumerate(_STEP * curvature.directions.T):
        with np.errstate(invalid="ignore"):
            J[:, j] = (transformed(here + move) - transformed(here - move)) / (2.0 * _STEP)
    satterthwaite = satterthwaite_of(fit)
    covariance = satterthwaite.natural_covariance
    bounds = np.full((len(names), 2), np.nan)
    moved = np.abs(J @ satterthwaite.flat.T).max(axis=1, initial=0.0)
    defined = defined & [name not in fit.optimum.undetermined for name in names]
    defined = defined & ~(moved > _MOVED * np.linalg.norm(J, axis=1))
    J, centre = J[defined], transformed(here)[defined]
    error = np.sqrt(np.einsum("ij,jk,ik->i", J, covariance, J))
    half = scipy.stats.norm.ppf(0.5 + level / 2.0) * error
    for column, end in enumerate((centre - half, centre + half)):
        bounds[defined, column] = _from_scales(end, scales[defined])
    return bounds


def _scale_of(name: str) -> str:
    """On which scale the estimate of a parameter is taken to be normal, by its name."""
    kind = name.partition("|")[0].partition("_")[0]
    return {"cor": "z", "nugget": "odds", "logsd": "own", "power": "own"}.get(kind, "log")


def _on_scales(values: Matrix, scales: NDArray[np.str_]) -> Matrix:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(
            np.select(
                [scales == "z", scales == "odds", scales == "own"],
                [np.arctanh(values), scipy.special.logit(values), values],
                np.log(np.abs(values)),
            )
        )


def _from_scales(values: Matrix, scales: NDArray[np.str_]) -> Matrix:
    with np.errstate(over="ignore"):
        return np.asarray(
            np.select(
                [scales == "z", scales == "odds", scales == "own"],
                [np.tanh(values), scipy.special.expit(values), values],
                np.exp(values),
            )
        )


def _with_residuals(
    fit: Fit, random: Natural, defined: NDArray[np.bool_]
) -> tuple[Natural, NDArray[np.bool_]]:
    """The same with the parameters of the residuals, from phi after the entries of T."""
    assert fit.residual is not None
    n_phi = len(fit.residual.phi)

    def natural(values: Matrix) -> Matrix:
        split = len(values) - 1 - n_phi
        phi, sigma = values[split:-1], float(values[-1])
        own = random(np.append(values[:split], sigma))[:-1]
        R = residual_of(fit, phi, sigma)
        assert R is not None
        reported = listed_parameters(R)
        # Sigma as it is reported is that where the columns of D are zero: it moves with phi.
        at_zero = [each.value for each in reported if each.is_sigma]
        of_residuals = [each.value for each in reported if not each.is_sigma]
        return np.concatenate([own, of_residuals, at_zero])

    n_random = len(defined) - 1
    n_residual = len(covariance_parameters(fit)) - len(defined)
    sigma_defined = fit.crossproducts.known_variance is None
    kept = [*defined[:n_random], *([True] * n_residual), sigma_defined]
    return natural, np.array(kept, dtype=np.bool_)


def _of_factors(fit: Fit) -> tuple[Natural, NDArray[np.bool_]]:
    """Natural parameters from the entries of T and sigma, and which have an interval."""
    A, sizes = fit.crossproducts, fit.crossproducts.term_columns
    # A singular fit is differentiated in the user's theta, any other in the fitting basis.
    singular = fit.optimum.singular and fit.residual is None

    def natural(values: Matrix) -> Matrix:
        T = theta_to_T(values[:-1], sizes)
        if not singular:
            scale = np.sqrt(A.basis.weight_scale)
            T = [C @ own / scale for C, own in zip(A.basis.terms, T, strict=True)]
        return natural_parameters(T, float(values[-1]))

    regular = [np.linalg.svd(T, compute_uv=False)[-1] >= SINGULAR for T in fit.optimum.T]
    counts = [n_parameters([k]) for k in sizes]
    return natural, np.append(np.repeat(regular, counts), True)


def _of_structures(fit: Fit) -> tuple[Natural, NDArray[np.bool_]]:
    """The same from the free parameters of covariance structures and sigma."""
    optimum, basis = fit.optimum, fit.crossproducts.basis
    p, eta = optimum.parameterisation, optimum.eta
    assert p is not None and eta is not None
    free = ~p.fixed(eta)

    def natural(values: Matrix) -> Matrix:
        moved, sigma = eta.copy(), float(values[-1])
        moved[free] = values[:-1]
        parts = []
        for term, C, own in zip(p.terms, basis.terms, p.split(moved), strict=True):
            if isinstance(term, StructuredTerm):
                part = term.natural(own)
                part[: term.structure.n_sd] *= sigma
            else:
                T = C @ term.factor(own) / np.sqrt(basis.weight_scale)
                part = natural_parameters([T], sigma)[:-1]
            parts.append(part)
        return np.append(np.concatenate(parts), sigma)

    return natural, np.append(free & ~p.null(eta), not optimum.residual_vanishes)


def _of_joint_hessian(fit: Fit, level: float) -> Matrix:
    """Normal intervals of a generalized fit, shape (number of parameters, 2).

    On the scales of log sd, Fisher's z and the family parameter's search, from the joint Hessian.
    Rows of a term whose covariance is singular are NaN.
    """
    record = generalized(fit)
    joint = record.found.joint
    m, covariance = joint.n_covariance, joint.covariance
    centre, rows, defined, is_z = [], [], [], []
    basis, structured = fit.crossproducts.basis, fit.optimum.parameterisation
    for t, (C, T, D) in enumerate(zip(basis.terms, fit.optimum.T, joint.directions, strict=True)):
        S, change = C @ T @ T.T @ C.T, C @ D @ C.T
        regular = np.linalg.svd(T, compute_uv=False)[-1] >= SINGULAR
        term = None if structured is None else structured.terms[t]
        for i, j in _entries(len(C), term.structure if isinstance(term, StructuredTerm) else None):
            with np.errstate(divide="ignore", invalid="ignore"):
                of_log = [change[:, a, a] / (2.0 * S[a, a]) for a in (i, j)]
                if i == j:
                    centre.append(0.5 * np.log(S[i, i]))
                    rows.append(of_log[0])
                else:
                    r = S[i, j] / np.sqrt(S[i, i] * S[j, j])
                    centre.append(np.arctanh(r))
                    own = change[:, i, j] / np.sqrt(S[i, i] * S[j, j]) - r * (of_log[0] + of_log[1])
                    rows.append(own / (1.0 - r**2))
            is_z.append(i != j)
            defined.append(regular)
    J = np.array(rows).reshape(len(rows), m)
    with np.errstate(invalid="ignore"):
        error = np.sqrt(np.einsum("ij,jk,ik->i", J, covariance[:m, :m], J))
        half = scipy.stats.norm.ppf(0.5 + level / 2.0) * error
        ends = np.array(centre)[:, None] + np.column_stack([-half, half])
        bounds = np.where(np.array(is_z)[:, None], np.tanh(ends), np.exp(ends))
    bounds[~np.array(defined)] = np.nan
    if record.search_phi is None:
        return np.asarray(bounds)
    reach = scipy.stats.norm.ppf(0.5 + level / 2.0) * np.sqrt(covariance[-1, -1])
    own = [record.family.natural(record.search_phi + side * reach) for side in (-1.0, 1.0)]
    return np.vstack([bounds, np.sort(own)])


def _entries(k: int, structure: CovarianceStructure | None) -> list[tuple[int, int]]:
    """Rows and columns of Sigma that the reported parameters of a term are read from."""
    if structure is None:
        rows, columns = lower_entries(k)
        return list(zip(rows.tolist(), columns.tolist(), strict=True))
    found = [(j, j) for j in range(structure.n_sd)]
    return found + ([(1, 0)] if structure.has_correlation else [])


@dataclass(frozen=True)
class _Ways:
    """How the intervals of a kind of fit are made."""

    wald: Callable[[Fit, float], Matrix]
    profile: Callable[..., Profile]
    bootstrap: Callable[..., Bootstrap]


_WAYS = {
    "linear": _Ways(wald_variance_intervals, profile, bootstrap),
    "generalized": _Ways(_of_joint_hessian, generalized_profile, generalized_bootstrap),
}
