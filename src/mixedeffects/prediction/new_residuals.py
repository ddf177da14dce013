"""Residuals of new rows: their variances, and what those of the fit say of them.

With s the covariances of a new residual with those of its group in the fit, relative to sigma^2,
``e = y - X beta - Z b``, ``d_x = x - X'S^-1 s`` and ``d_z = z - Z'S^-1 s``,

    predicted    s'S^-1 e
    variance of the error of x'beta + z'b + s'S^-1 e, for the new observation,
                 sigma^2 (S_nn - s'S^-1 s + [d_x; d_z]' H^-1 [d_x; d_z])

with H the coefficient matrix of Henderson's equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.covariance.of_fit import fitted_values
from mixedeffects.covariance.of_residuals import engine_matrix, residual_entries_of
from mixedeffects.engine.factorisation import Factorisation, NotPositiveDefiniteError
from mixedeffects.engine.parameterisation import Parameterisation, parameterise
from mixedeffects.engine.residual_entries import ResidualEntries
from mixedeffects.engine.residual_families import Block
from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.residual_assembly import deviations_of_cells
from mixedeffects.frame.grouping import UNSEEN
from mixedeffects.frame.new_data import DesignRows, ResidualPlaces

__all__ = [
    "KnownResiduals",
    "NewVariances",
    "ResidualRows",
    "check_known_residuals",
    "check_new_variances",
]

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Memory for the right-hand sides of one chunk of solves, in bytes.
_CHUNK = 100e6
#: Step of differences in natural directions, and the shortest.
_STEP, _SHORTEST = 1e-4, 1e-8


@dataclass(frozen=True, eq=False)
class ResidualRows:
    """Stratum (m,), positions (m, d) and columns v (m, s) of some rows, as the engine has them."""

    stratum: Integers
    positions: Matrix
    v: Matrix


class NewVariances:
    """Variances of the residuals of rows, with ``residual=`` or ``variance=``.

    Parameters
    ----------
    fit : Fit
        The fit.
    """

    def __init__(self, fit: Fit) -> None:
        assert fit.residual is not None
        self.fit, self.model = fit, fit.residual.model
        self.entries = residual_entries_of(fit)

    def of_fit(self, start: int, stop: int) -> ResidualRows:
        """Rows of the fit."""
        design, part = self.model.design, slice(start, stop)
        stratum = design.stratum[part].astype(np.int64)
        return ResidualRows(stratum, design.positions[part], design.v[part])

    def of_places(self, places: ResidualPlaces) -> ResidualRows:
        """New rows."""
        term, n = self.fit.frame.residual, len(places.stratum)
        v = places.variance
        if term is not None:
            cells = deviations_of_cells(term, places.stratum, places.steps, n)
            v = np.hstack([cells, v])
        positions = np.zeros((n, 1))
        if places.coordinates is not None:
            positions = places.coordinates
        elif places.steps is not None:
            positions = places.steps[:, None].astype(np.float64)
        return ResidualRows(places.stratum, positions, v)

    def relative(self, rows: ResidualRows, weights: Matrix | None) -> Matrix:
        """``D^2 C_nn / w``, shape (m,): relative to sigma^2 at the user's prior weights."""
        out = self.entries.deviations(rows.v) ** 2
        if self.model.families:
            out = out * self.entries.variances(rows.stratum, rows.positions)
        return out if weights is None else np.asarray(out / weights)

    def gradient(self, rows: ResidualRows, weights: Matrix | None) -> Matrix:
        """Derivatives of sigma^2 times the same in (theta, phi, sigma), one row each."""
        fit, model = self.fit, self.model
        variances = fit.sigma**2 * self.relative(rows, weights)
        m = self._n_theta
        out = np.zeros((len(variances), m + model.n_parameters + 1))
        if model.n_delta:
            out[:, m : m + model.n_delta] = 2.0 * variances[:, None] * model.standardised(rows.v)
        if model.design.kind == "us":
            own = variances / self.entries.variances(rows.stratum, rows.positions)
            for s, (family, at) in enumerate(zip(model.families, model.places, strict=True)):
                assert isinstance(family, Block)
                times = np.arange(model.design.n_times, dtype=np.float64)[:, None]
                changes = np.einsum("rtt->tr", family.derivatives(self.entries.phi[at], times))
                here = np.flatnonzero(rows.stratum == s)
                steps = np.rint(rows.positions[here, 0]).astype(np.int64)
                out[here[:, None], m + np.arange(at.start, at.stop)] = (
                    own[here, None] * changes[steps]
                )
        out[:, -1] = 2.0 * variances / fit.sigma
        return out

    @cached_property
    def _parameters(self) -> tuple[Parameterisation, Matrix]:
        """Coordinates of the random effects' covariance, as `residual_curvature` has them."""
        optimum, A = self.fit.optimum, self.fit.crossproducts
        p, eta = optimum.parameterisation, optimum.eta
        if p is None or eta is None:
            p = parameterise(A.basis, A.term_columns, [None] * len(A.term_columns))
            eta = p.nearest(list(optimum.T)) if len(optimum.T) else np.zeros(0)
        return p, eta

    @property
    def _n_theta(self) -> int:
        p, eta = self._parameters
        return int((~p.fixed(eta)).sum()) if len(eta) else 0

    def effects_jacobian(self, t: int, z: Matrix) -> Matrix:
        """Derivatives of ``z'G_t z`` in (theta, phi, sigma), for each row of z."""
        fit = self.fit
        optimum, A = fit.optimum, fit.crossproducts
        p, eta = self._parameters
        scale = fit.sigma**2 / A.basis.weight_scale
        rows = z @ A.basis.terms[t]
        parts = [np.zeros((len(z), len(own))) for own in p.split(eta)]
        derivatives = p.terms[t].derivatives(p.split(eta)[t])
        parts[t] = scale * np.einsum("ia,rab,ib->ir", rows, derivatives, rows, optimize=True)
        of_theta = np.hstack(parts)[:, ~p.fixed(eta)]
        variance = scale * ((rows @ optimum.T[t]) ** 2).sum(axis=1)
        of_phi = np.zeros((len(z), self.model.n_parameters))
        return np.column_stack([of_theta, of_phi, 2.0 * variance / fit.sigma])


