"""Comparisons of estimated marginal means, adjusted for how many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, plain
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.vocabulary import (
    BROOM_INTERVAL,
    FORMER_MEANS,
    former_interval,
    intervals_at,
)
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.frame.columns import labels_of
from mixedeffects.inference.estimability import Estimability
from mixedeffects.inference.estimates import Estimates
from mixedeffects.inference.grid_averages import GridAverage
from mixedeffects.inference.linear_functions import linear_estimates
from mixedeffects.inference.mean_contrasts import (
    METHODS,
    contrast_coefficients,
    interaction_coefficients,
    interaction_methods,
)
from mixedeffects.inference.multiplicity import ADJUSTMENTS, Family, adjusted_p, critical_values
from mixedeffects.inference.population_comparisons import as_parameters
from mixedeffects.inference.response_scale import ResponseScale
from mixedeffects.inference.variance import FixedEffectsVariance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mixedeffects.inference.effect_size import EffectSizes

__all__ = ["MeanComparisons", "Means", "compare_means", "compared"]

Matrix = NDArray[np.float64]

_ACROSS = ("bonferroni", "sidak", "holm", "fdr", "none")

#: What SAS, R and others call adjustments.
_ADJUST_ELSEWHERE = {
    "dunnett": "mvt",
    "dunnettx": "mvt",
    "simulate": "mvt",
    "single-step": "mvt",
    "hsd": "tukey",
    "bonf": "bonferroni",
    "bh": "fdr",
    "lsd": "none",
    "t": "none",
}


class Means(Protocol):
    """What is compared: means in groups, as linear functions of the fixed effects."""

    @property
    def name(self) -> str:
        """What they are means of."""
        ...

    @property
    def by(self) -> tuple[str, ...]:
        """Factors within whose levels means are compared."""
        ...

    @property
    def level(self) -> float:
        """Confidence level."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about the means."""
        ...

    @property
    def levels(self) -> pd.DataFrame:
        """Levels of each mean."""
        ...

    @property
    def average(self) -> GridAverage:
        """The grid, and how the means are made of its cells."""
        ...

    @property
    def L(self) -> pd.DataFrame:
        """The means as linear functions of the fixed effects."""
        ...

    @property
    def constant(self) -> Matrix:
        """What the offset adds to each."""
        ...

    @property
    def scale(self) -> ResponseScale:
        """The scale that estimates are shown on."""
        ...

    @property
    def estimates(self) -> Estimates:
        """The means."""
        ...

    @property
    def _beta(self) -> Matrix: ...

    @property
    def _variance(self) -> FixedEffectsVariance: ...

    @property
    def _fit(self) -> Fit: ...

    @property
    def _is_pooled(self) -> bool: ...

    @property
    def _estimability(self) -> Estimability: ...

    @property
    def _all_columns(self) -> Matrix: ...

    def to_frame(self) -> pd.DataFrame:
        """The table."""
        ...

    def groups(self) -> list[NDArray[np.intp]]:
        """Rows of each group."""
        ...

    def labels(self) -> list[str]:
        """What each mean is called within its group."""
        ...


