"""Whether some level carries the fixed effects more than the design makes it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.covariance.of_fit import V_of
from mixedeffects.diagnostics.check_comparison import Comparison
from mixedeffects.diagnostics.check_levels import factors_by_name
from mixedeffects.diagnostics.check_statistics import shares_above
from mixedeffects.diagnostics.check_structured import has_known_sigma
from mixedeffects.diagnostics.check_verdict import FINE, LOOK, PROBLEM, Finding, judged, named_rows
from mixedeffects.diagnostics.influence import influence
from mixedeffects.display.lettering import short, short_each
from mixedeffects.display.result_table import ResultTable

__all__ = ["influential_levels"]

Matrix = NDArray[np.float64]

#: Rows up to which the distances of drawn data sets are computed too: V^-1 is formed.
_COMPARED = 2_000
#: Rows up to which they are computed at all, if rows of different levels are correlated.
_AFFORDABLE = 10_000
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
    for group, term in factors_by_name(fit).items():
        shown = short(group)
        if term.n_levels < 3:
            notes.append(f"Influence by {shown} was not judged: fewer than three levels.")
            continue
        p = np.nan
        if group in c.data.distances:
            own = c.data.distances[group][:, 0]
            p = _p_value(own, c.draws.distances[group])
        elif len(c.rows) == fit.nobs <= _COMPARED:
            own, drawn = _held_distances(c, term.codes, term.n_levels)
            p = _p_value(own, drawn)
        elif fit.nobs <= _AFFORDABLE:
            own = influence(fit, group).cooks_distance.to_numpy()
        else:
            notes.append(
                f"Influence by {shown} was left out, as it would take long: m.influence({group!r})."
            )
            continue
        distance = pd.Series(own, index=pd.Index(list(term.levels), name=group))
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
        tables[group] = ResultTable({"cooks_d": known, "beyond": known > limit})
        largest = float(known.iloc[0])
        beyond = int((known > limit).sum())
        if np.isnan(p):
            verdict = PROBLEM if largest > _DECIDES else FINE if largest <= limit else LOOK
        else:
            verdict = judged(p, c.level, largest > limit)
        names = short_each(known.index[: max(beyond, 1)], 16)
        if verdict == FINE:
            advice = f"No sign that a level of {shown} weighs more than the design lets it."
        else:
            advice = (
                f"The fixed effects lean on {named_rows(names)} of {shown}: see "
                f"m.influence({short(group)!r}), and fit without."
            )
        yield Finding(f"influence: {shown}", "Cook's D", largest, verdict, advice, p)


def _p_value(own: Matrix, drawn: Matrix) -> float:
    """Of the largest distance."""
    known = np.isfinite(own)
    if not known.any():
        return np.nan
    largest = np.where(np.isfinite(drawn), drawn, -np.inf).max(axis=0)
    return shares_above(float(own[known].max()), largest)


def _held_distances(
    c: Comparison, codes: NDArray[np.int32], n_levels: int
) -> tuple[Matrix, Matrix]:
    """Cook's distance of each level, of the data and of the data sets drawn, at the fit's V.

    ``[X'V^-1X - S_j' P_jj^-1 S_j]^-1 S_j' P_jj^-1`` times ``P y`` is what level j changes; see
    `deletion`. Only the scale of V is a data set's own.
    """
    fit = c.fit
    X = fit.crossproducts.basis.fixed_columns(fit.frame.X)
    p = X.shape[1]
    inverse = np.asarray(V_of(fit).solve(np.eye(fit.nobs)))
    root = scipy.linalg.cholesky(X.T @ inverse @ X, lower=True)
    # Columns for which X'V^-1X is the identity.
    X = scipy.linalg.solve_triangular(root, X.T, lower=True).T
    S = inverse @ X
    if fit.residual is not None:
        Y = np.hstack([fit.frame.y[:, None], c.batches.responses()])
    else:
        weights = np.ones(fit.nobs) if fit.frame.weights is None else np.sqrt(fit.frame.weights)
        both = [
            some.fitted + some.residuals * (some.sigma / weights[:, None])
            for some in (c.data, c.draws)
        ]
        Y = np.hstack(both)
    if fit.frame.offset is not None:
        Y -= fit.frame.offset[:, None]
    Py = inverse @ Y - S @ (S.T @ Y)
    df = fit.nobs - p if fit.reml else fit.nobs
    if not has_known_sigma(fit):
        Py /= np.sqrt(np.einsum("im,im->m", Y, Py) / df)
    out = np.full((n_levels, Y.shape[1]), np.nan)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=n_levels))
    for j, rows in enumerate(np.split(order, ends[:-1])):
        try:
            solved = scipy.linalg.solve(inverse[np.ix_(rows, rows)], S[rows], assume_a="pos")
        except np.linalg.LinAlgError:
            continue
        values, vectors = np.linalg.eigh(np.eye(p) - S[rows].T @ solved)
        if values[0] < _NOTHING_LEFT:
            continue
        change = (vectors / values) @ (vectors.T @ (solved.T @ Py[rows]))
        out[j] = np.einsum("pm,pm->m", change, change) / p
    return out[:, 0], out[:, 1:]
