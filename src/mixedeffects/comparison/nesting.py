"""How two models of one response relate: whether one contains the other, and what it adds.

The means of a model are ``offset + span(X)``. Its covariance matrices are the combinations of one
matrix for each entry of each term's covariance, and the residuals'. Whether one family of them is
part of another can be read from a sample of their elements: pairs of rows that share a level in
some term of either model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.comparison.joint_rows import (
    are_in_tables,
    means_within_by_name,
    on_common_rows,
    variances_within_by_name,
)
from mixedeffects.comparison.residual_nesting import (
    contains_residual,
    independent_elements,
    is_linear,
    linear_elements,
    residual_groupings,
    sampled_residuals,
)
from mixedeffects.covariance.groups import Grouping
from mixedeffects.engine.parameters import lower_entries
from mixedeffects.fitting.fit import Fit
from mixedeffects.frame.model_frame import RandomTerm

__all__ = [
    "SAME_RANDOM_EFFECTS",
    "added_variance",
    "added_variance_of",
    "contains_constant",
    "contains_mean",
    "contains_variance",
    "same_mean",
    "same_span",
]

Matrix = NDArray[np.float64]

#: What is said of models that differ elsewhere.
SAME_RANDOM_EFFECTS = "the random effects are the same"
#: Relative length of what a projection leaves that counts as rounding.
_ROUNDING = 1e-6
#: Pairs of rows looked at for each random term.
_PAIRS = 2_000


# --- means ----------------------------------------------------------------------------------------


def contains_mean(large: Fit, small: Fit) -> bool:
    """Whether every mean that ``small`` can have is one that ``large`` can have."""
    if are_in_tables(large, small):
        if means_within_by_name(large, small):
            return True
        large, small = on_common_rows(large, small)
    same_offset = _same_offset(large, small)
    if same_offset and np.array_equal(large.frame.X, small.frame.X):
        return True
    basis = _orthonormal(large)
    if same_offset:
        return _within(_orthonormal(small), basis)
    zero = np.zeros(len(large.frame.y))
    offsets = [zero if m.frame.offset is None else m.frame.offset for m in (large, small)]
    difference = ((offsets[1] - offsets[0]) * _root_weights(large))[:, None]
    return _within(difference, basis) and _within(_orthonormal(small), basis)


def same_mean(one: Fit, other: Fit) -> bool:
    """Whether two models have the same means, however their columns are coded."""
    return (
        (one.nobs, len(one.fixef_names)) == (other.nobs, len(other.fixef_names))
        and contains_mean(one, other)
        and contains_mean(other, one)
    )


def _same_offset(one: Fit, other: Fit) -> bool:
    a, b = one.frame.offset, other.frame.offset
    if a is None and b is None:
        return True
    zero = np.zeros(len(one.frame.y))
    return np.array_equal(zero if a is None else a, zero if b is None else b)


def _root_weights(fit: Fit) -> Matrix:
    weights = fit.frame.weights
    if weights is None:
        return np.ones(len(fit.frame.y))
    return np.sqrt(weights / fit.crossproducts.basis.weight_scale)


def _orthonormal(fit: Fit) -> Matrix:
    columns = fit.crossproducts.basis.fixed_columns(fit.frame.X)
    return np.asarray(columns * (_root_weights(fit) / np.sqrt(fit.nobs))[:, None])


def _within(columns: Matrix, orthonormal: Matrix) -> bool:
    """Whether columns lie in the span of orthonormal ones."""
    length = np.linalg.norm(columns, axis=0)
    left = columns - orthonormal @ (orthonormal.T @ columns)
    return bool((np.linalg.norm(left, axis=0) <= _ROUNDING * length).all())


# --- columns of random terms ----------------------------------------------------------------------


def _span(z: Matrix) -> Matrix:
    size = np.linalg.norm(z, axis=0)
    return np.asarray(np.linalg.qr(z / np.where(size > 0.0, size, 1.0))[0])


def _columns_within(small: Matrix, large: Matrix) -> bool:
    return bool(small.shape[1] <= large.shape[1] and _within(small, _span(large)))


def same_span(one: RandomTerm, other: RandomTerm) -> bool:
    """Whether two terms have the same levels and columns with the same span."""
    return (
        one.n_columns == other.n_columns
        and _same_partition(one, other)
        and _columns_within(one.z, other.z)
    )


def contains_constant(term: RandomTerm) -> bool:
    """Whether the constant is a combination of the term's columns."""
    return _columns_within(term.constant, term.z)


def _same_partition(one: Grouping, other: Grouping) -> bool:
    """Whether the levels of two factors correspond one to one."""
    if one.n_levels != other.n_levels:
        return False
    if np.array_equal(one.codes, other.codes):
        return True
    return bool(len(_kernels.nesting_parents(one.codes, one.n_levels, other.codes)))


# --- covariance matrices --------------------------------------------------------------------------


