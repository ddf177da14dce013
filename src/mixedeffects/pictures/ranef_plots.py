"""Pictures of the conditional modes of the random effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.options import checked_level, checked_names
from mixedeffects.covariance.groups import find_factor
from mixedeffects.display.lettering import name_ticks, short, short_each
from mixedeffects.display.panels import as_pictures, axes_for
from mixedeffects.display.points import (
    EMPIRICAL,
    FAINT,
    IMPLIED,
    draw_cloud,
    finish,
    name_points,
    say_nothing_to_draw,
)
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.conditional import conditional_modes
from mixedeffects.pictures.door import of_any_fit
from mixedeffects.pictures.residual_plots import draw_quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "caterpillar",
    "draw_ranef_quantiles",
    "factor_with_variance",
    "ranef_pairs",
    "ranef_qq",
    "standardised_modes",
]

Matrix = NDArray[np.float64]

#: Up to so many levels are named.
_NAMED = 60
#: From so many levels on there are more intervals than the picture has lines of pixels.
_BINNED = 250
_BINS = 400
#: Contribution of an effect to the variance of the response, relative to the residual variance,
#: below which it has none.
_NO_VARIANCE = 1e-9


@of_any_fit
def caterpillar(
    fit: Fit,
    *,
    by: str | None = None,
    columns: str | Sequence[str] | None = None,
    sort: str | None = None,
    level: float = 0.95,
    ax: Any = None,
) -> Axes | NDArray[Any]:
    """Conditional modes of one factor's effects with intervals, in ascending order.

    The intervals are those of the normal distribution with the conditional variance, beta and
    theta taken as known: 1.96 conditional standard deviations to either side for 95 %. Those that
    leave out zero are darker. Up to 60 levels are named, in the same order on all axes; beyond
    that each effect has its own order. From 250 levels on the intervals merge into a band, which
    averages successive ones where there are more than 400.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    by : str, optional
        The grouping factor; by default the first.
    columns : str or list of str, optional
        Which effects; by default all. Each has axes of its own.
    sort : str, optional
        The effect by whose modes the levels of all axes are sorted; by default the first drawn
        that has a variance, or each its own above 60 levels.
    level : float
        Probability of the intervals.
    ax : matplotlib Axes or several, optional
        One for each effect; by default a new figure.

    Returns
    -------
    matplotlib Axes, or an array of them
        One for each effect.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ModelError
        If a name is not known, the level is not between 0 and 1, or the number of axes is another.

    References
    ----------
    Bates, D., Maechler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects models
    using lme4. Journal of Statistical Software 67(1).

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> axes = me.plot.caterpillar(m, ax=Figure().subplots(1, 2))
    >>> [label.get_text() for label in axes[0].get_yticklabels()][:3]
    ['309', '310', '370']
    """
    level = checked_level(level)
    group = find_factor(fit.frame.terms, by).group if by is not None else _first_group(fit)
    effects = conditional_modes(fit, cond_var=True)
    modes = effects[group]
    names = list(modes.columns)
    shown = _chosen_columns(names, columns, group)
    variances = _variances(fit, group)
    sorted_by = _sorting_column(names, shown, sort, group, variances)
    named = len(modes) <= _NAMED
    half = scipy.stats.norm.ppf(0.5 + level / 2.0)
    sd = np.sqrt(np.maximum(np.einsum("ikk->ik", effects.cond_var[group]), 0.0))
    height = 4.2 if not named else max(2.2, 0.165 * len(modes) + 0.9)
    axes, _ = axes_for(len(shown), ax, (4.0, height))
    for number, (column, each) in enumerate(zip(shown, axes, strict=True)):
        by_column = sorted_by if named or sort is not None else column
        order = np.argsort(modes.to_numpy()[:, by_column], kind="stable")
        values, spread = modes.to_numpy()[order, column], half * sd[order, column]
        note = f"{100 * level:g} % intervals of {len(modes):,} levels"
        if len(values) >= _BINNED:
            note += _draw_binned(each, values, spread)
        else:
            _draw_intervals(each, values, spread)
        each.axvline(0.0, color=FAINT, linewidth=0.8, zorder=1.5)
        each.set_ylim(-1.0, len(modes))
        if variances[column] == 0.0:
            note = "no variance is estimated, so all modes are zero"
        finish(each, f"{short(group)}: {short(names[column])}", "conditional mode", "", note)
        labels = short_each(modes.index[order], 18) if named and number == 0 else []
        name_ticks(each.yaxis, range(len(labels)), labels)
        each.tick_params(axis="y", labelsize=7 if len(modes) > 12 else 8)
        if not labels:
            each.spines["left"].set_visible(False)
    return axes[0] if len(axes) == 1 else as_pictures(axes)


@of_any_fit
def ranef_qq(
    fit: Fit,
    *,
    by: str | None = None,
    columns: str | Sequence[str] | None = None,
    level: float = 0.95,
    band: str | None = "simultaneous",
    ax: Any = None,
) -> Axes | NDArray[Any]:
    """Normal quantiles of the conditional modes, each divided by its own standard deviation.

    A mode varies less than the effect it predicts, by its conditional variance, and so less where
    its level has few rows. Divided by ``sqrt(G_jj - Var(b_j | y))`` it is standard normal if the
    model holds.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    by : str, optional
        The grouping factor; by default the first that has a variance.
    columns : str or list of str, optional
        Which effects; by default all. Each has axes of its own.
    level : float
        Probability inside the band.
    band : {"simultaneous", "pointwise", None}
        As for `mixedeffects.plot.qq`.
    ax : matplotlib Axes or several, optional
        One for each effect; by default a new figure.

    Returns
    -------
    matplotlib Axes, or an array of them
        One for each effect.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ModelError
        If a name is not known, the level is not between 0 and 1, or the number of axes is another.

    References
    ----------
    Lange, N. and Ryan, L. (1989). Assessing normality in random effects models. Annals of
    Statistics 17, 624-642.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> ax = me.plot.ranef_qq(m, columns="Days", ax=Figure().subplots())
    >>> ax.get_title(loc="left").strip()
    'Subject: Days'
    """
    level = checked_level(level)
    group = find_factor(fit.frame.terms, by).group if by is not None else _first_group(fit)
    names = list(conditional_modes(fit)[group].columns)
    shown = _chosen_columns(names, columns, group)
    axes, _ = axes_for(len(shown), ax, (3.9, 3.6))
    draw_ranef_quantiles(fit, group, shown, level, band, axes)
    return axes[0] if len(axes) == 1 else as_pictures(axes)


def draw_ranef_quantiles(
    fit: Fit,
    group: str,
    shown: list[int],
    level: float,
    band: str | None,
    axes: list[Any],
) -> list[Any]:
    """Normal quantiles of some effects, given by position, each on its axes."""
    table = standardised_modes(fit, group)
    for column, each in zip(shown, axes, strict=True):
        values = table.to_numpy()[:, column]
        values = values[np.isfinite(values)]
        title = f"{short(group)}: {short(table.columns[column])}"
        if len(values):
            draw_quantiles(each, values, title, "standardised mode", level, band, standard=True)
        else:
            sentence = "no variance is estimated for this effect, so all its modes are zero"
            say_nothing_to_draw(each, title, sentence)
    return axes


@of_any_fit
def ranef_pairs(
    fit: Fit,
    *,
    by: str | None = None,
    columns: Sequence[str] | None = None,
    level: float = 0.95,
    ax: Any = None,
) -> Axes | NDArray[Any]:
    """Conditional modes of pairs of effects, with the ellipse of their estimated covariance.

    The ellipse is that of the effects themselves, inside which a level lies with probability
    ``level``. Modes are drawn towards zero and scatter less. At a correlation of -1 or 1 the
    ellipse is a line.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    by : str, optional
        The grouping factor; by default the first with two effects or more.
    columns : list of str, optional
        Which effects to pair; by default all.
    level : float
        Probability inside the ellipse.
    ax : matplotlib Axes or several, optional
        One for each pair; by default a new figure.

    Returns
    -------
    matplotlib Axes, or an array of them
        One for each pair.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ModelError
        If a name is not known, the factor has only one effect, the level is not between 0 and 1, or
        the number of axes is another.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> ax = me.plot.ranef_pairs(m, ax=Figure().subplots())
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('(Intercept)', 'Days')
    """
    level = checked_level(level)
    effects = conditional_modes(fit)
    several = [group for group, modes in effects.items() if modes.shape[1] > 1]
    if by is not None:
        group = find_factor(fit.frame.terms, by).group
    elif several:
        group = several[0]
    else:
        raise ModelError(
            "No grouping factor has two random effects, so there are no pairs to draw; "
            "me.plot.caterpillar and me.plot.ranef_qq draw single ones."
        )
    modes = effects[group]
    names = list(modes.columns)
    shown = _chosen_columns(names, columns, group)
    if len(shown) < 2:
        raise ModelError(
            f"Pairs take two effects of {group!r}, which has "
            f"{', '.join(repr(str(name)) for name in names)}."
            if len(names) > 1
            else f"{group!r} has only one random effect, {str(names[0])!r}, so there are no pairs."
        )
    pairs = [(i, j) for a, i in enumerate(shown) for j in shown[a + 1 :]]
    G = _group_covariance(fit, group)
    axes, _ = axes_for(len(pairs), ax, (4.2, 3.8))
    radius = np.sqrt(scipy.stats.chi2.ppf(level, 2))
    angle = np.linspace(0.0, 2.0 * np.pi, 241)
    circle = radius * np.vstack([np.cos(angle), np.sin(angle)])
    for (i, j), each in zip(pairs, axes, strict=True):
        x, y = modes.to_numpy()[:, i], modes.to_numpy()[:, j]
        counted = draw_cloud(each, x, y, "levels")
        values, vectors = np.linalg.eigh(G[np.ix_([i, j], [i, j])])
        line = (vectors * np.sqrt(np.maximum(values, 0.0))) @ circle
        each.plot(line[0], line[1], color=IMPLIED, linewidth=1.3)
        each.axhline(0.0, color=FAINT, linewidth=0.6, zorder=0)
        each.axvline(0.0, color=FAINT, linewidth=0.6, zorder=0)
        if len(modes) <= 30:
            distance = _distance(np.vstack([x, y]), values, vectors)
            name_points(each, x, y, modes.index, np.argsort(-distance, kind="stable")[:3])
        note = f"{counted}; ellipse: {100 * level:g} %"
        finish(each, short(group), short(names[i]), short(names[j]), note)
    return axes[0] if len(axes) == 1 else as_pictures(axes)


def standardised_modes(fit: Fit, group: str) -> pd.DataFrame:
    """Modes over their standard deviation if the model holds, NaN where there is no variance."""
    effects = conditional_modes(fit, cond_var=True)
    modes = effects[group]
    prior = _variances(fit, group)
    left = prior - np.einsum("ikk->ik", effects.cond_var[group])
    sd = np.sqrt(np.where((prior > 0.0) & (left > 1e-10 * prior), left, np.nan))
    return pd.DataFrame(modes.to_numpy() / sd, index=modes.index, columns=modes.columns)


def factor_with_variance(fit: Fit) -> tuple[str, int]:
    """The first grouping factor that has a variance, and which of its effects is the first."""
    if not fit.frame.terms:
        raise ModelError("The model has no random effects, so there are none to draw.")
    for term in fit.frame.terms:
        variances = _variances(fit, term.group)
        if variances.any():
            return term.group, int(np.flatnonzero(variances)[0])
    return fit.frame.terms[0].group, 0


def _first_group(fit: Fit) -> str:
    return factor_with_variance(fit)[0]


def _group_covariance(fit: Fit, group: str) -> Matrix:
    """G of a factor's effects, those of all its terms, in the order of `ranef`."""
    blocks = [
        G for term, G in zip(fit.frame.terms, fit.G_blocks, strict=True) if term.group == group
    ]
    return np.asarray(scipy.linalg.block_diag(*blocks))


