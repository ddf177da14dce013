"""The left side of a generalized model: successes among trials, two levels, counts, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.errors import DataError, ModelError
from mixedeffects.families import Family, Response
from mixedeffects.formula.syntax import Binary, Group, Node, deparse
from mixedeffects.formula.values import Factor, Value
from mixedeffects.frame.checks import check_finite
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.frame.text_levels import shown_labels

__all__ = ["GivenResponse", "check_binary_rows", "read_exposure", "read_generalized_response"]

Vector = NDArray[np.float64]

#: Rows that a message lists.
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class GivenResponse:
    """What was on the left side.

    Attributes
    ----------
    response : Response
        In the form that a family takes.
    levels : tuple of str
        Failure and success, where the column was a factor or true and false.
    """

    response: Response
    levels: tuple[str, ...] = ()


def read_generalized_response(
    name: str,
    tree: Node,
    value: Value,
    weights: tuple[str, Vector] | None,
    family: Family,
    labels: pd.Index[Any],
) -> GivenResponse:
    """The response of a generalized model.

    Parameters
    ----------
    name : str
        The left side as written.
    tree : Node
        The same, parsed.
    value : ndarray or Factor
        Its values in the rows used; two columns are successes and failures.
    weights : (str, ndarray of shape (n,)) or None
        What ``weights`` is called, and its values, positive. Of proportions they are trials.
    family : Family
        The distribution.
    labels : pandas.Index, length n
        Row labels, for messages.

    Returns
    -------
    GivenResponse

    Raises
    ------
    DataError
        If the values are none that the family has, with the rows.

    Notes
    -----
    As in R the first level of a factor is a failure. A weight multiplies the log-likelihood of its
    row; of a proportion it is the number of trials that the proportion is of.
    """
    given = None if weights is None else weights[1]
    levels: tuple[str, ...] = ()
    if isinstance(value, Factor):
        y, levels = _two_levels(name, value, family)
        response = Response(y, weights=given)
    elif value.ndim == 2:
        y, trials = _successes_of(name, value, family, labels)
        response = Response(y, trials=trials, weights=given)
    else:
        y = value.astype(np.float64)
        if value.dtype == np.bool_:
            levels = ("False", "True")
        check_finite(name, y, "The response ")
        response = Response(y, weights=given)
        if family.takes_trials and not levels:
            beyond = (y < 0.0) | (y > 1.0)
            if beyond.any() and _divisor(tree) is not None:
                raise DataError(
                    f"A proportion of successes must lie from 0 to 1: `{name}` does not in "
                    f"{_rows(beyond, y, labels)}."
                )
            if beyond.any():
                family.check(response, cast("Sequence[Any]", labels))
            response = _of_one_column(name, tree, y, weights, labels)
    family.check(response, cast("Sequence[Any]", labels))
    if len(response.y) and np.ptp(response.y) == 0.0:
        if family.discrete and not family.takes_trials and response.y[0] == 0.0:
            raise DataError(
                f"All rows of the response `{name}` are zero, so nothing about it can be estimated."
            )
        if not family.discrete:
            raise DataError(
                f"The response `{name}` is {response.y[0]:.6g} in every row, so its "
                f"{family.parameter_name or 'variance'} cannot be estimated."
            )
    if family.takes_trials and (np.ptp(response.y) == 0.0 and response.y[0] in (0.0, 1.0)):
        what = "successes" if response.y[0] == 1.0 else "failures"
        raise DataError(
            f"All rows of the response `{name}` are {what}, so nothing about it can be estimated."
        )
    return GivenResponse(response, levels)


def read_exposure(name: str, exposure: Vector, family: Family, labels: pd.Index[Any]) -> Vector:
    """The offset that an exposure is, ``log(exposure)``.

    Raises
    ------
    DataError
        If it is not positive somewhere, or the link is not the logarithm.
    """
    if family.link.name != "log":
        raise DataError(
            f"exposure={name!r} is the offset log({name}), which multiplies the mean if the link "
            f"is the logarithm; this one is {family.link.name}. Use offset= instead."
        )
    bad = ~(exposure > 0.0)
    if bad.any():
        raise DataError(
            f"An exposure must be positive: `{name}` is not in {_rows(bad, exposure, labels)}."
        )
    return np.log(exposure)


def check_binary_rows(response: Response, terms: Sequence[RandomTerm]) -> None:
    """Refuse one row per level where each row is one trial: its variance does nothing to them."""
    if not response.binary:
        return
    for term in terms:
        if term.n_levels >= response.n:
            raise ModelError(
                f"Grouping factor `{term.group}` has {term.n_levels:,} levels for {response.n:,} "
                "rows of one trial each: one success or failure per level says nothing about a "
                "variance between levels. Use a coarser grouping."
            )


def _two_levels(name: str, value: Factor, family: Family) -> tuple[Vector, tuple[str, ...]]:
    """0 for the first level and 1 for the second, of those that occur."""
    present = np.unique(value.codes)
    shown = shown_labels([value.levels[code] for code in present])
    if not family.takes_trials:
        raise DataError(
            f"The response `{name}` is categorical ({shown}), and a {family.name} model needs "
            "numbers."
        )
    if len(present) != 2:
        what = "one level" if len(present) == 1 else f"{len(present):,} levels"
        raise DataError(
            f"The response `{name}` has {what} in the rows used ({shown}); a binomial response has "
            "two, of which the first is a failure. Make a column of true and false first."
        )
    levels = (value.levels[present[0]], value.levels[present[1]])
    return (value.codes == present[1]).astype(np.float64), levels


def _successes_of(
    name: str, value: NDArray[Any], family: Family, labels: pd.Index[Any]
) -> tuple[Vector, Vector]:
    """Proportions and trials, from successes and failures."""
    if not family.takes_trials or value.shape[1] != 2:
        wanted = (
            "cbind(successes, failures) has two"
            if family.takes_trials
            else f"a {family.name} model has one response"
        )
        raise DataError(f"The response `{name}` has {value.shape[1]} columns; {wanted}.")
    counts = value.astype(np.float64)
    check_finite(name, counts, "The response ")
    for column, what in enumerate(("Successes", "Failures")):
        own = counts[:, column]
        bad = (own < 0.0) | (own != np.rint(own))
        if bad.any():
            raise DataError(
                f"{what} must be counts, whole numbers from 0: those of `{name}` are not in "
                f"{_rows(bad, own, labels)}."
            )
    trials = counts.sum(axis=1)
    if (trials == 0.0).any():
        raise DataError(
            f"`{name}` has neither successes nor failures in "
            f"{_rows(trials == 0.0, trials, labels)}. Leave these rows out."
        )
    return counts[:, 0] / trials, trials


def _of_one_column(
    name: str,
    tree: Node,
    y: Vector,
    weights: tuple[str, Vector] | None,
    labels: pd.Index[Any],
) -> Response:
    """Zeros and ones, or proportions with their trials as weights."""
    inside = (y > 0.0) & (y < 1.0)
    trials = _divisor(tree)
    if not inside.any() and trials is None:
        return Response(y, weights=None if weights is None else weights[1])
    if weights is None:
        if not inside.any():
            return Response(y)
        write = f'weights="{trials or "trials"}"'
        raise DataError(
            f"The response `{name}` is a proportion in {_rows(inside, y, labels)}, and how much a "
            f"proportion says depends on the number of its trials: give it by {write}, or write "
            "cbind(successes, failures) on the left side."
        )
    successes = weights[1] * y
    bad = np.abs(successes - np.rint(successes)) > 1e-6 * np.maximum(1.0, successes)
    if bad.any():
        raise DataError(
            f"The weights of a proportion are its trials, and `{name}` times `{weights[0]}` is no "
            f"whole number of successes in {_rows(bad, successes, labels)}."
        )
    return Response(np.rint(successes) / weights[1], trials=weights[1])


def _divisor(tree: Node) -> str | None:
    """What the left side is divided by: of ``successes / trials`` the trials."""
    while isinstance(tree, Group):
        tree = tree.inner
    if isinstance(tree, Binary) and tree.operator == "/":
        return deparse(tree.right)
    return None


def _rows(bad: NDArray[np.bool_], values: Vector, labels: pd.Index[Any]) -> str:
    """Which rows, with their values, the first few of them."""
    at = np.flatnonzero(bad)
    shown = ", ".join(f"{labels[i]} ({values[i]:.6g})" for i in at[:_SHOWN])
    more = f" and {len(at) - _SHOWN:,} more" if len(at) > _SHOWN else ""
    return f"row {shown}" if len(at) == 1 else f"rows {shown}{more}"
