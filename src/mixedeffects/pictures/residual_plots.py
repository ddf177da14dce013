"""Pictures of residuals: against what was fitted, by group, by leverage, and as quantiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, checked_level, is_whole_number, member
from mixedeffects.covariance.groups import ConnectedBlocks, find_factor
from mixedeffects.covariance.of_fit import R_of, fitted_values
from mixedeffects.covariance.of_residuals import factors_of_rows, residual_matrix_of
from mixedeffects.diagnostics.leverage import leverage as leverage_of
from mixedeffects.diagnostics.residuals_of_fit import residuals_of
from mixedeffects.display.lettering import name_ticks, short, short_each
from mixedeffects.display.normal_bands import normal_band, plotting_positions, shown_ranks
from mixedeffects.display.panels import one_axes
from mixedeffects.display.points import (
    EMPIRICAL,
    FAINT,
    IMPLIED,
    draw_cloud,
    draw_smooth,
    finish,
    name_points,
)
from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.frame.columns import describe_type
from mixedeffects.pictures.door import of_a_fit, of_any_fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "affordable_whitening",
    "draw_quantiles",
    "groups",
    "leverage",
    "qq",
    "residuals",
    "scale",
]

Matrix = NDArray[np.float64]

#: Operations that a picture may take which nobody asked for by name: some seconds.
_AFFORDABLE = 2e10
#: Levels with so many rows have a box.
_BOXED = 5
#: Kinds of residuals that are independent and standard normal if the model holds, or nearly so.
_STANDARD = ("cholesky", "symmetric", "studentized", "quantile")


@of_any_fit
def residuals(
    fit: Fit, *, resid: str = "pearson", against: str | None = None, ax: Any = None
) -> Axes:
    """Residuals against fitted values or a variable, with a smooth.

    A smooth that leaves zero says that the mean is not modelled well. Above 20,000 rows they are
    counted in hexagons; the smooth, a local linear regression, always uses all rows.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    resid : str
        Kind of residuals, as for `LinearMixedModel.resid`.
    against : str, optional
        A numeric variable of the model; by default the fitted values.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    DataError
        If the variable is not one of the model, or not numeric.
    ImportError
        If matplotlib is not installed.
    ModelError
        If the kind of residuals is not known.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> ax = me.plot.residuals(m, against="Days", ax=Figure().subplots())
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('Days', 'pearson residual')
    """
    r = residuals_of(fit, resid)
    x = fitted_values(fit) if against is None else _variable(fit, against)
    axes = one_axes(ax)
    x, r, note = _finite(x, r)
    axes.axhline(0.0, color=FAINT, linewidth=0.8, zorder=0)
    counted = draw_cloud(axes, x, r)
    draw_smooth(axes, x, r)
    # A sentence on rows that cannot be drawn comes first: nothing is left out silently.
    note += counted
    title = f"Residuals against {'fitted values' if against is None else short(against)}"
    xlabel = _fitted_name(fit) if against is None else short(against, 40)
    return finish(axes, title, xlabel, f"{resid} residual", note)


@of_any_fit
def scale(fit: Fit, *, resid: str = "scaled", ax: Any = None) -> Axes:
    """Scale-location picture: root of absolute residuals against fitted values, with a smooth.

    A smooth that is not level says that the residual variance changes with the mean.

    Parameters
    ----------
    model, resid, ax
        As for `residuals`.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ModelError
        If the kind of residuals is not known.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> me.plot.scale(m, ax=Figure().subplots()).get_ylabel()
    'root of |scaled residual|'
    """
    r = np.sqrt(np.abs(residuals_of(fit, resid)))
    axes = one_axes(ax)
    x, r, note = _finite(fitted_values(fit), r)
    counted = draw_cloud(axes, x, r)
    draw_smooth(axes, x, r)
    axes.set_ylim(bottom=0.0)
    note += counted
    return finish(
        axes, "Scale against location", _fitted_name(fit), f"root of |{resid} residual|", note
    )


@of_any_fit
def qq(
    fit: Fit,
    *,
    resid: str | None = None,
    level: float = 0.95,
    band: str | None = "simultaneous",
    ax: Any = None,
) -> Axes:
    """Normal quantiles of residuals of any kind, with a band.

    Cholesky, symmetric and studentized residuals are set against the standard normal distribution,
    which they have, or nearly so, if the model holds. The others are not alike and are set against
    a normal distribution of their own mean and standard deviation. The band is that of independent
    values with that distribution.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    resid : str, optional
        Kind of residuals, as for `LinearMixedModel.resid`. By default ``"cholesky"``, or
        ``"symmetric"`` or ``"scaled"`` where so many rows are connected that whitening them would
        take long.
    level : float
        Probability inside the band.
    band : {"simultaneous", "pointwise", None}
        A band that holds for all points together with that probability, one that holds for each
        point, or none.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ModelError
        If the kind of residuals or of band is not known, or the level is not between 0 and 1.

    References
    ----------
    Aldor-Noiman, S., Brown, L. D., Buja, A., Rolke, W. and Stine, R. A. (2013). The power to see: a
    new graphical test of normality. The American Statistician 67, 249-260.

    Houseman, E. A., Ryan, L. M. and Coull, B. A. (2004). Cholesky residuals for assessing normal
    errors in a linear model with correlated outcomes. Journal of the American Statistical
    Association 99, 383-394.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> me.plot.qq(m, ax=Figure().subplots()).get_ylabel()
    'cholesky residual'
    """
    kind = affordable_whitening(fit) if resid is None else resid
    r = residuals_of(fit, kind)
    return draw_quantiles(
        one_axes(ax, (4.6, 4.2)),
        r[np.isfinite(r)],
        f"Normal quantiles of {kind} residuals",
        f"{kind} residual",
        level,
        band,
        standard=kind in _STANDARD,
    )


def draw_quantiles(
    ax: Any,
    values: Matrix,
    title: str,
    ylabel: str,
    level: float,
    band: str | None,
    standard: bool,
) -> Axes:
    """Sorted values against normal quantiles, a line where they should lie, and a band.

    Raises
    ------
    ModelError
        If the level is not between 0 and 1, or the band is not known.
    """
    level = checked_level(level)
    if band is not None:
        band = checked_choice(band, "band", ("simultaneous", "pointwise"), ", None")
    n = len(values)
    ranks = shown_ranks(n)
    theory = scipy.stats.norm.ppf(plotting_positions(ranks, n))
    centre, sd = (0.0, 1.0) if standard else (float(np.mean(values)), float(np.std(values)))
    note = f"{n:,} values"
    if band is not None:
        lower, upper = normal_band(ranks, n, level, band == "simultaneous")
        ax.fill_between(theory, centre + sd * lower, centre + sd * upper, color="#e3e3e3", lw=0)
        note = f"{100 * level:g} % {band} band of {n:,} normal values"
    ends = theory[[0, -1]]
    ax.plot(ends, centre + sd * ends, color=IMPLIED, linewidth=1.2)
    size = float(np.clip(300.0 / np.sqrt(n), 4.0, 20.0))
    ax.scatter(theory, np.sort(values)[ranks - 1], s=size, color=EMPIRICAL, linewidths=0, zorder=3)
    return finish(ax, title, "standard normal quantile", ylabel, note)


@of_any_fit
def groups(
    fit: Fit,
    *,
    by: str | None = None,
    resid: str = "scaled",
    most: int = 20,
    ax: Any = None,
) -> Axes:
    """Residuals of the levels where they are largest, the worst on top.

    Levels are ranked by the sum of their squared residuals, as a chi-squared variable with as many
    degrees of freedom as the level has rows, so that small levels are not on top by chance.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    by : str, optional
        A grouping factor; by default the outermost, the one with the fewest levels.
    resid : str
        Kind of residuals, as for `LinearMixedModel.resid`; ``"normalized"`` where those of a level
        are correlated, whose squares would not add up to a chi-squared variable.
    most : int
        Largest number of levels shown.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes
        Boxes from quartile to quartile with whiskers of up to 1.5 times their length; levels of
        fewer than five rows have points only.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ModelError
        If the factor or the kind of residuals is not known, or ``most`` is not a positive number.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> ax = me.plot.groups(m, most=2, ax=Figure().subplots())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['308', '332']
    """
    if not is_whole_number(most):
        raise ModelError(f"most must be a whole number above zero, not {most!r:.60}.")
    terms = factors_of_rows(fit)
    if not terms:
        raise ModelError(
            "The model has no groups of rows, neither of random effects nor of residuals."
        )
    outermost = min(reversed(terms), key=lambda each: each.n_levels)
    term = outermost if by is None else find_factor(terms, by)
    r = residuals_of(fit, resid)
    order = _worst_levels(term.codes, term.n_levels, r)[:most][::-1]
    axes = one_axes(ax, (5.6, max(2.4, 0.22 * len(order) + 1.0)))
    by_level = np.argsort(term.codes, kind="stable")
    starts = np.searchsorted(term.codes[by_level], np.arange(term.n_levels + 1))
    axes.axvline(0.0, color=FAINT, linewidth=0.8, zorder=0)
    for place, level in enumerate(order):
        values = r[by_level[starts[level] : starts[level + 1]]]
        values = values[np.isfinite(values)]
        if len(values) >= _BOXED:
            _draw_box(axes, values, place)
        else:
            axes.scatter(values, np.full(len(values), place), s=12, color=EMPIRICAL, linewidths=0)
    name_ticks(
        axes.yaxis, range(len(order)), short_each((term.levels[level] for level in order), 18)
    )
    axes.set_ylim(-0.7, len(order) - 0.3)
    few = term.n_levels <= most
    note = f"{'' if few else f'the {len(order)} of '}{term.n_levels:,} levels"
    note += ", the largest on top" if few else " where they are largest"
    title = f"Residuals by {short(term.group, 32)}"
    finish(axes, title, f"{resid} residual", "", note)
    if len(order) > 12:
        axes.tick_params(axis="y", labelsize=7)
    return axes


@of_a_fit
def leverage(fit: Fit, *, kind: str = "total", resid: str = "studentized", ax: Any = None) -> Axes:
    """Residuals against leverages; rows far out in both are those that matter.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    kind : {"total", "fixed", "random"}
        Of which part, as for `LinearMixedModel.leverage`.
    resid : str
        Kind of residuals, as for `LinearMixedModel.resid`.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes
        The three rows with the largest ``h r^2 / (1 - h)``, for the leverage h and the residual r,
        have their row labels.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ModelError
        If a kind is not known.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> ax = me.plot.leverage(m, ax=Figure().subplots())
    >>> sorted(text.get_text() for text in ax.texts)
    ['180 rows', '56', '59', '7']
    """
    h = leverage_of(fit, kind)
    r = residuals_of(fit, resid)
    axes = one_axes(ax)
    labels = fit.frame.index[np.isfinite(r)]
    x, y, note = _finite(h, r)
    axes.axhline(0.0, color=FAINT, linewidth=0.8, zorder=0)
    counted = draw_cloud(axes, x, y)
    pull = x * y**2 / np.maximum(1.0 - x, 1e-6)
    name_points(axes, x, y, labels, np.argsort(-pull, kind="stable")[:3])
    what = {"total": "leverage", "fixed": "leverage of the fixed part"}
    xlabel = what.get(kind, f"leverage of the {kind} part")
    return finish(axes, "Residuals against leverage", xlabel, f"{resid} residual", note + counted)


def _fitted_name(fit: Fit) -> str:
    return "linear predictor" if fit.has_link else "fitted value"


def affordable_whitening(fit: Fit) -> str:
    """``"cholesky"``, ``"symmetric"`` or, where both would take long, ``"scaled"``.

    Residuals of a generalized model are whitened by their family.
    """
    if fit.has_link:
        return "quantile"
    connected = ConnectedBlocks.of([*fit.frame.terms, *residual_matrix_of(fit).groupings], fit.nobs)
    sizes = connected.sizes.astype(np.float64)
    if float(np.sum(sizes**3)) / 3.0 <= _AFFORDABLE:
        return "cholesky"
    q = np.zeros(len(connected))
    for term in fit.frame.terms:
        block = np.zeros(term.n_levels, dtype=np.int64)
        block[term.codes] = connected.numbers
        q += term.n_columns * np.bincount(block, minlength=len(q))
    low_rank = connected.constant(R_of(fit).diag()) & (q <= sizes)
    low_rank &= not residual_matrix_of(fit).groupings
    work = 9.0 * float(np.sum(np.where(low_rank, q, sizes) ** 3))
    return "symmetric" if work <= _AFFORDABLE else "scaled"


def _draw_box(ax: Any, values: Matrix, place: float) -> None:
    """A box with whiskers, made of lines because the options of boxplot differ by version."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    reach = 1.5 * (high - low)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    beyond = values[(values < low - reach) | (values > high + reach)]
    ax.hlines(place, inside.min(), inside.max(), color=EMPIRICAL, linewidth=0.9)
    ax.barh(place, high - low, 0.6, low, color="#d9e9f5", edgecolor=EMPIRICAL, linewidth=0.9)
    ax.vlines(middle, place - 0.3, place + 0.3, color=IMPLIED, linewidth=1.4)
    ax.scatter(beyond, np.full(len(beyond), place), s=9, color=EMPIRICAL, linewidths=0)


