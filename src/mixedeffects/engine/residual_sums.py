"""Cross-products of a design with correlated residuals without its rows: n is forgotten.

The inverse of S is a sum of few fixed matrices with coefficients that depend on phi, so

    A(phi) = sum_k c_k(phi) A_k,     dA/dphi_r = sum_k dc_k/dphi_r A_k,

and the A_k are made once. That is so where the standard deviations take few values, and

* each residual depends on the one before it alone and there are few distinct steps (`ChainSums`):
  with q = 1/(1 - r^2) the rows of a step give q, q r^2 and -q r times their own products, those of
  the rows before them, and those of both;
* there are no random effects, and groups have few patterns of positions (`PatternSums`): then the
  A_k are the products of the rows at two positions of a pattern.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.arrays import distinct_rows
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.assembly import Blocks
from mixedeffects.engine.crossproducts import CrossProducts, EngineTerm
from mixedeffects.engine.fronts import Layout
from mixedeffects.engine.remainder import DenseRemainder, SparseRemainder
from mixedeffects.engine.residual_families import Block, Chain, Family
from mixedeffects.engine.residual_model import ResidualModel
from mixedeffects.engine.residual_whitening import Whitening, pivot_cancellation

__all__ = ["ChainSums", "PatternSums", "make_sums"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]

#: Distinct standard deviations, and steps with the cells of both rows.
_MOST_CELLS, _MOST_STEPS = 40, 8
#: Entries of the products of all patterns.
_MOST_PRODUCTS = 3e7
#: Rows below which a pass over them costs next to nothing.
_FEW_ROWS = 2_000


class Rows(Protocol):
    """What is asked of a design: see `ResidualRows`."""

    n: int
    p: int
    border: Matrix

    @property
    def model(self) -> ResidualModel:
        """The covariance of the residuals as a function of phi."""

    @property
    def terms(self) -> Sequence[EngineTerm]:
        """Random-effects terms in the order of the series."""

    @property
    def layout(self) -> Layout:
        """Where the columns of the remainder stand."""

    @property
    def sums(self) -> ChainSums | PatternSums | None:
        """Its sums."""

    def weighted(self, weights: Matrix | None) -> Blocks:
        """The blocks of the rows themselves with weights."""

    def of_neighbours(self, coefficients: Matrix) -> Blocks:
        """Blocks of products of each row with the one before it, in both orders."""

    def crossproducts(self, blocks: Blocks, logdet: float) -> CrossProducts:
        """A with the log determinant of S."""

    def residuals(self, b: Sequence[Matrix], beta: Matrix) -> Matrix:
        """``y - X beta - Z b``."""


def make_sums(rows: Rows) -> ChainSums | PatternSums | None:
    """The sums of a design; None where there are too many of them."""
    model = rows.model
    cells = _Cells.of(model)
    if cells is None:
        return None
    if not rows.terms:
        patterns = _patterns(model, cells)
        c = rows.p + 1
        entries = sum((len(each.positions) * c) ** 2 for each in patterns)
        if entries <= min(_MOST_PRODUCTS, 40.0 * rows.n * c):
            return PatternSums(rows, cells, patterns)
    if model.is_chain and rows.n > _FEW_ROWS:
        steps = _Steps.of(model, cells)
        if len(steps.stratum) + len(cells.v) <= _MOST_STEPS:
            return ChainSums(rows, cells, steps)
    return None


@dataclass(frozen=True, eq=False)
class _Cells:
    """Rows with the same standard deviation: of each row which cell, and v of the cells."""

    of_row: Positions
    v: Matrix

    @classmethod
    def of(cls, model: ResidualModel) -> _Cells | None:
        n = model.design.n
        if not model.n_delta:
            return cls(np.zeros(n, dtype=np.intp), np.zeros((1, 0)))
        # A look at some rows first: all of them may be different.
        some, _ = distinct_rows(model.v[:: max(1, n // 1_000)].round(12))
        if len(some) > _MOST_CELLS:
            return None
        v, of_row = distinct_rows(model.v.round(12))
        return None if len(v) > _MOST_CELLS else cls(of_row, v)

    def scales(self, model: ResidualModel, phi: Matrix) -> Matrix:
        """``D^-1`` of each cell, without prior weights."""
        out = np.exp(model.shift - self.v @ phi[: model.n_delta])
        if not (np.isfinite(out).all() and (out > 0.0).all()):
            raise np.linalg.LinAlgError("a standard deviation is not finite")
        return np.asarray(out)


@dataclass(frozen=True, eq=False)
class _Steps:
    """Distinct steps from one row to the next, with the cells of both.

    Attributes
    ----------
    rows, which : ndarray
        Rows after the first of their group, and which step leads to each.
    stratum, step : ndarray, one entry each
        Stratum, and number of the step among those of the model.
    before, own : ndarray, one entry each
        Cells of the two rows.
    """

    rows: Positions
    which: Positions
    stratum: Positions
    step: Positions
    before: Positions
    own: Positions

    @classmethod
    def of(cls, model: ResidualModel, cells: _Cells) -> _Steps:
        rows, by_stratum, which = model.steps
        stratum = np.repeat(np.arange(len(by_stratum)), [each[0] for each in by_stratum])
        keys = np.column_stack([which, cells.of_row[rows - 1], cells.of_row[rows]])
        distinct, key = distinct_rows(keys)
        step = distinct[:, 0].astype(np.intp)
        return cls(rows, key, stratum[step], step, distinct[:, 1], distinct[:, 2])


class _AtPhi:
    """What `evaluate_residual` asks for at one phi."""

    rows: Rows
    phi: Matrix
    logdet: float
    logdet_gradient: Matrix
    #: Half the logarithm of the mean innovation, before S is divided by it.
    log_unit: float
    #: See `Whitening`.
    cancellation: float

    @cached_property
    def whitening(self) -> Whitening:
        """U, if it is asked for."""
        return self.rows.model.at(self.phi)

    def __getstate__(self) -> dict[str, object]:
        return {"rows": self.rows, "phi": self.phi}


class _Unit:
    """Mean innovation (see `ResidualModel.innovations`), summed up from kinds of rows."""

    def __init__(self, n_parameters: int) -> None:
        self._total, self._count = 0.0, 0.0
        self._change = np.zeros(n_parameters)

    def add(self, variance: Matrix, counts: Positions, changes: Matrix) -> None:
        """Rows with these variances (k,), how many, and the logarithms' derivatives (r, k)."""
        weighted = variance * counts
        self._total += float(weighted.sum())
        self._count += float(counts.sum())
        self._change += changes @ weighted

    @property
    def gradient(self) -> Matrix:
        """Derivatives of its logarithm."""
        return self._change / self._total

    @property
    def value(self) -> float:
        """The mean."""
        return self._total / self._count

    @property
    def log_root(self) -> float:
        """Half its logarithm."""
        return 0.5 * float(np.log(self.value))

    def divide(
        self, n: int, logdet: float, gradient: Matrix, c: Matrix, dc: Matrix
    ) -> tuple[float, Matrix, Matrix, Matrix]:
        """``log |S|``, coefficients of ``S^-1``, and derivatives of both, for S divided by it."""
        factor, of_unit = self.value, self.gradient
        dc = factor * (dc + of_unit.reshape(-1, *[1] * c.ndim) * c)
        return logdet - n * float(np.log(factor)), gradient - n * of_unit, factor * c, dc


