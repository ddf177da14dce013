"""Generalized least squares with a given V: the post's ``getFE``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.base.centring import centring_transform
from mixedeffects.base.habits import explained
from mixedeffects.base.options import checked_names
from mixedeffects.covariance.conjugate_gradients import conjugate_gradients
from mixedeffects.errors import DataError, ModelError
from mixedeffects.frame.row_labels import by_row_labels

__all__ = ["GLSResult", "gls"]

Matrix = NDArray[np.float64]

#: Smallest eigenvalue of the scaled information below which columns may be far from zero.
_NEARLY_COLLINEAR = 1e-8


@dataclass(frozen=True, eq=False)
class GLSResult:
    """Generalized least-squares estimate.

    Attributes
    ----------
    coef : Series, length p
        ``(X'V^-1X)^-1 X'V^-1y``.
    vcov : DataFrame, p x p
        ``(X'V^-1X)^-1``.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> me.gls(m.X, m.y, m.V, names=m.fixef.index)
    Generalized least squares
                 Estimate  Std. Error
    (Intercept)   251.405     6.82456
    Days          10.4673     1.54579
    """

    coef: pd.Series
    vcov: pd.DataFrame

    @property
    def se(self) -> pd.Series:
        """Standard errors, a Series of length p: the square roots of the diagonal of vcov."""
        return pd.Series(np.sqrt(np.diag(self.vcov)), index=self.coef.index, name="Std. Error")

    def __repr__(self) -> str:
        table = pd.DataFrame({"Estimate": self.coef, "Std. Error": self.se})
        return "Generalized least squares\n" + table.to_string(float_format="{:.6g}".format)


@explained
def gls(X: Any, y: Any, V: Any, names: Sequence[str] | None = None) -> GLSResult:
    """Generalized least squares: ``(X'V^-1X)^-1 X'V^-1y``.

    Parameters
    ----------
    X : array, scipy sparse matrix or DataFrame, shape (n, p)
        Model matrix of full column rank; a DataFrame's column names name the coefficients.
    y : array or Series, shape (n,)
        Response. Where V, X and y have row labels, these are matched, whatever their order.
    V : MarginalCovariance, array, DataFrame, scipy sparse matrix or LinearOperator, shape (n, n)
        Covariance matrix of y, symmetric and positive definite. Anything with a ``solve`` method
        and a ``shape`` will do. A LinearOperator is solved with by conjugate gradients, to 1e-12.
    names : sequence of str, optional
        Names of the coefficients; by default those of a DataFrame X, else their positions.

    Returns
    -------
    GLSResult

    Raises
    ------
    DataError
        If shapes or row labels do not match, or a value is not finite.
    ModelError
        If V is not symmetric and positive definite, X not of full column rank, or conjugate
        gradients do not converge.

    References
    ----------
    Aitken, A. C. (1936). On least squares and linear combination of observations. Proceedings of
    the Royal Society of Edinburgh 55, 42-48.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> me.gls(m.X, m.y, m.V.sparse()).coef.round(2).tolist()
    [251.41, 10.47]
    """
    if names is None:
        names = list(X.columns) if isinstance(X, pd.DataFrame) else None
    X, y, V = _by_labels(X, y, V)
    matrix = number_array(X, "X")
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2:
        raise DataError(f"X must be a matrix, n x p; its shape is {matrix.shape}.")
    response = number_array(y, "y").reshape(-1)
    V = _as_covariance(V)
    n, p = matrix.shape
    if response.shape[0] != n or tuple(V.shape) != (n, n):
        raise DataError(
            f"The shapes do not match: X is {n} x {p}, y has {response.shape[0]} values and V is "
            f"{' x '.join(str(s) for s in V.shape)}; V must be n x n for n rows of X."
        )
    if not (np.isfinite(matrix).all() and np.isfinite(response).all()):
        raise DataError("X or y contains values that are not finite.")
    solve = _solver(V)
    solved, information, smallest = _information(solve, matrix, response)
    transform = centring_transform(matrix) if smallest < _NEARLY_COLLINEAR else None
    if transform is not None:
        # Columns far from zero beside an intercept keep their digits if they are centred.
        matrix = matrix @ transform
        solved, information, smallest = _information(solve, matrix, response)
    size = np.sqrt(np.diag(information))
    if smallest < 1e-14:
        raise ModelError("X does not have full column rank: drop the collinear columns.")
    inverse = np.linalg.inv(information / np.outer(size, size)) / np.outer(size, size)
    index = pd.RangeIndex(p) if names is None else pd.Index(checked_names(names, "names"))
    if len(index) != p:
        raise DataError(f"There are {len(index)} names for the {p} columns of X.")
    coef = inverse @ (matrix.T @ solved[:, p])
    # One step of refinement takes out what the normal equations lost.
    residual = response - matrix @ coef
    coef = coef + inverse @ (solved[:, :p].T @ residual)
    if transform is not None:
        coef, inverse = transform @ coef, transform @ inverse @ transform.T
    return GLSResult(
        pd.Series(coef, index=index, name="Estimate"),
        pd.DataFrame(inverse, index=index, columns=index),
    )


def _information(
    solve: Callable[[Matrix], Matrix], X: Matrix, y: Matrix
) -> tuple[Matrix, Matrix, float]:
    """``V^-1 [X y]``, ``X'V^-1X`` and its smallest eigenvalue once scaled to unit diagonal."""
    solved = solve(np.column_stack([X, y]))
    information = X.T @ solved[:, :-1]
    information = 0.5 * (information + information.T)
    if not (np.diag(information) > 0.0).all():
        raise ModelError("X has a column of zeros, or V is not positive definite.")
    size = np.sqrt(np.diag(information))
    if not len(size):
        return solved, information, 1.0
    return solved, information, float(np.linalg.eigvalsh(information / np.outer(size, size))[0])


def _by_labels(X: Any, y: Any, V: Any) -> tuple[Any, Any, Any]:
    """X, y and V with their rows in one order, that of the first of V, X and y with labels."""
    if isinstance(V, pd.DataFrame):
        V = by_row_labels("the transpose of V", V.T, V.index, "V").T
    for whose, labelled in (("V", V), ("X", X)):
        labels = getattr(labelled, "index", None)
        if isinstance(labels, pd.Index):
            X = by_row_labels("X", X, labels, whose)
            return X, by_row_labels("y", y, labels, whose), V
    return X, y, V


def _as_covariance(V: Any) -> Any:
    """V as an operator with solve, a finite symmetric sparse matrix, or an array."""
    if hasattr(V, "shape") and (
        hasattr(V, "solve") or isinstance(V, scipy.sparse.linalg.LinearOperator)
    ):
        return V
    if scipy.sparse.issparse(V):
        given: Any = V
        matrix: Any = scipy.sparse.csc_array(given)
        values, asymmetry = matrix.data, abs(matrix - matrix.T).max() if matrix.shape[0] else 0.0
    else:
        wanted = "V must be a square matrix of numbers or an operator such as m.V"
        matrix = number_array(V, wanted)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise DataError(f"{wanted}; its shape is {matrix.shape}.")
        values, asymmetry = matrix, np.abs(matrix - matrix.T).max(initial=0.0)
    if np.iscomplexobj(values):
        raise DataError("V holds complex numbers; a covariance matrix is real.")
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise DataError(f"V contains {count} values that are not finite.")
    if asymmetry > 1e-8 * np.abs(values).max(initial=0.0):
        raise ModelError(
            f"V is not symmetric: entries differ from their mirror images by up to {asymmetry:.3g}."
            " If only one triangle is filled, mirror it first."
        )
    return matrix


def _solver(V: Any) -> Callable[[Matrix], Matrix]:
    if hasattr(V, "solve"):
        return lambda B: np.asarray(V.solve(B))
    if isinstance(V, scipy.sparse.linalg.LinearOperator):
        return lambda B: conjugate_gradients(V, B)
    if scipy.sparse.issparse(V):
        # Diagonal pivots keep the factorisation symmetric, so their signs tell definiteness.
        matrix: Any = V
        try:
            factor = scipy.sparse.linalg.splu(
                matrix,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
        except RuntimeError:
            raise ModelError("V is not positive definite.") from None
        if not (factor.U.diagonal() > 0).all():
            raise ModelError("V is not positive definite.")
        return lambda B: np.asarray(factor.solve(B))
    try:
        root = scipy.linalg.cho_factor(V, lower=True)
    except np.linalg.LinAlgError:
        raise ModelError("V is not positive definite.") from None
    return lambda B: np.asarray(scipy.linalg.cho_solve(root, B))
