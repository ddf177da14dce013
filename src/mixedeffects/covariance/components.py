"""Variance components given by a user, checked against the terms of a model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.covariance.roots import standardised
from mixedeffects.errors import ModelError
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["check_sigma", "read_components"]

Matrix = NDArray[np.float64]

#: Below this, negative eigenvalues of the correlation matrix are rounding, and so are differences
#: between mirror images relative to the largest entry.
_ROUNDING = 1e-10


def check_sigma(sigma: Any) -> float:
    """The residual standard deviation as a float; ModelError unless it is a positive number."""
    try:
        # The imaginary part of NumPy's complex numbers must not be lost.
        value = float("nan") if np.iscomplexobj(sigma) else float(sigma)
    except (TypeError, ValueError):
        raise ModelError(f"sigma must be a positive number, not {sigma!r:.60}.") from None
    if value == 0.0:
        raise ModelError(
            "sigma must be a positive number: with sigma = 0 there is no residual variance, so "
            "V = Z G Z' is singular and has no inverse."
        )
    if not (np.isfinite(value) and value > 0.0):
        raise ModelError(f"sigma must be a positive number; got {sigma}.")
    return value


def read_components(terms: Sequence[RandomTerm], G: Any) -> list[Matrix]:
    """One covariance matrix per term, in the order of the terms.

    Parameters
    ----------
    terms : sequence of RandomTerm
        The random-effects terms.
    G : mapping, RandomEffectsCovariance or VarCorr
        From term label or grouping factor to a variance, a k x k array, or a k x k DataFrame
        labelled by the term's columns in any order.

    Raises
    ------
    ModelError
        If a term is missing or not known, or a matrix has the wrong size, is not symmetric, or is
        not positive semidefinite.
    """
    if not (hasattr(G, "keys") and hasattr(G, "__getitem__")):
        raise ModelError(
            "G must be a dict from the labels of the random-effects terms to their covariance "
            f"matrices, for example {_example(terms)}; not {G!r:.60}."
        )
    given = {_find_term(terms, key): key for key in G.keys()}  # noqa: SIM118 - not only dicts
    missing = [terms[t].label for t in range(len(terms)) if t not in given]
    if len(given) < len(list(G.keys())):
        raise ModelError(
            f"G names a term twice: its keys are {_quoted(list(G.keys()))}, and the terms of the "
            f"formula {_quoted([term.label for term in terms])}."
        )
    if missing:
        raise ModelError(
            f"G has no entry for {_quoted(missing)}; a covariance matrix is needed for each "
            f"random-effects term, for example {_example(terms)}."
        )
    return [_read_matrix(term, G[given[t]]) for t, term in enumerate(terms)]


def _find_term(terms: Sequence[RandomTerm], key: Any) -> int:
    labels = [term.label for term in terms]
    if key in labels:
        return labels.index(key)
    if isinstance(key, str):
        for t, term in enumerate(terms):
            if sorted(key.split(":")) == sorted(term.variables):
                return t
    near = difflib.get_close_matches(str(key), labels, n=3, cutoff=0.4)
    hint = f" Did you mean {_quoted(near)}?" if near else ""
    raise ModelError(
        f"G names {key!r}, which is no random-effects term of the formula; the terms are "
        f"{_quoted(labels)}.{hint}"
    )


def _read_matrix(term: RandomTerm, given: Any) -> Matrix:
    names, k = list(term.columns), term.n_columns
    what = f"The covariance matrix of {term.label!r}"
    if isinstance(given, pd.DataFrame):
        if not (_is_permutation(given.index, names) and _is_permutation(given.columns, names)):
            raise ModelError(
                f"{what} must have rows and columns named {_quoted(names)}; it has rows "
                f"{_quoted(list(given.index))} and columns {_quoted(list(given.columns))}. Give an "
                "array to go by position."
            )
        given = given.loc[names, names]
    matrix = number_array(given, f"{what} must be numbers", ModelError)
    if matrix.ndim == 0:
        matrix = matrix.reshape(1, 1)
    if matrix.ndim == 1 and k > 1:
        raise ModelError(
            f"{what} must be {k} x {k}, for the columns {_quoted(names)}; one-dimensional values "
            "could be variances or standard deviations. For independent effects write "
            "numpy.diag(variances)."
        )
    if matrix.shape != (k, k):
        shape = " x ".join(str(s) for s in matrix.shape)
        raise ModelError(
            f"{what} must be {k} x {k}, for the columns {_quoted(names)}; the one given is {shape}."
        )
    if not np.isfinite(matrix).all():
        raise ModelError(f"{what} has {int((~np.isfinite(matrix)).sum())} values not finite.")
    largest = float(np.abs(matrix).max())
    asymmetry = float(np.abs(matrix - matrix.T).max())
    if asymmetry > _ROUNDING * largest:
        raise ModelError(
            f"{what} is not symmetric: entries differ from their mirror images by up to "
            f"{asymmetry:.3g}."
        )
    matrix = 0.5 * (matrix + matrix.T)
    correlation, _ = standardised(matrix)
    if float(np.linalg.eigvalsh(correlation)[0]) < -_ROUNDING:
        smallest = float(np.linalg.eigvalsh(matrix)[0])
        why = (
            "a variance cannot be negative"
            if k == 1
            else "a correlation beyond 1 or a negative variance would be needed"
        )
        raise ModelError(
            f"{what} is not positive semidefinite: its smallest eigenvalue is {smallest:.4g}, "
            f"but {why}."
        )
    return matrix


def _is_permutation(labels: pd.Index, names: list[str]) -> bool:
    return len(labels) == len(names) and set(labels) == set(names)


def _example(terms: Sequence[RandomTerm]) -> str:
    entries = [
        f"{term.label!r}: " + ("1.0" if term.n_columns == 1 else f"numpy.eye({term.n_columns})")
        for term in terms
    ]
    return "{" + ", ".join(entries) + "}"


def _quoted(names: Sequence[Any]) -> str:
    return ", ".join(repr(str(name)) for name in names)
