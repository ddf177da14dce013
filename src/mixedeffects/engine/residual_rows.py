"""The rows of a design whose residuals are correlated, and the cross-products they have at phi.

    A(phi) = (U B)'(U B),    B = [Z X y]

Whitening leaves a row in its level of a factor if every residual group lies in one level: then the
factor *holds the series*. A row of any other factor has several levels afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.assembly import Assembly, Blocks
from mixedeffects.engine.basis import Basis, make_basis, standard_responses
from mixedeffects.engine.crossproducts import ChainFactor, CrossProducts, EngineTerm, RestFactor
from mixedeffects.engine.factorisation import Factorisation, SelectedInverse
from mixedeffects.engine.fronts import Layout
from mixedeffects.engine.provisional import Columns, Provisional, remaining_effects
from mixedeffects.engine.remainder import DenseRemainder
from mixedeffects.engine.residual_model import ResidualDesign, ResidualModel
from mixedeffects.engine.residual_sums import (
    ChainSums,
    ChainSumsAt,
    PatternSums,
    PatternSumsAt,
    combined,
    make_sums,
)

__all__ = ["ResidualRows", "RowsAt", "inner_product"]

Matrix = NDArray[np.float64]
_NONE = np.empty(0)


class ResidualRows:
    """A design in the engine's basis, in the order of the series.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Response less offset.
    X : ndarray, shape (n, p)
        Fixed-effects matrix of full column rank.
    terms : sequence of EngineTerm
        Random-effects terms in the user's order; there may be none.
    design : ResidualDesign
        What the covariance of the residuals is made of.

    Raises
    ------
    RemainderTooLargeError
        If the blocks would not fit into memory.
    """

    def __init__(
        self, y: Matrix, X: Matrix, terms: Sequence[EngineTerm], design: ResidualDesign
    ) -> None:
        self.basis: Basis
        self.basis, y_star, X_star, z_star, w = make_basis(
            y, X, [term.z for term in terms], design.weights
        )
        self.model = ResidualModel(replace(design, weights=w))
        #: The residual variance in the engine's scale, where it is known.
        self.known_variance: float | None = None
        if design.sigma is not None:
            self.known_variance = (design.sigma / self.basis.sigma(1.0)) ** 2
        self.n, self.p = X.shape
        self.term_columns = tuple(term.z.shape[1] for term in terms)
        self.border = _in_order(np.column_stack([X_star, y_star]), self.model)
        del X_star
        self.terms = [
            EngineTerm(
                np.ascontiguousarray(_in_order(term.codes, self.model)),
                term.n_levels,
                np.ascontiguousarray(_in_order(z, self.model)),
                term.grouping,
            )
            for term, z in zip(terms, z_star, strict=True)
        ]
        series = np.cumsum(self.model.is_first).astype(np.int32) - 1
        n_series = len(self.model.starts)
        is_diagonal = not self.model.families
        self.scattered = [
            not is_diagonal and not len(_kernels.nesting_parents(series, n_series, term.codes))
            for term in self.terms
        ]
        self._assembly = Assembly(self.terms, self.p + 1, self.scattered, (series, n_series))

    @cached_property
    def _sparse(self) -> list[scipy.sparse.csr_array | None]:
        return [
            _sparse_columns(term) if scattered else None
            for term, scattered in zip(self.terms, self.scattered, strict=True)
        ]

    @cached_property
    def _dense(self) -> Matrix:
        """``[X y]`` and the columns of terms that are not scattered, side by side."""
        return np.hstack([self.border, *self._whole])

    @property
    def _whole(self) -> list[Matrix]:
        return [t.z for t, s in zip(self.terms, self.scattered, strict=True) if not s]

    def with_model(self, model: ResidualModel) -> ResidualRows:
        """The same rows with another model of the same structure."""
        out = copy.copy(self)
        out.model = model
        sums = self.__dict__.get("sums")
        if sums is not None:
            moved = copy.copy(sums)
            moved.rows = out
            out.__dict__["sums"] = moved
        return out

    def with_columns(self, model: ResidualModel) -> ResidualRows:
        """The same rows with a model of other weights, or other columns of its deviations."""
        out = self.with_model(model)
        out.__dict__.pop("sums", None)
        return out

    def with_response(self, y: Matrix) -> ResidualRows:
        """The same rows with another response less offset (n,), ready for a search."""
        model = self.model
        columns = self.border[:, :-1]
        Y, beta0, scale = standard_responses(
            y[model.order][:, None], columns, self.basis.fixed, model.weights
        )
        sums = self.__dict__.get("sums")
        out = self.with_model(model.for_search())
        for of_response in ("sums", "_dense"):
            out.__dict__.pop(of_response, None)
        out.border = np.column_stack([columns, Y[:, 0]])
        out.basis = replace(self.basis, beta0=beta0[:, 0].copy(), response_scale=float(scale[0]))
        if model.design.sigma is not None:
            out.known_variance = (model.design.sigma / out.basis.sigma(1.0)) ** 2
        if isinstance(sums, PatternSums):
            out.__dict__["sums"] = sums.with_response(out)
        return out

    def with_border(self, border: Matrix) -> ResidualRows:
        """The same with other columns for ``[X y]``, in the engine's scale."""
        out = self.with_columns(self.model)
        out.__dict__.pop("_dense", None)
        out.border = border
        return out

    @cached_property
    def sums(self) -> ChainSums | PatternSums | None:
        """What A(phi) is a combination of, where that is few matrices."""
        return make_sums(self)

    @property
    def is_local(self) -> bool:
        """Whether the rows of a residual group have one level of every factor, all in the chain."""
        return not any(self.scattered) and not self.layout.r

    @property
    def layout(self) -> Layout:
        """Where the columns of the remainder stand."""
        return self._assembly.layout

    def at(self, phi: Matrix) -> RowsAt | ChainSumsAt | PatternSumsAt:
        """A and its derivatives at phi.

        Raises
        ------
        LinAlgError
            If S is not positive definite there.
        """
        sums = self.sums
        return RowsAt(self, phi) if sums is None else sums.at(phi)

    def times(self, matrix: scipy.sparse.csr_array) -> tuple[Matrix, list[scipy.sparse.csr_array]]:
        """A sparse matrix times all dense columns, side by side, and times the sparse ones."""
        dense = np.asarray(matrix @ self._dense)
        sparse = [scipy.sparse.csr_array(matrix @ own) for own in self._sparse if own is not None]
        return dense, sparse

    def fill(self, dense: Matrix, sparse: Sequence[scipy.sparse.csr_array]) -> Blocks:
        """The blocks of such products."""
        ends = np.cumsum([self.border.shape[1], *[z.shape[1] for z in self._whole]])[:-1]
        border, *z = (np.ascontiguousarray(part) for part in np.split(dense, ends, axis=1))
        whole, scattered = iter(z), iter(sparse)
        columns: list[Matrix] = []
        of_terms: list[scipy.sparse.csr_array | None] = []
        for is_scattered in self.scattered:
            columns.append(_NONE if is_scattered else next(whole))
            of_terms.append(next(scattered) if is_scattered else None)
        return self._assembly.fill(columns, border, _NONE, of_terms)

    def with_unit_at_zero(self, phi: Matrix) -> tuple[ResidualRows, float]:
        """S with D one where v is zero at phi, and half the logarithm of what that multiplies."""
        moved = self.with_model(self.model.with_unit_at_zero(phi))
        return moved, moved.log_unit(phi)

    def log_unit(self, phi: Matrix) -> float:
        """Half the logarithm of the mean innovation at phi, before S is divided by it."""
        sums = self.sums
        return self.model.at(phi).log_unit if sums is None else sums.at(phi).log_unit

    def weighted(self, weights: Matrix | None) -> Blocks:
        """The blocks of the rows themselves with weights, if there are any."""
        z = [term.z for term in self.terms]
        return self._assembly.fill(z, self.border, _NONE if weights is None else weights)

    def of_neighbours(self, coefficients: Matrix) -> Blocks:
        """Blocks of products of each row with the one before it, in both orders, times these."""
        z = [term.z for term in self.terms]
        return self._assembly.fill(z, self.border, _NONE, neighbours=coefficients)

    def columns_of(self, factor: ChainFactor | RestFactor) -> Matrix:
        """Columns of all terms of a factor, (n, k)."""
        own = [self.terms[member.term].z for member in factor.members]
        return own[0] if len(own) == 1 else np.hstack(own)

    def crossproducts(self, blocks: Blocks, logdet: float) -> CrossProducts:
        """A with the log determinant of S, which takes the place of the prior weights."""
        return blocks.crossproducts(
            self.n,
            self.p,
            -logdet,
            self.basis,
            self.term_columns,
            known_variance=self.known_variance,
        )

    def residuals(self, b: Sequence[Matrix], beta: Matrix) -> Matrix:
        """``y - X beta - Z b`` for effects (l, k) per term, shape (n,), in the engine's scale."""
        out = self.border @ np.append(-beta, 1.0)
        return self.less_effects(out[:, None], [own[:, :, None] for own in b])[:, 0]

    def less_effects(self, columns: Matrix, b: Sequence[Matrix]) -> Matrix:
        """``columns - Z b`` for columns (n, m) and effects (l, k, m) per term."""
        out = np.array(columns, order="C")
        for term, own in zip(self.terms, b, strict=True):
            _kernels.expand_levels(term.codes, term.z, np.ascontiguousarray(-own), out)
        return out


