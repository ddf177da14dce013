"""Mixed models for repeated measures: mmrm's formula, SAS's figures, and the tables' defaults."""

from __future__ import annotations

import copy
import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.formula.mmrm import MMRM_STRUCTURES, split_mmrm

SAS = json.loads(
    (Path(__file__).parent / "reference" / "residual" / "sas_fev.json").read_text("utf-8")
)
EXAMPLE = SAS["mmrm_example"]
FORMULA = "FEV1 ~ RACE + SEX + ARMCD * AVISIT + us(AVISIT | USUBJID)"


@cache
def fev() -> pd.DataFrame:
    return me.load_dataset("fev")


@cache
def m() -> me.LinearMixedModel:
    return me.mmrm(FORMULA, fev())


#: What SAS's stop, 1e-5 above the optimum, does to its figures.
SHORT = 4e-4


def printed(found: Any, shown: Any) -> bool:
    """Whether estimate, standard error and df, or df and F, round to those printed."""
    found = np.asarray(found, dtype=float)
    half = [0.0 if x == int(x) else 0.5 * 10.0 ** -len(repr(x).partition(".")[2]) for x in shown]
    half = [0.5 if 5.0 < x == int(x) else h for x, h in zip(shown, half, strict=True)]
    sizes = np.abs(shown)
    sizes[0] = max(sizes[0], sizes[1])  # an estimate near 0 is known to its standard error
    return bool(np.all(np.abs(found - shown) <= np.asarray(half) + SHORT * sizes))


# --- the formula ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "formula", "residual"),
    [
        ("y ~ x + us(v | id)", "y ~ x", "us(v | id)"),
        ("y~x*v+csh(v|arm/id)", "y~x*v", "cs(v | id, hom = FALSE, by = arm)"),
        ("y ~ us(v | id) + x", "y ~ x", "us(v | id)"),
        ("y ~ us(v | id) - 1 + x", "y ~ - 1 + x", "us(v | id)"),
        ("y ~ x + ar1h(v | id) - 1", "y ~ x - 1", "ar1(v | id, hom = FALSE)"),
        ("y ~ us(v | id)", "y ~ 1", "us(v | id)"),
        ("y ~ x + ad(v | `odd id`)", "y ~ x", "ante(v | `odd id`)"),
        ("y ~ x + adh(v | id)", "y ~ x", "ante(v | id, hom = FALSE)"),
        ("y ~ x + toep(v | id)", "y ~ x", "toep(v | id)"),
        ("y ~ x + toeph(v | id)", "y ~ x", "toep(v | id, hom = FALSE)"),
        ("y ~ x + sp_exp(a, b | arm / id)", "y ~ x", "exp(a + b | id, by = arm)"),
        ("y ~ x + offset(log(z)) + cs(v | id)", "y ~ x + offset(log(z))", "cs(v | id)"),
    ],
)
def test_formula_is_taken_apart(given: str, formula: str, residual: str) -> None:
    assert split_mmrm(given) == (formula, residual)


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("y ~ x", "needs the covariance structure of the visits as a term"),
        ("y ~ x + us(v | id) + cs(v | id)", "takes one covariance structure"),
        ("y ~ x + us(v | id) + (1 | id)", "has no random effects"),
        ("y ~ x + (1 | id)", "has no random effects"),
        ("y ~ x + car1(v | id)", "`car1` is not a structure of `mmrm`"),
        ("y ~ x * us(v | id)", "a term by itself"),
        ("y ~ x - us(v | id)", "a term by itself"),
        ("y ~ x + us(v)", r"separated by a bar: `us\(visit \| id\)`"),
        ("y ~ x + us(a, b | id)", "separated by a bar"),
        ("y ~ x + us(v || id)", "separated by a bar"),
        ("y ~ x + us(v | id, hom = TRUE)", "separated by a bar"),
        ("x", "needs a response"),
    ],
)
def test_what_is_no_formula_of_mmrm(formula: str, said: str) -> None:
    with pytest.raises(me.FormulaError, match=said):
        me.mmrm(formula, fev())


