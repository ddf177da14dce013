"""Responses drawn from a fitted model: ``y = offset + X beta + Z b + e``.

Each draw has a stream of random numbers of its own, made from the seed and its number: the draws do
not depend on how many are asked for, nor on which processor makes them.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import entropy_of, is_whole_number
from mixedeffects.covariance.design import z_times
from mixedeffects.covariance.of_fit import conditioned
from mixedeffects.covariance.of_residuals import residual_matrix_of
from mixedeffects.covariance.roots import covariance_root
from mixedeffects.covariance.sizes import refuse_beyond_memory
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.simulation.random_part import select_terms

__all__ = ["ResponseSampler", "Sampler", "checked_count", "simulate"]

Matrix = NDArray[np.float64]


def simulate(fit: Fit, n: int, seed: Any, re: Any) -> pd.DataFrame:
    """See `LinearMixedModel.simulate`."""
    count = checked_count(n, "n, the number of draws,")
    effects = sum(term.n_levels * term.n_columns for term in fit.frame.terms)
    refuse_beyond_memory(
        8.0 * count * (3.0 * fit.nobs + 3.0 * effects),
        f"{count:,} draws of {fit.nobs:,} rows",
        "Make them in several calls, each with its seed.",
    )
    Y = ResponseSampler(fit, entropy_of(seed), re).draw(0, count)
    names = [f"sim_{i + 1}" for i in range(count)]
    return pd.DataFrame(Y, index=fit.frame.index, columns=names)


class Sampler(Protocol):
    """Draws by number."""

    def draw(self, first: int, last: int) -> Matrix:
        """Draws first to last - 1 as columns, shape (n, last - first)."""
        ...


class ResponseSampler:
    """Draws by number.

    Parameters
    ----------
    fit : Fit
        The fit.
    entropy : int
        Seed.
    re : None, "all", str or sequence of str
        Terms whose effects keep their conditional modes; the others are drawn.

    Raises
    ------
    ModelError
        If a term is not known.
    """

    def __init__(self, fit: Fit, entropy: int, re: Any = None) -> None:
        self._entropy = entropy
        terms, blocks = conditioned(fit)
        kept = select_terms(fit.frame, re)
        mean = fit.fixed_part[:, None].copy()
        if kept:
            modes = fit.modes
            for t in kept:
                z_times(fit.frame.terms[t], np.ascontiguousarray(modes[t])[:, :, None], mean)
        self._mean = mean
        self._R = residual_matrix_of(fit)
        self._n = len(mean)
        self._behind = fit.frame.rows_behind
        self._drawn = [
            (term, covariance_root(blocks[t])) for t, term in enumerate(terms) if t not in kept
        ]

    def draw(self, first: int, last: int) -> Matrix:
        """Draws first to last - 1 as columns, shape (n, last - first)."""
        m, n = last - first, self._n
        sizes = [term.n_levels * root.shape[1] for term, root in self._drawn]
        errors = np.empty((m, n))
        effects = [np.empty((m, size)) for size in sizes]
        for j in range(m):
            rng = np.random.default_rng(
                np.random.SeedSequence(self._entropy, spawn_key=(first + j,))
            )
            errors[j] = rng.standard_normal(n)
            if self._behind:
                # The last row stands for what is orthogonal to the columns of all others.
                errors[j, -1] = np.sqrt(rng.chisquare(self._behind))
            for standard, size in zip(effects, sizes, strict=True):
                standard[j] = rng.standard_normal(size)
        Y = np.ascontiguousarray(self._R.root_times(errors.T))
        Y += self._mean
        for (term, root), standard in zip(self._drawn, effects, strict=True):
            levels = standard.T.reshape(term.n_levels, root.shape[1], m)
            z_times(term, np.matmul(root, levels), Y)
        return Y


def checked_count(n: Any, what: str) -> int:
    """A positive whole number, or an error that says what it is for."""
    if not is_whole_number(n):
        raise ModelError(f"{what} must be a positive whole number, not {n!r:.60}.")
    return int(n)
