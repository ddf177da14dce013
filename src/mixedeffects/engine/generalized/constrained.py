"""The criterion of a generalized model minimised with one parameter held at a value.

A standard deviation or correlation is held in the factors, as in the linear model (`constrained`):
with the columns concerned first in a term's own basis ``w = R b*``, they are in the first rows of a
lower triangular factor,

    standard deviation   L_11 = sd                correlation   L_21 = r s, L_22 = sqrt(1 - r^2) s

and the entries below are free. The search is that of the fit, in these entries, beta and phi. A
fixed effect is moved into the offset; the parameter of the family stays where it is put, and so
does one of a covariance structure, whose search goes from face to face as that of the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.constrained import Constrained
from mixedeffects.engine.face import Face
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation
from mixedeffects.engine.generalized.search import LARGEST, GeneralizedSearch
from mixedeffects.engine.generalized.space import GeneralizedPoint, Parameters, Space
from mixedeffects.engine.parameterisation import Parameterisation, UnstructuredTerm
from mixedeffects.engine.parameters import lower_entries
from mixedeffects.engine.search import SINGULAR

__all__ = [
    "AtConstraint",
    "GeneralizedConstrained",
    "HeldCoefficient",
    "HeldCorrelation",
    "HeldDeviation",
    "HeldOfStructures",
    "HeldPhi",
    "without_random_effects",
]

Matrix = NDArray[np.float64]
Blocks = tuple[Matrix, ...]

_TOLERANCE = 1e-10
_MAX_EVALUATIONS = 400
#: A criterion predicted to fall by no more than this is a minimum for the purpose.
_ENOUGH = 1e-7
_MAX_RESTARTS = 3
#: Standard deviations to start from where they would be zero, on the scale of eta.
_INSIDE, _STEP_OUT = 0.02, 0.1
#: Relative score that is negative.
_NEGATIVE = -1e-6


@dataclass(frozen=True, eq=False)
class GeneralizedConstrained(Constrained):
    """As `Constrained`, with factors absolute on the scale of eta and phi on its search scale."""

    phi: float = 0.0


@dataclass(frozen=True, eq=False)
class AtConstraint:
    """Where a constrained search starts: a point of the whole model.

    Attributes
    ----------
    T : tuple of ndarray (k, k)
        Factors in the engine's basis.
    beta : ndarray, shape (p,)
        Fixed effects in the user's columns.
    phi : float
        On its search scale; zero where there is none.
    c : tuple of ndarray (l, k)
        Of the modes there.
    """

    T: Blocks
    beta: Matrix
    phi: float
    c: Blocks


# --- factors in which some entries are tied -------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _AffineValues:
    """``T T'`` for ``T = base + sum_i x_i E_i``, and derivatives in x; as `FactorValues`."""

    T: Matrix
    directions: Matrix

    @property
    def covariance(self) -> Matrix:
        """``T T'``."""
        return np.asarray(self.T @ self.T.T)

    def gradient(self, F: Matrix) -> Matrix:
        """Derivatives of ``<F, T T'>`` for symmetric F, shape (..., k, k) to (..., m)."""
        return np.asarray(2.0 * np.einsum("...ab,iab->...i", F @ self.T, self.directions))

    def hessian(self, F: Matrix) -> Matrix:
        """Second derivatives for a symmetric F, m x m."""
        return np.asarray(2.0 * np.einsum("iab,ac,jcb->ij", self.directions, F, self.directions))


