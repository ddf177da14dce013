"""Turn variables into the columns of a model matrix, by R's ``model.matrix`` rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.errors import DataError, ModelError
from mixedeffects.formula.evaluate import State
from mixedeffects.formula.syntax import deparse
from mixedeffects.formula.terms import TermTable
from mixedeffects.formula.values import Coding, Factor, Value
from mixedeffects.frame.checks import check_size
from mixedeffects.frame.coder import VariableCoder
from mixedeffects.frame.contrasts import contrast_columns
from mixedeffects.frame.ingest import column_names, materialised, take_columns
from mixedeffects.frame.variables import Columns, data_columns

__all__ = ["DesignEncoder", "VariableCoder", "check_codings", "fit_encoder", "intercept_coded"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DesignEncoder:
    """A model matrix's recipe: terms, levels, contrasts and transforms, but no data.

    Attributes
    ----------
    table : TermTable
        The terms.
    coders : tuple of VariableCoder
        One for each of ``table.variables``.
    kept : ndarray of intp or None
        The columns kept after dropping linear combinations; None means all.
    offsets : tuple of VariableCoder
        One for each of ``table.offsets``.
    """

    table: TermTable
    coders: tuple[VariableCoder, ...]
    kept: NDArray[np.intp] | None = None
    offsets: tuple[VariableCoder, ...] = ()

    @cached_property
    def _blocks(self) -> list[list[tuple[int, ...]]]:
        """For each term its columns, each as one column number per variable, first fastest."""
        blocks = []
        for term, full in zip(self.table.terms, self.table.full, strict=True):
            combinations: list[tuple[int, ...]] = [()]
            for i, every in zip(term, full, strict=True):
                width = len(self.coders[i].column_names(every))
                combinations = [(*c, j) for j in range(width) for c in combinations]
            blocks.append(combinations)
        return blocks

    @property
    def blocks(self) -> list[tuple[tuple[int, ...], tuple[bool, ...], list[tuple[int, ...]]]]:
        """For each term its variables, which of them are coded by all levels, and its columns."""
        return list(zip(self.table.terms, self.table.full, self._blocks, strict=True))

    @property
    def n_columns(self) -> int:
        """Number of all columns, known before any is named."""
        return int(self.table.intercept) + sum(
            math.prod(self.coders[i].width(e) for i, e in zip(term, full, strict=True))
            for term, full in zip(self.table.terms, self.table.full, strict=True)
        )

    @cached_property
    def all_names(self) -> tuple[str, ...]:
        """Names of all columns, those dropped for rank included."""
        names = ["(Intercept)"] if self.table.intercept else []
        for term, full, block in self.blocks:
            parts = [self.coders[i].column_names(e) for i, e in zip(term, full, strict=True)]
            names += [
                ":".join(part[j] for part, j in zip(parts, combination, strict=True))
                for combination in block
            ]
        return tuple(names)

    @cached_property
    def _all_assign(self) -> tuple[int, ...]:
        assign = [0] if self.table.intercept else []
        for position, block in enumerate(self._blocks, start=1):
            assign += [position] * len(block)
        return tuple(assign)

    @property
    def names(self) -> tuple[str, ...]:
        """R-style names of the columns."""
        if self.kept is None:
            return self.all_names
        return tuple(self.all_names[i] for i in self.kept)

    @property
    def dropped(self) -> NDArray[np.intp]:
        """The columns that were dropped for rank."""
        every = np.arange(len(self.all_names))
        return every[:0] if self.kept is None else np.setdiff1d(every, self.kept)

    @property
    def assign(self) -> tuple[int, ...]:
        """For each column the term it belongs to: 0 the intercept, i the i-th of the labels."""
        if self.kept is None:
            return self._all_assign
        return tuple(self._all_assign[i] for i in self.kept)

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the variables that are coded by levels."""
        return tuple(coder.name for coder in self.coders if coder.kind != "numeric")

    @property
    def term_labels(self) -> tuple[str, ...]:
        """Text of each term."""
        return self.table.labels

    @property
    def variables(self) -> tuple[str, ...]:
        """Columns of data that the encoder needs."""
        return tuple(data_columns([coder.tree for coder in self.coders], ()))

    def keeping(self, kept: NDArray[np.intp]) -> DesignEncoder:
        """Return the encoder of some of the columns."""
        return replace(self, kept=None if len(kept) == len(self.all_names) else kept)

    def assemble(
        self, values: Sequence[NDArray[Any]], n: int, order: Literal["C", "F"] = "F"
    ) -> Matrix:
        """Build all columns, those dropped for rank included, from settled values."""
        X = np.empty((n, len(self.all_names)), order=order)
        at = 0
        if self.table.intercept:
            X[:, 0] = 1.0
            at = 1
        for term, full, block in self.blocks:
            parts = [(self.coders[i], values[i], e) for i, e in zip(term, full, strict=True)]
            for combination in block:
                coder, value, every = parts[0]
                X[:, at] = coder.column(value, combination[0], every)
                for (coder, value, every), j in zip(parts[1:], combination[1:], strict=True):
                    X[:, at] *= coder.column(value, j, every)
                at += 1
        return X

    def encode(self, data: Any) -> tuple[Matrix, tuple[str, ...]]:
        """Build the matrix for other data, with the fit's levels, contrasts and transforms.

        Parameters
        ----------
        data : dataframe
            Any of the types that a model can be fitted to.

        Returns
        -------
        matrix : ndarray, shape (rows, columns)
            NaN in the rows where a variable is missing.
        names : tuple of str

        Raises
        ------
        DataError
            If a column is missing, or a factor has a level that the fit did not see.
        """
        data = materialised(data)
        available = column_names(data)
        needed = data_columns([coder.tree for coder in self.coders], available)
        frame = take_columns(data, needed) if needed else _rows_only(data)
        return self.encode_columns(Columns(frame)), self.names

    def encode_columns(self, columns: Columns) -> Matrix:
        """Build the matrix from columns already taken; see `encode`.

        Raises
        ------
        DataError
            As for `encode_all`.
        """
        X = self.encode_all(columns)
        return X if self.kept is None else np.asfortranarray(X[:, self.kept])

    def encode_all(self, columns: Columns) -> Matrix:
        """The same with the columns that were dropped for rank.

        Raises
        ------
        DataError
            If a factor has a level that the fit did not see, or a value is infinite.
        """
        values = []
        absent = np.zeros(columns.n, dtype=np.bool_)
        for coder in self.coders:
            value, missing = coder.evaluate(columns)
            values.append(value)
            if missing is not None:
                absent |= missing
        X = self.assemble(values, columns.n)
        X[absent] = np.nan
        return X

    def offset_columns(self, columns: Columns) -> Matrix:
        """Sum of the offsets written in the formula, shape (rows,); NaN where one is missing."""
        total = np.zeros(columns.n)
        for coder in self.offsets:
            total += coder.evaluate(columns)[0]
        return total


