"""Cluster-robust covariance, its degrees of freedom and tests."""

from __future__ import annotations

import json
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixedeffects as me
from dense_robust import DenseRobust, cameron_gelbach_miller
from design_models import model_of
from designs import make_design
from inference_references import FOLDER, at_residual_reference
from mixedeffects.covariance.groups import outermost_factors
from mixedeffects.inference import bias_reduction
from mixedeffects.inference.cluster_factor import read_cluster
from mixedeffects.inference.cluster_moments import KINDS, cluster_moments
from mixedeffects.inference.cluster_wald import WALD_TESTS
from mixedeffects.inference.saddlepoint import saddlepoint_p_value

NAMES = ("sleepstudy", "threelevel", "konly")


@cache
def robust_reference(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"robust_{name}.json").read_text())


@cache
def generated(weights: str = "none", singular: bool = False) -> me.LinearMixedModel:
    """Few large clusters with an inner factor and slopes; each has many rows per random effect."""
    rng = np.random.default_rng(5)
    n = 600
    inner = rng.integers(0, 18, n)
    outer = inner // 3
    x = rng.normal(size=n) + 10.0
    data = pd.DataFrame(
        {
            "x": x,
            "w": rng.normal(size=6)[outer],
            "inner": [f"i{i}" for i in inner],
            "outer": [f"o{i}" for i in outer],
            "other": rng.integers(0, 4, n),
        }
    )
    data["y"] = (
        1.0 + 0.3 * x + rng.normal(size=6)[outer] + rng.normal(size=18)[inner] * x / 10
    ) + rng.normal(size=n)
    prior = {
        "none": None,
        "by cluster": np.linspace(0.5, 3.0, 6)[outer],
        "three values": np.array([0.5, 1.0, 4.0])[rng.integers(0, 3, n)],
        "all different": rng.uniform(0.5, 4.0, n),
    }[weights]
    control = me.Control(max_evaluations=1)
    start = [0.6, 0.2, 0.0 if singular else 0.3, 0.8]
    with pytest.warns(me.ConvergenceWarning):
        return me.lmer(
            "y ~ x + w + (x | inner) + (1 | outer)",
            data,
            weights=prior,
            start=start,
            control=control,
        )


def dense_of(model: me.LinearMixedModel, clusters: np.ndarray, kind: str) -> DenseRobust:
    return DenseRobust(model.V.dense(), model.X, model.y, clusters, kind)


# --- R's answers -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_clubsandwich_covariance_and_coefficient_tests(name: str, kind: str) -> None:
    expected = robust_reference(name)[kind]
    robust = at_residual_reference(name).robust(kind)
    assert robust.n_clusters == (robust_reference(name)["n_clusters"],)
    np.testing.assert_allclose(robust.vcov, expected["vcov"], rtol=1e-7)
    np.testing.assert_allclose(robust.se, expected["se"], rtol=1e-7)
    np.testing.assert_allclose(robust.df, expected["df_satt"], rtol=1e-7)
    table = robust.table
    np.testing.assert_allclose(table["t value"], expected["tstat"], rtol=1e-7)
    np.testing.assert_allclose(table["Pr(>|t|)"], expected["p_satt"], rtol=1e-6)
    np.testing.assert_allclose(table["lower"], expected["ci95"]["lower"], rtol=1e-6)
    np.testing.assert_allclose(table["upper"], expected["ci95"]["upper"], rtol=1e-6)
    naive = robust.coef_table("naive-t")
    np.testing.assert_allclose(naive["df"], expected["df_t"])
    np.testing.assert_allclose(naive["Pr(>|t|)"], expected["p_t"], rtol=1e-6)
    np.testing.assert_allclose(robust.coef_table("naive-tp")["df"], expected["df_tp"])
    z = robust.coef_table("z")["Pr(>|t|)"]
    np.testing.assert_allclose(z, expected["p_z"], rtol=1e-6, atol=1e-290)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_clubsandwich_saddlepoints(name: str, kind: str) -> None:
    """R finds its roots to 1e-4 only (`uniroot`); the dense test below is the exact one."""
    expected = robust_reference(name)[kind]
    table = at_residual_reference(name).robust(kind).coef_table("saddlepoint")
    np.testing.assert_allclose(table["saddlepoint"], expected["saddlepoint"], atol=1e-4)
    # R's p-values below 1e-15 are differences of rounding errors.
    p = np.array(expected["p_saddle"])
    seen = p > 1e-12
    np.testing.assert_allclose(table["Pr(>|t|)"][seen], p[seen], rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_clubsandwich_wald_tests(name: str, kind: str) -> None:
    robust = at_residual_reference(name).robust(kind)
    for hypothesis in robust_reference(name)[kind]["wald"].values():
        L = np.array(hypothesis["C"])
        for i, test in enumerate(hypothesis["test"]):
            if test == "EDT" and name == "sleepstudy" and len(L) > 1:
                continue  # balanced: equal eigenvalues, so its directions are arbitrary
            found = robust.test(L, test)
            expected = [hypothesis[key][i] for key in ("Fstat", "delta", "df_num", "p")]
            values = [found.statistic, found.scaling, found.num_df, found.p]
            # R's differences from one stop at 1e-16.
            np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-60)
            np.testing.assert_allclose(found.den_df, float(hypothesis["df_denom"][i]), rtol=1e-7)


