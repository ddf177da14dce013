"""Pictures of matrices: Z, G, V and their parts, of any size."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
from scipy import sparse

from mixedeffects.base.options import (
    checked_flag,
    checked_number,
    checked_text,
    is_listed,
    is_whole_number,
    member,
)
from mixedeffects.display.binning import Binned, bin_matrix
from mixedeffects.display.lettering import Name, short
from mixedeffects.display.needs_matplotlib import require_matplotlib
from mixedeffects.errors import ModelError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

__all__ = ["covariance", "matrix"]

Span = tuple[Hashable, int, int]
Groups = Sequence[Span] | dict[str, Sequence[Span]]

# Numbers are written up to this many rows and columns; on request, into this many cells.
LARGEST_ANNOTATED = 30
MOST_NUMBERS = 10_000
#: Longest label, in characters.
_LABEL = 40


def matrix(
    A: Any,
    *,
    ax: Axes | None = None,
    rows: Sequence[Hashable] | None = None,
    columns: Sequence[Hashable] | None = None,
    title: str | None = None,
    label: str | None = None,
    units: str | None = None,
    kind: Literal["values", "pattern"] = "values",
    center: float | None = None,
    limit: float | None = None,
    max_pixels: int = 1200,
    groups: Groups | None = None,
    cmap: str | Colormap | None = None,
    colorbar: bool = True,
    annotate: bool | None = None,
) -> Axes:
    """Draw a matrix as a picture, the first row on top.

    Blue is positive, red negative, and white is exactly zero: even the smallest entry has a tint.
    A matrix with more than ``max_pixels`` rows or columns is reduced, without being made dense, to
    pixels that show the entry of largest magnitude among the cells they stand for (of ``m.V``,
    which is not formed, their mean); the line above the picture then says how many cells that is.

    Parameters
    ----------
    A : array_like, DataFrame or scipy sparse array, shape (n, m)
        The matrix; or an object with a method ``sparse()`` that returns one. A DataFrame brings its
        row and column labels along.
    ax : matplotlib.axes.Axes, optional
        Where to draw. By default a new figure of a fitting size is made with pyplot; it is shown
        by notebooks, or by ``plt.show()``.
    rows, columns : sequence of length n and m, optional
        Labels, written as they stand where there is room to read them; otherwise positions,
        counted from 0.
    title : str, optional
        Title, above the line with the dimensions; may hold matplotlib's formulas, ``"$V_1$"``.
    label, units : str, optional
        What the values are and in which units; both are written beside the colour scale.
    kind : {"values", "pattern"}
        ``"pattern"`` shows the share of cells that are not zero instead of values.
    center : float, optional
        The value that is white, by default 0.
    limit : float, optional
        The colour scale reaches from ``center - limit`` to ``center + limit``. By default the
        largest distance from the centre.
    max_pixels : int
        Largest number of rows or columns that get pixels of their own. On given axes there are
        also no more pixels than the axes have on screen, lest entries vanish between them.
    groups : list of (label, start, stop), or dict with keys "rows" and "columns", optional
        Labelled spans of consecutive rows and columns, ``stop`` not included, separated by thin
        lines. A list is for the columns, and for the rows as well if the matrix is square. Lines
        and labels that would be too dense to read are left out.
    cmap : str or matplotlib.colors.Colormap, optional
        Another colour map, preferably a diverging one.
    colorbar : bool
        Whether to draw the colour scale. If no value is below the centre, only its upper half is
        shown.
    annotate : bool, optional
        Whether to write the numbers into the cells, zero as a dot. By default up to 30 x 30 where
        there is room to read them.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, in units of rows and columns counted from 0.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ModelError
        If ``A`` is not a matrix of real numbers with at least one row and column, if the labels
        or groups do not fit it, or if there are too many cells to write numbers into.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from mixedeffects.plot import matrix
    >>> Z = np.kron(np.eye(3), np.ones((4, 1)))
    >>> ax = matrix(Z, ax=Figure().subplots(), columns=["a", "b", "c"], title="Z")
    >>> ax.images[0].get_array().shape
    (12, 3)
    """
    require_matplotlib()
    if not member(kind, ("values", "pattern")):
        raise ModelError(f"kind must be 'values' or 'pattern', not {kind!r:.60}.")
    if kind == "values" and hasattr(A, "_as_picture"):
        A = A._as_picture()
    values, own_rows, own_columns = _as_matrix(A)
    title, label, units = (
        # A title may be of a kind of its own that is drawn as it stands.
        checked_text(text, name) if type(text) not in (Name, str) else text
        for text, name in ((title, "title"), (label, "label"), (units, "units"))
    )
    if limit is not None:
        limit = checked_number(limit, "limit")
        if limit <= 0.0:
            raise ModelError(f"limit must be positive, not {limit:g}.")
    if not is_whole_number(max_pixels):
        raise ModelError(f"max_pixels must be at least 1, not {max_pixels!r:.60}.")
    max_pixels = int(max_pixels)
    center = 0.0 if center is None else checked_number(center, "center")
    colorbar = checked_flag(colorbar, "colorbar")
    annotate = None if annotate is None else checked_flag(annotate, "annotate")
    n, m = values.shape
    row_labels = _labels(rows, own_rows, n, "rows")
    column_labels = _labels(columns, own_columns, m, "columns")
    spans = _spans(groups, n, m)
    if annotate and (n * m > MOST_NUMBERS or max(n, m) > max_pixels):
        raise ModelError(
            f"The matrix is {n:,} x {m:,}: too many cells to write numbers into. "
            "Draw a part of it, or leave out annotate=True."
        )

    # Imported only now, for it needs matplotlib.
    from mixedeffects.display import picture

    sheet = picture.Sheet.make(ax, n, m, max_pixels)
    binned = bin_matrix(values, sheet.max_rows, sheet.max_columns, kind)
    picture.draw_cells(sheet, binned, center, limit, cmap)
    if annotate or (annotate is None and max(n, m) <= LARGEST_ANNOTATED):
        picture.write_numbers(sheet, binned, even_if_small=bool(annotate))
    picture.label_axis(sheet, "columns", column_labels)
    picture.label_axis(sheet, "rows", row_labels)
    above = picture.draw_column_groups(sheet, spans["columns"])
    beside = picture.draw_row_groups(sheet, spans["rows"])
    picture.write_heading(sheet, title, _dimensions(binned), above)
    if colorbar:
        what = label or ("share of nonzeros" if kind == "pattern" else None)
        text = f"{what} ({units})" if what and units else what or units or ""
        one_sided = limit is None and not np.any(binned.pixels < center)
        picture.draw_scale(sheet, text, beside, one_sided=one_sided)
    sheet.fit()
    return cast("Axes", sheet.ax)


def covariance(
    V: Any,
    labels: Sequence[Hashable] | None = None,
    *,
    ax: Axes | None = None,
    kind: Literal["covariance", "correlation"] = "covariance",
    units: str | None = None,
    title: str | None = None,
    groups: Groups | None = None,
    max_pixels: int = 1200,
    cmap: str | Colormap | None = None,
    colorbar: bool = True,
    annotate: bool | None = None,
) -> Axes:
    """Draw a covariance matrix, or the correlations it implies.

    Parameters
    ----------
    V : array_like, DataFrame, scipy sparse array, object with ``sparse()``, or iterable of blocks
        The covariance matrix, shape (n, n). Blocks are triples (label, rows, array of shape
        (k, k)) that say for which k rows of the whole they stand; what no block covers is zero.
        Blocks of consecutive rows are marked with their labels.
    labels : sequence of length n, optional
        Labels of the rows and columns.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    kind : {"covariance", "correlation"}
        ``"correlation"`` divides by the standard deviations and fixes the scale to [-1, 1]. Rows
        with variance zero have no correlations and are grey.
    units : str, optional
        Units of the covariances, for example ``"ms^2"``, written beside the colour scale.
    title, groups, max_pixels, cmap, colorbar, annotate
        As for :func:`matrix`.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, in units of rows and columns counted from 0.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ModelError
        If ``V`` is not square, has a negative variance (correlations), or its blocks do not fit
        their rows.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from mixedeffects.plot import covariance
    >>> G = np.array([[612.1, 9.6], [9.6, 35.1]])
    >>> names = ["(Intercept)", "Days"]
    >>> ax = covariance(G, names, ax=Figure().subplots(), units="ms^2")
    >>> [text.get_text() for text in ax.get_xticklabels()]
    ['(Intercept)', 'Days']
    """
    require_matplotlib()
    if not member(kind, ("covariance", "correlation")):
        raise ModelError(f"kind must be 'covariance' or 'correlation', not {kind!r:.60}.")
    if _is_blocks(V):
        V, found = _assemble([_block(block) for block in V])
        groups = groups or found
    values, own, _ = _as_matrix(V._as_picture() if hasattr(V, "_as_picture") else V)
    if values.shape[0] != values.shape[1]:
        raise ModelError(
            f"A covariance matrix is square, but this one is {values.shape[0]:,} x "
            f"{values.shape[1]:,}."
        )
    names = _labels(labels, own, values.shape[0], "labels")
    is_correlation = kind == "correlation"
    return matrix(
        _correlations(values) if is_correlation else values,
        ax=ax,
        rows=names,
        columns=names,
        title=title,
        label=kind,
        units=None if is_correlation else units,
        limit=1.0 if is_correlation else None,
        max_pixels=max_pixels,
        groups=groups,
        cmap=cmap,
        colorbar=colorbar,
        annotate=annotate,
    )


def _as_matrix(A: Any) -> tuple[Any, list[str] | None, list[str] | None]:
    """Return a dense or sparse matrix of float64 with the labels a DataFrame brings along."""
    rows = columns = None
    values: Any
    if hasattr(A, "block_means"):
        return A, None, None
    if isinstance(A, pd.DataFrame):
        rows, columns = _index_labels(A.index), _index_labels(A.columns)
    elif not sparse.issparse(A) and callable(getattr(A, "sparse", None)):
        A = A.sparse()
    try:
        values = A if sparse.issparse(A) else np.asarray(A)
    except ValueError:
        # Lists of different lengths.
        values = np.empty((), dtype=object)
    if values.dtype.kind == "O":
        # A table of mixed number types; anything else in it shows below.
        with suppress(TypeError, ValueError):
            values = np.asarray(values, dtype=np.float64)
    if values.dtype.kind not in "biuf":
        raise ModelError(f"Only real numbers can be drawn, not values of type {values.dtype}.")
    if values.ndim != 2 or 0 in values.shape:
        raise ModelError(
            f"A matrix with at least one row and one column is needed, not an array of shape "
            f"{values.shape}."
        )
    return values.astype(np.float64, copy=False), rows, columns


def _index_labels(index: pd.Index) -> list[str] | None:
    # The default numbering says no more than the positions do.
    default = isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1
    return None if default else [_text(value) for value in index]


def _text(label: Hashable) -> str:
    return short(":".join(map(str, label)) if isinstance(label, tuple) else label, _LABEL)


def _labels(
    given: Sequence[Hashable] | None, own: list[str] | None, length: int, name: str
) -> list[str] | None:
    if given is None:
        return own
    if not is_listed(given):
        raise ModelError(f"{name} must be a list of labels, not {given!r:.60}.")
    labels = [_text(label) for label in given]
    if len(labels) != length:
        raise ModelError(f"There are {len(labels):,} labels in {name} for {length:,} of them.")
    return labels


def _spans(groups: Groups | None, n: int, m: int) -> dict[str, list[tuple[str, int, int]]]:
    if isinstance(groups, dict):
        unknown = set(groups) - {"rows", "columns"}
        if unknown:
            raise ModelError(f"groups has the keys 'rows' and 'columns', not {sorted(unknown)}.")
        chosen = groups
    else:
        spans = [] if groups is None else _listed(groups)
        chosen = {"columns": spans, "rows": spans if n == m else []}
    result: dict[str, list[tuple[str, int, int]]] = {"rows": [], "columns": []}
    for side, length in (("rows", n), ("columns", m)):
        for label, start, stop in map(_span, _listed(chosen.get(side, []))):
            if not 0 <= start < stop <= length:
                raise ModelError(
                    f"The group {label!r} spans {side} {start} to {stop}, "
                    f"but there are {length:,} {side}."
                )
            result[side].append((_text(label), int(start), int(stop)))
    return result


def _listed(groups: Any) -> list[Any]:
    if not is_listed(groups):
        raise ModelError(f"groups must be a list of (label, start, stop), not {groups!r:.60}.")
    return list(groups)


def _span(group: Any) -> Span:
    whole = isinstance(group, Sequence) and not isinstance(group, str) and len(group) == 3
    if not whole or not all(is_whole_number(bound, least=0) for bound in group[1:]):
        raise ModelError(f"groups must be a list of (label, start, stop), not {group!r:.60}.")
    return group[0], int(group[1]), int(group[2])


def _is_blocks(V: Any) -> bool:
    if isinstance(V, (str, bytes, dict)):
        return False
    if isinstance(V, np.ndarray | pd.DataFrame) or sparse.issparse(V):
        return False
    if hasattr(V, "sparse") or hasattr(V, "block_means"):
        return False
    if isinstance(V, list | tuple):
        return bool(V) and isinstance(V[0], tuple) and len(V[0]) == 3 and np.ndim(V[0][2]) == 2
    return isinstance(V, Iterable) and not hasattr(V, "__array__")


def _block(block: Any) -> tuple[Hashable, Any, Any]:
    try:
        label, places, values = block
        return label, np.asarray(places, dtype=np.int64), np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ModelError(
            "A covariance matrix is drawn from an array, or from blocks (label, rows, array), not "
            f"from {block!r:.60}."
        ) from None


def _assemble(blocks: list[tuple[Hashable, Any, Any]]) -> tuple[Any, list[Span] | None]:
    """Put blocks in their places; also return their spans if each is a run of rows."""
    row, column, data = [], [], []
    spans: list[Span] = []
    for label, places, block in blocks:
        at, array = places, block
        if array.shape != (at.size, at.size):
            raise ModelError(
                f"The block {label!r} stands for {at.size} rows but has the shape {array.shape}."
            )
        row.append(np.repeat(at, at.size))
        column.append(np.tile(at, at.size))
        data.append(array.ravel())
        if at.size and np.all(np.diff(at) == 1):
            spans.append((label, int(at[0]), int(at[-1]) + 1))
    if not blocks:
        raise ModelError("There are no blocks to draw.")
    size = max((int(at.max()) + 1 for at in row if at.size), default=0)
    entries = (np.concatenate(data), (np.concatenate(row), np.concatenate(column)))
    whole = sparse.csr_array(sparse.coo_array(entries, shape=(size, size)))
    return whole, spans if len(spans) == len(blocks) else None


def _correlations(V: Any) -> Any:
    if hasattr(V, "correlations"):
        return V.correlations()
    variances = np.asarray(V.diagonal(), dtype=np.float64)
    if np.any(variances < 0):
        place = int(np.argmin(variances))
        raise ModelError(
            f"Row {place} has the variance {variances[place]:g}, so it has no correlations."
        )
    with np.errstate(divide="ignore"):
        scale = np.where(variances > 0, 1 / np.sqrt(variances), np.nan)
    if sparse.issparse(V):
        entries: Any = sparse.coo_array(cast("Any", V))
        data = entries.data * scale[entries.row] * scale[entries.col]
        return sparse.csr_array((data, (entries.row, entries.col)), shape=entries.shape)
    return V * scale[:, None] * scale


def _dimensions(binned: Binned) -> str:
    n, m = binned.shape
    text = f"{n:,} x {m:,}"
    if not binned.is_reduced:
        return text
    return f"{text}, each pixel {binned.cells[0]:,} x {binned.cells[1]:,} cells\n({binned.shows})"
