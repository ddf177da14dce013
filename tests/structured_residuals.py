"""Small designs with structured residuals: V by the package, and written down densely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.engine import EngineTerm, Factorisation
from mixedeffects.engine.residual_model import ResidualDesign
from mixedeffects.engine.residual_rows import ResidualRows
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

Matrix = NDArray[np.float64]

SIGMA = 1.3
TIMES = 5

#: Parameters of each structure, by stratum.
ZETA: dict[str, list[list[float]]] = {
    "diag": [[], []],
    "cs": [[-0.2], [0.4]],
    "ar1": [[-0.6], [0.5]],
    "car1": [[1.3], [0.4]],
    "ante": [[0.3, -0.5, 0.0, 0.7], [0.1, 0.2, 0.3, 0.4]],
    "toep": [[0.4, 0.2, -0.1, 0.1], [0.3, 0.2, 0.1, 0.0]],
    "exp": [[0.9], [2.0]],
    "gau": [[0.7], [0.2]],
}


@dataclass
class Case:
    V: me.MarginalCovariance
    R: StructuredResidual
    dense_V: Matrix
    dense_R: Matrix


def _term(name: str, codes: NDArray[Any], z: Matrix) -> RandomTerm:
    labels = pd.Index([f"{name}{i}" for i in range(int(codes.max()) + 1)])
    names = tuple(f"z{a}" for a in range(z.shape[1]))
    return RandomTerm(name, name, (name,), names, labels, labels, codes.astype(np.int32), z)


def _numbered(values: NDArray[Any]) -> NDArray[Any]:
    return np.unique(values, return_inverse=True)[1]


def _triangle(seed: int, is_correlation: bool, is_first: bool) -> tuple[Matrix, list[float]]:
    """A Cholesky factor of the covariance of the times, and what the engine's parameters are."""
    rng = np.random.default_rng(seed)
    raw = np.tril(0.4 * rng.standard_normal((TIMES, TIMES)), -1) + np.eye(TIMES)
    if is_correlation:
        rows, columns = np.tril_indices(TIMES, -1)
        return raw / np.linalg.norm(raw, axis=1)[:, None], raw[rows, columns].tolist()
    raw += np.diag(0.1 * np.arange(TIMES)) if is_first else np.diag(0.2 + 0.1 * np.arange(TIMES))
    rows, columns = np.tril_indices(TIMES)
    return raw, raw[rows, columns][1 if is_first else 0 :].tolist()


def _correlation(kind: str, zeta: list[float], a: Matrix, b: Matrix, nugget: float) -> float:
    """By definition, between two different rows of a group."""
    distance = float(np.sqrt(((a - b) ** 2).sum()))
    first, second = sorted((round(float(a[0])), round(float(b[0]))))
    match kind:
        case "diag":
            return 0.0
        case "cs":
            return zeta[0]
        case "ar1":
            return zeta[0] ** round(distance)
        case "car1":
            return float(np.exp(-distance / zeta[0]))
        case "ante":
            return float(np.prod(zeta[first:second]))
        case "toep":
            return zeta[second - first - 1]
        case "exp":
            return (1.0 - nugget) * float(np.exp(-distance / zeta[0]))
        case "gau":
            return (1.0 - nugget) * float(np.exp(-((distance / zeta[0]) ** 2)))
    raise ValueError(kind)


