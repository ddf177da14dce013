"""Generalized fits as plain data, as pickles, and without their data."""

from __future__ import annotations

import functools
import gzip
import json
import pickle
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from generalized_references import MODELS, model_data
from mixedeffects.storage.fit_document import SCHEMA_VERSION
from mixedeffects.storage.pickling import FORMAT

STORED = Path(__file__).parent / "reference" / "pickles"
NAMES = ["cbpp", "toenail", "salamander", "owls_nb", "beta_slope", "cake_gamma"]
needs_their_pandas = pytest.mark.skipif(
    int(pd.__version__.split(".")[0]) < 3,
    reason="stored with pandas 3, whose strings earlier ones cannot read",
)


@functools.cache
def fitted(name: str) -> me.GeneralizedLinearMixedModel:
    model = MODELS[name]
    family: Any = {"binomial": me.families.Binomial, "gamma": me.families.Gamma}.get(model.family)
    return me.glmer(
        model.formula,
        model_data(name),
        family=model.family if family is None else family(model.link),
        weights=model.weights,
    )


@functools.cache
def slim(name: str) -> me.GeneralizedLinearMixedModel:
    return pickle.loads(pickle.dumps(fitted(name).without_data()))  # type: ignore[no-any-return]


# --- plain data ------------------------------------------------------------------------------


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("name", NAMES)
def test_numbers_come_back_in_full_precision(name: str) -> None:
    m = fitted(name)
    d = json.loads(str(m.to_json(ranef=True)), parse_constant=refuse)
    assert d == m.to_dict(ranef=True)
    assert (d["schema"], d["kind"], d["reml"]) == ("mixedeffects.fit", "generalized", False)
    for key in ("criterion", "loglik", "aic", "bic", "sigma", "n_parameters"):
        assert d[key] == getattr(m, key), key
    assert d["theta"] == m.theta.tolist() and len(d["theta_names"]) == len(d["theta"])
    table = m.coef_table()
    for coefficient, row in d["coefficients"].items():
        assert row == table.loc[coefficient].to_dict()
    np.testing.assert_array_equal(d["vcov"], m.vcov())
    for label in m.varcorr:
        np.testing.assert_array_equal(d["varcorr"][label], m.varcorr[label])
    for group, modes in m.ranef().items():
        assert d["ranef"][group]["values"] == modes.to_numpy().tolist()
    family = d["family"]
    assert (family["name"], family["link"]) == (m.family.name, m.family.link.name)
    assert family["value"] == m.fit.phi and family["estimated"] is m.family.has_parameter  # type: ignore[attr-defined]
    assert family["nagq"] == 1
    one_factor = len(m.ngroups) == 1
    assert family["shift"] == (m.laplace_check().shift if one_factor else None)


def test_of_what_the_response_was() -> None:
    cbpp = fitted("cbpp").to_dict()["family"]
    assert (cbpp["trials"], cbpp["weights"], cbpp["levels"]) == ("size", None, None)
    data = me.load_dataset("cbpp").assign(ill=lambda d: np.where(d["incidence"] > 1, "ill", "well"))
    data["ill"] = pd.Categorical(data["ill"], ["well", "ill"])
    m = me.glmer("ill ~ 1 + (1 | herd)", data, family="binomial", nagq=5)
    d = m.to_dict()["family"]
    assert d["levels"] == ["well", "ill"] and (d["trials"], d["nagq"]) == (None, 5)
    assert d["shift"] == m.optimum.quadrature_check.shift  # type: ignore[attr-defined]
    counts = me.glmer(
        "incidence ~ period + (1 | herd)",
        data,
        family=me.families.NegativeBinomial(theta=3.0),
        exposure="size",
    )
    d = counts.to_dict()["family"]
    assert (d["parameter"], d["value"], d["estimated"]) == ("theta", 3.0, False)
    assert d["exposure"] == "size"


def test_a_linear_model_says_so_too() -> None:
    d = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff")).to_dict()
    assert d["kind"] == "linear" and d["family"] is None


def test_json_to_a_file(tmp_path: Path) -> None:
    m = fitted("cbpp")
    assert m.to_json(tmp_path / "fit.json", vcov="CR1") is None
    d = json.loads((tmp_path / "fit.json").read_text(encoding="utf-8"))
    assert d == m.to_dict("CR1")
    np.testing.assert_array_equal(d["vcov"], m.vcov("CR1"))
    with pytest.raises(me.ModelError, match="ddf"):
        m.to_json(ddf="kr")