def test_names_of_terms_mean_their_columns() -> None:
    robust = at_residual_reference("konly").robust()
    for test in WALD_TESTS:
        by_name = robust.test("cltype", test)
        by_matrix = robust.test([[0, 1, 0, 0], [0, 0, 1, 0]], test)
        assert by_name.p == by_matrix.p
    assert robust.test(["cltypereg", "sx"]).num_df == 2
    one = robust.test("sxF")
    assert one.p == pytest.approx(robust.table.loc["sxF", "Pr(>|t|)"], rel=1e-9)
    assert repr(robust.test("sx", "chi2")) == repr(robust.test("sx", "chi-sq"))


# --- the definition, densely ---------------------------------------------------------------


def check_against_definition(model: me.LinearMixedModel, kind: str, cluster: Any = None) -> None:
    factor = read_cluster(model.fit, cluster)
    robust = model.robust(kind, cluster)
    dense = dense_of(model, factor.codes, kind)
    size = np.sqrt(np.diag(dense.vcov))
    np.testing.assert_allclose(
        robust.vcov / np.outer(size, size), dense.vcov / np.outer(size, size), atol=2e-7
    )
    p = len(size)
    for i in range(p):
        assert robust.df.iloc[i] == pytest.approx(dense.df(np.eye(p)[i]), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["one factor", "nested", "nested three deep", "five columns"]),
    seed=st.integers(0, 10_000),
    weighted=st.booleans(),
    singular=st.booleans(),
    CR=st.sampled_from(["CR0", "CR1S", "CR2"]),
)
def test_definition_on_generated_designs(
    kind: str, seed: int, weighted: bool, singular: bool, CR: str
) -> None:
    model, _ = model_of(make_design(kind, seed, weighted, singular))
    if outermost_factors(model.frame.terms):
        check_against_definition(model, CR)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", ["none", "by cluster", "three values", "all different"])
def test_definition_with_large_clusters(weights: str, kind: str) -> None:
    if kind != "CR1p":
        check_against_definition(generated(weights), kind)
    check_against_definition(generated(weights, singular=True), kind if kind != "CR1p" else "CR2")


@pytest.mark.parametrize("weights", ["none", "three values"])
@pytest.mark.parametrize("setting", [{"_LARGE": 0}, {"_WORTHWHILE": 100.0}, {"_BATCH": 1}])
def test_every_route_gives_the_same(weights: str, setting: dict[str, float]) -> None:
    """Rows combined first, whole clusters, one cluster at a time."""
    model = generated(weights)
    expected = model.robust("CR2")
    with mock.patch.multiple(bias_reduction, **setting):
        found = model.robust("CR2")
    np.testing.assert_allclose(found.vcov, expected.vcov, rtol=1e-8)
    np.testing.assert_allclose(found.df, expected.df, rtol=1e-8)


def test_a_cluster_of_a_hundred_thousand_rows() -> None:
    """Its matrix would take 80 GB."""
    rng = np.random.default_rng(0)
    n = 100_000
    data = pd.DataFrame({"x": rng.normal(size=3 * n), "g": np.repeat([0, 1, 2], n)})
    data["y"] = data["x"] + data["g"] + rng.normal(size=3 * n)
    model = me.lmer("y ~ x + (x | g)", data)
    robust = {kind: model.robust(kind) for kind in ("CR0", "CR2", "CR3")}
    assert (robust["CR0"].se < robust["CR2"].se).all()
    assert (robust["CR2"].se < robust["CR3"].se).all()
    # Three clusters alike: CR2 is CR1, J - 1 degrees of freedom.
    np.testing.assert_allclose(robust["CR2"].vcov, 1.5 * robust["CR0"].vcov, rtol=1e-2)
    np.testing.assert_allclose(robust["CR2"].df, 2.0, rtol=1e-2)


