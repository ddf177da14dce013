"""Fits of residual structures on generated designs, held against the definition by dense algebra.

    python benchmarks/generated_residuals.py [--designs 2000] [--seed 0] [--minutes 20]

Each design is small: 20 to 40 groups of up to five rows, with gaps, missing responses and rows in
no order; a structure of the residuals, or of their variances alone; random effects or none. Models
that `lmer` refuses, because the design cannot tell their parameters apart, are counted and left
out. What is counted of the others:

* whether the criterion is that of the definition, computed from V as a dense matrix that is made of
  the data and the parameters that the fit shows, within 1e-9 for each row;
* on every fifth, whether a dense search by SciPy's L-BFGS, from next to the estimates and from far
  away, ends more than 1e-5 below, although the fit did not warn;
* converged fits, fits that warned that a limit has no maximum, and evaluations.

Writes generated_residuals.json, of which `validation.py --page` makes a section.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.optimize
from numpy.typing import NDArray

import mixedeffects as me

Matrix = NDArray[np.float64]

STORE = Path(__file__).parent / "generated_residuals.json"

#: Difference from the definition for each row, and decrease below the fit, that count as misses.
DIFFERENT, BELOW = 1e-9, 1e-5
#: One fit of so many is searched again, with so many iterations at most from each start.
EVERY, ITERATIONS = 5, 60
#: Criterion where V is not positive definite.
NOWHERE = 1e10

KINDS = ("", "diag", "cs", "ar1", "car1", "ante", "toep", "us", "exp", "gau")

#: Random terms: the columns that make the factor, and those of the model matrix, "1" for ones.
Terms = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
RANDOM: dict[str, Terms] = {
    "": (),
    "(1 | g)": ((("g",), ("1",)),),
    "(x | g)": ((("g",), ("1", "x")),),
    "(week | g)": ((("g",), ("1", "week")),),
    "(1 | g) + (0 + x | g)": ((("g",), ("1",)), (("g",), ("x",))),
    "(1 | site/g)": ((("site",), ("1",)), (("site", "g"), ("1",))),
    "(1 | g) + (1 | item)": ((("g",), ("1",)), (("item",), ("1",))),
    "(1 | item)": ((("item",), ("1",)),),
    "(x | item)": ((("item",), ("1", "x")),),
    "(1 | site)": ((("site",), ("1",)),),
    "(0 + x | g)": ((("g",), ("x",)),),
}
#: Structures that hold the covariance of a random intercept of the residual groups.
_HOLDS_INTERCEPT = ("cs", "toep", "us")
_WITHOUT_INTERCEPT = ("", "(1 | item)", "(x | item)", "(1 | site)", "(0 + x | g)")


# --- designs --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Design:
    """Data, and a call of `lmer`."""

    number: int
    data: pd.DataFrame
    formula: str
    random: str
    kind: str
    position: str
    by: bool
    residual: str | None
    variance: str | None
    weights: str | None
    reml: bool

    @property
    def call(self) -> str:
        """The call, as it would be written."""
        asked = [f"{self.formula!r}, data"]
        values = {name: getattr(self, name) for name in ("residual", "variance", "weights")}
        asked += [f"{name}={value!r}" for name, value in values.items() if value is not None]
        return f"lmer({', '.join(asked)}, reml={self.reml})"

    def fit(self) -> me.LinearMixedModel:
        """The model."""
        return me.lmer(
            self.formula,
            self.data,
            residual=self.residual,
            variance=self.variance,
            weights=self.weights,
            reml=self.reml,
        )


def design(number: int, seed: int = 2026) -> Design:
    """The design of a number; the same for ever."""
    rng = np.random.default_rng([seed, number])
    kind = str(rng.choice(KINDS))
    data = _rows(rng)
    n = len(data)

    by = kind != "" and rng.random() < 0.2
    variance = None
    if kind == "" or rng.random() < 0.2:
        variance = str(rng.choice(["x", "h", "x + h"] if by else ["x", "h", "s", "x + h"]))
    weights = "w" if rng.random() < 0.25 else None
    random = str(rng.choice(_WITHOUT_INTERCEPT if kind in _HOLDS_INTERCEPT else list(RANDOM)))
    if rng.random() < 0.25:
        random = ""
    position = _position(kind, rng)
    residual = None
    if kind:
        options = [f"{position} | g"]
        if kind in ("cs", "ar1", "ante", "toep") and position not in ("1",) and rng.random() < 0.3:
            options.append("hom = FALSE")
        if kind == "us" and rng.random() < 0.15:
            options.append("hom = TRUE")
        if kind in ("exp", "gau") and rng.random() < 0.4:
            options.append("nugget = TRUE")
        if by:
            options.append("by = s")
        residual = f"{kind}({', '.join(options)})"

    data["y"] = _response(kind, random, data, rng)
    if rng.random() < 0.5:
        data.loc[rng.random(n) < 0.08, "y"] = np.nan
    if rng.random() < 0.7:
        data = data.iloc[rng.permutation(n)].reset_index(drop=True)
    fixed = str(rng.choice(["1", "x", "x * s", "x + week", "x + visit"]))
    return Design(
        number,
        data,
        f"y ~ {fixed}" + (f" + {random}" if random else ""),
        random,
        kind,
        position,
        by,
        residual,
        variance,
        weights,
        bool(rng.random() < 0.5),
    )


def _rows(rng: np.random.Generator) -> pd.DataFrame:
    """Everything but the response."""
    groups, times = int(rng.integers(20, 41)), int(rng.integers(3, 6))
    g, t = (a.ravel() for a in np.indices((groups, times)))
    keep = rng.random(len(g)) > rng.choice([0.0, 0.1, 0.25])
    if times == 5 and rng.random() < 0.1:
        # A time that nobody has a row at.
        keep &= t != 2
    g, t = g[keep], t[keep]
    n = len(g)
    week = np.arange(1, times + 1)
    if rng.random() < 0.3:
        week[times // 2 :] += 1
    visits = [f"v{i + 1}" for i in range(times)]
    return pd.DataFrame(
        {
            "g": [f"g{i}" for i in g],
            "site": [f"c{i // 4}" for i in g],
            "item": [f"i{i}" for i in rng.integers(0, 6, n)],
            "s": np.where(g % 2 == 0, "a", "b"),
            "h": rng.choice(["p", "q"], n),
            "week": week[t],
            "visit": pd.Categorical([visits[i] for i in t], categories=visits),
            "x": rng.standard_normal(n),
            "u": week[t] + 0.4 * rng.random(n),
            "v": 3.0 * rng.random(n),
            "w": rng.uniform(0.4, 2.5, n),
        }
    )


def _position(kind: str, rng: np.random.Generator) -> str:
    """What stands before the bar."""
    if kind in ("exp", "gau"):
        return str(rng.choice(["u + v", "u"], p=[0.8, 0.2]))
    if kind == "car1":
        return "u"
    choices = {"cs": ["1", "visit", "week"], "ar1": ["1", "visit", "week"]}
    return str(rng.choice(choices.get(kind, ["visit", "week"])))


def _response(kind: str, random: str, data: pd.DataFrame, rng: np.random.Generator) -> Matrix:
    """From a model like the one fitted, or from noise alone."""
    n = len(data)
    same = data["g"].to_numpy()[:, None] == data["g"].to_numpy()
    week = data["week"].to_numpy(dtype=np.float64)
    truth = str(rng.choice(["like", "alike", "noise"], p=[0.7, 0.15, 0.15]))
    C = np.eye(n)
    if truth == "alike" or (truth == "like" and kind in ("cs", "toep", "us")):
        C = np.where(same, rng.uniform(0.1, 0.8), 0.0)
    elif truth == "like" and kind in ("ar1", "ante"):
        C = np.where(same, rng.uniform(-0.6, 0.9) ** np.abs(week[:, None] - week).astype(int), 0.0)
    elif truth == "like" and kind in ("car1", "exp", "gau"):
        places = data[["u", "v"] if kind != "car1" else ["u"]].to_numpy()
        apart = np.linalg.norm(places[:, None] - places, axis=2) / rng.uniform(0.4, 3.0)
        C = np.where(same, np.exp(-(apart ** (2.0 if kind == "gau" else 1.0))), 0.0)
        C *= rng.choice([1.0, 0.7])
    np.fill_diagonal(C, 1.0)
    sd = np.exp(rng.choice([0.0, 0.3]) * (data["x"].to_numpy() + (data["h"] == "q").to_numpy()))
    y = 1.0 + sd * (np.linalg.cholesky(C + 1e-9 * np.eye(n)) @ rng.standard_normal(n))
    for factor, columns in RANDOM[random] if truth != "noise" else ():
        codes = pd.factorize(_labels(data, factor))[0]
        z = _columns(data, columns)
        effects = rng.standard_normal((codes.max() + 1, z.shape[1]))
        y += np.einsum("ij,ij->i", z, effects[codes]) * rng.choice([0.0, 0.4, 1.0])
    return np.asarray(y * 10.0 ** rng.choice([-2, 0, 0, 3]))


def _labels(data: pd.DataFrame, factor: tuple[str, ...]) -> NDArray[np.object_]:
    return np.asarray(data[list(factor)].astype(str).agg(":".join, axis=1), dtype=object)


def _columns(data: pd.DataFrame, names: tuple[str, ...]) -> Matrix:
    columns = [np.ones(len(data)) if a == "1" else data[a].to_numpy(dtype=float) for a in names]
    return np.column_stack(columns)


# --- the definition -------------------------------------------------------------------------------


class Definition:
    """The criterion of a design as a function of the parameters that a fit shows.

    V is made of the data: nothing of the package is used but the names of the parameters, X and y.

    Attributes
    ----------
    names : list of str
        Names of the parameters of the residuals, as in ``m.R.parameters``.
    """

    def __init__(self, design: Design, m: me.LinearMixedModel) -> None:
        self.design, self.reml = design, design.reml
        self.X, self.y = np.asarray(m.X), np.asarray(m.y)
        # The number of a row in its group counts rows without a response too.
        counted = design.data.groupby("g").cumcount()
        data = design.data[design.data["y"].notna()]
        self.n = len(data)
        parameters = m.R.parameters.dropna()
        self.names = [str(name) for name in parameters.index]
        self.R_parameters = parameters.to_numpy(dtype=np.float64)

        group = data["g"].to_numpy()
        self.same = group[:, None] == group
        self.stratum = data["s"].to_numpy() if design.by else np.full(self.n, "")
        position = design.position
        self.times: list[str] = []
        label = np.full(self.n, "")
        step = np.zeros(self.n, dtype=np.intp)
        if position == "visit":
            self.times = [str(v) for v in data["visit"].cat.categories]
            step = data["visit"].cat.codes.to_numpy().astype(np.intp)
        elif position == "week":
            # Lags count the weeks that occur; powers of `ar1` count weeks.
            found, step = np.unique(data["week"], return_inverse=True)
            self.times = [str(w) for w in found]
        self.step = step
        if self.times:
            label = np.array(self.times, dtype=object)[step]
        if design.kind == "ar1" and position == "week":
            step = data["week"].to_numpy()
        elif design.kind == "ar1" and position == "1":
            step = counted[data.index].to_numpy()
        self.lag = np.abs(step[:, None] - step)
        if design.kind in ("car1", "exp", "gau"):
            places = data[position.split(" + ")].to_numpy(dtype=float)
            self.distance = np.linalg.norm(places[:, None] - places, axis=2)
        self.log_sd = np.column_stack([self._of_sd(name, data, label) for name in self.names])
        self.prior = data["w"].to_numpy() if design.weights else np.ones(self.n)

        self.Z: list[tuple[NDArray[np.bool_], Matrix]] = []
        self.G: list[Matrix] = []
        shown = [(str(name), m.varcorr[name]) for name in m.varcorr]
        for factor, columns in RANDOM[design.random]:
            codes = _labels(data, factor)
            self.Z.append((codes[:, None] == codes, _columns(data, columns)))
            wanted = [{"1": "(Intercept)"}.get(name, name) for name in columns]
            own = next(
                block
                for name, block in shown
                if set(re.sub(r"\.\d+$", "", name).split(":")) == set(factor)
                and list(block.columns) == wanted
            )
            self.G.append(np.asarray(own, dtype=np.float64))

    def _of_sd(self, name: str, data: pd.DataFrame, label: NDArray[Any]) -> Matrix:
        """What the logarithms of the standard deviations have of a parameter, shape (n,)."""
        per = "log Std.Dev. per "
        if name.startswith(per):
            own = name.removeprefix(per)
            if own == "x":
                return data["x"].to_numpy()
            return np.asarray(data[own[0]].to_numpy() == own[1:], dtype=np.float64)
        if not name.startswith("Std.Dev."):
            return np.zeros(self.n)
        own = name.removeprefix("Std.Dev.").strip()
        variance = self.design.variance
        rows = [
            " ".join(filter(None, (str(a), str(b))))
            for a, b in zip(self.stratum, label, strict=True)
        ]
        candidates = [np.full(self.n, ""), self.stratum.astype(str), np.array(rows)]
        if variance in ("s", "h"):
            candidates.append((variance + data[variance].astype(str)).to_numpy())
        if label[0]:
            candidates.append(label.astype(str))
        # Which of the labellings of the rows the names are of.
        named = {n.removeprefix("Std.Dev.").strip() for n in self.names if n.startswith("Std")}
        chosen = next(c for c in candidates if set(c) <= named)
        return np.asarray(chosen == own, dtype=np.float64)

    # --- V -----------------------------------------------------------------------------------

    def correlations(self, values: Matrix) -> Matrix:
        """C, n x n, of the parameters of the residuals."""
        kind = self.design.kind
        C = np.eye(self.n)
        if kind in ("", "diag"):
            return C
        for stratum in np.unique(self.stratum):
            rows = np.flatnonzero(self.stratum == stratum)
            at = np.ix_(rows, rows)
            own = self._own(values, stratum)
            C[at] = np.where(self.same[at], self._of_pairs(own, at), 0.0)
        np.fill_diagonal(C, 1.0)
        return C

    def _own(self, values: Matrix, stratum: str) -> dict[str, float]:
        """The parameters of the correlations of a stratum, by what follows their kind."""
        out = {}
        for name, value in zip(self.names, values, strict=True):
            if "Std.Dev." not in name:
                word, _, rest = name.partition(" ")
                if stratum == "" or rest == stratum or rest.startswith(f"{stratum} "):
                    out[f"{word} {rest.removeprefix(stratum).strip()}".strip()] = float(value)
        return out

    def _of_pairs(self, own: dict[str, float], at: Any) -> Matrix:
        """Correlations of pairs of different rows of one group."""
        kind = self.design.kind
        if kind == "cs":
            return np.full_like(self.lag[at], own["cor"], dtype=np.float64)
        if kind == "ar1":
            return np.asarray(own["cor"] ** self.lag[at])
        if kind == "toep":
            lags = [1.0, *(own.get(f"cor lag {k}", np.nan) for k in range(1, self.lag.max() + 1))]
            return np.asarray(np.array(lags)[self.lag[at]])
        if kind in ("ante", "us"):
            i, j = np.broadcast_arrays(self.step[at[0]], self.step[at[1]])
            return np.asarray(self._between_times(own)[i, j])
        power = 2.0 if kind == "gau" else 1.0
        C = np.exp(-((self.distance[at] / own["range"]) ** power))
        return np.asarray((1.0 - own.get("nugget", 0.0)) * C)

    def _between_times(self, own: dict[str, float]) -> Matrix:
        T = len(self.times)
        table = np.eye(T)
        pairs = {
            tuple(self.times.index(a) for a in name.removeprefix("cor ").split(", ")): value
            for name, value in own.items()
        }
        if self.design.kind == "us":
            for (i, j), value in pairs.items():
                table[i, j] = table[j, i] = value
            return table
        # The correlations of neighbours that occur; those between are their products.
        order = sorted({t for pair in pairs for t in pair})
        for a, first in enumerate(order):
            r = 1.0
            for before, t in zip(order[a:], order[a + 1 :], strict=False):
                r *= pairs[before, t]
                table[first, t] = table[t, first] = r
        return table

    def R(self, values: Matrix) -> Matrix:
        """R, n x n."""
        is_sd = np.array([name.startswith("Std.Dev.") for name in self.names])
        logs = np.where(is_sd, np.log(np.where(is_sd, values, 1.0)), values)
        sd = np.exp(self.log_sd @ logs) / np.sqrt(self.prior)
        return np.asarray(self.correlations(values) * np.outer(sd, sd))

    def V(self, values: Matrix, G: list[Matrix]) -> Matrix:
        """V, n x n."""
        V = self.R(values)
        for (same, z), block in zip(self.Z, G, strict=True):
            V += np.where(same, z @ block @ z.T, 0.0)
        return V

    def criterion(self, V: Matrix) -> float:
        """-2 log-likelihood, or the REML criterion, at V; infinite where V is not one."""
        try:
            root = np.linalg.cholesky(V)
        except np.linalg.LinAlgError:
            return np.inf
        X, y = self._whitened(root)
        beta = np.linalg.lstsq(X, y, rcond=None)[0]
        left = y - X @ beta
        df = self.n - X.shape[1] if self.reml else self.n
        d = 2.0 * np.log(np.diag(root)).sum() + left @ left + df * np.log(2.0 * np.pi)
        if self.reml:
            d += np.linalg.slogdet(X.T @ X)[1]
        return float(d)

    def slope(self, V: Matrix) -> Matrix:
        """The derivative of the criterion in V, n x n."""
        root = np.linalg.cholesky(V)
        inverse = scipy.linalg.cho_solve((root, True), np.eye(self.n))
        X, y = self._whitened(root)
        Q, _ = np.linalg.qr(X)
        left = scipy.linalg.solve_triangular(root, y - Q @ (Q.T @ y), lower=True, trans="T")
        if self.reml:
            half = scipy.linalg.solve_triangular(root, Q, lower=True, trans="T")
            inverse = inverse - half @ half.T
        return np.asarray(inverse - np.outer(left, left))

    def _whitened(self, root: Matrix) -> tuple[Matrix, Matrix]:
        both = np.column_stack([self.X, self.y])
        white = scipy.linalg.solve_triangular(root, both, lower=True)
        return white[:, :-1], white[:, -1]

    @property
    def at_the_fit(self) -> Matrix:
        """V of the fit."""
        return self.V(self.R_parameters, self.G)


# --- a search of its own --------------------------------------------------------------------------


class Coordinates:
    """Coordinates without bounds of the parameters of a definition, for a search.

    Logarithms of standard deviations and ranges, odds of nuggets, of correlations what their range
    asks for, of ``us`` the rows of a Cholesky factor; Cholesky factors of G.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.scale = float(np.std(definition.y))
        sizes = definition.same.sum(axis=1)
        self.lowest = -1.0 / (max(int(sizes.max()), 2) - 1.0)

    def of_fit(self) -> Matrix:
        """Coordinates of the fit."""
        d = self.definition
        parts = [self._outwards(name, v) for name, v in zip(d.names, d.R_parameters, strict=True)]
        x = np.array(parts)
        if d.design.kind == "us":
            for table, places in self._tables(d.R_parameters):
                L = np.linalg.cholesky(table)
                for (i, j), k in places.items():
                    x[k] = L[i, j] / L[i, i]
        factors = []
        for block in d.G:
            values, vectors = np.linalg.eigh(block)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            factor = np.linalg.qr(root.T)[1].T / self.scale
            factors.append(factor[np.tril_indices(len(block))])
        return np.concatenate([x, *factors])

    def _tables(self, values: Matrix) -> Iterable[tuple[Matrix, dict[tuple[int, int], int]]]:
        """Correlations of the times of each stratum, and which parameters they are."""
        d = self.definition
        for stratum in np.unique(d.stratum):
            table, places = np.eye(len(d.times)), {}
            prefix = f"cor {stratum} " if stratum else "cor "
            for k, name in enumerate(d.names):
                if name.startswith(prefix):
                    j, i = sorted(d.times.index(a) for a in name.removeprefix(prefix).split(", "))
                    table[i, j] = table[j, i] = values[k]
                    places[i, j] = k
            yield table, places

    def _outwards(self, name: str, value: float) -> float:
        kind = self.definition.design.kind
        if name.startswith("Std.Dev."):
            return float(np.log(value / self.scale))
        if name.startswith("range"):
            return float(np.log(value))
        share = value
        if name.startswith("cor"):
            if kind in ("toep", "us"):
                return value
            low = self.lowest if kind == "cs" else -1.0
            share = (value - low) / (1.0 - low)
        if name.startswith(("cor", "nugget")):
            share = min(max(share, 1e-12), 1.0 - 1e-12)
            return float(np.log(share / (1.0 - share)))
        return value

    def _inwards(self, name: str, x: float) -> float:
        kind = self.definition.design.kind
        if name.startswith("Std.Dev."):
            return float(self.scale * np.exp(x))
        if name.startswith("range"):
            return float(np.exp(x))
        share = 1.0 / (1.0 + np.exp(-x)) if abs(x) < 500.0 else float(x > 0.0)
        if name.startswith("nugget"):
            return float(share)
        if name.startswith("cor") and kind not in ("toep", "us"):
            low = self.lowest if kind == "cs" else -1.0
            return float(low + (1.0 - low) * share)
        return x

    def V(self, x: Matrix) -> Matrix:
        """V at coordinates."""
        d = self.definition
        values = np.array(
            [self._inwards(n, v) for n, v in zip(d.names, x[: len(d.names)], strict=True)]
        )
        if d.design.kind == "us":
            for table, places in self._tables(values):
                L = np.eye(len(table))
                for (i, j), k in places.items():
                    L[i, j] = x[k]
                L /= np.linalg.norm(L, axis=1)[:, None]
                C = L @ L.T
                for (i, j), k in places.items():
                    values[k] = C[i, j]
        G, at = [], len(d.names)
        for block in d.G:
            own = np.tril_indices(len(block))
            L = np.zeros(block.shape)
            L[own] = self.scale * x[at : at + len(own[0])]
            at += len(own[0])
            G.append(L @ L.T)
        return d.V(values, G)

    def __call__(self, x: Matrix) -> tuple[float, Matrix]:
        """The criterion and its gradient, with derivatives of V by differences."""
        nowhere = NOWHERE, np.zeros(len(x))
        with np.errstate(all="ignore"):
            V = self.V(x)
            if not np.isfinite(V).all():
                return nowhere
            value = self.definition.criterion(V)
            if not np.isfinite(value):
                return nowhere
            slope = self.definition.slope(V)
            gradient = np.empty(len(x))
            for k in range(len(x)):
                step = np.zeros(len(x))
                step[k] = 1e-6 * max(1.0, abs(x[k]))
                change = (self.V(x + step) - self.V(x - step)) / (2.0 * step[k])
                gradient[k] = np.sum(slope * change)
        return (value, gradient) if np.isfinite(gradient).all() else nowhere

    def far(self, rng: np.random.Generator) -> Matrix:
        """A start that knows nothing of the fit."""
        d = self.definition
        x = np.zeros(len(self.of_fit()))
        for k, name in enumerate(d.names):
            if name.startswith("range"):
                x[k] = np.log(rng.uniform(0.5, 2.0))
            elif name.startswith("cor"):
                x[k] = 0.1
            elif name.startswith("Std.Dev."):
                x[k] = -0.3
        at = len(d.names)
        for block in d.G:
            own = np.eye(len(block))[np.tril_indices(len(block))]
            x[at : at + len(own)] = rng.uniform(0.2, 0.8) * own
            at += len(own)
        return x


