"""Fits that are stored, copied, sent to other processes, and stored without their data."""

from __future__ import annotations

import concurrent.futures
import copy
import functools
import gzip
import hashlib
import json
import multiprocessing
import os
import pickle
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.storage.pickling import FORMAT
from references import MODELS, fitted_model

STORED = Path(__file__).parent / "reference" / "pickles"
needs_their_pandas = pytest.mark.skipif(
    int(pd.__version__.split(".")[0]) < 3,
    reason="stored with pandas 3, whose strings earlier ones cannot read",
)
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
    assert n.fit.crossproducts is n.optimum.evaluation.A
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


def test_tables_without_data_say_what_is_tested_at_zero() -> None:
    m = me.lmer("distance ~ age * Sex + (1 | Subject)", me.load_dataset("orthodont"))
    assert "age = 0" in str(m.anova(3))
    assert str(sent(m.without_data()).anova(3)) == str(m.anova(3))


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


@needs_their_pandas
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


@needs_their_pandas
@pytest.mark.parametrize("again", [lambda V: V, sent], ids=["stored", "stored again"])
@pytest.mark.parametrize("path", sorted(STORED.glob("matrices/*.pkl.gz")), ids=lambda p: p.name)
def test_stored_covariance_matrices_are_read(path: Path, again: Any) -> None:
    stored = pickle.loads(gzip.decompress(path.read_bytes()))
    make = runpy.run_path(str(STORED / "make.py"))
    y, matrices = stored["y"], {name: again(V) for name, V in stored["matrices"].items()}
    for name, said in stored["answers"].items():
        for kind, now in make["answers"](matrices[name], y).items():
            np.testing.assert_allclose(now, said[kind], rtol=1e-9, err_msg=f"{name} {kind}")
    V, parts = matrices["V"], matrices["parts"]
    assert V.index.tolist() == [f"row {i}" for i in range(60)]
    np.testing.assert_allclose(sum(part.dense() for part in parts.values()), V.dense())
    np.testing.assert_allclose(sum(part @ y for part in parts.values()), V @ y)
    assert repr(parts) == repr(V.parts)
    assert repr(matrices["G"]) == repr(V.G)
    assert repr(matrices["R"]) == repr(V.R)
    assert V.at([1.0, 0.0, 0.0], 2.0).parts["Residual"].share() < 0.5
    assert matrices["planned"].vcov().shape == (2, 2)
    assert type(matrices["planned"].at([1.0, 0.0, 0.0])) is type(matrices["planned"])
    with pytest.raises(me.DataError, match="V\\.parts\\['Subject'\\] is 60 x 60"):
        _ = parts["Subject"] @ y[1:]


@needs_their_pandas
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
        if number >= 3:
            assert list(STORED.glob(f"residual/*_format{number}.pkl.gz"))


@functools.cache
def residual_fits() -> dict[str, me.LinearMixedModel]:
    fits: dict[str, me.LinearMixedModel] = runpy.run_path(str(STORED / "make.py"))[
        "residual_fits"
    ]()
    return fits


