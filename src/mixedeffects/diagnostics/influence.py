"""Deletion diagnostics: what the fixed effects owe to each level of a factor, or to each row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.base.options import checked_choice, checked_flag, is_whole_number
from mixedeffects.diagnostics.deletion import Deleted, delete_levels
from mixedeffects.display.numbers import format_numbers
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.tables import Column, Table
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.natural import covariance_parameters
from mixedeffects.fitting.representative import RepresentativeFrame, with_rows
from mixedeffects.inference.cluster_factor import ClusterFactor, cluster_columns, read_levels
from mixedeffects.progress import Listener, ProgressOption

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["INFLUENCE_KINDS", "Influence", "influence", "labelled", "levels_to_leave_out"]

Matrix = NDArray[np.float64]

INFLUENCE_KINDS = ("cooks", "mdffits", "covtrace", "covratio", "dfbeta", "dfbetas")

#: Levels, coefficients and notes that the text shows.
_TOP = 10
_FEW_COEFFICIENTS = 4
_FEW_NOTES = 5


@dataclass(frozen=True, eq=False, repr=False)
class Influence:
    """What changes when a level is left out, made by `LinearMixedModel.influence`.

    Every attribute has one row or entry per level, in the order of the levels; see
    `LinearMixedModel.influence` for the definitions.

    Attributes
    ----------
    by : str
        What the levels are levels of; ``"row"`` for single rows.
    refit : bool
        Whether the model was fitted again without each level; else the variance parameters are
        held at their estimates.
    n_rows : Series of int
        Rows of each level.
    dfbeta : DataFrame, J x p
        Change of each coefficient, in its units.
    dfbetas : DataFrame, J x p
        The same in standard errors without the level.
    cooks_distance, mdffits, covtrace, covratio : Series
        Without units.
    variance_parameters : DataFrame or None
        After a refit: standard deviations, correlations and sigma without each level.
    variance_change : DataFrame or None
        The estimates from all rows minus these.
    notes : dict of str to str
        Why a level has no values, or what is to be said about its refit.
    how : str
        How the changes were found where that is neither of the two.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
    >>> schools = m.influence("sch.cl")
    >>> schools.cooks_distance.idxmax()
    'c'
    >>> refitted = m.influence("sch.cl", refit=True)
    >>> refitted.variance_change.abs().idxmax()["sigma"]
    'j'
    """

    by: str
    refit: bool
    n_rows: pd.Series
    dfbeta: pd.DataFrame
    dfbetas: pd.DataFrame
    cooks_distance: pd.Series
    mdffits: pd.Series
    covtrace: pd.Series
    covratio: pd.Series
    variance_parameters: pd.DataFrame | None = None
    variance_change: pd.DataFrame | None = None
    notes: dict[str, str] = field(default_factory=dict)
    how: str = ""

    def to_frame(self) -> pd.DataFrame:
        """All of it in one table.

        Returns
        -------
        DataFrame, one row per level
            Columns ``n``; ``dfbeta_<coefficient>`` and ``dfbetas_<coefficient>``; ``cooks_d``,
            ``mdffits``, ``covtrace``, ``covratio``; after a refit also ``change_<parameter>``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> list(m.influence("Batch").to_frame())[:4]
        ['n', 'dfbeta_(Intercept)', 'dfbetas_(Intercept)', 'cooks_d']
        """
        parts: list[Any] = [
            self.n_rows,
            self.dfbeta.add_prefix("dfbeta_"),
            self.dfbetas.add_prefix("dfbetas_"),
            self.cooks_distance,
            self.mdffits,
            self.covtrace,
            self.covratio,
        ]
        if self.variance_change is not None:
            parts.append(self.variance_change.add_prefix("change_"))
        return ResultTable.of(pd.concat(parts, axis=1))

    def plot(
        self,
        kind: str = "cooks",
        *,
        coefficient: str | None = None,
        top: int = 20,
        ax: Any = None,
    ) -> Axes:
        """Draw the most influential levels as dots, the largest first.

        Parameters
        ----------
        kind : {"cooks", "mdffits", "covtrace", "covratio", "dfbeta", "dfbetas"}
            What to draw. ``covratio`` is ordered by its distance from one.
        coefficient : str, optional
            For ``dfbeta`` and ``dfbetas``: which coefficient; by default the one that changes most
            in standard errors.
        top : int
            Number of levels.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ModelError
            If the kind or the coefficient is not known, ``top`` is not a number above zero, or
            no level has a value.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> ax = m.influence("Subject").plot("dfbeta", ax=Figure().subplots(), top=5)
        >>> ax.get_xlabel()
        'change of Days'
        """
        from mixedeffects.diagnostics.influence_plot import draw_influence

        values, label = self._values(kind, coefficient)
        if not is_whole_number(top):
            raise ModelError(f"top must be a whole number above zero, not {top!r:.60}.")
        centre = 1.0 if kind == "covratio" else 0.0
        values = values.dropna()
        if not len(values):
            raise ModelError(f"No level of {self.by!r} has a value to draw.")
        order = np.argsort(-np.abs(values.to_numpy() - centre), kind="stable")[: int(top)]
        return draw_influence(
            values.iloc[order], label, self.by, self._how(), centre, len(values), ax
        )

    def _values(self, kind: str, coefficient: str | None) -> tuple[pd.Series, str]:
        """The numbers that a picture shows, and their name."""
        singles = {
            "cooks": (self.cooks_distance, "Cook's distance"),
            "mdffits": (self.mdffits, "MDFFITS"),
            "covtrace": (self.covtrace, "COVTRACE"),
            "covratio": (self.covratio, "COVRATIO"),
        }
        kind = checked_choice(kind, "Influence kind", INFLUENCE_KINDS)
        if kind in singles:
            if coefficient is not None:
                raise ModelError(
                    f"coefficient= goes with the kinds 'dfbeta' and 'dfbetas', not with {kind!r}."
                )
            return singles[kind]
        names = list(self.dfbeta.columns)
        if coefficient is None and names:
            changes = self.dfbetas.abs().max().fillna(-1.0)
            coefficient = names[int(np.argmax(changes.to_numpy()))]
        if coefficient not in names:
            raise ModelError(
                f"There is no coefficient {coefficient!r}; there are "
                f"{', '.join(repr(name) for name in names)}."
            )
        if kind == "dfbeta":
            return self.dfbeta[coefficient], f"change of {coefficient}"
        return self.dfbetas[coefficient], f"change of {coefficient} in standard errors"

    def sentence(self) -> str:
        """What was done, in words.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.influence("Subject", refit=True).sentence()
        'Influence of 18 levels of Subject, left out one at a time; refitted'
        """
        what = "single rows" if self.by == "row" else f"levels of {self.by}"
        return f"Influence of {len(self.n_rows):,} {what}, left out one at a time; {self._how()}"

    def _how(self) -> str:
        if self.how:
            return self.how
        return "refitted" if self.refit else "variance parameters held at their estimates"

    @cached_property
    def _table(self) -> Table:
        order = np.argsort(-self.cooks_distance.fillna(-1.0).to_numpy(), kind="stable")[:_TOP]
        columns = [Column("n", tuple(f"{n:,}" for n in self.n_rows.iloc[order]))]
        for name, series in (
            ("Cook's D", self.cooks_distance),
            ("MDFFITS", self.mdffits),
            ("COVRATIO", self.covratio),
        ):
            # Of generalized fits there is only the first.
            if not series.isna().all() or name == "Cook's D":
                columns.append(Column(name, tuple(format_numbers(series.iloc[order], 4))))
        for name in list(self.dfbeta.columns)[:_FEW_COEFFICIENTS]:
            values = self.dfbeta[name].iloc[order]
            # In a balanced design some changes are zero but for rounding.
            values = values.where(~(self.dfbetas[name].iloc[order].abs() < 1e-9), 0.0)
            columns.append(Column(f"dfbeta {name}", tuple(format_numbers(values, 4))))
        labels = tuple(str(label) for label in self.n_rows.index[order])
        return Table(tuple(columns), labels, footnotes=self._footnotes(len(order)))

    def _footnotes(self, shown: int) -> tuple[str, ...]:
        lines = []
        more = []
        if len(self.n_rows) > shown:
            more.append(f"{len(self.n_rows) - shown:,} less influential levels")
        if self.dfbeta.shape[1] > _FEW_COEFFICIENTS:
            more.append(f"{self.dfbeta.shape[1] - _FEW_COEFFICIENTS:,} coefficients")
        if more:
            lines.append(f"Not shown: {', '.join(more)}; to_frame() has everything.")
        lines += [f"{name}: {self.notes[name]}" for name in list(self.notes)[:_FEW_NOTES]]
        if len(self.notes) > _FEW_NOTES:
            lines.append(f"{len(self.notes) - _FEW_NOTES:,} more levels have notes; see notes.")
        return tuple(lines)

    def __repr__(self) -> str:
        return str(replace(self._table, caption=self.sentence()))

    def _repr_html_(self) -> str:
        return str(replace(self._table, caption=self.sentence())._repr_html_())


def influence(
    fit: Fit, by: Any = None, refit: bool = False, progress: ProgressOption = None
) -> Influence:
    """Deletion diagnostics of a fitted model; see `LinearMixedModel.influence`.

    Raises
    ------
    DataError
        If there is no such column, the length is wrong, or values are missing.
    ModelError
        If there is one level only, nothing to diagnose, or an option is not True or False.
    """
    refit = checked_flag(refit, "refit")
    Listener(progress)
    names = list(fit.frame.fixef_names)
    if not names and not refit:
        raise ModelError(
            "The model has no fixed effects, and the variance parameters are held at their "
            "estimates, so nothing can change; with refit=True the variance parameters do."
        )
    if by is not None:
        fit = with_rows(fit, cluster_columns(fit, by))
    factor, labels = levels_to_leave_out(fit, by)
    if not refit:
        deleted = delete_levels(fit, factor.codes, factor.n_levels)
        return labelled(fit, factor, labels, False, deleted, None)
    from mixedeffects.diagnostics.deletion_refit import refit_levels

    return refit_levels(
        fit,
        factor.codes,
        [str(level) for level in factor.levels],
        progress,
        lambda deleted, natural: labelled(fit, factor, labels, True, deleted, natural),
    )


def levels_to_leave_out(fit: Fit, by: Any) -> tuple[ClusterFactor, pd.Index]:
    """The factor whose levels are left out one at a time, every row by default; and its labels.

    Raises
    ------
    DataError
        If there is no such column, the length is wrong, or values are missing.
    ModelError
        If there is one level only.
    """
    if by is None:
        labels = fit.frame.index
        factor = ClusterFactor("row", np.arange(fit.nobs), [str(label) for label in labels])
    else:
        factor = read_levels(fit, by, "by", "levels")
        labels = pd.Index(list(factor.levels), name=factor.name)
    if factor.n_levels < 2:
        raise ModelError(
            f"All rows have the same level of {factor.name!r}, so nothing would be left without it."
        )
    return factor, labels


def _rows_of_levels(fit: Fit, factor: ClusterFactor) -> NDArray[np.int64]:
    counts = fit.frame.counts if isinstance(fit.frame, RepresentativeFrame) else None
    return np.bincount(factor.codes, counts, factor.n_levels).astype(np.int64)


def labelled(
    fit: Fit,
    factor: ClusterFactor,
    labels: pd.Index,
    refit: bool,
    deleted: Deleted,
    natural: Matrix | None,
    how: str = "",
) -> Influence:
    """What changed, under the names of levels and coefficients."""

    def series(values: Any, name: str) -> pd.Series:
        return pd.Series(values, index=labels, name=name)

    names = list(fit.frame.fixef_names)
    variance_parameters = variance_change = None
    if natural is not None:
        parameters = list(covariance_parameters(fit).index)
        estimates = covariance_parameters(fit).to_numpy()
        variance_parameters = pd.DataFrame(natural, index=labels, columns=parameters)
        variance_change = pd.DataFrame(estimates - natural, index=labels, columns=parameters)
    dfbetas = deleted.change / np.sqrt(deleted.variance)
    return Influence(
        by=factor.name,
        refit=refit,
        n_rows=series(_rows_of_levels(fit, factor), "n"),
        dfbeta=pd.DataFrame(deleted.change, index=labels, columns=names),
        dfbetas=pd.DataFrame(dfbetas, index=labels, columns=names),
        cooks_distance=series(deleted.cooks_distance, "cooks_d"),
        mdffits=series(deleted.mdffits, "mdffits"),
        covtrace=series(deleted.covtrace, "covtrace"),
        covratio=series(deleted.covratio, "covratio"),
        variance_parameters=variance_parameters,
        variance_change=variance_change,
        notes={str(factor.levels[j]): note for j, note in deleted.notes.items()},
        how=how,
    )
