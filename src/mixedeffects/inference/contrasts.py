"""Contrasts of the fixed effects: names of terms or coefficients, or a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.base.options import meant
from mixedeffects.errors import ModelError
from mixedeffects.fitting.parameter_keys import as_written
from mixedeffects.inference.hypotheses import term_columns
from mixedeffects.inference.linear_expression import is_expression, linear_expression

if TYPE_CHECKING:
    from mixedeffects.frame.model_frame import ModelFrame

__all__ = [
    "coefficient_position",
    "contrast_matrix",
    "contrast_rows",
    "contrasts_and_constants",
    "labelled_contrasts",
    "listed_names",
    "unknown_coefficient",
]

Matrix = NDArray[np.float64]

_HYPOTHESIS = (
    "A hypothesis is the name of a term or coefficient, several of them, or a matrix with one "
    "column for each coefficient"
)


def contrast_matrix(frame: ModelFrame, hypothesis: Any) -> Matrix:
    """Rows L of the hypothesis ``L beta = 0``, shape (r, p).

    Parameters
    ----------
    frame : ModelFrame
        Names of coefficients and terms.
    hypothesis : str, sequence of str, array of shape (p,) or (r, p), Series or DataFrame
        Terms (all their columns) or coefficients by name, hypotheses in words such as
        ``"a - b = 0"``, or the matrix; a DataFrame by the names of its columns, those it lacks
        being zero, and a Series by its labels.

    Raises
    ------
    ModelError
        If a name is not known, or the matrix does not have p columns, is not finite, or its rows
        are linearly dependent.
    """
    labelled, constant = contrasts_and_constants(frame, hypothesis)
    if constant.any():
        unequal = labelled.index[np.flatnonzero(constant)[0]]
        raise ModelError(
            f"What is tested jointly equals zero; in {unequal!r} the sides differ by a number. "
            "m.contrast tests such hypotheses one by one."
        )
    L = labelled.to_numpy()
    length = np.linalg.norm(L, axis=1)
    rank = int(np.linalg.matrix_rank(L / length[:, None]))
    if rank < len(L):
        raise ModelError(
            f"The {len(L)} rows of the hypothesis matrix have rank {rank}: some are linear "
            "combinations of the others. Leave those out."
        )
    return L


def contrasts_and_constants(frame: ModelFrame, hypothesis: Any) -> tuple[pd.DataFrame, Matrix]:
    """Contrasts as `labelled_contrasts` gives them, and the number that is added to each.

    Only hypotheses in words have one: ``"Days = 10"`` is ``Days - 10``.
    """
    listed = [hypothesis] if isinstance(hypothesis, str) else hypothesis
    names = list(frame.fixef_names)
    texts = isinstance(listed, (list, tuple)) and all(isinstance(each, str) for each in listed)
    if not (names and texts and listed):
        L = labelled_contrasts(frame, hypothesis)
        return L, np.zeros(len(L))
    terms = {} if frame.fixed_encoder is None else term_columns(frame.fixed_encoder)
    parts, constants = [], []
    for text in listed:
        if is_expression(text) and as_written(text, [*names, *terms]) not in {*names, *terms}:
            found = linear_expression(text, names)
            parts.append(pd.DataFrame([found.l], [text], names))
            constants.append(found.constant)
        else:
            parts.append(labelled_contrasts(frame, text))
            constants += [0.0] * len(parts[-1])
    L = pd.concat(parts)
    first = ~L.index.duplicated()
    return L[first], np.array(constants)[first]


def labelled_contrasts(frame: ModelFrame, hypothesis: Any) -> pd.DataFrame:
    """Contrasts with their names, one row each and one column per fixed effect.

    Parameters
    ----------
    frame : ModelFrame
        Names of coefficients and terms.
    hypothesis
        As for `contrast_matrix`; the rows may depend on each other.

    Returns
    -------
    DataFrame, shape (r, p)
        Rows have the names of the coefficients, the labels of a DataFrame's own rows, or numbers
        counted from 1.

    Raises
    ------
    ModelError
        If a name is not known, or the matrix does not have p columns, is not finite, or has a row
        of zeros.
    """
    names = list(frame.fixef_names)
    if not names:
        raise _nothing_to_contrast()
    listed = [hypothesis] if isinstance(hypothesis, str) else hypothesis
    if isinstance(listed, (list, tuple)) and listed and all(isinstance(x, str) for x in listed):
        rows = list(dict.fromkeys(row for name in listed for row in _rows_of(frame, name)))
        return pd.DataFrame(np.eye(len(names))[rows], [names[row] for row in rows], names)
    labels = list(hypothesis.index) if isinstance(hypothesis, pd.DataFrame) else None
    L = contrast_rows(hypothesis, names)
    if len(L) == 0:
        raise ModelError("The hypothesis matrix has no row.")
    length = np.linalg.norm(L, axis=1)
    if (length == 0.0).any():
        raise ModelError(
            f"Row {int(np.flatnonzero(length == 0.0)[0]) + 1} of the hypothesis matrix is zero."
        )
    return pd.DataFrame(L, labels or [str(i + 1) for i in range(len(L))], names)


def contrast_rows(contrasts: Any, names: Sequence[str]) -> Matrix:
    """Contrasts as an array with one column for each coefficient.

    Parameters
    ----------
    contrasts : array of shape (p,) or (r, p), Series or DataFrame
        A Series goes by its labels and a DataFrame by its columns, which are names of
        coefficients; those they lack are zero. Anything else goes by position.
    names : sequence of str
        The p coefficients.

    Returns
    -------
    ndarray, shape (r, p)

    Raises
    ------
    ModelError
        If a name is not known or means several coefficients, there are not p columns, or a value
        is not finite.
    """
    if isinstance(contrasts, pd.Series):
        contrasts = contrasts.to_frame().T
    if isinstance(contrasts, pd.DataFrame):
        columns = [coefficient_position(name, names) for name in contrasts.columns]
        if len(set(columns)) < len(columns):
            raise ModelError(
                f"A contrast names a coefficient twice: {listed_names(list(contrasts.columns))}."
            )
        given = number_array(contrasts, _HYPOTHESIS, ModelError)
        L = np.zeros((len(given), len(names)))
        L[:, columns] = given
    else:
        L = np.atleast_2d(number_array(contrasts, _HYPOTHESIS, ModelError))
    if L.ndim != 2 or L.shape[1] != len(names):
        shape = " x ".join(str(s) for s in L.shape)
        raise ModelError(
            f"The hypothesis matrix must have {len(names)} columns, one for each coefficient "
            f"({listed_names(names)}); it is {shape}."
        )
    if not np.isfinite(L).all():
        raise ModelError(f"The hypothesis matrix has {(~np.isfinite(L)).sum()} values not finite.")
    return L


def coefficient_position(name: Any, names: Sequence[str]) -> int:
    """Position of a coefficient, or a ModelError if there is none or several of that name."""
    name = as_written(name, names)
    count = sum(own == name for own in names)
    if count == 0:
        raise unknown_coefficient(str(name), names)
    if count > 1:
        raise ModelError(
            f"{count} coefficients are called {name!r}; give the contrast as a vector of "
            f"{len(names)} numbers, in the order of m.fixef."
        )
    return list(names).index(name)


def _rows_of(frame: ModelFrame, name: str) -> list[int]:
    names = list(frame.fixef_names)
    terms = {} if frame.fixed_encoder is None else term_columns(frame.fixed_encoder)
    name = as_written(name, [*names, *terms])
    if name in names:
        row = coefficient_position(name, names)
        if terms.get(name, [row]) != [row]:
            raise ModelError(
                f"{name!r} is a coefficient and also a term with other columns; give the contrasts "
                f"as a matrix with {len(names)} columns, in the order of m.fixef."
            )
        return [row]
    if terms.get(name):
        return terms[name]
    if name in terms:
        raise ModelError(f"The term {name!r} has lost all its columns, so it cannot be tested.")
    raise ModelError(
        f"There is no term or coefficient {name!r}. The terms are "
        f"{listed_names(list(terms)) or 'none but the intercept'}; coefficients: "
        f"{listed_names(names)}.{meant(name, [*names, *terms])}"
    )


def listed_names(names: Sequence[str]) -> str:
    """Quote the first names of a list, for a message."""
    shown = ", ".join(repr(name) for name in names[:12])
    return f"{shown}, ..." if len(names) > 12 else shown


def unknown_coefficient(name: str, names: Sequence[str]) -> ModelError:
    """Make the error for the name of a coefficient that is not there."""
    if not names:
        return _nothing_to_contrast()
    return ModelError(f"There is no coefficient {name!r}; there are {listed_names(names)}.")


def _nothing_to_contrast() -> ModelError:
    return ModelError("The model has no fixed effects, so there are no contrasts of them.")
