"""The covariance of the residuals as a function of its parameters, and the whitening of rows.

    S(phi) = blockdiag over residual groups of  W^-1/2 D C D W^-1/2,    U S U' = I

``D = diag exp(v'delta)`` with v centred and orthonormal over the rows, so that sigma is the
geometric mean of the standard deviations in a search; C of a family of correlations, one set of
parameters for each stratum. phi is delta followed by the parameters of each stratum's family.
Everything here is in the order of the series: rows by group, then by position.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays, distinct_rows
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.residual_families import (
    AnteDependence,
    Autoregression,
    Block,
    Chain,
    CompoundSymmetry,
    ContinuousAutoregression,
    Family,
    Spatial,
    make_family,
)

__all__ = ["RangeCoordinate", "ResidualDesign", "ResidualModel", "Whitening"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]

#: Distance relative to the range (to a power) from which there is no correlation, or little; and
#: below which its exponential is linear.
_NO_CORRELATION, _LITTLE_CORRELATION, _SMALL = 30.0, 1.0, 1e-8
#: Pairs of rows that starting values are made of at most.
_MOST_PAIRS = 2_000_000


@dataclass(frozen=True, eq=False)
class ResidualDesign(ReadOnlyArrays):
    """What the covariance of the residuals is made of, one entry a row.

    Attributes
    ----------
    kind : str
        Name of the structure: ``"diag"``, ``"cs"``, ``"ar1"``, ``"car1"``, ``"ante"``, ``"toep"``,
        ``"us"``, ``"exp"``, ``"gau"``, ``"known"``.
    codes : ndarray of int, shape (n,)
        Residual group.
    positions : ndarray, shape (n, d)
        Numbers of the common times, or coordinates; zeros where there are none.
    n_times : int
        Number of common times, 0 where there are none.
    stratum : ndarray of int, shape (n,)
        Which parameters of the correlation hold; one for a group.
    n_strata : int
        Number of them.
    v : ndarray, shape (n, s)
        What the logarithms of the standard deviations are linear in.
    weights : ndarray, shape (n,), or None
        Prior weights.
    homogeneous, nugget : bool
        As for `make_family`.
    given : csr_array or None
        The matrix of ``"known"``, whose rows the positions are.
    sigma : float or None
        The residual standard deviation where v is zero, if it is known.
    """

    kind: str
    codes: NDArray[np.int32]
    positions: Matrix
    n_times: int
    stratum: NDArray[np.int32]
    n_strata: int
    v: Matrix
    weights: Matrix | None = None
    homogeneous: bool = True
    nugget: bool = False
    given: scipy.sparse.csr_array | None = None
    sigma: float | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.codes)


@dataclass(frozen=True, eq=False)
class _Pattern:
    """Groups with the same positions: their rows (groups, m), and the positions (m, d)."""

    stratum: int
    rows: Positions
    positions: Matrix


@dataclass(frozen=True)
class RangeCoordinate:
    """How residuals depend on a range, whose coordinate z is its logarithm.

    ``u = (distance / range)^power`` at a typical distance of neighbours.

    Attributes
    ----------
    place : int
        Which of the parameters it is.
    nugget : int or None
        Which of them is the nugget beside it.
    distance : float
        A typical one of neighbours.
    power : int
        Of the distance.
    """

    place: int
    nugget: int | None
    distance: float
    power: int

    def _scaled(self, z: float) -> float:
        return float(np.exp(self.power * (np.log(self.distance) - z)))

    def coupling(self, z: float) -> tuple[float, float, float]:
        """``-log(1 - exp(-u))`` at a logarithm of the range, and two derivatives in that.

        That is how much the logarithm of the odds of the nugget is greater among the variance of
        the difference of two neighbours than among all variance.
        """
        u, p = self._scaled(z), self.power
        if u > _NO_CORRELATION:
            return 0.0, 0.0, 0.0
        if u < _SMALL:
            return float(-np.log(u)), float(p), 0.0
        # With e = exp(-u): du/dz = -p u.
        ratio = u / np.expm1(u)
        first = p * ratio
        second = p * p * ratio * (u * np.exp(u) / np.expm1(u) - 1.0)
        return float(-np.log(-np.expm1(-u))), float(first), float(second)

    def straight(self, here: float, there: float) -> tuple[float, float, float] | None:
        """The range where the correlation of neighbours is what it is, were that linear in it.

        At the logarithm of the range ``there``, drawn from ``here``, and two derivatives in the
        former; None where neighbours have little correlation: there other distances count.
        """
        u, v, p = self._scaled(here), self._scaled(there), self.power
        if u > _LITTLE_CORRELATION:
            return None
        reach = np.exp(here)
        # exp(-v) - exp(-u), relative to its derivative at u.
        ratio = np.exp(u - v) / u
        value = reach * (1.0 + np.expm1(u - v) / (p * u))
        return float(value), float(reach * ratio * v), float(reach * ratio * p * v * (v - 1.0))


class ResidualModel:
    """S as a function of phi.

    Parameters
    ----------
    design : ResidualDesign
        What it is made of.
    """

    def __init__(self, design: ResidualDesign) -> None:
        self.design = design
        keys = [*design.positions.T[::-1], design.codes]
        #: Rows by group, then by position.
        self.order: Positions = np.lexsort(keys)
        #: Whether they come in that order.
        self.is_in_order = bool((self.order == np.arange(design.n)).all())
        codes = design.codes[self.order]
        self.is_first = np.append(True, codes[1:] != codes[:-1])
        self.starts = np.flatnonzero(self.is_first)
        self.sizes = np.diff(np.append(self.starts, design.n))
        self.positions = design.positions[self.order]
        self.stratum = design.stratum[self.order]
        self.weights = None if design.weights is None else design.weights[self.order]
        v = design.v[self.order]
        is_fixed = design.sigma is not None
        self.v_mean = np.zeros(v.shape[1]) if is_fixed or not len(v) else v.mean(axis=0)
        centred = v - self.v_mean
        #: Columns of v that say something: a time without rows has no standard deviation.
        self.seen = np.flatnonzero((v != 0.0).any(axis=0))
        self.v = np.empty((design.n, 0))
        self._root = np.zeros((0, 0))
        if len(self.seen):
            Q, R = np.linalg.qr(centred[:, self.seen])
            self.v, self._root = Q * np.sqrt(design.n), R / np.sqrt(design.n)
        made = [self._family(s) for s in range(design.n_strata)]
        self._use([f for f in made if f is not None])
        #: Whether S is divided by the mean of its `innovations`, as in a search: then the random
        #: effects are measured in what is left of a residual given those before it in its group.
        #: That hardly changes with a strong correlation, nor where one variance of many, or what
        #: is left at one time of many, goes to zero.
        self.is_normalised = not is_fixed
        #: Logarithm of what D is divided by where S is not.
        self.shift = 0.0

    def _use(self, families: Sequence[Family]) -> None:
        self.families: tuple[Family, ...] = tuple(families)
        for known in ("ranges", "endless"):
            self.__dict__.pop(known, None)
        ends = np.cumsum([self.v.shape[1], *[f.n_parameters for f in families]]).tolist()
        #: Where the parameters of each stratum's family are.
        self.places = [slice(a, b) for a, b in itertools.pairwise(ends)]
        self.n_parameters = int(ends[-1])

    def with_families(self, families: Sequence[Family]) -> ResidualModel:
        """The same with other families of the same correlations, one for each stratum."""
        out = copy.copy(self)
        out._use(families)
        return out

    def with_relative_weights(self, factor: Matrix) -> ResidualModel:
        """The same with the prior weights multiplied by a factor of each row (n,) of the design."""
        out = copy.copy(self)
        own = factor[self.order]
        out.weights = own if self.weights is None else self.weights * own
        return out

    def _family(self, stratum: int) -> Family | None:
        design = self.design
        own = self.sizes[self.stratum[self.starts] == stratum]
        return make_family(
            design.kind,
            design.n_times,
            max(2, int(own.max(initial=2))),
            design.homogeneous,
            design.nugget,
            stratum == 0,
            design.positions.shape[1],
            design.given,
        )

    @property
    def n_delta(self) -> int:
        """Number of parameters of the standard deviations."""
        return int(self.v.shape[1])

    @property
    def is_chain(self) -> bool:
        """Whether each residual depends on the one before it alone."""
        return not self.families or isinstance(self.families[0], Chain)

    # --- parameters ----------------------------------------------------------------------

    def unbounded(self, phi: Matrix) -> Matrix:
        """Coordinates of a search without bounds."""
        out = phi.copy()
        for family, at in zip(self.families, self.places, strict=True):
            out[at] = family.unbounded(phi[at])
        return out

    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """phi, and its first and second derivatives, each in its own coordinate."""
        phi, first, second = z.copy(), np.ones(len(z)), np.zeros(len(z))
        for family, at in zip(self.families, self.places, strict=True):
            phi[at], first[at], second[at] = family.bounded(z[at])
        return phi, first, second

    def coefficients(self, phi: Matrix) -> Matrix:
        """What the logarithms of the standard deviations are in v as given, shape (s,).

        NaN for a column without values.
        """
        out = np.full(len(self.v_mean), np.nan)
        out[self.seen] = np.linalg.solve(self._root, phi[: self.n_delta])
        return out

    def _log_mean(self, phi: Matrix) -> float:
        """Logarithm of D where v is at its mean, relative to where it is zero."""
        return float(self.v_mean[self.seen] @ self.coefficients(phi)[self.seen])

    def standardised(self, v: Matrix) -> Matrix:
        """Columns v as given, of any rows (m, s), in the coordinates that phi belongs to."""
        return np.asarray(np.linalg.solve(self._root.T, (v - self.v_mean).T).T)

    def of_coefficients(self, coefficients: Matrix) -> Matrix:
        """The first of phi, from what `coefficients` gives."""
        return np.asarray(self._root @ coefficients[self.seen])

    def with_unit_at_zero(self, phi: Matrix) -> ResidualModel:
        """S with D one where v is zero at phi."""
        out = copy.copy(self)
        out.is_normalised = False
        out.shift = -self._log_mean(phi)
        return out

    def log_deviation_at_zero(self, phi: Matrix) -> float:
        """Logarithm of D where v is zero, divided as S is."""
        own = -self.shift - self._log_mean(phi)
        return own - self.at(phi).log_factor if self.is_normalised else own

    def for_search(self) -> ResidualModel:
        """The same in the units of a search."""
        out = copy.copy(self)
        out.shift, out.is_normalised = 0.0, self.design.sigma is None
        return out

    # --- where things are ----------------------------------------------------------------

    @cached_property
    def steps(self) -> tuple[Positions, list[tuple[int, Matrix, Matrix]], Positions]:
        """For rows after the first of their group: which distinct step; the steps by stratum."""
        rows = np.flatnonzero(~self.is_first)
        t = self.positions[:, 0]
        keys = np.column_stack([self.stratum[rows], t[rows - 1], t[rows]])
        if self.design.kind in ("ar1", "car1", "exp"):
            keys[:, 2] -= keys[:, 1]
            keys[:, 1] = 0.0
        distinct, which = distinct_rows(keys)
        by_stratum = []
        for s in range(self.design.n_strata):
            own = distinct[distinct[:, 0] == s]
            by_stratum.append((len(own), own[:, 1], own[:, 2]))
        return rows, by_stratum, which

    @cached_property
    def ranges(self) -> list[RangeCoordinate]:
        """Every range among the parameters."""
        out = []
        step = np.sqrt((np.diff(self.positions, axis=0) ** 2).sum(axis=1))
        for s, (family, at) in enumerate(zip(self.families, self.places, strict=True)):
            if not isinstance(family, (ContinuousAutoregression, Spatial)):
                continue
            own = step[~self.is_first[1:] & (self.stratum[1:] == s) & (step > 0.0)]
            if len(own):
                power = family.power if isinstance(family, Spatial) else 1
                nugget = at.start + 1 if family.n_parameters > 1 else None
                out.append(RangeCoordinate(at.start, nugget, float(np.median(own)), power))
        return out

    @cached_property
    def endless(self) -> dict[int, float | None]:
        """Parameters whose coordinate may go to infinity, where the likelihood goes on.

        With the logarithm of the largest distance for a range; None for a correlation. Towards a
        nugget of zero a search comes to rest by itself.
        """
        out: dict[int, float | None] = {}
        for each in self.ranges:
            span = float(np.linalg.norm(np.ptp(self.positions, axis=0)))
            out[each.place] = float(np.log(max(span, each.distance)))
        for family, at in zip(self.families, self.places, strict=True):
            if isinstance(family, (Autoregression, AnteDependence, CompoundSymmetry)):
                out.update(dict.fromkeys(range(at.start, at.stop)))
        return out

    @cached_property
    def innovations(self) -> NDArray[np.bool_]:
        """Rows whose variance given those before them in their group is a unit; shape (n,).

        Those that have one before them; all of them where residuals are independent.
        """
        later = ~self.is_first
        every = np.ones(len(later), dtype=np.bool_)
        return later if self.families and later.any() else every

    @cached_property
    def patterns(self) -> list[_Pattern]:
        """Groups by stratum and positions, each list of positions once."""
        out = []
        plain = self.design.kind == "cs"
        for m in np.unique(self.sizes).tolist():
            starts = self.starts[self.sizes == m]
            rows = starts[:, None] + np.arange(m)
            strata = self.stratum[starts]
            at = self.positions[rows].reshape(len(starts), -1)
            keys = np.column_stack([strata, np.zeros((len(starts), 0)) if plain else at])
            distinct, which = distinct_rows(keys)
            order = np.argsort(which, kind="stable")
            for pattern, own in enumerate(
                np.split(order, np.cumsum(np.bincount(which, minlength=len(distinct)))[:-1])
            ):
                chosen = rows[own]
                out.append(_Pattern(int(distinct[pattern, 0]), chosen, self.positions[chosen[0]]))
        return out

    @cached_property
    def sparsity(self) -> tuple[Positions, Positions]:
        """``indptr, indices`` of U and its derivatives, lower triangular."""
        n = self.design.n
        if self.is_chain:
            own = np.arange(n)
            before = np.where(self.is_first, own, own - 1)
            return 2 * np.arange(n + 1), np.column_stack([before, own]).reshape(-1)
        within = np.arange(n) - np.repeat(self.starts, self.sizes)
        indptr = np.append(0, np.cumsum(within + 1))
        first = np.repeat(np.repeat(self.starts, self.sizes), within + 1)
        indices = first + np.arange(indptr[-1]) - np.repeat(indptr[:-1], within + 1)
        return indptr, indices

    def at(self, phi: Matrix) -> Whitening:
        """S at phi.

        Raises
        ------
        LinAlgError
            If C is not positive definite.
        """
        return _ChainWhitening(self, phi) if self.is_chain else _BlockWhitening(self, phi)

    # --- starting values -----------------------------------------------------------------

    def start(self, residuals: Matrix) -> Matrix:
        """Parameters near the moments of residuals, in the order of the series."""
        phi = np.zeros(self.n_parameters)
        scaled = residuals if self.weights is None else residuals * np.sqrt(self.weights)
        if self.n_delta:
            size = scaled**2
            log_size = np.log(size + 1e-3 * size.mean())
            delta = 0.5 * self.v.T @ (log_size - log_size.mean()) / len(size)
            phi[: self.n_delta] = np.clip(delta, -2.0, 2.0)
            scaled = scaled * np.exp(-self.v @ phi[: self.n_delta])
        scaled = scaled / np.sqrt(np.mean(scaled**2))
        for s, (family, at) in enumerate(zip(self.families, self.places, strict=True)):
            if isinstance(family, Chain):
                phi[at] = self._chain_start(s, family, scaled)
            else:
                assert isinstance(family, Block)
                phi[at] = family.moment(*self._pairs(s, scaled))
        return phi

    def _chain_start(self, stratum: int, family: Chain, scaled: Matrix) -> Matrix:
        rows, by_stratum, which = self.steps
        offset = sum(each[0] for each in by_stratum[:stratum])
        count, first, second = by_stratum[stratum]
        products = scaled[rows] * scaled[rows - 1]
        squares = 0.5 * (scaled[rows] ** 2 + scaled[rows - 1] ** 2)
        n_all = offset + sum(each[0] for each in by_stratum[stratum:])
        own = slice(offset, offset + count)
        sums = np.bincount(which, products, n_all)[own]
        sizes = np.bincount(which, squares, n_all)[own]
        counts = np.bincount(which, minlength=n_all)[own].astype(np.float64)
        return family.moment(np.clip(sums / sizes, -0.95, 0.95), first, second, counts)

    def _pairs(self, stratum: int, scaled: Matrix) -> tuple[Matrix, Matrix]:
        """Positions and products of pairs of rows of one group, each row with itself too."""
        pairs, products = [], []
        own = [p for p in self.patterns if p.stratum == stratum]
        total = sum(len(p.rows) * len(p.positions) ** 2 for p in own)
        keep = max(1, total // _MOST_PAIRS)
        is_us = self.design.kind == "us"
        for pattern in own:
            a, b = np.tril_indices(len(pattern.positions), 0 if is_us else -1)
            rows = pattern.rows[::keep]
            values = scaled[rows[:, a]] * scaled[rows[:, b]]
            at = np.stack([pattern.positions[a], pattern.positions[b]], axis=1)
            pairs.append(np.tile(at, (len(rows), 1, 1)))
            products.append(values.ravel())
        return np.concatenate(pairs), np.concatenate(products)


class Whitening:
    """U at some phi, and its derivatives.

    Attributes
    ----------
    U : csr_array, n x n
        Lower triangular, rows in the order of the series.
    logdet : float
        ``log |S|``.
    logdet_gradient : ndarray, shape (number of parameters,)
        Its derivatives in phi.
    """

    U: scipy.sparse.csr_array
    logdet: float
    logdet_gradient: Matrix

    #: Logarithm of what U is multiplied by so that the mean innovation is one; zero where it need
    #: not be.
    log_factor = 0.0
    #: Half the logarithm of the mean innovation, without prior weights, before S is divided by it;
    #: and the derivatives in phi, shape (number of parameters,).
    log_unit: float
    log_unit_gradient: Matrix

    def __init__(self, model: ResidualModel, phi: Matrix) -> None:
        self.model, self.phi = model, phi
        with np.errstate(over="ignore"):
            #: W^1/2 D^-1
            self.scale = np.exp(model.shift - model.v @ phi[: model.n_delta])
        if model.weights is not None:
            self.scale = self.scale * np.sqrt(model.weights)
        if not (np.isfinite(self.scale).all() and (self.scale > 0.0).all()):
            raise np.linalg.LinAlgError("a standard deviation is not finite")

    def _normalise(self, log_root: Matrix, changes: Matrix) -> None:
        """Divide S by its mean innovation, if that is wanted.

        Parameters
        ----------
        log_root : ndarray, shape (n,)
            Logarithm of the diagonal of U, without prior weights.
        changes : ndarray, shape (number of correlation parameters, n)
            Its derivatives in them.
        """
        model, n = self.model, self.model.design.n
        counted = model.innovations
        log_variance = -2.0 * log_root[counted]
        largest = float(log_variance.max())
        share = np.exp(log_variance - largest)
        total = float(share.sum())
        self.log_unit = 0.5 * (largest + np.log(total / len(share)))
        of_delta = model.v[counted].T @ share
        self.log_unit_gradient = np.append(of_delta, -changes[:, counted] @ share) / total
        if not model.is_normalised:
            return
        self.log_factor = self.log_unit
        self._scale_by(float(np.exp(self.log_factor)))
        self.logdet -= 2.0 * n * self.log_unit
        self.logdet_gradient = self.logdet_gradient - 2.0 * n * self.log_unit_gradient

    @property
    def _log_scale(self) -> Matrix:
        """Logarithm of D^-1."""
        return np.asarray(self.model.shift - self.model.v @ self.phi[: self.model.n_delta])

    def _scale_by(self, factor: float) -> None:
        """Multiply U."""
        self.U = self._matrix(factor * self.U.data)

    def _matrix(self, data: Matrix) -> scipy.sparse.csr_array:
        indptr, indices = self.model.sparsity
        n = self.model.design.n
        return scipy.sparse.csr_array((data, indices, indptr), shape=(n, n))

    def derivative(self, j: int) -> scipy.sparse.csr_array:
        """dU/dphi_j."""
        if j < self.model.n_delta:
            data = -self.U.data * self.model.v[self.model.sparsity[1], j]
        else:
            data = np.exp(self.log_factor) * self._of_correlation(j)
        if self.model.is_normalised:
            data = data + self.log_unit_gradient[j] * self.U.data
        return self._matrix(data)

    def _of_correlation(self, j: int) -> Matrix:
        """Data of dU/dphi_j, before S is divided by anything."""
        raise NotImplementedError

    def working_variates(self, residuals: Matrix) -> Matrix:
        """``U S_j g`` up to its sign, shape (n, number of parameters), for ``g = S^-1 residuals``.

        ``U'^-1 K_j residuals`` with ``K_j = U_j'U + U'U_j`` the derivative of ``S^-1``.
        """
        return self.transposed_root(self.changes_of_inverse(residuals))

    def changes_of_inverse(self, residuals: Matrix) -> Matrix:
        """``K_j residuals``, shape (n, number of parameters), K_j the derivative of ``S^-1``."""
        e = self.U @ residuals
        out = np.empty((len(e), self.model.n_parameters))
        for j in range(out.shape[1]):
            U_j = self.derivative(j)
            out[:, j] = U_j.T @ e + self.U.T @ (U_j @ residuals)
        return out

    def contracted(self, left: Matrix, right: Matrix) -> Matrix:
        """``sum_c left_c'K_j right_c`` over columns of arrays (n, c), for each parameter."""
        white_left, white_right = self.U @ left, self.U @ right
        out = np.empty(self.model.n_parameters)
        for j in range(len(out)):
            U_j = self.derivative(j)
            out[j] = np.vdot(U_j @ left, white_right) + np.vdot(white_left, U_j @ right)
        return out

    def transposed_root(self, x: Matrix) -> Matrix:
        """``U'^-1 x`` for x (n, m)."""
        raise NotImplementedError

    def root(self, x: Matrix) -> Matrix:
        """``U^-1 x`` for x (n, m): errors of covariance S, if x is white."""
        raise NotImplementedError