@dataclass(frozen=True, eq=False)
class _AffineTerm(UnstructuredTerm):
    """A term whose factor is ``base + sum_i x_i directions_i``, square but not triangular."""

    base: Matrix
    directions: Matrix

    @property
    def n_parameters(self) -> int:
        """Number of free entries."""
        return len(self.directions)

    def factor(self, eta: Matrix) -> Matrix:
        """The factor in the engine's basis."""
        return np.ascontiguousarray(self.base + np.tensordot(eta, self.directions, axes=1))

    def derivatives(self, eta: Matrix) -> Matrix:
        """First derivatives of ``T T'``, shape (m, k, k)."""
        half = self.directions @ self.factor(eta).T
        return np.asarray(half + half.transpose(0, 2, 1))

    def at(self, eta: Matrix) -> _AffineValues:  # type: ignore[override]
        """``T T'`` and its derivatives."""
        return _AffineValues(self.factor(eta), self.directions)


class _Tie:
    """Which rows of which term's factor are tied, and its own basis; by default none."""

    term: int | None = None
    fixed = 0

    def __init__(self, design: GeneralizedDesign) -> None:
        self.sizes = design.term_columns
        self.R = [np.eye(k) for k in self.sizes]

    def use_rows(self, design: GeneralizedDesign, term: int, columns: Sequence[int]) -> Matrix:
        """Put columns of the term first, scaled to one; their sizes in the user's units."""
        C = design.basis.terms[term][list(columns)]
        size = np.linalg.norm(C, axis=1)
        others = np.linalg.qr(C.T, mode="complete")[0][:, len(C) :].T
        self.R[term] = np.vstack([C / size[:, None], others])
        self.term, self.fixed = term, len(C)
        return np.asarray(size)

    def parameterisation(self, base: Matrix, tied: Sequence[Matrix]) -> Parameterisation:
        """The free entries: in the tied term those along ``tied``, then those below its rows."""
        terms: list[UnstructuredTerm] = []
        for t, k in enumerate(self.sizes):
            if t != self.term:
                terms.append(UnstructuredTerm(k))
                continue
            D = np.linalg.inv(self.R[t])
            own = list(tied)
            for row, column in zip(*lower_entries(k), strict=True):
                if row >= self.fixed:
                    unit = np.zeros((k, k))
                    unit[row, column] = 1.0
                    own.append(unit)
            directions = D @ np.array(own).reshape(len(own), k, k)
            terms.append(_AffineTerm(k, D @ base, directions))
        return Parameterisation(tuple(terms))

    def first(self, t: int) -> int:
        """The first row of a term's factor that is free."""
        return self.fixed if t == self.term else 0

    def pack(self, factors: Sequence[Matrix], tied: Sequence[float]) -> Matrix:
        """Coordinates of lower triangular factors in the terms' own bases."""
        parts: list[float] = []
        for t, L in enumerate(factors):
            if t == self.term:
                parts += tied
            rows, columns = lower_entries(len(L))
            free = rows >= self.first(t)
            parts += L[rows[free], columns[free]].tolist()
        return np.array(parts)

    def own_factors(self, T: Sequence[Matrix]) -> list[Matrix]:
        """Lower triangular factors in the terms' own bases."""
        return [lower_factor(R @ own) for R, own in zip(self.R, T, strict=True)]


