"""Fits with residual structures without their data: the same answers, or a sentence."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from test_residual_after_fit import CASES, DATA, NEW, _known, fitted


def _mmrm() -> me.LinearMixedModel:
    formula = "FEV1 ~ RACE + ARMCD * AVISIT + us(AVISIT | USUBJID)"
    return me.mmrm(formula, me.load_dataset("fev"))


def _het() -> me.LinearMixedModel:
    return me.lmer("y ~ x", DATA[DATA["t"] < 4], residual="ar1(t | g, hom = FALSE)")


def _model(name: str) -> me.LinearMixedModel:
    made = {"known": lambda: _known()[0], "mmrm": _mmrm, "heterogeneous": _het}
    return made[name]() if name in made else fitted(name)


NAMES = [*CASES, "known", "mmrm", "heterogeneous"]


def _sent(m: me.LinearMixedModel) -> me.LinearMixedModel:
    return pickle.loads(pickle.dumps(m.without_data()))


def _same(one: Any, other: Any) -> None:
    if isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other, rtol=1e-10)
    else:
        pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other), rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_what_needs_no_rows_is_answered(name: str) -> None:
    m = _model(name)
    s = _sent(m)
    assert str(s) == str(m) and str(s.summary()) == str(m.summary())
    assert (s.criterion, s.aic, s.nobs, s.ngroups) == (m.criterion, m.aic, m.nobs, m.ngroups)
    assert str(s.optimum.certificate) == str(m.optimum.certificate)
    for table in (
        lambda m: m.coef_table(),
        lambda m: m.coef_table(ddf="satterthwaite"),
        lambda m: m.anova(),
        lambda m: m.vcov(),
        lambda m: m.covariance_parameters,
        lambda m: m.varcorr.to_frame(),
        lambda m: m.tidy(),
        lambda m: m.glance(),
        lambda m: m.confint(method="wald"),
    ):
        _same(table(s), table(m))
    assert str(s.varcorr) == str(m.varcorr)
    assert s.to_json() == m.to_json()
    assert s.without_data() is s
    assert str(me.etable([s])) == str(me.etable([m]))
    if m.frame.terms:
        _same(s.ranef(cond_var=True).to_frame(), m.ranef(cond_var=True).to_frame())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("known", "mmrm")])
def test_predictions_for_new_rows(name: str) -> None:
    m = _model(name)
    s = _sent(m)
    weights = {"weights": "w"} if CASES.get(name, ("", {}))[1].get("weights") else {}
    for options in (
        {"new_levels": "population"},
        {"re": None, "interval": "confidence"},
        {"re": None, "interval": "prediction", **weights},
    ):
        _same(s.predict(NEW, **options), m.predict(NEW, **options))


@pytest.mark.parametrize("name", ["ar1 alone", "us", "crossed, ar1", "slopes, variances"])
def test_size_does_not_grow_with_the_rows(name: str) -> None:
    formula, options = CASES[name]
    data = options.get("data", DATA)
    options = {key: value for key, value in options.items() if key != "data"}
    sizes = []
    for copies in (1, 6):
        more = pd.concat(
            [data.assign(g=data["g"] + f"_{k}") if k else data for k in range(copies)],
            ignore_index=True,
        )
        more["y"] += 0.1 * np.random.default_rng(copies).standard_normal(len(more))
        s = me.lmer(formula, more, **options).without_data()
        levels = sum(len(own) for own in (s.frame.residual.levels,)) if s.frame.residual else 0
        levels += sum(term.n_levels * (1 + term.n_columns**2) for term in s.frame.terms)
        sizes.append((len(pickle.dumps(s)), levels))
    (small, few), (large, many) = sizes
    # What grows are levels with their labels.
    assert large - small < 250 * (many - few)


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m.V,
        lambda m: m.R,
        lambda m: m.resid(),
        lambda m: m.predict(NEW, residual=True, new_levels="population"),
        lambda m: m.influence(),
        lambda m: m.simulate(1),
        lambda m: m.bootstrap(2),
        lambda m: m.caic(),
        lambda m: m.coef_table(ddf="kr"),
        lambda m: m.check(),
        lambda m: m.ranova(),
        lambda m: me.power(m, "x", draws=2),
    ],
)
def test_what_needs_rows_says_so(use: Any) -> None:
    s = _sent(fitted("intercepts, ar1"))
    with pytest.raises(me.ModelError, match=r"without its data: without_data\(\) left out"):
        use(s)


def test_fitted_to_data_again() -> None:
    m = fitted("intercepts, ar1")
    again = _sent(m).update(data=DATA)
    assert again.criterion == pytest.approx(m.criterion, abs=1e-7)
    known, _, data = _known()
    with pytest.raises(me.ModelError, match="covariance matrix of the residuals"):
        _sent(known).update(data=data)
    assert _sent(known).update(data=data, residual=None, sigma=1.0).nobs == len(data)
