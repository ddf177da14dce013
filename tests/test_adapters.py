"""What other packages ask of a fit: maketables and marginaleffects."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from references import fitted_model

pytestmark = pytest.mark.filterwarnings("ignore:.*get_categories:DeprecationWarning")


def test_the_plug_in_format_of_maketables() -> None:
    m = fitted_model("sleepstudy")
    table, own = m.__maketables_coef_table__, m.coef_table()
    assert table.index.name == "Coefficient"
    assert list(table.index) == list(own.index)
    columns = {
        "b": "Estimate",
        "se": "Std. Error",
        "t": "t value",
        "p": "Pr(>|t|)",
        "df": "df",
        "ci95l": "lower",
        "ci95u": "upper",
    }
    assert list(table.columns) == list(columns)
    for theirs, ours in columns.items():
        np.testing.assert_array_equal(table[theirs], own[ours])
    assert m.__maketables_depvar__ == "Reaction"
    assert m.__maketables_vcov_info__ == {"vcov_type": "model", "clustervar": None}
    expected = {
        "N": 180,
        "ll": m.loglik,
        "deviance": m.criterion,
        "aic": m.aic,
        "bic": m.bic,
        "icc": m.icc().adjusted,
        "r2_marginal": m.r2().marginal,
        "r2_conditional": m.r2().conditional,
        "df_resid": 174,
        "se_type": "model",
        "method": "REML",
        "Groups: Subject": 18,
        "Residual: SD": m.sigma,
        "Subject: SD Days": m.varcorr.sd("Subject")["Days"],
        "Subject: corr. (Intercept), Days": m.varcorr.corr("Subject").iloc[0, 1],
    }
    for key, value in expected.items():
        assert m.__maketables_stat__(key) == value, key
    assert m.__maketables_stat__("adj_r2") is None
    keys = m.__maketables_default_stat_keys__
    assert len(set(keys)) == len(keys)
    assert all(m.__maketables_stat__(key) is not None for key in keys)
    # Of generalized models there are two more.
    assert set(m.__maketables_stat_labels__) <= {*expected, "family", "link"}


def test_maketables_shows_a_fit() -> None:
    maketables = pytest.importorskip("maketables")
    m = fitted_model("sleepstudy")
    text = maketables.ETable([m, m.without_data()]).make("tex")
    for shown in ("251.405***", "10.467***", "(1.546)", "Groups: Subject", "24.740"):
        assert shown in text


def test_without_marginaleffects_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mixedeffects.adapters import marginaleffects

    monkeypatch.setitem(sys.modules, "marginaleffects.classes", None)
    marginaleffects._adapter_classes.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'marginaleffects>=0\.6'"):
        fitted_model("sleepstudy").marginaleffects()
    with pytest.raises(me.ModelError, match="df must be a positive number"):
        fitted_model("sleepstudy").marginaleffects(df=-1)


@pytest.fixture
def mfx() -> Any:
    return pytest.importorskip("marginaleffects")


def by_contrast(m: me.LinearMixedModel, L: Any, vcov: str) -> tuple[float, float]:
    """Estimate and standard error of one linear combination."""
    L = np.asarray(L, dtype=float)
    return float(L @ m.fixef), float(np.sqrt(L @ m.vcov(vcov).to_numpy() @ L))


@pytest.mark.parametrize("vcov", ["model", "kr", "CR2"])
def test_effects_of_a_slope(mfx: Any, vcov: str) -> None:
    m = fitted_model("sleepstudy")
    adapter = m.marginaleffects(vcov=vcov)
    # Its default step is so small that rounding shows in the derivative of a derivative.
    slope = mfx.avg_slopes(adapter, variables="Days", eps_vcov=1.0).to_pandas()
    table = m.coef_table(vcov=vcov)
    assert slope["estimate"][0] == pytest.approx(table.loc["Days", "Estimate"], rel=1e-6)
    assert slope["std_error"][0] == pytest.approx(table.loc["Days", "Std. Error"], rel=1e-6)
    rows = mfx.predictions(adapter, newdata=pd.DataFrame({"Days": [0.0, 5.0]}))
    for i, day in enumerate([0.0, 5.0]):
        fit, se = by_contrast(m, [1.0, day], vcov)
        assert rows.to_pandas()["estimate"][i] == pytest.approx(fit, rel=1e-9)
        assert rows.to_pandas()["std_error"][i] == pytest.approx(se, rel=1e-5)
    tests = adapter.tests(mfx.hypotheses(adapter))
    np.testing.assert_allclose(tests["df"], table["df"], rtol=1e-5)
    np.testing.assert_allclose(tests["p_value"], table["Pr(>|t|)"], rtol=1e-3)
    np.testing.assert_allclose(tests["conf_low"], table["lower"], rtol=1e-4)


def test_comparisons_between_levels(mfx: Any) -> None:
    m = fitted_model("cake")
    adapter = m.marginaleffects(vcov="kr", ddf="kr")
    found = adapter.tests(mfx.avg_comparisons(adapter, variables="recipe"))
    # The design is balanced: the mean over temperatures is that over the cells.
    for row, level in zip(found.itertuples(), ["B", "C"], strict=True):
        cells = m.frame.data.drop_duplicates(["recipe", "temperature"])
        X, _ = m.frame.fixed_encoder.encode(cells)
        of = {r: X[(cells["recipe"] == r).to_numpy()].mean(axis=0) for r in ("A", level)}
        L = of[level] - of["A"]
        fit, se = by_contrast(m, L, "kr")
        assert row.estimate == pytest.approx(fit, rel=1e-7)
        assert row.std_error == pytest.approx(se, rel=1e-5)
        assert row.df == pytest.approx(m.kenward_roger.df(L[None, :])[0], rel=1e-5)
    with pytest.raises(me.ModelError, match="another covariance matrix"):
        m.marginaleffects().tests(mfx.avg_comparisons(adapter, variables="recipe", vcov="CR0"))


def test_text_columns_interactions_and_offsets(mfx: Any) -> None:
    rng = np.random.default_rng(3)
    n = 120
    data = pd.DataFrame(
        {
            "arm": rng.choice(["b", "a", "c"], n),
            "x.1": rng.normal(size=n),
            "e": rng.uniform(1.0, 3.0, n),
            "g": rng.integers(0, 12, n).astype(str),
        }
    )
    data["y"] = data["x.1"] + np.log(data["e"]) + rng.normal(size=n)
    m = me.lmer("y ~ arm * x.1 + offset(log(e)) + (1 | g)", data)
    adapter = m.marginaleffects()
    found = mfx.predictions(adapter).to_pandas()["estimate"]
    fixed = m.X @ m.fixef.to_numpy() + np.log(data["e"].to_numpy())
    np.testing.assert_allclose(found, fixed, rtol=1e-9)
    by_name = me.lmer("y ~ arm * x.1 + (1 | g)", data.assign(o=np.log(data["e"])), offset="o")
    found = mfx.predictions(by_name.marginaleffects()).to_pandas()["estimate"]
    np.testing.assert_allclose(found, fixed, rtol=1e-6)
    contrast = mfx.avg_comparisons(adapter, variables="arm").to_pandas()
    assert contrast["contrast"].tolist() == ["b - a", "c - a"]
    values = me.lmer("y ~ arm * x.1 + (1 | g)", data, offset=np.log(data["e"].to_numpy()))
    with pytest.raises(me.ModelError, match="say nothing about new rows"):
        values.marginaleffects()
