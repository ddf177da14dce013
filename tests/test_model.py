"""`lmer()`, the fitted model and everything a user can do wrong."""

from __future__ import annotations

import gc
import pickle
import weakref

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from references import fitted_model

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def sleep() -> pd.DataFrame:
    return me.load_dataset("sleepstudy")


# --- the object ----------------------------------------------------------------------


def test_printing_is_the_summary() -> None:
    m = fitted_model("sleepstudy")
    text = repr(m)
    for part in (
        "Linear mixed model fit by REML. t-tests use Satterthwaite's method",
        "Formula: Reaction ~ Days + (Days | Subject)",
        "   Data: sleepstudy",
        "REML criterion at convergence: 1743.6",
        "-3.9536 -0.4634  0.0231  0.4634  5.1793",
        " Subject  (Intercept) 612.09   24.740",
        "          Days         35.07    5.922   0.07",
        "Number of obs: 180, groups:  Subject, 18",
        "(Intercept)  251.405      6.825  17.000  36.838  < 2e-16 ***",
        "Days          10.467      1.546  17.000   6.771 3.26e-06 ***",
        "Days -0.138",
    ):
        assert part in text, part
    assert "<table" in m._repr_html_()
    assert "boundary (singular) fit" in repr(fitted_model("star_sample"))
    assert "115 rows removed for missing values" in repr(fitted_model("star_sample"))
    assert "logLik" in repr(fitted_model("sleepstudy_ml"))


def test_varcorr() -> None:
    m = fitted_model("sleepstudy")
    frame = m.varcorr.to_frame()
    assert list(frame.columns) == ["grp", "var1", "var2", "vcov", "sdcor"]
    assert_allclose(frame["sdcor"], [24.7407, 5.9221, 0.0656, 25.5918], rtol=2e-3)
    assert m.varcorr.corr("Subject").iloc[0, 1] == pytest.approx(0.0656, abs=1e-3)
    assert m.varcorr.sd("Subject")["Days"] == pytest.approx(5.922, abs=1e-3)
    assert "Std.Dev." in repr(m.varcorr)
    assert "<table" in m.varcorr._repr_html_()
    with pytest.raises(me.ModelError, match="'Subject'"):
        m.varcorr["Subjects"]


def test_ranef_and_caterpillar_table() -> None:
    ranef = fitted_model("sleepstudy").ranef(cond_var=True)
    long = ranef.to_frame()
    assert list(long.columns) == ["grp", "level", "term", "condval", "condsd"]
    assert len(long) == 36
    assert_allclose(long["condsd"].iloc[:2], [12.0707, 2.3048], rtol=1e-3)
    assert "Subject (18 levels)" in repr(ranef)


def test_double_bar_shares_one_table_of_modes() -> None:
    m = fitted_model("sleepstudy_zerocorr")
    assert list(m.varcorr) == ["Subject", "Subject.1"]
    assert list(m.ranef()["Subject"].columns) == ["(Intercept)", "Days"]


def test_residual_kinds() -> None:
    m = fitted_model("sleepstudy")
    assert_allclose(m.resid() + m.fitted, m.y)
    assert_allclose(m.resid("marginal"), m.y - m.X @ m.fixef.to_numpy())
    whitened = m.resid("cholesky")
    assert whitened @ whitened == pytest.approx(m.V.quad(m.resid("marginal")))
    symmetric = m.resid("symmetric")
    assert symmetric @ symmetric == pytest.approx(whitened @ whitened)
    with pytest.raises(me.ModelError, match="'response'"):
        m.resid("raw")


def test_coef_table() -> None:
    m = fitted_model("sleepstudy")
    table = m.coef_table()
    assert list(table.columns[-2:]) == ["lower", "upper"]
    assert_allclose(table.loc["Days"].iloc[-2:], [7.2059, 13.7287], rtol=1e-3)
    assert list(m.coef_table(ddf="residual")["df"]) == [178.0, 178.0]
    normal = m.coef_table(ddf="inf", level=0.9)
    assert_allclose(normal.loc["Days", "lower"], 10.467286 - 1.644854 * 1.545790, rtol=1e-4)
    assert "lower" not in m.coef_table(level=None)
    for bad in ({"ddf": "kenward"}, {"vcov": "CR9"}, {"level": 95}):
        with pytest.raises(me.ModelError):
            m.coef_table(**bad)


