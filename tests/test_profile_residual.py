"""Profiles of models with structured residuals: every point against dense constrained minima."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.optimize
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.inference.profile import Profile

Matrix = NDArray[np.float64]
REFERENCE = Path(__file__).parent / "reference" / "residual"
GROWTH = "distance ~ age * Sex"
CYCLE = "follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time)"
QUANTILE = 1.959963985


def _short_ovary() -> pd.DataFrame:
    return me.load_dataset("ovary").head(80)


#: Data, formula and options of each model.
MODELS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "ar1": ("sleepstudy", "Reaction ~ Days + (1 | Subject)", {"residual": "ar1(Days | Subject)"}),
    "singular": (
        "sleepstudy",
        "Reaction ~ Days + (Days | Subject)",
        {"residual": "ar1(Days | Subject)"},
    ),
    "us": ("orthodont", GROWTH, {"residual": "us(age | Subject)", "reml": False}),
    "us_hom": ("orthodont", GROWTH, {"residual": "us(age | Subject, hom = TRUE)"}),
    "us_by": ("orthodont", "distance ~ age", {"residual": "us(age | Subject, by = Sex)"}),
    "cs": ("orthodont", GROWTH, {"residual": "cs(age | Subject, hom = FALSE)"}),
    "toep_by": (
        "orthodont",
        GROWTH,
        {"residual": "toep(age | Subject, by = Sex, hom = FALSE)"},
    ),
    "ante": ("orthodont", GROWTH, {"residual": "ante(age | Subject)"}),
    "sex": ("orthodont", f"{GROWTH} + (1 | Subject)", {"variance": "Sex"}),
    "power": ("orthodont", f"{GROWTH} + (1 | Subject)", {"variance": "log(age) + Sex"}),
    "car1": ("ovary", f"{CYCLE} + (1 | Mare)", {"residual": "car1(Time | Mare)"}),
    "nugget": (
        _short_ovary,
        "follicles ~ sin(2 * pi * Time)",
        {"residual": "exp(Time | Mare, nugget = TRUE)"},
    ),
    "known": (
        "sleepstudy",
        "Reaction ~ Days + (1 | Subject)",
        {"residual": "car1(Days | Subject)", "sigma": 35.0},
    ),
    "known_us": ("orthodont", GROWTH, {"residual": "us(age | Subject)", "sigma": 2.2}),
    "known_sex": ("orthodont", f"{GROWTH} + (1 | Subject)", {"variance": "Sex", "sigma": 1.6}),
}


@cache
def _model(name: str) -> me.LinearMixedModel:
    data, formula, options = MODELS[name]
    table = me.load_dataset(data) if isinstance(data, str) else data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        return me.lmer(formula, table, **options)


@cache
def _profile(name: str, *parameters: str) -> Profile:
    return _model(name).profile(list(parameters) or None, level=0.95)


# --- R as the definitions have it, from the parameters by their names -----------------------------


Rows = dict[str, Any]


@cache
def _patterns(name: str) -> list[tuple[Rows, list[Matrix]]]:
    """Times and sex of the groups, each combination once, and the rows of its groups."""
    frame = _model(name).fit.frame.data.reset_index(drop=True)
    group = "Mare" if "Mare" in frame else "Subject"
    time = next(column for column in ("Days", "Time", "age") if column in frame)
    found: dict[Any, tuple[Rows, list[Matrix]]] = {}
    for _, rows in frame.groupby(group, observed=True, sort=False):
        sex = str(rows["Sex"].iloc[0]) if "Sex" in rows else ""
        t = rows[time].to_numpy(np.float64)
        own = found.setdefault((sex, *t), ({"sex": sex, "t": t}, []))
        own[1].append(rows.index.to_numpy())
    return list(found.values())


def _correlation(name: str, rows: Rows, p: dict[str, float]) -> Matrix:
    t = rows["t"]
    m = len(t)
    lag = np.abs(t[:, None] - t)
    if name in ("sex", "power", "known_sex"):
        return np.eye(m)
    if name in ("ar1", "singular"):
        return np.asarray(p["cor|Residual"] ** lag)
    if name in ("car1", "known"):
        return np.asarray(np.exp(-lag / p["range|Residual"]))
    if name == "nugget":
        share = p["nugget|Residual"]
        return np.asarray((1 - share) * np.exp(-lag / p["range|Residual"]) + share * np.eye(m))
    if name == "cs":
        return np.asarray(np.where(lag == 0, 1.0, p["cor|Residual"]))
    stratum = f"{rows['sex']}:" if name.endswith("_by") else ""
    C = np.eye(m)
    for i in range(m):
        for j in range(i):
            a, b = int(max(t[i], t[j])), int(min(t[i], t[j]))
            if name == "toep_by":
                value = p[f"cor_{stratum}lag{(a - b) // 2}|Residual"]
            elif name == "ante":
                value = np.prod([p[f"cor_{u + 2}.{u}|Residual"] for u in range(b, a, 2)])
            else:
                value = p[f"cor_{stratum}{a}.{b}|Residual"]
            C[i, j] = C[j, i] = value
    return C


def _deviations(name: str, rows: Rows, p: dict[str, float]) -> Matrix:
    t, is_female = rows["t"], rows["sex"] == "Female"
    if name in ("sex", "known_sex"):
        return np.full(len(t), p["sd_SexFemale|Residual"] if is_female else p["sigma"])
    if name == "power":
        female = np.exp(p["log_sd_SexFemale|Residual"] * is_female)
        return np.asarray(p["sigma"] * t ** p["power_age|Residual"] * female)
    stratum = f"{rows['sex']}:" if name.endswith("_by") else ""
    return np.array([p.get(f"sd_{stratum}{int(u)}|Residual", p["sigma"]) for u in t])


def _random(rows: Rows, p: dict[str, float]) -> Matrix | float:
    own = [key for key in p if key.endswith(("|Subject", "|Mare"))]
    if not own:
        return 0.0
    sd = next(p[key] for key in own if key.startswith("sd_(Intercept)"))
    if len(own) == 1:
        return sd**2
    slope, r = p["sd_Days|Subject"], p["cor_Days.(Intercept)|Subject"]
    G = np.array([[sd**2, r * sd * slope], [r * sd * slope, slope**2]])
    Z = np.column_stack([np.ones(len(rows["t"])), rows["t"]])
    return np.asarray(Z @ G @ Z.T)


def _dense_deviance(name: str, y: Matrix, X: Matrix, p: dict[str, float]) -> float:
    """-2 log L, fixed effects by generalised least squares."""
    logdet, whitened = 0.0, []
    for rows, places in _patterns(name):
        sd = _deviations(name, rows, p)
        V = _random(rows, p) + _correlation(name, rows, p) * np.outer(sd, sd)
        try:
            root = np.linalg.cholesky(V)
        except np.linalg.LinAlgError:
            return 1e10
        logdet += 2.0 * len(places) * float(np.log(np.diag(root)).sum())
        inverse = scipy.linalg.solve_triangular(root, np.eye(len(root)), lower=True)
        whitened += [inverse @ np.column_stack([X[at], y[at]]) for at in places]
    white = np.vstack(whitened)
    square = white[:, -1] @ white[:, -1]
    if X.shape[1]:
        square -= white[:, -1] @ white[:, :-1] @ np.linalg.lstsq(white[:, :-1], white[:, -1])[0]
    return float(len(y) * np.log(2.0 * np.pi) + logdet + square)


def _scale(name: str) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Coordinates of an unconstrained minimisation, and the way back."""
    kind = name.partition("|")[0].partition("_")[0]
    if kind == "cor":
        return (lambda v: float(np.arctanh(np.clip(v, -0.99, 0.99))), np.tanh)
    if kind == "nugget":
        return (lambda v: np.log(v / (1 - v)), lambda u: 1 / (1 + np.exp(-u)))
    if kind == "sd" and not name.endswith("|Residual"):
        # May be zero; the deviance is even in it.
        return (lambda v: v / 10.0, lambda u: 10.0 * abs(u))
    return (float, float) if kind in ("log", "power") else (np.log, np.exp)


