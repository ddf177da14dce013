"""Two models on the rows of one table: by the names of their columns, and on rows in common.

Columns of designs on one table are equal where their keys are. What keys do not settle is settled
by few rows that have the columns of both designs, and their products by the levels of both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixedeffects.engine.grouped_sums import SumColumns, TermColumns
from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.fitting.representative import with_cells
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.lazy.cells import cell_rows
from mixedeffects.lazy.design import Design
from mixedeffects.lazy.expressions import Expr
from mixedeffects.lazy.model import LazyModel, Moments, read_lazy_model
from mixedeffects.lazy.table import LazyTable

__all__ = [
    "are_in_tables",
    "means_within_by_name",
    "on_common_rows",
    "variances_within_by_name",
]


@dataclass(frozen=True, eq=False)
class _Placed:
    """A model on a table, with the places of the columns of a fit."""

    model: LazyModel
    at: SumColumns

    def keys(self, places: Sequence[int]) -> set[str]:
        """Names of some columns."""
        return {self.model.design.keys[j] for j in places}


def are_in_tables(one: Fit, other: Fit) -> bool:
    """Whether the rows of either stayed in a table."""
    return one.rows is not None or other.rows is not None


def means_within_by_name(large: Fit, small: Fit) -> bool:
    """Whether the names of their columns say that one model has all means of another."""
    big, little = _placed(large, small), _placed(small, large)
    if big.model.offset is not None or little.model.offset is not None:
        return False
    return little.keys(little.at.fixed) <= big.keys(big.at.fixed)


def variances_within_by_name(large: Fit, small: Fit) -> bool:
    """The same of its covariance matrices; where it cannot be said it may be so all the same."""
    big, little = _placed(large, small), _placed(small, large)

    def within(term: RandomTerm, own: set[str]) -> bool:
        for other, columns in zip(large.frame.terms, big.at.terms, strict=True):
            if set(other.variables) != set(term.variables):
                continue
            theirs = big.keys(columns.columns)
            alike = (other.structure, other.homogeneous) == (term.structure, term.homogeneous)
            if own <= theirs and (other.structure == "us" or (alike and own == theirs)):
                return True
        return False

    return all(
        within(term, little.keys(columns.columns))
        for term, columns in zip(small.frame.terms, little.at.terms, strict=True)
    )


def on_common_rows(one: Fit, other: Fit) -> tuple[Fit, Fit]:
    """Both fits with the same rows, which stand for those of the table.

    Raises
    ------
    ModelError
        If they have no table in common.
    """
    # The same whichever is asked about first, so that there is one pass for both questions.
    turned = one.rows is None or (other.rows is not None and id(other) < id(one))
    return _common(other, one)[::-1] if turned else _common(one, other)


@once_per_fit("rows in common with another fit")
def _common(one: Fit, other: Fit) -> tuple[Fit, Fit]:
    first, second = _placed(one, other), _placed(other, one)
    joint, places, offsets = _joint(first.model, second.model)
    assert one.rows is not None
    try:
        cells = cell_rows(joint, (), one.rows.guard)
    except DataError as error:
        raise ModelError(
            "The models were not fitted to the same rows of one table, or it changed since, so "
            f"they cannot be compared. {error}"
        ) from None
    found = []
    for fit, placed, where, offset in (
        (one, first, range(len(first.model.design.keys)), offsets[0]),
        (other, second, places, offsets[1]),
    ):
        model = dataclasses.replace(joint, offset=placed.model.offset)
        few = with_cells(fit, model, _moved(placed.at, where), cells)
        if offset is not None:
            scale, centre = joint.moments.scale[offset], joint.moments.centre[offset]
            column = cells.columns[:, offset] * scale + cells.columns[:, 0] * centre
            few = dataclasses.replace(few, frame=dataclasses.replace(few.frame, offset=column))
        found.append(few)
    return found[0], found[1]


def _moved(at: SumColumns, places: Sequence[int]) -> SumColumns:
    def of(columns: Sequence[int]) -> tuple[int, ...]:
        return tuple(places[j] for j in columns)

    terms = tuple(TermColumns(term.factor, of(term.columns)) for term in at.terms)
    return SumColumns(of(at.fixed), terms, places[at.response])


def _joint(
    one: LazyModel, other: LazyModel
) -> tuple[LazyModel, list[int], tuple[int | None, int | None]]:
    """Both designs as one; places of the columns of the second; and those of the offsets."""
    keys, columns = list(one.design.keys), list(one.design.columns)
    centre, scale = list(one.moments.centre), list(one.moments.scale)
    largest = list(one.moments.largest)

    def put(key: str, column: Expr, moments: tuple[float, float, float]) -> int:
        keys.append(key)
        columns.append(column)
        for values, value in zip((centre, scale, largest), moments, strict=True):
            values.append(value)
        return len(keys) - 1

    places = []
    for j, key in enumerate(other.design.keys):
        # Responses less offsets have one name.
        is_response = j == other.columns.response
        if key in keys and not (
            is_response and (one.offset is not None) | (other.offset is not None)
        ):
            places.append(keys.index(key))
            continue
        own = tuple(
            float(values[j])
            for values in (other.moments.centre, other.moments.scale, other.moments.largest)
        )
        places.append(put(key, other.design.columns[j], own))  # type: ignore[arg-type]
    offsets = tuple(
        None if model.offset is None else put(f"offset {i}", model.offset, (0.0, 1.0, 1.0))
        for i, model in enumerate((one, other))
    )
    moments = Moments(one.moments.n, np.array(centre), np.array(scale), np.array(largest))
    design = Design(one.table, keys, columns)
    groups = tuple(dict([*one.groups, *other.groups]).items())
    complete = one.complete & other.complete
    joint = dataclasses.replace(
        one, complete=complete, design=design, groups=groups, moments=moments
    )
    return joint, places, offsets  # type: ignore[return-value]


def _placed(fit: Fit, beside: Fit) -> _Placed:
    """A fit's model on its table, or on that of another fit."""
    if fit.rows is not None:
        return _Placed(fit.rows.model, fit.rows.columns)
    assert beside.rows is not None
    return _on_table(fit, beside)


