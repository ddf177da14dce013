"""Where a search starts: estimates that need no derivative of the criterion.

A generalized linear model by iteratively reweighted least squares; its family parameter by Newton's
method; covariances by moments on its working model (`engine.start`), with a residual variance of
one; random and fixed effects jointly, by penalised reweighted least squares; moments once more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.basis import cross
from mixedeffects.engine.factorisation import Factorisation, NotPositiveDefiniteError
from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.generalized.limits import leaves_no_noise
from mixedeffects.engine.generalized.mode import inner
from mixedeffects.engine.start import starting_factors
from mixedeffects.errors import ModelError
from mixedeffects.families import RowTerms

__all__ = ["Start", "starting_values"]

Matrix = NDArray[np.float64]
Blocks = tuple[Matrix, ...]

#: Steps of each stage, and halvings of one.
_STEPS, _JOINT_STEPS, _HALVINGS = 25, 6, 30
#: Change of a linear predictor that is far on the scale of any link but a power.
_FAR = 8.0
#: Decrease that is worth another step of reweighted least squares: alone, and with effects.
_LITTLE, _SOME = 1e-4, 0.1
#: Share of the mean weight below which one counts as that.
_SMALLEST_WEIGHT = 1e-8
#: Longest step of the family parameter, and steps.
_LONGEST, _PHI_STEPS = 2.0, 20
#: Change of the family parameter that is little, and rounds of it and the model by turns.
_SAME_PHI, _ROUNDS = 1e-3, 5


@dataclass(frozen=True, eq=False)
class Start:
    """Starting values in the engine's basis: factors per term, beta, phi, and c per factor.

    `alone` is beta and phi of the model without random effects.
    """

    T: Blocks
    beta: Matrix
    phi: float
    c: Blocks
    alone: tuple[Matrix, float]
    evaluations: int


@dataclass(eq=False)
class _Fit:
    """A fit by reweighted least squares on its way."""

    beta: Matrix
    eta: Matrix
    rows: RowTerms
    f: float
    b: Blocks = ()
    c: Blocks = ()


class _Start:
    def __init__(self, design: GeneralizedDesign) -> None:
        self.design, self.family, self.response = design, design.family, design.response
        link = self.family.link
        #: The longest step of a linear predictor that has no end.
        self.far = _FAR if link.valid(np.array([-_FAR, _FAR])).all() else math.inf

    def weights(self, fit: _Fit, phi: float) -> Matrix:
        """Expected weights, none of them zero."""
        canonical = self.family.canonical
        W = fit.rows.W if canonical else self.design.expected_weights(fit.eta, phi)
        W = np.where(np.isfinite(W) & (W > 0.0), W, 0.0)
        mean = float(W.mean())
        if not mean > 0.0:
            raise NotPositiveDefiniteError("all weights are zero at the start")
        return np.asarray(np.maximum(W, _SMALLEST_WEIGHT * mean))

    def without_effects(self, phi: float, near: _Fit | None = None) -> _Fit:
        """The generalized linear model, from another fit of it or from the response itself."""
        design = self.design
        if near is None:
            eta = self.family.link.link(self.family.start_mu(self.response))
            fit = _Fit(np.zeros(design.p), eta, design.rows(eta, phi), math.inf)
        else:
            rows = design.rows(near.eta, phi)
            fit = _Fit(near.beta, near.eta, rows, float(rows.d.sum()))
        fit = self._reweighted(fit, phi)
        if not math.isfinite(fit.f):
            fit = self._reweighted(self._level(phi), phi)
        if not math.isfinite(fit.f):
            raise NotPositiveDefiniteError(
                "the linear predictor of the model without random effects is outside the link"
            )
        return fit

    def _level(self, phi: float) -> _Fit:
        """The fit whose linear predictor is nearest to that of the mean of all rows."""
        design, mu = self.design, self.family.start_mu(self.response)
        level = float(self.family.link.link(np.average(mu, weights=self.response.weights)))
        beta = np.asarray(np.linalg.lstsq(design.X, level - design.offset, rcond=None)[0])
        eta = design.X @ beta + design.offset
        rows = design.rows(eta, phi)
        return _Fit(beta, eta, rows, float(rows.d.sum()))

    def _reweighted(self, fit: _Fit, phi: float) -> _Fit:
        """After steps of reweighted least squares, as far as they lead."""
        design = self.design
        for _ in range(_STEPS):
            W = self.weights(fit, phi)
            z = fit.eta - design.offset + fit.rows.r / W
            XX, Xz = cross(design.X, design.X, W), cross(design.X, z[:, None], W)[:, 0]
            target = np.asarray(np.linalg.lstsq(XX, Xz, rcond=None)[0])
            moved = self._toward(fit, target, phi)
            if moved is None:
                break
            gained, fit = fit.f - moved.f, moved
            if gained < _LITTLE * (1.0 + 1e-3 * abs(fit.f)):
                break
        return fit

    def _toward(self, fit: _Fit, target: Matrix, phi: float) -> _Fit | None:
        first, size = not math.isfinite(fit.f), 1.0
        if not first and self.far < math.inf:
            # Far out a likelihood can be flat, and better than here.
            reach = float(np.abs(self.design.X @ (target - fit.beta)).max(initial=0.0))
            size = min(1.0, self.far / reach) if reach > 0.0 else 1.0
        for _ in range(_HALVINGS):
            if first:
                # There is no beta yet: shrink the predictor towards its mean instead.
                beta = target
                eta = self.design.X @ beta + self.design.offset
                eta = size * eta + (1.0 - size) * fit.eta
            else:
                beta = fit.beta + size * (target - fit.beta)
                eta = self.design.X @ beta + self.design.offset
            rows = self.design.rows(eta, phi)
            f = float(rows.d.sum())
            if math.isfinite(f) and (first or f <= fit.f):
                if first and size < 1.0:
                    return _Fit(fit.beta, eta, rows, math.inf)
                return _Fit(beta, eta, rows, f)
            size *= 0.5
        return None

    def parameter(self, eta: Matrix, phi: float) -> float:
        """The family parameter that is best at a linear predictor, by Newton's method."""
        if not self.family.has_parameter:
            return phi
        value = float(self.design.rows(eta, phi).d.sum())
        for _ in range(_PHI_STEPS):
            rows = self.design.rows(eta, phi, parameter=True)
            assert rows.d_phi is not None and rows.d_phiphi is not None
            slope, bend = float(rows.d_phi.sum()), float(rows.d_phiphi.sum())
            step = -slope / bend if bend > 0.0 else -math.copysign(1.0, slope)
            step = math.copysign(min(abs(step), _LONGEST), step)
            while abs(step) > _SAME_PHI:
                there = float(self.design.rows(eta, phi + step).d.sum())
                if there <= value:
                    phi, value = phi + step, there
                    break
                step *= 0.5
            else:
                break
        return phi

    def moments(self, fit: _Fit, phi: float, around: Blocks | None = None) -> Blocks:
        """Factors by moments on the working model there, taken at some factors or at T = I."""
        W = self.weights(fit, phi)
        A = self.design.working_products(W, fit.eta - self.design.offset + fit.rows.r / W)
        try:
            return tuple(starting_factors(A, reml=False, around=around))
        except NotPositiveDefiniteError:
            return tuple(np.eye(k) for k in self.design.term_columns)

    def with_effects(self, fit: _Fit, T: Blocks, phi: float) -> _Fit:
        """Random and fixed effects by penalised reweighted least squares, at one T."""
        design = self.design
        if not fit.b:
            none = tuple(np.zeros((f.n_levels, f.k)) for f in design.skeleton.factors)
            f = float(fit.rows.d.sum())
            fit = _Fit(fit.beta, fit.eta, fit.rows, f, none, none)
        for _ in range(_JOINT_STEPS):
            W = self.weights(fit, phi)
            A = design.working_products(W, fit.eta - design.offset + fit.rows.r / W)
            try:
                solution = Factorisation(A, T).solution
            except NotPositiveDefiniteError:
                # Weights so far apart that some fixed effect is all but unseen.
                break
            moved = self._toward_joint(fit, solution.beta, solution.b, solution.c, phi)
            if moved is None:
                break
            gained, fit = fit.f - moved.f, moved
            if gained < _SOME:
                break
        return fit

    def _toward_joint(
        self, fit: _Fit, beta: Matrix, b: Sequence[Matrix], c: Sequence[Matrix], phi: float
    ) -> _Fit | None:
        design, size = self.design, 1.0
        change = design.X @ (beta - fit.beta) + design.expand(
            [new - old for new, old in zip(b, fit.b, strict=True)]
        )
        for _ in range(_HALVINGS):
            there_b, there_c = (
                tuple(old + size * (new - old) for new, old in zip(to, at, strict=True))
                for to, at in ((b, fit.b), (c, fit.c))
            )
            eta = fit.eta + size * change
            rows = self.design.rows(eta, phi)
            f = float(rows.d.sum()) + inner(there_b, there_c)
            if math.isfinite(f) and f <= fit.f:
                return _Fit(fit.beta + size * (beta - fit.beta), eta, rows, f, there_b, there_c)
            size *= 0.5
        return None


