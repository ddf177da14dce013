"""The conditional modes: the minimum over b of the penalised deviance ``f = sum d_i + u'u``.

The state is ``c`` with ``b = G c``, so nothing is divided by T and a singular one needs no special
case; at the mode ``c = Z'r``. A Newton step with ``rho = Z'r - c`` is ``db = P rho`` and
``dc = Z'(r - W Z db) - c``, which keeps ``b = G c``, and ``rho'db`` is the square of the Newton
decrement. Steps are halved while f rises. Observed weights may be negative as long as M is positive
definite; else the expected weights stand for them in that step. Close to the mode a step by the
factorisation of the step before, W and P of it, leaves a small share of the decrement, and is taken
where at most two of them come as close as a step with weights of its own would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import Factorisation, NotPositiveDefiniteError, factor_T
from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.families import RowTerms

__all__ = ["Mode", "find_mode", "inner"]

Matrix = NDArray[np.float64]
Blocks = tuple[Matrix, ...]

#: Newton decrement after whose step the weights are taken: the error is its square. Below the
#: second one they are those already at hand.
_CLOSE, _THERE = 1e-5, 1e-11
#: Newton decrement after whose step the next may be taken by the same factorisation.
_NEAR = 0.1
#: Distance of c from ``Z'r``, relative to that, that is none.
_SAME_C = 1e-6
#: Newton steps, and halvings of one, before a mode is given up.
_MOST, _HALVINGS = 60, 30
#: Rise of f, relative to its size, that is rounding.
_ROUNDING = 1e-13


@dataclass(frozen=True, eq=False)
class Mode:
    """Conditional modes, and the factorisation with the weights there.

    Attributes
    ----------
    b, c : tuples of ndarray (l, k)
        Random effects per factor and ``c = Z'r`` with ``b = G c``.
    eta : ndarray, shape (n,)
        Linear predictor.
    rows : RowTerms
        Deviances of the rows and their derivatives there.
    A : CrossProducts
        ``Z'WZ`` with the observed weights.
    factorisation : Factorisation
        Of ``M = Lambda'A Lambda + I``.
    f : float
        Penalised deviance.
    decrement : float
        Newton decrement before the last step.
    factorisations : int
        How many the search took, the last included.
    """

    b: Blocks
    c: Blocks
    eta: Matrix
    rows: RowTerms
    A: CrossProducts
    factorisation: Factorisation
    f: float
    decrement: float
    factorisations: int


@dataclass(eq=False)
class _State:
    b: Blocks
    c: Blocks
    eta: Matrix
    rows: RowTerms
    f: float


@dataclass(eq=False)
class _Curvature:
    """Weights, observed or expected, the factorisation with them, and where they are from."""

    state: _State
    W: Matrix
    factorisation: Factorisation
    observed: bool


@dataclass(frozen=True, eq=False)
class _Newton:
    """A step: ``rho = Z'r - c``, ``db = P rho`` and its decrement."""

    rho: Sequence[Matrix]
    db: Sequence[Matrix]
    decrement: float
    c_is_there: bool


def inner(left: Sequence[Matrix], right: Sequence[Matrix]) -> float:
    """Sum of products of blocks."""
    return sum(float(np.vdot(a, b)) for a, b in zip(left, right, strict=True))