@once_per_fit("design on a table")
def _on_table(fit: Fit, beside: Fit) -> _Placed:
    """The model of a fit in memory on the table of another."""
    assert beside.rows is not None
    table = beside.rows.model.table
    _check_no_residual_model(fit, table)
    request = fit.request
    try:
        model = read_lazy_model(
            fit.frame.formula,
            table,
            weights=request.weights,
            offset=request.offset,
            contrasts=request.contrasts,
            inherited=request.inherited,
        )
        return _Placed(model, _places(fit, model))
    except (DataError, ModelError) as error:
        raise ModelError(
            f"The rows of one model stayed in a table ({table.engine}), and the other, "
            f"{fit.formula}, cannot be made on that table: {error} Fit both to the table, or both "
            "with rows='collect'."
        ) from None


def _check_no_residual_model(fit: Fit, table: LazyTable) -> None:
    if fit.frame.residual is not None or fit.frame.variance is not None:
        raise ModelError(
            f"The rows of one model stayed in a table ({table.engine}), and the other has a model "
            "of its residuals, which needs rows in memory: fit both with rows='collect'."
        )


def _places(fit: Fit, model: LazyModel) -> SumColumns:
    """The columns of a fit in a design: X less those dropped for rank, terms in its order."""
    encoder = fit.frame.fixed_encoder
    kept = None if encoder is None else encoder.kept
    fixed = model.columns.fixed
    fixed = fixed if kept is None else tuple(fixed[j] for j in kept)
    left = list(range(len(model.bars)))
    terms = []
    for term in fit.frame.terms:
        own = next(
            (
                i
                for i in left
                if model.bars[i].group == term.group
                and model.random_encoders[i].all_names == term.columns
            ),
            None,
        )
        if own is None or len(fixed) != len(fit.fixef_names):
            raise ModelError("its columns are other ones there.")
        left.remove(own)
        terms.append(model.columns.terms[own])
    return SumColumns(fixed, tuple(terms), model.columns.response)