def test_a_cluster_that_determines_a_coefficient_alone() -> None:
    """B is singular there, and the pseudo-inverse is meant."""
    sleep = me.load_dataset("sleepstudy")
    sleep["one"] = (sleep["Subject"] == "308").astype(float)
    sleep["slope"] = sleep["one"] * sleep["Days"]
    model = me.lmer("Reaction ~ Days + one + slope + (Days | Subject)", sleep)
    dense = dense_of(model, read_cluster(model.fit, None).codes, "CR2")
    with pytest.warns(me.ClusterWarning, match="determine 'one', 'slope' one by one"):
        robust = model.robust("CR2")
    np.testing.assert_allclose(robust.vcov.iloc[:2, :2], dense.vcov[:2, :2], rtol=1e-6)
    for i in range(2):
        assert robust.df.iloc[i] == pytest.approx(dense.df(np.eye(4)[i]), rel=1e-6)
    with pytest.raises(me.ModelError, match="CR3 is not defined here: without cluster '308'"):
        model.robust("CR3")


@pytest.mark.parametrize("weights", ["none", "all different"])
def test_htz_from_its_definition(weights: str) -> None:
    model = generated(weights)
    L = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = model.robust("CR2").test(L)
    statistic, df = dense_of(model, read_cluster(model.fit, None).codes, "CR2").htz(L)
    assert found.statistic == pytest.approx(statistic, rel=1e-6)
    assert found.den_df == pytest.approx(df, rel=1e-6)


@pytest.mark.parametrize("kind", ["CR0", "CR2", "CR3"])
@pytest.mark.parametrize("name", NAMES)
def test_saddlepoints_from_their_definition(name: str, kind: str) -> None:
    model = at_residual_reference(name)
    table = model.robust(kind).coef_table("saddlepoint")
    dense = dense_of(model, read_cluster(model.fit, None).codes, kind)
    for i in range(len(table)):
        s, p = dense.saddlepoint(i)
        assert table["saddlepoint"].iloc[i] == pytest.approx(s, rel=1e-7, abs=1e-9)
        assert table["Pr(>|t|)"].iloc[i] == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize("t", [0.02, 0.7, 0.999, 1.0, 1.001, 1.02, 2.5, 30.0])
def test_saddlepoints_of_many_clusters(t: float) -> None:
    """The p x p formulas against all eigenvalues; more clusters than are decomposed."""
    rng = np.random.default_rng(1)
    Q = rng.normal(size=(500, 3))
    u = 0.8 * np.linalg.qr(Q)[0] * np.array([1.0, 0.5, 0.1])
    a = (u * u).sum(axis=1) * 1.5 + rng.uniform(0.1, 1.0, 500) ** 4
    w = np.linalg.eigvalsh(np.diag(a) - u @ u.T)
    assert saddlepoint_p_value(t, a, u) == pytest.approx(
        saddlepoint_p_value(t, w, np.zeros((500, 1))), rel=1e-7, abs=1e-12
    )


def test_saddlepoint_of_no_effect() -> None:
    assert saddlepoint_p_value(0.0, np.ones(3), np.zeros((3, 1)))[1] == 1.0
    assert np.isnan(saddlepoint_p_value(np.nan, np.ones(3), np.zeros((3, 1)))[1])


def test_cr2_is_unbiased_if_the_model_holds() -> None:
    model = generated("all different")
    factor = read_cluster(model.fit, None)
    moments = cluster_moments(
        model.V, model.X, model.y, factor, "CR2", model.fit.crossproducts.basis.fixed
    )
    np.testing.assert_allclose(moments.expected(np.eye(3)), model.vcov(), rtol=1e-6)


