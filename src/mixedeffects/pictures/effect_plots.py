"""Effects of a fit as pictures: of chosen variables, or of all terms of the fixed part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from mixedeffects.base.default_ddf import ddf_of_the_fit
from mixedeffects.display.curves import room_below
from mixedeffects.display.needs_matplotlib import require_matplotlib
from mixedeffects.display.panels import as_pictures, axes_for, one_axes
from mixedeffects.display.points import say_nothing_to_draw
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.formula.syntax import variable_names
from mixedeffects.inference.effects import Effects
from mixedeffects.inference.effects import effects as effects_of
from mixedeffects.inference.means_layout import layout_of_means
from mixedeffects.pictures.door import of_any_fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TermEffect", "effects", "term_effects"]

#: Panels that are drawn where nobody chose variables.
_PANELS = 12


@ddf_of_the_fit
@of_any_fit
def effects(
    fit: Fit,
    *,
    variables: Any = None,
    by: Any = None,
    at: Mapping[str, Any] | None = None,
    weights: str = "equal",
    level: float = 0.95,
    ddf: str = "satterthwaite",
    vcov: str = "model",
    cluster: Any = None,
    type: str = "link",
    data: bool | str = False,
    groups: Any = None,
    factor: str | None = None,
    ax: Any = None,
) -> Axes | NDArray[Any]:
    """Draw the effects of variables, or of every term of the fixed part that is in no other.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    variables, by, at, weights, level, ddf, vcov, cluster, type
        As for `LinearMixedModel.effects`. Without ``variables`` each term has its picture: a number
        along the axis, a second variable in colours, further ones as panels.
    data, groups, factor
        As for ``Effects.plot``.
    ax : matplotlib Axes, or several, optional
        Where to draw, one for each panel; by default a new figure.

    Returns
    -------
    matplotlib Axes, or an array of them
        An array where there are several panels.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ModelError
        As for `LinearMixedModel.effects` and ``Effects.plot``.

    References
    ----------
    Fox, J. (2003). Effect displays in R for generalised linear models. Journal of Statistical
    Software 8(15).

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> ax = me.plot.effects(m, variables="Days", groups="all", ax=Figure().subplots())
    >>> ax.get_ylabel()
    'Reaction'
    """
    require_matplotlib()
    asked = (at, weights, level, ddf, vcov, cluster, "none", type, False, None)
    if variables is not None:
        found = effects_of(fit, variables, by, *asked)
        picture: Axes | NDArray[Any] = found.plot(ax, data=data, groups=groups, factor=factor)
        return picture
    if by is not None:
        raise ModelError("by= makes panels of the effects of variables=; name these too.")
    terms = term_effects(fit)
    if not terms:
        sentence = "The fixed part has no variable, so there are no effects to draw."
        empty: Axes = say_nothing_to_draw(one_axes(ax), "Effects", sentence)
        return empty
    drawn = [effects_of(fit, each.variables, each.by, *asked) for each in terms]
    counts = [_panels(each) for each in drawn]
    if sum(counts) > _PANELS:
        raise ModelError(
            f"The terms of the fixed part have {sum(counts)} panels, more than {_PANELS}; choose "
            "some with variables=."
        )
    wide, high = (5.6, 3.9) if sum(counts) == 1 else (2.9, 2.6)
    below = max(room_below(layout_of_means(e.means).categories, wide) for e in drawn)
    axes, _ = axes_for(sum(counts), ax, (wide, high + below), 2)
    start = 0
    for each, count in zip(drawn, counts, strict=True):
        own: Any = axes[start : start + count]
        each.plot(own if each.by else own[0], data=data, groups=groups, factor=factor)
        start += count
    return axes[0] if len(axes) == 1 else as_pictures(axes)


def _panels(found: Effects) -> int:
    levels = found.means.levels
    return len(levels[list(found.by)].drop_duplicates()) if found.by else 1


@dataclass(frozen=True)
class TermEffect:
    """How a term is drawn: its variables along the axis and in colours, and those in panels."""

    variables: tuple[str, ...]
    by: tuple[str, ...]


def term_effects(fit: Fit) -> list[TermEffect]:
    """The terms of the fixed part that are in no other, as pictures; none without variables."""
    found: list[tuple[str, ...]] = []
    for names in _variables_of_terms(fit):
        if names and not any(set(names) <= set(other) for other in found):
            inside = [other for other in found if set(other) <= set(names)]
            # In the place of the first term that it has in it.
            place = found.index(inside[0]) if inside else len(found)
            found.insert(place, names)
            found = [other for other in found if other not in inside]
    numbers = _numbers(fit)
    out = []
    for names in found:
        ordered = sorted(names, key=lambda name: name not in numbers)
        out.append(TermEffect(tuple(ordered[:2]), tuple(ordered[2:])))
    return out


def _variables_of_terms(fit: Fit) -> Iterator[tuple[str, ...]]:
    encoder = fit.frame.fixed_encoder
    if encoder is None:
        return
    columns = list(fit.frame.data.columns)
    for term in encoder.table.terms:
        names = [n for i in term for n in variable_names(encoder.coders[i].tree) if n in columns]
        yield tuple(dict.fromkeys(names))


def _numbers(fit: Fit) -> set[str]:
    """The variables that the fixed part has as numbers."""
    encoder = fit.frame.fixed_encoder
    if encoder is None:
        return set()
    coded = {n for c in encoder.coders if c.kind != "numeric" for n in variable_names(c.tree)}
    return {n for c in encoder.coders for n in variable_names(c.tree)} - coded
