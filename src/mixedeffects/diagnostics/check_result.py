"""What the checks of a fit found: a verdict a line, as text, HTML, a table and pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice
from mixedeffects.diagnostics.check_pictures import PictureData
from mixedeffects.diagnostics.check_verdict import VERDICTS, Finding
from mixedeffects.display.lettering import one_line, wrapped
from mixedeffects.display.panels import as_pictures
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.shown import Shown
from mixedeffects.display.tables import Column, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ModelChecks"]

_WIDTH = 80
#: Characters of the name of a check that are shown in text.
_NAME = 34
#: Shares smaller than this are rounding.
_TINY = 1e-10


@dataclass(frozen=True, eq=False, repr=False)
class ModelChecks(Shown):
    """What the checks of a fit found, made by `LinearMixedModel.check`.

    Attributes
    ----------
    findings : tuple of Finding
        One for each line: ``check``, ``statistic``, ``value``, ``df``, ``p_value``, ``verdict``
        and ``advice``.
    formula : str
        The model's.
    nobs : int
        Rows used.
    level : float
        At which p-values were judged.
    notes : tuple of str
        What the p-values are, and what was left out.
    outliers : DataFrame or None
        Rows beyond the Bonferroni limit, the largest first: ``residual``, studentized;
        ``statistic``, with the row itself left out of sigma; ``p_value``, from its t distribution
        times the number of rows.
    cooks_distance : dict of str to DataFrame
        By grouping factor: ``cooks_d`` of each level, the largest first, and whether it is
        ``beyond`` 4 over the number of levels.
    collinearity : DataFrame or None
        By term: ``df``, ``vif``, generalised, and ``se_factor``, its root of degree ``2 df``.
    components : dict of str to DataFrame
        Principal components of the random effects, by grouping factor: ``sd``, relative to sigma,
        and ``proportion``.
    ranks : Series or None
        For each row looked at, the share of responses drawn from the model, random effects
        included, that lie below its own.
    pictures : PictureData
        What `plot` draws from.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> checks = m.check(["outliers", "levels"])
    >>> checks.outliers.index.tolist()
    [56, 59, 7]
    >>> checks.to_frame()[["check", "verdict"]]
    check           verdict
    outliers        problem
    levels: Subject fine
    """

    findings: tuple[Finding, ...]
    formula: str
    nobs: int
    level: float
    notes: tuple[str, ...] = ()
    outliers: pd.DataFrame | None = None
    cooks_distance: dict[str, pd.DataFrame] = field(default_factory=dict)
    collinearity: pd.DataFrame | None = None
    components: dict[str, pd.DataFrame] = field(default_factory=dict)
    ranks: pd.Series | None = None
    pictures: PictureData = field(default_factory=PictureData)

    def to_frame(self) -> pd.DataFrame:
        """All verdicts in one table.

        Returns
        -------
        DataFrame, one row per check
            Columns ``check``, ``statistic``, the name of what ``value`` is, ``df``, ``p_value``,
            ``verdict`` and ``advice``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.check("levels").to_frame()[["check", "value", "verdict"]]
        check         value verdict
        levels: Batch     6 look
        """
        names = ("check", "statistic", "value", "df", "p_value", "verdict", "advice")
        return ResultTable(
            {name: [getattr(each, name) for each in self.findings] for name in names}
        )

    def verdict(self, check: str) -> str:
        """The worst verdict of the lines of one check, such as ``"normality"``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.check("levels").verdict("levels")
        'look'
        """
        made = list(dict.fromkeys(_kind(each) for each in self.findings))
        lines = [f.verdict for f in self.findings]
        names = [*made, *(f.check for f in self.findings if f.check not in made)]
        wanted = checked_choice(check, "Check", names)
        own = [
            v for v, f in zip(lines, self.findings, strict=True) if wanted in (_kind(f), f.check)
        ]
        return max(own, key=VERDICTS.index)

    def plot(self, ax: Any = None) -> NDArray[Any]:
        """Draw the pictures that belong to the checks made.

        Quantiles of residuals and modes, ranks of the responses less those of a uniform
        distribution, spread over fitted values, Cook's distances and variance inflation; shaded is
        where 95 % of data sets drawn from the fit lie, place by place.

        Parameters
        ----------
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
            If the number of axes is another, or the checks made have no picture.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> [ax] = m.check("simulation").plot(ax=Figure().subplots())
        >>> ax.get_xlabel()
        'uniform quantiles'
        """
        from mixedeffects.diagnostics.check_plot import draw_checks

        axes: list[Axes] = draw_checks(self.pictures, ax)
        return as_pictures(axes)

    def headline(self) -> str:
        """How many verdicts of each kind there are, in words.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.check("levels").headline()
        'Checks of a fit to 30 rows: 0 problems, 1 to look at, 0 fine'
        """
        count = {name: sum(f.verdict == name for f in self.findings) for name in VERDICTS}
        parts = [f"{count['problem']} problem{'' if count['problem'] == 1 else 's'}"]
        parts += [f"{count['look']} to look at", f"{count['fine']} fine"]
        return f"Checks of a fit to {self.nobs:,} rows: {', '.join(parts)}"

    def remarks(self) -> tuple[str, ...]:
        """What stands below the verdicts: how to read them, and `notes`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.check(["levels", "normality"]).remarks()[-1]
        'P-values compare with 250 data sets drawn from the fit and fitted again.'
        """
        judged = sum(np.isfinite(f.p_value) for f in self.findings)
        some: tuple[str, ...] = ()
        if judged > 1:
            some = (
                f"With {judged} p-values about {judged * self.level:.1g} of them are below "
                f"{self.level:g} if all is well; `fine` is no proof that the model is right.",
            )
        return (*some, *self.notes)

    def _rows(self) -> Iterator[tuple[Finding, str, str]]:
        """Findings with value and p-value as text."""
        for each in self.findings:
            p, value = each.p_value, f"{each.value:.4g}" if abs(each.value) > _TINY else "0"
            yield each, value, "" if np.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"

    def to_text(self) -> str:
        """The verdicts in lines of up to 80 characters.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> print(m.check("levels").to_text())
        Checks of a fit to 30 rows: 0 problems, 1 to look at, 0 fine
        Formula: Yield ~ 1 + (1 | Batch)
        <BLANKLINE>
        look     levels: Batch                       levels               6
                 The variance by Batch is poorly estimated: ddf='kr',
                 m.confint('profile').
        """
        lines = [self.headline()]
        lines += wrapped(f"Formula: {one_line(self.formula)}", _WIDTH)
        lines.append("")
        for finding, value, p in self._rows():
            name = finding.check
            name = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
            shown = f"  p {p}" if p else ""
            lines.append(
                f"{finding.verdict:8} {name:{_NAME}}  {finding.statistic:14} {value:>7}{shown}"
            )
            parts = textwrap.wrap(finding.advice, _WIDTH - 9, break_on_hyphens=False)
            lines += [f"         {part}" for part in parts]
        if self.remarks():
            lines.append("")
        for note in self.remarks():
            lines += wrapped(note, _WIDTH)
        return "\n".join(lines)

    def to_html(self) -> str:
        """The verdicts as an HTML table, with the notes below.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> "levels: Batch" in m.check("levels").to_html()
        True
        """
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.remarks())
        return replace(self.table(), caption=self.headline()).to_html() + notes

    def table(self) -> Table:
        """Verdicts and advice as a table of texts.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> [column.header for column in m.check("levels").table().columns]
        ['verdict', 'statistic', 'value', 'p', 'advice']
        """
        rows = list(self._rows())

        def texts(header: str, cells: list[str]) -> Column:
            return Column(header, tuple(cells), align="left", numeric=False)

        return Table(
            (
                texts("verdict", [f.verdict for f, _, _ in rows]),
                texts("statistic", [f.statistic for f, _, _ in rows]),
                Column("value", tuple(value for _, value, _ in rows)),
                Column("p", tuple(p for _, _, p in rows)),
                texts("advice", [f.advice for f, _, _ in rows]),
            ),
            tuple(f.check for f, _, _ in rows),
        )


def _kind(finding: Finding) -> str:
    return finding.check.partition(":")[0]
