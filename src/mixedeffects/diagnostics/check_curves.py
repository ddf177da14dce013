"""Squares of the covariates: what a straight line would leave in the residuals if it were wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.fitting.fit import Fit
from mixedeffects.formula.syntax import variable_names

__all__ = ["Curves"]

Matrix = NDArray[np.float64]

#: Share of a square that the columns of X do not explain, below which they have it already.
_EXPLAINED = 1e-8


@dataclass(frozen=True, eq=False)
class Curves:
    """One square for each covariate that enters as a straight line.

    Attributes
    ----------
    names : tuple of str
        The covariates, as the formula writes them.
    columns : ndarray, shape (n, c)
        Their squares, less what the columns of X explain.
    curved : tuple of str
        Covariates whose curve is in the formula.
    """

    names: tuple[str, ...]
    columns: Matrix
    curved: tuple[str, ...]

    @classmethod
    def of(cls, fit: Fit) -> Curves:
        """Those of a fit."""
        frame, encoder = fit.frame, fit.frame.fixed_encoder
        if encoder is None:
            return cls((), np.zeros((fit.nobs, 0)), ())
        alone = [term[0] for term in encoder.table.terms if len(term) == 1]
        numeric = [i for i in alone if encoder.coders[i].kind == "numeric"]
        uses = [set(variable_names(encoder.coders[i].tree)) for i in numeric]
        X = fit.crossproducts.basis.fixed_columns(frame.X)
        root = np.ones((fit.nobs, 1)) if frame.weights is None else np.sqrt(frame.weights)[:, None]
        Q = np.linalg.qr(X * root)[0]
        names, columns, curved = [], [], []
        for i, own in zip(numeric, uses, strict=True):
            coder = encoder.coders[i]
            if coder.suffixes != ("",) or sum(bool(own & other) for other in uses) > 1:
                curved.append(coder.name)
                continue
            if coder.name not in frame.fixef_names:
                continue
            x = frame.X[:, frame.fixef_names.index(coder.name)]
            if len(np.unique(x[:1000])) <= 2 and len(np.unique(x)) <= 2:
                # Two points lie on a line.
                continue
            size = float(np.abs(x - x.mean()).max())
            square = (((x - x.mean()) / size) ** 2)[:, None] * root
            total = float(np.sum(square**2))
            for _ in range(2):
                square = square - Q @ (Q.T @ square)
            if float(np.sum(square**2)) > _EXPLAINED * total:
                names.append(coder.name)
                columns.append(square / root)
            else:
                curved.append(coder.name)
        joined = np.hstack(columns) if columns else np.zeros((fit.nobs, 0))
        return cls(tuple(names), joined, tuple(dict.fromkeys(curved)))