class KnownResiduals(NewVariances):
    """What the residuals of a fit say of new ones in their groups.

    Parameters
    ----------
    fit : Fit
        The fit.
    T : sequence of ndarray (k, k), optional
        Factors in the engine's basis in place of the estimates, relative to the same sigma.
    phi : ndarray, optional
        Parameters of the residuals in place of the estimates.
    """

    def __init__(
        self, fit: Fit, T: Sequence[Matrix] | None = None, phi: Matrix | None = None
    ) -> None:
        super().__init__(fit)
        term, model = fit.frame.residual, self.model
        assert term is not None and fit.residual is not None
        self._tau2 = fit.sigma**2 / fit.crossproducts.basis.weight_scale
        self._factorisation, self._whitening = fit.factorisation, fit.residual.rows.whitening
        if T is not None and phi is not None:
            self.entries = ResidualEntries(model, phi)
            self._whitening = model.at(phi)
            self._factorisation = Factorisation(fit.residual.design.at(phi).A, T)
        #: First row of each residual group in the series, and the number of its rows.
        codes = term.codes[model.order][model.starts]
        self._start, self._size = (np.zeros(term.n_levels, dtype=np.intp) for _ in range(2))
        self._start[codes], self._size[codes] = model.starts, model.sizes
        self._stratum_of_group = np.zeros(term.n_levels, dtype=np.int64)
        self._stratum_of_group[codes] = model.stratum[model.starts]
        e = (fit.frame.y - fitted_values(fit))[model.order]
        #: ``S^-1 e``, in units of the response.
        self._g = self._whitening.U.T @ (self._whitening.U @ e)

    @cached_property
    def _Z(self) -> scipy.sparse.csr_array | None:
        if not self.fit.frame.terms:
            return None
        return scipy.sparse.csr_array(engine_matrix(self.fit)[0][self.model.order])

    @cached_property
    def _X(self) -> Matrix:
        frame, basis = self.fit.frame, self.fit.crossproducts.basis
        return np.asarray(frame.X[self.model.order] @ basis.fixed)

    def _covariances(self, design: DesignRows) -> scipy.sparse.csr_array:
        """S of each row, sparse (m, n), the columns in the order of the series; engine's units."""
        places = design.residual
        assert places is not None and places.codes is not None
        rows, model = self.of_places(places), self.model
        known = np.flatnonzero(places.codes != UNSEEN)
        group = places.codes[known]
        differs = rows.stratum[known] != self._stratum_of_group[group]
        if differs.any():
            term = self.fit.frame.residual
            assert term is not None
            label = term.levels[group[np.flatnonzero(differs)[0]]]
            raise DataError(
                f"`{term.by}` of the new rows is not that of the fit for {label!r} of "
                f"`{term.group}`, whose rows all have one."
            )
        sizes = self._size[group]
        row = np.repeat(known, sizes)
        ends = np.cumsum(sizes)
        within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - sizes, sizes)
        column = np.repeat(self._start[group], sizes) + within
        C = self.entries.correlations(
            rows.stratum[row], rows.positions[row], model.positions[column]
        )
        sd = self._deviations(rows, design.weights)
        values = C * sd[row] / self._whitening.scale[column]
        shape = (len(rows.stratum), model.design.n)
        return scipy.sparse.csr_array((values, (row, column)), shape=shape)

    def _deviations(self, rows: ResidualRows, weights: Matrix | None) -> Matrix:
        """``D / sqrt(w)`` with the engine's prior weights."""
        out = self.entries.deviations(rows.v) * np.sqrt(self.fit.crossproducts.basis.weight_scale)
        return out if weights is None else np.asarray(out / np.sqrt(weights))

    def predicted(self, design: DesignRows) -> Matrix:
        """``s'S^-1 e``, shape (m,), in units of the response; zero for new groups."""
        return np.asarray(self._covariances(design) @ self._g)

    def error_variances(self, design: DesignRows) -> Matrix:
        """Variance of the error of each new observation, shape (m,).

        Effects of levels that the fit did not see are left out.
        """
        left, quadratic = self._variance_parts(design)
        # Of a residual that is that of a row of the fit nothing is left but rounding.
        return np.asarray(self._tau2 * (np.maximum(left, 0.0) + quadratic))

    def _variance_parts(self, design: DesignRows) -> tuple[Matrix, Matrix]:
        """``S_nn - s'S^-1 s``, and what the unknown fixed and random effects add."""
        places = design.residual
        assert places is not None
        U, basis = self._whitening.U, self.fit.crossproducts.basis
        s = self._covariances(design)
        half = scipy.sparse.csr_array((U @ s.T).T)
        own = self.relative(self.of_places(places), design.weights) * basis.weight_scale
        left = own - np.asarray(half.multiply(half).sum(axis=1)).ravel()
        solved = scipy.sparse.csr_array(half @ U)
        d_x = design.X @ basis.fixed - solved @ self._X
        return left, self._henderson(design, solved, d_x)

    def error_gradient(self, design: DesignRows) -> Matrix:
        """Derivatives of these variances in (theta, phi, sigma), one row each.

        Central differences along the natural directions of the parameters.
        """
        fit, phi = self.fit, self.entries.phi
        p, eta = self._parameters
        free = np.flatnonzero(~p.fixed(eta)) if len(eta) else np.zeros(0, dtype=np.intp)
        directions = fit.optimum.curvature.directions
        natural = np.empty((len(design.X), len(directions)))
        for j in range(len(directions) - 1):
            step = _STEP
            while True:
                try:
                    sides = []
                    for sign in (step, -step):
                        moved = eta.copy()
                        moved[free] += sign * directions[: len(free), j]
                        T = p.factors(moved) if len(eta) else []
                        other = KnownResiduals(fit, T, phi + sign * directions[len(free) : -1, j])
                        sides.append(sum(other._variance_parts(design)))
                    break
                except (NotPositiveDefiniteError, np.linalg.LinAlgError):
                    step *= 0.1
                    if step < _SHORTEST:
                        raise
            natural[:, j] = self._tau2 * (sides[0] - sides[1]) / (2.0 * step)
        natural[:, -1] = 0.0
        if fit.crossproducts.known_variance is None:
            natural[:, -1] = 2.0 * self._tau2 * sum(self._variance_parts(design))
        return np.asarray(np.linalg.solve(directions.T, natural.T).T)

    def _henderson(self, design: DesignRows, solved: scipy.sparse.csr_array, d_x: Matrix) -> Matrix:
        fit, n = self.fit, len(d_x)
        A, factorisation = fit.crossproducts, self._factorisation
        out = np.empty(n)
        step = max(1, int(_CHUNK / (16.0 * (A.q + A.p + 1))))
        Z = self._Z
        for low in range(0, n, step):
            part = slice(low, min(low + step, n))
            m = part.stop - low
            taken = np.zeros((A.q, m)) if Z is None else -(Z.T @ solved[part].T).toarray()
            rhs, first = [], 0
            for factor in A.factors:
                size = factor.n_levels * factor.k
                own = taken[first : first + size].reshape(factor.n_levels, factor.k, m)
                for member in factor.members:
                    code = design.codes[member.term][part]
                    z = design.z[member.term][part] @ A.basis.terms[member.term]
                    seen = np.flatnonzero(code != UNSEEN)
                    own[code[seen], member.columns, seen] += z[seen]
                rhs.append(np.ascontiguousarray(own))
                first += size
            random, rest = factorisation.forward(rhs, np.ascontiguousarray(d_x[part].T))
            out[part] = np.einsum("im,im->m", rest, rest)
            for each in random:
                out[part] += np.einsum("iam,iam->m", each, each)
        return out


def check_new_variances(fit: Fit) -> None:
    """Refuse intervals for new observations whose variance nothing says."""
    term = fit.frame.residual
    if term is not None and term.kind == "known":
        raise ModelError(
            "The covariance of the residuals was given for the rows of the fit, and says nothing "
            "of the variance of a new observation: interval='confidence' is for its mean."
        )


def check_known_residuals(fit: Fit) -> None:
    """Refuse to predict residuals where those of the fit say nothing of new ones."""
    term = fit.frame.residual
    if fit.residual is None or term is None or not fit.residual.model.families:
        raise ModelError(
            "residual=True adds what the residuals of a group say of a new one, and those of this "
            "model are independent of each other. Fit it with residual=, such as 'ar1(week | id)'."
        )
    if term.kind == "known":
        raise ModelError(
            "residual=True needs the covariances of new rows with those of the fit, and these were "
            "given for the rows of the fit alone."
        )
    if not term.position and term.kind != "cs":
        raise ModelError(
            f"residual=True needs the position of a new row, and `{term.text}` counts the rows of "
            "the fit in their order. Fit it with a column of positions."
        )
