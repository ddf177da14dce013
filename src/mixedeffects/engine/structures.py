"""Covariance matrices of random effects with fewer parameters than entries.

Every structure is ``Sigma = D R(rho) D``: D holds standard deviations, one for each column or one
for all, and R is a correlation matrix with at most one parameter. Derivatives of ``<F, Sigma>`` for
a symmetric F are then products with ``F o R``, ``F o R'`` and ``F o R''``, so no array with one
matrix per parameter, let alone per pair of them, is needed while fitting.

A standard deviation at zero and a correlation at the end of its range are ordinary values: Sigma is
a polynomial in the parameters. Where a sign can be undone (independent columns, or one standard
deviation for all) standard deviations run over all numbers; with a correlation between columns of
their own standard deviations it cannot, and zero is a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRUCTURES", "CovarianceStructure", "StructureValues"]

Matrix = NDArray[np.float64]

#: Whether the structures have one variance for all columns unless told otherwise, as in lme4.
STRUCTURES: dict[str, bool] = {"diag": False, "cs": False, "ar1": True}

#: Correlations tried where there is no variance yet.
_GRID = 9


@cache
def _power_rule(k: int, derivative: int) -> tuple[Matrix, NDArray[np.intp]]:
    """Coefficients and exponents of a derivative of ``rho^|i - j|``."""
    lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    coefficient = np.ones((k, k))
    for order in range(derivative):
        coefficient *= lag - order
    return coefficient, np.maximum(lag - derivative, 0)


@dataclass(frozen=True)
class CovarianceStructure:
    """A family of k x k covariance matrices.

    Attributes
    ----------
    kind : {"diag", "cs", "ar1"}
        Independent columns, compound symmetry (one correlation for all pairs), or first-order
        autoregression (correlation ``rho^|i - j|``).
    k : int
        Number of columns.
    homogeneous : bool
        Whether all columns have one standard deviation.

    Examples
    --------
    >>> structure = CovarianceStructure("ar1", 3, homogeneous=True)
    >>> structure.covariance(np.array([2.0, 0.5]))
    array([[4., 2., 1.],
           [2., 4., 2.],
           [1., 2., 4.]])
    """

    kind: str
    k: int
    homogeneous: bool

    @property
    def n_sd(self) -> int:
        """Number of standard deviations; they come first among the parameters."""
        return 1 if self.homogeneous else self.k

    @property
    def has_correlation(self) -> bool:
        """Whether the last parameter is a correlation."""
        return self.kind != "diag"

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return self.n_sd + self.has_correlation

    @property
    def correlation_range(self) -> tuple[float, float]:
        """Smallest and largest correlation for which R is positive semidefinite."""
        return (-1.0 / (self.k - 1) if self.kind == "cs" else -1.0), 1.0

    @property
    def lower(self) -> Matrix:
        """Lower bounds of the parameters."""
        signed = self.homogeneous or not self.has_correlation
        bounds = np.full(self.n_parameters, -np.inf if signed else 0.0)
        if self.has_correlation:
            bounds[-1] = self.correlation_range[0]
        return bounds

    @property
    def upper(self) -> Matrix:
        """Upper bounds of the parameters."""
        bounds = np.full(self.n_parameters, np.inf)
        if self.has_correlation:
            bounds[-1] = self.correlation_range[1]
        return bounds

    def standard_deviations(self, parameters: Matrix) -> Matrix:
        """One for each column, with the sign they have in the parameters, shape (k,)."""
        return np.broadcast_to(parameters[: self.n_sd], (self.k,))

    def correlation(self, parameters: Matrix, derivative: int = 0) -> Matrix:
        """R, or its first or second derivative in rho, k x k."""
        k = self.k
        if self.kind == "diag":
            return np.eye(k) if derivative == 0 else np.zeros((k, k))
        rho = float(parameters[-1])
        if self.kind == "cs":
            if derivative == 0:
                return np.full((k, k), rho) + (1.0 - rho) * np.eye(k)
            return (1.0 - np.eye(k)) if derivative == 1 else np.zeros((k, k))
        coefficient, exponent = _power_rule(k, derivative)
        return np.asarray(coefficient * (rho ** np.arange(k, dtype=np.float64))[exponent])

    def covariance(self, parameters: Matrix) -> Matrix:
        """Sigma, k x k."""
        sd = self.standard_deviations(parameters)
        return np.asarray(np.outer(sd, sd) * self.correlation(parameters))

    def factor(self, parameters: Matrix) -> Matrix:
        """A square matrix T with ``T T' = Sigma``, also where Sigma is singular."""
        sd = self.standard_deviations(parameters)
        return np.ascontiguousarray(sd[:, None] * self._correlation_root(parameters))

    def _correlation_root(self, parameters: Matrix) -> Matrix:
        k = self.k
        if self.kind == "diag":
            return np.eye(k)
        rho = float(parameters[-1])
        if self.kind == "cs":
            # The symmetric root: eigenvalue 1 + (k - 1) rho along the ones, 1 - rho elsewhere.
            rest = np.sqrt(max(1.0 - rho, 0.0))
            common = np.sqrt(max(1.0 + (k - 1) * rho, 0.0))
            return np.asarray(rest * np.eye(k) + (common - rest) / k)
        lag = np.subtract.outer(np.arange(k), np.arange(k))
        root = np.where(lag >= 0, rho ** np.maximum(lag, 0).astype(np.float64), 0.0)
        root[:, 1:] *= np.sqrt(max(1.0 - rho * rho, 0.0))
        return np.asarray(root)

    def derivatives(self, parameters: Matrix) -> Matrix:
        """First derivatives of Sigma, shape (m, k, k)."""
        sd, R = self.standard_deviations(parameters), self.correlation(parameters)
        if self.homogeneous:
            of_sd = np.asarray(2.0 * sd[0] * R)[None]
        else:
            columns = np.arange(self.k)
            of_sd = np.zeros((self.k, self.k, self.k))
            of_sd[columns, columns] = R * sd
            of_sd = of_sd + of_sd.transpose(0, 2, 1)
        if not self.has_correlation:
            return of_sd
        of_correlation = np.outer(sd, sd) * self.correlation(parameters, 1)
        return np.concatenate([of_sd, of_correlation[None]])

    def at(self, parameters: Matrix) -> StructureValues:
        """Sigma and what its derivatives are made of."""
        sd = self.standard_deviations(parameters)
        if not self.has_correlation:
            return StructureValues(self, sd, (self.correlation(parameters),))
        R = tuple(self.correlation(parameters, derivative) for derivative in range(3))
        return StructureValues(self, sd, R)

    def contract(self, parameters: Matrix, F: Matrix) -> tuple[Matrix, Matrix]:
        """Gradient (m,) and Hessian (m, m) of ``<F, Sigma>`` for a symmetric F."""
        values = self.at(parameters)
        return values.gradient(F), values.hessian(F)

    def nearest(self, covariance: Matrix) -> Matrix:
        """Parameters by matching moments; exact for a matrix of this family."""
        variances = np.maximum(np.diag(covariance), 0.0)
        sd: Matrix = np.sqrt(np.atleast_1d(variances.mean()) if self.homogeneous else variances)
        if not self.has_correlation:
            return sd
        scale = np.broadcast_to(sd, (self.k,))
        size = np.outer(scale, scale)
        usable = np.triu(size > 0.0, 1)
        correlation = np.divide(covariance, size, out=np.zeros_like(size), where=size > 0.0)
        if self.kind == "cs":
            rho = float(correlation[usable].mean()) if usable.any() else 0.0
        else:
            rho = self._autocorrelation(correlation, usable)
        return np.append(sd, np.clip(rho, *self.correlation_range))

    def _autocorrelation(self, correlation: Matrix, usable: NDArray[np.bool_]) -> float:
        """From the shortest lag there is; neighbours, unless a column between has no variance."""
        size, sign = None, None
        for lag in range(1, self.k):
            pairs = np.diag(correlation, lag)[np.diag(usable, lag)]
            if not len(pairs):
                continue
            mean = float(pairs.mean())
            size = abs(mean) ** (1.0 / lag) if size is None else size
            if lag % 2:
                sign = float(np.sign(mean))
                break
        return 0.0 if size is None else size * (1.0 if sign is None else sign)

    def canonical(self, parameters: Matrix) -> Matrix:
        """The same Sigma with standard deviations that are not negative."""
        out = parameters.copy()
        out[: self.n_sd] = np.abs(out[: self.n_sd])
        return out

    def unidentified(self, parameters: Matrix) -> NDArray[np.bool_]:
        """Parameters that Sigma does not depend on: the correlation where there is no variance."""
        out = np.zeros(self.n_parameters, dtype=np.bool_)
        if self.has_correlation:
            out[-1] = np.count_nonzero(self.standard_deviations(parameters)) < 2
        return out

    def with_more_variance(self, parameters: Matrix, sd: float) -> list[Matrix]:
        """Ways to give variance to columns that have none: other parameters, one set for each.

        A correlation that had no effect before gets several values.
        """
        zero = parameters[: self.n_sd] == 0.0
        out = []
        free_correlation = self.has_correlation and bool(self.unidentified(parameters)[-1])
        correlations = np.linspace(*self.correlation_range, _GRID) if free_correlation else [None]
        columns = [np.arange(self.n_sd) == j for j in np.flatnonzero(zero)]
        if self.has_correlation and zero.all() and not self.homogeneous:
            columns.append(zero)
        for which in columns:
            for rho in correlations:
                grown = parameters.copy()
                grown[: self.n_sd][which] = sd
                if rho is not None:
                    grown[-1] = rho
                out.append(grown)
        return out

    def variance_directions(self, parameters: Matrix) -> Matrix:
        """Directions in which Sigma varies, as for variances rather than standard deviations.

        Where Sigma is linear in variances and covariances (``diag``, and ``cs`` with one variance)
        they span the whole family, else its tangent space; shape (r, k, k).
        """
        R, R1 = self.correlation(parameters), self.correlation(parameters, 1)
        if self.homogeneous:
            sd = float(parameters[0])
            if not self.has_correlation or (self.kind == "ar1" and sd == 0.0):
                return R[None]
            return np.stack([R, R1])
        if not self.has_correlation:
            return np.stack([np.diag(row) for row in np.eye(self.k)])
        return self.derivatives(parameters)