def _in_order(rows: NDArray[Any], model: ResidualModel) -> NDArray[Any]:
    """Rows in the order of the series: themselves where they are in it."""
    return rows if model.is_in_order else rows[model.order]


def _sparse_columns(term: EngineTerm) -> scipy.sparse.csr_array:
    n, k = term.z.shape
    places = term.codes[:, None].astype(np.int64) * k + np.arange(k)
    return scipy.sparse.csr_array(
        (term.z.ravel(), places.ravel(), np.arange(0, n * k + 1, k)), shape=(n, term.n_levels * k)
    )


class RowsAt:
    """The rows at some phi: A there, and its derivatives.

    Parameters
    ----------
    rows : ResidualRows
        The design.
    phi : ndarray, shape (r,)
        Residual parameters.
    """

    def __init__(self, rows: ResidualRows, phi: Matrix) -> None:
        self.rows, self.phi = rows, phi
        self.whitening = rows.model.at(phi)

    @property
    def logdet_gradient(self) -> Matrix:
        """Derivatives of ``log |S|`` in phi."""
        return self.whitening.logdet_gradient

    @property
    def cancellation(self) -> float:
        """See `Whitening`."""
        return self.whitening.cancellation

    def __getstate__(self) -> dict[str, object]:
        return {"rows": self.rows, "phi": self.phi}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["rows"], state["phi"])  # type: ignore[misc]

    @cached_property
    def _whitened(self) -> tuple[Matrix, list[scipy.sparse.csr_array]]:
        return self.rows.times(self.whitening.U)

    @cached_property
    def A(self) -> CrossProducts:
        """The blocks of the whitened rows."""
        rows = self.rows
        return rows.crossproducts(rows.fill(*self._whitened), self.whitening.logdet)

    def without_effects(self, T: Sequence[Matrix]) -> CrossProducts:
        """A with ``[X y]`` less their modes at T; see `provisional`."""
        A, rows, m = self.A, self.rows, self.A.p + 1
        alone = A.without_border()
        random = Factorisation(alone, T)
        none = [np.zeros((f.n_levels, f.k, m)) for f in A.factors]
        effects = none
        products, square = A.multiply(none, np.eye(m))
        # What is missing from the modes is found twice: at first there are few digits.
        for _ in range(2):
            missing = remaining_effects(random, effects, products)
            effects = [own + more for own, more in zip(effects, missing, strict=True)]
            left = rows.less_effects(rows.border, A.by_term(effects))
            of_left = RowsAt(rows.with_border(left), self.phi).A
            products, square = of_left.multiply(none, np.eye(m))
        border = Columns(tuple(effects), tuple(products), square)
        return replace(A, provisional=Provisional(alone, border))

    def derivative(self, j: int) -> CrossProducts:
        """``dA/dphi_j = (UB)'(U_j B) + (U_j B)'(UB)``, by polarisation."""
        dense, sparse = self._whitened
        changed, changed_sparse = self.rows.times(self.whitening.derivative(j))
        size = float(np.linalg.norm(changed))
        scale = float(np.linalg.norm(dense)) / size if size > 0.0 else 1.0
        plus, minus = (
            self.rows.fill(
                dense + sign * scale * changed,
                [
                    own + sign * scale * other
                    for own, other in zip(sparse, changed_sparse, strict=True)
                ],
            )
            for sign in (1.0, -1.0)
        )
        half = 0.5 / scale
        return self.rows.crossproducts(combined([plus, minus], [half, -half]), 0.0)

    def contracted(self, inverse: SelectedInverse, with_fixed: bool) -> Matrix:
        """``<P, dA_j>`` for each parameter, without dA_j, where the rows are local.

        With ``b_i = [z_i x_i]`` it is the sum of ``b_i'P b_j`` times the derivative of
        ``[S^-1]_ij`` over rows i and j of one group, which have the same levels.
        """
        rows = self.rows
        X = rows.border[:, : rows.p if with_fixed else 0]
        border = np.zeros(X.shape)
        if X.shape[1]:
            border += X @ inverse.core[: rows.p, : rows.p]
        codes = [rows.terms[f.members[0].term].codes for f in self.A.chain]
        left = [rows.columns_of(f) for f in self.A.chain]
        right = [np.zeros(z.shape) for z in left]
        for e, factor in enumerate(self.A.chain):
            z, k = left[e], factor.k
            of_level = np.ascontiguousarray(inverse.P[e])
            _kernels.expand_levels(codes[e], z, of_level, right[e])
            # What is beside the diagonal counts twice.
            panel = 2.0 * inverse.panels[e].reshape(factor.n_levels, -1, k).transpose(0, 2, 1)
            at = 0
            for outer in range(e + 1, len(left)):
                width = left[outer].shape[1]
                beside = np.ascontiguousarray(panel[:, :, at : at + width])
                _kernels.expand_levels(codes[e], z, beside, right[outer])
                at += width
            if X.shape[1]:
                beside = np.ascontiguousarray(panel[:, :, at : at + rows.p])
                _kernels.expand_levels(codes[e], z, beside, border)
        return self.whitening.contracted(np.hstack([*left, X]), np.hstack([*right, border]))

    def of_residuals(self, residuals: Matrix) -> tuple[Matrix, list[Matrix], Matrix]:
        """``e'K_j e``, and ``Z'K_j e`` (l, k, m) by factor and ``X'K_j e`` (p, m).

        K_j is the derivative of ``S^-1`` in parameter j of m; e are residuals (n,).
        """
        rows = self.rows
        changes = self.whitening.changes_of_inverse(residuals)
        effects = []
        for factor in self.A.factors:
            sums = np.zeros((factor.n_levels, factor.k, changes.shape[1]))
            codes = rows.terms[factor.members[0].term].codes
            _kernels.group_sums(codes, rows.columns_of(factor), changes, sums)
            effects.append(sums)
        return residuals @ changes, effects, rows.border[:, : rows.p].T @ changes

    def working_products(self, b: Sequence[Matrix], beta: Matrix) -> Matrix:
        """``f_r'S^-1 f_s`` of the working variates, for effects (l, k) per term."""
        variates = self.whitening.working_variates(self.rows.residuals(b, beta))
        return np.asarray(variates.T @ variates)