def _worst_levels(codes: NDArray[np.int32], n_levels: int, r: Matrix) -> NDArray[np.intp]:
    """Levels by how far the sum of their squared residuals is above what it should be."""
    known = np.isfinite(r)
    count = np.maximum(np.bincount(codes[known], minlength=n_levels).astype(np.float64), 1.0)
    squares = np.bincount(codes[known], r[known] ** 2, n_levels)
    # In units of all residuals, for some kinds have units; Wilson and Hilferty's normal
    # approximation orders values whose tail probability is no longer a number.
    mean_square = np.mean(r[known] ** 2) or 1.0
    cube_root = np.cbrt(squares / (mean_square * count))
    z = (cube_root - 1.0 + 2.0 / (9.0 * count)) / np.sqrt(2.0 / (9.0 * count))
    return np.argsort(-z, kind="stable")


def _finite(x: Matrix, r: Matrix) -> tuple[Matrix, Matrix, str]:
    """Rows that have both numbers, and a sentence if some have not."""
    known = np.isfinite(x) & np.isfinite(r)
    left_out = len(known) - int(known.sum())
    if not left_out:
        return x, r, ""
    rows = "row has" if left_out == 1 else "rows have"
    return x[known], r[known], f"{left_out:,} {rows} leverage one and no residual; "


def _variable(fit: Fit, name: str) -> Matrix:
    """A numeric variable of the model, for the rows used."""
    data = fit.frame.data
    numeric = [
        str(column)
        for column in data.columns
        if pd.api.types.is_numeric_dtype(data[column].dtype) and data[column].dtype.kind != "c"
    ]
    if member(name, numeric):
        return data[name].to_numpy(dtype=np.float64, na_value=np.nan)
    listed = ", ".join(repr(each) for each in numeric)
    if member(name, map(str, data.columns)):
        raise DataError(
            f"The variable {name!r} holds {describe_type(data[name])}; a numeric one is needed "
            f"here: {listed}. For groups there is me.plot.groups."
        )
    raise DataError(f"The model has no variable {name!r}; the numeric ones are {listed}.")
