"""Contrasts of the fixed effects: names of terms or coefficients, or a matrix."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.formula.syntax import quote_name
from mixedeffects.inference.hypotheses import term_columns

if TYPE_CHECKING:
    from mixedeffects.frame.model_frame import ModelFrame

__all__ = [
    "as_written",
    "contrast_matrix",
    "labelled_contrasts",
    "listed_names",
    "unknown_coefficient",
]

Matrix = NDArray[np.float64]


def contrast_matrix(frame: ModelFrame, hypothesis: Any) -> Matrix:
    """Rows L of the hypothesis ``L beta = 0``, shape (r, p).

    Parameters
    ----------
    frame : ModelFrame
        Names of coefficients and terms.
    hypothesis : str, sequence of str, array of shape (p,) or (r, p), or DataFrame
        Terms (all their columns) or coefficients by name, or the matrix; a DataFrame by the names
        of its columns, those it lacks being zero.

    Raises
    ------
    ModelError
        If a name is not known, or the matrix does not have p columns, is not finite, or its rows
        are linearly dependent.
    """
    L = labelled_contrasts(frame, hypothesis).to_numpy()
    length = np.linalg.norm(L, axis=1)
    rank = int(np.linalg.matrix_rank(L / length[:, None]))
    if rank < len(L):
        raise ModelError(
            f"The {len(L)} rows of the hypothesis matrix have rank {rank}: some are linear "
            "combinations of the others. Leave those out."
        )
    return L


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
    listed = [hypothesis] if isinstance(hypothesis, str) else hypothesis
    if isinstance(listed, (list, tuple)) and listed and all(isinstance(x, str) for x in listed):
        rows = list(dict.fromkeys(row for name in listed for row in _rows_of(frame, name)))
        return pd.DataFrame(np.eye(len(names))[rows], [names[row] for row in rows], names)
    labels = None
    if isinstance(hypothesis, pd.DataFrame):
        hypothesis = hypothesis.rename(columns=lambda column: as_written(column, names))
        unknown = [str(column) for column in hypothesis.columns if column not in names]
        if unknown:
            raise unknown_coefficient(unknown[0], names)
        labels = list(hypothesis.index)
        hypothesis = hypothesis.reindex(columns=names, fill_value=0.0)
    try:
        L = np.atleast_2d(np.asarray(hypothesis, dtype=np.float64))
    except (TypeError, ValueError):
        raise ModelError(
            "A hypothesis is the name of a term or coefficient, several of them, or a matrix with "
            f"one column for each coefficient; not {hypothesis!r:.60}."
        ) from None
    if L.ndim != 2 or L.shape[1] != len(names) or len(L) == 0:
        shape = " x ".join(str(s) for s in L.shape)
        raise ModelError(
            f"The hypothesis matrix must have {len(names)} columns, one for each coefficient "
            f"({listed_names(names)}); it is {shape}."
        )
    if not np.isfinite(L).all():
        raise ModelError(f"The hypothesis matrix has {(~np.isfinite(L)).sum()} values not finite.")
    length = np.linalg.norm(L, axis=1)
    if (length == 0.0).any():
        raise ModelError(
            f"Row {int(np.flatnonzero(length == 0.0)[0]) + 1} of the hypothesis matrix is zero."
        )
    return pd.DataFrame(L, labels or [str(i + 1) for i in range(len(L))], names)


def as_written(name: Any, names: Container[str]) -> Any:
    """The name as it stands among others: that of a column may be given without its backticks."""
    quoted = quote_name(name) if isinstance(name, str) and name not in names else name
    return quoted if quoted in names else name


def _rows_of(frame: ModelFrame, name: str) -> list[int]:
    names = list(frame.fixef_names)
    terms = {} if frame.fixed_encoder is None else term_columns(frame.fixed_encoder)
    name = as_written(name, [*names, *terms])
    if name in names:
        return [names.index(name)]
    if terms.get(name):
        return terms[name]
    if name in terms:
        raise ModelError(f"The term {name!r} has lost all its columns, so it cannot be tested.")
    raise ModelError(
        f"There is no term or coefficient {name!r}. The terms are "
        f"{listed_names(list(terms)) or 'none but the intercept'}; coefficients: "
        f"{listed_names(names)}."
    )


def listed_names(names: Sequence[str]) -> str:
    """Quote the first names of a list, for a message."""
    shown = ", ".join(repr(name) for name in names[:12])
    return f"{shown}, ..." if len(names) > 12 else shown


def unknown_coefficient(name: str, names: Sequence[str]) -> ModelError:
    """Make the error for the name of a coefficient that is not there."""
    return ModelError(f"There is no coefficient {name!r}; there are {listed_names(names)}.")