def test_tidy_glance_augment() -> None:
    m = fitted_model("sleepstudy")
    tidy = m.tidy()
    assert list(tidy.columns) == [
        "effect", "group", "term", "estimate", "std_error", "statistic", "df", "p_value",
    ]  # fmt: skip
    assert list(tidy["term"]) == [
        "(Intercept)", "Days", "sd__(Intercept)", "sd__Days", "cor__(Intercept).Days",
        "sd__Observation",
    ]  # fmt: skip
    assert len(m.tidy("ran_vals")) == 36
    glance = m.glance().iloc[0]
    assert glance["REMLcrit"] == pytest.approx(1743.6283, abs=1e-4)
    assert "deviance" in fitted_model("sleepstudy_ml").glance()
    augmented = m.augment()
    assert_allclose(augmented["_fitted"] + augmented["_resid"], augmented["Reaction"])
    assert list(augmented.index) == list(m.fitted.index)
    with pytest.raises(me.ModelError, match="ran_pars"):
        m.tidy("random")


def test_refit_and_update(sleep: pd.DataFrame) -> None:
    m = fitted_model("sleepstudy")
    again = m.refit(m.y)
    assert again.criterion == pytest.approx(m.criterion, abs=1e-9)
    doubled = m.refit(2.0 * m.y)
    assert_allclose(doubled.fixef, 2.0 * m.fixef, rtol=1e-6)
    with pytest.raises(me.ModelError, match="180 values"):
        m.refit(np.ones(3))
    with pytest.raises(me.ModelError, match="not finite"):
        m.refit(np.full(180, np.nan))
    with pytest.raises(me.ModelError, match="numbers"):
        m.refit("Days")
    ml = m.update(reml=False)
    assert ml.criterion == pytest.approx(fitted_model("sleepstudy_ml").criterion, abs=1e-8)
    quadratic = m.update(". ~ . + I(Days^2)")
    assert list(quadratic.fixef.index) == ["(Intercept)", "Days", "I(Days^2)"]
    fewer = m.update(data=sleep[sleep["Subject"] != "308"])
    assert fewer.ngroups == {"Subject": 17}


def test_start_and_control(sleep: pd.DataFrame) -> None:
    m = fitted_model("sleepstudy")
    warm = me.lmer(SLEEP, sleep, start=m.theta)
    assert warm.criterion == pytest.approx(m.criterion, abs=1e-8)
    assert warm.optimum.evaluations <= 2
    with pytest.raises(me.ModelError, match="start must be 3 finite numbers"):
        me.lmer(SLEEP, sleep, start=[1.0])
    with pytest.warns(me.ConvergenceWarning, match="2 evaluations"):
        me.lmer(SLEEP, sleep, control=me.Control(max_evaluations=2))


def test_progress_is_printed(sleep: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    me.lmer(SLEEP, sleep, progress=True)
    assert "criterion 1743.628" in capsys.readouterr().err
    lines: list[me.Progress] = []
    me.lmer(SLEEP, sleep, progress=lines.append)
    assert lines[-1].criterion == pytest.approx(1743.6283, abs=1e-4)


def test_a_fit_can_be_pickled() -> None:
    m = fitted_model("threelevel")
    copy = pickle.loads(pickle.dumps(m))
    assert copy.criterion == m.criterion
    assert_allclose(copy.V.solve(copy.y), m.V.solve(m.y))
    assert copy.optimum.certificate.holds


# --- data of every make --------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["pandas", "polars", "arrow", "mapping", "nullable", "arrow-backed"]
)
def test_any_dataframe(sleep: pd.DataFrame, kind: str) -> None:
    plain = sleep.assign(Subject=sleep["Subject"].astype(str))
    plain.attrs.clear()
    data = {
        "pandas": lambda: plain,
        "polars": lambda: pl.from_pandas(plain),
        "arrow": lambda: pa.Table.from_pandas(plain),
        "mapping": lambda: {name: plain[name].to_numpy() for name in plain},
        "nullable": lambda: plain.assign(
            Subject=plain["Subject"].astype("string"), Days=plain["Days"].astype("Int64")
        ),
        "arrow-backed": lambda: plain.convert_dtypes(dtype_backend="pyarrow"),
    }[kind]()
    m = me.lmer(SLEEP, data)
    assert m.criterion == pytest.approx(fitted_model("sleepstudy").criterion, abs=1e-8)
    assert m.ngroups == {"Subject": 18}


