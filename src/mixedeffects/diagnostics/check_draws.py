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
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.special
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.caching import cached_property
from mixedeffects.covariance.design import z_times, z_transpose_times
from mixedeffects.covariance.of_fit import R_of, V_of
from mixedeffects.covariance.of_residuals import rows_by_factor
from mixedeffects.diagnostics.check_levels import WholeLevels, whole_groups
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.finding import find_optimum, optimal_factors
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ConvergenceWarning, ModelError
from mixedeffects.fitting.assembly import covariance_structures, responses_of
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.modes import term_modes
from mixedeffects.simulation.responses import ResponseSampler

__all__ = ["Outcomes", "Simulated", "is_refitted", "kept_rows", "number_of_draws", "observed"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]

#: Random effects, those factored densely, and rows up to which every draw is fitted again.
_REFITTED_EFFECTS = 600
_REFITTED_DENSE = 150
_REFITTED_ROWS = 5_000
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


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Residuals, modes and the rest of m data sets.

    Attributes
    ----------
    residuals : ndarray, shape (n, m)
        ``sqrt(w) (y - X beta - Z b) / sigma``.
    fitted : ndarray, shape (n, m)
        ``X beta + Z b`` with the offset, in units of the response.
    ranks : ndarray, shape (n, m)
        Share of responses drawn anew, random effects included, that lie below the row's response.
    modes : list of ndarray, shape (l, k, m)
        Conditional modes of each term.
    curvature : ndarray, shape (c, m)
        Score statistics of further columns of X, standard normal if V were known.
    sigma : ndarray, shape (m,)
        Residual standard deviations at unit weight.
    distances : dict of str to ndarray, shape (l, m)
        Cook's distances of the levels of factors that share no random effects, see `WholeLevels`.
    """

    residuals: Matrix
    fitted: Matrix
    ranks: Matrix
    modes: list[Matrix]
    curvature: Matrix
    sigma: Matrix
    distances: dict[str, Matrix]

    @property
    def count(self) -> int:
        """Number of data sets, m."""
        return int(self.residuals.shape[1])


def is_refitted(fit: Fit) -> bool:
    """Whether the model is fitted again to every data set drawn from it."""
    A = fit.crossproducts
    few = A.q <= _REFITTED_EFFECTS and A.remainder.core_size <= _REFITTED_DENSE
    return few and fit.nobs <= _REFITTED_ROWS


def number_of_draws(fit: Fit) -> int:
    """How many data sets are drawn where nobody says how many."""
    if is_refitted(fit) and fit.frame.structured_terms:
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
    if is_refitted(fit):
        work = _Refits(fit, columns)
        one = work.outcome(fit.crossproducts, fit.optimum.T, fit.factorisation, fit.frame.y)
        return _joined([one], rows)
    return _joined([_Held(fit, columns).outcomes(fit.frame.y[:, None])], rows)


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
        work = self._work
        own = list(work.outcomes(Y)) if isinstance(work, _Refits) else [work.outcomes(Y)]
        # Rows that are not looked at are not kept.
        self._done[number] = [_joined([one], self._rows) for one in own]

    def outcomes(self) -> Outcomes:
        """All of them; what has not been drawn is drawn now."""
        for number in range(len(self.batches)):
            self.make(number)
        parts = [one for number in range(len(self.batches)) for one in self._done[number]]
        whole = _joined(parts, np.arange(len(self._rows)))
        # Not kept twice.
        self._done.clear()
        return whole

    @cached_property
    def _sampler(self) -> ResponseSampler:
        return ResponseSampler(self._fit, self._entropy)

    @cached_property
    def _work(self) -> _Refits | _Held:
        kind = _Refits if is_refitted(self._fit) else _Held
        return kind(self._fit, self._columns)


def _joined(parts: Sequence[Outcomes], rows: Positions) -> Outcomes:
    if not parts:
        raise ModelError(
            "None of the data sets drawn from the fitted model could be fitted again, so the "
            "checks that compare with them cannot be made; which= names others."
        )
    whole = len(rows) == len(parts[0].residuals)

    def of(name: str) -> Matrix:
        own = [getattr(part, name) for part in parts]
        return np.hstack(own if whole else [each[rows] for each in own])

    return Outcomes(
        residuals=of("residuals"),
        fitted=of("fitted"),
        ranks=of("ranks"),
        modes=[
            np.concatenate([part.modes[t] for part in parts], axis=2)
            for t in range(len(parts[0].modes))
        ],
        curvature=np.hstack([part.curvature for part in parts]),
        sigma=np.concatenate([part.sigma for part in parts]),
        distances={
            group: np.hstack([part.distances[group] for part in parts])
            for group in parts[0].distances
        },
    )


def _levels(fit: Fit) -> list[WholeLevels]:
    if not fit.frame.X.shape[1]:
        return []
    return [WholeLevels(fit, group) for group in whole_groups(fit)]


class _Refits:
    """Every response has its own fit."""

    def __init__(self, fit: Fit, columns: Matrix) -> None:
        self._fit, frame = fit, fit.frame
        self._levels = _levels(fit)
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
        self._levels = [(each, each.information(fit.factorisation)) for each in _levels(fit)]
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
