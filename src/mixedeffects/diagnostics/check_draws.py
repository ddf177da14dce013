"""What a fit makes of its own response, and of responses drawn from it, side by side.

A check compares a number computed from the data with the same number computed from data sets that
the fitted model has drawn, with all random effects drawn anew. Where it is quick, the model is
fitted again to each of them, so that the comparison allows for everything that was estimated;
elsewhere V keeps its form, and the fixed effects and the scale of V are estimated again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.linalg
import scipy.special
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.caching import cached_property
from mixedeffects.covariance.design import z_times, z_transpose_times
from mixedeffects.covariance.of_fit import R_of, V_of
from mixedeffects.covariance.of_residuals import rows_by_factor
from mixedeffects.diagnostics.check_outcomes import Outcomes, joined, levels_of
from mixedeffects.diagnostics.check_structured import AtParameters, structured_outcomes
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.finding import find_optimum, optimal_factors
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ConvergenceWarning, ModelError
from mixedeffects.fitting.assembly import covariance_structures, responses_of
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.modes import term_modes
from mixedeffects.simulation.responses import ResponseSampler

__all__ = ["Simulated", "is_refitted", "kept_rows", "number_of_draws", "observed"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]

#: Random effects, those factored densely, and rows up to which every draw is fitted again.
_REFITTED_EFFECTS = 600
_REFITTED_DENSE = 150
_REFITTED_ROWS = 5_000
#: Rows, where residuals have a structure, whose refits are slower.
_REFITTED_STRUCTURED = 1_500
#: Data sets drawn; fewer where more than so many numbers would be, or refits are slow.
_DRAWS = 250
_NUMBERS = 7_500_000
_LEAST_DRAWS = 99
#: Rows that are looked at, where there are more.
_MOST_ROWS = 100_000
#: Numbers in one batch of responses.
_BATCH = 4_000_000
_LARGEST_BATCH = 64
_LARGEST_REFITTED = 16


def is_refitted(fit: Fit) -> bool:
    """Whether the model is fitted again to every data set drawn from it."""
    A = fit.crossproducts
    few = A.q <= _REFITTED_EFFECTS and A.remainder.core_size <= _REFITTED_DENSE
    most = _REFITTED_ROWS if fit.residual is None else _REFITTED_STRUCTURED
    return few and fit.nobs <= most


def number_of_draws(fit: Fit) -> int:
    """How many data sets are drawn where nobody says how many."""
    slow = bool(fit.frame.structured_terms) or fit.residual is not None
    if is_refitted(fit) and slow:
        return _LEAST_DRAWS
    return min(_DRAWS, max(_LEAST_DRAWS, _NUMBERS // fit.nobs))


def kept_rows(fit: Fit, entropy: int) -> Positions:
    """The rows that are looked at, in order: all, or where they are very many a sample."""
    if fit.nobs <= _MOST_ROWS:
        return np.arange(fit.nobs)
    rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(2**31,)))
    return np.sort(rng.choice(fit.nobs, _MOST_ROWS, replace=False))


def observed(fit: Fit, rows: Positions, columns: Matrix) -> Outcomes:
    """What the fit makes of its response.

    Parameters
    ----------
    fit : Fit
        The fit.
    rows : ndarray of int
        Those to look at.
    columns : ndarray, shape (n, c)
        Further columns of X, orthogonal to X in the weights.
    """
    if fit.residual is not None:
        at = AtParameters(fit, columns, levels_of(fit))
        own = at.outcomes(fit.frame.y[:, None], is_held=not is_refitted(fit))
        return joined([own], rows)
    if is_refitted(fit):
        work = _Refits(fit, columns)
        one = work.outcome(fit.crossproducts, fit.optimum.T, fit.factorisation, fit.frame.y)
        return joined([one], rows)
    return joined([_Held(fit, columns).outcomes(fit.frame.y[:, None])], rows)


class Simulated:
    """What it makes of responses drawn from it, batch by batch.

    Parameters
    ----------
    fit, rows, columns
        As for `observed`.
    count : int
        How many responses are drawn.
    entropy : int
        Seed.
    """

    def __init__(
        self, fit: Fit, rows: Positions, columns: Matrix, count: int, entropy: int
    ) -> None:
        self._fit, self._rows, self._columns = fit, rows, columns
        self._entropy = entropy
        largest = _LARGEST_REFITTED if is_refitted(fit) else _LARGEST_BATCH
        size = max(1, min(largest, _BATCH // fit.nobs))
        #: The first of each batch, and the one after its last.
        self.batches = [(first, min(first + size, count)) for first in range(0, count, size)]
        self._done: dict[int, list[Outcomes]] = {}

    def make(self, number: int) -> None:
        """Draw one batch, unless it has been drawn."""
        if number in self._done:
            return
        Y = self._sampler.draw(*self.batches[number])
        own = list(self._outcomes(Y))
        # Rows that are not looked at are not kept.
        self._done[number] = [joined([one], self._rows) for one in own]

    def outcomes(self) -> Outcomes:
        """All of them; what has not been drawn is drawn now."""
        for number in range(len(self.batches)):
            self.make(number)
        parts = [one for number in range(len(self.batches)) for one in self._done[number]]
        whole = joined(parts, np.arange(len(self._rows)))
        # Not kept twice.
        self._done.clear()
        return whole

    def responses(self) -> Matrix:
        """The responses themselves, drawn once more, one a column."""
        return self._sampler.draw(0, self.batches[-1][1])

    def _outcomes(self, Y: Matrix) -> Iterator[Outcomes]:
        work = self._work
        if isinstance(work, _Refits):
            yield from work.outcomes(Y)
        elif isinstance(work, _Held):
            yield work.outcomes(Y)
        elif is_refitted(self._fit):
            yield from structured_outcomes(self._fit, self._columns, work.levels, Y)
        else:
            yield work.outcomes(Y, is_held=True)

    @cached_property
    def _sampler(self) -> ResponseSampler:
        return ResponseSampler(self._fit, self._entropy)

    @cached_property
    def _work(self) -> _Refits | _Held | AtParameters:
        if self._fit.residual is not None:
            return AtParameters(self._fit, self._columns, levels_of(self._fit))
        kind = _Refits if is_refitted(self._fit) else _Held
        return kind(self._fit, self._columns)


class _Refits:
    """Every response has its own fit."""

    def __init__(self, fit: Fit, columns: Matrix) -> None:
        self._fit, frame = fit, fit.frame
        self._levels = levels_of(fit)
        self._root_weights = np.ones(fit.nobs) if frame.weights is None else np.sqrt(frame.weights)
        self._weighted = columns * self._root_weights[:, None] ** 2
        # Products of the further columns with [Z X], in the basis that is fitted in.
        basis = fit.crossproducts.basis
        weighted = np.ascontiguousarray(self._weighted / basis.weight_scale)
        self._square = np.einsum("ic,ic->c", columns, weighted)
        self._products = []
        if columns.shape[1]:
            for factor, codes, z in zip(
                fit.crossproducts.factors, *rows_by_factor(fit), strict=True
            ):
                sums = np.zeros((factor.n_levels, factor.k, columns.shape[1]))
                _kernels.group_sums(codes, np.ascontiguousarray(z), weighted, sums)
                self._products.append(sums)
        self._border = basis.fixed_columns(frame.X).T @ weighted

    def outcomes(self, Y: Matrix) -> Iterator[Outcomes]:
        """Those of responses that could be fitted, one a column."""
        fit, frame = self._fit, self._fit.frame
        responses = responses_of(fit, Y)
        structures = covariance_structures(frame.terms)
        start = fit.optimum.restart
        with one_blas_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for j in range(Y.shape[1]):
                A = responses.crossproducts(j)
                try:
                    T: Sequence[Matrix]
                    if structures is None:
                        T, _ = optimal_factors(A, fit.reml, start, fit.optimum.has_rivals)
                    else:
                        T = find_optimum(A, fit.reml, start=start, structures=structures).T
                    one = self.outcome(A, T, Factorisation(A, T), Y[:, j])
                except (ArithmeticError, ModelError, np.linalg.LinAlgError):
                    # No residual variance left, for instance.
                    continue
                yield one

    def outcome(
        self, A: CrossProducts, T: Sequence[Matrix], factorisation: Factorisation, y: Matrix
    ) -> Outcomes:
        """That of one response."""
        fit, frame, basis = self._fit, self._fit.frame, A.basis
        df = A.n - A.p if fit.reml else A.n
        sigma = basis.sigma(math.sqrt(factorisation.rho2 / df))
        fixed = frame.X @ basis.beta(factorisation.solution.beta)
        if frame.offset is not None:
            fixed = fixed + frame.offset
        modes = term_modes(factorisation)
        fitted = fixed[:, None].copy()
        variance = (sigma / self._root_weights) ** 2
        for t, term in enumerate(frame.terms):
            z_times(term, modes[t][:, :, None], fitted)
            root = term.z @ (sigma * basis.relative_factor(t, T[t]))
            variance += np.einsum("ia,ia->i", root, root)
        error = y - fitted[:, 0]
        ranks = scipy.special.ndtr((y - fixed) / np.sqrt(variance))
        score = np.zeros(0)
        if self._products:
            b, beta = factorisation.solve(self._products, self._border)
            left = self._square - np.einsum("pc,pc->c", self._border, beta)
            for own, solved in zip(self._products, b, strict=True):
                left = left - np.einsum("lkc,lkc->c", own, solved)
            information = np.maximum(left, 0.0) * basis.weight_scale
            with np.errstate(divide="ignore", invalid="ignore"):
                score = self._weighted.T @ error / sigma / np.sqrt(information)
        scaled = (error * self._root_weights / sigma)[:, None]
        return Outcomes(
            residuals=scaled,
            fitted=fitted,
            ranks=ranks[:, None],
            modes=[each[:, :, None] for each in modes],
            curvature=score[:, None],
            sigma=np.array([sigma]),
            distances={
                levels.group: levels.distances(levels.information(factorisation), scaled)
                for levels in self._levels
            },
        )


class _Held:
    """The form of V is held; fixed effects and the scale of V are estimated from each response."""

    def __init__(self, fit: Fit, columns: Matrix) -> None:
        self._fit, frame = fit, fit.frame
        self._levels = [(each, each.information(fit.factorisation)) for each in levels_of(fit)]
        V = V_of(fit)
        self._X = fit.crossproducts.basis.fixed_columns(frame.X)
        self._S = V.solve(self._X)
        self._root = scipy.linalg.cholesky(self._X.T @ self._S, lower=True)
        self._R = R_of(fit).diag()
        self._sd = np.sqrt(V.diag())
        Pq = self._projected(V.solve(columns)) if columns.shape[1] else columns
        information = np.maximum(np.einsum("ic,ic->c", columns, Pq), 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            self._score = Pq / np.sqrt(information)

    def _projected(self, solved: Matrix) -> Matrix:
        """``P B`` from ``V^-1 B``."""
        half = scipy.linalg.solve_triangular(self._root, self._X.T @ solved, lower=True)
        beta = scipy.linalg.solve_triangular(self._root, half, lower=True, trans="T")
        return np.asarray(solved - self._S @ beta)

    def outcomes(self, Y: Matrix) -> Outcomes:
        """Those of responses, one a column."""
        fit, frame = self._fit, self._fit.frame
        known = np.zeros((fit.nobs, 1)) if frame.offset is None else frame.offset[:, None]
        own = Y - known
        Py = self._projected(V_of(fit).solve(own))
        df = fit.nobs - self._X.shape[1] if fit.reml else fit.nobs
        scale = np.sqrt(np.maximum(np.einsum("im,im->m", own, Py), 0.0) / df)
        errors = self._R[:, None] * Py
        modes, random = [], np.zeros_like(Y)
        for term, G in zip(frame.terms, fit.G_blocks, strict=True):
            b = np.einsum("ab,lbm->lam", G, z_transpose_times(term, Py))
            z_times(term, np.ascontiguousarray(b), random)
            modes.append(b)
        marginal = errors + random
        scaled = errors / (np.sqrt(self._R)[:, None] * scale)
        return Outcomes(
            residuals=scaled,
            fitted=Y - errors,
            ranks=scipy.special.ndtr(marginal / (self._sd[:, None] * scale)),
            modes=modes,
            curvature=self._score.T @ own / scale,
            sigma=fit.sigma * scale,
            distances={each.group: each.distances(A, scaled) for each, A in self._levels},
        )