def lowest_found(definition: Definition, number: int) -> float:
    """The lowest criterion of searches from next to the fit and from far away."""
    objective = Coordinates(definition)
    rng = np.random.default_rng([2027, number])
    here = np.clip(objective.of_fit(), -20.0, 20.0)
    starts = here + 0.02 * rng.standard_normal(len(here)), objective.far(rng)
    return min(
        float(
            scipy.optimize.minimize(
                objective,
                start,
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": ITERATIONS, "ftol": 1e-13, "gtol": 1e-8},
            ).fun
        )
        for start in starts
    )


# --- counts ---------------------------------------------------------------------------------------


def check(number: int) -> dict[str, Any]:
    """What is found of one design."""
    each = design(number)
    out: dict[str, Any] = {"number": number, "kind": each.kind or "variance", "call": each.call}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            m = each.fit()
        except me.MixedEffectsError as refused:
            return out | {"refused": str(refused)}
    definition = Definition(each, m)
    warned = any(issubclass(w.category, me.ConvergenceWarning) for w in caught)
    out |= {
        "nobs": m.nobs,
        "converged": bool(m.converged),
        "warned": warned,
        "limit": bool(m.optimum.limits),
        "singular": bool(m.is_singular),
        "evaluations": int(m.optimum.evaluations),
        "difference": (definition.criterion(definition.at_the_fit) - m.criterion) / m.nobs,
    }
    if number % EVERY == 0:
        out["below"] = m.criterion - lowest_found(definition, number)
    return out


