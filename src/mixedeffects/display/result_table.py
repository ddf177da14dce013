"""DataFrames of results that print what decides, and know the names their columns had before."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mixedeffects.display.frame_text import frame_table
from mixedeffects.display.tables import DEFAULT_WIDTH, Table
from mixedeffects.display.vocabulary import INTERVAL, former_interval, intervals_at

__all__ = ["ResultTable", "interval_table"]

#: Columns that are shown of a table with very many.
_COLUMNS = 20


class ResultTable(pd.DataFrame):
    """A DataFrame that the methods of a model return.

    It is a DataFrame in every respect; only how it is shown differs. It is printed in the width of
    the terminal with probabilities as in a paper and degrees of freedom with one decimal, and
    numbers are never rounded but in print. `to_markdown`, `to_latex` and `to_html` without
    arguments give the same table and need no other package; with pandas' arguments they are
    pandas'.

    Attributes
    ----------
    notes : tuple of str
        Lines below the printed table: the confidence level, how degrees of freedom were found.
    former : mapping of str to str
        Earlier names of columns, which work with a ``DeprecationWarning`` until the next version.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.coef_table()
                Estimate Std. Error   df t value Pr(>|t|)   lower   upper
    (Intercept)  251.405      6.825 17.0   36.84  < 2e-16 237.007 265.804
    Days          10.467      1.546 17.0    6.77 3.26e-06   7.206  13.729
    ---
    95 % intervals; t-tests use Satterthwaite's method
    """

    _metadata = ["notes", "former"]  # noqa: RUF012
    notes: tuple[str, ...] = ()
    former: Mapping[str, str] = {}

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        notes: tuple[str, ...] = (),
        former: Mapping[str, str] | None = None,
    ) -> ResultTable:
        """Make a table of results from a DataFrame."""
        table = cls(frame)
        table.attrs = dict(frame.attrs)
        table.notes, table.former = notes, dict(former or {})
        return table

    @property
    def _constructor(self) -> type[ResultTable]:
        return ResultTable

    # --- names of before -----------------------------------------------------------------

    def _current(self, key: Any) -> Any:
        """A column's name, or several, as they are now."""
        if not self.former:
            return key
        if isinstance(key, str):
            return self._current_name(key)
        if isinstance(key, list) and any(isinstance(name, str) for name in key):
            return [self._current_name(name) for name in key]
        return key

    def _current_name(self, name: Any) -> Any:
        if not isinstance(name, str) or name not in self.former or name in self.columns:
            return name
        new = self.former[name]
        if new not in self.columns:
            return name
        warnings.warn(
            f"Column {name!r} is {new!r} now; the old name goes with the next version.",
            DeprecationWarning,
            stacklevel=4,
        )
        return new

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self._current(key))

    def __getattr__(self, name: str) -> Any:  # type: ignore[misc]
        if not name.startswith("_") and name in self.former:
            return self[name]
        return super().__getattr__(name)

    @property
    def loc(self) -> Any:
        """As of every DataFrame."""
        own = super().loc
        return _ByFormerNames(own, self) if self.former else own

    @property
    def at(self) -> Any:
        """As of every DataFrame."""
        own = super().at
        return _ByFormerNames(own, self) if self.former else own

    # --- how it is shown -----------------------------------------------------------------

    def _table(self) -> Table:
        options = pd.options.display
        # Zero, pandas' default in a terminal, means as many as fit; here they continue below.
        return frame_table(self, self.notes, options.max_rows, options.max_columns or _COLUMNS)

    def _whole_table(self) -> Table:
        return frame_table(self, self.notes)

    def __repr__(self) -> str:
        if self.empty:
            return super().__repr__()
        return self._table().to_text(_terminal_width())

    def _repr_html_(self) -> str | None:
        if self.empty:
            return str(pd.DataFrame(self).to_html())
        return self._table()._repr_html_()

    def to_text(self, width: int | None = DEFAULT_WIDTH) -> str:
        """The printed table, whole.

        Parameters
        ----------
        width : int, optional
            Columns that do not fit continue below; None never breaks.
        """
        return self._whole_table().to_text(width)

    def to_markdown(self, *args: Any, **options: Any) -> Any:
        """The printed table in Markdown; with arguments pandas' own, which needs tabulate."""
        if args or options:
            return super().to_markdown(*args, **options)
        return self._whole_table().to_markdown()

    def to_latex(self, *args: Any, **options: Any) -> Any:
        """The printed table in LaTeX; ``caption=`` and ``label=`` make it a float.

        It needs ``booktabs``. With other arguments it is pandas' own, which needs jinja2.
        """
        if args or set(options) - {"caption", "label"}:
            return super().to_latex(*args, **options)
        return self._whole_table().to_latex(**options)

    def to_html(self, *args: Any, **options: Any) -> Any:
        """The printed table in HTML; with arguments pandas' own."""
        if args or options:
            return super().to_html(*args, **options)
        return self._whole_table().to_html()


def interval_table(
    bounds: Any, index: Any, level: float, how: str, more: Sequence[str] = ()
) -> ResultTable:
    """Intervals of parameters, columns ``lower`` and ``upper``.

    Parameters
    ----------
    bounds : array-like, shape (r, 2)
        The bounds.
    index : sequence of str
        Names of the parameters.
    level : float
        Confidence level.
    how : str
        What kind of intervals they are.
    more : sequence of str
        What else there is to say.
    """
    table = pd.DataFrame(bounds, index=index, columns=list(INTERVAL))
    return ResultTable.of(table, (intervals_at(level, how), *more), former_interval(level))


class _ByFormerNames:
    """``loc`` and ``at``, where columns may be called as before."""

    def __init__(self, indexer: Any, table: ResultTable) -> None:
        self._indexer, self._table = indexer, table

    def _key(self, key: Any) -> Any:
        if isinstance(key, tuple) and len(key) == 2:
            return key[0], self._table._current(key[1])
        return key

    def __getitem__(self, key: Any) -> Any:
        return self._indexer[self._key(key)]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._indexer[self._key(key)] = value

    def __call__(self, axis: Any = None) -> Any:
        return self._indexer(axis=axis)


def _terminal_width() -> int:
    """Characters in a line: of the terminal, or else what pandas is set to."""
    if sys.stdout is not None and sys.stdout.isatty():
        return shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns
    return int(pd.options.display.width or DEFAULT_WIDTH)