def _refuse_exact(design: GeneralizedDesign, phi: float) -> None:
    """Say that the fixed effects leave nothing for a dispersion, if so."""
    if leaves_no_noise(design, phi):
        family = design.family
        raise ModelError(
            f"The fixed effects fit every row of the response, so that the {family.parameter_name} "
            f"of the {family.name} family, {family.natural(phi):.1e} where the search would start, "
            "has no finite estimate: the likelihood rises without end. See whether the response "
            "was computed from the predictors."
        )


def starting_values(design: GeneralizedDesign) -> Start:
    """Factors, fixed effects, family parameter and modes to start from.

    Raises
    ------
    NotPositiveDefiniteError
        Where the model without random effects cannot be fitted.
    ModelError
        Where it fits every row, and the family has a dispersion.
    """
    start = _Start(design)
    phi = 0.0
    if design.family.has_parameter:
        phi = design.family.start_phi(design.response, design.family.start_mu(design.response))
    fit = start.without_effects(phi)
    if design.family.has_parameter:
        for _ in range(_ROUNDS):
            before, phi = phi, start.parameter(fit.eta, phi)
            if abs(phi - before) < _SAME_PHI:
                break
            fit = start.without_effects(phi, fit)
        _refuse_exact(design, phi)
    alone = fit.beta, phi
    T = start.moments(fit, phi)
    fit = start.with_effects(fit, T, phi)
    phi = start.parameter(fit.eta, phi)
    T = start.moments(fit, phi, T)
    return Start(T, fit.beta, phi, fit.c, alone, 2)