def test_at_other_parameters() -> None:
    """The functions take any V: here independence, where CR0 is Liang and Zeger's."""
    model = at_residual_reference("sleepstudy")
    V = model.V.at([0.0, 0.0, 0.0])
    beta = V.gls(model.X, model.y).coef.to_numpy()
    factor = read_cluster(model.fit, "Subject")
    moments = cluster_moments(V, model.X, model.y - model.X @ beta, factor, "CR2")
    dense = DenseRobust(V.dense(), model.X, model.y, factor.codes, "CR2")
    np.testing.assert_allclose(moments.vcov, dense.vcov, rtol=1e-8)
    assert moments.df([[0.0, 1.0]])[0] == pytest.approx(dense.df(np.array([0.0, 1.0])))


# --- clusters ------------------------------------------------------------------------------


def test_clusters_by_name_column_and_array() -> None:
    data = me.load_dataset("threelevel")
    data["region"] = data["sch.cl"].astype(str).map(lambda s: "west" if s < "f" else "east")
    data["region2"] = data["region"].str.upper()
    model = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", data)
    expected = model.robust("CR2").vcov
    codes = pd.factorize(data["sch.cl"])[0]
    shuffled = data["sch.cl"].sample(frac=1.0, random_state=1)
    for cluster in ("sch.cl", codes, list(data["sch.cl"]), shuffled, ["sch.cl"]):
        pd.testing.assert_frame_equal(model.robust("CR2", cluster).vcov, expected)
    by_region = model.robust("CR2", "region")
    assert by_region.n_clusters == (2,)
    check_against_definition(model, "CR2", "region")
    combined = model.robust("CR2", "region:region2")
    pd.testing.assert_frame_equal(combined.vcov, by_region.vcov)


def test_interactions_in_either_order() -> None:
    sleep = me.load_dataset("pastes")
    model = me.lmer("strength ~ 1 + (1 | batch:cask)", sleep)
    a, b = (model.robust("CR2", name).vcov for name in ("batch:cask", "cask:batch"))
    pd.testing.assert_frame_equal(a, b)


def test_clusters_of_rows_with_missing_values() -> None:
    data = me.load_dataset("threelevel")
    data.loc[[3, 77], "y"] = np.nan
    model = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", data)
    expected = model.robust("CR2").vcov
    full = data["sch.cl"].to_numpy()
    for cluster in (full, full[model.frame.positions], data["sch.cl"]):
        pd.testing.assert_frame_equal(model.robust("CR2", cluster).vcov, expected)


def test_row_order_and_labels_do_not_matter() -> None:
    data = me.load_dataset("threelevel")
    start, control = [1.1, 0.7], me.Control(max_evaluations=1)
    relabelled = data.sample(frac=1.0, random_state=3)
    relabelled["sch.cl"] = relabelled["sch.cl"].astype(str).map(lambda s: f"z{-ord(s)}")
    results = []
    for frame in (data, relabelled):
        with pytest.warns(me.ConvergenceWarning):
            model = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", frame, start=start, control=control)
        results.append(model.robust("CR2"))
    np.testing.assert_allclose(results[1].vcov, results[0].vcov, rtol=1e-9)
    np.testing.assert_allclose(results[1].df, results[0].df, rtol=1e-9)


# --- crossed designs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "factors"), [("penicillin", ["plate", "sample"]), ("insteval1500", ["s", "d"])]
)
def test_two_way_reference(name: str, factors: list[str]) -> None:
    model, expected = at_residual_reference(name), robust_reference("crossed")[name]
    both = model.robust("CR0", cluster=factors)
    size = np.sqrt(np.abs(np.diag(expected["vcov"])))
    scale = np.outer(size, size)
    assert not both.repaired
    np.testing.assert_allclose(both.vcov / scale, expected["cgm"] / scale, atol=1e-7)
    for factor, key in zip(factors, ("oneway_g1", "oneway_g2"), strict=True):
        with pytest.warns(me.ClusterWarning, match="V is not block-diagonal"):
            one = model.robust("CR0", cluster=factor, crossed=True)
        np.testing.assert_allclose(one.vcov / scale, expected[key] / scale, atol=1e-7)
        assert one.df.iloc[0] == one.n_clusters[0] - 1


