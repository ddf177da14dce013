"""Leverages: the diagonal of the matrix that maps the response to the fitted values.

With ``S = V^-1 X``, ``C = (X'V^-1X)^-1`` and ``P = Lambda M_q^-1 Lambda'`` (relative to sigma^2)

    fixed    [X C X'V^-1]_ii                            = x_i'C s_i
    total    1 - [R (V^-1 - S C S')]_ii                 = w_i z_i'P z_i + sigma^2/w_i s_i'C s_i
    random   total - fixed = [Z G Z' V^-1 (I - X C X'V^-1)]_ii

Nothing here is n x n, and the total is a sum of terms that are not negative. The last form is that
of independent residuals; for the others see `of_residuals`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice
from mixedeffects.covariance.of_fit import R_of, V_of
from mixedeffects.covariance.of_residuals import (
    blocks_of_rows,
    forms_by_rows,
    row_forms,
    rows_by_factor,
)
from mixedeffects.fitting.fit import Fit

if TYPE_CHECKING:
    pass

__all__ = [
    "LEVERAGE_KINDS",
    "affordable_leverage",
    "leverage",
    "remaining_variances",
    "row_quadratic_forms",
]

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]

LEVERAGE_KINDS = ("total", "fixed", "random")

#: Memory for the right-hand sides and solutions of one chunk of probes, in bytes.
_CHUNK = 100e6
#: Operations that leverages may take which nobody asked for by name: some seconds.
_AFFORDABLE_WORK = 2e10


def leverage(fit: Fit, kind: str) -> Matrix:
    """Leverages of one kind, shape (n,); see `LinearMixedModel.leverage`.

    Raises
    ------
    ModelError
        If the kind is not one of `LEVERAGE_KINDS`.
    """
    kind = checked_choice(kind, "Leverage kind", LEVERAGE_KINDS)
    # In the basis that the model was fitted in, because the user's columns may be nearly collinear.
    X = fit.crossproducts.basis.fixed_columns(fit.frame.X)
    S = V_of(fit).solve(X)
    root = scipy.linalg.cholesky(X.T @ S, lower=True)
    half_S = scipy.linalg.solve_triangular(root, S.T, lower=True)
    fixed: Matrix = np.einsum(
        "pi,pi->i", scipy.linalg.solve_triangular(root, X.T, lower=True), half_S
    )
    if kind == "fixed":
        return fixed
    random = row_quadratic_forms(fit) if fit.residual is None else row_forms(fit, "Z", "S^-1 Z")
    total: Matrix = random + np.einsum("pi,ip->i", half_S, R_of(fit) @ half_S.T)
    return total if kind == "total" else total - fixed


def remaining_variances(fit: Fit) -> Matrix:
    """Variances of ``y - fitted``, the diagonal of ``R (V^-1 - S C S') R``, shape (n,)."""
    X = fit.crossproducts.basis.fixed_columns(fit.frame.X)
    S = V_of(fit).solve(X)
    root = scipy.linalg.cholesky(X.T @ S, lower=True)
    of_fixed = scipy.linalg.solve_triangular(root, (R_of(fit) @ S).T, lower=True)
    tau2 = fit.sigma**2 / fit.crossproducts.basis.weight_scale
    of_random = tau2 * row_forms(fit, "Z", "Z")
    return np.asarray(R_of(fit).diag() - of_random - np.einsum("pi,pi->i", of_fixed, of_fixed))


def affordable_leverage(fit: Fit) -> bool:
    """Whether the leverages, and the studentized residuals, of all rows are quickly there."""
    A = fit.crossproducts
    if len(A.factors) < 2:
        return True
    sizes = [float(f.n_levels * f.k) for f in A.factors]
    blocks = blocks_of_rows(fit)
    solves = 0.0
    for factor in A.factors[1:]:
        codes = fit.frame.terms[factor.members[0].term].codes
        block = np.zeros(factor.n_levels, dtype=np.int64)
        block[codes] = blocks
        solves += factor.k * float(np.bincount(block).max())
    return solves * (sum(sizes) * 10.0 + float(A.remainder.core_size) ** 2) <= _AFFORDABLE_WORK


def row_quadratic_forms(fit: Fit) -> Matrix:
    """``w_i z_i'P z_i``, the leverages if the fixed effects were known; shape (n,).

    A row has one level of each grouping factor, so it needs P only within that level and between
    the levels that occur together in a row; see `forms_by_rows`.
    """
    codes, z = rows_by_factor(fit)
    out = forms_by_rows(fit, codes, z, z)
    if fit.working_weights is not None:
        out *= fit.working_weights / fit.crossproducts.basis.weight_scale
    return out