@dataclass(frozen=True, eq=False)
class StructureValues:
    """A structure at some parameters.

    Attributes
    ----------
    structure : CovarianceStructure
        Which.
    sd : ndarray, shape (k,)
        A standard deviation for each column.
    R : tuple of ndarray (k, k)
        The correlation matrix and, where it has a parameter, its first two derivatives.
    """

    structure: CovarianceStructure
    sd: Matrix
    R: tuple[Matrix, ...]

    @property
    def covariance(self) -> Matrix:
        """Sigma, k x k."""
        return np.asarray(self.sd[:, None] * self.R[0] * self.sd)

    def gradient(self, F: Matrix) -> Matrix:
        """Derivatives of ``<F, Sigma>`` for symmetric F, shape (..., k, k) to (..., m)."""
        of_sd = 2.0 * ((F * self.R[0]) @ self.sd)
        if self.structure.homogeneous:
            of_sd = of_sd.sum(axis=-1, keepdims=True)
        if not self.structure.has_correlation:
            return np.asarray(of_sd)
        of_correlation = ((F * self.R[1]) @ self.sd) @ self.sd
        return np.concatenate([of_sd, of_correlation[..., None]], axis=-1)

    def hessian(self, F: Matrix) -> Matrix:
        """Second derivatives for a symmetric F, m x m."""
        homogeneous, m = self.structure.homogeneous, self.structure.n_parameters
        FR = F * self.R[0]
        out = np.empty((m, m))
        n_sd = self.structure.n_sd
        out[:n_sd, :n_sd] = 2.0 * (FR.sum() if homogeneous else FR)
        if self.structure.has_correlation:
            cross = 2.0 * ((F * self.R[1]) @ self.sd)
            out[-1, :-1] = out[:-1, -1] = cross.sum() if homogeneous else cross
            out[-1, -1] = self.sd @ (F * self.R[2]) @ self.sd
        return out
