"""Estimated marginal means and trends: predictions over a reference grid, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.base.habits import OF_MEANS, unknown_attribute
from mixedeffects.base.options import checked_level
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.vocabulary import (
    BROOM_INTERVAL,
    FORMER_MEANS,
    former_interval,
    intervals_at,
)
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import generalized
from mixedeffects.frame.columns import labels_of
from mixedeffects.inference.contrasts import listed_names
from mixedeffects.inference.estimability import (
    Estimability,
    all_columns,
    estimable_functions,
)
from mixedeffects.inference.estimates import Estimates
from mixedeffects.inference.grid_averages import (
    WEIGHTS,
    GridAverage,
    cell_shares,
    grid_notes,
    slope_rows,
)
from mixedeffects.inference.linear_functions import linear_estimates
from mixedeffects.inference.multiplicity import ADJUSTMENTS, Family, critical_values
from mixedeffects.inference.nested_factors import (
    find_nesting,
    nested_weights,
    with_containing,
)
from mixedeffects.inference.reference_grid import ReferenceGrid, no_such_variable, reference_grid
from mixedeffects.inference.response_scale import ResponseScale
from mixedeffects.inference.scale_of_means import averaged_scale, scale_of_means
from mixedeffects.inference.specs_in_words import specs_in_words
from mixedeffects.inference.variance import FixedEffectsVariance
from mixedeffects.inference.variance_by_name import fixed_effects_variance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mixedeffects.inference.mean_comparisons import MeanComparisons

__all__ = ["MarginalMeans", "marginal_means"]

Matrix = NDArray[np.float64]

_OWN_COLUMNS = (
    "contrast",
    "estimate",
    "std_error",
    "df",
    "statistic",
    "p_value",
    *BROOM_INTERVAL,
)
_FOR_MEANS = ("none", "bonferroni", "sidak", "mvt")


@dataclass(frozen=True, eq=False)
class MarginalMeans:
    """Estimated marginal means, or trends, with what comparisons of them need.

    Made by `LinearMixedModel.emmeans` and `LinearMixedModel.emtrends`.

    Attributes
    ----------
    name : str
        What is estimated: ``"emmean"``, or the variable's name with ``".trend"``.
    levels : DataFrame
        One row per mean: the levels or values it belongs to.
    by : tuple of str
        The columns of ``levels`` within whose combinations means are compared.
    L : DataFrame, shape (means, p)
        The means as linear functions of the fixed effects; NaN for one that is not estimable.
    constant : ndarray, shape (means,)
        The offset, averaged like the predictions.
    estimates : Estimates
        Estimates, standard errors and degrees of freedom, on the scale of the fit.
    level : float
        Confidence level.
    adjust : str
        How the intervals are adjusted for there being several: ``"none"`` or a method's name.
    notes : tuple of str
        Averages taken, values held, and what to beware of.
    scale : ResponseScale
        The scale that the table is on.
    average : GridAverage
        The reference grid, and how the means are made of its cells.
    compared : str or None
        The method of comparisons that stands before ``~`` in ``specs``.

    Examples
    --------
    >>> import mixedeffects as me
    >>> cake = me.load_dataset("cake")
    >>> m = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
    >>> m.emmeans("recipe").to_frame()
    recipe estimate std_error   df conf_low conf_high
    A        33.122     1.737 42.0   29.617    36.627
    B        31.644     1.737 42.0   28.139    35.150
    C        31.600     1.737 42.0   28.095    35.105
    ---
    averaged over temperature, with equal weights
    95 % intervals; t-tests use Satterthwaite's method
    """

    name: str
    levels: pd.DataFrame
    by: tuple[str, ...]
    L: pd.DataFrame
    constant: Matrix
    estimates: Estimates
    level: float
    adjust: str
    notes: tuple[str, ...]
    scale: ResponseScale
    _all_columns: Matrix
    _estimability: Estimability
    _beta: Matrix
    _variance: FixedEffectsVariance
    _fit: Fit
    average: GridAverage
    compared: str | None = None
    _is_pooled: bool = False

    def to_frame(self) -> ResultTable:
        """Means with standard errors, degrees of freedom and intervals.

        Returns
        -------
        DataFrame, one row per mean
            The factors, ``estimate``, ``std_error``, ``df``, ``conf_low`` and ``conf_high``; NaN
            where a mean is not estimable.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.emmeans("Days", at={"Days": [0, 5]}).to_frame()
        Days estimate std_error   df conf_low conf_high
           0  251.405     6.825 17.0  237.007   265.804
           5  303.742     9.581 17.0  283.527   323.956
        ---
        95 % intervals; t-tests use Satterthwaite's method
        """
        table = self.levels.copy()
        found, scale = self.estimates, self.scale
        table["estimate"] = scale.values(found.estimate)
        table["std_error"] = scale.errors(found.estimate, found.se)
        if not self._variance.normal:
            table["df"] = found.df
        half = np.full(len(table), np.nan)
        for rows in self.groups():
            half[rows] = critical_values(self.adjust, self._family(rows), self.level)
        half *= found.se
        bounds = scale.bounds(found.estimate - half, found.estimate + half)
        for name, bound in zip(BROOM_INTERVAL, bounds, strict=True):
            table[name] = bound
        former = {**FORMER_MEANS, self.name: "estimate"}
        return ResultTable.of(
            table, self.notes, former | former_interval(self.level, BROOM_INTERVAL)
        )

    def groups(self) -> list[NDArray[np.intp]]:
        """Rows of the means that are compared with each other, one array per level of ``by``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
        >>> m.emmeans("recipe", by="temperature").groups()[1]
        array([3, 4, 5])
        """
        every = np.arange(len(self.levels))
        if not self.by:
            return [every]
        numbers = self.levels.groupby(list(self.by), sort=False, observed=True).ngroup()
        return [every[numbers == g] for g in range(int(numbers.max()) + 1)]

    def labels(self) -> list[str]:
        """Label of each mean within its group; numbers follow the name of their variable.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
        >>> m.emmeans("recipe").labels()
        ['A', 'B', 'C']
        """
        return _joined(self.levels.drop(columns=list(self.by)))

    def _family(self, rows: NDArray[np.intp]) -> Family:
        found = self.estimates
        L = self.L.to_numpy()[rows]
        return Family(
            found.t[rows], found.df[rows], found.p[rows], L @ self._variance.root, len(rows)
        )

    def contrasts(
        self,
        method: Any = "pairwise",
        adjust: str | None = None,
        reference: Any = None,
        interaction: Any = False,
        cross_adjust: str | None = None,
    ) -> MeanComparisons:
        """Compare the means, within each level of ``by`` by themselves.

        Parameters
        ----------
        method : str or mapping
            ``"pairwise"`` (all differences), ``"revpairwise"`` (the same with signs changed),
            ``"trt.vs.ctrl"`` (each against a control), ``"consec"`` (each against the one before),
            ``"eff"`` (each against the average of all), ``"poly"`` (orthogonal polynomials of
            equally spaced levels, to degree 6), or a mapping of labels to coefficients: a vector
            with one for each mean of a group, or a mapping of the means' labels to numbers.
        adjust : str, optional
            ``"tukey"``, ``"mvt"`` (multivariate t with the correlations of the estimates),
            ``"scheffe"``, ``"bonferroni"``, ``"sidak"``, ``"holm"``, ``"fdr"`` or ``"none"``. By
            default Tukey's for the pairwise methods, mvt for ``"trt.vs.ctrl"`` and ``"consec"``,
            fdr for ``"eff"``, none for others. Intervals are adjusted alike; those of Holm's method
            and of the false discovery rate, which have none, are Bonferroni's.
        reference : str, optional
            The control of ``"trt.vs.ctrl"``, by its label; the first mean unless given.
        interaction : bool, str, mapping, or one of these for each factor
            Interaction contrasts: products of contrasts of the factors in ``specs``, such as
            differences of differences. True takes ``method`` for every factor;
            ``("pairwise", "poly")`` has one for each. By default not adjusted.
        cross_adjust : {"bonferroni", "sidak", "holm", "fdr"}, optional
            With ``by``: adjust each comparison also for being made in every group, after
            ``adjust``. Intervals are not.

        Returns
        -------
        MeanComparisons

        Raises
        ------
        ModelError
            If a name is not known, coefficients do not fit the means, or there is only one mean.

        Notes
        -----
        A family is the comparisons within one level of ``by`` that can be made. A comparison can be
        estimable where its means are not; one that is not estimable does not count, nor does a
        mean that nothing can be compared with (in R's emmeans they count, so that there adjusted
        values are larger where something is not estimable).

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
        >>> m.emmeans("recipe").contrasts().to_frame()
        contrast estimate std_error   df statistic p_value conf_low conf_high
        A - B       1.478     2.456 42.0      0.60    .820   -4.490     7.445
        A - C       1.522     2.456 42.0      0.62    .810   -4.445     7.490
        B - C       0.044     2.456 42.0      0.02   1.000   -5.923     6.012
        ---
        averaged over temperature, with equal weights
        p-values: Tukey's studentized range, 3 means
        95 % intervals (adjusted alike); t-tests use Satterthwaite's method

        Whether the linear trend over temperatures differs between recipes:

        >>> import pandas as pd
        >>> crossed = me.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
        >>> both = crossed.emmeans(["recipe", "temperature"])
        >>> products = both.contrasts(interaction=("pairwise", "poly"))
        >>> pd.DataFrame(products.to_frame()).iloc[:3, :3].round(2)
          recipe_pairwise temperature_poly  estimate
        0           A - B           linear     -3.80
        1           A - C           linear     -0.73
        2           B - C           linear      3.07
        """
        from mixedeffects.inference.mean_comparisons import compare_means

        return compare_means(self, method, adjust, reference, interaction, cross_adjust)

    def letters(
        self, level: float | None = None, adjust: str | None = None, reverse: bool = False
    ) -> ResultTable:
        """The means with letters: two share one exactly where they do not differ significantly.

        Parameters
        ----------
        level : float, optional
            One minus the level of the tests; by default that of the means.
        adjust : str, optional
            As for `contrasts`; by default Tukey's adjustment of all pairwise differences.
        reverse : bool
            Give the first letters to the largest means.

        Returns
        -------
        DataFrame, one row per mean
            That of `to_frame` with a column ``letters``, empty where a mean is not estimable.
            Within each level of ``by`` the letters begin anew.

        Raises
        ------
        ModelError
            If an option is not known, or there are too many different letters.

        References
        ----------
        Piepho, H.-P. (2004). An algorithm for a letter-based representation of all-pairwise
        comparisons. Journal of Computational and Graphical Statistics 13, 456-466.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
        >>> m.emmeans("temperature").letters()
        temperature estimate std_error   df conf_low conf_high letters
        175           27.978     1.177 77.5   25.635    30.321 a
        185           29.956     1.177 77.5   27.613    32.298 ab
        195           31.422     1.177 77.5   29.079    33.765 b
        205           32.178     1.177 77.5   29.835    34.521 b
        215           35.844     1.177 77.5   33.502    38.187 c
        225           35.356     1.177 77.5   33.013    37.698 c
        ---
        averaged over recipe, with equal weights
        95 % intervals; t-tests use Satterthwaite's method
        letters: means that share one do not differ at the level 5 % (Tukey's studentized range)
        """
        from mixedeffects.inference.letters import mean_letters

        return mean_letters(self, level, adjust, reverse)[0]

    def plot(
        self,
        ax: Any = None,
        *,
        lines: bool | None = None,
        arrows: bool = False,
        letters: bool = False,
    ) -> Axes | NDArray[Any]:
        """Draw the means with their intervals.

        The first factor lies along the axis, others have colours and lines between their means,
        and those of ``by`` make panels with the same axes.

        Parameters
        ----------
        ax : matplotlib Axes, or several, optional
            Where to draw, one for each panel; a new figure unless given.
        lines : bool, optional
            Join the means of a colour; by default where there are several, or values of a number.
        arrows : bool
            Draw arrows from each mean: two that face each other overlap where the means do not
            differ significantly, by Tukey's test.
        letters : bool
            Write the letters of `letters` above the intervals.

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

        References
        ----------
        Andrews, H. P., Snee, R. D. and Sarner, M. H. (1980). Graphical display of means. The
        American Statistician 34, 195-199.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
        >>> ax = m.emmeans(["temperature", "recipe"]).plot(Figure().subplots())
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('temperature', 'angle')
        """
        from mixedeffects.inference.marginal_means_plot import draw_means

        return draw_means(self, ax, lines, arrows, letters)

    @cached_property
    def comparisons(self) -> MeanComparisons | None:
        """Those that the left side of ``"pairwise ~ x"`` asks for; None without one.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
        >>> list(m.emmeans("pairwise ~ recipe").comparisons.to_frame()["contrast"])
        ['A - B', 'A - C', 'B - C']
        """
        return None if self.compared is None else self.contrasts(self.compared)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise unknown_attribute(name, "A table of marginal means", OF_MEANS, dir(self))

    def __repr__(self) -> str:
        own = repr(self.to_frame())
        return own if self.comparisons is None else f"{own}\n\n{self.comparisons!r}"

    def _repr_html_(self) -> str:
        own = str(self.to_frame()._repr_html_())
        return own if self.comparisons is None else f"{own}\n{self.comparisons._repr_html_()}"


def marginal_means(
    fit: Fit,
    specs: Any,
    by: Any,
    at: Any,
    weights: str,
    level: float,
    ddf: str,
    vcov: str,
    cluster: Any,
    adjust: str,
    trend: str | None = None,
    type: Any = "link",
    bias_adjust: Any = False,
    sigma: Any = None,
    pooled: tuple[Matrix, FixedEffectsVariance] | None = None,
    marginal: Any = False,
) -> MarginalMeans:
    """See `LinearMixedModel.emmeans`, and `LinearMixedModel.emtrends` for ``trend``.

    ``pooled`` are estimates and their variance that stand for several fits like this one.
    """
    level = checked_level(level)
    if not isinstance(weights, str) or weights not in WEIGHTS:
        raise ModelError(
            f"weights {weights!r} are not known; there are {listed_names(list(WEIGHTS))}."
        )
    if not isinstance(adjust, str) or adjust not in _FOR_MEANS:
        raise ModelError(
            f"adjust {adjust!r} is not known for the intervals of means; there are "
            f"{listed_names(_FOR_MEANS)}. To compare means see .contrasts()."
        )
    specs, by, compared = specs_in_words(specs, by, fit)
    estimability = estimable_functions(fit)
    grid = reference_grid(fit, all_columns(fit), at)
    own, groups = _named(specs, "specs", grid, fit), _named(by, "by", grid, fit)
    both = [name for name in own if name in groups]
    if both:
        raise ModelError(f"{both[0]!r} is in both specs and by; leave it out of one of them.")
    nesting = find_nesting(grid)
    groups = with_containing(groups, nesting, [])
    own = with_containing([name for name in own if name not in groups], nesting, groups)
    _check_column_names([*own, *groups])
    scale = scale_of_means(fit, type, bias_adjust, sigma, marginal)
    beta, variance = pooled or (fit.beta, fixed_effects_variance(fit, vcov, ddf, cluster))

    data = grid.data()
    if trend is None:
        rows, constant = grid.rows(data), grid.offset(data)
    else:
        rows, constant = slope_rows(grid, fit, trend, data)
    axes = [grid.names.index(name) for name in (*groups[::-1], *own[::-1])]
    counts = grid.counts()
    equal, exists = nested_weights(counts, grid.names, [*own, *groups], nesting)
    share, empty = cell_shares(counts, axes, weights, equal)

    shape = tuple(grid.shape[axis] for axis in axes)
    positions = np.unravel_index(np.arange(len(share)), shape) if axes else ()
    by_name = dict(zip((grid.names[axis] for axis in axes), positions, strict=True))
    some = cell_shares(exists.astype(np.float64), axes, "cells", equal)[1] == 0
    average = GridAverage(grid, axes, share, some)
    averaged, constant, empty = average.of(rows), average.of(constant)[:, 0], empty[some]
    levels = pd.DataFrame(
        {name: grid[name].shown(by_name[name][some]) for name in (*own, *groups)},
        index=pd.RangeIndex(len(averaged)),
    )
    L = estimability.reduce(averaged)
    estimates = linear_estimates(beta, variance, L, constant)
    if marginal:
        scale = averaged_scale(generalized(fit), scale, estimates.estimate, L, average, variance)
    lost = np.asarray(np.isnan(L).any(axis=1))
    notes = grid_notes(grid, (*own, *groups), weights, trend, empty, lost, nesting)
    means = MarginalMeans(
        name="emmean" if trend is None else f"{trend}.trend",
        levels=levels,
        by=tuple(groups),
        L=pd.DataFrame(L, _joined(levels), list(fit.frame.fixef_names)),
        constant=constant,
        estimates=estimates,
        level=float(level),
        adjust=adjust,
        notes=(
            *notes,
            *scale.notes(estimates.estimate),
            _interval_note(level, adjust, variance),
        ),
        scale=scale,
        _all_columns=averaged,
        _estimability=estimability,
        _beta=beta,
        _variance=variance,
        _fit=fit,
        average=average,
        compared=compared,
        _is_pooled=pooled is not None,
    )
    # What cannot be compared is said here, not when it is printed.
    _ = means.comparisons
    return means


def _interval_note(level: float, adjust: str, variance: FixedEffectsVariance) -> str:
    how = "" if adjust == "none" else f" (simultaneous: {ADJUSTMENTS[adjust]})"
    return f"{intervals_at(level)}{how}; {variance.method}"


def _named(given: Any, what: str, grid: ReferenceGrid, fit: Fit) -> list[str]:
    """The variables of specs or by."""
    listed = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(listed, Sequence) or not all(isinstance(name, str) for name in listed):
        raise ModelError(
            f"{what} is the name of a variable of the fixed part or a list of names; not "
            f"{given!r:.60}."
        )
    if listed == ["1"]:
        return []
    for i, name in enumerate(listed):
        if name not in grid.names:
            raise no_such_variable(name, fit, grid.names)
        if name in listed[:i]:
            raise ModelError(f"{what} names {name!r} twice.")
    return list(listed)


def _check_column_names(names: Sequence[str]) -> None:
    taken = [name for name in names if name in _OWN_COLUMNS]
    if taken:
        raise ModelError(
            f"The variable {taken[0]!r} is called like a column of the table of means; rename it "
            "in the data."
        )


def _joined(levels: pd.DataFrame) -> list[str]:
    """One label per row; numbers follow the name of their variable."""
    if not levels.shape[1]:
        return ["overall"] * len(levels)
    parts = []
    for name in levels:
        values = levels[name]
        numeric = not isinstance(values.dtype, pd.CategoricalDtype)
        texts = labels_of(values.tolist())
        parts.append([f"{name}{text}" if numeric else text for text in texts])
    return [" ".join(row) for row in zip(*parts, strict=True)]
