"""Profiles of models with structured residuals: every point against dense constrained minima."""

from __future__ import annotations

import pickle
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
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.engine.constrained import Constrained
from mixedeffects.inference.profile import Profile
from mixedeffects.inference.profile_curve import ProfileCurve

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
    pytest.param("us_hom", "cor_12.8|Residual", marks=pytest.mark.slow),
    pytest.param("us_by", "sd_Female:12|Residual", marks=pytest.mark.slow),
    pytest.param("us_by", "cor_Male:12.10|Residual", marks=pytest.mark.slow),
    pytest.param("us_by", "cor_Female:14.12|Residual", marks=pytest.mark.slow),
    ("cs", "sd_14|Residual"),
    ("cs", "cor|Residual"),
    pytest.param("toep_by", "sd_Female:10|Residual", marks=pytest.mark.slow),
    pytest.param("toep_by", "cor_Male:lag2|Residual", marks=pytest.mark.slow),
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


# --- odd ends -------------------------------------------------------------------------------------


def test_several_minima_beside_a_nugget() -> None:
    """With little nugget a short range and a long one both are minima: the lower counts."""
    profile = _profile("nugget")
    lower = profile.confint().loc["nugget|Residual", "lower"]
    held = [
        _dense_minimum("nugget", "nugget|Residual", value)
        for value in (lower, 1.01 * lower, 0.99 * lower)
    ]
    assert held[2] > held[0] > held[1]
    assert held[0] - profile.criterion == pytest.approx(QUANTILE**2, abs=1e-4)