class ChainSums:
    """The A_k where each residual depends on the one before it alone."""

    def __init__(self, rows: Rows, cells: _Cells, steps: _Steps) -> None:
        self.rows, self.cells, self.steps = rows, cells, steps
        model = rows.model
        weights = np.ones(rows.n) if model.weights is None else model.weights
        root = np.sqrt(weights)
        #: Rows without one before them, by cell.
        self.first_counts = np.bincount(cells.of_row[model.is_first], minlength=len(cells.v))
        self.counts = np.bincount(steps.which, minlength=len(steps.step))
        #: Of each row its cell if it is the first of its group, else the step that leads to it,
        #: counted after the cells.
        self.kind = cells.of_row.astype(np.int32)
        self.kind[steps.rows] = len(cells.v) + steps.which
        blocks = [
            rows.weighted(np.where(self.kind == cell, weights, 0.0)) for cell in range(len(cells.v))
        ]
        for step in range(len(steps.step)):
            at = np.flatnonzero(self.kind == len(cells.v) + step)
            own, before, both = np.zeros((3, rows.n))
            own[at], before[at - 1], both[at] = (
                weights[at],
                weights[at - 1],
                root[at] * root[at - 1],
            )
            blocks += [rows.weighted(own), rows.weighted(before), rows.of_neighbours(both)]
        self.blocks = blocks
        self.root_weights = None if model.weights is None else root

    def at(self, phi: Matrix) -> ChainSumsAt:
        """A and its derivatives at phi."""
        return ChainSumsAt(self, phi)