def _variances(fit: Fit, group: str) -> Matrix:
    """Variances of a factor's effects; zero where rounding alone keeps them from it."""
    variances = np.diag(_group_covariance(fit, group))
    sizes = np.concatenate(
        [np.mean(np.square(term.z), axis=0) for term in fit.frame.terms if term.group == group]
    )
    return np.where(variances * sizes > _NO_VARIANCE * fit.working_sigma**2, variances, 0.0)


def _chosen_columns(names: list[str], columns: Any, group: str) -> list[int]:
    """Positions of the effects asked for; a name that occurs twice stands for both."""
    if columns is None:
        return list(range(len(names)))
    wanted = checked_names(columns, "columns")
    if not wanted:
        raise ModelError("columns is empty, so there is nothing to draw.")
    for name in wanted:
        if name not in names:
            listed = ", ".join(repr(str(known)) for known in dict.fromkeys(names))
            raise ModelError(f"{group!r} has no random effect {name!r:.60}; it has {listed}.")
    return [i for name in wanted for i, known in enumerate(names) if known == name]


def _sorting_column(
    names: list[str], shown: list[int], sort: str | None, group: str, variances: Matrix
) -> int:
    if sort is not None:
        return _chosen_columns(names, sort, group)[0]
    return next((column for column in shown if variances[column] > 0.0), shown[0])


