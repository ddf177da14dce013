"""Effects: marginal predictions over a grid of one or several variables of the fixed part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import checked_names
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.fitting.data_summary import data_summary
from mixedeffects.fitting.fit import Fit
from mixedeffects.frame.data_summary import DataSummary
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.inference.estimability import all_columns
from mixedeffects.inference.marginal_means import MarginalMeans, marginal_means
from mixedeffects.inference.reference_grid import (
    ReferenceGrid,
    made_a_factor,
    reference_grid,
    stepped_range,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Effects", "effects", "even_steps"]

Matrix = NDArray[np.float64]

#: A curve has at least so many steps, and at most twice as many and a half.
_STEPS = 25
#: A number with no more values than this is taken at all of them where it makes lines or panels.
_FEW = 5
#: Rows of a curve that are printed.
_PRINTED = 8


@dataclass(frozen=True, eq=False)
class Effects:
    """Predictions of the population over a grid, made by `LinearMixedModel.effects`.

    Attributes
    ----------
    variables : tuple of str
        The variables; the first is drawn along the axis, the others in colours.
    by : tuple of str
        Those that make panels.
    means : MarginalMeans
        The same as estimated marginal means.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> days = m.effects("Days")
    >>> days.to_frame().shape
    (37, 6)
    """

    variables: tuple[str, ...]
    by: tuple[str, ...]
    means: MarginalMeans
    _fit: Fit

    @property
    def response(self) -> str:
        """What the predictions are of."""
        return self.means.scale.shown

    @property
    def level(self) -> float:
        """Confidence level."""
        return self.means.level

    @property
    def notes(self) -> tuple[str, ...]:
        """Averages taken, values held, and what to beware of."""
        return self.means.notes

    def to_frame(self) -> ResultTable:
        """The predictions with standard errors and intervals.

        Returns
        -------
        DataFrame, one row per point of the grid
            The variables, ``estimate``, ``std_error``, ``df``, ``conf_low``, ``conf_high``; NaN
            where the data do not determine a prediction.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.effects("Days", at={"Days": slice(0, 9, 3)}).to_frame()
        Days estimate std_error   df conf_low conf_high
           0  251.405     6.825 17.0  237.007   265.804
           3  282.807     7.705 17.0  266.550   299.064
           6  314.209    10.732 17.0  291.566   336.852
           9  345.611    14.629 17.0  314.747   376.475
        ---
        95 % intervals; t-tests use Satterthwaite's method
        """
        return self.means.to_frame()

    def plot(
        self,
        ax: Any = None,
        *,
        data: bool | str = False,
        groups: Any = None,
        factor: str | None = None,
    ) -> Axes | NDArray[Any]:
        """Draw the effects: a line with a band for a number, points with bars for a factor.

        The first variable lies along the axis, others have colours and kinds of line, and those of
        ``by`` make panels with the same axes.

        Parameters
        ----------
        ax : matplotlib Axes, or several, optional
            Where to draw, one for each panel; a new figure unless given.
        data : bool or "partial"
            The rows of the data behind the lines: True draws their responses, ``"partial"`` partial
            residuals, which are the effect at the row and its conditional residual. A row belongs
            to the line of its own level, or of the nearest value of a number. Responses are shown
            as they would be at the offset or exposure of the effects: counts in proportion to it.
        groups : "all", int or list, optional
            The lines of the levels of a grouping factor: all of them, so many spread evenly, or
            these. Each is the effect and what the level's random effects add to it, over the
            range of the level's own rows.
        factor : str, optional
            Whose levels ``groups`` draws; by default the grouping factor with most levels. Random
            effects of factors that it is nested in count too.

        Returns
        -------
        matplotlib Axes, or an array of them
            An array if ``by`` makes panels.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ModelError
            If an option is not what it should be.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> ax = m.effects("Days").plot(Figure().subplots(), data=True, groups="all")
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('Days', 'Reaction')
        """
        from mixedeffects.inference.effects_plot import draw_effects

        return draw_effects(self.means, self.to_frame(), self._fit, ax, data, groups, factor)

    def _printed(self) -> ResultTable:
        """The table, of a curve some points."""
        table = self.to_frame()
        x = table[self.variables[0]]
        if isinstance(x.dtype, pd.CategoricalDtype):
            return table
        points = np.unique(x.to_numpy(dtype=np.float64))
        chosen = _printed_points(points)
        if len(chosen) == len(points):
            return table
        some = table[x.isin(chosen)].reset_index(drop=True)
        thinned = f"{len(some)} of {len(table)} points of the grid; see .to_frame()"
        return ResultTable.of(pd.DataFrame(some), (thinned, *self.notes))

    def __repr__(self) -> str:
        return repr(self._printed())

    def _repr_html_(self) -> str:
        return str(self._printed()._repr_html_())


def effects(
    fit: Fit,
    variables: Any,
    by: Any,
    at: Any,
    weights: str,
    level: float,
    ddf: str,
    vcov: str,
    cluster: Any,
    adjust: str,
    type: Any,
    bias_adjust: Any,
    sigma: Any,
    marginal: Any = False,
) -> Effects:
    """See `LinearMixedModel.effects`."""
    own = checked_names(variables, "variables")
    if not own:
        raise ModelError(
            "effects needs the name of a variable of the fixed part; one mean of all is "
            "m.emmeans([])."
        )
    groups = [] if by is None else checked_names(by, "by")
    chosen = _grid_values(fit, own, groups, at)
    means = marginal_means(
        fit, own, groups or None, chosen, weights, level, ddf, vcov, cluster, adjust, None,
        type, bias_adjust, sigma, None, marginal,
    )  # fmt: skip
    shown = tuple(str(name) for name in means.levels if name not in means.by)
    return Effects(shown, means.by, means, fit)


def _grid_values(fit: Fit, own: list[Any], groups: list[Any], at: Any) -> dict[str, Any] | None:
    """The values of each variable: those of ``at``, or chosen over the range of the data."""
    if at is not None and not isinstance(at, Mapping):
        # Refused where means are made, in the same words.
        return at  # type: ignore[no-any-return]
    given = dict(at or {})
    encoder, summary = all_columns(fit), data_summary(fit)
    listed = {name: each for name, each in given.items() if not isinstance(each, slice)}
    grid = reference_grid(fit, encoder, listed)
    # Those of levels, and of what is no variable, are read where means are made.
    spans = {
        name: each
        for name, each in given.items()
        if name not in listed and name in grid.names and _is_number(grid, name, encoder)
    }
    out: dict[str, Any] = {name: each for name, each in given.items() if name not in spans}
    for name, span in spans.items():
        out[name] = _spanned(name, span)
    for i, name in enumerate([*own, *groups]):
        if name in given or name not in grid.names:
            continue
        if not _is_number(grid, name, encoder):
            continue
        out[name] = _along_axis(summary, name) if i == 0 else _of_lines(summary, name)
    return out


def _is_number(grid: ReferenceGrid, name: str, encoder: DesignEncoder) -> bool:
    """Whether a variable has values between those of the data."""
    return grid[name].kind == "number" and not made_a_factor(name, encoder)


def _along_axis(summary: DataSummary, name: str) -> list[float]:
    number = summary.number(name)
    assert number is not None
    # Where there are more than two values, their mean is one between.
    return even_steps(np.array(number.few or (number.low, number.mean, number.high)))


def even_steps(values: Matrix) -> list[float]:
    """Round numbers from the smallest value to the largest, and these two; 26 to 53 of them.

    Examples
    --------
    >>> import numpy as np
    >>> even_steps(np.arange(10.0))[:4]
    [0.0, 0.25, 0.5, 0.75]
    """
    different = np.unique(values)
    if len(different) <= 2:
        return [float(each) for each in different]
    return _stepped(float(different[0]), float(different[-1]))


def _printed_points(points: Matrix) -> Matrix:
    """Some of many points: the round ones among them, and both ends."""
    if len(points) <= 2 * _PRINTED:
        return points
    power = 10.0 ** np.floor(np.log10(points[-1] - points[0]) - 2.0)
    for step in (f * power * ten for ten in (1.0, 10.0, 100.0) for f in (1.0, 2.0, 5.0)):
        round_ones = np.abs(points / step - np.round(points / step)) < 1e-9
        round_ones[[0, -1]] = True
        if round_ones.sum() <= 1.5 * _PRINTED:
            return np.asarray(points[round_ones])
    return np.asarray(points[[0, -1]])


def _stepped(low: float, high: float) -> list[float]:
    power = 10.0 ** np.floor(np.log10((high - low) / _STEPS))
    step = max(
        f * power
        for f in (1.0, 2.0, 2.5, 5.0)
        if (high - low) / (f * power) >= _STEPS * (1.0 - 1e-9)
    )
    inside = np.arange(np.floor(low / step) + 1.0, np.ceil(high / step)) * step
    # Multiples of a step are round numbers but for the last digits.
    decimals = int(max(0.0, 2.0 - np.log10(step)))
    inside = np.round(inside, decimals)
    between = [float(each) for each in inside if low < each < high]
    return [low, *between, high]


def _of_lines(summary: DataSummary, name: str) -> list[float]:
    """All values where there are few, else their quartiles."""
    different = summary.distinct(name, _FEW)
    return few_values(
        summary.quantiles(name, (0.25, 0.5, 0.75)) if different is None else different
    )


def few_values(values: Matrix) -> list[float]:
    """Different values, sorted."""
    return [float(each) for each in np.unique(values)]


def _spanned(name: str, span: slice) -> list[float]:
    ends = (span.start, span.stop)
    numbers = [each for each in (*ends, span.step) if each is not None]
    real = all(isinstance(each, (int, float, np.integer, np.floating)) for each in numbers)
    if None in ends or not real or not np.isfinite(numbers).all() or not ends[0] < ends[1]:
        raise ModelError(
            f"at: a range of {name!r} is slice(low, high) or slice(low, high, step), with numbers "
            f"that rise; not {span!r:.60}."
        )
    low, high = float(span.start), float(span.stop)
    if span.step is None:
        return _stepped(low, high)
    return stepped_range(name, low, high, float(span.step))
