"""What an expression in a formula can evaluate to, besides numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Coding", "Evaluation", "Factor", "Lost", "Value"]


@dataclass(frozen=True, eq=False)
class Coding:
    """How the levels of a factor become columns, as asked for.

    Attributes
    ----------
    kind : str
        ``"treatment"``, ``"sum"``, ``"helmert"``, ``"poly"``, ``"sdif"``, ``"sas"`` or
        ``"matrix"``; ``"level"`` for treatment contrasts whose reference was given as a number.
    base : str or int or None
        For treatment contrasts the reference level: its label, or its number counted from 1.
    matrix : ndarray or None
        For ``"matrix"`` one row per level.
    names : tuple of str or None
        For ``"matrix"`` what to append to the factor's name.
    rows : tuple of str or None
        For ``"matrix"`` the levels that the rows belong to, if they were labelled.
    """

    kind: str
    base: str | int | None = None
    matrix: NDArray[np.float64] | None = None
    names: tuple[str, ...] | None = None
    rows: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Factor:
    """A categorical variable.

    Attributes
    ----------
    codes : ndarray of int
        Level of each row; -1 where missing.
    levels : tuple of str
        Labels in order.
    ordered : bool
        Whether the order of the levels means something.
    coding : Coding or None
        Contrasts asked for in the formula.
    """

    codes: NDArray[np.integer[Any]]
    levels: tuple[str, ...]
    ordered: bool = False
    coding: Coding | None = None


Value = NDArray[Any] | Factor


@dataclass(frozen=True, eq=False)
class Lost:
    """Rows in which a part of an expression has no value, though its columns have.

    Attributes
    ----------
    text : str
        The part, such as ``sqrt(x)``.
    argument : str
        What it is made of; of a factor the levels that it does not list.
    low, high : float
        Range of the argument in these rows; NaN for a factor.
    rows : ndarray of bool, shape (n,)
    """

    text: str
    argument: str
    low: float
    high: float
    rows: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """An expression on rows whose columns have no missing values.

    Attributes
    ----------
    value : ndarray or Factor
        One value for each row.
    missing : ndarray of bool, shape (n,), or None
        Where there is none all the same.
    lost : tuple of Lost
        Why.
    """

    value: Value
    missing: NDArray[np.bool_] | None
    lost: tuple[Lost, ...] = ()
