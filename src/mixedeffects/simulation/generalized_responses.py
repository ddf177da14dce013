"""Responses drawn from a fitted generalized model.

Each draw has a stream of random numbers of its own, made from the seed and its number: the draws do
not depend on how many are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from mixedeffects.simulation.random_part import select_terms
from mixedeffects.simulation.responses import checked_count

__all__ = ["generalized_draws", "simulate_generalized"]

Matrix = NDArray[np.float64]


def simulate_generalized(fit: GeneralizedFit, n: Any, seed: Any, re: Any) -> pd.DataFrame:
    """See `GeneralizedLinearMixedModel.simulate`."""
    count = checked_count(n, "n, the number of draws,")
    refuse_beyond_memory(
        8.0 * (count + 4.0) * fit.nobs,
        f"{count:,} draws of {fit.nobs:,} rows",
        "Make them in several calls, each with its seed.",
    )
    kept = select_terms(fit.frame, re)
    out = np.empty((fit.nobs, count))
    for j, values in enumerate(generalized_draws(fit, count, entropy_of(seed), kept)):
        out[:, j] = values
    names = [f"sim_{j + 1}" for j in range(count)]
    return pd.DataFrame(out, index=fit.frame.index, columns=names)


def generalized_draws(
    fit: GeneralizedFit, count: int, entropy: int, kept: tuple[int, ...] = (), first: int = 0
) -> Iterator[Matrix]:
    """Responses drawn one after the other, each (n,); the terms ``kept`` keep their modes."""
    mean = fit.fixed_part[:, None].copy()
    for t in kept:
        z_times(fit.frame.terms[t], np.ascontiguousarray(fit.modes[t])[:, :, None], mean)
    terms, blocks = conditioned(fit)
    drawn = [(term, covariance_root(blocks[t])) for t, term in enumerate(terms) if t not in kept]
    for j in range(first, first + count):
        rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(j,)))
        eta = mean.copy()
        for term, root in drawn:
            standard = rng.standard_normal((term.n_levels, root.shape[1]))
            z_times(term, np.ascontiguousarray(standard @ root.T)[:, :, None], eta)
        mu = np.asarray(fit.family.link.inverse(eta[:, 0]))
        yield np.asarray(fit.family.simulate(rng, mu, fit.response, fit.search_phi))