def _rows_only(data: Any) -> Any:
    """Return a frame with no column of interest but the right number of rows."""
    first = column_names(data)[:1]
    if not first:
        raise DataError("The data have no columns.")
    return take_columns(data, first)


def _used_levels(factor: Factor) -> Factor:
    counts = np.bincount(factor.codes, minlength=len(factor.levels))
    used = np.flatnonzero(counts)
    if len(used) == len(factor.levels):
        return factor
    lookup = np.full(len(factor.levels), -1, dtype=np.int32)
    lookup[used] = np.arange(len(used))
    return replace(factor, codes=lookup[factor.codes], levels=tuple(factor.levels[i] for i in used))


def fit_encoder(
    table: TermTable,
    values: Mapping[str, Value],
    states: Mapping[str, State],
    contrasts: Mapping[str, Coding],
) -> tuple[DesignEncoder, list[NDArray[Any]]]:
    """Make the encoder of a set of terms from the rows used.

    Parameters
    ----------
    table : TermTable
        The terms.
    values : mapping of str to ndarray or Factor
        Each variable on the rows used, nothing missing.
    states : mapping of str to dict
        What each variable's stateful transforms remembered.
    contrasts : mapping of str to Coding
        Codings asked for by argument.

    Returns
    -------
    encoder : DesignEncoder
    settled : list of ndarray
        For each variable of the table its numbers or codes, for `DesignEncoder.assemble`.
    """
    coders = []
    settled = []
    for tree in table.variables:
        name = deparse(tree)
        value = values[name]
        state = dict(states.get(name, {}))
        if isinstance(value, Factor) or value.dtype == np.bool_:
            if isinstance(value, Factor):
                factor = _used_levels(value)
            else:
                factor = Factor(value.astype(np.int32), ("FALSE", "TRUE"))
            coding = contrasts.get(name, factor.coding)
            check_size(factor.codes.size, len(factor.levels), name)
            matrix, suffixes = contrast_columns(name, factor.levels, factor.ordered, coding)
            kind: Literal["logical", "factor"] = (
                "factor" if isinstance(value, Factor) else "logical"
            )
            coders.append(VariableCoder(tree, kind, factor.levels, matrix, suffixes, state))
            settled.append(factor.codes)
        else:
            width = 1 if value.ndim == 1 else value.shape[1]
            # R numbers the columns of a matrix only if there are several.
            suffixes = ("",) if width == 1 else tuple(str(j + 1) for j in range(width))
            coders.append(VariableCoder(tree, "numeric", (), np.empty((0, 0)), suffixes, state))
            settled.append(value)
    offsets = tuple(
        VariableCoder(tree, "numeric", (), np.empty((0, 0)), ("",), dict(states[deparse(tree)]))
        for tree in table.offsets
    )
    return DesignEncoder(intercept_coded(table, coders), tuple(coders), offsets=offsets), settled


def intercept_coded(table: TermTable, coders: Sequence[VariableCoder]) -> TermTable:
    """Without an intercept the first factor takes one column per level, as in R."""
    if table.intercept:
        return table
    full = [list(every) for every in table.full]
    for term, every in zip(table.terms, full, strict=True):
        for position, i in enumerate(term):
            if coders[i].kind != "numeric":
                every[position] = True
                return replace(table, full=tuple(tuple(e) for e in full))
    return table


def check_codings(codings: Mapping[str, Coding], encoders: Sequence[DesignEncoder]) -> None:
    """Refuse codings of what is no factor.

    Raises
    ------
    ModelError
        If ``contrasts`` names something else than a factor of the encoders.
    """
    factors = list(dict.fromkeys(name for encoder in encoders for name in encoder.factors))
    for name in codings:
        if name not in factors:
            raise ModelError(
                f"`contrasts` names `{name}`, which is not a factor of the fixed or random effects"
                f"{' (those are ' + ', '.join(factors) + ')' if factors else ''}."
            )
