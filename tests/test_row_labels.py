"""Labels are heeded or refused, contrasts have p columns, and nothing is dropped unseen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from numpy.testing import assert_allclose

import mixedeffects as me

TEXT = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep() -> pd.DataFrame:
    data = me.load_dataset("sleepstudy")
    rng = np.random.default_rng(2)
    data = data.assign(w=rng.uniform(1, 2, 180), o=rng.normal(size=180))
    return data.set_axis([f"row{i}" for i in range(180)])


@pytest.fixture(scope="module")
def m(sleep: pd.DataFrame) -> me.LinearMixedModel:
    return me.lmer(TEXT, sleep, weights="w")


ORDER = np.random.default_rng(0).permutation(180)

#: Every argument that takes one value or more for each row: a function of the fit, the data, and
#: what is given, whose result does not depend on the order of labelled values.
BY_ROW: dict[str, tuple[str, Callable[[Any, pd.DataFrame, Any], Any]]] = {
    "lmer(weights=)": ("w", lambda m, d, v: me.lmer(TEXT, d, weights=v).criterion),
    "lmer(offset=)": ("o", lambda m, d, v: me.lmer(TEXT, d, offset=v).criterion),
    "marginal_covariance(weights=)": (
        "w",
        lambda m, d, v: planned(d, "~ 1 + (1 | Subject)", 1.0, weights=v).diag(),
    ),
    "refit": ("Reaction", lambda m, d, v: m.refit(v).criterion),
    "predict(weights=)": (
        "w",
        lambda m, d, v: m.predict(d, interval="prediction", weights=v)["conf_high"].to_numpy(),
    ),
    "predict(offset=)": ("o", lambda m, d, v: m.predict(d, offset=v).to_numpy()),
    "robust(cluster=)": ("Subject", lambda m, d, v: m.robust("CR0", cluster=v).vcov.to_numpy()),
    "vcov(cluster=)": ("Subject", lambda m, d, v: m.vcov("CR0", cluster=v).to_numpy()),
    "coef_table(cluster=)": (
        "Subject",
        lambda m, d, v: m.coef_table(vcov="CR0", cluster=v).to_numpy(),
    ),
    "influence(by=)": ("Subject", lambda m, d, v: m.influence(v).cooks_distance.to_numpy()),
    "cross_validate(by=)": (
        "Subject",
        lambda m, d, v: me.cross_validate(m, by=v, folds=2, seed=1).to_frame()["rmse"].to_numpy(),
    ),
    "variogram(distance=)": (
        "Days",
        lambda m, d, v: m.variogram(v).table["empirical"].to_numpy(),
    ),
    "V.solve": ("Reaction", lambda m, d, v: m.V.solve(v)),
    "V @ x": ("Reaction", lambda m, d, v: m.V @ v),
    "V.quad": ("Reaction", lambda m, d, v: m.V.quad(v)),
    "V.whiten": ("Reaction", lambda m, d, v: m.V.whiten(v)),
    "V.sample(mean=)": ("Reaction", lambda m, d, v: m.V.sample(seed=1, mean=v)),
    "V.parts @ x": ("Reaction", lambda m, d, v: m.V.parts["Subject"] @ v),
    "V.solve of a table": ("Reaction", lambda m, d, v: m.V.solve(_table(v))),
    "V.rows": ("Days", lambda m, d, v: m.V.rows(v > 8)),
    "V.gls(y)": ("Reaction", lambda m, d, v: m.V.gls(m.X, v).coef.to_numpy()),
    "gls(y), V an operator": ("Reaction", lambda m, d, v: me.gls(m.X, v, m.V).coef.to_numpy()),
    "gls(y), X labelled": (
        "Reaction",
        lambda m, d, v: me.gls(_X(m, d), v, m.V.dense()).coef.to_numpy(),
    ),
    "gls(X)": ("Days", lambda m, d, v: me.gls(_table(v), m.y, m.V).coef.to_numpy()),
    "gls(X), V a table": (
        "Days",
        lambda m, d, v: me.gls(
            _table(v), m.y, pd.DataFrame(m.V.dense(), d.index, d.index)
        ).coef.to_numpy(),
    ),
    "a dict of columns": (
        "Days",
        lambda m, d, v: me.lmer(TEXT, {**{c: d[c] for c in d}, "Days": v}).criterion,
    ),
}


def planned(data: pd.DataFrame, text: str, G: Any, sigma: Any = 1.0, **options: Any) -> Any:
    return me.marginal_covariance(text, data, G={"Subject": G}, sigma=sigma, **options)


def _table(values: Any) -> Any:
    return values.to_frame() if isinstance(values, pd.Series) else values[:, None]


def _X(m: Any, d: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(m.X, d.index, m.fixef.index)


@pytest.mark.parametrize(("column", "call"), BY_ROW.values(), ids=BY_ROW)
def test_values_of_rows_go_by_their_labels(
    sleep: pd.DataFrame, m: me.LinearMixedModel, column: str, call: Callable[..., Any]
) -> None:
    values = sleep[column]
    right = call(m, sleep, values.to_numpy())
    assert_allclose(call(m, sleep, values), right, rtol=1e-9)
    assert_allclose(call(m, sleep, values.iloc[ORDER]), right, rtol=1e-9)
    others = {
        "other": [f"line{i}" for i in range(180)],
        "none": range(180),
        "shifted": [f"row{i + 1}" for i in range(180)],
        "twice": ["row0", *sleep.index[:-1]],
    }
    for index in others.values():
        with pytest.raises(me.MixedEffectsError, match="row labels"):
            call(m, sleep, values.set_axis(index))


def test_transposes_and_tables_go_by_their_labels(
    sleep: pd.DataFrame, m: me.LinearMixedModel
) -> None:
    X, V = _X(m, sleep), pd.DataFrame(m.V.dense(), sleep.index, sleep.index)
    shuffled = X.iloc[ORDER]
    right = m.fixef.to_numpy()
    assert_allclose(me.gls(shuffled, sleep["Reaction"], m.V).coef, right, rtol=1e-8)
    assert_allclose(me.gls(shuffled, sleep["Reaction"], V).coef, right, rtol=1e-8)
    columns = V.iloc[:, ORDER]
    assert_allclose(me.gls(X, sleep["Reaction"], columns).coef, right, rtol=1e-8)
    assert_allclose(me.gls(X, sleep["Reaction"], V.iloc[ORDER]).coef, right, rtol=1e-8)
    with pytest.raises(me.DataError, match="transpose of V are not those of V"):
        me.gls(X, m.y, V.set_axis(range(180), axis=1))
    assert_allclose(V.__class__.__name__ and m.V.__rmatmul__(shuffled.T), X.T @ V)
    block = m.V.block("308")
    own = me.gls(X.loc[block.index[::-1]], sleep["Reaction"].loc[block.index], block)
    assert_allclose(own.coef, me.gls(m.X[:10], m.y[:10], block.to_numpy()).coef, rtol=1e-8)


def test_data_without_labels(sleep: pd.DataFrame) -> None:
    plain = pl.from_pandas(sleep.reset_index(drop=True))
    right = me.lmer(TEXT, plain, weights=sleep["w"].to_numpy()).criterion
    for weights in (plain["w"], sleep["w"].tolist(), sleep["w"].reset_index(drop=True)):
        assert me.lmer(TEXT, plain, weights=weights).criterion == right
    with pytest.raises(me.DataError, match="row labels of `weights`"):
        me.lmer(TEXT, plain, weights=sleep["w"])


def test_labels_of_rows_that_were_dropped(sleep: pd.DataFrame) -> None:
    data = sleep.copy()
    data.loc[["row3", "row50"], "Days"] = np.nan
    m = me.lmer(TEXT, data)
    right = m.refit(m.y).criterion
    for y in (data["Reaction"], data["Reaction"].iloc[ORDER], data["Reaction"].to_numpy()):
        assert m.refit(y).criterion == right
    assert_allclose(m.V.solve(data["Reaction"].loc[m.V.index[::-1]]), m.V.solve(m.y))
    with pytest.raises(me.DataError, match="178 rows are needed"):
        m.V.solve(data["Reaction"])


def test_columns_of_a_dict_keep_their_labels(sleep: pd.DataFrame) -> None:
    columns = {name: sleep[name] for name in sleep}
    m = me.lmer(TEXT, columns, weights=sleep["w"].iloc[ORDER])
    assert m.fitted.index.equals(sleep.index)
    with pytest.raises(me.DataError, match="column `Days` are not those of the columns before"):
        me.lmer(TEXT, {**columns, "Days": sleep["Days"].reset_index(drop=True)})


# --- contrasts and other vectors of coefficients -------------------------------------------------

VECTORS: dict[str, Callable[[me.LinearMixedModel, Any], Any]] = {
    "contrast": lambda m, L: m.contrast(L).to_numpy()[0],
    "contrast of a mapping": lambda m, L: m.contrast({"a": _one(L)}).to_numpy()[0],
    "wald": lambda m, L: m.wald(L).statistic,
    "wald, robust": lambda m, L: m.wald(L, vcov="CR2", test="HTZ").statistic,
    "robust().test": lambda m, L: m.robust().test(L).statistic,
    "satterthwaite.df": lambda m, L: m.satterthwaite.df(L),
    "satterthwaite.f_df": lambda m, L: m.satterthwaite.f_df(L),
    "kenward_roger.df": lambda m, L: m.kenward_roger.df(L),
    "kenward_roger.f_test": lambda m, L: m.kenward_roger.f_test(L),
    "power": lambda m, L: me.power(m, L, draws=2, seed=1).table["significant"].to_numpy(),
}


def _one(L: Any) -> Any:
    return L.iloc[0] if isinstance(L, pd.DataFrame) else np.asarray(L)[0] if np.ndim(L) == 2 else L


@pytest.mark.parametrize("call", VECTORS.values(), ids=VECTORS)
def test_vectors_of_coefficients(m: me.LinearMixedModel, call: Callable[..., Any]) -> None:
    right = call(m, [[0.0, 1.0]])
    days = pd.Series({"Days": 1.0, "(Intercept)": 0.0})
    for same in (days, days.iloc[:1], days.to_frame().T, days.to_frame().T[["Days"]]):
        assert_allclose(call(m, same), right)
    wrong: list[Any] = [
        [[1.0]],
        [1.0],
        [1.0, 0.0, 0.0],
        [[1.0, 0.0, 0.0]],
        pd.Series([0.0, 1.0]),
        pd.Series([0.0, 1.0], ["(Intercept)", "Nights"]),
        pd.Series([0.0, 1.0, 1.0], ["(Intercept)", "Days", "Days"]),
        pd.DataFrame([[0.0, 1.0]]),
        np.ma.masked_equal([5.0, 1.0], 5.0),
        [1j, 1.0],
        np.array([0.0, 1.0 + 1e-3j]),
        np.array([0.0, np.complex128(1 + 1j)], dtype=object),
    ]
    for contrast in wrong:
        with pytest.raises(me.ModelError):
            call(m, contrast)


def test_coefficients_of_one_name() -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"a": np.resize(["b1", "b2"], 60), "g": np.repeat(np.arange(10), 6)})
    data = data.assign(ab2=rng.normal(size=60), y=rng.normal(size=60) + rng.normal(size=10)[data.g])
    m = me.lmer("y ~ a + ab2 + (1 | g)", data)
    assert list(m.fixef.index) == ["(Intercept)", "ab2", "ab2"]
    for ambiguous in ("ab2", ["ab2"], pd.Series({"ab2": 1.0}), {"x": {"ab2": 1.0}}):
        with pytest.raises(me.ModelError, match="2 coefficients are called 'ab2'"):
            m.contrast(ambiguous)
    with pytest.raises(me.ModelError, match="2 coefficients"):
        me.power(m, [0, 0, 1], effects={"ab2": 1.0}, draws=1)
    assert list(m.confint().index[-2:]) == ["ab2 (1)", "ab2 (2)"]
    assert_allclose(m.confint(parameters="ab2").to_numpy(), m.confint().to_numpy()[-2:])
    coefficients = m.to_dict()["coefficients"]
    assert [coefficients[f"ab2 ({i})"]["Estimate"] for i in (1, 2)] == m.fixef.tolist()[1:]


def test_a_name_of_a_coefficient_and_of_a_term() -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"a": np.resize(list("xy"), 60), "ay": np.resize(list("pqr"), 60)})
    data = data.assign(g=np.repeat(np.arange(10), 6), y=rng.normal(size=60))
    data["y"] += rng.normal(size=10)[data["g"]]
    m = me.lmer("y ~ a + ay + (1 | g)", data)
    with pytest.raises(me.ModelError, match="also a term with other columns"):
        m.wald("ay")


# --- theta, and covariance matrices -------------------------------------------------------------


def test_theta_goes_by_its_labels(m: me.LinearMixedModel, sleep: pd.DataFrame) -> None:
    theta = m.getme("theta")
    calls: list[Callable[[Any], Any]] = [
        m.loglik_at,
        lambda v: m.V.at(v).dense(),
        m.getme("devfun"),
        lambda v: me.lmer(TEXT, sleep, weights="w", start=v).criterion,
    ]
    for call in calls:
        assert_allclose(call(theta.iloc[[2, 0, 1]]), call(theta.to_numpy()), rtol=1e-9)
        for wrong in (theta.set_axis(["a", "b", "c"]), pd.Series(m.theta), [1.0], [1.0, 0.0]):
            with pytest.raises(me.ModelError):
                call(wrong)
        for wrong in ([1, 0, 1j], np.ma.masked_equal([1.0, 0.0, 9.0], 9.0)):
            with pytest.raises(me.MixedEffectsError):
                call(wrong)


def test_matrices_of_components_go_by_their_labels(sleep: pd.DataFrame) -> None:
    G = pd.DataFrame([[2.0, 0.1], [0.1, 0.5]], ["(Intercept)", "Days"], ["(Intercept)", "Days"])
    right = planned(sleep, "~ Days + (Days | Subject)", G).diag()
    for same in (G.iloc[::-1], G.iloc[:, ::-1], G.iloc[::-1, ::-1], G.to_numpy()):
        assert_allclose(planned(sleep, "~ Days + (Days | Subject)", same).diag(), right)
    masked = np.ma.masked_equal(G.to_numpy(), 0.1)
    for wrong in (G.set_axis(["a", "b"]), G.to_numpy() + 0j, masked):
        with pytest.raises(me.ModelError):
            planned(sleep, "~ Days + (Days | Subject)", wrong)
    with pytest.raises(me.ModelError, match="sigma must be a positive number"):
        planned(sleep, "~ 1 + (1 | Subject)", 1.0, np.complex128(1 + 1j))


def test_rows_of_codings_go_by_their_labels() -> None:
    data = me.load_dataset("cake")
    text = "angle ~ recipe + (1 | recipe:replicate)"
    coding = pd.DataFrame({"1": [1.0, 0, -1], "2": [0.0, 1, -1]}, ["A", "B", "C"])
    right = me.lmer(text, data, contrasts={"recipe": coding}).fixef
    again = me.lmer(text, data, contrasts={"recipe": coding.iloc[[2, 0, 1]]}).fixef
    assert_allclose(again, right, rtol=1e-9)
    for wrong in (coding.set_axis(["A", "B", "D"]), coding.set_axis(["A", "A", "C"])):
        with pytest.raises(me.ModelError):
            me.lmer(text, data, contrasts={"recipe": wrong})
    # Levels that are numbers, in another order than their own.
    numbered = data.assign(recipe=data["recipe"].map({"A": 3, "B": 1, "C": 2}))
    coding = pd.DataFrame({"1": [0.0, 1, -1], "2": [1.0, 0, -1]}, [1, 3, 2])
    for index in ([1, 3, 2], [1.0, 3.0, 2.0], ["1", "3", "2"]):
        found = me.lmer(text, numbered, contrasts={"recipe": coding.set_axis(index)}).fixef
        assert_allclose(found, right, rtol=1e-9)


def test_means_go_by_their_labels() -> None:
    means = me.lmer("angle ~ recipe + (1 | recipe:replicate)", me.load_dataset("cake")).emmeans(
        "recipe"
    )
    right = means.contrasts({"a": [1, 0, -1]}).to_frame()["estimate"]
    for same in ({"C": -1, "A": 1}, pd.Series({"C": -1, "B": 0, "A": 1})):
        assert_allclose(means.contrasts({"a": same}).to_frame()["estimate"], right)
    wrong: list[Any] = [
        pd.Series([1, 0, -1]),
        pd.Series([1, -1], ["A", "A"]),
        [1],
        [1j, 0, -1],
        np.ma.masked_equal([1.0, 0.0, -1.0], 0.0),
    ]
    for coefficients in wrong:
        with pytest.raises(me.ModelError):
            means.contrasts({"a": coefficients})


# --- nothing is dropped unseen ------------------------------------------------------------------


def test_masked_values_are_missing(sleep: pd.DataFrame, m: me.LinearMixedModel) -> None:
    hidden = np.zeros(180, dtype=bool)
    hidden[[4, 77]] = True
    columns = {
        name: np.ma.masked_array(values.to_numpy(), mask=hidden if name == "Days" else False)
        for name, values in sleep[["Reaction", "Days", "Subject"]].items()
    }
    fit = me.lmer(TEXT, columns)
    assert fit.dropped.missing_by_column == {"Days": 2}
    right = me.lmer(TEXT, sleep.loc[~hidden])
    assert_allclose(fit.fixef, right.fixef)
    for role in ("weights", "offset"):
        values = np.ma.masked_array(sleep["w"].to_numpy(), mask=hidden)
        fit = me.lmer(TEXT, sleep, **{role: values})
        assert fit.dropped.missing_by_column == {f"({role})": 2}
    groups = np.ma.masked_array(sleep["Subject"].astype(int).to_numpy(), mask=hidden)
    assert me.lmer(TEXT, {**columns, "Subject": groups}).nobs == 178
    masked = np.ma.masked_array(m.y, mask=hidden)
    refusals: list[Callable[[], Any]] = [
        lambda: m.refit(masked),
        lambda: m.V.solve(masked),
        lambda: m.V @ masked,
        lambda: m.V.quad(masked),
        lambda: m.V.whiten(masked),
        lambda: m.V.sample(mean=masked),
        lambda: me.gls(m.X, masked, m.V),
        lambda: me.gls(np.ma.masked_equal(m.X, 0.0), m.y, m.V),
        lambda: me.gls(m.X, m.y, np.ma.masked_equal(m.V.dense(), 0.0)),
        lambda: m.robust(cluster=groups),
        lambda: m.influence(groups),
        lambda: me.cross_validate(m, by=groups, folds=2),
        lambda: m.variogram(np.ma.masked_array(sleep["Days"].to_numpy(), mask=hidden)),
    ]
    for refused in refusals:
        with pytest.raises(me.MixedEffectsError):
            refused()
    weights = np.ma.masked_array(sleep["w"].to_numpy(), mask=hidden)
    assert m.predict(sleep, interval="prediction", weights=weights)["estimate"].isna().sum() == 2


def test_imaginary_parts_are_refused(sleep: pd.DataFrame, m: me.LinearMixedModel) -> None:
    turned = m.y + 1e-3j
    refusals: list[Callable[[], Any]] = [
        lambda: me.lmer(TEXT, sleep.assign(Reaction=turned)),
        lambda: me.lmer(TEXT, sleep.assign(Days=turned)),
        lambda: me.lmer(TEXT, sleep.assign(Subject=turned)),
        lambda: me.lmer(TEXT, sleep, weights=turned),
        lambda: me.lmer(TEXT, sleep, offset=turned.tolist()),
        lambda: m.refit(turned),
        lambda: m.refit(turned.astype(object)),
        lambda: m.refit(np.array(list(turned), dtype=object)),
        lambda: m.predict(sleep, offset=turned),
        lambda: m.predict(sleep, offset=1j),
        lambda: m.V.solve(turned),
        lambda: m.V @ turned,
        lambda: m.V.sample(mean=turned),
        lambda: m.V.sample(mean=1j),
        lambda: me.gls(m.X + 0j, m.y, m.V),
        lambda: me.gls(m.X, turned, m.V),
        lambda: me.gls(m.X, m.y, m.V.sparse() * (1 + 0j)),
        lambda: me.gls(scipy.sparse.csc_array(m.X + 0j), m.y, m.V),
        lambda: m.robust(cluster=turned),
        lambda: m.variogram(turned),
        lambda: m.loglik_at(m.theta, np.complex128(20 + 1j)),
        lambda: me.power(m, "Days", effects={"Days": np.complex128(1 + 1j)}, draws=1),
        lambda: m.bootstrap(2, statistic=lambda fit: np.complex128(1 + 1j), seed=1),
    ]
    for refused in refusals:
        with pytest.raises(me.MixedEffectsError):
            refused()