class _ChainWhitening(Whitening):
    def __init__(self, model: ResidualModel, phi: Matrix) -> None:
        super().__init__(model, phi)
        n = model.design.n
        self._r = np.zeros(n)
        rows, by_stratum, which = model.steps
        correlations, derivatives = [], []
        for family, at, (_, first, second) in zip(
            model.families, model.places, by_stratum, strict=False
        ):
            assert isinstance(family, Chain)
            r, dr = family.neighbours(phi[at], first, second)
            correlations.append(r)
            derivatives.append(dr)
        if correlations:
            whole = np.concatenate(correlations)
            if not (np.abs(whole) < 1.0).all():
                raise np.linalg.LinAlgError("a correlation of neighbours is one")
            self._r[rows] = whole[which]
        ends = np.cumsum([0, *[len(r) for r in correlations]])
        self._by_step = [
            (int(ends[s]), dr[k]) for s, dr in enumerate(derivatives) for k in range(len(dr))
        ]
        self._q = 1.0 / ((1.0 - self._r) * (1.0 + self._r))
        root = np.sqrt(self._q)
        self._before = np.append(self.scale[:1], self.scale[:-1])
        self._band = np.empty((2, n))
        np.multiply(-self._r * root, self._before, out=self._band[0])
        np.multiply(root, self.scale, out=self._band[1])
        self._band[0, model.is_first] = 0.0
        self.logdet = -float(np.log(self._q).sum()) - 2.0 * float(np.log(self.scale).sum())
        gradient = [2.0 * model.v.sum(axis=0)] if model.n_delta else []
        slope = self._r * self._q
        changes = np.empty((len(self._by_step), n))
        for k in range(len(changes)):
            changes[k] = slope * self._row_derivative(k)
        self.logdet_gradient = np.concatenate([*gradient, -2.0 * changes.sum(axis=1)])
        self._normalise(self._log_scale + 0.5 * np.log(self._q), changes)

    def _row_derivative(self, k: int) -> Matrix:
        """Derivatives of the correlation of each row with the one before."""
        rows, by_stratum, which = self.model.steps
        start, values = self._by_step[k]
        full = np.zeros(sum(each[0] for each in by_stratum))
        full[start : start + len(values)] = values
        out = np.zeros(self.model.design.n)
        out[rows] = full[which]
        return out

    @cached_property
    def U(self) -> scipy.sparse.csr_array:  # type: ignore[override]
        """U, with two entries in every row."""
        return self._matrix(self._band.T.reshape(-1))

    def _scale_by(self, factor: float) -> None:
        self._band *= factor

    def derivative_band(self, j: int) -> Matrix:
        """Entries of dU/dphi_j before the diagonal and on it, shape (2, n)."""
        out = np.empty_like(self._band)
        if j < self.model.n_delta:
            v = self.model.v[:, j]
            np.multiply(self._band[1], -v, out=out[1])
            out[0, 0] = 0.0
            np.multiply(self._band[0, 1:], -v[:-1], out=out[0, 1:])
        else:
            steep = np.exp(self.log_factor) * self._q**1.5
            steep *= self._row_derivative(j - self.model.n_delta)
            np.multiply(steep, -self._before, out=out[0])
            out[1] = self._r * steep * self.scale
            out[0, self.model.is_first] = 0.0
        if self.model.is_normalised:
            out += self.log_unit_gradient[j] * self._band
        return out

    def derivative(self, j: int) -> scipy.sparse.csr_array:
        """dU/dphi_j."""
        return self._matrix(self.derivative_band(j).T.reshape(-1))

    def working_variates(self, residuals: Matrix) -> Matrix:
        """See `Whitening`; by recursions, without sparse matrices."""
        e = _band_times(self._band, residuals)
        m = self.model.n_parameters
        out, back = np.empty((m, len(e))), np.empty((len(e), m))
        for j in range(m):
            change = self.derivative_band(j)
            out[j] = _band_times(change, residuals)
            back[:, j] = change[1] * e
            back[:-1, j] += change[0, 1:] * e[1:]
        return np.asarray(out.T + self.transposed_root(back)) if m else out.T

    def transposed_root(self, x: Matrix) -> Matrix:
        """``U'^-1 x``, backwards along the series."""
        return np.asarray(scipy.linalg.solve_banded((0, 1), self._band, x, check_finite=False))

    def root(self, x: Matrix) -> Matrix:
        """``U^-1 x``, forwards along the series."""
        band = np.vstack([self._band[1], np.append(self._band[0, 1:], 0.0)])
        return np.asarray(scipy.linalg.solve_banded((1, 0), band, x, check_finite=False))