def test_numeric_grouping_and_odd_names(sleep: pd.DataFrame) -> None:
    odd = pd.DataFrame(
        {
            "reaction time": sleep["Reaction"],
            "class": sleep["Days"],
            "sub ject": sleep["Subject"].astype(int),
        }
    )
    m = me.lmer("`reaction time` ~ `class` + (`class` | `sub ject`)", odd)
    assert m.criterion == pytest.approx(fitted_model("sleepstudy").criterion, abs=1e-8)


def test_predictors_of_very_different_size(sleep: pd.DataFrame) -> None:
    m = fitted_model("sleepstudy")
    for factor in (1e-9, 1e9):
        scaled = sleep.assign(Days=sleep["Days"] * factor)
        other = me.lmer(SLEEP, scaled)
        assert other.fixef["Days"] * factor == pytest.approx(m.fixef["Days"], rel=1e-6)
        shift = 2.0 * np.log(factor)
        assert other.criterion - shift == pytest.approx(m.criterion, abs=1e-6)
        assert not other.is_singular
        assert_allclose(other.coef_table()["df"], m.coef_table()["df"], rtol=1e-3)
        assert_allclose(other.fitted, m.fitted, rtol=1e-6)
    shifted = sleep.assign(Days=sleep["Days"] + 2.0e5)
    far = me.lmer(SLEEP, shifted)
    assert far.fixef["Days"] == pytest.approx(m.fixef["Days"], rel=1e-6)
    assert far.criterion == pytest.approx(m.criterion, abs=1e-5)


def test_weights_and_offset(sleep: pd.DataFrame) -> None:
    weights = np.linspace(0.5, 3.0, 180)
    data = sleep.assign(w=weights, o=np.linspace(0, 50, 180))
    m = me.lmer(SLEEP, data, weights="w")
    assert m.criterion == pytest.approx(me.lmer(SLEEP, data, weights=weights).criterion)
    # The same V from ten times the weights: only sigma is read at another weight.
    ten = me.lmer(SLEEP, data.assign(w=10 * weights), weights="w")
    assert ten.criterion == pytest.approx(m.criterion, abs=1e-7)
    assert ten.sigma == pytest.approx(np.sqrt(10) * m.sigma, rel=1e-6)
    assert_allclose(ten.V.diag(), m.V.diag(), rtol=1e-5)
    by_hand = me.lmer(SLEEP, data.assign(Reaction=data["Reaction"] - data["o"]))
    for other in (
        me.lmer(SLEEP, data, offset="o"),
        me.lmer("Reaction ~ Days + offset(o) + (Days | Subject)", data),
    ):
        assert_allclose(other.fixef, by_hand.fixef, rtol=1e-8)
        assert_allclose(other.fitted, by_hand.fitted + data["o"], rtol=1e-8)


def test_missing_rows_are_dropped_and_reported(sleep: pd.DataFrame) -> None:
    data = sleep.copy()
    data.loc[3, "Days"] = np.nan
    data.loc[[5, 6], "Subject"] = None
    m = me.lmer(SLEEP, data)
    assert m.nobs == 177
    assert list(m.dropped.rows) == [3, 5, 6]
    assert m.dropped.missing_by_column == {"Days": 1, "Subject": 2}
    assert "3 rows removed" in repr(m)
    assert 3 not in m.fitted.index


