"""The parameters of R on natural scales, and its matrix over the times that groups have in common.

Everything is at unit prior weight and where the columns of ``variance=`` are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.engine.residual_entries import ResidualEntries
from mixedeffects.engine.residual_model import ResidualModel
from mixedeffects.fitting.fit import Fit
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

__all__ = ["EstimatedResidual", "covariance_of_times", "residual_of", "residual_parameters"]

Matrix = NDArray[np.float64]


class EstimatedResidual(Protocol):
    """R of a fit, as its parameters are read from it."""

    @property
    def model(self) -> ResidualModel:
        """S as a function of its parameters."""

    @property
    def phi(self) -> Matrix:
        """The parameters."""

    @property
    def sigma(self) -> float:
        """Standard deviation at unit prior weight where D is one."""

    @property
    def term(self) -> ResidualTerm | None:
        """The residual groups and positions."""

    @property
    def variance(self) -> VarianceTerm | None:
        """Names of the columns that the variances follow."""


@dataclass(frozen=True, eq=False)
class _Estimated:
    model: ResidualModel
    phi: Matrix
    sigma: float
    term: ResidualTerm | None
    variance: VarianceTerm | None


def residual_of(fit: Fit) -> EstimatedResidual | None:
    """What a fit knows of R; None where residuals are independent, of one variance."""
    own, frame = fit.residual, fit.frame
    if own is None:
        return None
    return _Estimated(own.model, own.phi, fit.sigma, frame.residual, frame.variance)


def residual_parameters(R: EstimatedResidual) -> pd.Series:
    """Standard deviations, correlations, ranges, nuggets; labels as in the summary.

    Returns
    -------
    Series
        ``Std.Dev.`` in units of the response, with stratum and time where they differ by these;
        ``cor``, with two times or a lag where there are several, and a stratum; ``range``, in units
        of the position; ``nugget``, a share of the variance. Columns of ``variance=``: for those
        of one factor a ``Std.Dev.`` each, else coefficients of the logarithm of it.
    """
    names, values = _deviations(R)
    term = R.term
    for s, (family, at) in enumerate(zip(R.model.families, R.model.places, strict=True)):
        stratum = "" if term is None or term.strata is None else f" {term.strata[s]}"
        if R.model.design.kind == "us":
            covariance = _times_matrix(R, s)
            sd = np.sqrt(np.diag(covariance))
            i, j = np.tril_indices(len(sd), -1)
            names += [
                f"cor{stratum} {_pair(R, b, a)}"
                for a, b in zip(i.tolist(), j.tolist(), strict=True)
            ]
            values += (covariance / np.outer(sd, sd))[i, j].tolist()
            continue
        own = list(family.names)
        if R.model.design.kind == "ante":
            own = [f"cor {_pair(R, t, t + 1)}" for t in range(len(own))]
        elif R.model.design.kind == "toep":
            own = [f"cor lag {h + 1}" for h in range(len(own))]
        names += [_with_stratum(name, stratum) for name in own]
        values += np.asarray(R.phi[at]).tolist()
    return pd.Series(values, index=names, name="Estimate", dtype=np.float64)


def covariance_of_times(R: EstimatedResidual, stratum: int) -> Matrix:
    """R of one row at each common time, T x T."""
    sd = _time_deviations(R, stratum)
    return np.asarray(_times_matrix(R, stratum) * np.outer(sd, sd))


def _times_matrix(R: EstimatedResidual, stratum: int) -> Matrix:
    """C over the common times, T x T."""
    model, T = R.model, R.model.design.n_times
    if not model.families:
        return np.eye(T)
    entries, times = ResidualEntries(model, R.phi), np.arange(T, dtype=np.float64)[:, None]
    C = np.diag(entries.variances(np.full(T, stratum), times))
    i, j = np.triu_indices(T, 1)
    C[i, j] = C[j, i] = entries.correlations(np.full(len(i), stratum), times[i], times[j])
    return C


def _n_variance(R: EstimatedResidual) -> int:
    return 0 if R.variance is None else R.variance.n_columns


def _logarithms(R: EstimatedResidual) -> tuple[Matrix, Matrix]:
    """Logarithms of relative standard deviations by cell, and coefficients of the variance columns.

    A cell is a stratum, or a stratum and a time where these have standard deviations of their own.
    """
    model = R.model
    delta = model.coefficients(R.phi)
    # Where v is zero: from the rows, whatever D is divided by.
    at_zero = model.log_deviation_at_zero(R.phi)
    n_cells = len(delta) - _n_variance(R)
    return np.append(0.0, delta[:n_cells]) + at_zero, delta[n_cells:]


def _time_deviations(R: EstimatedResidual, stratum: int) -> Matrix:
    """Standard deviations at the common times beside those that belong to C."""
    cells, _ = _logarithms(R)
    T = R.model.design.n_times
    by_stratum = cells.reshape(-1, T) if _has_times(R) else cells[:, None]
    own = by_stratum[min(stratum, len(by_stratum) - 1)]
    return np.asarray(R.sigma * np.exp(np.broadcast_to(own, T)))


def _has_times(R: EstimatedResidual) -> bool:
    """Whether the cells are strata and times."""
    design = R.model.design
    return not design.homogeneous and design.n_times > 0 and design.kind != "us"


def _deviations(R: EstimatedResidual) -> tuple[list[str], list[float]]:
    cells, coefficients = _logarithms(R)
    term, design = R.term, R.model.design
    strata = [""] if term is None or term.strata is None else [f" {s}" for s in term.strata]
    times = [""]
    if not design.homogeneous and term is not None and term.times is not None:
        times = [f" {t}" for t in term.times]
        sd = [np.sqrt(np.diag(covariance_of_times(R, s))) for s in range(len(strata))]
        values = np.concatenate(sd).tolist()
    else:
        values = (R.sigma * np.exp(cells)).tolist()
    names = [f"Std.Dev.{s}{t}" for s in strata for t in times]
    variance = R.variance
    if variance is None:
        return names, values
    if len(names) == 1 and _is_factor(variance.v):
        names += [f"Std.Dev. {name}" for name in variance.names]
        values += (values[0] * np.exp(coefficients)).tolist()
    else:
        names += [f"log Std.Dev. per {name}" for name in variance.names]
        values += coefficients.tolist()
    return names, values


def _is_factor(v: Matrix) -> bool:
    """Whether the columns are those of one factor."""
    return bool(np.isin(v, (0.0, 1.0)).all() and (v.sum(axis=1) <= 1.0).all())


def _pair(R: EstimatedResidual, a: int, b: int) -> str:
    times = None if R.term is None else R.term.times
    return f"{a + 1}, {b + 1}" if times is None else f"{times[a]}, {times[b]}"


def _with_stratum(name: str, stratum: str) -> str:
    first, _, rest = name.partition(" ")
    return f"{first}{stratum} {rest}".rstrip()