class _Search(GeneralizedSearch):
    """A descent over what is free, which keeps tied rows as they are."""

    def __init__(
        self,
        design: GeneralizedDesign,
        tie: _Tie,
        nodes: int,
        held_phi: float | None,
        tied_of: Callable[[Matrix], Sequence[float]],
        allowed: Callable[[Matrix], bool] | None = None,
        *,
        has_effects: bool = True,
    ) -> None:
        super().__init__(design, _TOLERANCE, _MAX_EVALUATIONS, None, nodes)
        self._tie, self._held_phi, self._has_effects = tie, held_phi, has_effects
        self._tied_of, self._allowed = tied_of, allowed

    def _point(self, space: Space, x: Matrix) -> GeneralizedPoint | None:
        if self._allowed is not None and not self._allowed(x):
            return None
        return super()._point(space, x)

    def from_coordinates(self, x: Matrix, c: Blocks) -> tuple[GeneralizedPoint, float]:
        """The minimum, and the decrease still predicted there."""
        self._c = c
        space = Space(self.design, held_phi=self._held_phi)
        if not self._has_effects:
            result = self._minimise(space, x)
            return result.point, result.predicted
        for restart in range(_MAX_RESTARTS + 1):
            result = self._minimise(space, x)
            escape = self._escape(result.point)
            if escape is None or restart == _MAX_RESTARTS or self.evaluations >= self.most:
                break
            x = escape
        return self._on_boundary(space, result.point), result.predicted

    def _coordinates(self, point: GeneralizedPoint, factors: Sequence[Matrix]) -> Matrix:
        """Of changed factors whose tied rows, signs included, are the point's."""
        m = self.design.parameterisation.n_parameters
        eta = self._tie.pack(factors, self._tied_of(point.x))
        return np.concatenate([eta, point.x[m:]])

    def _on_boundary(self, space: Space, point: GeneralizedPoint) -> GeneralizedPoint:
        """With nearly singular covariances exactly so, if the criterion does not mind."""
        factors, changed = [], False
        for t, (R, T) in enumerate(zip(self._tie.R, point.evaluation.T, strict=True)):
            L, first = R @ T, self._tie.first(t)
            if t != self._tie.term:
                L = lower_factor(L)
            left, size, right = np.linalg.svd(np.tril(L[first:, first:]))
            small = (size < SINGULAR) & (size > 0.0)
            if small.any():
                changed = True
                kept = np.where(small, 0.0, size)
                L[first:, first:] = lower_factor((left * kept) @ right)
            factors.append(L)
        if not changed:
            return point
        trial = self._point(space, self._coordinates(point, factors))
        slack = 1e-12 * max(1.0, abs(point.value)) + 1e-9
        return trial if trial is not None and trial.value <= point.value + slack else point

    def _escape(self, point: GeneralizedPoint) -> Matrix | None:
        """A better start where the search has stopped at zero variance that the data want."""
        found, factors = False, []
        here = point.evaluation
        parts = zip(self._tie.R, here.T, here.score, here.outer_products, strict=True)
        for t, (R, T, F, CC) in enumerate(parts):
            L, first = R @ T, self._tie.first(t)
            if t != self._tie.term:
                L = lower_factor(L)
            free = np.tril(L[first:, first:])
            left, size, _ = np.linalg.svd(free)
            null = left[:, size < SINGULAR]
            if null.shape[1]:
                D = np.linalg.inv(R)
                inner = null.T @ (D.T @ F @ D)[first:, first:] @ null
                values, vectors = np.linalg.eigh(inner)
                scale = float(np.linalg.norm((D.T @ (F + CC) @ D)[first:, first:]))
                if values[0] < _NEGATIVE * scale:
                    found = True
                    direction = _STEP_OUT * (null @ vectors[:, :1])
                    wide = np.hstack([free, direction])
                    grown = wide @ wide.T
                    own, axes = np.linalg.eigh(grown)
                    L[first:, first:] = lower_factor(axes * np.sqrt(np.maximum(own, 0.0)))
            factors.append(L)
        return self._coordinates(point, factors) if found else None


@dataclass(frozen=True, eq=False)
class _HeldFace(Face):
    """A face on which one more parameter stays where it is."""

    place: int

    @cached_property
    def free(self) -> NDArray[np.intp]:
        """Places of the parameters that move."""
        held = self.parameterisation.held(self.eta)
        held[self.place] = True
        return np.flatnonzero(~held)


