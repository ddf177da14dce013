"""The parameters of the residuals' covariance on natural scales, each with its names.

Everything is at unit prior weight and where the columns of ``variance=`` are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.optimum import Optimum
from mixedeffects.engine.residual_families import Block
from mixedeffects.engine.residual_model import ResidualModel
from mixedeffects.errors import FormulaError
from mixedeffects.formula.reader import read
from mixedeffects.formula.syntax import Call, deparse
from mixedeffects.frame.model_frame import ModelFrame
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

__all__ = [
    "RESIDUAL",
    "ResidualParameter",
    "logarithm_of",
    "parameters_of_residuals",
    "reported_residual_parameters",
]

Matrix = NDArray[np.float64]

#: What the residuals are called beside the grouping factors.
RESIDUAL = "Residual"


@dataclass(frozen=True)
class ResidualParameter:
    """One parameter.

    Attributes
    ----------
    kind : {"sd", "logsd", "power", "cor", "range", "nugget"}
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
        if self.kind in ("logsd", "power"):
            return f"{'log Std.Dev. per' if self.kind == 'logsd' else 'power of'} {self.of[0]}"
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


def reported_residual_parameters(
    frame: ModelFrame, optimum: Optimum, sigma: float
) -> list[ResidualParameter]:
    """All of a fit, in the order they are printed in; none where residuals are independent."""
    if optimum.residual is None:
        return []
    model = optimum.residual.model
    return parameters_of_residuals(
        model, optimum.residual.phi, sigma, frame.residual, frame.variance
    )


def parameters_of_residuals(
    model: ResidualModel,
    phi: Matrix,
    sigma: float,
    term: ResidualTerm | None,
    variance: VarianceTerm | None,
) -> list[ResidualParameter]:
    """The parameters at phi.

    Parameters
    ----------
    model : ResidualModel
        S as a function of phi.
    phi : ndarray
        The engine's parameters.
    sigma : float
        Standard deviation of the first stratum and time where the columns of variance are zero.
    term : ResidualTerm or None
        Residual groups and positions.
    variance : VarianceTerm or None
        Names of the columns of ``variance=``.

    Returns
    -------
    list of ResidualParameter
        Standard deviations and what they follow, then correlations stratum by stratum.
    """
    strata = [""] if term is None or term.strata is None else [str(s) for s in term.strata]
    out = _deviations(model, phi, sigma, term, variance, strata)
    for stratum, family, at in zip(strata, model.families, model.places, strict=False):
        zeta = np.asarray(phi[at])
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


def _deviations(
    model: ResidualModel,
    phi: Matrix,
    sigma: float,
    term: ResidualTerm | None,
    variance: VarianceTerm | None,
    strata: Sequence[str],
) -> list[ResidualParameter]:
    design = model.design
    delta = model.coefficients(phi)
    n_columns = 0 if variance is None else variance.n_columns
    n_cells = len(delta) - n_columns
    cells = sigma * np.exp(np.append(0.0, delta[:n_cells]))
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
    coefficients = delta[n_cells:].tolist()
    if len(places) == 1 and _is_factor(variance.v):
        if variance.reference:
            out = [ResidualParameter("sd", sigma, "", (variance.reference,), is_sigma=True)]
        return out + [
            ResidualParameter("sd", float(sigma * np.exp(value)), "", (name,))
            for name, value in zip(variance.names, coefficients, strict=True)
        ]
    for name, value in zip(variance.names, coefficients, strict=True):
        base = logarithm_of(name)
        kind = "logsd" if base is None else "power"
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
