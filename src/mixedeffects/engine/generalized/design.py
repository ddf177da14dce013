"""The design of a generalized linear mixed model, in a basis to fit in.

    y_i | b ~ family(mean mu_i),   g(mu) = eta = X beta + Z b + offset,   b = Lambda u,  u ~ N(0, I)

What does not change with the weights of the rows, above all where the products of levels that occur
together stand, is found once. The fit runs on columns of X and of each term that are orthonormal
over the data, in a unit of the size of eta where the link is a power; there is no scale of the
response, so G is absolute on that scale.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.assembly import Assembly
from mixedeffects.engine.basis import Basis, make_basis
from mixedeffects.engine.crossproducts import CrossProducts, EngineTerm
from mixedeffects.engine.generalized.leverages import LeveragePlaces
from mixedeffects.engine.parameterisation import Parameterisation, StructuredTerm, parameterise
from mixedeffects.engine.structures import CovarianceStructure
from mixedeffects.families import Family, Response, RowTerms
from mixedeffects.families.links import predictor_unit

__all__ = ["GeneralizedDesign"]

Matrix = NDArray[np.float64]
Blocks = tuple[Matrix, ...]

#: What is found once, and follows from the rest.
_FOUND = ("_full_assembly", "_sorted_X", "skeleton", "leverage_places", "by_level")


class GeneralizedDesign:
    """Columns, levels and response; what each evaluation needs of them.

    Parameters
    ----------
    terms : sequence of EngineTerm
        Random-effects terms in the user's order and columns; at least one.
    X : ndarray, shape (n, p)
        Fixed-effects matrix of full column rank.
    response : Response
        What the rows are about.
    family : Family
        Distribution and link.
    offset : ndarray, shape (n,), optional
        What is added to the linear predictor.
    structures : sequence of CovarianceStructure or None, optional
        One per term; None for a term whose covariance is free.

    Attributes
    ----------
    basis : Basis
        The way back to the user's columns; its scales are one.
    terms : tuple of EngineTerm
        As given.
    X, z : ndarray (n, p), tuple of ndarray (n, k)
        The columns in that basis.
    offset : ndarray, shape (n,)
        Zeros where there is none.
    parameterisation : Parameterisation
        The covariance parameters of all terms.
    is_structured : bool
        Whether some term has a covariance structure.

    Raises
    ------
    RemainderTooLargeError
        If the blocks would not fit into memory.
    """

    def __init__(
        self,
        terms: Sequence[EngineTerm],
        X: Matrix,
        response: Response,
        family: Family,
        *,
        offset: Matrix | None = None,
        structures: Sequence[CovarianceStructure | None] | None = None,
    ) -> None:
        self.response, self.family = response, family
        self.n: int = X.shape[0]
        self.p: int = X.shape[1]
        self.offset = np.zeros(self.n) if offset is None else np.ascontiguousarray(offset)
        self.terms = tuple(terms)
        basis, _, X_star, z_star, _ = make_basis(
            np.zeros(self.n), X, [term.z for term in terms], None
        )
        # Where only ratios of the linear predictor count, the fit is in a unit of its own size.
        unit = predictor_unit(family.link, response)
        basis = replace(basis, beta0=np.zeros(self.p), response_scale=1.0)
        self.basis: Basis = basis.in_units_of(unit)
        self.X = np.ascontiguousarray(unit * X_star)
        self.z = tuple(unit * z for z in z_star)
        self.term_columns = tuple(z.shape[1] for z in self.z)
        free: list[CovarianceStructure | None] = [None] * len(self.terms)
        structures = list(structures) if structures is not None else free
        self.is_structured = any(structure is not None for structure in structures)
        self.parameterisation: Parameterisation = parameterise(
            self.basis, self.term_columns, structures
        )
        # Rows that follow each other by level are read several times as fast.
        self._order = _by_level(self.terms)
        self._sorted_z = tuple(_taken(z, self._order) for z in self.z)
        self._sorted_terms = tuple(
            EngineTerm(_taken(term.codes, self._order), term.n_levels, z, term.grouping)
            for term, z in zip(self.terms, self._sorted_z, strict=True)
        )
        self._assembly = Assembly(self._sorted_terms, 1, repeated=True)
        self._border = np.zeros((self.n, 1))
        self._codes = [
            self.terms[factor.members[0].term].codes for factor in self._assembly.factors
        ]
        self._columns = [factor.columns(self.z) for factor in self._assembly.factors]

    def changed(
        self,
        *,
        response: Response | None = None,
        offset: Matrix | None = None,
        parameterisation: Parameterisation | None = None,
    ) -> GeneralizedDesign:
        """The same with another response, offset or parameters of the covariances.

        What was made of the columns stays.
        """
        out = copy.copy(self)
        if response is not None:
            out.response = response
        if offset is not None:
            out.offset = np.ascontiguousarray(offset)
        if parameterisation is not None:
            out.parameterisation = parameterisation
        sorted_rows = self.__dict__.get("by_level")
        if sorted_rows is self:
            out.__dict__["by_level"] = out
        elif sorted_rows is not None and self._order is not None:
            out.__dict__["by_level"] = sorted_rows.changed(
                response=None if response is None else response.take(self._order),
                offset=None if offset is None else out.offset[self._order],
                parameterisation=parameterisation,
            )
        return out

    def with_columns(self, X: Matrix) -> GeneralizedDesign:
        """The model of other columns of X, all else as it is."""
        structures = [
            term.structure if isinstance(term, StructuredTerm) else None
            for term in self.parameterisation.terms
        ]
        return GeneralizedDesign(
            self.terms, X, self.response, self.family, offset=self.offset, structures=structures
        )

    @cached_property
    def by_level(self) -> GeneralizedDesign:
        """The same model with its rows sorted by level, in which one is fitted sooner."""
        order = self._order
        if order is None:
            return self
        out = copy.copy(self)
        for name in _FOUND:
            out.__dict__.pop(name, None)
        out._order = None
        out.response = self.response.take(order)
        out.offset = _taken(self.offset, order)
        out.terms, out.z, out.X = self._sorted_terms, self._sorted_z, self._sorted_X
        out._codes = [out.terms[factor.members[0].term].codes for factor in self._assembly.factors]
        out._columns = [factor.columns(out.z) for factor in self._assembly.factors]
        return out

    def as_given(self, rows: Matrix) -> Matrix:
        """Values of the rows of `by_level` in the order of these rows."""
        if self._order is None:
            return rows
        out = np.empty_like(rows)
        out[self._order] = rows
        return out

    def sorted_by_level(self, rows: Matrix) -> Matrix:
        """Values of these rows in the order of `by_level`."""
        return _taken(rows, self._order)

    def __getstate__(self) -> dict[str, object]:
        # What is found once follows from the rest, and is as large as the data or larger.
        return {name: value for name, value in self.__dict__.items() if name not in _FOUND}

    @cached_property
    def _full_assembly(self) -> Assembly:
        if self.by_level is not self:
            return self.by_level._full_assembly
        return self._assembly.with_border(self.p + 1)

    @cached_property
    def _sorted_X(self) -> Matrix:
        return _taken(self.X, self._order)

    @cached_property
    def skeleton(self) -> CrossProducts:
        """Blocks with weights of one: which factors there are, in their order."""
        if self.by_level is not self:
            return self.by_level.skeleton
        return self.products(np.ones(self.n))

    @cached_property
    def leverage_places(self) -> LeveragePlaces:
        """Where the entries of P for each row stand."""
        return LeveragePlaces(self.skeleton, self._codes, self._columns)

    def rows(self, eta: Matrix, phi: float, order: int = 1, *, parameter: bool = False) -> RowTerms:
        """Deviances of the rows and their derivatives; with those by phi where wanted."""
        known = phi if self.family.has_parameter else None
        return self.family.rows(self.response, eta, known, order, parameter)

    def expected_weights(self, eta: Matrix, phi: float) -> Matrix:
        """Expected weights of the rows, shape (n,)."""
        known = phi if self.family.has_parameter else None
        return self.family.expected_weights(self.response, eta, known)

    def products(self, W: Matrix) -> CrossProducts:
        """``Z'WZ`` in blocks, for any weights of the rows; without X."""
        blocks = self._assembly.fill(self._sorted_z, self._border, _taken(W, self._order))
        return blocks.crossproducts(
            self.n,
            0,
            0.0,
            self.basis,
            self.term_columns,
            known_variance=1.0,
        )

    def working_products(self, W: Matrix, z: Matrix) -> CrossProducts:
        """``[Z X z]'W[Z X z]`` of a working response, with a residual variance of one."""
        border = np.empty((self.n, self.p + 1))
        border[:, :-1], border[:, -1] = self._sorted_X, _taken(z, self._order)
        blocks = self._full_assembly.fill(self._sorted_z, border, _taken(W, self._order))
        positive = W[W > 0.0]
        return blocks.crossproducts(
            self.n,
            self.p,
            float(np.log(positive).sum()),
            self.basis,
            self.term_columns,
            known_variance=1.0,
        )

    def codes_of(self, f: int) -> NDArray[np.int32]:
        """Level of a factor that each row is in, shape (n,)."""
        return self._codes[f]

    def columns_of(self, f: int) -> Matrix:
        """The columns of a factor, those of all its terms, shape (n, k)."""
        return self._columns[f]

    def sums(self, values: Matrix) -> list[Matrix]:
        """``Z'v``, arrays (l, k, m) per factor, for v of shape (n, m); (l, k) for (n,)."""
        flat = values.ndim == 1
        values = np.ascontiguousarray(values[:, None] if flat else values)
        out = []
        for factor, codes, z in zip(
            self._assembly.factors, self._codes, self._columns, strict=True
        ):
            own = np.zeros((factor.n_levels, factor.k, values.shape[1]))
            _kernels.group_sums(codes, z, values, own)
            out.append(own[:, :, 0] if flat else own)
        return out

    def curvature_sums(
        self, b: Matrix, W: Matrix, W1: Matrix, v: Matrix
    ) -> tuple[Matrix, Matrix, Matrix]:
        """With one factor, sums of second derivatives in one pass over the rows.

        For ``eta_j = Z b_j``, and ``x_j + Z b_j`` for the last p of the m columns of b, shape
        (l, k, m): ``Z'W eta_j``, (l, k, m), ``Z'diag(W1 eta_j)Z``, (l, k, k, m), and
        ``eta_i'diag(v) eta_j``, (m, m).
        """
        levels, k, m = b.shape
        out = np.empty((levels, k, m)), np.empty((levels, k, k, m)), np.empty((m, m))
        b = np.ascontiguousarray(b)
        _kernels.curvature_sums(self._codes[0], self._columns[0], self.X, b, W, W1, v, *out)
        return out

    def expand(self, effects: Sequence[Matrix]) -> Matrix:
        """``Z b``, shape (n, m), for b as arrays (l, k, m) per factor; (n,) for (l, k)."""
        flat = effects[0].ndim == 2
        out = np.zeros((self.n, 1 if flat else effects[0].shape[2]))
        for codes, z, own in zip(self._codes, self._columns, effects, strict=True):
            _kernels.expand_levels(
                codes, z, np.ascontiguousarray(own[:, :, None] if flat else own), out
            )
        return out[:, 0] if flat else out

    def by_term(self, blocks: Sequence[Matrix]) -> tuple[Matrix, ...]:
        """Matrices (k, k) per term, from those per factor."""
        out: list[Matrix] = [np.empty((0, 0))] * len(self.term_columns)
        for factor, own in zip(self.skeleton.factors, blocks, strict=True):
            for member in factor.members:
                out[member.term] = np.ascontiguousarray(own[member.columns, member.columns])
        return tuple(out)


def _by_level(terms: Sequence[EngineTerm]) -> NDArray[np.int32] | None:
    """Order of the rows by level of the factor with most random effects; None if it is theirs."""
    sizes: dict[int, int] = {}
    for term in terms:
        sizes[term.grouping] = sizes.get(term.grouping, 0) + term.n_levels * term.z.shape[1]
    largest = max(sizes, key=lambda grouping: sizes[grouping])
    term = next(term for term in terms if term.grouping == largest)
    if (term.codes[1:] >= term.codes[:-1]).all():
        return None
    order: NDArray[np.int32] = _kernels.rows_by_level(term.codes, term.n_levels)[1]
    return order


def _taken(values: NDArray[Any], order: NDArray[np.int32] | None) -> NDArray[Any]:
    return values if order is None else np.ascontiguousarray(values[order])
