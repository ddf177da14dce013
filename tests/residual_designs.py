"""Designs with correlated residuals, drawn at random, and their likelihood by dense algebra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine import EngineTerm
from mixedeffects.engine.residual_families import Block, Chain
from mixedeffects.engine.residual_model import ResidualDesign, ResidualModel
from mixedeffects.engine.residual_rows import ResidualRows

Matrix = NDArray[np.float64]

KINDS = ("diag", "ar1", "car1", "ante", "cs", "toep", "us", "exp", "gau")
#: No random term; one factor; a slope; nested factors; crossed with the series; all of them.
LAYOUTS = ("", "g", "gs", "go", "gi", "i", "gois")
OPTIONS = ("plain", "variance", "strata", "heterogeneous", "nugget")


def is_possible(kind: str, options: str) -> bool:
    """Whether a structure has such an option."""
    if options == "nugget":
        return kind in ("exp", "gau")
    if options == "heterogeneous":
        return kind in ("diag", "ar1", "ante", "toep")
    return kind != "diag" or options == "variance"


@dataclass(frozen=True, eq=False)
class ResidualCase:
    """A design with everything that is fitted at once."""

    y: Matrix
    X: Matrix
    terms: list[EngineTerm]
    design: ResidualDesign

    @property
    def rows(self) -> ResidualRows:
        """For the engine."""
        return ResidualRows(self.y, self.X, self.terms, self.design)


def draw_case(kind: str, layout: str, options: str, seed: int, n_groups: int = 8) -> ResidualCase:
    """Few groups with missing visits, rows in any order."""
    rng = np.random.default_rng(seed)
    n_times = 5
    group, time = [], []
    for g in range(n_groups):
        seen = np.sort(rng.choice(n_times, rng.integers(2, n_times + 1), replace=False))
        group += [g] * len(seen)
        time += seen.tolist()
    order = rng.permutation(len(group))
    codes = np.array(group, dtype=np.int32)[order]
    t = np.array(time, dtype=np.float64)[order]
    n = len(codes)
    dimensions = 2 if options == "nugget" else 1
    positions = t[:, None]
    if kind in ("car1", "exp", "gau"):
        positions = 1.7 * t[:, None] + 0.3 * rng.random((n, dimensions))
    if kind == "cs":
        positions = np.zeros((n, 1))
    v = rng.standard_normal((n, 2)) if options == "variance" else np.zeros((n, 0))
    if options == "heterogeneous":
        v = (t[:, None] == np.arange(1, n_times)).astype(np.float64)
    strata = options == "strata"
    terms = []
    if "g" in layout:
        z = np.column_stack([np.ones(n), t]) if "s" in layout else np.ones((n, 1))
        terms.append(EngineTerm(codes, n_groups, z, 0))
    if "o" in layout:
        terms.append(EngineTerm((codes // 2).astype(np.int32), n_groups // 2, np.ones((n, 1)), 1))
    if "i" in layout:
        items = rng.integers(0, 4, n).astype(np.int32)
        items[:4] = np.arange(4)
        terms.append(EngineTerm(items, 4, rng.standard_normal((n, 1)) + 1.0, 2))
    return ResidualCase(
        rng.standard_normal(n) + 0.1 * codes,
        np.column_stack([np.ones(n), rng.standard_normal(n)]),
        terms,
        ResidualDesign(
            kind,
            codes,
            positions,
            n_times if kind in ("ante", "toep", "us") else 0,
            (codes % 2).astype(np.int32) if strata else np.zeros(n, dtype=np.int32),
            2 if strata else 1,
            v,
            rng.uniform(0.5, 2.0, n) if options in ("variance", "weights") else None,
            homogeneous=kind != "us" or options == "plain",
            nugget=options == "nugget",
        ),
    )


def some_parameters(model: ResidualModel, seed: int) -> Matrix:
    """phi in the interior."""
    rng = np.random.default_rng(seed)
    phi = np.zeros(model.n_parameters)
    phi[: model.n_delta] = 0.2 * rng.standard_normal(model.n_delta)
    for family, at in zip(model.families, model.places, strict=True):
        m = family.n_parameters
        phi[at] = {
            "Autoregression": lambda: [rng.uniform(-0.7, 0.8)],
            "ContinuousAutoregression": lambda: [rng.uniform(0.5, 3.0)],
            "AnteDependence": lambda m=m: rng.uniform(-0.5, 0.7, m),
            "CompoundSymmetry": lambda: [rng.uniform(-0.15, 0.7)],
            "Toeplitz": lambda m=m: 0.4 * rng.random() / (1.0 + np.arange(m)),
            "Spatial": lambda m=m: [rng.uniform(0.5, 1.2), 0.3][:m],
            "Unstructured": lambda m=m: 0.3 * rng.standard_normal(m),
        }[type(family).__name__]()
        if type(family).__name__ == "Unstructured" and not family.correlation:
            L = np.eye(family.n_times)
            L[np.tril_indices(family.n_times, -1)] = 0.2 * rng.standard_normal(
                family.n_times * (family.n_times - 1) // 2
            )
            L *= rng.uniform(0.7, 1.5, family.n_times)[:, None]
            phi[at] = family.from_matrix(L @ L.T)
    return phi


def dense_S(rows: ResidualRows, phi: Matrix) -> Matrix:
    """S from its definition, in the order of the series."""
    model = rows.model
    S = np.zeros((rows.n, rows.n))
    D = np.exp(model.v @ phi[: model.n_delta] - model.shift)
    if model.weights is not None:
        D = D / np.sqrt(model.weights)
    for start, size in zip(model.starts, model.sizes, strict=True):
        at = slice(start, start + size)
        C, t = np.eye(size), model.positions[at]
        if model.families:
            stratum = model.stratum[start]
            family, own = model.families[stratum], phi[model.places[stratum]]
            if isinstance(family, Block):
                C = family.matrix(own, t)
            else:
                assert isinstance(family, Chain)
                for i in range(size):
                    for j in range(i):
                        C[i, j] = C[j, i] = family.neighbours(own, t[j], t[i])[0].item()
        S[at, at] = np.outer(D[at], D[at]) * C
    if model.is_normalised:
        weights = np.ones(rows.n) if model.weights is None else model.weights
        left = np.diag(np.linalg.cholesky(S)) ** 2 * weights
        later = ~model.is_first if model.families else np.ones(rows.n, dtype=bool)
        S = S / left[later].mean()
    return S


def dense_Z(rows: ResidualRows) -> list[Matrix]:
    """Random-effects columns of each term, in the order of the series."""
    out = []
    for term in rows.terms:
        k = term.z.shape[1]
        Z = np.zeros((rows.n, term.n_levels * k))
        for i in range(rows.n):
            Z[i, k * term.codes[i] : k * (term.codes[i] + 1)] = term.z[i]
        out.append(Z)
    return out


def dense_V0(rows: ResidualRows, T: list[Matrix], phi: Matrix) -> Matrix:
    """``V / sigma^2``."""
    V = dense_S(rows, phi)
    for Z, term, factor in zip(dense_Z(rows), rows.terms, T, strict=True):
        V = V + Z @ np.kron(np.eye(term.n_levels), factor @ factor.T) @ Z.T
    return V


def dense_deviance(rows: ResidualRows, T: list[Matrix], phi: Matrix, reml: bool) -> float:
    """The profiled deviance from its definition."""
    V = dense_V0(rows, T, phi)
    X, y = rows.border[:, :-1], rows.border[:, -1]
    inverse = np.linalg.inv(V)
    XVX = X.T @ inverse @ X
    residual = y - X @ np.linalg.solve(XVX, X.T @ inverse @ y)
    df = rows.n - rows.p if reml else rows.n
    square = float(residual @ inverse @ residual)
    d = np.linalg.slogdet(V)[1] + df * (1.0 + np.log(2.0 * np.pi * square / df))
    return float(d + np.linalg.slogdet(XVX)[1] if reml else d)