@pytest.mark.parametrize("factors", [["s", "d"], ["s", "d", "service"]])
def test_multiway_by_pairs_of_rows(factors: list[str]) -> None:
    model = at_residual_reference("insteval1500")
    data = model.fit.request.data
    found = model.robust("CR0", cluster=factors)
    codes = [pd.factorize(data[name])[0] for name in factors]
    expected = cameron_gelbach_miller(model.V.dense(), model.X, model.y, codes)
    half = np.linalg.cholesky(np.linalg.inv(model.vcov()))
    values, vectors = np.linalg.eigh(half.T @ expected @ half)
    assert found.smallest_eigenvalue == pytest.approx(values[0] / values[-1], rel=1e-6, abs=1e-9)
    assert found.repaired == (len(factors) == 3)
    root = np.linalg.solve(half.T, vectors * np.sqrt(np.maximum(values, 0.0)))
    np.testing.assert_allclose(found.vcov, root @ root.T, rtol=1e-6)


def test_negative_eigenvalues_are_repaired_and_reported() -> None:
    rng = np.random.default_rng(0)
    n = 60
    a, b = rng.integers(0, 3, n), rng.integers(0, 3, n)
    data = pd.DataFrame({"a": a, "b": b, "x": rng.normal(size=n), "w": rng.normal(size=n)})
    data["y"] = rng.normal(size=n) + rng.normal(size=3)[a]
    model = me.lmer("y ~ x + w + (1 | a) + (1 | b)", data)
    found = model.robust("CR0", cluster=["a", "b"])
    expected = cameron_gelbach_miller(model.V.dense(), model.X, model.y, [a, b])
    negative = np.linalg.eigvalsh(expected)[0] < 0.0
    assert found.repaired == negative
    assert negative, "the example is meant to need a repair"
    assert np.linalg.eigvalsh(found.vcov)[0] > -1e-15
    assert found.smallest_eigenvalue < 0.0
    assert "Negative eigenvalues" in repr(found)
    assert "Negative eigenvalues" in found._repr_html_()


def test_multiway_small_sample_factors_and_tests() -> None:
    model = at_residual_reference("insteval1500")
    robust = model.robust("CR1", cluster=["s", "d"])
    assert (robust.df == min(robust.n_clusters) - 1).all()
    assert (robust.se > model.robust("CR0", cluster=["s", "d"]).se).all()
    naive, chi = robust.test("service", "Naive-F"), robust.test("service", "chi-sq")
    assert naive.statistic == pytest.approx(robust.table.loc["service1", "t value"] ** 2)
    assert naive.p > chi.p
    with pytest.raises(me.ModelError, match="'HTZ' is not defined where clusters cut"):
        robust.test("service")
    with pytest.raises(me.ModelError, match="saddlepoint is not defined where"):
        robust.coef_table("saddlepoint")
    with pytest.raises(me.ModelError, match="CR2 is not defined where clusters cut"):
        model.robust("CR2", cluster=["s", "d"])


# --- the face ----------------------------------------------------------------------------------


def test_model_methods_agree() -> None:
    model = at_residual_reference("threelevel")
    robust = model.robust("CR2", cluster="sch.cl")
    pd.testing.assert_frame_equal(model.vcov("CR2", cluster="sch.cl"), robust.vcov)
    pd.testing.assert_frame_equal(model.vcov("cr2"), robust.vcov)
    table = model.coef_table(vcov="CR2", cluster="sch.cl")
    pd.testing.assert_frame_equal(table, robust.table)
    narrow = model.coef_table(vcov="CR2", level=None)
    assert list(narrow.columns) == ["Estimate", "Std. Error", "df", "t value", "Pr(>|t|)"]
    wide = model.robust(level=0.9).table
    assert list(wide.columns[-2:]) == ["lower", "upper"]


def test_text_and_html() -> None:
    robust = at_residual_reference("threelevel").robust("CR2")
    first = "CR2 covariance, clusters sch.cl (10), Satterthwaite's degrees of freedom"
    assert repr(robust).splitlines()[0] == first
    assert "<caption>CR2 covariance" in robust._repr_html_()
    assert repr(robust.test("x1")).startswith("HTZ: F(1, 8.0) = ")