class ChainSumsAt(_AtPhi):
    """A and its derivatives at one phi."""

    def __init__(self, sums: ChainSums, phi: Matrix) -> None:
        self.rows, self.phi = sums.rows, phi
        rows = sums.rows
        model, cells, steps = rows.model, sums.cells, sums.steps
        m, n_delta = len(phi), model.n_delta
        s = cells.scales(model, phi)
        ds = np.zeros((m, len(s)))
        ds[:n_delta] = -cells.v.T * s
        correlations, derivatives = [], []
        for family, at, (_, first, second) in zip(
            model.families, model.places, model.steps[1], strict=False
        ):
            assert isinstance(family, Chain)
            r, dr = family.neighbours(phi[at], first, second)
            own = np.zeros((m, len(r)))
            own[at] = dr
            correlations.append(r)
            derivatives.append(own)
        r, dr = np.zeros(len(steps.step)), np.zeros((m, len(steps.step)))
        if correlations:
            r = np.concatenate(correlations)[steps.step]
            dr = np.concatenate(derivatives, axis=1)[:, steps.step]
        if not (np.abs(r) < 1.0).all():
            raise np.linalg.LinAlgError("a correlation of neighbours is one")
        q = 1.0 / ((1.0 - r) * (1.0 + r))
        self.cancellation = float(q.max(initial=1.0))
        dq = 2.0 * r * q**2 * dr
        a, b = s[steps.before], s[steps.own]
        da, db = ds[:, steps.before], ds[:, steps.own]
        of_steps = np.stack([q * b**2, q * r**2 * a**2, -q * r * a * b])
        of_steps_change = np.stack(
            [
                dq * b**2 + 2.0 * q * b * db,
                (dq * r**2 + 2.0 * q * r * dr) * a**2 + 2.0 * q * r**2 * a * da,
                -(dq * r + q * dr) * a * b - q * r * (da * b + a * db),
            ]
        )
        c = np.concatenate([s**2, of_steps.T.reshape(-1)])
        dc = np.hstack([2.0 * s * ds, of_steps_change.transpose(1, 2, 0).reshape(m, -1)])
        per_cell = sums.first_counts + np.bincount(steps.own, sums.counts, minlength=len(s))
        logdet = -2.0 * float(per_cell @ np.log(s)) - float(sums.counts @ np.log(q))
        gradient = -2.0 * (ds / s) @ per_cell - 2.0 * (r * q * dr) @ sums.counts
        if model.weights is not None:
            logdet -= float(np.log(model.weights).sum())
        unit = _Unit(m)
        if model.families and len(q):
            unit.add(1.0 / (q * b**2), sums.counts, -dq / q - 2.0 * db / b)
        else:
            unit.add(s**-2, per_cell, -2.0 * ds / s)
        self.log_unit = unit.log_root
        factor, of_factor = 1.0, np.zeros((m, 1))
        if model.is_normalised:
            factor, of_factor = float(np.exp(unit.log_root)), 0.5 * unit.gradient[:, None]
            logdet, gradient, c, dc = unit.divide(rows.n, logdet, gradient, c, dc)
        self.logdet, self.logdet_gradient, self._dc = logdet, gradient, dc
        self._sums, self._blocks = sums, sums.blocks
        # U and its derivatives, before the diagonal and on it, for each kind of rows.
        root, first = np.sqrt(q), np.zeros(len(s))
        change = dq / (2.0 * root)
        entries = np.stack([np.append(first, -r * root * a), np.append(s, root * b)])
        changes = np.stack(
            [
                np.hstack([np.zeros((m, len(s))), -(dr * root + r * change) * a - r * root * da]),
                np.hstack([ds, change * b + root * db]),
            ]
        )
        self._entries = factor * entries
        self._changes = factor * (changes + of_factor * entries[:, None, :])
        self.A = rows.crossproducts(combined(sums.blocks, c), self.logdet)

    def derivative(self, j: int) -> CrossProducts:
        """``dA/dphi_j``."""
        return self.rows.crossproducts(combined(self._blocks, self._dc[j]), 0.0)

    def working_products(self, b: Sequence[Matrix], beta: Matrix) -> Matrix:
        """``f_r'S^-1 f_s`` of the working variates, for effects (l, k) per term."""
        residuals = self.rows.residuals(b, beta)
        if self._sums.root_weights is not None:
            residuals = residuals * self._sums.root_weights
        m = len(self.phi)
        products = np.empty((m, m))
        before, own = self._entries
        before_change, own_change = np.ascontiguousarray(self._changes.transpose(0, 2, 1))
        _kernels.neighbour_variates(
            self._sums.kind, residuals, before, own, before_change, own_change, products
        )
        return products

    def __setstate__(self, state: dict[str, Rows]) -> None:
        sums = state["rows"].sums
        assert isinstance(sums, ChainSums)
        self.__init__(sums, state["phi"])  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class _CellPattern:
    """Groups with the same positions and cells."""

    stratum: int
    rows: Positions
    positions: Matrix
    cells: Positions

    @cached_property
    def times(self) -> Positions:
        """Numbers of the common times."""
        return np.rint(self.positions[:, 0]).astype(np.intp)

    def has_times(self, n_times: int) -> bool:
        """Whether its positions are different ones of so many common times."""
        seen = np.unique(self.times)
        is_whole = self.positions.shape[1] == 1 and bool((self.times == self.positions[:, 0]).all())
        return is_whole and len(seen) == len(self.times) and 0 <= seen[0] <= seen[-1] < n_times


