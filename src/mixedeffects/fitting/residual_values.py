"""From the parameters of R on natural scales to those of the engine: `residual_parameters` back.

The model is one whose sigma is known, so that D is one where its columns are zero, and every
standard deviation is relative to the first.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import plain
from mixedeffects.engine.residual_families import CompoundSymmetry, Family, Unstructured
from mixedeffects.engine.residual_model import ResidualModel
from mixedeffects.errors import ModelError
from mixedeffects.fitting.residual_parameters import ResidualParameter, listed_parameters
from mixedeffects.frame.rank import independent_columns
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

__all__ = ["engine_parameters", "expected_parameters"]

Matrix = NDArray[np.float64]

#: Names listed in an error at most.
_MOST = 8


@dataclass(frozen=True, eq=False)
class _Expected:
    model: ResidualModel
    phi: Matrix
    sigma: float
    term: ResidualTerm | None
    variance: VarianceTerm | None


def expected_parameters(
    model: ResidualModel, term: ResidualTerm | None, variance: VarianceTerm | None
) -> list[ResidualParameter]:
    """The parameters there are, in the order of `listed_parameters`; their values mean nothing.

    A standard deviation or a coefficient that no row has is NaN: nothing need be given for it.

    Raises
    ------
    ModelError
        If columns of ``variance=`` say the same in all rows.
    """
    _refuse_dependent(model, variance)
    phi = np.zeros(model.n_parameters)
    for family, at in zip(model.families, model.places, strict=False):
        phi[at] = _somewhere(family)
    return listed_parameters(_Expected(model, phi, 1.0, term, variance))


def _somewhere(family: Family) -> Any:
    """Parameters of a family that are possible."""
    if isinstance(family, Unstructured):
        return family.from_matrix(np.eye(family.n_times))
    return [0.0 if name.startswith("cor") else 0.5 for name in family.names]


def _refuse_dependent(model: ResidualModel, variance: VarianceTerm | None) -> None:
    v = model.design.v[:, model.seen]
    kept = independent_columns(np.asfortranarray(v))
    if variance is None or len(kept) == v.shape[1]:
        return
    first = model.design.v.shape[1] - variance.n_columns
    odd = np.setdiff1d(model.seen, model.seen[kept])
    shown = ", ".join(f"`{variance.names[j - first]}`" for j in odd.tolist())
    raise ModelError(
        f"In the rows of this design {shown} of variance={variance.text!r} cannot be told from "
        "the terms before it, or from the standard deviations of times or strata. Leave it out."
    )


def engine_parameters(
    model: ResidualModel,
    parameters: Sequence[ResidualParameter],
    variance: VarianceTerm | None,
    values: Mapping[Any, Any],
    what: str,
) -> tuple[Matrix, float]:
    """The engine's phi, and sigma, from values by the labels of parameters.

    Parameters
    ----------
    model : ResidualModel
        With sigma known.
    parameters : sequence of ResidualParameter
        As `expected_parameters` gives them.
    variance : VarianceTerm or None
        What the variances follow.
    values : mapping of str to float
        By the labels in ``m.R.parameters``.
    what : str
        What the parameters are of: ``"ar1(week | id)"``.

    Raises
    ------
    ModelError
        If a name is missing or not known, or a value is not possible.
    """
    labels = [each.label for each in parameters]
    _check_names(labels, values, what)
    needed = [each for each in parameters if np.isfinite(each.value)]
    missing = [each.label for each in needed if _is_missing(values.get(each.label))]
    if missing:
        raise ModelError(
            f"R has no value for {_listed(missing)}; the parameters of {what} are "
            f"{_listed(labels)}, as `m.R.parameters` of a fit has them."
        )
    n_variance = 0 if variance is None else variance.n_columns
    by_time = model.design.kind == "us" and not model.design.homogeneous
    design = model.design
    n_sd = design.n_times * design.n_strata if by_time else 1 + len(model.v_mean) - n_variance
    ranges = _ranges(model, len(parameters) - n_sd - n_variance)
    given = np.full(len(parameters), np.nan)
    for k, (each, between) in enumerate(
        zip(parameters, [None] * (n_sd + n_variance) + ranges, strict=True)
    ):
        if not _is_missing(values.get(each.label)):
            given[k] = _checked(each, values[each.label], between)
    sigma = float(given[0])
    relative = np.array(
        [
            np.log(value / sigma) if each.kind == "sd" else value
            for each, value in zip(parameters, given.tolist(), strict=True)
        ]
    )
    phi = np.zeros(model.n_parameters)
    columns = relative[n_sd:] if by_time else relative[1:]
    phi[: model.n_delta] = model.of_coefficients(columns[: len(model.v_mean)])
    deviations = given[:n_sd].reshape(model.design.n_strata, -1) / sigma if by_time else None
    rest = given[n_sd + n_variance :]
    strata = [each.stratum for each in parameters[n_sd + n_variance :]]
    for s, (family, at) in enumerate(zip(model.families, model.places, strict=False)):
        if not isinstance(family, Unstructured):
            own, rest = rest[: family.n_parameters], rest[family.n_parameters :]
            phi[at] = own
            continue
        T = family.n_times
        size = T * (T - 1) // 2
        sd = np.ones(T) if deviations is None else deviations[s]
        phi[at] = _of_correlations(family, rest[:size], sd, what, strata[s * size : s * size + 1])
        rest = rest[size:]
    _refuse_indefinite(model, phi, what)
    return phi, sigma


def _refuse_indefinite(model: ResidualModel, phi: Matrix, what: str) -> None:
    """ModelError if R has no inverse at phi."""
    try:
        model.at(phi)
    except (ArithmeticError, np.linalg.LinAlgError):
        raise ModelError(
            f"The covariance matrix that R gives the rows of a group is not positive definite, as "
            f"`{what}`: no residuals have these correlations."
        ) from None


def _of_correlations(
    family: Unstructured, values: Matrix, sd: Matrix, what: str, stratum: Sequence[str]
) -> Matrix:
    C = np.eye(family.n_times)
    # As they are listed: row by row below the diagonal.
    rows, columns = np.tril_indices(family.n_times, -1)
    C[rows, columns] = C[columns, rows] = values
    try:
        return family.from_matrix(C * np.outer(sd, sd))
    except np.linalg.LinAlgError:
        within = f" in stratum {stratum[0]!r}" if stratum and stratum[0] else ""
        smallest = float(np.linalg.eigvalsh(C)[0])
        raise ModelError(
            f"The correlations that R gives the times of `{what}`{within} are not those of any "
            f"residuals: their matrix has the eigenvalue {smallest:.3g}, and all must be positive."
        ) from None


def _check_names(labels: Sequence[str], values: Mapping[Any, Any], what: str) -> None:
    for key in values:
        if key not in labels:
            near = difflib.get_close_matches(str(key), labels, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ModelError(
                f"R names {key!r:.60}, which is no parameter of {what}; the parameters are "
                f"{_listed(labels)}.{hint}"
            )


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:_MOST])
    return shown if len(labels) <= _MOST else f"{shown}, ... ({len(labels)} in all)"


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and bool(np.isnan(value)))


def _ranges(model: ResidualModel, count: int) -> list[tuple[float, float, bool] | None]:
    """Smallest and largest value of each correlation, range and nugget; whether it may be these."""
    out: list[tuple[float, float, bool] | None] = []
    for family in model.families:
        if isinstance(family, CompoundSymmetry):
            out.append((-1.0 / (family.largest - 1), 1.0, False))
            continue
        if isinstance(family, Unstructured):
            out += [(-1.0, 1.0, False)] * (family.n_times * (family.n_times - 1) // 2)
            continue
        for name in family.names:
            if name == "range":
                out.append((0.0, np.inf, False))
            else:
                is_nugget = name == "nugget"
                out.append((0.0 if is_nugget else -1.0, 1.0, is_nugget))
    assert len(out) == count
    return out


def _checked(
    parameter: ResidualParameter, value: Any, between: tuple[float, float, bool] | None
) -> float:
    label, number = parameter.label, plain(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise ModelError(f"R[{label!r}] must be a number, not {value!r:.60}.")
    number = float(number)
    if between is None:
        between = (0.0, np.inf, False) if parameter.kind == "sd" else (-np.inf, np.inf, False)
    low, high, may_be = between
    inside = low <= number <= high if may_be else low < number < high
    if inside and np.isfinite(number):
        return number
    if parameter.kind in ("sd", "range"):
        wanted = "a positive number"
    elif not np.isfinite(high):
        wanted = "a finite number"
    elif may_be:
        wanted = f"a number from {low:g} to {high:g}"
    else:
        wanted = f"a number between {low:.4g} and {high:g}"
    raise ModelError(f"R[{label!r}] must be {wanted}, not {number:g}.")
