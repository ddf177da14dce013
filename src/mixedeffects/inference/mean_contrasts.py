"""Coefficients of the usual contrasts among k means, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.errors import ModelError
from mixedeffects.frame.columns import labels_of
from mixedeffects.inference.contrasts import listed_names

__all__ = ["METHODS", "contrast_coefficients", "interaction_coefficients", "interaction_methods"]

Matrix = NDArray[np.float64]

#: Families of contrasts, and how their probabilities are adjusted unless asked otherwise.
METHODS = {
    "pairwise": "tukey",
    "revpairwise": "tukey",
    "trt.vs.ctrl": "mvt",
    "consec": "mvt",
    "eff": "fdr",
    "poly": "none",
}

_DEGREES = ("linear", "quadratic", "cubic", "quartic")
_HIGHEST_DEGREE = 6


def contrast_coefficients(
    method: Any, labels: Sequence[str], reference: Any = None, sign: str = "-"
) -> tuple[list[str], Matrix]:
    """Names and coefficients of the contrasts of a family.

    Parameters
    ----------
    method : str or mapping
        A name in `METHODS`, or a mapping of labels to coefficients: a vector with one for each
        mean, or a mapping of the means' labels to numbers.
    labels : sequence of str
        The k means.
    reference : str, optional
        For ``"trt.vs.ctrl"``, the label of the control; the first unless given.
    sign : str
        What stands between two means: ``"/"`` where their differences become ratios.

    Returns
    -------
    names : list of str
    coefficients : ndarray, shape (contrasts, k)

    Raises
    ------
    ModelError
        If the method is not known or coefficients do not fit the means.
    """
    if reference is not None and method != "trt.vs.ctrl":
        raise ModelError("reference= is for contrasts 'trt.vs.ctrl', those with a control.")
    if isinstance(method, Mapping):
        return _from_mapping(method, labels)
    if not isinstance(method, str) or method not in METHODS:
        raise ModelError(
            f"Contrasts {method!r:.60} are not known; there are {listed_names(list(METHODS))}, or "
            "a mapping of labels to coefficients."
        )
    k = len(labels)
    if k < 2:
        raise ModelError(
            f"Contrasts {method!r} need two or more means to compare; there is only {labels[0]!r}."
        )
    shown = [_in_parentheses(label) for label in labels]
    if method in ("pairwise", "revpairwise"):
        pairs = list(combinations(range(k), 2))
        if method == "revpairwise":
            pairs = [(j, i) for j in range(k) for i in range(j)]
        return _differences(pairs, shown, sign)
    if method == "consec":
        return _differences([(i + 1, i) for i in range(k - 1)], shown, sign)
    if method == "trt.vs.ctrl":
        control = 0 if reference is None else _position(reference, labels)
        return _differences([(i, control) for i in range(k) if i != control], shown, sign)
    if method == "eff":
        return [f"{label} effect" for label in shown], np.eye(k) - 1.0 / k
    return _polynomials(k)


def interaction_methods(interaction: Any, method: Any, factors: Sequence[str]) -> list[Any]:
    """The family of contrasts of each factor, for interaction contrasts.

    Parameters
    ----------
    interaction : True, str, mapping or sequence of these
        True for ``method`` throughout; one for all factors, or one for each.
    method : str or mapping
        As for `contrast_coefficients`.
    factors : sequence of str
        The factors of the means.

    Raises
    ------
    ModelError
        If there are not as many as factors.
    """
    given = method if interaction is True else interaction
    if isinstance(given, (str, Mapping)):
        given = [given] * len(factors)
    if not isinstance(given, Sequence) or len(given) != len(factors):
        raise ModelError(
            "interaction is True, a family of contrasts, or one for each factor of the means "
            f"({listed_names(factors)}); not {interaction!r:.60}."
        )
    return list(given)


def interaction_coefficients(
    methods: Sequence[Any], levels: Sequence[Sequence[str]], sign: str = "-"
) -> tuple[list[list[str]], Matrix]:
    """Products of contrasts, one of each factor: differences of differences.

    Parameters
    ----------
    methods : sequence of str or mapping
        Of each factor, as for `contrast_coefficients`.
    levels : sequence of sequence of str
        Levels of each factor; means go over the first fastest.
    sign : str
        Between the labels of a difference.

    Returns
    -------
    names : list of list of str
        For each factor the name of its contrast in each product.
    coefficients : ndarray, shape (products, means)
    """
    own = [
        contrast_coefficients(m, labels, None, sign)
        for m, labels in zip(methods, levels, strict=True)
    ]
    product: Matrix = np.ones((1, 1))
    for _, C in own:
        product = np.asarray(np.kron(C, product), dtype=np.float64)
    counts = [len(names) for names, _ in own]
    positions = np.unravel_index(np.arange(len(product)), counts, order="F")
    return [[names[i] for i in at] for (names, _), at in zip(own, positions, strict=True)], product


def _differences(
    pairs: Sequence[tuple[int, int]], labels: Sequence[str], sign: str
) -> tuple[list[str], Matrix]:
    C = np.zeros((len(pairs), len(labels)))
    for row, (i, j) in enumerate(pairs):
        C[row, i], C[row, j] = 1.0, -1.0
    return [f"{labels[i]} {sign} {labels[j]}" for i, j in pairs], C


def _in_parentheses(label: str) -> str:
    return f"({label})" if any(sign in label for sign in "+-*/") else label


def _position(label: Any, labels: Sequence[str]) -> int:
    """Position of a mean by its label; booleans are TRUE and FALSE, and written otherwise too."""
    spellings = {str(label), *labels_of([label])}
    found = [i for i, own in enumerate(labels) if own in spellings]
    if len(found) > 1:
        raise ModelError(
            f"{len(found)} means are labelled {label!r}; give the coefficients as a vector of "
            f"{len(labels)} numbers."
        )
    if found:
        return found[0]
    raise ModelError(f"There is no mean {label!r}; there are {listed_names(labels)}.")


def _polynomials(k: int) -> tuple[list[str], Matrix]:
    """Orthogonal polynomials of k equally spaced levels, in the smallest whole numbers."""
    basis: list[list[Fraction]] = [[Fraction(1)] * k]
    rows = []
    for degree in range(1, min(k, _HIGHEST_DEGREE + 1)):
        column = [Fraction(i) ** degree for i in range(k)]
        for other in basis:
            share = _dot(column, other) / _dot(other, other)
            column = [a - share * b for a, b in zip(column, other, strict=True)]
        basis.append(column)
        whole = [int(a * math.lcm(*(b.denominator for b in column))) for a in column]
        rows.append([a // math.gcd(*whole) for a in whole])
    names = [*_DEGREES, *(f"degree {d}" for d in range(5, _HIGHEST_DEGREE + 1))]
    return names[: len(rows)], np.array(rows, dtype=np.float64)


def _dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def _from_mapping(given: Mapping[Any, Any], labels: Sequence[str]) -> tuple[list[str], Matrix]:
    if not given:
        raise ModelError("There are no contrasts in the mapping; it maps labels to coefficients.")
    rows = [_custom(str(name), value, labels) for name, value in given.items()]
    return [str(name) for name in given], np.array(rows)


def _custom(name: str, value: Any, labels: Sequence[str]) -> Matrix:
    wanted = (
        f"The coefficients of contrast {name!r} must be {len(labels)} numbers, one for each mean"
    )
    if isinstance(value, (pd.Series, Mapping)):
        positions = [_position(label, labels) for label in value.keys()]  # noqa: SIM118 - a Series
        if len(set(positions)) < len(positions):
            raise ModelError(f"Contrast {name!r} names a mean twice.")
        row = np.zeros(len(labels))
        numbers = pd.Series(value, dtype=object).to_numpy()
        row[positions] = number_array(numbers, wanted, ModelError)
    else:
        row = number_array(value, wanted, ModelError)
    if row.shape != (len(labels),):
        raise ModelError(
            f"Contrast {name!r} has shape {row.shape}; it needs {len(labels)} numbers, one for "
            f"each mean ({listed_names(labels)})."
        )
    if not np.isfinite(row).all():
        raise ModelError(f"Contrast {name!r} has coefficients that are not finite.")
    if not row.any():
        raise ModelError(f"All coefficients of contrast {name!r} are zero.")
    return row
