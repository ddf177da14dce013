"""The covariance of the residuals as a function of its parameters.

    S(phi) = blockdiag over residual groups of  W^-1/2 D C D W^-1/2

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
from mixedeffects.engine.residual_whitening import (
    BlockWhitening,
    ChainWhitening,
    Pattern,
    Whitening,
)

__all__ = ["RangeCoordinate", "ResidualDesign", "ResidualModel"]

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
    def patterns(self) -> list[Pattern]:
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
                out.append(Pattern(int(distinct[pattern, 0]), chosen, self.positions[chosen[0]]))
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
        return ChainWhitening(self, phi) if self.is_chain else BlockWhitening(self, phi)

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
