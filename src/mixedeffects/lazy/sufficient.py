"""`sufficient`: the sums of a table that a fit needs, as a value."""

from __future__ import annotations

from typing import Any

from mixedeffects.base.habits import explained
from mixedeffects.base.options import plain
from mixedeffects.base.warning import warn
from mixedeffects.errors import DataWarning, ModelError
from mixedeffects.frame.contrasts import read_contrasts
from mixedeffects.frame.ingest import column_names, materialised, take_columns
from mixedeffects.lazy.model import read_lazy_model
from mixedeffects.lazy.smallest import check_minimum_rows
from mixedeffects.lazy.statistics import SufficientStatistics, parts_of
from mixedeffects.lazy.stored import content_of
from mixedeffects.lazy.sums import level_sums
from mixedeffects.lazy.table import LazyTable, is_lazy, lazy_table

__all__ = ["sufficient"]


@explained
def sufficient(
    formula: str,
    data: Any,
    *,
    weights: str | None = None,
    offset: str | None = None,
    contrasts: dict[str, Any] | None = None,
    like: SufficientStatistics | None = None,
    minimum_rows: int | None = None,
) -> SufficientStatistics:
    """Sum what a linear mixed model needs of a table, in the table's engine.

    The sums are fitted by ``lmer(statistics)``, and those of several tables add up: sites that may
    not share rows, or a table that grows daily. The fit is that of all rows.

    Parameters
    ----------
    formula : str
        As for `lmer`.
    data : dataframe
        Any table that `lmer` takes, in memory or in an engine.
    weights, offset : str, optional
        Names of columns, or expressions of columns.
    contrasts : dict, optional
        As for `lmer`.
    like : SufficientStatistics, optional
        Those of the first table: its levels of fixed factors, its means and knots in transforms
        such as ``scale(x)``, and its centres are taken, so that the columns are the same. Contrasts
        are those of the first, too.
    minimum_rows : int, optional
        Refuse to make sums of fewer rows than this: of levels, of pairs of levels, and of cells of
        factors that can be read from the sums.

    Returns
    -------
    SufficientStatistics
        The sums, with the labels of the levels.

    Raises
    ------
    FormulaError, DataError, ModelError
        As for `lmer`, or if sums of few rows would be given away.

    Warns
    -----
    DataWarning
        As for `lmer`.

    Notes
    -----
    What the sums reveal: the number of rows, the means, variances and covariances of all columns
    and the response, over all rows; for every level of a grouping factor its label, its number of
    rows, and the sums of the columns and the response (and the products with its random slopes);
    for every pair of levels of two factors the same of the slopes. A level of one row gives that
    row away, and one of few rows much of them. ``minimum_rows`` refuses these. It does not protect
    from differences: of sums made before and after one row came in, the difference is that row.

    Examples
    --------
    >>> import mixedeffects as me
    >>> s = me.sufficient("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> s
    Sufficient statistics of Reaction ~ Days + (Days | Subject)
      180 rows, 3 columns: 1, Days, Reaction
      Subject: 18 levels of 10 to 10 rows
    No level has one row; sums of few rows tell much of them.
    >>> me.lmer(s).fixef.round(2).tolist()
    [251.41, 10.47]
    """
    minimum = _minimum(minimum_rows)
    known, codings = None, read_contrasts(contrasts)
    if like is not None:
        if not isinstance(like, SufficientStatistics):
            raise ModelError(f"`like` is what sufficient(...) returned, not {type(like).__name__}.")
        if contrasts is not None:
            raise ModelError("Contrasts are those of `like`; leave `contrasts` out.")
        parts = parts_of(like)
        known, codings = parts.known, parts.codings
    table = any_table(data)
    model = read_lazy_model(
        formula, table, weights=weights, offset=offset, contrasts=codings, like=known
    )
    for sentence in model.dropped.lost:
        warn(sentence, DataWarning)
    made = level_sums(model)
    if minimum > 1:
        check_minimum_rows(model, made.sums, minimum)
    return SufficientStatistics(content_of(model, made, weights, offset, codings, known))


def any_table(data: Any) -> LazyTable:
    """A table for queries, also of one in memory."""
    import narwhals as nw

    if is_lazy(data):
        return lazy_table(data)
    frame = materialised(data)
    if isinstance(frame, nw.DataFrame) and frame.implementation.is_polars():
        return lazy_table(frame.lazy().to_native())
    rows = nw.from_native(take_columns(frame, column_names(frame))).lazy()
    return LazyTable(data, rows, "pandas", dict(rows.collect_schema()))


def _minimum(given: Any) -> int:
    value = plain(given)
    if value is None:
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(f"minimum_rows must be a whole number from 1, not {given!r:.60}.")
    return value