def inner_product(inverse: SelectedInverse, D: CrossProducts, with_fixed: bool) -> float:
    """``<P, D>`` for D with the pattern of A: over the random effects, and the fixed ones."""
    r, size = D.r, D.r + (D.p if with_fixed else 0)
    total = 0.0
    for e, factor in enumerate(D.chain):
        total += float(np.vdot(inverse.P[e], factor.diag))
        seen = _seen_columns(factor.ptr, factor.ind, factor.head, factor.n_levels, size)
        mine = inverse.panels[e].reshape(-1, factor.k)[seen]
        total += 2.0 * float(np.vdot(mine, factor.panel.reshape(-1, factor.k)[seen]))
    core, first = D.remainder, D.layout.core
    if isinstance(core, DenseRemainder):
        if size:
            total += float(np.vdot(inverse.core[:size, :size], core.matrix[:size, :size]))
        return total
    at = core.where
    in_fronts = np.concatenate([core.random.data[at.of_fronts], core.border[:first].ravel()])
    places = np.concatenate([at.in_fronts, at.border])
    entries = core.random.tocoo()
    upper = (entries.row < first) & (entries.row <= entries.col)
    on_diagonal = entries.row[upper] == entries.col[upper]
    n_random = len(on_diagonal)
    weight = np.full(len(places), 2.0)
    weight[:n_random][on_diagonal] = 1.0
    border = core.border.shape[1]
    is_seen = np.tile(np.arange(r, r + border) < size, first)
    weight[n_random:] *= is_seen
    values = np.where(weight > 0.0, inverse.fronts[places], 0.0)
    total += float(np.sum(weight * values * in_fronts))
    dense, _ = core.begin()
    width = size - first
    return total + float(np.vdot(inverse.core[:width, :width], dense[:width, :width]))


def _seen_columns(
    ptr: NDArray[np.int64], ind: NDArray[np.int32], head: int, n_levels: int, size: int
) -> NDArray[np.intp]:
    """Which columns of all panels, one after the other, are those of effects."""
    counts = np.diff(ptr)
    level = np.repeat(np.arange(n_levels), counts)
    own = np.flatnonzero(ind < size)
    places = own + head * (level[own] + 1)
    if not head:
        return np.asarray(places)
    heads = (head * np.arange(n_levels) + ptr[:-1])[:, None] + np.arange(head)
    return np.concatenate([heads.ravel(), places])