def _patterns(model: ResidualModel, cells: _Cells) -> list[_CellPattern]:
    out = []
    for pattern in model.patterns:
        keys = cells.of_row[pattern.rows]
        distinct, which = distinct_rows(keys)
        for number, own in enumerate(distinct):
            rows = pattern.rows[which == number] if len(distinct) > 1 else pattern.rows
            out.append(_CellPattern(pattern.stratum, rows, pattern.positions, own))
    return out


class PatternSums:
    """The A_k of a design without random effects, by pattern and pair of positions."""

    def __init__(self, rows: Rows, cells: _Cells, patterns: Sequence[_CellPattern]) -> None:
        self.rows, self.cells, self.patterns = rows, cells, tuple(patterns)
        border = self._weighted(rows.border)
        c = border.shape[1]
        #: For each pattern ``sum b_s b_t'`` over its groups, (m, m, c, c).
        self.products: list[Matrix] = []
        for pattern in self.patterns:
            m = len(pattern.positions)
            wide = border[pattern.rows].reshape(len(pattern.rows), m * c)
            gram = scipy.linalg.blas.dsyrk(1.0, wide.T, trans=0, lower=1)
            gram = np.tril(gram) + np.tril(gram, -1).T
            self.products.append(
                np.ascontiguousarray(gram.reshape(m, c, m, c).transpose(0, 2, 1, 3))
            )
        #: Correlations of common times are made once for all patterns, if that is less.
        times = rows.model.design.n_times
        self.has_common_times = times**2 <= sum(
            len(p.positions) ** 2 for p in self.patterns
        ) and all(pattern.has_times(times) for pattern in self.patterns)

    def _weighted(self, columns: Matrix) -> Matrix:
        weights = self.rows.model.weights
        return columns if weights is None else columns * np.sqrt(weights)[:, None]

    def with_response(self, rows: Rows) -> PatternSums:
        """The same for rows that differ in their response alone."""
        out = copy.copy(self)
        out.rows, out.products = rows, []
        border = self._weighted(rows.border)
        y = np.ascontiguousarray(border[:, -1])
        for pattern, own in zip(self.patterns, self.products, strict=True):
            count, m = pattern.rows.shape
            wide = border[pattern.rows].reshape(count, -1)
            # At (s, i, t) the sum of column i at s times y at t.
            with_y = (wide.T @ y[pattern.rows]).reshape(m, -1, m)
            products = own.copy()
            products[:, :, :, -1] = with_y.transpose(0, 2, 1)
            products[:, :, -1, :] = with_y.transpose(2, 0, 1)
            out.products.append(products)
        return out

    def at(self, phi: Matrix) -> PatternSumsAt:
        """A and its derivatives at phi."""
        return PatternSumsAt(self, phi)


