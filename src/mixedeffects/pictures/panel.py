"""The panel of diagnostic pictures, and which picture a name stands for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice
from mixedeffects.covariance.of_residuals import residual_matrix_of
from mixedeffects.diagnostics.check import check
from mixedeffects.diagnostics.influence import influence as influence_of
from mixedeffects.diagnostics.leverage import affordable_leverage
from mixedeffects.display.lettering import literal, short
from mixedeffects.display.needs_matplotlib import require_matplotlib
from mixedeffects.display.panels import as_pictures, axes_for
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.conditional import conditional_modes
from mixedeffects.pictures import effect_plots, ranef_plots, residual_plots
from mixedeffects.pictures.door import of_a_fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PANEL", "PICTURES", "checks", "draw", "influence", "panel"]


@of_a_fit
def panel(fit: Fit, *, ax: Any = None) -> NDArray[Any]:
    """Six pictures that show most of what can be wrong with a linear mixed model.

    Residuals against fitted values, scale against location, normal quantiles of whitened
    residuals and of standardised conditional modes, residuals by group, and residuals against
    leverage. Without random effects, the scale of normalized residuals is in the place of the
    modes. Where whitening or the leverages of all rows would take long, scaled residuals and
    the leverage of the fixed part stand in, as the titles and axes say.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    ax : six matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    ndarray of six matplotlib Axes, with their figure as ``.figure``

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ModelError
        If the number of axes is another.

    References
    ----------
    Nobre, J. S. and Singer, J. M. (2007). Residual analysis for linear mixed models. Biometrical
    Journal 49, 863-875.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> axes = me.plot.panel(m, ax=Figure(figsize=(12, 7)).subplots(2, 3))
    >>> len(axes)
    6
    """
    axes, _ = axes_for(len(PANEL), ax, (4.2, 3.6))
    for each, picture in zip(axes, PANEL.values(), strict=True):
        picture(fit, ax=each)
    return as_pictures(axes)


@of_a_fit
def influence(
    fit: Fit,
    *,
    by: Any = None,
    refit: bool = False,
    statistic: str = "cooks",
    coefficient: str | None = None,
    top: int = 20,
    ax: Any = None,
) -> Axes:
    """Draw what changes when a row, or a level of a factor, is left out; the largest on top.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    by, refit
        As for `LinearMixedModel.influence`.
    statistic : {"cooks", "mdffits", "covtrace", "covratio", "dfbeta", "dfbetas"}
        What to draw, the ``kind`` of ``Influence.plot``.
    coefficient, top, ax
        As for ``Influence.plot``.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    DataError, ModelError
        As for `LinearMixedModel.influence` and ``Influence.plot``.

    References
    ----------
    Demidenko, E. and Stukel, T. A. (2005). Influence analysis for linear mixed-effects models.
    Statistics in Medicine 24, 893-909.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> ax = me.plot.influence(m, by="Subject", top=5, ax=Figure().subplots())
    >>> len(ax.get_yticklabels())
    5
    """
    require_matplotlib()
    deletions = influence_of(fit, by, refit, None)
    return deletions.plot(statistic, coefficient=coefficient, top=top, ax=ax)


@of_a_fit
def checks(
    fit: Fit,
    *,
    which: Any = None,
    draws: int | None = None,
    seed: Any = 1,
    ax: Any = None,
) -> NDArray[Any]:
    """Pictures of the checks: the data beside data sets that the fitted model draws.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    which, draws, seed
        As for `LinearMixedModel.check`.
    ax : matplotlib Axes or several, optional
        Where to draw, one for each picture; by default a new figure.

    Returns
    -------
    ndarray of matplotlib Axes, with their figure as ``.figure``

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ModelError
        As for `LinearMixedModel.check` and ``ModelChecks.plot``.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> axes = me.plot.checks(m, which="simulation", ax=Figure().subplots())
    >>> len(axes)
    1
    """
    require_matplotlib()
    return check(fit, which, draws=draws, seed=seed).plot(ax)


def _ranef_quantiles(fit: Fit, ax: Any) -> Any:
    if not fit.frame.terms:
        return residual_plots.scale(fit, resid="normalized", ax=ax)
    group, column = ranef_plots.factor_with_variance(fit)
    name = conditional_modes(fit)[group].columns[column]
    ranef_plots.draw_ranef_quantiles(fit, group, [column], 0.95, "simultaneous", [ax])
    title = f"Normal quantiles of {short(group)}: {short(name, 16)}"
    literal(ax.set_title(f"{title}\n", loc="left", fontsize=10))
    return ax


def _leverage(fit: Fit, ax: Any) -> Any:
    if affordable_leverage(fit):
        return residual_plots.leverage(fit, ax=ax)
    return residual_plots.leverage(fit, kind="fixed", resid="scaled", ax=ax)


def _groups(fit: Fit, ax: Any) -> Any:
    kind = "normalized" if residual_matrix_of(fit).groupings else "scaled"
    return residual_plots.groups(fit, most=15, resid=kind, ax=ax)


#: The pictures of the panel by name, each a function of the model and `ax`.
PANEL: dict[str, Callable[..., Any]] = {
    "residuals": residual_plots.residuals,
    "scale": residual_plots.scale,
    "qq": residual_plots.qq,
    "ranef_qq": _ranef_quantiles,
    "groups": _groups,
    "leverage": _leverage,
}

#: What `LinearMixedModel.plot` draws by name.
PICTURES: dict[str, Callable[..., Any]] = {
    "panel": panel,
    "effects": effect_plots.effects,
    "residuals": residual_plots.residuals,
    "scale": residual_plots.scale,
    "qq": residual_plots.qq,
    "groups": residual_plots.groups,
    "leverage": residual_plots.leverage,
    "influence": influence,
    "checks": checks,
    "caterpillar": ranef_plots.caterpillar,
    "ranef_qq": ranef_plots.ranef_qq,
    "ranef_pairs": ranef_plots.ranef_pairs,
}


def draw(fit: Fit, kind: Any, ax: Any, options: dict[str, Any]) -> Axes | NDArray[Any]:
    """See `LinearMixedModel.plot`.

    Raises
    ------
    ModelError
        If the picture or one of its options is not known.
    """
    kind = checked_choice(kind, "Picture", tuple(PICTURES))
    picture = PICTURES[kind]
    known = [name for name in inspect.signature(picture).parameters if name not in ("model", "ax")]
    for name in options:
        if name not in known:
            there_are = ", ".join(repr(each) for each in known) or "none"
            raise ModelError(f"Picture {kind!r} has no option {name!r}; there are: {there_are}.")
    drawn: Axes | NDArray[Any] = picture(fit, ax=ax, **options)
    return drawn
