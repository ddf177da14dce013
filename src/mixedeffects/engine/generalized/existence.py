r"""Separation: whether fixed effects can have finite estimates at all.

A row whose response is at an end of its range (all trials failures, all successes, a count of zero)
is fitted the better, the further its linear predictor goes that way; any other row has a best
predictor of its own. With s_i = 1, -1 or 0 accordingly, a direction delta of the coefficients with

    s_i X_i delta >= 0 in every row,   X_i delta = 0 where s_i = 0,   s_i X_i delta > 0 in some row

makes the conditional likelihood rise without end whatever the random effects are, and so the
marginal one: no estimate exists (Albert and Anderson 1984). Such a direction is looked for by
linear programming, with the constraints of few rows first; rows that the direction found violates
are added until there are none, or no direction is left. What is left out can only make directions
possible, so "there is none" is certain whenever it is said. Before that a few steps of a logistic
regression on these rows mostly show that there is none (`_is_balanced`).

References
----------
Albert, A. and Anderson, J. A. (1984). On the existence of maximum likelihood estimates in logistic
regression models. Biometrika 71, 1-10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.families import Family, Response

__all__ = ["Separation", "row_signs", "separating_direction", "separation_message"]

Matrix = NDArray[np.float64]
Signs = NDArray[np.int8]
Rows = NDArray[np.intp]

#: Links whose linear predictor has no end on either side.
_UNBOUNDED = ("logit", "probit", "cloglog", "cauchit")
#: Rows to begin with, at least and per column; as many are added at a time.
_ROWS, _ROWS_PER_COLUMN = 1000, 20
#: Rounds of adding rows before the search is given up.
_ROUNDS = 50
#: Change of a row's predictor, relative to the largest of all rows, that is none.
_NONE = 1e-7
#: The objective of the linear programme, in rows of size one, above which there is a direction.
_SOME = 1e-6
#: Pivot, relative to the first, below which rows do not tell columns apart.
_RANK = 1e-9
#: Steps of the logistic regression, least eigenvalue that is not rounding, and coefficients that
#: run off.
_STEPS, _BALANCE, _FAR = 12, 1e-8, 1e3
#: Options of the linear programmes.
_TOLERANCES: Any = {"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9}
#: Names of columns in a message.
_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Separation(ReadOnlyArrays):
    """A direction along which the likelihood rises without end.

    Attributes
    ----------
    direction : ndarray, shape (p,)
        In the columns of X; the largest change of a row's linear predictor is one.
    columns : tuple of int
        Those with a part in it.
    successes, others : int
        Rows that are fitted better and better: those of successes only, and those of failures only
        or with a count of zero.
    rows : int
        Rows in all.
    is_count : bool
        Whether the response is a count.
    """

    direction: Matrix
    columns: tuple[int, ...]
    successes: int
    others: int
    rows: int
    is_count: bool


def row_signs(response: Response, family: Family) -> Signs | None:
    """Where the linear predictor of each row would go if it could.

    Parameters
    ----------
    response : Response
        The response.
    family : Family
        Distribution and link.

    Returns
    -------
    ndarray of int8, shape (n,), or None
        1 or -1 where the likelihood of a row rises without end in that direction, 0 where it has a
        maximum. None where no row can have such an end: neither binomial nor counts, or a link with
        an end of its own.
    """
    signs = np.zeros(response.n, dtype=np.int8)
    if family.name == "binomial" and family.link.name in _UNBOUNDED:
        signs[response.y == 1.0] = 1
        signs[response.y == 0.0] = -1
        return signs
    counts = family.name in ("poisson", "negative_binomial")
    if family.link.name == "log" and (counts or family.name == "binomial"):
        signs[response.y == 0.0] = -1
        return signs
    return None


def separating_direction(X: Matrix, response: Response, family: Family) -> Separation | None:
    """Look for a direction of the fixed effects along which the likelihood rises without end.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Fixed-effects matrix of full column rank, in the user's columns.
    response : Response
        The response.
    family : Family
        Distribution and link.

    Returns
    -------
    Separation or None
        None if all estimates are finite as far as the fixed effects are concerned.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedeffects.families import Binomial, Response
    >>> X = np.column_stack([np.ones(6), [0, 0, 0, 1, 1, 1]])
    >>> found = separating_direction(X, Response(np.array([0.0, 1, 1, 1, 1, 1])), Binomial())
    >>> print(separation_message(found, ["(Intercept)", "treated"]))
    The fixed effect of `treated` has no finite estimate: along it 3 of 6 rows, all of them
    successes only, are fitted better and better and no row worse, so that the likelihood rises
    without end (separation). ...
    >>> separating_direction(X, Response(np.array([0.0, 1, 1, 0, 1, 1])), Binomial()) is None
    True
    """
    signs = row_signs(response, family)
    if signs is None or not X.shape[1]:
        return None
    if response.weights is not None and not (response.weights > 0.0).all():
        counted = response.weights > 0.0
        X, signs = X[counted], signs[counted]
    if not signs.any():
        return None
    found = _Search(X, signs).direction()
    if found is None:
        return None
    change = X @ found
    better = np.abs(change) > _NONE
    sizes = np.abs(X).max(axis=0) * np.abs(found)
    return Separation(
        found,
        tuple(np.flatnonzero(sizes > 1e-6 * sizes.max()).tolist()),
        int((better & (signs > 0)).sum()),
        int((better & (signs < 0)).sum()),
        len(signs),
        family.name != "binomial",
    )


def separation_message(found: Separation, names: Sequence[str]) -> str:
    """Say in words what is separated, and what to do.

    Parameters
    ----------
    found : Separation
        The direction.
    names : sequence of str, length p
        Names of the columns of X.
    """
    columns = [f"`{names[column]}`" for column in found.columns]
    one = len(columns) == 1
    shown = ", ".join(columns[:_SHOWN])
    if len(columns) > _SHOWN:
        shown += f" and {len(columns) - _SHOWN} more"
    total = found.successes + found.others
    if found.is_count:
        kinds = "with a count of zero"
    elif not found.others:
        kinds = "successes only"
    elif not found.successes:
        kinds = "failures only"
    else:
        kinds = f"{found.successes:,} of successes only and {found.others:,} of failures only"
    which = kinds if found.successes and found.others else f"all of them {kinds}"
    ends = "only zeros" if found.is_count else "only successes or only failures"
    head = (
        f"The fixed effect of {shown} has no finite estimate: along it"
        if one
        else f"The fixed effects of {shown} have no finite estimates: along a combination of them"
    )
    return (
        f"{head} {total:,} of {found.rows:,} rows, {which}, are fitted better and better and no "
        "row worse, so that the likelihood rises without end (separation). Leave "
        f"{'it' if one else 'one of them'} out, or join levels of a factor that have {ends}."
    )


def _is_balanced(own: Matrix, signs: Signs) -> bool:
    """Whether numbers are found that leave no direction for these rows, each of length one.

    Take numbers r_i with the sign s_i, or any where s_i = 0. Along a direction ``delta'X'r`` is
    the sum of ``w_i |X_i delta|`` with w = |r|, or any w where s = 0, as the change is zero there;
    and that is at least ``delta'X'wX delta / |delta|``. So there is no direction if the least
    eigenvalue of X'wX is larger than ``|X'r|``. Such numbers are the scores of a logistic
    regression on the way to its estimates, if these are finite.
    """
    free, beta = signs == 0, np.zeros(own.shape[1])
    for _ in range(_STEPS):
        eta = own @ beta
        share = scipy.special.expit(-signs * eta)
        r = np.where(free, -eta, signs * share)
        slope = own.T @ r
        size = np.where(free, 1.0, share)
        least = float(np.linalg.eigvalsh((own * size[:, None]).T @ own)[0])
        if least > _BALANCE and least > 1.01 * float(np.linalg.norm(slope)):
            return True
        bend = np.where(free, 1.0, share * (1.0 - share))
        step = np.linalg.lstsq((own * bend[:, None]).T @ own, slope, rcond=None)[0]
        beta = beta + step
        if not np.abs(beta).max() < _FAR:
            break
    return False


class _Search:
    """Linear programmes over more and more rows."""

    def __init__(self, X: Matrix, signs: Signs) -> None:
        self.X, self.signs = X, signs
        self.n, self.p = X.shape
        self.size = np.abs(X).max(axis=0)
        self.size[self.size == 0.0] = 1.0
        self.most = max(_ROWS, _ROWS_PER_COLUMN * self.p)

    def direction(self) -> Matrix | None:
        """A direction with few columns in it, if there is one."""
        rows = self._first_rows()
        if _is_balanced(self._scaled(rows)[0], self.signs[rows]):
            return None
        found = self._widest(rows)
        if found is None:
            return None
        direction, rows = found
        return self._with_few_columns(direction, rows)

    def _first_rows(self) -> Rows:
        """Some rows, or all; enough to tell every column from the others."""
        if self.n <= self.most:
            return np.arange(self.n)
        rows = np.sort(np.random.default_rng(0).choice(self.n, self.most, replace=False))
        for _ in range(self.p):
            _, R, order = scipy.linalg.qr(
                self.X[rows] / self.size, mode="economic", pivoting=True, check_finite=False
            )
            pivots = np.abs(np.diag(R))
            rank = int((pivots > _RANK * pivots[0]).sum())
            if rank == self.p:
                break
            # What these rows cannot see, and the rows that can.
            unseen = np.zeros((self.p, self.p - rank))
            unseen[order[:rank]] = -scipy.linalg.solve_triangular(R[:rank, :rank], R[:rank, rank:])
            unseen[order[rank:]] = np.eye(self.p - rank)
            seen = np.abs(self.X @ (unseen / self.size[:, None]))
            best = np.unique(seen.argmax(axis=0))
            if not seen[best].any():
                break
            rows = np.union1d(rows, best)
        return rows

    def _scaled(self, rows: Rows) -> tuple[Matrix, Matrix]:
        """Rows in coordinates that are orthonormal over them, each of length one; the way back."""
        own = self.X[rows] / self.size
        little = np.vstack([own, 1e-7 * np.eye(self.p)])
        R = np.linalg.qr(little, mode="r")
        back = scipy.linalg.solve_triangular(R, np.eye(self.p)) / self.size[:, None]
        own = self.X[rows] @ back
        lengths = np.linalg.norm(own, axis=1)
        return own / np.where(lengths > 0.0, lengths, 1.0)[:, None], back

    def _widest(self, rows: Rows) -> tuple[Matrix, Rows] | None:
        """The direction that changes the rows most, all coordinates between -1 and 1."""
        for _ in range(_ROUNDS):
            own, back = self._scaled(rows)
            own = own * np.where(self.signs[rows] == 0, 1, self.signs[rows])[:, None]
            ends = self.signs[rows] != 0
            result = scipy.optimize.linprog(
                -own[ends].sum(axis=0),
                A_ub=-own[ends],
                b_ub=np.zeros(int(ends.sum())),
                A_eq=own[~ends] if not ends.all() else None,
                b_eq=np.zeros(int((~ends).sum())) if not ends.all() else None,
                bounds=(-1.0, 1.0),
                method="highs",
                options=_TOLERANCES,
            )
            if result.x is None or result.fun is None or result.fun >= -_SOME:
                return None
            direction = back @ result.x
            violated = self._violated(direction)
            if violated is None:
                return None
            if not violated.size:
                return self._of_size_one(direction), rows
            more = np.setdiff1d(violated, rows)
            if not more.size:
                return None
            rows = np.union1d(rows, more)
        return None

    def _with_few_columns(self, direction: Matrix, rows: Rows) -> Matrix:
        """The direction whose coefficients, in units of their columns, are smallest in sum."""
        for _ in range(_ROUNDS):
            signs = self.signs[rows]
            own = self.X[rows] / self.size
            lengths = np.linalg.norm(own, axis=1)
            own *= (np.where(signs == 0, 1, signs) / np.where(lengths > 0.0, lengths, 1.0))[:, None]
            ends = signs != 0
            equal = np.vstack([own[ends].sum(axis=0), own[~ends]])
            result = scipy.optimize.linprog(
                np.ones(2 * self.p),
                A_ub=np.hstack([-own[ends], own[ends]]),
                b_ub=np.zeros(int(ends.sum())),
                A_eq=np.hstack([equal, -equal]),
                b_eq=np.concatenate([[1.0], np.zeros(int((~ends).sum()))]),
                bounds=(0.0, None),
                method="highs",
                options=_TOLERANCES,
            )
            if result.x is None:
                break
            few = result.x[: self.p] - result.x[self.p :]
            few[np.abs(few) < 1e-8 * np.abs(few).max()] = 0.0
            few = few / self.size
            violated = self._violated(few)
            if violated is None:
                break
            if not violated.size:
                return self._of_size_one(few)
            more = np.setdiff1d(violated, rows)
            if not more.size:
                break
            rows = np.union1d(rows, more)
        return direction

    def _violated(self, direction: Matrix) -> Rows | None:
        """The rows that this direction fits worse, the worst first; None if it changes none."""
        change = self.X @ direction
        largest = float(np.abs(change).max())
        rounding = 1e-10 * float(np.abs(self.size * direction).sum())
        if largest <= rounding:
            return None
        worse = np.where(self.signs == 0, np.abs(change), -self.signs * change)
        wrong = np.flatnonzero(worse > _NONE * largest)
        if len(wrong) > self.most:
            wrong = wrong[np.argpartition(-worse[wrong], self.most)[: self.most]]
        return wrong

    def _of_size_one(self, direction: Matrix) -> Matrix:
        return np.asarray(direction / np.abs(self.X @ direction).max())
