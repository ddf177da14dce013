"""What a fit makes of one or more responses: what the checks compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.diagnostics.check_levels import WholeLevels, whole_groups
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit

__all__ = ["Outcomes", "joined", "levels_of"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Residuals, modes and the rest of m data sets.

    Attributes
    ----------
    residuals : ndarray, shape (n, m)
        ``sqrt(w) (y - X beta - Z b) / sigma``; with ``residual=`` or ``variance=`` whitened,
        ``R^-1/2 (y - X beta - Z b)``.
    fitted : ndarray, shape (n, m)
        ``X beta + Z b`` with the offset, in units of the response.
    ranks : ndarray, shape (n, m)
        Share of responses drawn anew, random effects included, that lie below the row's response.
    modes : list of ndarray, shape (l, k, m)
        Conditional modes of each term.
    curvature : ndarray, shape (c, m)
        Score statistics of further columns of X, standard normal if V were known.
    sigma : ndarray, shape (m,)
        Residual standard deviations at unit weight.
    distances : dict of str to ndarray, shape (l, m)
        Cook's distances of the levels of factors that share no random effects, see `WholeLevels`.
    """

    residuals: Matrix
    fitted: Matrix
    ranks: Matrix
    modes: list[Matrix]
    curvature: Matrix
    sigma: Matrix
    distances: dict[str, Matrix]

    @property
    def count(self) -> int:
        """Number of data sets, m."""
        return int(self.residuals.shape[1])


def joined(parts: Sequence[Outcomes], rows: Positions) -> Outcomes:
    """Those of several, of some of the rows.

    Raises
    ------
    ModelError
        If there are none.
    """
    if not parts:
        raise ModelError(
            "None of the data sets drawn from the fitted model could be fitted again, so the "
            "checks that compare with them cannot be made; which= names others."
        )
    whole = len(rows) == len(parts[0].residuals)

    def of(name: str) -> Matrix:
        own = [getattr(part, name) for part in parts]
        return np.hstack(own if whole else [each[rows] for each in own])

    return Outcomes(
        residuals=of("residuals"),
        fitted=of("fitted"),
        ranks=of("ranks"),
        modes=[
            np.concatenate([part.modes[t] for part in parts], axis=2)
            for t in range(len(parts[0].modes))
        ],
        curvature=np.hstack([part.curvature for part in parts]),
        sigma=np.concatenate([part.sigma for part in parts]),
        distances={
            group: np.hstack([part.distances[group] for part in parts])
            for group in parts[0].distances
        },
    )


def levels_of(fit: Fit) -> list[WholeLevels]:
    """Factors whose levels share no random effect or error with other rows."""
    if not fit.frame.X.shape[1]:
        return []
    return [WholeLevels(fit, group) for group in whole_groups(fit)]
