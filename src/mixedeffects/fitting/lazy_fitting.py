"""From a formula and a table that stays in its engine to a fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, checked_flag
from mixedeffects.base.scratch import Scratch, scratch_folder
from mixedeffects.base.warning import warn
from mixedeffects.engine import Control, CrossProducts
from mixedeffects.engine.from_sums import (
    combinations_of,
    crossproducts_from_sums,
    rows_in_place,
    structure_of_sums,
)
from mixedeffects.engine.grouped_sums import GroupedSums, SumColumns, TermColumns
from mixedeffects.engine.memory import RemainderTooLargeError
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import DataWarning, Interrupted, ModelError
from mixedeffects.fitting.assembly import check_parameters, too_large
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.fitting import fit_formula, starting_factors
from mixedeffects.fitting.request import LEFT_OUT, Request, check_control
from mixedeffects.fitting.searching import UnfinishedFit
from mixedeffects.fitting.table_fitting import fit_blocks_of_table
from mixedeffects.fitting.theta import read_theta
from mixedeffects.frame.checks import (
    check_fixed,
    check_grouping,
    check_random_effects,
    check_ranges,
)
from mixedeffects.frame.double_bars import separate_double_bars
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.identifiability import check_random_columns
from mixedeffects.frame.known_covariance import KnownCovariance
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.frame.random_terms import lme4_order, term_labels
from mixedeffects.frame.structures import check_replication
from mixedeffects.frame.without_rows import FrameWithoutRows, TermWithoutRows
from mixedeffects.lazy.model import LazyModel, read_lazy_model
from mixedeffects.lazy.statistics import SufficientStatistics, parts_of
from mixedeffects.lazy.stored import NoTable, levels_of, model_of
from mixedeffects.lazy.sums import LevelSums, RowsInTable, level_sums, square_of
from mixedeffects.lazy.table import LazyTable, count_rows, is_lazy, lazy_table
from mixedeffects.progress import ProgressOption

__all__ = ["ROWS", "fit_any_table", "fit_lazy_table", "fit_statistics"]

Matrix = NDArray[np.float64]

#: What may happen to the rows of a lazy table.
ROWS = ("auto", "collect", "push")
#: What earlier columns leave of a column, relative to its size, that is nothing; and from which on
#: cross-products tell how much it is.
_DEPENDENT, _DOUBTFUL = 1e-7, 1e-3
#: The same where there are only cross-products: what is rounding, and what may be.
_LOST, _UNCLEAR = 1e-6, 1e-5
#: Complete rows up to which a lazy table is brought into memory.
_COLLECTED = 1_000_000
_STRUCTURED = (
    "`residual=`, `variance=` and `sigma=` need the rows of each group together, and these stayed "
    "in the table; bring them into memory with rows='collect'."
)


def fit_any_table(
    formula: str | SufficientStatistics,
    data: Any = None,
    *,
    rows: str = "auto",
    residual: str | KnownCovariance | None = None,
    variance: str | None = None,
    sigma: float | None = None,
    double_bar: str = "lme4",
    progress: ProgressOption = None,
    scratch: Any = None,
    **options: Any,
) -> Fit:
    """Fit a model to data in memory, or to a table that stays in its engine.

    Parameters
    ----------
    formula, data, rows, residual, variance, sigma, double_bar, progress, scratch, options
        As for `mixedeffects.lmer`.

    Raises
    ------
    FormulaError, DataError, ModelError
        As for `mixedeffects.lmer`.
    """
    rows = checked_choice(rows, "rows", ROWS)
    if isinstance(formula, SufficientStatistics):
        return fit_statistics(
            formula,
            data=data,
            rows=rows,
            double_bar=double_bar,
            residual=residual,
            variance=variance,
            sigma=sigma,
            progress=progress,
            scratch=scratch,
            **options,
        )
    if data is None:
        raise ModelError(
            "lmer() needs data: lmer(formula, data), or the sums alone, lmer(statistics), as "
            "sufficient(...) makes them."
        )
    in_memory = rows == "collect" or (rows == "auto" and not is_lazy(data))
    structured = residual is not None or variance is not None or sigma is not None
    if not in_memory and structured:
        if rows == "push":
            raise ModelError(_STRUCTURED)
        in_memory = True
    if not in_memory:
        table = lazy_table(data)
        if double_bar != "lme4":
            formula = separate_double_bars(formula, data)
        pushed = rows == "push" or scratch is not None
        if pushed or _has_many_rows(table, progress):
            return fit_lazy_table(formula, table, progress=progress, scratch=scratch, **options)
    if scratch is not None:
        raise ModelError(
            "scratch= keeps the blocks of a table whose rows stay in its engine, and here they are "
            "in memory. Give a lazy table, such as duckdb.read_parquet(...)."
        )
    return fit_formula(
        formula,
        data,
        residual=residual,
        variance=variance,
        sigma=sigma,
        double_bar=double_bar,
        progress=progress,
        **options,
    )


def _has_many_rows(table: LazyTable, progress: ProgressOption) -> bool:
    with table.telling(progress):
        return count_rows(table) > _COLLECTED


def fit_lazy_table(
    formula: str,
    table: LazyTable,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    contrasts: dict[str, Any] | None = None,
    inherited: dict[str, Any] | None = None,
    start: Sequence[float] | None = None,
    control: Control | None = None,
    ddf: str = "satterthwaite",
    progress: ProgressOption = None,
    scratch: Any = None,
) -> Fit:
    """Fit a model to a table whose rows stay in its engine.

    Parameters
    ----------
    formula, reml, weights, offset, contrasts, start, control, progress, scratch
        As for `mixedeffects.lmer`; weights and offset are names of columns.
    table : LazyTable
        The table.
    inherited : dict, optional
        Codings of categorical columns that need not be in the formula.
    ddf : str
        As for `fit_formula`.

    Raises
    ------
    FormulaError, DataError, ModelError
        As for `mixedeffects.lmer`, or if something cannot be handed to the engine.
    Interrupted
        On Ctrl-C: in a pass over the table, with what starts again; in the search, with what goes
        on.
    """
    inherited = inherited or {}
    files = scratch_folder(scratch)
    try:
        with one_blas_thread(), table.telling(progress):
            model = read_lazy_model(
                formula,
                table,
                weights=weights,
                offset=offset,
                contrasts=contrasts,
                inherited=inherited,
            )
            for sentence in model.dropped.lost:
                warn(sentence, DataWarning)
            made = _Assembled(model, level_sums(model, files))
    except KeyboardInterrupt:

        def again(_: Any, progress: ProgressOption) -> Fit:
            return fit_lazy_table(
                formula,
                table,
                reml=reml,
                weights=weights,
                offset=offset,
                contrasts=contrasts,
                inherited=inherited,
                start=start,
                control=control,
                progress=progress,
                scratch=scratch,
                ddf=ddf,
            )

        raise Interrupted(
            f"Interrupted in the passes over the table, {len(table.seconds)} of which were done. "
            "`partial.resume()` of this exception starts again; at the prompt, "
            "`sys.last_value.partial.resume()`.",
            UnfinishedFit(again, None, None),
        ) from None
    request = Request(
        data=table.native,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        inherited=inherited,
        control=control,
        ddf=ddf,
    )
    return _fit(made, request, reml, start, progress, files)


def fit_statistics(
    statistics: SufficientStatistics,
    *,
    reml: bool = True,
    start: Sequence[float] | None = None,
    control: Control | None = None,
    progress: ProgressOption = None,
    scratch: Any = None,
    **others: Any,
) -> Fit:
    """Fit a model to its sums.

    Parameters
    ----------
    statistics : SufficientStatistics
        The sums.
    reml, start, control, progress, scratch
        As for `mixedeffects.lmer`.
    others : dict
        The further arguments, which have nothing to say here.

    Raises
    ------
    ModelError
        As for `mixedeffects.lmer`, or if there is another argument.
    """
    reml = bool(checked_flag(reml, "reml"))
    check_control(control)
    given = [
        name
        for name, value in others.items()
        if value is not None and not (isinstance(value, str) and value == _DEFAULTS.get(name))
    ]
    if given:
        raise ModelError(
            f"lmer(statistics) takes no `{given[0]}`: the sums have been made with what "
            "sufficient(...) was given."
        )
    content, files = parts_of(statistics), scratch_folder(scratch)
    with one_blas_thread():
        made = _Assembled(model_of(content), levels_of(content))
    nothing: Any = LEFT_OUT
    request = Request(
        data=nothing,
        weights=content.weights,
        offset=content.offset,
        contrasts=content.codings or None,
        inherited={},
        control=control,
    )
    return _fit(made, request, reml, start, progress, files)


#: Arguments of `lmer` as they are when not given.
_DEFAULTS = {"double_bar": "lme4", "rows": "auto"}


def _fit(
    made: _Assembled,
    request: Request,
    reml: bool,
    start: Sequence[float] | None,
    progress: ProgressOption,
    scratch: Scratch,
) -> Fit:
    control = request.control
    with one_blas_thread():
        A = made.crossproducts(scratch)
        factors = None
        if start is not None:
            factors = starting_factors(A, read_theta(made.frame.terms, start, "start"))

    def as_requested(fit: Fit) -> Fit:
        return dataclasses.replace(fit, is_as_requested=start is None)

    try:
        return as_requested(
            fit_blocks_of_table(
                made.frame,
                A,
                reml,
                request,
                made.rows,
                factors,
                control,
                progress,
                further=start is None,
            )
        )
    except Interrupted as stopped:
        stopped.partial = stopped.partial.then(as_requested)
        raise


class _Assembled:
    """A model's sums joined to its labels: the frame without rows, and which column is which."""

    def __init__(self, model: LazyModel, levels: LevelSums) -> None:
        self.model, self.sums, self._guard = model, levels.sums, levels.guard
        n = model.moments.n
        counts = [each.n_levels for each in levels.groupings]
        names = [name for name, _ in model.groups]
        for name, grouping in zip(names, levels.groupings, strict=True):
            labels = grouping.labels if grouping.n_levels < 2 else []
            check_grouping(name, grouping.n_levels, labels, n)
        number = [names.index(bar.group) for bar in model.bars]
        order = lme4_order([counts[f] for f in number])
        bars = [model.bars[i] for i in order]
        encoders = [model.random_encoders[i] for i in order]
        columns = [model.columns.terms[i] for i in order]
        for bar, encoder, term in zip(bars, encoders, columns, strict=True):
            if bar.structure == "us":
                k = encoder.n_columns
                check_random_effects(k, counts[term.factor], str(bar), n)
        encoder, fixed = self._independent()
        self.columns = SumColumns(fixed, tuple(columns), model.columns.response)
        labels = term_labels([bar.group for bar in bars])
        known = [
            {
                "label": label,
                "group": bar.group,
                "variables": bar.variables,
                "columns": own.names,
                "level_values": levels.groupings[term.factor].values,
                "structure": bar.structure,
                "homogeneous": bar.homogeneous,
            }
            for label, bar, own, term in zip(labels, bars, encoders, columns, strict=True)
        ]
        self._check(known, encoder)
        unused = {
            name: grouping.unused
            for name, grouping in zip(names, levels.groupings, strict=True)
            if grouping.unused
        }
        self.frame = FrameWithoutRows.of(
            n,
            engine=model.table.engine,
            formula=model.formula,
            fixef_names=encoder.names,
            terms=tuple(TermWithoutRows.of(model.table.engine, **each) for each in known),
            dropped=dataclasses.replace(
                model.dropped,
                columns=tuple(encoder.all_names[i] for i in encoder.dropped),
                unused_levels=unused,
            ),
            fixed_encoder=encoder,
            random_encoders=tuple(encoders),
            residual=None,
            variance=None,
            residual_coders=(),
            variance_encoder=None,
            response_levels=(),
        )

    def _independent(self) -> tuple[DesignEncoder, tuple[int, ...]]:
        """The fixed-effects encoder and columns that are no combinations of earlier ones."""
        encoder, columns = self.model.fixed_encoder, self.model.columns.fixed
        kept = np.array(self._kept(columns), dtype=np.intp)
        check_fixed(encoder.all_names, kept, self.sums.n)
        return encoder.keeping(kept), tuple(columns[j] for j in kept)

    def _kept(self, columns: tuple[int, ...]) -> list[int]:
        """Positions of the columns that earlier ones do not explain.

        Cross-products tell less than half of the digits of what is left of a column. Where that is
        little, it is made a column of its own and its squares are added up in one more pass.
        """
        X, D = rows_in_place(self.sums, columns), combinations_of(self.sums, columns)
        kept: list[int] = []
        for j, column in enumerate(X.T):
            size = float(np.linalg.norm(column))
            if size == 0.0:
                continue
            explained = np.linalg.lstsq(X[:, kept], column, rcond=None)[0]
            left = float(np.linalg.norm(column - X[:, kept] @ explained))
            if left <= _DOUBTFUL * size:
                rest = D[:, j] - D[:, kept] @ explained
                left = self._left(rest, left, size, j)
            if left > _DEPENDENT * size:
                kept.append(j)
        return kept

    def _left(self, rest: Matrix, left: float, size: float, j: int) -> float:
        """Length of what earlier columns leave of one, from the table where there is one."""
        if not isinstance(self.model.table, NoTable):
            return float(np.sqrt(square_of(self.model, rest)))
        if left <= _LOST * size:
            return 0.0
        if left <= _UNCLEAR * size:
            name = self.model.fixed_encoder.all_names[j]
            raise ModelError(
                f"Column `{name}` is so nearly a combination of earlier ones that the sums do not "
                "tell whether it is one. Leave it out, or make the sums of the column less what "
                "the others explain."
            )
        return left

    def _check(self, known: Sequence[dict[str, Any]], encoder: DesignEncoder) -> None:
        """What can be told of the rows from their sums."""
        model, largest = self.model, self.model.moments.largest
        pairs = [(encoder.names, self.columns.fixed)]
        pairs += [(e["columns"], t.columns) for e, t in zip(known, self.columns.terms, strict=True)]
        check_ranges(
            (model.design.keys[model.columns.response], largest[[model.columns.response]]),
            [(names, largest[None, list(at)]) for names, at in pairs],
            None,
        )
        structure = structure_of_sums(self.sums, self.columns)
        terms = [
            RandomTerm(
                codes=rows.codes,
                z=rows_in_place(self.sums, term.columns, whole=True),
                # Their number is all that is looked at.
                levels=each["level_values"],
                **each,
            )
            for each, term, rows in zip(known, self.columns.terms, structure, strict=True)
        ]
        check_random_columns(terms)
        alone = [one_row_each_effect(self.sums, term) for term in self.columns.terms]
        check_replication(terms, alone)
        check_parameters(terms)

    @property
    def rows(self) -> RowsInTable:
        """What further passes need."""
        overall = dataclasses.replace(self.sums, factors=(), pairs=())
        return RowsInTable(self.model, self.columns, overall, self._guard)

    def crossproducts(self, scratch: Scratch) -> CrossProducts:
        """The blocks, or a sentence about why they cannot be held; the sums are given up."""
        try:
            A = crossproducts_from_sums(self.sums, self.columns, scratch)
        except RemainderTooLargeError as error:
            raise too_large(self.frame.terms, error) from None
        # By levels they are in the blocks.
        self.sums = dataclasses.replace(self.sums, factors=(), pairs=())
        return A


def one_row_each_effect(sums: GroupedSums, term: TermColumns) -> bool:
    """Whether every row has an effect of its own; see `one_row_each`."""
    k = len(term.columns)
    factor = sums.factors[term.factor]
    if k < 2 or k * factor.n_levels < sums.n or 0 in term.columns:
        return False
    at = [factor.own.index(c) for c in term.columns]
    products = factor.products[:, at][:, :, list(term.columns)]
    off = products - np.einsum("lkk->lk", products)[:, :, None] * np.eye(k)
    if off.any():
        return False
    return int(np.count_nonzero(np.einsum("lkk->lk", products))) == sums.n
