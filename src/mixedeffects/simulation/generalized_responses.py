"""Responses drawn from a fitted generalized model.

Each draw has a stream of random numbers of its own, made from the seed and its number: the draws do
not depend on how many are asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import entropy_of
from mixedeffects.covariance.design import z_times
from mixedeffects.covariance.of_fit import conditioned
from mixedeffects.covariance.roots import covariance_root
from mixedeffects.covariance.sizes import refuse_beyond_memory
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.fitting.generalized.means import drawn_means
from mixedeffects.simulation.random_part import select_terms
from mixedeffects.simulation.responses import checked_count

__all__ = ["GeneralizedSampler", "simulate_generalized"]

Matrix = NDArray[np.float64]


def simulate_generalized(fit: GeneralizedFit, n: Any, seed: Any, re: Any) -> pd.DataFrame:
    """See `GeneralizedLinearMixedModel.simulate`."""
    count = checked_count(n, "n, the number of draws,")
    refuse_beyond_memory(
        8.0 * (count + 4.0) * fit.nobs,
        f"{count:,} draws of {fit.nobs:,} rows",
        "Make them in several calls, each with its seed.",
    )
    out = GeneralizedSampler(fit, entropy_of(seed), re).draw(0, count)
    names = [f"sim_{j + 1}" for j in range(count)]
    return pd.DataFrame(out, index=fit.frame.index, columns=names)


class GeneralizedSampler:
    """Draws by number; arguments as of `ResponseSampler`."""

    def __init__(self, fit: GeneralizedFit, entropy: int, re: Any = None) -> None:
        self._entropy = entropy
        kept = select_terms(fit.frame, re)
        self._mean = fit.fixed_part[:, None].copy()
        for t in kept:
            z_times(fit.frame.terms[t], np.ascontiguousarray(fit.modes[t])[:, :, None], self._mean)
        terms, blocks = conditioned(fit)
        self._drawn = [
            (term, covariance_root(blocks[t])) for t, term in enumerate(terms) if t not in kept
        ]
        self._family, self._response, self._phi = fit.family, fit.response, fit.search_phi

    def draw(self, first: int, last: int) -> Matrix:
        """Draws first to last - 1 as columns, shape (n, last - first)."""
        out = np.empty((len(self._mean), last - first))
        for j in range(first, last):
            rng = np.random.default_rng(np.random.SeedSequence(self._entropy, spawn_key=(j,)))
            eta = self._mean.copy()
            for term, root in self._drawn:
                standard = rng.standard_normal((term.n_levels, root.shape[1]))
                z_times(term, np.ascontiguousarray(standard @ root.T)[:, :, None], eta)
            mu = drawn_means(self._family, eta[:, 0])
            out[:, j - first] = self._family.simulate(rng, mu, self._response, self._phi)
        return out