class PatternSumsAt(_AtPhi):
    """A and its derivatives at one phi."""

    def __init__(self, sums: PatternSums, phi: Matrix) -> None:
        self.rows, self.phi, self._sums = sums.rows, phi, sums
        rows, model = sums.rows, sums.rows.model
        c = rows.p + 1
        self._scales = sums.cells.scales(model, phi)
        A = np.zeros((c, c))
        logdet, total, counted = 0.0, 0.0, 0
        self.cancellation = 1.0
        #: ``L^-1 D^-1`` of each pattern, the root of what is in A; and the innovations of its rows
        #: times how many of them are counted.
        self._inverses: list[Matrix] = []
        self._left: list[Matrix] = []
        for pattern, products, C in zip(
            sums.patterns, sums.products, self._by_pattern(_correlation), strict=True
        ):
            scale = self._scales[pattern.cells]
            L: Matrix = np.asarray(np.linalg.cholesky(C))
            self.cancellation = max(self.cancellation, pivot_cancellation(C, L))
            inverse = scipy.linalg.solve_triangular(
                L, np.diag(scale), lower=True, check_finite=False
            )
            count, root = len(pattern.rows), np.diag(L) / scale
            logdet += 2.0 * count * float(np.log(root).sum())
            is_later = model.innovations[pattern.rows[0]]
            left = np.where(is_later, count * root**2, 0.0)
            total, counted = total + float(left.sum()), counted + count * int(is_later.sum())
            self._left.append(left)
            A += ((inverse.T @ inverse).reshape(-1) @ products.reshape(-1, c * c)).reshape(c, c)
            self._inverses.append(inverse)
        if model.weights is not None:
            logdet -= float(np.log(model.weights).sum())
        unit = total / counted
        self._total, self.log_unit = total, 0.5 * float(np.log(unit))
        self._K_factor, self.logdet = 1.0, logdet
        if model.is_normalised:
            self._K_factor, self.logdet = unit, logdet - 2.0 * rows.n * self.log_unit
        self._matrix = A
        self.A = self._crossproducts(self._K_factor * A, self.logdet)

    # --- correlations --------------------------------------------------------------------

    def _by_pattern(self, of: Callable[..., Matrix]) -> Iterator[Matrix]:
        """C of each pattern, or its derivatives."""
        sums, model = self._sums, self.rows.model
        if not sums.has_common_times:
            for pattern in sums.patterns:
                yield of(model, pattern.stratum, pattern.positions, self.phi)
            return
        whole = [self._of_all_times(of, s) for s in range(self._n_strata)]
        for pattern in sums.patterns:
            yield whole[pattern.stratum][..., pattern.times[:, None], pattern.times]

    @property
    def _n_strata(self) -> int:
        return self.rows.model.design.n_strata

    def _of_all_times(self, of: Callable[..., Matrix], stratum: int) -> Matrix:
        model = self.rows.model
        times = np.arange(model.design.n_times, dtype=np.float64)[:, None]
        return of(model, stratum, times, self.phi)

    # --- derivatives ---------------------------------------------------------------------

    @cached_property
    def _raw(self) -> tuple[Matrix, Matrix, Matrix]:
        """Derivatives of the log determinant and of A, before S is divided by anything.

        And those of the logarithm of the mean innovation.
        """
        sums, model = self._sums, self.rows.model
        m, n_delta, c = len(self.phi), model.n_delta, self.rows.p + 1
        gradient, of_unit, dA = np.zeros(m), np.zeros(m), np.zeros((m, c * c))
        pooled = [_Pooled(model, s, c) for s in range(self._n_strata if self._pools else 0)]
        for pattern, products, inverse, left, dC in zip(
            sums.patterns,
            sums.products,
            self._inverses,
            self._left,
            itertools.repeat(None) if self._pools else self._by_pattern(_derivatives),
            strict=False,
        ):
            size, count = len(pattern.positions), len(pattern.rows)
            flat = products.reshape(size * size, c * c)
            if n_delta:
                v = sums.cells.v[pattern.cells]
                gradient[:n_delta] += 2.0 * count * v.sum(axis=0)
                of_unit[:n_delta] += 2.0 * left @ v
                of_delta = _of_delta(v, inverse)
                dA[:n_delta] += of_delta.reshape(n_delta, -1) @ flat
            half = inverse / self._scales[pattern.cells]
            outer = inverse.T @ half
            if dC is None:
                pooled[pattern.stratum].add(pattern, products, half, outer, left)
            elif len(dC):
                at = model.places[pattern.stratum]
                gradient[at] += count * np.tensordot(dC, half.T @ half, 2)
                of_unit[at] += np.tensordot(dC, (half.T * left) @ half, 2)
                dA[at] -= (outer @ dC @ outer.T).reshape(len(dC), -1) @ flat
        for stratum, each in enumerate(pooled):
            at, dC = model.places[stratum], self._of_all_times(_derivatives, stratum)
            gradient[at] += np.tensordot(dC, each.inverse, 2)
            of_unit[at] += np.tensordot(dC, each.left, 2)
            dA[at] -= dC.reshape(len(dC), -1) @ each.products.reshape(-1, c * c)
        return gradient, dA.reshape(m, c, c), of_unit / self._total

    @property
    def _pools(self) -> bool:
        """Whether what the derivatives of C are multiplied with is added up over patterns first."""
        model = self.rows.model
        free = max((f.n_parameters for f in model.families), default=0)
        return self._sums.has_common_times and free > 2 * model.design.n_times

    @cached_property
    def _log_factors(self) -> Matrix:
        """Derivatives of the logarithm of what A is multiplied by."""
        of_unit = self._raw[2]
        return of_unit if self.rows.model.is_normalised else 0.0 * of_unit

    @property
    def logdet_gradient(self) -> Matrix:  # type: ignore[override]
        """Derivatives of ``log |S|`` in phi."""
        return self._raw[0] - self.rows.n * self._log_factors

    def _crossproducts(self, matrix: Matrix, logdet: float) -> CrossProducts:
        blocks = Blocks((), (), DenseRemainder(np.asfortranarray(matrix)), self.rows.layout)
        return self.rows.crossproducts(blocks, logdet)

    def derivative(self, j: int) -> CrossProducts:
        """``dA/dphi_j``."""
        change = self._raw[1][j] + self._log_factors[j] * self._matrix
        return self._crossproducts(self._K_factor * change, 0.0)

    def working_products(self, b: Sequence[Matrix], beta: Matrix) -> Matrix:
        """``f_r'S^-1 f_s = e'K_r S K_s e`` of the working variates, from products of residuals."""
        a = np.append(-beta, 1.0)
        sums, model = self._sums, self.rows.model
        m, n_delta = len(self.phi), model.n_delta
        out = np.zeros((m, m))
        for pattern, products, inverse, dC in zip(
            sums.patterns,
            sums.products,
            self._inverses,
            self._by_pattern(_derivatives),
            strict=True,
        ):
            E = (products @ a) @ a
            scale = self._scales[pattern.cells]
            # U'^-1 K_r, so that K_r S K_s is the product of two.
            half = self._log_factors[:, None, None] * inverse
            if n_delta:
                of_delta = _of_delta(sums.cells.v[pattern.cells], inverse)
                half[:n_delta] += np.linalg.inv(inverse).T @ of_delta
            if len(dC):
                own = inverse / scale
                half[model.places[pattern.stratum]] -= own @ dC @ (own.T @ inverse)
            out += np.tensordot(half @ E, half, axes=([1, 2], [1, 2]))
        return self._K_factor * out

    def __setstate__(self, state: dict[str, Rows]) -> None:
        sums = state["rows"].sums
        assert isinstance(sums, PatternSums)
        self.__init__(sums, state["phi"])  # type: ignore[misc]


