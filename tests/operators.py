"""V of a generated design, as an operator and written down densely."""

from __future__ import annotations

import numpy as np
import pandas as pd

from designs import Design
from mixedeffects.covariance import MarginalCovariance
from mixedeffects.engine import Factorisation, make_crossproducts
from mixedeffects.engine.parameters import theta_to_T
from mixedeffects.frame.model_frame import RandomTerm

SIGMA = 1.7


def operator(design: Design) -> tuple[MarginalCovariance, np.ndarray]:
    """V as an operator and densely, at the design's theta."""
    A = make_crossproducts(design.y, design.X, design.terms, design.weights)
    T = theta_to_T(design.theta, design.columns)
    terms = [
        RandomTerm(
            label=f"g{t}",
            group=f"g{t}",
            variables=(f"g{t}",),
            columns=tuple(f"z{a}" for a in range(term.z.shape[1])),
            levels=pd.Index([str(i) for i in range(term.n_levels)]),
            level_values=pd.Index(range(term.n_levels)),
            codes=term.codes,
            z=term.z,
        )
        for t, term in enumerate(design.terms)
    ]
    V = MarginalCovariance(
        terms,
        [SIGMA**2 * factor @ factor.T for factor in T],
        SIGMA,
        design.weights,
        Factorisation(A, [A.basis.engine_factor(t, factor) for t, factor in enumerate(T)]),
        pd.RangeIndex(len(design.y)),
    )
    return V, SIGMA**2 * design.V0(T)
