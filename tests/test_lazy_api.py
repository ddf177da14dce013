"""Every public name of a model whose rows stayed in a table: as in memory, or a way out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import mixedeffects as me
from lazy_tables import in_memory, rows, table_of
from mixedeffects.errors import ModelError

Ask = Callable[[me.LinearMixedModel], Any]

NAMES = Path(__file__).parent / "reference" / "public_names.txt"
CLASS = "mixedeffects.LinearMixedModel."
WAY_OUT = re.compile(r"rows stayed in the table.*rows='collect'", re.DOTALL)

#: Names that are asked for as they stand, with the same answer.
SAME = [
    "aic",
    "bic",
    "bse",
    "coef",
    "coef_table",
    "conf_int",
    "converged",
    "cov_params",
    "covariance_parameters",
    "criterion",
    "data_name",
    "df_resid",
    "fixef",
    "formula",
    "getme_names",
    "glance",
    "icc",
    "is_singular",
    "llf",
    "loglik",
    "n_parameters",
    "ngroups",
    "nobs",
    "params",
    "pvalues",
    "r2",
    "ranef",
    "ranova",
    "reml",
    "se",
    "sigma",
    "theta",
    "tidy",
    "to_dict",
    "tvalues",
    "vcov",
    "caic",
    "robust",
    "profile",
]
#: The same with arguments, or of what is in the answer.
SAME_ASKED: dict[str, Ask] = {
    "G": lambda m: m.G.sparse(),
    "confint": lambda m: m.confint("profile"),
    "contrast": lambda m: m.contrast({"two": {"x": 2.0}}),
    "effect_size": lambda m: m.effect_size({"two": {"x": 2.0}}).to_frame(),
    "influence": lambda m: m.influence("pupil").to_frame(),
    "kenward_roger": lambda m: m.kenward_roger.vcov,
    "loglik_at": lambda m: m.loglik_at(0.9 * m.theta),
    "optimum": lambda m: [m.optimum.converged, m.optimum.singular, m.optimum.certificate.holds],
    "predict": lambda m: m.predict(rows(30, seed=9), se=True),
    "satterthwaite": lambda m: m.coef_table(ddf="satterthwaite"),
    "summary": lambda m: m.summary(ddf="kenward-roger").coefficients,
    "update": lambda m: m.update(". ~ . - z").coef_table(),
    "varcorr": lambda m: m.varcorr.to_frame(),
    "wald": lambda m: m.wald("x = 0").to_frame(),
    "without_data": lambda m: m.without_data().coef_table(),
}
#: A table of the engine, or of the same distribution; compared elsewhere.
OTHERWISE = {"augment", "bootstrap", "dropped", "fit", "frame", "to_json"}
#: What needs an optional package, beside rows.
OPTIONAL = {"marginaleffects"}
#: What needs rows.
REFUSED: dict[str, Ask] = {
    "R": lambda m: m.R,
    "V": lambda m: m.V.dense(),
    "X": lambda m: m.X,
    "Z": lambda m: m.Z,
    "check": lambda m: m.check(),
    "fitted": lambda m: m.fitted,
    "fittedvalues": lambda m: m.fittedvalues,
    "leverage": lambda m: m.leverage(),
    "plot": lambda m: m.plot(),
    "r2_by_level": lambda m: m.r2_by_level(),
    "refit": lambda m: m.refit(np.zeros(m.nobs)),
    "resid": lambda m: m.resid(),
    "simulate": lambda m: m.simulate(),
    "standardize": lambda m: m.standardize(),
    "variogram": lambda m: m.variogram("week"),
    "y": lambda m: m.y,
}
#: Of the cells of factors and the means of covariates.
MEANS: dict[str, Ask] = {
    "anova": lambda m: m.anova(),
    "anova_effect_sizes": lambda m: m.anova_effect_sizes(),
    "describe": lambda m: str(m.describe()),
    "effects": lambda m: m.effects("arm").to_frame(),
    "emmeans": lambda m: m.emmeans("arm").to_frame(),
    "emtrends": lambda m: m.emtrends("arm", "x").to_frame(),
    "joint_tests": lambda m: m.joint_tests(),
}
#: Arguments that need single rows where the name itself does not.
REFUSED_ASKED: dict[str, Ask] = {
    "influence of rows": lambda m: m.influence(),
    "influence by values": lambda m: m.influence(np.zeros(m.nobs)),
    "intervals of predictions": lambda m: m.predict(interval="prediction"),
    "robust by values": lambda m: m.robust("CR1", cluster=np.zeros(m.nobs)),
    "cross-validation": lambda m: me.cross_validate(m, by="pupil"),
    "R's elements": lambda m: m.R.dense(),
}


@pytest.fixture(scope="module", params=["duckdb", "polars"])
def pair(request: pytest.FixtureRequest) -> tuple[me.LinearMixedModel, me.LinearMixedModel]:
    """A fit in a table and one in memory."""
    data, formula = rows(700), "y ~ x * arm + z + (x | pupil)"
    found = me.lmer(formula, table_of(request.param, data), weights="w", rows="push")
    return found, me.lmer(formula, data, weights="w")


def public_names() -> set[str]:
    """Of the class."""
    lines = NAMES.read_text().splitlines()
    own = [line.removeprefix(CLASS) for line in lines if line.startswith(CLASS)]
    return {re.split(r"[ (:]", line)[0] for line in own}


def test_every_public_name_is_asked_for() -> None:
    groups = (SAME, SAME_ASKED, OTHERWISE, OPTIONAL, REFUSED, MEANS, {"report", "getme"})
    asked = [name for group in groups for name in group]
    assert sorted(asked) == sorted(public_names())


def assert_same(found: Any, wanted: Any) -> None:
    """Equal, and numbers up to sums in another order."""
    if hasattr(wanted, "to_frame") and not isinstance(wanted, pd.Series):
        found, wanted = found.to_frame(), wanted.to_frame()
    if isinstance(wanted, Mapping):
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            assert_same(found[key], value)
    elif isinstance(wanted, pd.DataFrame):
        assert list(found) == list(wanted)
        for name in wanted:
            assert_same(found[name], wanted[name])
    elif isinstance(wanted, pd.Series):
        assert list(found.index) == list(wanted.index)
        assert_same(found.to_numpy(), wanted.to_numpy())
    elif scipy.sparse.issparse(wanted):
        assert_same(found.toarray(), wanted.toarray())
    elif isinstance(wanted, np.ndarray) and wanted.dtype.kind == "f":
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    elif isinstance(wanted, (list, tuple, np.ndarray)):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    elif isinstance(wanted, float):
        assert isinstance(found, float)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    else:
        assert found == wanted


def asked_for(model: me.LinearMixedModel, name: str) -> Any:
    """A property, or a method without arguments."""
    value = getattr(model, name)
    return value() if callable(value) else value


#: What a stored fit says of how it was found, which may differ by rounding.
SEARCH = ("evaluations", "optimum", "optimizer", "data", "rows", "certificate", "gradient")


@pytest.mark.parametrize("name", SAME)
def test_names_with_the_same_answer(
    name: str, pair: tuple[me.LinearMixedModel, me.LinearMixedModel]
) -> None:
    found, wanted = (asked_for(model, name) for model in pair)
    if name == "to_dict":
        found, wanted = (
            {key: value for key, value in one.items() if key not in SEARCH}
            for one in (found, wanted)
        )
    if name == "robust":
        found, wanted = found.vcov, wanted.vcov
    assert_same(found, wanted)


@pytest.mark.parametrize("name", SAME_ASKED)
def test_names_with_the_same_answer_to_arguments(
    name: str, pair: tuple[me.LinearMixedModel, me.LinearMixedModel]
) -> None:
    assert_same(*(SAME_ASKED[name](model) for model in pair))


@pytest.mark.parametrize("name", [*REFUSED, *REFUSED_ASKED])
def test_names_that_need_rows_say_so(
    name: str, pair: tuple[me.LinearMixedModel, me.LinearMixedModel]
) -> None:
    ask = (REFUSED | REFUSED_ASKED)[name]
    with pytest.raises(me.errors.MixedEffectsError) as refusal:
        ask(pair[0])
    assert re.search("stayed in (the|a) table|in memory", str(refusal.value))


@pytest.mark.parametrize("name", MEANS)
def test_means_are_those_of_rows_in_memory(
    name: str, pair: tuple[me.LinearMixedModel, me.LinearMixedModel]
) -> None:
    assert_same(*(MEANS[name](model) for model in pair))


def test_a_report_is_written_or_refused(
    tmp_path: Path, pair: tuple[me.LinearMixedModel, me.LinearMixedModel]
) -> None:
    try:
        path = pair[0].report(tmp_path / "report.html")
    except ModelError as error:
        assert WAY_OUT.search(str(error))
        return
    assert "y ~ x * arm" in path.read_text()


@pytest.mark.parametrize("name", me.lmer("y ~ x + (1 | pupil)", rows(100)).getme_names())
def test_components(name: str, pair: tuple[me.LinearMixedModel, me.LinearMixedModel]) -> None:
    try:
        found = pair[0].getme(name)
    except ModelError as error:
        assert WAY_OUT.search(str(error))
        return
    if not callable(found):
        assert_same(found, pair[1].getme(name))


def test_functions_of_fits(pair: tuple[me.LinearMixedModel, me.LinearMixedModel]) -> None:
    found, wanted = pair
    assert repr(me.etable(found)) == repr(me.etable(wanted))
    assert repr(me.cite(found)) == repr(me.cite(wanted))
    assert_same(me.pool([found, found]).coef_table(), me.pool([wanted, wanted]).coef_table())
    assert_same(me.compare(found).to_frame(), me.compare(wanted).to_frame())
    table = in_memory(found.augment()).sort_values("id")
    assert_same(table["_resid"].to_numpy(), wanted.resid().to_numpy())
