"""Checks of the design and of the estimated variances, which need no data sets drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from mixedeffects.covariance.of_fit import R_of
from mixedeffects.diagnostics.check_verdict import FINE, LOOK, PROBLEM, Finding
from mixedeffects.display.lettering import short
from mixedeffects.display.result_table import ResultTable
from mixedeffects.fitting.fit import Fit
from mixedeffects.frame.model_frame import RandomTerm

__all__ = [
    "collinearity",
    "few_levels",
    "principal_components",
    "separable_factors",
    "singularity",
    "variance_inflation",
]

Matrix = NDArray[np.float64]

#: Variance inflation from which to look, and from which it is a problem.
_INFLATED, _MUCH_INFLATED = 5.0, 10.0
#: Levels below which a variance is poorly estimated, and hardly at all.
_FEW, _VERY_FEW = 10, 5
#: Share of a factor's effects that another leaves free, below which the two are nearly one.
_NEARLY_ONE, _ALIKE = 0.05, 0.15
#: Standard deviations relative to sigma, and lengths left in a correlation matrix, that are zero.
_ZERO = 1e-4

#: A mean of so many standard deviations is far from zero.
_FAR = 3.0
#: Letters of a name, or of a term, in what there is to do: it is of no use in part.
_LONG = 120


def variance_inflation(fit: Fit) -> pd.DataFrame:
    """Generalised variance inflation factors of the terms of the fixed part.

    ``det(R_tt) det(R_rest) / det(R)``, where R is the correlation matrix of the estimates without
    the intercept; and its root ``GVIF^(1/(2 df))``, the factor by which standard errors are longer.

    Returns
    -------
    DataFrame, one row per term
        Columns ``df``, ``vif`` and ``se_factor``.

    References
    ----------
    Fox, J. and Monette, G. (1992). Generalized collinearity diagnostics. Journal of the American
    Statistical Association 87, 178-183.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("y ~ x1 + I(x1^2) + (1 | sch.cl)", me.load_dataset("threelevel"))
    >>> variance_inflation(m.fit).index.tolist()
    ['x1', 'I(x1^2)']
    """
    encoder = fit.frame.fixed_encoder
    labels: Sequence[str] = () if encoder is None else encoder.term_labels
    assign = np.array(() if encoder is None else encoder.assign, dtype=np.intp)
    kept = np.flatnonzero(assign > 0)
    rows = []
    if len(kept):
        # On their own scale, so that no determinant is out of range.
        sd = np.sqrt(np.diag(fit.vcov)[kept])
        R = fit.vcov[np.ix_(kept, kept)] / np.outer(sd, sd)
        whole = _log_determinant(R)
        for number in dict.fromkeys(assign[kept].tolist()):
            own = assign[kept] == number
            log_gvif = (
                _log_determinant(R[np.ix_(own, own)])
                + _log_determinant(R[np.ix_(~own, ~own)])
                - whole
            )
            df = int(own.sum())
            rows.append((labels[number - 1], df, np.exp(log_gvif), np.exp(log_gvif / (2 * df))))
    table = ResultTable(rows, columns=["term", "df", "vif", "se_factor"])
    return table.set_index("term")


def _log_determinant(R: Matrix) -> float:
    return float(np.linalg.slogdet(R)[1]) if len(R) else 0.0


def collinearity(fit: Fit, notes: list[str], tables: dict[str, pd.DataFrame]) -> Iterator[Finding]:
    """The largest generalised variance inflation factor."""
    table = variance_inflation(fit)
    if len(table) < 2:
        notes.append("Collinearity was not judged: the fixed part has fewer than two terms.")
        return
    tables["collinearity"] = table
    encoder = fit.frame.fixed_encoder
    if encoder is not None and not encoder.table.intercept:
        notes.append("Without an intercept variance inflation also counts distances from zero.")
    labels = [str(label) for label in table.index]
    products = [label for label in labels if ":" in label]
    # A product is collinear with what it is made of unless that is centred; nothing is amiss then.
    made = np.array(
        [":" in label or any(label in p.split(":") for p in products) for label in labels]
    )
    factors = table["se_factor"].to_numpy()
    apart = np.where(made, 0.0, factors)
    at = int(np.argmax(apart if (apart**2 >= _INFLATED).any() else factors))
    name, row = labels[at], table.iloc[at]
    inflation = float(row["se_factor"]) ** 2
    verdict = FINE if inflation < _INFLATED else LOOK if inflation < _MUCH_INFLATED else PROBLEM
    if made[at] and verdict == PROBLEM:
        verdict = LOOK
    advice = f"No sign of collinearity: {short(name)} has the largest factor."
    if verdict != FINE:
        cure = (
            "centre the variables of interactions, or leave it, for neither predictions nor the "
            "test of the interaction change"
            if made[at]
            else "drop one, or combine them"
        )
        advice = (
            f"The standard errors of {short(name)} are {float(row['se_factor']):.2g} times as "
            f"long as without the other terms: {cure}; see `collinearity`."
        )
    yield Finding(
        "collinearity", "largest VIF", float(row["vif"]), verdict, advice, df=float(row["df"])
    )


def few_levels(fit: Fit) -> Iterator[Finding]:
    """The number of levels of each grouping factor."""
    kr = "ddf='kr'" if fit.has_degrees_of_freedom else ""
    for group, term in {term.group: term for term in fit.frame.terms}.items():
        shown, count = short(group), term.n_levels
        verdict = PROBLEM if count < _VERY_FEW else LOOK if count < _FEW else FINE
        if verdict == FINE:
            advice = f"No sign of too few levels of {shown}."
        elif verdict == LOOK:
            better = f"{kr}, m.confint('profile')" if kr else "m.confint('profile')"
            advice = f"The variance by {shown} is poorly estimated: {better}."
        else:
            advice = (
                f"So few levels hardly tell a variance: take {shown} as a fixed effect, or "
                f"{f'use {kr} and ' if kr else ''}report its uncertainty."
            )
        yield Finding(f"levels: {shown}", "levels", float(count), verdict, advice)


def principal_components(fit: Fit) -> dict[str, pd.DataFrame]:
    """Principal components of the random effects, by grouping factor.

    Returns
    -------
    dict of str to DataFrame
        One row per component: ``sd``, relative to sigma, and ``proportion`` of the variance; as
        ``rePCA`` of R's lme4.

    References
    ----------
    Bates, D., Kliegl, R., Vasishth, S. and Baayen, H. (2015). Parsimonious mixed models.
    arXiv:1506.04967.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> principal_components(m.fit)["Subject"]["proportion"].round(3).tolist()
    [0.946, 0.054]
    """
    out: dict[str, pd.DataFrame] = {}
    for group in dict.fromkeys(term.group for term in fit.frame.terms):
        own = [T for term, T in zip(fit.frame.terms, fit.T, strict=True) if term.group == group]
        sd = np.linalg.svd(scipy.linalg.block_diag(*own), compute_uv=False)
        total = float(np.sum(sd**2))
        share = sd**2 / total if total > 0.0 else np.full(len(sd), np.nan)
        index = pd.RangeIndex(1, len(sd) + 1, name="component")
        out[group] = ResultTable({"sd": sd, "proportion": share}, index=index)
    return out


def singularity(fit: Fit) -> Iterator[Finding]:
    """Variances that are zero and correlations that are one, by grouping factor, in words."""
    components = principal_components(fit)
    # Sigma is no measure where it is given, or stands for one of several variances.
    unit, measure = 1.0, "SD / sigma"
    if fit.residual_sigma is None:
        measure = "SD"
    if fit.residual is not None:
        unit = fit.sigma / float(np.sqrt(np.mean(R_of(fit).diag())))
        measure = "SD / residual SD"
    for group in dict.fromkeys(term.group for term in fit.frame.terms):
        shown = short(group)
        said = []
        encoders = fit.frame.random_encoders
        for t, (term, T) in enumerate(zip(fit.frame.terms, fit.T, strict=True)):
            if term.group == group:
                coded = bool(encoders) and bool(encoders[t].factors)
                said += _without_variance(term, unit * T, coded)
        table = components[group]
        shares = [f"{share:.2f}" for share in table["proportion"] if np.isfinite(share)]
        listed = f" (shares of its components {', '.join(shares[:6])})" if len(shares) > 1 else ""
        if len(table) > 1:
            name, value = "least share", float(table["proportion"].iloc[-1])
        else:
            name, value = measure, unit * float(table["sd"].iloc[0])
        if said:
            advice = " ".join(said)
            if listed:
                advice += f" Shares of its components: {', '.join(shares[:6])}."
        else:
            advice = f"No sign of a singular covariance by {shown}{listed}."
        yield Finding(f"singularity: {shown}", name, value, LOOK if said else FINE, advice)


def _without_variance(term: RandomTerm, T: Matrix, coded: bool) -> list[str]:
    """What of a term has no variance of its own, and what to leave out.

    ``||`` leaves the columns of a factor together, so where the columns are coded from one it is no
    advice.
    """
    written = _written(term)
    z, root, far = (term.z, T, []) if coded else _centred(term, T)
    # Standard deviations in units of sigma, for a typical row.
    sizes = np.sqrt(np.mean(z**2, axis=0))[:, None] * root
    sd = np.linalg.norm(sizes, axis=1)
    zero = np.flatnonzero(sd < _ZERO)
    rest = np.flatnonzero(sd >= _ZERO)
    group = short(term.group)
    names = [short(column, _LONG) for column in term.columns]
    if not len(rest):
        of = "variance" if len(names) == 1 else "variances"
        return [f"The {of} of {written} {'is' if len(names) == 1 else 'are'} zero: leave it out."]
    said = []
    if len(zero):
        listed = ", ".join(names[j] for j in zero)
        of = "variance" if len(zero) == 1 else "variances"
        said.append(
            f"The {of} of {listed} by {group} {'is' if len(zero) == 1 else 'are'} zero: leave "
            f"{listed} out of {written}."
        )
    roots = sizes[rest] / sd[rest][:, None]
    own = np.linalg.svd(roots, compute_uv=False)
    own = np.append(own, np.zeros(max(len(rest) - len(own), 0)))
    if own[-1] >= _ZERO:
        return said
    # Correlations as the summary has them.
    length = np.linalg.norm(T[rest], axis=1)
    roots = T[rest] / np.where(length > 0.0, length, 1.0)[:, None]
    pairs = [
        (a, b, float(roots[i] @ roots[j]))
        for (i, a), (j, b) in combinations(enumerate(rest), 2)
        if 1.0 - abs(float(roots[i] @ roots[j])) < _ZERO**2
    ]
    drop = names[rest[int(np.argmin(sd[rest]))]]
    if pairs:
        a, b, correlation = pairs[0]
        said.append(
            f"The correlation of {names[a]} and {names[b]} by {group} is "
            f"{'+1' if correlation > 0 else '-1'}: {_cure(drop, written, coded, far)}"
        )
    else:
        free = int((own >= _ZERO).sum())
        said.append(
            f"The {len(rest)} effects by {group} vary in {free} "
            f"{'direction' if free == 1 else 'directions'} only: {_cure(drop, written, coded, far)}"
        )
    return said


def _centred(term: RandomTerm, T: Matrix) -> tuple[Matrix, Matrix, list[str]]:
    """Columns that lie far from zero counted from their means, and the covariance's root so.

    An intercept at year 0 is one with the slope, whatever the data are like.
    """
    if "(Intercept)" not in term.columns or term.structure != "us":
        return term.z, T, []
    mean, spread = term.z.mean(axis=0), term.z.std(axis=0)
    far = (spread > 0.0) & (np.abs(mean) > _FAR * spread)
    if not far.any():
        return term.z, T, []
    shift = np.where(far, mean, 0.0)
    moved = T.copy()
    moved[term.columns.index("(Intercept)")] += shift @ T
    return term.z - shift, moved, [term.columns[j] for j in np.flatnonzero(far)]


def _cure(drop: str, written: str, coded: bool, far: list[str]) -> str:
    out = f"leave {drop} out of {written}"
    if coded:
        return f"{out}."
    if far:
        name = short(far[0], 20)
        out = (
            f"{name} is far from zero, where the intercept stands, so count it from its mean, "
            f"center({name}); then {out}"
        )
    return f"{out}, or make its effects uncorrelated with ||."


def _written(term: RandomTerm) -> str:
    """A term as a formula has it, or nearly so."""
    columns = ["1" if column == "(Intercept)" else column for column in term.columns]
    inside = " + ".join(columns) if "1" in columns else " + ".join(["0", *columns])
    return f"({short(inside, _LONG)} | {short(term.group, 20)})"


def separable_factors(fit: Fit) -> Iterator[Finding]:
    """Whether grouping factors can be told from each other, and from the rows.

    Of two factors with L levels, and K connected parts of the table of the two, the one with more
    levels has ``L - K`` effects that the other one leaves free. The rows leave ``n - L`` free.
    """
    factors = list({term.group: term for term in fit.frame.terms}.values())
    if not factors:
        return
    for one, other in combinations(factors, 2):
        finer, coarser = (one, other) if one.n_levels >= other.n_levels else (other, one)
        free = finer.n_levels - _parts(finer, coarser)
        what = f"{short(finer.group)} and {short(coarser.group)}"
        count = f"{free:,} of the {finer.n_levels:,} levels of {short(finer.group)}"
        yield _separation(
            what,
            free / finer.n_levels,
            f"Only {count} tell it from {short(coarser.group)} ({coarser.n_levels:,}): leave one "
            "of the two factors out.",
        )
    finest = factors[0]
    constant = any(
        term.group == finest.group and bool(np.ptp(term.z, axis=0).min() == 0.0)
        for term in fit.frame.terms
    )
    # A known sigma, or the correlations of residuals, tell them apart.
    told = fit.residual is not None and (
        fit.frame.residual is not None or fit.residual.model.design.sigma is not None
    )
    if constant and not told:
        free = fit.nobs - finest.n_levels
        yield _separation(
            f"{short(finest.group)} and rows",
            free / fit.nobs,
            f"{finest.n_levels:,} levels of {short(finest.group)} in {fit.nobs:,} rows: its "
            "variance and the residual's can hardly be told apart; leave the factor out.",
        )


def _separation(what: str, share: float, advice: str) -> Finding:
    verdict = PROBLEM if share < _NEARLY_ONE else LOOK if share < _ALIKE else FINE
    if verdict == FINE:
        advice = f"No sign that {what} are nearly the same."
    return Finding(f"grouping: {what}", "share apart", share, verdict, advice)


def _parts(one: RandomTerm, other: RandomTerm) -> int:
    """Connected parts of the table of two factors."""
    size = one.n_levels + other.n_levels
    pairs = np.unique(one.codes.astype(np.int64) * other.n_levels + other.codes)
    a, b = np.divmod(pairs, other.n_levels)
    graph = scipy.sparse.coo_array((np.ones(len(a)), (a, one.n_levels + b)), shape=(size, size))
    return int(connected_components(graph, directed=False)[0])