def _dense_minimum(name: str, parameter: str, value: float) -> float:
    """The deviance with a parameter held, by another method, from the estimates."""
    m, estimates = _model(name), _profile(name).estimates
    y, X = m.y, m.X
    covariances = [str(n) for n in m.covariance_parameters.index]
    held = {parameter: value}
    if m.fit.crossproducts.known_variance is not None:
        held["sigma"] = float(estimates["sigma"])
    if parameter not in covariances:
        column = list(m.fixef.index).index(parameter)
        y, X = y - X[:, column] * value, np.delete(X, column, axis=1)
    free = [n for n in covariances if n not in held]
    scales = [_scale(n) for n in free]

    def objective(x: Matrix) -> float:
        own = {n: float(back(u)) for n, (_, back), u in zip(free, scales, x, strict=True)}
        return _dense_deviance(name, y, X, held | own)

    x = np.array([there(float(estimates[n])) for n, (there, _) in zip(free, scales, strict=True)])
    for _ in range(2):
        found = scipy.optimize.minimize(objective, x, method="BFGS", options={"gtol": 1e-3})
        x = found.x
    return float(found.fun)


ENDS = [
    ("ar1", "sd_(Intercept)|Subject"),
    ("ar1", "cor|Residual"),
    ("ar1", "sigma"),
    ("ar1", "Days"),
    ("singular", "cor|Residual"),
    ("singular", "sd_Days|Subject"),
    ("us", "sd_12|Residual"),
    ("us", "sigma"),
    ("us", "cor_14.10|Residual"),
    ("us", "age"),
    ("us_hom", "cor_12.8|Residual"),
    ("us_by", "sd_Female:12|Residual"),
    ("us_by", "cor_Male:12.10|Residual"),
    ("us_by", "cor_Female:14.12|Residual"),
    ("cs", "sd_14|Residual"),
    ("cs", "cor|Residual"),
    ("toep_by", "sd_Female:10|Residual"),
    ("toep_by", "cor_Male:lag2|Residual"),
    ("ante", "cor_12.10|Residual"),
    ("sex", "sd_SexFemale|Residual"),
    ("sex", "sd_(Intercept)|Subject"),
    ("sex", "sigma"),
    ("power", "power_age|Residual"),
    ("power", "log_sd_SexFemale|Residual"),
    ("power", "sigma"),
    ("car1", "range|Residual"),
    ("car1", "sd_(Intercept)|Mare"),
    ("nugget", "range|Residual"),
    ("nugget", "nugget|Residual"),
    ("known", "range|Residual"),
    ("known", "sd_(Intercept)|Subject"),
    ("known_us", "sd_12|Residual"),
    ("known_us", "cor_14.8|Residual"),
    ("known_sex", "sd_SexFemale|Residual"),
]


@pytest.mark.parametrize(("name", "parameter"), ENDS)
def test_ends_of_intervals_by_dense_minimisation(name: str, parameter: str) -> None:
    """Zeta is the quantile there, by a dense deviance and another method of minimisation."""
    profile = _profile(name)
    ends = profile.confint().loc[parameter]
    estimate = profile.estimates[parameter]
    assert ends["lower"] < estimate < ends["upper"]
    for end in ends:
        if parameter.startswith("sd") and end == 0.0:
            continue
        zeta = np.sqrt(_dense_minimum(name, parameter, float(end)) - profile.criterion)
        assert zeta == pytest.approx(QUANTILE, abs=3e-5)