def test_collinear_columns_are_dropped_and_reported(sleep: pd.DataFrame) -> None:
    data = sleep.assign(twice=2.0 * sleep["Days"], constant=3.0)
    m = me.lmer("Reaction ~ Days + twice + constant + (Days | Subject)", data)
    assert m.dropped.columns == ("twice", "constant")
    assert list(m.fixef.index) == ["(Intercept)", "Days"]
    assert "twice" in repr(m)


# --- bad input -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("Reaction ~ Dayz + (1 | Subject)", "Dayz.*Days"),
        ("Reaction ~ Days + (1 | Subjct)", "Subjct.*Subject"),
        ("Reaction ~ Days + (1 | Subject", "."),
        ("Reaction ~ Days", "random"),
        ("Reaction ~ Days + 1|Subject", r"parenthes|\(1 \| Subject\)"),
        ("~ Days + (1 | Subject)", "response"),
        ("", "."),
        ("Reaction ~ Days + (1 | Reaction:Days)", "180 levels for 180 rows"),
        ("Reaction ~ Days + (1 | one)", "one level|1 level|only one"),
        ("Subject ~ Days + (1 | Subject)", "Subject.*categorical.*numbers"),
        ("Reaction ~ infinite + (1 | Subject)", "infinite.*2"),
        ("Reaction ~ nothing + (1 | Subject)", "missing"),
        ("Reaction ~ 0 + zero + (1 | Subject)", "zero"),
        ("flat ~ Days + (1 | Subject)", "exactly"),
        ("Reaction ~ Days + (Days * (Days + big) | trio)", "random effects"),
    ],
)
def test_bad_models_are_refused(sleep: pd.DataFrame, formula: str, message: str) -> None:
    data = sleep.assign(
        one="a",
        infinite=np.where(np.arange(180) < 2, np.inf, 1.0 * sleep["Days"]),
        nothing=np.nan,
        zero=0.0,
        flat=5.0,
        big=sleep["Days"] ** 2,
        trio=np.arange(180) // 3,
    )
    with pytest.raises(me.MixedEffectsError, match=f"(?is){message}"):
        me.lmer(formula, data)


def test_bad_data_are_refused(sleep: pd.DataFrame) -> None:
    with pytest.raises(me.DataError):
        me.lmer(SLEEP, sleep.iloc[:0])
    duplicated = pd.concat([sleep, sleep[["Days"]]], axis=1)
    with pytest.raises(me.DataError, match="Days"):
        me.lmer(SLEEP, duplicated)
    for bad in (-1.0, 0.0):
        with pytest.raises(me.DataError, match=r"(?i)weights"):
            me.lmer(SLEEP, sleep.assign(w=np.where(np.arange(180) == 7, bad, 1.0)), weights="w")
    with pytest.raises(me.MixedEffectsError):
        me.lmer(SLEEP, 3)
    with pytest.raises(me.FormulaError):
        me.lmer(3, sleep)  # type: ignore[arg-type]


def test_getme_knows_every_name() -> None:
    m = fitted_model("sleepstudy")
    for name in m.getme_names():
        assert m.getme(name) is not None, name
    with pytest.raises(me.ModelError, match="Lambdat"):
        m.getme("lambda")


