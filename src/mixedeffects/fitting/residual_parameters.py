"""The parameters of R on natural scales, and its matrix over the times that groups have in common.

Everything is at unit prior weight and where the columns of ``variance=`` are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.engine.residual_entries import ResidualEntries
from mixedeffects.engine.residual_families import Block
from mixedeffects.engine.residual_model import ResidualModel
from mixedeffects.errors import FormulaError
from mixedeffects.fitting.fit import Fit
from mixedeffects.formula.reader import read
from mixedeffects.formula.syntax import Call, deparse
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

__all__ = [
    "RESIDUAL",
    "EstimatedResidual",
    "ResidualParameter",
    "covariance_of_times",
    "listed_parameters",
    "logarithm_of",
    "reported_residual_parameters",
    "residual_of",
    "residual_parameters",
]

Matrix = NDArray[np.float64]

#: What the residuals are called beside the grouping factors.
RESIDUAL = "Residual"


@dataclass(frozen=True)
class ResidualParameter:
    """One parameter.

    Attributes
    ----------
    kind : {"sd", "log_sd", "power", "cor", "range", "nugget"}
        A standard deviation in units of the response; a coefficient of its logarithm; the power of
        a covariate that it grows with; a correlation; a range, in units of the position; a nugget,
        a share of the variance.
    value : float
        The estimate.
    stratum : str
        Level of ``by=``; empty without.
    of : tuple of str
        The time, the two times, the lag (``"lag 2"``), the level or the column it belongs to.
    is_sigma : bool
        Whether it is the standard deviation that others are relative to.
    """

    kind: str
    value: float
    stratum: str = ""
    of: tuple[str, ...] = ()
    is_sigma: bool = False

    @property
    def label(self) -> str:
        """As ``m.R.parameters`` and the summary have it: ``cor VIS1, VIS2``."""
        if self.kind in ("log_sd", "power"):
            return f"{'log Std.Dev. per' if self.kind == 'log_sd' else 'power of'} {self.of[0]}"
        head = "Std.Dev." if self.kind == "sd" else self.kind
        return " ".join(filter(None, (head, self.stratum, ", ".join(self.of))))

    @property
    def column(self) -> str:
        """What stands behind the kind in its other names: ``VIS2.VIS1``, ``PBO:VIS2.VIS1``."""
        return ":".join(filter(None, (self.stratum, ".".join(self.of[::-1]).replace(" ", ""))))

    @property
    def name(self) -> str:
        """As ``m.covariance_parameters`` has it: ``cor_VIS2.VIS1|Residual``."""
        return "_".join(filter(None, (self.kind, self.column))) + f"|{RESIDUAL}"


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


def residual_of(
    fit: Fit,
    phi: Matrix | None = None,
    sigma: float | None = None,
    model: ResidualModel | None = None,
) -> EstimatedResidual | None:
    """What a fit knows of R, or R at other parameters of the engine's, or of another model of it.

    None where residuals are independent, of one variance.
    """
    own, frame = fit.residual, fit.frame
    if own is None:
        return None
    return _Estimated(
        own.model if model is None else model,
        own.phi if phi is None else phi,
        fit.sigma if sigma is None else sigma,
        frame.residual,
        frame.variance,
    )


def residual_parameters(R: EstimatedResidual) -> pd.Series:
    """Standard deviations, correlations, ranges, nuggets; labels as in the summary.

    Returns
    -------
    Series
        ``Std.Dev.`` in units of the response, with stratum and time where they differ by these;
        ``cor``, with two times or a lag where there are several, and a stratum; ``range``, in units
        of the position; ``nugget``, a share of the variance. Columns of ``variance=``: for those
        of one factor a ``Std.Dev.`` each, else coefficients of the logarithm of it, and the
        ``power`` of what a column is the logarithm of.
    """
    parameters = listed_parameters(R)
    return pd.Series(
        [each.value for each in parameters],
        index=[each.label for each in parameters],
        name="Estimate",
        dtype=np.float64,
    )


def reported_residual_parameters(fit: Fit) -> list[ResidualParameter]:
    """All of a fit, in the order they are printed in; none where residuals are independent."""
    R = residual_of(fit)
    return [] if R is None else listed_parameters(R)


def listed_parameters(R: EstimatedResidual) -> list[ResidualParameter]:
    """Standard deviations and what they follow, then correlations stratum by stratum."""
    model, term = R.model, R.term
    strata = [""] if term is None or term.strata is None else [str(s) for s in term.strata]
    out = _deviations(R, strata)
    for stratum, family, at in zip(strata, model.families, model.places, strict=False):
        zeta = np.asarray(R.phi[at])
        if model.design.kind == "us":
            assert isinstance(family, Block)
            out += _all_pairs(_over_times(model, family, zeta), stratum, term)
            continue
        for j, value in enumerate(zeta.tolist()):
            kind, of = family.names[j].split(".")[0], tuple[str, ...]()
            if model.design.kind == "ante":
                of = (_time(term, j), _time(term, j + 1))
            elif model.design.kind == "toep":
                kind, of = "cor", (f"lag {j + 1}",)
            out.append(ResidualParameter(kind, value, stratum, of))
    return out


def _over_times(model: ResidualModel, family: Block, zeta: Matrix) -> Matrix:
    """The family's matrix at all common times, T x T."""
    return family.matrix(zeta, np.arange(model.design.n_times, dtype=np.float64)[:, None])


