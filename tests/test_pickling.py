"""Fits that are stored, copied, sent to other processes, and stored without their data."""

from __future__ import annotations

import concurrent.futures
import copy
import gzip
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.pickling import FORMAT
from references import MODELS, fitted_model

STORED = Path(__file__).parent / "reference" / "pickles"
NAMES = [
    "sleepstudy",
    "sleepstudy_ml",
    "sleepstudy_zerocorr",
    "threelevel",
    "dyestuff2",
    "penicillin",
    "cake",
]


def sent(value: Any) -> Any:
    """Through a pickle and back."""
    return pickle.loads(pickle.dumps(value))


def unusual_fit() -> me.LinearMixedModel:
    """Prior weights and an offset as values, missing rows, a dropped column, crossed factors."""
    rng = np.random.default_rng(11)
    n = 200
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "a": pd.Categorical(rng.choice(list("pqr"), n), ordered=True),
            "g": [f"g{i}" for i in rng.integers(0, 15, n)],
            "h": rng.integers(0, 7, n),
        }
    )
    effects = rng.normal(size=15)[data["g"].str[1:].astype(int)] + rng.normal(size=7)[data["h"]]
    data["y"] = data["x"] + effects + rng.normal(size=n)
    data.loc[[3, 50], "x"] = np.nan
    return me.lmer(
        "y ~ poly(x, 2) + I(2 * x) + x + a + (x | g) + (1 | h)",
        data,
        weights=rng.uniform(0.5, 2.0, n),
        offset=np.linspace(0.0, 1.0, n),
    )