def _band_times(band: Matrix, x: Matrix) -> Matrix:
    """A matrix with entries on and before its diagonal times x (n,)."""
    out = band[1] * x
    out[1:] += band[0, 1:] * x[:-1]
    return np.asarray(out)


class _BlockWhitening(Whitening):
    def __init__(self, model: ResidualModel, phi: Matrix) -> None:
        super().__init__(model, phi)
        self._roots: list[tuple[Matrix, Matrix]] = []
        _indptr, indices = model.sparsity
        data = np.empty(len(indices))
        logdet = 0.0
        for pattern in model.patterns:
            family = model.families[pattern.stratum]
            assert isinstance(family, Block)
            C = family.matrix(phi[model.places[pattern.stratum]], pattern.positions)
            L: Matrix = np.asarray(np.linalg.cholesky(C))
            inverse = np.asarray(
                scipy.linalg.solve_triangular(L, np.eye(len(L)), lower=True, check_finite=False)
            )
            self._roots.append((L, inverse))
            self._fill(data, pattern, inverse)
            logdet += len(pattern.rows) * 2.0 * float(np.log(np.diag(L)).sum())
        self.U = self._matrix(data)
        self.logdet = logdet - 2.0 * float(np.log(self.scale).sum())
        gradient = np.zeros(model.n_parameters)
        gradient[: model.n_delta] = 2.0 * model.v.sum(axis=0)
        self._changes: list[Matrix] = []
        log_root = self._log_scale
        changes = np.zeros((model.n_parameters, model.design.n))
        for pattern, (L, inverse) in zip(model.patterns, self._roots, strict=True):
            at = model.places[pattern.stratum]
            family = model.families[pattern.stratum]
            assert isinstance(family, Block)
            change = inverse @ family.derivatives(phi[at], pattern.positions) @ inverse.T
            self._changes.append(change)
            of_rows = np.einsum("rii->ri", change)
            gradient[at] += len(pattern.rows) * of_rows.sum(axis=1)
            log_root[pattern.rows] -= np.log(np.diag(L))
            changes[at][:, pattern.rows] = -0.5 * of_rows[:, None, :]
        self.logdet_gradient = gradient
        self._normalise(log_root, changes[model.n_delta :])

    def _fill(self, data: Matrix, pattern: _Pattern, matrix: Matrix) -> None:
        """Put a lower-triangular matrix, times the scale, at the rows of a pattern."""
        a, b = np.tril_indices(len(matrix))
        at = self.model.sparsity[0][pattern.rows][:, a] + b
        data[at] = matrix[a, b] * self.scale[pattern.rows[:, b]]

    def _of_correlation(self, j: int) -> Matrix:
        data = np.zeros(len(self.U.data))
        for pattern, (_, inverse), change in zip(
            self.model.patterns, self._roots, self._changes, strict=True
        ):
            at = self.model.places[pattern.stratum]
            if at.start <= j < at.stop:
                half = np.tril(change[j - at.start])
                np.einsum("ii->i", half)[:] *= 0.5
                self._fill(data, pattern, -half @ inverse)
        return data

    def _times_inverse(self, x: Matrix) -> Matrix:
        """``C^-1 x`` for x (n, c)."""
        out = np.empty_like(x)
        for pattern, (_, inverse) in zip(self.model.patterns, self._roots, strict=True):
            out[pattern.rows] = (inverse.T @ inverse) @ x[pattern.rows]
        return out

    def changes_of_inverse(self, residuals: Matrix) -> Matrix:
        """See `Whitening`; pattern by pattern."""
        model = self.model
        out = np.zeros((len(residuals), model.n_parameters))
        if not model.n_parameters:
            return out
        scale = np.exp(self.log_factor) * self.scale
        e = scale * residuals
        solved = self._times_inverse(e[:, None])[:, 0]
        for j in range(model.n_delta):
            v = model.v[:, j]
            out[:, j] = -v * solved - self._times_inverse((v * e)[:, None])[:, 0]
        for pattern, change in zip(model.patterns, self._changes_of_inverses, strict=True):
            at = model.places[pattern.stratum]
            # (groups, m) times (m, parameters m)
            count, m = len(change), pattern.rows.shape[1]
            moved = e[pattern.rows] @ change.transpose(2, 0, 1).reshape(m, count * m)
            out[pattern.rows, at] = moved.reshape(len(pattern.rows), count, m).transpose(0, 2, 1)
        if model.is_normalised:
            out += 2.0 * solved[:, None] * self.log_unit_gradient
        return np.asarray(scale[:, None] * out)

    def contracted(self, left: Matrix, right: Matrix) -> Matrix:
        """See `Whitening`; from the products of rows at two positions of a pattern."""
        model = self.model
        if not model.n_parameters:
            return np.zeros(0)
        scale = np.exp(self.log_factor) * self.scale[:, None]
        left, right = scale * left, scale * right
        out = np.zeros(model.n_parameters)
        total = 0.0
        for pattern, (_, inverse), change in zip(
            model.patterns, self._roots, self._changes_of_inverses, strict=True
        ):
            m = pattern.rows.shape[1]
            wide = left[pattern.rows.T].reshape(m, -1), right[pattern.rows.T].reshape(m, -1)
            products = wide[0] @ wide[1].T
            total += float(np.vdot(inverse.T @ inverse, products))
            out[model.places[pattern.stratum]] += np.tensordot(change, products, 2)
        if model.n_delta:
            with_left = np.einsum("nc,nc->n", left, self._times_inverse(right))
            with_right = np.einsum("nc,nc->n", right, self._times_inverse(left))
            out[: model.n_delta] -= model.v.T @ (with_left + with_right)
        if model.is_normalised:
            out += 2.0 * total * self.log_unit_gradient
        return out

    @cached_property
    def _changes_of_inverses(self) -> list[Matrix]:
        """Derivatives of ``C^-1`` in the parameters of its family, by pattern."""
        return [
            -inverse.T @ change @ inverse
            for (_, inverse), change in zip(self._roots, self._changes, strict=True)
        ]

    def transposed_root(self, x: Matrix) -> Matrix:
        """``U'^-1 x = L'(x / scale)``."""
        out = np.empty_like(x)
        scaled = x / (np.exp(self.log_factor) * self.scale[:, None])
        for pattern, (L, _) in zip(self.model.patterns, self._roots, strict=True):
            out[pattern.rows] = L.T @ scaled[pattern.rows]
        return out

    def root(self, x: Matrix) -> Matrix:
        """``U^-1 x = (L x) / scale``."""
        out = np.empty_like(x)
        for pattern, (L, _) in zip(self.model.patterns, self._roots, strict=True):
            out[pattern.rows] = L @ x[pattern.rows]
        return np.asarray(out / (np.exp(self.log_factor) * self.scale[:, None]))
