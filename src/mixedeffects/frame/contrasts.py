"""Contrast codings: what the levels of a factor become as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.errors import ModelError
from mixedeffects.formula.compat import coding_matrix
from mixedeffects.formula.values import Coding
from mixedeffects.frame.columns import labels_of

__all__ = ["contrast_columns", "read_contrasts"]

_KINDS = ("treatment", "sum", "helmert", "poly", "sdif", "sas")


def read_contrasts(contrasts: Mapping[str, Any] | None) -> dict[str, Coding]:
    """Read the ``contrasts`` argument.

    Parameters
    ----------
    contrasts : mapping of str to str, array or DataFrame, optional
        For each factor ``"treatment"``, ``"sum"``, ``"helmert"``, ``"poly"``, ``"sdif"`` or
        ``"sas"`` (also as ``"contr.sum"``), the label of a level to be the reference, or a matrix
        with one row per level.

    Returns
    -------
    dict of str to Coding

    Raises
    ------
    ModelError
        If it is not a mapping or a coding cannot be read.
    """
    if contrasts is None:
        return {}
    if not isinstance(contrasts, Mapping):
        raise ModelError(
            "`contrasts` maps the names of factors to codings, such as {'f': 'sum'}; got "
            f"{type(contrasts).__name__}."
        )
    return {str(name): _read_one(str(name), spec) for name, spec in contrasts.items()}


def _read_one(name: str, spec: Any) -> Coding:
    if isinstance(spec, Coding):
        return spec
    if isinstance(spec, str):
        kind = spec.removeprefix("contr.").lower()
        return Coding(kind) if kind in _KINDS else Coding("treatment", base=spec)
    if isinstance(spec, (bool, int, float, np.number, np.bool_)):
        # Of a column of numbers the label of the reference level is a number.
        return Coding("level", base=labels_of([getattr(spec, "item", lambda: spec)()])[0])
    names = rows = None
    if isinstance(spec, pd.DataFrame):
        names = tuple(str(c) for c in spec.columns)
        rows = tuple(labels_of(spec.index))
    matrix = number_array(spec, _wanted(name), ModelError)
    if matrix.ndim == 1 and matrix.size:
        matrix = matrix[:, None]
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ModelError(f"{_wanted(name)}; not {spec!r}.")
    return Coding("matrix", matrix=matrix, names=names, rows=rows)


def _wanted(name: str) -> str:
    return (
        f"The coding of `{name}` in `contrasts` is one of {', '.join(_KINDS)}, the label of the "
        "reference level, or a matrix of numbers with one row per level"
    )


@lru_cache(maxsize=256)
def _named(kind: str, n_levels: int) -> NDArray[np.float64]:
    return coding_matrix(kind, n_levels)


def _poly_names(count: int) -> tuple[str, ...]:
    return tuple([".L", ".Q", ".C"][:count]) + tuple(f"^{i}" for i in range(4, count + 1))


def contrast_columns(
    name: str, levels: Sequence[str], ordered: bool, coding: Coding | None
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the contrasts of a factor and what their columns add to the factor's name.

    Parameters
    ----------
    name : str
        The factor.
    levels : sequence of str
        Labels in order.
    ordered : bool
        Ordered factors are coded by orthogonal polynomials unless asked otherwise.
    coding : Coding or None
        What was asked for.

    Returns
    -------
    contrasts : ndarray, shape (levels, columns), or (columns,) of int
        One row per level; or, for treatment contrasts, the level that each column indicates,
        since a matrix of a many-levelled factor would be large and nearly empty.
    suffixes : tuple of str

    Raises
    ------
    ModelError
        If there are fewer than two levels or the coding does not fit the levels.
    """
    count = len(levels)
    if count < 2:
        only = f" (only {levels[0]!r})" if count else ""
        raise ModelError(
            f"Factor `{name}` has {'one level' if count else 'no level'}{only} in the rows used; "
            "contrasts need 2 or more levels. Leave it out of the formula."
        )
    coding = coding or Coding("poly" if ordered else "treatment")
    if coding.kind == "matrix":
        return _matrix_columns(name, levels, coding)
    if coding.kind == "level" and coding.base not in levels:
        raise ModelError(f"{_wanted(name)}; not {coding.base}.")
    if coding.kind in ("treatment", "level", "sas"):
        base = count - 1 if coding.kind == "sas" else _base(name, levels, coding.base)
        keep = [i for i in range(count) if i != base]
        return np.array(keep, dtype=np.intp), tuple(levels[i] for i in keep)
    matrix = _named(coding.kind, count)
    if coding.kind == "poly":
        return matrix, _poly_names(count - 1)
    if coding.kind == "sdif":
        return matrix, tuple(f"{i + 1}-{i}" for i in range(1, count))
    return matrix, tuple(str(i) for i in range(1, count))


def _base(name: str, levels: Sequence[str], base: str | int | None) -> int:
    if base is None:
        return 0
    if isinstance(base, str):
        if base in levels:
            return list(levels).index(base)
        raise ModelError(
            f"The coding of `{name}` is {base!r}, which is neither one of {', '.join(_KINDS)} nor "
            f"one of its levels ({', '.join(levels[:10])})."
        )
    if 1 <= base <= len(levels):
        return base - 1
    raise ModelError(f"`{name}` has {len(levels)} levels; level number {base} cannot be the base.")


def _matrix_columns(
    name: str, levels: Sequence[str], coding: Coding
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    matrix = coding.matrix
    assert matrix is not None
    rows = coding.rows
    # A DataFrame made without labels has 0, 1, ...: these count only where they are levels.
    numbered = rows == tuple(map(str, range(len(matrix)))) and not set(levels) <= set(rows)
    if rows is not None and not numbered:
        missing = [level for level in levels if rows.count(level) != 1]
        if missing:
            raise ModelError(
                f"The contrast matrix of `{name}` has {rows.count(missing[0]) or 'no'} "
                f"{'rows' if missing[0] in rows else 'row'} for level {missing[0]!r}."
            )
        matrix = matrix[[rows.index(level) for level in levels]]
    if matrix.shape[0] != len(levels) or not 0 < matrix.shape[1] < len(levels):
        raise ModelError(
            f"The contrast matrix of `{name}` is {matrix.shape[0]} x {matrix.shape[1]}, but the "
            f"factor has {len(levels)} levels in the rows used: it needs {len(levels)} rows and at "
            f"most {len(levels) - 1} columns."
        )
    names = coding.names or tuple(str(i) for i in range(1, matrix.shape[1] + 1))
    return matrix, names
