"""Few rows that stand for all of a table in what is linear in the columns of the fixed part.

The columns are products of numbers and of indicators of levels. Within a cell of the factors the
sums of products of the numbers say all: a root of their matrix stands for the cell's rows, and
designs of the same variables, however coded, have the cross-products that they have over all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.frame.coder import VariableCoder
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.variables import Columns
from mixedeffects.lazy.expressions import Expr
from mixedeffects.lazy.model import LazyModel
from mixedeffects.lazy.questions import Questions, Range

__all__ = ["Monomial", "StandIn", "monomials_of", "numbers_of", "product_of", "stand_in"]

Matrix = NDArray[np.float64]
#: The numbers that a column of a design is a product of: variable and column of it, sorted.
Monomial = tuple[tuple[str, int], ...]

#: Share of the largest eigenvalue of a matrix of sums below which one is rounding of sums.
_ROUNDING = 1e-12


def numbers_of(encoder: DesignEncoder, term: Sequence[int], combination: Sequence[int]) -> Monomial:
    """The numbers in one column of a term."""
    coders = encoder.coders
    return tuple(
        sorted(
            (coders[i].name, j)
            for i, j in zip(term, combination, strict=True)
            if coders[i].kind == "numeric"
        )
    )


def monomials_of(encoder: DesignEncoder) -> tuple[Monomial, ...]:
    """The products of numbers that the columns of an encoder have, first the empty one."""
    found: dict[Monomial, None] = {(): None}
    for term, _, block in encoder.blocks:
        for combination in block:
            found[numbers_of(encoder, term, combination)] = None
    return tuple(found)


def product_of(monomial: Monomial, model: LazyModel) -> Expr:
    """A product of numbers as an expression of the table."""
    return reduce(lambda a, b: a * b, [model.variables[v].columns[j] for v, j in monomial])


@dataclass(frozen=True, eq=False)
class StandIn:
    """Rows that stand for all.

    Attributes
    ----------
    monomials : tuple of Monomial
        Products of numbers.
    numbers : ndarray, shape (rows, monomials)
        Their values.
    codes : dict of str to ndarray of int
        Levels of the factors and logicals in each row.
    """

    monomials: tuple[Monomial, ...]
    numbers: Matrix
    codes: dict[str, NDArray[Any]]

    def number(self, monomial: Monomial) -> Matrix:
        """The values of a product of numbers."""
        return np.asarray(self.numbers[:, self.monomials.index(monomial)])

    def columns(self, encoder: DesignEncoder) -> Matrix:
        """All columns of an encoder of these variables."""
        X = np.empty((len(self.numbers), len(encoder.all_names)), order="F")
        at = 0
        if encoder.table.intercept:
            X[:, 0] = self.number(())
            at = 1
        for term, full, block in encoder.blocks:
            for combination in block:
                X[:, at] = self.number(numbers_of(encoder, term, combination))
                for i, j, every in zip(term, combination, full, strict=True):
                    coder = encoder.coders[i]
                    if coder.kind != "numeric":
                        X[:, at] *= coder.column(self.codes[coder.name], j, every)
                at += 1
        return X


def stand_in(
    questions: Questions, encoder: DesignEncoder, ranges: Mapping[Monomial, Range]
) -> StandIn:
    """Rows that stand for those of the fixed part, in one query.

    Parameters
    ----------
    questions : Questions
        To the table.
    encoder : DesignEncoder
        Of the fixed part.
    ranges : mapping of Monomial to (mean, low, high)
        Of the products of numbers.
    """
    cells = _Cells(questions, [coder for coder in encoder.coders if coder.kind != "numeric"])
    monomials = monomials_of(encoder)
    middle, reach = np.zeros(len(monomials)), np.ones(len(monomials))
    for j, monomial in enumerate(monomials[1:], start=1):
        mean, low, high = ranges[monomial]
        middle[j], reach[j] = mean, (high - low) or 1.0
    numbers = [product_of(each, questions.model) for each in monomials[1:]]
    centred = [
        (number - float(m)) / float(r)
        for number, m, r in zip(numbers, middle[1:], reach[1:], strict=True)
    ]
    answer, cube = cells.sums(centred)
    cell, rows = _roots(cube)
    rows[:, 1:] = rows[:, 1:] * reach[1:] + rows[:, :1] * middle[1:]
    codes = {name: found[cell] for name, found in cells.codes(answer).items()}
    return StandIn(monomials, rows, codes)


class _Cells:
    """Combinations of the levels of factors and logicals, by the columns they are made of."""

    def __init__(self, questions: Questions, coders: Sequence[VariableCoder]) -> None:
        self._questions, self._coders = questions, coders
        self._sources: dict[str, str] = {}
        self._keys: dict[str, Expr] = {}
        self._bound = 1.0
        for i, coder in enumerate(coders):
            variable = questions.model.variables[coder.name]
            self._bound *= 2.0 if variable.cells is None else float(len(variable.cells))
            if coder.kind == "logical":
                self._keys[f"l{i}"] = variable.columns[0]
            for name in variable.sources:
                if name not in self._sources:
                    self._sources[name] = f"k{len(self._sources)}"
                    self._keys[self._sources[name]] = questions.key(name)

    def sums(self, numbers: Sequence[Expr]) -> tuple[pd.DataFrame, Matrix]:
        """The cells, and in each the sums of the products of one and some numbers."""
        import narwhals as nw

        m = len(numbers) + 1
        pairs = list(combinations_with_replacement(range(m), 2))[1:]
        what = "cells of the fixed factors"
        self._questions.check_cells(self._keys, self._bound, len(pairs) + 1, what)
        columns = {f"u{j}": number for j, number in enumerate(numbers, start=1)}
        rows = self._questions.guarded({**self._keys, **columns})
        products = [
            (nw.col(f"u{i}") * nw.col(f"u{j}") if i else nw.col(f"u{j}")).alias(f"p{c}")
            for c, (i, j) in enumerate(pairs)
        ]
        rows = rows.select(*(nw.col(key) for key in self._keys), nw.col("guard"), *products)
        totals = {f"p{c}": nw.col(f"p{c}").sum() for c in range(len(pairs))}
        answer = self._questions.sums(rows, totals, what, tuple(self._keys))
        cube = np.empty((len(answer), m, m))
        cube[:, 0, 0] = answer["rows"].to_numpy(dtype=np.float64)
        for c, (i, j) in enumerate(pairs):
            cube[:, i, j] = cube[:, j, i] = answer[f"p{c}"].to_numpy(dtype=np.float64)
        return answer, cube

    def codes(self, answer: pd.DataFrame) -> dict[str, NDArray[Any]]:
        """Levels of each variable in each cell."""
        own = answer[list(self._sources.values())].set_axis(list(self._sources), axis=1)
        columns = Columns(own)
        return {
            coder.name: (answer[f"l{i}"].to_numpy(dtype=np.float64) > 0.5).astype(np.int32)
            if coder.kind == "logical"
            else coder.evaluate(columns)[0]
            for i, coder in enumerate(self._coders)
        }


def _roots(cube: Matrix) -> tuple[NDArray[np.intp], Matrix]:
    """Rows with the cross-products of each of many matrices, and which matrix each is of.

    Directions whose sums are rounding are left out: their roots would be many times larger.
    """
    size = np.sqrt(np.einsum("ckk->ck", cube))
    size[size == 0.0] = 1.0
    values, vectors = np.linalg.eigh(cube / (size[:, :, None] * size[:, None, :]))
    cell, which = np.nonzero(values > _ROUNDING * values[:, -1:])
    rows = vectors[cell, :, which] * np.sqrt(values[cell, which])[:, None]
    return cell, rows * size[cell]