class _Search:
    """One search for a mode; everything but b stays as it is."""

    def __init__(
        self, design: GeneralizedDesign, T: Sequence[Matrix], linear: Matrix, phi: float
    ) -> None:
        self.design, self.T, self.linear, self.phi = design, T, linear, phi
        factors = [factor_T(f, T) for f in design.skeleton.factors]
        self.sigma = [own @ own.T for own in factors]
        self.factorisations = 0

    def start(self, c: Sequence[Matrix] | None) -> _State:
        """At ``b = G c``, or at none where f does not exist there."""
        if c is not None:
            state = self._at(tuple(c))
            if math.isfinite(state.f):
                return state
        none = tuple(np.zeros((f.n_levels, f.k)) for f in self.design.skeleton.factors)
        state = self._at(none)
        if not math.isfinite(state.f):
            raise NotPositiveDefiniteError("the deviance is not finite without random effects")
        return state

    def _at(self, c: Blocks) -> _State:
        b = tuple(own @ G for own, G in zip(c, self.sigma, strict=True))
        return self._state(b, c, self.linear + self.design.expand(b))

    def _state(self, b: Blocks, c: Blocks, eta: Matrix) -> _State:
        rows = self.design.rows(eta, self.phi)
        f = float(rows.d.sum()) + inner(b, c)
        return _State(b, c, eta, rows, f if math.isfinite(f) else math.inf)

    def factorise(self, W: Matrix) -> Factorisation:
        self.factorisations += 1
        return Factorisation(self.design.products(W), self.T)

    def _curvature(self, state: _State) -> _Curvature:
        """With the observed weights at a state, or the expected ones."""
        W = state.rows.W
        try:
            return _Curvature(state, W, self.factorise(W), True)
        except NotPositiveDefiniteError:
            W = self.design.expected_weights(state.eta, self.phi)
            return _Curvature(state, W, self.factorise(W), False)

    def _newton(self, state: _State, by: _Curvature) -> _Newton:
        at_rows = self.design.sums(state.rows.r)
        rho = [own - c for own, c in zip(at_rows, state.c, strict=True)]
        solved, _ = by.factorisation.solve([own[:, :, None] for own in rho], np.empty((0, 1)))
        db = [own[:, :, 0] for own in solved]
        decrement = math.sqrt(max(inner(rho, db), 0.0))
        c_is_there = inner(rho, rho) <= _SAME_C**2 * (1.0 + inner(at_rows, at_rows))
        return _Newton(rho, db, decrement, c_is_there)

    def down(self, state: _State) -> Mode:
        """Newton steps to the mode, the last by the factorisation of the step before."""
        by, before = self._curvature(state), math.inf
        for _ in range(_MOST):
            newton = self._newton(state, by)
            left = newton.decrement**2
            if by.state is not state:
                # Each such step leaves about this share of the decrement.
                share = 2.0 * newton.decrement / before
                left = newton.decrement * share
                if left * share > _CLOSE**2:
                    by = self._curvature(state)
                    newton = self._newton(state, by)
                    left = newton.decrement**2
            before, there = newton.decrement, by.observed and newton.decrement < _THERE
            if there and newton.c_is_there:
                return self._mode(state, by, before)
            pulled = self.design.sums(by.W * self.design.expand(newton.db))
            dc = [own - more for own, more in zip(newton.rho, pulled, strict=True)]
            moved = self._step(state, dc)
            if moved is None and by.state is not state:
                by, before = self._curvature(state), math.inf
                continue
            if moved is None:
                if by.observed and before**2 < 1e-8 * max(1.0, abs(state.f)):
                    return self._mode(state, by, before)
                break
            if there and by.state is state:
                # Without a variance b is there from the start, but c only now; the weights stay.
                by.state = moved
            state = moved
            if there or (by.observed and left < _CLOSE**2):
                return self._mode(state, by, before)
            if not by.observed or before > _NEAR:
                by, before = self._curvature(state), math.inf
        raise NotPositiveDefiniteError("the conditional modes cannot be found")

    def _step(self, state: _State, dc: Sequence[Matrix]) -> _State | None:
        """The longest step of one, a half, ... after which f has not risen."""
        slack = _ROUNDING * max(1.0, abs(state.f))
        size = 1.0
        for _ in range(_HALVINGS):
            # b from c afresh: two sums of steps can part, where one of them was very long.
            c = tuple(old + size * own for old, own in zip(state.c, dc, strict=True))
            there = self._at(c)
            if there.f <= state.f + slack:
                return there
            size *= 0.5
        return None

    def _mode(self, state: _State, by: _Curvature, decrement: float) -> Mode:
        rows = state.rows
        factorisation = by.factorisation if by.state is state else self.factorise(rows.W)
        if self.design.family.has_parameter:
            rows = self.design.rows(state.eta, self.phi, parameter=True)
        return Mode(
            state.b,
            state.c,
            state.eta,
            rows,
            factorisation.A,
            factorisation,
            state.f,
            decrement,
            self.factorisations,
        )


def find_mode(
    design: GeneralizedDesign,
    T: Sequence[Matrix],
    linear: Matrix,
    phi: float,
    c: Sequence[Matrix] | None = None,
) -> Mode:
    """Minimise the penalised deviance over the random effects.

    Parameters
    ----------
    design : GeneralizedDesign
        The model.
    T : sequence of ndarray (k, k)
        One factor per term, in the engine's basis.
    linear : ndarray, shape (n,)
        ``X beta + offset``.
    phi : float
        Family parameter, on its search scale; zero where there is none.
    c : sequence of ndarray (l, k), optional
        Where to start: at ``b = G c``.

    Raises
    ------
    NotPositiveDefiniteError
        Where there is no mode, or it is not found.
    """
    search = _Search(design, T, linear, phi)
    # Steps far out overflow, and are halved.
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            return search.down(search.start(c))
        except NotPositiveDefiniteError:
            if c is None:
                raise
            # With other covariances G c can be so far out that no step leads back.
            return search.down(search.start(None))