def _draw_intervals(ax: Any, values: Matrix, spread: Matrix) -> None:
    """One line and one point for each level, thin where there are many."""
    places = np.arange(len(values))
    width = float(np.clip(60.0 / len(values), 0.25, 1.4))
    size = float(np.clip(700.0 / len(values), 0.8, 22.0))
    away = np.abs(values) > spread
    for chosen, colour in ((~away, "#92b8d6"), (away, EMPIRICAL)):
        at = places[chosen]
        low, high = values[chosen] - spread[chosen], values[chosen] + spread[chosen]
        ax.hlines(at, low, high, color=colour, linewidth=width)
        ax.scatter(values[chosen], at, s=size, color=colour, linewidths=0, zorder=3)


def _draw_binned(ax: Any, values: Matrix, spread: Matrix) -> str:
    """Averages over successive levels: a band of intervals and a line of modes."""
    bins = min(_BINS, len(values))
    starts = np.arange(bins) * len(values) // bins
    count = np.diff(np.append(starts, len(values)))
    middle, half = np.add.reduceat(values, starts) / count, np.add.reduceat(spread, starts) / count
    places = starts + 0.5 * (count - 1)
    ax.fill_betweenx(places, middle - half, middle + half, color="#cfe1f0", linewidth=0)
    ax.plot(middle, places, color=EMPIRICAL, linewidth=1.2)
    return f", averaged by {int(count.max())}" if count.max() > 1 else ""


def _distance(points: Matrix, values: Matrix, vectors: Matrix) -> Matrix:
    """Mahalanobis distance, also from a covariance that is a line."""
    scale = np.sqrt(np.maximum(values, 1e-6 * max(float(values[-1]), 1e-300)))
    return np.asarray(np.linalg.norm((vectors.T @ points) / scale[:, None], axis=0))