@pytest.mark.parametrize("structure", [name for name in MMRM_STRUCTURES if name != "sp_exp"])
def test_structures_are_those_of_lmer(structure: str) -> None:
    text = f"FEV1 ~ ARMCD + {structure}(AVISIT | USUBJID)"
    formula, residual = split_mmrm(text)
    there = me.lmer(formula, fev(), residual=residual)
    assert me.mmrm(text, fev()).criterion == there.criterion


# --- SAS's figures --------------------------------------------------------------------------------


def test_criterion_and_covariance() -> None:
    assert m().criterion == pytest.approx(EXAMPLE["minus2"], abs=2e-5)
    # SAS had the first visit last.
    order = ["VIS2", "VIS3", "VIS4", "VIS1"]
    found = m().R.covariance.loc[order, order].to_numpy()
    for name, shown in EXAMPLE["R"].items():
        i, j = map(int, name[3:-1].split(","))
        size = np.sqrt(found[i - 1, i - 1] * found[j - 1, j - 1])
        assert found[i - 1, j - 1] == pytest.approx(shown, abs=SHORT * size)


def test_coefficients() -> None:
    table = m().coef_table(ddf="satterthwaite")[["Estimate", "Std. Error", "df"]]
    for name, shown in EXAMPLE["fixef"].items():
        row = table.loc["(Intercept)" if name == "Intercept" else name]
        assert printed(row, shown), name


def test_means_by_visit() -> None:
    means = m().emmeans("ARMCD", by="AVISIT", ddf="satterthwaite")
    table = means.to_frame().set_index(["AVISIT", "ARMCD"])[["estimate", "std_error", "df"]]
    for name, shown in EXAMPLE["lsmeans"].items():
        assert printed(table.loc[tuple(name.split())], shown), name
    differences = means.contrasts("revpairwise", adjust="none").to_frame().set_index("AVISIT")
    for visit, shown in EXAMPLE["differences_TRT_minus_PBO"].items():
        row = differences.loc[visit, ["estimate", "std_error", "df"]]
        assert printed(row, shown), visit


def test_type_3() -> None:
    table = m().anova(ddf="satterthwaite")
    for name, shown in EXAMPLE["type3"].items():
        term = "ARMCD:AVISIT" if name == "AVISIT*ARMCD" else name
        assert printed(table.loc[term, ["NumDF", "DenDF", "F value"]], shown), name


@pytest.mark.parametrize("structure", SAS["kenward_roger_of_ARMCD"]["values"])
def test_kenward_roger(structure: str) -> None:
    _, first_order, df = SAS["kenward_roger_of_ARMCD"]["values"][structure]
    if structure.startswith("sp_gau"):
        fit = me.lmer("FEV1 ~ ARMCD", fev(), residual="gau(VISITN + VISITN2 | USUBJID)")
        row = fit.coef_table(ddf="kr-observed").loc["ARMCDTRT"]
    else:
        term = "sp_exp(VISITN, VISITN2" if structure.startswith("sp") else f"{structure}(AVISIT"
        row = me.mmrm(f"FEV1 ~ ARMCD + {term} | USUBJID)", fev()).coef_table().loc["ARMCDTRT"]
    assert row["Std. Error"] == pytest.approx(first_order, rel=SHORT)
    assert row["df"] == pytest.approx(df, rel=SHORT)


# --- the tables' method ---------------------------------------------------------------------------