def test_points_have_the_deviance_of_their_parameters() -> None:
    """All parameters at a point, read from the table, give its deviance by the definition."""
    for name in ("ar1", "us", "cs", "sex", "power", "nugget", "known_us"):
        m, frame = _model(name), _profile(name).to_frame()
        names = [str(n) for n in m.covariance_parameters.index]
        some = frame.iloc[:: max(1, len(frame) // 12)]
        for _, row in some.iterrows():
            p = {n: float(row[n]) for n in names}
            fixed = row[list(m.fixef.index)].to_numpy(dtype=np.float64)
            empty = np.zeros((m.nobs, 0))
            deviance = _dense_deviance(name, m.y - m.X @ fixed, empty, p)
            assert deviance == pytest.approx(row["deviance"], abs=1e-5)
            assert row[row["parameter"]] == pytest.approx(row["value"], rel=1e-9)


def test_zeta_of_no_correlation_is_the_likelihood_ratio() -> None:
    without = me.lmer("Reaction ~ Days + (1 | Subject)", me.load_dataset("sleepstudy"), reml=False)
    with_it = _model("ar1").update(reml=False)
    assert with_it.profile("cor|Residual").zeta("cor|Residual", 0.0) ** 2 == pytest.approx(
        without.criterion - with_it.criterion, abs=1e-6
    )
    # A range of zero is the same, and is among the values it can have.
    assert _profile("known").zeta("range|Residual", 0.0) ** 2 == pytest.approx(
        _model("known").update(residual=None, reml=False).criterion - _profile("known").criterion,
        abs=1e-6,
    )


def test_zeta_of_equal_deviations_is_the_likelihood_ratio() -> None:
    m = _model("sex").update(reml=False)
    power = me.lmer(
        f"{GROWTH} + (1 | Subject)", me.load_dataset("orthodont"), variance="log(age)", reml=False
    )
    same = m.update(variance=None)
    zeta = power.profile("power_age|Residual").zeta("power_age|Residual", 0.0)
    assert zeta**2 == pytest.approx(same.criterion - power.criterion, abs=1e-6)


def test_weights_and_offset() -> None:
    """Held by other means: a known sigma, a coefficient in the weights, a column in the offset."""
    data = me.load_dataset("orthodont")
    data["w"] = 0.5 + np.arange(len(data)) % 5 / 4.0
    data["o"] = np.arange(len(data)) % 7 / 3.0
    options: dict[str, Any] = {"residual": "ar1(1 | Subject)", "reml": False, "offset": "o"}
    formula = f"{GROWTH} + (1 | Subject)"
    m = me.lmer(formula, data, weights="w", variance="log(age)", **options)
    profile = m.profile(["sigma", "power_age|Residual", "age"])
    known = me.lmer(formula, data, weights="w", variance="log(age)", sigma=3.0, **options)
    assert profile.zeta("sigma", 3.0) ** 2 == pytest.approx(known.criterion - m.criterion, abs=1e-5)
    data["v"] = data["w"] * data["age"] ** -2.0
    moved = me.lmer(formula, data, weights="v", **options)
    assert profile.zeta("power_age|Residual", 1.0) ** 2 == pytest.approx(
        moved.criterion - m.criterion, abs=1e-5
    )
    data["o"] += 0.5 * data["age"]
    shifted = me.lmer(
        "distance ~ Sex + I(age * (Sex == 'Female')) + (1 | Subject)",
        data,
        weights="w",
        variance="log(age)",
        **options,
    )
    assert profile.zeta("age", 0.5) ** 2 == pytest.approx(shifted.criterion - m.criterion, abs=1e-5)


def test_stored_and_read_again() -> None:
    again = pickle.loads(pickle.dumps(_profile("cs")))
    pd.testing.assert_frame_equal(again.to_frame(), _profile("cs").to_frame())
    assert again.zeta("cor|Residual", 0.3) == pytest.approx(
        _profile("cs").zeta("cor|Residual", 0.3)
    )


def test_a_fixed_effect_alone() -> None:
    """Without it no column is left."""
    m = me.lmer(
        "distance ~ 1", me.load_dataset("orthodont"), residual="cs(age | Subject)", reml=False
    )
    profile = m.profile("(Intercept)")
    none = m.update(". ~ 0")
    assert profile.zeta("(Intercept)", 0.0) ** 2 == pytest.approx(
        none.criterion - m.criterion, abs=1e-6
    )


def test_a_limit_is_the_end_of_the_interval_and_is_named() -> None:
    table = _model("nugget").profile("nugget|Residual", level=0.9999).confint(0.9999)
    assert table.loc["nugget|Residual", "lower"] == 0.0
    assert any("nugget|Residual: 0 is the limit" in note for note in table.notes)
    independent = me.load_dataset("sleepstudy")
    independent["Reaction"] = np.random.default_rng(3).normal(size=180)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        m = me.lmer("Reaction ~ 1", independent, residual="car1(Days | Subject)", reml=False)
    table = m.profile("range|Residual", level=0.95).confint()
    assert table.loc["range|Residual", "lower"] == 0.0
    assert table.loc["range|Residual", "upper"] < 2.0
    assert any("range|Residual: 0 is the limit" in note for note in table.notes)


class _Levels:
    """A deviance that comes near to 1, towards infinity or towards one."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def start(self, T: Any, sigma: float, residual: Any = None) -> Matrix:
        return np.zeros(0)

    def minimise(self, value: float, start: Matrix) -> Constrained:
        x = np.log(value) if np.isinf(self.limit) else np.arctanh(value)
        deviance = float(1.0 - np.exp(-(x**2)))
        return Constrained(value, deviance, (), 1.0, np.zeros(0), np.zeros(0), 1, True)


@pytest.mark.parametrize(("limit", "far", "at"), [(np.inf, 1e5, 1.0), (1.0, 1.0 - 1e-6, 0.0)])
def test_a_likelihood_without_bound_ends_at_the_limit(limit: float, far: float, at: float) -> None:
    """However far the profile is walked, the end that is not there is the limit itself."""
    parameter = _Levels(limit)
    optimum = parameter.minimise(at, np.zeros(0))
    curve = ProfileCurve(parameter, optimum, 0.05, -1.0, limit, far=(None, far))
    curve.walk(1, QUANTILE)
    assert curve.bound(1, QUANTILE) == limit
    assert curve.points[-1].value == far
    assert curve.bound(1, 0.5) == pytest.approx(
        np.exp(np.sqrt(-np.log(0.75))) if at else np.tanh(np.sqrt(-np.log(0.75))), rel=1e-5
    )


def test_correlation_of_a_random_walk_is_below_one() -> None:
    """By maximum likelihood the common level of a group has a variance that counts."""
    rng = np.random.default_rng(11)
    data = pd.DataFrame({"g": np.repeat(list("abcd"), 10), "t": np.tile(np.arange(10), 4)})
    data["y"] = rng.normal(size=(4, 10)).cumsum(axis=1).ravel()
    m = me.lmer("y ~ g", data, residual="ar1(t | g)", reml=False)
    profile = m.profile("cor|Residual", level=0.99999)
    assert 0.999 < profile.confint(0.99999).loc["cor|Residual", "upper"] < 1.0
    with pytest.raises(me.ModelError, match="cannot be 1"):
        profile.zeta("cor|Residual", 1.0)


def test_what_is_known_has_no_interval() -> None:
    table = _profile("known").confint()
    assert table.loc["sigma"].isna().all()
    with pytest.raises(me.ModelError, match="sigma has no profile: it is known"):
        _profile("known").zeta("sigma", 30.0)
    table = _profile("known_us").confint()
    assert table.loc[["sigma", "cor_12.10|Residual"]].isna().all(axis=None)
    assert table.loc[["cor_10.8|Residual", "cor_12.8|Residual"]].notna().all(axis=None)


# --- what is asked for ----------------------------------------------------------------------------


def test_confint_and_pictures() -> None:
    m = _model("ar1")
    table = m.confint("profile", ["cor|Residual", "Days"])
    pd.testing.assert_frame_equal(
        pd.DataFrame(table), pd.DataFrame(_profile("ar1").confint().loc[["cor|Residual", "Days"]])
    )
    assert list(_profile("ar1").parameters) == [*m.covariance_parameters.index, *m.fixef.index]
    axes = _profile("ar1").plot(["cor|Residual", "sigma"], ax=Figure().subplots(1, 2))
    assert axes[0].get_xlabel() == "cor|Residual"
    assert "Maximum likelihood: the REML fit was fitted again" in repr(_profile("ar1"))


def test_interrupted_and_resumed() -> None:
    m = _model("ar1")

    def stop(done: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(me.Interrupted) as stopped:
        m.profile("cor|Residual", progress=stop)
    again = stopped.value.partial.resume()
    assert_allclose(again.confint(), m.profile("cor|Residual").confint(), rtol=1e-6)


def test_structures_of_random_effects_are_still_refused() -> None:
    m = me.lmer(
        "Reaction ~ Days + diag(Days | Subject)",
        me.load_dataset("sleepstudy"),
        residual="ar1(Days | Subject)",
    )
    with pytest.raises(me.ModelError, match="not available for covariance structures"):
        m.profile()
