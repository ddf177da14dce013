"""Whether some level carries the fixed effects more than the design makes it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.covariance.groups import connected_blocks
from mixedeffects.covariance.of_fit import V_of
from mixedeffects.diagnostics.check_comparison import Comparison
from mixedeffects.diagnostics.check_statistics import shares_above
from mixedeffects.diagnostics.check_verdict import FINE, LOOK, PROBLEM, Finding, judged, named_rows
from mixedeffects.diagnostics.influence import influence
from mixedeffects.display.lettering import short
from mixedeffects.fitting.fit import Fit

__all__ = ["influential_levels"]

Matrix = NDArray[np.float64]

#: Rows up to which the distances of drawn data sets are computed too: V^-1 is formed.
_COMPARED = 2_000
#: Rows up to which they are computed at all, if rows of different levels are correlated.
_AFFORDABLE = 10_000
_AFFORDABLE_NESTED = 200_000
#: Cook's distance from which a level decides; what is mentioned is above this over their number.
_DECIDES = 1.0
_MENTIONED = 4.0
#: Share of the information below which nothing is left without a level.
_NOTHING_LEFT = 1e-6


def influential_levels(
    c: Comparison, notes: list[str], tables: dict[str, pd.DataFrame]
) -> Iterator[Finding]:
    """Cook's distances of the levels of each grouping factor.

    Parameters
    ----------
    c : Comparison
        The data beside data sets drawn from the fit.
    notes : list of str
        Gets what was left out.
    tables : dict of str to DataFrame
        Gets Cook's distances, by factor.
    """
    fit = c.fit
    if not fit.frame.X.shape[1]:
        notes.append("Influence was not judged: there are no fixed effects.")
        return
    inverse = None
    for group, term in {term.group: term for term in fit.frame.terms}.items():
        shown = short(group)
        if term.n_levels < 3:
            notes.append(f"Influence by {shown} was not judged: fewer than three levels.")
            continue
        if fit.nobs > (_AFFORDABLE_NESTED if _is_nested(fit, group) else _AFFORDABLE):
            notes.append(
                f"Influence by {shown} was left out, as it would take long: m.influence({group!r})."
            )
            continue
        p = np.nan
        if len(c.rows) == fit.nobs <= _COMPARED:
            if inverse is None:
                inverse = np.asarray(V_of(fit).solve(np.eye(fit.nobs)))
            own, drawn = _distances(c, inverse, term.codes, term.n_levels)
            distance = pd.Series(own, index=pd.Index(list(term.levels), name=group))
            if np.isfinite(own).any():
                p = shares_above(float(np.nanmax(own)), drawn)
        else:
            distance = influence(fit, group).cooks_distance
        known = distance.dropna()
        if len(known) < len(distance):
            count = len(distance) - len(known)
            notes.append(
                f"Without {count:,} of the levels of {shown} the fixed effects cannot be estimated."
            )
        if not len(known):
            continue
        known = known.sort_values(ascending=False, kind="stable")
        limit = _MENTIONED / len(distance)
        tables[group] = pd.DataFrame({"cooks_d": known, "beyond": known > limit})
        largest = float(known.iloc[0])
        beyond = int((known > limit).sum())
        if np.isnan(p):
            verdict = PROBLEM if largest > _DECIDES else FINE if largest <= limit else LOOK
        else:
            verdict = judged(p, c.level, largest > limit)
        names = [short(level, 16) for level in known.index[: max(beyond, 1)]]
        if verdict == FINE:
            advice = f"No sign that a level of {shown} weighs more than the design lets it."
        else:
            advice = (
                f"The fixed effects lean on {named_rows(names)} of {shown}: see "
                f"m.influence({short(group)!r}), and fit without."
            )
        yield Finding(f"influence: {shown}", "Cook's D", largest, verdict, advice, p)


def _is_nested(fit: Fit, group: str) -> bool:
    """Whether no other factor connects rows of different levels."""
    codes = next(term.codes for term in fit.frame.terms if term.group == group)
    blocks = connected_blocks(fit.frame.terms)
    pairs = np.unique(codes.astype(np.int64) * (int(blocks.max()) + 1) + blocks)
    return len(pairs) == int(codes.max()) + 1 == int(blocks.max()) + 1


def _distances(
    c: Comparison, inverse: Matrix, codes: NDArray[np.int32], n_levels: int
) -> tuple[Matrix, Matrix]:
    """Cook's distance of each level, and the largest of each data set drawn.

    At the V of the fit, ``[X'V^-1X - S_j' P_jj^-1 S_j]^-1 S_j' P_jj^-1`` times ``P y`` is what
    level j changes; see `deletion`. Drawn data sets have their own scale and residuals in it.
    """
    fit = c.fit
    X = fit.crossproducts.basis.fixed_columns(fit.frame.X)
    p = X.shape[1]
    root = scipy.linalg.cholesky(X.T @ inverse @ X, lower=True)
    # Columns for which X'V^-1X is the identity.
    S = inverse @ scipy.linalg.solve_triangular(root, X.T, lower=True).T
    weights = np.ones(fit.nobs) if fit.frame.weights is None else np.sqrt(fit.frame.weights)
    both = np.hstack([c.data.residuals, c.draws.residuals]) * (weights / fit.sigma)[:, None]
    out = np.full((n_levels, both.shape[1]), np.nan)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=n_levels))
    for j, rows in enumerate(np.split(order, ends[:-1])):
        try:
            solved = scipy.linalg.solve(inverse[np.ix_(rows, rows)], S[rows], assume_a="pos")
        except np.linalg.LinAlgError:
            continue
        left = np.eye(p) - S[rows].T @ solved
        values, vectors = np.linalg.eigh(left)
        if values[0] < _NOTHING_LEFT:
            continue
        change = (vectors / values) @ (vectors.T @ (solved.T @ both[rows]))
        out[j] = np.einsum("pm,pm->m", change, change) / p
    largest = np.where(np.isfinite(out[:, 1:]), out[:, 1:], -np.inf).max(axis=0)
    return out[:, 0], largest