# --- without the data ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_without_data_keeps_what_needs_no_rows(name: str) -> None:
    m, s = fitted(name), slim(name)
    assert str(s) == str(m) and str(s.summary()) == str(m.summary())
    assert repr(s.optimum) == repr(m.optimum) and str(s.family) == str(m.family)
    assert (s.formula, s.nobs, s.ngroups) == (m.formula, m.nobs, m.ngroups)
    assert (s.criterion, s.aic, s.bic, s.sigma) == (m.criterion, m.aic, m.bic, m.sigma)
    assert s.optimum.certificate.holds
    for kind in ("model", "conditional"):
        pd.testing.assert_frame_equal(s.vcov(kind), m.vcov(kind), rtol=1e-10)
    for number in (1, 2, 3):
        pd.testing.assert_frame_equal(s.anova(number), m.anova(number), rtol=1e-9)
    pd.testing.assert_frame_equal(s.varcorr.to_frame(), m.varcorr.to_frame())
    pd.testing.assert_frame_equal(
        s.ranef(cond_var=True).to_frame(), m.ranef(cond_var=True).to_frame(), rtol=1e-9
    )
    every = ("fixed", "ran_pars", "ran_vals")
    pd.testing.assert_frame_equal(s.tidy(every), m.tidy(every), rtol=1e-9)
    pd.testing.assert_frame_equal(s.glance(), m.glance())
    assert s.to_json(ranef=True) == m.to_json(ranef=True)
    rows = model_data(name).head(7)
    for scale in ("response", "link"):
        np.testing.assert_allclose(
            s.predict(rows, type=scale).to_numpy(), m.predict(rows, type=scale).to_numpy()
        )
    again = s.update(data=model_data(name))
    assert again.criterion == pytest.approx(m.criterion, abs=1e-6)
    assert s.without_data() is s


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.X,
        lambda s: s.y,
        lambda s: s.Z,
        lambda s: s.R,
        lambda s: s.V,
        lambda s: s.working,
        lambda s: s.fitted,
        lambda s: s.resid(),
        lambda s: s.augment(),
        lambda s: s.predict(),
        lambda s: s.robust(),
        lambda s: s.coef_table(vcov="CR1"),
        lambda s: s.simulate(),
        lambda s: s.refit(np.zeros(56)),
        lambda s: s.update("~ . - period"),
        lambda s: s.loglik_at(s.theta),
        lambda s: s.getme("X"),
        lambda s: s.fit.response,
        lambda s: s.fit.evaluation.h,
        lambda s: s.fit.evaluation.design.X,
        lambda s: s.frame.terms[0].codes,
    ],
)
def test_without_data_says_what_it_lacks(use: Any) -> None:
    with pytest.raises(me.ModelError, match="fit without its data"):
        use(slim("cbpp"))


def test_without_data_does_not_grow_with_the_rows() -> None:
    sizes = []
    for n in (400, 4000):
        rng = np.random.default_rng(3)
        data = pd.DataFrame({"x": rng.normal(size=n), "g": np.arange(n) % 20})
        data["y"] = rng.poisson(np.exp(0.3 * data["x"] + 0.5 * np.sin(data["g"])))
        m = me.glmer("y ~ x + (1 | g)", data, family="poisson")
        sizes.append(len(pickle.dumps(m.without_data())))
        assert len(pickle.dumps(m)) > 100 * n
    assert sizes[1] < 1.02 * sizes[0]


def test_rows_dropped_and_values_given_are_left_out_too() -> None:
    data = me.load_dataset("cbpp")
    data.loc[3, "incidence"] = np.nan
    hours = np.linspace(1.0, 2.0, len(data))
    m = me.glmer("incidence ~ period + (1 | herd)", data, family="poisson", exposure=hours)
    s = pickle.loads(pickle.dumps(m.without_data()))
    assert str(s) == str(m) and "1 row removed" in str(s)
    assert repr(s.fit.request.exposure) == "left out"
    with pytest.raises(me.ModelError, match="exposure"):
        s.update(data=data)


# --- stored for later versions ---------------------------------------------------------------

GENERALIZED = sorted(path.name for path in (STORED / "generalized").glob("*.pkl.gz"))


@functools.cache
def made_now() -> dict[str, me.GeneralizedLinearMixedModel]:
    made: dict[str, me.GeneralizedLinearMixedModel] = runpy.run_path(str(STORED / "make.py"))[
        "generalized_fits"
    ]()
    return made


def test_each_is_stored_in_this_format() -> None:
    assert {f"{name}_format{FORMAT}.pkl.gz" for name in made_now()} <= set(GENERALIZED)


@needs_their_pandas
@pytest.mark.parametrize("file", GENERALIZED)
def test_stored_fits_are_read(file: str) -> None:
    s = pickle.loads(gzip.decompress((STORED / "generalized" / file).read_bytes()))
    m = made_now()[file.split("_format")[0]]
    assert isinstance(s, me.GeneralizedLinearMixedModel)
    assert str(s) == str(m)
    pd.testing.assert_frame_equal(s.coef_table(), m.coef_table(), rtol=1e-6)
    pd.testing.assert_frame_equal(s.ranef().to_frame(), m.ranef().to_frame(), rtol=1e-5)
    assert s.criterion == pytest.approx(m.criterion, abs=1e-8)


@pytest.mark.parametrize("name", [file.split("_format")[0] for file in GENERALIZED])
def test_stored_documents_have_the_keys_of_today(name: str) -> None:
    path = STORED / "generalized" / f"{name}_schema{SCHEMA_VERSION}.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    now = made_now()[name].to_dict(ranef=True)
    assert stored.keys() <= now.keys() and stored["family"].keys() <= now["family"].keys()
    assert stored["criterion"] == pytest.approx(now["criterion"], abs=1e-8)
    np.testing.assert_allclose(stored["vcov"], now["vcov"], rtol=1e-6)