class _FaceSearch(GeneralizedSearch):
    """A descent from face to face of covariance structures, with one parameter held or none."""

    def __init__(
        self, design: GeneralizedDesign, nodes: int, held_phi: float | None, place: int | None
    ) -> None:
        super().__init__(design, _TOLERANCE, _MAX_EVALUATIONS, None, nodes)
        self._held_phi, self._place = held_phi, place

    def _face_space(self, eta: Matrix) -> Space:
        p = self.design.parameterisation
        face = Face(p, eta, LARGEST)
        if self._place is not None:
            face = _HeldFace(p, eta, LARGEST, self._place)
        return Space(self.design, face, self._held_phi)

    def _evaluate(self, at: Parameters) -> GeneralizedEvaluation | None:
        # Ways to and from bounds that change what is held are none.
        if self._place is not None and at.eta[self._place] != self._value:
            return None
        return super()._evaluate(at)

    def from_parameters(self, at: Parameters, c: Blocks) -> tuple[GeneralizedPoint, float]:
        """The minimum, and the decrease still predicted there."""
        self._c = c
        if self._place is not None:
            self._value = float(at.eta[self._place])
        if self._evaluate(at) is None:
            raise NotPositiveDefiniteError("some row has no mean, or no mode is found")
        found = self._from_face_to_face(at)
        return found.point, found.predicted


# --- the parameters -------------------------------------------------------------------------------


class _Held:
    """What all of them share."""

    #: Whether there are covariances to be searched.
    has_effects = True

    def __init__(self, design: GeneralizedDesign, nodes: int, at: AtConstraint) -> None:
        self.design, self.nodes, self.c = design, nodes, at.c
        self.tie = _Tie(design)
        # Found here, it is shared by what `changed` makes of the design.
        _ = design.by_level

    def _tied_of(self, x: Matrix) -> Sequence[float]:
        """Coordinates of tied rows among those of a point."""
        return []

    def _own_coordinates(self, L: Matrix) -> Sequence[float]:
        """Coordinates of the tied rows of a factor."""
        return []

    def start(self, at: AtConstraint) -> Matrix:
        """Free coordinates of a point of the whole model."""
        beta = np.linalg.solve(self.design.basis.fixed, self._beta(at))
        moving = [at.phi] if self.design.family.has_parameter and self._phi(1.0) is None else []
        return np.concatenate([self._covariances(at), beta, moving])

    def _covariances(self, at: AtConstraint) -> Matrix:
        """Coordinates of the covariances; with structures their parameters, held ones too."""
        if self.design.is_structured:
            return self.design.parameterisation.nearest(at.T)
        factors = self.tie.own_factors(at.T)
        tied = [] if self.tie.term is None else self._own_coordinates(factors[self.tie.term])
        return self.tie.pack(factors, tied)

    def _beta(self, at: AtConstraint) -> Matrix:
        return at.beta

    def _phi(self, value: float) -> float | None:
        """Where phi is held, if it is."""
        return None

    def _design(self, value: float) -> GeneralizedDesign:
        raise NotImplementedError

    def _user_beta(self, value: float, beta: Matrix) -> Matrix:
        return self.design.basis.beta(beta)

    def minimise(self, value: float, start: Matrix) -> GeneralizedConstrained:
        """Minimise over everything else; `beta` of the result is in the user's columns."""
        return self._minimise(value, start)

    def _minimise(
        self, value: float, start: Matrix, allowed: Callable[[Matrix], bool] | None = None
    ) -> GeneralizedConstrained:
        if self.design.is_structured:
            return self._minimise_structures(value, np.asarray(start, dtype=np.float64), None)
        search = _Search(
            self._design(value).by_level,
            self.tie,
            self.nodes,
            self._phi(value),
            self._tied_of,
            allowed,
            has_effects=self.has_effects,
        )
        point, predicted = search.from_coordinates(np.asarray(start, dtype=np.float64), self.c)
        return self._at(value, point, point.x, search.evaluations, predicted)

    def _at(
        self, value: float, point: GeneralizedPoint, x: Matrix, evaluations: int, predicted: float
    ) -> GeneralizedConstrained:
        """The minimum at a value, with the coordinates to start others from."""
        self.c = point.evaluation.mode.c
        return GeneralizedConstrained(
            value,
            point.value,
            tuple(point.evaluation.T),
            1.0,
            self._user_beta(value, point.at.beta),
            x,
            evaluations,
            predicted < max(_ENOUGH, 1e-12 * abs(point.value)),
            phi=point.at.phi,
        )

    def _minimise_structures(
        self, value: float, start: Matrix, held: tuple[int, float] | None
    ) -> GeneralizedConstrained:
        """The same with structures, one of whose parameters may be held, by place and value."""
        design, held_phi = self._design(value), self._phi(value)
        p = design.parameterisation
        m, end = p.n_parameters, p.n_parameters + design.p
        eta = p.canonical(np.clip(start[:m], p.lower, p.upper))
        if held is not None:
            eta[held[0]] = held[1]
        phi = float(start[end]) if len(start) > end else (held_phi or 0.0)
        search = _FaceSearch(design, self.nodes, held_phi, None if held is None else held[0])
        point, predicted = search.from_parameters(Parameters(eta, start[m:end], phi), self.c)
        moving = [point.at.phi] if len(start) > end else []
        x = np.concatenate([point.eta, point.at.beta, moving])
        return self._at(value, point, x, search.evaluations, predicted)


