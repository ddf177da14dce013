"""Deletion diagnostics against R, dense deletion, and fits to the other rows."""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import mixedeffects as me
import mixedeffects.diagnostics.deletion
import mixedeffects.diagnostics.deletion_refit
import mixedeffects.fitting.refitting
from design_models import model_of
from designs import KINDS, Design, designs, make_design
from inference_references import FOLDER, at_residual_reference
from mixedeffects.fitting.fit import Fit
from references import fitted_model

fast = settings(max_examples=25, deadline=None)

SETS = {
    "sleep_Subject": ("sleepstudy", "Subject"),
    "sleep_obs": ("sleepstudy", None),
    "three_school": ("threelevel", "sch.cl"),
    "three_teacher": ("threelevel", "tch.cl"),
    "pen_sample": ("penicillin", "sample"),
    "pen_plate": ("penicillin", "plate"),
}


@cache
def influence_reference() -> dict[str, Any]:
    return json.loads((FOLDER / "influence.json").read_text())


def gls(V: np.ndarray, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inverse = np.linalg.inv(V)
    vcov = np.linalg.inv(X.T @ inverse @ X)
    return vcov @ X.T @ inverse @ y, vcov


def by_hand(V: np.ndarray, X: np.ndarray, y: np.ndarray, labels: Any) -> pd.DataFrame:
    """Rows deleted from dense matrices, level by level."""
    p = X.shape[1]
    beta, vcov = gls(V, X, y)
    information = np.linalg.inv(vcov)
    out = {}
    for level in np.unique(labels):
        rest = np.flatnonzero(labels != level)
        without, own = gls(V[np.ix_(rest, rest)], X[rest], y[rest])
        d = beta - without
        out[level] = [
            *d,
            *(d / np.sqrt(np.diag(own))),
            d @ information @ d / p,
            d @ np.linalg.inv(own) @ d / p,
            abs(np.trace(information @ own) - p),
            np.linalg.det(own) / np.linalg.det(vcov),
        ]
    return pd.DataFrame.from_dict(out, orient="index")


def assert_by_hand(
    ours: Any, V: np.ndarray, X: np.ndarray, y: np.ndarray, labels: Any, tolerance: float = 1e-8
) -> None:
    expected = by_hand(V, X, y, labels)
    table = ours.to_frame().drop(columns="n")
    table.index = table.index.map(str)
    table = table.loc[[str(level) for level in expected.index]]
    for column, values in zip(table, expected.to_numpy().T, strict=True):
        scale = max(np.abs(values).max(), 1e-12)
        assert_allclose(table[column], values, rtol=tolerance, atol=tolerance * scale)


# --- R ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_dense_deletion_in_r(name: str) -> None:
    model, by = SETS[name]
    r = influence_reference()[name]
    table = at_residual_reference(model).influence(by).to_frame()
    if name == "three_teacher":
        table.index = [f"{int(level):02d}" for level in table.index]
    if by is not None:
        table = table.loc[r["levels"]]
    dfbeta = table[[c for c in table if c.startswith("dfbeta_")]]
    assert_allclose(dfbeta, r["dfbeta"], rtol=1e-7)
    for ours, theirs in (
        ("cooks_d", "cooksD"),
        ("mdffits", "mdffits"),
        ("covtrace", "covtrace"),
        ("covratio", "covratio"),
    ):
        assert_allclose(table[ours], r[theirs], rtol=1e-7)


def test_refit_in_lme4() -> None:
    r = influence_reference()["sleep_refit"]
    ours = fitted_model("sleepstudy").influence("Subject", refit=True)
    # lme4 has the coefficients without the level minus those with it.
    assert_allclose(ours.dfbeta, -np.array(r["dfbeta"]), rtol=1e-6)
    # Its Cook's distance has a factor (J - p) / J more.
    assert_allclose(ours.cooks_distance * 16 / 18, r["cooks"], rtol=2e-5)
    r = influence_reference()["three_refit"]
    ours = fitted_model("threelevel").influence("sch.cl", refit=True)
    assert_allclose(ours.dfbeta.loc[r["levels"]], -np.array(r["dfbeta"]), rtol=1e-3, atol=1e-6)


# --- dense deletion ----------------------------------------------------------------------


def labels_for(model: me.LinearMixedModel, how: str, seed: int) -> tuple[Any, np.ndarray]:
    """What to give as ``by``, and the labels of the rows."""
    rng = np.random.default_rng(seed)
    n = model.nobs
    if how == "rows":
        return None, np.arange(n)
    if how in ("first", "last"):
        term = model.frame.terms[0 if how == "first" else -1]
        return term.group, np.asarray(term.levels)[term.codes].astype(str)
    size = {"few": 3, "several": 8, "pairs": n // 2}[how]
    labels = np.array([f"k{i:03d}" for i in rng.integers(0, size, n)])
    return labels, labels


@fast
@given(
    design=designs,
    how=st.sampled_from(["rows", "first", "last", "few", "several", "pairs"]),
    seed=st.integers(0, 1000),
)
def test_equals_dense_deletion(design: Design, how: str, seed: int) -> None:
    m, dense = model_of(design)
    by, labels = labels_for(m, how, seed)
    tolerance = 1e-12 * np.linalg.cond(dense.V) + 1e-9
    assert_by_hand(m.influence(by), dense.V, dense.X, dense.y, labels, tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_and_factorisations_do_not_change_the_answer(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, _ = model_of(make_design(kind, 5, weighted=True, singular=False))
    for how in ("first", "last", "several"):
        by, _ = labels_for(m, how, 1)
        whole = m.influence(by).to_frame()
        for name, value in (("_CHUNK", 1.0), ("_CUT", 900.0), ("_CUT", 1.0)):
            monkeypatch.setattr(mixedeffects.diagnostics.deletion, name, value)
            assert_allclose(m.influence(by).to_frame(), whole, rtol=1e-7, atol=1e-12)
            monkeypatch.undo()
        monkeypatch.setattr(
            mixedeffects.diagnostics.deletion._Deletion, "_factorisation_work", lambda self: 100.0
        )
        assert_allclose(m.influence(by).to_frame(), whole, rtol=1e-7, atol=1e-12)
        monkeypatch.undo()


def test_offset_weights_dropped_rows_and_a_column() -> None:
    star = me.load_dataset("star_sample").copy()
    rng = np.random.default_rng(3)
    star["known"] = rng.normal(size=len(star)) * 5.0
    star["w"] = rng.uniform(0.5, 4.0, len(star))
    m = me.lmer(
        "read ~ cltype + sx + (sx | sch/tch)", star, weights="w", offset="known", reml=False
    )
    assert len(m.dropped.rows)
    y = m.y - m.frame.offset
    used = star.loc[m.frame.index]
    ours = m.influence("schtype")
    assert not ours.notes
    assert_by_hand(ours, m.V.dense(), m.X, y, used["schtype"].astype(str).to_numpy(), 1e-7)
    # Every row of the data, a Series in another order, and only the rows used.
    expected = ours.to_frame()
    for values in (star["schtype"].to_numpy(), star["schtype"].iloc[::-1], used["schtype"].array):
        table = m.influence(values).to_frame().loc[expected.index]
        assert_allclose(table, expected, rtol=1e-12)
    # Without a kind of class its coefficient, or all differences from it, are gone.
    ours = m.influence("cltype")
    assert list(ours.notes) == [str(level) for level in ours.n_rows.index]
    assert ours.to_frame().drop(columns="n").isna().all(axis=None)


def test_v_of_fewer_rows_than_columns() -> None:
    few = pd.DataFrame({"g": ["a", "b"], "x": [0.3, 2.0], "z": [1.0, -1.0]})
    V = me.marginal_covariance("~ 1 + (x + z | g)", few, G={"g": np.eye(3)}, sigma=0.5)
    z = np.column_stack([np.ones(2), few["x"], few["z"]])
    assert_allclose(V.dense(), np.diag((z**2).sum(axis=1) + 0.25))
    assert_allclose(V.solve(V.dense()), np.eye(2), atol=1e-12)


def test_a_combination_of_columns() -> None:
    m = fitted_model("threelevel")
    ours = m.influence("sch.cl:tch.cl").to_frame()
    assert_allclose(
        ours.sort_values("cooks_d"), m.influence("tch.cl:sch.cl").to_frame().sort_values("cooks_d")
    )


def test_almost_all_information_about_a_coefficient() -> None:
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(10), 6)
    # Nearly all of what is known about x comes from one row, and all but 1e-10 from one group.
    x = np.where(g == 3, rng.normal(size=60) * 1e5, rng.normal(size=60))
    data = pd.DataFrame({"g": g, "x": x, "y": rng.normal(size=10)[g] + rng.normal(size=60)})
    m = me.lmer("y ~ x + (1 | g)", data)
    assert_by_hand(m.influence("g"), m.V.dense(), m.X, m.y, g, 1e-6)
    assert m.influence("g").covratio.max() > 1e6


@pytest.mark.parametrize("by", [None, "g"])
def test_what_cannot_be_estimated_without_a_level(by: str | None) -> None:
    rng = np.random.default_rng(4)
    g = np.repeat([f"g{i}" for i in range(10)], 6)
    only = np.zeros(60)
    only[20] = 1.0
    data = pd.DataFrame({"g": g, "only": only, "y": np.repeat(rng.normal(size=10), 6)})
    data["y"] += rng.normal(size=60)
    m = me.lmer("y ~ only + (1 | g)", data)
    level: Any = 20 if by is None else "g3"
    for refit in (False, True):
        if refit and by is None:
            continue
        ours = m.influence(by, refit=refit)
        assert list(ours.notes) == [str(level)]
        assert "cannot all be estimated" in ours.notes[str(level)]
        table = ours.to_frame()
        assert table.drop(columns="n").loc[level].isna().all()
        assert table.drop(index=level).notna().all(axis=None)
        assert "cannot all be estimated" in repr(ours)
        assert ours.plot().get_yticklabels()[0].get_text() != str(level)
        plt.close("all")


def test_levels_of_one_row_and_large_variances() -> None:
    rng = np.random.default_rng(5)
    g = np.concatenate([np.arange(20), np.repeat(np.arange(20, 30), 4)])
    x = rng.normal(size=60)
    data = pd.DataFrame({"g": g, "x": x, "y": 2e4 * rng.normal(size=30)[g] + rng.normal(size=60)})
    m = me.lmer("y ~ x + (1 | g)", data)
    assert m.theta[0] > 1e3
    assert_by_hand(m.influence("g"), m.V.dense(), m.X, m.y, g, 1e-5)
    # The rows of single-row levels have next to no share of their own.
    assert_by_hand(m.influence(), m.V.dense(), m.X, m.y, np.arange(60), 1e-5)


def test_many_crossed_levels() -> None:
    m = fitted_model("insteval")
    rows = m.influence()
    students = m.influence("s")
    assert len(rows.n_rows) == m.nobs
    assert students.n_rows.sum() == m.nobs
    data = me.load_dataset("insteval")
    labels = data["s"].astype(str).to_numpy()
    beta = m.fixef.to_numpy()
    for level in [students.cooks_distance.idxmax(), students.n_rows.idxmin()]:
        rest = np.flatnonzero(labels != level)
        direct = mixedeffects.diagnostics.deletion._Deletion(
            m.fit, (labels == level).astype(np.int64), 2
        )
        direct.store_directly(1)
        assert_allclose(students.dfbeta.loc[level], direct.out.change[1], rtol=1e-6)
        assert_allclose(students.covratio[level], direct.out.covratio[1], rtol=1e-10)
        assert len(rest) + students.n_rows[level] == m.nobs
    # A row by the general path, which deletes its level of a factor of two levels.
    row = int(rows.cooks_distance.to_numpy().argmax())
    one = m.influence(np.arange(m.nobs) == row).to_frame().loc["TRUE"]
    assert_allclose(one["dfbeta_(Intercept)"], rows.dfbeta.iloc[row, 0], rtol=1e-6)
    assert np.abs(beta).max() > np.abs(rows.dfbeta).max(axis=None)


# --- refit -------------------------------------------------------------------------------


@pytest.mark.parametrize("reml", [True, False])
def test_refit_equals_fits_to_the_other_rows(reml: bool) -> None:
    star = me.load_dataset("star_sample").dropna().copy()
    star["w"] = np.random.default_rng(1).uniform(0.5, 4.0, len(star))
    star["known"] = np.random.default_rng(2).normal(size=len(star))
    settings = {"weights": "w", "offset": "known", "reml": reml}
    m = me.lmer("read ~ sx + (1 | sch/tch)", star, **settings)
    some = m.influence("sch", refit=True)
    p = len(m.fixef)
    information = np.linalg.inv(m.vcov())
    for level in list(some.n_rows.index[:5]):
        other = me.lmer("read ~ sx + (1 | sch/tch)", star[star["sch"] != level], **settings)
        d = (m.fixef - other.fixef).to_numpy()
        own = other.vcov().to_numpy()
        assert_allclose(some.dfbeta.loc[level], d, rtol=1e-4, atol=1e-5)
        assert_allclose(some.dfbetas.loc[level], d / other.se, rtol=1e-4, atol=1e-6)
        assert some.cooks_distance[level] == pytest.approx(d @ information @ d / p, rel=1e-4)
        mdffits = d @ np.linalg.inv(own) @ d / p
        assert some.mdffits[level] == pytest.approx(mdffits, rel=1e-4)
        ratio = information @ own
        assert some.covtrace[level] == pytest.approx(abs(np.trace(ratio) - p), abs=1e-5)
        assert some.covratio[level] == pytest.approx(np.linalg.det(ratio), rel=1e-5)
        sizes = other.varcorr
        assert some.variance_parameters is not None
        expected = [np.sqrt(sizes[g].iloc[0, 0]) for g in ("tch:sch", "sch")] + [other.sigma]
        assert_allclose(some.variance_parameters.loc[level], expected, rtol=1e-4, atol=1e-3)


def test_refit_from_a_singular_fit() -> None:
    m = fitted_model("dyestuff2")
    data = me.load_dataset("dyestuff2")
    ours = m.influence("Batch", refit=True)
    assert ours.variance_parameters is not None
    sd = ours.variance_parameters.iloc[:, 0]
    for batch in sd.index:
        other = me.lmer("Yield ~ 1 + (1 | Batch)", data[data["Batch"] != batch])
        expected = np.sqrt(other.varcorr["Batch"].iloc[0, 0])
        assert sd[batch] == pytest.approx(expected, abs=1e-4)


def test_refit_without_fixed_effects_and_with_two_levels() -> None:
    sleep = me.load_dataset("sleepstudy")
    m = me.lmer("Reaction ~ 0 + (1 | Subject)", sleep)
    with pytest.raises(me.ModelError, match="no fixed effects"):
        m.influence("Subject")
    ours = m.influence("Subject", refit=True)
    assert ours.variance_change is not None
    assert ours.variance_change.notna().all(axis=None)
    two = sleep[sleep["Subject"].isin(["308", "309"])]
    ours = me.lmer("Reaction ~ 1 + (1 | Subject)", two).influence("Subject", refit=True)
    assert all("one level" in note for note in ours.notes.values())
    assert ours.cooks_distance.isna().all()


def test_columns_keep_their_meaning_in_a_refit() -> None:
    sleep = me.load_dataset("sleepstudy")
    m = me.lmer("Reaction ~ scale(Days) + (1 | Subject)", sleep)
    plain = me.lmer("Reaction ~ Days + (1 | Subject)", sleep)
    days = np.where(np.arange(180) % 10 == 9, "last", "other")
    ours = m.influence(days, refit=True).dfbeta.iloc[0, 1]
    theirs = plain.influence(days, refit=True).dfbeta.iloc[0, 1]
    assert ours == pytest.approx(theirs * sleep["Days"].std(), rel=1e-5)


def test_progress_and_interruption(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    m = fitted_model("dyestuff")
    m.influence("Batch", refit=True, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("refit 6 of 6, without 'F' ")
    refit_rows = mixedeffects.diagnostics.deletion_refit.refit_rows

    def interrupted(model: Any, rows: np.ndarray) -> Any:
        if 10 not in rows:
            raise KeyboardInterrupt
        return refit_rows(model, rows)

    monkeypatch.setattr(mixedeffects.diagnostics.deletion_refit, "refit_rows", interrupted)
    with pytest.raises(me.Interrupted, match="after refit 2 of 6") as caught:
        m.influence("Batch", refit=True)
    ours = caught.value.partial.so_far
    assert ours.cooks_distance.notna().tolist() == [True, True, False, False, False, False]
    assert list(ours.notes) == ["C", "D", "E", "F"]
    assert "interrupted" in ours.notes["C"]


def test_a_refit_that_does_not_converge_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    m = fitted_model("dyestuff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        bad = me.lmer(
            "Yield ~ 1 + (1 | Batch)",
            me.load_dataset("dyestuff"),
            control=me.Control(max_evaluations=1),
            start=[5.0],
        )

    def poor(*args: Any, **options: Any) -> Fit:
        warnings.warn("did not converge", me.ConvergenceWarning, stacklevel=2)
        return bad.fit

    monkeypatch.setattr(mixedeffects.fitting.refitting, "fit_frame", poor)
    ours = m.influence("Batch", refit=True)
    assert all("the fit without it" in note for note in ours.notes.values())
    assert len(ours.notes) == 6
    assert ours.covratio.notna().all()


# --- the object --------------------------------------------------------------------------


def test_table_and_text() -> None:
    m = fitted_model("sleepstudy")
    ours = m.influence("Subject")
    table = ours.to_frame()
    assert list(table) == [
        "n",
        "dfbeta_(Intercept)",
        "dfbeta_Days",
        "dfbetas_(Intercept)",
        "dfbetas_Days",
        "cooks_d",
        "mdffits",
        "covtrace",
        "covratio",
    ]
    assert table.index.name == "Subject"
    text = repr(ours)
    assert "variance parameters held at their estimates" in " ".join(text.split())
    rows = [line.split()[0] for line in text.splitlines()[3:13]]
    assert rows == table["cooks_d"].nlargest(10).index.tolist()
    assert "8 less influential levels" in text
    html = ours._repr_html_()
    assert "held at their estimates" in html
    assert "<td" in html
    assert ours.variance_parameters is None
    refitted = m.influence("Subject", refit=True)
    assert refitted.refit
    assert "refitted" in repr(refitted)
    assert list(refitted.to_frame())[-1] == "change_sigma"
    assert m.influence().n_rows.index.equals(m.frame.index)
    many = fitted_model("star_k").influence("sch")
    assert "coefficients; to_frame()" in repr(many)


def test_pictures() -> None:
    m = fitted_model("sleepstudy")
    ours = m.influence("Subject")
    ax = ours.plot(ax=Figure().subplots(), top=5)
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == ["309", "335", "337", "310", "308"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first is at the top
    assert ax.get_xlabel() == "Cook's distance"
    assert "5 most influential of 18" in ax.texts[0].get_text()
    for kind in ("mdffits", "covtrace", "covratio", "dfbeta", "dfbetas"):
        ax = ours.plot(kind)
        assert len(ax.get_yticklabels()) == 18
        plt.close("all")
    chosen = ours.plot("dfbeta", coefficient="(Intercept)", ax=Figure().subplots())
    dots = chosen.collections[-1].get_offsets()
    order = ours.dfbeta["(Intercept)"].abs().sort_values(ascending=False).index
    assert_allclose(dots[:, 0], ours.dfbeta.loc[order, "(Intercept)"])
    refitted = m.influence("Subject", refit=True).plot(ax=Figure().subplots())
    assert refitted.texts[0].get_text() == "refitted"


def test_errors() -> None:
    m = fitted_model("sleepstudy")
    with pytest.raises(me.DataError, match="Subj"):
        m.influence("Subj")
    with pytest.raises(me.DataError, match="The levels must have 180 values"):
        m.influence(np.arange(17))
    with pytest.raises(me.DataError, match="The levels must be the name"):
        m.influence(3)
    with pytest.raises(me.ModelError, match="same level of 'by'"):
        m.influence(np.zeros(180))
    with pytest.raises(me.DataError, match="missing values"):
        m.influence([None, *range(179)])
    with pytest.raises(me.ModelError, match="refit must be True or False"):
        m.influence("Subject", refit="yes")  # type: ignore[arg-type]
    ours = m.influence("Subject")
    with pytest.raises(me.ModelError, match="'cooks', 'mdffits', 'covtrace'"):
        ours.plot("cook")
    with pytest.raises(me.ModelError, match=r"there are '\(Intercept\)', 'Days'"):
        ours.plot("dfbeta", coefficient="days")
    with pytest.raises(me.ModelError, match="goes with the kinds"):
        ours.plot("cooks", coefficient="Days")
    with pytest.raises(me.ModelError, match="top must be"):
        ours.plot(top=0)