@needs_their_pandas
@pytest.mark.parametrize("path", sorted(STORED.glob("residual/*.gz")), ids=lambda path: path.name)
def test_stored_fits_with_residual_structures_are_read(path: Path) -> None:
    stored = pickle.loads(gzip.decompress(path.read_bytes()))
    fresh = residual_fits()[path.name.split("_format")[0]]
    assert stored.criterion == pytest.approx(fresh.criterion, rel=1e-10)
    assert str(stored.summary()) == str(fresh.summary())
    close = {"rtol": 1e-4, "atol": 1e-7}
    pd.testing.assert_frame_equal(stored.coef_table(), fresh.coef_table(), **close)
    pd.testing.assert_series_equal(
        stored.covariance_parameters, fresh.covariance_parameters, **close
    )
    pd.testing.assert_series_equal(stored.R.parameters, fresh.R.parameters, **close)
    np.testing.assert_allclose(stored.V.dense(), fresh.V.dense(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        stored.resid("normalized"), fresh.resid("normalized"), rtol=1e-3, atol=1e-4
    )
    assert stored.refit(stored.y).criterion == pytest.approx(fresh.criterion)
    assert stored.optimum.certificate.holds == fresh.optimum.certificate.holds


@pytest.mark.parametrize("path", sorted(STORED.glob("residual/*.json")), ids=lambda path: path.name)
def test_stored_documents_of_residual_structures_are_still_written(path: Path) -> None:
    """Every key that was there is there, with the same number; further ones may have come."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    now = residual_fits()[path.name.split("_schema")[0]].to_dict(ranef=True)
    if stored["schema_version"] == now["schema_version"]:
        _contains(now, stored, "")


#: What may be another in another version: how the search went, and how well it ended.
_OF_THE_SEARCH = {"mixedeffects", "evaluations", "optimum"}


def _contains(now: Any, stored: Any, where: str) -> None:
    if isinstance(stored, dict):
        assert set(stored) <= set(now), where
        for key in set(stored) - _OF_THE_SEARCH:
            _contains(now[key], stored[key], f"{where}.{key}")
    elif isinstance(stored, list):
        assert len(stored) == len(now), where
        for i, (a, b) in enumerate(zip(now, stored, strict=True)):
            _contains(a, b, f"{where}[{i}]")
    elif isinstance(stored, float):
        assert now == pytest.approx(stored, rel=1e-3, abs=1e-5), where
    else:
        assert now == stored, where


def test_a_later_format_is_refused_in_a_sentence() -> None:
    state = fitted_model("dyestuff").__getstate__()
    empty = object.__new__(me.LinearMixedModel)
    with pytest.raises(me.ModelError, match=r"stored by mixedeffects 9\.9, in format 99"):
        empty.__setstate__({**state, "format": 99, "mixedeffects": "9.9"})
    for wrong in ({}, None, {"format": "1"}, {"format": 0}):
        with pytest.raises(me.ModelError, match="not a fit that mixedeffects has written"):
            empty.__setstate__(wrong)


def test_a_fit_with_dropped_columns_predicts_without_its_data() -> None:
    data = me.load_dataset("orthodont")
    m = me.lmer("distance ~ age + I(2 * age) + Sex + C(Sex) + (age | Subject)", data)
    assert len(m.dropped.columns) == 2
    s = sent(m.without_data())
    assert str(s.summary()) == str(m.summary())
    for options in (
        {},
        {"re": None, "se": True},
        {"re": None, "interval": "confidence"},
        {"interval": "prediction"},
    ):
        expected = m.predict(data.head(9), **options)
        np.testing.assert_allclose(s.predict(data.head(9), **options), expected, rtol=1e-10)
    # What the fit says nothing about is refused as before.
    four = {"y": np.arange(40.0) % 7, "a": np.tile(["p", "q"], 20), "g": np.repeat(range(8), 5)}
    table = pd.DataFrame(four).assign(b=lambda t: t["a"])
    n = me.lmer("y ~ a * b + (1 | g)", table)
    wrong = table.head(2).assign(b=["q", "p"])
    for fit in (n, sent(n.without_data())):
        with pytest.raises(me.DataError, match="The fit says nothing about 2 of these rows"):
            fit.predict(wrong, re=None)


# --- damaged and foreign states --------------------------------------------------------------


def damaged(whole: bytes, content: bytes, rng: np.random.Generator) -> bytes:
    """A pickle in which some of what is stored is not what it was."""
    first = whole.index(content)
    out = bytearray(whole)
    at = first + int(rng.integers(len(content)))
    if rng.random() < 0.3:
        end = min(at + 64, first + len(content))
        out[at:end] = bytes(end - at)
    else:
        out[at] ^= 1 << int(rng.integers(8))
    return bytes(out)


@pytest.mark.parametrize("what", ["fit", "without_data", "V", "G", "R", "bootstrap", "profile"])
def test_damage_is_found_before_anything_is_built(what: str) -> None:
    m = fitted_model("dyestuff")
    stored: Any = {
        "fit": lambda: m,
        "without_data": lambda: m.without_data(),
        "V": lambda: m.V,
        "G": lambda: m.G,
        "R": lambda: m.R,
        "bootstrap": lambda: m.bootstrap(4, seed=1),
        "profile": lambda: m.profile("sigma"),
    }[what]()
    whole = pickle.dumps(stored)
    state = stored.__reduce_ex__(4)
    content = (state[2] if what in ("fit", "without_data") else state[1][1])["content"]
    rng = np.random.default_rng(3)
    for _ in range(40):
        with pytest.raises(me.ModelError, match="is damaged: its checksum is not that"):
            changed = damaged(whole, content, rng)
            if changed == whole:
                # Zeros that were there already.
                changed = whole.replace(content, content[:-1] + b"\0")
            pickle.loads(changed)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that may die")
def test_no_damage_gives_other_numbers_or_ends_the_process() -> None:
    m = fitted_model("sleepstudy")
    whole, beta, V = pickle.dumps(m), m.fixef.to_numpy(), m.V.dense()
    rng = np.random.default_rng(8)
    outcomes: dict[str, int] = {}
    for _ in range(800):
        out = bytearray(whole)
        kind = int(rng.integers(3))
        if kind == 0:
            out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out = out[: int(rng.integers(len(out)))]
        else:
            for at in rng.integers(len(out), size=20):
                out[at] = int(rng.integers(256))
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            said = "error"
            try:
                n = pickle.loads(bytes(out))
                same = np.array_equal(n.fixef, beta) and np.array_equal(n.V.dense(), V)
                said = "same" if same else "other"
            except BaseException:
                pass
            finally:
                os.write(writing, said.encode())
                os._exit(0)
        os.close(writing)
        heard = os.read(reading, 20).decode() or "died"
        os.close(reading)
        os.waitpid(child, 0)
        outcomes[heard] = outcomes.get(heard, 0) + 1
    assert set(outcomes) <= {"error", "same"}, outcomes
    assert outcomes["error"] > 780


@pytest.mark.parametrize(
    "state",
    [
        {"format": 1},
        {"format": 1, "attributes": {}},
        {"format": 1, "attributes": {"frame": 1}},
        {"format": 1, "attributes": None},
        {"format": 2},
        {"format": 2, "content": b"", "checksum": b""},
        {"format": 2, "content": "text", "checksum": "text"},
        {"format": True, "attributes": {}},
        {"format": -1},
        {"format": 1.0},
        [],
        b"",
        3,
    ],
)
def test_foreign_states_end_in_the_error_made_for_them(state: Any) -> None:
    empty = object.__new__(me.LinearMixedModel)
    with pytest.raises(me.ModelError, match=r"not a fit that mixedeffects has written|is damaged"):
        empty.__setstate__(state)


def test_a_whole_state_of_something_else_is_foreign() -> None:
    from mixedeffects.base.sealed import sealed, unsealed

    empty = object.__new__(me.LinearMixedModel)
    with pytest.raises(me.ModelError, match="not a fit that mixedeffects has written"):
        empty.__setstate__({"format": 2, **sealed({"frame": 1})})
    with pytest.raises(me.ModelError, match="cannot be read with the packages installed here"):
        content = b"cnot_a_module\nname\n."
        checksum = hashlib.blake2b(content, digest_size=16).digest()
        empty.__setstate__({"format": 2, "content": content, "checksum": checksum})
    for wrong in (None, {}, sealed({})):
        with pytest.raises(me.ModelError, match="not a fit that mixedeffects has written"):
            unsealed(dict, wrong)


# --- everything that a fit returns -----------------------------------------------------------

RESULTS: dict[str, Any] = {
    "summary": lambda m: m.summary(),
    "V": lambda m: m.V,
    "V.parts": lambda m: m.V.parts,
    "G": lambda m: m.G,
    "R": lambda m: m.R,
    "varcorr": lambda m: m.varcorr,
    "ranef": lambda m: m.ranef(cond_var=True),
    "frame": lambda m: m.frame,
    "optimum": lambda m: m.optimum,
    "certificate": lambda m: m.optimum.certificate,
    "satterthwaite": lambda m: m.satterthwaite,
    "kenward_roger": lambda m: m.kenward_roger,
    "robust": lambda m: m.robust("CR2", "Subject"),
    "wald": lambda m: m.wald("age"),
    "contrast": lambda m: m.contrast([[0, 1, 0, 0]]),
    "anova": lambda m: m.anova(),
    "ranova": lambda m: m.ranova(),
    "icc": lambda m: m.icc(),
    "r2": lambda m: m.r2(),
    "caic": lambda m: m.caic(),
    **{
        f"emmeans {ddf}": lambda m, ddf=ddf: m.emmeans("Sex", ddf=ddf)
        for ddf in ("satterthwaite", "kr", "residual", "inf")
    },
    "emmeans CR0": lambda m: m.emmeans("Sex", vcov="CR0", cluster="Subject"),
    "emmeans CR2": lambda m: m.emmeans("Sex", vcov="CR2", cluster="Subject"),
    "emtrends": lambda m: m.emtrends("Sex", "age"),
    "contrasts": lambda m: m.emmeans("Sex").contrasts(),
    "influence": lambda m: m.influence("Subject"),
    "variogram": lambda m: m.variogram("age"),
    "profile": lambda m: m.profile("sigma", level=0.8),
    "bootstrap": lambda m: m.bootstrap(3, seed=1),
    "etable": lambda m: me.etable(m),
    "compare": lambda m: me.compare(m),
    "anova of fits": lambda m: me.anova(m, m.update(". ~ . - age:Sex")),
    "cross_validate": lambda m: me.cross_validate(m, folds=2, seed=1),
    "power": lambda m: me.power(m, "age", draws=2, seed=1),
    "gls": lambda m: me.gls(m.X, m.y, m.V),
}


@pytest.mark.parametrize("copied", [sent, copy.deepcopy, copy.copy])
@pytest.mark.parametrize("name", RESULTS)
def test_every_result_can_be_sent_and_copied(name: str, copied: Any) -> None:
    m = orthodont()
    result = RESULTS[name](m)
    again = copied(result)
    assert type(again) is type(result)
    assert repr(again) == repr(result)
    # The same once caches are filled, which may lead back to the object.
    assert repr(copied(result)) == repr(result)


def test_a_result_that_was_sent_goes_on_working() -> None:
    m = orthodont()
    means, trends = sent(m.emmeans("Sex")), sent(m.emtrends("Sex", "age"))
    assert repr(means.contrasts()) == repr(m.emmeans("Sex").contrasts())
    assert repr(trends.contrasts()) == repr(m.emtrends("Sex", "age").contrasts())
    boot = sent(m.bootstrap(3, seed=1)).resume(5)
    pd.testing.assert_frame_equal(boot.draws, m.bootstrap(5, seed=1).draws)
    pd.testing.assert_frame_equal(
        sent(m.profile("sigma")).confint(0.8), m.confint("profile", "sigma", 0.8), rtol=1e-5
    )
    np.testing.assert_allclose(sent(m.V).solve(m.y), m.V.solve(m.y))


@functools.cache
def orthodont() -> me.LinearMixedModel:
    return me.lmer("distance ~ age * Sex + (age | Subject)", me.load_dataset("orthodont"))