def make_case(
    kind: str,
    layout: str = "",
    *,
    seed: int = 1,
    weights: bool = False,
    homogeneous: bool = True,
    by: bool = False,
    variance: bool = False,
    nugget: bool = False,
    n_groups: int = 8,
) -> Case:
    """A design with unsorted rows.

    Parameters
    ----------
    kind : str
        Structure of the residuals.
    layout : str
        Random effects: ``s`` by series, with a slope; ``o`` two series to a level; ``i`` crossed;
        ``f`` pairs of rows within a series.
    """
    rng = np.random.default_rng(seed)
    within = [
        np.sort(rng.choice(TIMES, rng.integers(2, TIMES + 1), False)) for _ in range(n_groups)
    ]
    codes = np.repeat(np.arange(n_groups), [len(own) for own in within])
    time = np.concatenate(within)
    n = len(codes)
    order = rng.permutation(n)
    codes, time = codes[order].astype(np.int32), time[order].astype(np.float64)
    positions = time[:, None]
    if kind in ("car1", "exp", "gau"):
        shift = 0.3 * rng.random((n, 1))
        positions = 3.0 * rng.random((n, 2)) if nugget else positions + shift
    w = rng.uniform(0.5, 2.0, n) if weights else None
    stratum = (codes % 2 if by else np.zeros(n)).astype(np.int32)
    n_strata = 2 if by else 1
    # Logarithms of the standard deviations: by cell, then by the columns of variance=.
    times = homogeneous or kind == "us"
    cell = stratum.astype(np.int64) if times else stratum * TIMES + time.astype(np.int64)
    count = n_strata * (1 if times else TIMES)
    v = (cell[:, None] == np.arange(1, count)).astype(np.float64)
    if kind == "us" and not homogeneous:
        v = np.zeros((n, 0))
    term_v = rng.standard_normal((n, 2)) if variance else np.zeros((n, 0))
    v = np.hstack([v, term_v])
    # Cells without rows have no standard deviation.
    kept: list[int] = []
    for j in range(v.shape[1]):
        beside_one = np.column_stack([np.ones(n), v[:, [*kept, j]]])
        if np.linalg.matrix_rank(beside_one) == beside_one.shape[1]:
            kept.append(j)
    v = v[:, kept]
    delta = 0.3 * rng.standard_normal(v.shape[1])
    nugget_share = 0.3 if nugget else 0.0

    design = ResidualDesign(
        kind,
        codes,
        positions,
        TIMES if kind in ("ar1", "ante", "toep", "us", "diag", "cs") else 0,
        stratum,
        n_strata,
        v,
        w,
        homogeneous,
        nugget,
    )
    terms = []
    if "f" in layout:
        terms.append(
            _term("f", np.unique(codes * 10 + time // 2, return_inverse=True)[1], np.ones((n, 1)))
        )
    if "s" in layout:
        terms.append(_term("s", codes, np.column_stack([np.ones(n), time])))
    if "i" in layout:
        terms.append(
            _term("i", np.unique(rng.integers(0, 4, n), return_inverse=True)[1], np.ones((n, 1)))
        )
    if "o" in layout:
        terms.append(_term("o", codes // 2, np.ones((n, 1))))
    T = [
        np.tril(0.4 * rng.standard_normal((t.n_columns, t.n_columns))) + 0.6 * np.eye(t.n_columns)
        for t in terms
    ]
    X = np.column_stack([np.ones(n), rng.standard_normal(n)])
    engine = [EngineTerm(t.codes, t.n_levels, t.z, i) for i, t in enumerate(terms)]
    rows = ResidualRows(rng.standard_normal(n), X, engine, design)

    zeta, factors = [], []
    for s in range(n_strata):
        if kind == "us":
            L, own = _triangle(s, homogeneous, s == 0)
            factors.append(L)
        else:
            own = [*ZETA[kind][s], *([nugget_share] if nugget else [])]
        zeta.append(own)
    # Standard deviations as they are after a fit, one where v is zero.
    model = rows.model
    # The search has v centred and orthonormal.
    centred = v - v.mean(axis=0) if v.shape[1] else v
    own_v = model.v[np.argsort(model.order)]
    phi = np.concatenate([np.linalg.lstsq(own_v, centred @ delta, rcond=None)[0], *zeta])
    if kind == "diag":
        phi = phi[: v.shape[1]]

    model = model.with_unit_at_zero(phi)
    rows = rows.with_model(model)
    sd = SIGMA * np.exp(v @ delta) / (1.0 if w is None else np.sqrt(w))
    R = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if codes[i] != codes[j]:
                continue
            s = int(stratum[i])
            if kind == "us":
                L = factors[s]
                C = float(L[int(time[i])] @ L[int(time[j])])
            elif i == j:
                C = 1.0
            else:
                C = _correlation(kind, zeta[s], positions[i], positions[j], nugget_share)
            R[i, j] = C * sd[i] * sd[j]
    V = R.copy()
    for t, factor in zip(terms, T, strict=True):
        same = t.codes[:, None] == t.codes
        V += np.where(same, SIGMA**2 * t.z @ factor @ factor.T @ t.z.T, 0.0)

    labels = pd.Index([f"u{g}" for g in range(n_groups)])
    is_timed = design.n_times > 0
    term = ResidualTerm(
        kind,
        f"{kind}(t | unit)",
        "unit",
        ("unit",),
        labels,
        labels,
        codes,
        ("t",),
        pd.Index([f"t{t + 1}" for t in range(TIMES)]) if is_timed else None,
        time.astype(np.int64) if is_timed else None,
        None if is_timed else positions,
        homogeneous,
        nugget,
        "arm" if by else None,
        pd.Index(["A", "B"]) if by else None,
        stratum if by else None,
    )
    of_variance = VarianceTerm("a + b", ("a", "b"), term_v) if variance else None
    structured = StructuredResidual(model, phi, SIGMA, rows.basis.weight_scale, term, of_variance)
    M = Factorisation(
        rows.at(phi).A, [rows.basis.engine_factor(i, factor) for i, factor in enumerate(T)]
    )
    G = [SIGMA**2 * factor @ factor.T for factor in T]
    index = pd.RangeIndex(100, 100 + n)
    made = me.MarginalCovariance(terms, G, SIGMA, w, M, index, residual=structured)
    return Case(made, structured, V, R)