def test_too_few_clusters_for_a_test() -> None:
    """No degrees of freedom: no p-value."""
    model = generated()
    robust = model.robust("CR0")
    assert robust.test(np.eye(3), "Naive-Fp").den_df == 3.0
    with pytest.warns(me.ClusterWarning, match="'w' one by one"):
        two = model.robust("CR0", cluster=np.asarray(model.frame.data["outer"] == "o1"))
    with pytest.raises(me.ModelError, match="the clusters determine them"):
        two.test(np.eye(3))
    three = model.robust(
        "CR0", cluster=np.asarray(model.frame.data["outer"].str[1].astype(int) // 2)
    )
    with pytest.raises(me.ModelError, match="its rank is at most the number of clusters"):
        three.test(np.eye(3))
    assert two.coef_table("naive-tp")["Pr(>|t|)"].isna().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.robust("CR4"), "'CR4' is not known; there are 'CR0', 'CR1'"),
        (
            lambda m: m.vcov("HC3"),
            "'HC3' is not known; .* 'kr', 'kr-observed' and the cluster-robust",
        ),
        (lambda m: m.robust(cluster="tch.cl:sch.cl"), "share level .* of 'sch.cl' with rows of"),
        (lambda m: m.robust(cluster="nothing"), "There is no column `nothing`"),
        (lambda m: m.robust(cluster=["nothing", "sch.cl"]), "There is no column `nothing`"),
        (lambda m: m.robust(cluster=[]), "names no factor"),
        (lambda m: m.robust(cluster=np.ones(150)), "All rows lie in one cluster of 'cluster'"),
        (lambda m: m.robust(cluster=np.ones(149)), "must have 150 values"),
        (lambda m: m.robust(cluster=3), "must be the name of a grouping factor"),
        (lambda m: m.robust(cluster="region"), "'region' has 2 missing values"),
        (lambda m: m.robust(cluster=pd.Series([1.0, 2.0])), "row labels of the clusters"),
        (lambda m: m.robust(level=95), "level must lie between 0 and 1"),
        (lambda m: m.robust().test("x2"), "no term or coefficient 'x2'. The terms are 'x1'"),
        (lambda m: m.robust().test([[0.0, 1.0, 0.0]]), "must have 2 columns"),
        (lambda m: m.robust().test([[0, 1], [0, 2]]), "have rank 1"),
        (lambda m: m.robust().test([[0, 0]]), "Row 1 of the hypothesis matrix is zero"),
        (lambda m: m.robust().test([[0, np.nan]]), "1 values not finite"),
        (lambda m: m.robust().test({"x": 1}), "A hypothesis is the name"),
        (lambda m: m.robust().test("x1", "F"), "test 'F' is not known; there are 'HTZ'"),
        (lambda m: m.robust().coef_table("F"), "test 'F' is not known; there are 'Satterth"),
    ],
)
def test_errors_are_sentences(call: Any, message: str) -> None:
    with pytest.raises(me.MixedEffectsError, match=message):
        call(_with_regions())


@cache
def _with_regions() -> me.LinearMixedModel:
    data = me.load_dataset("threelevel")
    data["region"] = data["sch.cl"].astype(str).map(lambda s: "west" if s < "f" else "east")
    data.loc[[0, 5], "region"] = None
    return me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", data)


def test_crossed_factors_need_a_choice() -> None:
    model = at_residual_reference("penicillin")
    with pytest.raises(me.ModelError, match="are crossed, so none of them is the outermost"):
        model.robust("CR2")
    with pytest.raises(me.ModelError, match="crossed=True to add up the scores by 'plate'"):
        model.robust("CR0", cluster="plate")


def test_clusters_too_large_to_decompose_are_refused() -> None:
    model = generated("all different")
    with (
        mock.patch.object(bias_reduction, "_MOST_ROWS", 50),
        pytest.raises(me.ModelError, match="CR2 needs the eigenvectors of a matrix with"),
    ):
        model.robust("CR2")


def test_clusters_that_are_the_groups_compared_say_nothing_of_their_difference() -> None:
    data = me.load_dataset("orthodont")
    m = me.lmer("distance ~ age + Sex + (1 | Subject)", data)
    with pytest.warns(me.ClusterWarning, match=r"\(2 of Sex\) determine .*'SexFemale' one by one"):
        robust = m.robust("CR0", cluster="Sex")
    assert np.isnan(robust.se["SexFemale"]) and np.isnan(robust.df["SexFemale"])
    assert robust.se["age"] > 0.0
    with pytest.warns(me.ClusterWarning), pytest.raises(me.ModelError, match="not known"):
        m.wald("Sex", vcov="CR0", cluster="Sex")
    full = me.lmer("distance ~ age * Sex + (1 | Subject)", data)
    with pytest.raises(me.ModelError, match="determine every coefficient one by one"):
        full.coef_table(vcov="CR2", cluster="Sex")