def contains_variance(large: Fit, small: Fit) -> bool:
    """Whether the covariance matrices of ``small`` look to be among those of ``large``.

    A necessary condition, checked on a sample: that they are linear combinations of the same
    matrices, which does not ask whether the covariances in them are non-negative definite. Where
    those of the residuals of ``large`` are not linear in their parameters, a structure contains
    the ones that are known to be cases of it, and the random effects are compared alone.
    """
    if large.request.sigma is not None and large.request.sigma != small.request.sigma:
        return False
    if are_in_tables(large, small):
        if variances_within_by_name(large, small):
            return True
        large, small = on_common_rows(large, small)
    rng = np.random.default_rng(0)
    groupings: list[Grouping] = []
    for m in (large, small):
        groupings += [*m.frame.terms, *residual_groupings(m)]
    drawn = [_pairs(each, rng) for each in groupings] or [(np.arange(large.nobs),) * 2]
    i = np.concatenate([pair[0] for pair in drawn])
    j = np.concatenate([pair[1] for pair in drawn])
    within = None if is_linear(large) else _intercept_within(large, small)
    wanted, available = _elements(small, i, j, within), _elements(large, i, j)
    if large.residual is None and small.residual is None:
        wanted, available = (
            np.column_stack([own, independent_elements(m, i, j)])
            for own, m in ((wanted, small), (available, large))
        )
    elif is_linear(large):
        wanted = np.column_stack([wanted, sampled_residuals(small, i, j, rng)])
        available = np.column_stack([available, linear_elements(large, i, j)])
    elif within is None and not contains_residual(large, small):
        return False
    wanted, available = _unit(wanted), _unit(available)
    if not wanted.shape[1]:
        return True
    solution = np.linalg.lstsq(available, wanted, rcond=1e-12)[0]
    left = np.linalg.norm(wanted - available @ solution, axis=0)
    return bool((left <= _ROUNDING).all())


def _pairs(term: Grouping, rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of rows with a common level, among them every row drawn with itself."""
    order = np.argsort(term.codes, kind="stable")
    counts = np.bincount(term.codes, minlength=term.n_levels)
    starts = np.cumsum(counts) - counts
    n = len(order)
    first = np.arange(n) if n <= _PAIRS else rng.integers(0, n, _PAIRS)
    # Several partners each where rows are few, so that small levels are seen whole.
    first = np.repeat(first, max(1, _PAIRS // len(first)))
    level = term.codes[first]
    second = order[starts[level] + (rng.random(len(first)) * counts[level]).astype(np.intp)]
    return np.concatenate([first, first]), np.concatenate([second, first])


def _intercept_within(large: Fit, small: Fit) -> int | None:
    """A random intercept of ``small`` that is a correlation of the residuals of ``large``.

    With residuals that are independent and of one variance it is one common correlation.
    """
    held = large.frame.residual
    if held is None or held.kind not in ("cs", "toep", "us") or small.frame.weights is not None:
        return None
    if small.residual is not None:
        return None
    for t, term in enumerate(small.frame.terms):
        if term.n_columns == 1 and contains_constant(term) and _same_partition(term, held):
            return t
    return None


def _elements(
    fit: Fit, i: NDArray[np.intp], j: NDArray[np.intp], without: int | None = None
) -> Matrix:
    """Elements (i, j) of the matrices that Z G Z' is a combination of, one a column.

    Without those of one term.
    """
    columns: list[Matrix] = []
    for t, term in enumerate(fit.frame.terms):
        if t == without:
            continue
        C = fit.crossproducts.basis.terms[t]
        together = term.codes[i] == term.codes[j]
        zi, zj = term.z[i] @ C, term.z[j] @ C
        for a, b in zip(*lower_entries(term.n_columns), strict=True):
            columns.append(together * (zi[:, a] * zj[:, b] + zi[:, b] * zj[:, a]))
    return np.column_stack([np.zeros((len(i), 0)), *columns])


def _unit(out: Matrix) -> Matrix:
    size = np.linalg.norm(out, axis=0)
    return np.asarray(out / np.where(size > 0.0, size, 1.0))


def added_variance_of(small: Fit, large: Fit) -> int | str:
    """What ``large`` adds to the random effects of ``small``; see `added_variance`."""
    if are_in_tables(large, small):
        large, small = on_common_rows(large, small)
    return added_variance(small.frame.terms, large.frame.terms)


def added_variance(small: Sequence[RandomTerm], large: Sequence[RandomTerm]) -> int | str:
    """What ``large`` adds where it is one variance on the boundary, and its covariances.

    Parameters
    ----------
    small, large : sequence of RandomTerm
        Random terms of two models with the same means.

    Returns
    -------
    int or str
        The number of effects q that the added one is correlated with; or, where more or less than
        one variance is added, a clause that says so.
    """
    left = list(small)
    new = []
    for term in large:
        match = next((i for i, old in enumerate(left) if same_span(term, old)), None)
        if match is None:
            new.append(term)
        else:
            del left[match]
    if len(new) == 1 and not left and new[0].n_columns == 1:
        return 0
    if len(new) == 1 and len(left) == 1:
        k = left[0].n_columns
        if (
            new[0].n_columns == k + 1
            and _same_partition(new[0], left[0])
            and _columns_within(left[0].z, new[0].z)
        ):
            return k
    added = sum(t.n_columns for t in new) - sum(t.n_columns for t in left)
    if not new and not left:
        return SAME_RANDOM_EFFECTS
    if added == 0:
        return "no variance is added, so none is on the boundary"
    return f"{added} variances are added" if added > 1 else "more changes than one added variance"