@pytest.mark.parametrize("name", ["sleepstudy", "sleepstudy_zerocorr", "star_sample", "penicillin"])
def test_getme_identities(name: str) -> None:
    m = fitted_model(name)
    L, RX, RZX = (np.asarray(x.todense() if hasattr(x, "todense") else x)
                  for x in map(m.getme, ("L", "RX", "RZX")))  # fmt: skip
    Lambda, Z = m.getme("Lambda").toarray(), m.Z.toarray()
    U = Z @ Lambda
    assert_allclose(L @ L.T, U.T @ U + np.eye(U.shape[1]), atol=1e-8)
    assert_allclose(RZX.T @ L.T, m.X.T @ U, atol=1e-6)
    information = m.X.T @ m.X - RZX.T @ RZX
    assert_allclose(RX.T @ RX, information, rtol=1e-8)
    assert_allclose(m.sigma**2 * np.linalg.inv(information), m.vcov(), rtol=1e-6)
    b, u = m.getme("b"), m.getme("u")
    assert_allclose(Lambda @ u, b, atol=1e-6 * np.abs(b).max())
    assert_allclose(m.X @ m.fixef + Z @ b, m.fitted, rtol=1e-9)
    assert_allclose(m.getme("Lambdat").data, np.asarray(m.theta)[m.getme("Lind")])
    assert m.getme("Gp")[-1] == m.getme("q") == Z.shape[1]
    assert m.getme("devfun")(m.theta) == pytest.approx(m.criterion, abs=1e-8)
    cmp = m.getme("devcomp")["cmp"]
    assert cmp["pwrss"] == pytest.approx(m.resid() @ m.resid() + u @ u, rel=1e-8)
    assert cmp["ldL2"] == pytest.approx(2 * np.log(np.diag(L)).sum(), rel=1e-8)
    assert cmp["ldRX2"] == pytest.approx(2 * np.log(np.diag(RX)).sum(), rel=1e-8)
    stacked = np.vstack([x.toarray() for x in m.getme("Ztlist").values()])
    assert stacked.shape == (Z.shape[1], Z.shape[0])
    assert stacked.sum() == pytest.approx(Z.sum())