@pytest.mark.parametrize("copied", [sent, copy.deepcopy], ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("name", [*NAMES, "unusual"])
def test_a_copy_is_the_same_fit(name: str, copied: Any) -> None:
    m = unusual_fit() if name == "unusual" else fitted_model(name)
    n = copied(m)
    assert str(n.summary()) == str(m.summary())
    assert n._repr_html_() == m._repr_html_()
    pd.testing.assert_series_equal(n.fitted, m.fitted, rtol=1e-12)
    np.testing.assert_allclose(n.V.dense(), m.V.dense(), rtol=1e-13)
    np.testing.assert_allclose(n.V.solve(n.y), m.V.solve(m.y), rtol=1e-10)
    pd.testing.assert_frame_equal(n.ranef().to_frame(), m.ranef().to_frame(), rtol=1e-12)
    pd.testing.assert_frame_equal(n.coef_table(), m.coef_table(), rtol=1e-10)
    again = n.refit(n.y + np.linspace(0.0, 1.0, n.nobs))
    expected = m.refit(m.y + np.linspace(0.0, 1.0, m.nobs))
    np.testing.assert_allclose(again.theta, expected.theta, rtol=1e-8, atol=1e-10)
    assert n.update(reml=not m.reml).criterion == pytest.approx(m.update(reml=not m.reml).criterion)
    assert n.dropped.columns == m.dropped.columns


def test_a_copy_shares_nothing_and_its_parts_belong_together() -> None:
    m = fitted_model("sleepstudy")
    n = copy.deepcopy(m)
    data = n.frame.data
    data.loc[0, "Days"] = 99.0
    assert m.frame.data.loc[0, "Days"] == 0.0
    assert n._A is n.optimum.evaluation.A
    assert copy.copy(m).frame is m.frame


def test_what_follows_from_the_rest_is_not_stored() -> None:
    m = sent(fitted_model("penicillin"))
    before = len(pickle.dumps(m))
    m.V.solve(m.y)
    m.ranef(cond_var=True)
    _ = m.fitted, m.Z, m.kenward_roger
    assert len(pickle.dumps(m)) == before


def in_another_process(m: me.LinearMixedModel) -> tuple[float, me.LinearMixedModel]:
    return float(m.refit(m.y[::-1].copy()).criterion), m


def test_a_fit_goes_to_another_process_and_back() -> None:
    m = fitted_model("sleepstudy")
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        criterion, back = pool.submit(in_another_process, m).result()
    assert criterion == pytest.approx(m.refit(m.y[::-1].copy()).criterion, rel=1e-9)
    pd.testing.assert_series_equal(back.fixef, m.fixef)


# --- without the data ------------------------------------------------------------------------


@pytest.mark.parametrize("through", [lambda m: m, sent], ids=["as it is", "pickled"])
@pytest.mark.parametrize("name", [*NAMES, "unusual"])
def test_without_data_keeps_what_needs_no_rows(name: str, through: Any) -> None:
    m = unusual_fit() if name == "unusual" else fitted_model(name)
    s = through(m.without_data())
    assert str(s.summary()) == str(m.summary())
    assert repr(s) == repr(m)
    assert (s.formula, s.reml, s.nobs, s.ngroups) == (m.formula, m.reml, m.nobs, m.ngroups)
    assert (s.criterion, s.aic, s.bic) == (m.criterion, m.aic, m.bic)
    for ddf in ["satterthwaite", "residual", "inf", *(["kr"] if m.reml else [])]:
        pd.testing.assert_frame_equal(s.coef_table(ddf), m.coef_table(ddf), rtol=1e-10)
    pd.testing.assert_frame_equal(s.vcov(), m.vcov(), rtol=1e-10)
    for kind in (1, 2, 3):
        pd.testing.assert_frame_equal(s.anova(kind), m.anova(kind), rtol=1e-9)
    pd.testing.assert_frame_equal(s.varcorr.to_frame(), m.varcorr.to_frame())
    pd.testing.assert_frame_equal(
        s.ranef(cond_var=True).to_frame(), m.ranef(cond_var=True).to_frame(), rtol=1e-9
    )
    assert abs(s.G.sparse() - m.G.sparse()).max() == 0.0
    assert s.icc().adjusted == m.icc().adjusted
    assert s.r2().conditional == m.r2().conditional
    assert s.loglik_at(s.theta) == pytest.approx(m.loglik)
    pd.testing.assert_frame_equal(s.tidy(), m.tidy(), rtol=1e-9)
    pd.testing.assert_frame_equal(s.glance(), m.glance())
    for name in ("p", "q", "n", "m", "k", "REML", "cnms", "theta", "Lambdat", "Gp"):
        one, other = s.getme(name), m.getme(name)
        if hasattr(one, "toarray"):
            one, other = one.toarray(), other.toarray()
        np.testing.assert_equal(
            np.asarray(one, dtype=object), np.asarray(other, dtype=object), err_msg=name
        )
    X, names = s.frame.fixed_encoder.encode(m.frame.data)
    np.testing.assert_allclose(X, m.X, atol=1e-10)
    assert names == m.frame.fixef_names
    assert s.without_data() is s


@pytest.mark.parametrize("formula", ["(Days | Subject)", "cs(Days | Subject)"])
def test_without_data_predicts_new_rows(formula: str) -> None:
    sleep = me.load_dataset("sleepstudy")
    m = me.lmer(f"Reaction ~ Days + {formula}", sleep)
    s = sent(m.without_data())
    assert str(s) == str(m)
    rows = sleep.head(15)
    for options in ({}, {"re": None}, {"interval": "prediction"}):
        expected = m.predict(rows, **options).to_numpy()
        np.testing.assert_allclose(s.predict(rows, **options).to_numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.X,
        lambda s: s.y,
        lambda s: s.Z,
        lambda s: s.R,
        lambda s: s.V,
        lambda s: s.fitted,
        lambda s: s.resid(),
        lambda s: s.augment(),
        lambda s: s.leverage(),
        lambda s: s.variogram("Days"),
        lambda s: s.robust(),
        lambda s: s.coef_table(vcov="CR2"),
        lambda s: s.ranova(),
        lambda s: s.caic(),
        lambda s: s.simulate(),
        lambda s: s.bootstrap(10),
        lambda s: s.refit(np.zeros(180)),
        lambda s: s.update(reml=False),
        lambda s: s.getme("X"),
        lambda s: me.anova(s, s.update(". ~ . - Days")),
        lambda s: s.frame.data,
        lambda s: s.frame.terms[0].codes,
    ],
)
def test_without_data_says_what_it_lacks(use: Any) -> None:
    s = sent(fitted_model("sleepstudy").without_data())
    with pytest.raises(me.ModelError, match="This is a fit without its data"):
        use(s)