def test_tables_are_kenward_rogers() -> None:
    fit, named = m(), {"ddf": "kr-observed"}
    method = "t-tests use Kenward-Roger's method with the observed information"
    for shown in (str(fit.summary()), str(fit)):
        assert method in " ".join(shown.split())
    assert fit.coef_table().equals(fit.coef_table(**named))
    assert not fit.coef_table().equals(fit.coef_table(ddf="satterthwaite"))
    assert fit.anova().equals(fit.anova(**named))
    assert fit.joint_tests().equals(fit.joint_tests(**named))
    assert fit.tidy("fixed").equals(fit.tidy("fixed", **named))
    assert fit.emmeans("ARMCD").to_frame().equals(fit.emmeans("ARMCD", **named).to_frame())
    assert fit.contrast("ARMCDTRT").equals(fit.contrast("ARMCDTRT", **named))
    assert fit.wald("ARMCD").p == fit.wald("ARMCD", **named).p
    chosen = ["ARMCDTRT"]
    given = fit.confint("wald", chosen, **named)
    assert fit.confint("wald", chosen).equals(given)


def test_functions_of_fits_take_their_method() -> None:
    def last(table: Any) -> str:
        return " ".join(str(table).split())

    there = me.lmer("FEV1 ~ ARMCD", fev(), residual="us(AVISIT | USUBJID)")
    for fits in (m(), [m(), m()], {"primary": m()}):
        assert "with the observed information" in last(me.etable(fits))
    for fits in ([m(), there], there):
        assert "Satterthwaite's method" in last(me.etable(fits))
    assert "Satterthwaite's method" in last(me.etable(m(), ddf="satterthwaite"))
    assert "kr" in me.cite(m()).works and "satterthwaite" not in me.cite(m()).works
    rows = fev().head(4)
    se = m().predict(rows, se=True)["std_error"]
    named = m().predict(rows, se=True, ddf="kr-observed")["std_error"]
    assert se.equals(named)
    assert not se.equals(m().predict(rows, se=True, ddf="satterthwaite")["std_error"])


def test_a_method_that_is_named_is_taken() -> None:
    there = me.lmer("FEV1 ~ RACE + SEX + ARMCD * AVISIT", fev(), residual="us(AVISIT | USUBJID)")
    assert there.coef_table().equals(m().coef_table(ddf="satterthwaite"))
    assert there.coef_table("satterthwaite").equals(m().coef_table("satterthwaite"))
    assert m().coef_table(vcov="kr").equals(there.coef_table(ddf="kr"))
    robust = {"vcov": "CR2", "cluster": "USUBJID"}
    assert there.coef_table(**robust).equals(m().coef_table(**robust))


def test_the_method_stays_with_the_fit() -> None:
    for fit in (
        pickle.loads(pickle.dumps(m())),
        copy.deepcopy(m()),
        m().update(control=me.Control()),
    ):
        assert fit.coef_table().equals(m().coef_table())


def test_missing_responses_are_counted() -> None:
    assert m().nobs == 537
    assert len(m().dropped.rows) == 263
    assert "263 rows removed for missing values (FEV1 263)" in str(m())


def test_weights_and_maximum_likelihood() -> None:
    fit = me.mmrm(FORMULA, fev(), weights="WEIGHT", reml=False)
    there = me.lmer(
        "FEV1 ~ RACE + SEX + ARMCD * AVISIT",
        fev(),
        residual="us(AVISIT | USUBJID)",
        weights="WEIGHT",
        reml=False,
    )
    assert fit.criterion == there.criterion
    assert not fit.reml and np.isfinite(fit.criterion)


def test_other_intervals_of_a_fit_with_a_method_for_df_of_its_own() -> None:
    """Its own method for degrees of freedom is none that was asked for."""
    fev = me.load_dataset("fev")
    m = me.mmrm("FEV1 ~ ARMCD + ar1(AVISIT | USUBJID)", fev)
    table = m.confint("profile", "cor|Residual")
    low, high = table.loc["cor|Residual"]
    assert low < m.covariance_parameters["cor|Residual"] < high
    assert np.isfinite(m.confint("boot", n=3, seed=1).to_numpy()).all()
    with pytest.raises(me.ModelError, match="ddf= is for method 'wald'"):
        m.confint("profile", ddf="kr")