def check_or_failure(number: int) -> dict[str, Any]:
    """As `check`, with the end of the traceback of what is no refusal: a fault, whose it may be."""
    try:
        return check(number)
    except Exception:
        return {
            "number": number,
            "kind": design(number).kind or "variance",
            "call": design(number).call,
            "failed": traceback.format_exc(limit=-3),
        }


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts, and the numbers of the designs that are missed."""
    fits = [r for r in results if "nobs" in r]
    searched = [r for r in fits if "below" in r]
    different = [r for r in fits if not abs(r["difference"]) <= DIFFERENT]
    below = [r for r in searched if r["below"] > BELOW]
    evaluations = np.array([r["evaluations"] for r in fits])

    def numbers(rows: Iterable[dict[str, Any]]) -> list[int]:
        return [r["number"] for r in rows]

    def by_kind(of: Callable[[dict[str, Any]], bool]) -> dict[str, int]:
        return dict(sorted(Counter(r["kind"] for r in fits if of(r)).items()))

    return {
        "drawn": len(results),
        "refused": sum("refused" in r for r in results),
        "failed": numbers(r for r in results if "failed" in r),
        "fitted": len(fits),
        "fitted_by_structure": by_kind(lambda r: True),
        "converged": sum(r["converged"] for r in fits),
        "singular": sum(r["singular"] for r in fits),
        "warned_of_a_limit": sum(r["warned"] and r["limit"] for r in fits),
        "warned_of_a_limit_by_structure": by_kind(lambda r: r["warned"] and r["limit"]),
        "warned_otherwise": numbers(r for r in fits if r["warned"] and not r["limit"]),
        "not_converged_without_warning": numbers(
            r for r in fits if not r["converged"] and not r["warned"]
        ),
        "evaluations": {
            "median": float(np.median(evaluations)),
            "share_above_15": float(np.mean(evaluations > 15)),
            "largest": int(evaluations.max()),
            "largest_of_converged": int(
                max((r["evaluations"] for r in fits if r["converged"]), default=0)
            ),
        },
        "largest_difference_for_a_row": {
            "without_a_warning": max(
                (abs(r["difference"]) for r in fits if not r["warned"]), default=0.0
            ),
            # Infinite where V is no longer positive definite but for rounding.
            "warned": max(
                (
                    abs(r["difference"])
                    for r in fits
                    if r["warned"] and np.isfinite(r["difference"])
                ),
                default=0.0,
            ),
        },
        "different": numbers(r for r in different if not r["warned"]),
        "different_where_warned": numbers(r for r in different if r["warned"]),
        "searched": len(searched),
        "lower_elsewhere": numbers(r for r in below if not r["warned"]),
        "lower_elsewhere_where_warned": numbers(r for r in below if r["warned"]),
    }


def stored() -> dict[str, Any]:
    """The counts as they are stored."""
    return dict(json.loads(STORE.read_text(encoding="utf-8")))


def section() -> str:
    """The section of the page of the documentation."""
    s = stored()
    e = s["evaluations"]
    rounding = len(s["different_where_warned"])
    return (
        "### Generated designs\n\n"
        "`benchmarks/generated_residuals.py` draws small designs: all structures, with gaps, "
        "missing responses, unsorted rows, prior weights, and with random effects or none. Of "
        f"{s['drawn']:,} designs, {s['refused']:,} refused by `lmer`, {s['fitted']:,} were fitted: "
        f"{s['converged']:,} converged, {s['warned_of_a_limit']:,} warned that the likelihood has "
        f"no maximum but goes on to a limit, {len(s['warned_otherwise'])} warned of something "
        "else.\n\n"
        "V was computed again as a dense matrix, from the data and the parameters that the fit "
        "shows. Of the fits that did not warn, the criterion differs by more than 1e-9 for each "
        f"row in {len(s['different'])}; the largest difference is "
        f"{s['largest_difference_for_a_row']['without_a_warning']:.0e}. Dense searches from two "
        f"starts, on {s['searched']:,} of the designs, ended more than 1e-5 below such a fit in "
        f"{len(s['lower_elsewhere'])}. Of the fits that warned, {rounding} differ by more than "
        f"1e-9, by {s['largest_difference_for_a_row']['warned']:.0e} at most: a search towards a "
        "limit ends where rounding is 1e-8 for each row.\n\n"
        f"The evaluations are {e['median']:.0f} in the median, more than 15 in "
        f"{e['share_above_15']:.0%} of the fits, and {e['largest']} at most, "
        f"{e['largest_of_converged']} where it converged.\n"
    )


def main() -> None:
    """Draw, fit, count and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("designs", 2000), ("seed", 0), ("minutes", 20), ("processes", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", type=int, nargs="*", help="print what is found of these designs")
    parser.add_argument("--records", type=Path, help="add what is found of each to this file")
    options = parser.parse_args()
    if options.only:
        for number in options.only:
            print(json.dumps(check(number), indent=1))
        return
    began, results, fitted = time.monotonic(), [], 0
    numbers = range(options.seed, options.seed + 2 * options.designs)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for found in pool.imap(check_or_failure, numbers):
            results.append(found)
            fitted += "nobs" in found
            if options.records:
                with options.records.open("a", encoding="utf-8") as records:
                    records.write(json.dumps(found) + "\n")
            if fitted == options.designs or time.monotonic() - began > 60.0 * options.minutes:
                break
        pool.terminate()
    counts = summary(results)
    STORE.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()
