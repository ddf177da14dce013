"""Pictures of a generalized model: those of a linear one that hold, with quantile residuals."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice
from mixedeffects.diagnostics.generalized_check import generalized_check
from mixedeffects.diagnostics.generalized_influence import generalized_influence
from mixedeffects.display.lettering import literal, short
from mixedeffects.display.needs_matplotlib import require_matplotlib
from mixedeffects.display.panels import as_pictures, axes_for
from mixedeffects.errors import ModelError
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.inference.conditional import conditional_modes
from mixedeffects.pictures import effect_plots, ranef_plots, residual_plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GENERALIZED_PICTURES", "draw_generalized"]


def _panel(fit: GeneralizedFit, *, ax: Any = None) -> NDArray[Any]:
    """Residuals, their scale, their quantiles, and the quantiles of the random effects."""
    axes, _ = axes_for(4, ax, (4.4, 3.8), 2)
    quantile = {"resid": "quantile"}
    residual_plots.residuals(fit, ax=axes[0], **quantile)
    residual_plots.scale(fit, ax=axes[1], **quantile)
    residual_plots.qq(fit, ax=axes[2], **quantile)
    group, column = ranef_plots.factor_with_variance(fit)
    name = conditional_modes(fit)[group].columns[column]
    ranef_plots.draw_ranef_quantiles(fit, group, [column], 0.95, "simultaneous", [axes[3]])
    title = f"Normal quantiles of {short(group)}: {short(name, 16)}"
    literal(axes[3].set_title(f"{title}\n", loc="left", fontsize=10))
    return as_pictures(axes)


def _checks(
    fit: GeneralizedFit, *, which: Any = None, draws: Any = None, seed: Any = 1, ax: Any = None
) -> NDArray[Any]:
    """Those of `GeneralizedLinearMixedModel.check`."""
    require_matplotlib()
    return generalized_check(fit, which, draws, seed, 0.05, None).plot(ax)


def _influence(
    fit: GeneralizedFit,
    *,
    by: Any = None,
    refit: Any = False,
    statistic: str = "cooks",
    coefficient: str | None = None,
    top: int = 20,
    ax: Any = None,
) -> Axes:
    """What changes when a cluster is left out."""
    require_matplotlib()
    found = generalized_influence(fit, by, refit, None)
    return found.plot(statistic, coefficient=coefficient, top=top, ax=ax)


#: What `GeneralizedLinearMixedModel.plot` draws by name, and options that differ by default.
GENERALIZED_PICTURES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "panel": (_panel, {}),
    "effects": (effect_plots.effects, {"type": "response", "ddf": "inf"}),
    "checks": (_checks, {}),
    "residuals": (residual_plots.residuals, {"resid": "quantile"}),
    "scale": (residual_plots.scale, {"resid": "quantile"}),
    "qq": (residual_plots.qq, {"resid": "quantile"}),
    "groups": (residual_plots.groups, {"resid": "quantile"}),
    "influence": (_influence, {}),
    "caterpillar": (ranef_plots.caterpillar, {}),
    "ranef_qq": (ranef_plots.ranef_qq, {}),
    "ranef_pairs": (ranef_plots.ranef_pairs, {}),
}


def draw_generalized(
    fit: GeneralizedFit, kind: Any, ax: Any, options: dict[str, Any]
) -> Axes | NDArray[Any]:
    """See `GeneralizedLinearMixedModel.plot`.

    Raises
    ------
    ModelError
        If the picture or one of its options is not known.
    """
    kind = checked_choice(kind, "Picture", tuple(GENERALIZED_PICTURES))
    picture, own = GENERALIZED_PICTURES[kind]
    known = [n for n in inspect.signature(picture).parameters if n not in ("model", "fit", "ax")]
    for name in options:
        if name not in known:
            there_are = ", ".join(repr(each) for each in known) or "none"
            raise ModelError(f"Picture {kind!r} has no option {name!r}; there are: {there_are}.")
    drawn: Axes | NDArray[Any] = picture(fit, ax=ax, **{**own, **options})
    return drawn
