"""Random-effects columns whose variances the data cannot tell apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.centring import INDISTINCT, centring_transform, is_far_from_zero
from mixedeffects.errors import ModelError
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["check_random_columns"]

#: Smallest eigenvalue of the columns' scaled cross-products that counts as more than rounding.
_DEPENDENT = 1e-13
#: The same from which there is no need to look at centred columns.
_SURELY_INDEPENDENT = 1e-6


def check_random_columns(terms: Sequence[RandomTerm]) -> None:
    """Raise if a term's columns are zero or collinear, or if a term is there twice.

    Terms on one grouping may well share a span, as ``(1 | g) + (0 + f | g)`` do: lme4 writes
    ``(f || g)`` so. Only what can never be told apart is refused.

    Parameters
    ----------
    terms : sequence of RandomTerm
        All random-effects terms.

    Raises
    ------
    ModelError
        Naming the columns and the grouping.
    """
    for t, term in enumerate(terms):
        for column, values in zip(term.columns, term.z.T, strict=True):
            if not values.any():
                raise ModelError(
                    f"Column `{column}` of the random-effects term on `{term.group}` is zero in "
                    "every row, so its variance cannot be estimated. Drop it from the term."
                )
        dependent = _dependent_columns(term.z)
        if dependent:
            names = ", ".join(f"`{term.columns[j]}`" for j in dependent)
            cure = _centre(term) or "Drop one of them from the term."
            raise ModelError(
                f"The columns {names} of the random-effects term on `{term.group}` are linear "
                "combinations of each other in these data, so their covariance cannot be "
                f"estimated. {cure}"
            )
        for other in terms[:t]:
            columns = _columns_within(other, term)
            if columns:
                several = len(columns) > 1
                listed = ", ".join(f"`{column}`" for column in columns)
                plural = "s" if several else ""
                cure = _centre(other) or _centre(term) or _without_one(other, term, terms)
                raise ModelError(
                    f"The random-effects terms `{_written(other)}` and `{_written(term)}` have the "
                    f"same levels and the same column{plural} {listed}, so only the "
                    f"sum of their {'covariance matrices' if several else 'variances'} can be "
                    f"estimated. {cure}"
                )


def _written(term: RandomTerm) -> str:
    """A term as a formula has it, or nearly so."""
    columns = ["1" if column == "(Intercept)" else column for column in term.columns]
    inside = " + ".join(columns if "1" in columns else ["0", *columns])
    structure = "" if term.structure == "us" else term.structure
    return f"{structure}({inside} | {term.group})"


def _without_one(one: RandomTerm, other: RandomTerm, terms: Sequence[RandomTerm]) -> str:
    """Which of two terms to leave out, and how, where nesting has brought it in."""
    smaller = min((one, other), key=lambda term: term.n_columns)
    out = (
        "Drop one of them." if one.n_columns == other.n_columns else f"Drop `{_written(smaller)}`."
    )
    for nested in terms:
        outer = set(smaller.variables)
        if len(outer) == 1 < len(nested.variables) and outer < set(nested.variables):
            inner = [name for name in nested.variables if name not in outer]
            return (
                f"{out} A term on `{smaller.group}/{'/'.join(reversed(inner))}` brings one on "
                f"`{smaller.group}` with it; one on `{nested.group}` does not."
            )
    return out


def _centre(term: RandomTerm) -> str:
    """What to do where a column is far from zero; empty where none is."""
    for name, values in zip(term.columns, term.z.T, strict=True):
        if is_far_from_zero(values):
            return (
                f"All values of `{name}` are so far from zero that it looks constant: centre it, "
                f"for example with I({name} - {values.min():.17g})."
            )
    return ""


def _columns_within(one: RandomTerm, other: RandomTerm) -> list[str]:
    """The columns of the smaller term if the larger has all of them, freely; else none."""
    smaller, larger = sorted((one, other), key=lambda term: (term.n_columns, term.structure))
    free = larger.structure == "us" or (
        larger.structure == "diag"
        and not larger.homogeneous
        and (smaller.structure == "diag" or smaller.n_columns == 1)
    )
    if not free or not _same_levels(one, other):
        return []
    found = [_same_column(larger, values) for values in smaller.z.T]
    return [] if None in found else [name for name in found if name is not None]


def _same_column(term: RandomTerm, values: NDArray[np.float64]) -> str | None:
    """Name of the term's column that is a multiple of these values."""
    for name, own in zip(term.columns, term.z.T, strict=True):
        if _dependent_columns(np.column_stack([own, values])):
            return name
    return None


def _same_levels(one: RandomTerm, other: RandomTerm) -> bool:
    """Whether the levels of two terms correspond one to one."""
    if one.n_levels != other.n_levels:
        return False
    if one.group == other.group:
        return True
    return bool(len(_kernels.nesting_parents(one.codes, one.n_levels, other.codes)))


def _dependent_columns(z: NDArray[np.float64]) -> list[int]:
    """Columns that take part in a linear dependency; none if they are independent."""
    if z.shape[1] < 2:
        return []
    if _smallest(z)[0] > _SURELY_INDEPENDENT:
        return []
    transform = centring_transform(z)
    if transform is not None:
        whole = np.linalg.norm(z, axis=0)
        z = z @ transform
        lost = np.linalg.norm(z, axis=0) < INDISTINCT * whole
        if lost.any():
            return np.flatnonzero(transform[:, lost].any(axis=1)).tolist()
    value, vector = _smallest(z)
    return [] if value > _DEPENDENT else np.flatnonzero(np.abs(vector) > 1e-6).tolist()


def _smallest(z: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Smallest eigenvalue of the columns' cross-products, scaled to unit diagonal; its vector."""
    gram = z.T @ z
    size = np.sqrt(np.diag(gram))
    values, vectors = np.linalg.eigh(gram / np.outer(size, size))
    return float(values[0]), vectors[:, 0]
