"""Designs of every kind, and the dense computation they are checked against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from mixedeffects.engine import EngineTerm
from mixedeffects.engine.parameters import n_parameters, theta_to_T

Matrix = NDArray[np.float64]

KINDS = (
    "one factor",
    "nested",
    "nested three deep",
    "crossed",
    "partially crossed",
    "three crossed",
    "nested within crossed",
    "deep nested with two crossed",
    "double bar",
    "five columns",
)


@dataclass
class Design:
    y: Matrix
    X: Matrix
    terms: list[EngineTerm]
    weights: Matrix | None
    theta: Matrix

    @property
    def columns(self) -> list[int]:
        return [term.z.shape[1] for term in self.terms]

    def V0(self, T: list[Matrix]) -> Matrix:
        """V / sigma^2, densely, from its definition."""
        n = len(self.y)
        V = np.eye(n) if self.weights is None else np.diag(1.0 / self.weights)
        for term, factor in zip(self.terms, T, strict=True):
            k = term.z.shape[1]
            Z = np.zeros((n, term.n_levels * k))
            for a in range(k):
                Z[np.arange(n), term.codes * k + a] = term.z[:, a]
            V = V + Z @ np.kron(np.eye(term.n_levels), factor @ factor.T) @ Z.T
        return V

    def deviance(self, theta: Matrix, reml: bool) -> float:
        """Profiled deviance from its definition, with dense linear algebra."""
        V = self.V0(theta_to_T(theta, self.columns))
        n, p = self.X.shape
        V_inverse = np.linalg.inv(V)
        information = self.X.T @ V_inverse @ self.X
        beta = np.linalg.solve(information, self.X.T @ V_inverse @ self.y)
        residual = self.y - self.X @ beta
        rho2 = residual @ V_inverse @ residual
        logdet = np.linalg.slogdet(V)[1]
        if reml:
            df = n - p
            logdet += np.linalg.slogdet(information)[1]
        else:
            df = n
        return float(logdet + df * (1.0 + np.log(2.0 * np.pi * rho2 / df)))


def make_design(kind: str, seed: int, weighted: bool, singular: bool) -> Design:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(50, 90))

    def codes(levels: int) -> NDArray[np.int32]:
        out = rng.integers(0, levels, n)
        out[:levels] = np.arange(levels)
        return rng.permutation(out).astype(np.int32)

    def parent(inner: NDArray[np.int32], levels: int, above: int) -> NDArray[np.int32]:
        up = np.concatenate([np.arange(above), rng.integers(0, above, levels - above)])
        return rng.permutation(up)[inner].astype(np.int32)

    one = np.ones((n, 1))
    x = rng.normal(size=(n, 4)) * [1.0, 5.0, 0.2, 1.0] + [0.0, 20.0, 0.0, 1.0]

    def slopes(k: int) -> Matrix:
        return np.hstack([one, x[:, : k - 1]])

    a = codes(12)
    b = parent(a, 12, 5)
    c = parent(b, 5, 2)
    d, e = codes(6), codes(4)
    specs: dict[str, list[tuple[NDArray[np.int32], int, Matrix, int]]] = {
        "one factor": [(a, 12, slopes(2), 0)],
        "nested": [(a, 12, slopes(2), 0), (b, 5, one, 1)],
        "nested three deep": [(a, 12, slopes(2), 0), (b, 5, slopes(3), 1), (c, 2, one, 2)],
        "crossed": [(a, 12, one, 0), (d, 6, slopes(2), 1)],
        "partially crossed": [
            (a, 12, slopes(2), 0),
            (np.where(rng.random(n) < 0.2, d % 5, b).astype(np.int32), 5, one, 1),
        ],
        "three crossed": [(a, 12, slopes(3), 0), (d, 6, slopes(2), 1), (e, 4, one, 2)],
        "nested within crossed": [(a, 12, slopes(2), 0), (b, 5, slopes(2), 1), (d, 6, one, 2)],
        "deep nested with two crossed": [
            (a, 12, one, 0),
            (b, 5, slopes(2), 1),
            (c, 2, one, 2),
            (d, 6, slopes(2), 3),
            (e, 4, one, 4),
        ],
        "double bar": [(a, 12, one, 0), (a, 12, x[:, :1].copy(), 0), (d, 6, one, 1)],
        "five columns": [(d, 6, slopes(5), 0)],
    }
    terms = [EngineTerm(*spec) for spec in specs[kind]]
    X = np.hstack([one, x[:, :2]])
    y = 100.0 + x[:, 0] + rng.normal(size=12)[a] + rng.normal(size=6)[d] + rng.normal(size=n)
    theta = rng.normal(size=n_parameters([t.z.shape[1] for t in terms]))
    if singular:
        theta[-1] = 0.0
    weights = rng.uniform(0.5, 30.0, n) if weighted else None
    return Design(y, X, terms, weights, theta)


designs = st.builds(
    make_design,
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10_000),
    weighted=st.booleans(),
    singular=st.booleans(),
)
