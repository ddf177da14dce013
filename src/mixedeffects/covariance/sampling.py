"""Draws from N(0, V) through its sources: ``Z b + e`` with b ~ N(0, G) and e ~ N(0, R)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import is_whole_number, plain
from mixedeffects.covariance.design import z_times
from mixedeffects.covariance.roots import covariance_root
from mixedeffects.covariance.sizes import refuse_beyond_memory
from mixedeffects.covariance.structure import CovarianceStructure
from mixedeffects.errors import ModelError

__all__ = ["draw"]

Matrix = NDArray[np.float64]


def draw(
    V: CovarianceStructure,
    size: int | None,
    seed: int | np.random.Generator | None,
) -> Matrix:
    """Draws from N(0, V) as columns, shape (n, size); a singular G is no difficulty.

    Parameters
    ----------
    V : CovarianceStructure
        Their covariance matrix.
    size : int or None
        Number of draws; None for one.
    seed : int, Generator or None
        As for `numpy.random.default_rng`.

    Raises
    ------
    ModelError
        If size is not a positive whole number.
    """
    m = 1 if size is None else size
    if not is_whole_number(m):
        raise ModelError(
            f"size, the number of draws, must be a positive whole number, not {size!r:.60}."
        )
    m = int(m)
    # The draws, and beside them the effects of the largest term and what is made of them.
    effects = max((term.n_levels * term.n_columns for term in V.terms), default=0)
    refuse_beyond_memory(
        8.0 * m * (2.0 * V.n + 3.0 * effects),
        f"{m:,} draws of {V.n:,} rows",
        "Make them in several calls, each with its seed.",
    )
    try:
        if isinstance(plain(seed), bool):
            raise TypeError
        rng = np.random.default_rng(plain(seed))
    except (TypeError, ValueError):
        raise ModelError(
            f"seed must be a whole number from 0, a numpy Generator or None, not {seed!r:.60}."
        ) from None
    out = V.R.root_times(rng.standard_normal((V.n, m)))
    for term, G in V.random():
        root = covariance_root(G)
        standard = rng.standard_normal((term.n_levels, root.shape[1], m))
        z_times(term, np.matmul(root, standard), out)
    return out
