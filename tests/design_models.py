"""A fitted model for every generated design, at the design's parameters, and its dense algebra."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import mixedeffects as me
from designs import Design
from mixedeffects.engine.parameters import T_to_theta, theta_to_T

Matrix = NDArray[np.float64]


@dataclass
class DenseModel:
    """Everything about the model from its definition, with dense linear algebra."""

    V: Matrix
    R: Matrix
    X: Matrix
    y: Matrix

    @property
    def V_inverse(self) -> Matrix:
        return np.linalg.inv(self.V)

    @property
    def fixed_hat(self) -> Matrix:
        """``X (X'V^-1X)^-1 X'V^-1``."""
        weighted = self.X.T @ self.V_inverse
        return self.X @ np.linalg.solve(weighted @ self.X, weighted)

    @property
    def random_hat(self) -> Matrix:
        """``Z G Z' V^-1 (I - fixed_hat)``."""
        n = len(self.y)
        return (self.V - self.R) @ self.V_inverse @ (np.eye(n) - self.fixed_hat)


def model_of(design: Design) -> tuple[me.LinearMixedModel, DenseModel]:
    """The design as a model at its theta (sigma as it comes), and the same densely."""
    columns: dict[str, NDArray[np.float64]] = {
        "y": design.y,
        "x1": design.X[:, 1],
        "x2": design.X[:, 2],
    }
    bars, factors = [], theta_to_T(design.theta, design.columns)
    for t, term in enumerate(design.terms):
        columns[f"g{term.grouping}"] = np.array([f"l{code:02d}" for code in term.codes])
        names = [f"z{t}_{a}" for a in range(term.z.shape[1])]
        columns.update(zip(names, term.z.T, strict=True))
        bars.append(f"(0 + {' + '.join(names)} | g{term.grouping})")
    # lme4's order of terms, and so of theta.
    order = sorted(range(len(factors)), key=lambda t: -design.terms[t].n_levels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        model = me.lmer(
            f"y ~ x1 + x2 + {' + '.join(bars)}",
            pd.DataFrame(columns),
            weights=design.weights,
            start=T_to_theta([factors[t] for t in order]),
            control=me.Control(max_evaluations=1),
        )
    V0 = design.V0(factors)
    R = np.eye(len(V0)) if design.weights is None else np.diag(1.0 / design.weights)
    return model, DenseModel(model.sigma**2 * V0, model.sigma**2 * R, design.X, design.y)
