"""Sentences for a paper: every number is the fit's; citations; code that fits the model again."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.reporting.reproduction import code_to_reproduce
from references import fitted_model


@pytest.fixture(scope="module")
def sleep() -> me.LinearMixedModel:
    return fitted_model("sleepstudy")


def test_numbers_are_the_fits(sleep: me.LinearMixedModel) -> None:
    text = str(sleep.describe())
    row = sleep.coef_table().loc["Days"]
    assert f"b = {row['Estimate']:.2f}, SE = {row['Std. Error']:.2f}" in text
    assert f"95% CI [{row['lower']:.2f}, {row['upper']:.2f}]" in text
    assert f"t({row['df']:.1f}) = {row['t value']:.2f}, p < .001" in text
    assert "180 observations in 18 levels of Subject" in text
    assert f"residual standard deviation was {sleep.sigma:.2f}" in text
    sd = np.sqrt(np.diag(sleep.G["Subject"]))
    assert f"intercepts (SD = {sd[0]:.2f}) and effects of Days (SD = {sd[1]:.2f})" in text
    assert f"accounted for {sleep.r2().marginal:.2f}".replace("0.", ".") in text
    assert "restricted maximum likelihood" in text
    assert "maximum likelihood to" in str(fitted_model("sleepstudy_ml").describe())


def test_options(sleep: me.LinearMixedModel) -> None:
    row = sleep.coef_table(ddf="kr", level=0.8).loc["Days"]
    text = str(sleep.describe(ddf="kr", level=0.8, digits=4))
    assert f"80% CI [{row['lower']:.4f}, {row['upper']:.4f}]" in text
    assert "Kenward-Roger's method" in text
    assert "z = " in str(sleep.describe(ddf="inf"))
    robust = str(sleep.describe(vcov="CR2", cluster="Subject"))
    assert "CR2 standard errors" in robust
    for wrong in ({"level": 95}, {"digits": 0}, {"digits": 2.5}, {"digits": 40}, {"ddf": "x"}):
        with pytest.raises(me.ModelError):
            sleep.describe(**wrong)


def test_terms_with_several_coefficients_have_their_joint_test() -> None:
    m = fitted_model("cake")
    text, table = str(m.describe()), m.anova()
    for term in table.index:
        row = table.loc[term]
        assert f"{term}: F({row['NumDF']:.0f}, {row['DenDF']:.1f}) = {row['F value']:.2f}" in text
    assert "recipeB" not in text and "m.coef_table()" in text


def test_planned_comparisons_are_told_one_by_one() -> None:
    cake = me.load_dataset("cake")
    for formula, contrasts in (
        ("angle ~ recipe + temp + (1 | recipe:replicate)", {"recipe": "sdif"}),
        ("angle ~ C(recipe, contr.sdif) + temp + (1 | recipe:replicate)", None),
    ):
        m = me.lmer(formula, cake, contrasts=contrasts)
        text, table = str(m.describe()), m.coef_table()
        assert "(type III)" in text and "terms with several" not in text
        for name in table.index[1:]:
            assert f"{name}: b = " in text
    partly = me.lmer(
        "angle ~ recipe * temperature + (1 | recipe:replicate)", cake, contrasts={"recipe": "sum"}
    )
    text = str(partly.describe())
    assert "recipe1: b = " in text and "terms with several" in text
    assert " temperature.L: b" not in text


def test_what_to_know_is_said() -> None:
    data = me.load_dataset("sleepstudy")
    data.loc[[3, 5], "Days"] = np.nan
    data["same"] = 2.0 * data["Days"]
    text = str(me.lmer("Reaction ~ Days + same + (1 | Subject)", data).describe())
    assert "Of 180 rows 2 were left out because values were missing" in text
    assert "linear combinations of other columns: same" in text
    singular = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff2"))
    assert "The fit is singular" in str(singular.describe())
    assert "no fixed effects" in str(me.lmer("Reaction ~ 0 + (1 | Subject)", data).describe())


def test_structured_terms_list_their_parameters() -> None:
    m = me.lmer("Reaction ~ Days + cs(Days | Subject)", me.load_dataset("sleepstudy"))
    text = str(m.describe())
    for name in m.covariance_parameters.index:
        assert name in text


def test_small_numbers_keep_two_digits_and_signs_are_minuses() -> None:
    data = me.load_dataset("sleepstudy").assign(Days=lambda d: -d["Days"] * 1e4)
    text = str(me.lmer("Reaction ~ Days + (1 | Subject)", data).describe())
    assert re.search(r"b = −0\.0010\d+, SE = 0\.0000\d\d,", text)


def test_markup(sleep: me.LinearMixedModel) -> None:
    description = sleep.describe()
    assert "‹" not in str(description) + description.to_markdown() + description.to_html()
    assert "*b* = 10.47, *SE* = 1.55" in description.to_markdown()
    assert r"(Days \| Subject)" in description.to_markdown()
    assert "<i>p</i> &lt; .001" in description.to_html()
    assert "<i>b</i>" in description._repr_html_()
    odd = me.load_dataset("sleepstudy").rename(columns={"Days": "<b>d*_</b>"})
    m = me.lmer("Reaction ~ `<b>d*_</b>` + (1 | Subject)", odd)
    assert "<b>" not in m.describe().to_html()
    assert r"d\*\_" in m.describe().to_markdown()


def test_citations(sleep: me.LinearMixedModel) -> None:
    assert me.__version__ in str(me.cite())
    assert me.cite(sleep).works == ("lme4", "reml", "satterthwaite", "r2")
    assert me.cite(sleep, vcov="CR2").works == ("lme4", "reml", "robust", "r2")
    assert me.cite(fitted_model("sleepstudy_ml"), ddf="inf").works == ("lme4", "r2")
    entries = me.cite(sleep, ddf="kr").to_bibtex()
    assert entries.count("@article{") == 4
    assert entries.count("{") == entries.count("}")
    with pytest.raises(me.ModelError, match="must be a fitted model"):
        me.cite("sleepstudy")


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("Reaction ~ Days + (Days | Subject)", {}),
        ("Reaction ~ Days + (1 | Subject)", {"reml": False, "weights": "w"}),
        ("Reaction ~ half + (1 | Subject)", {"contrasts": {"half": "sum"}}),
    ],
)
def test_the_code_fits_the_model_again(formula: str, options: dict[str, Any]) -> None:
    data = me.load_dataset("sleepstudy")
    data["w"] = 1.0 + data["Days"] % 2
    data["half"] = (data["Days"] > 4).map({True: "late", False: "early"})
    m = me.lmer(formula, data, **options)
    names: dict[str, Any] = {str(m.data_name): data}
    exec(code_to_reproduce(m.fit, "residual", "model", None), names)
    assert names["m"].criterion == m.criterion
    assert list(names["m"].fixef.index) == list(m.fixef.index)


def test_values_without_a_name_stand_in_capitals() -> None:
    data = me.load_dataset("sleepstudy")
    m = me.lmer("Reaction ~ Days + (1 | Subject)", data, weights=np.ones(180))
    code = code_to_reproduce(m.fit, "satterthwaite", "CR2", pd.Series(range(180)))
    assert "weights=VALUES" in code and "cluster=CLUSTERS" in code and "vcov='CR2'" in code


def test_the_report_has_what_reproduces_it(sleep: me.LinearMixedModel, tmp_path: Path) -> None:
    path = sleep.report(tmp_path / "report.html", ddf="kr")
    text = unescape(path.read_text(encoding="utf-8"))
    assert "180 rows, 3 columns" in text
    assert "import mixedeffects as me" in text and "m.coef_table(ddf='kr')" in text
    assert "Kenward, M. G. and Roger, J. H." in text
    assert "<i>b</i> = 10.47" in text
    assert f"mixedeffects {me.__version__}, Python 3." in text and "scipy" in text
    assert path.stat().st_size < 1_500_000
