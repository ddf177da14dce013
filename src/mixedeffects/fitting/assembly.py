"""From labelled terms to the engine's blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.memory import usable_memory
from mixedeffects.engine import CrossProducts, EngineTerm, make_crossproducts
from mixedeffects.engine.memory import RemainderTooLargeError
from mixedeffects.engine.responses import Responses
from mixedeffects.engine.structures import CovarianceStructure
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.frame.model_frame import RandomTerm

__all__ = [
    "assemble",
    "check_parameters",
    "covariance_structures",
    "engine_terms",
    "responses_of",
    "too_large",
]

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
        If they, or the information about the variance parameters, would not fit into memory.
    """
    check_parameters(terms)
    try:
        return make_crossproducts(y, X, engine_terms(terms), weights)
    except RemainderTooLargeError as error:
        raise too_large(terms, error) from None


def too_large(terms: Sequence[RandomTerm], error: RemainderTooLargeError) -> ModelError:
    """The sentence about blocks that cannot be held."""
    names = ", ".join(f"{terms[t].label} ({terms[t].n_levels:,})" for t in error.members)
    return ModelError(
        f"The random effects of {names} are crossed with those eliminated first. Even in a "
        f"good order they need a dense matrix with {error.size:,} rows, "
        f"{error.gigabytes:,.0f} GB in all, more than this machine has. Use fewer levels, or a "
        "factor that contains the others."
    )


def responses_of(fit: Fit, Y: Matrix) -> Responses:
    """Cross-products of a fit's design with other responses, shape (n, m), one a column.

    Where those of the fit are less provisional random effects, so are these.
    """
    frame, A = fit.frame, fit.crossproducts
    return Responses(
        A,
        Y if frame.offset is None else Y - frame.offset[:, None],
        frame.X,
        engine_terms(frame.terms),
        frame.weights,
        None if A.provisional is None else fit.optimum.T,
    )


def check_parameters(terms: Sequence[RandomTerm]) -> None:
    """Refuse covariances with more parameters than a matrix between all pairs can have."""
    free = [term for term in terms if term.structure == "us"]
    count = sum(term.n_columns * (term.n_columns + 1) // 2 for term in free)
    # Their information, what is subtracted from it, and a factor.
    n_bytes = 3 * 8.0 * float(count) ** 2
    if n_bytes > usable_memory():
        widest = max(free, key=lambda term: term.n_columns)
        raise ModelError(
            f"The random effects have {count:,} variance parameters, most of them of the "
            f"{widest.n_columns:,} columns on `{widest.group}` ({', '.join(widest.columns[:3])}, "
            f"...); a fit takes {n_bytes / 1e9:,.3g} GB. Give them a structure, such as "
            f"diag(... | {widest.group}) or cs(... | {widest.group}), or use fewer columns."
        )
