"""A fit as plain data and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mixedeffects as me
from mixedeffects.cli import main
from mixedeffects.storage import fit_document
from references import fitted_model

#: Keys that have always been there: none may go.
FROM_THE_START = {
    "formula",
    "reml",
    "nobs",
    "ngroups",
    "criterion",
    "loglik",
    "aic",
    "bic",
    "sigma",
    "theta",
    "singular",
    "converged",
    "evaluations",
    "coefficients",
    "varcorr",
    "rows_dropped",
    "columns_dropped",
}


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize(
    "name", ["sleepstudy", "sleepstudy_ml", "threelevel", "dyestuff2", "penicillin", "cake"]
)
def test_numbers_come_back_in_full_precision(name: str) -> None:
    m = fitted_model(name)
    d = json.loads(m.to_json(ranef=True), parse_constant=refuse)
    assert d == m.to_dict(ranef=True)
    assert set(d) >= FROM_THE_START
    assert d["schema"] == "mixedeffects.fit"
    assert d["schema_version"] == fit_document.SCHEMA_VERSION
    assert d["mixedeffects"] == me.__version__
    assert (d["formula"], d["reml"], d["nobs"]) == (m.formula, m.reml, m.nobs)
    assert d["ngroups"] == m.ngroups
    for key in ("criterion", "loglik", "aic", "bic", "sigma", "n_parameters"):
        assert d[key] == getattr(m, key), key
    assert d["df_residual"] == m.df_resid
    assert d["theta"] == m.theta.tolist()
    assert len(d["theta_names"]) == len(d["theta"])
    table = m.coef_table()
    assert list(d["coefficients"]) == list(m.fixef.index)
    for coefficient, row in d["coefficients"].items():
        assert row == table.loc[coefficient].to_dict()
    np.testing.assert_array_equal(d["vcov"], m.vcov())
    for term in d["random_effects"]:
        label = term["term"]
        np.testing.assert_array_equal(d["varcorr"][label], m.varcorr[label])
        assert term["sd"] == m.varcorr.sd(label).tolist()
        assert term["levels"] == m.ngroups[term["group"]]
    certificate = d["optimum"]["certificate"]
    assert certificate["holds"] == m.optimum.certificate.holds
    assert certificate["null_score"] == m.optimum.null_score
    for group, modes in m.ranef().items():
        assert d["ranef"][group]["values"] == modes.to_numpy().tolist()
        assert d["ranef"][group]["levels"] == list(modes.index)


def test_what_is_not_finite_is_null() -> None:
    d = fitted_model("sleepstudy").to_dict(ddf="inf")
    assert d["coefficients"]["Days"]["df"] is None
    sleep = me.load_dataset("sleepstudy")
    sleep["flat"] = np.tile([0.0, 1.0], 90)
    m = me.lmer("Reaction ~ Days + (1 + flat | Subject)", sleep)
    assert m.is_singular
    text = m.to_json()
    d = json.loads(text, parse_constant=refuse)
    (term,) = d["random_effects"]
    expected = m.varcorr.corr("Subject").to_numpy()
    found = np.array(term["correlation"], dtype=float)
    np.testing.assert_array_equal(found, expected)


def test_other_variances_and_degrees_of_freedom() -> None:
    m = fitted_model("threelevel")
    kr = m.to_dict("kr")
    assert kr["coefficients"]["x1"]["df"] == m.coef_table("kr").loc["x1", "df"]
    np.testing.assert_array_equal(kr["vcov"], m.vcov("kr"))
    assert "Kenward-Roger" in kr["tests"]
    robust = m.to_dict(vcov="CR2", cluster="sch.cl")
    np.testing.assert_array_equal(robust["vcov"], m.vcov("CR2", "sch.cl"))
    assert "CR2" in robust["tests"]
    with pytest.raises(me.ModelError, match="ddf 'exact' is not known"):
        m.to_dict("exact")
    with pytest.raises(me.ModelError, match="ranef must be True or False"):
        m.to_dict(ranef="yes")


def test_dropped_rows_and_columns_are_counted() -> None:
    sleep = me.load_dataset("sleepstudy")
    sleep["Days"] = sleep["Days"].astype(float)
    sleep.loc[[1, 5], "Days"] = np.nan
    d = me.lmer("Reaction ~ Days + I(2 * Days) + (1 | Subject)", sleep).to_dict()
    assert d["dropped"]["rows"] == d["rows_dropped"] == 2
    assert d["dropped"]["columns"] == d["columns_dropped"] == ["I(2 * Days)"]
    assert d["dropped"]["missing_by_column"] == {"Days": 2}


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = fitted_model("dyestuff")
    path = tmp_path / "fit.json"
    assert m.to_json(path) is None
    assert json.loads(path.read_text(encoding="utf-8")) == m.to_dict()
    before = path.read_bytes()

    def half(self: Path, text: str, encoding: str) -> int:
        with self.open("w", encoding=encoding) as file:
            file.write(text[: len(text) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space left"):
        m.to_json(path, ranef=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["fit.json"]
    with pytest.raises(me.DataError, match="There is no folder"):
        m.to_json(tmp_path / "none" / "fit.json")


def test_the_command_line_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    formula = "Reaction ~ Days + (Days | Subject)"
    assert main(["fit", "sleepstudy", formula, "--json", "--ddf", "kr"]) == 0
    printed = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed == fitted_model("sleepstudy").to_dict("kr")
    assert (
        main(["fit", "threelevel", "y ~ x1 + (1 | sch.cl/tch.cl)", "--json", "--robust", "CR2"])
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    robust = fitted_model("threelevel").robust("CR2")
    assert printed["robust"]["vcov"] == robust.vcov.to_numpy().tolist()
    assert printed["robust"]["kind"] == "CR2"


def test_every_key_is_documented() -> None:
    d = fitted_model("sleepstudy").to_dict(ranef=True)
    missing = [key for key in d if key not in str(fit_document.__doc__)]
    assert not missing
