"""From labelled terms to the engine's blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine import CrossProducts, EngineTerm, make_crossproducts
from mixedeffects.engine.memory import RemainderTooLargeError
from mixedeffects.engine.structures import CovarianceStructure
from mixedeffects.errors import ModelError
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["assemble", "covariance_structures", "engine_terms"]

Matrix = NDArray[np.float64]


def engine_terms(terms: Sequence[RandomTerm]) -> list[EngineTerm]:
    """The terms as arrays; those on one grouping factor share its number."""
    numbers = {group: i for i, group in enumerate(dict.fromkeys(t.group for t in terms))}
    return [EngineTerm(t.codes, t.n_levels, t.z, numbers[t.group]) for t in terms]


def covariance_structures(
    terms: Sequence[RandomTerm],
) -> tuple[CovarianceStructure | None, ...] | None:
    """Structure of each term's covariance, None for a free one; None if all are free."""
    if all(term.structure == "us" for term in terms):
        return None
    return tuple(
        None
        if term.structure == "us"
        else CovarianceStructure(term.structure, term.n_columns, term.homogeneous)
        for term in terms
    )


def assemble(
    y: Matrix, X: Matrix, terms: Sequence[RandomTerm], weights: Matrix | None
) -> CrossProducts:
    """Cross-products of the design, or a sentence about why they cannot be held.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Response less offset.
    X : ndarray, shape (n, p)
        Fixed-effects matrix of full column rank.
    terms : sequence of RandomTerm
        Random-effects terms.
    weights : ndarray, shape (n,), or None
        Prior weights.

    Raises
    ------
    ModelError
        If they would not fit into memory.
    """
    try:
        return make_crossproducts(y, X, engine_terms(terms), weights)
    except RemainderTooLargeError as error:
        names = ", ".join(f"{terms[t].label} ({terms[t].n_levels:,})" for t in error.members)
        raise ModelError(
            f"The random effects of {names} are crossed with those eliminated first. Even in a "
            f"good order they need a dense matrix with {error.size:,} rows, "
            f"{error.gigabytes:,.0f} GB in all, more than this machine has. Use fewer levels, or a "
            "factor that contains the others."
        ) from None