def test_a_remainder_larger_than_the_memory_is_refused() -> None:
    rng = np.random.default_rng(0)
    n = 800_000
    data = pd.DataFrame(
        {"y": rng.normal(size=n), "a": np.arange(n) % 200_000, "b": rng.permutation(n) % 190_000}
    )
    # Even in the best order, most of b's levels end up joined to each other.
    with pytest.raises(me.ModelError, match=r"b \(190,000\).*dense matrix with 1\d\d,\d\d\d rows"):
        me.lmer("y ~ 1 + (1 | a) + (1 | b)", data)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("Reaction ~ Days + (0 + zero | Subject)", "`zero`.*`Subject`.*zero in every row"),
        ("Reaction ~ Days + (two | Subject)", r"`\(Intercept\)`, `two`.*linear combinations"),
        ("Reaction ~ Days + (Days + twice | Subject)", "`Days`, `twice`.*linear combinations"),
        (
            "Reaction ~ Days + (1 | Subject) + (1 | Subject)",
            r"`\(1 \| Subject\)` and `\(1 \| Subject\)`.*the same",
        ),
        ("Reaction ~ Days + (1 | Subject) + (1 | copy)", "same levels and the same column"),
        ("Reaction ~ 1 + (Days | Subject) + (Days | Subject)", r"columns `\(Intercept\)`, `Days`"),
        ("Reaction ~ Days + (Days | Subject) + (twice | copy)", "sum of their covariance matrices"),
        ("Reaction ~ 1 + (Days | Subject) + cs(Days | Subject)", "Drop one of them"),
        ("Reaction ~ 1 + diag(Days | Subject) + diag(Days | Subject)", "Drop one of them"),
        ("between ~ 1 + (1 | Subject)", "constant within the levels of Subject"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(
    sleep: pd.DataFrame, formula: str, message: str
) -> None:
    data = sleep.assign(
        zero=0.0,
        two=2.0,
        twice=2.0 * sleep["Days"],
        copy="s" + sleep["Subject"].astype(str),
        between=sleep["Subject"].astype(int) * 1.0,
    )
    with pytest.raises(me.ModelError, match=message):
        me.lmer(formula, data)


def test_terms_that_share_a_span_are_fitted(sleep: pd.DataFrame) -> None:
    """lme4 writes ``(f || g)`` so: V is determined, its parts are not."""
    data = sleep.assign(half=np.where(sleep["Days"] < 5, "early", "late"))
    with pytest.warns(me.IdentifiabilityWarning, match=r"Leave `\(1 \| Subject\)` or"):
        m = me.lmer("Reaction ~ half + (half || Subject)", data)
    assert list(m.varcorr) == ["Subject", "Subject.1"]
    plain = me.lmer("Reaction ~ half + (half | Subject)", data)
    assert m.criterion == pytest.approx(plain.criterion, abs=1e-6)
    assert_allclose(m.se, plain.se, rtol=1e-5)


def test_refit_goes_by_label(sleep: pd.DataFrame) -> None:
    data = sleep.copy()
    data.loc[[3, 50], "Days"] = np.nan
    m = me.lmer(SLEEP, data)
    shuffled = data["Reaction"].sample(frac=1.0, random_state=0)
    for y in (shuffled, data["Reaction"].to_numpy(), m.y):
        assert m.refit(y).criterion == pytest.approx(m.criterion, abs=1e-8)
    with pytest.raises(me.ModelError, match="row labels"):
        m.refit(shuffled.iloc[:100])
    with pytest.raises(me.ModelError, match="2 rows were dropped"):
        m.refit(np.ones(10))


def test_slopes_far_from_zero(sleep: pd.DataFrame) -> None:
    """A slope over values such as 1,000,000 to 1,000,009 is fitted, tested and certified."""
    near = fitted_model("sleepstudy")
    far = me.lmer(SLEEP, sleep.assign(Days=sleep["Days"] + 1e6))
    assert far.criterion == pytest.approx(near.criterion, abs=1e-5)
    assert far.coef_table()["df"]["Days"] == pytest.approx(17.0, abs=1e-3)
    assert far.optimum.certificate.holds


def test_estimates_cannot_be_changed_by_accident() -> None:
    m = fitted_model("sleepstudy")
    fixef, theta = m.fixef, m.theta
    fixef["Days"] = theta[0] = 99.0
    assert m.fixef["Days"] == pytest.approx(10.467, abs=1e-3)
    assert m.theta[0] == pytest.approx(0.967, abs=1e-3)
    with pytest.raises(AttributeError):
        m.sigma = 3.0  # type: ignore[misc]


def test_arguments_of_the_wrong_type(sleep: pd.DataFrame) -> None:
    for options in ({"reml": "no"}, {"control": {"max_evaluations": 3}}, {"start": "a"}):
        with pytest.raises(me.ModelError, match=next(iter(options))):
            me.lmer(SLEEP, sleep, **options)
    with pytest.raises(ValueError, match="max_evaluations=-1"):
        me.Control(max_evaluations=-1)
    assert "Satterthwaite" in str(fitted_model("sleepstudy").summary(ddf="Satterthwaite"))
    with pytest.raises(me.ModelError, match="'Subject'"):
        fitted_model("sleepstudy").ranef()["q"]


def test_a_failed_certificate_is_printed(sleep: pd.DataFrame) -> None:
    with pytest.warns(me.IdentifiabilityWarning, match=r"sd_\(Intercept\)\|Subject"):
        m = me.lmer("Reaction ~ Subject + (1 | Subject)", sleep)
    assert not m.optimum.certificate.holds
    assert "DOES NOT HOLD" in repr(m)
    # The criterion does not depend on the variance at all, so its curvature is rounding.
    assert abs(m.optimum.smallest_curvature) < 1e-4


def test_coef_is_fixed_plus_random() -> None:
    m = fitted_model("sleepstudy")
    coef = m.coef()["Subject"]
    expected = m.ranef()["Subject"] + m.fixef
    assert_allclose(coef, expected[coef.columns])
    nested = fitted_model("threelevel").coef()["sch.cl"]
    assert list(nested.columns) == ["(Intercept)", "x1"]
    assert nested["x1"].nunique() == 1


def test_a_model_is_freed_with_its_last_reference() -> None:
    """Large fits hold gigabytes: they must not wait for the collector of reference cycles."""
    m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    assert m.optimum.certificate.holds and str(m)
    gone = weakref.ref(m)
    gc.disable()
    try:
        del m
        assert gone() is None
    finally:
        gc.enable()