class HeldOfStructures(_Held):
    """A covariance parameter of a design with structures.

    Parameters
    ----------
    design : GeneralizedDesign
        The model.
    nodes : int
        Quadrature points per random effect.
    at : AtConstraint
        The optimum.
    place : int
        Which, of all covariance parameters.
    scale : float
        The parameter of the search is this times the natural one.
    """

    def __init__(
        self, design: GeneralizedDesign, nodes: int, at: AtConstraint, place: int, scale: float
    ) -> None:
        super().__init__(design, nodes, at)
        self._place, self._scale = place, scale

    def _design(self, value: float) -> GeneralizedDesign:
        return self.design

    def minimise(self, value: float, start: Matrix) -> GeneralizedConstrained:
        """Minimise over all other parameters."""
        held = (self._place, value * self._scale)
        return self._minimise_structures(value, np.asarray(start, dtype=np.float64), held)


class HeldCoefficient(_Held):
    """A fixed effect, by its column of X, which goes into the offset.

    Parameters
    ----------
    design : GeneralizedDesign
        The model.
    nodes : int
        Quadrature points per random effect.
    at : AtConstraint
        The optimum.
    X : ndarray, shape (n, p)
        In the user's columns.
    column : int
        Which.
    """

    def __init__(
        self, design: GeneralizedDesign, nodes: int, at: AtConstraint, X: Matrix, column: int
    ) -> None:
        without = design.with_columns(np.delete(X, column, axis=1))
        super().__init__(without, nodes, at)
        self._x, self._column = np.ascontiguousarray(X[:, column]), column

    def _beta(self, at: AtConstraint) -> Matrix:
        return np.delete(at.beta, self._column)

    def _design(self, value: float) -> GeneralizedDesign:
        return self.design.changed(offset=self.design.offset + value * self._x)

    def _user_beta(self, value: float, beta: Matrix) -> Matrix:
        return np.insert(self.design.basis.beta(beta), self._column, value)


class HeldPhi(_Held):
    """The parameter of the family, by its natural value."""

    def _phi(self, value: float) -> float | None:
        return float(self.design.family.search(value))

    def _design(self, value: float) -> GeneralizedDesign:
        return self.design


class HeldDeviation(_Held):
    """The standard deviation of one column of a term."""

    def __init__(
        self, design: GeneralizedDesign, nodes: int, at: AtConstraint, term: int, column: int
    ) -> None:
        super().__init__(design, nodes, at)
        (self._size,) = self.tie.use_rows(design, term, [column])
        self._k = design.term_columns[term]

    def _design(self, value: float) -> GeneralizedDesign:
        base = np.zeros((self._k, self._k))
        base[0, 0] = value / self._size
        return self.design.changed(parameterisation=self.tie.parameterisation(base, []))