def test_without_data_can_be_fitted_to_data_again() -> None:
    m = fitted_model("sleepstudy_zerocorr")
    s = sent(m.without_data())
    again = s.update(data=me.load_dataset("sleepstudy"))
    pd.testing.assert_series_equal(again.fixef, m.fixef)
    assert not again.update(reml=False).reml
    data = me.load_dataset("sleepstudy")
    weighted = me.lmer(MODELS["sleepstudy"][0], data, weights=np.linspace(1.0, 2.0, 180))
    with pytest.raises(me.ModelError, match="weights were given as values for each row"):
        weighted.without_data().update(data=data)
    by_name = me.lmer(MODELS["sleepstudy"][0], data.assign(w=np.linspace(1, 2, 180)), weights="w")
    again = sent(by_name.without_data()).update(data=data.assign(w=np.linspace(1, 2, 180)))
    assert again.criterion == pytest.approx(by_name.criterion)


def test_without_data_the_size_does_not_grow_with_the_rows() -> None:
    rng = np.random.default_rng(2)

    def size(n: int) -> int:
        g = np.arange(n) % 20
        x = rng.normal(size=n)
        y = x + rng.normal(size=20)[g] + rng.normal(size=n)
        data = pd.DataFrame({"y": y, "x": x, "g": [f"g{i:02d}" for i in g], "w": x**2 + 1.0})
        m = me.lmer("y ~ poly(x, 2) + scale(x) + (1 | g)", data, weights=data["w"])
        return len(pickle.dumps(m.without_data()))

    assert size(20_000) < size(400) + 500


# --- stored by earlier versions --------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(STORED.glob("*.pkl.gz")), ids=lambda path: path.name)
def test_stored_fits_are_read(path: Path) -> None:
    stored = pickle.loads(gzip.decompress(path.read_bytes()))
    fresh = fitted_model(path.name.split("_")[0])
    assert stored.criterion == pytest.approx(fresh.criterion, rel=1e-10)
    pd.testing.assert_frame_equal(stored.coef_table("kr"), fresh.coef_table("kr"), rtol=1e-6)
    np.testing.assert_allclose(stored.theta, fresh.theta, rtol=1e-5)
    assert str(stored.summary()) == str(fresh.summary())
    for group, modes in fresh.ranef().items():
        np.testing.assert_allclose(stored.ranef()[group], modes, rtol=1e-5)
    if "without_data" not in path.name:
        np.testing.assert_allclose(stored.V.dense(), fresh.V.dense(), rtol=1e-5)
        assert stored.refit(stored.y).criterion == pytest.approx(fresh.criterion)


def test_numbers_of_a_stored_fit() -> None:
    path = STORED / "sleepstudy_without_data_format1.pkl.gz"
    stored = pickle.loads(gzip.decompress(path.read_bytes()))
    # As lme4 prints them.
    assert round(stored.criterion, 1) == 1743.6
    assert stored.fixef.round(3).tolist() == [251.405, 10.467]
    assert stored.se.round(3).tolist() == [6.825, 1.546]


def test_there_is_a_stored_fit_of_every_format() -> None:
    for number in range(1, FORMAT + 1):
        assert list(STORED.glob(f"*_format{number}.pkl.gz"))


def test_a_later_format_is_refused_in_a_sentence() -> None:
    state = fitted_model("dyestuff").__getstate__()
    empty = object.__new__(me.LinearMixedModel)
    with pytest.raises(me.ModelError, match=r"stored by mixedeffects 9\.9, in format 99"):
        empty.__setstate__({**state, "format": 99, "mixedeffects": "9.9"})
    for wrong in ({}, None, {"format": "1"}, {"format": 0}):
        with pytest.raises(me.ModelError, match="not a fit that mixedeffects has written"):
            empty.__setstate__(wrong)
