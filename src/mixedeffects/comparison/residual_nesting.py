"""Whether one covariance structure of residuals is a case of another.

Some families are linear in their parameters: independent residuals, ``us``, and ``cs`` and ``toep``
with one variance. Then it is enough that matrices of the smaller family, at several
values of its parameters, are combinations of those of the larger; that also finds what random
effects add, such as an intercept within ``cs``. For the others there is a table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.covariance.of_fit import structured_residual_of
from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.residual_assembly import deviation_columns
from mixedeffects.frame.residual_term import ResidualTerm

__all__ = [
    "contains_residual",
    "independent_elements",
    "is_linear",
    "linear_elements",
    "residual_groupings",
    "same_residual",
    "sampled_residuals",
]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]

#: Correlations that are cases of each structure, besides none at all.
_CASES = {
    "diag": {"diag"},
    "cs": {"cs"},
    "ar1": {"ar1", "car1", "exp"},
    "car1": {"car1", "exp"},
    "ante": {"ante", "ar1", "car1", "exp"},
    "toep": {"toep", "ar1", "cs", "car1", "exp"},
    "us": {"us", "toep", "ar1", "cs", "ante", "car1", "exp"},
    "exp": {"exp", "car1"},
    "gau": {"gau"},
}
#: Structures that do not ask where in its group a row is.
_NO_POSITION = {"diag", "cs"}
#: Values of the smaller family's parameters that are tried, besides the estimates.
_DRAWS = 3
#: Size of the changes of the parameters, without bounds, from the estimates.
_CHANGE = 0.1
#: Relative length of what a projection leaves that counts as rounding.
_ROUNDING = 1e-8


def residual_groupings(fit: Fit) -> tuple[ResidualTerm, ...]:
    """The residual groups of a model with ``residual=``."""
    return () if fit.frame.residual is None else (fit.frame.residual,)


def same_residual(one: Fit, other: Fit) -> bool:
    """Whether two models have the same covariance structure of the residuals."""
    known = one.request.sigma == other.request.sigma
    return known and contains_residual(one, other) and contains_residual(other, one)


def is_linear(fit: Fit) -> bool:
    """Whether R is linear in its parameters, and sigma squared."""
    term, variance = fit.frame.residual, fit.frame.variance
    if variance is not None:
        return False
    if term is None:
        return True
    if term.kind == "diag":
        return not term.homogeneous
    return term.kind == "us" or (term.kind in ("cs", "toep") and term.homogeneous)


def independent_elements(fit: Fit, i: Positions, j: Positions) -> Matrix:
    """Elements (i, j) of R without structure, shape (number of pairs, 1)."""
    weights = fit.frame.weights
    return np.asarray((i == j) / (1.0 if weights is None else weights[i]))[:, None]


def linear_elements(fit: Fit, i: Positions, j: Positions) -> Matrix:
    """Elements (i, j) of the matrices that R is a combination of, one a column."""
    term, weights = fit.frame.residual, fit.frame.weights
    if term is None:
        return independent_elements(fit, i, j)
    scale = 1.0 if weights is None else 1.0 / np.sqrt(weights[i] * weights[j])
    together = np.asarray((term.codes[i] == term.codes[j]) * scale)
    stratum = np.zeros(fit.nobs, dtype=np.int64) if term.stratum is None else term.stratum
    if term.kind == "cs":
        which = (i != j).astype(np.int64)
    else:
        assert term.steps is not None
        a, b = term.steps[i], term.steps[j]
        if term.kind == "toep":
            which = np.abs(a - b)
        elif term.kind == "us":
            which = np.minimum(a, b) * term.n_times + np.maximum(a, b)
            if term.homogeneous:
                which = np.where(a == b, 0, which)
        else:
            which = a
            together = together * (i == j)
    cell = stratum[i].astype(np.int64) * (int(which.max(initial=0)) + 1) + which
    _, cell = np.unique(cell, return_inverse=True)
    return np.asarray((cell.reshape(-1)[:, None] == np.arange(cell.max() + 1)) * together[:, None])


def sampled_residuals(fit: Fit, i: Positions, j: Positions, rng: np.random.Generator) -> Matrix:
    """Elements (i, j) of R at the estimates and at some other parameters, one a column."""
    R, residual = structured_residual_of(fit), fit.residual
    if R is None or residual is None:
        return independent_elements(fit, i, j)
    model, columns = residual.model, [R.of_pairs(i, j)]
    centre = model.unbounded(residual.phi)
    for _ in range(_DRAWS):
        change = _CHANGE * rng.standard_normal(len(centre))
        while True:
            phi = model.bounded(centre + change)[0]
            other = StructuredResidual(model, phi, R.sigma, R.weight_scale, R.term, R.variance)
            try:
                columns.append(other.of_pairs(i, j))
            except np.linalg.LinAlgError:
                change = 0.5 * change
                continue
            break
    return np.column_stack(columns)


def contains_residual(large: Fit, small: Fit) -> bool:
    """Whether the structure of the residuals of ``small`` is a case of that of ``large``."""
    return _contains_correlation(large.frame.residual, small.frame.residual) and (
        _contains_deviations(large, small)
    )


def _contains_correlation(large: ResidualTerm | None, small: ResidualTerm | None) -> bool:
    if large is not None and large.given is not None:
        if small is None or small.given is None:
            return False
        return bool(abs(large.given - small.given).max() == 0.0)
    if small is None or small.kind == "diag":
        return True
    if large is None or small.kind not in _CASES[large.kind]:
        return False
    if small.nugget and not large.nugget:
        return False
    if not (_finer(large.codes, small.codes) and _finer(small.codes, large.codes)):
        return False
    if small.stratum is not None and (
        large.stratum is None or not _finer(large.stratum, small.stratum)
    ):
        return False
    if small.kind in _NO_POSITION:
        return True
    a, b = _where(large), _where(small)
    if a.shape != b.shape:
        return False
    if large.kind == "us" and small.kind == "us":
        return _finer(a[:, 0], b[:, 0])
    return bool(np.allclose(a - a[0], b - b[0]))


def _where(term: ResidualTerm) -> Matrix:
    if term.coordinates is not None:
        return np.asarray(term.coordinates, dtype=np.float64)
    assert term.steps is not None
    return term.steps[:, None].astype(np.float64)


def _finer(fine: NDArray[np.generic], coarse: NDArray[np.generic]) -> bool:
    """Whether rows with one value in the first have one value in the second."""
    _, first = np.unique(fine, return_inverse=True)
    _, second = np.unique(coarse, return_inverse=True)
    parent = np.zeros(int(first.max(initial=0)) + 1, dtype=np.int64)
    parent[first.reshape(-1)] = second.reshape(-1)
    return bool((parent[first.reshape(-1)] == second.reshape(-1)).all())


def _contains_deviations(large: Fit, small: Fit) -> bool:
    """Whether the logarithms of standard deviations of one are among those of the other."""
    available, wanted = _log_deviations(large), _log_deviations(small)
    length = np.linalg.norm(wanted, axis=0)
    solution = np.linalg.lstsq(available, wanted, rcond=1e-12)[0]
    left = np.linalg.norm(wanted - available @ solution, axis=0)
    return bool((left <= _ROUNDING * np.where(length > 0.0, length, 1.0)).all())


def _log_deviations(fit: Fit) -> Matrix:
    """What the logarithms of standard deviations are linear in, the constant included."""
    term, variance = fit.frame.residual, fit.frame.variance
    parts = [np.ones((fit.nobs, 1))]
    if term is not None and term.kind == "us" and not term.homogeneous:
        assert term.steps is not None
        stratum = np.zeros(fit.nobs, dtype=np.int64) if term.stratum is None else term.stratum
        _, cell = np.unique(
            stratum.astype(np.int64) * term.n_times + term.steps, return_inverse=True
        )
        parts.append((cell.reshape(-1)[:, None] == np.arange(cell.max() + 1)).astype(np.float64))
    elif term is not None:
        parts.append(deviation_columns(term))
    if variance is not None:
        parts.append(variance.v)
    return np.hstack(parts)