def _all_pairs(C: Matrix, stratum: str, term: ResidualTerm | None) -> list[ResidualParameter]:
    sd = np.sqrt(np.diag(C))
    correlation = C / np.outer(sd, sd)
    return [
        ResidualParameter(
            "cor", float(correlation[i, j]), stratum, (_time(term, j), _time(term, i))
        )
        for i in range(len(C))
        for j in range(i)
    ]


def _deviations(R: EstimatedResidual, strata: Sequence[str]) -> list[ResidualParameter]:
    model, phi, term, variance = R.model, R.phi, R.term, R.variance
    design = model.design
    logarithms, coefficients = _logarithms(R)
    cells = R.sigma * np.exp(logarithms)
    sigma = float(cells[0])
    times: list[tuple[str, ...]] = [()]
    if not design.homogeneous and term is not None and term.times is not None:
        times = [(str(t),) for t in term.times]
        if design.kind == "us":
            cells = sigma * np.concatenate(
                [
                    np.sqrt(np.diag(_over_times(model, family, phi[at])))
                    for family, at in zip(model.families, model.places, strict=True)
                    if isinstance(family, Block)
                ]
            )
    places = [(s, t) for s in strata for t in times]
    out = [
        ResidualParameter("sd", value, stratum, time, is_sigma=k == 0)
        for k, ((stratum, time), value) in enumerate(zip(places, cells.tolist(), strict=True))
    ]
    if variance is None:
        return out
    if len(places) == 1 and _is_factor(variance.v):
        if variance.reference:
            out = [ResidualParameter("sd", sigma, "", (variance.reference,), is_sigma=True)]
        return out + [
            ResidualParameter("sd", float(sigma * np.exp(value)), "", (name,))
            for name, value in zip(variance.names, coefficients.tolist(), strict=True)
        ]
    for name, value in zip(variance.names, coefficients.tolist(), strict=True):
        base = logarithm_of(name)
        kind = "log_sd" if base is None else "power"
        out.append(ResidualParameter(kind, value, "", (base or name,)))
    return out


def logarithm_of(name: str) -> str | None:
    """What a column is the natural logarithm of; None if it is none.

    Examples
    --------
    >>> logarithm_of("log(age)"), logarithm_of("log(a):b")
    ('age', None)
    """
    if not name.startswith("log("):
        return None
    try:
        tree = read(name)
    except FormulaError:
        return None
    if isinstance(tree, Call) and tree.function == "log" and len(tree.arguments) == 1:
        return deparse(tree.arguments[0].value)
    return None


def _is_factor(v: Matrix) -> bool:
    """Whether the columns are those of one factor."""
    return bool(np.isin(v, (0.0, 1.0)).all() and (v.sum(axis=1) <= 1.0).all())


def _time(term: ResidualTerm | None, t: int) -> str:
    return str(t + 1) if term is None or term.times is None else str(term.times[t])


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