class _Pooled:
    """What derivatives of C are multiplied with, over the patterns of a stratum."""

    def __init__(self, model: ResidualModel, stratum: int, c: int) -> None:
        times = model.design.n_times
        #: ``C^-1`` times the number of groups, the same for innovations with their weights, and
        #: ``C^-1 D^-1 A_k D^-1 C^-1``.
        self.inverse, self.left = np.zeros((2, times, times))
        self.products = np.zeros((times, times, c * c))

    def add(
        self, pattern: _CellPattern, products: Matrix, half: Matrix, outer: Matrix, left: Matrix
    ) -> None:
        at = np.ix_(pattern.times, pattern.times)
        m = len(pattern.times)
        self.inverse[at] += len(pattern.rows) * (half.T @ half)
        self.left[at] += (half.T * left) @ half
        first = (outer.T @ products.reshape(m, -1)).reshape(m, m, -1)
        self.products[at] += outer.T @ first


def _of_delta(v: Matrix, inverse: Matrix) -> Matrix:
    """Derivatives of ``S^-1`` in the logarithms of standard deviations, from its root."""
    return np.asarray(-(v.T[:, :, None] + v.T[:, None, :]) * (inverse.T @ inverse))


def _correlation(model: ResidualModel, stratum: int, positions: Matrix, phi: Matrix) -> Matrix:
    """C at positions of a stratum."""
    size = len(positions)
    if not model.families:
        return np.eye(size)
    family, at = model.families[stratum], model.places[stratum]
    if isinstance(family, Block):
        return family.matrix(phi[at], positions)
    return _of_chain(family, phi[at], positions)[0]