@dataclass(frozen=True, eq=False)
class MeanComparisons:
    """Contrasts of estimated marginal means, made by `MarginalMeans.contrasts`.

    Attributes
    ----------
    labels : DataFrame
        One row per comparison: ``contrast``, or of interaction contrasts one column for each
        factor, such as ``recipe_pairwise``; and the levels of ``by``.
    L : DataFrame, shape (comparisons, p)
        As linear functions of the fixed effects; NaN for one that is not estimable.
    estimates : Estimates
        Estimates, standard errors and degrees of freedom, on the scale of the fit.
    p : ndarray
        Adjusted probabilities.
    half : ndarray
        Half-widths of the intervals, on the scale of the fit.
    level : float
        Confidence level.
    adjust : str
        How probabilities and intervals are adjusted.
    scale : ResponseScale
        The scale that the table is on.
    notes : tuple of str
        The same in words.

    Examples
    --------
    >>> import mixedeffects as me
    >>> cake = me.load_dataset("cake")
    >>> m = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
    >>> temperatures = m.emmeans("temperature")
    >>> temperatures.contrasts("poly").to_frame()
    contrast  estimate std_error    df statistic p_value conf_low conf_high
    linear      55.311     5.644 220.0      9.80 < 2e-16   44.188    66.434
    quadratic   -3.533     6.182 220.0     -0.57    .568  -15.718     8.651
    cubic       -7.356     9.050 220.0     -0.81    .417  -25.192    10.481
    quartic     -6.867     3.569 220.0     -1.92    .056  -13.901     0.168
    degree 5   -14.511    10.708 220.0     -1.36    .177  -35.615     6.593
    ---
    averaged over recipe, with equal weights
    p-values and intervals are not adjusted
    95 % intervals; t-tests use Satterthwaite's method
    """

    labels: pd.DataFrame
    L: pd.DataFrame
    estimates: Estimates
    p: Matrix
    half: Matrix
    level: float
    adjust: str
    scale: ResponseScale
    notes: tuple[str, ...]
    _fit: Fit
    _is_pooled: bool = False

    def to_frame(self) -> ResultTable:
        """Comparisons with tests and intervals.

        Returns
        -------
        DataFrame, one row per comparison
            ``contrast``, the factors of ``by``, ``estimate``, ``std_error``, ``df``,
            ``statistic``, ``p_value``, ``conf_low`` and ``conf_high``; NaN where a comparison is
            not estimable.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
        >>> m.emmeans("recipe").contrasts("trt.vs.ctrl").to_frame()
        contrast estimate std_error   df statistic p_value conf_low conf_high
        B - A      -1.478     2.456 42.0     -0.60    .773   -7.100     4.144
        C - A      -1.522     2.456 42.0     -0.62    .761   -7.144     4.100
        ---
        averaged over temperature, with equal weights
        p-values: multivariate t distribution, 2 comparisons
        95 % intervals (adjusted alike); t-tests use Satterthwaite's method
        """
        table = self.labels.copy()
        found, scale = self.estimates, self.scale
        table["estimate"] = scale.values(found.estimate)
        table["std_error"] = scale.errors(found.estimate, found.se)
        if self._fit.has_degrees_of_freedom or np.isfinite(found.df).any():
            table["df"] = found.df
        table["statistic"], table["p_value"] = found.t, self.p
        bounds = scale.bounds(found.estimate - self.half, found.estimate + self.half)
        for name, bound in zip(BROOM_INTERVAL, bounds, strict=True):
            table[name] = bound
        former = FORMER_MEANS | former_interval(self.level, BROOM_INTERVAL)
        return ResultTable.of(table, self.notes, former)

    def effect_size(
        self, sigma: str | float = "total", edf: float | None = None, level: float | None = None
    ) -> EffectSizes:
        """The comparisons in units of a standard deviation: Cohen's d.

        Parameters
        ----------
        sigma : {"total", "residual"} or float
            The standard deviation: of a response given the fixed effects, that is the root of the
            mean variance of all random effects and the residual; of the residual alone; or any
            other, such as that of a norming sample.
        edf : float, optional
            Degrees of freedom of ``sigma`` as an estimate. By default Satterthwaite's for those by
            name, and infinite for a number, which is then taken to be known.
        level : float, optional
            Confidence level; by default that of the comparisons.

        Returns
        -------
        EffectSizes
            Not adjusted for how many there are.

        Raises
        ------
        ModelError
            If ``sigma`` is neither a name nor a positive number, or ``edf`` is not positive.

        Notes
        -----
        With d the effect size and s the standard error of the comparison,
        ``se^2 = s^2 / sigma^2 + d^2 / (2 edf)``, as R's ``emmeans::eff_size`` has it.

        References
        ----------
        Hedges, L. V. (2007). Effect sizes in cluster-randomized designs. Journal of Educational
        and Behavioral Statistics 32, 341-370.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
        >>> m.emmeans("recipe").contrasts().effect_size()
        contrast estimate std_error   df conf_low conf_high
        A - B      0.1872    0.3115 42.0  -0.4415    0.8159
        A - C      0.1928    0.3115 42.0  -0.4359    0.8216
        B - C      0.0056    0.3112 42.0  -0.6223    0.6336
        ---
        in units of 7.894, the standard deviation of a response given the fixed effects, with ...
        95 % intervals, not adjusted
        """
        from mixedeffects.inference.effect_size import effect_sizes

        level = self.level if level is None else level
        if self._is_pooled and isinstance(sigma, str):
            raise ModelError(
                f"Pooled fits have no standard deviation {sigma!r:.40}. Give a number, such as "
                "sigma=pooled.varcorr.sigma, and edf= unless it is to be taken as known."
            )
        return effect_sizes(self._fit, self.labels, self.estimates, sigma, edf, level)

    def plot(self, ax: Any = None) -> Axes:
        """Draw the comparisons with their intervals beside zero; ratios beside one.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure unless given.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from mixedeffects.inference.mean_comparisons_plot import draw_comparisons

        simultaneous = self.adjust != "none"
        ratios = self.scale.gives_ratios
        return draw_comparisons(
            self.to_frame(), self.labels, self.scale.shown, self.level, simultaneous, ratios, ax
        )

    def __repr__(self) -> str:
        return repr(self.to_frame())

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())


def compare_means(
    means: Means,
    method: Any,
    adjust: str | None,
    reference: Any,
    interaction: Any = False,
    cross_adjust: Any = None,
) -> MeanComparisons:
    """See `MarginalMeans.contrasts`."""
    means = as_parameters(means)
    interaction = plain(interaction)
    products = interaction is not False and interaction is not None
    # Tukey's adjustment is no more for products of differences than for contrasts of one's own.
    adjust = _adjustment({} if products else method, adjust)
    across = _cross_adjustment(cross_adjust, means.by)
    groups = means.groups()
    # Where factors are nested, some groups have other means than others, or one only.
    several = [rows for rows in groups if len(rows) > 1] or groups[:1]
    sign = "/" if means.scale.of_differences(np.zeros(1)).gives_ratios else "-"
    if products:
        made = _products(means, several, method, interaction, reference, sign)
    else:
        labels = means.labels()
        made = []
        for rows in groups if isinstance(method, Mapping) else several:
            shown = [labels[i] for i in rows]
            names, C = contrast_coefficients(method, shown, reference, sign)
            made.append((rows, {"contrast": names}, C))
    L = np.vstack([compared(means, C, rows) for rows, _, C in made])
    constant = np.concatenate([C @ means.constant[rows] for rows, _, C in made])
    found = linear_estimates(means._beta, means._variance, L, constant)

    p, half = np.empty(len(L)), np.empty(len(L))
    start = 0
    for _, _, C in made:
        own = slice(start, start + len(C))
        start += len(C)
        root = L[own] @ means._variance.root
        # Means that nothing can be compared with are not part of the family.
        some = int((C[np.isfinite(found.p[own])] != 0.0).any(axis=0).sum())
        family = Family(found.t[own], found.df[own], found.p[own], root, some)
        p[own] = adjusted_p(adjust, family)
        half[own] = critical_values(adjust, family, means.level) * found.se[own]

    shapes = [C.shape for _, _, C in made]
    scale = means.scale.of_differences(np.concatenate([C.sum(axis=1) for _, _, C in made]))
    notes = _notes(means, adjust, shapes, int(np.isnan(L).any(axis=1).sum()), scale)
    if across != "none":
        p = _adjusted_across(across, p, [count for count, _ in shapes])
        notes = (*notes[:-1], f"then across groups: {ADJUSTMENTS[across]}", notes[-1])
    table = pd.concat([pd.DataFrame(names) for _, names, _ in made], ignore_index=True)
    first = np.repeat([rows[0] for rows, _, _ in made], [count for count, _ in shapes])
    for name in means.by:
        table[name] = means.levels[name].take(first).array
    within = [" ".join(map(str, row)) for row in table.itertuples(index=False)]
    return MeanComparisons(
        labels=table,
        L=pd.DataFrame(L, within, means.L.columns),
        estimates=found,
        p=p,
        half=half,
        level=means.level,
        adjust=adjust,
        scale=scale,
        notes=notes,
        _fit=means._fit,
        _is_pooled=means._is_pooled,
    )


def _products(
    means: Means, groups: Sequence[Any], method: Any, interaction: Any, reference: Any, sign: str
) -> list[tuple[Any, dict[str, list[str]], Matrix]]:
    """Interaction contrasts within each group: rows, a name per factor, coefficients."""
    if reference is not None:
        raise ModelError(
            "reference= is for contrasts of one factor, not for interaction contrasts."
        )
    factors = [str(name) for name in means.levels if name not in means.by]
    methods = interaction_methods(interaction, method, factors)
    columns = [
        f"{name}_{own if isinstance(own, str) else 'custom'}"
        for name, own in zip(factors, methods, strict=True)
    ]
    made = []
    for rows in groups:
        levels = [labels_of(means.levels[name].iloc[rows].unique().tolist()) for name in factors]
        if math.prod(map(len, levels)) != len(rows):
            raise ModelError(
                "Interaction contrasts need a mean for every combination of "
                f"{' and '.join(factors)}; here some do not exist, because factors are nested. Put "
                "the containing factor into by=."
            )
        names, C = interaction_coefficients(methods, levels, sign)
        made.append((rows, dict(zip(columns, names, strict=True)), C))
    return made


def _cross_adjustment(chosen: Any, by: Sequence[str]) -> str:
    if chosen is None:
        return "none"
    across = checked_choice(chosen, "cross_adjust", _ACROSS)
    if across != "none" and not by:
        raise ModelError(
            "cross_adjust is for comparisons within the levels of by=; these means have no by, so "
            "use adjust=."
        )
    return across


def _adjusted_across(method: str, p: Matrix, counts: Sequence[int]) -> Matrix:
    """Adjust each comparison for being made in every group, whatever it was adjusted for before."""
    if len(set(counts)) > 1:
        raise ModelError(
            "cross_adjust needs the same comparisons in every group of by=; here groups have "
            f"{min(counts)} to {max(counts)}."
        )
    out = np.empty_like(p)
    for i in range(counts[0]):
        own = p[i :: counts[0]]
        unknown = np.full(len(own), np.nan)
        family = Family(unknown, unknown, own, np.zeros((len(own), 0)), len(own))
        out[i :: counts[0]] = adjusted_p(method, family)
    return out


def _adjustment(method: Any, adjust: Any) -> str:
    if adjust is None:
        known = isinstance(method, str) and method in METHODS
        return METHODS[method] if known else "none"
    given = plain(adjust)
    lowered = given.lower() if isinstance(given, str) else given
    if isinstance(lowered, str):
        given = _ADJUST_ELSEWHERE.get(lowered, lowered if lowered in ADJUSTMENTS else given)
    chosen = checked_choice(given, "adjust", tuple(ADJUSTMENTS))
    if chosen == "tukey" and (isinstance(method, Mapping) or "pairwise" not in str(method)):
        raise ModelError(
            "Tukey's adjustment is for all pairwise differences; for other contrasts use "
            "adjust='mvt', which takes their correlations into account."
        )
    return chosen


def compared(means: Means, C: Matrix, rows: NDArray[np.intp]) -> Matrix:
    """Rows of comparisons C of these means, over the fixed effects; NaN if not estimable."""
    L = means.L.to_numpy()[rows]
    if np.isfinite(L).all():
        # Where every mean is estimable there is nothing more to check.
        return np.asarray(C @ L)
    return means._estimability.reduce(C @ means._all_columns[rows])


def _notes(
    means: Means, adjust: str, shapes: Sequence[tuple[int, ...]], lost: int, scale: ResponseScale
) -> tuple[str, ...]:
    count, k = max(shapes)
    notes = list(means.notes[:-1])
    of_means = means.scale.notes(means.estimates.estimate)
    notes = [note for note in notes if "not estimable" not in note and note not in of_means]
    notes += [scale.hint] if scale.hint else []
    if lost:
        notes.append(f"{lost} comparisons are not estimable")
    within = f" within each {' '.join(means.by)}" if means.by else ""
    most = "at most " if lost or len(set(shapes)) > 1 else ""
    family = f"{most}{k} means" if adjust == "tukey" else f"{most}{count} comparisons"
    if adjust == "none":
        notes.append("p-values and intervals are not adjusted")
    else:
        notes.append(f"p-values: {ADJUSTMENTS[adjust]}, {family}{within}")
    own = adjust not in ("none", "holm", "fdr")
    how = "" if adjust == "none" else " (adjusted alike)" if own else " (Bonferroni's)"
    return (*notes, f"{intervals_at(means.level)}{how}; {means._variance.method}")
