"""From what the frame says of the residuals to what the engine's model of them is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.residual_model import ResidualDesign
from mixedeffects.frame.model_frame import ModelFrame
from mixedeffects.frame.residual_term import ResidualTerm

__all__ = ["deviation_columns", "deviations_of_cells", "residual_design"]

Matrix = NDArray[np.float64]


def residual_design(frame: ModelFrame, sigma: float | None = None) -> ResidualDesign | None:
    """The engine's design of the residuals; None where they are independent, of one variance.

    Parameters
    ----------
    frame : ModelFrame
        Of the fit.
    sigma : float, optional
        The residual standard deviation, where it is known.
    """
    term, variance = frame.residual, frame.variance
    if term is None and variance is None and sigma is None:
        return None
    n = frame.nobs
    v = np.zeros((n, 0)) if variance is None else variance.v
    if term is None:
        return ResidualDesign(
            "diag",
            np.arange(n, dtype=np.int32),
            np.zeros((n, 1)),
            0,
            np.zeros(n, dtype=np.int32),
            1,
            v,
            frame.weights,
            sigma=sigma,
        )
    v = np.hstack([deviation_columns(term), v])
    stratum = np.zeros(n, dtype=np.int32) if term.stratum is None else term.stratum
    return ResidualDesign(
        term.kind,
        term.codes,
        _positions(term),
        term.n_times,
        stratum,
        term.n_strata,
        v,
        frame.weights,
        term.homogeneous,
        term.nugget,
        term.given,
        sigma,
    )


def _positions(term: ResidualTerm) -> Matrix:
    if term.coordinates is not None:
        return np.asarray(term.coordinates, dtype=np.float64)
    if term.steps is not None:
        return term.steps[:, None].astype(np.float64)
    return np.zeros((len(term.codes), 1))


def deviation_columns(term: ResidualTerm) -> Matrix:
    """Indicators of all standard deviations but the first, stratum by stratum, time by time.

    None where the structure has them among its own parameters (``us``).
    """
    return deviations_of_cells(term, term.stratum, term.steps, len(term.codes))


def deviations_of_cells(
    term: ResidualTerm,
    stratum: NDArray[np.integer[Any]] | None,
    steps: NDArray[np.int64] | None,
    n: int,
) -> Matrix:
    """The same for n rows of these strata and times, of the fit or not."""
    if term.kind == "known" or (term.kind == "us" and not term.homogeneous):
        return np.zeros((n, 0))
    cell = np.zeros(n, dtype=np.int64) if stratum is None else stratum.astype(np.int64)
    count = term.n_strata
    if not term.homogeneous and term.steps is not None:
        assert steps is not None
        cell, count = cell * term.n_times + steps, count * term.n_times
    return np.asarray(cell[:, None] == np.arange(1, count), dtype=np.float64)