def _derivatives(model: ResidualModel, stratum: int, positions: Matrix, phi: Matrix) -> Matrix:
    """Its derivatives in the parameters of the stratum."""
    size = len(positions)
    if not model.families:
        return np.zeros((0, size, size))
    family, at = model.families[stratum], model.places[stratum]
    if isinstance(family, Block):
        return family.derivatives(phi[at], positions)
    return _of_chain(family, phi[at], positions)[1]


def _of_chain(family: Family, zeta: Matrix, positions: Matrix) -> tuple[Matrix, Matrix]:
    assert isinstance(family, Chain)
    size, t = len(positions), positions[:, 0]
    i, j = np.tril_indices(size, -1)
    values, changes = family.neighbours(zeta, t[j], t[i])
    C, dC = np.eye(size), np.zeros((len(zeta), size, size))
    C[i, j] = C[j, i] = values
    dC[:, i, j] = dC[:, j, i] = changes
    return C, dC


def combined(blocks: Sequence[Blocks], coefficients: Sequence[float] | Matrix) -> Blocks:
    """Linear combination of blocks with the same layout."""
    first = blocks[0]

    def total(of: Sequence[Matrix]) -> Matrix:
        out = coefficients[0] * of[0]
        for each, c in zip(of[1:], coefficients[1:], strict=True):
            out += c * each
        return out

    chain = tuple(
        factor.with_values(
            total([each.chain[e].diag for each in blocks]),
            total([each.chain[e].panel for each in blocks]),
        )
        for e, factor in enumerate(first.chain)
    )
    remainder: DenseRemainder | SparseRemainder
    if isinstance(first.remainder, DenseRemainder):
        matrices = [each.remainder.matrix for each in blocks]  # type: ignore[union-attr]
        remainder = DenseRemainder(np.asfortranarray(total(matrices)))
    else:
        own = [each.remainder for each in blocks]
        random = coefficients[0] * own[0].random  # type: ignore[union-attr]
        for c, each in zip(coefficients[1:], own[1:], strict=True):
            random = random + c * each.random  # type: ignore[union-attr]
        random = scipy.sparse.csc_array(random)
        random.sort_indices()
        remainder = SparseRemainder(
            first.remainder.fronts,
            random,
            total([each.border for each in own]),  # type: ignore[union-attr]
        )
    return Blocks(chain, first.rest, remainder, first.layout)