class HeldCorrelation(_Held):
    """The correlation of two columns of a term.

    Their standard deviations must not change sign; where one of them is zero any correlation will
    do, so that the criterion there is an upper limit whatever the value.
    """

    def __init__(
        self,
        design: GeneralizedDesign,
        nodes: int,
        at: AtConstraint,
        term: int,
        columns: tuple[int, int],
    ) -> None:
        super().__init__(design, nodes, at)
        self.tie.use_rows(design, term, columns)
        self._k = design.term_columns[term]
        before = sum(k * (k + 1) // 2 for k in design.term_columns[:term])
        self._sizes = slice(before, before + 2)
        self._without = [HeldDeviation(design, nodes, at, term, column) for column in columns]
        self._flat: GeneralizedConstrained | None = None

    def _tied_of(self, x: Matrix) -> Sequence[float]:
        return [float(each) for each in x[self._sizes]]

    def _own_coordinates(self, L: Matrix) -> Sequence[float]:
        return [float(L[0, 0]), float(np.hypot(L[1, 0], L[1, 1]))]

    def _design(self, value: float) -> GeneralizedDesign:
        first, second = np.zeros((2, self._k, self._k))
        first[0, 0] = 1.0
        second[1, :2] = value, math.sqrt(max(0.0, 1.0 - value**2))
        base = np.zeros((self._k, self._k))
        own = self.tie.parameterisation(base, [first, second])
        return self.design.changed(parameterisation=own)

    def _one_sign(self, x: Matrix) -> bool:
        return bool(np.prod(x[self._sizes]) >= 0.0)

    def _inside(self, x: Matrix) -> Matrix:
        inside = x.copy()
        inside[self._sizes] = np.maximum(np.abs(x[self._sizes]), _INSIDE)
        return inside

    def minimise(self, value: float, start: Matrix) -> GeneralizedConstrained:
        """Minimise over all other parameters."""
        x, evaluations = self._inside(start), 0
        found = self._minimise(value, x)
        evaluations += found.evaluations
        if self._flat is None:
            at = AtConstraint(found.T, found.beta, found.phi, self.c)
            tries = [each.minimise(0.0, each.start(at)) for each in self._without]
            self._flat = min(tries, key=lambda each: each.deviance)
            evaluations += sum(each.evaluations for each in tries)
        flat = self._flat
        if not self._one_sign(found.x):
            # The best is at the correlation's opposite; look again on this side alone.
            from_flat = self.start(AtConstraint(flat.T, flat.beta, flat.phi, self.c))
            again = [x, self._inside(from_flat)]
            tries = [self._minimise(value, each, self._one_sign) for each in again]
            evaluations += sum(each.evaluations for each in tries)
            found = min(tries, key=lambda each: each.deviance)
        if flat.deviance <= found.deviance:
            # Kept away from zero, to be a start for other values.
            found = replace(flat, x=x)
        return replace(found, value=value, evaluations=evaluations)


class _NoEffects(_Held):
    """All covariances, held at zero."""

    has_effects = False

    def _design(self, value: float) -> GeneralizedDesign:
        terms = tuple(
            _AffineTerm(k, np.zeros((k, k)), np.empty((0, k, k))) for k in self.design.term_columns
        )
        return self.design.changed(parameterisation=Parameterisation(terms))

    def start(self, at: AtConstraint) -> Matrix:
        """Fixed effects and phi."""
        moving = [at.phi] if self.design.family.has_parameter else []
        return np.concatenate([np.linalg.solve(self.design.basis.fixed, at.beta), moving])


def without_random_effects(design: GeneralizedDesign, at: AtConstraint) -> GeneralizedConstrained:
    """The generalized linear model: the criterion without any variance of random effects.

    Raises
    ------
    NotPositiveDefiniteError
        Where there is no likelihood.
    """
    held = _NoEffects(design, 1, at)
    found = held.minimise(0.0, held.start(at))
    if not math.isfinite(found.deviance):
        raise NotPositiveDefiniteError("the model without random effects has no likelihood")
    return found
